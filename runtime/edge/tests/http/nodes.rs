//! Several nodes that are one village: any edge serves any request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{join, join_all};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Counter, Door, eventually, problem};

const MESSAGES: &str = "/v1/actors/test.counter/a/messages";

async fn send(door: &Door, key: &str, body: &Value) -> Response {
    door.request(Method::POST, MESSAGES).header("idempotency-key", key).json(body).send().await.unwrap()
}

/// What the counters of both nodes have counted; the actor is at one of them.
fn sum(doors: [&Door; 2], count: impl Fn(&Counter) -> &Arc<AtomicU64>) -> u64 {
    doors.iter().map(|door| count(&door.counter).load(Ordering::SeqCst)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_requests_with_one_key_at_two_nodes_acts() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    for key in ["k1", "k2", "k3"] {
        let body = json!({"type": "Add", "payload": [5]});
        let sends = (0..30).map(|n| send([&one, &other][n % 2], key, &body));
        let before = sum([&one, &other], |counter| &counter.runs);
        let mut answers = Vec::new();
        let mut acted = 0;
        for response in join_all(sends).await {
            let replayed = response.headers().contains_key("idempotency-replayed");
            match response.status().as_u16() {
                200 => {
                    acted += u64::from(!replayed);
                    answers.push(response.bytes().await.unwrap());
                }
                409 => assert_eq!(problem(response).await.1, "idempotency_in_progress"),
                other => panic!("{other}: {}", response.text().await.unwrap()),
            }
        }
        for door in [&one, &other] {
            answers.push(send(door, key, &body).await.bytes().await.unwrap());
        }
        assert_eq!((acted, sum([&one, &other], |counter| &counter.runs) - before), (1, 1), "{key}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_at_one_node_is_in_progress_at_another_also_when_its_client_has_left() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    let body = json!({"type": "Wait"});
    let waiting = || sum([&one, &other], |counter| &counter.waiting);
    let arrived = async |times: u64| eventually("in the actor", async || (waiting() == times).then_some(())).await;
    let go_on = || [&one, &other].iter().for_each(|door| door.counter.go.notify_one());
    let repeated = async || {
        let refused = send(&other, "w", &body).await;
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(problem(refused).await, (409, "idempotency_in_progress".into()));
        let another = send(&other, "w", &json!({"type": "Add", "payload": [1]})).await;
        assert_eq!(problem(another).await, (422, "idempotency_mismatch".into()));
        go_on();
    };
    let (first, ()) = join(send(&one, "w", &body), async {
        arrived(1).await;
        repeated().await;
    })
    .await;
    assert_eq!(first.status(), 200);
    let again = send(&other, "w", &body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.bytes().await.unwrap(), first.bytes().await.unwrap());

    // A connection that is closed while the request runs.
    tokio::select! {
        response = send(&one, "left", &body) => panic!("answered {}", response.status()),
        () = arrived(2) => {}
    }
    assert_eq!(send(&other, "left", &body).await.status(), 409);
    go_on();
    let kept = eventually("the answer for a client that has left", async || {
        let response = send(&other, "left", &body).await;
        (response.status() == 200).then_some(response)
    })
    .await;
    assert_eq!(kept.headers()["idempotency-replayed"], "true");
    assert_eq!(waiting(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_begun_once_by_requests_with_one_key_at_two_nodes() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    let body = json!({"documents": [{"id": "ferry", "text": "The ferry leaves at noon."}]});
    let start = async |door: &Door| {
        let request = door.request(Method::POST, "/v1/memory/documents").header("prefer", "respond-async");
        let started = async || {
            let request = request.try_clone().unwrap().header("idempotency-key", "job");
            let response = request.json(&body).send().await.unwrap();
            match response.status().as_u16() {
                202 => Some(response.json::<Value>().await.unwrap()["id"].clone()),
                409 => None,
                other => panic!("{other}: {}", response.text().await.unwrap()),
            }
        };
        eventually("a job", started).await
    };
    let (id, same) = join(start(&one), start(&other)).await;
    assert_eq!(id, same);
    let listed: Value = other.get("/v1/jobs").await.json().await.unwrap();
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["id"]), (1, &id), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_begun_at_one_node_goes_on_at_another() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    let page = async |door: &Door, query: &str| -> Value {
        let response = door.get(&format!("/v1/agents?{query}")).await;
        assert_eq!(response.status(), 200, "{query}");
        response.json().await.unwrap()
    };
    let whole = page(&one, "limit=200").await;
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    for door in [&one, &other].into_iter().cycle() {
        let page = page(door, &query).await;
        seen.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert!(seen.len() > 2);
    assert_eq!(whole["data"], Value::from(seen));
}
