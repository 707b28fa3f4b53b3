//! Two requests that differ in one name: one names something of the other tenant, one what nobody has.

use std::collections::BTreeMap;

use aivillage_governance::identity::bearer::{BEARER_RANDOM, Bearer, BearerKind, TenantTag};
use axum::http::Method;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::{Value, json};
use uuid::Uuid;

use super::bench::{Bench, CANARY, GOOD, Sent, Things, shared};
use crate::routes::{Class, Route, documented};

/// An account that nobody has.
pub(super) const NOBODY: &str = "0198c0de-7000-7000-8000-0000000000ff";

/// What only the other tenant has an answer to, which has the canary in it.
const QUESTION: &str = "What flies at noon over the harbour?";

/// Something that a request can be sent to.
#[derive(Debug, Clone)]
pub(super) enum Surface {
    Route { method: Method, template: String },
    Message { kind: &'static str, name: String, schema: Option<Value> },
}

impl Surface {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Route { method, template } => format!("{method} {template}"),
            Self::Message { kind, name, .. } => format!("{kind} {name}"),
        }
    }

    /// Whether one takes milliseconds: a turn, a hash of a password, an index, a new key, an erasure on all nodes.
    fn is_heavy(&self) -> bool {
        match self {
            Self::Message { name, .. } => matches!(&**name, "Ask" | "CallTool" | "Put" | "Ensure" | "Parse"),
            Self::Route { method, template } => {
                let changes = *method == Method::POST;
                let heavy = ["/ask", "/chat/completions", "/rotate", "/auth/login", "/openapi.json"];
                let made = ["/v1/users", "/v1/erasures", "/v1/memory/documents"];
                heavy.iter().any(|end| template.ends_with(end))
                    || template.contains("/tools/")
                    || (changes && made.contains(&&**template))
            }
        }
    }

    /// Whether the same request has the same answer each time.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Route { method, template } => *method == Method::GET || template.ends_with("/query"),
            Self::Message { name, .. } => ["Get", "List", "Stats", "Query", "Card", "Describe"].contains(&&**name),
        }
    }

    /// What it makes under the name that it is given, if anything: whoever asks twice then finds what they made.
    fn makes(&self) -> Option<&'static str> {
        match self {
            Self::Message { name, .. } => match &**name {
                "Put" | "Parse" | "Ensure" => Some("documents"),
                "Ask" | "CallTool" => Some("conversations"),
                _ => None,
            },
            Self::Route { method, template } if *method == Method::POST => match &**template {
                "/v1/memory/documents" => Some("documents"),
                "/v1/agents/{id}/ask" => Some("conversations"),
                "/v1/users" => Some("users"),
                _ => None,
            },
            Self::Route { .. } => None,
        }
    }

    /// Whether a credential is asked for.
    pub(super) fn asks(&self) -> bool {
        match self {
            Self::Route { template, .. } => Route::of(Some(template)).class.asks(),
            Self::Message { .. } => true,
        }
    }
}

impl Class {
    fn asks(self) -> bool {
        matches!(self, Self::Api | Self::Chat | Self::Upload)
    }
}

/// Every documented operation, and every message that a kind exposes.
pub(super) fn surfaces(bench: &Bench) -> Vec<Surface> {
    let (_, document) = documented().split_for_parts();
    let document = serde_json::to_value(document).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys();
        all.extend(methods.map(|method| {
            let method = method.to_uppercase().parse().unwrap();
            Surface::Route { method, template: path.clone() }
        }));
    }
    for kind in bench.village.kinds() {
        all.extend(kind.messages.iter().map(|message| {
            let (name, schema) = (message.name.clone(), message.schema.clone());
            Surface::Message { kind: kind.kind, name, schema }
        }));
    }
    all
}

/// So many of them in a random order: the heavy ones `least` times, the others evenly as often as it takes.
pub(super) fn deck(surfaces: &[Surface], (pairs, least): (usize, usize), rng: &mut StdRng) -> Vec<Surface> {
    let (heavy, light): (Vec<_>, Vec<_>) = surfaces.iter().partition(|surface| surface.is_heavy());
    let each = (pairs.saturating_sub(heavy.len() * least)).div_ceil(light.len()).max(least);
    let heavy = heavy.into_iter().flat_map(|surface| std::iter::repeat_n(surface, least));
    let light = light.into_iter().flat_map(|surface| std::iter::repeat_n(surface, each));
    let mut deck: Vec<_> = heavy.chain(light).cloned().collect();
    deck.shuffle(rng);
    deck
}

/// Draws requests.
pub(super) struct Draw<'a> {
    pub(super) things: &'a Things,
    pub(super) rng: StdRng,
    /// [`shared`] names that are used up, by what uses them: whoever used one has something of that name.
    used: BTreeMap<&'static str, usize>,
}

/// Two requests, and the name that each has instead of the other's.
pub(super) struct Pair {
    pub(super) theirs: (Sent, String),
    pub(super) nobodys: (Sent, String),
}

impl<'a> Draw<'a> {
    pub(super) fn new(things: &'a Things, rng: StdRng) -> Self {
        Self { things, rng, used: BTreeMap::new() }
    }

    pub(super) fn pair(&mut self, surface: &Surface) -> Pair {
        let (real, none) = self.names(surface);
        let seed: u64 = self.rng.random();
        let (theirs, nobodys) = match surface {
            Surface::Route { method, template } => {
                let sent = |name: &str, tenant: &str| {
                    // Both draw the same.
                    let mut rng = rand::SeedableRng::seed_from_u64(seed);
                    let path = path(template, (name, tenant));
                    Sent { method: method.clone(), path, body: body(template, (name, tenant), &mut rng) }
                };
                (sent(&real, "acme"), sent(&none, "acmf"))
            }
            Surface::Message { kind, name, schema } => {
                let sent = |id: &str, tenant: &str| {
                    let mut rng: StdRng = rand::SeedableRng::seed_from_u64(seed);
                    let tenant = if rng.random() { tenant } else { "beta" };
                    let after = match *kind {
                        _ if tenant != "beta" => {
                            (*[":sage", "%2Fdefault", "", ":0", "%2F"].choose(&mut rng).unwrap()).to_owned()
                        }
                        // What is of the own tenant has a key of the form that its kind asks for.
                        "agent" => ":sage".to_owned(),
                        "agent.conversation" => format!(":{id}"),
                        "memory.shard" => "%2Fdefault".to_owned(),
                        _ => String::new(),
                    };
                    let alias = if rng.random() { "/messages" } else { "" };
                    let path = format!("/v1/actors/{kind}/{tenant}{after}{alias}");
                    // A number alone names something, such as a note.
                    let is_number = |schema: &Value| schema["type"] == "integer";
                    let payload = schema.as_ref().map(|schema| match schema {
                        schema if is_number(schema) => json!(u32::MAX),
                        schema => filled(schema, schema, id, &mut rng),
                    });
                    Sent { method: Method::POST, path, body: json!({ "type": name, "payload": payload }) }
                };
                (sent(&real, "acme"), sent(&none, "acmf"))
            }
        };
        Pair { theirs: (theirs, real), nobodys: (nobodys, none) }
    }

    /// A name that is looked for: of the other tenant, and of nobody.
    fn names(&mut self, surface: &Surface) -> (String, String) {
        let random = self.rng.random::<u32>();
        let nobodys = Uuid::from_u128(0x0198_c0de_7000_7000_8000_0000_0000_0000 | u128::from(random)).to_string();
        let letters =
            |rng: &mut StdRng| (0..10).map(|_| char::from(b'a' + rng.random_range(0..26))).collect::<String>();
        let things = self.things;
        let Surface::Route { template, .. } = surface else {
            let known = [&things.document, &things.conversation, &things.job, &things.user, &things.case];
            let real = (*known.choose(&mut self.rng).unwrap()).clone();
            return match surface.makes() {
                Some(pool) => (self.fresh(pool), nobodys),
                None => (real, nobodys),
            };
        };
        if let Some(pool) = surface.makes() {
            return (self.fresh(pool), nobodys);
        }
        match &**template {
            "/v1/auth/login" => (CANARY.to_owned(), letters(&mut self.rng)),
            it if it.starts_with("/v1/memory") => (things.document.clone(), nobodys),
            it if it.starts_with("/v1/conversations") => (things.conversation.clone(), nobodys),
            it if it.starts_with("/v1/jobs") => (things.job.clone(), nobodys),
            it if it.starts_with("/v1/cases") => (things.case.clone(), nobodys),
            "/v1/erasures/{id}" => (things.erasure.clone(), nobodys),
            "/v1/dlp/detokenise" => (things.token.clone(), "tok_aaaaaaaaaaaaaaaaaaaaaaaaaa_1111".to_owned()),
            it if it.starts_with("/v1/users") || it.starts_with("/v1/dsar") => (things.user.clone(), nobodys),
            "/v1/erasures" => (things.user.clone(), NOBODY.to_owned()),
            "/v1/keys" => (things.user.clone(), nobodys),
            "/v1/keys/{id}" => (things.key.clone(), letters(&mut self.rng)),
            it if it.starts_with("/v1/tenants") => ("acme".to_owned(), letters(&mut self.rng)),
            _ => (letters(&mut self.rng), letters(&mut self.rng)),
        }
    }

    /// A name that the other tenant uses, and that is not used here yet.
    fn fresh(&mut self, pool: &'static str) -> String {
        let next = self.used.entry(pool).or_default();
        *next += 1;
        shared(*next - 1)
    }
}

fn path(template: &str, (name, tenant): (&str, &str)) -> String {
    let parts = template.split('/').map(|part| match part {
        "{kind}" => "memory.shard".to_owned(),
        "{key}" => format!("{tenant}%2Fdefault"),
        "{tool}" => "recall".to_owned(),
        "{period}" => "2026-Q1".to_owned(),
        "{id}" if template.starts_with("/v1/agents") || template.starts_with("/v1/models") => "sage".to_owned(),
        _ if part.starts_with('{') => name.to_owned(),
        _ => part.to_owned(),
    });
    let path = parts.collect::<Vec<_>>().join("/");
    match template {
        "/v1/keys" => format!("{path}?subject={name}"),
        "/v1/users" => format!("{path}?name={name}"),
        "/v1/events" => format!("{path}?topics=jobs.{name},agents.{name}"),
        "/v1/memory/documents" => format!("{path}?wait=searchable"),
        _ => path,
    }
}

/// What the route reads, with the name where there is one.
fn body(template: &str, (name, tenant): (&str, &str), rng: &mut StdRng) -> Value {
    let minted = |kind| {
        let random = [7; BEARER_RANDOM];
        Bearer::mint(kind, TenantTag::of(tenant), &random).secret.expose().to_owned()
    };
    match template {
        "/v1/memory/query" => json!({ "text": QUESTION }),
        "/v1/memory/documents" => json!({ "documents": [{ "id": name, "text": format!("Boat {name} leaves.") }] }),
        "/v1/agents/{id}/ask" => json!({ "input": QUESTION, "conversation": name }),
        "/v1/chat/completions" => {
            json!({ "model": "sage", "stream": rng.random::<bool>(), "messages": [{ "role": "user", "content": QUESTION }] })
        }
        "/v1/moderations" => json!({ "input": QUESTION }),
        "/v1/cases/{id}/appeal" => json!({ "grounds": "context", "text": "an example" }),
        "/v1/cases/{id}/votes" => json!({ "choice": "uphold", "reason": "as the article says" }),
        "/v1/erasures" => json!({ "subject": name }),
        "/v1/dlp/detokenise" => json!({ "token": name, "purpose": "curiosity" }),
        it if it.starts_with("/v1/dlp") => json!({ "text": "card 5555 5555 5555 4444" }),
        "/v1/auth/login" => json!({ "tenant": tenant, "name": name, "password": GOOD.replace("otter", "heron") }),
        "/v1/auth/mfa" => json!({ "challenge": minted(BearerKind::Challenge), "code": "123456" }),
        "/v1/auth/refresh" => json!({ "refresh_token": minted(BearerKind::Refresh) }),
        "/v1/keys" => json!({ "subject": name }),
        "/v1/users" => json!({ "name": name, "roles": ["guest"] }),
        "/v1/users/{id}" if rng.random() => json!({ "suspended": true }),
        "/v1/users/{id}" => json!({ "roles": ["guest"] }),
        "/v1/users/{id}/password" => json!({ "new": GOOD }),
        "/v1/users/{id}/totp/confirm" => json!({ "code": "123456" }),
        "/v1/tenants/{name}" => json!({ "suspended": true }),
        "/v1/tenants" => json!({ "name": tenant, "admin": "x" }),
        it if it.starts_with("/v1/actors") => json!({ "type": "Get", "payload": name }),
        it if it.starts_with("/v1/policy") => {
            let resource = json!({ "kind": "Document", "id": name, "tenant": tenant });
            json!({ "action": "memory.query", "resource": resource })
        }
        it if it.contains("/tools/") => json!({ "query": QUESTION }),
        _ => json!({ "node": name }),
    }
}

/// Something of the schema, with the name wherever a text is wanted that is not said in words.
fn filled(root: &Value, schema: &Value, name: &str, rng: &mut StdRng) -> Value {
    if let Some(to) = schema["$ref"].as_str().and_then(|to| root.pointer(to.strip_prefix('#')?)) {
        return filled(root, to, name, rng);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.choose(rng)) {
        return choice.clone();
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return choices.choose(rng).map_or(Value::Null, |choice| filled(root, choice, name, rng));
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str()).unwrap_or_default();
    match kind {
        "object" => {
            let wanted = |field: &String| schema["required"].as_array().is_some_and(|all| all.contains(&json!(field)));
            let mut fields = serde_json::Map::new();
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                if wanted(field) || rng.random() {
                    let is_words = ["text", "input", "query", "content", "title"].contains(&&**field);
                    let value = if is_words { json!("the harbour at noon") } else { filled(root, of, name, rng) };
                    fields.insert(field.clone(), value);
                }
            }
            Value::Object(fields)
        }
        "array" => match schema["prefixItems"].as_array() {
            Some(places) => places.iter().map(|place| filled(root, place, name, rng)).collect(),
            None => json!([filled(root, &schema["items"], name, rng)]),
        },
        "string" => json!(name),
        "integer" | "number" => json!(1),
        "boolean" => json!(rng.random::<bool>()),
        _ => Value::Null,
    }
}
