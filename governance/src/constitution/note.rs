//! Signed notes by the keys of a constitution's roots: those of [`tlog::note`](crate::tlog::note), Ed25519 only.

use std::fmt;
use std::str::FromStr;

use aivillage_runtime::PublicKey;
use aws_lc_rs::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};

use crate::tlog::{BadNote, Note as Signed, VerifierKey};

/// Whose signatures count, written `name+hash+key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NoteKey(VerifierKey);

impl From<NoteKey> for String {
    fn from(key: NoteKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for NoteKey {
    type Error = NoteError;

    fn try_from(text: String) -> Result<Self, NoteError> {
        text.parse()
    }
}

impl NoteKey {
    /// A key and its name.
    ///
    /// # Errors
    /// [`NoteError::Key`] for a name that is empty or has a plus or white space.
    pub fn try_new(name: &str, key: PublicKey) -> Result<Self, NoteError> {
        VerifierKey::log(name, key.0).map(Self).map_err(|_| NoteError::Key)
    }

    /// Signs a text with the secret half of this key.
    #[must_use]
    pub fn sign(&self, text: &str, pair: &Ed25519KeyPair) -> String {
        self.0.line(pair.sign(text.as_bytes()).as_ref().to_vec()).to_string()
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let key: Option<VerifierKey> = text.parse().ok();
        // A witness signs other bytes than the text.
        key.filter(VerifierKey::is_log).map(Self).ok_or(NoteError::Key)
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
pub struct Note(Signed);

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError::Format`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        note.parse().map(Self).map_err(|_| NoteError::Format)
    }

    /// What was signed.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// How many of these keys signed it. Signatures of others do not matter.
    ///
    /// # Errors
    /// [`NoteError::Signature`] when one is under the name of a known key, which did not make it.
    pub fn signers(&self, keys: &[NoteKey]) -> Result<usize, NoteError> {
        match self.0.verify(keys.iter().map(|key| &key.0)) {
            Ok(signed) => Ok(signed.len()),
            Err(BadNote::Unsigned) => Ok(0),
            Err(_) => Err(NoteError::Signature),
        }
    }
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
