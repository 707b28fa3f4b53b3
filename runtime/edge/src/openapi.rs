//! The `OpenAPI` document: routes from the handlers, schemas from the types' own JSON schemas, exposed messages from the registry.
//!
//! `OpenAPI` 3.1 schemas are JSON Schema 2020-12, so the schema that validates a body is the one that is shown.

use aivillage_memory as memory;
use aivillage_runtime::Village;
use axum::body::Bytes;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::routes;

/// The document of this node, serialised.
pub(crate) fn document(village: &Village) -> Bytes {
    let mut document = base();
    if let Some(root) = document.as_object_mut() {
        root.insert("x-village-messages".to_owned(), messages(village));
    }
    Bytes::from(document.to_string())
}

/// The document without what differs from node to node.
pub(crate) fn base() -> Value {
    let (_, described) = routes::documented().split_for_parts();
    let mut document = serde_json::to_value(&described).unwrap_or_else(|_| json!({"paths": {}}));
    let schemas = schemas();
    if let Some(root) = document.as_object_mut() {
        root.insert("openapi".to_owned(), json!("3.1.0"));
        root.insert(
            "info".to_owned(),
            json!({
                "title": "AI Village",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Actors, agents and memory of a village over HTTP. Errors are RFC 9457 problems; the OpenAI routes answer in that dialect.",
                "license": {"name": "MIT OR Apache-2.0"},
            }),
        );
        root.insert("servers".to_owned(), json!([{"url": "/"}]));
        root.insert("security".to_owned(), json!([{"bearer": []}, {"header": []}]));
        root.insert(
            "components".to_owned(),
            json!({
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, a session or an access token; the keeper's key is the line in <data>/admin.key"},
                    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            }),
        );
    }
    default_problems(&mut document);
    document
}

/// Every operation may be refused: one `default` response says in which form.
fn default_problems(document: &mut Value) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        let openai = ["/v1/chat", "/v1/models", "/v1/moderations"].iter().any(|openai| path.starts_with(openai));
        let (mime, schema) = if openai {
            ("application/json", "#/components/schemas/OpenAiError")
        } else {
            ("application/problem+json", "#/components/schemas/Problem")
        };
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
                responses.insert(
                    "default".to_owned(),
                    json!({"description": "Refused or failed", "content": {(mime): {"schema": {"$ref": schema}}}}),
                );
            }
        }
    }
}

/// The exposed messages of every kind, with their schemas: the content of `POST /v1/actors/{kind}/{key}/messages`.
fn messages(village: &Village) -> Value {
    let kinds = village.kinds().into_iter().filter(|kind| !kind.messages.is_empty());
    kinds
        .map(|kind| (kind.kind.to_owned(), json!({"version": kind.version, "messages": kind.messages})))
        .collect::<Map<_, _>>()
        .into()
}

fn schemas() -> Value {
    let mut all = Schemas::new();
    add_governance(&mut all);
    all.add::<memory::PutReport>("PutReport");
    all.add::<memory::DocumentView>("DocumentView");
    all.add::<memory::DeleteReport>("DeleteReport");
    all.add::<memory::Query>("Query");
    all.add::<memory::Context>("Context");
    all.add::<memory::CollectionStats>("CollectionStats");
    all.add::<routes::memory::PutBody>("PutBody");
    all.add::<aivillage_actors::AgentCard>("AgentCard");
    all.add::<aivillage_actors::Answer>("Answer");
    all.add::<aivillage_actors::wire::openai::ChatRequest>("ChatRequest");
    all.add::<aivillage_actors::wire::openai::ChatResponse>("ChatResponse");
    all.add::<aivillage_actors::wire::openai::ErrorBody>("OpenAiError");
    all.add::<routes::agents::AskBody>("AskBody");
    all.add::<routes::actors::MessageBody>("MessageBody");
    all.add::<crate::job::Job>("Job");
    all.add::<routes::cluster::DrainBody>("DrainBody");
    all.add::<routes::cluster::RemoveBody>("RemoveBody");
    all.add::<routes::cluster::TokenBody>("TokenBody");
    all.add::<routes::cluster::TokenView>("Token");
    all.add::<routes::cluster::NewTokenView>("NewToken");
    all.add::<routes::log::LogView>("Log");
    all.add::<routes::log::EntriesView>("LogEntries");
    all.add::<routes::meta::HistoryView>("History");
    all.add::<routes::meta::SupervisionView>("Supervision");
    all.add::<aivillage_runtime::telemetry::Handling>("Handling");
    all.finish([literal(), problem(), accounts()])
}

/// What belongs to policies, accounts, moderation and the like.
fn add_governance(all: &mut Schemas) {
    all.add::<routes::policy::QuestionBody>("PolicyQuestion");
    all.add::<routes::policy::BundleBody>("PolicyBundle");
    all.add::<aivillage_governance::policy::Applied>("PolicyApplied");
    all.add::<aivillage_governance::policy::PdpStatus>("PolicyStatus");
    all.add::<routes::privacy::VaultView>("Vault");
    all.add::<routes::privacy::ErasureBody>("ErasureBody");
    all.add::<routes::privacy::ErasureView>("Erasure");
    all.add::<aivillage_governance::policy::Decision>("PolicyDecision");
    all.add::<aivillage_governance::policy::Explanation>("PolicyExplanation");
    all.add::<routes::policy::ConstitutionView>("Constitution");
    all.add::<routes::auth::LoginBody>("LoginBody");
    all.add::<routes::auth::MfaBody>("MfaBody");
    all.add::<routes::auth::RefreshBody>("RefreshBody");
    all.add::<routes::auth::LoginView>("Login");
    all.add::<routes::auth::MeView>("Me");
    all.add::<routes::users::UserView>("User");
    all.add::<routes::users::NewUserBody>("NewUserBody");
    all.add::<routes::users::ChangeUserBody>("ChangeUserBody");
    all.add::<routes::users::PasswordBody>("PasswordBody");
    all.add::<routes::users::CodeBody>("CodeBody");
    all.add::<routes::keys::KeyView>("Key");
    all.add::<routes::keys::NewKeyBody>("NewKeyBody");
    all.add::<routes::keys::NewKeyView>("NewKey");
    all.add::<routes::tenants::TenantView>("Tenant");
    all.add::<routes::tenants::NewTenantBody>("NewTenantBody");
    all.add::<routes::tenants::NewTenantView>("NewTenant");
    all.add::<routes::tenants::ChangeTenantBody>("ChangeTenantBody");
    all.add::<routes::moderation::ModerationBody>("ModerationBody");
    all.add::<routes::moderation::Moderations>("Moderations");
    all.add::<routes::dlp::ScanBody>("DlpScanBody");
    all.add::<routes::dlp::RedactBody>("DlpRedactBody");
    all.add::<routes::dlp::DetokeniseBody>("DlpDetokeniseBody");
    all.add::<routes::dlp::Findings>("DlpFindings");
    all.add::<routes::dlp::RedactedView>("DlpRedacted");
    all.add::<routes::dlp::DetokenisedView>("DlpDetokenised");
    all.add::<routes::cases::AppealBody>("AppealBody");
    all.add::<routes::cases::VoteBody>("VoteBody");
    all.add::<aivillage_governance::cases::CaseView>("Case");
    all.add::<routes::PageOf<aivillage_governance::cases::CaseView>>("CasePage");
    all.add::<aivillage_governance::cases::Report>("TransparencyReport");
    all.add::<routes::ledger::LedgerAccount>("LedgerAccount");
    all.add::<routes::ledger::LedgerAccounts>("LedgerAccounts");
    all.add::<routes::ledger::LedgerTransfers>("LedgerTransfers");
    all.add::<routes::ledger::LedgerAudit>("LedgerAudit");
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn page(name: &str) -> Value {
    json!({
        "type": "object", "required": ["data"],
        "properties": {"data": {"type": "array", "items": reference(name)}, "next_cursor": {"type": "string"}},
    })
}

fn list(name: &str, of: &Value) -> Value {
    json!({"type": "object", "required": [name], "properties": {(name): {"type": "array", "items": of}}})
}

/// What is answered to a refused request.
fn problem() -> Value {
    json!({
        "Problem": {
            "type": "object", "required": ["type", "title", "status", "detail", "instance", "code", "trace_id"],
            "properties": {
                "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
                "instance": {"type": "string"}, "code": {"type": "string"}, "trace_id": {"type": "string"},
                "retry_after_s": {"type": "integer"},
                "methods": {"type": "array", "items": {"type": "string"}}, "login": {"type": "string"},
                "policy_ids": {"type": "array", "items": {"type": "string"}}, "articles": {"type": "array", "items": {"type": "string"}},
                "errors": {"type": "array", "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}}},
            },
        },
    })
}

/// Schemas of answers about accounts.
fn accounts() -> Value {
    json!({
        "UserPage": page("User"),
        "KeyPage": page("Key"),
        "TenantPage": page("Tenant"),
        "TotpOffer": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "description": "otpauth://totp/.."}}},
        "RecoveryCodes": list("recovery_codes", &json!({"type": "string"})),
        "Jwks": list("keys", &json!({"type": "object", "required": ["kty", "crv", "x", "kid", "alg", "use"]})),
    })
}

/// Schemas of bodies that are put together in the handlers.
#[expect(clippy::too_many_lines, reason = "a table")]
fn literal() -> Value {
    json!({
        "AgentPage": page("AgentCard"),
        "JobPage": page("Job"),
        "Tokens": list("data", &reference("Token")),
        "ClusterStatus": {
            "type": "object",
            "required": ["cluster", "node", "health", "problems", "epoch", "leader", "members", "groups"],
            "properties": {
                "cluster": {"type": "string"}, "node": {"type": "string"}, "epoch": {"type": "integer"},
                "health": {"enum": ["healthy", "degraded", "no_quorum"]},
                "problems": {"type": "array", "items": {"type": "string"}},
                "leader": {"type": ["string", "null"]},
                "members": {"type": "array", "items": reference("ClusterMember")},
                "groups": {"type": "array", "items": reference("ClusterGroup")},
            },
        },
        "ClusterMember": {
            "type": "object", "required": ["id", "name", "addr", "state", "since_ms", "reason", "weight", "labels", "version", "linked", "leads"],
            "properties": {
                "id": {"type": "string"}, "name": {"type": "string"}, "addr": {"type": "string"},
                "state": {"enum": ["joining", "up", "draining", "down"]}, "since_ms": {"type": "integer"}, "reason": {"type": "string"},
                "weight": {"type": "integer"}, "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "version": {"type": "string"}, "linked": {"type": "boolean"},
                "leads": {"type": "array", "items": {"type": "integer"}},
            },
        },
        "ClusterGroup": {
            "type": "object", "required": ["group", "leader", "term", "voters", "learners", "applied"],
            "properties": {
                "group": {"type": "integer"}, "leader": {"type": ["string", "null"]}, "term": {"type": "integer"},
                "voters": {"type": "array", "items": {"type": "string"}}, "learners": {"type": "array", "items": {"type": "string"}},
                "applied": {"type": ["integer", "null"]},
            },
        },
        "MemoryStats": list("collections", &reference("CollectionStats")),
        "Kinds": list("data", &reference("Kind")),
        "Kind": {
            "type": "object", "required": ["kind", "version", "live", "messages"],
            "properties": {
                "kind": {"type": "string"}, "version": {"type": "integer"}, "live": {"type": "integer"},
                "messages": {"type": "array", "items": reference("Message")},
                "actors": {"type": "array", "items": reference("Actor")},
                "handling": reference("Handling"),
            },
        },
        "Message": {
            "type": "object", "required": ["name", "doc", "ask", "action", "idempotent"],
            "properties": {
                "name": {"type": "string"}, "doc": {"type": "string"}, "ask": {"type": "boolean"},
                "action": {"type": "string"}, "idempotent": {"type": "boolean"},
                "schema": {"description": "JSON Schema of the payload"}, "reply_schema": {"description": "JSON Schema of the reply"},
            },
        },
        "Actor": {
            "type": "object", "required": ["kind", "key", "state", "mailbox_depth", "restarts", "uptime_ms"],
            "properties": {
                "kind": {"type": "string"}, "key": {"type": "string"}, "state": {"type": "string"}, "node": {"type": "string"},
                "mailbox_depth": {"type": "integer"}, "restarts": {"type": "integer"}, "uptime_ms": {"type": "integer"},
            },
        },
        "MessageReply": {
            "type": "object", "required": ["reply", "node", "elapsed_us"],
            "properties": {"reply": {"description": "as the message's reply_schema says"}, "node": {"type": "string"}, "elapsed_us": {"type": "integer"}},
        },
        "ToolArguments": {"type": "object", "additionalProperties": true},
        "Conversation": {
            "type": "object", "required": ["id", "data"],
            "properties": {"id": {"type": "string"}, "data": {"type": "array", "items": {"type": "object"}}},
        },
        "Models": {
            "type": "object", "required": ["object", "data"],
            "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")}},
        },
        "Model": {
            "type": "object", "required": ["id", "object", "created", "owned_by"],
            "properties": {"id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": {"type": "string"}},
        },
        "Status": {
            "type": "object", "required": ["node", "version", "uptime_s", "ready", "kinds", "actors", "memory"],
            "properties": {
                "node": {"type": "string"}, "version": {"type": "string"}, "uptime_s": {"type": "integer"}, "ready": {"type": "boolean"},
                "kinds": {"type": "array", "items": {"type": "object"}}, "actors": {"type": "integer"},
                "memory": {"type": "array", "items": reference("CollectionStats")},
                "cluster": {
                    "type": "object", "required": ["id", "health", "nodes", "up", "problems"],
                    "properties": {
                        "id": {"type": "string"}, "health": {"type": "string"}, "nodes": {"type": "integer"}, "up": {"type": "integer"},
                        "problems": {"type": "array", "items": {"type": "string"}},
                    },
                },
            },
        },
    })
}

/// Collects the schemas of types under the names that routes refer to.
struct Schemas {
    generator: SchemaGenerator,
    named: Map<String, Value>,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|s| {
            s.meta_schema = None;
            s.definitions_path = "/components/schemas".into();
        });
        Schemas { generator: SchemaGenerator::new(settings), named: Map::new() }
    }

    fn add<T: JsonSchema>(&mut self, name: &str) {
        let schema = self.generator.subschema_for::<T>().to_value();
        self.named.insert(name.to_owned(), schema);
    }

    /// Types that schemars put among its definitions keep their own schema; the others get the one they were added with.
    fn finish(mut self, literal: impl IntoIterator<Item = Value>) -> Value {
        let mut all = self.generator.take_definitions(true);
        for (name, schema) in self.named {
            let points_to_itself =
                schema.get("$ref").and_then(Value::as_str) == Some(&format!("#/components/schemas/{name}"));
            if !points_to_itself {
                all.insert(name, schema);
            }
        }
        for literal in literal {
            if let Value::Object(literal) = literal {
                all.extend(literal);
            }
        }
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::Route;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_resolves() {
        let document = base();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_documented_route_is_known_to_the_pipeline() {
        for path in base()["paths"].as_object().unwrap().keys() {
            assert_eq!(Route::of(Some(path)).template, path, "missing in ROUTES");
        }
    }

    #[test]
    fn operations_are_as_reviewed() {
        let document = base();
        let mut lines = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses: Vec<_> = operation["responses"].as_object().unwrap().keys().cloned().collect();
                lines.push(format!("{} {path} -> {}", method.to_uppercase(), responses.join(" ")));
            }
        }
        lines.sort();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
