//! The store against what must not hurt it: crashes, damaged files, full disks, a second process.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]

mod conformance;
mod faults;
mod full;
mod kill;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{Period, Size};
use aivillage_runtime::store::{DiskStore, Store, StoreConfig, TreeId};

/// Small files, so that a test passes through segments and checkpoints.
fn small() -> StoreConfig {
    StoreConfig {
        cache: Size::from_mib(8),
        checkpoint: Period(Duration::from_hours(1)),
        checkpoint_after: Size::from_mib(1024),
        segment: Size::from_kib(64),
        ..StoreConfig::default()
    }
}

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(DiskStore::open(dir, &small()).unwrap())
}

/// Everything in a tree.
fn all(store: &dyn Store, tree: TreeId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = store.scan(tree, &[], usize::MAX).unwrap();
    entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
