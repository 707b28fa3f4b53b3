//! A question to an agent, told while it is answered: the events of its turn, then the answer.

use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::{Answer, AskRequest, TurnEvent};
use aivillage_runtime::{CallError, TopicItem};
use futures::stream::{Stream, StreamExt};
use tokio::time::Instant;

use crate::door::Door;
use crate::error::ApiError;
use crate::pipeline::Caller;

/// The answer may overtake the last events of its turn; so long they are waited for.
const TAIL: Duration = Duration::from_millis(250);

/// One thing a turn tells.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It goes on.
    Event(TurnEvent),
    /// It ended; nothing follows.
    Done(Result<Answer, CallError>),
}

/// Asks `agent` and streams its turn. Dropping the stream drops the ask, which ends the turn.
pub(crate) async fn stream(
    door: &Arc<Door>,
    caller: &Caller,
    agent: String,
    mut request: AskRequest,
) -> Result<impl Stream<Item = Turn> + Send + 'static + use<>, ApiError> {
    let name = format!("agents.turn.{}", uuid::Uuid::now_v7());
    let topic = door.village.topic(&name);
    let start = topic.newest().await?;
    request.stream_to = Some(name);
    let limit = door.config.chat_timeout.get();
    let context = caller.context_for(limit);
    let agents = door.agents(caller.tenant());
    Ok(async_stream::stream! {
        let mut events = Box::pin(topic.subscribe(Some(start)).filter_map(|item| std::future::ready(event(item))));
        let mut ask = Box::pin(context.scope(async move { agents.ask(&agent, request).await }));
        let answer = loop {
            tokio::select! {
                biased;
                Some(event) = events.next() => if !is_last(&event) {
                    yield Turn::Event(event);
                },
                answer = &mut ask => break answer,
            }
        };
        let end = Instant::now() + TAIL;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.next()).await {
            if is_last(&event) {
                break;
            }
            yield Turn::Event(event);
        }
        yield Turn::Done(answer);
    })
}

/// Whether nothing follows on the topic. The reply says the same and cannot be lost.
fn is_last(event: &TurnEvent) -> bool {
    matches!(event, TurnEvent::Final { .. } | TurnEvent::Error { .. })
}

/// The turn event in a topic item.
fn event(item: Result<TopicItem, CallError>) -> Option<TurnEvent> {
    match item {
        Ok(TopicItem::Event { data, .. }) => serde_json::from_value(data).ok(),
        Ok(TopicItem::Gap { .. }) => None,
        Err(error) => {
            tracing::debug!(%error, "turn events ended");
            None
        }
    }
}

/// The first item of a turn, so that a refusal still becomes a status and not an event.
pub(crate) async fn begin(
    mut turn: impl Stream<Item = Turn> + Send + Unpin + 'static,
) -> Result<impl Stream<Item = Turn> + Send + Unpin + 'static, CallError> {
    match turn.next().await {
        Some(Turn::Done(Err(error))) => Err(error),
        first => Ok(futures::stream::iter(first).chain(turn)),
    }
}
