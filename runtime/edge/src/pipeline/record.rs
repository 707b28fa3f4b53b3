//! Step 16: what was done and what was denied, in the transparency log.
//!
//! | kind | when | actor, tenant |
//! |---|---|---|
//! | `edge.request` | a request that may change something was let in: any but GET, HEAD | of the key |
//! | `auth.user`, `auth.key`, `auth.tenant`, `auth.rotate` | the same of accounts, keys, tenants and signing keys | of the key |
//! | `auth.login`, `auth.mfa`, `auth.refresh`, `auth.logout` | somebody logged in or out, or failed to | who that is, or says so |
//! | `auth.deny` | a request was refused: 401, 403, 404 for what is another tenant's, wrong keys beyond their rate | of the key; without one, the address |
//!
//! The object is the path. All three are pseudonyms, the action is method and route template, and in clear there are only status,
//! the id that this node gave the request (`request`; also its `x-request-id`, unless the client sent one), and the trace. The
//! trace is 32 hex digits of the client's choice if it sent a `traceparent`: it links entries with the client's own records and
//! proves nothing, since anybody can send those of another; `request` tells requests apart. A status of `null` says that the client left before the answer was known. Bodies are never logged. Of a flood of
//! callers without a good key only some are entries; `left_out` of the next one says how many are not.
//!
//! A request that may change something takes its place in the log before its handler runs, and is refused when there is none:
//! nothing happens unlogged. What the place is filled with waits for no disk.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aivillage_governance::tlog::{Ack, Decision, Event, Home, Payload, Place};
use aivillage_runtime::{Principal, TraceCx};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::json;
use uuid::Uuid;

use super::Visit;
use crate::door::Door;
use crate::error::{ApiError, Code, is_denial};
use crate::metrics::method_label;

/// The tenant of who has not shown a key.
const NOBODY: &str = "";
/// Refusals of callers without a good key that are logged each second, and at once; a flood is told by its number.
const DENIALS: (NonZeroU32, NonZeroU32) = (nonzero(10), nonzero(200));
/// Longest path that tells objects apart; longer ones are no objects of any route.
const MAX_PATH: usize = 2_048;

const fn nonzero(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

/// How many refusals of callers without a good key are logged: whoever has none could fill the disk with them.
#[derive(Debug)]
pub(crate) struct Denials {
    limit: DefaultDirectRateLimiter,
    /// Not logged since the last one that was.
    left_out: AtomicU64,
}

impl Default for Denials {
    fn default() -> Self {
        let (rate, burst) = DENIALS;
        let limit = RateLimiter::direct(Quota::per_second(rate).allow_burst(burst));
        Self { limit, left_out: AtomicU64::default() }
    }
}

impl Denials {
    /// How many were left out before this one, if this one is to be logged.
    fn next(&self) -> Option<u64> {
        if self.limit.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// What a request is about.
#[derive(Debug, Clone)]
pub(super) struct What {
    action: String,
    object: String,
    id: Uuid,
    trace: TraceCx,
    kind: &'static str,
    is_safe: bool,
}

/// Who a request turned out to be about; in the extensions of the answer of a route that asks for no credential.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) tenant: String,
    pub(crate) subject: String,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    status: StatusCode,
    /// Also when it is told as something that is not there, or as too many wrong keys.
    is_denied: bool,
}

impl Ended {
    /// How, and who it turned out to be about.
    pub(super) fn of(result: &Result<Response, ApiError>) -> (Self, Option<Who>) {
        let refusal = match result {
            Ok(response) => response.extensions().get::<ApiError>(),
            Err(error) => Some(error),
        };
        let status = result.as_ref().map_or_else(ApiError::status, Response::status);
        let is_denied = refusal.map_or_else(|| is_denial(status), ApiError::is_denial);
        let who = result.as_ref().ok().and_then(|response| response.extensions().get()).cloned();
        (Self { status, is_denied }, who)
    }
}

/// What a change of a route is called in the log.
fn kind(template: &str) -> &'static str {
    match template {
        "/v1/auth/login" => "auth.login",
        "/v1/auth/mfa" => "auth.mfa",
        "/v1/auth/refresh" => "auth.refresh",
        "/v1/auth/logout" => "auth.logout",
        "/v1/auth/rotate" => "auth.rotate",
        _ if template.starts_with("/v1/users") => "auth.user",
        _ if template.starts_with("/v1/keys") => "auth.key",
        _ if template.starts_with("/v1/tenants") => "auth.tenant",
        _ => "edge.request",
    }
}

impl What {
    pub(super) fn of(visit: &Visit, request: &Request) -> Self {
        let (method, path) = (request.method(), request.uri().path());
        Self {
            action: format!("{} {}", method_label(method), visit.route.template),
            object: path.get(..path.floor_char_boundary(MAX_PATH)).unwrap_or_default().to_owned(),
            id: visit.id,
            trace: visit.trace,
            // Of a login that is refused it is told that it was one.
            kind: kind(visit.route.template),
            is_safe: matches!(*method, Method::GET | Method::HEAD),
        }
    }

    fn is_login(&self) -> bool {
        matches!(self.kind, "auth.login" | "auth.mfa" | "auth.refresh" | "auth.logout")
    }

    fn event(&self, home: &Home, (tenant, actor): (&str, &str), ended: Option<Ended>) -> Event {
        let key = home.log_key(tenant);
        let is_denied = ended.is_some_and(|ended| ended.is_denied);
        Event {
            kind: if is_denied && !self.is_login() { "auth.deny" } else { self.kind }.to_owned(),
            actor: key.pseudonym(actor),
            action: self.action.clone(),
            object: key.pseudonym(&self.object),
            tenant: key.pseudonym(tenant),
            article: None,
            decision: if is_denied { Decision::Deny } else { Decision::Allow },
            case: None,
            payload: Payload::Clear(json!({
                "status": ended.map(|ended| ended.status.as_u16()),
                "request": self.id,
                "trace": self.trace.trace_hex(),
            })),
        }
    }
}

/// Logs that somebody without a good key was refused. They are refused also when that cannot be logged.
pub(super) async fn denied(door: &Door, what: What, peer: Option<IpAddr>, status: StatusCode) {
    let Some(home) = &door.log else { return };
    let Some(left_out) = door.denials.next() else { return };
    let actor = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    let mut event = what.event(home, (NOBODY, &actor), Some(Ended { status, is_denied: true }));
    if let Payload::Clear(payload) = &mut event.payload
        && left_out > 0
    {
        payload["left_out"] = left_out.into();
    }
    append(home, event).await;
}

/// Logs that a stream ended because the right to it did.
pub(super) async fn ended(door: &Door, what: &What, who: &Principal, error: &ApiError) {
    let Some(home) = &door.log else { return };
    let ended = Ended { status: error.status(), is_denied: true };
    append(home, what.event(home, (&who.tenant, &who.subject), Some(ended))).await;
}

async fn append(home: &Home, event: Event) {
    if let Err(error) = home.log().append(event, Ack::Buffered).await {
        tracing::error!(%error, "a denial is not in the transparency log");
    }
}

/// A request under way that will be in the log, however it ends.
#[derive(Debug)]
pub(super) struct Record(Option<Open>);

#[derive(Debug)]
struct Open {
    home: Home,
    what: What,
    who: Arc<Principal>,
    /// None for a request that changes nothing: it is logged only if it is denied.
    place: Option<Place>,
}

impl Record {
    /// Takes a place in the log for a request that may change something.
    ///
    /// # Errors
    /// `governance_unavailable` when the log takes nothing.
    pub(super) async fn begin(door: &Door, what: What, who: Arc<Principal>) -> Result<Self, ApiError> {
        let Some(home) = door.log.clone() else { return Ok(Self(None)) };
        let place = if what.is_safe { None } else { Some(home.log().reserve().await.map_err(|e| refused(&e))?) };
        Ok(Self(Some(Open { home, what, who, place })))
    }

    /// Logs how it ended.
    pub(super) async fn end(mut self, (ended, who): (Ended, Option<Who>)) {
        let Some(mut open) = self.0.take() else { return };
        let event = match &who {
            Some(Who { tenant, subject }) => open.what.event(&open.home, (tenant, subject), Some(ended)),
            None => open.event(Some(ended)),
        };
        match open.place.take() {
            Some(place) => fill(place, event),
            None if ended.is_denied => append(&open.home, event).await,
            None => {}
        }
    }
}

impl Open {
    fn event(&self, ended: Option<Ended>) -> Event {
        self.what.event(&self.home, (&self.who.tenant, &self.who.subject), ended)
    }
}

impl Drop for Record {
    /// The client left: what its request did until then is not known here.
    fn drop(&mut self) {
        let Some(mut open) = self.0.take() else { return };
        if let Some(place) = open.place.take() {
            fill(place, open.event(None));
        }
    }
}

/// The log may have stopped since the place was taken. The deed is done then, and its caller must hear of it.
fn fill(place: Place, event: Event) {
    if let Err(error) = place.append(event) {
        tracing::error!(%error, "a request is not in the transparency log");
    }
}

fn refused(error: &aivillage_governance::tlog::LogError) -> ApiError {
    ApiError::new(Code::GovernanceUnavailable, format!("nothing is done that cannot be logged: {error}"))
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_is_told_by_its_number() {
        let denials = Denials { limit: RateLimiter::direct(Quota::per_hour(nonzero(1))), ..Denials::default() };
        assert_eq!(denials.next(), Some(0));
        assert_eq!([denials.next(), denials.next()], [None, None]);
        let later = Denials { left_out: denials.left_out, ..Denials::default() };
        assert_eq!([later.next(), later.next()], [Some(2), Some(0)]);
    }
}
