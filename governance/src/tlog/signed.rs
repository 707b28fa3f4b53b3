//! The size and root that were signed last: file `signed`, safe on disk before the signature leaves.
//!
//! Three lines: the size, the root in base64, and the CRC-32C of both lines in 8 hex digits.

use super::checkpoint::number;
use super::error::LogError;
use super::files::Files;
use super::hash::Hash;

/// The file.
pub(crate) const NAME: &str = "signed";

/// What was signed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LastSigned {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl LastSigned {
    pub(crate) fn encode(&self) -> String {
        let body = format!("{}\n{}\n", self.size, self.root);
        format!("{body}{:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.split('\n');
        let read = Self { size: number(lines.next()?)?, root: Hash::from_base64(lines.next()?)? };
        (read.encode().as_bytes() == bytes).then_some(read)
    }

    /// Reads the file; `None` when nothing was ever signed.
    pub(crate) fn load(files: &impl Files) -> Result<Option<Self>, LogError> {
        match files.read(NAME) {
            Ok(bytes) => Self::decode(&bytes).map(Some).ok_or_else(|| LogError::damaged(NAME, 0, "it cannot be read")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", NAME, &error)),
        }
    }
}
