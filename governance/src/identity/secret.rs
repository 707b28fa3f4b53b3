//! Text that must not be shown: [`Secret`], and the keys that the node brings along: [`Pepper`], [`SealKey`].

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::error::IdentityError;

/// Bytes of the nonce before a sealed text.
const NONCE: usize = 12;

/// A password, a code or a credential on its way in a message. `Debug` hides it, and its memory is zeroed when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text. Whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What is mixed into every password hash and is not beside the hashes. The same on every node.
pub struct Pepper(Zeroizing<Vec<u8>>);

impl Pepper {
    /// Takes the bytes; at least 16 random ones make stolen hashes useless.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// Seals what must be read again, so cannot be hashed: TOTP secrets and signing keys. AES-256-GCM with random nonces; the
/// same key on every node.
pub struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Takes 256 random bits.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if the cipher refuses them.
    pub fn new(key: &[u8; 32]) -> Result<Self, IdentityError> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(Self).map_err(|_| IdentityError::Sealed)
    }

    /// Nonce and ciphertext; `place` says what it is of, and must be the same when it is opened.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if the cipher fails.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let mut text = plain.to_vec();
        let sealed = self.0.seal_in_place_append_tag(Aad::from(place), &mut text);
        let nonce = sealed.map_err(|_| IdentityError::Sealed)?;
        Ok([&nonce.as_ref()[..], &text].concat())
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] for another key or place, or changed bytes.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let (nonce, text) = sealed.split_at_checked(NONCE).ok_or(IdentityError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| IdentityError::Sealed)?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self.0.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| IdentityError::Sealed)?;
        let length = plain.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?} {:?}", Secret::new("hunter2"), Pepper::new("hunter2"), SealKey::new(&[7; 32]));
        assert_eq!(shown, "Secret(..) Pepper(..) Ok(SealKey(..))");
        let sent = postcard::to_allocvec(&Secret::new("hunter2")).unwrap();
        assert_eq!(postcard::from_bytes::<Secret>(&sent).unwrap().expose(), "hunter2");
    }

    #[test]
    fn only_the_same_key_and_place_open_what_was_sealed() {
        let key = SealKey::new(&[7; 32]).unwrap();
        let sealed = key.seal("totp:a", b"text").unwrap();
        assert_ne!(sealed, key.seal("totp:a", b"text").unwrap(), "the nonce is random");
        assert_eq!(key.open("totp:a", &sealed).unwrap()[..], *b"text");
        assert_eq!(key.open("totp:b", &sealed), Err(IdentityError::Sealed));
        assert_eq!(SealKey::new(&[8; 32]).unwrap().open("totp:a", &sealed), Err(IdentityError::Sealed));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open("totp:a", &changed), Err(IdentityError::Sealed));
            assert_eq!(key.open("totp:a", &sealed[..at]), Err(IdentityError::Sealed));
        }
    }
}
