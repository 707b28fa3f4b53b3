//! The host of one kind: starts activations, answers their crashes, stops idle ones.
//!
//! One-for-one over its activations. A crash costs the mail in hand and what was queued; the key then backs off, and a
//! key that crashes too often is quarantined for [`QUARANTINE`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor_cx::ActorCx;
use crate::addr::Target;
use crate::directory::Directory;
use crate::entry::{Entry, Live, Phase, Slot};
use crate::error::CallError;
use crate::history::What;
use crate::hosted::Hosted;
use crate::inbox::Inbox;
use crate::kind::Kind;
use crate::mail::{Mail, Wire, drop_because};
use crate::mailbox::Gauge;
use crate::supervisor::{Decision, RestartPolicy, RestartTracker};
use crate::telemetry::Outcome;
use crate::village::Village;

/// How long a key that crashed too often refuses mail.
pub(crate) const QUARANTINE: Duration = Duration::from_mins(1);
/// The sweep that finds idle activations and feeds the metrics runs at least and at most this often.
const SWEEP: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a host understands.
pub(crate) enum HostMsg<B: Wire> {
    /// A first mail waits at this entry.
    Activate(Arc<Entry<B>>),
    /// A start ended.
    Started(Arc<Entry<B>>, Result<Activation<B>, NotStarted>),
    /// A back-off ended.
    Retry(Arc<Entry<B>>),
    /// The activation asks to be stopped.
    Passivate(Arc<Entry<B>>),
    /// Off the fast path, but a sender was still at it.
    End(Arc<Live<B>>),
    /// Time to look for idle activations.
    Sweep,
    /// This node may have lost the right to act for some keys; answer when their activations have ended.
    Rehome(oneshot::Sender<()>),
    /// Stop everything; answer when nothing lives any more.
    Drain(oneshot::Sender<bool>),
    /// The time for draining these is over.
    Kill(Vec<ActorCell>),
    /// The time for draining is over.
    KillAll,
}

impl<B: Wire> ractor::Message for HostMsg<B> {}

/// Why an activation did not start.
pub(crate) enum NotStarted {
    /// Its code failed.
    Crashed(String),
    /// This node may not act for it, or has no state to start it with.
    Refused(CallError),
}

pub(crate) struct Activation<B: Wire> {
    actor: ActorRef<Mail<B>>,
    gauge: Arc<Gauge>,
    inbox: Arc<Inbox<B>>,
}

struct Running<B: Wire> {
    entry: Arc<Entry<B>>,
    cell: ActorCell,
    gauge: Arc<Gauge>,
    /// `done` at the last sweep, for the message counter.
    counted: u64,
}

pub(crate) type Factory<A> = Arc<dyn Fn(&ActorCx) -> A + Send + Sync>;

/// The behaviour; its data is [`HostState`].
pub(crate) struct KindHost<A: Kind> {
    pub(crate) village: Village,
    pub(crate) directory: Arc<Directory<A::Body>>,
    pub(crate) factory: Factory<A>,
}

impl<A: Kind> Clone for KindHost<A> {
    fn clone(&self) -> Self {
        Self { village: self.village.clone(), directory: self.directory.clone(), factory: self.factory.clone() }
    }
}

pub(crate) struct HostState<B: Wire> {
    running: HashMap<ActorId, Running<B>>,
    starting: usize,
    /// Ends that were told before the start was.
    ended_early: HashMap<ActorId, Option<String>>,
    drained: Option<oneshot::Sender<bool>>,
    /// Activations that have to end, and who waits for it.
    leaving: Vec<(HashSet<ActorId>, oneshot::Sender<()>)>,
    /// Set when the drain had to be cut short.
    killed: bool,
    sweep: tokio::task::AbortHandle,
}

impl<B: Wire> Drop for HostState<B> {
    fn drop(&mut self) {
        self.sweep.abort();
    }
}

impl<A> Actor for KindHost<A>
where
    A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
{
    type Msg = HostMsg<A::Body>;
    type State = HostState<A::Body>;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        self.directory.host.store(Some(Arc::new(myself.clone())));
        for entry in self.directory.entries() {
            Self::adopt(&myself, &entry);
        }
        let idle = self.directory.options().idle.unwrap_or(SWEEP.1);
        let sweep = myself.send_interval((idle / 4).clamp(SWEEP.0, SWEEP.1), || HostMsg::Sweep).abort_handle();
        Ok(HostState {
            running: HashMap::new(),
            starting: 0,
            ended_early: HashMap::new(),
            drained: None,
            leaving: Vec::new(),
            killed: false,
            sweep,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HostMsg::Activate(entry) => self.start(&myself, entry, state),
            HostMsg::Started(entry, result) => self.started(&myself, &entry, result, state),
            HostMsg::Retry(entry) => self.retry(&myself, &entry, state),
            HostMsg::Passivate(entry) => Self::passivate(&myself, &entry),
            HostMsg::End(live) => Self::end(&myself, live),
            HostMsg::Sweep => self.sweep(&myself, state),
            HostMsg::Rehome(done) => self.rehome(&myself, done, state),
            HostMsg::Drain(done) => self.drain(&myself, done, state),
            HostMsg::Kill(cells) => cells.iter().for_each(ActorCell::kill),
            HostMsg::KillAll => {
                state.killed = !state.running.is_empty();
                state.running.values().for_each(|running| running.cell.kill());
            }
        }
        Self::finish_leaving(state);
        Self::finish_drain(state);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (id, crash) = match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => (cell.get_id(), None),
            SupervisionEvent::ActorFailed(cell, error) => (cell.get_id(), Some(error.to_string())),
            _ => return Ok(()),
        };
        match state.running.remove(&id) {
            Some(running) => self.ended(&myself, running, crash, state),
            None => drop(state.ended_early.insert(id, crash)),
        }
        Self::finish_leaving(state);
        Self::finish_drain(state);
        Ok(())
    }
}

impl<A> KindHost<A>
where
    A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
{
    /// Takes over an entry from a host that crashed: its activations died with it.
    fn adopt(myself: &ActorRef<HostMsg<A::Body>>, entry: &Arc<Entry<A::Body>>) {
        let mut slot = entry.slot.lock();
        entry.live.store(None);
        if matches!(slot.phase, Phase::Starting | Phase::Running | Phase::Ending | Phase::BackingOff) {
            slot.phase = if slot.waiting.is_empty() { Phase::Idle } else { Phase::Starting };
        }
        if slot.phase == Phase::Starting {
            // Fails only when this host is already stopping; then nobody is left to serve.
            let _ = myself.send_message(HostMsg::Activate(entry.clone()));
        }
    }

    fn start(&self, myself: &ActorRef<HostMsg<A::Body>>, entry: Arc<Entry<A::Body>>, state: &mut HostState<A::Body>) {
        if self.village.live_actors() >= self.village.max_actors() {
            let mut slot = entry.slot.lock();
            slot.phase = Phase::Idle;
            drop_because(CallError::Overloaded { retry_after_ms: 1000 }, std::mem::take(&mut slot.waiting));
            return;
        }
        state.starting += 1;
        let gauge = Arc::new(Gauge::new(self.directory.mailbox()));
        let passivate: Arc<dyn Fn() + Send + Sync> = {
            let (myself, entry) = (myself.clone(), Arc::downgrade(&entry));
            Arc::new(move || {
                if let Some(entry) = entry.upgrade() {
                    let _ = myself.send_message(HostMsg::Passivate(entry));
                }
            })
        };
        let mut cx = ActorCx {
            kind: A::NAME,
            key: entry.key.clone(),
            village: self.village.clone(),
            store: self.village.store().clone(),
            gauge: gauge.clone(),
            passivate,
        };
        let (factory, metrics, myself) = (self.factory.clone(), self.directory.metrics.clone(), myself.clone());
        let directory = self.directory.clone();
        let spawn = async move {
            let started = match cx.village.state_of(&directory.home, entry.slot_id, &cx.passivate).await {
                Ok(store) => {
                    cx.store = store;
                    let made = Made { gauge, metrics, directory, entry: entry.clone() };
                    spawn_hosted::<A>(&factory, made, cx, myself.get_cell()).await.map_err(NotStarted::Crashed)
                }
                Err(error) => Err(NotStarted::Refused(error)),
            };
            let _ = myself.send_message(HostMsg::Started(entry, started));
        };
        self.village.task("activate", spawn).detach();
    }

    fn started(
        &self,
        myself: &ActorRef<HostMsg<A::Body>>,
        entry: &Arc<Entry<A::Body>>,
        result: Result<Activation<A::Body>, NotStarted>,
        state: &mut HostState<A::Body>,
    ) {
        state.starting -= 1;
        let Activation { actor, gauge, inbox } = match result {
            Ok(activation) => activation,
            Err(NotStarted::Crashed(reason)) => return self.crashed(myself, entry, reason, state),
            Err(NotStarted::Refused(error)) => return self.refuse(entry, error),
        };
        self.village.actor_started();
        self.directory.activation_started();
        let running = Running { entry: entry.clone(), cell: actor.get_cell(), gauge: gauge.clone(), counted: 0 };
        if let Some(crash) = state.ended_early.remove(&actor.get_id()) {
            return self.ended(myself, running, crash, state);
        }
        state.running.insert(actor.get_id(), running);
        if !self.directory.home.acts(entry.slot_id) {
            // What waits is sent on when it has ended.
            entry.slot.lock().phase = Phase::Ending;
            return actor.stop(None);
        }
        entry.started(actor, gauge, inbox);
        if self.directory.is_closed() {
            Self::stop(myself, entry);
        }
    }

    /// Sends what waits for an activation that cannot be here to where it can.
    fn refuse(&self, entry: &Arc<Entry<A::Body>>, error: CallError) {
        let mut slot = entry.slot.lock();
        slot.phase = if self.directory.is_closed() { Phase::Closed } else { Phase::Idle };
        let waiting = std::mem::take(&mut slot.waiting);
        drop(slot);
        if !matches!(error, CallError::Moved { .. }) || self.directory.home.view.is_alone() {
            return drop_because(error, waiting);
        }
        let target = Target::Local(self.directory.clone(), entry.clone());
        for mail in waiting {
            // Without room for it in the background it is lost like any other; its caller hears why.
            let _ = target.send_on(mail);
        }
    }

    fn rehome(&self, myself: &ActorRef<HostMsg<A::Body>>, done: oneshot::Sender<()>, state: &mut HostState<A::Body>) {
        let lost = state.running.iter().filter(|(_, running)| !self.directory.home.acts(running.entry.slot_id));
        let lost: HashMap<_, _> = lost.map(|(id, running)| (*id, running.cell.clone())).collect();
        for id in lost.keys() {
            let entry = &state.running[id].entry;
            let runs = entry.slot.lock().phase == Phase::Running;
            if runs {
                Self::stop(myself, entry);
            }
        }
        if !lost.is_empty() {
            let cells: Vec<_> = lost.values().cloned().collect();
            myself.send_after(self.directory.options().drain, move || HostMsg::Kill(cells));
        }
        state.leaving.push((lost.into_keys().collect(), done));
    }

    /// Tells who waits for activations to end that they have.
    fn finish_leaving(state: &mut HostState<A::Body>) {
        let running = &state.running;
        let ended = state.leaving.extract_if(.., |(lost, _)| {
            lost.retain(|id| running.contains_key(id));
            lost.is_empty()
        });
        for (_, done) in ended {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }

    /// An activation is gone. What it left unhandled is counted; its callers have heard already.
    fn ended(
        &self,
        myself: &ActorRef<HostMsg<A::Body>>,
        running: Running<A::Body>,
        crash: Option<String>,
        state: &mut HostState<A::Body>,
    ) {
        self.village.actor_ended();
        self.directory.activation_ended();
        let in_hand = u64::from(crash.is_some());
        let lost = running.gauge.depth().saturating_sub(in_hand);
        self.directory.dropped(&running.entry.key, if crash.is_some() { "crashed" } else { "stopped" }, lost);
        self.directory.metrics.messages(Outcome::Ok, running.gauge.done() - running.counted);
        self.directory.metrics.messages(Outcome::Panicked, in_hand);
        let entry = running.entry;
        entry.retire(&mut entry.slot.lock());
        match crash {
            Some(reason) => self.crashed(myself, &entry, reason, state),
            None => self.resume(myself, &entry, state),
        }
    }

    /// Starts the key again if mail waits for it.
    fn resume(&self, myself: &ActorRef<HostMsg<A::Body>>, entry: &Arc<Entry<A::Body>>, state: &mut HostState<A::Body>) {
        let mut slot = entry.slot.lock();
        if self.directory.is_closed() {
            close(&mut slot);
        } else if slot.waiting.is_empty() {
            slot.phase = Phase::Idle;
        } else {
            slot.phase = Phase::Starting;
            drop(slot);
            self.start(myself, entry.clone(), state);
        }
    }

    fn crashed(
        &self,
        myself: &ActorRef<HostMsg<A::Body>>,
        entry: &Arc<Entry<A::Body>>,
        reason: String,
        state: &mut HostState<A::Body>,
    ) {
        entry.restarts.fetch_add(1, Ordering::Relaxed);
        self.directory.metrics.restarted();
        let policy = self.directory.options().restart.unwrap_or_else(|| self.village.restart_policy());
        let decision = decide(&mut entry.slot.lock(), policy);
        match decision {
            Decision::RestartAfter(delay) => {
                tracing::warn!(kind = A::NAME, ?delay, reason, "actor crashed");
                self.village.history_kept().note(What::Crash, A::NAME, &reason);
                if delay.is_zero() {
                    return self.resume(myself, entry, state);
                }
                entry.slot.lock().phase = Phase::BackingOff;
                let retry = entry.clone();
                myself.send_after(delay, move || HostMsg::Retry(retry));
            }
            Decision::GiveUp => {
                tracing::error!(kind = A::NAME, quarantine = ?QUARANTINE, reason, "actor crashes too often");
                self.village.history_kept().note(What::Quarantine, A::NAME, &reason);
                let mut slot = entry.slot.lock();
                slot.phase = Phase::Quarantined(Instant::now() + QUARANTINE);
                slot.crashes = None;
                let waiting = std::mem::take(&mut slot.waiting);
                drop(slot);
                drop_because(CallError::NotStarted { reason }, waiting);
            }
        }
    }

    fn retry(&self, myself: &ActorRef<HostMsg<A::Body>>, entry: &Arc<Entry<A::Body>>, state: &mut HostState<A::Body>) {
        let due = entry.slot.lock().phase == Phase::BackingOff;
        if due {
            self.resume(myself, entry, state);
        }
    }

    fn passivate(myself: &ActorRef<HostMsg<A::Body>>, entry: &Entry<A::Body>) {
        let running = entry.slot.lock().phase == Phase::Running;
        if running {
            Self::stop(myself, entry);
        }
    }

    /// Takes an activation off the fast path and lets it finish its mailbox.
    fn stop(myself: &ActorRef<HostMsg<A::Body>>, entry: &Entry<A::Body>) {
        let live = entry.retire(&mut entry.slot.lock());
        if let Some(live) = live {
            Self::end(myself, live);
        }
    }

    /// Drains once no sender is between finding the activation and having delivered to it: what it still brought would be
    /// refused, and come to the next activation behind the sender's own later mail.
    fn end(myself: &ActorRef<HostMsg<A::Body>>, live: Arc<Live<A::Body>>) {
        match Arc::try_unwrap(live) {
            // An actor that refuses the drain has ended; its end is on its way here.
            Ok(live) => drop(live.actor.drain()),
            // Senders do not wait while they hold it, so this is over in a moment.
            Err(live) => drop(myself.send_message(HostMsg::End(live))),
        }
    }

    fn sweep(&self, myself: &ActorRef<HostMsg<A::Body>>, state: &mut HostState<A::Body>) {
        let now = Instant::now();
        let idle = self.directory.options().idle;
        for running in state.running.values_mut() {
            let done = running.gauge.done();
            self.directory.metrics.messages(Outcome::Ok, done - running.counted);
            for _ in 0..running.gauge.take_shed() {
                self.directory.metrics.shed();
            }
            running.counted = done;
            let mut slot = running.entry.slot.lock();
            if slot.quiet.0 != done {
                slot.quiet = (done, now);
                if let Some(crashes) = &mut slot.crashes
                    && crashes.healthy(now)
                {
                    slot.crashes = None;
                }
            }
            let quiet_for = now.saturating_duration_since(slot.quiet.1);
            let passivate = slot.phase == Phase::Running && running.gauge.depth() == 0;
            drop(slot);
            if passivate && idle.is_some_and(|idle| quiet_for >= idle) {
                Self::stop(myself, &running.entry);
            }
        }
        self.directory.sweep();
    }

    fn drain(&self, myself: &ActorRef<HostMsg<A::Body>>, done: oneshot::Sender<bool>, state: &mut HostState<A::Body>) {
        self.directory.close();
        for entry in self.directory.entries() {
            let phase = entry.slot.lock().phase;
            match phase {
                Phase::Running => Self::stop(myself, &entry),
                // Their end or their start brings them to `Closed`.
                Phase::Starting | Phase::Ending => {}
                _ => close(&mut entry.slot.lock()),
            }
        }
        state.drained = Some(done);
        myself.send_after(self.directory.options().drain, || HostMsg::KillAll);
    }

    fn finish_drain(state: &mut HostState<A::Body>) {
        if state.running.is_empty()
            && state.starting == 0
            && let Some(done) = state.drained.take()
        {
            let _ = done.send(!state.killed);
        }
    }
}

fn decide<B>(slot: &mut Slot<B>, policy: RestartPolicy) -> Decision {
    let tracker = slot.crashes.get_or_insert_with(|| RestartTracker::new(policy));
    tracker.crashed(Instant::now(), &mut rand::rng())
}

fn close<B>(slot: &mut Slot<B>) {
    slot.phase = Phase::Closed;
    drop_because(CallError::Draining, std::mem::take(&mut slot.waiting));
}

/// What surrounds the behaviour of an activation.
struct Made<B: Wire> {
    gauge: Arc<Gauge>,
    metrics: crate::telemetry::KindMetrics,
    directory: Arc<Directory<B>>,
    entry: Arc<Entry<B>>,
}

async fn spawn_hosted<A>(
    factory: &Factory<A>,
    made: Made<A::Body>,
    cx: ActorCx,
    host: ActorCell,
) -> Result<Activation<A::Body>, String>
where
    A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
{
    let behaviour = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| factory(&cx)));
    let actor = behaviour.map_err(|panic| crate::task::panic_message(panic.as_ref()))?;
    let inbox = Arc::new(Inbox::new());
    let Made { gauge, metrics, directory, entry } = made;
    let hosted = Hosted { actor, gauge: gauge.clone(), inbox: inbox.clone(), metrics, directory, entry };
    match Actor::spawn_linked(None, hosted, cx, host).await {
        Ok((actor, _)) => Ok(Activation { actor, gauge, inbox }),
        Err(SpawnErr::StartupFailed(error)) => Err(error.to_string()),
        Err(other) => Err(other.to_string()),
    }
}
