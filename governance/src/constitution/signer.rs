//! The secret half of a root key, in the form of Go's sumdb: `PRIVATE+KEY+name+hash+base64(0x01, seed)`, one line.

use std::fmt;

use aivillage_runtime::PublicKey;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::chain::{Signed, body};
use super::document::{Document, DocumentError};
use super::note::{Note, NoteError, NoteKey};

const PRIVATE: &str = "PRIVATE+KEY+";
/// The algorithm byte of Ed25519.
const ED25519: u8 = 1;

/// A key that may sign constitutions.
pub struct RootSigner {
    key: NoteKey,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for RootSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootSigner").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Why a constitution was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Its text is no constitution.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It does not follow on the version before.
    #[error("version {version} of `{name}` does not follow on the version before")]
    Order {
        /// What it says that it is.
        version: u32,
        /// Whose it says that it is.
        name: String,
    },
    /// What is signed already is something else.
    #[error("the note beside it is for another text: remove it")]
    Other,
    /// The note beside it is none, or has a wrong signature.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl RootSigner {
    /// Takes 256 random bits.
    ///
    /// # Errors
    /// [`NoteError::Key`] for a name that is empty or has a plus or white space.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Key)?;
        Ok(Self { key: NoteKey::try_new(name, PublicKey(public))?, pair })
    }

    /// Reads the line of a key file.
    ///
    /// # Errors
    /// [`NoteError::Key`].
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let mut parts = line.trim_end().strip_prefix(PRIVATE).ok_or(NoteError::Key)?.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = Zeroizing::new(STANDARD.decode(key).map_err(|_| NoteError::Key)?);
        let seed = key.strip_prefix(&[ED25519]).and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
        let seed = seed.ok_or(NoteError::Key)?;
        let signer = Self::new(name, seed)?;
        // The hash in the middle says whether the line was damaged.
        if *signer.encode(seed) == *line.trim_end() { Ok(signer) } else { Err(NoteError::Key) }
    }

    /// The line of a key file, for the seed that this was made from.
    #[must_use]
    pub fn encode(&self, seed: &[u8; 32]) -> Zeroizing<String> {
        let public = self.key.to_string();
        let mut parts = public.split('+');
        let (name, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let key = Zeroizing::new([&[ED25519][..], seed].concat());
        Zeroizing::new(format!("{PRIVATE}{name}+{id}+{}", STANDARD.encode(&*key)))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &NoteKey {
        &self.key
    }

    /// Signs a version: its note afterwards, with the signatures it had. Nothing is added if this key is among them.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(&self, version: &Signed, before: Option<&Document>) -> Result<String, SignError> {
        let document = Document::parse(&version.toml)?;
        let follows = before.map_or(document.version() == 1, |before| {
            document.version() == before.version() + 1 && document.name() == before.name()
        });
        if !follows {
            return Err(SignError::Order { version: document.version(), name: document.name().to_owned() });
        }
        let text = body(&document, before.map_or([0; 32], Document::hash));
        if version.note.is_empty() {
            return Ok(format!("{text}\n{}", self.key.sign(&text, &self.pair)));
        }
        let note = Note::parse(&version.note)?;
        if note.text() != text {
            return Err(SignError::Other);
        }
        if note.signers(std::slice::from_ref(&self.key))? > 0 {
            return Ok(version.note.clone());
        }
        Ok(format!("{}{}", version.note, self.key.sign(&text, &self.pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_TOML;
    use super::super::chain::{Chain, ConstitutionError, RootKeys, SignatureReason};
    use super::*;

    fn signer(name: &str) -> RootSigner {
        RootSigner::new(name, &[name.as_bytes()[0]; 32]).unwrap()
    }

    fn default() -> Signed {
        Signed { toml: DEFAULT_TOML.to_owned(), note: String::new() }
    }

    #[test]
    fn two_keys_sign_one_after_the_other() {
        let (ann, bert) = (signer("ann"), signer("bert"));
        let roots = RootKeys::try_new(vec![ann.public().clone(), bert.public().clone()], 2).unwrap();
        let mut version = default();
        version.note = ann.sign(&version, None).unwrap();
        assert_eq!(ann.sign(&version, None).unwrap(), version.note, "again changes nothing");
        let few = SignatureReason::Few { have: 1, need: 2 };
        let refused = Chain::verify(vec![version.clone()], &roots).unwrap_err();
        assert_eq!(refused, ConstitutionError::Signature { version: 1, reason: few });
        version.note = bert.sign(&version, None).unwrap();
        Chain::verify(vec![version], &roots).unwrap();
    }

    #[test]
    fn what_is_not_the_next_version_is_not_signed() {
        let ann = signer("ann");
        let first = Document::parse(DEFAULT_TOML).unwrap();
        assert!(matches!(ann.sign(&default(), Some(&first)), Err(SignError::Order { version: 1, .. })));
        let mut second = default();
        second.toml = DEFAULT_TOML.replacen("version = 1", "version = 2", 1);
        assert!(matches!(ann.sign(&second, None), Err(SignError::Order { version: 2, .. })));
        second.note = ann.sign(&second, Some(&first)).unwrap();
        second.toml = second.toml.replacen("suspended", "sent away", 1);
        assert_eq!(ann.sign(&second, Some(&first)), Err(SignError::Other));
        second.note = "text".to_owned();
        assert_eq!(ann.sign(&second, Some(&first)), Err(SignError::Note(NoteError::Format)));
        second.toml = "version = ".to_owned();
        assert!(matches!(ann.sign(&second, None), Err(SignError::Document(_))));
    }

    /// Any character changed is found, but for those of base64 that mean nothing.
    #[test]
    fn a_key_file_reads_back_and_a_damaged_one_does_not() {
        let (seed, ann) = ([b'a'; 32], signer("ann"));
        let line = ann.encode(&seed);
        assert_eq!(RootSigner::parse(&format!("{}\n", *line)).unwrap().public(), ann.public());
        for at in 0..line.len() {
            let mut changed = line.to_string();
            let other = if changed.as_bytes()[at] == b'A' { "B" } else { "A" };
            changed.replace_range(at..=at, other);
            assert_eq!(RootSigner::parse(&changed).err(), Some(NoteError::Key), "{changed}");
            assert!(RootSigner::parse(&line[..at]).is_err());
        }
        assert_eq!(format!("{ann:?}").matches("PRIVATE").count(), 0);
        assert_eq!(RootSigner::new("two words", &seed).err(), Some(NoteError::Key));
    }
}
