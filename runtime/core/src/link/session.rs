//! `sys.sessions`: keeps one session of `ractor_cluster` to every member to which there is a lane.
//!
//! One per node, and in one node of a process only ([`Claim`]). Durable: no. Lost in a crash: all sessions, which start again
//! with it. Nothing else depends on them: without sessions a node serves all the same.
//!
//! A session runs over a stream of [`Protocol::Session`], so its far end has proven a member's key before `ractor_cluster` reads
//! a byte. The member with the larger id dials; the smaller one too, when there is none for [`PATIENCE`]. Of two the node
//! server keeps the one that the larger id dialled. A session counts once it is ready and passed the [`check`]; one that is
//! not ready within [`READY_WITHIN`] is stopped.
//!
//! The end of a session that counted is told as [`Evidence::Closed`], like that of a lane; the watch over the members takes
//! both for one. Its begin says nothing that the begin of the lane did not.

mod check;
mod claim;
mod stream;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ractor::registry::pid_registry;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use ractor_cluster::node::NodeServerSessionInformation as Session;
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage, NodeSessionMessage,
};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(crate) use check::Table;
pub(crate) use claim::Claim;

use super::gateway::{self, News};
use super::hint::{FRAME_MAX, Hint};
use super::peers::{Evidence, Peer, Witness};
use crate::control::Cookie;
use crate::identity::Identity;
use crate::node_id::NodeId;
use crate::router::Router;
use crate::telemetry::LinkMetrics;
use crate::transport::{self, AuthStream, ClusterTransport, Protocol};
use check::check;
use stream::SessionStream;

/// The member with the smaller id waits this long for the other to dial.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a session that came to nothing; doubled with each. Long in the end: a node may have no sessions at all.
const REDIAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));
/// A session is ready after a few round trips.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// Streams that one member may have open: a session, and its successor while the old one is not known to have ended.
const STREAMS: usize = 3;
/// How often a node looks whether it has news of itself.
const TELL: Duration = Duration::from_secs(2);
/// A load that differs by less is no news.
const LOAD_STEP: u16 = 20;
/// A session that is told to stop has this long.
const STOP: Duration = Duration::from_millis(500);

/// The `ractor_cluster` side of a node. It listens, as it always does, but at a door without a key: sessions come in through
/// the node's own listener, which knows who is there.
pub(crate) fn node_server(me: NodeId, cookie: &Cookie, identity: &Identity) -> NodeServer {
    let cookie = cookie.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let (id, locked) = (me.to_string(), IncomingEncryptionMode::Tls(transport::locked(identity)));
    // Its own name as that of the host: equal `host:port` would be taken for a connection to itself.
    NodeServer::new(0, cookie, id.clone(), id, Some(locked), None)
        .with_listen_addr(Ipv4Addr::LOCALHOST.into())
        .with_max_inbound_frame_size(FRAME_MAX as u64)
}

/// What [`Sessions`] understands.
pub(crate) enum SessionsMsg {
    /// The other members are these.
    Members(HashMap<NodeId, Peer>),
    /// A lane to a member is open.
    LaneUp(NodeId),
    /// A member opened a stream for a session.
    Accepted(AuthStream),
    /// A member was dialled.
    Dialled(AuthStream),
    /// A dial did not succeed.
    Failed(NodeId),
    /// The node server has begun a session.
    Opened(Session),
    /// A session has exchanged what it begins with.
    Ready(Session),
    /// A session has ended.
    Gone(Session),
    /// Time for a session to be ready.
    Late(ActorId),
    /// Time to look whether a member has to be dialled.
    Look(NodeId),
    /// Time to look whether there is news of this node.
    Tell,
}

impl ractor::Message for SessionsMsg {}

/// The behaviour; its data is [`State`].
pub(crate) struct Sessions {
    pub(crate) router: Arc<Router>,
    pub(crate) transport: Arc<dyn ClusterTransport>,
    pub(crate) server: ActorRef<NodeServerMessage>,
    pub(crate) table: Arc<Table>,
    pub(crate) news: Arc<News>,
    pub(crate) metrics: Arc<LinkMetrics>,
    pub(crate) witness: Witness,
    /// How this node is: a [`Hint::State`].
    pub(crate) now: Arc<dyn Fn() -> Hint + Send + Sync>,
}

pub(crate) struct State {
    peers: HashMap<NodeId, Link>,
    open: HashMap<ActorId, Open>,
    told: Option<Hint>,
    telling: AbortHandle,
}

impl Drop for State {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

/// What is known of one peer.
struct Link {
    peer: Peer,
    /// The session that counts, and the start of the peer that it is with.
    current: Option<(ActorId, Option<u64>)>,
    dialling: bool,
    /// Until then a stream that was handed over may become a session.
    opening: Option<Instant>,
    failures: u32,
    /// Before this time the peer should dial.
    patient_until: Instant,
    streams: Arc<Semaphore>,
}

/// A session that the node server runs.
struct Open {
    node: NodeId,
    number: u64,
    session: ActorRef<NodeSessionMessage>,
    ready: bool,
}

impl Actor for Sessions {
    type Msg = SessionsMsg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<SessionsMsg>, (): ()) -> Result<State, ActorProcessingErr> {
        self.table.clear();
        let subscription = Box::new(Events(me.clone()));
        self.server.cast(NodeServerMessage::SubscribeToEvents { id: "sys.sessions".to_owned(), subscription })?;
        let telling = me.send_interval(TELL, || SessionsMsg::Tell).abort_handle();
        Ok(State { peers: HashMap::new(), open: HashMap::new(), told: None, telling })
    }

    async fn handle(
        &self,
        me: ActorRef<SessionsMsg>,
        msg: SessionsMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            SessionsMsg::Members(members) => self.members(&me, members, state),
            SessionsMsg::LaneUp(node) => self.lane_up(&me, node, state),
            SessionsMsg::Accepted(stream) => self.hand_over(&me, stream, true, state),
            SessionsMsg::Dialled(stream) => self.hand_over(&me, stream, false, state),
            SessionsMsg::Failed(node) => Self::failed(&me, node, state),
            SessionsMsg::Opened(session) => Self::opened(&me, session, state),
            SessionsMsg::Ready(session) => self.ready(&session, state),
            SessionsMsg::Gone(session) => self.gone(&me, &session, state),
            SessionsMsg::Late(session) => Self::late(session, state),
            SessionsMsg::Look(node) => self.look(&me, node, state),
            SessionsMsg::Tell => self.tell(state),
        }
        Ok(())
    }

    /// The node server kills what runs when it stops; a session that may end by itself lets go of what it watches.
    async fn post_stop(&self, _: ActorRef<SessionsMsg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        self.table.clear();
        let sessions = state.open.drain().map(|(id, open)| async move {
            let _ = open.session.stop_and_wait(None, Some(STOP)).await;
            pid_registry::demonitor(id);
        });
        join_all(sessions).await;
        Ok(())
    }
}

impl Sessions {
    fn members(&self, me: &ActorRef<SessionsMsg>, members: HashMap<NodeId, Peer>, state: &mut State) {
        state.peers.retain(|node, _| members.contains_key(node));
        for open in state.open.values().filter(|open| !members.contains_key(&open.node)) {
            self.table.forget(open.number);
            self.news.forget(open.node);
            open.session.stop(Some("removed".to_owned()));
        }
        for (node, peer) in members {
            if let Some(link) = state.peers.get_mut(&node) {
                link.peer = peer;
                continue;
            }
            let link = Link {
                peer,
                current: None,
                dialling: false,
                opening: None,
                failures: 0,
                patient_until: Instant::now() + PATIENCE,
                streams: Arc::new(Semaphore::new(STREAMS)),
            };
            state.peers.insert(node, link);
            let _ = me.send_message(SessionsMsg::Look(node));
        }
    }

    /// Whoever has a lane can have a session.
    fn lane_up(&self, me: &ActorRef<SessionsMsg>, node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        let start = self.start_of(node);
        let Some((id, with)) = &mut link.current else {
            (link.failures, link.patient_until) = (0, Instant::now() + PATIENCE);
            let _ = me.send_message(SessionsMsg::Look(node));
            return;
        };
        let Some(start) = start else { return };
        if start > *with.get_or_insert(start)
            && let Some(open) = state.open.get(id)
        {
            // The peer has started anew; that the old session has ended was not heard.
            open.session.stop(Some("peer has started anew".to_owned()));
        }
    }

    /// Which start of the peer the lane is with.
    fn start_of(&self, node: NodeId) -> Option<u64> {
        self.router.lane(node).map(|lane| lane.incarnation())
    }

    fn hand_over(&self, me: &ActorRef<SessionsMsg>, stream: AuthStream, is_server: bool, state: &mut State) {
        let node = stream.peer.node_id();
        let Some(link) = state.peers.get_mut(&node) else { return };
        if !is_server {
            link.dialling = false;
        }
        let Ok(permit) = link.streams.clone().try_acquire_owned() else {
            return tracing::debug!(peer = %node, "too many sessions");
        };
        let stream = Box::new(SessionStream::new(stream, permit));
        if self.server.cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server }).is_ok() {
            link.opening = Some(Instant::now() + READY_WITHIN);
            // In case nothing more is heard of it.
            let _ = me.send_message(SessionsMsg::Look(node));
        }
    }

    fn failed(me: &ActorRef<SessionsMsg>, node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        link.dialling = false;
        link.failures += 1;
        look_later(me, node, link);
    }

    fn opened(me: &ActorRef<SessionsMsg>, session: Session, state: &mut State) {
        let id = session.actor.get_id();
        let Some(node) = session.peer_addr.parse().ok().filter(|node| state.peers.contains_key(node)) else {
            return session.actor.stop(Some("not a member".to_owned()));
        };
        let open = Open { node, number: session.node_id, session: session.actor, ready: false };
        state.open.insert(id, open);
        me.send_after(READY_WITHIN, move || SessionsMsg::Late(id));
    }

    fn ready(&self, session: &Session, state: &mut State) {
        let id = session.actor.get_id();
        let Some(open) = state.open.get_mut(&id) else { return };
        let name = session.peer_name.as_ref().map(|name| name.name.as_str());
        let node = match check(&session.peer_addr, name, &gateway::claimed_through(open.number)) {
            Ok(node) => node,
            Err(mismatch) => {
                self.metrics.rejected(mismatch.as_str());
                tracing::warn!(peer = session.peer_addr, reason = mismatch.as_str(), "session refused");
                return session.actor.stop(Some("not who it should be".to_owned()));
            }
        };
        let Some(link) = state.peers.get_mut(&node) else { return };
        open.ready = true;
        (link.failures, link.opening) = (0, None);
        link.current = Some((id, self.start_of(node)));
        self.table.admit(open.number, node);
        tracing::debug!(peer = %node, "session up");
        gateway::tell(&self.table, Some(node), &(self.now)());
    }

    fn gone(&self, me: &ActorRef<SessionsMsg>, session: &Session, state: &mut State) {
        let id = session.actor.get_id();
        // It does so itself, unless it was killed.
        pid_registry::demonitor(id);
        let Some(open) = state.open.remove(&id) else { return };
        self.table.forget(open.number);
        let node = open.node;
        let Some(link) = state.peers.get_mut(&node) else { return };
        if link.current.is_some_and(|(current, _)| current == id) {
            link.current = None;
            link.patient_until = Instant::now() + PATIENCE;
            self.news.forget(node);
            tracing::debug!(peer = %node, "session down");
            (self.witness)(Evidence::Closed(node));
            let _ = me.send_message(SessionsMsg::Look(node));
        } else if !open.ready {
            link.opening = None;
            // Of two that begin at once one is to end.
            if link.current.is_none() && !state.open.values().any(|other| other.node == node) {
                self.metrics.rejected("session_handshake");
                link.failures += 1;
            }
            look_later(me, node, link);
        }
    }

    fn late(session: ActorId, state: &State) {
        if let Some(open) = state.open.get(&session).filter(|open| !open.ready) {
            open.session.stop(Some("not ready in time".to_owned()));
        }
    }

    fn look(&self, me: &ActorRef<SessionsMsg>, node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        // Without a lane there is nobody to dial; it will be heard of.
        if link.current.is_some() || link.dialling || self.router.lane(node).is_none() {
            return;
        }
        let patient = (self.router.view.me < node).then_some(link.patient_until);
        let waits = link.opening.max(patient).map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(wait) = waits.filter(|wait| !wait.is_zero()) {
            me.send_after(wait, move || SessionsMsg::Look(node));
            return;
        }
        link.dialling = true;
        let (me, transport, peer) = (me.clone(), self.transport.clone(), link.peer.clone());
        let dialling = async move {
            let msg = match transport.dial(&peer.addr, peer.key, Protocol::Session).await {
                Ok(stream) => SessionsMsg::Dialled(stream),
                Err(error) => {
                    tracing::debug!(peer = %node, addr = peer.addr, %error, "no session");
                    SessionsMsg::Failed(node)
                }
            };
            let _ = me.send_message(msg);
        };
        self.router.tasks().spawn("session.dial", dialling).detach();
    }

    fn tell(&self, state: &mut State) {
        let now = (self.now)();
        if is_news(state.told.as_ref(), &now) {
            gateway::tell(&self.table, None, &now);
            state.told = Some(now);
        }
    }
}

fn look_later(me: &ActorRef<SessionsMsg>, node: NodeId, link: &Link) {
    let wait = REDIAL.0 * 2_u32.saturating_pow(link.failures.saturating_sub(1).min(9));
    let wait = wait.min(REDIAL.1).mul_f64(rand::random_range(0.8..1.2));
    me.send_after(wait, move || SessionsMsg::Look(node));
}

/// Whether the others should hear how this node is now, after what they heard last.
fn is_news(told: Option<&Hint>, now: &Hint) -> bool {
    match (told, now) {
        (Some(Hint::State { load_permille: told, epoch: seen, .. }), Hint::State { load_permille: now, epoch, .. }) => {
            seen != epoch || told.abs_diff(*now) >= LOAD_STEP
        }
        _ => true,
    }
}

/// Passes the events of the node server on. It calls from its own loop, so nothing here may wait.
struct Events(ActorRef<SessionsMsg>);

impl Events {
    fn pass_on(&self, msg: SessionsMsg) {
        // Nobody is left to hear it when the node stops.
        let _ = self.0.send_message(msg);
    }
}

impl NodeEventSubscription for Events {
    fn node_session_opened(&self, session: Session) {
        self.pass_on(SessionsMsg::Opened(session));
    }

    fn node_session_disconnected(&self, session: Session) {
        self.pass_on(SessionsMsg::Gone(session));
    }

    fn node_session_authenticated(&self, _: Session) {}

    fn node_session_ready(&self, session: Session) {
        self.pass_on(SessionsMsg::Ready(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stays_as_it_is_says_nothing() {
        let state = |load_permille, epoch| Hint::State { node: NodeId(1), load_permille, epoch };
        assert!(is_news(None, &state(0, 1)));
        assert!(!is_news(Some(&state(100, 1)), &state(100, 1)));
        assert!(!is_news(Some(&state(100, 1)), &state(119, 1)));
        assert!(is_news(Some(&state(100, 1)), &state(80, 1)));
        assert!(is_news(Some(&state(100, 1)), &state(100, 2)));
    }
}
