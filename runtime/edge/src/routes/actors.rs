//! `/v1/actors`: what lives here, and any exposed message to any actor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aivillage_governance::moderation::Stage;
use aivillage_runtime::{CallOptions, MessageInfo};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Body, Path, ok};
use crate::door::Door;
use crate::error::{ApiError, Code, FieldError};
use crate::pipeline::Caller;

/// The kinds hosted here, with the messages that may be sent to them.
#[utoipa::path(get, path = "/v1/actors", tag = "actors",
    responses((status = 200, description = "Kinds with their messages and schemas", body = ref("#/components/schemas/Kinds"))))]
pub(crate) async fn kinds(State(door): State<Arc<Door>>) -> Response {
    ok(json!({"data": door.village.kinds()}))
}

/// One kind.
#[utoipa::path(get, path = "/v1/actors/{kind}", tag = "actors", params(("kind" = String, Path)),
    responses((status = 200, description = "The kind and its live actors", body = ref("#/components/schemas/Kind")),
        (status = 404, description = "No such kind", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn kind(State(door): State<Arc<Door>>, Path(kind): Path<String>) -> Answer<Response> {
    let Some(info) = door.village.kind_info(&kind) else { return Err(kind_unknown(&kind)) };
    let mut body = json!(info);
    let mut actors = door.village.actors(Some(&kind));
    actors.truncate(200);
    body["actors"] = json!(actors);
    Ok(ok(body))
}

/// One actor: state, mailbox depth, restarts, uptime.
#[utoipa::path(get, path = "/v1/actors/{kind}/{key}", tag = "actors", params(("kind" = String, Path), ("key" = String, Path)),
    responses((status = 200, description = "The actor", body = ref("#/components/schemas/Actor")),
        (status = 404, description = "It does not live now", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn show(State(door): State<Arc<Door>>, Path((kind, key)): Path<(String, String)>) -> Answer<Response> {
    if door.village.kind_info(&kind).is_none() {
        return Err(kind_unknown(&kind));
    }
    let actor = door.village.actor(&kind, &key).ok_or_else(|| ApiError::not_found("this actor"))?;
    let mut body = json!(actor);
    body["node"] = json!(door.village.node_id().to_string());
    Ok(ok(body))
}

/// Whether the sender waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Waits.
    #[serde(alias = "ask")]
    Call,
    /// Does not.
    #[serde(alias = "tell")]
    Cast,
}

/// A message to an actor: `type` and `payload`, or `message` in the form `{"Add":[2,null]}`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct MessageBody {
    /// Name of the message.
    #[serde(default, rename = "type")]
    name: Option<String>,
    /// Its content, as its schema says.
    #[serde(default)]
    payload: Value,
    /// Name and content in one, the reply slot written `null`.
    #[serde(default)]
    message: Option<Value>,
    /// `call` (the default where the message has a reply) or `cast`.
    #[serde(default)]
    mode: Option<Mode>,
    /// Longest wait for the reply.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// Sends a message to an actor. The actor need not live: the first message starts it.
#[utoipa::path(post, path = "/v1/actors/{kind}/{key}/messages", tag = "actors",
    params(("kind" = String, Path), ("key" = String, Path, description = "any UTF-8, at most 512 bytes, percent-encoded")),
    request_body(content = ref("#/components/schemas/MessageBody"), content_type = "application/json"),
    responses((status = 200, description = "The reply", body = ref("#/components/schemas/MessageReply")),
        (status = 202, description = "Sent, no reply is waited for"),
        (status = 404, description = "No such kind or message", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "The payload does not fit its schema", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn send(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path((kind, key)): Path<(String, String)>,
    Body(body): Body<MessageBody>,
) -> Answer<Response> {
    let started = Instant::now();
    let messages = door.village.messages(&kind).ok_or_else(|| kind_unknown(&kind))?;
    if kind.starts_with("sys.") && !caller.principal.has_role("admin") {
        return Err(ApiError::new(Code::Forbidden, "kinds of the system are for the role admin"));
    }
    let (name, payload, given) = named(body.name, body.payload, body.message)?;
    let message = find(&messages, &name)?;
    caller.may_send(&door.gate, &message.action, &kind, &key)?;
    let cast = body.mode.unwrap_or(if message.ask { Mode::Call } else { Mode::Cast }) == Mode::Cast;
    let content = match given {
        Given::Payload => message.body(payload).map_err(|errors| invalid(errors, "/payload"))?,
        // Its reply slot stands in place already; the decoder checks the rest.
        Given::Whole => payload,
    };
    let content = admitted(&door, &caller, &kind, content).await?;
    let options = CallOptions {
        deadline: Some(wait(&caller, body.timeout_ms)),
        principal: Some(caller.principal.clone()),
        trace: Some(caller.trace),
        idem: caller.idem,
    };
    if cast {
        if message.ask {
            // The reply is nobody's, and waiting for it is what the caller did not want.
            let village = door.village.clone();
            let sent = async move { village.send_json(&kind, &key, content, options).await };
            door.village.task("edge.cast", sent).detach();
        } else {
            door.village.send_json(&kind, &key, content, options).await?;
        }
        return Ok((StatusCode::ACCEPTED, axum::Json(json!({}))).into_response());
    }
    let reply = door.village.send_json(&kind, &key, content, options).await?;
    let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(ok(json!({
        "reply": reply,
        "node": door.village.node_id().to_string(),
        "elapsed_us": elapsed_us,
    })))
}

/// Alias of `POST /v1/actors/{kind}/{key}/messages`.
#[utoipa::path(post, path = "/v1/actors/{kind}/{key}", tag = "actors",
    params(("kind" = String, Path), ("key" = String, Path)),
    request_body(content = ref("#/components/schemas/MessageBody"), content_type = "application/json"),
    responses((status = 200, description = "The reply", body = ref("#/components/schemas/MessageReply"))))]
pub(crate) async fn send_alias(
    state: State<Arc<Door>>,
    caller: Extension<Caller>,
    path: Path<(String, String)>,
    body: Body<MessageBody>,
) -> Answer<Response> {
    send(state, caller, path, body).await
}

/// The content, if its words pass the gate. Agents and the memory let it pass themselves, at the stage it is for; others do not
/// know the gate.
async fn admitted(door: &Door, caller: &Caller, kind: &str, content: Value) -> Answer<Value> {
    let is_gated = ["agent", "memory."].iter().any(|gated| kind.starts_with(gated));
    if is_gated || !has_words(&content) {
        return Ok(content);
    }
    let admission = door.gate.admit(Stage::UserInput, &caller.sends(), content.to_string()).await?;
    if !admission.is_redacted {
        return Ok(content);
    }
    serde_json::from_str(&admission.content).map_err(|_| {
        ApiError::new(Code::DataProtected, "protected data cannot be taken out of a number: write it as text")
    })
}

/// Whether there is anything to judge: names of fields and numbers say nothing.
fn has_words(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => values.iter().any(has_words),
        Value::Object(fields) => fields.values().any(has_words),
        _ => false,
    }
}

/// In which form the content was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Payload,
    Whole,
}

/// The message's name and content.
fn named(name: Option<String>, payload: Value, message: Option<Value>) -> Answer<(String, Value, Given)> {
    let refuse = |pointer: &str, detail: &str| {
        ApiError::invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    };
    match (name, message) {
        (Some(_), Some(_)) => Err(refuse("/message", "give either type and payload, or message")),
        (Some(name), None) => Ok((name, payload, Given::Payload)),
        (None, Some(Value::String(name))) => Ok((name, Value::Null, Given::Payload)),
        (None, Some(Value::Object(tagged))) => {
            whole(tagged).ok_or_else(|| refuse("/message", "must have exactly one member, named like the message"))
        }
        (None, Some(_)) => Err(refuse("/message", "must be an object such as {\"Add\":[2,null]}, or a string")),
        (None, None) => Err(refuse("/type", "name the message")),
    }
}

fn whole(tagged: Map<String, Value>) -> Option<(String, Value, Given)> {
    let name = tagged.keys().next()?.clone();
    (tagged.len() == 1).then_some((name, Value::Object(tagged), Given::Whole))
}

fn find<'m>(messages: &'m [MessageInfo], name: &str) -> Answer<&'m MessageInfo> {
    messages.iter().find(|message| message.name == name).ok_or_else(|| {
        let known: Vec<&str> = messages.iter().map(|message| message.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ApiError::new(Code::MessageUnknown, format!("this kind exposes no such message; exposed: {known}"))
    })
}

fn invalid(errors: Vec<aivillage_runtime::SchemaError>, below: &str) -> ApiError {
    let place = |error: aivillage_runtime::SchemaError| FieldError {
        pointer: format!("{below}{}", error.pointer),
        detail: error.detail.chars().take(300).collect(),
    };
    ApiError::invalid(errors.into_iter().map(place).collect())
}

/// The shorter of the caller's own limit and what is left of the request's.
fn wait(caller: &Caller, timeout_ms: Option<u64>) -> Duration {
    let left = caller.deadline.saturating_duration_since(tokio::time::Instant::now());
    timeout_ms.map_or(left, |ms| left.min(Duration::from_millis(ms)))
}

fn kind_unknown(kind: &str) -> ApiError {
    let kind: String = kind.chars().take(64).collect();
    ApiError::new(Code::KindUnknown, format!("no kind {kind:?} is hosted here; see /v1/actors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_message() {
        let add = named(Some("Add".into()), json!([2]), None).unwrap();
        assert_eq!(add, ("Add".to_owned(), json!([2]), Given::Payload));
        let add = named(None, Value::Null, Some(json!({"Add": [2, null]}))).unwrap();
        assert_eq!(add, ("Add".to_owned(), json!({"Add": [2, null]}), Given::Whole));
        assert_eq!(named(None, Value::Null, Some(json!("Reset"))).unwrap().0, "Reset");
    }

    #[test]
    fn ambiguous_and_missing_names_are_refused_with_a_pointer() {
        let cases = [
            (named(None, Value::Null, None), "/type"),
            (named(Some("A".into()), Value::Null, Some(json!("B"))), "/message"),
            (named(None, Value::Null, Some(json!({"A": 1, "B": 2}))), "/message"),
            (named(None, Value::Null, Some(json!({}))), "/message"),
            (named(None, Value::Null, Some(json!(3))), "/message"),
        ];
        for (result, pointer) in cases {
            assert_eq!(result.unwrap_err().problem("", "t")["errors"][0]["pointer"], pointer);
        }
    }
}
