//! Secret bytes, and keys that are wrapped by other keys.
//!
//! A wrapped key is `nonce 12 | ciphertext 32 | tag 16`, AES-256-GCM with a random nonce. It is not AES-KW because that binds
//! no context: with GCM a wrapped key that is moved to another tenant, subject or epoch does not open there.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::error::CryptError;

/// Bytes of a wrapped key.
pub const WRAPPED: usize = 12 + 32 + 16;

/// 32 secret bytes, overwritten when they are dropped. They stay in one place on the heap: a move would leave a copy behind.
///
/// They are never shown, written or copied:
/// ```compile_fail,E0277
/// fn show(secret: &aivillage_governance::keys::Secret) -> String { format!("{secret:?}") }
/// ```
/// ```compile_fail,E0277
/// fn write(secret: &aivillage_governance::keys::Secret) -> Vec<u8> { postcard::to_allocvec(secret).unwrap() }
/// ```
/// ```compile_fail,E0277
/// use aivillage_governance::keys::Secret;
/// fn copy(secret: Secret) -> Secret { Clone::clone(&secret) }
/// ```
#[allow(missing_debug_implementations, reason = "a secret is never shown")]
pub struct Secret(Box<Zeroizing<[u8; 32]>>);

impl Secret {
    /// New random bytes.
    ///
    /// # Errors
    /// [`CryptError::NoRandom`].
    pub fn generate() -> Result<Self, CryptError> {
        let mut secret = Self::zero();
        rand::fill(secret.bytes_mut()).map_err(|_| CryptError::NoRandom)?;
        Ok(secret)
    }

    /// Takes secret bytes over; the caller's own copy is overwritten.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let mut secret = Self::zero();
        secret.bytes_mut().copy_from_slice(bytes);
        bytes.zeroize();
        secret
    }

    pub(crate) fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; 32])))
    }

    pub(crate) fn copy(&self) -> Self {
        let mut copy = Self::zero();
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }

    /// The key for AES-256-GCM. Its schedule is overwritten when it is freed, as `OPENSSL_free` does with all it frees.
    pub(crate) fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes()).expect("AES-256 keys have 32 bytes");
        LessSafeKey::new(key)
    }

    /// Wraps `inner` by this key, bound to a context.
    pub(crate) fn wrap(&self, context: &[u8], inner: &Self) -> Result<Wrapped, CryptError> {
        let nonce = nonce()?;
        let mut out = [0; WRAPPED];
        let (head, rest) = out.split_at_mut(12);
        head.copy_from_slice(&nonce);
        let (body, tag_out) = rest.split_at_mut(32);
        body.copy_from_slice(inner.bytes());
        let sealed =
            self.cipher().seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), body);
        tag_out.copy_from_slice(sealed.expect("32 bytes are no limit of GCM").as_ref());
        Ok(Wrapped(out))
    }

    /// Unwraps what [`Secret::wrap`] made with the same context.
    ///
    /// # Errors
    /// [`CryptError::Authenticate`].
    pub(crate) fn unwrap(&self, context: &[u8], wrapped: &Wrapped) -> Result<Self, CryptError> {
        let (nonce, rest) = wrapped.0.split_first_chunk().expect("a wrapped key begins with 12 bytes");
        let (body, tag) = rest.split_at(32);
        let mut inner = Self::zero();
        self.cipher()
            .open_separate_gather(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                body,
                tag,
                inner.bytes_mut(),
            )
            .map_err(|_| CryptError::Authenticate)?;
        Ok(inner)
    }
}

/// A key that only its wrapping key opens: safe to store.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped(#[serde(with = "serde_bytes")] pub(crate) [u8; WRAPPED]);

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapped(..)")
    }
}

/// 96 random bits. With at most 2^32 of them a key has less than 2^-32 chance of using one twice. NIST SP 800-38D section 8.3.
pub(crate) fn nonce() -> Result<[u8; 12], CryptError> {
    let mut nonce = [0; 12];
    rand::fill(&mut nonce).map_err(|_| CryptError::NoRandom)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_key_opens_in_its_context_only() {
        let (outer, inner) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let wrapped = outer.wrap(b"tenant 1", &inner).unwrap();
        assert!(outer.unwrap(b"tenant 1", &wrapped).unwrap().bytes() == inner.bytes());
        let refused = |key: &Secret, context: &[u8], wrapped: &Wrapped| key.unwrap(context, wrapped).err();
        assert_eq!(refused(&outer, b"tenant 2", &wrapped), Some(CryptError::Authenticate));
        assert_eq!(refused(&inner, b"tenant 1", &wrapped), Some(CryptError::Authenticate));
        for at in 0..WRAPPED {
            let mut bad = wrapped;
            bad.0[at] ^= 1;
            assert_eq!(refused(&outer, b"tenant 1", &bad), Some(CryptError::Authenticate), "byte {at}");
        }
    }

    #[test]
    fn wrapping_twice_shows_nothing() {
        let (outer, inner) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert!(outer.wrap(b"", &inner).unwrap() != outer.wrap(b"", &inner).unwrap());
    }

    #[test]
    fn taking_a_secret_overwrites_the_source() {
        let mut bytes = [7; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!((bytes, secret.bytes()), ([0; 32], &[7; 32]));
    }
}
