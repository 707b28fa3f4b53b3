//! `/v1/models` and `/v1/chat/completions`: the `OpenAI` surface.

use std::sync::Arc;

use aivillage_actors::wire::openai::ChatRequest;
use aivillage_actors::{AskRequest, TurnEvent};
use aivillage_governance::gate::Denied;
use aivillage_runtime::clock;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Answer, Body, Path, ok};
use crate::door::Door;
use crate::error::ApiError;
use crate::live::{self, Place};
use crate::openai::{self, Completion, Model, VILLAGE, check, question, unsent};
use crate::pipeline::Caller;
use crate::turn::{self, Turn};

/// The models: `village`, every agent, and every agent with each provider that is configured.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, description = "The models", body = ref("#/components/schemas/Models"))))]
pub(crate) async fn models(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let data: Vec<Value> = ids(&door, &caller).await?.iter().map(|id| model_object(id)).collect();
    Ok(ok(json!({"object": "list", "data": data})))
}

async fn ids(door: &Door, caller: &Caller) -> Answer<Vec<String>> {
    let agents = door.agents(caller.tenant());
    let mut ids = vec![VILLAGE.to_owned()];
    for card in agents.list().await? {
        ids.push(card.id);
    }
    let named: Vec<String> = agents.models().into_iter().map(|provider| provider.id).collect();
    let with: Vec<String> = ids.iter().flat_map(|id| named.iter().map(move |name| format!("{id}@{name}"))).collect();
    ids.extend(with);
    Ok(ids)
}

fn model_object(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "aivillage"})
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", params(("id" = String, Path)),
    responses((status = 200, description = "The model", body = ref("#/components/schemas/Model")),
        (status = 404, description = "No such model", body = ref("#/components/schemas/OpenAiError"))))]
pub(crate) async fn model(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let known = ids(&door, &caller).await?.contains(&id);
    if known { Ok(ok(model_object(&id))) } else { Err(openai::not_found(&id)) }
}

/// Answers a chat. With `stream` the answer comes as `chat.completion.chunk` events and ends with `data: [DONE]`, or without it
/// with an error: events `moderation` or `denied`.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai",
    request_body(content = ref("#/components/schemas/ChatRequest"), content_type = "application/json"),
    responses((status = 200, description = "The completion", body = ref("#/components/schemas/ChatResponse")),
        (status = 400, description = "Something is not served", body = ref("#/components/schemas/OpenAiError")),
        (status = 404, description = "No such model", body = ref("#/components/schemas/OpenAiError"))))]
pub(crate) async fn completions(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ChatRequest>,
) -> Answer<Response> {
    check(&request)?;
    let model = Model::parse(&request.model)?;
    let agents = door.agents(caller.tenant());
    agents.card(&model.agent).await.map_err(|error| in_dialect(error, &request.model))?;
    let completion = Completion::new(&request.model, clock::unix_ms() / 1_000);
    let ask = AskRequest { input: question(&request)?, provider: model.provider, ..AskRequest::default() };
    if !request.stream {
        let answer = agents.ask(&model.agent, ask).await.map_err(|error| in_dialect(error, &request.model))?;
        return Ok(ok(completion.response(&answer)));
    }
    let place = Place::take(&door, "chat")?;
    let turn = turn::stream(&door, &caller, model.agent, ask).await?;
    let turn = turn::begin(Box::pin(turn)).await.map_err(|error| in_dialect(error, &request.model))?;
    let with_usage = request.stream_options.is_some_and(|options| options.include_usage);
    Ok(live::respond(chunks(completion, turn, with_usage, caller.trace.trace_hex(), place)))
}

/// A provider that is not there makes the whole model unknown.
fn in_dialect(error: aivillage_runtime::CallError, model: &str) -> ApiError {
    match error.code().as_ref() {
        "model_not_found" | "agent_unknown" => openai::not_found(model),
        _ => error.into(),
    }
}

fn chunks(
    completion: Completion,
    mut turn: impl Stream<Item = Turn> + Send + Unpin + 'static,
    with_usage: bool,
    trace: String,
    place: Place,
) -> impl Stream<Item = Event> + Send + 'static {
    async_stream::stream! {
        let _place = place;
        yield data(&completion.opening());
        let mut sent = String::new();
        while let Some(turn) = turn.next().await {
            match turn {
                Turn::Event(TurnEvent::Delta { text }) => {
                    sent.push_str(&text);
                    yield data(&completion.text(text));
                }
                Turn::Event(_) => {}
                Turn::Done(Ok(answer)) => {
                    let rest = unsent(&answer.answer, &sent);
                    if !rest.is_empty() {
                        yield data(&completion.text(rest.to_owned()));
                    }
                    yield data(&completion.ending(&answer));
                    if with_usage {
                        yield data(&completion.usage(&answer));
                    }
                    yield Event::default().data("[DONE]");
                }
                // No `[DONE]`: clients take that for a whole answer.
                Turn::Done(Err(error)) => {
                    let is_withheld = Denied::is_one(&error);
                    let event = data(&ApiError::from(error).openai(&trace));
                    yield if is_withheld { event.event("moderation") } else { event };
                }
            }
        }
    }
}

fn data(chunk: &impl Serialize) -> Event {
    Event::default().data(serde_json::to_string(chunk).unwrap_or_else(|_| "{}".to_owned()))
}
