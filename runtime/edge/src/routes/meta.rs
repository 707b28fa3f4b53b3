//! Health, status, metrics and the `OpenAPI` document.

use std::sync::Arc;

use aivillage_runtime::{Happening, Supervised};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Query, ok};
use crate::door::Door;
use crate::pipeline::{Caller, Rendered};

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "meta", security(()),
    responses((status = 200, description = "It lives")))]
pub(crate) async fn healthz() -> Response {
    ok(json!({"status": "ok"}))
}

/// The node takes requests: 503 while it drains, takes no part in its cluster, has no policies, or the store cannot be written.
#[utoipa::path(get, path = "/readyz", tag = "meta", security(()),
    responses((status = 200, description = "It is ready"), (status = 503, description = "It is not, and why")))]
pub(crate) async fn readyz(State(door): State<Arc<Door>>) -> Response {
    let health = door.village.health();
    let policies = door.gate.snapshot().is_some();
    let detail = if policies { "loaded" } else { "none are loaded, so nothing is allowed: see the log" };
    let checks = health.checks.iter().map(|check| json!(check));
    let checks: Vec<Value> = checks.chain([json!({"name": "policies", "ok": policies, "detail": detail})]).collect();
    let ready = health.ready && policies && !door.stop.is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": ready, "draining": door.stop.is_cancelled(), "checks": checks});
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(Rendered);
    response
}

/// The node at a glance.
#[utoipa::path(get, path = "/v1/status", tag = "meta",
    responses((status = 200, description = "Node, kinds, actors, store, memory", body = ref("#/components/schemas/Status"))))]
pub(crate) async fn status(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let village = &door.village;
    let health = village.health();
    let kinds = village.kinds();
    let actors = kinds.iter().map(|kind| kind.live).sum::<usize>();
    let kinds: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            json!({
                "kind": kind.kind, "version": kind.version, "live": kind.live, "messages": kind.messages.len(),
                "handled": kind.handled, "waiting": kind.waiting, "restarts": kind.restarts,
                "handling": kind.handling,
            })
        })
        .collect();
    let memory = door.memory(caller.tenant()).stats(None).await?;
    Ok(ok(json!({
        "node": village.node_id().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": village.uptime().as_secs(),
        "ready": health.ready && !door.stop.is_cancelled(),
        "checks": health.checks,
        "kinds": kinds,
        "actors": actors,
        "store": village.store().stats(),
        "memory": memory,
        "dead_letters": village.dead_letters_total(),
        "data_dir": village.data_dir().map(|path| path.display().to_string()),
        "cluster": village.cluster().map(|cluster| super::cluster::summary(&cluster.status())),
    })))
}

/// How much of it.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryQuery {
    #[serde(default = "a_page")]
    limit: usize,
}

/// How many actors of each kind.
#[derive(Debug, Deserialize)]
pub(crate) struct SupervisionQuery {
    #[serde(default = "a_page")]
    actors: usize,
}

/// What happened.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HistoryView {
    /// The newest first.
    data: Vec<Happening>,
}

/// Who looks after whom.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SupervisionView {
    /// The trees.
    data: Vec<Supervised>,
}

fn a_page() -> usize {
    100
}

/// What happened on this node and around it lately: members and leaders that changed, crashes, restarts. The newest first.
#[utoipa::path(get, path = "/v1/history", tag = "meta",
    params(("limit" = Option<usize>, Query, description = "at most so many, 100 if not given; 1000 are kept")),
    responses((status = 200, description = "Happenings", body = ref("#/components/schemas/History"))))]
pub(crate) async fn history(State(door): State<Arc<Door>>, Query(query): Query<HistoryQuery>) -> Answer<Response> {
    Ok(ok(HistoryView { data: door.village.history(query.limit) }))
}

/// The supervision trees of this node: its kinds with their busiest actors, and what it does for the cluster.
#[utoipa::path(get, path = "/v1/supervision", tag = "meta",
    params(("actors" = Option<usize>, Query, description = "at most so many of each kind, 100 if not given and at most 1000")),
    responses((status = 200, description = "Supervisors with their children", body = ref("#/components/schemas/Supervision"))))]
pub(crate) async fn supervision(
    State(door): State<Arc<Door>>,
    Query(query): Query<SupervisionQuery>,
) -> Answer<Response> {
    Ok(ok(SupervisionView { data: door.village.supervision(query.actors.min(1000)).await }))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "meta", security(()),
    responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn document(State(door): State<Arc<Door>>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], door.openapi.clone()).into_response()
}

/// All metrics, in the `OpenMetrics` text format.
pub(crate) async fn metrics(State(door): State<Arc<Door>>) -> Response {
    const FORMAT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, FORMAT)], door.village.encode_metrics()).into_response()
}

/// A person who opens the address in a browser wants the documentation.
pub(crate) async fn root() -> Redirect {
    Redirect::temporary("/docs/")
}
