//! `/v1/events`: live topics as server-sent events.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::{Answer, Query};
use crate::door::Door;
use crate::live::{self, Place, Subscription};

/// `?topics=a,b`.
#[derive(Debug, Deserialize)]
pub(crate) struct TopicsQuery {
    #[serde(default)]
    topics: String,
}

/// Events of the topics from now on, or after `Last-Event-ID`. The event's name is its topic; `gap` tells of events that are
/// gone, `drain` that the node stops and the client should connect elsewhere, `denied` that the caller may not have them any more.
#[utoipa::path(get, path = "/v1/events", tag = "live",
    params(("topics" = String, Query, description = "names, separated by commas"),
        ("Last-Event-ID" = Option<String>, Header, description = "id of the last event seen")),
    responses((status = 200, description = "Events", content_type = "text/event-stream")))]
pub(crate) async fn topics(
    State(door): State<Arc<Door>>,
    Query(query): Query<TopicsQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let subscription = Subscription::read(&query.topics, &headers)?;
    let place = Place::take(&door, "events")?;
    Ok(live::respond(live::topics(&door, subscription, place)))
}
