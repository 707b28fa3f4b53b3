//! `/v1/auth`: logging in and out, who the caller is, and the public keys of access tokens.
//!
//! Who has no credential yet asks here, so each message goes out in the name of nobody of that tenant: a message without a
//! principal would be one of the village itself. A tenant that is not there answers like one that is.

use std::net::IpAddr;
use std::sync::Arc;

use aivillage_governance::identity::accounts::{Amr, Wants};
use aivillage_governance::identity::bearer::{Bearer, BearerKind};
use aivillage_governance::identity::jwt::tenant_in;
use aivillage_governance::identity::ring::PublicJwks;
use aivillage_governance::identity::{Identity, IdentityError, IdentityMsg, LoggedIn, Login, SecondFactor, Secret};
use aivillage_runtime::{CallError, MsgCx, Reply, clock};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Body, Path, ok};
use crate::auth::{Given, TENANT, nobody, same_origin, set_cookie};
use crate::door::Door;
use crate::error::ApiError;
use crate::pipeline::Caller;
use crate::pipeline::record::Who;

/// Key sets may be kept for so long: the next key is published long before it signs.
const FIVE_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Longest name that an account can have been asked for by.
const MAX_NAME: usize = 256;

/// What a login is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    /// An access token and a refresh token.
    #[default]
    Tokens,
    /// A session, to be sent as `Authorization: Bearer`.
    Session,
    /// A session in a cookie that no script sees.
    Cookie,
}

/// A login.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    /// Whose account; that of whoever runs the village if none is named.
    #[serde(default = "home")]
    tenant: String,
    /// What the account is called.
    name: String,
    /// Its password.
    #[schemars(with = "String")]
    password: Secret,
    /// What it is to give.
    #[serde(default)]
    grant: Grant,
    /// What tokens are to be good for: `area.verb` or `area.*`; anything if empty.
    #[serde(default)]
    scopes: Vec<String>,
}

fn home() -> String {
    TENANT.to_owned()
}

/// A second factor.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MfaBody {
    /// The challenge of a login. Without one, it is shown in the session that the request carries, which is replaced.
    #[schemars(with = "Option<String>")]
    challenge: Option<Secret>,
    /// Six digits of an authenticator app, or a recovery code.
    #[schemars(with = "String")]
    code: Secret,
    /// The session is wanted in a cookie, as the login said.
    #[serde(default)]
    cookie: bool,
}

/// A refresh.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    /// The refresh token; it is used up.
    #[schemars(with = "String")]
    refresh_token: Secret,
}

/// What a login gave.
#[derive(Serialize, JsonSchema)]
pub(crate) struct LoginView {
    /// `tokens`, `session`, `cookie`, or `mfa`: a second factor is asked for at `/v1/auth/mfa`.
    grant: &'static str,
    #[serde(flatten)]
    secrets: Secrets,
    /// When it ends, Unix milliseconds.
    expires_at_ms: u64,
}

/// Shown once.
#[derive(Default, Serialize, JsonSchema)]
struct Secrets {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    access_token: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    refresh_token: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    session: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    challenge: Option<Secret>,
}

/// Asks a tenant's accounts in the name of somebody who has shown nothing.
async fn ask<T: aivillage_runtime::Wire>(
    door: &Door,
    caller: &Caller,
    tenant: &str,
    make: impl FnOnce(Reply<T>) -> IdentityMsg,
) -> Result<T, CallError> {
    let principal = Arc::new(nobody(tenant, caller.principal.subject.clone()));
    let context = MsgCx::request(Some(caller.deadline), Some(caller.trace), Some(principal));
    // An ask takes the context of where it is made.
    context.scope(async { door.village.addr::<Identity>(tenant).ask(make).await }).await
}

/// The tenant of a credential, if it may be asked.
fn tenant_of(door: &Door, credential: &str) -> Answer<String> {
    let tenants = door.credentials().tenants();
    let tenant = match Bearer::parse(credential) {
        Ok(bearer) => tenants.tagged(bearer.tenant),
        Err(_) => tenant_in(credential),
    };
    tenant.filter(|tenant| tenants.is_live(tenant)).ok_or_else(|| IdentityError::Refused.into())
}

/// Where failures are counted together: whoever has one address of a network mostly has more.
fn network(from: Option<IpAddr>) -> String {
    match from {
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{:x}::/56", d & 0xff00)
        }
        None => "unknown".to_owned(),
    }
}

/// Whose account is asked. One of a tenant that is not there is looked for where it cannot be, which takes as long and is
/// counted like any wrong password.
fn account(door: &Door, tenant: &str, name: &str) -> (String, String) {
    if door.credentials().tenants().is_live(tenant) {
        return (tenant.to_owned(), name.to_owned());
    }
    // Names have no control characters.
    let nowhere = || format!("\0{}", blake3::hash(format!("{tenant}\0{name}").as_bytes()).to_hex());
    (TENANT.to_owned(), if name.len() > MAX_NAME { name.to_owned() } else { nowhere() })
}

/// The answer with who it is about, for the log.
fn told(answer: Answer<Response>, tenant: String, subject: String) -> Response {
    let mut response = answer.into_response();
    response.extensions_mut().insert(Who { tenant, subject });
    response
}

/// The subject that a login was for, as soon as its credential counts here.
async fn settled(door: &Door, given: &LoggedIn) -> Option<String> {
    let secret = match given {
        LoggedIn::Session { secret, .. } => secret,
        LoggedIn::Tokens { access, .. } => access,
        LoggedIn::Mfa { .. } => return None,
    };
    door.credentials().settle(secret.expose()).await;
    let verified = door.credentials().check(secret.expose()).await.ok()?;
    Some(verified.principal.subject.clone())
}

fn view(given: LoggedIn, wants_cookie: bool) -> Response {
    let (grant, secrets, expires_at_ms, session) = match given {
        LoggedIn::Tokens { access, until_ms, refresh } => {
            let secrets = Secrets { access_token: Some(access), refresh_token: Some(refresh), ..Secrets::default() };
            ("tokens", secrets, until_ms, None)
        }
        LoggedIn::Session { secret, until_ms } if wants_cookie => {
            ("cookie", Secrets::default(), until_ms, Some(secret))
        }
        LoggedIn::Session { secret, until_ms } => {
            ("session", Secrets { session: Some(secret), ..Secrets::default() }, until_ms, None)
        }
        LoggedIn::Mfa { challenge, until_ms } => {
            ("mfa", Secrets { challenge: Some(challenge), ..Secrets::default() }, until_ms, None)
        }
    };
    let mut response = Json(LoginView { grant, secrets, expires_at_ms }).into_response();
    if let Some(session) = session {
        let for_s = expires_at_ms.saturating_sub(clock::unix_ms()) / 1_000;
        response.headers_mut().insert(header::SET_COOKIE, set_cookie(Some(session.expose()), for_s));
    }
    response
}

/// Logs in with name and password. An account with a second factor gets a challenge.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", security(()),
    request_body(content = ref("#/components/schemas/LoginBody"), content_type = "application/json"),
    responses((status = 200, description = "Tokens, a session or a challenge", body = ref("#/components/schemas/Login")),
        (status = 401, description = "Name or password is wrong", body = ref("#/components/schemas/Problem")),
        (status = 423, description = "Too many failures", body = ref("#/components/schemas/Problem")),
        (status = 429, description = "Too many attempts from this address", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn login(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    Body(body): Body<LoginBody>,
) -> Answer<Response> {
    let LoginBody { tenant, name, password, grant, scopes } = body;
    let is_cookie = grant == Grant::Cookie;
    if is_cookie {
        same_origin(&method, &uri, &headers)?;
    }
    let (at, account) = account(&door, &tenant, &name);
    let wants = if grant == Grant::Tokens { Wants::Tokens { scopes } } else { Wants::Session };
    let login = Login { name: account, password, network: network(caller.from), wants };
    let given = ask(&door, &caller, &at, |reply| IdentityMsg::Login(login, reply)).await?;
    let subject = match &given {
        Ok(given) => settled(&door, given).await.unwrap_or(name),
        Err(_) => name,
    };
    let answer = given.map(|given| view(given, is_cookie)).map_err(ApiError::from);
    Ok(told(answer, tenant, subject))
}

/// Shows a second factor: to the challenge of a login, or in a session.
#[utoipa::path(post, path = "/v1/auth/mfa", tag = "auth", security(()),
    request_body(content = ref("#/components/schemas/MfaBody"), content_type = "application/json"),
    responses((status = 200, description = "Tokens or a session", body = ref("#/components/schemas/Login")),
        (status = 401, description = "The code, the challenge or the session is wrong", body = ref("#/components/schemas/Problem")),
        (status = 423, description = "Too many failures", body = ref("#/components/schemas/Problem")),
        (status = 429, description = "Too many attempts from this address", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn mfa(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    (method, uri, headers): (Method, Uri, HeaderMap),
    Body(body): Body<MfaBody>,
) -> Answer<Response> {
    let given = if body.challenge.is_some() { None } else { Given::of(&headers) };
    let is_cookie = given.map_or(body.cookie, |given| given.is_cookie);
    if is_cookie {
        same_origin(&method, &uri, &headers)?;
    }
    let credential = body.challenge.or_else(|| given.map(|given| Secret::new(given.text)));
    let credential = credential.ok_or(IdentityError::Refused)?;
    let tenant = tenant_of(&door, credential.expose())?;
    let shown = Bearer::parse(credential.expose()).map_err(|_| IdentityError::Refused)?;
    let (kind, id) = (shown.kind, shown.id.to_string());
    let factor = SecondFactor { credential, code: body.code };
    let given = match kind {
        BearerKind::Challenge => ask(&door, &caller, &tenant, |reply| IdentityMsg::Mfa(factor, reply)).await?,
        BearerKind::Session => ask(&door, &caller, &tenant, |reply| IdentityMsg::StepUp(factor, reply)).await?,
        BearerKind::ApiKey | BearerKind::Refresh => Err(IdentityError::Refused),
    };
    let subject = match &given {
        Ok(given) => settled(&door, given).await.unwrap_or(id),
        Err(_) => id,
    };
    let answer = given.map(|given| view(given, is_cookie)).map_err(ApiError::from);
    Ok(told(answer, tenant, subject))
}

/// Gets new tokens for a refresh token, which is used up. One that is shown twice ends all that came of its login.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", security(()),
    request_body(content = ref("#/components/schemas/RefreshBody"), content_type = "application/json"),
    responses((status = 200, description = "Tokens", body = ref("#/components/schemas/Login")),
        (status = 401, description = "The token is wrong, used or over", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn refresh(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(RefreshBody { refresh_token }): Body<RefreshBody>,
) -> Answer<Response> {
    let tenant = tenant_of(&door, refresh_token.expose())?;
    let id = Bearer::parse(refresh_token.expose()).map_or_else(|_| String::new(), |shown| shown.id.to_string());
    let given = ask(&door, &caller, &tenant, |reply| IdentityMsg::Refresh(refresh_token, reply)).await?;
    let subject = match &given {
        Ok(given) => settled(&door, given).await.unwrap_or(id),
        Err(_) => id,
    };
    Ok(told(given.map(|given| view(given, false)).map_err(ApiError::from), tenant, subject))
}

/// Ends the session, or all tokens of the login, that the request carries: a session, an access or a refresh token. Says
/// nothing of what that was worth.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth",
    responses((status = 204, description = "It is worth nothing now")))]
pub(crate) async fn logout(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    (method, uri, headers): (Method, Uri, HeaderMap),
) -> Answer<Response> {
    let given = Given::of(&headers);
    if given.is_some_and(|given| given.is_cookie) {
        same_origin(&method, &uri, &headers)?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some((given, tenant)) = given.and_then(|given| Some((given, tenant_of(&door, given.text).ok()?))) {
        let subject = door.credentials().check(given.text).await.ok();
        let subject = subject.map_or_else(String::new, |verified| verified.principal.subject.clone());
        let secret = Secret::new(given.text);
        ask(&door, &caller, &tenant, |reply| IdentityMsg::Logout(secret, reply)).await?;
        response.extensions_mut().insert(Who { tenant, subject });
        if given.is_cookie {
            response.headers_mut().insert(header::SET_COOKIE, set_cookie(None, 0));
        }
    }
    Ok(response)
}

/// The caller, as the village sees it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MeView {
    /// The isolation boundary.
    tenant: String,
    /// The id of the account; `admin` for the key of the node.
    subject: String,
    /// What the account is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `user`, `service` or `agent`.
    kind: String,
    /// Roles that count.
    roles: Vec<String>,
    /// Roles that wait for a second factor.
    waiting: Vec<String>,
    /// What the credential is good for; anything if empty.
    scopes: Vec<String>,
    /// How it was shown who it is: `pwd`, `otp`, `mfa`.
    amr: Vec<String>,
    /// When, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_at_ms: Option<u64>,
    /// Whether a second factor was shown recently.
    mfa: bool,
    /// Who acts for the account, the latest first.
    actors: Vec<String>,
}

/// Who the caller is.
#[utoipa::path(get, path = "/v1/auth/me", tag = "auth",
    responses((status = 200, description = "The caller", body = ref("#/components/schemas/Me"))))]
pub(crate) async fn me(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let principal = &caller.principal;
    let mut view = MeView {
        tenant: principal.tenant.clone(),
        subject: principal.subject.clone(),
        name: None,
        kind: super::users::kind_name(principal.kind).to_owned(),
        roles: principal.roles.clone(),
        waiting: Vec::new(),
        scopes: principal.scopes.clone(),
        amr: Vec::new(),
        auth_at_ms: None,
        mfa: caller.mfa,
        actors: Vec::new(),
    };
    if let Some(verified) = &caller.verified {
        let whom = principal.subject.clone();
        let found =
            door.village.addr::<Identity>(caller.tenant()).query(|reply| IdentityMsg::Find(whom, reply)).await?;
        view.name = found.map(|account| account.name);
        view.waiting.clone_from(&verified.waiting);
        view.amr = verified.amr.iter().map(|amr| amr_name(*amr).to_owned()).collect();
        view.auth_at_ms = verified.auth_ms;
        view.actors = verified.actors.iter().map(ToString::to_string).collect();
    }
    Ok(ok(view))
}

/// RFC 8176.
fn amr_name(amr: Amr) -> &'static str {
    match amr {
        Amr::Pwd => "pwd",
        Amr::Otp => "otp",
        Amr::Mfa => "mfa",
    }
}

/// Has the next key sign the tenant's access tokens from now on. Those that were issued stay good.
#[utoipa::path(post, path = "/v1/auth/rotate", tag = "auth",
    responses((status = 204, description = "The next key signs"), (status = 404, description = "The tenant has no accounts")))]
pub(crate) async fn rotate(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    door.village.addr::<Identity>(caller.tenant()).ask(IdentityMsg::RotateKeys).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The keys that verify access tokens of the tenant that runs the village (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()),
    responses((status = 200, description = "A JWK set", body = ref("#/components/schemas/Jwks"))))]
pub(crate) async fn jwks(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    key_set(&door, &caller, TENANT).await
}

/// The keys that verify access tokens of a tenant; none of one that is not there.
#[utoipa::path(get, path = "/.well-known/jwks/{tenant}", tag = "auth", security(()), params(("tenant" = String, Path)),
    responses((status = 200, description = "A JWK set", body = ref("#/components/schemas/Jwks"))))]
pub(crate) async fn jwks_of(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(tenant): Path<String>,
) -> Answer<Response> {
    key_set(&door, &caller, &tenant).await
}

async fn key_set(door: &Door, caller: &Caller, tenant: &str) -> Answer<Response> {
    let is_live = door.credentials().tenants().is_live(tenant);
    let set = if is_live { ask(door, caller, tenant, IdentityMsg::Jwks).await? } else { PublicJwks::default() };
    Ok(([(header::CACHE_CONTROL, FIVE_MINUTES)], Json(set)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_counted_as_one() {
        let network = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2345::9"), "2001:db8:1:2300::/56");
        assert_eq!(super::network(None), "unknown");
    }
}
