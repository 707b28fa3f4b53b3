//! Agents and the `OpenAI` surface.

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Reader;
use crate::harness::{Door, problem};

async fn with_document() -> Door {
    let door = Door::open().await;
    let body = json!({"documents": [{
        "id": "light", "title": "Lighthouse",
        "text": "The lighthouse of Alexandria was about one hundred metres tall. It was built under Ptolemy the Second.",
    }]});
    let response = door.post("/v1/memory/documents?wait=searchable", &body).await;
    assert_eq!(response.status(), 200);
    door
}

#[tokio::test]
async fn the_roster_is_paged_and_cursors_cannot_be_forged() {
    let door = Door::open().await;
    let all: Value = door.get("/v1/agents").await.json().await.unwrap();
    let ids: Vec<_> =
        all["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.len() >= 5 && ids.is_sorted(), "{ids:?}");
    let mut seen = Vec::new();
    let mut path = "/v1/agents?limit=2".to_owned();
    loop {
        let page: Value = door.get(&path).await.json().await.unwrap();
        seen.extend(page["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        let tampered = format!("{}{}", if cursor.starts_with('A') { "B" } else { "A" }, &cursor[1..]);
        let refused = door.get(&format!("/v1/agents?limit=2&cursor={tampered}")).await;
        assert_eq!(problem(refused).await, (400, "bad_cursor".into()));
        let other = door.get(&format!("/v1/agents?category=x&cursor={cursor}")).await;
        assert_eq!(problem(other).await, (400, "bad_cursor".into()));
        path = format!("/v1/agents?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids);
    assert_eq!(door.get("/v1/agents/sage").await.status(), 200);
    assert_eq!(problem(door.get("/v1/agents/nobody").await).await, (404, "agent_unknown".into()));
    assert_eq!(problem(door.get("/v1/agents?limit=0").await).await, (400, "bad_request".into()));
}

#[tokio::test]
async fn an_agent_answers_whole_and_as_a_stream() {
    let door = with_document().await;
    let question = json!({"input": "How tall was the lighthouse of Alexandria?"});
    let response = door.post("/v1/agents/sage/ask", &question).await;
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    for field in ["answer", "citations", "steps", "provider", "answerable", "conversation"] {
        assert!(answer.get(field).is_some(), "{field} in {answer}");
    }
    assert_eq!(answer["citations"][0]["doc"], "light", "{answer}");
    let request = door.request(Method::POST, "/v1/agents/sage/ask").header("accept", "text/event-stream");
    let mut reader = Reader::new(request.json(&question).send().await.unwrap());
    let mut last = None;
    while let Some(seen) = reader.next().await {
        last = Some(seen);
    }
    let last = last.unwrap();
    assert_eq!(last.name, "final");
    assert_eq!(serde_json::from_str::<Value>(&last.data).unwrap()["answer"], answer["answer"]);
    let unknown = door.post("/v1/agents/nobody/ask", &json!({"input": "x", "stream": true})).await;
    assert_eq!(problem(unknown).await.0, 404);
}

#[tokio::test]
async fn conversations_are_kept() {
    let door = with_document().await;
    let answer: Value =
        door.post("/v1/agents/sage/ask", &json!({"input": "How tall was the lighthouse?"})).await.json().await.unwrap();
    let path = format!("/v1/conversations/{}", answer["conversation"].as_str().unwrap());
    let history: Value = door.get(&path).await.json().await.unwrap();
    assert!(!history["data"].as_array().unwrap().is_empty(), "{history}");
}

#[tokio::test]
async fn tools_are_called_by_query_and_by_body() {
    let door = Door::open().await;
    let by_query = door.get("/v1/agents/oracle/tools/calc.eval?expression=6*7").await;
    let by_body = door.post("/v1/agents/oracle/tools/calc.eval", &json!({"expression": "6*7"})).await;
    assert_eq!((by_query.status().as_u16(), by_body.status().as_u16()), (200, 200));
    let (a, b): (Value, Value) = (by_query.json().await.unwrap(), by_body.json().await.unwrap());
    assert_eq!(a["result"], b["result"]);
    assert!(a["result"].to_string().contains("42"), "{a}");
    assert_eq!(
        problem(door.post("/v1/agents/sage/tools/calc.eval", &json!({})).await).await,
        (403, "tool_denied".into())
    );
}

#[tokio::test]
async fn a_chat_is_completed_in_the_openai_shape() {
    let door = with_document().await;
    let models: Value = door.get("/v1/models").await.json().await.unwrap();
    assert_eq!(models["object"], "list");
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"village") && ids.contains(&"sage"), "{ids:?}");
    let body = json!({"model": "sage", "messages": [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "How tall was the lighthouse of Alexandria?"},
    ]});
    let completion: Value = door.post("/v1/chat/completions", &body).await.json().await.unwrap();
    assert_eq!(completion["object"], "chat.completion", "{completion}");
    let choice = &completion["choices"][0];
    assert_eq!(
        (choice["finish_reason"].as_str(), choice["message"]["role"].as_str()),
        (Some("stop"), Some("assistant"))
    );
    assert_eq!(completion["village"]["provider"], "extractive");
    assert!(completion["usage"]["total_tokens"].is_u64());
    assert_eq!(choice["message"]["annotations"][0]["type"], "url_citation", "{completion}");
    let mut stream_body = body.clone();
    stream_body["stream"] = json!(true);
    stream_body["stream_options"] = json!({"include_usage": true});
    let mut reader = Reader::new(door.post("/v1/chat/completions", &stream_body).await);
    let mut text = String::new();
    let mut all = Vec::new();
    while let Some(seen) = reader.next().await {
        if let Ok(chunk) = serde_json::from_str::<Value>(&seen.data) {
            text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or(""));
        }
        all.push(seen.data);
    }
    assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    assert_eq!(all.last().unwrap(), "[DONE]");
    let first: Value = serde_json::from_str(&all[0]).unwrap();
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    let usage: Value = serde_json::from_str(&all[all.len() - 2]).unwrap();
    assert_eq!((usage["choices"].as_array().unwrap().len(), usage["usage"]["total_tokens"].is_u64()), (0, true));
}

#[tokio::test]
async fn chat_errors_speak_the_openai_dialect() {
    let door = Door::open().await;
    let chat = |extra: Value| {
        let mut body = json!({"model": "sage", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        door.request(Method::POST, "/v1/chat/completions").json(&body).send()
    };
    let cases = [
        (json!({"model": "nobody"}), 404, "model_not_found", "model"),
        (json!({"n": 2}), 400, "unsupported_parameter", "n"),
        (json!({"logprobs": true}), 400, "unsupported_parameter", "logprobs"),
        (json!({"messages": []}), 400, "bad_request", "messages"),
    ];
    for (extra, status, code, param) in cases {
        let response = chat(extra).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (body["error"]["code"].as_str(), body["error"]["param"].as_str()),
            (Some(code), Some(param)),
            "{body}"
        );
    }
    let response = door.client.get(door.url("/v1/models")).bearer_auth("sk-wrong").send().await.unwrap();
    assert_eq!(response.status(), 401);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "invalid_api_key");
}
