//! An OpenAI-compatible endpoint on the loopback interface, whose answers the test decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) struct Stub {
    pub url: String,
}

/// Starts a server that answers the n-th request with `answer(body, n)`.
pub(crate) async fn start(answer: impl Fn(&Value, usize) -> Value + Send + Sync + 'static) -> Stub {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(answer);
    let handler = move |Json(body): Json<Value>| {
        let reply = answer(&body, count.fetch_add(1, Ordering::SeqCst));
        async move { Json(reply) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/chat/completions", post(handler));
    #[allow(clippy::disallowed_methods, reason = "a server of the test, not of the product")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Stub { url }
}

/// An answer in words.
pub(crate) fn text(content: &str) -> Value {
    json!({ "choices": [{ "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 } })
}

/// A call of a function.
pub(crate) fn call(name: &str, arguments: &str) -> Value {
    json!({ "choices": [{ "message": { "role": "assistant", "content": null, "tool_calls": [
        { "id": "c", "type": "function", "function": { "name": name, "arguments": arguments } }] }, "finish_reason": "tool_calls" }] })
}
