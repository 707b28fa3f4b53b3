//! `/v1/agents`: the roster, questions, single tools, conversations.

use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::{AgentCard, AskRequest};
use aivillage_governance::gate::Denied;
use aivillage_runtime::CallError;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Answer, Body, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::ApiError;
use crate::live::{self, Place};
use crate::pipeline::Caller;
use crate::turn::{self, Turn};

/// How long a served roster may be behind the loaded one.
const FRESH: Duration = Duration::from_secs(1);
/// Pages kept; a roster of 54 agents has few.
const PAGES: usize = 64;

/// Pages of the roster, serialised once and served until they are [`FRESH`] no more.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pages: Mutex<Vec<(RosterQuery, String, Bytes, Instant)>>,
    /// One asks the agents, and the others, who may be a thousand, wait for its page.
    making: tokio::sync::Mutex<()>,
}

impl Roster {
    fn get(&self, tenant: &str, query: &RosterQuery) -> Option<Bytes> {
        let pages = self.pages.lock();
        let found = pages.iter().find(|(of, owner, ..)| of == query && owner == tenant);
        found.filter(|(.., made)| made.elapsed() < FRESH).map(|(_, _, page, _)| page.clone())
    }

    fn put(&self, tenant: &str, query: RosterQuery, page: Bytes) {
        let mut pages = self.pages.lock();
        pages.retain(|(of, owner, _, made)| made.elapsed() < FRESH && !(of == &query && owner == tenant));
        if pages.len() < PAGES {
            pages.push((query, tenant.to_owned(), page, Instant::now()));
        }
    }
}

/// `?limit=&cursor=&category=`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RosterQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    category: Option<String>,
}

/// The agents, by id.
#[utoipa::path(get, path = "/v1/agents", tag = "agents",
    params(("limit" = Option<u32>, Query, description = "1 to 200, 50 if absent"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("category" = Option<String>, Query, description = "only this category")),
    responses((status = 200, description = "A page of agents", body = ref("#/components/schemas/AgentPage"))))]
pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RosterQuery>,
) -> Answer<Response> {
    if let Some(page) = door.roster.get(caller.tenant(), &query) {
        return Ok(json_bytes(page));
    }
    let _making = door.roster.making.lock().await;
    if let Some(page) = door.roster.get(caller.tenant(), &query) {
        return Ok(json_bytes(page));
    }
    let asked = query.clone();
    let filter = format!("agents/{}/{}", caller.tenant(), query.category.as_deref().unwrap_or(""));
    let page = door.cursors.page(&filter, PageQuery::new(query.limit, query.cursor))?;
    let mut cards = door.agents(caller.tenant()).list().await?.into_iter().filter(|card| {
        query.category.as_ref().is_none_or(|category| *category == card.category)
            && page.after.as_ref().is_none_or(|after| card.id > *after)
    });
    let data: Vec<AgentCard> = cards.by_ref().take(page.limit).collect();
    let more = cards.next().is_some();
    let last = data.last().filter(|_| more).map(|card| door.cursors.issue(&filter, &card.id));
    let bytes = serde_json::to_vec(&PageOf { data, next_cursor: last }).map_err(|e| super::unwritable(&e))?;
    let bytes = Bytes::from(bytes);
    door.roster.put(caller.tenant(), asked, bytes.clone());
    Ok(json_bytes(bytes))
}

fn json_bytes(bytes: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response()
}

/// One agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, description = "The agent", body = ref("#/components/schemas/AgentCard")),
        (status = 404, description = "No such agent", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn show(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    Ok(ok(door.agents(caller.tenant()).card(&id).await?))
}

/// A question to an agent.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct AskBody {
    /// The question.
    pub(crate) input: String,
    /// The conversation to go on with; a new one if absent.
    #[serde(default)]
    pub(crate) conversation: Option<String>,
    /// Answer as server-sent events.
    #[serde(default)]
    pub(crate) stream: bool,
    /// The provider that composes the answer; the agent's own choice if absent.
    #[serde(default)]
    pub(crate) provider: Option<String>,
}

/// Asks an agent. With `stream` or `Accept: text/event-stream` the turn's events come as they happen: `step`, `tool_call`,
/// `tool_result`, `retrieved`, `delta`, `citation`, `usage`, and at the end `final` (the whole answer), `moderation` (what follows is withheld, with the notice), `denied` (the caller may not have it any more) or `error`.
#[utoipa::path(post, path = "/v1/agents/{id}/ask", tag = "agents", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/AskBody"), content_type = "application/json"),
    responses((status = 200, description = "The answer", body = ref("#/components/schemas/Answer")),
        (status = 404, description = "No such agent", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn ask(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body<AskBody>,
) -> Answer<Response> {
    let streams = body.stream || accepts_events(&headers);
    let request = AskRequest {
        input: body.input,
        conversation: body.conversation,
        provider: body.provider,
        ..AskRequest::default()
    };
    if !streams {
        return Ok(ok(door.agents(caller.tenant()).ask(&id, request).await?));
    }
    let place = Place::take(&door, "ask")?;
    let turn = turn::stream(&door, &caller, id, request).await?;
    let turn = turn::begin(Box::pin(turn)).await?;
    let trace = caller.trace.trace_hex();
    let events = turn.map(move |turn| {
        let _held = &place;
        match turn {
            Turn::Event(event) => {
                let value = json!(event);
                let name = value.get("event").and_then(Value::as_str).unwrap_or("message").to_owned();
                live::event(&name, &value)
            }
            Turn::Done(Ok(answer)) => live::event("final", &json!(answer)),
            Turn::Done(Err(error)) => {
                let name = if Denied::is_one(&error) { "moderation" } else { "error" };
                live::event(name, &problem(error, &trace))
            }
        }
    });
    let opening = futures::stream::once(std::future::ready(live::opening()));
    Ok(live::respond(opening.chain(events)))
}

fn problem(error: CallError, trace: &str) -> Value {
    ApiError::from(error).problem("", trace)
}

/// True if the client asks for an event stream before anything else.
fn accepts_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.split(',').next().unwrap_or("").trim().to_ascii_lowercase().starts_with("text/event-stream")
}

/// Calls a tool of an agent with query parameters as its arguments: numbers, `true`, `false` and JSON are read as such.
#[utoipa::path(get, path = "/v1/agents/{id}/tools/{tool}", tag = "agents",
    params(("id" = String, Path), ("tool" = String, Path)),
    responses((status = 200, description = "The tool's result"),
        (status = 404, description = "No such agent or tool", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn tool_get(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path((id, tool)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer<Response> {
    let args = query.into_iter().map(|(name, text)| {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (name, value)
    });
    call(&door, &caller, &id, &tool, Value::Object(args.collect::<Map<_, _>>())).await
}

/// Calls a tool of an agent; the body holds its arguments.
#[utoipa::path(post, path = "/v1/agents/{id}/tools/{tool}", tag = "agents",
    params(("id" = String, Path), ("tool" = String, Path)),
    request_body(content = ref("#/components/schemas/ToolArguments"), content_type = "application/json"),
    responses((status = 200, description = "The tool's result"),
        (status = 404, description = "No such agent or tool", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn tool_post(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path((id, tool)): Path<(String, String)>,
    Body(args): Body<Map<String, Value>>,
) -> Answer<Response> {
    call(&door, &caller, &id, &tool, Value::Object(args)).await
}

async fn call(door: &Door, caller: &Caller, id: &str, tool: &str, args: Value) -> Answer<Response> {
    let result = door.agents(caller.tenant()).call_tool(id, tool, args).await?;
    Ok(ok(json!({"result": result, "trace_id": caller.trace.trace_hex()})))
}

/// `?limit=`.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryQuery {
    limit: Option<u32>,
}

/// What was said in a conversation, oldest first.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "agents",
    params(("id" = String, Path), ("limit" = Option<u32>, Query, description = "newest entries, 1 to 200")),
    responses((status = 200, description = "The conversation", body = ref("#/components/schemas/Conversation")),
        (status = 404, description = "No such conversation", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn conversation(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Answer<Response> {
    let page = door.cursors.page("history", PageQuery::new(query.limit, None))?;
    let history = door.agents(caller.tenant()).history(&id, u32::try_from(page.limit).unwrap_or(u32::MAX)).await?;
    Ok(ok(json!({"id": id, "data": history})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_is_served_until_it_is_stale() {
        let roster = Roster::default();
        let query = RosterQuery { limit: None, cursor: None, category: None };
        roster.put("local", query.clone(), Bytes::from_static(b"{}"));
        assert!(roster.get("local", &query).is_some());
        assert!(roster.get("other", &query).is_none(), "a page belongs to its tenant");
        assert!(roster.get("local", &RosterQuery { limit: Some(1), ..query.clone() }).is_none());
        tokio::time::advance(FRESH).await;
        assert!(roster.get("local", &query).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_pages_are_kept_than_the_bound() {
        let roster = Roster::default();
        for limit in 0..500 {
            let query = RosterQuery { limit: Some(limit), cursor: None, category: None };
            roster.put("local", query, Bytes::new());
        }
        assert_eq!(roster.pages.lock().len(), PAGES);
    }

    #[test]
    fn only_a_first_choice_of_events_makes_a_stream() {
        let accepts = |text: &'static str| {
            accepts_events(&[(header::ACCEPT, HeaderValue::from_static(text))].into_iter().collect())
        };
        assert!(accepts("text/event-stream") && accepts("Text/Event-Stream, application/json"));
        assert!(!accepts("*/*") && !accepts("application/json, text/event-stream"));
    }
}
