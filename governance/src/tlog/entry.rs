//! What an entry of the log says: canonical JSON (RFC 8785) without a personal datum in clear.
//!
//! Who did it, to what, in which tenant are pseudonyms under a key of the tenant: whoever has the key can look for a person,
//! and once the key is gone nobody can, while the tree stays as it is.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::bundle::MAX_ENTRY;
use super::hash::Hash;

/// Version of the form of an entry.
const VERSION: u32 = 1;
/// Characters of a pseudonym: 100 bits.
const PSEUDONYM: usize = 20;
/// JSON numbers are exact below this.
const MAX_NUMBER: u64 = 1 << 53;

/// Why something is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is not JSON of the known form, or a number has no exact form.
    #[error("not an entry: {0}")]
    Malformed(String),
    /// It is not in canonical form, so its hash would not be that of its meaning.
    #[error("not in canonical form")]
    NotCanonical,
    /// It is larger than an entry may be.
    #[error("an entry of {0} bytes; the limit is {MAX_ENTRY}")]
    TooLarge(usize),
}

/// A name that tells nothing to who has not the tenant's log key: 20 base32 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// Reads a pseudonym; anything else, such as a name in clear, is refused.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == PSEUDONYM && text.bytes().all(|c| matches!(c, b'A'..=b'Z' | b'2'..=b'7'));
        is_one.then(|| Self(text.to_owned()))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Pseudonym {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a pseudonym has 20 base32 characters"))
    }
}

/// The key of a tenant's pseudonyms and commitments. It does not show.
#[derive(Clone)]
pub struct LogKey(hmac::Key);

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey")
    }
}

impl LogKey {
    /// Takes the key's bytes.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The pseudonym of an id.
    #[must_use]
    pub fn pseudonym(&self, id: &str) -> Pseudonym {
        let mut text = BASE32_NOPAD.encode(hmac::sign(&self.0, id.as_bytes()).as_ref());
        text.truncate(PSEUDONYM);
        Pseudonym(text)
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was allowed, or done.
    Allow,
    /// It was refused.
    Deny,
    /// It was changed before it passed.
    Redact,
    /// It waits for a person.
    Review,
    /// Nothing was to be decided.
    None,
}

/// What else there is to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Readable by anyone: nothing about a person.
    Clear(Value),
    /// A commitment, shown on request: made by [`Payload::commit`].
    Commit(Commitment),
    /// Encrypted under the key of whom it is about; gone with that key. Base64.
    Sealed(String),
}

/// SHA-256 of salt and content, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment(String);

impl Payload {
    /// Commits to `content` under 32 random bytes, which are kept to open it.
    #[must_use]
    pub fn commit(salt: &[u8; 32], content: &[u8]) -> Self {
        // As the leaf of a tree of its own: a commitment is no hash of anything else.
        Self::Commit(Commitment(Hash::leaf(&[salt, content].concat()).to_string()))
    }

    /// Whether this is the commitment to `content` under `salt`.
    #[must_use]
    pub fn opens(&self, salt: &[u8; 32], content: &[u8]) -> bool {
        *self == Self::commit(salt, content)
    }
}

/// What happened, as its author knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What kind of thing, dotted: `policy.deny`, `mod.verdict`, `key.shred`.
    pub kind: String,
    /// Who did it.
    pub actor: Pseudonym,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: Pseudonym,
    /// In which tenant.
    pub tenant: Pseudonym,
    /// By which article of the constitution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
    /// What was decided.
    pub decision: Decision,
    /// Which case it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// What else there is to know.
    pub payload: Payload,
}

/// An entry: an event at its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this form.
    v: u32,
    /// When, Unix milliseconds by the clock of the node.
    pub t: u64,
    /// On which node.
    pub node: String,
    /// Which entry of the node's log it is: a gap shows.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// Puts an event in its place.
    #[must_use]
    pub fn new(event: Event, node: &str, seq: u64, unix_ms: u64) -> Self {
        Self { v: VERSION, t: unix_ms, node: node.to_owned(), seq, event }
    }

    /// The bytes that are logged: canonical JSON.
    ///
    /// # Errors
    /// [`EntryError::TooLarge`], [`EntryError::Malformed`] for numbers without an exact form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        if self.t > MAX_NUMBER || self.seq > MAX_NUMBER {
            return Err(EntryError::Malformed("a number above 2^53".to_owned()));
        }
        if let Payload::Clear(value) = &self.event.payload {
            exact(value)?;
        }
        let bytes = serde_json_canonicalizer::to_vec(self).map_err(|e| EntryError::Malformed(e.to_string()))?;
        if bytes.len() > MAX_ENTRY { Err(EntryError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads logged bytes.
    ///
    /// # Errors
    /// [`EntryError::Malformed`], [`EntryError::NotCanonical`], [`EntryError::TooLarge`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(|e| EntryError::Malformed(e.to_string()))?;
        if entry.v != VERSION {
            return Err(EntryError::Malformed(format!("version {}, {VERSION} is known", entry.v)));
        }
        if entry.to_bytes()? == bytes { Ok(entry) } else { Err(EntryError::NotCanonical) }
    }
}

/// Canonical JSON writes numbers as doubles: larger whole numbers would change.
fn exact(value: &Value) -> Result<(), EntryError> {
    match value {
        Value::Number(number) => {
            let is_exact = match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => number <= MAX_NUMBER,
                (None, Some(number)) => number.unsigned_abs() <= MAX_NUMBER,
                (None, None) => true,
            };
            is_exact.then_some(()).ok_or_else(|| EntryError::Malformed(format!("the number {number} is not exact")))
        }
        Value::Array(values) => values.iter().try_for_each(exact),
        Value::Object(fields) => fields.values().try_for_each(exact),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
