//! The proof that a subject was erased: what was asked, what every store did, which keys were destroyed.
//!
//! The signature is Ed25519 over `aivillage erasure certificate v1\n` and the certificate in JCS (RFC 8785), so that whoever has the
//! JSON can check it, in whatever order its fields are. The first line keeps the signature from passing for one of something else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aivillage_runtime::PublicKey;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::scope::DekId;

const DOMAIN: &[u8] = b"aivillage erasure certificate v1\n";
/// A certificate is read up to this size, bytes.
const MAX_BYTES: usize = 16 << 20;

/// A time, Unix milliseconds; in JSON as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// The last millisecond of the year 9999, which is the last that RFC 3339 writes.
const LAST_STAMP: u64 = 253_402_300_799_999;

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_STAMP));
        serializer.collect_str(&humantime::format_rfc3339_millis(at))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at: SystemTime = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
        let since = at.duration_since(UNIX_EPOCH).map_err(de::Error::custom)?;
        u64::try_from(since.as_millis()).map(Self).map_err(de::Error::custom)
    }
}

/// What was done to erase a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureCertificate {
    /// Version of the form, 1.
    pub v: u8,
    /// Who was erased, in a form that tells it only to whom it was told before.
    pub subject_pseudonym: String,
    /// When the erasure was asked for.
    pub requested_at: Stamp,
    /// When it was done.
    pub done_at: Stamp,
    /// Why, e.g. `gdpr-17`.
    pub basis: String,
    /// What each store did.
    pub stores: Vec<ErasedStore>,
    /// The keys that were destroyed.
    pub keys: Vec<DestroyedKey>,
    /// When backups that hold something of the subject are unreadable at the latest.
    pub backups_unreadable_by: Stamp,
    /// What forbids the erasure; a certificate with any is not valid.
    pub holds: Vec<String>,
    /// Models that were trained with data of the subject and are to be trained again.
    pub models_flagged: Vec<String>,
    /// Where the erasure is in the transparency log; none while it is not logged.
    pub log: Option<LogEntry>,
}

/// What one store did on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasedStore {
    /// Which store.
    pub owner: String,
    /// On which node.
    pub node: String,
    /// Items it had.
    pub enumerated: u64,
    /// Items it erased.
    pub erased: u64,
    /// Items it still has; 0 in a valid certificate.
    pub remaining: u64,
}

/// A key that exists no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestroyedKey {
    /// The key.
    pub dek_id: DekId,
    /// The last epoch it was wrapped in.
    pub epoch: u64,
    /// When it was destroyed.
    pub destroyed_at: Stamp,
}

/// A place in a transparency log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Which log.
    pub origin: String,
    /// Which entry.
    pub index: u64,
}

/// Why a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is no certificate.
    #[error("not an erasure certificate: {why}")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
    /// Its form is of another version.
    #[error("certificate version {v}, this program knows 1")]
    Version {
        /// That version.
        v: u8,
    },
    /// It was signed by somebody else.
    #[error("signed by {key}, not by the expected key")]
    Signer {
        /// The key that it names, hex.
        key: String,
    },
    /// The signature is not of this text.
    #[error("the signature does not verify")]
    Signature,
    /// A store still has items of the subject.
    #[error("{owner} on node {node} still has {remaining} items")]
    Remaining {
        /// Which store.
        owner: String,
        /// On which node.
        node: String,
        /// How many.
        remaining: u64,
    },
    /// The erasure was forbidden.
    #[error("the erasure is on hold: {reason}")]
    Held {
        /// The first reason.
        reason: String,
    },
    /// It was done before it was asked for, or a key was destroyed after it was done.
    #[error("the times of the certificate contradict each other")]
    Order,
}

impl ErasureCertificate {
    /// Signs it; `sign` makes the Ed25519 signature of `key`'s owner.
    ///
    /// # Errors
    /// What would make the certificate invalid.
    pub fn sign(
        self,
        key: PublicKey,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<SignedCertificate, CertificateError> {
        self.check()?;
        let signature = BASE64.encode(&sign(&self.signed_bytes()?));
        Ok(SignedCertificate { certificate: self, key: key.to_string(), signature })
    }

    fn signed_bytes(&self) -> Result<Vec<u8>, CertificateError> {
        let malformed = |error: serde_json::Error| CertificateError::Malformed { why: error.to_string() };
        Ok([DOMAIN, &serde_json_canonicalizer::to_vec(self).map_err(malformed)?].concat())
    }

    fn check(&self) -> Result<(), CertificateError> {
        if self.v != 1 {
            return Err(CertificateError::Version { v: self.v });
        }
        if let Some(reason) = self.holds.first() {
            return Err(CertificateError::Held { reason: reason.clone() });
        }
        if let Some(ErasedStore { owner, node, remaining, .. }) = self.stores.iter().find(|store| store.remaining > 0) {
            let (owner, node) = (owner.clone(), node.clone());
            return Err(CertificateError::Remaining { owner, node, remaining: *remaining });
        }
        let late = self.keys.iter().any(|key| key.destroyed_at > self.done_at);
        if late || self.done_at < self.requested_at || self.backups_unreadable_by < self.done_at {
            return Err(CertificateError::Order);
        }
        Ok(())
    }
}

/// A certificate with its signature, as it is handed to the subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCertificate {
    /// What was done.
    pub certificate: ErasureCertificate,
    /// The signer's Ed25519 key, hex.
    pub key: String,
    /// The signature, base64.
    pub signature: String,
}

impl SignedCertificate {
    /// Reads the JSON of a certificate; [`SignedCertificate::verify`] says whether it is one.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_json(text: &[u8]) -> Result<Self, CertificateError> {
        if text.len() > MAX_BYTES {
            return Err(CertificateError::Malformed { why: format!("longer than {MAX_BYTES} bytes") });
        }
        serde_json::from_slice(text).map_err(|error| CertificateError::Malformed { why: error.to_string() })
    }

    /// Checks that `signer` signed it and that it tells of a finished erasure. That it is in the log is to be checked beside.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn verify(&self, signer: PublicKey) -> Result<(), CertificateError> {
        if self.key != HEXLOWER.encode(&signer.0) {
            return Err(CertificateError::Signer { key: self.key.clone() });
        }
        let signature = BASE64.decode(self.signature.as_bytes()).map_err(|_| CertificateError::Signature)?;
        if !signer.verify(&self.certificate.signed_bytes()?, &signature) {
            return Err(CertificateError::Signature);
        }
        self.certificate.check()
    }
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::Identity;
    use ed25519_dalek::{Signature, VerifyingKey};
    use uuid::Uuid;

    use super::*;

    fn certificate() -> ErasureCertificate {
        let store = |owner: &str| ErasedStore {
            owner: owner.into(),
            node: "21fe".into(),
            enumerated: 3,
            erased: 3,
            remaining: 0,
        };
        let key = DestroyedKey { dek_id: DekId(Uuid::from_u128(7)), epoch: 4, destroyed_at: Stamp(1_700_000_000_500) };
        ErasureCertificate {
            v: 1,
            subject_pseudonym: "s-1".into(),
            requested_at: Stamp(1_700_000_000_000),
            done_at: Stamp(1_700_000_001_000),
            basis: "gdpr-17".into(),
            stores: vec![store("memory"), store("sessions")],
            keys: vec![key],
            backups_unreadable_by: Stamp(1_700_172_800_000),
            holds: vec![],
            models_flagged: vec!["adapter-9".into()],
            log: Some(LogEntry { origin: "village/21fe".into(), index: 12 }),
        }
    }

    fn signed(certificate: ErasureCertificate) -> (SignedCertificate, PublicKey) {
        let identity = Identity::generate().unwrap();
        (certificate.sign(identity.public_key(), |text| identity.sign(text)).unwrap(), identity.public_key())
    }

    #[test]
    fn certificate_reads_back_and_verifies_in_any_order_of_its_fields() {
        let (signed, key) = signed(certificate());
        let text = serde_json::to_string_pretty(&signed).unwrap();
        assert!(text.contains("\"requested_at\": \"2023-11-14T22:13:20.000Z\""), "{text}");
        assert_eq!(SignedCertificate::from_json(text.as_bytes()).unwrap(), signed);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let turned: serde_json::Map<_, _> = value.as_object().unwrap().clone().into_iter().rev().collect();
        let turned = serde_json::to_vec(&turned).unwrap();
        SignedCertificate::from_json(&turned).unwrap().verify(key).unwrap();
    }

    #[test]
    fn the_other_implementation_verifies_the_documented_bytes() {
        let (signed, key) = signed(certificate());
        let jcs = serde_json_canonicalizer::to_string(&signed.certificate).unwrap();
        assert!(jcs.starts_with(r#"{"backups_unreadable_by":"2023-11-16T22:13:20.000Z","basis":"gdpr-17","done_at""#));
        let text = [&b"aivillage erasure certificate v1\n"[..], jcs.as_bytes()].concat();
        let signature = Signature::from_slice(&BASE64.decode(signed.signature.as_bytes()).unwrap()).unwrap();
        VerifyingKey::from_bytes(&key.0).unwrap().verify_strict(&text, &signature).unwrap();
    }

    #[test]
    fn changed_certificate_is_refused() {
        let (good, key) = signed(certificate());
        let mut bad = good.clone();
        bad.certificate.subject_pseudonym = "s-2".into();
        assert_eq!(bad.verify(key), Err(CertificateError::Signature));
        for signature in ["", "no base64", &BASE64.encode(&[0; 64])] {
            let bad = SignedCertificate { signature: signature.to_owned(), ..good.clone() };
            assert_eq!(bad.verify(key), Err(CertificateError::Signature));
        }
        let (other, _) = signed(certificate());
        assert_eq!(other.verify(key), Err(CertificateError::Signer { key: other.key.clone() }));
    }

    #[test]
    fn unfinished_erasure_gets_no_certificate() {
        let identity = Identity::generate().unwrap();
        let refused = |change: fn(&mut ErasureCertificate)| {
            let mut certificate = certificate();
            change(&mut certificate);
            certificate.sign(identity.public_key(), |text| identity.sign(text)).unwrap_err()
        };
        assert_eq!(refused(|c| c.v = 2), CertificateError::Version { v: 2 });
        assert_eq!(refused(|c| c.holds.push("court".into())), CertificateError::Held { reason: "court".into() });
        let remaining = refused(|c| c.stores[1].remaining = 2);
        assert_eq!(
            remaining,
            CertificateError::Remaining { owner: "sessions".into(), node: "21fe".into(), remaining: 2 }
        );
        assert_eq!(refused(|c| c.done_at = Stamp(1)), CertificateError::Order);
        assert_eq!(refused(|c| c.keys[0].destroyed_at = Stamp(1_800_000_000_000)), CertificateError::Order);
        assert_eq!(refused(|c| c.backups_unreadable_by = Stamp(1)), CertificateError::Order);
    }

    #[test]
    fn signed_lie_is_refused_too() {
        let identity = Identity::generate().unwrap();
        let mut lie = certificate();
        lie.stores[0].remaining = 1;
        let signature = BASE64.encode(&identity.sign(&lie.signed_bytes().unwrap()));
        let signed = SignedCertificate { certificate: lie, key: identity.public_key().to_string(), signature };
        assert!(matches!(signed.verify(identity.public_key()), Err(CertificateError::Remaining { remaining: 1, .. })));
    }

    #[test]
    fn text_that_is_no_certificate_is_refused() {
        let malformed =
            |text: &[u8]| matches!(SignedCertificate::from_json(text), Err(CertificateError::Malformed { .. }));
        assert!(malformed(b"") && malformed(b"{}") && malformed(&vec![b' '; MAX_BYTES + 1]));
        let text = serde_json::to_string(&signed(certificate()).0).unwrap();
        assert!(malformed(text.replace("\"basis\"", "\"x\":1,\"basis\"").as_bytes()), "unknown fields are not signed");
        assert!(malformed(text.replace("2023-11-14T22:13:20.000Z", "yesterday").as_bytes()));
    }
}
