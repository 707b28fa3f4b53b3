//! Who a node is: an Ed25519 key pair, made on the first start and kept in `identity.ed25519` of the data directory.
//!
//! The public key is the identity, the node id its short name. A wiped data directory is a new node. The secret never
//! leaves this module but as a signer: `Debug` shows the public key.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::node_id::NodeId;
use crate::secret_file;

/// Name of the key file: PKCS#8 version 1, DER, mode 0600.
const FILE: &str = "identity.ed25519";
/// A version 1 document has 48 bytes, a version 2 document with attributes some more; what is longer is no key.
const MAX_FILE: u64 = 1024;
/// What comes before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo`. RFC 8410 section 4.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 public key: the full name of a node. Shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The short name that the node goes by: the first 8 bytes of the key's SHA-256, big-endian.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        let hash: [u8; 32] = Sha256::digest(self.0).into();
        NodeId(hash.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }

    /// Whether the owner of this key signed `msg`.
    #[must_use]
    pub fn verify(&self, msg: &[u8], sig: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(msg, sig).is_ok()
    }

    /// Reads the 44 bytes that stand for a certificate between nodes. RFC 7250 section 3.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The key file holds something else. Remove it, and the node starts as a new one that must join anew.
    #[error("{}: not an Ed25519 key in PKCS#8; restore the file, or remove it to start as a new node", path.display())]
    Damaged {
        /// The key file.
        path: PathBuf,
    },
    /// The key file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The operating system gives no random bytes.
    #[error("no random bytes for a new key")]
    NoRandom,
}

/// The key pair of this node. Clones share it.
#[derive(Clone)]
pub struct Identity {
    keys: Arc<Ed25519KeyPair>,
    /// The same keys in the shape that TLS takes, with the public key in place of a certificate.
    certified: Arc<CertifiedKey>,
    public: PublicKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the key of the data directory `dir`, or makes one that survives the loss of power.
    ///
    /// The caller holds the directory's lock: two processes must not start here at the same time.
    ///
    /// # Errors
    /// [`IdentityError::Damaged`] when the file holds no key; the others when it cannot be read or made.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        match read(&path) {
            Ok(pkcs8) => Self::from_pkcs8(&pkcs8).ok_or(IdentityError::Damaged { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(&path),
            Err(source) => Err(IdentityError::Io { what: "read", path, source }),
        }
    }

    /// Makes the key of a node without a data directory: it is a new node at each start.
    ///
    /// # Errors
    /// [`IdentityError::NoRandom`].
    pub fn generate() -> Result<Self, IdentityError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| IdentityError::NoRandom)?;
        Self::from_pkcs8(pkcs8.as_ref()).ok_or(IdentityError::NoRandom)
    }

    /// Whether the data directory `dir` has a key.
    pub(crate) fn is_kept_in(dir: &Path) -> bool {
        dir.join(FILE).is_file()
    }

    /// The key that others know this node by.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The short name of this node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.public.node_id()
    }

    /// Signs `msg`; [`PublicKey::verify`] checks it.
    #[must_use]
    pub fn sign(&self, msg: &[u8]) -> [u8; 64] {
        let signature = self.keys.sign(msg);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| IdentityError::NoRandom)?;
        let identity = Self::from_pkcs8(pkcs8.as_ref()).ok_or(IdentityError::NoRandom)?;
        let failed = |source| IdentityError::Io { what: "create", path: path.to_owned(), source };
        secret_file::write(path, pkcs8.as_ref()).map_err(failed)?;
        tracing::info!(node = %identity.node_id(), "new identity");
        Ok(identity)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let keys = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        let public = PublicKey(keys.public_key().as_ref().try_into().ok()?);
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).ok()?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(public.to_spki())], signer);
        Some(Self { keys: Arc::new(keys), certified: Arc::new(certified), public })
    }
}

/// Reads the key file, which others should not be able to read.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if let Some(mode) = secret_file::open_to_others(&file)? {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others can read the key");
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// RFC 8032 section 7.1, test 1.
    const RFC_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const RFC_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const RFC_SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970\
                                 1cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// PKCS#8 version 1 around the seed. RFC 8410 section 7.
    fn pkcs8(seed: &[u8]) -> Vec<u8> {
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], seed].concat()
    }

    #[test]
    fn node_id_is_the_start_of_the_key_hash() {
        let key = PublicKey(unhex(RFC_KEY).try_into().unwrap());
        assert_eq!(key.to_string(), RFC_KEY);
        assert_eq!(key.node_id().to_string(), "21fe31dfa154a261");
    }

    #[test]
    fn signatures_are_those_of_the_rfc() {
        let identity = Identity::from_pkcs8(&pkcs8(&unhex(RFC_SEED))).unwrap();
        assert_eq!(identity.public_key().to_string(), RFC_KEY);
        let signature = identity.sign(b"");
        assert_eq!(signature.to_vec(), unhex(RFC_SIGNATURE));
        assert!(identity.public_key().verify(b"", &signature));
        assert!(!identity.public_key().verify(b"x", &signature));
        assert!(!identity.public_key().verify(b"", &signature[..63]));
        assert!(!Identity::generate().unwrap().public_key().verify(b"", &signature));
    }

    #[test]
    fn spki_round_trip() {
        let key = Identity::generate().unwrap().public_key();
        assert_eq!(PublicKey::from_spki(&key.to_spki()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.to_spki()[..43]), None);
        assert_eq!(PublicKey::from_spki(&[0; 44]), None);
    }

    #[test]
    fn key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        // What a crash in the middle of an earlier start left behind.
        fs::write(dir.path().join("identity.ed25519.new"), b"half").unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let second = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert!(second.public_key().verify(b"hello", &first.sign(b"hello")));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn damaged_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], b"hello", &good[..good.len() - 1], &[0; 4096]] {
            fs::write(&path, bad).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(&error, IdentityError::Damaged { path: named } if *named == path));
            assert!(error.to_string().contains("identity.ed25519"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bad, "a damaged file is left for a person to look at");
        }
    }

    #[test]
    fn unreadable_directory_is_an_io_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load_or_create(&dir.path().join("missing")).unwrap_err();
        assert!(matches!(error, IdentityError::Io { what: "create", .. }));
    }

    #[test]
    fn debug_hides_the_secret() {
        let identity = Identity::from_pkcs8(&pkcs8(&unhex(RFC_SEED))).unwrap();
        let shown = format!("{identity:?}");
        assert!(shown.contains(RFC_KEY) && !shown.contains(RFC_SEED) && !shown.contains("157, 97"), "{shown}");
    }
}
