//! `/v1/keys`: API keys. Everybody keeps the own ones; those of others are an administrator's.

use std::sync::Arc;

use aivillage_governance::identity::accounts::{NewKey, SubjectId};
use aivillage_governance::identity::bearer::TokenId;
use aivillage_governance::identity::{CreatedKey, IdentityMsg, KeyInfo, Page as Part, Secret};
use aivillage_runtime::clock;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::users::{desk, subject};
use super::{Answer, Body, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::{ApiError, FieldError};
use crate::pipeline::Caller;

/// Most keys of one account; see `accounts`.
const OWN_MAX: u16 = 1_000;

/// A key without its secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KeyView {
    /// Names it; the second part of its text.
    id: String,
    /// The account that it is of.
    subject: String,
    /// What it is for.
    label: String,
    /// What it is good for; anything if empty.
    scopes: Vec<String>,
    /// When it was made, Unix milliseconds.
    made_at_ms: u64,
    /// When it ends, Unix milliseconds; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

impl From<KeyInfo> for KeyView {
    fn from(key: KeyInfo) -> Self {
        let KeyInfo { id, subject, label, scopes, made_ms, expires_ms } = key;
        let (id, subject) = (id.to_string(), subject.to_string());
        Self { id, subject, label, scopes, made_at_ms: made_ms, expires_at_ms: expires_ms }
    }
}

/// A key that was just made: the only time that its secret is told.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NewKeyView {
    /// Names it.
    id: String,
    /// The account that it is of.
    subject: String,
    /// The key, to be sent as `Authorization: Bearer` or `x-api-key`.
    #[schemars(with = "String")]
    key: Secret,
}

impl From<CreatedKey> for NewKeyView {
    fn from(CreatedKey { subject, id, secret }: CreatedKey) -> Self {
        Self { id: id.to_string(), subject: subject.to_string(), key: secret }
    }
}

/// Which keys.
#[derive(Debug, Deserialize)]
pub(crate) struct KeysQuery {
    subject: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// An unknown id and one of another tenant are the same.
fn token(id: &str) -> Answer<TokenId> {
    TokenId::try_from(id.to_owned()).map_err(|_| ApiError::not_found("this key"))
}

/// API keys, the caller's own or with `subject` those of another account or, with `*`, of all.
#[utoipa::path(get, path = "/v1/keys", tag = "accounts",
    params(("subject" = Option<String>, Query, description = "id of an account, or `*` for all; the caller's own if not given"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 if not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "A page of keys", body = ref("#/components/schemas/KeyPage"))))]
pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<KeysQuery>,
) -> Answer<Response> {
    let whose = query.subject.unwrap_or_else(|| caller.principal.subject.clone());
    caller.may_keep(&door.gate, &whose)?;
    let filter = format!("keys/{}/{whose}", caller.tenant());
    let page = door.cursors.page(&filter, PageQuery::new(query.limit, query.cursor))?;
    let owner = match whose.as_str() {
        "*" => None,
        id if id == caller.principal.subject && subject(id).is_err() => {
            // The key of the node is no account.
            return Ok(ok(PageOf::<KeyView> { data: Vec::new(), next_cursor: None }));
        }
        id => Some(subject(id)?),
    };
    let after = page.after.as_deref().map(token).transpose()?;
    let part = Part { after, limit: u16::try_from(page.limit + 1).unwrap_or(u16::MAX) };
    let mut keys = desk(&door, &caller).query(|reply| IdentityMsg::ListKeys(owner, part, reply)).await?;
    // One more than asked for tells whether there is another page.
    let more = keys.len() > page.limit;
    keys.truncate(page.limit);
    let next_cursor = keys.last().filter(|_| more).map(|last| door.cursors.issue(&filter, last.id.as_str()));
    Ok(ok(PageOf { data: keys.into_iter().map(KeyView::from).collect(), next_cursor }))
}

/// A key to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeyBody {
    /// Id of the account; the caller's if none is named.
    subject: Option<String>,
    /// What it is for, at most 64 bytes.
    #[serde(default)]
    label: String,
    /// What it is to be good for: `area.verb` or `area.*`; anything that its account may if empty.
    #[serde(default)]
    scopes: Vec<String>,
    /// Seconds until it ends; never if not given.
    ttl_s: Option<u64>,
}

/// Makes an API key.
#[utoipa::path(post, path = "/v1/keys", tag = "accounts",
    request_body(content = ref("#/components/schemas/NewKeyBody"), content_type = "application/json"),
    responses((status = 201, description = "The key", body = ref("#/components/schemas/NewKey")),
        (status = 404, description = "No such account", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "The account has as many as it may have", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "A value that cannot be", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn create(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<NewKeyBody>,
) -> Answer<Response> {
    let whose = body.subject.unwrap_or_else(|| caller.principal.subject.clone());
    caller.may_keep(&door.gate, &whose)?;
    let detail = "name an account: the caller has none of its own".to_owned();
    let own = whose == caller.principal.subject;
    let none = || ApiError::invalid(vec![FieldError { pointer: "/subject".to_owned(), detail }]);
    let owner = subject(&whose).map_err(|error| if own { none() } else { error })?;
    let ends = |ttl_s: u64| clock::unix_ms().saturating_add(ttl_s.saturating_mul(1_000));
    let new = NewKey { subject: owner, label: body.label, scopes: body.scopes, expires_ms: body.ttl_s.map(ends) };
    let made = desk(&door, &caller).ask(|reply| IdentityMsg::CreateKey(new, reply)).await??;
    door.credentials().settle(made.secret.expose()).await;
    Ok((StatusCode::CREATED, Json(NewKeyView::from(made))).into_response())
}

/// Ends an API key.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 204, description = "It is worth nothing now"),
        (status = 404, description = "No such key", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn revoke(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let own = match subject(&caller.principal.subject) {
        Ok(own) => keys_of(&door, &caller, own).await?,
        Err(_) => Vec::new(),
    };
    let is_own = own.iter().any(|key| key.id.as_str() == id);
    caller.may_keep(&door.gate, if is_own { &caller.principal.subject } else { "*" })?;
    let id = token(&id)?;
    desk(&door, &caller).ask(|reply| IdentityMsg::Revoke(id, reply)).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn keys_of(door: &Door, caller: &Caller, owner: SubjectId) -> Answer<Vec<KeyInfo>> {
    let all = Part { after: None, limit: OWN_MAX };
    Ok(desk(door, caller).query(|reply| IdentityMsg::ListKeys(Some(owner), all, reply)).await?)
}
