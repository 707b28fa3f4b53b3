//! Generic messages to actors, and the lists of what lives here.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, problem};

const MESSAGES: &str = "/v1/actors/test.counter/a/messages";

#[tokio::test]
async fn a_message_is_sent_by_name_and_answered() {
    let door = Door::open().await;
    for (body, reply) in [
        (json!({"type": "Add", "payload": [2]}), 2),
        (json!({"type": "Add", "payload": 3, "mode": "call"}), 5),
        (json!({"message": {"Add": [4, null]}, "mode": "ask", "timeout_ms": 5_000}), 9),
    ] {
        let response = door.post(MESSAGES, &body).await;
        assert_eq!(response.status(), 200, "{body}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["reply"], reply, "{body}");
        assert_eq!(answer["node"], door.village.node_id().to_string());
        assert!(answer["elapsed_us"].is_u64());
    }
    let alias: Value =
        door.post("/v1/actors/test.counter/a", &json!({"type": "Add", "payload": [1]})).await.json().await.unwrap();
    assert_eq!(alias["reply"], 10);
}

#[tokio::test]
async fn a_cast_is_accepted_without_a_reply() {
    let door = Door::open().await;
    let response = door.post(MESSAGES, &json!({"type": "Bump", "payload": 7})).await;
    assert_eq!(response.status(), 202);
    let response = door.post(MESSAGES, &json!({"type": "Add", "payload": [1], "mode": "cast"})).await;
    assert_eq!(response.status(), 202);
    // Casts and calls of one key go through one mailbox, the detached cast may be behind.
    let sum: Value = door.post(MESSAGES, &json!({"type": "Add", "payload": [0]})).await.json().await.unwrap();
    assert!(sum["reply"].as_u64().unwrap() >= 7, "{sum}");
}

#[tokio::test]
async fn wrong_messages_are_refused_with_code_and_pointer() {
    let door = Door::open().await;
    let cases = [
        ("/v1/actors/nobody/a/messages", json!({"type": "Add", "payload": [1]}), 404, "actor_kind_unknown"),
        (MESSAGES, json!({"type": "Secret"}), 404, "message_unknown"),
        (MESSAGES, json!({"type": "Nothing"}), 404, "message_unknown"),
        (MESSAGES, json!({"type": "Add", "payload": ["x"]}), 422, "payload_invalid"),
        (MESSAGES, json!({"message": {"Secret": null}}), 404, "message_unknown"),
        (MESSAGES, json!({"type": "Add", "payload": [1], "mode": "shout"}), 422, "payload_invalid"),
        (MESSAGES, json!({}), 422, "payload_invalid"),
        (MESSAGES, json!([]), 422, "payload_invalid"),
    ];
    for (path, body, status, code) in cases {
        assert_eq!(problem(door.post(path, &body).await).await, (status, code.to_owned()), "{body}");
    }
    let body: Value = door.post(MESSAGES, &json!({"type": "Add", "payload": "x"})).await.json().await.unwrap();
    assert_eq!(body["errors"][0]["pointer"], "/payload");
    assert_eq!(door.counter.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn failures_of_the_actor_have_their_status() {
    let door = Door::open().await;
    let response = door.post(MESSAGES, &json!({"type": "Panic"})).await;
    assert_eq!(problem(response).await, (500, "actor_panicked".into()));
    let response = door.post("/v1/actors/test.counter/b/messages", &json!({"type": "Wait", "timeout_ms": 50})).await;
    assert_eq!(problem(response).await, (504, "actor_timeout".into()));
    let wait = json!({"type": "Wait"});
    let request = door.request(Method::POST, "/v1/actors/test.counter/c/messages").header("request-timeout-ms", "50");
    assert_eq!(request.json(&wait).send().await.unwrap().status(), 504);
    let request = door.request(Method::POST, "/v1/actors/test.counter/d/messages").header("request-timeout-ms", "soon");
    assert_eq!(problem(request.json(&wait).send().await.unwrap()).await, (400, "bad_request".into()));
}

#[tokio::test]
async fn kinds_and_actors_are_listed_with_their_schemas() {
    let door = Door::open().await;
    door.post("/v1/actors/test.counter/k%2F%C3%BC/messages", &json!({"type": "Add", "payload": [1]})).await;
    let kinds: Value = door.get("/v1/actors").await.json().await.unwrap();
    let kind = kinds["data"].as_array().unwrap().iter().find(|kind| kind["kind"] == "test.counter").unwrap();
    let add = kind["messages"].as_array().unwrap().iter().find(|message| message["name"] == "Add").unwrap();
    assert_eq!(add["schema"]["type"], "integer");
    assert_eq!(add["doc"], "Adds and answers with the sum.");
    let one: Value = door.get("/v1/actors/test.counter").await.json().await.unwrap();
    assert_eq!(one["actors"][0]["key"], "k/ü");
    let actor: Value = door.get("/v1/actors/test.counter/k%2F%C3%BC").await.json().await.unwrap();
    assert_eq!(actor["state"], "running");
    assert_eq!(door.get("/v1/actors/nobody").await.status(), 404);
    let document: Value = door.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["x-village-messages"]["test.counter"]["messages"][0]["name"], "Add");
}

#[tokio::test]
async fn status_shows_the_node() {
    let door = Door::open().await;
    let status: Value = door.get("/v1/status").await.json().await.unwrap();
    assert_eq!(status["node"], door.village.node_id().to_string());
    assert_eq!(status["ready"], true);
    assert!(status["kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] == "edge.job"));
}

#[tokio::test]
async fn what_happens_in_the_node_is_told_to_its_owner() {
    let door = Door::open().await;
    door.post(MESSAGES, &json!({"type": "Add", "payload": 1})).await;
    door.post(MESSAGES, &json!({"type": "Panic"})).await;
    // Answered by the next activation, so the end of the first is known.
    door.post(MESSAGES, &json!({"type": "Add", "payload": 1})).await;
    let history: Value = door.get("/v1/history?limit=1").await.json().await.unwrap();
    let crash = &history["data"][0];
    assert_eq!(
        (&crash["what"], &crash["about"], &crash["count"]),
        (&json!("crash"), &json!("test.counter"), &json!(1))
    );
    let trees: Value = door.get("/v1/supervision?actors=1").await.json().await.unwrap();
    assert_eq!((&trees["data"][0]["name"], &trees["data"][0]["state"]), (&json!("root"), &json!("running")));
    let kinds = trees["data"][0]["children"].as_array().unwrap();
    let counter = kinds.iter().find(|kind| kind["name"] == "test.counter").unwrap();
    assert_eq!((&counter["state"], &counter["restarts"]), (&json!("running"), &json!(1)));
    let actor = json!({
        "name": counter["children"][0]["name"], "state": "running", "restarts": 1, "waiting": 0, "children": [], "more": 0,
    });
    assert_eq!(counter["children"], json!([actor]));
    let status: Value = door.get("/v1/status").await.json().await.unwrap();
    let kind = status["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == "test.counter").unwrap();
    // The one that panicked was not handled; a time is recorded after the answer.
    assert!((1..=2).contains(&kind["handling"]["samples"].as_u64().unwrap()), "{kind}");
    assert!(kind["handling"]["p50_us"].as_f64().unwrap() > 0.0, "{kind}");
}
