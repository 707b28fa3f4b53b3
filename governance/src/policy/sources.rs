//! The files of a bundle: those of the program, and those of its keeper beside or in place of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Files that are part of every bundle.
const FIXED: [(&str, &str); 2] = [
    ("schema.cedarschema", include_str!("../../policies/schema.cedarschema")),
    ("always.cedar", include_str!("../../policies/always.cedar")),
];
/// Files that a bundle may have its own of.
const DEFAULTS: [(&str, &str); 2] = [
    ("roles.cedar", include_str!("../../policies/roles.cedar")),
    ("entities.json", include_str!("../../policies/entities.json")),
];
/// What must hold whatever a bundle says.
pub(super) const INVARIANTS: &str = include_str!("../../policies/invariants.json");

/// Most files of a bundle.
const FILES_MAX: usize = 4096;
/// Most bytes of all files.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deepest folder below the bundle's: `tenants/<id>/`.
const DEPTH_MAX: usize = 3;
/// Most bytes of a packed bundle: with its envelope it has to fit in one entry of the control log, 256 KiB.
pub(super) const PACKED_MAX: usize = 255 * 1024;
/// Effort of zstd: of 1,000 policies of 250 bytes it leaves a tenth, in milliseconds.
const LEVEL: i32 = 9;

/// Why files are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of this name is part of every bundle already.
    #[error("`{0}` is part of every bundle and cannot be replaced; give the file another name")]
    Fixed(String),
    /// More or larger files than a bundle may have.
    #[error("more than {max} {what}")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
    /// Packed bytes that are no bundle.
    #[error("not a packed bundle: {0}")]
    Unreadable(String),
}

/// What a bundle's keeper adds to the program's files. Paths have `/`; what counts is `*.cedarschema`, `*.cedar`,
/// `tenants/<id>/*.cedar`, `entities.json` and `invariants.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sources {
    files: BTreeMap<String, String>,
}

impl Sources {
    /// The program's files alone.
    #[must_use]
    pub fn embedded() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    ///
    /// # Errors
    /// [`SourcesError::Fixed`] for the files of every bundle, [`SourcesError::TooLarge`] for more than a bundle may have.
    pub fn with(mut self, path: impl Into<String>, text: impl Into<String>) -> Result<Self, SourcesError> {
        self.files.insert(path.into(), text.into());
        self.check()?;
        Ok(self)
    }

    /// Reads the files below `dir`; others than those of a bundle are left alone.
    ///
    /// # Errors
    /// As [`Sources::with`], and [`SourcesError::Io`].
    pub fn read_dir(dir: impl AsRef<Path>) -> Result<Self, SourcesError> {
        let mut sources = Self::default();
        sources.add_dir(dir.as_ref(), "", 1)?;
        sources.check()?;
        Ok(sources)
    }

    fn add_dir(&mut self, dir: &Path, below: &str, depth: usize) -> Result<(), SourcesError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SourcesError::Io { path, source }
        };
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            let entry = entry.map_err(failed(dir))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{below}{name}");
            // Follows links: a mounted configuration map of Kubernetes consists of them.
            if fs::metadata(&path).map_err(failed(&path))?.is_dir() {
                if depth < DEPTH_MAX {
                    self.add_dir(&path, &format!("{name}/"), depth + 1)?;
                }
            } else if counts(&name) {
                let mut text = String::new();
                let file = fs::File::open(&path).map_err(failed(&path))?;
                file.take(BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed(&path))?;
                self.files.insert(name, text);
                self.check()?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), SourcesError> {
        if let Some((fixed, _)) = FIXED.iter().find(|(name, _)| self.files.contains_key(*name)) {
            return Err(SourcesError::Fixed((*fixed).to_owned()));
        }
        if self.files.len() > FILES_MAX {
            return Err(SourcesError::TooLarge { what: "files", max: FILES_MAX });
        }
        if self.files.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() > BYTES_MAX {
            return Err(SourcesError::TooLarge { what: "bytes", max: BYTES_MAX });
        }
        Ok(())
    }

    /// All files of the bundle, the fixed ones first.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = |name: &str| self.files.contains_key(name);
        let defaults = DEFAULTS.into_iter().filter(move |(name, _)| !own(name));
        let files = self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        FIXED.into_iter().chain(defaults).chain(files)
    }

    /// The files with this extension.
    pub(super) fn of_type(&self, extension: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(name, _)| has(name, extension))
    }

    /// The text of one file.
    pub(super) fn file(&self, name: &str) -> Option<&str> {
        self.files().find(|(file, _)| *file == name).map(|(_, text)| text)
    }

    /// SHA-256 over all files and the built-in invariants: two nodes with the same hash decide alike.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (name, text) in self.files().chain([("", INVARIANTS)]) {
            for part in [name, text] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize().into()
    }

    /// The keeper's files in few bytes.
    ///
    /// # Errors
    /// [`SourcesError::TooLarge`] when they do not fit into one decision of the cluster.
    pub fn pack(&self) -> Result<Vec<u8>, SourcesError> {
        let plain = postcard::to_allocvec(self).map_err(|error| SourcesError::Unreadable(error.to_string()))?;
        let packed =
            zstd::encode_all(&plain[..], LEVEL).map_err(|error| SourcesError::Unreadable(error.to_string()))?;
        if packed.len() > PACKED_MAX {
            return Err(SourcesError::TooLarge { what: "bytes after compression", max: PACKED_MAX });
        }
        Ok(packed)
    }

    /// Reads what [`Sources::pack`] wrote.
    ///
    /// # Errors
    /// [`SourcesError::Unreadable`], and as [`Sources::with`].
    pub fn unpack(packed: &[u8]) -> Result<Self, SourcesError> {
        let unreadable = |error: Cow<'static, str>| SourcesError::Unreadable(error.into_owned());
        let decoder = zstd::Decoder::new(packed).map_err(|error| unreadable(error.to_string().into()))?;
        let mut plain = Vec::new();
        // Names and lengths take more than the texts: the texts' own limit is checked below.
        let most = 2 * BYTES_MAX as u64;
        decoder.take(most).read_to_end(&mut plain).map_err(|error| unreadable(error.to_string().into()))?;
        let (sources, rest): (Self, _) =
            postcard::take_from_bytes(&plain).map_err(|error| unreadable(error.to_string().into()))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows it".into()));
        }
        sources.check()?;
        Ok(sources)
    }
}

/// Whether a file of this name is part of a bundle.
fn counts(name: &str) -> bool {
    has(name, "cedar") || has(name, "cedarschema") || name == "entities.json" || name == "invariants.json"
}

fn has(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Sources {
        Sources::embedded().with("tenants/acme/a.cedar", "// nothing").unwrap()
    }

    #[test]
    fn a_bundle_is_the_same_after_packing() {
        assert_eq!(Sources::unpack(&small().pack().unwrap()).unwrap(), small());
    }

    #[test]
    fn bytes_that_are_no_bundle_are_refused() {
        assert!(matches!(Sources::unpack(b"what"), Err(SourcesError::Unreadable(_))));
        let packed = zstd::encode_all(&b"\xff\xff\xff"[..], 1).unwrap();
        assert!(matches!(Sources::unpack(&packed), Err(SourcesError::Unreadable(_))));
        // 64 MiB of zeros are some kilobytes packed.
        let bomb = zstd::encode_all(io::repeat(0).take(64 << 20), 1).unwrap();
        assert!(Sources::unpack(&bomb).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let big = Sources::embedded().with("a.cedar", "x".repeat(BYTES_MAX));
        assert!(matches!(big, Err(SourcesError::TooLarge { what: "bytes", .. })));
        let files = (0..=FILES_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert!(matches!(Sources { files }.check(), Err(SourcesError::TooLarge { what: "files", .. })));
        let mut state = 1_u64;
        let noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{state:x}")
        };
        let noise = Sources::embedded().with("a.cedar", (0..65_536).map(noise).collect::<String>()).unwrap();
        assert!(matches!(noise.pack(), Err(SourcesError::TooLarge { what: "bytes after compression", .. })));
    }

    #[test]
    fn the_files_of_every_bundle_cannot_be_replaced() {
        let replaced = Sources::embedded().with("always.cedar", "");
        assert!(matches!(replaced, Err(SourcesError::Fixed(name)) if name == "always.cedar"));
    }

    #[test]
    fn a_folder_is_read_with_its_tenants() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tenants/acme/deep")).unwrap();
        for file in ["a.cedar", "tenants/acme/b.cedar", "tenants/acme/deep/c.cedar", "notes.txt", "entities.json"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let sources = Sources::read_dir(dir.path()).unwrap();
        assert_eq!(sources.files.keys().collect::<Vec<_>>(), ["a.cedar", "entities.json", "tenants/acme/b.cedar"]);
        assert!(matches!(Sources::read_dir(dir.path().join("gone")), Err(SourcesError::Io { .. })));
    }

    #[test]
    fn the_hash_knows_every_file() {
        assert_ne!(small().hash(), Sources::embedded().hash());
        assert_eq!(small().hash(), small().hash());
        // A byte cannot wander from a name to a text.
        let moved = Sources::embedded().with("tenants/acme/a.cedar/", "/ nothing").unwrap();
        assert_ne!(small().hash(), moved.hash());
    }
}
