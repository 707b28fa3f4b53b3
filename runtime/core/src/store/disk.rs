//! The durable store of a node: redo log, index and checkpoints under one data directory.
//!
//! Two threads: `store-redo` writes groups of batches and applies them to the index (its `memtable` first), `store-ckpt` writes checkpoints. Readers go to the index directly, under a lock that the application of a group takes for itself, so that they see batches whole.
//! Whoever meets a failure of the index makes it again on the spot; everybody else waits at that lock.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::redo::Redo;
use super::repair::{self, Layout};
use super::{
    Batch, Level, Lsn, Op, Raw, Store, StoreConfig, StoreError, StoreStats, TreeId, checkpoint, index_key, redo,
};

/// Batches waiting for the redo thread, in KiB; committers beyond wait for room. Twice the largest batch.
const QUEUE_KIB: usize = 2 * super::MAX_BATCH / 1024;
/// A group ends at this size, so that its first committer does not wait for megabytes of others.
const GROUP_BYTES: usize = 8 << 20;
/// A group ends at this many batches.
const GROUP_LEN: usize = 1024;
/// Rebuilds of sled in one process. After these the index stays in memory until a restart.
const MAX_REBUILDS: u64 = 3;

/// Operations of a group, in order.
pub(super) type Ops<'a, 'b> = &'a mut (dyn Iterator<Item = &'b Op> + 'a);

/// The newest value of every key. It can be made again from checkpoint and redo, so it may fail.
pub(super) trait Index: Send + Sync {
    /// For the statistics.
    fn name(&self) -> &'static str;
    /// Position of the last group applied.
    fn applied(&self) -> Lsn;
    /// The value under a key of [`index_key`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError>;
    /// Entries in the order of their keys.
    fn page(&self, page: &Page) -> Result<Vec<(Bytes, Bytes)>, IndexError>;
    /// Applies a group, whole or not at all.
    fn apply(&mut self, lsn: Lsn, ops: Ops) -> Result<(), IndexError>;
    /// Applies some of the groups up to `upto`, of which `applied` says nothing until the rest is in.
    fn apply_some(&mut self, upto: Lsn, ops: Ops) -> Result<(), IndexError>;
    /// Brings some of what is held back on the heap to where `flush` reaches it; true when all up to `upto` is there.
    fn pour(&mut self, _upto: Lsn) -> Result<bool, IndexError> {
        Ok(true)
    }
    /// Makes the index survive the loss of power, so that the next start has less to replay.
    fn flush(&self) -> Result<(), IndexError>;
    /// Ends it in good order.
    fn close(self: Box<Self>);
    /// Ends it without touching its files.
    fn abandon(self: Box<Self>);
}

/// An index that can no longer be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct IndexError {
    pub(super) detail: String,
    /// Because the disk is full; its files are not to blame.
    pub(super) full: bool,
}

impl IndexError {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), full: false }
    }
}

/// A range of index keys, and how much of it to return.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) from: Vec<u8>,
    /// Excluded.
    pub(super) to: Vec<u8>,
    pub(super) limit: usize,
    bytes: usize,
}

impl Page {
    /// Pairs of one tree from a key on.
    pub(super) fn of_tree(tree: TreeId, from: &[u8], limit: usize) -> Self {
        assert!(tree.0 < TreeId::RESERVED, "tree {} is reserved for the index", tree.0);
        let to = index_key(TreeId(tree.0 + 1), &[]);
        Self { from: index_key(tree, from), to, limit, bytes: usize::MAX }
    }

    /// Entries of all trees from an index key on, about `bytes` of them.
    fn of_all(from: Vec<u8>, bytes: usize) -> Self {
        Self { from, to: index_key(TreeId(TreeId::RESERVED), &[]), limit: usize::MAX, bytes }
    }

    /// The same, but ending after about `bytes` of entries.
    #[cfg(test)]
    pub(super) fn at_most(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// Counts an entry in and says whether it still fits; the first always does.
    pub(super) fn takes(&self, taken: &mut usize, len: usize) -> bool {
        let fits = *taken == 0 || *taken + len <= self.bytes;
        *taken += len;
        fits
    }

    /// Turns index keys of one tree into that tree's keys.
    pub(super) fn strip_tree(mut entries: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
        for (key, _) in &mut entries {
            *key = key.slice(2..);
        }
        entries
    }
}

/// The store of a node with a data directory. Dropped, it closes.
#[derive(Debug)]
pub struct DiskStore {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    durability: Level,
    wake: Sender<Wake>,
    /// None once it is closed.
    running: Mutex<Option<Running>>,
}

/// Both threads, and the lock of the directory.
#[derive(Debug)]
struct Running {
    keeper: JoinHandle<()>,
    writer: JoinHandle<()>,
    _lock: File,
}

/// What readers and both threads use.
struct Shared {
    layout: Layout,
    cache: u64,
    slot: RwLock<Slot>,
    queue: mpsc::UnboundedSender<Request>,
    counters: Counters,
    closing: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Shared").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// The index in use, or why there is none any more.
struct Slot {
    index: Result<Box<dyn Index>, StoreError>,
    /// Grows with each rebuild: of many readers that met a failure only the first repairs.
    generation: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    syncs: AtomicU64,
    redo_bytes: AtomicU64,
    rebuilds: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    full: AtomicBool,
}

impl DiskStore {
    /// Opens the store under `dir`, recovering what was committed.
    ///
    /// # Errors
    /// See [`super::open`].
    pub fn open(dir: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        let layout = Layout::create(dir)?;
        let lock = lock(&layout.lock())?;
        let redo = Redo::open(&layout.redo(), config.segment.bytes())?;
        let (index, rebuilt) = repair::open_index(&layout, config.cache.bytes(), redo.last())?;
        let (queue, requests) = mpsc::unbounded_channel();
        let (wake, woken) = channel();
        let shared = Arc::new(Shared {
            layout,
            cache: config.cache.bytes(),
            slot: RwLock::new(Slot { index: Ok(index), generation: 0 }),
            queue,
            counters: Counters { rebuilds: AtomicU64::new(u64::from(rebuilt)), ..Counters::default() },
            closing: AtomicBool::new(false),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            redo,
            requests,
            wake: wake.clone(),
            unchecked: 0,
            checkpoint_after: config.checkpoint_after.bytes(),
        };
        let keeper = Keeper { shared: Arc::clone(&shared), woken, period: config.checkpoint.get() };
        let keeper = thread(&shared, "store-ckpt", move || keeper.run())?;
        let writer = thread(&shared, "store-redo", move || writer.run())?;
        let running = Mutex::new(Some(Running { keeper, writer, _lock: lock }));
        let room = Arc::new(Semaphore::new(QUEUE_KIB));
        Ok(Self { shared, room, durability: config.durability, wake, running })
    }
}

impl Store for DiskStore {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = index_key(tree, key);
        self.shared.read(|index| index.get(&key))
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let page = Page::of_tree(tree, from, limit);
        Ok(Page::strip_tree(self.shared.read(|index| index.page(&page))?))
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let (shared, room) = (Arc::clone(&self.shared), Arc::clone(&self.room));
        let level = level.min(self.durability);
        async move {
            batch.check()?;
            let kib = u32::try_from(batch.bytes() / 1024 + 1).expect("a batch is at most MAX_BATCH");
            let room = room.acquire_many_owned(kib).await.map_err(|_| StoreError::Closed)?;
            shared.enqueue(batch, level, Some(room)).await.map_err(|_| StoreError::Closed)?
        }
        .boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let (reply, done) = oneshot::channel();
        let sent = self.wake.send(Wake::Checkpoint(Some(reply)));
        async move {
            sent.map_err(|_| StoreError::Closed)?;
            done.await.map_err(|_| StoreError::Closed)?
        }
        .boxed()
    }

    fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        let slot = self.shared.slot.read();
        let index = slot.index.as_ref();
        StoreStats {
            last: index.map_or(Lsn(0), |index| index.applied()),
            commits: counters.commits.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            redo_bytes: counters.redo_bytes.load(Relaxed),
            rebuilds: counters.rebuilds.load(Relaxed),
            checkpoints: counters.checkpoints.load(Relaxed),
            checkpoint_failures: counters.checkpoint_failures.load(Relaxed),
            index: index.map_or("none", |index| index.name()).to_owned(),
            full: counters.full.load(Relaxed),
        }
    }

    fn close(&self) {
        let Some(running) = self.running.lock().take() else { return };
        self.shared.closing.store(true, Relaxed);
        // Checkpoints need the redo thread, so that one ends last.
        let _ = self.wake.send(Wake::Close);
        let _ = running.keeper.join();
        let _ = self.shared.queue.send(Request::Close);
        let _ = running.writer.join();
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Queues a batch. The receiver fails when the redo thread is gone.
    fn enqueue(
        &self,
        batch: Batch,
        level: Level,
        room: Option<OwnedSemaphorePermit>,
    ) -> oneshot::Receiver<Result<Lsn, StoreError>> {
        let (done, receiver) = oneshot::channel();
        let _ = self.queue.send(Request::Commit(Commit { batch, level, done, _room: room }));
        receiver
    }

    /// Reads from the index, making it again if that fails.
    fn read<T>(&self, read: impl Fn(&dyn Index) -> Result<T, IndexError>) -> Result<T, StoreError> {
        loop {
            let (generation, failure) = {
                let slot = self.slot.read();
                match read(slot.index.as_deref().map_err(Clone::clone)?) {
                    Ok(value) => return Ok(value),
                    Err(failure) => (slot.generation, failure),
                }
            };
            let mut slot = self.slot.write();
            if slot.generation == generation {
                let upto = slot.index.as_ref().map_err(Clone::clone)?.applied();
                self.rebuild(&mut slot, upto, &failure)?;
            }
        }
    }

    /// Applies a group that is in the redo log. If the index fails at it, the log is where the group comes from.
    fn apply(&self, upto: Lsn, ops: Ops) -> Result<(), StoreError> {
        let mut slot = self.slot.write();
        match slot.index.as_mut().map_err(|error| error.clone())?.apply(upto, ops) {
            Ok(()) => Ok(()),
            Err(failure) => self.rebuild(&mut slot, upto, &failure),
        }
    }

    /// Pours everything up to now, with commits in between; says up to where that was.
    fn pour_all(&self) -> Result<Lsn, StoreError> {
        let upto = self.slot.read().index.as_ref().map_err(Clone::clone)?.applied();
        while !self.pour(upto)? {}
        Ok(upto)
    }

    /// See [`Index::pour`].
    fn pour(&self, upto: Lsn) -> Result<bool, StoreError> {
        let mut slot = self.slot.write();
        let index = slot.index.as_mut().map_err(|error| error.clone())?;
        let applied = index.applied();
        match index.pour(upto) {
            Ok(done) => Ok(done),
            Err(failure) => self.rebuild(&mut slot, applied, &failure).map(|()| false),
        }
    }

    fn rebuild(&self, slot: &mut Slot, upto: Lsn, failure: &IndexError) -> Result<(), StoreError> {
        slot.generation += 1;
        let rebuilds = self.counters.rebuilds.fetch_add(1, Relaxed);
        if let Ok(index) = std::mem::replace(&mut slot.index, Err(StoreError::Closed)) {
            index.abandon();
        }
        slot.index = repair::rebuild(&self.layout, self.cache, upto, failure, rebuilds < MAX_REBUILDS);
        slot.index.as_ref().map(drop).map_err(Clone::clone)
    }
}

/// Work for the redo thread.
enum Request {
    Commit(Commit),
    Close,
}

struct Commit {
    batch: Batch,
    level: Level,
    done: oneshot::Sender<Result<Lsn, StoreError>>,
    /// Given back when the batch is done with.
    _room: Option<OwnedSemaphorePermit>,
}

/// The redo thread.
struct Writer {
    shared: Arc<Shared>,
    redo: Redo,
    requests: mpsc::UnboundedReceiver<Request>,
    wake: Sender<Wake>,
    /// Bytes of redo since a checkpoint was last asked for.
    unchecked: u64,
    checkpoint_after: u64,
}

impl Writer {
    fn run(mut self) {
        let mut open = true;
        while open && let Some(Request::Commit(first)) = self.requests.blocking_recv() {
            let mut bytes = first.batch.bytes();
            let mut group = vec![first];
            while bytes < GROUP_BYTES && group.len() < GROUP_LEN {
                match self.requests.try_recv() {
                    Ok(Request::Commit(commit)) => {
                        bytes += commit.batch.bytes();
                        group.push(commit);
                    }
                    Ok(Request::Close) => {
                        open = false;
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.commit(group);
        }
        self.close();
    }

    /// Writes a group, makes it visible, and tells everybody in it. Those that want no more than that need not wait for the
    /// disk with the others.
    fn commit(&mut self, group: Vec<Commit>) {
        let batches: Vec<_> = group.iter().map(|commit| &commit.batch).filter(|batch| !batch.is_empty()).collect();
        let written = self.append(&batches);
        let applied = match &written {
            Ok(Some(_)) => self.shared.apply(self.redo.last(), &mut batches.iter().flat_map(|batch| &batch.ops)),
            _ => Ok(()),
        };
        let visible = if let (Ok(Some(_)), Ok(())) = (&written, &applied) { batches.len() } else { 0 };
        let mut lsn = written.as_ref().ok().copied().flatten();
        let outcomes = group.into_iter().map(|commit| {
            let outcome = if commit.batch.is_empty() {
                // Even if the group does not fit: an empty batch may wait for what was written before.
                Ok(self.redo.last())
            } else {
                let this = lsn.unwrap_or_default();
                lsn = Some(this.next());
                written.clone().map(|_| this)
            };
            (commit, applied.clone().and(outcome))
        });
        let (on_disk, done): (Vec<_>, Vec<_>) = outcomes.partition(|(commit, _)| commit.level == Level::Disk);
        // Nobody listens when the committer was cancelled; the batch stands.
        for (commit, outcome) in done {
            let _ = commit.done.send(outcome);
        }
        let synced = if on_disk.is_empty() { Ok(()) } else { self.sync() };
        if synced.is_ok() {
            self.shared.counters.commits.fetch_add(visible as u64, Relaxed);
        }
        for (commit, outcome) in on_disk {
            let _ = commit.done.send(synced.clone().and(outcome));
        }
    }

    /// Writes the batches, if any, and returns the position of the first.
    fn append(&mut self, batches: &[&Batch]) -> Result<Option<Lsn>, StoreError> {
        if batches.is_empty() {
            return Ok(None);
        }
        let appended = self.redo.append(batches);
        self.shared.counters.full.store(appended.as_ref().is_err_and(StoreError::is_full), Relaxed);
        let (first, bytes) = appended?;
        self.shared.counters.redo_bytes.fetch_add(bytes, Relaxed);
        self.unchecked += bytes;
        if self.unchecked >= self.checkpoint_after {
            self.unchecked = 0;
            let _ = self.wake.send(Wake::Checkpoint(None));
        }
        Ok(Some(first))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.redo.synced() == self.redo.last() {
            return Ok(());
        }
        self.shared.counters.syncs.fetch_add(1, Relaxed);
        self.redo.sync()
    }

    fn close(mut self) {
        if let Err(error) = self.sync() {
            tracing::error!(%error, "the end of the redo log may be lost if power fails now");
        }
        let index = std::mem::replace(&mut self.shared.slot.write().index, Err(StoreError::Closed));
        if let Ok(index) = index {
            index.close();
        }
    }
}

/// What wakes the checkpoint thread.
enum Wake {
    Checkpoint(Option<oneshot::Sender<Result<Lsn, StoreError>>>),
    Close,
}

/// The checkpoint thread.
struct Keeper {
    shared: Arc<Shared>,
    woken: Receiver<Wake>,
    period: Duration,
}

impl Keeper {
    fn run(self) {
        let newest = checkpoint::list(&self.shared.layout.checkpoints()).unwrap_or_default().last().copied();
        let mut last = newest.unwrap_or_default();
        loop {
            let reply = match self.woken.recv_timeout(self.period) {
                Ok(Wake::Checkpoint(reply)) => reply,
                Err(RecvTimeoutError::Timeout) => None,
                Ok(Wake::Close) | Err(RecvTimeoutError::Disconnected) => return,
            };
            let asked = reply.is_some();
            let outcome = if asked || self.applied() != Some(last) { self.checkpoint() } else { Ok(last) };
            match &outcome {
                Ok(lsn) => last = *lsn,
                Err(StoreError::Closed) => {}
                Err(error) => {
                    self.shared.counters.checkpoint_failures.fetch_add(1, Relaxed);
                    tracing::warn!(%error, "checkpoint failed");
                }
            }
            let _ = reply.map(|reply| reply.send(outcome));
        }
    }

    fn applied(&self) -> Option<Lsn> {
        self.shared.slot.read().index.as_ref().ok().map(|index| index.applied())
    }

    fn checkpoint(&self) -> Result<Lsn, StoreError> {
        let dir = self.shared.layout.checkpoints();
        let from = self.shared.pour_all()?;
        self.shared.read(|index| index.flush())?;
        let mut writer = checkpoint::Writer::create(&dir)?;
        self.dump(&mut writer)?;
        let upto = self.shared.read(|index| Ok(index.applied()))?;
        // No redo that the dump has seen may be lost with the power, whatever level it was committed with.
        let synced = self.shared.enqueue(Batch::new(), Level::Disk, None);
        synced.blocking_recv().map_err(|_| StoreError::Closed)??;
        writer.finish(checkpoint::Span { from, upto })?;
        let needed = checkpoint::prune(&dir)?;
        redo::prune(&self.shared.layout.redo(), needed)?;
        self.shared.counters.checkpoints.fetch_add(1, Relaxed);
        Ok(from)
    }

    /// Writes all entries, a block at a time, so that commits go on in between.
    fn dump(&self, writer: &mut checkpoint::Writer) -> Result<(), StoreError> {
        let mut page = Page::of_all(Vec::new(), checkpoint::BLOCK);
        loop {
            if self.shared.closing.load(Relaxed) {
                return Err(StoreError::Closed);
            }
            let entries = self.shared.read(|index| index.page(&page))?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            page.from = [last, &[0][..]].concat();
            let ops = entries.into_iter().map(|(key, value)| {
                let tree = TreeId(u16::from_be_bytes([key[0], key[1]]));
                Op { tree, key: Raw(key.slice(2..)), value: Some(Raw(value)) }
            });
            writer.entries(ops.collect())?;
        }
    }
}

fn thread(shared: &Shared, name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|e| StoreError::io("start a thread for", &shared.layout.redo(), e))
}

/// Takes the data directory for this process, until the file is closed.
fn lock(path: &PathBuf) -> Result<File, StoreError> {
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = opened.map_err(|e| StoreError::io("open", path, e))?;
    match file.try_lock() {
        Ok(()) => {
            // The lock counts, the number only informs: a full disk does not stop a start here.
            let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            Err(StoreError::InUse { pid: pid.trim().parse().unwrap_or(0) })
        }
        Err(fs::TryLockError::Error(error)) => Err(StoreError::io("lock", path, error)),
    }
}
