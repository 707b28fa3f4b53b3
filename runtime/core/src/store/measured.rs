//! A store that feeds the metrics.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Batch, Level, Lsn, Store, StoreError, StoreStats, TreeId};
use crate::telemetry::StoreMetrics;

/// Times the commits of the store it wraps.
pub(crate) struct Measured {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<StoreMetrics>,
}

impl Store for Measured {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(tree, key)
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let (commit, metrics) = (self.store.commit(batch, level), self.metrics.clone());
        async move {
            let start = Instant::now();
            let done = commit.await;
            metrics.commit_seconds.observe(start.elapsed().as_secs_f64());
            done
        }
        .boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.store.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn close(&self) {
        self.store.close();
    }
}
