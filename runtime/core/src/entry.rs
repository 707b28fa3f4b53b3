//! One address: a key of a kind, with or without a live activation behind it.
//!
//! Senders go through [`Entry::send`]. While an activation lives they meet only an atomic pointer and the mailbox
//! gauge; otherwise mail waits in a small buffer and the kind's host is asked to activate the key.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::{ActorRef, MessagingErr};
use tokio::time::Instant;

use crate::error::CallError;
use crate::inbox::{Inbox, Put};
use crate::mail::{Mail, Way, Wire, drop_because};
use crate::mailbox::Gauge;
use crate::supervisor::RestartTracker;

/// A running activation.
#[derive(Debug)]
pub(crate) struct Live<B: Wire> {
    pub(crate) actor: ActorRef<Mail<B>>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) inbox: Arc<Inbox<B>>,
    pub(crate) since: Instant,
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No activation; the next mail starts one.
    Idle,
    /// `pre_start` runs.
    Starting,
    /// Mail goes straight to the activation.
    Running,
    /// The activation finishes its mailbox or has crashed unnoticed; the next one waits for its end.
    Ending,
    /// Crashed; a restart is due at this time.
    BackingOff,
    /// Crashed too often; refuses mail until this time.
    Quarantined(Instant),
    /// The node drains.
    Closed,
}

/// What the slow path decides under one lock.
#[derive(Debug)]
pub(crate) struct Slot<B> {
    pub(crate) phase: Phase,
    pub(crate) waiting: VecDeque<Mail<B>>,
    pub(crate) crashes: Option<RestartTracker>,
    /// `done` of the gauge and when it was first seen at that value: how the sweep finds idle activations.
    pub(crate) quiet: (u64, Instant),
}

#[derive(Debug)]
pub(crate) struct Entry<B: Wire> {
    pub(crate) key: Arc<str>,
    /// Which of its kind's slots the key falls into.
    pub(crate) slot_id: u8,
    /// Mail that may wait for an activation that is starting, ending or backing off: as much as in its mailbox.
    capacity: usize,
    pub(crate) live: ArcSwapOption<Live<B>>,
    pub(crate) slot: Mutex<Slot<B>>,
    pub(crate) restarts: AtomicU32,
}

/// A message that was not taken, and why.
#[derive(Debug)]
pub(crate) enum Refused<B> {
    /// No place in the mailbox, or in the buffer before it when there is no gauge to wait at.
    Full(Mail<B>, Option<Arc<Gauge>>),
    /// Not now.
    Error(CallError),
}

/// What the sender has to do after a message was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing: it is in a mailbox or waits for a start that is under way.
    Delivered,
    /// Ask the host to activate the key: this message is the first.
    Activate,
}

impl<B: Wire> Entry<B> {
    pub(crate) fn new(key: Arc<str>, slot_id: u8, capacity: u32) -> Self {
        let slot = Slot { phase: Phase::Idle, waiting: VecDeque::new(), crashes: None, quiet: (0, Instant::now()) };
        Self {
            key,
            slot_id,
            capacity: capacity as usize,
            live: ArcSwapOption::empty(),
            slot: Mutex::new(slot),
            restarts: AtomicU32::new(0),
        }
    }

    /// Delivers or buffers `mail`.
    #[inline]
    pub(crate) fn send(&self, mut mail: Mail<B>) -> Result<Taken, Refused<B>> {
        // Each turn either ends or has seen the activation change under it, which a crash loop's back-off bounds.
        loop {
            if let Some(live) = &*self.live.load() {
                if !live.gauge.admit() {
                    return Err(Refused::Full(mail, Some(live.gauge.clone())));
                }
                let back = if accepts(&live.actor) { Self::wake(live, live.inbox.put(mail)) } else { Some(mail) };
                let Some(back) = back else { return Ok(Taken::Delivered) };
                live.gauge.retract();
                mail = back;
            }
            match self.buffer(mail) {
                Buffered::Done(taken) => return Ok(taken),
                Buffered::Refused(mail, error) => {
                    drop_because(error.clone(), mail);
                    return Err(Refused::Error(error));
                }
                Buffered::Full(back) => return Err(Refused::Full(back, None)),
                Buffered::Retry(back) => mail = back,
            }
        }
    }

    /// Wakes an activation with the oldest mail of its inbox, which the caller holds. Mail comes back if it is the caller's
    /// own and the activation has crashed or was stopped a moment ago; what others queued there is lost with it.
    fn wake(live: &Live<B>, put: Put<B>) -> Option<Mail<B>> {
        let (mut mail, own) = match put {
            Put::Queued => return None,
            Put::First(mail) => (mail, true),
            Put::Oldest(mail) => (mail, false),
        };
        // Not behind anything, such as what the actor sent itself: then it cannot have expired on the way.
        mail.way = if live.gauge.depth() <= 1 { Way::Straight } else { Way::Waking };
        let Err(MessagingErr::SendErr(mut mail)) = live.actor.send_message(mail) else { return None };
        mail.way = Way::Queued;
        own.then_some(mail)
    }

    fn buffer(&self, mail: Mail<B>) -> Buffered<B> {
        let mut slot = self.slot.lock();
        match slot.phase {
            Phase::Running => {
                // Either the activation was published a moment ago, or it is dead and its host does not know yet.
                let alive = self.live.load().as_ref().is_some_and(|live| accepts(&live.actor));
                if alive {
                    return Buffered::Retry(mail);
                }
                self.live.store(None);
                slot.phase = Phase::Ending;
            }
            Phase::Closed => return Buffered::Refused(mail, CallError::Draining),
            Phase::Quarantined(until) if until > Instant::now() => {
                return Buffered::Refused(mail, CallError::Overloaded { retry_after_ms: millis_until(until) });
            }
            _ => {}
        }
        if slot.waiting.len() >= self.capacity {
            return Buffered::Full(mail);
        }
        slot.waiting.push_back(mail);
        match slot.phase {
            Phase::Idle | Phase::Quarantined(_) => {
                slot.phase = Phase::Starting;
                Buffered::Done(Taken::Activate)
            }
            _ => Buffered::Done(Taken::Delivered),
        }
    }

    /// Publishes a started activation and hands it the mail that waited.
    pub(crate) fn started(&self, actor: ActorRef<Mail<B>>, gauge: Arc<Gauge>, inbox: Arc<Inbox<B>>) {
        let mut slot = self.slot.lock();
        let now = Instant::now();
        for mail in slot.waiting.drain(..) {
            gauge.admit_own();
            if let Put::First(mut first) | Put::Oldest(mut first) = inbox.put(mail) {
                first.way = Way::Waking;
                // An actor that refuses it has ended, and its inbox ends with it.
                let _ = actor.send_message(first);
            }
        }
        slot.quiet = (0, now);
        slot.phase = Phase::Running;
        self.live.store(Some(Arc::new(Live { actor, gauge, inbox, since: now })));
    }

    /// Takes the activation off the fast path; later mail waits for the next one.
    pub(crate) fn retire(&self, slot: &mut Slot<B>) -> Option<Arc<Live<B>>> {
        slot.phase = Phase::Ending;
        self.live.swap(None)
    }

    pub(crate) fn depth(&self) -> u64 {
        self.live.load().as_ref().map_or(0, |live| live.gauge.depth()) + self.slot.lock().waiting.len() as u64
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }
}

enum Buffered<B> {
    Done(Taken),
    Refused(Mail<B>, CallError),
    Full(Mail<B>),
    Retry(Mail<B>),
}

fn accepts<B: Wire>(actor: &ActorRef<Mail<B>>) -> bool {
    actor.get_status() < ractor::ActorStatus::Draining
}

pub(crate) fn millis_until(at: Instant) -> u32 {
    let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}
