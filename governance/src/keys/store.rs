//! A store whose values are sealed: [`EncryptedStore`] wraps any other.
//!
//! A function says for each key which scope its value is sealed in; none leaves it in the clear. Keys stay in the clear, so that
//! they keep their order. A value is bound to its tree and key: one that was moved to another does not open there.
//!
//! What a shredded subject had reads as if it were not there; what is written for it is refused. A value in the clear where a
//! sealed one is due is refused as well, or whoever can write to the disk could put his own.

mod ops;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use aivillage_runtime::store::{Lsn, StoreStats};
use aivillage_runtime::{Batch, Level, Store, StoreError, TreeId};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use tokio::sync::Mutex;

use super::envelope::OVERHEAD;
use super::error::CryptError;
use super::scope::Scope;
use super::vault::{Vault, VaultError};
use ops::{Op, Ops};

/// How many times larger a batch may be when it is sealed: an envelope adds 50 bytes to a value, and a put without key and value
/// counts 16.
const GROWTH: usize = 1 + OVERHEAD.div_ceil(aivillage_runtime::store::WRITE_BYTES);

/// Which scope a value is sealed in; none for a value in the clear.
pub type ScopeOf = dyn Fn(TreeId, &[u8]) -> Option<Scope> + Send + Sync;

/// Seals what it writes to a store and opens what it reads from it.
///
/// The keys of a tenant must be in this process before they serve reads: [`Vault::load`]. The vault itself must not keep its
/// keys in this store.
pub struct EncryptedStore<S: ?Sized>(Arc<Shared<S>>);

struct Shared<S: ?Sized> {
    vault: Vault,
    scope_of: Box<ScopeOf>,
    /// Whose commit is sealed and handed on: the inner store gets them in the order in which they came.
    turn: Mutex<()>,
    inner: Arc<S>,
}

impl<S: ?Sized> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore").field("vault", &self.0.vault).finish_non_exhaustive()
    }
}

impl<S: Store + ?Sized> EncryptedStore<S> {
    /// Wraps `inner`.
    pub fn new(
        inner: Arc<S>,
        vault: Vault,
        scope_of: impl Fn(TreeId, &[u8]) -> Option<Scope> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared { vault, scope_of: Box::new(scope_of), turn: Mutex::new(()), inner }))
    }

    /// Whether the value of a key is sealed with the key that seals now, or may stay in the clear. One that is not is to be
    /// written again when that is convenient. None when there is no value.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn is_current(&self, tree: TreeId, key: &[u8]) -> Result<Option<bool>, StoreError> {
        let Some(value) = self.0.inner.get(tree, key)? else { return Ok(None) };
        let Some(scope) = (self.0.scope_of)(tree, key) else { return Ok(Some(true)) };
        match self.0.vault.handle().is_current(&scope, &value) {
            Err(CryptError::Shredded { .. }) => Ok(None),
            Err(CryptError::NoKey) => Ok(Some(false)),
            checked => checked.map(Some).map_err(|error| failed("open", tree, error)),
        }
    }
}

impl<S: Store + ?Sized> Shared<S> {
    /// The value in the clear; none if its subject was shredded.
    fn opened(&self, tree: TreeId, key: &[u8], value: Bytes) -> Result<Option<Bytes>, StoreError> {
        let Some(scope) = (self.scope_of)(tree, key) else { return Ok(Some(value)) };
        match self.vault.handle().open(&scope, &record(tree, key), &value) {
            Err(CryptError::Shredded { .. }) => Ok(None),
            opened => opened.map(|plain| Some(plain.into())).map_err(|error| failed("open", tree, error)),
        }
    }

    async fn sealed(&self, batch: &Batch) -> Result<Batch, StoreError> {
        let ops = Ops::of(batch)?;
        let mut sealed = Batch::new();
        for Op { tree, key, value } in ops.writes()? {
            sealed = match (value, (self.scope_of)(tree, key)) {
                (None, _) => sealed.delete(tree, key),
                (Some(value), None) => sealed.put(tree, key, value),
                (Some(value), Some(scope)) => {
                    let value = self.seal(&scope, &record(tree, key), value).await;
                    sealed.put(tree, key, value.map_err(|error| failed("seal", tree, error))?)
                }
            };
        }
        Ok(sealed)
    }

    async fn seal(&self, scope: &Scope, record: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        match self.vault.handle().seal(scope, record, plain) {
            Err(CryptError::NoKey | CryptError::NotLoaded | CryptError::Exhausted { .. }) => {}
            sealed => return Ok(sealed?),
        }
        self.vault.prepare(scope).await?;
        Ok(self.vault.handle().seal(scope, record, plain)?)
    }
}

impl<S: Store + ?Sized> Store for EncryptedStore<S> {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.0.inner.get(tree, key)?;
        value.map_or(Ok(None), |value| self.0.opened(tree, key, value))
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let (mut found, mut from) = (Vec::new(), from.to_vec());
        loop {
            let wanted = limit - found.len();
            let page = self.0.inner.scan(tree, &from, wanted)?;
            let ended = page.len() < wanted;
            for (key, value) in page {
                from = [&key[..], &[0]].concat();
                if let Some(value) = self.0.opened(tree, &key, value)? {
                    found.push((key, value));
                }
            }
            if ended || found.len() == limit {
                return Ok(found);
            }
        }
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let shared = self.0.clone();
        async move {
            let turn = shared.turn.lock().await;
            let batch = shared.sealed(&batch).await?;
            let mut commit = shared.inner.commit(batch, level);
            // A commit has its place in the order from its first poll on.
            let polled = poll!(&mut commit);
            drop(turn);
            match polled {
                Poll::Ready(done) => done,
                Poll::Pending => commit.await,
            }
        }
        .boxed()
    }

    /// What fits whatever it consists of. Batches of few large values fit up to nearly the inner store's own limit.
    fn max_batch(&self) -> usize {
        self.0.inner.max_batch() / GROWTH
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.0.inner.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.0.inner.stats()
    }
}

/// What an envelope is bound to: `tree u16` big-endian, then the key.
fn record(tree: TreeId, key: &[u8]) -> Vec<u8> {
    [&tree.0.to_be_bytes(), key].concat()
}

fn failed(action: &'static str, tree: TreeId, error: impl Into<VaultError>) -> StoreError {
    let source = Arc::new(io::Error::other(error.into()));
    StoreError::Io { action, path: PathBuf::from(format!("a value of tree {}", tree.0)), source }
}

/// Why the vault refused, if that is what an error of an [`EncryptedStore`] says.
#[must_use]
pub fn vault_error(error: &StoreError) -> Option<&VaultError> {
    match error {
        StoreError::Io { source, .. } => source.get_ref()?.downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
