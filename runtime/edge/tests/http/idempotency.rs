//! One key, one execution, one answer.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, eventually, problem};

const MESSAGES: &str = "/v1/actors/test.counter/a/messages";

async fn send(door: &Door, key: &str, body: &Value) -> reqwest::Response {
    door.request(Method::POST, MESSAGES).header("idempotency-key", key).json(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_duplicates_run_once_and_replay_byte_for_byte() {
    let door = Door::open().await;
    let body = json!({"type": "Add", "payload": [5]});
    let sends = (0..100).map(|_| send(&door, "k1", &body));
    let mut first = None;
    let mut replays = Vec::new();
    for response in futures::future::join_all(sends).await {
        let replayed = response.headers().contains_key("idempotency-replayed");
        match response.status().as_u16() {
            200 if replayed => replays.push(response.bytes().await.unwrap()),
            200 => {
                let executed = response.bytes().await.unwrap();
                assert!(first.replace(executed).is_none(), "ran twice");
            }
            409 => assert_eq!(problem(response).await.1, "idempotency_in_progress"),
            other => panic!("{other}"),
        }
    }
    let first = first.expect("one request runs");
    assert_eq!(door.counter.runs.load(Ordering::SeqCst), 1);
    let again = send(&door, "k1", &body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.headers()["content-type"], "application/json");
    replays.push(again.bytes().await.unwrap());
    assert!(replays.iter().all(|replay| *replay == first));
    assert_eq!(door.counter.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_a_mismatch() {
    let door = Door::open().await;
    assert_eq!(send(&door, "k", &json!({"type": "Add", "payload": [1]})).await.status(), 200);
    let other = send(&door, "k", &json!({"type": "Add", "payload": [2]})).await;
    assert_eq!(problem(other).await, (422, "idempotency_mismatch".into()));
    let elsewhere = door.request(Method::POST, "/v1/actors/test.counter/b/messages").header("idempotency-key", "k");
    assert_eq!(elsewhere.json(&json!({"type": "Add", "payload": [2]})).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_refusal_is_replayed_with_its_trace_and_a_fault_is_not() {
    let door = Door::open().await;
    let unknown = json!({"type": "Nothing"});
    let first = send(&door, "k", &unknown).await.bytes().await.unwrap();
    let second = send(&door, "k", &unknown).await;
    assert_eq!(second.headers()["idempotency-replayed"], "true");
    assert_eq!(second.headers()["content-type"], "application/problem+json");
    assert_eq!(second.bytes().await.unwrap(), first);
    for _ in 0..2 {
        let fault = send(&door, "p", &json!({"type": "Panic"})).await;
        assert!(!fault.headers().contains_key("idempotency-replayed"));
        assert!(fault.status().is_server_error() || fault.status() == 429, "{}", fault.status());
    }
}

#[tokio::test]
async fn a_request_with_a_key_goes_on_when_its_client_has_left() {
    let door = Door::open().await;
    let body = json!({"type": "Wait"});
    let arrived = door.counter.arrived.notified();
    tokio::select! {
        response = send(&door, "w", &body) => panic!("answered {}", response.status()),
        () = arrived => {}
    }
    assert_eq!(send(&door, "w", &body).await.status(), 409);
    door.counter.go.notify_one();
    let kept = eventually("the answer", async || {
        let response = send(&door, "w", &body).await;
        (response.status() == 200).then_some(response)
    })
    .await;
    assert_eq!(kept.headers()["idempotency-replayed"], "true");
    assert_eq!(door.counter.waiting.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn keys_of_the_wrong_length_are_refused() {
    let door = Door::open().await;
    let long = "k".repeat(256);
    let response = send(&door, &long, &json!({"type": "Add", "payload": [1]})).await;
    assert_eq!(problem(response).await, (400, "bad_request".into()));
}
