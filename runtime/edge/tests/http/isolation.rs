//! Every route: who has no credential, who is of another tenant, who may only look. Each denial is in the log.

use std::collections::BTreeSet;

use aivillage_governance::tlog::Home;
use reqwest::Method;
use serde_json::{Value, json};

use crate::accounts::{json as answer, text};
use crate::harness::Door;

/// Method and template of each documented operation that asks for a credential.
async fn operations(door: &Door) -> Vec<(Method, String)> {
    let document: Value = door.client.get(door.url("/openapi.json")).send().await.unwrap().json().await.unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let operations = item.as_object().unwrap().iter();
        // `security: [{}]` is how a route says that it asks for none.
        let asking = operations.filter(|(_, operation)| operation["security"] != json!([{}]) && !is_open(path));
        all.extend(asking.map(|(method, _)| (method.to_uppercase().parse().unwrap(), path.clone())));
    }
    assert!(all.len() > 50, "{all:?}");
    all
}

/// Health, the document itself, and the end of a login, which asks for nothing it could refuse.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/openapi.json" | "/v1/auth/logout")
}

/// A path that the template matches.
fn filled(template: &str) -> String {
    let parts = template
        .split('/')
        .map(|part| if part.starts_with('{') { "0198c0de-0000-7000-8000-000000000001" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

async fn denials(home: &Home, from: u64) -> (BTreeSet<String>, u64) {
    let (mut seen, mut next) = (BTreeSet::new(), from);
    loop {
        let Ok(read) = home.log().entries(Some(next), 1_000).await else { return (seen, next) };
        if read.entries.is_empty() {
            return (seen, next);
        }
        next = read.from + read.entries.len() as u64;
        let entries = read.entries.iter().map(|entry| serde_json::from_slice::<Value>(entry).unwrap());
        seen.extend(entries.filter(|entry| entry["decision"] == "deny").map(|entry| text(&entry, "action")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_refuses_who_may_not_and_says_so_in_the_log() {
    let (door, home) = Door::clustered_and_logged().await;
    let operations = operations(&door).await;
    let made = answer(door.post("/v1/tenants", &json!({ "name": "acme", "admin": "alice" })).await, 201).await;
    let (_, guest) = door.account("gus", &["guest"]).await;
    let (_, before) = denials(&home, 0).await;
    let send = async |credential: Option<&str>, method: &Method, template: &str| {
        let request = door.client.request(method.clone(), door.url(&filled(template)));
        let request = if let Some(credential) = credential { request.bearer_auth(credential) } else { request };
        let request = if *method == Method::GET { request } else { request.json(&json!({})) };
        request.send().await.unwrap().status().as_u16()
    };
    // Nobody. One request each: more than 200 at once are only counted.
    for (method, template) in &operations {
        assert_eq!(send(None, method, template).await, 401, "{method} {template}");
    }
    let (logged, before) = denials(&home, before).await;
    let all: BTreeSet<_> = operations.iter().map(|(method, template)| format!("{method} {template}")).collect();
    assert_eq!(all.difference(&logged).collect::<Vec<_>>(), Vec::<&String>::new());

    // Somebody who may only look: what is not looking is denied, and what is changes nothing.
    let mut denied = BTreeSet::new();
    for (method, template) in &operations {
        let status = send(Some(&guest), method, template).await;
        if matches!(status, 401 | 403) {
            denied.insert(format!("{method} {template}"));
        } else {
            let is_own = ["/v1/auth/me", "/v1/keys"].contains(&template.as_str());
            let asks_in_body = template.starts_with("/v1/actors/") && *method == Method::POST;
            let looks =
                *method == Method::GET || ["/v1/memory/query", "/v1/policy/decide"].contains(&template.as_str());
            assert!(looks || is_own || asks_in_body, "{method} {template} {status}");
        }
    }
    let (logged, before) = denials(&home, before).await;
    assert_eq!(logged, denied);
    for must in
        ["POST /v1/users", "POST /v1/memory/documents", "GET /v1/events", "POST /v1/agents/{id}/ask", "GET /v1/log"]
    {
        assert!(denied.contains(must), "{must}");
    }

    // The administrator of another tenant: nothing of the village, and nothing of ours.
    let (alice, mut hidden) = (text(&made["admin"], "key"), BTreeSet::new());
    for (method, template) in &operations {
        let status = send(Some(&alice), method, template).await;
        let of_village = [
            "/v1/cluster",
            "/v1/status",
            "/v1/history",
            "/v1/supervision",
            "/v1/log",
            "/v1/tenants",
            "/v1/events",
            "/v1/policy",
        ];
        if of_village.iter().any(|prefix| template.starts_with(prefix)) {
            assert_eq!(status, 404, "{method} {template}");
            hidden.insert(format!("{method} {template}"));
        }
    }
    let (logged, _) = denials(&home, before).await;
    assert_eq!(hidden.difference(&logged).collect::<Vec<_>>(), Vec::<&String>::new());
}
