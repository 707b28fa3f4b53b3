//! The transparency log: what is in it, who may read it, and what happens without it.

use std::sync::atomic::Ordering;

use aivillage_governance::tlog::{AuditKeys, Disk, Home, TlogProof, TrustPolicy, audit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, eventually, problem};

const ADD: &str = "/v1/actors/test.counter/ada-lovelace/messages";

async fn entries(door: &Door, query: &str) -> Vec<Value> {
    let page: Value = door.get(&format!("/v1/log/entries{query}")).await.json().await.unwrap();
    page["data"].as_array().unwrap().clone()
}

fn add() -> Value {
    json!({ "type": "Add", "payload": 1 })
}

#[tokio::test]
async fn what_is_done_and_what_is_denied_is_logged_without_names() {
    let (door, home) = Door::logged().await;
    assert_eq!(door.post(ADD, &add()).await.status(), 200);
    assert_eq!(door.get("/v1/status").await.status(), 200, "a read that is let in is not logged");
    let anonymous = door.client.get(door.url("/v1/agents/ada-lovelace")).send().await.unwrap();
    assert_eq!(problem(anonymous).await.0, 401);
    assert_eq!(door.post("/v1/actors/test.counter/ada-lovelace/nothing", &add()).await.status(), 404);
    let all = entries(&door, "").await;
    let seen: Vec<_> = all
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            (text("kind"), text("action"), text("decision"), entry["payload"]["clear"]["status"].clone())
        })
        .collect();
    let line = |kind: &str, action: &str, decision: &str, status: u16| {
        (kind.to_owned(), action.to_owned(), decision.to_owned(), json!(status))
    };
    assert_eq!(
        seen,
        [
            line("edge.request", "POST /v1/actors/{kind}/{key}/messages", "allow", 200),
            line("auth.deny", "GET /v1/agents/{id}", "deny", 401),
            line("edge.request", "POST unknown", "allow", 404),
        ]
    );
    let text = json!(all).to_string();
    for name in ["lovelace", "admin", "local", "127.0.0.1", "counter"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    let key = home.log_key("local");
    assert_eq!(all[0]["actor"], key.pseudonym("admin").as_str(), "whoever has the key finds the person");
    assert_eq!(all[0]["object"], key.pseudonym(ADD).as_str());
    assert_eq!(entries(&door, "?from=1&limit=1").await, all[1..2]);
    assert_eq!(problem(door.get("/v1/log/entries?from=9").await).await, (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_trace_of_the_clients_choice_is_a_link_and_requests_have_ids_of_ours() {
    let (door, _home) = Door::logged().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut told = Vec::new();
    for id in [None, Some("the-same"), Some("the-same")] {
        let request = door.request(Method::POST, ADD).header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
        let request = if let Some(id) = id { request.header("x-request-id", id) } else { request };
        let response = request.json(&add()).send().await.unwrap();
        told.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    let all = entries(&door, "").await;
    let clear = |name: &str| all.iter().map(|entry| entry["payload"]["clear"][name].clone()).collect::<Vec<_>>();
    assert_eq!(clear("trace"), [trace, trace, trace]);
    let mut ids = clear("request");
    assert_eq!(ids[0], told[0], "who gives no id is told ours");
    ids.dedup();
    assert_eq!(ids.len(), 3, "{all:?}");
    assert!(!json!(all).to_string().contains("the-same"), "{all:?}");
}

#[tokio::test]
async fn the_newest_entry_can_be_proven_at_once_and_checked_offline() {
    let (door, home) = Door::logged().await;
    door.post(ADD, &add()).await;
    let proof = door.get("/v1/log/proof/0").await.text().await.unwrap();
    let policy = TrustPolicy { log: home.log().key().clone(), witnesses: vec![], quorum: 0 };
    assert_eq!(proof.parse::<TlogProof>().unwrap().verify(None, &policy).unwrap().index, 0);
    assert_eq!(problem(door.get("/v1/log/proof/7").await).await, (404, "not_found".to_owned()));
    let log: Value = door.get("/v1/log").await.json().await.unwrap();
    assert_eq!((&log["size"], &log["key"]), (&json!(1), &json!(policy.log.to_string())));
}

#[tokio::test]
async fn any_client_reads_the_tree_and_nothing_else() {
    let (door, home) = Door::logged().await;
    door.post(ADD, &add()).await;
    home.log().checkpoint().await.unwrap();
    let open = async |path: &str| door.client.get(door.url(path)).send().await.unwrap();
    let note = open("/tlog/checkpoint").await.text().await.unwrap();
    assert!(note.starts_with("village/node\n1\n"), "{note}");
    let hashes = open("/tlog/tile/0/000.p/1").await;
    assert!(hashes.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(hashes.bytes().await.unwrap().len(), 32);
    assert!(open("/tlog/tile/entries/000.p/1").await.text().await.unwrap().contains("edge.request"));
    for path in ["/tlog/tile/0/001", "/tlog/tile/..%2f..%2ftlog.key", "/tlog/tile/entries/..%2f..%2f..%2fsigned"] {
        assert_eq!(open(path).await.status(), 404, "{path}");
    }
    assert_eq!(problem(open("/v1/log/entries").await).await.0, 401);
}

#[tokio::test]
async fn nothing_is_done_that_cannot_be_logged() {
    let (door, home) = Door::logged().await;
    assert_eq!(door.post(ADD, &add()).await.status(), 200);
    home.log().close().await.unwrap();
    assert_eq!(problem(door.post(ADD, &add()).await).await, (503, "governance_unavailable".to_owned()));
    assert_eq!(door.counter.runs.load(Ordering::SeqCst), 1, "the handler did not run");
    assert_eq!(door.get("/v1/status").await.status(), 200, "reading goes on");
    let anonymous = door.client.post(door.url(ADD)).json(&add()).send().await.unwrap();
    assert_eq!(problem(anonymous).await.0, 401, "who is denied stays denied");
}

#[tokio::test]
async fn a_request_whose_client_left_is_logged_too() {
    let (door, _home) = Door::logged().await;
    let arrived = door.counter.arrived.notified();
    let request = door.request(Method::POST, ADD).json(&json!({ "type": "Wait", "payload": null })).send();
    tokio::select! {
        answer = request => panic!("it was answered: {answer:?}"),
        () = arrived => {}
    }
    let entry = eventually("an entry", async || entries(&door, "").await.pop()).await;
    assert_eq!((&entry["kind"], &entry["payload"]["clear"]["status"]), (&json!("edge.request"), &Value::Null));
    door.counter.go.notify_waiters();
}

#[tokio::test]
async fn what_was_written_is_a_log_that_audits_clean() {
    let (door, home) = Door::logged().await;
    for _ in 0..300 {
        door.post(ADD, &add()).await;
    }
    home.log().close().await.unwrap();
    let keys = AuditKeys { log: home.log().key().clone(), witnesses: vec![] };
    let folder = Home::folder_in(&door.dir.path().join("governance"));
    let report = audit(&Disk::reading(folder), &keys).unwrap();
    assert_eq!((report.entries, report.findings), (300, vec![]));
}

/// Somebody, with what only they should know.
struct Person {
    name: String,
    mail: String,
    card: String,
    tenant: String,
}

impl Person {
    /// Words that no entry has by itself.
    fn random(rng: &mut StdRng) -> Self {
        let mut word = || (0..9).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect::<String>();
        let (name, host, tenant) = (word(), word(), word());
        let card = format!("4{}", (0..15).map(|_| char::from(rng.random_range(b'0'..=b'9'))).collect::<String>());
        Self { mail: format!("{name}@{host}.example"), name, card, tenant }
    }

    /// Everything about them, at every place of a request that holds something; `at` says which request.
    async fn ask(&self, door: &Door, at: usize) -> u16 {
        let Self { name, mail, card, tenant } = self;
        let text = format!("{name} of {tenant} pays with {card}, write to {mail}");
        let request = match at % 6 {
            0 => door
                .request(Method::POST, "/v1/memory/documents")
                .json(&json!({ "documents": [{ "id": mail, "text": text }] })),
            1 => door.request(Method::POST, &format!("/v1/actors/test.counter/{name}-{card}/messages")).json(&add()),
            2 => door.request(Method::POST, &format!("/v1/agents/sage/ask?who={mail}")).json(&json!({ "input": text })),
            3 => door.client.post(door.url(&format!("/v1/agents/{mail}/ask"))).bearer_auth(format!("{tenant}-{card}")),
            4 => door.request(Method::DELETE, &format!("/v1/memory/documents/{name}%2F{card}?tenant={tenant}")),
            _ => door.request(Method::POST, &format!("/{tenant}/{mail}")).body(text.clone()),
        };
        let request = request.header("user-agent", &text).header("idempotency-key", card).header("x-tenant", tenant);
        request.send().await.unwrap().status().as_u16()
    }
}

/// All files below a folder.
fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let below = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn no_file_of_the_log_holds_what_a_request_said_about_anybody() {
    let (door, home) = Door::logged().await;
    let mut rng = StdRng::seed_from_u64(4);
    let people: Vec<_> = (0..60).map(|_| Person::random(&mut rng)).collect();
    let mut answers = std::collections::BTreeMap::<u16, usize>::new();
    for (at, person) in people.iter().enumerate() {
        *answers.entry(person.ask(&door, at).await).or_default() += 1;
    }
    // Some were carried out, some were not.
    assert!(answers.contains_key(&200) && answers.contains_key(&401) && answers.contains_key(&404), "{answers:?}");
    home.log().close().await.unwrap();
    let folder = Home::folder_in(&door.dir.path().join("governance"));
    let read: Vec<_> = files(&folder).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let is_in = |secret: &str| {
        let within =
            |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part.eq_ignore_ascii_case(secret.as_bytes()));
        read.iter().find(|(bytes, _)| within(bytes)).map(|(_, path)| path.clone())
    };
    assert!(is_in("edge.request").is_some() && is_in("auth.deny").is_some(), "the entries are not in these files");
    let own = [door.key.as_str(), door.key.split('_').nth(2).unwrap(), "\"admin\"", "\"local\"", "127.0.0.1"];
    let said = people.iter().flat_map(|Person { name, mail, card, tenant }| [name, mail, card, tenant]);
    for secret in said.map(String::as_str).chain(own) {
        assert_eq!(is_in(secret), None, "{secret}");
    }
}

#[tokio::test]
async fn a_village_without_a_log_says_so() {
    let door = Door::open().await;
    for path in ["/v1/log", "/v1/log/entries", "/tlog/checkpoint", "/tlog/tile/0/000"] {
        assert_eq!(problem(door.get(path).await).await, (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(door.post(ADD, &add()).await.status(), 200);
}
