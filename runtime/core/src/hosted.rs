//! The wrapper every hosted actor runs in: counts mail, drops what expired, carries the context.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::Span;

use crate::actor_cx::ActorCx;
use crate::error::CallError;
use crate::kind::Kind;
use crate::mail::{Mail, MsgCx, drop_because};
use crate::mailbox::Gauge;
use crate::telemetry::{self, KindMetrics, Outcome};

/// Latency is measured for one message in this many: a clock read costs as much as a tell.
const TIMED_ONE_IN: u64 = 64;

/// A span for the handling of a message whose trace is recorded.
fn span_of<K: Kind>(cx: &MsgCx) -> Option<Span> {
    let trace = cx.trace().filter(|trace| trace.is_sampled())?;
    let span = tracing::info_span!("actor.handle", kind = K::NAME);
    telemetry::set_parent(&span, trace);
    Some(span)
}

pub(crate) struct Hosted<A> {
    pub(crate) actor: A,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) metrics: KindMetrics,
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

    fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        mail: A::Msg,
        state: &mut A::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        let cx = mail.cx.clone();
        let timed = self.gauge.done().is_multiple_of(TIMED_ONE_IN).then(Instant::now);
        let work = if cx.expired() {
            drop_because(CallError::Expired, mail.body);
            self.metrics.messages(Outcome::Expired, 1);
            None
        } else {
            Some(self.actor.handle(myself, mail, state))
        };
        let span = span_of::<A>(&cx).map(Box::new);
        Handling { gauge: &self.gauge, metrics: &self.metrics, cx, span, timed, work }
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

pin_project! {
    /// The handling of one message; no work when it had expired.
    ///
    /// By hand, because ractor moves this future for every message: written as an `async fn` it holds the mail twice.
    struct Handling<'a, F> {
        gauge: &'a Gauge,
        metrics: &'a KindMetrics,
        cx: MsgCx,
        span: Option<Box<Span>>,
        timed: Option<Instant>,
        #[pin]
        work: Option<F>,
    }
}

impl<F: Future<Output = Result<(), ActorProcessingErr>>> Future for Handling<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = match this.work.as_pin_mut() {
            None => Ok(()),
            Some(work) if this.cx.is_empty() => ready!(work.poll(task)),
            Some(work) => {
                let _entered = this.span.as_ref().map(|span| span.enter());
                ready!(this.cx.enter(|| work.poll(task)))
            }
        };
        this.gauge.handled();
        if let Some(start) = this.timed {
            this.metrics.handled_in(start.elapsed());
        }
        Poll::Ready(outcome)
    }
}
