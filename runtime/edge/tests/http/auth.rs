//! Who gets in, and what everybody else is told.

use aivillage_edge::{Edge, EdgeError};
use reqwest::Method;
use serde_json::Value;

use crate::harness::{Door, config, problem};

#[tokio::test]
async fn the_key_opens_and_everything_else_gets_the_same_refusal() {
    let door = Door::open().await;
    assert_eq!(door.get("/v1/agents").await.status(), 200);
    let with_header = door.client.get(door.url("/v1/agents")).header("x-api-key", &door.key).send().await.unwrap();
    assert_eq!(with_header.status(), 200);
    let mut texts = Vec::new();
    for credential in [None, Some("nonsense"), Some("avk_local_0123456789_x_00000000")] {
        let mut request = door.client.get(door.url("/v1/agents"));
        if let Some(credential) = credential {
            request = request.bearer_auth(credential);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let mut body: Value = response.json().await.unwrap();
        body["trace_id"].take();
        texts.push(body);
    }
    assert!(texts.iter().all(|text| text == &texts[0]), "{texts:?}");
}

#[tokio::test]
async fn wrong_keys_are_throttled_but_never_the_right_one() {
    let door = Door::open().await;
    let mut statuses = Vec::new();
    for _ in 0..25 {
        let response = door.client.get(door.url("/v1/agents")).bearer_auth("wrong").send().await.unwrap();
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 20, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    assert_eq!(door.get("/v1/agents").await.status(), 200);
}

#[cfg(unix)]
#[tokio::test]
async fn the_key_file_is_private_and_stays_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let door = Door::open().await;
    assert_eq!(door.edge.admin_key_path, door.key_path());
    let mode = std::fs::metadata(door.key_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Edge::start(&door.village, config(), door.dir.path(), &door.governance).await.unwrap();
    assert_eq!(std::fs::read_to_string(again.admin_key_path.clone()).unwrap().trim(), door.key);
    again.drain().await;
}

#[tokio::test]
async fn a_rebound_name_is_turned_away_before_the_key_is_looked_at() {
    let door = Door::open().await;
    let response = door.request(Method::GET, "/v1/agents").header("host", "evil.example:8080").send().await.unwrap();
    assert_eq!(problem(response).await, (421, "host_not_allowed".into()));
    let response = door.request(Method::GET, "/openapi.json").header("host", "evil.example").send().await.unwrap();
    assert_eq!(response.status(), 421);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_a_request_id() {
    let door = Door::open().await;
    for path in ["/v1/agents", "/healthz", "/nothing", "/openapi.json"] {
        let response = door.request(Method::GET, path).header("x-request-id", "abc-1").send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(headers["x-request-id"], "abc-1", "{path}");
        assert!(!headers.contains_key("server"), "{path}");
    }
    assert_eq!(door.get("/v1/agents").await.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn the_trace_of_the_caller_is_in_the_problem() {
    let door = Door::open().await;
    let response = door
        .request(Method::GET, "/v1/agents/nobody")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .send()
        .await
        .unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test]
async fn health_and_documentation_need_no_key_and_metrics_live_on_the_admin_listener() {
    let door = Door::open().await;
    for path in ["/healthz", "/readyz", "/openapi.json", "/docs/"] {
        assert_eq!(door.client.get(door.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    let admin = format!("http://{}", door.edge.admin_addr);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(door.client.get(format!("{admin}{path}")).send().await.unwrap().status(), 200, "{path}");
    }
    door.get("/v1/agents").await;
    let text = door.client.get(format!("{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| {
        line.contains("http_server_request_duration_seconds_count") && line.contains("http_route=\"/v1/agents\"")
    });
    assert!(line.is_some_and(|line| line.contains("http_response_status_code=\"200\"")), "{text}");
    assert_eq!(door.get("/metrics").await.status(), 404, "not on the public listener");
}

#[tokio::test]
async fn cors_answers_known_origins_only() {
    let door = Door::with(|config| config.cors_origins = vec!["https://app.example".into()]).await;
    let preflight = |origin: &str| {
        door.client
            .request(Method::OPTIONS, door.url("/v1/agents"))
            .header("origin", origin.to_owned())
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .send()
    };
    let known = preflight("https://app.example").await.unwrap();
    assert_eq!(known.headers()["access-control-allow-origin"], "https://app.example");
    let foreign = preflight("https://evil.example").await.unwrap();
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn addresses_that_cannot_be_served_are_clear_errors() {
    let door = Door::open().await;
    let mut taken = config();
    taken.listen = door.edge.addr;
    let error = Edge::start(&door.village, taken, door.dir.path(), &door.governance).await.unwrap_err();
    assert!(matches!(error, EdgeError::PortInUse { key: "edge.listen", .. }), "{error}");
    assert!(error.to_string().contains("set edge.listen to a free port"), "{error}");
    let mut open = config();
    open.listen = "0.0.0.0:0".parse().unwrap();
    let error = Edge::start(&door.village, open, door.dir.path(), &door.governance).await.unwrap_err();
    assert!(matches!(error, EdgeError::NotLoopback { .. }), "{error}");
}
