//! A model behind any endpoint that speaks the `OpenAI` chat protocol: vLLM, llama.cpp, Ollama, a cloud.
//!
//! Answers are streamed. Before the first token a request is repeated up to twice on 429, on 5xx and on a broken connection,
//! waiting as `Retry-After` says; after it nothing is repeated, and a stream that breaks ends in a cut answer.

use std::time::Duration;

use aivillage_runtime::AppError;
use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::config::ProviderConfig;
use crate::wire::openai::{
    ChatChunk, ChatMessage, ChatRequest, ChatResponse, Delta, ErrorBody, StreamOptions, ToolCall, ToolSpec, Usage,
};

/// Repeats of a request after its first try.
const RETRIES: u32 = 2;
/// Longest wait that a server may ask for; beyond it the next provider is the better answer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);
/// First wait when the server names none; doubled each time.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest answer, bytes. A model that repeats itself forever is cut here.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Most tool calls read from one generation.
const MAX_CALLS: usize = 32;
/// Longest part of a server's error text that is passed on.
const MAX_ERROR_CHARS: usize = 300;

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenRequest {
    /// The dialogue.
    pub messages: Vec<ChatMessage>,
    /// Functions it may call.
    pub tools: Vec<ToolSpec>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Topic on which pieces of text are published as they come.
    pub stream_to: Option<String>,
}

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// The calls it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Token counts, if the server told them.
    pub usage: Usage,
    /// Whether the stream broke after its first token.
    pub cut: bool,
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The provider does not answer, or answers nonsense; another may.
    #[error("{provider} is unavailable: {detail}")]
    Unavailable {
        /// The provider.
        provider: String,
        /// What was seen.
        detail: String,
    },
    /// The provider refuses this request: a wrong key, a wrong model, a wrong field.
    #[error("{provider} refused the request with status {status}: {detail}")]
    Refused {
        /// The provider.
        provider: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The API key cannot be read.
    #[error("{provider}: {detail}")]
    Key {
        /// The provider.
        provider: String,
        /// Which file or variable, and why.
        detail: String,
    },
}

impl From<ModelError> for AppError {
    fn from(error: ModelError) -> Self {
        let code = if matches!(error, ModelError::Refused { .. }) { "model_refused" } else { "model_unavailable" };
        Self::new(code, error.to_string())
    }
}

/// A failed try and whether another may help.
struct Failed {
    error: ModelError,
    again: Option<Duration>,
}

/// A client of one endpoint.
#[derive(Debug)]
pub struct OpenAi {
    config: ProviderConfig,
    client: reqwest::Client,
    key: Option<SecretString>,
}

impl OpenAi {
    /// Makes a client; reads the key from its file or variable.
    ///
    /// # Errors
    /// `Key` when it is named but cannot be read, `Unavailable` when the TLS back end cannot start.
    pub fn open(config: ProviderConfig) -> Result<Self, ModelError> {
        let key = read_key(&config)?;
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ModelError::Unavailable { provider: config.id.clone(), detail: error.to_string() })?;
        Ok(Self { config, client, key })
    }

    /// Asks the model; pieces of text go to `deltas` as they come.
    ///
    /// # Errors
    /// See [`ModelError`]; no text has been sent to `deltas` then.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, which makes servers stop generating.
    pub async fn generate(
        &self,
        request: &GenRequest,
        deltas: &mpsc::Sender<String>,
    ) -> Result<Generation, ModelError> {
        let mut attempt = 0;
        loop {
            match self.attempt(request, deltas).await {
                Ok(generation) => return Ok(generation),
                Err(Failed { error, again: None }) => return Err(error),
                Err(Failed { error, .. }) if attempt >= RETRIES => return Err(error),
                Err(Failed { error, again: Some(wait) }) => {
                    tracing::warn!(provider = self.config.id, attempt, %error, "model request is repeated");
                    tokio::time::sleep(wait.max(BACKOFF * 2_u32.pow(attempt))).await;
                }
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, request: &GenRequest, deltas: &mpsc::Sender<String>) -> Result<Generation, Failed> {
        let url = format!("{}/chat/completions", self.config.base_url.trim_end_matches('/'));
        let mut post = self.client.post(url).json(&self.body(request));
        if let Some(key) = &self.key {
            post = post.bearer_auth(key.expose_secret());
        }
        let limit = self.config.timeout.get();
        let sent = tokio::time::timeout(limit, post.send()).await;
        let response = sent.map_err(|_| self.flaky("no answer in time"))?.map_err(|error| self.flaky(plain(&error)))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/json") {
            return self.whole(response, deltas).await;
        }
        self.streamed(response, deltas).await
    }

    fn body(&self, request: &GenRequest) -> ChatRequest {
        ChatRequest {
            model: self.config.model.clone(),
            messages: request.messages.clone(),
            stream: true,
            stream_options: Some(StreamOptions { include_usage: true }),
            tools: request.tools.clone(),
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            ..ChatRequest::default()
        }
    }

    /// A server that does not stream sends the answer at once.
    async fn whole(&self, response: reqwest::Response, deltas: &mpsc::Sender<String>) -> Result<Generation, Failed> {
        let text = tokio::time::timeout(self.config.timeout.get(), limited(response)).await;
        let text = text.map_err(|_| self.flaky("the answer broke off"))?.map_err(|detail| self.flaky(detail))?;
        let answer: ChatResponse = serde_json::from_str(&text)
            .map_err(|error| self.flaky(format!("the answer is not a chat completion: {error}")))?;
        if let Some(error) = answer.error {
            return Err(self.flaky(clip(&error.message)));
        }
        let Some(choice) = answer.choices.into_iter().next() else {
            return Err(self.flaky("the answer has no choice"));
        };
        let text = choice.message.plain();
        if !text.is_empty() {
            // Nobody listening is no failure: the whole text is returned too.
            let _ = deltas.send(text.clone()).await;
        }
        let calls = choice.message.tool_calls.into_iter().take(MAX_CALLS).collect();
        Ok(Generation { text, tool_calls: calls, usage: answer.usage.unwrap_or_default(), cut: false })
    }

    async fn streamed(&self, response: reqwest::Response, deltas: &mpsc::Sender<String>) -> Result<Generation, Failed> {
        let mut events = response.bytes_stream().eventsource();
        let mut partial = Partial::default();
        let broken = loop {
            let event = match tokio::time::timeout(self.config.timeout.get(), events.next()).await {
                Err(_) => break Some("the stream stalled".to_owned()),
                Ok(None) if partial.finished => break None,
                Ok(None) => break Some("the stream ended early".to_owned()),
                Ok(Some(Err(error))) => break Some(format!("the stream broke: {error}")),
                Ok(Some(Ok(event))) => event,
            };
            if event.data.trim() == "[DONE]" {
                break None;
            }
            match partial.take(&event.data) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => drop(deltas.send(text).await),
                Err(detail) => break Some(detail),
            }
        };
        match broken {
            None if partial.is_empty() => Err(self.flaky("the answer is empty")),
            None => Ok(partial.done(false)),
            // Pieces of a tool call are of no use; text is.
            Some(detail) if partial.text.is_empty() => Err(self.flaky(detail)),
            Some(detail) => {
                tracing::warn!(provider = self.config.id, detail, "model stream was cut");
                partial.calls.clear();
                Ok(partial.done(true))
            }
        }
    }

    async fn refused(&self, response: reqwest::Response) -> Failed {
        let status = response.status();
        let wait = retry_after(response.headers());
        let text = limited(response).await.unwrap_or_default();
        let said = serde_json::from_str::<ErrorBody>(&text).map(|body| body.error.message).unwrap_or_default();
        let detail = clip(if said.is_empty() { &text } else { &said });
        let provider = self.config.id.clone();
        if status.as_u16() == 429 || status.is_server_error() {
            let error = ModelError::Unavailable { provider, detail: format!("status {}: {detail}", status.as_u16()) };
            return Failed { error, again: Some(wait.unwrap_or_default()).filter(|wait| *wait <= MAX_RETRY_AFTER) };
        }
        Failed { error: ModelError::Refused { provider, status: status.as_u16(), detail }, again: None }
    }

    fn flaky(&self, detail: impl Into<String>) -> Failed {
        let error = ModelError::Unavailable { provider: self.config.id.clone(), detail: detail.into() };
        Failed { error, again: Some(Duration::ZERO) }
    }
}

/// What has come of a streamed answer.
#[derive(Debug, Default)]
struct Partial {
    text: String,
    calls: Vec<ToolCall>,
    usage: Usage,
    finished: bool,
}

impl Partial {
    /// Adds one event; returns its new text.
    fn take(&mut self, data: &str) -> Result<String, String> {
        let chunk: ChatChunk =
            serde_json::from_str(data).map_err(|error| format!("an event is not a chunk: {error}"))?;
        if let Some(error) = chunk.error {
            return Err(clip(&error.message));
        }
        self.usage = chunk.usage.unwrap_or(self.usage);
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(String::new()) };
        self.finished |= choice.finish_reason.is_some_and(|reason| !reason.is_empty());
        self.call_pieces(&choice.delta)?;
        let text = choice.delta.content.unwrap_or_default();
        if self.text.len() + text.len() > MAX_ANSWER_BYTES {
            return Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
        }
        self.text.push_str(&text);
        Ok(text)
    }

    /// Joins pieces of calls: by index, or by id where a server leaves the index out.
    fn call_pieces(&mut self, delta: &Delta) -> Result<(), String> {
        for piece in &delta.tool_calls {
            let known = self.calls.iter().position(|call| match (piece.index, &piece.id) {
                (Some(index), _) => call.index == Some(index),
                (None, Some(id)) => call.id.as_ref() == Some(id),
                (None, None) => false,
            });
            let continues = piece.index.is_none() && piece.id.is_none() && !self.calls.is_empty();
            let at = known.or_else(|| continues.then(|| self.calls.len() - 1));
            let Some(call) = at.and_then(|at| self.calls.get_mut(at)) else {
                if self.calls.len() >= MAX_CALLS {
                    return Err(format!("more than {MAX_CALLS} tool calls"));
                }
                self.calls.push(piece.clone());
                continue;
            };
            call.function.name.push_str(&piece.function.name);
            call.function.arguments.push_str(&piece.function.arguments);
            if call.function.arguments.len() > MAX_ANSWER_BYTES {
                return Err(format!("arguments longer than {MAX_ANSWER_BYTES} bytes"));
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty()
    }

    fn done(self, cut: bool) -> Generation {
        Generation { text: self.text, tool_calls: self.calls, usage: self.usage, cut }
    }
}

fn read_key(config: &ProviderConfig) -> Result<Option<SecretString>, ModelError> {
    let failed = |detail| ModelError::Key { provider: config.id.clone(), detail };
    if let Some(path) = &config.api_key_file {
        let key = std::fs::read_to_string(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        return Ok(Some(SecretString::from(key.trim().to_owned())));
    }
    let Some(name) = &config.api_key_env else { return Ok(None) };
    let key = std::env::var(name).map_err(|error| failed(format!("environment variable {name}: {error}")))?;
    Ok(Some(SecretString::from(key)))
}

async fn limited(mut response: reqwest::Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| plain(&error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| "the answer is not UTF-8".to_owned())
}

/// `Retry-After` in seconds; the date form is rare among model servers and read as no wish.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// The error without the address, which may hold a key in its query.
fn plain(error: &reqwest::Error) -> String {
    let what = match () {
        () if error.is_connect() => "cannot connect",
        () if error.is_timeout() => "no answer in time",
        () => "the connection broke",
    };
    what.to_owned()
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::http::{HeaderMap as Headers, StatusCode};
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use serde_json::json;

    use super::*;

    /// A server on the loopback interface that answers the n-th request with the n-th answer, the last one for ever.
    struct Stub {
        url: String,
        requests: Arc<AtomicUsize>,
    }

    type Answer = fn() -> Response;

    impl Stub {
        async fn start(answers: Vec<Answer>) -> Self {
            let requests = Arc::new(AtomicUsize::new(0));
            let count = requests.clone();
            let handler = move |headers: Headers, _: String| {
                let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let authorized = headers.get("authorization").is_some_and(|key| key == "Bearer secret-key");
                let answer = if authorized { answers[at]() } else { StatusCode::UNAUTHORIZED.into_response() };
                std::future::ready(answer)
            };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/v1", listener.local_addr().unwrap());
            let router = Router::new().route("/v1/chat/completions", post(handler));
            #[allow(clippy::disallowed_methods, reason = "a server of the test, not of the product")]
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            Self { url, requests }
        }

        async fn ask(&self) -> (Result<Generation, ModelError>, String) {
            self.ask_with(Duration::from_secs(20)).await
        }

        async fn ask_with(&self, timeout: Duration) -> (Result<Generation, ModelError>, String) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("key");
            std::fs::write(&file, "secret-key\n").unwrap();
            let config = ProviderConfig {
                base_url: self.url.clone(),
                model: "m".into(),
                api_key_file: Some(file),
                timeout: timeout.into(),
                ..ProviderConfig::default()
            };
            let provider = OpenAi::open(config).unwrap();
            assert!(!format!("{provider:?}").contains("secret-key"));
            let (tx, mut rx) = mpsc::channel(64);
            let request = GenRequest::default();
            let (result, streamed) = tokio::join!(
                async {
                    let result = provider.generate(&request, &tx).await;
                    drop(tx);
                    result
                },
                async {
                    let mut all = String::new();
                    while let Some(piece) = rx.recv().await {
                        all.push_str(&piece);
                    }
                    all
                }
            );
            (result, streamed)
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::SeqCst)
        }
    }

    fn events(lines: &[serde_json::Value], done: bool) -> Response {
        let mut body: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
        if done {
            body.push_str("data: [DONE]\n\n");
        }
        ([("content-type", "text/event-stream")], body).into_response()
    }

    fn text(piece: &str) -> serde_json::Value {
        json!({ "choices": [{ "delta": { "content": piece } }] })
    }

    fn hello() -> Response {
        let usage =
            json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } });
        events(&[text("hel"), text("lo"), usage], true)
    }

    #[tokio::test]
    async fn a_stream_is_joined_and_passed_on() {
        let (result, streamed) = Stub::start(vec![hello]).await.ask().await;
        let generation = result.unwrap();
        assert_eq!((generation.text.as_str(), streamed.as_str(), generation.cut), ("hello", "hello", false));
        assert_eq!(generation.usage.total_tokens, 5);
    }

    #[tokio::test]
    async fn tool_calls_in_pieces_are_joined() {
        let stub = Stub::start(vec![|| {
            let piece = |call: serde_json::Value| json!({ "choices": [{ "delta": { "tool_calls": [call] }, "finish_reason": "" }] });
            events(
                &[
                    piece(json!({ "index": 0, "id": "a", "function": { "name": "calc_eval", "arguments": "{\"expr" } })),
                    piece(json!({ "index": 0, "function": { "arguments": "ession\":\"1\"}" } })),
                    piece(json!({ "index": 1, "id": "b", "function": { "name": "time_now", "arguments": {} } })),
                ],
                true,
            )
        }])
        .await;
        let calls = stub.ask().await.0.unwrap().tool_calls;
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[0].function.arguments, "{\"expression\":\"1\"}");
        assert_eq!((calls[1].function.name.as_str(), calls[1].function.arguments.as_str()), ("time_now", "{}"));
    }

    #[tokio::test]
    async fn too_many_requests_then_an_answer() {
        let stub =
            Stub::start(vec![|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response(), hello]).await;
        assert_eq!(stub.ask().await.0.unwrap().text, "hello");
        assert_eq!(stub.requests(), 2);
    }

    #[tokio::test]
    async fn a_long_retry_after_is_not_waited_for() {
        let stub =
            Stub::start(vec![|| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")]).into_response()]).await;
        assert!(matches!(stub.ask().await.0, Err(ModelError::Unavailable { .. })));
        assert_eq!(stub.requests(), 1);
    }

    #[tokio::test]
    async fn server_errors_are_tried_three_times() {
        let stub = Stub::start(vec![|| (StatusCode::INTERNAL_SERVER_ERROR, "boom").into_response()]).await;
        let error = stub.ask().await.0.unwrap_err();
        assert_eq!(error.to_string(), "openai:main is unavailable: status 500: boom");
        assert_eq!(stub.requests(), 3);
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_says_why() {
        let stub = Stub::start(vec![|| {
            (StatusCode::BAD_REQUEST, axum::Json(json!({ "error": { "message": "no such model", "code": 7 } })))
                .into_response()
        }])
        .await;
        let error = stub.ask().await.0.unwrap_err();
        assert_eq!(
            error,
            ModelError::Refused { provider: "openai:main".into(), status: 400, detail: "no such model".into() }
        );
        assert_eq!(stub.requests(), 1);
    }

    #[tokio::test]
    async fn a_cut_stream_gives_what_had_come() {
        let stub = Stub::start(vec![|| events(&[text("half an ans")], false)]).await;
        let generation = stub.ask().await.0.unwrap();
        assert!(generation.cut);
        assert_eq!((generation.text.as_str(), stub.requests()), ("half an ans", 1));
    }

    #[tokio::test]
    async fn a_stream_that_breaks_before_its_first_token_is_repeated() {
        let stub = Stub::start(vec![|| events(&[], false), || events(&[json!("not a chunk")], false), hello]).await;
        assert_eq!(stub.ask().await.0.unwrap().text, "hello");
        assert_eq!(stub.requests(), 3);
    }

    #[tokio::test]
    async fn malformed_events_after_text_cut_the_answer() {
        let stub = Stub::start(vec![|| {
            ([("content-type", "text/event-stream")], format!("data: {}\n\ndata: {{oops\n\n", text("ok")))
                .into_response()
        }])
        .await;
        let generation = stub.ask().await.0.unwrap();
        assert!(generation.cut && generation.text == "ok");
    }

    #[tokio::test]
    async fn an_error_inside_a_stream_is_an_error() {
        let stub = Stub::start(vec![|| events(&[json!({ "error": { "message": "out of memory" } })], false)]).await;
        assert!(stub.ask().await.0.unwrap_err().to_string().contains("out of memory"));
    }

    #[tokio::test]
    async fn a_stalled_stream_is_given_up() {
        let stub = Stub::start(vec![|| {
            let first = futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(format!(
                "data: {}\n\n",
                text("slow")
            ))));
            let body = Body::from_stream(first.chain(futures::stream::pending()));
            ([("content-type", "text/event-stream")], body).into_response()
        }])
        .await;
        let generation = stub.ask_with(Duration::from_millis(200)).await.0.unwrap();
        assert!(generation.cut && generation.text == "slow");
    }

    #[tokio::test]
    async fn a_server_that_does_not_stream_is_understood() {
        let stub = Stub::start(vec![|| {
            axum::Json(json!({ "choices": [{ "message": { "content": "whole", "tool_calls": null } }] }))
                .into_response()
        }])
        .await;
        let (result, streamed) = stub.ask().await;
        assert_eq!((result.unwrap().text.as_str(), streamed.as_str()), ("whole", "whole"));
    }

    #[tokio::test]
    async fn nobody_listening_is_unavailable() {
        let config = ProviderConfig { base_url: "http://127.0.0.1:1/v1".into(), ..ProviderConfig::default() };
        let (tx, _rx) = mpsc::channel(1);
        let error = OpenAi::open(config).unwrap().generate(&GenRequest::default(), &tx).await.unwrap_err();
        assert_eq!(error.to_string(), "openai:main is unavailable: cannot connect");
    }

    #[test]
    fn a_missing_key_names_its_place() {
        let config = ProviderConfig { api_key_file: Some("/nonexistent/key".into()), ..ProviderConfig::default() };
        assert!(OpenAi::open(config).unwrap_err().to_string().contains("/nonexistent/key"));
        let config = ProviderConfig { api_key_env: Some("AIVILLAGE_NO_SUCH_KEY".into()), ..ProviderConfig::default() };
        assert!(OpenAi::open(config).unwrap_err().to_string().contains("AIVILLAGE_NO_SUCH_KEY"));
    }
}
