//! Sessions with the other nodes, from the cluster's side: starts what keeps them, feeds it, shows what they tell.
//!
//! ```text
//! cluster (supervisor) -> sys.presence (supervisor, all for one) -> gateway, node server, sessions
//! ```
//!
//! The three make sense only together. They may crash as often as the back-off lets them without an end of the node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::FutureExt;
use parking_lot::Mutex;
use ractor::{Actor, ActorRef};
use ractor_cluster::NodeServerMessage;

use super::member::{self, MemberMsg};
use super::start::others;
use super::{Cluster, Inner};
use crate::control::MemberState;
use crate::link::gateway::{self, Gateway, News, NodeNews};
use crate::link::hint::Hint;
use crate::link::peers::Peer;
use crate::link::session::{Claim, Sessions, SessionsMsg, Table, node_server};
use crate::node_id::NodeId;
use crate::supervisor::{ChildSpec, RestartPolicy, Strategy, SupervisorSpec};
use crate::telemetry::LinkMetrics;
use crate::transport::AuthStream;
use crate::village::Village;

/// More than the back-off of 50 ms to 10 s has room for.
const POLICY: RestartPolicy = RestartPolicy::SYSTEM.intensity(20, Duration::from_mins(1));

/// What a node has of sessions.
#[derive(Default)]
pub(crate) struct Presence {
    claim: Mutex<Option<Claim>>,
    table: Arc<Table>,
    news: Arc<News>,
    server: ArcSwapOption<ActorRef<NodeServerMessage>>,
    sessions: ArcSwapOption<ActorRef<SessionsMsg>>,
}

impl Presence {
    /// The other members are these.
    pub(crate) fn members(&self, members: HashMap<NodeId, Peer>) {
        self.send(SessionsMsg::Members(members));
    }

    /// A lane to a member is open.
    pub(crate) fn lane_up(&self, node: NodeId) {
        self.send(SessionsMsg::LaneUp(node));
    }

    /// A member opened a stream for a session; closed if this node has none.
    pub(crate) fn accepted(&self, stream: AuthStream) {
        self.send(SessionsMsg::Accepted(stream));
    }

    /// Tells all members with which there is a session. Never waits.
    pub(crate) fn tell(&self, hint: &Hint) {
        gateway::tell(&self.table, None, hint);
    }

    /// Lets another node of this process have sessions; to be called when those of this one have ended.
    pub(crate) fn end(&self) {
        self.sessions.store(None);
        self.server.store(None);
        *self.claim.lock() = None;
    }

    fn send(&self, msg: SessionsMsg) {
        if let Some(sessions) = &*self.sessions.load() {
            let _ = sessions.send_message(msg);
        }
    }
}

impl Cluster {
    /// Members with which this node has a session: it hears their process groups, and the actors of both reach each other.
    #[must_use]
    pub fn sessions(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.0.presence.table.all().into_iter().map(|(_, node)| node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Nodes that host a kind now, with the versions of its messages. Those without a session are missing; a node that has
    /// no sessions itself says what the membership says.
    #[must_use]
    pub fn hosts(&self, kind: &str) -> Vec<(NodeId, u16)> {
        let inner = &self.0;
        if inner.presence.claim.lock().is_some() {
            return gateway::hosts(kind, inner.router.view.me, &inner.presence.table);
        }
        inner.control.replica.read(|state| {
            let up = state.members().filter(|member| member.state == MemberState::Up);
            let hosted = up.flat_map(|member| member.record.kinds.iter().map(|hosted| (member.record.id, hosted)));
            hosted.filter(|(_, hosted)| hosted.name == kind).map(|(node, hosted)| (node, hosted.version)).collect()
        })
    }

    /// What the other nodes said of themselves last.
    #[must_use]
    pub fn news(&self) -> BTreeMap<NodeId, NodeNews> {
        self.0.presence.news.all()
    }

    /// Has sessions from now on, if no other node of this process has.
    pub(super) async fn start_sessions(&self, village: &Village) {
        let presence = &self.0.presence;
        let Some(claim) = Claim::take() else {
            tracing::info!("another node of this process has sessions, so this one does without");
            return;
        };
        let Some(services) = self.0.services.get() else { return };
        *presence.claim.lock() = Some(claim);
        if let Err(error) = services.add(self.presence_spec(village)).await {
            tracing::warn!(%error, "no sessions with other nodes");
            presence.end();
        }
    }

    fn presence_spec(&self, village: &Village) -> ChildSpec {
        let spec = SupervisorSpec::new("sys.presence", Strategy::OneForAll)
            .policy(POLICY)
            .child(self.gateway_spec())
            .child(self.node_server_spec())
            .child(self.sessions_spec(village));
        ChildSpec::supervisor("sys.presence", spec)
    }

    fn gateway_spec(&self) -> ChildSpec {
        let inner = self.0.clone();
        ChildSpec::actor("sys.gateway", move || {
            let gateway = Gateway {
                router: inner.router.clone(),
                kinds: inner.record.kinds.clone(),
                leads: inner.leads.clone(),
                table: inner.presence.table.clone(),
                news: inner.presence.news.clone(),
            };
            (gateway, ())
        })
    }

    fn node_server_spec(&self) -> ChildSpec {
        let inner = self.0.clone();
        ChildSpec::new("sys.node_server", move |supervisor| {
            let inner = inner.clone();
            async move {
                let server = node_server(inner.record.id, &inner.cluster.cookie, &inner.identity);
                let (server, _) = Actor::spawn_linked(None, server, (), supervisor).await?;
                inner.presence.server.store(Some(Arc::new(server.clone())));
                Ok(server.get_cell())
            }
            .boxed()
        })
    }

    fn sessions_spec(&self, village: &Village) -> ChildSpec {
        let (inner, village) = (self.0.clone(), village.clone());
        let metrics = village.metrics::<LinkMetrics>();
        ChildSpec::new("sys.sessions", move |supervisor| {
            let (inner, now, metrics) = (inner.clone(), now(&inner, &village), metrics.clone());
            async move {
                let server = inner
                    .presence
                    .server
                    .load_full()
                    .ok_or_else(|| ractor::SpawnErr::StartupFailed("there is no node server".into()))?;
                let witness = inner.member.clone();
                let sessions = Sessions {
                    router: inner.router.clone(),
                    transport: inner.transport.clone(),
                    server: ActorRef::clone(&server),
                    table: inner.presence.table.clone(),
                    news: inner.presence.news.clone(),
                    metrics,
                    witness: Arc::new(move |evidence| member::tell(&witness, MemberMsg::Evidence(evidence))),
                    now,
                };
                let (sessions, _) = Actor::spawn_linked(None, sessions, (), supervisor).await?;
                inner.presence.sessions.store(Some(Arc::new(sessions.clone())));
                let _ = sessions.send_message(SessionsMsg::Members(others(&inner)));
                Ok(sessions.get_cell())
            }
            .boxed()
        })
    }
}

/// Says how this node is, when asked.
fn now(inner: &Arc<Inner>, village: &Village) -> Arc<dyn Fn() -> Hint + Send + Sync> {
    let (inner, village) = (inner.clone(), village.clone());
    Arc::new(move || Hint::State {
        node: inner.record.id,
        load_permille: permille(village.live_actors(), village.max_actors()),
        epoch: inner.control.replica.read(crate::control::ControlState::epoch),
    })
}

fn permille(part: usize, whole: usize) -> u16 {
    let permille = part.saturating_mul(1000).checked_div(whole).unwrap_or(1000);
    u16::try_from(permille.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_a_part_of_a_thousand() {
        assert_eq!([permille(0, 10), permille(1, 3), permille(10, 10), permille(11, 10)], [0, 333, 1000, 1000]);
        assert_eq!([permille(0, 0), permille(usize::MAX, 1)], [1000, 1000]);
    }
}
