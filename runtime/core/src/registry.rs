//! The messages that may be called from outside (HTTP, command line, other protocols), described by JSON schema.
//!
//! Everything is read from the body's own schema: variants, docs, payload, and the type of the answer, which
//! [`Reply`](crate::mail::Reply) carries under `x-reply`. The author names which variants are exposed, and as which
//! action.

use std::fmt;

use jsonschema::Validator;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::mail::REPLY_KEYWORD;

/// Exposes one variant of a kind's body.
#[derive(Debug, Clone)]
pub struct Expose {
    name: &'static str,
    action: &'static str,
    idempotent: bool,
}

impl Expose {
    /// Exposes variant `name` as `action` (`area.verb`), the name that policies use.
    #[must_use]
    pub const fn new(name: &'static str, action: &'static str) -> Self {
        Self { name, action, idempotent: false }
    }

    /// Says that repeating the message changes nothing more.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

/// How the payload and the reply slot stand in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// `"Name"`.
    Unit,
    /// `{"Name": payload}`.
    Payload,
    /// `{"Name": null}`, the slot alone.
    Slot,
    /// `{"Name": [..]}` with `len` places, the slot at `slot`.
    Tuple { len: usize, slot: Option<usize> },
    /// `{"Name": {..}}` with the slot as property.
    Struct { slot: Option<String> },
}

/// An exposed message.
#[derive(Serialize)]
pub struct MessageInfo {
    /// The variant's name.
    pub name: String,
    /// Its doc comment.
    pub doc: String,
    /// Whether it answers.
    pub ask: bool,
    /// Schema of the payload; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Schema of the answer; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_schema: Option<Value>,
    /// Name for policies, `area.verb`.
    pub action: String,
    /// Whether repeating it changes nothing more.
    pub idempotent: bool,
    #[serde(skip)]
    shape: Shape,
    #[serde(skip)]
    validator: Option<Validator>,
}

impl fmt::Debug for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageInfo").field("name", &self.name).field("action", &self.action).finish_non_exhaustive()
    }
}

/// One way in which a payload does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaError {
    /// JSON pointer (RFC 6901) into the payload.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// Why a body cannot be exposed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExposeError {
    /// The body has no such variant.
    #[error("kind `{kind}` has no message `{name}`; it has {known}")]
    NoSuchMessage {
        /// The kind.
        kind: &'static str,
        /// The variant asked for.
        name: &'static str,
        /// The variants it has.
        known: String,
    },
    /// The schema cannot be compiled.
    #[error("kind `{kind}`, message `{name}`: {detail}")]
    BadSchema {
        /// The kind.
        kind: &'static str,
        /// The variant.
        name: &'static str,
        /// What the compiler said.
        detail: String,
    },
}

/// Reads the exposed messages out of the schema of `B`.
pub(crate) fn describe<B: JsonSchema>(kind: &'static str, exposed: &[Expose]) -> Result<Vec<MessageInfo>, ExposeError> {
    let root = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<B>().to_value();
    let definitions = root.get("$defs").cloned().unwrap_or_else(|| json!({}));
    let variants = variants(&root);
    exposed
        .iter()
        .map(|expose| {
            let Some((_, doc, content)) = variants.iter().find(|(name, ..)| name == expose.name) else {
                let known = variants.iter().map(|(name, ..)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                return Err(ExposeError::NoSuchMessage { kind, name: expose.name, known });
            };
            message(expose, doc, content.as_ref(), &definitions).map_err(|detail| ExposeError::BadSchema {
                kind,
                name: expose.name,
                detail,
            })
        })
        .collect()
}

/// Name, doc and content schema (none for a unit variant) of every variant.
fn variants(root: &Value) -> Vec<(String, String, Option<Value>)> {
    let alternatives = match root.get("oneOf").and_then(Value::as_array) {
        Some(alternatives) => alternatives.as_slice(),
        None => std::slice::from_ref(root),
    };
    let mut found = Vec::new();
    for schema in alternatives {
        let doc = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(name) = schema.get("const").and_then(Value::as_str) {
            found.push((name.to_owned(), doc.clone(), None));
        }
        for name in schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            found.push((name.to_owned(), doc.clone(), None));
        }
        for (name, content) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            found.push((name.clone(), doc.clone(), Some(content.clone())));
        }
    }
    found
}

fn message(expose: &Expose, doc: &str, content: Option<&Value>, definitions: &Value) -> Result<MessageInfo, String> {
    let (shape, payload, reply) = content.map_or((Shape::Unit, None, None), split);
    let closed = |schema: Value| with_definitions(schema, definitions);
    let schema = payload.map(closed);
    let validator = match &schema {
        Some(schema) => Some(jsonschema::validator_for(schema).map_err(|e| e.to_string())?),
        None => None,
    };
    Ok(MessageInfo {
        name: expose.name.to_owned(),
        doc: doc.to_owned(),
        ask: reply.is_some(),
        schema,
        reply_schema: reply.map(closed),
        action: expose.action.to_owned(),
        idempotent: expose.idempotent,
        shape,
        validator,
    })
}

/// Takes the reply slot out of a variant's content: shape, payload schema, answer schema.
fn split(content: &Value) -> (Shape, Option<Value>, Option<Value>) {
    if let Some(reply) = content.get(REPLY_KEYWORD) {
        return (Shape::Slot, None, Some(reply.clone()));
    }
    if let Some(places) = content.get("prefixItems").and_then(Value::as_array) {
        let slot = places.iter().position(|place| place.get(REPLY_KEYWORD).is_some());
        let reply = slot.and_then(|at| places[at].get(REPLY_KEYWORD).cloned());
        let rest: Vec<Value> =
            places.iter().enumerate().filter(|(at, _)| Some(*at) != slot).map(|(_, place)| place.clone()).collect();
        let payload = match rest.as_slice() {
            [] => None,
            [single] => Some(single.clone()),
            many => Some(json!({
                "type": "array", "prefixItems": many, "minItems": many.len(), "maxItems": many.len()
            })),
        };
        return (Shape::Tuple { len: places.len(), slot }, payload, reply);
    }
    let slot = content.get("properties").and_then(Value::as_object).and_then(|properties| {
        properties.iter().find_map(|(name, schema)| Some((name.clone(), schema.get(REPLY_KEYWORD)?.clone())))
    });
    let Some((name, reply)) = slot else {
        let is_inline_struct = content.get("properties").is_some();
        let shape = if is_inline_struct { Shape::Struct { slot: None } } else { Shape::Payload };
        return (shape, Some(content.clone()), None);
    };
    let mut payload = content.clone();
    if let Some(properties) = payload.get_mut("properties").and_then(Value::as_object_mut) {
        properties.shift_remove(&name);
    }
    if let Some(required) = payload.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|required| required.as_str() != Some(&name));
    }
    (Shape::Struct { slot: Some(name) }, Some(payload), Some(reply))
}

/// Makes a schema stand alone: it keeps those shared definitions that it reaches.
fn with_definitions(mut schema: Value, definitions: &Value) -> Value {
    let mut reached = Map::new();
    let mut open = vec![schema.clone()];
    while let Some(at) = open.pop() {
        match at {
            Value::Object(map) => {
                let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
                if let Some((name, definition)) = name.and_then(|name| Some((name, definitions.get(name)?)))
                    && !reached.contains_key(name)
                {
                    reached.insert(name.to_owned(), definition.clone());
                    open.push(definition.clone());
                }
                open.extend(map.into_iter().map(|(_, value)| value));
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    if let (Some(object), false) = (schema.as_object_mut(), reached.is_empty()) {
        object.insert("$defs".to_owned(), Value::Object(reached));
    }
    schema
}

impl MessageInfo {
    /// All the ways in which `payload` does not fit; empty when it does.
    pub fn validate(&self, payload: &Value) -> Vec<SchemaError> {
        let Some(validator) = &self.validator else {
            let empty = payload.is_null() || payload.as_array().is_some_and(Vec::is_empty);
            let extra = SchemaError { pointer: String::new(), detail: format!("`{}` takes no payload", self.name) };
            return if empty { Vec::new() } else { vec![extra] };
        };
        validator
            .iter_errors(payload)
            .take(32)
            .map(|error| SchemaError { pointer: error.instance_path().to_string(), detail: error.to_string() })
            .collect()
    }

    /// The message's body with `payload` in it and the reply slot written `null`.
    ///
    /// A single payload may be given bare or as a list of one.
    ///
    /// # Errors
    /// What [`MessageInfo::validate`] finds.
    pub fn body(&self, payload: Value) -> Result<Value, Vec<SchemaError>> {
        let mut errors = self.validate(&payload);
        let payload = match payload {
            Value::Array(mut items) if !errors.is_empty() && items.len() == 1 => {
                let single = items.remove(0);
                if self.validate(&single).is_empty() {
                    errors.clear();
                }
                single
            }
            payload => payload,
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let content = match &self.shape {
            Shape::Unit => return Ok(Value::String(self.name.clone())),
            Shape::Slot => Value::Null,
            Shape::Payload => payload,
            Shape::Tuple { len, slot } => tuple(payload, *len, *slot),
            Shape::Struct { slot } => with_slot(payload, slot.as_deref()),
        };
        Ok(json!({ (self.name.clone()): content }))
    }
}

fn tuple(payload: Value, len: usize, slot: Option<usize>) -> Value {
    let places = len - usize::from(slot.is_some());
    let mut items = match payload {
        Value::Array(items) if places > 1 => items,
        single if places == 1 => vec![single],
        _ => Vec::new(),
    };
    if let Some(at) = slot {
        items.insert(at.min(items.len()), Value::Null);
    }
    Value::Array(items)
}

fn with_slot(mut payload: Value, slot: Option<&str>) -> Value {
    if let (Some(fields), Some(slot)) = (payload.as_object_mut(), slot) {
        fields.insert(slot.to_owned(), Value::Null);
    }
    payload
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::mail::Reply;

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Query {
        text: String,
    }

    #[allow(dead_code, reason = "only its schema is used")]
    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Msg {
        /// Adds to the counter.
        Add(u64, Reply<u64>),
        /// Reads it.
        Get(Reply<u64>),
        /// Searches.
        Search(Query, Reply<Vec<Query>>),
        /// Moves.
        Move {
            from: u8,
            to: u8,
            reply: Reply<()>,
        },
        /// Two in, nothing out.
        Pair(u8, String),
        Reset,
        Quit,
    }

    fn info(name: &'static str) -> MessageInfo {
        describe::<Msg>("k", &[Expose::new(name, "k.do")]).unwrap().remove(0)
    }

    #[test]
    fn tuple_with_reply() {
        let add = info("Add");
        assert_eq!((add.doc.as_str(), add.ask), ("Adds to the counter.", true));
        assert_eq!(add.body(json!(2)).unwrap(), json!({ "Add": [2, null] }));
        assert_eq!(add.body(json!([2])).unwrap(), json!({ "Add": [2, null] }));
        assert_eq!(add.reply_schema.unwrap()["type"], "integer");
    }

    #[test]
    fn wrong_payload_names_the_place() {
        let errors = info("Move").body(json!({ "from": "x" })).unwrap_err();
        assert!(errors.iter().any(|e| e.pointer == "/from"), "{errors:?}");
        assert!(errors.iter().any(|e| e.detail.contains("to")), "{errors:?}");
    }

    #[test]
    fn every_shape_decodes_again() {
        for (name, payload) in [
            ("Get", json!(null)),
            ("Search", json!({ "text": "x" })),
            ("Move", json!({ "from": 1, "to": 2 })),
            ("Pair", json!([1, "a"])),
            ("Reset", json!(null)),
            ("Quit", json!([])),
        ] {
            let body = info(name).body(payload).unwrap();
            let (tx, _rx) = tokio::sync::oneshot::channel();
            crate::mail::decode_json::<Msg>(body, tx).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn schemas_stand_alone() {
        let search = info("Search");
        assert!(search.schema.unwrap()["$defs"]["Query"].is_object());
        assert!(search.reply_schema.unwrap()["$defs"]["Query"].is_object());
    }

    #[test]
    fn unknown_variant_is_refused() {
        let error = describe::<Msg>("k", &[Expose::new("Nope", "k.do")]).unwrap_err();
        assert!(error.to_string().contains("`Add`"), "{error}");
    }
}
