//! Who leads which shard group, as far as this node has heard.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::member::Lead;
use crate::home::MAX_GROUPS;
use crate::node_id::NodeId;
use crate::router::{Router, Service};
use crate::wire::WirePort;

/// The newest leader of each group. What is older than a known term is not believed.
#[derive(Debug, Default)]
pub(crate) struct Leads(Mutex<Vec<Known>>);

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// As a member said that can be named, of itself or as the control leader.
    lead: Option<Lead>,
    /// Where mail goes because of a hint.
    hinted: Option<NodeId>,
}

impl Leads {
    /// Takes over what is newer.
    pub(crate) fn learn(&self, leads: &[Lead], router: &Router) {
        let mut groups = self.0.lock();
        for lead in leads {
            let Some(known) = group(&mut groups, lead.group) else { continue };
            let newer = known.lead.is_none_or(|known| known.term < lead.term);
            if newer {
                known.lead = Some(*lead);
            }
            let at = usize::from(lead.group);
            // What is known for sure ends what was hinted, unless mail found its way since.
            let misled = known.lead == Some(*lead)
                && known.hinted.is_some_and(|node| node != lead.node && router.view.leader(at) == Some(node));
            if newer || misled {
                known.hinted = None;
                // This node knows best itself what it leads.
                if lead.node != router.view.me {
                    router.view.set_leader(at, Some(lead.node));
                    router.tell_news();
                }
            }
        }
    }

    /// Sends mail to where a group leads by hearsay, until more is known. It is not passed on to others.
    pub(crate) fn hint(&self, lead: Lead, router: &Router) {
        let (view, at) = (&router.view, usize::from(lead.group));
        let mut groups = self.0.lock();
        let Some(known) = group(&mut groups, lead.group) else { return };
        let older = known.lead.is_some_and(|known| known.term >= lead.term);
        let own = lead.node == view.me || view.leader(at) == Some(view.me);
        if older || own || view.leader(at) == Some(lead.node) || router.lane(lead.node).is_none() {
            return;
        }
        known.hinted = Some(lead.node);
        view.set_leader(at, Some(lead.node));
        router.tell_news();
    }

    /// The groups that a node leads.
    pub(crate) fn led_by(&self, node: NodeId) -> Vec<Lead> {
        self.0.lock().iter().filter_map(|known| known.lead).filter(|lead| lead.node == node).collect()
    }

    /// All that is known.
    pub(crate) fn all(&self) -> Vec<Lead> {
        self.0.lock().iter().filter_map(|known| known.lead).collect()
    }
}

fn group(groups: &mut Vec<Known>, number: u8) -> Option<&mut Known> {
    let at = usize::from(number);
    if at < MAX_GROUPS && groups.len() <= at {
        groups.resize(at + 1, Known::default());
    }
    groups.get_mut(at)
}

/// Takes the news that a node leads a group.
pub(crate) struct LeadsService {
    pub(crate) leads: Arc<Leads>,
    pub(crate) router: Arc<Router>,
}

impl Service for LeadsService {
    fn serve(&self, from: NodeId, _: &str, body: Bytes, _: Option<WirePort>) {
        let Ok(leads) = postcard::from_bytes::<Vec<Lead>>(&body) else { return };
        // One member never speaks for another.
        let own: Vec<_> = leads.into_iter().filter(|lead| lead.node == from).collect();
        self.leads.learn(&own, &self.router);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::View;
    use crate::task::Tasks;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn lead(term: u64, node: NodeId) -> Lead {
        Lead { group: 3, term, node }
    }

    fn router() -> Router {
        Router::new(Arc::new(View::new(ME)), Arc::new(Tasks::default()))
    }

    #[test]
    fn a_hint_changes_neither_what_is_known_nor_what_this_node_leads() {
        let (leads, router) = (Leads::default(), router());
        leads.learn(&[lead(5, OTHER)], &router);
        // No lane leads there, so it helps nobody.
        leads.hint(lead(9, NodeId(3)), &router);
        leads.hint(Lead { group: u8::MAX, ..lead(9, NodeId(3)) }, &router);
        assert_eq!((leads.all(), router.view.leader(3)), (vec![lead(5, OTHER)], Some(OTHER)));
        router.view.set_leader(3, Some(ME));
        leads.hint(lead(9, OTHER), &router);
        assert_eq!(router.view.leader(3), Some(ME));
    }

    #[test]
    fn what_is_known_ends_what_was_hinted() {
        let (leads, router) = (Leads::default(), router());
        leads.learn(&[lead(5, OTHER)], &router);
        // As `hint` does for a node with a lane.
        leads.0.lock()[3].hinted = Some(NodeId(3));
        router.view.set_leader(3, Some(NodeId(3)));
        leads.learn(&[lead(4, NodeId(4))], &router);
        assert_eq!(router.view.leader(3), Some(NodeId(3)), "older than what is known");
        leads.learn(&[lead(5, OTHER)], &router);
        assert_eq!(router.view.leader(3), Some(OTHER));
        // Mail that was moved on meanwhile is not called back.
        router.view.set_leader(3, Some(NodeId(4)));
        leads.learn(&[lead(5, OTHER)], &router);
        assert_eq!(router.view.leader(3), Some(NodeId(4)));
    }
}
