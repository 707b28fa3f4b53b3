//! The key file as bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use aivillage_runtime::secret_file;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Keystore, KeystoreError, Open, Sealing, Unlock, context, wrap};
use crate::keys::config::Argon2Cost;
use crate::keys::root::Root;
use crate::keys::secret::{Secret, WRAPPED, Wrapped};

/// A tenant takes some 50 bytes; what is longer than this is no key file.
const MAX_FILE: u64 = 64 << 20;

/// The whole file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    v: u8,
    open: Open,
    root: Kept,
}

/// The chain key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kept {
    /// 32 bytes in hex.
    Clear(String),
    /// 60 bytes in hex, see [`Wrapped`].
    Argon2id { cost: Argon2Cost, salt: String, wrapped: String },
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Clear(key) = self {
            key.zeroize();
        }
    }
}

impl Stored {
    pub(super) fn seal(store: &Keystore) -> Result<Self, KeystoreError> {
        let (first, current) = (store.root.first(), store.root.current());
        let open = Open { first, current, since_ms: store.since_ms, tenants: store.tenants.clone() };
        let root = match &store.sealing {
            Sealing::File => Kept::Clear(HEXLOWER.encode(store.root.chain().bytes())),
            Sealing::Passphrase { cost, salt, key } => {
                let wrapped = wrap(key, &context(&open, *cost, salt), store.root.chain())?;
                Kept::Argon2id { cost: *cost, salt: HEXLOWER.encode(salt), wrapped: HEXLOWER.encode(&wrapped.0) }
            }
        };
        Ok(Self { v: 1, open, root })
    }

    pub(super) fn unlock(self, path: PathBuf, unlock: &Unlock) -> Result<Keystore, KeystoreError> {
        let damaged = |why: &str| KeystoreError::Damaged { path: path.clone(), why: why.to_owned() };
        let (sealing, chain) = match (&self.root, unlock) {
            (Kept::Clear(key), Unlock::File) => {
                let mut chain = Secret::zero();
                // Straight to its place: an array that is handed on leaves copies behind.
                let written = (key.len() == 64).then(|| HEXLOWER.decode_mut(key.as_bytes(), chain.bytes_mut()));
                if !matches!(written, Some(Ok(32))) {
                    return Err(damaged("the key is not 32 bytes in hex"));
                }
                (Sealing::File, chain)
            }
            (Kept::Clear(_), Unlock::Passphrase(..)) => return Err(KeystoreError::NotSealed { path }),
            (Kept::Argon2id { .. }, Unlock::File) => return Err(KeystoreError::NeedsPassphrase { path }),
            (Kept::Argon2id { cost, salt, wrapped }, Unlock::Passphrase(passphrase, _)) => {
                let salt = unhex(salt).ok_or_else(|| damaged("the salt is not 16 bytes in hex"))?;
                let wrapped =
                    unhex::<WRAPPED>(wrapped).ok_or_else(|| damaged("the wrapped key is not 60 bytes in hex"))?;
                if !cost.is_sane() {
                    return Err(damaged("the cost of the passphrase is out of bounds"));
                }
                let sealing = Sealing::derived(passphrase, *cost, salt)?;
                let Sealing::Passphrase { key, .. } = &sealing else { return Err(damaged("no passphrase")) };
                let opened = key.unwrap(&context(&self.open, *cost, &salt), &Wrapped(wrapped));
                let chain = opened.map_err(|_| KeystoreError::WrongPassphrase { path: path.clone() })?;
                (sealing, chain)
            }
        };
        let Open { first, current, since_ms, tenants } = self.open.clone();
        let root = Root::resume(chain, first, current).ok_or_else(|| damaged("the epochs make no sense"))?;
        Ok(Keystore { path: Some(path), sealing, root, since_ms, tenants })
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Reads the file; none if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Stored>, KeystoreError> {
    let failed = |source| KeystoreError::Io { what: "read", path: path.to_owned(), source };
    let damaged = |why: String| KeystoreError::Damaged { path: path.to_owned(), why };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if let Some(mode) = secret_file::open_to_others(&file).map_err(failed)? {
        return Err(KeystoreError::TooOpen { path: path.to_owned(), mode });
    }
    let size = file.metadata().map_err(failed)?.len().min(MAX_FILE);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("no key file: {error}")))?;
    if stored.v != 1 {
        return Err(damaged(format!("version {}, this program knows 1", stored.v)));
    }
    Ok(Some(stored))
}

/// Replaces the file: a crash leaves the old one or the new one, and the old one's bytes are overwritten afterwards.
pub(super) fn write(path: &Path, stored: &Stored) -> Result<(), KeystoreError> {
    let failed = |source| KeystoreError::Io { what: "write", path: path.to_owned(), source };
    // Large enough: a buffer that grows leaves the key behind in the smaller ones.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + 80 * stored.open.tenants.len()));
    serde_json::to_writer(&mut *bytes, stored).map_err(|error| failed(error.into()))?;
    replace(path, &bytes).map_err(failed)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let old = OpenOptions::new().write(true).open(path).ok();
    secret_file::write(path, bytes)?;
    if let Some(old) = old {
        // The new file is in place: what fails here costs thoroughness only.
        if let Err(error) = overwrite(old) {
            tracing::warn!(%error, "the replaced key file could not be overwritten");
        }
    }
    Ok(())
}

fn overwrite(mut old: File) -> io::Result<()> {
    let bytes = old.metadata()?.len().min(MAX_FILE);
    old.rewind()?;
    io::copy(&mut io::repeat(0).take(bytes), &mut old)?;
    old.sync_all()
}
