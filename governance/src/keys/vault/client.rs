//! The way to the vaults for the rest of a node.

use aivillage_runtime::{Addr, CallError, Village};
use futures::future::join_all;
use serde_bytes::ByteBuf;

use super::{KeyVault, KeyVaultMsg, Plain, Shredding};
use crate::keys::error::CryptError;
use crate::keys::handle::VaultHandle;
use crate::keys::scope::{Scope, SubjectTag, TenantId};

/// Vaults that are asked at the same time.
const AT_ONCE: usize = 32;

/// Why a vault did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It must not or cannot.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// It could not be asked.
    #[error("key vault: {0}")]
    Call(#[from] CallError),
}

/// What became of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advanced {
    /// The epoch that began.
    pub current: u64,
    /// The oldest epoch whose key is left.
    pub first: u64,
    /// Tenants whose keys could not be moved; what they need is kept.
    pub behind: Vec<(TenantId, VaultError)>,
}

/// Seals and opens: by the keys of this process where they are, else by a message. Clones share everything.
#[derive(Debug, Clone)]
pub struct Vault {
    village: Village,
    handle: VaultHandle,
}

impl Vault {
    /// The vaults of a village that hosts [`KeyVault`] with this handle.
    #[must_use]
    pub fn new(village: Village, handle: VaultHandle) -> Self {
        Self { village, handle }
    }

    /// The village whose vaults these are.
    #[must_use]
    pub fn village(&self) -> &Village {
        &self.village
    }

    /// The keys of this process.
    #[must_use]
    pub fn handle(&self) -> &VaultHandle {
        &self.handle
    }

    fn addr(&self, tenant: TenantId) -> Addr<KeyVault> {
        self.village.addr::<KeyVault>(tenant.to_string())
    }

    /// Starts the vault of a tenant, so that its keys are in this process if its vault is.
    ///
    /// # Errors
    /// When it cannot start: its state is damaged, or its epoch was destroyed.
    pub async fn load(&self, tenant: TenantId) -> Result<(), VaultError> {
        self.addr(tenant).ask(KeyVaultMsg::Status).await?;
        Ok(())
    }

    /// Makes sure that the scope has a key that may seal.
    ///
    /// # Errors
    /// [`CryptError::Shredded`], [`CryptError::Full`], or what kept the key from being stored.
    pub async fn prepare(&self, scope: &Scope) -> Result<(), VaultError> {
        let ask = |reply| KeyVaultMsg::Prepare(scope.subject, scope.purpose.clone(), reply);
        self.addr(scope.tenant).ask(ask).await??;
        Ok(())
    }

    /// Seals a value into the record `record`, with a new key if there is none yet.
    ///
    /// # Errors
    /// As [`VaultHandle::seal`] and [`Vault::prepare`].
    pub async fn seal(&self, scope: &Scope, record: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        match self.handle.seal(scope, record, plain) {
            Err(CryptError::NoKey | CryptError::NotLoaded | CryptError::Exhausted { .. }) => {}
            sealed => return Ok(sealed?),
        }
        let ask = |reply| KeyVaultMsg::Seal {
            subject: scope.subject,
            purpose: scope.purpose.clone(),
            record: ByteBuf::from(record),
            plain: Plain::new(plain),
            reply,
        };
        Ok(self.addr(scope.tenant).ask(ask).await??.into_vec())
    }

    /// Opens a value that was sealed into the record `record`.
    ///
    /// # Errors
    /// As [`VaultHandle::open`], or when the vault cannot be asked.
    pub async fn open(&self, scope: &Scope, record: &[u8], sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        match self.handle.open(scope, record, sealed) {
            Err(CryptError::NotLoaded) => {}
            opened => return Ok(opened?),
        }
        let ask = |reply| KeyVaultMsg::Open {
            subject: scope.subject,
            purpose: scope.purpose.clone(),
            record: ByteBuf::from(record),
            sealed: ByteBuf::from(sealed),
            reply,
        };
        Ok(self.addr(scope.tenant).ask(ask).await??.into_vec())
    }

    /// Makes a new key for a scope; what older ones sealed still opens.
    ///
    /// # Errors
    /// As [`Vault::prepare`].
    pub async fn rotate(&self, scope: &Scope) -> Result<(), VaultError> {
        let ask = |reply| KeyVaultMsg::Rotate(scope.subject, scope.purpose.clone(), reply);
        self.addr(scope.tenant).ask(ask).await??;
        Ok(())
    }

    /// Destroys all keys of a subject, for good.
    ///
    /// # Errors
    /// When it could not be stored; the keys may be there then.
    pub async fn shred(&self, tenant: TenantId, subject: SubjectTag) -> Result<Shredding, VaultError> {
        Ok(self.addr(tenant).ask(|reply| KeyVaultMsg::Shred(subject, reply)).await??)
    }

    /// Begins the next epoch, moves the keys of every tenant into it, then destroys the epochs that nobody needs. To be called
    /// once per `governance.keys.epoch`; an interruption is made good by the next call.
    ///
    /// # Errors
    /// [`CryptError::Keystore`] when the key file cannot be written. Tenants that fail are in [`Advanced::behind`].
    pub async fn advance_epoch(&self, now_ms: u64) -> Result<Advanced, VaultError> {
        let (current, tenants) = self
            .on_disk(move |handle| {
                handle.keystore(|keystore| Ok((keystore.advance(now_ms)?, keystore.tenants().collect::<Vec<_>>())))
            })
            .await?;
        let mut behind = Vec::new();
        for some in tenants.chunks(AT_ONCE) {
            let asked = some.iter().map(|tenant| async { (*tenant, self.move_on(*tenant).await) });
            let failed = join_all(asked).await.into_iter();
            behind.extend(failed.filter_map(|(tenant, outcome)| outcome.err().map(|error| (tenant, error))));
        }
        for (tenant, error) in &behind {
            tracing::error!(%tenant, %error, "keys not moved into the new epoch, the old one is kept");
        }
        let first = self.on_disk(|handle| handle.keystore(|keystore| Ok(keystore.retire()?))).await?;
        Ok(Advanced { current, first, behind })
    }

    async fn move_on(&self, tenant: TenantId) -> Result<(), VaultError> {
        let epoch = self.addr(tenant).ask(KeyVaultMsg::AdvanceEpoch).await??;
        // Its vault may be on another node, which has told only itself.
        self.handle.keystore(|keystore| keystore.moved(tenant, epoch));
        Ok(())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&VaultHandle) -> Result<T, CryptError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let handle = self.handle.clone();
        let done = self.village.blocking("keys.file", move || work(&handle)).await;
        Ok(done.map_err(CallError::from)??)
    }
}
