//! The wrapper every hosted actor runs in: counts mail, drops what expired, carries the context.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tracing::{Instrument, Span};

use crate::actor_cx::ActorCx;
use crate::addr::Target;
use crate::directory::Directory;
use crate::entry::Entry;
use crate::error::CallError;
use crate::inbox::Inbox;
use crate::kind::Kind;
use crate::mail::{Mail, MsgCx, Way, drop_because};
use crate::mailbox::Gauge;
use crate::telemetry::{self, KindMetrics, Outcome};

/// The first messages of an activation are all timed, so that one that gets few is seen at all.
const TIMED_FIRST: u64 = 16;
/// Of the others one in this many: a clock read costs as much as a tell.
const TIMED_ONE_IN: u64 = 64;
/// Messages handled in one turn, before ractor looks whether the actor is to stop.
const TURN: u32 = 32;

/// A span for the handling of a message whose trace is recorded.
fn span_of<K: Kind>(cx: &MsgCx) -> Option<Span> {
    let trace = cx.trace().filter(|trace| trace.is_sampled())?;
    let span = tracing::info_span!("actor.handle", kind = K::NAME);
    telemetry::set_parent(&span, trace);
    Some(span)
}

pub(crate) struct Hosted<A: Kind> {
    pub(crate) actor: A,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) inbox: Arc<Inbox<A::Body>>,
    pub(crate) metrics: KindMetrics,
    pub(crate) directory: Arc<Directory<A::Body>>,
    pub(crate) entry: Arc<Entry<A::Body>>,
}

impl<A: Kind> Hosted<A> {
    /// Sends on a mail that came while this node lost the right to act for the key.
    fn bounce(&self, mail: Mail<A::Body>) {
        if mail.way == Way::Own {
            return;
        }
        // Refused, it is lost like any other: its caller hears so.
        let _ = Target::Local(self.directory.clone(), self.entry.clone()).send_on(mail);
    }
}

impl<A> Actor for Hosted<A>
where
    A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
{
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = ActorCx;

    async fn pre_start(&self, myself: ActorRef<A::Msg>, cx: ActorCx) -> Result<A::State, ActorProcessingErr> {
        self.actor.pre_start(myself, cx).await
    }

    async fn post_start(&self, myself: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        self.actor.post_start(myself, state).await
    }

    async fn post_stop(&self, myself: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        self.actor.post_stop(myself, state).await
    }

    /// Handles the mail and, if it is the first of a burst, what has gathered behind it.
    ///
    /// A block and not an `async fn`, which holds its arguments twice: ractor moves this future several times.
    #[allow(clippy::manual_async_fn, reason = "see above")]
    fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        mut mail: A::Msg,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        async move {
            let mut turn = u32::from(matches!(mail.way, Way::Waking | Way::Straight));
            loop {
                let done = self.gauge.done();
                let timed = (done < TIMED_FIRST || done.is_multiple_of(TIMED_ONE_IN)).then(Instant::now);
                if !self.directory.home.acts(self.entry.slot_id) {
                    self.bounce(mail);
                } else if mail.cx.is_empty() {
                    self.actor.handle(myself.clone(), mail, state).await?;
                } else if mail.way != Way::Straight && mail.cx.expired() {
                    drop_because(CallError::Expired, mail.body);
                    self.metrics.messages(Outcome::Expired, 1);
                } else if let Some(span) = span_of::<A>(&mail.cx) {
                    let scoped = mail.cx.clone().scope(self.actor.handle(myself.clone(), mail, state));
                    Box::pin(scoped.instrument(span)).await?;
                } else {
                    mail.cx.clone().scope(self.actor.handle(myself.clone(), mail, state)).await?;
                }
                self.gauge.handled();
                if let Some(start) = timed {
                    self.metrics.handled_in(start.elapsed());
                }
                if turn == 0 {
                    return Ok(());
                }
                let Some(next) = self.inbox.next() else { return Ok(()) };
                mail = next;
                turn += 1;
                if turn > TURN {
                    mail.way = Way::Waking;
                    match myself.send_message(mail) {
                        Err(MessagingErr::SendErr(back)) => mail = back, // draining: the rest has to be handled now
                        _ => return Ok(()),
                    }
                }
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.actor.handle_supervisor_evt(myself, event, state).await
    }
}
