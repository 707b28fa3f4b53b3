//! Policies and constitution over HTTP, and what the door refuses by them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, problem};

fn question(roles: &[&str]) -> Value {
    json!({
        "principal": { "tenant": "acme", "subject": "ann", "kind": "user", "roles": roles },
        "action": "agent.ask", "resource": { "kind": "Agent", "id": "sage", "tenant": "acme" },
    })
}

#[tokio::test]
async fn a_question_is_decided_and_explained() {
    let door = Door::open().await;
    let decided: Value = door.post("/v1/policy/decide", &question(&["user"])).await.json().await.unwrap();
    assert_eq!((&decided["allow"], &decided["policy_ids"]), (&json!(true), &json!(["user-uses"])));
    let explained: Value = door.post("/v1/policy/explain", &question(&["guest"])).await.json().await.unwrap();
    assert_eq!(explained["decision"]["allow"], false);
    let near = explained["nearest"].as_array().unwrap();
    assert!(near.iter().any(|near| near["policy"]["id"] == "user-uses"), "{explained}");
}

#[tokio::test]
async fn a_question_without_a_principal_is_about_the_caller() {
    let door = Door::open().await;
    let mut body = question(&[]);
    body.as_object_mut().unwrap().remove("principal");
    body["resource"]["tenant"] = json!("local");
    let decided: Value = door.post("/v1/policy/decide", &body).await.json().await.unwrap();
    assert_eq!(decided["allow"], true);
    body["resource"] = json!({});
    assert_eq!(problem(door.post("/v1/policy/decide", &body).await).await, (422, "payload_invalid".into()));
}

#[tokio::test]
async fn the_constitution_in_force_is_shown() {
    let door = Door::open().await;
    let shown: Value = door.get("/v1/constitution").await.json().await.unwrap();
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["hash"].as_str().unwrap().len(), 64);
    assert!(shown["toml"].as_str().unwrap().contains("Viewpoint neutrality"));
}

#[tokio::test]
async fn a_message_of_an_action_that_the_policies_do_not_know_is_denied() {
    let door = Door::open().await;
    let body = json!({"type": "Odd", "payload": []});
    let response = door.post("/v1/actors/test.counter/a/messages", &body).await;
    let status = response.status().as_u16();
    let refused: Value = response.json().await.unwrap();
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")));
    assert!(refused["detail"].as_str().unwrap().contains("`counter.odd`"), "{refused}");
    assert_eq!((&refused["policy_ids"], &refused["articles"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn a_route_and_a_method_that_there_are_not_are_told_as_before() {
    let door = Door::open().await;
    assert_eq!(problem(door.get("/v1/nothing").await).await, (404, "not_found".into()));
    let response = door.request(Method::PUT, "/v1/agents").send().await.unwrap();
    assert_eq!(problem(response).await, (405, "method_not_allowed".into()));
    let head = door.request(Method::HEAD, "/v1/agents").send().await.unwrap();
    assert_eq!(head.status(), 200);
}
