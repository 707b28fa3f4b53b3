//! The hashes of the tree. RFC 6962 section 2.1.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A SHA-256 hash of an entry or of a part of the tree; shown in base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Hash {
    /// The root of the tree without entries.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(&digest(&SHA256, &[]))
    }

    /// The hash of an entry.
    #[must_use]
    pub fn leaf(entry: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(entry);
        Self::of(&context.finish())
    }

    /// The hash of two neighbouring parts.
    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self::of(&digest(&SHA256, &bytes))
    }

    /// The root over hashes whose number is a power of two; of none, that of the empty tree.
    #[must_use]
    pub(crate) fn subtree(hashes: &[Self]) -> Self {
        let mut row = hashes.to_vec();
        while row.len() > 1 {
            let pairs = row.chunks(2).map(|pair| match pair {
                [left, right] => Self::node(left, right),
                rest => rest[0],
            });
            row = pairs.collect();
        }
        row.first().copied().unwrap_or_else(Self::empty)
    }

    /// Reads a hash from its base64 form.
    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Reads hashes that stand one behind the other; `None` when the length is no multiple of 32.
    pub(crate) fn row(bytes: &[u8]) -> Option<Vec<Self>> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| hashes.iter().map(|hash| Self(*hash)).collect())
    }

    /// Writes hashes one behind the other.
    pub(crate) fn bytes(hashes: &[Self]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.0).collect()
    }

    fn of(digest: &aws_lc_rs::digest::Digest) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
