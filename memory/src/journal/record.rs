//! How records are stored: sealed for whoever stored the document, but for what has to be known without keys.
//!
//! A record begins with [`MARK`], then comes postcard. Without the mark it is one of before they were sealed, in the clear, and
//! stays so: nobody knows whose it is.

use aivillage_governance::keys::{Kept, SubjectTag};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DocKey, Head, decode};
use crate::error::MemoryError;

/// Neither UTF-8 nor a number as postcard writes it, so no older record begins with it.
const MARK: [u8; 2] = [0xff, 0x00];

/// A [`Head`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredHead {
    pub(super) version: u32,
    pub(super) oldest: u32,
    pub(super) deleted: bool,
    pub(super) kept: Kept,
}

/// A [`Version`](super::Version), and what is kept beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredVersion {
    pub(super) parts: Parts,
    pub(super) kept: Kept,
}

/// What is kept beside a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    /// Parts of the text.
    pub(super) texts: u32,
    /// Pages of chunks.
    pub(super) chunks: u32,
}

/// A [`Head`] of before they were sealed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ClearHead {
    id: String,
    version: u32,
    oldest: u32,
    deleted: bool,
    text: [u8; 16],
    content: [u8; 16],
    duplicate_of: Option<(DocKey, String)>,
    signature: Vec<u8>,
    language: String,
}

impl From<ClearHead> for Head {
    fn from(head: ClearHead) -> Self {
        let ClearHead { id, version, oldest, deleted, text, content, duplicate_of, signature, language } = head;
        let duplicate_of = duplicate_of.map(|(key, _)| key);
        Self { id, version, oldest, deleted, text, content, duplicate_of, signature, language, subject: None }
    }
}

impl Head {
    /// What is known of a document whose keys were destroyed: as if it were deleted.
    pub(super) fn closed(stored: &StoredHead) -> Self {
        Self {
            id: String::new(),
            version: stored.version,
            oldest: stored.oldest,
            deleted: true,
            text: [0; 16],
            content: [0; 16],
            duplicate_of: None,
            signature: Vec::new(),
            language: String::new(),
            subject: stored.kept.subject(),
        }
    }
}

/// What follows the mark; none of a record of before they were sealed.
pub(super) fn marked(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&MARK)
}

/// A record as it is stored.
pub(super) fn stored(value: &impl Serialize) -> Result<Vec<u8>, MemoryError> {
    postcard::to_extend(value, MARK.to_vec()).map_err(|error| MemoryError::Journal { reason: error.to_string() })
}

/// Whose a record of [`HEADS`](super::HEADS) or [`VERSIONS`](super::VERSIONS) is; none of one in the clear.
pub(super) fn subject<T: DeserializeOwned>(
    bytes: &[u8],
    kept: impl Fn(&T) -> &Kept,
) -> Result<Option<(SubjectTag, T)>, MemoryError> {
    let Some(stored) = marked(bytes) else { return Ok(None) };
    let stored: T = decode(stored)?;
    Ok(kept(&stored).subject().map(|subject| (subject, stored)))
}

#[cfg(test)]
impl ClearHead {
    pub(super) fn sample(id: &str, duplicate_of: Option<(DocKey, String)>) -> Self {
        let (id, signature, language) = (id.to_owned(), Vec::new(), String::new());
        let (text, content) = ([0; 16], [0; 16]);
        Self { id, version: 2, oldest: 1, deleted: false, text, content, duplicate_of, signature, language }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Chunk;
    use crate::document::Format;
    use crate::journal::Version;
    use crate::journal::write::tests::version;

    #[test]
    fn no_record_of_before_has_the_mark() {
        for length in 1..=600 {
            let head = ClearHead::sample(&"i".repeat(length), None);
            assert_eq!(marked(&postcard::to_allocvec(&head).unwrap()), None, "{length}");
            let chunk = Chunk { heading: String::new(), bytes: (0, 1), chars: (0, 1), page: 0 };
            assert_eq!(marked(&postcard::to_allocvec(&vec![chunk; length]).unwrap()), None, "{length}");
        }
        let titled = Version { title: Some("t".repeat(300)), format: Format::Blocks, ..version() };
        for version in [version(), titled] {
            assert_eq!(marked(&postcard::to_allocvec(&version).unwrap()), None);
        }
        assert!(String::from_utf8(MARK[..1].to_vec()).is_err());
    }
}
