//! A constitution as files: `constitution.toml`, and beside it `constitution.sig` and `constitution.md`.
//!
//! Several versions are a folder for each, named `1`, `2` and so on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::chain::{MAX_VERSIONS, Signed};

/// The machine rules.
pub const TOML: &str = "constitution.toml";
/// Who signed them.
pub const NOTE: &str = "constitution.sig";
/// The same as prose.
pub const PROSE: &str = "constitution.md";

/// One version as its files say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Rules, and the note that signs them; an empty note if there is none.
    pub signed: Signed,
    /// The prose, if it is there.
    pub prose: Option<String>,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct FolderError {
    /// Which file.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Files {
    /// The constitution of the program itself.
    #[must_use]
    pub fn embedded() -> Self {
        let signed = Signed { toml: super::DEFAULT_TOML.to_owned(), note: String::new() };
        Self { signed, prose: Some(super::DEFAULT_PROSE.to_owned()) }
    }

    /// Reads a version from its folder, or from its `constitution.toml` and what is beside that.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn read(place: &Path) -> Result<Self, FolderError> {
        let toml = if place.is_dir() { place.join(TOML) } else { place.to_owned() };
        let optional = |name: &str| {
            let path = toml.with_file_name(name);
            if path.exists() { text(&path).map(Some) } else { Ok(None) }
        };
        let (note, prose) = (optional(NOTE)?.unwrap_or_default(), optional(PROSE)?);
        Ok(Self { signed: Signed { toml: text(&toml)?, note }, prose })
    }
}

/// The folders `1`, `2`, ... below this one, or itself if there are none.
#[must_use]
pub fn versions(dir: &Path) -> Vec<PathBuf> {
    let numbered = (1..=MAX_VERSIONS).map(|version| dir.join(version.to_string()));
    let numbered: Vec<_> = numbered.take_while(|place| place.is_dir()).collect();
    if numbered.is_empty() { vec![dir.to_owned()] } else { numbered }
}

/// Reads all versions of a folder, the first one first.
///
/// # Errors
/// See [`FolderError`].
pub fn read_all(dir: &Path) -> Result<Vec<Signed>, FolderError> {
    versions(dir).iter().map(|place| Ok(Files::read(place)?.signed)).collect()
}

fn text(path: &Path) -> Result<String, FolderError> {
    fs::read_to_string(path).map_err(|source| FolderError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        for version in [1, 2, 10, 3] {
            let place = dir.path().join(version.to_string());
            fs::create_dir(&place).unwrap();
            fs::write(place.join(TOML), format!("version = {version}")).unwrap();
        }
        let read: Vec<_> = read_all(dir.path()).unwrap().into_iter().map(|signed| signed.toml).collect();
        assert_eq!(read, ["version = 1", "version = 2", "version = 3"], "10 does not follow on 3");
        let one = Files::read(&dir.path().join("2")).unwrap();
        assert_eq!((one.signed.note.as_str(), one.prose), ("", None));
        let error = read_all(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
