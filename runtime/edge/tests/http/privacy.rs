//! What is kept of people over HTTP: who may see and erase it, what is left, and what a suspended sender may still do.

use std::path::{Path, PathBuf};

use aivillage_governance::cases::{Cases, Sender};
use aivillage_governance::erasure::CertificateSigner;
use aivillage_governance::keys::SignedCertificate;
use aivillage_governance::moderation::{Action, Category, CheckRequest, H2Action, Policy, Stage, Verdict};
use aivillage_runtime::{Batch, Level, TreeId};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::accounts::{GOOD, code, json as answer, text};
use crate::harness::{Door, eventually, problem};

const CANARY: &str = "where does the canary sing at dawn?";
const DECOY: &str = "where does the second canary sing?";
const NAME: &str = "ada.lovelace@example.org";

impl Door {
    /// A session of a person who has shown a second factor.
    async fn raised(&self, name: &str, roles: &[&str]) -> String {
        let (id, _) = self.person(name, roles).await;
        let login = self.login(json!({ "name": name, "password": GOOD, "grant": "session" })).await;
        let session = text(&answer(login, 200).await, "session");
        let offer = answer(self.post_by(&session, &format!("/v1/users/{id}/totp"), json!({})).await, 200).await;
        let shown = json!({ "code": code(&text(&offer, "url")) });
        let confirm = self.post_by(&session, &format!("/v1/users/{id}/totp/confirm"), shown).await;
        let recovery = answer(confirm, 200).await["recovery_codes"][0].clone();
        let raised = self.post_by(&session, "/v1/auth/mfa", json!({ "code": recovery })).await;
        text(&answer(raised, 200).await, "session")
    }

    async fn ask(&self, key: &str, idem: &str) -> Response {
        let request = self.by(key, Method::POST, "/v1/agents/sage/ask").header("idempotency-key", idem);
        request.json(&json!({ "input": CANARY })).send().await.unwrap()
    }

    async fn erase(&self, credential: &str, subject: &str) -> Response {
        self.post_by(credential, "/v1/erasures", json!({ "subject": subject })).await
    }

    /// Opens a case about what somebody sent, as the gate does for something grave.
    async fn accuse(&self, subject: &str) -> String {
        let content = "The library opens at nine on Saturdays.".to_owned();
        let request = CheckRequest { content: content.clone(), ..CheckRequest::default() };
        let verdict = self.governance.moderator.check(&request, &Policy::all(H2Action::Block)).unwrap();
        let verdict = Verdict { action: Action::Seal, category: Some(Category::ViolentThreat), ..verdict };
        let sender = Sender::new("local", subject);
        Cases::new(&self.village).open(verdict, sender, Stage::UserInput, content).await.unwrap().case
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_shown_and_erased_by_who_may_and_nobody_else_learns_of_them() {
    let data = tempfile::tempdir().unwrap();
    let config = "node.listen = '127.0.0.1:0'".parse().unwrap();
    let door = Door::on(|builder| builder.config(config).clustered().data_dir(data.path()), |_| {}).await;
    let made = answer(door.post("/v1/tenants", &json!({ "name": "acme", "admin": "alice" })).await, 201).await;
    let alice = text(&made["admin"], "key");
    let (id, key) = door.person(NAME, &["user"]).await;
    let (bob, bobs) = door.account("bob", &["user"]).await;
    let dee = door.raised("dee", &["dpo"]).await;
    let first = answer(door.ask(&key, "k-1").await, 200).await;
    let again = door.ask(&key, "k-1").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(answer(again, 200).await, first, "sealed meanwhile, the same");
    let documents = json!({ "documents": [{ "id": "d-1", "text": "a kettle" }] });
    let ingest = door.by(&door.key, Method::POST, "/v1/memory/documents").header("prefer", "respond-async");
    let job = answer(ingest.json(&documents).send().await.unwrap(), 202).await;

    let path = |whom: &str| format!("/v1/dsar/{whom}");
    let own = answer(door.get_by(&key, &path(&id)).await, 200).await;
    assert_eq!((&own["accounts"][0]["name"], own["accounts"][0].get("passwords")), (&json!(NAME), None));
    assert!(own["conversations"].to_string().contains("canary"), "{own}");
    assert!(own["answers"].to_string().contains("nothing in the village memory"), "{own}");
    assert_eq!(problem(door.get_by(&key, &path(&bob)).await).await, (403, "forbidden".to_owned()));
    assert_eq!(problem(door.get_by(&bobs, &path(&id)).await).await, (403, "forbidden".to_owned()));
    assert_eq!(answer(door.get_by(&dee, &path(NAME)).await, 200).await, own, "by the name, too");
    let theirs = answer(door.get_by(&dee, &path("admin")).await, 200).await;
    assert_eq!(theirs["jobs"][0]["id"], job["id"]);
    let elsewhere = answer(door.get_by(&alice, &path(&id)).await, 200).await;
    assert!(elsewhere.as_object().unwrap().values().all(|items| items == &json!([])), "{elsewhere}");

    for credential in [&key, &bobs] {
        assert_eq!(problem(door.erase(credential, &id).await).await, (403, "forbidden".to_owned()));
    }
    assert!(!answer(door.ask(&key, "k-2").await, 200).await["conversation"].is_null(), "nothing happened");
    let erased = answer(door.erase(&dee, NAME).await, 201).await;
    let signed = SignedCertificate::from_json(erased["certificate"].to_string().as_bytes()).unwrap();
    let vault = answer(door.get("/v1/vault").await, 200).await;
    let signer = door.village.provided::<CertificateSigner>().unwrap();
    assert_eq!(vault["certificate_key"], json!(signer.public_key().unwrap().to_string()));
    signed.verify(signer.public_key().unwrap()).unwrap();
    let counted = |owner: &str| {
        let stores = signed.certificate.stores.iter().filter(|store| store.owner == owner);
        stores.map(|store| (store.enumerated, store.remaining)).collect::<Vec<_>>()
    };
    assert_eq!((counted("answers"), counted("jobs")), (vec![(2, 0)], vec![(0, 0)]));
    assert!(counted("accounts")[0].0 >= 2 && counted("conversations")[0].0 >= 2, "{signed:?}");

    eventually("a key that is refused", async || (door.ask(&key, "k-1").await.status() == 401).then_some(())).await;
    let unknown = problem(door.login(json!({ "name": "nobody", "password": GOOD })).await).await;
    assert_eq!(problem(door.login(json!({ "name": NAME, "password": GOOD })).await).await, unknown);
    assert_eq!(answer(door.erase(&dee, &id).await, 201).await, erased, "asked again, the same certificate");
    let certificate = format!("/v1/erasures/{}", text(&erased, "id"));
    assert_eq!(answer(door.get_by(&dee, &certificate).await, 200).await, erased);
    assert_eq!(problem(door.get_by(&bobs, &certificate).await).await.0, 403);
    assert_eq!(problem(door.get_by(&alice, &certificate).await).await, (404, "not_found".to_owned()));
    let left = answer(door.get_by(&dee, &path(&id)).await, 200).await;
    assert!(left.as_object().unwrap().values().all(|items| items == &json!([])), "{left}");

    let (other, key) = door.person("Ada.Lovelace@example.org", &["user"]).await;
    assert_ne!(other, id);
    let own = answer(door.get_by(&key, &path(&other)).await, 200).await;
    assert!(!own.to_string().contains("canary"), "the name is free, what it stood for is gone: {own}");
    let request = door.by(&key, Method::POST, "/v1/agents/sage/ask").header("idempotency-key", "k-1");
    let asked = request.json(&json!({ "input": DECOY })).send().await.unwrap();
    assert_eq!(asked.status(), 200, "and the new one may keep things");
    let clear = Batch::new().put(TreeId(60_000), "clear", "a decoy that nobody has sealed");
    door.village.store().commit(clear, Level::Disk).await.unwrap();
    door.village.shutdown().await.unwrap();
    // Of the living, too, all is sealed.
    for sealed in [CANARY, NAME, DECOY, "Ada.Lovelace@example.org"] {
        assert_eq!(files_with(data.path(), sealed), Vec::<PathBuf>::new(), "{sealed}");
    }
    assert!(!files_with(data.path(), "a decoy that nobody has sealed").is_empty(), "what is there is found");
}

/// The files below a folder that hold these bytes.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_sender_may_read_and_appeal_and_passes_again_when_the_appeal_is_won() {
    let door = Door::open().await;
    let (id, key) = door.person("ada", &["user"]).await;
    assert_eq!(door.ask(&key, "k-1").await.status(), 200);
    let case = door.accuse(&id).await;
    let refused = eventually("a suspension", async || {
        let refused = door.ask(&key, "k-2").await;
        (refused.status() == 403).then_some(refused)
    })
    .await;
    let told: Value = refused.json().await.unwrap();
    assert_eq!((&told["code"], &told["notice"]["case"]), (&json!("suspended"), &json!(case)), "{told}");
    assert_eq!((&told["article"], told["notice"]["until"].is_u64()), (&json!("A1.1"), true), "{told}");
    let documents = json!({ "documents": [{ "id": "d-1", "text": "a kettle" }] });
    let kept = door.post_by(&key, "/v1/memory/documents", documents).await;
    assert_eq!(problem(kept).await, (403, "suspended".to_owned()));
    assert_eq!(door.get_by(&key, "/v1/agents").await.status(), 200, "reading goes on");
    assert_eq!(door.post("/v1/agents/sage/ask", &json!({ "input": "tea?" })).await.status(), 200, "so do others");

    let held = problem(door.erase(&door.key, &id).await).await;
    assert_eq!(held, (409, "erasure_held".to_owned()), "it is evidence");
    assert_eq!(door.get_by(&key, "/v1/auth/me").await.status(), 200, "nothing was destroyed");

    let appeal = door.post_by(&key, &format!("/v1/cases/{case}/appeal"), json!({ "grounds": "not_harmful" })).await;
    assert_eq!(answer(appeal, 200).await["grounds"], "not_harmful");
    eventually("a second look", async || {
        let seen: Value = door.get_by(&key, &format!("/v1/cases/{case}")).await.json().await.unwrap();
        (seen["phase"] == "overturned").then_some(())
    })
    .await;
    eventually("to be let in again", async || (door.ask(&key, "k-3").await.status() == 200).then_some(())).await;
    let erased = answer(door.erase(&door.key, &id).await, 201).await;
    let stores = erased["certificate"]["certificate"]["stores"].as_array().unwrap();
    let cases = stores.iter().find(|store| store["owner"] == "cases").unwrap();
    assert_eq!((&cases["enumerated"], &cases["remaining"]), (&json!(1), &json!(0)));
}
