//! Personal and secret data over HTTP: found, taken out, taken back.

use aivillage_governance::tlog::Home;
use serde_json::{Value, json};

use crate::accounts::{json as answer, text};
use crate::harness::{Door, problem};

const TEXT: &str = "Maria Gonzalez paid with 4111 1111 1111 1111, write to ann@example.org";

async fn post(door: &Door, path: &str, body: Value) -> Value {
    answer(door.post(path, &body).await, 200).await
}

fn spans<'a>(found: &Value, name: &str, of: &str, text: &'a str) -> Vec<(String, &'a str)> {
    let at = |span: &Value, end: &str| usize::try_from(span[end].as_u64().unwrap()).unwrap();
    let one = |item: &Value| (text_of(item), &text[at(&item[of], "start")..at(&item[of], "end")]);
    found[name].as_array().unwrap().iter().map(one).collect()
}

fn text_of(item: &Value) -> String {
    text(item, "kind")
}

/// The entries that tell of tokens taken back.
async fn told(home: &Home) -> Vec<Value> {
    let read = home.log().entries(Some(0), 1_000).await.unwrap();
    let entries = read.entries.iter().map(|entry| serde_json::from_slice::<Value>(entry).unwrap());
    entries.filter(|entry| entry["kind"] == "dlp.detokenise").collect()
}

#[tokio::test]
async fn a_text_is_scanned_for_what_is_asked() {
    let door = Door::open().await;
    let found = post(&door, "/v1/dlp/scan", json!({ "text": TEXT })).await;
    let kinds = [("name", "Maria Gonzalez"), ("pan", "4111 1111 1111 1111"), ("email", "ann@example.org")];
    assert_eq!(spans(&found, "findings", "span", TEXT), kinds.map(|(kind, text)| (kind.to_owned(), text)));
    let cards = post(&door, "/v1/dlp/scan", json!({ "text": TEXT, "profiles": ["pan"] })).await;
    assert_eq!(cards["findings"].as_array().unwrap().len(), 1);
    let long = door.post("/v1/dlp/scan", &json!({ "text": "a ".repeat(600_000) })).await;
    assert_eq!(problem(long).await, (413, "payload_too_large".to_owned()));
    for wrong in [
        json!({}),
        json!({ "text": 1 }),
        json!({ "text": "", "min_score": 10 }),
        json!({ "text": "", "profiles": ["x"] }),
    ] {
        assert_eq!(problem(door.post("/v1/dlp/scan", &wrong).await).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_text_is_redacted_by_the_callers_rules() {
    let door = Door::open().await;
    let redact = async |body: Value| text(&post(&door, "/v1/dlp/redact", body).await, "text");
    let emails = redact(json!({ "text": TEXT, "actions": { "pan": "redact" }, "except": ["name"] })).await;
    assert_eq!(emails, "Maria Gonzalez paid with [PAN_1], write to [EMAIL_1]");
    let note = "Seen 2024-03-01, aged 93, zip code 94110";
    let coarse = post(&door, "/v1/dlp/redact", json!({ "text": note, "safe_harbor": true })).await;
    assert_eq!(coarse["text"], "Seen 2024, aged 90+, zip code 941");
    let originals = [("date", "2024-03-01"), ("age", "93"), ("zip", "94110")];
    assert_eq!(spans(&coarse, "edits", "original", note), originals.map(|(kind, text)| (kind.to_owned(), text)));
    let kept = door.post("/v1/dlp/redact", &json!({ "text": "", "except": ["cvv"] })).await;
    assert_eq!(problem(kept).await, (422, "payload_invalid".to_owned()));
    let moved = async |subject: &str| {
        redact(json!({ "text": "seen on 2024-03-01", "profiles": ["phi"], "subject": subject })).await
    };
    assert_eq!(moved("ada").await, moved("ada").await);
    assert_ne!(moved("ada").await, moved("bob").await);
}

#[tokio::test]
async fn a_token_is_taken_back_by_who_may_with_its_entry_in_the_log() {
    let (door, home) = Door::logged().await;
    let redacted = post(&door, "/v1/dlp/redact", json!({ "text": "card 4111 1111 1111 1111" })).await;
    let token = text(&redacted, "text").strip_prefix("card ").unwrap().to_owned();
    assert!(token.starts_with("tok_") && token.ends_with("_1111"), "{token}");
    let ask = |token: &str| json!({ "token": token, "purpose": "chargeback" });
    let found = post(&door, "/v1/dlp/detokenise", ask(&token)).await;
    assert_eq!(found, json!({ "kind": "pan", "value": "4111 1111 1111 1111" }));
    let entries = told(&home).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["payload"]["clear"], json!({ "kind": "pan", "purpose": "chargeback" }));
    assert_eq!(entries[0]["actor"], home.log_key("local").pseudonym("admin").as_str());

    let no_purpose = door.post("/v1/dlp/detokenise", &json!({ "token": token, "purpose": "Ann said so" })).await;
    assert_eq!(problem(no_purpose).await, (422, "payload_invalid".to_owned()));
    for unknown in ["tea", "tok_aaaaaaaaaaaaaaaaaaaaaaaaaa_xxxx"] {
        let missing = door.post("/v1/dlp/detokenise", &ask(unknown)).await;
        assert_eq!(problem(missing).await, (404, "not_found".to_owned()), "{unknown}");
    }
    // Who may use the village may scan, and no more; a key alone is no second factor.
    let (_, user) = door.account("ada", &["user"]).await;
    assert_eq!(door.post_by(&user, "/v1/dlp/scan", json!({ "text": TEXT })).await.status(), 200);
    for (path, body) in [("/v1/dlp/redact", json!({ "text": TEXT })), ("/v1/dlp/detokenise", ask(&token))] {
        assert_eq!(problem(door.post_by(&user, path, body).await).await, (403, "forbidden".to_owned()), "{path}");
    }
    let (_, builder) = door.account("ben", &["developer"]).await;
    assert_eq!(door.post_by(&builder, "/v1/dlp/redact", json!({ "text": TEXT })).await.status(), 200);
    assert_eq!(door.post_by(&builder, "/v1/dlp/detokenise", ask(&token)).await.status(), 403);
    let (_, admin) = door.account("adm", &["admin"]).await;
    assert_eq!(door.post_by(&admin, "/v1/dlp/detokenise", ask(&token)).await.status(), 401, "mfa_required");
    assert_eq!(told(&home).await.len(), 1, "no answer, no entry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_tenant_is_as_if_it_were_not_there() {
    let (door, home) = Door::clustered_and_logged().await;
    let made = answer(door.post("/v1/tenants", &json!({ "name": "acme", "admin": "alice" })).await, 201).await;
    let alice = text(&made["admin"], "key");
    let redacted =
        answer(door.post_by(&alice, "/v1/dlp/redact", json!({ "text": "card 4111 1111 1111 1111" })).await, 200).await;
    let token = text(&redacted, "text").strip_prefix("card ").unwrap().to_owned();
    let ask = async |token: &str| {
        let response = door.post("/v1/dlp/detokenise", &json!({ "token": token, "purpose": "curiosity" })).await;
        let mut body = answer(response, 404).await;
        body["trace_id"].take();
        body["instance"].take();
        body
    };
    assert_eq!(ask(&token).await, ask("tok_aaaaaaaaaaaaaaaaaaaaaaaaaa_xxxx").await);
    assert_eq!(told(&home).await, Vec::<Value>::new());
}
