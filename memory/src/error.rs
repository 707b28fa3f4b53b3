//! What can be wrong with a document or a request, told so that the reader knows what to do.

use aivillage_governance::gate::Why;
use aivillage_governance::keys::VaultError;
use aivillage_runtime::{AppError, CallError};

/// Why a document, a file or a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// There is no text in it.
    #[error("`{name}` holds no text: nothing to store (a scanned PDF needs OCR first)")]
    Empty {
        /// The document.
        name: String,
    },
    /// Larger than a limit.
    #[error("{what} is {size} bytes, the limit is {max}: split it, or raise `{key}` in the configuration")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// More items than a limit.
    #[error("{what}: {count} is over the limit of {max}: send fewer at a time, or raise `{key}` in the configuration")]
    TooMany {
        /// What there are too many of.
        what: String,
        /// How many.
        count: u64,
        /// The limit.
        max: u64,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// A type that no parser reads.
    #[error("`{name}` is {mime}, which is not read: {advice}")]
    Unsupported {
        /// The file.
        name: String,
        /// What it was recognised as.
        mime: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// A PDF that cannot be read.
    #[error("`{name}` cannot be read as PDF: {reason}")]
    BadPdf {
        /// The file.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// Bytes that are no text in any encoding that was tried.
    #[error("`{name}` is neither UTF-8 nor readable legacy text (first bad byte at {offset}): convert it to UTF-8")]
    BadEncoding {
        /// The file.
        name: String,
        /// Where UTF-8 ends.
        offset: usize,
    },
    /// A table or JSON file with an error in its syntax.
    #[error("`{name}` cannot be read as {format}: {reason}")]
    BadSyntax {
        /// The file.
        name: String,
        /// `JSON`, `JSON Lines` or `CSV`.
        format: &'static str,
        /// What and where.
        reason: String,
    },
    /// A parser did not end in its time.
    #[error("`{name}` could not be parsed in {seconds} s: split it or convert it to text")]
    Slow {
        /// The file.
        name: String,
        /// The limit.
        seconds: u64,
    },
    /// A parser crashed; nothing else was harmed.
    #[error("`{name}` makes its parser fail ({reason}): convert it to text")]
    ParserFailed {
        /// The file.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// A name that does not fit.
    #[error("{what} is not valid: {rule}")]
    BadName {
        /// Which name.
        what: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// There is no such document or version.
    #[error("{what} is not in collection `{collection}`")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        collection: String,
    },
    /// There is no such collection.
    #[error("there is no collection `{name}`{}", nearest.as_ref().map_or_else(String::new, |n| format!(", did you mean `{n}`?")))]
    NoCollection {
        /// What was asked for.
        name: String,
        /// The existing name most like it.
        nearest: Option<String>,
    },
    /// The gate does not let it pass.
    #[error("{message}")]
    Withheld {
        /// Why.
        why: Why,
        /// By which article.
        message: String,
    },
    /// The index could not be read or written.
    #[error("the index of the collection failed: {reason}")]
    Index {
        /// What tantivy said.
        reason: String,
    },
    /// It cannot be sealed or opened: a person who was erased stores nothing any more, or the keys are not there.
    #[error(transparent)]
    Keys(#[from] VaultError),
    /// The journal could not be read or written.
    #[error("the journal of the collection failed: {reason}")]
    Journal {
        /// What the store said.
        reason: String,
    },
}

impl MemoryError {
    /// The stable `snake_case` name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "memory_empty",
            Self::TooLarge { .. } | Self::TooMany { .. } => "payload_too_large",
            Self::Unsupported { .. } => "unsupported_media_type",
            Self::BadPdf { .. } => "bad_pdf",
            Self::BadEncoding { .. } => "bad_encoding",
            Self::BadSyntax { .. } => "bad_syntax",
            Self::Slow { .. } => "parser_timeout",
            Self::ParserFailed { .. } => "parser_failed",
            Self::BadName { .. } => "bad_name",
            Self::NotFound { .. } => "not_found",
            Self::NoCollection { .. } => "collection_not_found",
            Self::Withheld { why, .. } => why.code(),
            Self::Index { .. } => "index_failed",
            Self::Keys(VaultError::Crypt(error)) => error.code(),
            Self::Keys(_) => "keys_unavailable",
            Self::Journal { .. } => "journal_failed",
        }
    }
}

impl From<MemoryError> for AppError {
    fn from(error: MemoryError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<MemoryError> for CallError {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Keys(error) => error.into(),
            error => Self::App(error.into()),
        }
    }
}

impl From<&MemoryError> for crate::document::PutError {
    fn from(error: &MemoryError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string() }
    }
}

impl From<tantivy::TantivyError> for MemoryError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::Index { reason: error.to_string() }
    }
}
