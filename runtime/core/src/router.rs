//! Takes messages to where their actor lives, and again if it has moved.
//!
//! A message goes out as bytes, so that it can be sent once more where that is safe: when it was certainly not handled
//! (`Moved`, `Draining`, not yet written), or when it carries an idempotency key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::cluster::control::Replica;
use crate::error::{CallError, Failure};
use crate::home::{Home, View};
use crate::hosted_kind::HostedKind;
use crate::kind::Kind;
use crate::link::lane::{Body, Dispatch, Lane, LanePort};
use crate::link::record::{Envelope, Head, MailRecord, To};
use crate::mail::{Deliver, Idem, Mail, More, MsgCx, Wire, encode_wire};
use crate::node_id::NodeId;
use crate::placement;
use crate::task::Tasks;
use crate::wire::{Codec, Scratch, WirePort};

/// How long a message waits for somebody who can take it, such as a new leader. Then its sender should know.
const NOBODY: Duration = Duration::from_millis(2800);
/// The same for a node that is still among a majority, which elects a leader, if slowly.
const ELECTION: Duration = Duration::from_secs(8);
/// Pause before a message is sent again, if nothing that was learnt meanwhile calls for it earlier.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// Actors whose full mailbox is remembered.
const SHEDS: usize = 4096;
/// Messages without answer that are on their way in the background.
const BACKGROUND: usize = 8192;

/// A service of a node, which other nodes call by its number.
pub(crate) trait Service: Send + Sync + 'static {
    /// Handles a call; it runs on the reading task of the caller's lane and must not wait.
    fn serve(&self, from: NodeId, key: &str, body: Bytes, port: Option<WirePort>);
}

/// An actor, as a message finds it.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) route: &'a KindRoute,
    pub(crate) home: &'a Home,
    pub(crate) key: &'a str,
    pub(crate) slot: u8,
}

/// What of a kind matters on the way.
#[derive(Debug)]
pub(crate) struct KindRoute {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) version: u16,
    pub(crate) codec: Codec,
    /// Repeating a request with an idempotency key is safe.
    pub(crate) durable: bool,
    /// Senders wait at a full mailbox.
    pub(crate) waits: bool,
}

impl KindRoute {
    pub(crate) fn of<K: Kind>() -> Self {
        let options = K::options();
        Self {
            name: K::NAME,
            id: placement::kind_id(K::NAME),
            version: K::VERSION,
            codec: K::CODEC,
            durable: options.durable != crate::kind::Durability::None,
            waits: options.overflow == crate::kind::Overflow::Wait,
        }
    }
}

/// The way to all actors of the village.
pub(crate) struct Router {
    pub(crate) view: Arc<View>,
    lanes: DashMap<NodeId, Arc<Lane>>,
    kinds: OnceLock<HashMap<u32, Arc<dyn HostedKind>>>,
    services: OnceLock<HashMap<u32, Arc<dyn Service>>>,
    /// Told when a message that could not be taken somewhere may be tried again.
    news: Notify,
    /// How often that was.
    news_count: AtomicU64,
    sheds: DashMap<(NodeId, u32, String), Instant>,
    /// There may be any.
    shedding: AtomicBool,
    background: AtomicUsize,
    tasks: Arc<Tasks>,
    /// Of every kind that this node hosts or sends to.
    homes: Mutex<Vec<Arc<Home>>>,
    /// The membership, in a cluster.
    members: OnceLock<Replica>,
}

impl Router {
    pub(crate) fn new(view: Arc<View>, tasks: Arc<Tasks>) -> Self {
        Self {
            view,
            lanes: DashMap::new(),
            kinds: OnceLock::new(),
            services: OnceLock::new(),
            news: Notify::new(),
            news_count: AtomicU64::new(0),
            sheds: DashMap::new(),
            shedding: AtomicBool::new(false),
            background: AtomicUsize::new(0),
            tasks,
            homes: Mutex::default(),
            members: OnceLock::new(),
        }
    }

    /// Keeps a kind's home in step with the membership.
    pub(crate) fn register(&self, home: &Arc<Home>) {
        // Under the lock, so that no change of the membership comes between.
        let mut homes = self.homes.lock();
        if let Some(members) = self.members.get() {
            members.read(|state| home.follow(state, true));
        }
        homes.push(home.clone());
    }

    /// Follows this membership from now on.
    pub(crate) fn follow(&self, members: &Replica) {
        let _homes = self.homes.lock();
        assert!(self.members.set(members.clone()).is_ok(), "a node starts once");
    }

    /// The membership has changed; see [`Home::follow`]. Returns its epoch.
    pub(crate) fn reassign(&self, seen: u64) -> u64 {
        let homes = self.homes.lock();
        let Some(members) = self.members.get() else { return seen };
        let epoch = members.read(|state| {
            let gap = state.epoch() > seen + 1;
            if state.epoch() != seen {
                homes.iter().for_each(|home| home.follow(state, gap));
            }
            state.epoch()
        });
        drop(homes);
        self.tell_news();
        epoch
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn shared_tasks(&self) -> Arc<Tasks> {
        self.tasks.clone()
    }

    /// Says what is hosted and served here; once, before the first lane.
    pub(crate) fn serve_with(
        &self,
        kinds: impl Iterator<Item = Arc<dyn HostedKind>>,
        services: HashMap<u32, Arc<dyn Service>>,
    ) {
        let kinds = kinds.map(|kind| (kind.id(), kind)).collect();
        assert!(self.kinds.set(kinds).is_ok() && self.services.set(services).is_ok(), "a node starts once");
    }

    /// Senders that wait should look again.
    pub(crate) fn tell_news(&self) {
        self.news_count.fetch_add(1, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    /// Waits for news that are newer than `seen`, which it takes over.
    ///
    /// # Cancel safety
    /// Safe: what was not told is told by the next call.
    pub(crate) async fn news_since(&self, seen: &mut u64) {
        loop {
            // Before the count is read: of news that come after that it hears.
            let news = self.news.notified();
            let now = self.news_count.load(Ordering::SeqCst);
            if now != *seen {
                *seen = now;
                return;
            }
            news.await;
        }
    }

    /// Uses this lane to its peer from now on. The one before, if any, is returned.
    pub(crate) fn connect(&self, lane: Arc<Lane>) -> Option<Arc<Lane>> {
        let before = self.lanes.insert(lane.peer(), lane);
        self.tell_news();
        before
    }

    /// Forgets a lane that has closed.
    pub(crate) fn disconnect(&self, lane: &Arc<Lane>) {
        self.lanes.remove_if(&lane.peer(), |_, current| Arc::ptr_eq(current, lane));
    }

    pub(crate) fn lane(&self, node: NodeId) -> Option<Arc<Lane>> {
        self.lanes.get(&node).map(|lane| lane.clone())
    }

    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.iter().map(|lane| lane.clone()).collect()
    }

    /// Calls a service of another node.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        service: u32,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let lane = self.lane(node).ok_or(CallError::Unreachable { node, sent: false })?;
        let to = To { node: true, kind: service, version: 1, key: "" };
        let deadline = Instant::now() + limit;
        let answer = tokio::time::timeout_at(deadline, lane.ask(&to, &Envelope::default(), body)).await;
        answer.map_err(|_| CallError::Timeout)?.map_err(CallError::from)
    }

    /// Tells a service of another node.
    pub(crate) async fn notify(&self, node: NodeId, service: u32, body: &[u8]) -> Result<(), CallError> {
        let lane = self.lane(node).ok_or(CallError::Unreachable { node, sent: false })?;
        let to = To { node: true, kind: service, version: 1, key: "" };
        lane.tell(&to, &Envelope::default(), body).await
    }

    /// Asks an actor on another node, wherever others of its kind are. The answer, if it asks for one, has been delivered when this
    /// resolves.
    pub(crate) async fn ask_on<B: Wire>(
        &self,
        node: NodeId,
        (route, key): (&KindRoute, &str),
        mail: Mail<B>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let mut body = Scratch::take();
        let deliver = encode_wire(route.codec, &mail.body, &mut body)?;
        let envelope = Envelope::of(&mail.cx)?;
        let to = To { node: false, kind: route.id, version: route.version, key };
        let asked = async {
            let lane = self.lane(node).ok_or(CallError::Unreachable { node, sent: false })?;
            lane.ask(&to, &envelope, &body).await.map_err(CallError::from)
        };
        let answer = tokio::time::timeout_at(deadline, asked).await.unwrap_or(Err(CallError::Timeout));
        if let Some(deliver) = deliver {
            deliver(answer);
        }
        Ok(())
    }

    /// Sends a tell to another node if nothing stands in its way. Otherwise, and if it is an ask, the message comes back for
    /// [`Self::forward`].
    pub(crate) fn send_now<B: Wire>(&self, to: Destination<'_>, mail: Mail<B>) -> Result<Option<Outgoing>, CallError> {
        let mut body = Scratch::take();
        let deliver = encode_wire(to.route.codec, &mail.body, &mut body)?;
        let cx = mail.cx;
        let envelope = Envelope::of(&cx)?;
        if deliver.is_none() && self.tell_now(to, &envelope, &body) {
            return Ok(None);
        }
        Ok(Some(Outgoing { message: Message { envelope, cx, body: body.into_bytes() }, deliver }))
    }

    fn tell_now(&self, to: Destination<'_>, envelope: &Envelope, body: &[u8]) -> bool {
        let Some(node) = to.home.of(to.slot).filter(|node| *node != self.view.me) else { return false };
        let wire = To { node: false, kind: to.route.id, version: to.route.version, key: to.key };
        self.check_shed(node, to).is_ok()
            && self.lanes.get(&node).is_some_and(|lane| lane.try_tell(&wire, envelope, body))
    }

    /// Takes a message where it belongs. The answer, if it asks for one, has been delivered when this resolves.
    pub(crate) async fn forward(
        &self,
        to: Destination<'_>,
        Outgoing { message, deliver }: Outgoing,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let deadline = message.cx.deadline().unwrap_or(deadline);
        match deliver {
            None => self.send(to, &message, deadline, false).await.map(drop),
            Some(deliver) => {
                deliver(self.send(to, &message, deadline, true).await);
                Ok(())
            }
        }
    }

    /// One message more on its way in the background; false when there are too many.
    pub(crate) fn enter_background(self: &Arc<Self>) -> Option<Background> {
        let entered = self.background.fetch_add(1, Ordering::Relaxed) < BACKGROUND;
        let guard = Background(self.clone());
        entered.then_some(guard)
    }

    async fn send(
        &self,
        to: Destination<'_>,
        message: &Message,
        deadline: Instant,
        ask: bool,
    ) -> Result<Bytes, CallError> {
        let started = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            let seen = self.news_count.load(Ordering::SeqCst);
            let located = self.locate(to);
            let is_sent = located.is_ok();
            let once = match located {
                Ok(node) => tokio::time::timeout_at(deadline, self.send_to(node, to, message, ask)).await,
                Err(error) => Ok(Err(error.into())),
            };
            let error = match once.unwrap_or_else(|_| Err(CallError::Timeout.into())) {
                Err(failure) if Self::may_repeat(to, message, &failure, is_sent) => failure.error,
                result => return result.map_err(CallError::from),
            };
            let give_up = if is_nobody(&error, to) { deadline.min(self.patience(to, started)) } else { deadline };
            let wait = error.retry_after().filter(|_| matches!(error, CallError::Overloaded { .. })).unwrap_or(pause);
            let again = (Instant::now() + wait).min(give_up);
            // Of news that come after this at least `news` hears, of those before it `seen`.
            let news = self.news.notified();
            if self.news_count.load(Ordering::SeqCst) == seen {
                tokio::select! {
                    () = tokio::time::sleep_until(again) => {}
                    () = news => {}
                }
            }
            if Instant::now() >= give_up {
                return Err(plain(error, to));
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Until when a message waits for somebody: where a leader is needed, as long as this node was among a majority lately.
    fn patience(&self, to: Destination<'_>, started: Instant) -> Instant {
        if !to.home.follows_leader() {
            return started + NOBODY;
        }
        let touched = Instant::now().checked_sub(self.view.lease_age()).map_or(started, |touched| touched.max(started));
        (touched + NOBODY).min(started + ELECTION)
    }

    async fn send_to(&self, node: NodeId, to: Destination<'_>, message: &Message, ask: bool) -> Result<Bytes, Failure> {
        if node == self.view.me {
            return self.send_here(to, message, ask).await;
        }
        let lane = self.lane(node).ok_or(CallError::Unreachable { node, sent: false })?;
        let wire = To { node: false, kind: to.route.id, version: to.route.version, key: to.key };
        if !ask {
            self.check_shed(node, to)?;
            return Ok(lane.tell(&wire, &message.envelope, &message.body).await.map(|()| Bytes::new())?);
        }
        let result = lane.ask(&wire, &message.envelope, &message.body).await;
        if let Err(Failure { error: CallError::Moved { to: Some(leader) }, .. }) = result
            && to.home.follows_leader()
            && leader != node
        {
            self.view.set_leader(self.view.group(to.slot), Some(leader));
        }
        result
    }

    /// A replicated actor on this node: the message is kept as bytes in case its leader changes.
    async fn send_here(&self, to: Destination<'_>, message: &Message, ask: bool) -> Result<Bytes, Failure> {
        let kind = self.kinds.get().and_then(|kinds| kinds.get(&to.route.id));
        let kind = kind.ok_or_else(|| CallError::UnknownKind { kind: to.route.name.to_owned() })?;
        if !ask {
            kind.receive(to.key, to.route.version, message.cx.clone(), &message.body, None)?;
            return Ok(Bytes::new());
        }
        let (answer, answered) = oneshot::channel();
        let port = WirePort::here(answer, to.route.codec);
        // What it says of a failure comes through the port too.
        let _ = kind.receive(to.key, to.route.version, message.cx.clone(), &message.body, Some(port));
        answered.await.unwrap_or_else(|_| Err(CallError::NoReply.into()))
    }

    fn locate(&self, to: Destination<'_>) -> Result<NodeId, CallError> {
        let Some(node) = to.home.of(to.slot) else {
            let kind = to.route.name.to_owned();
            return Err(if to.home.follows_leader() {
                CallError::NoQuorum { detail: "no leader of the actor's group is known".to_owned() }
            } else if self.view.is_alone() {
                CallError::UnknownKind { kind }
            } else {
                let missing = self.members.get().map(|members| members.read(|state| to.home.missing(state)));
                CallError::NotPlaced { kind, missing: missing.unwrap_or_default() }
            });
        };
        if node == self.view.me {
            to.home.admit(to.slot).map_err(|moved| {
                if !to.home.has_lost_touch() {
                    return moved;
                }
                CallError::NoQuorum { detail: "this node has lost touch with the others".to_owned() }
            })?;
        }
        Ok(node)
    }

    fn may_repeat(to: Destination<'_>, message: &Message, failure: &Failure, is_sent: bool) -> bool {
        let keyed = to.route.durable && message.cx.idem().is_some();
        let repeatable = keyed || message.cx.is_repeatable();
        // What a handler passes on says nothing of what it has done before.
        let unhandled = !failure.is_handled || repeatable;
        match failure.error {
            // Also from a handler: its commit was fenced, so it has none.
            CallError::Moved { .. } => true,
            CallError::Draining | CallError::NotPlaced { .. } | CallError::Unreachable { sent: false, .. } => unhandled,
            CallError::Overloaded { .. } => to.route.waits && unhandled,
            // This node itself knows nobody: a leader is elected, or it has just come or is no longer alone.
            CallError::NoQuorum { .. } if !is_sent => true,
            CallError::NoQuorum { .. } | CallError::Unreachable { sent: true, .. } => repeatable,
            // What made its handler fail may do so again.
            CallError::NoReply | CallError::Panicked => keyed,
            _ => false,
        }
    }

    fn check_shed(&self, node: NodeId, to: Destination<'_>) -> Result<(), CallError> {
        if !self.shedding.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = (node, to.route.id, to.key.to_owned());
        let Some(until) = self.sheds.get(&key).map(|until| *until) else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.sheds.remove(&key);
            // One that comes at this moment goes unheeded; the next will not.
            self.shedding.store(!self.sheds.is_empty(), Ordering::Relaxed);
            return Ok(());
        }
        Err(CallError::Overloaded { retry_after_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1) })
    }
}

/// Nobody can take the message now, as opposed to somebody who did not.
fn is_nobody(error: &CallError, to: Destination<'_>) -> bool {
    match error {
        CallError::NoQuorum { .. } | CallError::NotPlaced { .. } | CallError::SlotUnavailable { .. } => true,
        // Another leader is elected, if there is a majority on this side; what one node keeps comes back with it.
        CallError::Unreachable { .. } => to.home.follows_leader() || to.home.stays(),
        _ => false,
    }
}

/// `Moved` is between nodes; a sender that gives up hears what it means.
fn plain(error: CallError, to: Destination<'_>) -> CallError {
    match error {
        CallError::Unreachable { node, .. } if to.home.follows_leader() => CallError::NoQuorum {
            detail: format!("node {node}, the last known leader of the actor's group, cannot be reached"),
        },
        CallError::Unreachable { node, sent: false } if to.home.stays() => CallError::SlotUnavailable {
            kind: to.route.name.to_owned(),
            detail: format!(
                "node {node}, which alone keeps it, cannot be reached; it is there again when that node is"
            ),
        },
        CallError::Moved { .. } => {
            CallError::SlotUnavailable { kind: to.route.name.to_owned(), detail: "it is changing nodes".to_owned() }
        }
        other => other,
    }
}

/// A message on its way.
struct Message {
    envelope: Envelope,
    cx: MsgCx,
    body: Bytes,
}

/// A message that is to be sent.
pub(crate) struct Outgoing {
    message: Message,
    /// Takes the answer, if it asks for one.
    deliver: Option<Deliver>,
}

impl Outgoing {
    /// Ends it before it was sent; its caller hears why.
    pub(crate) fn refuse(self, error: CallError) {
        if let Some(deliver) = self.deliver {
            deliver(Err(error));
        }
    }
}

/// Counts a message in the background while it lives.
pub(crate) struct Background(Arc<Router>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.background.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The context of a message that came from another node.
fn context(head: &Head) -> MsgCx {
    let deadline = head.remaining.map(|left| Instant::now() + left);
    if head.trace.is_none() && head.idem.is_none() && head.principal.is_none() && !head.taint {
        let mut cx = MsgCx::default();
        *cx.deadline_mut() = deadline;
        return cx;
    }
    let principal = head.principal.clone().map(Arc::new);
    let mut cx = MsgCx::request(deadline, head.trace, principal);
    if let Some(Idem(key)) = head.idem {
        let more: &mut More = cx.more_mut();
        more.idem = Some(Idem(key));
    }
    if head.taint { cx.tainted() } else { cx }
}

impl Dispatch for Router {
    fn mail(&self, from: NodeId, mail: &MailRecord<'_>, body: Body<'_>, port: Option<LanePort>) {
        let lane = port.as_ref().map(|port| port.lane().clone());
        if mail.to.node {
            let service = self.services.get().and_then(|services| services.get(&mail.to.kind));
            let port = port.map(|port| WirePort::lane(port, Codec::Compact));
            match service {
                Some(service) => service.serve(from, mail.to.key, body.into_bytes(), port),
                None => refuse(port, CallError::UnknownKind { kind: format!("service {}", mail.to.kind) }),
            }
            return;
        }
        let Some(kind) = self.kinds.get().and_then(|kinds| kinds.get(&mail.to.kind)) else {
            let port = port.map(|port| WirePort::lane(port, Codec::Compact));
            return refuse(port, CallError::UnknownKind { kind: format!("{:08x}", mail.to.kind) });
        };
        let port = port.map(|port| WirePort::lane(port, kind.codec()));
        let taken = kind.receive(mail.to.key, mail.to.version, context(&mail.head), &body, port);
        if lane.is_none()
            && let Err(CallError::Overloaded { retry_after_ms }) = taken
            && let Some(lane) = self.lane(from)
        {
            lane.shed(mail.to.kind, mail.to.key, retry_after_ms);
        }
    }

    fn shed(&self, from: NodeId, kind: u32, key: &str, retry_after: Duration) {
        if self.sheds.len() >= SHEDS {
            let now = Instant::now();
            self.sheds.retain(|_, until| *until > now);
        }
        if self.sheds.len() < SHEDS {
            self.sheds.insert((from, kind, key.to_owned()), Instant::now() + retry_after);
            self.shedding.store(true, Ordering::Relaxed);
        }
    }
}

fn refuse(port: Option<WirePort>, error: CallError) {
    if let Some(port) = port {
        port.complete_bytes(Err(error.into()));
    }
}

#[cfg(test)]
mod tests;
