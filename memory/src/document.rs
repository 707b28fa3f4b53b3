//! What a user puts in and gets back: documents, their versions and the answers to writes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The collection used when a request names none.
pub const DEFAULT_COLLECTION: &str = "main";
/// The tenant of a village without accounts.
pub const DEFAULT_TENANT: &str = "local";

/// Free fields of a document, kept and returned as given.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// How the text of a document is structured; decides where chunks may begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Prose: paragraphs separated by blank lines.
    #[default]
    Text,
    /// Markdown: headings open sections, and no chunk crosses one.
    Markdown,
    /// Independent blocks separated by blank lines, e.g. the turns of a chat; each is a chunk of its own.
    Blocks,
}

/// A document to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The caller's name for it, at most 512 bytes; without one the content names it, so equal texts are one document.
    #[serde(default)]
    pub id: Option<String>,
    /// Shown with every passage and searched with it.
    #[serde(default)]
    pub title: Option<String>,
    /// The content. A form feed separates pages.
    pub text: String,
    /// How `text` is structured.
    #[serde(default)]
    pub format: Format,
    /// Where it can be read in full.
    #[serde(default)]
    pub url: Option<String>,
    /// Who said it: the file, the site, the person.
    #[serde(default)]
    pub source: Option<String>,
    /// Anything else the caller wants back, at most 64 KiB as JSON.
    #[serde(default, with = "metadata_text")]
    #[schemars(with = "Option<Metadata>")]
    pub metadata: Metadata,
}

/// Bytes of unknown or declared type, to be turned into documents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDocument {
    /// File name or address; its extension helps to find the type, and it becomes the document's id.
    pub name: String,
    /// Declared media type; believed only where the bytes allow it.
    #[serde(default)]
    pub mime: Option<String>,
    /// The content; base64 in JSON.
    #[serde(with = "base64_bytes")]
    #[schemars(with = "String")]
    pub bytes: Vec<u8>,
    /// Who said it; `name` if absent.
    #[serde(default)]
    pub source: Option<String>,
}

/// When a write is answered. Durable it is in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// As soon as it survives a power cut.
    #[default]
    Durable,
    /// When a query sees it.
    Searchable,
}

/// Documents for one collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// [`DEFAULT_COLLECTION`] if absent. A message to a shard names it in the key; there the field is not looked at.
    #[serde(default)]
    pub collection: Option<String>,
    /// What to store; the good ones are stored even if others are refused.
    pub documents: Vec<Document>,
    /// When to answer.
    #[serde(default)]
    pub wait: WaitFor,
}

/// What became of one document of a [`Put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PutStatus {
    /// Stored for the first time.
    Created,
    /// Stored as a new version.
    Updated,
    /// Already stored exactly so, by the same person.
    Unchanged,
    /// Refused; `error` says why.
    Failed,
}

/// The outcome for one document, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PutResult {
    /// The document's id, given or derived from its content.
    pub id: String,
    /// What happened.
    pub status: PutStatus,
    /// The version that is current now, counted from 1.
    pub version: Option<u32>,
    /// The stored document that this one repeats, exactly or nearly.
    pub duplicate_of: Option<String>,
    /// Why it was refused.
    pub error: Option<PutError>,
}

/// Why one document was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PutError {
    /// Stable `snake_case` name.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The answer to a [`Put`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PutReport {
    /// One entry per document of the request, in its order.
    pub results: Vec<PutResult>,
}

/// Which document, and which version of it, a [`Get`](crate::shard::ShardMsg::Get) wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetDocument {
    /// The document's id.
    pub id: String,
    /// An older version; the current one if absent.
    #[serde(default)]
    pub version: Option<u32>,
}

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentView {
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// The version shown.
    pub version: u32,
    /// All versions that are kept, oldest first.
    pub versions: Vec<u32>,
    /// The title.
    pub title: Option<String>,
    /// The stored, normalised text; spans of passages count its characters.
    pub text: String,
    /// How the text is structured.
    pub format: Format,
    /// Where it can be read in full.
    pub url: Option<String>,
    /// Who said it.
    pub source: Option<String>,
    /// The caller's own fields.
    #[serde(with = "metadata_text")]
    #[schemars(with = "Metadata")]
    pub metadata: Metadata,
    /// Language by ISO 639-3 code, `und` if it was not recognised.
    pub language: String,
    /// The stored document that this one repeats.
    pub duplicate_of: Option<String>,
    /// Milliseconds since the Unix epoch when this version was stored.
    pub stored_ms: u64,
    /// Number of chunks it is retrieved by.
    pub chunks: u32,
}

/// Which documents to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Their ids.
    pub ids: Vec<String>,
    /// When to answer.
    #[serde(default)]
    pub wait: WaitFor,
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteReport {
    /// Ids that were stored and are gone now.
    pub deleted: Vec<String>,
    /// Ids that were not there.
    pub missing: Vec<String>,
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionStats {
    /// Its name.
    pub collection: String,
    /// Live documents.
    pub documents: u64,
    /// Chunks that a query can find now.
    pub chunks: u64,
    /// Live documents that repeat another one.
    pub duplicates: u64,
    /// Sequence number of the last journalled write.
    pub journal_seq: u64,
    /// Sequence number up to which writes are searchable.
    pub searchable_seq: u64,
    /// Bytes of the index folder; 0 for an index in memory.
    pub index_bytes: u64,
    /// Languages of the documents with their number, the most frequent first.
    pub languages: Vec<(String, u64)>,
}

/// Metadata is a map in JSON and a JSON text in binary formats, which cannot carry values of unknown type.
mod metadata_text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Metadata;

    pub(super) fn serialize<S: Serializer>(map: &Metadata, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            map.serialize(serializer)
        } else {
            serde_json::to_string(map).map_err(S::Error::custom)?.serialize(serializer)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
        if deserializer.is_human_readable() {
            Ok(Option::<Metadata>::deserialize(deserializer)?.unwrap_or_default())
        } else {
            serde_json::from_str(&String::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

/// Bytes are base64 in JSON and themselves in binary formats.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            STANDARD.encode(bytes).serialize(serializer)
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
        } else {
            deserializer.deserialize_byte_buf(Buffer)
        }
    }

    struct Buffer;

    impl Visitor<'_> for Buffer {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_reads_the_body_of_the_public_route() {
        let document: Document =
            serde_json::from_str(r#"{"id":"a","text":"t","metadata":{"year":1999}}"#).expect("documented fields");
        assert_eq!(document.metadata["year"], 1999);
        assert_eq!(document.format, Format::Text);
    }

    #[test]
    fn document_survives_a_binary_format() {
        let mut document = Document { text: "t".to_owned(), ..Document::default() };
        document.metadata.insert("tags".to_owned(), serde_json::json!(["x", 1, null]));
        let bytes = postcard::to_allocvec(&document).expect("encodes");
        assert_eq!(postcard::from_bytes::<Document>(&bytes).expect("decodes"), document);
    }

    #[test]
    fn raw_bytes_are_base64_in_json() {
        let raw = RawDocument { name: "x.pdf".to_owned(), bytes: vec![0, 159, 146, 150], ..RawDocument::default() };
        let json = serde_json::to_value(&raw).expect("encodes");
        assert_eq!(json["bytes"], "AJ+Slg==");
        assert_eq!(serde_json::from_value::<RawDocument>(json).expect("decodes"), raw);
    }
}
