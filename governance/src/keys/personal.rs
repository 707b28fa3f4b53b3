//! What is kept about a person, as it is stored: [`Kept`], which an actor puts in its events in place of the text.
//!
//! So what reaches a journal, a replicated log, a snapshot or a copy on another node is sealed, whoever writes it; the text is in
//! memory only, where it is asked for. A village without governance keeps it in the clear.

use aivillage_runtime::{MsgCx, StoreError, Village};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::error::CryptError;
use super::scope::{Purpose, Scope, SubjectTag, TenantId};
use super::vault::{Vault, VaultError};

/// Who data is about when nobody in particular asked: a program that embeds a village.
pub const NOBODY: &str = "nobody";

/// A value about a subject, sealed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// As it is: the village has no keys.
    Clear(ByteBuf),
    /// Opens with the keys of this subject.
    Sealed(SubjectTag, ByteBuf),
}

impl Kept {
    /// A value as it is: what is nobody's, what was stored before it was sealed, and all in a village without keys.
    ///
    /// # Errors
    /// [`StoreError::Decode`] for what postcard cannot write.
    pub fn clear<T: Serialize + ?Sized>(value: &T) -> Result<Self, StoreError> {
        let unwritable = |error: postcard::Error| StoreError::Decode { what: "value", detail: error.to_string() };
        Ok(Self::Clear(ByteBuf::from(postcard::to_allocvec(value).map_err(unwritable)?)))
    }

    /// Whom it is about, if it is sealed.
    #[must_use]
    pub fn subject(&self) -> Option<SubjectTag> {
        match self {
            Self::Clear(_) => None,
            Self::Sealed(subject, _) => Some(*subject),
        }
    }
}

/// Seals and opens what is kept of the subjects of a tenant for one purpose. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Personal {
    vault: Option<Vault>,
    tenant: TenantId,
    purpose: Purpose,
}

impl Personal {
    /// With the keys of this village, if it has any.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn new(village: &Village, tenant: &str, purpose: &str) -> Result<Self, CryptError> {
        Ok(Self { vault: Vault::of(village), tenant: TenantId::of(tenant), purpose: Purpose::new(purpose)? })
    }

    /// Who a message is about: who sent it.
    #[must_use]
    pub fn subject_of(cx: &MsgCx) -> &str {
        cx.principal().map_or(NOBODY, |principal| &principal.subject)
    }

    /// Whose data this is, as what is sealed names it.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn tag(&self, subject: &str) -> Result<SubjectTag, CryptError> {
        SubjectTag::of(self.tenant, subject)
    }

    /// Seals a value about `subject` for the record `record`.
    ///
    /// # Errors
    /// [`CryptError::Shredded`] for a subject that was erased, [`CryptError::NoRoot`], and what else [`Vault::seal`] says.
    pub async fn seal<T: Serialize>(&self, subject: &str, record: &[u8], value: &T) -> Result<Kept, VaultError> {
        self.seal_for(self.tag(subject)?, record, value).await
    }

    /// The same where only the tag of the subject is known.
    ///
    /// # Errors
    /// As [`Personal::seal`].
    pub async fn seal_for<T: Serialize>(
        &self,
        subject: SubjectTag,
        record: &[u8],
        value: &T,
    ) -> Result<Kept, VaultError> {
        let plain = Zeroizing::new(postcard::to_allocvec(value).map_err(|_| CryptError::NotAnEnvelope)?);
        let Some(vault) = &self.vault else { return Ok(Kept::Clear(ByteBuf::from(plain.to_vec()))) };
        let scope = self.scope(subject);
        Ok(Kept::Sealed(subject, ByteBuf::from(vault.seal(&scope, record, &plain).await?)))
    }

    /// Opens a value that was sealed for the record `record`; none if its subject was erased.
    ///
    /// # Errors
    /// [`CryptError::Authenticate`] and what else [`Vault::open`] says.
    pub async fn open<T: DeserializeOwned>(&self, record: &[u8], kept: &Kept) -> Result<Option<T>, VaultError> {
        let plain = match kept {
            Kept::Clear(plain) => Zeroizing::new(plain.to_vec()),
            Kept::Sealed(subject, envelope) => {
                let Some(vault) = &self.vault else { return Err(CryptError::NotLoaded.into()) };
                match vault.open(&self.scope(*subject), record, envelope).await {
                    Err(VaultError::Crypt(CryptError::Shredded { .. })) => return Ok(None),
                    opened => Zeroizing::new(opened?),
                }
            }
        };
        Ok(Some(postcard::from_bytes(&plain).map_err(|_| CryptError::NotAnEnvelope)?))
    }

    /// Whose data this is, if it will be sealed: none in a village without keys.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn owner(&self, subject: &str) -> Result<Option<SubjectTag>, CryptError> {
        self.vault.as_ref().map(|_| self.tag(subject)).transpose()
    }

    /// Has the keys as they are now, also where they are not kept: none that was destroyed is used from then on.
    ///
    /// # Errors
    /// As [`Vault::fetch`].
    pub async fn refresh(&self) -> Result<(), VaultError> {
        match &self.vault {
            Some(vault) => vault.fetch(self.tenant).await,
            None => Ok(()),
        }
    }

    /// [`Personal::seal`] for a thread that may block; what is nobody's stays in the clear.
    ///
    /// # Errors
    /// As [`Personal::seal`].
    pub fn blocking_seal<T: Serialize>(
        &self,
        subject: Option<SubjectTag>,
        record: &[u8],
        value: &T,
    ) -> Result<Kept, VaultError> {
        let (Some(vault), Some(subject)) = (&self.vault, subject) else {
            return Ok(Kept::clear(value).map_err(|_| CryptError::NotAnEnvelope)?);
        };
        let plain = Zeroizing::new(postcard::to_allocvec(value).map_err(|_| CryptError::NotAnEnvelope)?);
        Ok(Kept::Sealed(subject, ByteBuf::from(vault.blocking_seal(&self.scope(subject), record, &plain)?)))
    }

    /// [`Personal::open`] for a thread that may block.
    ///
    /// # Errors
    /// As [`Personal::open`].
    pub fn blocking_open<T: DeserializeOwned>(&self, record: &[u8], kept: &Kept) -> Result<Option<T>, VaultError> {
        let opened;
        let plain: &[u8] = match kept {
            Kept::Clear(plain) => plain,
            Kept::Sealed(subject, envelope) => {
                let Some(vault) = &self.vault else { return Err(CryptError::NotLoaded.into()) };
                match vault.blocking_open(&self.scope(*subject), record, envelope) {
                    Err(VaultError::Crypt(CryptError::Shredded { .. })) => return Ok(None),
                    plain => opened = Zeroizing::new(plain?),
                }
                &opened
            }
        };
        Ok(Some(postcard::from_bytes(plain).map_err(|_| CryptError::NotAnEnvelope)?))
    }

    fn scope(&self, subject: SubjectTag) -> Scope {
        Scope { tenant: self.tenant, subject, purpose: self.purpose.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeysConfig, KeysNode, install};

    #[tokio::test]
    async fn what_is_kept_opens_for_its_record_until_the_subject_is_erased() {
        let village = install(Village::builder(), &KeysNode::new(KeysConfig::default())).start().await.unwrap();
        let personal = Personal::new(&village, "local", "conversation").unwrap();
        let kept = personal.seal("ada", b"r", &"canary".to_owned()).await.unwrap();
        assert_eq!(kept.subject(), Some(personal.tag("ada").unwrap()));
        assert!(!postcard::to_allocvec(&kept).unwrap().windows(6).any(|bytes| bytes == b"canary"));
        assert_eq!(personal.open::<String>(b"r", &kept).await.unwrap().as_deref(), Some("canary"));
        let moved = personal.open::<String>(b"other", &kept).await;
        assert_eq!(moved, Err(VaultError::Crypt(CryptError::Authenticate)));
        Vault::of(&village).unwrap().shred(TenantId::of("local"), personal.tag("ada").unwrap()).await.unwrap();
        assert_eq!(personal.open::<String>(b"r", &kept).await, Ok(None));
        let refused = personal.seal("ada", b"r", &"again".to_owned()).await;
        assert!(matches!(refused, Err(VaultError::Crypt(CryptError::Shredded { .. }))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_village_without_keys_keeps_it_in_the_clear_and_opens_nothing_sealed() {
        let village = Village::builder().start().await.unwrap();
        let personal = Personal::new(&village, "local", "conversation").unwrap();
        let kept = personal.seal("ada", b"r", &7_u8).await.unwrap();
        assert_eq!((kept.subject(), personal.open::<u8>(b"r", &kept).await), (None, Ok(Some(7))));
        let sealed = Kept::Sealed(personal.tag("ada").unwrap(), ByteBuf::new());
        assert!(personal.open::<u8>(b"r", &sealed).await.is_err());
        let no_number = Kept::Clear(ByteBuf::new());
        assert_eq!(personal.open::<u8>(b"r", &no_number).await, Err(VaultError::Crypt(CryptError::NotAnEnvelope)));
    }
}
