//! The nodes of the village and their join tokens, over HTTP.

use aivillage_runtime::JoinUrl;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, problem};

const TOKENS: &str = "/v1/cluster/tokens";

#[tokio::test]
async fn a_founder_is_a_healthy_cluster_of_one() {
    let door = Door::clustered().await;
    let status: Value = door.get("/v1/cluster").await.json().await.unwrap();
    let id = door.village.node_id().to_string();
    assert_eq!((&status["health"], &status["node"], &status["leader"]), (&json!("healthy"), &json!(id), &json!(id)));
    assert_eq!(status["problems"], json!([]));
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!((&members[0]["id"], &members[0]["state"]), (&json!(id), &json!("up")));
    assert_eq!(members[0]["addr"], door.village.cluster().unwrap().addr());
    let node: Value = door.get("/v1/status").await.json().await.unwrap();
    let expected = json!({"id": status["cluster"], "health": "healthy", "nodes": 1, "up": 1, "problems": []});
    assert_eq!(node["cluster"], expected);
    assert_eq!(node["ready"], true);
}

#[tokio::test]
async fn a_token_is_told_once_listed_without_its_secret_and_revoked() {
    let door = Door::clustered().await;
    let response = door.post(TOKENS, &json!({"uses": 2, "ttl_s": 60, "note": "for the attic"})).await;
    assert_eq!(response.status(), 201);
    let made: Value = response.json().await.unwrap();
    let url: JoinUrl = made["join"].as_str().unwrap().parse().unwrap();
    assert_eq!(made["id"], format!("{:016x}", url.token.token_id));
    assert_eq!(made["addr"], door.village.cluster().unwrap().addr());
    let text = door.get(TOKENS).await.text().await.unwrap();
    assert!(!text.contains(made["token"].as_str().unwrap()), "{text}");
    let listed: Value = serde_json::from_str(&text).unwrap();
    let token = &listed["data"][0];
    assert_eq!((&token["id"], &token["uses_left"], &token["note"]), (&made["id"], &json!(2), &json!("for the attic")));
    assert!(token["expires_in_s"].as_u64().unwrap() <= 60);
    let path = format!("{TOKENS}/{}", made["id"].as_str().unwrap());
    assert_eq!(door.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let again = door.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(problem(again).await, (404, "token_unknown".into()));
    let listed: Value = door.get(TOKENS).await.json().await.unwrap();
    assert_eq!(listed["data"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_decided_has_its_code() {
    let door = Door::clustered().await;
    let (me, nobody) = (door.village.node_id().to_string(), "0123456789abcdef");
    let cases = [
        ("/v1/cluster/drain", json!({"node": nobody}), 404, "node_unknown"),
        ("/v1/cluster/drain", json!({"node": "n1"}), 422, "payload_invalid"),
        ("/v1/cluster/drain", json!({"node": me, "now": true}), 422, "payload_invalid"),
        ("/v1/cluster/remove", json!({"node": nobody}), 404, "node_unknown"),
        ("/v1/cluster/remove", json!({"node": me}), 409, "last_node"),
        ("/v1/cluster/remove", json!({"node": me, "force": true}), 409, "last_node"),
        (TOKENS, json!({"uses": 0}), 422, "payload_invalid"),
        (TOKENS, json!({"note": "x".repeat(257)}), 422, "payload_invalid"),
    ];
    for (path, body, status, code) in cases {
        assert_eq!(problem(door.post(path, &body).await).await, (status, code.to_owned()), "{path} {body}");
    }
    for id in ["1", "xyz", "0123456789abcdef"] {
        let response = door.request(Method::DELETE, &format!("{TOKENS}/{id}")).send().await.unwrap();
        assert_eq!(problem(response).await, (404, "token_unknown".into()), "{id}");
    }
}

#[tokio::test]
async fn a_village_without_a_cluster_says_so() {
    let door = Door::open().await;
    for path in ["/v1/cluster", TOKENS] {
        assert_eq!(problem(door.get(path).await).await, (409, "no_cluster".into()), "{path}");
    }
    let status: Value = door.get("/v1/status").await.json().await.unwrap();
    assert_eq!(status["cluster"], Value::Null);
}
