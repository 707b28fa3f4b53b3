//! The whole route table, and what each route's class means for the pipeline.

pub(crate) mod actors;
pub(crate) mod agents;
pub(crate) mod auth;
pub(crate) mod cases;
pub(crate) mod chat;
pub(crate) mod cluster;
pub(crate) mod dlp;
pub(crate) mod events;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod meta;
pub(crate) mod moderation;
pub(crate) mod policy;
pub(crate) mod privacy;
pub(crate) mod tenants;
pub(crate) mod users;

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::Size;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::config::EdgeConfig;
use crate::door::Door;
use crate::error::{ApiError, Code, Dialect};
use crate::pipeline::body::{self, BodyLimits};
use crate::pipeline::{inner, outer};

/// What the pipeline does with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Health: nothing is checked.
    Health,
    /// Public on this machine: no key, no admission.
    Open,
    /// As `Api` without a credential, few times a minute: a secret is guessed here.
    Login,
    /// As `Api` without a credential, a few times more.
    Public,
    /// Key, admission, `request_timeout`, `max_body`.
    Api,
    /// As `Api` with `chat_timeout`.
    Chat,
    /// As `Chat` with `upload_max`.
    Upload,
}

/// What the policies are asked about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// One action, on a resource of this type.
    Action {
        action: &'static str,
        kind: &'static str,
        /// The part of the path that names the resource; all of the type if there is none.
        id: Option<&'static str>,
    },
    /// The handler asks: which message, whose key is in the body.
    Later,
    /// The account that a part of the path names: `id.self` on one's own, `id.manage` on another.
    Account { id: &'static str },
    /// Any good credential: it is about the caller itself.
    Credential,
    /// Nothing.
    Anybody,
}

/// An action on all resources of a type.
const fn all(action: &'static str, kind: &'static str) -> Need {
    Need::Action { action, kind, id: None }
}

/// An action on the resource that a part of the path names.
const fn one(action: &'static str, kind: &'static str, id: &'static str) -> Need {
    Need::Action { action, kind, id: Some(id) }
}

/// One route as the pipeline sees it. A method without a need is refused.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: &'static str,
    pub(crate) class: Class,
    pub(crate) dialect: Dialect,
    get: Option<Need>,
    post: Option<Need>,
    patch: Option<Need>,
    delete: Option<Need>,
    /// Passwords or keys are in the body or the answer: neither is kept for an idempotency key.
    pub(crate) is_secret: bool,
}

const fn route(template: &'static str, class: Class) -> Route {
    Route {
        template,
        class,
        dialect: Dialect::Problem,
        get: None,
        post: None,
        patch: None,
        delete: None,
        is_secret: false,
    }
}

const fn openai(template: &'static str, class: Class) -> Route {
    Route { dialect: Dialect::OpenAi, ..route(template, class) }
}

/// A path that no route has. It needs a key, so that an outsider cannot map the routes.
static UNKNOWN: Route = route("unknown", Class::Api);

static ROUTES: [Route; 81] = [
    route("/v1/agents", Class::Api).get(all("agent.read", "Agent")),
    route("/v1/actors/{kind}/{key}/messages", Class::Chat).post(Need::Later),
    openai("/v1/chat/completions", Class::Chat).post(all("agent.ask", "Agent")),
    route("/v1/memory/query", Class::Api).post(all("memory.query", "Collection")),
    route("/v1/agents/{id}/ask", Class::Chat).post(one("agent.ask", "Agent", "id")),
    route("/v1/agents/{id}", Class::Api).get(one("agent.read", "Agent", "id")),
    route("/v1/agents/{id}/tools/{tool}", Class::Chat).get(one("agent.tool", "Agent", "id")).post(one(
        "agent.tool",
        "Agent",
        "id",
    )),
    route("/v1/conversations/{id}", Class::Api).get(all("agent.history", "Agent")),
    route("/v1/actors", Class::Api).get(all("actor.read", "Actor")),
    route("/v1/actors/{kind}", Class::Api).get(one("actor.read", "Actor", "kind")),
    route("/v1/actors/{kind}/{key}", Class::Chat).get(one("actor.read", "Actor", "kind")).post(Need::Later),
    route("/v1/memory/documents", Class::Upload).post(all("memory.write", "Collection")),
    route("/v1/memory/documents/{id}", Class::Api).get(one("memory.query", "Document", "id")).delete(one(
        "memory.erase",
        "Document",
        "id",
    )),
    route("/v1/memory/stats", Class::Api).get(all("memory.query", "Collection")),
    route("/v1/jobs", Class::Api).get(all("job.read", "Job")),
    route("/v1/jobs/{id}", Class::Api).get(one("job.read", "Job", "id")).delete(one("job.cancel", "Job", "id")),
    route("/v1/jobs/{id}/events", Class::Api).get(one("job.read", "Job", "id")),
    // Topics, history and supervision tell what other callers do.
    route("/v1/events", Class::Api).get(all("system.monitor", "System")),
    route("/v1/cluster", Class::Api).get(all("system.monitor", "System")),
    route("/v1/cluster/drain", Class::Api).post(all("cluster.admin", "System")),
    route("/v1/cluster/remove", Class::Api).post(all("cluster.admin", "System")),
    route("/v1/cluster/tokens", Class::Api).get(all("cluster.admin", "System")).post(all("cluster.admin", "System")),
    route("/v1/cluster/tokens/{id}", Class::Api).delete(all("cluster.admin", "System")),
    route("/v1/status", Class::Api).get(all("system.read", "System")),
    route("/v1/history", Class::Api).get(all("system.monitor", "System")),
    route("/v1/supervision", Class::Api).get(all("system.monitor", "System")),
    route("/v1/policy", Class::Api).get(all("system.monitor", "System")).post(all("system.config", "System")),
    // A decision tells nothing of the policies; reasons quote them.
    route("/v1/policy/decide", Class::Api).post(all("system.read", "System")),
    route("/v1/policy/explain", Class::Api).post(all("system.monitor", "System")),
    route("/v1/constitution", Class::Api).get(all("gov.read", "Proposal")),
    openai("/v1/moderations", Class::Api).post(all("mod.check", "Document")),
    route("/v1/cases", Class::Api).get(all("mod.read", "Case")),
    route("/v1/cases/{id}", Class::Api).get(one("mod.read", "Case", "id")),
    route("/v1/cases/{id}/appeal", Class::Api).post(one("mod.appeal", "Case", "id")),
    route("/v1/cases/{id}/votes", Class::Api).post(one("mod.jury", "Case", "id")),
    // What is published is for everybody who may read the rules.
    route("/v1/transparency/report/{period}", Class::Api).get(all("gov.read", "Proposal")),
    // Accounts are of all tenants: what they tell is for whoever reads the log of all.
    route("/v1/ledger/accounts", Class::Api).get(all("audit.read", "AuditEntry")),
    route("/v1/ledger/accounts/{id}", Class::Api).get(all("audit.read", "AuditEntry")),
    route("/v1/ledger/transfers", Class::Api).get(all("audit.read", "AuditEntry")),
    route("/v1/ledger/audit", Class::Chat).get(all("audit.read", "AuditEntry")),
    route("/v1/log", Class::Api).get(all("audit.read", "AuditEntry")),
    route("/v1/log/entries", Class::Api).get(all("audit.read", "AuditEntry")),
    route("/v1/log/proof/{index}", Class::Api).get(one("audit.read", "AuditEntry", "index")),
    route("/v1/auth/login", Class::Login).post(Need::Anybody).secret(),
    route("/v1/auth/mfa", Class::Login).post(Need::Anybody).secret(),
    route("/v1/auth/refresh", Class::Public).post(Need::Anybody).secret(),
    route("/v1/auth/logout", Class::Public).post(Need::Anybody).secret(),
    route("/v1/auth/me", Class::Api).get(Need::Credential),
    route("/v1/auth/rotate", Class::Api).post(all("key.rotate", "Key")),
    route("/.well-known/jwks.json", Class::Public).get(Need::Anybody),
    route("/.well-known/jwks/{tenant}", Class::Public).get(Need::Anybody),
    route("/v1/users", Class::Api).get(all("id.read", "User")).post(all("id.manage", "User")),
    route("/v1/users/{id}", Class::Api).patch(one("id.manage", "User", "id")),
    route("/v1/users/{id}/password", Class::Api).post(Need::Account { id: "id" }).secret(),
    route("/v1/users/{id}/totp", Class::Api).post(Need::Account { id: "id" }).secret(),
    route("/v1/users/{id}/totp/confirm", Class::Api).post(Need::Account { id: "id" }).secret(),
    route("/v1/keys", Class::Api).get(Need::Later).post(Need::Later).secret(),
    route("/v1/keys/{id}", Class::Api).delete(Need::Later),
    route("/v1/tenants", Class::Api).get(all("system.monitor", "System")).post(all("tenant.create", "Tenant")).secret(),
    route("/v1/tenants/{name}", Class::Api).patch(one("tenant.manage", "Tenant", "name")),
    // Epochs are those of all tenants.
    route("/v1/vault", Class::Api).get(all("system.monitor", "System")),
    route("/v1/vault/rotate", Class::Chat).post(all("system.config", "System")),
    route("/v1/dlp/scan", Class::Api).post(all("dlp.scan", "Document")),
    route("/v1/dlp/redact", Class::Api).post(all("dlp.redact", "Document")),
    route("/v1/dlp/detokenise", Class::Api).post(all("key.detokenise", "Key")).secret(),
    route("/v1/dsar/{subject}", Class::Chat).get(one("comp.dsar", "User", "subject")),
    route("/v1/erasures", Class::Chat).post(all("comp.erase", "User")),
    route("/v1/erasures/{id}", Class::Api).get(all("comp.report", "User")),
    route("/tlog/checkpoint", Class::Open),
    route("/tlog/tile/{*path}", Class::Open),
    openai("/v1/models", Class::Api).get(all("agent.read", "Agent")),
    openai("/v1/models/{id}", Class::Api).get(one("agent.read", "Agent", "id")),
    route("/openapi.json", Class::Open),
    route("/docs", Class::Open),
    route("/docs/", Class::Open),
    route("/docs/{*rest}", Class::Open),
    route("/healthz", Class::Health),
    route("/readyz", Class::Health),
    route("/metrics", Class::Open),
    route("/", Class::Open),
    route("unknown", Class::Api),
];

/// The route table.
#[cfg(test)]
pub(crate) fn table() -> &'static [Route] {
    &ROUTES
}

impl Route {
    const fn get(self, need: Need) -> Self {
        Self { get: Some(need), ..self }
    }

    const fn post(self, need: Need) -> Self {
        Self { post: Some(need), ..self }
    }

    const fn patch(self, need: Need) -> Self {
        Self { patch: Some(need), ..self }
    }

    const fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    const fn delete(self, need: Need) -> Self {
        Self { delete: Some(need), ..self }
    }

    /// What a request with this method needs; none when the route does not know the method.
    pub(crate) fn need(&self, method: &Method) -> Option<Need> {
        match *method {
            Method::GET | Method::HEAD => self.get,
            Method::POST => self.post,
            Method::PATCH => self.patch,
            Method::DELETE => self.delete,
            _ => None,
        }
    }

    /// The route of a matched template.
    pub(crate) fn of(template: Option<&str>) -> &'static Route {
        let known = template.and_then(|template| ROUTES.iter().find(|route| route.template == template));
        known.unwrap_or(&UNKNOWN)
    }

    /// Longest time on this route.
    pub(crate) fn max_time(&self, config: &EdgeConfig) -> Duration {
        match self.class {
            Class::Chat | Class::Upload => config.chat_timeout.get(),
            _ => config.request_timeout.get(),
        }
    }

    /// Largest and slowest body on this route.
    pub(crate) fn body_limits(&self, config: &EdgeConfig) -> BodyLimits {
        let bytes = match self.class {
            Class::Upload => config.upload_max,
            // Whoever has no credential sends a name and a password, or a token.
            Class::Login | Class::Public => config.max_body.min(Size::from_kib(16)),
            _ => config.max_body,
        };
        BodyLimits { bytes: bytes.as_usize(), pause: config.header_timeout.get() }
    }

    /// True if the answer is for whoever asked only, nearly always by a credential.
    pub(crate) fn needs_key(&self) -> bool {
        !matches!(self.class, Class::Health | Class::Open)
    }
}

/// The documented routes; also the source of the `OpenAPI` document.
pub(crate) fn documented() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::new()
        .routes(routes!(agents::list))
        .routes(routes!(agents::show))
        .routes(routes!(agents::ask))
        .routes(routes!(agents::tool_get, agents::tool_post))
        .routes(routes!(agents::conversation))
        .routes(routes!(actors::kinds))
        .routes(routes!(actors::kind))
        .routes(routes!(actors::show, actors::send_alias))
        .routes(routes!(actors::send))
        .routes(routes!(memory::put))
        .routes(routes!(memory::get, memory::delete))
        .routes(routes!(memory::query))
        .routes(routes!(memory::stats))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show, jobs::cancel))
        .routes(routes!(jobs::events))
        .routes(routes!(events::topics))
        .routes(routes!(chat::models))
        .routes(routes!(chat::model))
        .routes(routes!(chat::completions))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::remove))
        .routes(routes!(cluster::tokens, cluster::new_token))
        .routes(routes!(cluster::revoke))
        .routes(routes!(meta::status))
        .routes(routes!(meta::history))
        .routes(routes!(meta::supervision))
        .routes(routes!(meta::healthz))
        .routes(routes!(meta::readyz))
        .routes(routes!(meta::document))
        .merge(governance())
}

/// Of these, who may do what, what passes, what happened.
fn governance() -> OpenApiRouter<Arc<Door>> {
    OpenApiRouter::new()
        .routes(routes!(policy::status, policy::apply))
        .routes(routes!(policy::decide))
        .routes(routes!(policy::explain))
        .routes(routes!(policy::constitution))
        .routes(routes!(moderation::check))
        .routes(routes!(cases::list))
        .routes(routes!(cases::show))
        .routes(routes!(cases::appeal))
        .routes(routes!(cases::vote))
        .routes(routes!(cases::report))
        .routes(routes!(ledger::accounts))
        .routes(routes!(ledger::show))
        .routes(routes!(ledger::transfers))
        .routes(routes!(ledger::audit))
        .routes(routes!(privacy::vault))
        .routes(routes!(privacy::rotate))
        .routes(routes!(dlp::scan))
        .routes(routes!(dlp::redact))
        .routes(routes!(dlp::detokenise))
        .routes(routes!(privacy::export))
        .routes(routes!(privacy::erase))
        .routes(routes!(privacy::erasure))
        .routes(routes!(log::status))
        .routes(routes!(log::entries))
        .routes(routes!(log::proof))
        .routes(routes!(log::checkpoint))
        .routes(routes!(auth::login))
        .routes(routes!(auth::mfa))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::me))
        .routes(routes!(auth::rotate))
        .routes(routes!(auth::jwks))
        .routes(routes!(auth::jwks_of))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::change))
        .routes(routes!(users::password))
        .routes(routes!(users::totp))
        .routes(routes!(users::confirm))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::change))
}

/// The router of the public listener.
pub(crate) fn public(door: &Arc<Door>) -> Router {
    let (router, _) = documented().split_for_parts();
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let router = router
        .merge(docs)
        .route("/tlog/tile/{*path}", axum::routing::get(log::tile))
        .route("/", axum::routing::get(meta::root))
        .fallback(unknown)
        .method_not_allowed_fallback(method_unknown);
    let router = router.layer(from_fn_with_state(door.clone(), inner)).layer(compression());
    let router = match cors(&door.config.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(from_fn_with_state(door.clone(), outer)).with_state(door.clone())
}

/// The router of the admin listener.
pub(crate) fn admin(door: &Arc<Door>) -> Router {
    Router::new()
        .route("/healthz", axum::routing::get(meta::healthz))
        .route("/readyz", axum::routing::get(meta::readyz))
        .route("/metrics", axum::routing::get(meta::metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(method_unknown)
        .layer(from_fn_with_state(door.clone(), inner))
        .layer(from_fn_with_state(door.clone(), outer))
        .with_state(door.clone())
}

/// gzip and zstd at their fastest, for answers above 1 KiB that are not streams.
fn compression() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new()
        .no_br()
        .no_deflate()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(1_024).and(NotForContentType::SSE).and(NotForContentType::IMAGES))
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let headers = ["x-api-key", "idempotency-key", "last-event-id", "prefer", "request-timeout-ms", "traceparent"]
        .map(HeaderName::from_static);
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE].into_iter().chain(headers).collect::<Vec<_>>())
            .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER, header::LOCATION])
            .max_age(Duration::from_mins(10)),
    )
}

async fn unknown(uri: Uri) -> ApiError {
    unknown_route(&uri)
}

/// The refusal of a path that no route has.
pub(crate) fn unknown_route(uri: &Uri) -> ApiError {
    let path: String = uri.path().chars().take(128).collect();
    ApiError::new(Code::NotFound, format!("there is no route {path}; see /openapi.json"))
}

async fn method_unknown(method: Method) -> ApiError {
    wrong_method(&method)
}

/// The refusal of a method that a route does not know.
pub(crate) fn wrong_method(method: &Method) -> ApiError {
    let method: String = method.as_str().chars().take(32).collect();
    ApiError::new(Code::MethodNotAllowed, format!("the route does not know {method}; see /openapi.json"))
}

/// Path parameters, refused as a problem.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// Query parameters, refused as a problem.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);

/// A JSON body of the shape `T`, read within the route's limits.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned + JsonSchema> FromRequest<Arc<Door>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Self, ApiError> {
        let (parts, payload) = request.into_parts();
        let mime = parts.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        // A missing type is taken for JSON: there is nothing else these routes read.
        if mime.is_some_and(|mime| !mime.starts_with(b"application/json") && !mime.starts_with(b"application/merge")) {
            return Err(ApiError::new(Code::UnsupportedMediaType, "send the body as application/json"));
        }
        let limits =
            Route::of(parts.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str))
                .body_limits(&door.config);
        let limits = BodyLimits { bytes: limits.bytes.min(door.config.max_body.as_usize()), ..limits };
        body::json(&body::read(&parts.headers, payload, limits).await?).map(Body)
    }
}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PageOf<T> {
    /// The items.
    pub(crate) data: Vec<T>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// What handlers return.
pub(crate) type Answer<T> = Result<T, ApiError>;

/// A JSON response.
pub(crate) fn ok<T: Serialize>(value: T) -> axum::response::Response {
    Json(value).into_response()
}

/// The fault of a value that has no JSON form.
pub(crate) fn unwritable(error: &serde_json::Error) -> ApiError {
    ApiError::new(Code::Internal, format!("the answer has no JSON form: {error}"))
}

#[cfg(test)]
mod isolation;
