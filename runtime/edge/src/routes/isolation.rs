//! What belongs to another tenant is as if it were not there: random requests over every route, two at a time.
//!
//! One of the two names something of another tenant, the other one something that nobody has. Status and body must be the
//! same, and nothing of the other tenant's words may be in them.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use aivillage_governance::identity::HOME;
use aivillage_runtime::Village;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::{Class, Route, documented, public};
use crate::config::{EdgeConfig, LimitsConfig};
use crate::door::Door;
use crate::pipeline::Peer;

/// Pairs of requests; twice as many requests. `ISOLATION_PAIRS` sets another number.
const PAIRS: usize = 50_000;
/// Words of the other tenant.
const CANARY: &str = "quetzalcoatlus";
/// An account that nobody has.
const NOBODY: &str = "0198c0de-7000-7000-8000-0000000000ff";
const GOOD: &str = "umbrella-plinth-otter-forge";

struct Bench {
    router: Router,
    _village: Village,
    _dir: tempfile::TempDir,
    root: String,
}

impl Bench {
    async fn new() -> Self {
        let config = "node.listen = '127.0.0.1:0'\n[governance.defence]\nprincipal = '1000000/s'\ntenant = '1000000/s'";
        let builder = Village::builder().config(config.parse().unwrap()).clustered();
        let builder = aivillage_memory::install(crate::install(builder));
        let (builder, governance) = aivillage_governance::install(aivillage_actors::install(builder).unwrap()).unwrap();
        governance.secret.set(zeroize::Zeroizing::new([7; 32]));
        let (village, dir) = (builder.start().await.unwrap(), tempfile::tempdir().unwrap());
        let limits = LimitsConfig { login: "1000/s burst 1000".parse().unwrap() };
        let config = EdgeConfig { limits, ..EdgeConfig::default() };
        let listens = [(Ipv4Addr::LOCALHOST, 1).into(), (Ipv4Addr::LOCALHOST, 2).into()];
        let (door, key) =
            Door::open(&village, config, dir.path(), (&governance, governance.gate.clone(), None), listens).unwrap();
        governance.begin(&village).await;
        while governance.pdp.epoch().is_none() {
            tokio::task::yield_now().await;
        }
        let root = std::fs::read_to_string(key).unwrap().trim().to_owned();
        Self { router: public(&door), _village: village, _dir: dir, root }
    }

    async fn send(&self, key: &str, method: &Method, path: &str, body: &Value) -> (u16, String) {
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        let request = request.header(header::HOST, "localhost").extension(Peer(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let body = if *method == Method::GET { Body::empty() } else { Body::from(body.to_string()) };
        let answered: Result<_, Infallible> = self.router.clone().oneshot(request.body(body).unwrap()).await;
        let response = answered.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn made(&self, key: &str, method: Method, path: &str, body: Value) -> Value {
        let (status, text) = self.send(key, &method, path, &body).await;
        assert!((200..300).contains(&status), "{method} {path} {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn post(&self, key: &str, path: &str, body: Value) -> Value {
        self.made(key, Method::POST, path, body).await
    }

    /// A tenant's first key and its administrator's id.
    async fn tenant(&self, name: &str, admin: &str) -> (String, String) {
        let made = self.post(&self.root, "/v1/tenants", json!({ "name": name, "admin": admin })).await;
        (text(&made["admin"]["key"]), text(&made["admin"]["subject"]))
    }

    /// A session with a second factor.
    async fn session(&self, tenant: &str, name: &str, (key, id): (&str, &str)) -> String {
        self.post(key, &format!("/v1/users/{id}/password"), json!({ "new": GOOD })).await;
        let offer = self.post(key, &format!("/v1/users/{id}/totp"), json!({})).await;
        let totp = totp_rs::Totp::from_url(text(&offer["url"])).unwrap();
        let code = totp.generate(aivillage_runtime::clock::unix_ms() / 1_000).to_string();
        let codes = self.post(key, &format!("/v1/users/{id}/totp/confirm"), json!({ "code": code })).await;
        let login = json!({ "tenant": tenant, "name": name, "password": GOOD, "grant": "session" });
        let challenge = self.post("", "/v1/auth/login", login).await;
        let body = json!({ "challenge": challenge["challenge"], "code": codes["recovery_codes"][0] });
        text(&self.post("", "/v1/auth/mfa", body).await["session"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What the other tenant has, by what it is.
struct Things {
    document: String,
    conversation: String,
    /// One that others speak in: they have one of that name then, of their own.
    spoken: String,
    job: String,
    user: String,
    key: String,
    token: String,
}

/// A tenant whose words are the canary's.
async fn acme(bench: &Bench) -> Things {
    let (key, user) = bench.tenant("acme", CANARY).await;
    let document = "0198c0de-7000-7000-8000-000000000001".to_owned();
    let words =
        json!({ "documents": [{ "id": document, "text": format!("The {CANARY} flies at noon over the harbour.") }] });
    bench.post(&key, "/v1/memory/documents?wait=searchable", words.clone()).await;
    let ask = json!({ "input": format!("When does the {CANARY} fly?") });
    let conversation = text(&bench.post(&key, "/v1/agents/sage/ask", ask.clone()).await["conversation"]);
    let spoken = text(&bench.post(&key, "/v1/agents/sage/ask", ask).await["conversation"]);
    // A job is of who started it, whatever became of it.
    let request =
        Request::post("/v1/memory/documents").header(header::HOST, "localhost").header("prefer", "respond-async");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    let response = bench.router.clone().oneshot(request.body(Body::from(words.to_string())).unwrap()).await.unwrap();
    let job: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let api_key = bench.post(&key, "/v1/keys", json!({ "label": CANARY })).await;
    let redacted = bench.post(&key, "/v1/dlp/redact", json!({ "text": "4111 1111 1111 1111" })).await;
    let (job, api_key, token) = (text(&job["id"]), text(&api_key["id"]), text(&redacted["text"]));
    Things { document, conversation, spoken, job, user, key: api_key, token }
}

/// A name that the template's route would look for: of the other tenant, and of nobody.
fn names(template: &str, things: &Things, rng: &mut StdRng) -> (String, String) {
    let nobodys =
        || Uuid::from_u128(0x0198_c0de_7000_7000_8000_0000_0000_0000 | u128::from(rand::random::<u32>())).to_string();
    let letters = |rng: &mut StdRng| (0..10).map(|_| char::from(b'a' + rng.random_range(0..26))).collect::<String>();
    match template {
        _ if template.starts_with("/v1/memory/documents") => (things.document.clone(), nobodys()),
        _ if template.starts_with("/v1/conversations") => (things.conversation.clone(), nobodys()),
        _ if template.starts_with("/v1/jobs") => (things.job.clone(), nobodys()),
        _ if template.starts_with("/v1/users") => (things.user.clone(), nobodys()),
        _ if template.starts_with("/v1/keys") => (things.key.clone(), letters(rng)),
        _ if template.starts_with("/v1/tenants") => ("acme".to_owned(), letters(rng)),
        _ => (letters(rng), letters(rng)),
    }
}

/// A body with the one name or the other.
fn bodies(template: &str, (real, none): (&str, &str), things: &Things, rng: &mut StdRng) -> (Value, Value) {
    let same = |body: Value| (body.clone(), body);
    match template {
        "/v1/memory/query" => same(json!({ "query": format!("the {CANARY} over the harbour") })),
        "/v1/keys" => (json!({ "subject": things.user }), json!({ "subject": NOBODY })),
        "/v1/agents/{id}/ask" => {
            let ask = |conversation: &str| json!({ "input": format!("When does the {CANARY} fly?"), "conversation": conversation });
            (ask(&things.spoken), ask(&Uuid::now_v7().to_string()))
        }
        "/v1/dlp/detokenise" => {
            let ask = |token: &str| json!({ "token": token, "purpose": "curiosity" });
            (ask(&things.token), ask("tok_aaaaaaaaaaaaaaaaaaaaaaaaaa_1111"))
        }
        _ if template.starts_with("/v1/dlp") => same(json!({ "text": "card 5555 5555 5555 4444" })),
        "/v1/users/{id}" if rng.random() => same(json!({ "suspended": true })),
        "/v1/users/{id}" => same(json!({ "roles": ["guest"] })),
        "/v1/users/{id}/password" => same(json!({ "new": GOOD })),
        "/v1/users/{id}/totp/confirm" => same(json!({ "code": "123456" })),
        "/v1/tenants/{name}" => same(json!({ "suspended": true })),
        "/v1/tenants" => (json!({ "name": "acme", "admin": "x" }), json!({ "name": "nowhere", "admin": "x" })),
        _ if template.starts_with("/v1/actors") => {
            let message = ["Get", "List", "Stats", "Query", "Delete", "History", "Ask"][rng.random_range(0..7)];
            same(json!({ "type": message, "payload": [] }))
        }
        _ => (json!({ "node": real }), json!({ "node": none })),
    }
}

/// The template with one name or the other in its parts.
fn paths(template: &str, (real, none): (&str, &str), rng: &mut StdRng) -> (String, String) {
    let kinds = [
        "agent",
        "agent.conversation",
        "memory.shard",
        "memory.registry",
        "memory.retriever",
        "gov.identity",
        "edge.job",
    ];
    let kind = kinds[rng.random_range(0..kinds.len())];
    let after = [":sage", "%2Fdefault", "", ":0"][rng.random_range(0..4)];
    let fill = |name: &str, tenant: &str| {
        let parts = template.split('/').map(|part| match part {
            "{kind}" => kind.to_owned(),
            "{key}" => format!("{tenant}{after}"),
            "{tool}" => "recall".to_owned(),
            "{id}" if template.starts_with("/v1/agents") || template.starts_with("/v1/models") => "sage".to_owned(),
            _ if part.starts_with('{') => name.to_owned(),
            _ => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let query = |path: String, name: &str| match template {
        "/v1/keys" => format!("{path}?subject={name}"),
        _ => path,
    };
    (query(fill(real, "acme"), real), query(fill(none, "acmf"), none))
}

/// What two answers may differ in: the name that was asked for, and the trace.
fn plain(body: &str, (name, account): (&str, &str), path: &str) -> String {
    let body = body.replace(path, "PATH").replace(&path.replace("%2F", "/"), "PATH").replace(name, "NAME");
    let body = body.replace("acmf", "acme").replace(account, "ACCOUNT");
    match serde_json::from_str::<Value>(&body) {
        Ok(mut value) => {
            for volatile in ["trace_id", "conversation", "turn", "id", "elapsed_ms", "usage"] {
                value.as_object_mut().map(|object| object.remove(volatile));
            }
            if let Some(error) = value.get_mut("error").and_then(Value::as_object_mut) {
                error.remove("trace_id");
            }
            value.to_string()
        }
        Err(_) => body,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_another_tenant_shows_in_100_000_random_requests() {
    let bench = Bench::new().await;
    let things = acme(&bench).await;
    let (admin, id) = bench.tenant("beta", "bert").await;
    let session = bench.session("beta", "bert", (&admin, &id)).await;
    let who = [admin, session];
    let (_, document) = documented().split_for_parts();
    let document = serde_json::to_value(document).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let asks = matches!(Route::of(Some(path)).class, Class::Api | Class::Chat | Class::Upload);
        let methods = item.as_object().unwrap().keys().filter(|_| asks);
        operations.extend(methods.map(|method| (method.to_uppercase().parse::<Method>().unwrap(), path.clone())));
    }
    let pairs = std::env::var("ISOLATION_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(PAIRS);
    let seed = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut statuses = std::collections::BTreeMap::new();
    for n in 0..pairs {
        let (method, template) = &operations[rng.random_range(0..operations.len())];
        // Whole turns of an agent take milliseconds, new keys and users are kept: now and then.
        let is_heavy = template.ends_with("/ask")
            || template.contains("/chat/")
            || template.contains("/tools/")
            || template.contains("rotate");
        if is_heavy && !rng.random_ratio(1, 100) {
            continue;
        }
        let (real, none) = names(template, &things, &mut rng);
        let (one, other) = paths(template, (&real, &none), &mut rng);
        let (body, other_body) = bodies(template, (&real, &none), &things, &mut rng);
        let key = &who[rng.random_range(0..who.len())];
        let (status, first) = bench.send(key, method, &one, &body).await;
        let (other_status, second) = bench.send(key, method, &other, &other_body).await;
        let at = format!("seed {seed} pair {n}: {method} {one} {body}");
        assert_eq!(status, other_status, "{at}\n{first}\n{second}");
        if !template.ends_with("/ask") {
            let theirs = plain(&first, (&real, &things.user), &one);
            assert_eq!(theirs, plain(&second, (&none, NOBODY), &other), "{at}");
        }
        // The question is not an answer.
        let words =
            first.replace(&format!("When does the {CANARY} fly?"), "").replace(&format!("the {CANARY} over"), "");
        assert!(!words.contains(CANARY), "{at}\n{first}");
        *statuses.entry((format!("{method} {template}"), status)).or_insert(0_u32) += 1;
    }
    // Each operation was tried, and some were let in: the walls are not only the first one.
    let tried: std::collections::BTreeSet<_> = statuses.keys().map(|(operation, _)| operation).collect();
    assert!(tried.len() + 2 >= operations.len() || pairs < PAIRS, "{} of {}", tried.len(), operations.len());
    assert!(statuses.keys().any(|(_, status)| *status == 200) && !HOME.is_empty(), "{statuses:?}");
    assert!(statuses.keys().all(|(_, status)| *status < 500), "{statuses:?}");
}
