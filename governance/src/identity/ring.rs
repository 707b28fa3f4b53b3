//! The signing keys of a tenant: the one in use, the one before it and the one after it.
//!
//! The next key is published a whole period before it signs, so whoever caches the key set knows it by then. The previous one
//! verifies for as long as tokens that it signed may live.

use serde::{Deserialize, Serialize};

use super::error::IdentityError;
use super::jwt::Signer;
use super::secret::SealKey;

/// Random bytes of a signing key.
pub const SIGNING_RANDOM: usize = 32;

/// A signing key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its name: the RFC 7638 thumbprint.
    pub kid: String,
    /// The public key.
    pub public: [u8; 32],
    /// The private key, sealed.
    sealed: Vec<u8>,
}

impl SigningKey {
    /// Makes a key out of random bytes.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if the cipher fails.
    pub fn new(tenant: &str, seed: &[u8; SIGNING_RANDOM], seal: &SealKey) -> Result<Self, IdentityError> {
        let signer = Signer::try_new(seed)?;
        let sealed = seal.seal(&place(tenant, signer.kid()), seed)?;
        Ok(Self { kid: signer.kid().to_owned(), public: signer.public(), sealed })
    }

    /// Opens the private key.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] for another seal key or tenant.
    pub fn open(&self, tenant: &str, seal: &SealKey) -> Result<Signer, IdentityError> {
        Signer::try_new(&seal.open(&place(tenant, &self.kid), &self.sealed)?)
    }
}

fn place(tenant: &str, kid: &str) -> String {
    format!("signing:{tenant}:{kid}")
}

/// A public key, as JWKS has it (RFC 7517, RFC 8037 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicJwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    /// Thumbprint.
    pub kid: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub purpose: String,
}

/// A key set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicJwks {
    /// Those that sign, have signed or will sign.
    pub keys: Vec<PublicJwk>,
}

/// A key that verifies, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifies<'a> {
    /// The key.
    pub key: &'a SigningKey,
    /// Unix milliseconds; `None` while it is in use.
    pub until_ms: Option<u64>,
}

/// The keys of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRing {
    current: Option<SigningKey>,
    next: Option<SigningKey>,
    previous: Option<(SigningKey, u64)>,
    /// When the current one began to sign, Unix milliseconds.
    since_ms: u64,
}

impl KeyRing {
    /// The one that signs; `None` before the tenant is founded.
    #[must_use]
    pub fn current(&self) -> Option<&SigningKey> {
        self.current.as_ref()
    }

    /// Whether the current key has signed for so long that another's turn has come.
    #[must_use]
    pub fn is_due(&self, period_ms: u64, now_ms: u64) -> bool {
        self.current.is_some() && now_ms.saturating_sub(self.since_ms) >= period_ms
    }

    /// All keys, the one in use first. What verifies and is not in use is accepted for its time only.
    pub fn verifying(&self) -> impl Iterator<Item = Verifies<'_>> {
        let previous = self.previous.as_ref().map(|(key, until_ms)| Verifies { key, until_ms: Some(*until_ms) });
        let used = self.current.iter().chain(&self.next).map(|key| Verifies { key, until_ms: None });
        used.chain(previous)
    }

    /// The public keys.
    #[must_use]
    pub fn jwks(&self, now_ms: u64) -> PublicJwks {
        let live = self.verifying().filter(|one| one.until_ms.is_none_or(|until| now_ms < until));
        PublicJwks { keys: live.map(|one| public(one.key)).collect() }
    }

    /// Makes the next key current. The one before verifies until `overlap_ms` after, and the one before that no more.
    pub(super) fn rotate(&mut self, next: SigningKey, at_ms: u64, overlap_ms: u64) {
        let current = self.next.replace(next);
        let previous = std::mem::replace(&mut self.current, current);
        self.previous = previous.map(|key| {
            // Its private half has no use any more.
            let key = SigningKey { sealed: Vec::new(), ..key };
            (key, at_ms.saturating_add(overlap_ms))
        });
        self.since_ms = at_ms;
    }
}

fn public(key: &SigningKey) -> PublicJwk {
    use base64::Engine;
    PublicJwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key.public),
        kid: key.kid.clone(),
        alg: "EdDSA".to_owned(),
        purpose: "sig".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::new("t", &[seed; 32], &SealKey::new(&[1; 32]).unwrap()).unwrap()
    }

    fn kids(ring: &KeyRing, now_ms: u64) -> Vec<String> {
        ring.jwks(now_ms).keys.into_iter().map(|key| key.kid).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_while_its_tokens_live() {
        let mut ring = KeyRing::default();
        assert!(ring.current().is_none() && !ring.is_due(0, 9));
        ring.rotate(key(1), 0, 50);
        ring.rotate(key(2), 0, 50);
        assert_eq!(kids(&ring, 0), [key(1).kid, key(2).kid]);
        assert!(!ring.is_due(100, 99) && ring.is_due(100, 100));
        ring.rotate(key(3), 100, 50);
        assert_eq!(ring.current(), Some(&key_without_nonce(&ring, 2)));
        assert_eq!(kids(&ring, 149), [key(2).kid, key(3).kid, key(1).kid]);
        assert_eq!(kids(&ring, 150), [key(2).kid, key(3).kid]);
    }

    /// Sealing is random: compare what is in the ring with its own copy, by name.
    fn key_without_nonce(ring: &KeyRing, seed: u8) -> SigningKey {
        let current = ring.current().unwrap();
        assert_eq!(current.kid, key(seed).kid);
        current.clone()
    }

    #[test]
    fn a_signing_key_opens_for_its_tenant_only() {
        let seal = SealKey::new(&[1; 32]).unwrap();
        assert_eq!(key(1).open("t", &seal).unwrap().kid(), key(1).kid);
        assert_eq!(key(1).open("other", &seal).unwrap_err(), IdentityError::Sealed);
        let jwk = serde_json::to_value(public(&key(1))).unwrap();
        assert_eq!((&jwk["kty"], &jwk["use"]), (&"OKP".into(), &"sig".into()));
    }
}
