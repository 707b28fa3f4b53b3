//! Documents and jobs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Reader;
use crate::harness::{Door, problem};

fn documents(count: usize) -> Value {
    let documents: Vec<Value> = (0..count)
        .map(|n| json!({"id": format!("d{n}"), "title": format!("Lighthouse {n}"), "text": format!("The lighthouse number {n} was built in 18{:02} by hand.", n % 100)}))
        .collect();
    json!({"documents": documents})
}

#[tokio::test]
async fn documents_go_in_and_come_back_as_passages() {
    let door = Door::open().await;
    let response = door.post("/v1/memory/documents?wait=searchable", &documents(3)).await;
    assert_eq!(response.status(), 200);
    let report: Value = response.json().await.unwrap();
    assert_eq!(
        report["results"][0],
        json!({"id": "d0", "status": "created", "version": 1, "duplicate_of": null, "error": null})
    );
    let view: Value = door.get("/v1/memory/documents/d1").await.json().await.unwrap();
    assert_eq!(view["title"], "Lighthouse 1");
    let context: Value =
        door.post("/v1/memory/query", &json!({"text": "when was the lighthouse built?"})).await.json().await.unwrap();
    assert_eq!(context["passages"][0]["n"], 1);
    assert!(context["passages"][0]["text"].as_str().unwrap().contains("lighthouse"));
    let stats: Value = door.get("/v1/memory/stats").await.json().await.unwrap();
    assert_eq!(stats["collections"][0]["documents"], 3);
    let gone: Value =
        door.request(Method::DELETE, "/v1/memory/documents/d1").send().await.unwrap().json().await.unwrap();
    assert_eq!(gone["deleted"], json!(["d1"]));
    assert_eq!(problem(door.get("/v1/memory/documents/d1").await).await.0, 404);
}

#[tokio::test]
async fn files_are_taken_raw_and_as_forms() {
    let door = Door::open().await;
    let raw = door
        .request(Method::POST, "/v1/memory/documents?wait=searchable&name=tower.md")
        .header("content-type", "text/markdown")
        .body("# Tower\n\nThe tower leans.");
    let report: Value = raw.send().await.unwrap().json().await.unwrap();
    assert_eq!(report["results"][0]["status"], "created", "{report}");
    let form =
        "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\nThe bridge is old.\r\n--x--\r\n";
    let response = door
        .request(Method::POST, "/v1/memory/documents?collection=forms")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(form)
        .send()
        .await
        .unwrap();
    let report: Value = response.json().await.unwrap();
    assert_eq!(report["results"][0]["id"], "a.txt", "{report}");
}

#[tokio::test]
async fn uploads_that_cannot_be_read_are_refused() {
    let door = Door::with(|config| {
        config.max_body = aivillage_runtime::config::Size::from_kib(1);
        config.upload_max = aivillage_runtime::config::Size::from_kib(2);
    })
    .await;
    let post = |mime: &'static str, body: Vec<u8>| {
        door.request(Method::POST, "/v1/memory/documents").header("content-type", mime).body(body).send()
    };
    assert_eq!(problem(post("text/plain", vec![b'a'; 3_000]).await.unwrap()).await, (413, "payload_too_large".into()));
    assert_eq!(problem(post("multipart/form-data", b"x".to_vec()).await.unwrap()).await.0, 400);
    assert_eq!(problem(post("application/json", b"{".to_vec()).await.unwrap()).await, (400, "bad_json".into()));
    let wrong = post("application/json", br#"{"documents": [{"title": 1}]}"#.to_vec()).await.unwrap();
    let body: Value = wrong.json().await.unwrap();
    assert_eq!(body["code"], "payload_invalid");
    let pointers: Vec<_> = body["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert!(pointers.contains(&"/documents/0/title") && pointers.contains(&"/documents/0"), "{body}");
    // A chunked body has no announced length; the limit of an ordinary route holds all the same.
    let pieces = futures::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>(vec![b' '; 512])));
    let chunked = door.request(Method::POST, "/v1/memory/query").body(reqwest::Body::wrap_stream(pieces)).send().await;
    assert_eq!(chunked.unwrap().status(), 413);
}

#[tokio::test]
async fn a_large_ingest_is_a_job_with_events_and_an_end() {
    let door = Door::open().await;
    let accepted = door
        .request(Method::POST, "/v1/memory/documents")
        .header("prefer", "respond-async")
        .json(&documents(150))
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = accepted.json().await.unwrap();
    assert_eq!(job["links"]["self"], location);
    assert_eq!(job["progress"]["total"], 150);
    let mut reader = Reader::new(door.get(&format!("{location}/events")).await);
    let mut names = Vec::new();
    while let Some(seen) = reader.next().await {
        names.push(seen.name);
    }
    assert_eq!(names.last().unwrap(), "result", "{names:?}");
    let done: Value = door.get(&location).await.json().await.unwrap();
    assert_eq!((done["state"].as_str(), done["result"]["created"].as_u64()), (Some("succeeded"), Some(150)));
    let list: Value = door.get("/v1/jobs").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], job["id"]);
    let cancelled: Value = door.request(Method::DELETE, &location).send().await.unwrap().json().await.unwrap();
    assert_eq!(cancelled["state"], "succeeded", "an end is never left");
    for path in ["/v1/jobs/nonsense", "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(problem(door.get(path).await).await, (404, "not_found".into()));
    }
}
