//! The wrapper every hosted actor runs in: counts mail, drops what expired, carries the context.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::actor_cx::ActorCx;
use crate::error::CallError;
use crate::kind::Kind;
use crate::mail::{Mail, MsgCx, drop_because};
use crate::mailbox::Gauge;
use crate::telemetry::{self, KindMetrics, Outcome};

/// Latency is measured for one message in this many: a clock read costs as much as a tell.
const TIMED_ONE_IN: u64 = 64;

/// A span for the handling of a message whose trace is recorded.
fn span_of<K: Kind>(cx: &MsgCx) -> Option<tracing::Span> {
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

    async fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        mail: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        let timed = self.gauge.done().is_multiple_of(TIMED_ONE_IN).then(Instant::now);
        let outcome = if mail.cx.expired() {
            drop_because(CallError::Expired, mail.body);
            self.metrics.messages(Outcome::Expired, 1);
            Ok(())
        } else {
            let cx = mail.cx.clone();
            // One future for both paths, polled where it lies: ractor moves this whole future for every message, so its size
            // is part of the price of a tell.
            let mut work = std::pin::pin!(self.actor.handle(myself, mail, state));
            if cx.is_empty() {
                work.await
            } else {
                let span = span_of::<A>(&cx);
                std::future::poll_fn(|task| {
                    let _entered = span.as_ref().map(tracing::Span::enter);
                    cx.enter(|| work.as_mut().poll(task))
                })
                .await
            }
        };
        self.gauge.handled();
        if let Some(start) = timed {
            self.metrics.handled_in(start.elapsed());
        }
        outcome
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
