//! What does not pass the gate, as a client sees it.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Reader;
use crate::harness::{Door, problem};

const THREAT: &str = "Hand over the money or I will kill you and your family tonight, you have been warned.";
const HARMLESS: &str = "The kettle is descaled with vinegar every second month, and the filter is rinsed. ";
const CARD: &str = "my card is 4111 1111 1111 1111";

async fn ask(door: &Door, input: &str) -> (u16, Value) {
    let response = door.post("/v1/agents/sage/ask", &json!({ "input": input })).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn grave_harm_is_451_with_article_and_notice_on_every_surface() {
    let (door, home) = Door::logged().await;
    let (status, body) = ask(&door, THREAT).await;
    assert_eq!((status, &body["code"]), (451, &json!("moderated")), "{body}");
    assert!(body["article"].as_str().unwrap().starts_with("A1"), "{body}");
    assert_eq!(body["notice"]["stage"], "user_input");
    assert!(body["notice"]["appeal_until"].is_u64() && body["notice"]["rule"].is_string(), "{body}");
    let case = format!("/v1/cases/{}", body["notice"]["case"].as_str().unwrap());
    let view: Value = door.get(&case).await.json().await.unwrap();
    assert_eq!((&view["level"], &view["article"]), (&body["notice"]["level"], &body["article"]), "{view}");

    let chat = json!({ "model": "sage", "messages": [{ "role": "user", "content": THREAT }] });
    // By one after the other: whoever has sent this sends nothing more for a day.
    let by = async |name: &str, path: &str, body: Value| {
        let (_, key) = door.account(name, &["user"]).await;
        door.post_by(&key, path, body).await
    };
    let response = by("ann", "/v1/chat/completions", chat).await;
    assert_eq!(response.status(), 451);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "moderated");
    assert!(body["error"]["notice"]["article"].is_string(), "{body}");

    let question = by("bob", "/v1/memory/query", json!({ "text": THREAT })).await;
    assert_eq!(problem(question).await, (451, "moderated".into()));
    let message = json!({ "type": "Ask", "payload": { "input": THREAT } });
    let sent = by("cyd", "/v1/actors/agent/local:sage/messages", message).await;
    assert_eq!(problem(sent).await, (451, "moderated".into()));

    let kept = home.log().entries(None, 100).await.unwrap().entries;
    let text: String = kept.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect();
    assert!(text.contains("mod.verdict") && !text.contains("money"), "{text}");
}

#[tokio::test]
async fn a_document_that_may_not_be_kept_is_refused_and_the_others_are_kept() {
    let door = Door::open().await;
    let put = |documents: Value| json!({ "documents": documents });
    let bad = json!({ "id": "bad", "text": THREAT });
    let (_, ann) = door.account("ann", &["user"]).await;
    let refused = door.post_by(&ann, "/v1/memory/documents", put(json!([bad]))).await;
    assert_eq!(problem(refused).await, (451, "moderated".into()));
    let both = put(json!([bad, { "id": "good", "title": "Cards", "text": format!("Ann says {CARD}.") }]));
    let report: Value = door.post("/v1/memory/documents", &both).await.json().await.unwrap();
    assert_eq!(report["results"][0]["error"]["code"], "moderated", "{report}");
    assert_eq!(report["results"][1]["status"], "created", "{report}");
    let view: Value = door.get("/v1/memory/documents/good").await.json().await.unwrap();
    assert_eq!(view["text"], "Ann says my card is [PAN_1].");
}

#[tokio::test]
async fn data_that_a_stage_holds_back_is_422() {
    let door = Door::configured("governance.dlp.user_input = 'block'").await;
    let (status, body) = ask(&door, CARD).await;
    assert_eq!((status, &body["code"], &body["article"]), (422, &json!("data_protected"), &json!("A4.1")));
    assert_eq!(body["notice"]["data"], json!(["PAN"]));
}

#[tokio::test]
async fn too_many_writes_are_429_and_name_their_limit() {
    let door = Door::configured("[governance.defence]\nprincipal = '2/min'\nexempt = []").await;
    for _ in 0..2 {
        assert_eq!(ask(&door, "hello").await.0, 200);
    }
    let response = door.post("/v1/agents/sage/ask", &json!({ "input": "hello" })).await;
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (&body["status"], &body["code"], &body["limit"]),
        (&json!(429), &json!("rate_limited"), &json!("principal"))
    );
    assert!(body["detail"].as_str().unwrap().contains("governance.defence.principal"), "{body}");
    assert_eq!(door.get("/v1/agents").await.status(), 200, "reading is not counted by it");
}

#[tokio::test]
async fn with_a_dead_log_nothing_passes_the_gate() {
    let (door, home) = Door::logged().await;
    home.log().close().await.unwrap();
    let response = door.post("/v1/memory/query", &json!({ "text": "hello" })).await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(problem(response).await, (503, "governance_unavailable".into()));
}

/// A model that streams `text` in pieces of words.
async fn model(text: String) -> String {
    let answer = move || {
        let chunks = text.split_inclusive(' ').map(|piece| {
            let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
                "choices": [{ "index": 0, "delta": { "content": piece }, "finish_reason": null }] });
            format!("data: {chunk}\n\n")
        });
        let end = json!({ "id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
            "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
        let body = chunks.collect::<String>() + &format!("data: {end}\n\ndata: [DONE]\n\n");
        async move { ([("content-type", "text/event-stream")], body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/chat/completions", post(answer));
    #[allow(clippy::disallowed_methods, reason = "a server of the test, not of the product")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn a_stream_is_stopped_in_the_middle_with_the_notice_and_nothing_after_it() {
    let url = model(format!("{}{THREAT}{}", HARMLESS.repeat(8), HARMLESS.repeat(8))).await;
    let config = format!("[[agents.provider]]\nid = 'openai:main'\nbase_url = '{url}'\nmodel = 'm'\ntools = true");
    let door = Door::configured(&config).await;
    for (path, body) in [
        ("/v1/agents/sage/ask", json!({ "input": "How is it done?", "provider": "openai:main", "stream": true })),
        (
            "/v1/chat/completions",
            json!({ "model": "sage@openai:main", "stream": true, "messages": [{ "role": "user", "content": "How is it done?" }] }),
        ),
    ] {
        let response = door.request(Method::POST, path).json(&body).send().await.unwrap();
        let mut reader = Reader::new(response);
        let mut seen = Vec::new();
        while let Some(event) = tokio::time::timeout(Duration::from_secs(20), reader.next()).await.unwrap() {
            seen.push(event);
        }
        let all: String = seen.iter().map(|event| event.data.as_str()).collect();
        assert!(all.contains("kettle") && !all.contains("money") && !all.contains("[DONE]"), "{path} {all}");
        let last = seen.last().unwrap();
        assert_eq!(last.name, "moderation", "{path} {seen:#?}");
        let told: Value = serde_json::from_str(&last.data).unwrap();
        let notice = told.get("notice").unwrap_or(&told["error"]["notice"]);
        assert!(notice["article"].is_string() && notice["stage"] == "agent_output", "{told}");
    }
}

#[tokio::test]
async fn a_job_goes_on_behind_a_document_that_may_not_be_kept() {
    let door = Door::open().await;
    let body = json!({ "documents": [{ "id": "bad", "text": THREAT }] });
    let request = door.request(Method::POST, "/v1/memory/documents").header("prefer", "respond-async");
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let job: Value = response.json().await.unwrap();
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let done = crate::harness::eventually("the end of a job", async || {
        let job: Value = door.get(&path).await.json().await.ok()?;
        (!job["result"].is_null()).then_some(job)
    })
    .await;
    assert_eq!((&done["result"]["failed"], &done["result"]["created"]), (&json!(1), &json!(0)), "{done}");
    assert_eq!(done["result"]["errors"][0]["error"]["code"], "moderated", "{done}");
}
