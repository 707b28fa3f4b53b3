//! State on the heap: the store of tests, and the index a node falls back on when sled cannot be made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;

use super::disk::{Index, IndexError, Ops, Page};
use super::{Batch, Level, Lsn, Store, StoreError, StoreStats, TreeId, index_key};

/// A store that keeps everything on the heap and loses it with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    index: MemoryIndex,
    commits: u64,
}

impl Store for MemoryStore {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state.read().index.entries.get(&index_key(tree, key)).cloned())
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let page = Page::of_tree(tree, from, limit);
        Ok(Page::strip_tree(self.state.read().index.entries_of(&page)))
    }

    fn commit(&self, batch: Batch, _: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let state = Arc::clone(&self.state);
        async move {
            batch.check()?;
            let mut state = state.write();
            if !batch.is_empty() {
                state.commits += 1;
                let lsn = Lsn(state.commits);
                state.index.write(lsn, &mut batch.ops.iter());
            }
            Ok(state.index.applied)
        }
        .boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        std::future::ready(Ok(self.state.read().index.applied)).boxed()
    }

    fn stats(&self) -> StoreStats {
        let state = self.state.read();
        let last = state.index.applied;
        StoreStats { last, commits: state.commits, index: "memory".to_owned(), ..StoreStats::default() }
    }
}

/// A sorted map under the keys of [`index_key`].
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    entries: BTreeMap<Vec<u8>, Bytes>,
    applied: Lsn,
}

impl MemoryIndex {
    fn write(&mut self, lsn: Lsn, ops: Ops) {
        self.write_some(ops);
        self.applied = lsn;
    }

    fn write_some(&mut self, ops: Ops) {
        for op in ops {
            match &op.value {
                Some(value) => self.entries.insert(op.index_key(), value.0.clone()),
                None => self.entries.remove(&op.index_key()),
            };
        }
    }

    fn entries_of(&self, page: &Page) -> Vec<(Bytes, Bytes)> {
        let mut bytes = 0;
        let range = self.entries.range(page.from.clone()..page.to.clone()).take(page.limit);
        range
            .take_while(|(key, value)| page.takes(&mut bytes, key.len() + value.len()))
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect()
    }
}

impl Index for MemoryIndex {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn applied(&self) -> Lsn {
        self.applied
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        Ok(self.entries.get(key).cloned())
    }

    fn page(&self, page: &Page) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        Ok(self.entries_of(page))
    }

    fn apply(&mut self, lsn: Lsn, ops: Ops) -> Result<(), IndexError> {
        self.write(lsn, ops);
        Ok(())
    }

    fn apply_some(&mut self, _: Lsn, ops: Ops) -> Result<(), IndexError> {
        self.write_some(ops);
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn close(self: Box<Self>) {}

    fn abandon(self: Box<Self>) {}
}
