//! What tables and JSON have in common: a set of named fields becomes a document.

use serde_json::{Map, Value};

use crate::document::Document;
use crate::error::MemoryError;
use crate::normalize::one_line;

/// Fields that name a record, by preference.
const ID_FIELDS: &[&str] = &["id", "_id", "uuid", "key"];
/// Fields that title a record, by preference.
const TITLE_FIELDS: &[&str] = &["title", "name", "headline", "subject", "label"];
/// Fields that hold the running text of a record, by preference.
const TEXT_FIELDS: &[&str] = &["text", "body", "content", "abstract", "description", "message"];
/// A field of this many characters is running text, not an attribute.
const PROSE_CHARS: usize = 120;

/// Documents made of one file, up to a limit.
#[derive(Debug)]
pub(super) struct Records<'a> {
    name: &'a str,
    max: usize,
    documents: Vec<Document>,
}

impl<'a> Records<'a> {
    pub(super) fn new(name: &'a str, max: usize) -> Self {
        Self { name, max, documents: Vec::new() }
    }

    /// Adds what `make` builds from the record's number, counted from 1.
    pub(super) fn push(&mut self, make: impl FnOnce(usize) -> Document) -> Result<(), MemoryError> {
        if self.documents.len() >= self.max {
            return Err(MemoryError::TooMany {
                what: format!("records of `{}`", self.name),
                count: self.documents.len() as u64 + 1,
                max: self.max as u64,
                key: "memory.limits.records",
            });
        }
        self.documents.push(make(self.documents.len() + 1));
        Ok(())
    }

    pub(super) fn into_documents(self) -> Vec<Document> {
        self.documents
    }
}

/// Turns fields into a document: a long text field becomes the text, the others lines of `path: value` above it.
pub(super) fn record(name: &str, number: usize, fields: &Map<String, Value>) -> Document {
    let pick = |wanted: &[&str]| {
        let find =
            |want: &&str| fields.iter().find(|(field, value)| field.eq_ignore_ascii_case(want) && is_plain(value));
        wanted.iter().find_map(find).map(|(field, value)| (field.clone(), plain(value)))
    };
    let id = pick(ID_FIELDS).map(|(_, value)| one_line(&value, 200)).filter(|id| !id.is_empty());
    let title = pick(TITLE_FIELDS).map(|(_, value)| one_line(&value, 200)).filter(|title| !title.is_empty());
    let prose = pick(TEXT_FIELDS).filter(|(_, value)| value.chars().count() >= PROSE_CHARS);
    let url = pick(&["url", "link"]).map(|(_, value)| value).filter(|url| url.starts_with("http"));
    let mut text = String::new();
    for (field, value) in fields {
        if prose.as_ref().is_none_or(|(prose, _)| prose != field) {
            flatten(&mut text, field, value);
        }
    }
    if let Some((_, prose)) = prose {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&prose);
    }
    Document {
        id: Some(format!("{name}#{}", id.unwrap_or_else(|| number.to_string()))),
        title: title.or_else(|| Some(name.to_owned())),
        text: text.trim_end().to_owned(),
        url,
        ..Document::default()
    }
}

fn is_plain(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Writes `path: value` lines; arrays of plain values take one line.
pub(super) fn flatten(out: &mut String, path: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(out, &format!("{path}.{field}"), value);
            }
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            if !items.is_empty() {
                let items: Vec<_> = items.iter().map(plain).collect();
                line(out, path, &items.join(", "));
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                flatten(out, &format!("{path}[{n}]"), item);
            }
        }
        plain_value => line(out, path, &plain(plain_value)),
    }
}

fn line(out: &mut String, path: &str, value: &str) {
    out.push_str(path);
    out.push_str(": ");
    out.push_str(value);
    out.push('\n');
}
