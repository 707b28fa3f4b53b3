//! What a node has after it ended in the middle of something.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{CommittedLeaderId, EntryPayload, LogState, RaftLogReader, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::log::{Gate, Log};
use super::super::machine::Replica;
use super::super::{Commands, Entry, Fact, GroupConfig, GroupId, LogId, NodeId, Role, StateView, Types, Writer};
use super::cluster::{Cluster, History, commands, node, until, write};
use crate::store::{
    Batch, DiskStore, Level, Lsn, MemoryStore, Raw, Store, StoreConfig, StoreError, StoreStats, TreeId,
};

/// A store that goes wrong after some commits.
struct Faulty {
    store: Arc<dyn Store>,
    commits_left: AtomicI64,
    error: StoreError,
    /// Failures after which it is well again.
    failures: i64,
}

impl Store for Faulty {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(tree, key)
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let left = self.commits_left.fetch_sub(1, Ordering::Relaxed);
        if left <= 0 && left > -self.failures {
            return std::future::ready(Err(self.error.clone())).boxed();
        }
        self.store.commit(batch, level)
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.store.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

/// A store that remembers what was written.
#[derive(Default)]
struct Recorded {
    store: MemoryStore,
    batches: Mutex<Vec<Batch>>,
}

impl Store for Recorded {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(tree, key)
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.batches.lock().push(batch.clone());
        self.store.commit(batch, level)
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.store.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

/// Whatever part of the redo log survives, entries and state fit each other. The node lags once, so that its state comes
/// from commands, from a snapshot, and from commands again, and its log is purged both ways.
#[tokio::test(start_paused = true)]
async fn any_prefix_of_the_redo_log_is_a_whole_node() {
    let mut cluster = quick();
    cluster.lazy = false;
    let recorded = Arc::new(Recorded::default());
    cluster.add(Arc::clone(&recorded) as Arc<dyn Store>, None).await;
    let cluster = cluster.founded(2).await;
    let subject = &cluster.nodes[0];
    for (number, cut) in
        [(0..50, false), (50..100, true), (100..150, false)].into_iter().flat_map(|(r, c)| r.map(move |n| (n, c)))
    {
        if cut {
            cluster.wires.cut(node(1));
        } else {
            cluster.wires.heal();
        }
        let without = if cut { vec![node(1)] } else { vec![] };
        write(&cluster.leader_but(&without).await, &number.to_string()).await;
    }
    let leader = cluster.leader().await;
    cluster.level(&leader).await;
    let history = cluster.assert_one_history();
    subject.shutdown().await;

    let batches = recorded.batches.lock().clone();
    let survived = Arc::new(MemoryStore::default());
    let mut installed = false;
    let mut before = 0;
    for batch in batches {
        survived.commit(batch, Level::Disk).await.unwrap();
        let (log, applied, found) = reopened(Arc::clone(&survived) as Arc<dyn Store>).await;
        let (purged, last) = (log.last_purged_log_id, log.last_log_id);
        assert!(purged <= applied, "purged up to {purged:?}, applied up to {applied:?}");
        assert!(last >= purged);
        let upto = history.partition_point(|(index, _)| applied.is_some_and(|applied| *index <= applied.index));
        assert!(found == history[..upto], "state of {} commands, {upto} are applied", found.len());
        installed |= upto > before + 10;
        before = upto;
    }
    assert!(installed && before == history.len());
}

/// What a node finds when it starts, without changing it.
async fn reopened(store: Arc<dyn Store>) -> (LogState<Types>, Option<LogId>, super::cluster::Commands) {
    let (stop, stopped) = watch::channel(false);
    let writer = Writer { store, group: GroupId(1), stopped };
    let mut log = Log::open(writer.clone(), 1 << 20, Arc::default()).unwrap();
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    let first = state.last_purged_log_id.map_or(0, |purged| purged.index + 1);
    let end = state.last_log_id.map_or(0, |last| last.index + 1);
    assert!(entries.iter().map(|entry| entry.log_id.index).eq(first..end), "a gap in the log");
    let applied: Option<LogId> =
        writer.fact::<(u8, Option<LogId>)>(Fact::Applied).unwrap().and_then(|applied| applied.1);
    let view =
        StateView { store: Arc::clone(&writer.store), group: GroupId(1), slot: Arc::new(slot_of(&writer).into()) };
    drop(stop);
    (state, applied, commands(&view))
}

fn slot_of(writer: &Writer) -> u8 {
    writer.fact::<(u8, Option<LogId>)>(Fact::Applied).unwrap().map_or(0, |applied| applied.0)
}

async fn replica(store: Arc<dyn Store>) -> Replica {
    let (stop, stopped) = watch::channel(false);
    std::mem::forget(stop);
    let writer = Writer { store, group: GroupId(2), stopped };
    let machine = Box::new(History { lazy: false, len: 0 });
    Replica::open(machine, writer, None, Arc::<Gate>::default()).await.unwrap()
}

fn entry(index: u64, text: &str) -> Entry {
    let list = vec![Raw(Bytes::copy_from_slice(text.as_bytes()))];
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(Commands { list, appended: None }) }
}

#[tokio::test]
async fn an_installation_is_whole_or_has_not_been() {
    let mut source = replica(Arc::new(MemoryStore::default())).await;
    let large = "x".repeat(1 << 20);
    source.apply((10..20).map(|index| entry(index, &large))).await.unwrap();
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let new = commands(&source.view());

    let store = Arc::new(MemoryStore::default());
    let mut target = replica(Arc::clone(&store) as Arc<dyn Store>).await;
    target.apply([entry(0, "old")]).await.unwrap();
    let old = commands(&target.view());
    for commits in 0..20 {
        let faulty = Faulty {
            store: Arc::clone(&store) as Arc<dyn Store>,
            commits_left: AtomicI64::new(commits),
            error: StoreError::Closed,
            failures: i64::MAX,
        };
        let mut target = replica(Arc::new(faulty)).await;
        let installed = target.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await;
        let mut again = replica(Arc::clone(&store) as Arc<dyn Store>).await;
        let (applied, _) = again.applied_state().await.unwrap();
        let found = commands(&again.view());
        if applied == snapshot.meta.last_log_id {
            assert!(found == new);
        } else {
            assert!(installed.is_err());
            assert_eq!((found, applied.map(|id| id.index)), (old.clone(), Some(0)));
        }
        // Nothing is left of the other slot.
        let all = store.scan(TreeId::REPLICATED, &[], usize::MAX).unwrap();
        assert_eq!(all.len(), commands(&again.view()).len());
        if installed.is_ok() {
            assert!(commits > 3, "done after {commits} commits");
            return;
        }
    }
    panic!("never installed");
}

#[tokio::test(start_paused = true)]
async fn writes_wait_while_the_disk_is_full() {
    let faulty = Faulty {
        store: Arc::new(MemoryStore::default()),
        commits_left: AtomicI64::new(20),
        error: StoreError::NoSpace { dir: "/full".into() },
        failures: 2,
    };
    let mut cluster = Cluster::new();
    let group = cluster.add(Arc::new(faulty), None).await;
    group.initialize(&[node(1)]).await.unwrap();
    cluster.leader().await;
    let start = Instant::now();
    for number in 0..20 {
        write(&group, &number.to_string()).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "all done after {:?}", start.elapsed());
    assert_eq!(commands(&group.state()).len(), 20);
}

/// Timers for tests on a real disk, where the clock cannot be stopped.
fn quick() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.config = GroupConfig {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        snapshot_after: 20,
        keep: 5,
        ..GroupConfig::new(GroupId(1), NodeId(0))
    };
    cluster
}

/// Opens the store once the tasks of its last user are gone.
async fn opened(dir: &std::path::Path) -> Arc<dyn Store> {
    loop {
        match DiskStore::open(dir, &StoreConfig::default()) {
            Ok(store) => return Arc::new(store),
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_restarted_node_has_its_vote_its_log_and_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let (data, snapshots) = (dir.path().join("data"), dir.path().join("raft"));
    let mut expected = Vec::new();
    let mut term = 0;
    for round in 0..3 {
        let mut cluster = quick();
        let group = cluster.add(opened(&data).await, Some(snapshots.clone())).await;
        assert_eq!(commands(&group.state()), expected);
        group.initialize(&[node(1)]).await.unwrap();
        let leader = cluster.leader().await;
        assert!(leader.status().term >= term, "a term was forgotten");
        for number in 0..30 {
            write(&leader, &format!("{round}.{number}")).await;
        }
        let status = until(&leader, |status| status.snapshot.is_some()).await;
        (term, expected) = (status.term, commands(&leader.state()));
        assert_eq!(expected.len(), 30 * (round + 1));
        if round == 1 {
            // A damaged snapshot is none; the state is in the store.
            let path = snapshots.join("g01.snapshot");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        drop((group, leader));
        cluster.stop().await;
    }
}

#[tokio::test]
async fn three_nodes_restart_into_one_history() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let mut cluster = quick();
        for number in 1..=3 {
            let home = dir.path().join(number.to_string());
            cluster.add(opened(&home.join("data")).await, Some(home.join("raft"))).await;
        }
        cluster.nodes[0].initialize(&[node(1), node(2), node(3)]).await.unwrap();
        let leader = cluster.leader().await;
        for number in 0..30 {
            write(&leader, &format!("{round}.{number}")).await;
        }
        assert_eq!(leader.status().role, Role::Leader);
        cluster.level(&leader).await;
        assert_eq!(cluster.assert_one_history().len(), 30 * (round + 1));
        drop(leader);
        cluster.stop().await;
    }
}
