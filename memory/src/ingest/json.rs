//! JSON and JSON Lines: records become documents, anything else is flattened to `path: value` lines. A list of
//! messages is a conversation.

use serde_json::{Map, Value};

use super::chat;
use super::record::{Records, flatten, record};
use crate::document::Document;
use crate::error::MemoryError;

/// Makes documents of one JSON value: one per object of a list, one of anything else.
///
/// # Errors
/// `BadSyntax` with line and column, `TooMany` beyond `max` records.
pub(super) fn parse(name: &str, text: &str, max: usize) -> Result<Vec<Document>, MemoryError> {
    let value: Value = serde_json::from_str(text).map_err(|error| bad(name, "JSON", &error))?;
    if let Some(conversation) = chat::parse(name, &value) {
        return Ok(vec![conversation]);
    }
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let mut records = Records::new(name, max);
            for item in items {
                push(&mut records, name, item)?;
            }
            Ok(records.into_documents())
        }
        Value::Object(fields) => {
            let whole = record(name, 1, &fields);
            Ok(vec![Document { id: Some(name.to_owned()), ..whole }])
        }
        other => {
            let mut text = String::new();
            flatten(&mut text, "value", &other);
            Ok(vec![Document { text, ..Document::default() }])
        }
    }
}

/// Makes a document of every line.
///
/// # Errors
/// `BadSyntax` with the line, `TooMany` beyond `max` records.
pub(super) fn parse_lines(name: &str, text: &str, max: usize) -> Result<Vec<Document>, MemoryError> {
    let mut values = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        values.push(serde_json::from_str::<Value>(line).map_err(|error| MemoryError::BadSyntax {
            name: name.to_owned(),
            format: "JSON Lines",
            reason: format!("line {}: {error}", n + 1),
        })?);
    }
    let values = Value::Array(values);
    if let Some(conversation) = chat::parse(name, &values) {
        return Ok(vec![conversation]);
    }
    let mut records = Records::new(name, max);
    if let Value::Array(values) = values {
        for value in values {
            push(&mut records, name, value)?;
        }
    }
    Ok(records.into_documents())
}

fn push(records: &mut Records<'_>, name: &str, value: Value) -> Result<(), MemoryError> {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(()),
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    records.push(|number| record(name, number, &fields))
}

fn bad(name: &str, format: &'static str, error: &serde_json::Error) -> MemoryError {
    MemoryError::BadSyntax { name: name.to_owned(), format, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Format;

    #[test]
    fn objects_are_flattened() {
        let documents = parse("x.json", r#"{"name":"well","size":{"depth":12},"tags":["a","b"]}"#, 10).expect("valid");
        assert_eq!(documents[0].text, "name: well\nsize.depth: 12\ntags: a, b");
        assert_eq!(documents[0].title.as_deref(), Some("well"));
    }

    #[test]
    fn lists_of_objects_are_records() {
        let documents = parse("x.json", r#"[{"id":1,"title":"a"},{"id":"b","title":"c"}]"#, 10).expect("valid");
        let ids: Vec<_> = documents.iter().filter_map(|d| d.id.as_deref()).collect();
        assert_eq!(ids, ["x.json#1", "x.json#b"]);
    }

    #[test]
    fn long_text_fields_become_the_text() {
        let body = "words of the article ".repeat(10);
        let documents =
            parse("x.json", &serde_json::json!({ "year": 1999, "body": body }).to_string(), 10).expect("valid");
        assert!(documents[0].text.starts_with("year: 1999\n\nwords of"), "{}", documents[0].text);
    }

    #[test]
    fn lines_name_the_bad_one() {
        let error = parse_lines("x.jsonl", "{\"a\":1}\n{oops\n", 10).expect_err("bad");
        assert_eq!(error.code(), "bad_syntax");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        assert_eq!(parse("x.json", &"[".repeat(200_000), 10).expect_err("deep").code(), "bad_syntax");
    }

    #[test]
    fn messages_are_a_conversation() {
        let documents =
            parse_lines("c.jsonl", "{\"role\":\"user\",\"content\":\"hi\"}\n{\"role\":\"bot\",\"content\":\"ho\"}", 10)
                .expect("valid");
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].format, Format::Blocks);
    }
}
