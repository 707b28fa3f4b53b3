//! Signed notes and their keys. C2SP signed-note, C2SP tlog-cosignature.
//!
//! A note is a text, an empty line, and signature lines `— <name> base64(key id || signature)`. A key id is the first 4 bytes of
//! `SHA-256(name || "\n" || type || public key)`; type 1 is an Ed25519 signature of the text, type 4 a cosignature with the time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;

/// Most bytes of a note.
pub const MAX_NOTE: usize = 64 << 10;
/// Most signatures of a note; a verifier must accept 16.
const MAX_SIGNATURES: usize = 64;

/// Why a note is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BadNote {
    /// It is not a note.
    #[error("not a signed note: {0}")]
    Malformed(Malformed),
    /// No signature is by a known key.
    #[error("no signature by a known key")]
    Unsigned,
    /// A signature by a known key does not fit the text.
    #[error("a signature by a known key is wrong")]
    WrongSignature,
    /// A key is not `name+id+base64`, or has another id than it says.
    #[error("not a verifier key: `name+id+base64` is wanted")]
    BadKey,
}

/// What is wrong with the form of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Malformed {
    /// Too many bytes or signatures.
    #[error("too large")]
    TooLarge,
    /// Control characters.
    #[error("it has control characters")]
    Control,
    /// No empty line, or nothing behind it.
    #[error("it has no signatures")]
    NoSignatures,
    /// A line that is no signature.
    #[error("a signature line is not `— name base64`")]
    SignatureLine,
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Type {
    /// The text: a log its checkpoint.
    Ed25519 = 1,
    /// The text and the time: a witness somebody's checkpoint.
    Cosignature = 4,
}

/// A public key with its name; shown and read as `name+id+base64(type || key)`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    kind: Type,
    key: [u8; 32],
}

impl VerifierKey {
    /// The key of a log, named by its origin.
    ///
    /// # Errors
    /// [`BadNote::BadKey`]: names are not empty and have neither spaces nor `+`.
    pub fn log(name: &str, key: [u8; 32]) -> Result<Self, BadNote> {
        Self::new(name, Type::Ed25519, key)
    }

    /// The key of a witness.
    ///
    /// # Errors
    /// As [`VerifierKey::log`].
    pub fn witness(name: &str, key: [u8; 32]) -> Result<Self, BadNote> {
        Self::new(name, Type::Cosignature, key)
    }

    fn new(name: &str, kind: Type, key: [u8; 32]) -> Result<Self, BadNote> {
        if !is_name(name) {
            return Err(BadNote::BadKey);
        }
        let hash = digest(&SHA256, &[name.as_bytes(), b"\n", &[kind as u8], &key].concat());
        let id = hash.as_ref().first_chunk().copied().ok_or(BadNote::BadKey)?;
        Ok(Self { name: name.to_owned(), id, kind, key })
    }

    /// Whose key it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the key of a log, not of a witness.
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.kind == Type::Ed25519
    }

    /// The line of a signature by this key.
    pub(crate) fn line(&self, signature: Vec<u8>) -> SignatureLine {
        SignatureLine { name: self.name.clone(), id: self.id, signature }
    }

    fn made(&self, line: &SignatureLine) -> bool {
        line.name == self.name && line.id == self.id
    }

    /// Checks a signature of the text; a cosignature has a time.
    fn check(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, BadNote> {
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        match self.kind {
            Type::Ed25519 => key.verify(text.as_bytes(), signature).map(|()| None).map_err(|_| BadNote::WrongSignature),
            Type::Cosignature => {
                let (time, signature) = signature.split_first_chunk::<8>().ok_or(BadNote::WrongSignature)?;
                let unix_s = u64::from_be_bytes(*time);
                let message = cosigned(text, unix_s);
                let verified = unix_s >> 63 == 0 && key.verify(message.as_bytes(), signature).is_ok();
                if verified { Ok(Some(unix_s)) } else { Err(BadNote::WrongSignature) }
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind as u8][..], &self.key].concat();
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = BadNote;

    fn from_str(text: &str) -> Result<Self, BadNote> {
        let (name, rest) = text.split_once('+').ok_or(BadNote::BadKey)?;
        // base64 may have a `+` itself.
        let (_, key) = rest.split_once('+').ok_or(BadNote::BadKey)?;
        let key = STANDARD.decode(key).map_err(|_| BadNote::BadKey)?;
        let (kind, key) = key.split_first().ok_or(BadNote::BadKey)?;
        let key = key.try_into().map_err(|_| BadNote::BadKey)?;
        let read = match kind {
            1 => Self::log(name, key),
            4 => Self::witness(name, key),
            _ => Err(BadNote::BadKey),
        };
        read.ok().filter(|read| read.to_string() == text).ok_or(BadNote::BadKey)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

fn cosigned(text: &str, unix_s: u64) -> String {
    format!("cosignature/v1\ntime {unix_s}\n{text}")
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureLine {
    /// Whose it says it is.
    pub name: String,
    id: [u8; 4],
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "— {} {}", self.name, STANDARD.encode([&self.id[..], &self.signature].concat()))
    }
}

impl FromStr for SignatureLine {
    type Err = BadNote;

    /// Reads a line without its end.
    fn from_str(line: &str) -> Result<Self, BadNote> {
        let read = || {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = STANDARD.decode(signature).ok()?;
            let (id, signature) = bytes.split_first_chunk()?;
            let is_sound = is_name(name) && !signature.is_empty();
            is_sound.then(|| Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
        };
        read().ok_or(BadNote::Malformed(Malformed::SignatureLine))
    }
}

/// A signature that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// By whom.
    pub key: &'a VerifierKey,
    /// When, for a cosignature: Unix seconds by the clock of the witness.
    pub unix_s: Option<u64>,
}

/// A text and who signed it. Until [`Note::verify`] has said so, nobody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// A note with its first signature.
    pub(crate) fn new(text: String, signature: SignatureLine) -> Self {
        Self { text, signatures: vec![signature] }
    }

    /// What is signed, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines below it.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a signature; one of the same key is replaced.
    pub(crate) fn add(&mut self, line: SignatureLine) {
        self.signatures.retain(|known| known.name != line.name || known.id != line.id);
        self.signatures.push(line);
    }

    /// The signatures by `keys`, at most one for each. Others are ignored.
    ///
    /// # Errors
    /// [`BadNote::WrongSignature`] when one by a known key is wrong, [`BadNote::Unsigned`] when there is none.
    pub fn verify<'a>(&self, keys: impl IntoIterator<Item = &'a VerifierKey>) -> Result<Vec<Signed<'a>>, BadNote> {
        let mut signed: Vec<Signed<'a>> = Vec::new();
        for key in keys {
            for line in self.signatures.iter().filter(|line| key.made(line)) {
                let unix_s = key.check(&self.text, &line.signature)?;
                if !signed.iter().any(|known| known.key == key) {
                    signed.push(Signed { key, unix_s });
                }
            }
        }
        if signed.is_empty() { Err(BadNote::Unsigned) } else { Ok(signed) }
    }

    /// Whether each signature is by one of `keys` and fits.
    pub(crate) fn is_signed_by_only(&self, keys: &[&VerifierKey]) -> bool {
        let is_known = |line: &SignatureLine| {
            keys.iter().any(|key| key.made(line) && key.check(&self.text, &line.signature).is_ok())
        };
        self.signatures.iter().all(is_known)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| fmt::Display::fmt(line, f))
    }
}

impl FromStr for Note {
    type Err = BadNote;

    fn from_str(note: &str) -> Result<Self, BadNote> {
        if note.len() > MAX_NOTE {
            return Err(BadNote::Malformed(Malformed::TooLarge));
        }
        if note.contains(|c: char| c.is_ascii_control() && c != '\n') {
            return Err(BadNote::Malformed(Malformed::Control));
        }
        let at = note.rfind("\n\n").ok_or(BadNote::Malformed(Malformed::NoSignatures))?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(BadNote::Malformed(Malformed::NoSignatures))?;
        let signatures = lines.split('\n').map(SignatureLine::from_str).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > MAX_SIGNATURES {
            return Err(BadNote::Malformed(Malformed::TooLarge));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }
}

/// Signs the checkpoints of one log. Clones share the key, which does not show.
#[derive(Clone)]
pub struct LogSigner(Key);

/// Signs, with the time, checkpoints that a witness has found consistent. Clones share the key, which does not show.
#[derive(Clone)]
pub struct Cosigner(Key);

#[derive(Clone)]
struct Key {
    pair: Arc<Ed25519KeyPair>,
    public: VerifierKey,
}

impl Key {
    fn new(name: &str, kind: Type, seed: &[u8; 32]) -> Result<Self, BadNote> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadNote::BadKey)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| BadNote::BadKey)?;
        Ok(Self { pair: Arc::new(pair), public: VerifierKey::new(name, kind, key)? })
    }
}

impl LogSigner {
    /// The signer of the log with this origin, from the 32 bytes of an Ed25519 secret key.
    ///
    /// # Errors
    /// [`BadNote::BadKey`] when the origin is no name.
    pub fn new(origin: &str, seed: &[u8; 32]) -> Result<Self, BadNote> {
        Key::new(origin, Type::Ed25519, seed).map(Self)
    }

    /// The key that checks the signatures; its name is the log's origin.
    #[must_use]
    pub fn public(&self) -> &VerifierKey {
        &self.0.public
    }

    /// A checkpoint under this signature.
    #[must_use]
    pub fn checkpoint(&self, body: &Checkpoint) -> Note {
        let body = body.to_string();
        let line = self.sign(&body);
        Note::new(body, line)
    }

    pub(crate) fn sign(&self, text: &str) -> SignatureLine {
        self.0.public.line(self.0.pair.sign(text.as_bytes()).as_ref().to_vec())
    }
}

impl Cosigner {
    /// A witness, from the 32 bytes of an Ed25519 secret key, which must not be that of a log: the two sign different things.
    ///
    /// # Errors
    /// [`BadNote::BadKey`] when the name is none.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, BadNote> {
        Key::new(name, Type::Cosignature, seed).map(Self)
    }

    /// The key that checks the cosignatures.
    #[must_use]
    pub fn public(&self) -> &VerifierKey {
        &self.0.public
    }

    pub(crate) fn cosign(&self, text: &str, unix_s: u64) -> SignatureLine {
        let signature = self.0.pair.sign(cosigned(text, unix_s).as_bytes());
        self.0.public.line([&unix_s.to_be_bytes()[..], signature.as_ref()].concat())
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogSigner({})", self.0.public)
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.0.public)
    }
}

#[cfg(test)]
mod tests;
