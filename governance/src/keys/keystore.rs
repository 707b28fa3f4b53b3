//! The file that the root key is kept in: `governance/root.key` of the data directory, mode 0600.
//!
//! It is JSON: the epochs, the epoch that each tenant's keys are wrapped in, and the chain key, in the clear or wrapped by a key
//! that Argon2id makes of a passphrase. The wrapping authenticates the rest of the file too. It is written beside, synced and
//! renamed, and the file it replaces is overwritten: what an epoch needed is to be gone.
//!
//! The caller holds the lock of the data directory. All functions block on the disk.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::config::Argon2Cost;
use super::error::CryptError;
use super::root::Root;
use super::scope::TenantId;
use super::secret::{Secret, Wrapped};

/// Name of the file in its directory.
pub const FILE: &str = "root.key";

/// How the file opens.
#[derive(Debug)]
pub enum Unlock<'a> {
    /// It is not wrapped: its mode guards it.
    File,
    /// With a passphrase, which costs this when it is set anew.
    Passphrase(&'a SecretString, Argon2Cost),
}

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else. Restore it: without it nothing that is sealed opens.
    #[error("{}: {why}; restore the file, nothing sealed opens without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The passphrase is not the one, or the file was altered.
    #[error("{}: wrong passphrase, or the file was altered", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The file wants a passphrase and none was given.
    #[error("{}: sealed by a passphrase; set governance.keys.seal = \"passphrase\"", path.display())]
    NeedsPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase was given and the file is in the clear: it must not pass for a guarded one.
    #[error("{}: not sealed by a passphrase; reseal it first", path.display())]
    NotSealed {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the file.
    #[error("{}: mode {mode:o} lets others read it; run chmod 600 and consider a new root", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The passphrase is empty, or its cost is out of bounds.
    #[error("the passphrase is empty or its cost is out of bounds")]
    BadPassphrase,
    /// The operating system gives no random bytes.
    #[error("no random bytes for a key")]
    NoRandom,
}

/// What guards the chain key in the file.
enum Sealing {
    File,
    Passphrase { cost: Argon2Cost, salt: [u8; 16], key: Secret },
}

/// What of the file is not secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    first: u64,
    current: u64,
    /// When the current epoch began, Unix milliseconds.
    since_ms: u64,
    /// Every tenant, and the oldest epoch that its keys are wrapped in.
    tenants: BTreeMap<TenantId, u64>,
}

/// The root key and the file it is in.
pub struct Keystore {
    path: Option<PathBuf>,
    sealing: Sealing,
    root: Root,
    since_ms: u64,
    tenants: BTreeMap<TenantId, u64>,
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.tenants.len();
        f.debug_struct("Keystore")
            .field("path", &self.path)
            .field("root", &self.root)
            .field("tenants", &tenants)
            .finish_non_exhaustive()
    }
}

impl Keystore {
    /// Reads the root key of the directory `dir`, or makes one.
    ///
    /// # Errors
    /// See [`KeystoreError`]; nothing is written then.
    pub fn open(dir: &Path, unlock: &Unlock, now_ms: u64) -> Result<Self, KeystoreError> {
        match Self::find(dir, unlock)? {
            Some(found) => Ok(found),
            None => Self::create(dir.join(FILE), unlock, now_ms),
        }
    }

    /// Reads the root key of the directory `dir`; none if it has none.
    ///
    /// # Errors
    /// As [`Keystore::open`].
    pub fn find(dir: &Path, unlock: &Unlock) -> Result<Option<Self>, KeystoreError> {
        let path = dir.join(FILE);
        file::read(&path)?.map(|stored| stored.unlock(path, unlock)).transpose()
    }

    /// Keeps a root key that another node has, in place of one that the directory may have; in memory without a directory.
    ///
    /// # Errors
    /// As [`Keystore::open`]; the file that was there stays then.
    pub(crate) fn adopt(dir: Option<&Path>, unlock: &Unlock, root: Root, now_ms: u64) -> Result<Self, KeystoreError> {
        let (path, sealing) = (dir.map(|dir| dir.join(FILE)), Sealing::new(unlock)?);
        let adopted = Self { path, sealing, root, since_ms: now_ms, tenants: BTreeMap::new() };
        adopted.save()?;
        Ok(adopted)
    }

    /// A root key that ends with the process: for tests, and for nodes without a data directory.
    ///
    /// # Errors
    /// [`KeystoreError::NoRandom`].
    pub fn in_memory() -> Result<Self, KeystoreError> {
        let root = Root::generate().map_err(|_| KeystoreError::NoRandom)?;
        Ok(Self { path: None, sealing: Sealing::File, root, since_ms: 0, tenants: BTreeMap::new() })
    }

    fn create(path: PathBuf, unlock: &Unlock, now_ms: u64) -> Result<Self, KeystoreError> {
        let root = Root::generate().map_err(|_| KeystoreError::NoRandom)?;
        let sealing = Sealing::new(unlock)?;
        let made = Self { path: Some(path), sealing, root, since_ms: now_ms, tenants: BTreeMap::new() };
        made.save()?;
        tracing::info!("new root key");
        Ok(made)
    }

    /// Guards the same root key otherwise from now on.
    ///
    /// # Errors
    /// As [`Keystore::open`]; the old guard stays then.
    pub fn reseal(&mut self, unlock: &Unlock) -> Result<(), KeystoreError> {
        let old = std::mem::replace(&mut self.sealing, Sealing::new(unlock)?);
        self.save().inspect_err(|_| self.sealing = old)
    }

    /// The root key.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// When the current epoch began, Unix milliseconds.
    #[must_use]
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Every tenant that has keys under this root.
    pub fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.tenants.keys().copied()
    }

    /// Notes a tenant before its first key is wrapped in `epoch`: that epoch, and what it needs later, is not destroyed.
    /// Nothing changes if the tenant is known.
    ///
    /// # Errors
    /// [`KeystoreError::Io`]; it is not noted then.
    pub fn enroll(&mut self, tenant: TenantId, epoch: u64) -> Result<(), KeystoreError> {
        if self.tenants.contains_key(&tenant) {
            return Ok(());
        }
        self.tenants.insert(tenant, epoch);
        if let Err(error) = self.save() {
            self.tenants.remove(&tenant);
            return Err(error);
        }
        Ok(())
    }

    /// Notes the oldest epoch that a tenant's keys are wrapped in now. It counts with the next write of the file.
    pub fn moved(&mut self, tenant: TenantId, epoch: u64) {
        if let Some(noted) = self.tenants.get_mut(&tenant) {
            *noted = epoch.max(*noted);
        }
    }

    /// Begins the next epoch. No key is destroyed before [`Keystore::retire`].
    ///
    /// # Errors
    /// [`KeystoreError::Io`]; the epoch is as before then.
    pub fn advance(&mut self, now_ms: u64) -> Result<u64, KeystoreError> {
        let root = self.copy_root();
        let since_ms = std::mem::replace(&mut self.since_ms, now_ms);
        self.root.advance();
        self.save_or(root).inspect_err(|_| self.since_ms = since_ms)?;
        Ok(self.root.current())
    }

    /// Destroys the keys of epochs that are neither kept nor needed by a tenant; the oldest epoch that is left.
    ///
    /// # Errors
    /// [`KeystoreError::Io`]; all keys are there then.
    pub fn retire(&mut self) -> Result<u64, KeystoreError> {
        let root = self.copy_root();
        let needed = self.tenants.values().copied().min().unwrap_or(u64::MAX);
        self.root.retire(needed);
        self.save_or(root)?;
        Ok(self.root.first())
    }

    /// Whether nothing was ever sealed under this root.
    pub(crate) fn is_unused(&self) -> bool {
        self.tenants.is_empty() && self.root.current() == 1
    }

    /// Every tenant, with the oldest epoch that its keys are wrapped in.
    pub(crate) fn needs(&self) -> &BTreeMap<TenantId, u64> {
        &self.tenants
    }

    /// Takes over what a cluster has decided: goes on to the epoch `current`, destroys those before `first`.
    ///
    /// # Errors
    /// [`CryptError::Keystore`], [`CryptError::EpochAhead`]; all is as before then.
    pub(crate) fn follow(
        &mut self,
        (first, current): (u64, u64),
        since_ms: u64,
        tenants: &BTreeMap<TenantId, u64>,
    ) -> Result<(), CryptError> {
        if self.root.current() >= current && self.root.first() >= first && self.tenants == *tenants {
            return Ok(());
        }
        let before = (self.copy_root(), self.since_ms, self.tenants.clone());
        self.root.reach(current)?;
        self.root.retire(first);
        (self.since_ms, self.tenants) = (since_ms, tenants.clone());
        self.save().inspect_err(|_| (self.root, self.since_ms, self.tenants) = before)?;
        Ok(())
    }

    fn copy_root(&self) -> Root {
        let chain = self.root.chain().copy();
        Root::resume(chain, self.root.first(), self.root.current()).expect("a root's own epochs")
    }

    fn save_or(&mut self, before: Root) -> Result<(), KeystoreError> {
        self.save().inspect_err(|_| self.root = before)
    }

    fn save(&self) -> Result<(), KeystoreError> {
        let Some(path) = &self.path else { return Ok(()) };
        file::write(path, &file::Stored::seal(self)?)
    }
}

impl Sealing {
    fn new(unlock: &Unlock) -> Result<Self, KeystoreError> {
        let Unlock::Passphrase(passphrase, cost) = unlock else { return Ok(Self::File) };
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| KeystoreError::NoRandom)?;
        Self::derived(passphrase, *cost, salt)
    }

    fn derived(passphrase: &SecretString, cost: Argon2Cost, salt: [u8; 16]) -> Result<Self, KeystoreError> {
        let passphrase = passphrase.expose_secret().as_bytes();
        if passphrase.is_empty() || !cost.is_sane() {
            return Err(KeystoreError::BadPassphrase);
        }
        let params = Params::new(cost.m_kib, cost.t, cost.p, Some(32)).map_err(|_| KeystoreError::BadPassphrase)?;
        let mut key = Secret::zero();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, key.bytes_mut())
            .map_err(|_| KeystoreError::BadPassphrase)?;
        Ok(Self::Passphrase { cost, salt, key })
    }
}

/// What the wrapping of the chain key authenticates besides it.
fn context(open: &Open, cost: Argon2Cost, salt: &[u8; 16]) -> Vec<u8> {
    let open = postcard::to_allocvec(&(open, cost, salt)).expect("plain numbers and a map of them can be written");
    [b"AVR1", &open[..]].concat()
}

fn wrap(key: &Secret, context: &[u8], chain: &Secret) -> Result<Wrapped, KeystoreError> {
    key.wrap(context, chain).map_err(|_: CryptError| KeystoreError::NoRandom)
}

#[cfg(test)]
mod tests;
