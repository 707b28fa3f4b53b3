//! All versions of a constitution, each signed by enough root keys and chained to the one before. Pure.
//!
//! The text that is signed: `aivillage-constitution/v1`, name, version, base64 of the hash, base64 of the hash before (of the
//! first version, 32 zeros), a line each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentError};
use super::note::{Note, NoteError, NoteKey};

/// The first line of what is signed.
const CONTEXT: &str = "aivillage-constitution/v1";
/// Versions of a constitution at most: one a week for 20 years.
pub const MAX_VERSIONS: usize = 1_024;

/// Who may sign a constitution, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKeys {
    keys: Vec<NoteKey>,
    threshold: usize,
}

impl RootKeys {
    /// `threshold` of these keys.
    ///
    /// # Errors
    /// [`SignatureReason::Keys`] for a threshold of none or of more than there are, or a key that is there twice.
    pub fn try_new(keys: Vec<NoteKey>, threshold: usize) -> Result<Self, SignatureReason> {
        let is_twice = |(at, key): (usize, &NoteKey)| keys.iter().skip(at + 1).any(|other| other == key);
        if !(1..=keys.len()).contains(&threshold) || keys.iter().enumerate().any(is_twice) {
            return Err(SignatureReason::Keys { keys: keys.len(), threshold });
        }
        Ok(Self { keys, threshold })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[NoteKey] {
        &self.keys
    }
}

/// A version as it is stored: two files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `constitution.toml`.
    pub toml: String,
    /// `constitution.sig`.
    pub note: String,
}

/// Why a constitution does not hold; the node does not start then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ConstitutionError {
    /// Its signatures do not make it valid.
    #[error("E-CONST-SIG {version} {reason}")]
    Signature {
        /// Which version, from 1.
        version: u32,
        /// Why not.
        reason: SignatureReason,
    },
    /// Its text is no constitution.
    #[error("constitution version {version}: {reason}")]
    Document {
        /// Which version, from 1.
        version: u32,
        /// Why not.
        #[source]
        reason: DocumentError,
    },
    /// There is none, or there are more than any village has.
    #[error("{count} versions of a constitution: there are 1 to {MAX_VERSIONS}")]
    Count {
        /// How many there are.
        count: usize,
    },
}

/// What is wrong with the signatures of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureReason {
    /// The note does not count.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is for another text, version or predecessor.
    #[error("the note signs another constitution, version or predecessor")]
    Body,
    /// Too few of the root keys signed.
    #[error("{have} of the root keys signed, {need} must")]
    Few {
        /// Those that did.
        have: usize,
        /// Those that must.
        need: usize,
    },
    /// The document says that it is another version, or another village's.
    #[error("the document is version {version} of `{name}`")]
    Version {
        /// What it says.
        version: u32,
        /// Whose it is.
        name: String,
    },
    /// No such number of keys can sign.
    #[error("{threshold} of {keys} different keys can not be asked for")]
    Keys {
        /// Keys that there are.
        keys: usize,
        /// How many must sign.
        threshold: usize,
    },
}

/// The text that root keys sign for a version.
#[must_use]
pub fn body(document: &Document, previous: [u8; 32]) -> String {
    let [hash, previous] = [document.hash(), previous].map(|hash| STANDARD.encode(hash));
    format!("{CONTEXT}\n{}\n{}\n{hash}\n{previous}\n", document.name(), document.version())
}

/// See the module. Has one version at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The first, so that there is one.
    first: (Document, Signed),
    later: Vec<(Document, Signed)>,
}

impl Chain {
    /// Verifies all versions, from the first.
    ///
    /// # Errors
    /// [`ConstitutionError`] of the first version that does not hold.
    pub fn verify(versions: Vec<Signed>, roots: &RootKeys) -> Result<Self, ConstitutionError> {
        let count = versions.len();
        let mut versions = versions.into_iter();
        let Some(first) = versions.next().filter(|_| count <= MAX_VERSIONS) else {
            return Err(ConstitutionError::Count { count });
        };
        let mut chain = Self { first: (verify(&first, None, roots)?, first), later: Vec::new() };
        for signed in versions {
            let document = verify(&signed, Some(chain.current()), roots)?;
            chain.later.push((document, signed));
        }
        Ok(chain)
    }

    /// The constitution of the program itself, as the first version. It has no signature of its own: whoever trusts the
    /// program trusts it.
    ///
    /// # Errors
    /// [`ConstitutionError::Document`] if the program was built with a text that is no constitution.
    pub fn embedded() -> Result<Self, ConstitutionError> {
        let signed = Signed { toml: super::DEFAULT_TOML.to_owned(), note: String::new() };
        let document =
            Document::parse(&signed.toml).map_err(|reason| ConstitutionError::Document { version: 1, reason })?;
        Ok(Self { first: (document, signed), later: Vec::new() })
    }

    /// The version in force.
    #[must_use]
    pub fn current(&self) -> &Document {
        &self.later.last().unwrap_or(&self.first).0
    }

    /// A version with its files.
    #[must_use]
    pub fn version(&self, version: u32) -> Option<(&Document, &Signed)> {
        let at = usize::try_from(version.checked_sub(1)?).ok()?;
        let (document, signed) = match at.checked_sub(1) {
            None => &self.first,
            Some(at) => self.later.get(at)?,
        };
        Some((document, signed))
    }
}

fn verify(signed: &Signed, before: Option<&Document>, roots: &RootKeys) -> Result<Document, ConstitutionError> {
    let version = before.map_or(0, Document::version) + 1;
    let document = Document::parse(&signed.toml).map_err(|reason| ConstitutionError::Document { version, reason })?;
    let check = || {
        let is_ours = before.is_none_or(|before| before.name() == document.name());
        if document.version() != version || !is_ours {
            let name = document.name().to_owned();
            return Err(SignatureReason::Version { version: document.version(), name });
        }
        let note = Note::parse(&signed.note)?;
        if note.text() != body(&document, before.map_or([0; 32], Document::hash)) {
            return Err(SignatureReason::Body);
        }
        let (have, need) = (note.signers(&roots.keys)?, roots.threshold);
        if have < need { Err(SignatureReason::Few { have, need }) } else { Ok(()) }
    };
    check().map_err(|reason| ConstitutionError::Signature { version, reason })?;
    Ok(document)
}
