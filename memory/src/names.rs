//! Names of tenants, collections and documents, and the keys and folders made of them.

use std::path::{Path, PathBuf};

use crate::error::MemoryError;

/// Longest document id in bytes.
const ID_MAX: usize = 512;

/// Which shard: `{tenant}:{collection}:0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardName {
    /// The tenant.
    pub tenant: String,
    /// The collection.
    pub collection: String,
}

impl ShardName {
    /// Checks both names.
    ///
    /// # Errors
    /// `BadName`.
    pub fn new(tenant: &str, collection: &str) -> Result<Self, MemoryError> {
        check_tenant(tenant)?;
        check_collection(collection)?;
        Ok(Self { tenant: tenant.to_owned(), collection: collection.to_owned() })
    }

    /// Reads the key of a shard.
    ///
    /// # Errors
    /// `BadName` when it is not of that form.
    pub fn parse(key: &str) -> Result<Self, MemoryError> {
        let bad = || MemoryError::BadName {
            what: format!("shard key `{key}`"),
            rule: "it has the form `tenant:collection:0`",
        };
        let (rest, "0") = key.rsplit_once(':').ok_or_else(bad)? else { return Err(bad()) };
        let (tenant, collection) = rest.rsplit_once(':').ok_or_else(bad)?;
        Self::new(tenant, collection)
    }

    /// The key of the shard actor.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}:0", self.tenant, self.collection)
    }

    /// The folder that its indexes are in.
    #[must_use]
    pub fn folder(&self, data: &Path) -> PathBuf {
        let tenant = blake3::hash(self.tenant.as_bytes()).to_hex();
        data.join("memory").join(&tenant[..16]).join(&self.collection).join("0")
    }
}

/// Name of an index's folder. Each generation of a shard has its own, so what is of before an erasure is known by its name.
#[must_use]
pub fn index_name(generation: u64) -> String {
    if generation == 0 { "lexical".to_owned() } else { format!("lexical-{generation}") }
}

fn check_tenant(name: &str) -> Result<(), MemoryError> {
    let good = !name.is_empty() && name.len() <= 64 && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if good {
        return Ok(());
    }
    Err(MemoryError::BadName { what: format!("tenant `{name}`"), rule: "1 to 64 bytes without blanks" })
}

/// Checks the name of a collection; it is part of a folder's path.
///
/// # Errors
/// `BadName`.
pub fn check_collection(name: &str) -> Result<(), MemoryError> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(word) {
        return Ok(());
    }
    Err(MemoryError::BadName {
        what: format!("collection `{name}`"),
        rule: "1 to 64 lower-case letters, digits, `-` and `_`",
    })
}

/// Checks an external document id.
///
/// # Errors
/// `BadName`.
pub fn check_id(id: &str) -> Result<(), MemoryError> {
    if (1..=ID_MAX).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    Err(MemoryError::BadName { what: "document id".to_owned(), rule: "1 to 512 bytes without control characters" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_keys_are_read_back() {
        let name = ShardName::new("local", "main").expect("valid");
        assert_eq!(name.key(), "local:main:0");
        assert_eq!(ShardName::parse("local:main:0"), Ok(name));
        for bad in ["main", "local:main", "local:main:1", "local:Main:0", ":main:0", "local:../x:0"] {
            assert!(ShardName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn folders_stay_inside_the_data_folder() {
        for bad in ["..", ".", "a/b", "", "a\\b", "A"] {
            assert_eq!(check_collection(bad).map_err(|e| e.code()), Err("bad_name"), "{bad}");
        }
    }

    #[test]
    fn an_index_is_named_by_its_generation() {
        assert_eq!([0, 1, 12].map(index_name), ["lexical", "lexical-1", "lexical-12"]);
    }

    #[test]
    fn ids_are_short_and_printable() {
        assert!(check_id("docs/a b.md").is_ok());
        assert!(check_id("").is_err() && check_id("a\nb").is_err() && check_id(&"x".repeat(513)).is_err());
    }
}
