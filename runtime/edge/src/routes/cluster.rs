//! `/v1/cluster`: the nodes of the village, and who may become one.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::cluster::{Cluster, ClusterStatus, DecideError};
use aivillage_runtime::control::TokenRecord;
use aivillage_runtime::{JoinUrl, NodeId, clock};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Body, Path, ok};
use crate::door::Door;
use crate::error::{ApiError, Code, FieldError};

/// Longest life of a join token. Who needs one for longer makes another.
const TTL_MAX_S: u64 = 30 * 24 * 60 * 60;
/// Most nodes that one token lets in: as many as a cluster has.
const USES_MAX: u32 = 64;

fn cluster(door: &Door) -> Answer<&Cluster> {
    door.village.cluster().ok_or_else(|| DecideError::NoCluster.into())
}

/// How the cluster is, as this node sees it.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    responses((status = 200, description = "Members, groups, problems", body = ref("#/components/schemas/ClusterStatus"))))]
pub(crate) async fn status(State(door): State<Arc<Door>>) -> Answer<Response> {
    Ok(ok(cluster(&door)?.status()))
}

/// Which node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainBody {
    /// Its id, 16 hex digits.
    node: String,
}

/// Lets a node finish what it has and take nothing new. It is a member on: its process ends when it is told to.
#[utoipa::path(post, path = "/v1/cluster/drain", tag = "cluster",
    request_body(content = ref("#/components/schemas/DrainBody"), content_type = "application/json"),
    responses((status = 200, description = "It drains; the cluster as it is now", body = ref("#/components/schemas/ClusterStatus")),
        (status = 404, description = "No such node", body = ref("#/components/schemas/Problem")),
        (status = 503, description = "No quorum", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn drain(State(door): State<Arc<Door>>, Body(body): Body<DrainBody>) -> Answer<Response> {
    let cluster = cluster(&door)?;
    cluster.drain(node(&body.node)?).await?;
    Ok(ok(cluster.status()))
}

/// Which node, and whether it may be up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveBody {
    /// Its id, 16 hex digits.
    node: String,
    /// Also when it is not down.
    #[serde(default)]
    force: bool,
}

/// Forgets a node; it must join anew.
#[utoipa::path(post, path = "/v1/cluster/remove", tag = "cluster",
    request_body(content = ref("#/components/schemas/RemoveBody"), content_type = "application/json"),
    responses((status = 200, description = "It is gone; the cluster as it is now", body = ref("#/components/schemas/ClusterStatus")),
        (status = 404, description = "No such node", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "It is not down, or the last one", body = ref("#/components/schemas/Problem")),
        (status = 503, description = "No quorum", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn remove(State(door): State<Arc<Door>>, Body(body): Body<RemoveBody>) -> Answer<Response> {
    let cluster = cluster(&door)?;
    cluster.remove(node(&body.node)?, body.force).await?;
    Ok(ok(cluster.status()))
}

fn node(id: &str) -> Answer<NodeId> {
    id.parse().map_err(|error| invalid("/node", &error))
}

fn invalid(pointer: &str, detail: &dyn std::fmt::Display) -> ApiError {
    ApiError::invalid(vec![FieldError { pointer: pointer.to_owned(), detail: detail.to_string() }])
}

/// What a new join token is good for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TokenBody {
    /// Nodes that may join with it, 1 to 64.
    uses: u32,
    /// Seconds until it is worth nothing, 1 to 2592000 (30 days).
    ttl_s: u64,
    /// What it is for, at most 256 bytes.
    note: String,
}

impl Default for TokenBody {
    fn default() -> Self {
        Self { uses: 1, ttl_s: 60 * 60, note: String::new() }
    }
}

impl TokenBody {
    fn check(&self) -> Answer<()> {
        let mut errors = Vec::new();
        let mut within = |pointer: &str, fits: bool, range: &str| {
            if !fits {
                errors.push(FieldError { pointer: pointer.to_owned(), detail: format!("must be {range}") });
            }
        };
        within("/uses", (1..=USES_MAX).contains(&self.uses), "1 to 64");
        within("/ttl_s", (1..=TTL_MAX_S).contains(&self.ttl_s), "1 to 2592000");
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
    }
}

/// A join token without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenView {
    /// Names it, 16 hex digits.
    id: String,
    /// Nodes that may still join with it.
    uses_left: u32,
    /// From this Unix millisecond on it is worth nothing.
    expires_at_ms: u64,
    /// Seconds until then, 0 when it is over.
    expires_in_s: u64,
    /// What it is for.
    note: String,
}

impl TokenView {
    fn of(token: TokenRecord, now_ms: u64) -> Self {
        TokenView {
            id: format!("{:016x}", token.id),
            uses_left: token.uses_left,
            expires_at_ms: token.expires_at_ms,
            expires_in_s: token.expires_at_ms.saturating_sub(now_ms) / 1_000,
            note: token.note,
        }
    }
}

/// A join token that was just made: the only time that its secret is told.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NewTokenView {
    /// Names it, 16 hex digits.
    id: String,
    /// The token with its secret.
    token: String,
    /// Where nodes join with it.
    addr: String,
    /// `TOKEN@HOST:PORT`, as `village join` takes it.
    join: String,
    /// Nodes that may join with it.
    uses_left: u32,
    /// Seconds until it is worth nothing.
    expires_in_s: u64,
}

/// The join tokens, without their secrets.
#[utoipa::path(get, path = "/v1/cluster/tokens", tag = "cluster",
    responses((status = 200, description = "All tokens that have not expired", body = ref("#/components/schemas/Tokens"))))]
pub(crate) async fn tokens(State(door): State<Arc<Door>>) -> Answer<Response> {
    let now_ms = clock::unix_ms();
    let mut live = cluster(&door)?.tokens();
    live.retain(|token| now_ms < token.expires_at_ms);
    live.sort_by_key(|token| (token.expires_at_ms, token.id));
    let data: Vec<_> = live.into_iter().map(|token| TokenView::of(token, now_ms)).collect();
    Ok(ok(json!({ "data": data })))
}

/// Makes a join token.
#[utoipa::path(post, path = "/v1/cluster/tokens", tag = "cluster",
    request_body(content = ref("#/components/schemas/TokenBody"), content_type = "application/json"),
    responses((status = 201, description = "The token with its secret", body = ref("#/components/schemas/NewToken")),
        (status = 422, description = "A value out of range", body = ref("#/components/schemas/Problem")),
        (status = 503, description = "No quorum", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn new_token(State(door): State<Arc<Door>>, Body(body): Body<TokenBody>) -> Answer<Response> {
    let cluster = cluster(&door)?;
    body.check()?;
    let token = cluster.new_token(body.uses, Duration::from_secs(body.ttl_s), &body.note).await?;
    let url = JoinUrl { token, addr: cluster.addr().to_owned() };
    let view = NewTokenView {
        id: format!("{:016x}", url.token.token_id),
        token: url.token.to_string(),
        join: url.to_string(),
        addr: url.addr,
        uses_left: body.uses,
        expires_in_s: body.ttl_s,
    };
    Ok((StatusCode::CREATED, axum::Json(view)).into_response())
}

/// Ends a join token.
#[utoipa::path(delete, path = "/v1/cluster/tokens/{id}", tag = "cluster", params(("id" = String, Path, description = "16 hex digits")),
    responses((status = 204, description = "It is worth nothing now"),
        (status = 404, description = "No such token", body = ref("#/components/schemas/Problem")),
        (status = 503, description = "No quorum", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn revoke(State(door): State<Arc<Door>>, Path(id): Path<String>) -> Answer<Response> {
    let cluster = cluster(&door)?;
    let unknown = || ApiError::new(Code::TokenUnknown, "a token's id has 16 hex digits; see `village token list`");
    let plain = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(&id, 16).ok().filter(|_| plain).ok_or_else(unknown)?;
    cluster.revoke_token(id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The cluster in a few words, for `/v1/status`.
pub(crate) fn summary(status: &ClusterStatus) -> Value {
    json!({
        "id": status.cluster,
        "health": status.health,
        "nodes": status.members.len(),
        "up": status.members.iter().filter(|member| member.state == "up").count(),
        "problems": status.problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_out_of_range_is_refused_with_every_place() {
        assert!(TokenBody::default().check().is_ok());
        let body = TokenBody { uses: 0, ttl_s: TTL_MAX_S + 1, note: String::new() };
        let problem = body.check().unwrap_err().problem("/", "t");
        let pointers: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
        assert_eq!(pointers, ["/uses", "/ttl_s"]);
    }

    #[test]
    fn a_token_is_shown_without_its_secret() {
        let record = TokenRecord { id: 10, secret_hash: [7; 32], expires_at_ms: 5_500, uses_left: 2, note: "n".into() };
        let view = serde_json::to_value(TokenView::of(record, 1_000)).unwrap();
        let expected =
            json!({"id": "000000000000000a", "uses_left": 2, "expires_at_ms": 5_500, "expires_in_s": 4, "note": "n"});
        assert_eq!(view, expected);
    }
}
