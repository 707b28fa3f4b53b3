//! Which epochs there are: as the cluster agreed, or as the key file says where there is no cluster.

use std::collections::BTreeMap;

use aivillage_runtime::{DecideError, Village};

use super::epochs::{Agreed, Command, EpochMachine, NS};
use super::error::CryptError;
use super::handle::VaultHandle;
use super::keystore::Keystore;
use super::scope::TenantId;
use super::vault::VaultError;

/// The epochs of a node and of its cluster.
#[derive(Debug)]
pub(crate) struct Register<'a> {
    village: &'a Village,
    handle: &'a VaultHandle,
}

impl<'a> Register<'a> {
    pub(crate) fn new(village: &'a Village, handle: &'a VaultHandle) -> Self {
        Self { village, handle }
    }

    /// What the cluster has agreed on, as this node knows it; none without a cluster.
    pub(crate) fn agreed(&self) -> Option<(Agreed, BTreeMap<TenantId, u64>)> {
        let read = |machine: &EpochMachine| Some((machine.agreed()?, machine.tenants().clone()));
        self.village.cluster()?.machine(NS, read)?
    }

    /// What tells whether there is something to follow: what is agreed on, and how many tenants there are.
    pub(crate) fn glance(&self) -> Option<(Agreed, usize)> {
        let read = |machine: &EpochMachine| Some((machine.agreed()?, machine.tenants().len()));
        self.village.cluster()?.machine(NS, read)?
    }

    /// Every tenant that has keys.
    ///
    /// # Errors
    /// [`CryptError::NoRoot`].
    pub(crate) fn tenants(&self) -> Result<Vec<TenantId>, CryptError> {
        match self.agreed() {
            Some((_, tenants)) => Ok(tenants.into_keys().collect()),
            None => self.handle.keystore(|keystore| keystore.tenants().collect()),
        }
    }

    /// Takes this node's root to where the cluster is.
    ///
    /// # Errors
    /// [`CryptError::NoRoot`], or that the key file cannot be written.
    pub(crate) async fn follow(&self) -> Result<(), VaultError> {
        let Some((agreed, tenants)) = self.agreed() else { return Ok(()) };
        let work =
            move |keystore: &mut Keystore| keystore.follow((agreed.first, agreed.current), agreed.since_ms, &tenants);
        self.on_disk(work).await
    }

    /// Takes this node's root to an epoch at least; nothing is destroyed.
    ///
    /// # Errors
    /// As [`Register::follow`].
    pub(crate) async fn reach(&self, epoch: u64) -> Result<(), VaultError> {
        self.on_disk(move |keystore| {
            let (first, since_ms, needs) = (keystore.root().first(), keystore.since_ms(), keystore.needs().clone());
            keystore.follow((first, epoch), since_ms, &needs)
        })
        .await
    }

    /// Notes a tenant before its first key is wrapped in `epoch`: that epoch, and what it needs later, is not destroyed.
    ///
    /// # Errors
    /// When it could not be noted.
    pub(crate) async fn enroll(&self, tenant: TenantId, epoch: u64) -> Result<(), VaultError> {
        if self.village.cluster().is_none() {
            return self.on_disk(move |keystore| Ok(keystore.enroll(tenant, epoch)?)).await;
        }
        if self.agreed().is_none_or(|(_, tenants)| !tenants.contains_key(&tenant)) {
            self.decide(&Command::Enroll(tenant, epoch)).await?;
        }
        Ok(())
    }

    /// Begins the next epoch; the number of the current one.
    ///
    /// # Errors
    /// When it could not be noted: it has not begun then, or it is found by the next call.
    pub(crate) async fn begin(&self, now_ms: u64) -> Result<u64, VaultError> {
        let Some((agreed, _)) = self.agreed() else {
            return self.on_disk(move |keystore| Ok(keystore.advance(now_ms)?)).await;
        };
        let from = agreed.current;
        let mark = self.handle.keystore(|keystore| keystore.root().mark(from + 1))??;
        let current = self.decide(&Command::Begin { from, mark }).await?.current;
        self.reach(current).await?;
        Ok(current)
    }

    /// Notes where the keys of tenants are now, and destroys the epochs that nobody needs; the oldest one that is left.
    ///
    /// # Errors
    /// When it could not be noted, or this node's file not be written: all keys are there then.
    pub(crate) async fn moved(&self, moved: Vec<(TenantId, u64)>) -> Result<u64, VaultError> {
        if self.village.cluster().is_some() {
            let first = self.decide(&Command::Moved(moved)).await?.first;
            self.follow().await?;
            return Ok(first);
        }
        self.on_disk(move |keystore| {
            for (tenant, epoch) in moved {
                keystore.moved(tenant, epoch);
            }
            Ok(keystore.retire()?)
        })
        .await
    }

    pub(crate) async fn decide(&self, command: &Command) -> Result<Agreed, VaultError> {
        let cluster = self.village.cluster().ok_or(DecideError::NoCluster)?;
        let answer = cluster.command(NS, EpochMachine::command(command)).await?;
        Ok(EpochMachine::answer(&answer)?)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keystore) -> Result<T, CryptError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let handle = self.handle.clone();
        let work = move || {
            let done = handle.keystore(work);
            handle.changed();
            done
        };
        let done = self.village.blocking("keys.file", work).await;
        let failed = |error: aivillage_runtime::TaskError| CryptError::Keystore { detail: error.to_string() };
        Ok(done.map_err(failed)???)
    }
}
