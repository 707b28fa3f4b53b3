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
pub(crate) struct Leads(Mutex<Vec<Option<Lead>>>);

impl Leads {
    /// Takes over what is newer.
    pub(crate) fn learn(&self, leads: &[Lead], router: &Router) {
        let mut known = self.0.lock();
        for lead in leads {
            let at = usize::from(lead.group);
            if at >= MAX_GROUPS {
                continue;
            }
            if known.len() <= at {
                known.resize(at + 1, None);
            }
            if known[at].is_none_or(|known| known.term < lead.term) {
                known[at] = Some(*lead);
                // This node knows best itself what it leads.
                if lead.node != router.view.me {
                    router.view.set_leader(at, Some(lead.node));
                    router.tell_news();
                }
            }
        }
    }

    /// The groups that a node leads.
    pub(crate) fn led_by(&self, node: NodeId) -> Vec<Lead> {
        self.0.lock().iter().flatten().filter(|lead| lead.node == node).copied().collect()
    }

    /// All that is known.
    pub(crate) fn all(&self) -> Vec<Lead> {
        self.0.lock().iter().flatten().copied().collect()
    }
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
