//! `/v1/users`: the accounts of the caller's tenant.

use std::collections::BTreeSet;
use std::sync::Arc;

use aivillage_governance::identity::accounts::{NewSubject, SubjectId};
use aivillage_governance::identity::role::Role;
use aivillage_governance::identity::{
    Enrolment, Identity, IdentityError, IdentityMsg, Page as Part, Secret, SetPassword, UserInfo,
};
use aivillage_runtime::{Addr, PrincipalKind};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Answer, Body, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::{ApiError, FieldError};
use crate::pipeline::Caller;

/// An account.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UserView {
    /// Names it for good.
    id: String,
    /// `user`, `service` or `agent`.
    kind: String,
    /// What it logs in with.
    name: String,
    /// What it may be.
    roles: Vec<String>,
    /// It may do nothing for now.
    suspended: bool,
    /// Whether it can log in with a password.
    has_password: bool,
    /// Whether a login asks for a second factor.
    has_mfa: bool,
    /// When it was made, Unix milliseconds.
    made_at_ms: u64,
}

impl From<UserInfo> for UserView {
    fn from(user: UserInfo) -> Self {
        Self {
            id: user.id.to_string(),
            kind: kind_name(user.kind).to_owned(),
            name: user.name,
            roles: user.roles.iter().map(|role| role.name().to_owned()).collect(),
            suspended: user.is_suspended,
            has_password: user.has_password,
            has_mfa: user.has_mfa,
            made_at_ms: user.made_ms,
        }
    }
}

pub(super) fn kind_name(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "user",
        PrincipalKind::Service => "service",
        PrincipalKind::Agent => "agent",
        PrincipalKind::Node => "node",
    }
}

pub(super) fn desk(door: &Door, caller: &Caller) -> Addr<Identity> {
    door.village.addr(caller.tenant())
}

/// The account of an id.
pub(super) fn subject(id: &str) -> Answer<SubjectId> {
    Uuid::parse_str(id).map(SubjectId).map_err(|_| IdentityError::NotFound { what: "subject".to_owned() }.into())
}

fn roles(names: &[String], pointer: &str) -> Answer<BTreeSet<Role>> {
    let known = |name: &String| Role::ALL.into_iter().find(|role| role.name() == name);
    let unknown = |at: usize, name: &str| FieldError {
        pointer: format!("{pointer}/{at}"),
        detail: format!("there is no role `{name}`; roles are {}", Role::ALL.map(Role::name).join(", ")),
    };
    let wrong: Vec<_> = names.iter().enumerate().filter(|(_, name)| known(name).is_none()).collect();
    if wrong.is_empty() {
        return Ok(names.iter().filter_map(known).collect());
    }
    Err(ApiError::invalid(wrong.into_iter().map(|(at, name)| unknown(at, name)).collect()))
}

/// Which accounts.
#[derive(Debug, Deserialize)]
pub(crate) struct UsersQuery {
    name: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// The accounts of the tenant, in the order of their making.
#[utoipa::path(get, path = "/v1/users", tag = "accounts",
    params(("name" = Option<String>, Query, description = "only the one with this name or id"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 if not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "A page of accounts", body = ref("#/components/schemas/UserPage"))))]
pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(UsersQuery { name, limit, cursor }): Query<UsersQuery>,
) -> Answer<Response> {
    if let Some(name) = name {
        let found = desk(&door, &caller).query(|reply| IdentityMsg::Find(name, reply)).await?;
        return Ok(ok(PageOf { data: found.into_iter().map(UserView::from).collect(), next_cursor: None }));
    }
    let filter = format!("users/{}", caller.tenant());
    let page = door.cursors.page(&filter, PageQuery::new(limit, cursor))?;
    let after = page.after.as_deref().map(subject).transpose()?;
    let part = Part { after, limit: u16::try_from(page.limit + 1).unwrap_or(u16::MAX) };
    let mut users = desk(&door, &caller).query(|reply| IdentityMsg::ListUsers(part, reply)).await?;
    // One more than asked for tells whether there is another page.
    let more = users.len() > page.limit;
    users.truncate(page.limit);
    let next_cursor = users.last().filter(|_| more).map(|last| door.cursors.issue(&filter, &last.id.to_string()));
    Ok(ok(PageOf { data: users.into_iter().map(UserView::from).collect(), next_cursor }))
}

/// What an account is.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccountKind {
    /// A person.
    #[default]
    User,
    /// A program.
    Service,
    /// An agent.
    Agent,
}

/// An account to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUserBody {
    /// What it logs in with, 1 to 128 bytes.
    name: String,
    /// What it is.
    #[serde(default)]
    kind: AccountKind,
    /// What it may be, e.g. `user`; nothing if empty.
    #[serde(default)]
    roles: Vec<String>,
}

/// Makes an account. It can do nothing before it has a password or a key.
#[utoipa::path(post, path = "/v1/users", tag = "accounts",
    request_body(content = ref("#/components/schemas/NewUserBody"), content_type = "application/json"),
    responses((status = 201, description = "The account", body = ref("#/components/schemas/User")),
        (status = 409, description = "The name is taken, or the roles do not go together", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "A name or role that cannot be", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn create(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(NewUserBody { name, kind, roles: names }): Body<NewUserBody>,
) -> Answer<Response> {
    let kind = match kind {
        AccountKind::User => PrincipalKind::User,
        AccountKind::Service => PrincipalKind::Service,
        AccountKind::Agent => PrincipalKind::Agent,
    };
    let new = NewSubject { kind, name, roles: roles(&names, "/roles")? };
    let id = desk(&door, &caller).ask(|reply| IdentityMsg::CreateUser(new, reply)).await??;
    Ok((StatusCode::CREATED, Json(show(&door, &caller, id).await?)).into_response())
}

async fn show(door: &Door, caller: &Caller, id: SubjectId) -> Answer<UserView> {
    let found = desk(door, caller).query(|reply| IdentityMsg::Find(id.to_string(), reply)).await?;
    found.map(UserView::from).ok_or_else(|| ApiError::not_found("this account"))
}

/// What is to be otherwise.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeUserBody {
    /// All roles that it is to have.
    roles: Option<Vec<String>>,
    /// Whether it may do nothing for now.
    suspended: Option<bool>,
}

/// Gives an account other roles, suspends it or lets it in again. Its logins end.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "accounts", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/ChangeUserBody"), content_type = "application/json"),
    responses((status = 200, description = "The account as it is now", body = ref("#/components/schemas/User")),
        (status = 404, description = "No such account", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "The roles do not go together", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn change(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Body(ChangeUserBody { roles: names, suspended }): Body<ChangeUserBody>,
) -> Answer<Response> {
    let (id, desk) = (subject(&id)?, desk(&door, &caller));
    if let Some(names) = names {
        let roles = roles(&names, "/roles")?;
        desk.ask(|reply| IdentityMsg::SetRoles(id, roles, reply)).await??;
    }
    if let Some(is_suspended) = suspended {
        desk.ask(|reply| IdentityMsg::Suspend(id, is_suspended, reply)).await??;
    }
    Ok(ok(show(&door, &caller, id).await?))
}

/// A new password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordBody {
    /// The present one; an administrator may leave it out for others.
    #[schemars(with = "Option<String>")]
    current: Option<Secret>,
    /// The new one, 12 to 128 characters that are hard to guess.
    #[schemars(with = "String")]
    new: Secret,
}

/// Gives an account a password. Its logins end.
#[utoipa::path(post, path = "/v1/users/{id}/password", tag = "accounts", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/PasswordBody"), content_type = "application/json"),
    responses((status = 204, description = "It counts"),
        (status = 401, description = "The present one is wrong", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "It is too easily found", body = ref("#/components/schemas/Problem")),
        (status = 423, description = "Too many failures", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn password(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Body(PasswordBody { current, new }): Body<PasswordBody>,
) -> Answer<Response> {
    let asked = SetPassword { subject: subject(&id)?, current, new };
    desk(&door, &caller).ask(|reply| IdentityMsg::SetPassword(asked, reply)).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Offers an account a second factor; it counts once a code was shown.
#[utoipa::path(post, path = "/v1/users/{id}/totp", tag = "accounts", params(("id" = String, Path)),
    responses((status = 200, description = "What an authenticator app reads", body = ref("#/components/schemas/TotpOffer")),
        (status = 409, description = "It has one", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn totp(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let id = subject(&id)?;
    let Enrolment { url } = desk(&door, &caller).ask(|reply| IdentityMsg::OfferTotp(id, reply)).await??;
    Ok(ok(json!({ "url": url })))
}

/// A first code.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeBody {
    /// Six digits.
    #[schemars(with = "String")]
    code: Secret,
}

/// Shows the first code of the second factor that was offered. The recovery codes are shown once.
#[utoipa::path(post, path = "/v1/users/{id}/totp/confirm", tag = "accounts", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/CodeBody"), content_type = "application/json"),
    responses((status = 200, description = "Recovery codes, each usable once", body = ref("#/components/schemas/RecoveryCodes")),
        (status = 401, description = "The code is wrong", body = ref("#/components/schemas/Problem")),
        (status = 404, description = "Nothing was offered", body = ref("#/components/schemas/Problem")),
        (status = 423, description = "Too many failures", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn confirm(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Body(CodeBody { code }): Body<CodeBody>,
) -> Answer<Response> {
    let id = subject(&id)?;
    let codes = desk(&door, &caller).ask(|reply| IdentityMsg::ConfirmTotp(id, code, reply)).await??;
    Ok(ok(json!({ "recovery_codes": codes })))
}
