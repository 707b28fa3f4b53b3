//! What can be computed of a document before anything is known about the collection: normal form, chunks, digests,
//! language, signature. Pure; runs on as many threads as there are.

use crate::chunk::{Chunk, ChunkSize, chunks};
use crate::dedup::Signature;
use crate::document::{Document, Format};
use crate::error::MemoryError;
use crate::ingest::parse::check_size;
use crate::journal::digest;
use crate::language::Tongue;
use crate::names::check_id;
use crate::normalize::{normalize, one_line};

/// Longest title, source and address, in characters.
const FIELD_CHARS: usize = 500;
/// Longest metadata, in bytes of JSON: they are kept in one record.
pub const METADATA_MAX: usize = 64 * 1024;

/// A document ready to be compared and stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// External id, given or made of the content.
    pub id: String,
    /// Title on one line.
    pub title: Option<String>,
    /// Normalised text.
    pub text: String,
    /// Structure of the text.
    pub format: Format,
    /// Address.
    pub url: Option<String>,
    /// Who said it.
    pub source: Option<String>,
    /// The caller's fields as JSON.
    pub metadata: String,
    /// Language of the text.
    pub tongue: Tongue,
    /// Digest of the text.
    pub text_digest: [u8; 16],
    /// Digest of everything.
    pub content_digest: [u8; 16],
    /// Signature of the text; `None` if it has no words.
    pub signature: Option<Signature>,
    /// Chunks of the text.
    pub chunks: Vec<Chunk>,
}

/// What a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareLimits {
    /// Bytes of its text.
    pub bytes: u64,
    /// Number of its chunks.
    pub chunks: usize,
    /// Sizes of its chunks.
    pub size: ChunkSize,
}

/// Prepares a document, or says why it is refused; the id comes back in both cases.
///
/// # Errors
/// `BadName`, `Empty`, `TooLarge`, `TooMany`.
pub fn prepare(document: Document, limits: PrepareLimits) -> Result<Prepared, (String, MemoryError)> {
    let name = document.id.clone().or_else(|| document.title.clone()).unwrap_or_default();
    let given = document.id.clone().unwrap_or_default();
    try_prepare(document, &name, limits).map_err(|error| (given, error))
}

fn try_prepare(document: Document, name: &str, limits: PrepareLimits) -> Result<Prepared, MemoryError> {
    if let Some(id) = &document.id {
        check_id(id)?;
    }
    check_size(name, document.text.len() as u64, limits.bytes)?;
    let text = normalize(&document.text);
    if !text.contains(char::is_alphanumeric) {
        return Err(MemoryError::Empty { name: name.to_owned() });
    }
    let chunks = chunks(&text, document.format, limits.size);
    if chunks.len() > limits.chunks {
        return Err(MemoryError::TooMany {
            what: format!("chunks of `{name}`"),
            count: chunks.len() as u64,
            max: limits.chunks as u64,
            key: "memory.limits.chunks_per_doc",
        });
    }
    let short = |field: Option<String>| field.map(|f| one_line(&f, FIELD_CHARS)).filter(|f| !f.is_empty());
    let (title, url, source) = (short(document.title), short(document.url), short(document.source));
    let metadata = serde_json::Value::Object(document.metadata).to_string();
    if metadata.len() > METADATA_MAX {
        return Err(MemoryError::TooLarge {
            what: format!("the metadata of `{name}`"),
            size: metadata.len() as u64,
            max: METADATA_MAX as u64,
            key: "none: put what is long into the text",
        });
    }
    let text_digest = digest(text.as_bytes());
    let tongue = Tongue::of(&text);
    let mut prepared = Prepared {
        id: String::new(),
        signature: Signature::of(&text),
        text,
        format: document.format,
        title,
        url,
        source,
        metadata,
        tongue,
        text_digest,
        content_digest: [0; 16],
        chunks,
    };
    prepared.content_digest = content_digest(&prepared);
    prepared.id = document.id.unwrap_or_else(|| hex(&prepared.text_digest));
    Ok(prepared)
}

/// Digest of all fields; lengths keep their boundaries apart.
fn content_digest(document: &Prepared) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let fields = [
        document.title.as_deref(),
        document.url.as_deref(),
        document.source.as_deref(),
        Some(document.metadata.as_str()),
        Some(match document.format {
            Format::Text => "text",
            Format::Markdown => "markdown",
            Format::Blocks => "blocks",
        }),
    ];
    for field in fields {
        hasher.update(&field.map_or(u64::MAX, |field| field.len() as u64).to_le_bytes());
        hasher.update(field.unwrap_or_default().as_bytes());
    }
    hasher.update(&document.text_digest);
    crate::journal::first(hasher.finalize().as_bytes())
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PrepareLimits =
        PrepareLimits { bytes: 1000, chunks: 3, size: ChunkSize { min: 2, max: 5, overlap: 0 } };

    fn document(text: &str) -> Document {
        Document { text: text.to_owned(), ..Document::default() }
    }

    #[test]
    fn content_names_a_document_without_id() {
        let a = prepare(document("caf\u{e9} water"), LIMITS).expect("fine");
        let b = prepare(document("cafe\u{301} water \n"), LIMITS).expect("fine");
        assert_eq!(a.id, b.id);
        assert_eq!(a.id.len(), 32);
    }

    #[test]
    fn every_field_counts_as_content() {
        let base = prepare(document("words"), LIMITS).expect("fine");
        let titled = Document { title: Some("t".to_owned()), ..document("words") };
        let titled = prepare(titled, LIMITS).expect("fine");
        assert_eq!(base.text_digest, titled.text_digest);
        assert_ne!(base.content_digest, titled.content_digest);
    }

    #[test]
    fn limits_refuse_with_a_code() {
        let code = |document| prepare(document, LIMITS).expect_err("refused").1.code();
        assert_eq!(code(document(" \n ")), "memory_empty");
        assert_eq!(code(document(&"a".repeat(1001))), "payload_too_large");
        assert_eq!(code(document(&"one two three. ".repeat(20))), "payload_too_large");
        let metadata = [("k".to_owned(), "v".repeat(METADATA_MAX).into())].into_iter().collect();
        assert_eq!(code(Document { metadata, ..document("words") }), "payload_too_large");
        assert_eq!(code(Document { id: Some("a\nb".to_owned()), ..document("x") }), "bad_name");
    }
}
