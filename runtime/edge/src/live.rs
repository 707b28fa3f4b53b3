//! Server-sent events: topics merged into one stream, with ids to resume from, gaps told, a heartbeat, and an end on drain.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::{EventId, TopicItem, Village};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{Stream, StreamExt, select_all};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::door::Door;
use crate::error::{ApiError, Code};

/// Pause after which a client connects again.
const RETRY: Duration = Duration::from_secs(3);
/// Silence after which a comment is sent, so that proxies keep the connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Topics of one stream.
const MAX_TOPICS: usize = 32;
/// Longest topic name.
const MAX_NAME: usize = 128;

/// A place among the open streams; given back when the stream ends, however it ends.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: Gauge,
}

impl Place {
    /// Takes a place for a stream of `kind`.
    pub(crate) fn take(door: &Door, kind: &'static str) -> Result<Self, ApiError> {
        let permit = door.admission.stream().inspect_err(|_| door.metrics.shed("streams"))?;
        let gauge = door.metrics.streams(kind);
        gauge.inc();
        Ok(Place { _permit: permit, gauge })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Makes the response of an event stream.
pub(crate) fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("")).into_response();
    // nginx holds back answers of unknown length unless told not to.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

/// An event with a JSON body. Serialising a [`Value`] cannot fail; JSON text has no raw line breaks.
pub(crate) fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// The first event: tells the client how long to wait before it comes back, and opens the stream at once.
pub(crate) fn opening() -> Event {
    Event::default().retry(RETRY).comment("open")
}

/// Topics and the event to go on after, for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription(BTreeMap<Arc<str>, Option<EventId>>);

impl Subscription {
    /// Reads `topics=a,b` and `Last-Event-ID`.
    ///
    /// # Errors
    /// 400 if a name or the id cannot be one.
    pub(crate) fn read(topics: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let names: Vec<&str> = topics.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.is_empty() || names.len() > MAX_TOPICS {
            return Err(ApiError::new(Code::BadRequest, format!("topics must list 1 to {MAX_TOPICS} names")));
        }
        if let Some(bad) = names.iter().find(|name| !is_topic(name)) {
            return Err(ApiError::new(Code::BadRequest, format!("{bad:?} is not the name of a topic")));
        }
        let mut from: BTreeMap<Arc<str>, Option<EventId>> = names.iter().map(|name| (Arc::from(*name), None)).collect();
        if let Some(last) = headers.get("last-event-id") {
            let last = last.to_str().unwrap_or("?");
            for (name, id) in position(last, names.first().copied().unwrap_or(""))? {
                if let Some(place) = from.get_mut(name) {
                    *place = Some(id);
                }
            }
        }
        Ok(Subscription(from))
    }

    /// The id of a client that has seen `self`: `epoch-seq` for one topic, `name:epoch-seq,..` for several.
    fn id(&self) -> String {
        if let [Some(id)] = self.0.values().collect::<Vec<_>>().as_slice() {
            return id.to_string();
        }
        let seen = self.0.iter().filter_map(|(name, id)| Some(format!("{name}:{}", (*id)?)));
        seen.collect::<Vec<_>>().join(",")
    }
}

fn is_topic(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Reads an id made by [`Subscription::id`].
fn position<'t>(text: &'t str, only: &'t str) -> Result<Vec<(&'t str, EventId)>, ApiError> {
    let bad = || ApiError::new(Code::BadRequest, "last-event-id is not an id of this stream");
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .take(MAX_TOPICS)
        .map(|item| {
            let (name, id) = item.trim().split_once(':').unwrap_or((only, item.trim()));
            Ok((name, id.parse().map_err(|_| bad())?))
        })
        .collect()
}

/// The events of all topics of a subscription; ends when the node drains.
pub(crate) fn topics(door: &Arc<Door>, mut at: Subscription, place: Place) -> impl Stream<Item = Event> + Send + use<> {
    let stop = door.stop.clone();
    let mut merged = merged(&door.village, &at);
    async_stream::stream! {
        let _place = place;
        yield opening();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = merged.next() => next,
            };
            let Some((topic, item)) = next else { break };
            match item {
                TopicItem::Event { id, data } => {
                    at.0.insert(topic.clone(), Some(id));
                    yield event(&topic, &data).id(at.id());
                }
                TopicItem::Gap { from, to } => {
                    yield event("gap", &json!({"topic": &*topic, "from": from.to_string(), "to": to.to_string()}));
                }
            }
        }
        yield event("drain", &json!({}));
    }
}

fn merged(village: &Village, at: &Subscription) -> impl Stream<Item = (Arc<str>, TopicItem)> + Send + Unpin + use<> {
    select_all(at.0.iter().map(|(name, from)| {
        let name = name.clone();
        // A topic that fails ends its part of the stream; the client resumes with its last id.
        village
            .topic(&*name)
            .subscribe(*from)
            .filter_map(move |item| {
                let item = item.inspect_err(|error| tracing::debug!(%error, "topic ended")).ok();
                std::future::ready(item.map(|item| (name.clone(), item)))
            })
            .boxed()
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(last: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", axum::http::HeaderValue::from_str(last).unwrap());
        headers
    }

    #[test]
    fn names_and_ids_that_cannot_be_are_refused() {
        for topics in ["", ",", "a b", "a\nb", ".a", "../x", &"x".repeat(129)] {
            assert!(Subscription::read(topics, &HeaderMap::new()).is_err(), "{topics:?}");
        }
        for last in ["x", "1-", "a:b", "1-2-3x"] {
            assert!(Subscription::read("a", &headers(last)).is_err(), "{last:?}");
        }
    }

    #[test]
    fn one_topic_has_a_plain_id() {
        let at = Subscription::read("a", &headers("17-4")).unwrap();
        assert_eq!(at.id(), "17-4");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn ids_resume_every_topic(ids in prop::collection::btree_map("[a-z]{1,5}", (any::<u64>(), any::<u64>()), 1..5)) {
            let topics: Vec<_> = ids.keys().cloned().collect();
            let at = Subscription(ids.iter().map(|(name, (epoch, seq))| {
                (Arc::from(name.as_str()), Some(EventId { epoch: *epoch, seq: *seq }))
            }).collect());
            prop_assert_eq!(Subscription::read(&topics.join(","), &headers(&at.id())).unwrap(), at);
        }
    }
}
