//! Who signs certificates of erasure: a key that all nodes of a village derive, so it does not matter which one was asked.

use aivillage_runtime::PublicKey;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::HEXLOWER;

use super::Subject;
use crate::keys::{CertificateError, ErasureCertificate, SignedCertificate, VillageSecret};

/// Signs certificates, once the village's secret is there. Clones share it.
#[derive(Debug, Clone)]
pub struct CertificateSigner(VillageSecret);

impl CertificateSigner {
    /// A key derived of this secret.
    #[must_use]
    pub fn new(secret: VillageSecret) -> Self {
        Self(secret)
    }

    fn pair(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_seed_unchecked(&*self.0.derive("certificates of erasure")?).ok()
    }

    /// The key that certificates of this village verify with; none before its secret is there.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        self.pair().and_then(|pair| pair.public_key().as_ref().try_into().ok()).map(PublicKey)
    }

    /// Whom a certificate is about, for those who know the name and have been told: without the secret nobody can try names.
    #[must_use]
    pub fn pseudonym(&self, subject: &Subject) -> Option<String> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0.derive("pseudonyms of the erased")?);
        let mut mac = hmac::Context::with_key(&key);
        mac.update(&(subject.tenant.len() as u64).to_le_bytes());
        mac.update(subject.tenant.as_bytes());
        mac.update(subject.name.as_bytes());
        let tag = mac.sign();
        let short = tag.as_ref().first_chunk::<16>()?;
        Some(format!("s-{}", HEXLOWER.encode(short)))
    }

    /// Signs a certificate; none before the secret is there.
    ///
    /// # Errors
    /// What would make it invalid.
    #[must_use]
    pub fn sign(&self, certificate: ErasureCertificate) -> Option<Result<SignedCertificate, CertificateError>> {
        let (pair, key) = (self.pair()?, self.public_key()?);
        Some(certificate.sign(key, |text| {
            let mut signature = [0; 64];
            signature.copy_from_slice(pair.sign(text).as_ref());
            signature
        }))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn signer(secret: u8) -> CertificateSigner {
        let village = VillageSecret::default();
        village.set(Zeroizing::new([secret; 32]));
        CertificateSigner::new(village)
    }

    #[test]
    fn key_and_pseudonyms_are_those_of_the_village() {
        let subject = |tenant: &str, name: &str| Subject { tenant: tenant.into(), name: name.into() };
        assert_eq!(CertificateSigner::new(VillageSecret::default()).public_key(), None);
        assert_eq!(CertificateSigner::new(VillageSecret::default()).pseudonym(&subject("t", "ada")), None);
        assert_eq!(signer(1).public_key(), signer(1).public_key());
        assert_ne!(signer(1).public_key(), signer(2).public_key());
        let pseudonym = signer(1).pseudonym(&subject("t", "ada"));
        assert_eq!(pseudonym.as_ref().map(String::len), Some(34));
        for (other, of) in
            [(signer(1), subject("ta", "da")), (signer(1), subject("t", "bob")), (signer(2), subject("t", "ada"))]
        {
            assert_ne!(other.pseudonym(&of), pseudonym);
        }
    }
}
