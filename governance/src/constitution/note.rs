//! Signed notes, as a file: a text, an empty line, and lines of signatures. C2SP signed-note, Ed25519 only.
//!
//! ```text
//! <text, ends with a newline>
//!
//! — <name> <base64 of: first 4 bytes of SHA-256(name, newline, 0x01, key), 64 bytes of signature>
//! ```

use std::fmt;
use std::str::FromStr;

use aivillage_runtime::PublicKey;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The algorithm byte of Ed25519.
const ED25519: u8 = 1;
/// Signatures of one note at most: more is nobody's honest work.
const MAX_SIGNATURES: usize = 100;
/// How a line of a signature begins.
const DASH: &str = "\u{2014} ";

/// Whose signatures count, written `name+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteKey {
    name: String,
    key: PublicKey,
}

impl NoteKey {
    /// A key and its name.
    ///
    /// # Errors
    /// [`NoteError::Key`] for a name that is empty or has a plus or white space.
    pub fn try_new(name: &str, key: PublicKey) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains(|c: char| c == '+' || c.is_whitespace()) {
            return Err(NoteError::Key);
        }
        Ok(Self { name: name.to_owned(), key })
    }

    fn id(&self) -> [u8; 4] {
        let hash: [u8; 32] = Sha256::digest([self.name.as_bytes(), b"\n", &[ED25519], &self.key.0].concat()).into();
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }

    /// Signs a text with the secret half of this key.
    #[must_use]
    pub fn sign(&self, text: &str, pair: &Ed25519KeyPair) -> String {
        let signature = [&self.id()[..], pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{DASH}{} {}\n", self.name, STANDARD.encode(signature))
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], &self.key.0[..]].concat());
        write!(f, "{}+{}+{key}", self.name, HEXLOWER.encode(&self.id()))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let key = key.strip_prefix(&[ED25519]).and_then(|key| key.try_into().ok()).ok_or(NoteError::Key)?;
        let key = Self::try_new(name, PublicKey(key))?;
        if HEXLOWER.encode(&key.id()) == id { Ok(key) } else { Err(NoteError::Key) }
    }
}

/// Why a note does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoteError {
    /// Not a key in the form of notes, or of another algorithm.
    #[error("not an Ed25519 key of the form name+hash+key")]
    Key,
    /// Not a text with lines of signatures after an empty line.
    #[error("not a signed note")]
    Format,
    /// A known key did not make the signature under its name.
    #[error("a signature of a known key is wrong")]
    Signature,
}

/// A note that was read but not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<(String, [u8; 4], [u8; 64])>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError::Format`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let at = note.rfind("\n\n").ok_or(NoteError::Format)?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        if text.contains(|c: char| c < ' ' && c != '\n') || !lines.ends_with('\n') {
            return Err(NoteError::Format);
        }
        let signatures: Vec<_> =
            lines.lines().take(MAX_SIGNATURES + 1).map(signature).collect::<Option<_>>().ok_or(NoteError::Format)?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::Format);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// What was signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many of these keys signed it. Signatures of others do not matter.
    ///
    /// # Errors
    /// [`NoteError::Signature`] when one is under the name of a known key, which did not make it.
    pub fn signers(&self, keys: &[NoteKey]) -> Result<usize, NoteError> {
        let mut signers = 0;
        for key in keys {
            let mut own =
                self.signatures.iter().filter(|(name, id, _)| *name == key.name && *id == key.id()).peekable();
            if own.peek().is_none() {
                continue;
            }
            if !own.all(|(_, _, signature)| key.key.verify(self.text.as_bytes(), signature)) {
                return Err(NoteError::Signature);
            }
            signers += 1;
        }
        Ok(signers)
    }
}

fn signature(line: &str) -> Option<(String, [u8; 4], [u8; 64])> {
    let (name, bytes) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    // Of another algorithm it may be longer; then it is no known key's.
    let signature = signature.first_chunk::<64>()?;
    (!name.is_empty()).then(|| (name.to_owned(), *id, *signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Go package that the format comes from: golang.org/x/mod/sumdb/note, `ExampleOpen`.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_public_example_verifies_and_a_change_does_not() {
        let key: NoteKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        let note = Note::parse(NOTE).unwrap();
        assert_eq!(note.signers(std::slice::from_ref(&key)), Ok(1));
        assert_eq!(note.text().lines().count(), 2);
        let changed = Note::parse(&NOTE.replace("answer", "Answer")).unwrap();
        assert_eq!(changed.signers(&[key]), Err(NoteError::Signature));
    }

    #[test]
    fn what_is_no_note_or_key_is_refused() {
        let long = format!("a\n\n{}", format!("{}\n", NOTE.lines().last().unwrap()).repeat(101));
        for bad in ["", "text\n", "text\n\n", "a\n\n- x AAAA\n", "a\u{1}\n\n", NOTE.trim_end(), &long] {
            let read = Note::parse(bad);
            assert!(read == Err(NoteError::Format) || bad == "text\n\n", "{bad:?}: {read:?}");
        }
        for bad in ["", "a+b", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "a+00000000+AQ=="]
        {
            assert_eq!(bad.parse::<NoteKey>(), Err(NoteError::Key), "{bad}");
        }
        assert_eq!(NoteKey::try_new("two words", PublicKey([0; 32])), Err(NoteError::Key));
    }
}
