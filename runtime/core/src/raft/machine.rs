//! The applied state of one group: a [`Machine`] and its range of keys, as openraft's state machine.
//!
//! The range lies in one of two slots. A snapshot is installed into the other one, and the batch that writes its applied
//! position turns the slot over. So there is always one whole state that fits the applied position.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::log::Gate;
use super::snapshot::{Dump, SnapshotFile, Snapshots, aside};
use super::{
    Entry, Fact, GroupId, LogId, Machine, Part, Position, Replies, SnapshotMeta, StateView, StoredMembership, Types,
    Writer, Writes, encode,
};
use crate::store::{Batch, Level, Raw, StoreError, TreeId};

/// Writes of one commit; what a machine writes for one entry may be more.
const COMMIT_BYTES: usize = 4 << 20;
/// Pairs read from the store at a time.
const PAGE: usize = 64;
/// Pause after a snapshot could not be made. openraft asks for the next one at once.
const FAILED_SNAPSHOT_PAUSE: Duration = Duration::from_secs(10);

/// What is stored about the state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) slot: u8,
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
}

/// A machine with its durable state.
pub(super) struct Replica {
    /// Never locked: openraft wants a state machine to be `Sync`, which a machine need not be.
    machine: Mutex<Box<dyn Machine>>,
    lazily_dumped: bool,
    writer: Writer,
    view: StateView,
    applied: Applied,
    snapshots: Snapshots,
    gate: Arc<Gate>,
}

impl Replica {
    pub(super) async fn open(
        mut machine: Box<dyn Machine>,
        writer: Writer,
        snapshots: Option<std::path::PathBuf>,
        gate: Arc<Gate>,
    ) -> Result<Self, StoreError> {
        let group = writer.group;
        let applied: Applied = writer.fact(Fact::Applied)?.unwrap_or_default();
        let slot = Arc::new(AtomicU8::new(applied.slot));
        let view = StateView { store: Arc::clone(&writer.store), group, slot };
        machine.reload(&view)?;
        gate.applied(applied.last);
        let snapshots = Snapshots::open(group, snapshots, applied.last).await?;
        let lazily_dumped = machine.lazily_dumped();
        let replica = Self { machine: Mutex::new(machine), lazily_dumped, writer, view, applied, snapshots, gate };
        replica.wipe(replica.other_slot()).await?;
        Ok(replica)
    }

    pub(super) fn view(&self) -> StateView {
        self.view.clone()
    }

    pub(super) fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    fn group(&self) -> GroupId {
        self.writer.group
    }

    fn other_slot(&self) -> u8 {
        1 - self.applied.slot.min(1)
    }

    fn meta(&self) -> SnapshotMeta {
        let position = self.applied.last.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        SnapshotMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
            snapshot_id: format!("{position}-{:08x}", rand::random::<u32>()),
        }
    }

    async fn apply_all(&mut self, entries: impl Iterator<Item = Entry> + Send) -> Result<Vec<Replies>, StoreError> {
        let mut replies = Vec::new();
        let mut writes = Writes::new(self.group(), self.applied.slot);
        for entry in entries {
            self.applied.last = Some(entry.log_id);
            replies.push(match entry.payload {
                EntryPayload::Blank => Replies::default(),
                EntryPayload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Replies::default()
                }
                EntryPayload::Normal(commands) => {
                    let machine = self.machine.get_mut();
                    let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
                    let reply = |(nth, command): (u32, &Raw)| {
                        machine.apply(Position { index, nth, term }, &command.0, &mut writes)
                    };
                    Replies((0..).zip(&commands.list).map(reply).map(|reply| Raw(reply.into())).collect())
                }
            });
            if writes.bytes >= COMMIT_BYTES {
                let whole = std::mem::replace(&mut writes, Writes::new(self.group(), self.applied.slot));
                self.commit(whole).await?;
            }
        }
        self.commit(writes).await?;
        Ok(replies)
    }

    async fn commit(&mut self, writes: Writes) -> Result<(), StoreError> {
        let batch = writes.batch.put(TreeId::RAFT, Fact::Applied.key(self.group()), encode(&self.applied));
        self.writer.commit(batch, Level::Async).await?;
        self.machine.get_mut().committed();
        self.gate.applied(self.applied.last);
        Ok(())
    }

    /// Removes all keys of a slot.
    async fn wipe(&self, slot: u8) -> Result<(), StoreError> {
        let prefix = [self.group().0, slot];
        loop {
            let page = self.writer.store.scan(TreeId::REPLICATED, &prefix, PAGE)?;
            let found = page.iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix));
            let batch = found.fold(Batch::new(), |batch, key| batch.delete(TreeId::REPLICATED, key.to_vec()));
            if batch.is_empty() {
                return Ok(());
            }
            self.writer.commit(batch, Level::Async).await?;
        }
    }

    async fn install(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> Result<(), StoreError> {
        let slot = self.other_slot();
        self.wipe(slot).await?;
        let mut pairs = file.pairs()?;
        let mut writes = Writes::new(self.group(), slot);
        while let Some((key, value)) = pairs.next()? {
            writes.put(&key, value);
            if writes.bytes >= COMMIT_BYTES {
                let full = std::mem::replace(&mut writes, Writes::new(self.group(), slot));
                self.writer.commit(full.batch, Level::Async).await?;
            }
        }
        let applied = Applied { slot, last: meta.last_log_id, membership: meta.last_membership.clone() };
        let batch = writes.batch.put(TreeId::RAFT, Fact::Applied.key(self.group()), encode(&applied));
        self.writer.commit(batch, Level::Disk).await?;
        let old = std::mem::replace(&mut self.applied, applied).slot;
        self.view.slot.store(slot, Ordering::Release);
        self.machine.get_mut().reload(&self.view)?;
        self.gate.applied(self.applied.last);
        self.gate.open();
        self.snapshots.keep(meta.clone(), file)?;
        self.wipe(old).await
    }

    fn builder(&self) -> Result<Builder, StoreError> {
        let view = self.view.fixed();
        let source = if self.lazily_dumped { Source::Scan(view) } else { Source::Read(read_all(&view)?) };
        Ok(Builder {
            meta: self.meta(),
            source: Some(source),
            writer: self.writer.clone(),
            snapshots: self.snapshots.clone(),
        })
    }
}

impl RaftStateMachine<Types> for Replica {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.apply_all(entries.into_iter()).await.map_err(|e| Part::State.cannot_write(&e))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder().unwrap_or_else(|error| Builder::failed(self, error))
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError<u64>> {
        Ok(Box::new(SnapshotFile::empty()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        file: Box<SnapshotFile>,
    ) -> Result<(), StorageError<u64>> {
        let installed = self.install(meta, *file).await;
        installed.map_err(|e| {
            self.gate.fail();
            Part::Snapshot.cannot_write(&e)
        })
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        if self.snapshots.current().is_none() && self.gate.purged.load(Ordering::Acquire) {
            // openraft counts on a snapshot once the log is purged, and stops for good if there is none.
            let built = async { self.builder()?.build().await };
            built.await.map_err(|e| Part::Snapshot.cannot_read(&e))?;
        }
        Ok(self.snapshots.current().map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

/// Makes one snapshot, while the machine goes on.
pub(super) struct Builder {
    meta: SnapshotMeta,
    source: Option<Source>,
    writer: Writer,
    snapshots: Snapshots,
}

/// Where the pairs come from.
enum Source {
    /// Read when the builder was made.
    Read(Vec<(Bytes, Bytes)>),
    /// Read while later commands are applied, see [`Machine::lazily_dumped`].
    Scan(StateView),
    /// The state could not be read.
    Failed(StoreError),
}

impl Builder {
    fn failed(replica: &Replica, error: StoreError) -> Self {
        Self {
            meta: SnapshotMeta::default(),
            source: Some(Source::Failed(error)),
            writer: replica.writer.clone(),
            snapshots: replica.snapshots.clone(),
        }
    }

    async fn build(&mut self) -> Result<(SnapshotMeta, SnapshotFile), StoreError> {
        let source = self.source.take().ok_or(StoreError::Closed)?;
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        let file = aside(snapshots.on_disk(), move || dump(&meta, &source, &snapshots)).await?;
        // The file must not be ahead of the state: that of a node without power is what reached the disk.
        self.writer.commit(Batch::new(), Level::Disk).await?;
        // If a received snapshot took the state's place meanwhile, the scan may have met the wiping of the old one. That
        // begins after the received one is kept, so it is the one that stays.
        self.snapshots.keep(self.meta.clone(), file)
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    /// Never fails, since openraft would stop. What it gets instead is older than what it has, and ignored.
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let (meta, file) = match self.build().await {
            Ok(built) => built,
            Err(error) => {
                tracing::warn!(group = %self.writer.group, %error, "snapshot failed");
                let mut stopped = self.writer.stopped.clone();
                let _ = tokio::time::timeout(FAILED_SNAPSHOT_PAUSE, stopped.wait_for(|stopped| *stopped)).await;
                self.snapshots.current().unwrap_or_else(|| (SnapshotMeta::default(), SnapshotFile::empty()))
            }
        };
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}

fn dump(meta: &SnapshotMeta, source: &Source, snapshots: &Snapshots) -> Result<SnapshotFile, StoreError> {
    let mut dump = Dump::begin(snapshots.draft()?, meta)?;
    match source {
        Source::Read(pairs) => pairs.iter().try_for_each(|(key, value)| dump.pair(key, value))?,
        Source::Scan(view) => each_page(view, |pairs| pairs.iter().try_for_each(|(key, value)| dump.pair(key, value)))?,
        Source::Failed(error) => return Err(error.clone()),
    }
    dump.finish()
}

fn read_all(view: &StateView) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut all = Vec::new();
    each_page(view, |mut pairs| {
        all.append(&mut pairs);
        Ok(())
    })?;
    Ok(all)
}

fn each_page(
    view: &StateView,
    mut take: impl FnMut(Vec<(Bytes, Bytes)>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = Vec::new();
    loop {
        let page = view.scan(&from, PAGE)?;
        let full = page.len() == PAGE;
        if let Some((last, _)) = page.last() {
            from = [last, &[0][..]].concat();
        }
        take(page)?;
        if !full {
            return Ok(());
        }
    }
}
