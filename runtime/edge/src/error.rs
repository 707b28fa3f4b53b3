//! What a request can fail with, and how that is told: one table of codes, two dialects.
//!
//! Handlers return [`ApiError`]; it travels in the response's extensions to the outermost layer, which knows the
//! trace id and the surface and writes the body once: RFC 9457 `application/problem+json`, or the error object that
//! `OpenAI` clients expect.

use std::time::Duration;

use aivillage_governance::gate;
use aivillage_governance::identity::{IdentityError, TenantError, TenantRefused};
use aivillage_governance::tlog::LogError;
use aivillage_runtime::CallError;
use aivillage_runtime::cluster::DecideError;
use aivillage_runtime::control::ControlRefused;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why the edge could not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// Another process holds the port.
    #[error("{key}: {addr} is already in use; stop the other process or set {key} to a free port")]
    PortInUse {
        /// Config key that named the address.
        key: &'static str,
        /// The address asked for.
        addr: std::net::SocketAddr,
    },
    /// The address is reachable from other machines and nothing encrypts the connection.
    #[error("{key}: {addr} is not a loopback address and plain HTTP would expose the key; use 127.0.0.1 or [::1]")]
    NotLoopback {
        /// Config key that named the address.
        key: &'static str,
        /// The address asked for.
        addr: std::net::SocketAddr,
    },
    /// The listener could not be opened for another reason.
    #[error("{key}: cannot listen on {addr}")]
    Listen {
        /// Config key that named the address.
        key: &'static str,
        /// The address asked for.
        addr: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The admin key file cannot be read, written or understood.
    #[error("admin key {}: {why}", path.display())]
    AdminKey {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A value of the `[edge]` section makes no sense.
    #[error("{key}: {why}")]
    Config {
        /// The key.
        key: &'static str,
        /// What would be right.
        why: String,
    },
}

macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $title:literal;)+) => {
        /// A stable, documented reason for refusing a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $title] $variant,)+
        }
        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];
            /// The code as it is written in bodies.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)+ }
            }
            /// The HTTP status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status,)+ }
            }
            /// One sentence for people.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)+ }
            }
            /// The code written as `text`, if there is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Code> {
                match text { $($code => Some(Code::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    BadRequest "bad_request" BAD_REQUEST "The request is malformed.";
    BadJson "bad_json" BAD_REQUEST "The body is not valid JSON.";
    BadCursor "bad_cursor" BAD_REQUEST "The cursor was not issued for this list.";
    Unauthenticated "unauthenticated" UNAUTHORIZED "A valid key is needed.";
    MfaRequired "mfa_required" UNAUTHORIZED "A second factor is needed.";
    Csrf "csrf" FORBIDDEN "A cookie came from a page of another site.";
    Forbidden "forbidden" FORBIDDEN "The caller may not do this.";
    Suspended "suspended" FORBIDDEN "The sender is suspended; the notice says by which case, until when, and how to appeal.";
    NotFound "not_found" NOT_FOUND "There is nothing under this name.";
    KindUnknown "actor_kind_unknown" NOT_FOUND "No such actor kind is hosted.";
    MessageUnknown "message_unknown" NOT_FOUND "The kind exposes no such message.";
    AgentUnknown "agent_unknown" NOT_FOUND "There is no such agent.";
    CollectionUnknown "collection_not_found" NOT_FOUND "The memory has no such collection.";
    ModelNotFound "model_not_found" NOT_FOUND "No such model.";
    NodeUnknown "node_unknown" NOT_FOUND "No such node is a member of the cluster.";
    TokenUnknown "token_unknown" NOT_FOUND "There is no such join token.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The route does not know this method.";
    NotAcceptable "not_acceptable" NOT_ACCEPTABLE "The answer has no form the caller accepts.";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT "The body did not arrive in time.";
    ToolDenied "tool_denied" FORBIDDEN "The agent may not use this tool.";
    Conflict "conflict" CONFLICT "The request contradicts the present state.";
    SodConflict "sod_conflict" CONFLICT "Two duties would be in one hand that have to be in two.";
    VersionConflict "version_conflict" CONFLICT "Somebody else changed it first.";
    NodeUp "node_up" CONFLICT "The node is not down.";
    NodeNeeded "node_needed" CONFLICT "Without the node, too few copies of some state would be left.";
    LastNode "last_node" CONFLICT "The last node of a cluster stays.";
    NoCluster "no_cluster" CONFLICT "This village is not part of a cluster.";
    VersionMismatch "version_mismatch" CONFLICT "The node with the actor has another version of its messages.";
    IdempotencyInProgress "idempotency_in_progress" CONFLICT "The first request with this key is still running.";
    Erased "crypt_shredded" GONE "The person was erased; nothing is kept of them any more.";
    ErasureHeld "erasure_held" CONFLICT "Something of the person has to be kept for now; the detail says what and until when.";
    ErasureIncomplete "erasure_incomplete" CONFLICT "The keys are destroyed, but not everything is removed yet.";
    Gone "gone" GONE "It existed and was removed.";
    PayloadTooLarge "payload_too_large" PAYLOAD_TOO_LARGE "The body is larger than this route takes.";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The route does not read this content type.";
    HostNotAllowed "host_not_allowed" MISDIRECTED_REQUEST "The Host header names no host of this server.";
    IdempotencyMismatch "idempotency_mismatch" UNPROCESSABLE_ENTITY "The key was used with another request.";
    PayloadInvalid "payload_invalid" UNPROCESSABLE_ENTITY "The body does not have the documented shape.";
    WeakPassword "weak_password" UNPROCESSABLE_ENTITY "The password is too easily found.";
    Locked "locked" LOCKED "Too many failures; no attempt is looked at before the delay has passed.";
    UnsupportedContent "unsupported_content" BAD_REQUEST "A content part of this type is not understood.";
    UnsupportedParameter "unsupported_parameter" BAD_REQUEST "This parameter is not supported.";
    Moderated "moderated" UNAVAILABLE_FOR_LEGAL_REASONS "What is illegal or severe does not pass; the notice says by which article and how to appeal.";
    AgainstPolicy "against_policy" UNPROCESSABLE_ENTITY "It is legal, and against the rules of this place; the notice says which.";
    DataProtected "data_protected" UNPROCESSABLE_ENTITY "Personal or secret data in it may not go there.";
    RateLimited "rate_limited" TOO_MANY_REQUESTS "Too many requests.";
    Overloaded "overloaded" TOO_MANY_REQUESTS "The actor's mailbox is full.";
    Interrupted "interrupted" INTERNAL_SERVER_ERROR "The node stopped before the job was done.";
    Cancelled "cancelled" CONFLICT "The job was cancelled.";
    Internal "internal" INTERNAL_SERVER_ERROR "A fault of the server.";
    Panicked "actor_panicked" INTERNAL_SERVER_ERROR "The actor failed while it worked on the message.";
    NoReply "no_reply" INTERNAL_SERVER_ERROR "The actor dropped the message without an answer.";
    IndexFailed "index_failed" INTERNAL_SERVER_ERROR "An index of the memory cannot be read or written.";
    JournalFailed "journal_failed" INTERNAL_SERVER_ERROR "The journal of the memory cannot be read or written.";
    NotImplemented "not_implemented" NOT_IMPLEMENTED "This is declared, but not built.";
    Shed "shed" SERVICE_UNAVAILABLE "The server is at its limit.";
    Draining "draining" SERVICE_UNAVAILABLE "The node is stopping.";
    ModelUnavailable "model_unavailable" SERVICE_UNAVAILABLE "No model can answer now.";
    NoRootKey "crypt_no_root" SERVICE_UNAVAILABLE "The keys that personal data is sealed with are not there yet.";
    EpochRefused "crypt_epoch" SERVICE_UNAVAILABLE "The keys could not move into the next epoch.";
    PolicyUnavailable "policy_unavailable" SERVICE_UNAVAILABLE "No policies are loaded; nothing is allowed until they are.";
    Unavailable "unavailable" SERVICE_UNAVAILABLE "A part that is needed cannot be reached.";
    GovernanceUnavailable "governance_unavailable" SERVICE_UNAVAILABLE "What is needed to judge, to log or to tell who calls is not there.";
    NoQuorum "no_quorum" SERVICE_UNAVAILABLE "Too few nodes hear each other to decide anything.";
    NotPlaced "actor_not_placed" SERVICE_UNAVAILABLE "No live node can host the actor.";
    NodeUnreachable "node_unreachable" SERVICE_UNAVAILABLE "The node with the actor cannot be reached.";
    SlotUnavailable "slot_unavailable" SERVICE_UNAVAILABLE "The actor's state is on a node that is away.";
    Moved "actor_moved" SERVICE_UNAVAILABLE "The actor is changing nodes.";
    ActorTimeout "actor_timeout" GATEWAY_TIMEOUT "The actor did not answer before the deadline.";
    Expired "expired" GATEWAY_TIMEOUT "The deadline had passed before the work began.";
    StoreFull "store_full" INSUFFICIENT_STORAGE "The disk is full; reads go on.";
}

/// One thing wrong at one place of the body.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A refused or failed request. Boxed: it is the rare half of every result.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug, Clone)]
struct Refusal {
    code: std::borrow::Cow<'static, str>,
    status: StatusCode,
    title: &'static str,
    detail: String,
    param: Option<String>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    denied: Option<Denied>,
    /// Where a second factor is shown.
    step_up: Option<&'static str>,
    /// Told as something that is not there, because it is another tenant's.
    is_hidden: bool,
    /// What the gate tells about the rule.
    notice: Option<Value>,
}

/// What is a second factor.
const MFA_METHODS: [&str; 2] = ["totp", "recovery_code"];

/// What denied a request.
#[derive(Debug, Clone)]
struct Denied {
    policy_ids: Vec<String>,
    articles: Vec<String>,
}

impl ApiError {
    /// An error of the table with what is particular to this request.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        ApiError(Box::new(Refusal {
            code: code.as_str().into(),
            status: code.status(),
            title: code.title(),
            detail: detail.into(),
            param: None,
            errors: Vec::new(),
            retry_after: None,
            denied: None,
            step_up: None,
            is_hidden: false,
            notice: None,
        }))
    }

    /// Nothing under `what`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist"))
    }

    /// A denial that is told as nothing under `what`: whether another tenant has something of this name is not told.
    pub fn hidden(what: impl std::fmt::Display) -> Self {
        let mut error = Self::not_found(what);
        error.0.is_hidden = true;
        error
    }

    /// Whether it is a denial, whatever it is told as.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.0.is_hidden || is_denial(self.0.status)
    }

    /// A body of the wrong shape, with every place that is wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", if one.pointer.is_empty() { "/" } else { &one.pointer }, one.detail),
            many => format!("{} places of the body are wrong", many.len()),
        };
        let mut error = Self::new(Code::PayloadInvalid, detail);
        error.0.errors = errors;
        error
    }

    /// Names the request parameter that is at fault (`OpenAI` dialect).
    #[must_use]
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.0.param = Some(name.into());
        self
    }

    /// Names the policies that denied it and the articles of the constitution that they enforce.
    #[must_use]
    pub fn denied(mut self, policy_ids: Vec<String>, articles: Vec<String>) -> Self {
        self.0.denied = Some(Denied { policy_ids, articles });
        self
    }

    /// Nothing but a second factor is missing; it is shown at `route`.
    #[must_use]
    pub fn mfa_required(detail: impl Into<String>, route: &'static str) -> Self {
        let mut error = Self::new(Code::MfaRequired, detail);
        error.0.step_up = Some(route);
        error
    }

    /// Tells the rule by which content was withheld, and what can be done about it.
    fn notice(mut self, notice: Value) -> Self {
        self.0.notice = Some(notice);
        self
    }

    /// Tells when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The RFC 9457 object.
    #[must_use]
    pub fn problem(&self, instance: &str, trace_id: &str) -> Value {
        let mut body = json!({
            "type": format!("urn:aivillage:problem:{}", self.0.code),
            "title": self.0.title,
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
            "instance": instance,
            "code": self.0.code,
            "trace_id": trace_id,
        });
        if !self.0.errors.is_empty() {
            body["errors"] = json!(self.0.errors);
        }
        if let Some(denied) = &self.0.denied {
            body["policy_ids"] = json!(denied.policy_ids);
            body["articles"] = json!(denied.articles);
        }
        if let Some(route) = self.0.step_up {
            body["methods"] = json!(MFA_METHODS);
            body["login"] = json!(route);
        }
        if let Some(notice) = &self.0.notice {
            if let Some(article) = notice.get("article") {
                body["article"] = article.clone();
            }
            if let Some(limit) = notice.get("limit") {
                body["limit"] = limit.clone();
            }
            body["notice"] = notice.clone();
        }
        if let Some(after) = self.0.retry_after {
            body["retry_after_s"] = json!(seconds_up(after));
        }
        body
    }

    /// The error object of the `OpenAI` API.
    #[must_use]
    pub fn openai(&self, trace_id: &str) -> Value {
        let (kind, code) = match (self.0.status.as_u16(), &*self.0.code) {
            (401, "mfa_required") => ("permission_error", "mfa_required"),
            (401, _) => ("invalid_request_error", "invalid_api_key"),
            (403, code) => ("permission_error", code),
            (429, "rate_limited") => ("rate_limit_error", "rate_limit_exceeded"),
            (429, code) => ("rate_limit_error", code),
            (503, "shed" | "draining") => ("server_error", "overloaded"),
            (500.., code) => ("server_error", code),
            (_, code) => ("invalid_request_error", code),
        };
        let mut message = self.0.detail.clone();
        for error in &self.0.errors {
            message.push_str("; ");
            message.push_str(&error.pointer);
            message.push_str(": ");
            message.push_str(&error.detail);
        }
        let param = self.0.param.clone().or_else(|| self.0.errors.first().map(|error| error.pointer.clone()));
        let mut body =
            json!({"error": {"message": message, "type": kind, "param": param, "code": code, "trace_id": trace_id}});
        if let Some(notice) = &self.0.notice {
            body["error"]["notice"] = notice.clone();
        }
        body
    }

    /// Writes the final response in one of the dialects.
    pub(crate) fn render(&self, dialect: Dialect, instance: &str, trace_id: &str) -> Response {
        let (body, mime) = match dialect {
            Dialect::Problem => (self.problem(instance, trace_id), "application/problem+json"),
            Dialect::OpenAi => (self.openai(trace_id), "application/json"),
        };
        let mut response = (self.0.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(after)));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            // RFC 9470: the credential is good, how it was got is not enough.
            let step_up = HeaderValue::from_static("Bearer error=\"insufficient_user_authentication\"");
            let challenge = if self.0.step_up.is_some() { step_up } else { HeaderValue::from_static("Bearer") };
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Whether a status says that somebody may not.
pub(crate) fn is_denial(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::LOCKED)
}

/// Whole seconds, rounded up: a client that waits them is never early.
fn seconds_up(after: Duration) -> u64 {
    after.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

/// Which form the body of an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// RFC 9457.
    Problem,
    /// `{"error": {..}}`.
    OpenAi,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.detail)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    /// An empty body with the error attached; the outermost layer renders it.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        let code = match &error {
            CallError::Timeout => Code::ActorTimeout,
            CallError::Expired => Code::Expired,
            CallError::Overloaded { .. } => Code::Overloaded,
            CallError::UnknownKind { .. } => Code::KindUnknown,
            CallError::Decode { .. } => Code::PayloadInvalid,
            CallError::Panicked => Code::Panicked,
            CallError::NoReply => Code::NoReply,
            CallError::Draining => Code::Draining,
            CallError::Denied { .. } => Code::Forbidden,
            CallError::TooLarge { .. } => Code::PayloadTooLarge,
            CallError::Store { full: true, .. } => Code::StoreFull,
            CallError::NoQuorum { .. } => Code::NoQuorum,
            CallError::NotPlaced { .. } => Code::NotPlaced,
            CallError::Unreachable { .. } => Code::NodeUnreachable,
            CallError::VersionMismatch { .. } => Code::VersionMismatch,
            CallError::SlotUnavailable { .. } => Code::SlotUnavailable,
            CallError::Moved { .. } => Code::Moved,
            CallError::App(refusal) => return from_app(&refusal.code, &refusal.message),
            CallError::Refused(refusal) => {
                let refused = from_app(&refusal.code, &refusal.message);
                let refused = refused.notice(serde_json::from_str(&refusal.notice).unwrap_or_default());
                return error.retry_after().map_or(refused.clone(), |after| refused.retry_after(after));
            }
            _ => Code::Internal,
        };
        let mapped = ApiError::new(code, detail);
        match error.retry_after() {
            Some(after) => mapped.retry_after(after),
            None => mapped,
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let detail = error.to_string();
        let code = match error {
            IdentityError::Refused => Code::Unauthenticated,
            IdentityError::Locked { retry_after_ms } => {
                return ApiError::new(Code::Locked, detail).retry_after(Duration::from_millis(retry_after_ms));
            }
            IdentityError::WeakPassword(_) => Code::WeakPassword,
            IdentityError::Sod(_) => Code::SodConflict,
            IdentityError::NotFound { .. } => Code::NotFound,
            IdentityError::Taken | IdentityError::Founded | IdentityError::TooMany { .. } => Code::Conflict,
            IdentityError::Invalid { field, why } => {
                return ApiError::invalid(vec![FieldError { pointer: format!("/{field}"), detail: why }]);
            }
            IdentityError::Forbidden => Code::Forbidden,
            IdentityError::TooDeep { .. } => Code::PayloadInvalid,
            IdentityError::NotReady => {
                return ApiError::new(Code::GovernanceUnavailable, detail).retry_after(Duration::from_secs(1));
            }
            IdentityError::Sealed => Code::Internal,
        };
        ApiError::new(code, detail)
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        let refused = match error {
            TenantError::Undecided(error) => return error.into(),
            TenantError::Refused(refused) => refused,
        };
        let code = match refused {
            TenantRefused::Unknown => Code::NotFound,
            TenantRefused::Name => {
                return ApiError::invalid(vec![FieldError { pointer: "/name".into(), detail: refused.to_string() }]);
            }
            TenantRefused::Exists | TenantRefused::Tag | TenantRefused::Home | TenantRefused::Full { .. } => {
                Code::Conflict
            }
            TenantRefused::Unreadable(_) => Code::Internal,
        };
        ApiError::new(code, refused.to_string())
    }
}

impl From<Box<gate::Denied>> for ApiError {
    fn from(denied: Box<gate::Denied>) -> Self {
        let (policy_ids, articles) = (denied.notice.policies.clone(), denied.notice.articles.clone());
        let is_policy = denied.why == gate::Why::Forbidden;
        let mapped = ApiError::from(CallError::from(*denied));
        if is_policy { mapped.denied(policy_ids, articles) } else { mapped }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let code = match &error {
            LogError::OutOfRange { .. } => Code::NotFound,
            LogError::Damaged { .. } | LogError::BadEntry { .. } | LogError::TooLarge { .. } => Code::Internal,
            _ => Code::GovernanceUnavailable,
        };
        ApiError::new(code, error.to_string())
    }
}

impl From<DecideError> for ApiError {
    fn from(error: DecideError) -> Self {
        let code = match &error {
            DecideError::Refused(refused) => refusal(refused),
            DecideError::NoQuorum { .. } => Code::NoQuorum,
            DecideError::TooLarge => Code::PayloadTooLarge,
            DecideError::Stopped => Code::Draining,
            DecideError::NoCluster => Code::NoCluster,
            _ => Code::Internal,
        };
        let mapped = ApiError::new(code, error.to_string());
        match code {
            Code::NoQuorum | Code::Draining => mapped.retry_after(Duration::from_secs(1)),
            _ => mapped,
        }
    }
}

fn refusal(refused: &ControlRefused) -> Code {
    match refused {
        ControlRefused::NodeUnknown { .. } => Code::NodeUnknown,
        ControlRefused::TokenUnknown => Code::TokenUnknown,
        ControlRefused::NodeUp => Code::NodeUp,
        ControlRefused::Stranded { .. } => Code::NodeNeeded,
        ControlRefused::LastNode => Code::LastNode,
        ControlRefused::TooLarge { .. } => Code::PayloadInvalid,
        // What remains contradicts how the cluster is now.
        _ => Code::Conflict,
    }
}

/// An actor's own refusal: a code of the table keeps its status, any other is 422.
fn from_app(code: &str, message: &str) -> ApiError {
    if let Some(known) = Code::parse(code) {
        return ApiError::new(known, message);
    }
    let mut own = ApiError::new(Code::PayloadInvalid, message);
    own.0.code = code.to_owned().into();
    own.0.title = "The actor refused the request.";
    own
}

impl From<axum::extract::rejection::PathRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::PathRejection) -> Self {
        ApiError::new(Code::BadRequest, rejection.body_text())
    }
}

impl From<axum::extract::rejection::QueryRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::QueryRejection) -> Self {
        ApiError::new(Code::BadRequest, rejection.body_text())
    }
}

/// The page `docs/errors.md`: every code with its status.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Error codes of the HTTP door\n\n\
         Generated from `runtime/edge/src/error.rs`; a test compares them (`UPDATE_DOCS=1 cargo test -p aivillage-edge` \
         writes this page anew).\n\n\
         Every refused request is answered with `application/problem+json` (RFC 9457): `type` \
         (`urn:aivillage:problem:<code>`), `title`, `status`, `detail`, `instance`, `code`, `trace_id`, and where they \
         apply `errors[] {pointer, detail}`, `retry_after_s`, of what policies deny `policy_ids` and `articles`, of what the gate \
         withholds `article` and `notice`, and of what is too much `limit`. The OpenAI routes (`/v1/models`, \
         `/v1/chat/completions`, `/v1/moderations`) answer `{\"error\": {message, type, param, code}}` instead.\n\n\
         An actor's own refusal keeps its code: with the status below if it is in the table, otherwise 422. Bytes that \
         are not HTTP at all never reach a route: the protocol layer answers a bare `400` or `431` and closes.\n\n\
         | code | status | meaning |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let (status, title) = (code.status().as_u16(), code.title());
        page.extend(["| `", code.as_str(), "` | ", &status.to_string(), " | ", title, " |\n"]);
    }
    page
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::AppError;

    use super::*;

    #[test]
    fn documentation_lists_exactly_the_codes_of_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, reference()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), reference(), "run with UPDATE_DOCS=1");
    }

    #[test]
    fn codes_are_snake_case_unique_and_parse_back() {
        for code in Code::ALL {
            let text = code.as_str();
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
            assert_eq!(Code::parse(text), Some(*code));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn problem_has_the_members_of_the_contract() {
        let error = ApiError::invalid(vec![FieldError { pointer: "/k".into(), detail: "not a number".into() }]);
        insta::assert_json_snapshot!(error.problem("/v1/memory/query", "4bf92f3577b34da6a3ce929d0e0e4736"), @r#"
        {
          "type": "urn:aivillage:problem:payload_invalid",
          "title": "The body does not have the documented shape.",
          "status": 422,
          "detail": "/k: not a number",
          "instance": "/v1/memory/query",
          "code": "payload_invalid",
          "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
          "errors": [
            {
              "pointer": "/k",
              "detail": "not a number"
            }
          ]
        }
        "#);
    }

    #[test]
    fn actor_refusals_keep_their_code() {
        let known = ApiError::from(CallError::from(AppError::new("not_found", "no")));
        assert_eq!((known.code(), known.status().as_u16()), ("not_found", 404));
        let own = ApiError::from(CallError::from(AppError::new("overdrawn", "no")));
        assert_eq!((own.code(), own.status().as_u16()), ("overdrawn", 422));
    }

    #[test]
    fn what_many_nodes_add_keeps_the_codes_of_the_runtime() {
        let node = aivillage_runtime::NodeId(7);
        let text = || "x".to_owned();
        let errors = [
            (CallError::NoQuorum { detail: text() }, 503, Some(1)),
            (CallError::NotPlaced { kind: text(), missing: text() }, 503, None),
            (CallError::Unreachable { node, sent: true }, 503, Some(1)),
            (CallError::VersionMismatch { have: 1, got: 2 }, 409, None),
            (CallError::SlotUnavailable { kind: text(), detail: text() }, 503, Some(1)),
            (CallError::Moved { to: None }, 503, None),
            (CallError::Draining, 503, Some(1)),
        ];
        for (error, status, retry) in errors {
            let mapped = ApiError::from(error.clone());
            assert_eq!((mapped.code(), mapped.status().as_u16()), (&*error.code(), status));
            assert_eq!(mapped.problem("/", "t").get("retry_after_s").and_then(Value::as_u64), retry, "{error}");
        }
    }

    #[test]
    fn decisions_that_were_not_made_say_why() {
        let node = aivillage_runtime::NodeId(7);
        let cases: [(DecideError, &str, u16); 10] = [
            (DecideError::NoQuorum { seen: 1, voters: 3, unsure: false }, "no_quorum", 503),
            (ControlRefused::NodeUnknown { node }.into(), "node_unknown", 404),
            (ControlRefused::TokenUnknown.into(), "token_unknown", 404),
            (ControlRefused::NodeUp.into(), "node_up", 409),
            (ControlRefused::Stranded { groups: vec![1] }.into(), "node_needed", 409),
            (ControlRefused::LastNode.into(), "last_node", 409),
            (ControlRefused::TooLarge { what: "token note".into(), max: 256 }.into(), "payload_invalid", 422),
            (ControlRefused::TokenExpired.into(), "conflict", 409),
            (DecideError::NoCluster, "no_cluster", 409),
            (DecideError::TooLarge, "payload_too_large", 413),
        ];
        for (error, code, status) in cases {
            let mapped = ApiError::from(error.clone());
            assert_eq!((mapped.code(), mapped.status().as_u16()), (code, status));
            assert_eq!(mapped.problem("/", "t")["detail"], error.to_string());
        }
    }

    #[test]
    fn refusals_of_identity_have_their_codes() {
        let text = || "x".to_owned();
        let cases: [(IdentityError, &str, u16); 10] = [
            (IdentityError::Refused, "unauthenticated", 401),
            (IdentityError::Locked { retry_after_ms: 1_001 }, "locked", 423),
            (aivillage_governance::identity::password::WeakPassword::Reused.into(), "weak_password", 422),
            (IdentityError::NotFound { what: text() }, "not_found", 404),
            (IdentityError::Taken, "conflict", 409),
            (IdentityError::Invalid { field: "name".into(), why: text() }, "payload_invalid", 422),
            (IdentityError::Forbidden, "forbidden", 403),
            (IdentityError::TooDeep { max: 4 }, "payload_invalid", 422),
            (IdentityError::NotReady, "governance_unavailable", 503),
            (IdentityError::Sealed, "internal", 500),
        ];
        for (error, code, status) in cases {
            let mapped = ApiError::from(error.clone());
            assert_eq!((mapped.code(), mapped.status().as_u16()), (code, status), "{error}");
        }
        let locked = ApiError::from(IdentityError::Locked { retry_after_ms: 1_001 });
        assert_eq!(locked.problem("/", "t")["retry_after_s"], 2);
        let cases = [
            (TenantRefused::Unknown, 404),
            (TenantRefused::Name, 422),
            (TenantRefused::Exists, 409),
            (TenantRefused::Home, 409),
            (TenantRefused::Full { max: 1 }, 409),
            (TenantRefused::Unreadable(text()), 500),
        ];
        for (error, status) in cases {
            assert_eq!(ApiError::from(TenantError::from(error)).status().as_u16(), status);
        }
    }

    #[test]
    fn what_the_gate_denies_has_its_status_and_notice() {
        use gate::Why;
        let notice =
            r#"{"id":"00000000-0000-0000-0000-000000000000","stage":"user_input","action":"block","article":"A1.2"}"#;
        let cases = [
            (Why::RateLimited, 429),
            (Why::Forbidden, 403),
            (Why::Suspended, 403),
            (Why::Moderated, 451),
            (Why::AgainstPolicy, 422),
            (Why::DataProtected, 422),
            (Why::GovernanceUnavailable, 503),
        ];
        for (why, status) in cases {
            let notice = Box::new(serde_json::from_str(notice).unwrap());
            let retry_after = Some(Duration::from_secs(2));
            let denied = gate::Denied { why, message: "no".into(), notice, retry_after };
            let mapped = ApiError::from(Box::new(denied));
            assert_eq!((mapped.code(), mapped.status().as_u16()), (why.code(), status));
            let problem = mapped.problem("/", "t");
            assert_eq!((&problem["article"], &problem["retry_after_s"]), (&json!("A1.2"), &json!(2)), "{problem}");
            assert_eq!(mapped.openai("t")["error"]["notice"]["stage"], "user_input");
        }
    }

    #[test]
    fn a_missing_second_factor_says_how_to_show_it() {
        let error = ApiError::mfa_required("privileged", "/v1/auth/mfa");
        let problem = error.problem("/", "t");
        assert_eq!((&problem["code"], &problem["login"]), (&json!("mfa_required"), &json!("/v1/auth/mfa")));
        assert_eq!(problem["methods"], json!(["totp", "recovery_code"]));
        let response = error.render(Dialect::Problem, "/", "0");
        assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().contains("insufficient"));
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let error = ApiError::new(Code::Shed, "full").retry_after(Duration::from_millis(1_001));
        let response = error.render(Dialect::Problem, "/", "0");
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn openai_dialect_names_the_parameter() {
        let body = ApiError::new(Code::UnsupportedParameter, "only n = 1").param("n").openai("t");
        assert_eq!(body["error"]["param"], "n");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}
