//! Going down: what is in flight ends well, streams are told, nothing new comes in.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::events::Reader;
use crate::harness::Door;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_in_flight_is_lost() {
    let door = Door::open().await;
    let (counter, addr) = (door.counter.clone(), door.edge.addr);
    let requests: Vec<_> = (0..20)
        .map(|n| {
            let path = format!("/v1/actors/test.counter/w{n}/messages");
            let request = door.request(reqwest::Method::POST, &path).json(&json!({"type": "Wait"}));
            door.village.task("request", async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    while counter.waiting.load(Ordering::SeqCst) < 20 {
        tokio::task::yield_now().await;
    }
    let Door { edge, village, client, .. } = door;
    let draining = village.task("drain", edge.drain());
    // The listener is gone before the requests are answered.
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        assert!(!draining.is_finished(), "requests were still in flight");
        counter.go.notify_one();
        tokio::task::yield_now().await;
    }
    counter.go.notify_waiters();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    draining.await.unwrap();
    assert!(client.get(format!("http://{addr}/healthz")).send().await.is_err());
}

#[tokio::test]
async fn streams_are_told_and_end() {
    let door = Door::open().await;
    let mut reader = Reader::new(door.get("/v1/events?topics=news").await);
    let mut job = Reader::new(door.get("/v1/events?topics=other").await);
    door.edge.drain().await;
    assert_eq!(reader.next().await.unwrap().name, "drain");
    assert_eq!(reader.next().await, None);
    assert_eq!(job.next().await.unwrap().name, "drain");
}

#[tokio::test]
async fn the_admin_listener_says_not_ready_while_requests_finish() {
    let door = Door::open().await;
    let admin = format!("http://{}/readyz", door.edge.admin_addr);
    let request =
        door.request(reqwest::Method::POST, "/v1/actors/test.counter/w/messages").json(&json!({"type": "Wait"}));
    let waiting = door.village.task("request", async move { request.send().await.unwrap().status().as_u16() });
    while door.counter.waiting.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let Door { edge, village, client, counter, .. } = door;
    let draining = village.task("drain", edge.drain());
    loop {
        let response = client.get(&admin).send().await.unwrap();
        if response.status() == 503 {
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["draining"], true);
            break;
        }
    }
    counter.go.notify_one();
    assert_eq!(waiting.await.unwrap(), 200);
    draining.await.unwrap();
}
