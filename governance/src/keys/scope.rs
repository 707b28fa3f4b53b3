//! What a key is for: a tenant, a subject, a purpose. Names of subjects are not kept, only their tags.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

use super::error::CryptError;

/// Longest name of a tenant or a subject, bytes.
pub const MAX_NAME: usize = 512;
/// Longest purpose, bytes.
pub const MAX_PURPOSE: usize = 64;

/// A tenant, as its envelopes name it: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub Uuid);

impl TenantId {
    /// The id of the tenant with this name: the same on every node, without a table.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(Uuid::from_bytes(tag(&[b"aivillage tenant", name.as_bytes()])))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A subject within its tenant, as key rings name it: they must not keep a mail address that is to be forgotten.
///
/// It is a hash, so whoever guesses the name can confirm the guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectTag([u8; 16]);

impl SubjectTag {
    /// The tag of the subject with this name.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn of(tenant: TenantId, name: &str) -> Result<Self, CryptError> {
        check("subject", name, MAX_NAME)?;
        Ok(Self(tag(&[b"aivillage subject", tenant.0.as_bytes(), name.as_bytes()])))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What data of a subject is kept for, e.g. `memory` or `conversation`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Purpose(Arc<str>);

impl Purpose {
    /// Names a purpose.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn new(name: &str) -> Result<Self, CryptError> {
        check("purpose", name, MAX_PURPOSE)?;
        Ok(Self(name.into()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Purpose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(de::Error::custom)
    }
}

/// Which key seals a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Whose cluster space it is in.
    pub tenant: TenantId,
    /// Whom it is about.
    pub subject: SubjectTag,
    /// What it is kept for.
    pub purpose: Purpose,
}

impl Scope {
    /// The scope of a subject's data for a purpose.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn new(tenant: TenantId, subject: &str, purpose: &str) -> Result<Self, CryptError> {
        Ok(Self { tenant, subject: SubjectTag::of(tenant, subject)?, purpose: Purpose::new(purpose)? })
    }
}

/// A data encryption key, as envelopes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DekId(pub Uuid);

impl DekId {
    /// A new name; later ones are greater.
    #[must_use]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for DekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first 16 bytes of the SHA-256 of parts whose boundaries count.
fn tag(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = digest::Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    *hash.finish().as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), CryptError> {
    if name.is_empty() || name.len() > max {
        return Err(CryptError::BadName { what: what.into(), bytes: name.len() as u64, max: max as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_bad_length_are_refused() {
        let tenant = TenantId::of("local");
        for (subject, purpose) in [("", "memory"), ("ada", ""), (&*"x".repeat(513), "memory"), ("ada", &"x".repeat(65))]
        {
            assert!(matches!(Scope::new(tenant, subject, purpose), Err(CryptError::BadName { .. })));
        }
        assert!(postcard::from_bytes::<Purpose>(&postcard::to_allocvec("").unwrap()).is_err());
    }

    #[test]
    fn tags_tell_tenants_and_subjects_apart() {
        let (local, other) = (TenantId::of("local"), TenantId::of("other"));
        let tag = |tenant, name| SubjectTag::of(tenant, name).unwrap();
        assert_eq!(tag(local, "ada"), tag(local, "ada"));
        assert_ne!(tag(local, "ada"), tag(other, "ada"));
        assert_ne!(tag(local, "ada"), tag(local, "bob"));
        assert_eq!(TenantId::of("local").to_string(), TenantId::of("local").0.to_string());
        let scope = Scope::new(local, "ada@example.org", "memory").unwrap();
        assert!(!format!("{scope:?}").contains("example.org"));
        assert_eq!(postcard::from_bytes::<Scope>(&postcard::to_allocvec(&scope).unwrap()).unwrap(), scope);
    }
}
