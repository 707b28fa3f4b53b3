//! Any bytes to any route: a 4xx problem or an answer, never a 5xx, never silence.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Door;

/// One request that may be nonsense in every part.
#[derive(Debug, Clone)]
struct Odd {
    method: Method,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    keyed: bool,
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        3 => Just(Method::GET),
        4 => Just(Method::POST),
        1 => Just(Method::DELETE),
        1 => Just(Method::PUT),
        1 => Just(Method::PATCH),
        1 => Just(Method::HEAD),
        1 => Just(Method::OPTIONS),
        1 => "[A-Z]{1,12}".prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap()),
    ]
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "agents", "actors", "memory", "jobs", "events", "models", "chat", "completions", "documents", "query",
            "stats", "messages", "ask", "tools", "status", "conversations", "sage", "king", "test.counter", "sys.topic",
            "edge.idem", "edge.job", "calc.eval", "memory.search", "01890a5d-ac96-774b-bcce-b302099a8057",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9._~:@!$&'()*+,;=-]{0,20}",
        1 => vec(any::<u8>(), 0..12).prop_map(|bytes| bytes.iter().fold(String::new(), |t, b| t + &format!("%{b:02X}"))),
        1 => Just("%".to_owned()),
        1 => Just("..".to_owned()),
    ]
}

fn path(templates: Vec<String>) -> impl Strategy<Value = String> {
    let filled = (prop::sample::select(templates), vec(segment(), 3)).prop_map(|(template, fill)| {
        let mut fill = fill.into_iter();
        template.split('/').skip(1).fold(String::new(), |path, part| {
            let part = if part.starts_with('{') { fill.next().unwrap_or_default() } else { part.to_owned() };
            path + "/" + &part
        })
    });
    let free = vec(segment(), 0..6).prop_map(|parts| format!("/v1/{}", parts.join("/")));
    let query = prop_oneof![
        3 => Just(String::new()),
        1 => "[a-z]{1,8}=[a-z0-9%&=+]{0,20}".prop_map(|query| format!("?{query}")),
        1 => prop::sample::select(vec![
            "?limit=-1", "?limit=9999999999999", "?cursor=AAAA", "?topics=%00", "?wait=never", "?version=x", "?limit=%FF",
        ]).prop_map(str::to_owned),
    ];
    (prop_oneof![3 => filled, 1 => free], query).prop_map(|(path, query)| path + &query)
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec![
        "content-type",
        "accept",
        "prefer",
        "request-timeout-ms",
        "idempotency-key",
        "last-event-id",
        "traceparent",
        "x-request-id",
        "accept-encoding",
        "range",
        "if-none-match",
        "origin",
        "expect-nothing",
        "content-disposition",
    ]);
    let value = prop_oneof![
        2 => prop::sample::select(vec![
            "application/json", "text/event-stream", "multipart/form-data; boundary=x", "respond-async", "wait=0", "1", "0",
            "gzip, zstd", "00-00000000000000000000000000000000-0000000000000000-00", "text/plain", "1-1", "*/*",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..40),
    ];
    vec((name, value), 0..5)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = prop::sample::select(vec![
        r#"{"type":"Add","payload":[1]}"#,
        r#"{"message":{"Add":[1,null]}}"#,
        r#"{"type":"Begin","payload":{}}"#,
        r#"{"input":"hi"}"#,
        r#"{"input":"hi","stream":true}"#,
        r#"{"input":"","conversation":"../../x"}"#,
        r#"{"text":"tower"}"#,
        r#"{"text":"\u0000","k":4294967295}"#,
        r#"{"text":"x","collections":["", "../a"]}"#,
        r#"{"documents":[]}"#,
        r#"{"documents":[{"text":""}]}"#,
        r#"{"documents":[{"id":"","text":"x"}]}"#,
        r#"{"collection":"../x","documents":[{"text":"x"}]}"#,
        r#"{"expression":"1/0"}"#,
        r#"{"query":"x"}"#,
        r#"{"model":"sage","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"village@none","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"sage","stream":true,"messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":1,"messages":{}}"#,
        "{}",
        "[]",
        "null",
        "{\"a\":",
        "\"\\ud800\"",
        "[[[[[[[[[[",
    ]);
    prop_oneof![
        4 => json.prop_map(|text| text.as_bytes().to_vec()),
        2 => vec(any::<u8>(), 0..200),
        1 => Just(b"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.pdf\"\r\n\r\n%PDF-1.7 broken\r\n--x--\r\n".to_vec()),
        1 => (1_usize..3_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

async fn templates(door: &Door) -> Vec<String> {
    let document: Value = door.get("/openapi.json").await.json().await.unwrap();
    document["paths"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_request_gets_an_answer_or_a_4xx_problem() {
    let door = Door::open().await;
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let strategy = (method(), path(templates(&door).await), headers(), body(), prop::bool::weighted(0.9));
    let mut runner = TestRunner::default();
    for _ in 0..cases {
        let (method, path, headers, body, keyed) = strategy.new_tree(&mut runner).unwrap().current();
        let odd = Odd { method, path, headers, body, keyed };
        let Ok(url) = reqwest::Url::parse(&door.url(&odd.path)) else { continue };
        let mut request = door.client.request(odd.method.clone(), url).body(odd.body.clone());
        for (name, value) in &odd.headers {
            request = request.header(*name, value.as_slice());
        }
        if odd.keyed {
            request = request.header("x-api-key", &door.key);
        }
        let answered = tokio::time::timeout(Duration::from_secs(40), request.send()).await;
        let response = answered.unwrap_or_else(|_| panic!("silence after {odd:?}"));
        let response = response.unwrap_or_else(|error| panic!("no answer: {error:?} to {odd:?}"));
        let status = response.status().as_u16();
        assert!(status < 500, "{status} {:?} to {odd:?}", response.text().await);
        if status >= 400 && odd.method != Method::HEAD {
            let mime = response.headers()["content-type"].to_str().unwrap().to_owned();
            let body: Value = response.json().await.unwrap();
            assert!(mime == "application/problem+json" || body.get("error").is_some(), "{mime} {body} to {odd:?}");
        }
    }
}

/// Sends `bytes` and reads to the end. A client that closes its side has gone, so a whole request sent this way may be
/// dropped: that is how the door notices that nobody waits for an answer.
async fn blurt(door: &Door, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(door.edge.addr).await.unwrap();
    // A server that has already refused may close while we still write.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await.expect("an end");
    answer
}

/// Sends `bytes` and reads the head of the answer.
async fn exchange(door: &Door, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(door.edge.addr).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let head = async {
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if !matches!(socket.read_buf(&mut answer).await, Ok(read) if read > 0) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), head).await.expect("an answer or an end");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_socket_is_answered_or_closed_and_harms_nobody() {
    let door = Door::open().await;
    let mut runner = TestRunner::default();
    let garbage = vec(any::<u8>(), 1..300);
    for _ in 0..200 {
        let answer = blurt(&door, &garbage.new_tree(&mut runner).unwrap().current()).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{:?}", String::from_utf8_lossy(&answer));
    }
    let wrong: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"GET /v1/agents HTTP/1.1\r\nHost: evil\r\n\r\n", "421"),
        (b"NONSENSE\r\n\r\n", "400"),
        (b"POST /v1/memory/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", "400"),
        (b"GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "401"),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
    ];
    for (bytes, status) in wrong {
        let answer = exchange(&door, bytes).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text} to {:?}", String::from_utf8_lossy(bytes));
    }
    let mut huge = b"GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    huge.extend(std::iter::repeat_n(b'a', 200_000));
    let answer = exchange(&door, &huge).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(door.get("/v1/agents").await.status(), 200, "the door is still open");
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_cut() {
    let door = Door::with(|config| config.header_timeout = aivillage_runtime::config::Period::from_millis(200)).await;
    let mut socket = TcpStream::connect(door.edge.addr).await.unwrap();
    socket.write_all(b"GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    let mut socket = TcpStream::connect(door.edge.addr).await.unwrap();
    let head = format!(
        "POST /v1/memory/query HTTP/1.1\r\nHost: localhost\r\nx-api-key: {}\r\nContent-Length: 100\r\n\r\n{{",
        door.key
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_requests_are_shed_at_once_and_the_rest_is_served() {
    let door = Door::with(|config| {
        config.max_in_flight = 1;
        config.max_queued = 1;
        config.queue_wait = aivillage_runtime::config::Period::from_millis(100);
    })
    .await;
    let path = "/v1/actors/test.counter/a/messages";
    let held = door.request(Method::POST, path).json(&serde_json::json!({"type": "Wait"}));
    let held = door.village.task("held", async move { held.send().await.unwrap().status().as_u16() });
    while door.counter.waiting.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let refused = door.get("/v1/agents").await;
    assert_eq!(refused.status(), 503);
    let retry: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&retry));
    assert_eq!(door.client.get(door.url("/healthz")).send().await.unwrap().status(), 200, "health is never shed");
    door.counter.go.notify_one();
    assert_eq!(held.await.unwrap(), 200);
    assert_eq!(door.get("/v1/agents").await.status(), 200);
}
