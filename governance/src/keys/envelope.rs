//! `AVE1`: the format of a sealed value.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `AVE1` |
//! | 4 | 1 | algorithm, 1 = AES-256-GCM |
//! | 5 | 1 | flags, 0 |
//! | 6 | 16 | id of the data encryption key, a `UUIDv7` |
//! | 22 | 12 | nonce, random |
//! | 34 | n | ciphertext |
//! | 34 + n | 16 | tag |
//!
//! Additional authenticated data: the first 22 bytes, the tenant's id (16 bytes), the SHA-256 of the record's key in its store.
//! So an envelope opens only where it was put: not in another record, not for another tenant, not under another key.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use super::error::CryptError;
use super::scope::{DekId, TenantId};
use super::secret::{Secret, nonce};

/// What an envelope adds to its plaintext, bytes.
pub const OVERHEAD: usize = HEADER + NONCE + TAG;
/// Largest plaintext, bytes; larger things are sealed in parts.
pub const MAX_PLAINTEXT: usize = 64 * 1024 * 1024;
/// Messages after which no nonce may be drawn any more: then two are equal with a chance of 2^-32. NIST SP 800-38D section 8.3.
pub const MAX_MESSAGES: u64 = 1 << 32;

const MAGIC: [u8; 4] = *b"AVE1";
const AES_256_GCM: u8 = 1;
const HEADER: usize = 22;
const NONCE: usize = 12;
const TAG: usize = 16;
const AAD: usize = HEADER + 16 + 32;

/// A data encryption key in use.
pub(crate) struct Dek {
    pub(crate) id: DekId,
    key: LessSafeKey,
    /// Messages sealed with it, as far as this node knows.
    sealed: AtomicU64,
}

impl std::fmt::Debug for Dek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dek").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Dek {
    pub(crate) fn new(id: DekId, key: &Secret, sealed: u64) -> Self {
        Self { id, key: key.cipher(), sealed: AtomicU64::new(sealed) }
    }

    /// Messages sealed so far.
    pub(crate) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Relaxed)
    }

    /// Seals `plain` into the record `record` of `tenant`.
    pub(crate) fn seal(&self, tenant: TenantId, record: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptError> {
        if self.sealed.fetch_add(1, Ordering::Relaxed) >= MAX_MESSAGES {
            return Err(CryptError::Exhausted { dek: self.id });
        }
        self.seal_with(nonce()?, tenant, record, plain)
    }

    fn seal_with(
        &self,
        nonce: [u8; NONCE],
        tenant: TenantId,
        record: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, CryptError> {
        if plain.len() > MAX_PLAINTEXT {
            return Err(CryptError::TooLarge { bytes: plain.len() as u64, max: MAX_PLAINTEXT as u64 });
        }
        let header = header(self.id);
        let mut out = Vec::with_capacity(OVERHEAD + plain.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let (_, body) = out.split_at_mut(HEADER + NONCE);
        let aad = Aad::from(aad(&header, tenant, record));
        let tag = self.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body);
        out.extend_from_slice(tag.expect("the plaintext is below the limit of GCM").as_ref());
        Ok(out)
    }

    /// Opens an envelope that was sealed with this key.
    ///
    /// # Errors
    /// [`CryptError::Authenticate`] and what [`Envelope::parse`] says.
    pub(crate) fn open(&self, tenant: TenantId, record: &[u8], envelope: &Envelope) -> Result<Vec<u8>, CryptError> {
        let mut plain = vec![0; envelope.body.len()];
        let nonce = Nonce::assume_unique_for_key(*envelope.nonce);
        let aad = Aad::from(aad(envelope.header, tenant, record));
        self.key
            .open_separate_gather(nonce, aad, envelope.body, envelope.tag, &mut plain)
            .map_err(|_| CryptError::Authenticate)?;
        Ok(plain)
    }
}

/// The fields of a sealed value; nothing of it is authentic before it is opened.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    header: &'a [u8; HEADER],
    nonce: &'a [u8; NONCE],
    body: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the fields.
    ///
    /// # Errors
    /// [`CryptError::NotAnEnvelope`], [`CryptError::Truncated`], [`CryptError::Unsupported`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CryptError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes.is_empty() || bytes.get(..seen) != MAGIC.get(..seen) {
            return Err(CryptError::NotAnEnvelope);
        }
        let truncated = CryptError::Truncated { bytes: bytes.len() as u64, least: OVERHEAD as u64 };
        let parts = bytes.split_first_chunk::<HEADER>().and_then(|(header, rest)| {
            let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
            let (body, tag) = rest.split_last_chunk::<TAG>()?;
            Some(Self { header, nonce, body, tag })
        });
        let envelope = parts.ok_or(truncated)?;
        let [_, _, _, _, alg, flags, ..] = *envelope.header;
        if (alg, flags) != (AES_256_GCM, 0) {
            return Err(CryptError::Unsupported { alg, flags });
        }
        Ok(envelope)
    }

    /// The key that it says it is sealed with.
    #[must_use]
    pub fn dek(&self) -> DekId {
        let id = self.header.last_chunk().expect("the header ends with the id");
        DekId(Uuid::from_bytes(*id))
    }
}

fn header(dek: DekId) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (fixed, id) = header.split_at_mut(6);
    fixed.copy_from_slice(&[b'A', b'V', b'E', b'1', AES_256_GCM, 0]);
    id.copy_from_slice(dek.0.as_bytes());
    header
}

fn aad(header: &[u8; HEADER], tenant: TenantId, record: &[u8]) -> [u8; AAD] {
    let mut aad = [0; AAD];
    let (head, rest) = aad.split_at_mut(HEADER);
    let (whose, place) = rest.split_at_mut(16);
    head.copy_from_slice(header);
    whose.copy_from_slice(tenant.0.as_bytes());
    place.copy_from_slice(digest(&SHA256, record).as_ref());
    aad
}

#[cfg(test)]
mod tests;
