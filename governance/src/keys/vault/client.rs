//! The way to the vaults for the rest of a node.

use aivillage_runtime::{Addr, AppError, CallError, DecideError, Village};
use futures::future::join_all;
use serde_bytes::ByteBuf;

use super::{KeyVault, KeyVaultMsg, Plain, Shredding};
use crate::keys::epochs::EpochRefused;
use crate::keys::error::CryptError;
use crate::keys::handle::VaultHandle;
use crate::keys::node::KeysNode;
use crate::keys::register::Register;
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
    /// The cluster decided against it.
    #[error(transparent)]
    Refused(#[from] EpochRefused),
    /// The cluster did not decide.
    #[error("the epochs of the keys: {0}")]
    Undecided(String),
}

impl From<DecideError> for VaultError {
    fn from(error: DecideError) -> Self {
        Self::Undecided(error.to_string())
    }
}

impl From<VaultError> for CallError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Crypt(error) => error.into(),
            VaultError::Call(error) => error,
            VaultError::Refused(_) | VaultError::Undecided(_) => AppError::new("crypt_epoch", error.to_string()).into(),
        }
    }
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

    /// The vaults of a village that was built with [`install`](fn@crate::install); none of one without governance.
    #[must_use]
    pub fn of(village: &Village) -> Option<Self> {
        village.provided::<KeysNode>().map(|node| Self::new(village.clone(), node.handle().clone()))
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
        self.addr(tenant).query(KeyVaultMsg::Status).await?;
        Ok(())
    }

    /// Makes sure that the scope has a key that may seal.
    ///
    /// # Errors
    /// [`CryptError::Shredded`], [`CryptError::Full`], or what kept the key from being stored.
    pub async fn prepare(&self, scope: &Scope) -> Result<(), VaultError> {
        let ask = |reply| KeyVaultMsg::Prepare(scope.subject, scope.purpose.clone(), reply);
        self.addr(scope.tenant).query(ask).await??;
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
        Ok(self.addr(scope.tenant).query(ask).await??.into_vec())
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
        Ok(self.addr(scope.tenant).query(ask).await??.into_vec())
    }

    /// Has the keys of a tenant in this process as they are now, also where neither its vault nor a copy of it is.
    ///
    /// # Errors
    /// When the vault cannot be asked, or its keys do not open here.
    pub async fn fetch(&self, tenant: TenantId) -> Result<(), VaultError> {
        let ring = self.addr(tenant).call().repeatable().ask(KeyVaultMsg::Ring).await?;
        Ok(self.handle.publish(&ring)?)
    }

    /// [`Vault::seal`] for a thread that may block. Where the keys are not in this process they are fetched, so that many values
    /// in a row cost one message.
    ///
    /// # Errors
    /// As [`Vault::seal`].
    pub fn blocking_seal(&self, scope: &Scope, record: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let runtime = tokio::runtime::Handle::current();
        let is_missing = |error: &CryptError| matches!(error, CryptError::NoKey | CryptError::NotLoaded);
        match self.handle.seal(scope, record, plain) {
            Err(error) if is_missing(&error) || matches!(error, CryptError::Exhausted { .. }) => {}
            sealed => return Ok(sealed?),
        }
        runtime.block_on(self.prepare(scope))?;
        match self.handle.seal(scope, record, plain) {
            Err(error) if is_missing(&error) => runtime.block_on(self.fetch(scope.tenant))?,
            sealed => return Ok(sealed?),
        }
        Ok(self.handle.seal(scope, record, plain)?)
    }

    /// [`Vault::open`] for a thread that may block. Where the keys are not in this process they are fetched.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn blocking_open(&self, scope: &Scope, record: &[u8], sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        match self.handle.open(scope, record, sealed) {
            Err(CryptError::NotLoaded | CryptError::UnknownKey { .. }) => {}
            opened => return Ok(opened?),
        }
        tokio::runtime::Handle::current().block_on(self.fetch(scope.tenant))?;
        Ok(self.handle.open(scope, record, sealed)?)
    }

    /// Makes a new key for a scope; what older ones sealed still opens.
    ///
    /// # Errors
    /// As [`Vault::prepare`].
    pub async fn rotate(&self, scope: &Scope) -> Result<(), VaultError> {
        let ask = |reply| KeyVaultMsg::Rotate(scope.subject, scope.purpose.clone(), reply);
        self.addr(scope.tenant).query(ask).await??;
        Ok(())
    }

    /// Destroys all keys of a subject, for good.
    ///
    /// # Errors
    /// When it could not be stored; the keys may be there then.
    pub async fn shred(&self, tenant: TenantId, subject: SubjectTag) -> Result<Shredding, VaultError> {
        Ok(self.addr(tenant).query(|reply| KeyVaultMsg::Shred(subject, reply)).await??)
    }

    /// Begins the next epoch, moves the keys of every tenant into it, then destroys the epochs that nobody needs. To be called
    /// once per `governance.keys.epoch`, by one node; an interruption is made good by the next call.
    ///
    /// # Errors
    /// When the epoch could not begin. Tenants that fail are in [`Advanced::behind`].
    pub async fn advance_epoch(&self, now_ms: u64) -> Result<Advanced, VaultError> {
        let register = Register::new(&self.village, &self.handle);
        let current = register.begin(now_ms).await?;
        let (mut moved, mut behind) = (Vec::new(), Vec::new());
        for some in register.tenants()?.chunks(AT_ONCE) {
            let asked = some.iter().map(|tenant| async {
                let asked = self.addr(*tenant).query(|reply| KeyVaultMsg::AdvanceEpoch(current, reply)).await;
                (*tenant, asked.map_err(VaultError::from).and_then(|moved| Ok(moved?)))
            });
            for (tenant, outcome) in join_all(asked).await {
                match outcome {
                    Ok(epoch) => moved.push((tenant, epoch)),
                    Err(error) => behind.push((tenant, error)),
                }
            }
        }
        for (tenant, error) in &behind {
            tracing::error!(%tenant, %error, "keys not moved into the new epoch, the old one is kept");
        }
        let first = register.moved(moved).await?;
        Ok(Advanced { current, first, behind })
    }
}
