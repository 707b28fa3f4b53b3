//! The admin key of `<data>/admin.key`: an API key of the tenant that runs the village, which only this node knows.
//!
//! Only who may read the data directory has it, and whoever may read that may do anything to the village.

use std::io::Read;
use std::path::{Path, PathBuf};

use aivillage_governance::identity::bearer::{BEARER_RANDOM, Bearer, BearerHash, BearerKind, TenantTag};
use aivillage_governance::identity::{HOME, Secret};
use aivillage_runtime::secret_file;
use sha2::{Digest, Sha256};

use crate::error::EdgeError;

/// What is kept of the key.
#[derive(Debug)]
pub(crate) struct AdminKey(BearerHash);

impl AdminKey {
    /// Reads the key file, or makes it on the first start.
    ///
    /// # Errors
    /// [`EdgeError::AdminKey`] if the file cannot be read, written or understood.
    pub(crate) fn open(data_dir: &Path) -> Result<(Self, PathBuf), EdgeError> {
        let path = data_dir.join("admin.key");
        let key = load(&path)?;
        Ok((Self::of(&key), path))
    }

    pub(super) fn of(key: &Secret) -> Self {
        Self(BearerHash::of(key.expose().as_bytes()))
    }

    /// Whether this is the key; compared in constant time.
    pub(super) fn is(&self, shown: &Bearer<'_>) -> bool {
        self.0.matches(&shown.hash())
    }

    /// A key for what the edge signs for itself (cursors), different from the key and useless without it.
    pub(crate) fn derived(&self, purpose: &str) -> [u8; 32] {
        Sha256::new().chain_update(purpose.as_bytes()).chain_update(self.0.bytes()).finalize().into()
    }
}

pub(super) fn generate() -> Secret {
    let random: [u8; BEARER_RANDOM] = std::array::from_fn(|_| rand::random());
    Bearer::mint(BearerKind::ApiKey, TenantTag::of(HOME), &random).secret
}

fn load(path: &Path) -> Result<Secret, EdgeError> {
    let fault = |why: String| EdgeError::AdminKey { path: path.to_owned(), why };
    match std::fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(1_024).read_to_string(&mut text).map_err(|e| fault(e.to_string()))?;
            let key = text.trim();
            if !Bearer::parse(key).is_ok_and(|bearer| bearer.kind == BearerKind::ApiKey) {
                return Err(fault(
                    "is not an admin key; remove the file and a new one is made at the next start".into(),
                ));
            }
            narrow(path).map_err(|e| fault(format!("cannot be made private (mode 0600): {e}")))?;
            Ok(Secret::new(key))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = generate();
            secret_file::write(path, format!("{}\n", key.expose()).as_bytes())
                .map_err(|e| fault(format!("cannot be written: {e}")))?;
            Ok(key)
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

/// A key somebody copied in with wide permissions is closed again.
fn narrow(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    if secret_file::open_to_others(&file)?.is_some() {
        tracing::warn!(path = %path.display(), "admin key was readable by others, mode set to 0600");
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let (_, path) = AdminKey::open(dir.path()).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        AdminKey::open(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            AdminKey::open(dir.path()).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_file_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("admin.key"), "hello").unwrap();
        let error = AdminKey::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("admin.key") && error.contains("remove the file"), "{error}");
    }
}
