//! Known illegal content by its SHA-256, from a list that the operator brings. None is shipped.

use sha2::{Digest, Sha256};

/// Most entries; 32 MiB of memory.
const ENTRIES_MAX: usize = 1 << 20;

/// A list cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashListError {
    /// A line is neither empty, nor a comment, nor 64 hex digits.
    #[error("hash list: line {line} is not 64 hex digits")]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// More entries than are kept.
    #[error("hash list: more than {ENTRIES_MAX} entries")]
    TooMany,
}

/// SHA-256 hashes of known content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HashList {
    sorted: Vec<[u8; 32]>,
}

impl std::fmt::Debug for HashList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HashList({})", self.sorted.len())
    }
}

impl HashList {
    /// Reads a list: one hash in hex on each line; what follows `#` is a comment.
    ///
    /// # Errors
    /// [`HashListError`] names the line.
    pub fn parse(text: &str) -> Result<Self, HashListError> {
        Self::parse_up_to(ENTRIES_MAX, text)
    }

    fn parse_up_to(most: usize, text: &str) -> Result<Self, HashListError> {
        let mut sorted = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let hash = line.split('#').next().unwrap_or_default().trim();
            if hash.is_empty() {
                continue;
            }
            if sorted.len() == most {
                return Err(HashListError::TooMany);
            }
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok();
            sorted.push(bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(HashListError::Line { line: n + 1 })?);
        }
        sorted.sort_unstable();
        Ok(Self { sorted })
    }

    /// Whether the content is on the list.
    #[must_use]
    pub fn contains(&self, content: &[u8]) -> bool {
        !self.sorted.is_empty() && self.sorted.binary_search(&Sha256::digest(content).into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 example: SHA-256 of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn listed_content_is_known() {
        let list = HashList::parse(&format!("# a list\n\n{} # first\n", ABC.to_uppercase())).unwrap();
        assert!(list.contains(b"abc") && !list.contains(b"abd"));
        assert!(!HashList::default().contains(b"abc"));
    }

    #[test]
    fn a_bad_list_is_refused() {
        assert_eq!(HashList::parse(&format!("{ABC}\nabc")), Err(HashListError::Line { line: 2 }));
        let three = format!("{ABC}\n").repeat(3);
        assert_eq!(HashList::parse_up_to(2, &three), Err(HashListError::TooMany));
        assert!(HashList::parse_up_to(3, &three).is_ok());
    }
}
