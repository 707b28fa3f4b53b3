//! openraft's conformance suite.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::log::{Gate, Log};
use super::super::machine::Replica;
use super::super::{GroupId, Machine, Position, StateView, Types, Writer, Writes};
use crate::store::{DiskStore, MemoryStore, Store, StoreConfig, StoreError};

struct Deaf;

impl Machine for Deaf {
    fn apply(&mut self, _: Position, _: &[u8], _: &mut Writes) -> Vec<u8> {
        Vec::new()
    }

    fn reload(&mut self, _: &StateView) -> Result<(), StoreError> {
        Ok(())
    }

    fn lazily_dumped(&self) -> bool {
        true
    }
}

struct OnDisk;
struct InMemory;

type Guard = (Option<TempDir>, watch::Sender<bool>);

async fn open(store: Arc<dyn Store>, dir: Option<TempDir>) -> (Guard, Log, Replica) {
    let (stop, stopped) = watch::channel(false);
    let writer = Writer { store, group: GroupId(1), stopped };
    let gate = Arc::<Gate>::default();
    let log = Log::open(writer.clone(), 200, Arc::clone(&gate)).unwrap();
    let snapshots = dir.as_ref().map(|dir| dir.path().join("raft"));
    let replica = Replica::open(Box::new(Deaf), writer, snapshots, gate).await.unwrap();
    ((dir, stop), log, replica)
}

impl StoreBuilder<Types, Log, Replica, Guard> for OnDisk {
    async fn build(&self) -> Result<(Guard, Log, Replica), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path(), &StoreConfig::default()).unwrap();
        Ok(open(Arc::new(store), Some(dir)).await)
    }
}

impl StoreBuilder<Types, Log, Replica, Guard> for InMemory {
    async fn build(&self) -> Result<(Guard, Log, Replica), StorageError<u64>> {
        Ok(open(Arc::new(MemoryStore::default()), None).await)
    }
}

#[test]
fn storage_on_disk_conforms() {
    Suite::test_all(OnDisk).unwrap();
}

#[test]
fn storage_in_memory_conforms() {
    Suite::test_all(InMemory).unwrap();
}
