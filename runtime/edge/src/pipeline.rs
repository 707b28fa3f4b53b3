//! What every request passes, outermost first.
//!
//! [`outer`]: panic catcher, `x-request-id` and `traceparent`, span and metrics, security headers, rendering of errors.
//! Between them: CORS and compression (tower-http, [`crate::routes`]).
//! [`inner`]: Host check, per-address limit, drain, authentication (or a stricter limit where none is asked for), limits of
//! principal and tenant, admission, deadline, a place in the log, authorization,
//! idempotency, the handler, the entry of the log; of a stream, the same again whenever rights change.
//!
//! Two middlewares instead of one for each step: a boxed future and a clone of the service per step cost more than the steps.

pub(crate) mod admission;
mod authorization;
pub(crate) mod body;
pub(crate) mod deadline;
pub(crate) mod host;
pub(crate) mod idempotency;
pub(crate) mod record;
mod tenure;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::identity::Verified;
use aivillage_runtime::{Idem, MsgCx, Principal, TraceCx};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use crate::auth::Known;
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::metrics::{RequestLabels, method_label};
use crate::routes::{Class, Route};
use record::{Ended, Record, What};
use tenure::Tenure;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The address of the peer; the listener puts it into each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What is known about a request before anything is decided; in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// Names the request: always this node's own choice, unlike `x-request-id` and the trace.
    pub(crate) id: Uuid,
    pub(crate) trace: TraceCx,
    pub(crate) route: &'static Route,
    pub(crate) instance: Arc<str>,
}

impl Visit {
    /// Writes an error's final response.
    pub(crate) fn render(&self, error: &ApiError) -> Response {
        error.render(self.route.dialect, &self.instance, &self.trace.trace_hex())
    }
}

/// Who calls, until when, as part of which trace; in the extensions of an admitted request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    /// Whether it proved itself in a second way too.
    pub(crate) mfa: bool,
    /// What its credential says besides; none for the admin key and for nobody.
    pub(crate) verified: Option<Arc<Verified>>,
    /// Its address.
    pub(crate) from: Option<IpAddr>,
    pub(crate) trace: TraceCx,
    pub(crate) deadline: Instant,
    /// Derived from `Idempotency-Key`: the effect is exactly once even if the edge dies between call and reply.
    pub(crate) idem: Option<Idem>,
    /// Derived from it too: the job that the request starts, if it starts one. Its repetitions find it.
    pub(crate) job: Option<Uuid>,
}

impl Caller {
    /// The context that every call of the handler inherits.
    fn context(&self) -> MsgCx {
        MsgCx::request(Some(self.deadline), Some(self.trace), Some(self.principal.clone()))
    }

    /// The same caller with `limit` from now: for streams, which outlive the request's own deadline.
    pub(crate) fn context_for(&self, limit: Duration) -> MsgCx {
        Caller { deadline: Instant::now() + limit, ..self.clone() }.context()
    }

    /// The isolation boundary.
    pub(crate) fn tenant(&self) -> &str {
        &self.principal.tenant
    }
}

/// Steps 1 to 4: whatever happens inside, an answer with a trace id comes out.
pub(crate) async fn outer(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = Route::of(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let method = method_label(request.method());
    let id = Uuid::now_v7();
    let request_id = request_id(request.headers(), id);
    let trace = trace(request.headers());
    let visit = Visit { id, trace, route, instance: instance(&request) };
    request.extensions_mut().insert(visit.clone());
    let span = tracing::debug_span!(
        "edge.request",
        http.route = route.template,
        http.request.method = method,
        http.response.status_code = tracing::field::Empty,
        trace_id = %trace.trace_hex(),
        request = %id,
    );
    door.metrics.active.inc();
    let _active = scopeguard(&door);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(route = route.template, trace_id = %trace.trace_hex(), "request handler panicked");
        ApiError::new(Code::Internal, "the request hit a fault of the server; its trace id is in the log")
            .into_response()
    });
    if response.status().is_client_error() || response.status().is_server_error() {
        response = render_error(&visit, response);
    }
    finish(response.headers_mut(), route, &request_id);
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let labels =
        RequestLabels { http_route: route.template, http_request_method: method, http_response_status_code: status };
    door.metrics.observe(&labels, started.elapsed());
    response
}

/// Takes the request off the gauge also when the client goes away and the future is dropped.
fn scopeguard(door: &Arc<Door>) -> impl Drop + use<> {
    struct Active(Arc<Door>);
    impl Drop for Active {
        fn drop(&mut self) {
            self.0.metrics.active.dec();
        }
    }
    Active(door.clone())
}

/// Errors travel as [`ApiError`] in the extensions; a bare error status (from the router or a library) gets a body too.
fn render_error(visit: &Visit, mut response: Response) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let mut rendered = visit.render(&error);
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                rendered.headers_mut().insert(name.clone(), value.clone());
            }
        }
        return rendered;
    }
    if response.headers().contains_key(header::CONTENT_TYPE) && response.extensions().get::<Rendered>().is_some() {
        return response;
    }
    let code = match response.status().as_u16() {
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        413 => Code::PayloadTooLarge,
        415 => Code::UnsupportedMediaType,
        400..=499 => Code::BadRequest,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    visit.render(&ApiError::new(code, code.title()))
}

/// Marks an error response whose body is final (a replayed or a health answer).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rendered;

/// Steps 5 to 16 of a request that is to be let in or refused.
pub(crate) async fn inner(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let Some(visit) = request.extensions().get::<Visit>().cloned() else {
        return ApiError::new(Code::Internal, "the outer layer is missing").into_response();
    };
    match visit.route.class {
        Class::Health => next.run(request).await,
        _ => admit(&door, &visit, request, next).await.unwrap_or_else(IntoResponse::into_response),
    }
}

async fn admit(door: &Arc<Door>, visit: &Visit, request: Request, next: Next) -> Result<Response, ApiError> {
    door.hosts.check(request.uri(), request.headers())?;
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    if let Some(peer) = peer {
        door.gate.address(peer)?;
    }
    if door.stop.is_cancelled() {
        return Err(ApiError::new(Code::Draining, "the node is stopping").retry_after(Duration::from_secs(2)));
    }
    if visit.route.class == Class::Open {
        return Ok(next.run(request).await);
    }
    let what = What::of(visit, &request);
    let known = match visit.route.class {
        class @ (Class::Login | Class::Public) => door.limit_public(class, peer).map(|()| Known::nobody(peer)),
        _ => door.authenticate((request.method(), request.uri(), request.headers()), peer).await,
    };
    let Known { principal, mfa, verified } = match known {
        Ok(known) => known,
        Err(error) => {
            // What cannot be told now is no denial.
            if error.status().is_client_error() {
                record::denied(door, what, peer, error.status()).await;
            }
            return Err(error);
        }
    };
    let limit = deadline::limit(request.headers(), visit.route.max_time(&door.config))?;
    let deadline = Instant::now() + limit;
    let caller = Caller { principal, mfa, verified, from: peer, trace: visit.trace, deadline, idem: None, job: None };
    authorization::count(&door.gate, &caller, request.method())?;
    let place = door.admission.enter().await.inspect_err(|_| door.metrics.shed("in_flight"))?;
    let late = || ApiError::new(Code::ActorTimeout, format!("no answer within {} ms", limit.as_millis()));
    let tenure = Tenure::new(door, visit, &caller, request.headers(), what.clone());
    let begun = tokio::time::timeout_at(deadline, Record::begin(door, what, caller.principal.clone())).await;
    let record = begun.map_err(|_| late())??;
    let handled = async {
        let (mut parts, payload) = request.into_parts();
        let tenure = tenure.by(authorization::check(&door.gate, visit, &caller, &mut parts).await?);
        let request = Request::from_parts(parts, payload);
        let response = idempotency::run(door, visit, (caller, place), request, next).await?;
        Ok(tenure.over(response))
    };
    let result = tokio::time::timeout_at(deadline, handled).await.unwrap_or_else(|_| Err(late()));
    let ended = Ended::of(&result);
    record.end(ended).await;
    result
}

/// Runs the handler: its asks inherit deadline, trace and principal.
async fn handle(caller: Caller, mut request: Request, next: Next) -> Response {
    let context = caller.context();
    request.extensions_mut().insert(caller);
    context.scope(next.run(request)).await
}

/// The caller's id for this request if it is short and printable, else ours.
fn request_id(headers: &HeaderMap, id: Uuid) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&id.hyphenated().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

fn trace(headers: &HeaderMap) -> TraceCx {
    let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    given.and_then(|text| text.parse().ok()).unwrap_or_else(TraceCx::new_root)
}

/// The path as it was asked for, for the `instance` member; never the query, which may hold secrets.
fn instance(request: &Request) -> Arc<str> {
    let path = request.uri().path();
    path.get(..path.floor_char_boundary(512)).unwrap_or("").into()
}

/// Security headers and the request id, on every response.
fn finish(headers: &mut HeaderMap, route: &Route, request_id: &HeaderValue) {
    const API: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    // Swagger UI sets style attributes and draws its icons from data URLs.
    const DOCS: HeaderValue = HeaderValue::from_static(
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    );
    headers.insert(REQUEST_ID, request_id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, if route.template.starts_with("/docs") { DOCS } else { API });
    if route.needs_key() && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// True for methods whose effect may need to be exactly once.
pub(crate) fn is_unsafe(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}
