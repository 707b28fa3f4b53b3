//! Keeps one lane to every other member: takes those that peers open, dials the others, decides between two.
//!
//! The member with the larger id dials. The smaller one dials too when a peer has been without a lane for [`PATIENCE`] (the
//! larger one may be behind a NAT), and at its own start, so that a restarted node is back at once. Of two lanes to one
//! start of a peer the one that the larger id dialled stays.
//!
//! A peer that was not met since this node's start may have moved: it is looked for at the addresses of the configuration
//! too, but not at those where somebody else is known to be. One node that is found so tells where the others are.
//!
//! A lane on which nothing arrives is pinged, and closed after [`SILENCE`]: whoever waits for an answer over it should know.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::lane::{self, Lane};
use super::record::{Hello, PROTO};
use crate::clock;
use crate::identity::PublicKey;
use crate::node_id::NodeId;
use crate::router::Router;
use crate::transport::{AuthStream, ClusterTransport, Protocol, is_refusal};

/// The member with the smaller id waits this long for the other to dial.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a failed dial; doubled with each.
const REDIAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Dials that do not wait for the other: two that are refused, after others that met a process in the course of ending.
const EAGER: u32 = 4;

/// Refusals in a row, some seconds apart in the end, that are told.
const REFUSALS: u32 = 5;

/// How often lanes are looked at, and after how many looks without a byte one is pinged and closed.
const LOOK: Duration = Duration::from_millis(500);
const PING_AFTER: u32 = 1;
const SILENCE: u32 = 4;

/// What links say about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A lane to it is open.
    Up(NodeId),
    /// The lane has closed.
    Closed(NodeId),
    /// Nothing listened where it did, when it was dialled at this boot time in milliseconds.
    Refused(NodeId, u64),
}

/// Hears of [`Evidence`]; must not wait.
pub(crate) type Witness = Arc<dyn Fn(Evidence) + Send + Sync>;

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    pub(crate) addr: String,
}

/// What [`Peers`] understands.
pub(crate) enum PeersMsg {
    /// The other members are these.
    Members(HashMap<NodeId, Peer>),
    /// A member opened a stream for a lane.
    Accepted(AuthStream),
    /// A member was met at an address that is not the known one.
    Met(NodeId, String),
    /// A member turned this node away because of its key.
    Unwanted(NodeId),
    /// A lane is open.
    Opened(Arc<Lane>, Dialler),
    /// A lane has ended.
    Closed(Arc<Lane>),
    /// A dial did not succeed; when it was begun, if nothing listens there.
    Failed(NodeId, Option<u64>),
    /// Time to look whether a peer has to be dialled.
    Look(NodeId),
    /// Whether this peer, to which there is no lane, is there: dial it now.
    Probe(NodeId),
    /// Time to look whether all peers are there.
    Listen,
}

impl ractor::Message for PeersMsg {}

/// Who opened a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialler {
    Me,
    Them,
}

/// The behaviour; its data is [`State`].
pub(crate) struct Peers {
    pub(crate) router: Arc<Router>,
    pub(crate) transport: Arc<dyn ClusterTransport>,
    pub(crate) cluster: u64,
    pub(crate) incarnation: u64,
    /// Addresses of any members.
    pub(crate) seeds: Arc<[String]>,
    pub(crate) witness: Witness,
}

pub(crate) struct State {
    peers: HashMap<NodeId, Link>,
    #[allow(dead_code, reason = "ends the timer with the actor")]
    listen: Listening,
}

struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is known of one peer.
struct Link {
    peer: Peer,
    lane: Option<(Arc<Lane>, Dialler)>,
    dialling: bool,
    /// There was a lane once.
    met: bool,
    /// The seed at which it was met.
    seed: Option<String>,
    failures: u32,
    /// How often in a row it has turned this node away.
    refusals: u32,
    /// Before this time the peer should dial.
    patient_until: Instant,
    /// Bytes that had arrived at the last look, and the looks since then.
    heard: (u64, u32),
}

impl Actor for Peers {
    type Msg = PeersMsg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<PeersMsg>, (): ()) -> Result<State, ActorProcessingErr> {
        // Lanes of an actor before this one cannot be watched any more.
        for lane in self.router.lanes() {
            lane.close();
            self.router.disconnect(&lane);
        }
        Ok(State {
            peers: HashMap::new(),
            listen: Listening(me.send_interval(LOOK, || PeersMsg::Listen).abort_handle()),
        })
    }

    async fn handle(&self, me: ActorRef<PeersMsg>, msg: PeersMsg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match msg {
            PeersMsg::Members(members) => Self::members(&me, members, state),
            PeersMsg::Accepted(stream) => self.open(&me, stream, Dialler::Them),
            PeersMsg::Met(node, seed) => {
                if let Some(link) = state.peers.get_mut(&node) {
                    link.seed = Some(seed);
                }
            }
            PeersMsg::Unwanted(node) => Self::unwanted(node, state),
            PeersMsg::Opened(lane, dialler) => self.opened(&me, lane, dialler, state),
            PeersMsg::Closed(lane) => self.closed(&me, &lane, state),
            PeersMsg::Failed(node, refused) => self.failed(&me, node, refused, state),
            PeersMsg::Look(node) => self.look(&me, node, state),
            PeersMsg::Probe(node) => self.probe(&me, node, state),
            PeersMsg::Listen => Self::listen(state),
        }
        Ok(())
    }
}

impl Peers {
    fn members(me: &ActorRef<PeersMsg>, members: HashMap<NodeId, Peer>, state: &mut State) {
        state.peers.retain(|node, link| {
            let stays = members.contains_key(node);
            if !stays && let Some((lane, _)) = &link.lane {
                lane.close();
            }
            stays
        });
        let now = Instant::now();
        for (node, peer) in members {
            if let Some(link) = state.peers.get_mut(&node) {
                if link.peer != peer {
                    (link.peer, link.failures) = (peer, 0);
                    let _ = me.send_message(PeersMsg::Look(node));
                }
                continue;
            }
            // A new peer is dialled at once by both sides: it may have just started, or this node has.
            let link = Link {
                peer,
                lane: None,
                dialling: false,
                met: false,
                seed: None,
                failures: 0,
                refusals: 0,
                patient_until: now,
                heard: (0, 0),
            };
            state.peers.insert(node, link);
            let _ = me.send_message(PeersMsg::Look(node));
        }
    }

    /// Greets whoever is at the other end.
    fn open(&self, me: &ActorRef<PeersMsg>, stream: AuthStream, dialler: Dialler) {
        let (me, router, hello) = (me.clone(), self.router.clone(), self.hello());
        let node = stream.peer.node_id();
        let opening = async move {
            match lane::open(tokio::io::split(stream.io), hello, node).await {
                Ok((lane, half)) => {
                    let _ = me.send_message(PeersMsg::Opened(lane.clone(), dialler));
                    if let Err(error) = half.run(router).await {
                        tracing::debug!(peer = %node, %error, "link ended");
                    }
                    let _ = me.send_message(PeersMsg::Closed(lane));
                }
                Err(error) => {
                    tracing::debug!(peer = %node, %error, "no hello");
                    if is_refusal(&error) {
                        let _ = me.send_message(PeersMsg::Unwanted(node));
                    }
                    if dialler == Dialler::Me {
                        let _ = me.send_message(PeersMsg::Failed(node, None));
                    }
                }
            }
        };
        self.router.tasks().spawn("lane", opening).detach();
    }

    fn hello(&self) -> Hello {
        let node = self.router.view.me.0;
        Hello { proto: PROTO, cluster: self.cluster, node, incarnation: self.incarnation }
    }

    fn opened(&self, me: &ActorRef<PeersMsg>, lane: Arc<Lane>, dialler: Dialler, state: &mut State) {
        let node = lane.peer();
        let Some(link) = state.peers.get_mut(&node) else { return lane.close() };
        if dialler == Dialler::Me {
            link.dialling = false;
        }
        if lane.is_closed() {
            return Self::look_later(me, node, link);
        }
        link.failures = 0;
        if let Some((current, by)) = &link.lane
            && !current.is_closed()
        {
            let same_start = current.incarnation() == lane.incarnation();
            let preferred = if self.router.view.me > node { Dialler::Me } else { Dialler::Them };
            let stays = current.incarnation() > lane.incarnation() || (same_start && *by == preferred);
            if stays {
                return lane.close();
            }
        }
        tracing::debug!(peer = %node, ?dialler, "link up");
        (link.heard, link.met, link.refusals) = ((0, 0), true, 0);
        let before = link.lane.replace((lane.clone(), dialler));
        self.router.connect(lane);
        if let Some((before, _)) = before {
            before.close();
        }
        (self.witness)(Evidence::Up(node));
    }

    fn closed(&self, me: &ActorRef<PeersMsg>, lane: &Arc<Lane>, state: &mut State) {
        self.router.disconnect(lane);
        let node = lane.peer();
        let Some(link) = state.peers.get_mut(&node) else { return };
        if link.lane.as_ref().is_none_or(|(current, _)| !Arc::ptr_eq(current, lane)) {
            return;
        }
        link.lane = None;
        link.patient_until = Instant::now() + PATIENCE;
        tracing::debug!(peer = %node, "link down");
        (self.witness)(Evidence::Closed(node));
        // Also by the smaller id, once: whether the port is refused tells a dead process from a broken link.
        self.dial(me, node, state);
    }

    fn failed(&self, me: &ActorRef<PeersMsg>, node: NodeId, refused: Option<u64>, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        link.dialling = false;
        link.failures += 1;
        if let Some(dialled) = refused {
            (self.witness)(Evidence::Refused(node, dialled));
        }
        Self::look_later(me, node, link);
    }

    /// A node that has just joined is turned away too, for as long as its peer has not heard of it.
    fn unwanted(node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        link.refusals += 1;
        if link.refusals == REFUSALS {
            tracing::warn!(
                peer = %node,
                "a member refuses this node: if it was removed, it has to join anew, with an empty data directory"
            );
        }
    }

    fn probe(&self, me: &ActorRef<PeersMsg>, node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node).filter(|link| link.lane.is_none()) else { return };
        link.failures = 0;
        self.dial(me, node, state);
    }

    fn listen(state: &mut State) {
        for link in state.peers.values_mut() {
            let Some((lane, _)) = &link.lane else { continue };
            let bytes = lane.bytes_in.load(Ordering::Relaxed);
            let quiet = if bytes == link.heard.0 { link.heard.1 + 1 } else { 0 };
            link.heard = (bytes, quiet);
            if quiet >= SILENCE {
                tracing::warn!(peer = %lane.peer(), "peer is silent, link closed");
                lane.close();
            } else if quiet >= PING_AFTER {
                lane.ping();
            }
        }
    }

    fn look_later(me: &ActorRef<PeersMsg>, node: NodeId, link: &Link) {
        let wait = REDIAL.0 * 2_u32.saturating_pow(link.failures.saturating_sub(1).min(6));
        let wait = wait.min(REDIAL.1).mul_f64(rand::random_range(0.8..1.2));
        me.send_after(wait, move || PeersMsg::Look(node));
    }

    fn look(&self, me: &ActorRef<PeersMsg>, node: NodeId, state: &mut State) {
        let Some(link) = state.peers.get_mut(&node) else { return };
        if link.lane.is_some() || link.dialling {
            return;
        }
        let now = Instant::now();
        // Two refused dials are evidence that the process has ended; they are not delayed.
        if self.router.view.me < node && now < link.patient_until && link.failures >= EAGER {
            me.send_after(link.patient_until - now, move || PeersMsg::Look(node));
            return;
        }
        self.dial(me, node, state);
    }

    fn dial(&self, me: &ActorRef<PeersMsg>, node: NodeId, state: &mut State) {
        let seeds = self.seeds_for(node, state);
        let Some(link) = state.peers.get_mut(&node).filter(|link| !link.dialling) else { return };
        link.dialling = true;
        let (me, transport, peer) = (me.clone(), self.transport.clone(), link.peer.clone());
        let opening = self.share();
        let dialling = async move {
            let dialled = clock::boot_ms();
            let error = match transport.dial(&peer.addr, peer.key, Protocol::Data).await {
                Ok(stream) => return opening.open(&me, stream, Dialler::Me),
                Err(error) => error,
            };
            tracing::debug!(peer = %node, addr = peer.addr, %error, "not reached");
            for seed in seeds {
                match transport.dial(&seed, peer.key, Protocol::Data).await {
                    Ok(stream) => {
                        let _ = me.send_message(PeersMsg::Met(node, seed));
                        return opening.open(&me, stream, Dialler::Me);
                    }
                    Err(error) => tracing::debug!(peer = %node, addr = seed, %error, "not reached"),
                }
            }
            let refused = (error.kind() == io::ErrorKind::ConnectionRefused).then_some(dialled);
            let _ = me.send_message(PeersMsg::Failed(node, refused));
        };
        self.router.tasks().spawn("dial", dialling).detach();
    }

    /// Where else a member that was not met yet may be.
    fn seeds_for(&self, node: NodeId, state: &State) -> Vec<String> {
        if state.peers.get(&node).is_none_or(|link| link.met) {
            return Vec::new();
        }
        let is_of = |link: &Link, seed: &String| link.peer.addr == *seed || link.seed.as_ref() == Some(seed);
        let taken = |seed: &String| state.peers.values().any(|link| link.lane.is_some() && is_of(link, seed));
        self.seeds.iter().filter(|seed| !taken(seed)).cloned().collect()
    }

    fn share(&self) -> Self {
        Self {
            router: self.router.clone(),
            transport: self.transport.clone(),
            cluster: self.cluster,
            incarnation: self.incarnation,
            seeds: self.seeds.clone(),
            witness: self.witness.clone(),
        }
    }
}
