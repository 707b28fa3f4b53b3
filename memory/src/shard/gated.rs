//! What is written passes the gate: the text of a document, and what stands beside it.

use aivillage_governance::gate::{Ctx, Denied, Gate};
use aivillage_governance::moderation::Stage;
use aivillage_runtime::{CallError, MsgCx, Village};
use serde::{Deserialize, Serialize};

use crate::document::{Document, Metadata};
use crate::error::MemoryError;

/// What stands beside the text, as one content.
#[derive(Debug, Serialize, Deserialize)]
struct Fields {
    title: Option<String>,
    source: Option<String>,
    metadata: Metadata,
}

/// The documents as they may be stored, each for itself; those that may not tell why, with their id.
///
/// # Errors
/// Why none of them may be stored.
pub(super) async fn admit(
    village: &Village,
    tenant: &str,
    message: &MsgCx,
    documents: Vec<Document>,
) -> Result<Vec<Result<Document, (String, MemoryError)>>, CallError> {
    let Some(gate) = Gate::of(village) else { return Ok(documents.into_iter().map(Ok).collect()) };
    let cx = Ctx::from_message(message, tenant);
    let mut contents = Vec::with_capacity(2 * documents.len());
    for document in &documents {
        contents.push(document.text.clone());
        contents.push(fields(document));
    }
    let mut admitted = gate.admit_all(Stage::MemoryWrite, &cx, contents).await.into_iter();
    let mut all = Vec::with_capacity(documents.len());
    let mut first: Option<Denied> = None;
    for document in documents {
        let id = document.id.clone().unwrap_or_default();
        // Two contents of each document.
        let (Some(text), Some(beside)) = (admitted.next(), admitted.next()) else { break };
        all.push(match (text, beside) {
            (Ok(text), Ok(beside)) => put_back(document, text.content, beside.is_redacted.then_some(beside.content))
                .map_err(|error| (id, error)),
            (Err(denied), _) | (_, Err(denied)) => {
                let error = MemoryError::Withheld { why: denied.why, message: denied.message.clone() };
                first.get_or_insert(*denied);
                Err((id, error))
            }
        });
    }
    match first {
        Some(denied) if all.iter().all(|one| matches!(one, Err((_, MemoryError::Withheld { .. })))) => {
            Err(denied.into())
        }
        _ => Ok(all),
    }
}

fn fields(document: &Document) -> String {
    let Document { title, source, metadata, .. } = document;
    if title.is_none() && source.is_none() && metadata.is_empty() {
        return String::new();
    }
    let fields = Fields { title: title.clone(), source: source.clone(), metadata: metadata.clone() };
    serde_json::to_string(&fields).unwrap_or_default()
}

/// The document with what was taken out of it gone.
fn put_back(document: Document, text: String, fields: Option<String>) -> Result<Document, MemoryError> {
    let document = Document { text, ..document };
    let Some(fields) = fields else { return Ok(document) };
    let broken = |_| MemoryError::Withheld {
        why: aivillage_governance::gate::Why::DataProtected,
        message: "protected data in title, source or metadata cannot be taken out of a number: write it as text"
            .to_owned(),
    };
    let Fields { title, source, metadata } = serde_json::from_str(&fields).map_err(broken)?;
    Ok(Document { title, source, metadata, ..document })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(metadata: &str) -> Document {
        Document {
            title: Some("A pump".to_owned()),
            metadata: serde_json::from_str(metadata).unwrap(),
            ..Document::default()
        }
    }

    #[test]
    fn what_was_taken_out_of_the_fields_is_gone_and_the_rest_stays() {
        let fields = fields(&document(r#"{"card":"4111","n":1}"#)).replace("4111", "[PAN_1]");
        let back = put_back(document("{}"), "text".to_owned(), Some(fields)).unwrap();
        assert_eq!((back.text.as_str(), back.title.as_deref()), ("text", Some("A pump")));
        assert_eq!(back.metadata["card"], "[PAN_1]");
        assert_eq!(super::fields(&Document::default()), "");
    }

    #[test]
    fn fields_that_are_broken_by_what_was_taken_out_are_refused() {
        let error = put_back(document("{}"), String::new(), Some(r#"{"n":[PAN_1]}"#.to_owned())).unwrap_err();
        assert_eq!(error.code(), "data_protected");
    }
}
