//! Why something is not sealed, or does not open.

use serde::{Deserialize, Serialize};

use super::scope::DekId;

/// What a caller of the vault can decide upon. It never tells content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CryptError {
    /// The bytes are no `AVE1` envelope: they were stored in the clear, or by something else.
    #[error("not an AVE1 envelope")]
    NotAnEnvelope,
    /// An envelope of another algorithm, or with flags that this program does not know.
    #[error("envelope with algorithm {alg} and flags {flags:#04x}, this program knows algorithm 1 without flags")]
    Unsupported {
        /// Its algorithm byte.
        alg: u8,
        /// Its flags byte.
        flags: u8,
    },
    /// The envelope is shorter than its own fields.
    #[error("envelope of {bytes} bytes is cut off: the least is {least}")]
    Truncated {
        /// Its size.
        bytes: u64,
        /// The size of an envelope around nothing.
        least: u64,
    },
    /// Altered, moved to another record or tenant, or sealed with another key. Code `E-CRYPT-AUTH`; restore the record.
    #[error("the envelope does not authenticate")]
    Authenticate,
    /// The subject has no such key; it may be another subject's.
    #[error("no key {dek} for this subject")]
    UnknownKey {
        /// The key that the envelope names.
        dek: DekId,
    },
    /// The subject has no key for this purpose yet. [`Vault::prepare`](super::Vault::prepare) makes one.
    #[error("no key for this subject and purpose yet")]
    NoKey,
    /// The tenant's keys are not in this process.
    #[error("the keys of the tenant are not loaded on this node")]
    NotLoaded,
    /// The node has no root key yet: it is still to come from another node, or its file could not be read.
    #[error("the node has no root key yet")]
    NoRoot,
    /// The subject's keys were destroyed, for good.
    #[error("the subject was erased: its keys were destroyed at {at_ms} ms")]
    Shredded {
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// The key has sealed as much as random nonces allow. [`Vault::prepare`](super::Vault::prepare) makes the next.
    #[error("key {dek} has sealed too many messages")]
    Exhausted {
        /// The key.
        dek: DekId,
    },
    /// The epoch's key was destroyed: a state this old cannot be opened any more.
    #[error("epoch {epoch} is over: keys are kept from epoch {first} on")]
    EpochGone {
        /// The epoch asked for.
        epoch: u64,
        /// The oldest one whose key exists.
        first: u64,
    },
    /// The epoch is further ahead than any node can be; the state belongs to another root.
    #[error("epoch {epoch} is too far ahead of {current}")]
    EpochAhead {
        /// The epoch asked for.
        epoch: u64,
        /// The newest one here.
        current: u64,
    },
    /// The plaintext is larger than an envelope takes.
    #[error("{bytes} bytes are too much for one envelope: the limit is {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A tenant, subject or purpose of a length that is not allowed.
    #[error("{what} of {bytes} bytes: it must have 1 to {max}")]
    BadName {
        /// Which of them.
        what: std::borrow::Cow<'static, str>,
        /// Its length.
        bytes: u64,
        /// The longest allowed.
        max: u64,
    },
    /// The tenant has as many keys as one ring holds.
    #[error("the tenant has {max} keys, which is the limit")]
    Full {
        /// The limit.
        max: u64,
    },
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    NoRandom,
    /// The key file could not be written; nothing was changed.
    #[error("keystore: {detail}")]
    Keystore {
        /// What went wrong, with the path.
        detail: String,
    },
}

impl CryptError {
    /// The stable name of this error for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAnEnvelope => "crypt_not_sealed",
            Self::Unsupported { .. } => "crypt_unsupported",
            Self::Truncated { .. } | Self::Authenticate => "crypt_auth",
            Self::UnknownKey { .. } => "crypt_unknown_key",
            Self::NoKey => "crypt_no_key",
            Self::NotLoaded => "crypt_not_loaded",
            Self::NoRoot => "crypt_no_root",
            Self::Shredded { .. } => "crypt_shredded",
            Self::Exhausted { .. } => "crypt_exhausted",
            Self::EpochGone { .. } => "crypt_epoch_gone",
            Self::EpochAhead { .. } => "crypt_epoch_ahead",
            Self::TooLarge { .. } => "payload_too_large",
            Self::BadName { .. } => "bad_request",
            Self::Full { .. } => "crypt_full",
            Self::NoRandom => "crypt_no_random",
            Self::Keystore { .. } => "crypt_keystore",
        }
    }

    /// Whether somebody may have tampered with what was stored.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        matches!(self, Self::Authenticate | Self::Truncated { .. } | Self::Unsupported { .. } | Self::NotAnEnvelope)
    }
}

impl From<super::KeystoreError> for CryptError {
    fn from(error: super::KeystoreError) -> Self {
        Self::Keystore { detail: error.to_string() }
    }
}
