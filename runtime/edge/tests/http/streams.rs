//! Streams end when the right to them does: at every node, with what a request would be told now.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::accounts::{GOOD, json as answer, text};
use crate::events::Reader;
use crate::harness::{Door, problem};

/// The shortest there is.
const STALE: &str = "governance.stale_after = '2s'";

/// A second, and time for a busy machine.
const SOON: Duration = Duration::from_secs(3);

async fn events(door: &Door, credential: &str) -> Reader {
    Reader::new(door.get_by(credential, "/v1/events?topics=news").await)
}

/// What the last event of a stream says, once it has ended.
async fn end(reader: &mut Reader) -> Value {
    let ended = async {
        let mut last = None;
        while let Some(event) = reader.next().await {
            last = Some(event);
        }
        last.unwrap()
    };
    let last = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the stream goes on");
    assert_eq!(last.name, "denied", "{last:?}");
    serde_json::from_str(&last.data).unwrap()
}

/// All of them end with this code, soon after `change`.
async fn all_end(readers: impl IntoIterator<Item = Reader>, code: &str, change: impl Future<Output = Response>) {
    let changed = change.await;
    assert!(changed.status().is_success(), "{}", changed.text().await.unwrap());
    let since = Instant::now();
    for mut reader in readers {
        let told = end(&mut reader).await;
        assert_eq!(told["code"], code, "{told}");
        assert_eq!(told["trace_id"].as_str().unwrap().len(), 32, "{told}");
    }
    assert!(since.elapsed() < SOON, "{:?} until streams that ended with {code}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_every_node_end_with_the_key_the_session_the_account_and_the_policy() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    let both = async |credential: &str| [events(&one, credential).await, events(&other, credential).await];

    let (id, key) = one.person("olga", &["operator"]).await;
    let made = answer(one.post("/v1/keys", &json!({ "subject": id })).await, 201).await;
    one.governed(&other, &text(&made, "key")).await;
    let unconcerned = [events(&one, &one.key).await, events(&other, &other.key).await];
    let streams = both(&text(&made, "key")).await;
    let revoked = format!("/v1/keys/{}", text(&made, "id"));
    all_end(streams, "unauthenticated", async { one.request(Method::DELETE, &revoked).send().await.unwrap() }).await;

    let login = json!({ "name": "olga", "password": GOOD, "grant": "session" });
    let session = text(&answer(one.login(login).await, 200).await, "session");
    one.governed(&other, &session).await;
    let streams = both(&session).await;
    all_end(streams, "unauthenticated", one.post_by(&session, "/v1/auth/logout", json!({}))).await;

    // Her other key goes on, with what its account may.
    let streams = both(&key).await;
    let account = format!("/v1/users/{id}");
    let change = async |body: Value| one.request(Method::PATCH, &account).json(&body).send().await.unwrap();
    all_end(streams, "forbidden", change(json!({ "roles": ["guest"] }))).await;
    change(json!({ "roles": ["operator"] })).await;
    one.governed(&other, &key).await;
    let streams = both(&key).await;
    all_end(streams, "unauthenticated", change(json!({ "suspended": true }))).await;

    let (_, key) = one.account("otto", &["operator"]).await;
    one.governed(&other, &key).await;
    let streams = both(&key).await;
    let forbid = "@id(\"nobody-looks\") @article(\"A10.2\")\n\
                  forbid (principal is AiVillage::User, action == AiVillage::Action::\"system.monitor\", resource)\n\
                  unless { principal.name == \"user:local/admin\" };";
    let bundle = json!({ "files": { "quiet.cedar": forbid }, "expect": 0 });
    all_end(streams, "forbidden", one.post("/v1/policy", &bundle)).await;
    assert_eq!(problem(other.get_by(&key, "/v1/events?topics=news").await).await, (403, "forbidden".into()));

    // The streams of whom nothing of this is about go on.
    for (mut reader, door) in unconcerned.into_iter().zip([&one, &other]) {
        door.village.topic("news").publish(json!("still here")).await.unwrap();
        assert_eq!(reader.next().await.unwrap().data, "\"still here\"");
    }
}

impl Door {
    /// Waits until the other node lets a new credential in.
    async fn governed(&self, other: &Door, credential: &str) {
        let (mut changes, looked) = (other.governance.verifier.changes(), |door: &Door| {
            door.governance.verifier.bearer(credential, aivillage_runtime::clock::unix_ms())
        });
        let may_look = |door: &Door| looked(door).is_ok_and(|it| it.verified.principal.has_role("operator"));
        while !(may_look(self) && may_look(other)) {
            let mut here = self.governance.verifier.changes();
            if may_look(self) {
                changes.changed().await.unwrap();
            } else {
                here.changed().await.unwrap();
            }
        }
    }
}

/// A model that begins to answer and never goes on.
async fn stalled() -> String {
    let answer = async || {
        let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
            "choices": [{ "index": 0, "delta": { "content": "The kettle is warm. ".repeat(40) }, "finish_reason": null }] });
        let first =
            futures::stream::once(async move { Ok::<_, std::convert::Infallible>(format!("data: {chunk}\n\n")) });
        let body = futures::StreamExt::chain(first, futures::stream::pending());
        ([("content-type", "text/event-stream")], axum::body::Body::from_stream(body))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/chat/completions", post(answer));
    #[allow(clippy::disallowed_methods, reason = "a server of the test, not of the product")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn an_answer_under_way_ends_with_the_key_in_both_dialects_and_is_logged() {
    let url = stalled().await;
    let config = format!("[[agents.provider]]\nid = 'openai:main'\nbase_url = '{url}'\nmodel = 'm'\ntools = true");
    let (door, home) = Door::configured_and_logged(&config).await;
    for (path, action, body) in [
        (
            "/v1/agents/sage/ask",
            "POST /v1/agents/{id}/ask",
            json!({ "input": "Is it warm?", "provider": "openai:main", "stream": true }),
        ),
        (
            "/v1/chat/completions",
            "POST /v1/chat/completions",
            json!({ "model": "sage@openai:main", "stream": true, "messages": [{ "role": "user", "content": "Is it warm?" }] }),
        ),
    ] {
        let (_, key) = door.account(path, &["user"]).await;
        let mut reader = Reader::new(door.post_by(&key, path, body).await);
        reader.next().await.unwrap();
        let id = key.split('_').nth(2).unwrap();
        let revoked = door.request(Method::DELETE, &format!("/v1/keys/{id}")).send().await.unwrap();
        assert!(revoked.status().is_success(), "{}", revoked.text().await.unwrap());
        let told = end(&mut reader).await;
        let code = told.get("code").unwrap_or(&told["error"]["code"]);
        assert!(["unauthenticated", "invalid_api_key"].contains(&code.as_str().unwrap()), "{told}");
        let entries = home.log().entries(None, 1_000).await.unwrap().entries;
        let entries = entries.iter().map(|entry| serde_json::from_slice::<Value>(entry).unwrap());
        let ended = entries.filter(|entry| entry["kind"] == "auth.deny" && entry["action"] == action);
        assert_eq!(ended.count(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_lets_nobody_in_and_ends_what_it_let_in() {
    // A node that dies without a word takes its half of the votes along.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (elsewhere, one) = std::thread::spawn(move || {
        let one = elsewhere.block_on(Door::clustered());
        (elsewhere, one)
    })
    .join()
    .unwrap();
    let other = Door::join_as(&one, STALE).await;
    let (_, key) = one.account("olga", &["operator"]).await;
    one.governed(&other, &key).await;
    // A topic whose home dies ends; one of many has its home at the other node.
    let topics = (0..32).map(|n| format!("t{n}")).collect::<Vec<_>>().join(",");
    let mut reader = Reader::new(other.get_by(&key, &format!("/v1/events?topics={topics}")).await);
    assert_eq!(other.get_by(&key, "/v1/agents").await.status(), 200);
    elsewhere.shutdown_background();

    let told = end(&mut reader).await;
    assert_eq!((&told["status"], &told["code"]), (&json!(503), &json!("governance_unavailable")), "{told}");
    for credential in [&key, &other.key] {
        let refused = other.get_by(credential, "/v1/agents").await;
        assert!(refused.headers().contains_key("retry-after"));
        assert_eq!(problem(refused).await, (503, "governance_unavailable".into()));
    }
    // Whose node it is can see why.
    let status: Value = other.get("/v1/cluster").await.json().await.unwrap();
    assert_eq!(status["health"], "no_quorum");
    std::mem::forget(one);
}
