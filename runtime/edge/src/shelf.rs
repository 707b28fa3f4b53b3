//! Where the edge's actors keep their records: each under a prefix of its own in the store of its group.

use std::sync::Arc;

use aivillage_runtime::store::{Batch, Level, Store, StoreError, TreeId};
use bytes::Bytes;

/// The records of one actor. Prefix: first 8 bytes of BLAKE3 of the actor's key.
pub(crate) struct Shelf {
    store: Arc<dyn Store>,
    prefix: [u8; 8],
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Shelf {
    /// The records of the actor with this key, once what an earlier activation wrote is seen.
    pub(crate) async fn open(store: Arc<dyn Store>, actor: &str) -> Result<Self, StoreError> {
        store.commit(Batch::new(), Level::Async).await?;
        let mut prefix = [0; 8];
        blake3::Hasher::new().update(actor.as_bytes()).finalize_xof().fill(&mut prefix);
        Ok(Self { store, prefix })
    }

    /// The key of a record in the store.
    pub(crate) fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        [&self.prefix[..], &parts.concat()].concat()
    }

    /// Reads one record.
    pub(crate) fn get(&self, tree: TreeId, parts: &[&[u8]]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(tree, &self.key(parts))
    }

    /// Up to `limit` records from a key on, in order; keys without the prefix. Fewer mean that there are no more.
    pub(crate) fn page(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut page = self.store.scan(tree, &self.key(&[from]), limit)?;
        page.truncate(page.partition_point(|(key, _)| key.starts_with(&self.prefix)));
        for (key, _) in &mut page {
            *key = key.slice(self.prefix.len()..);
        }
        Ok(page)
    }

    /// Writes a batch whose keys are from [`Shelf::key`].
    pub(crate) async fn commit(&self, batch: Batch, level: Level) -> Result<(), StoreError> {
        self.store.commit(batch, level).await.map(drop)
    }
}
