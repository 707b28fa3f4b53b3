//! Entries and votes of one group.
//!
//! The newest entries are kept in memory, where openraft reads them back to apply and to replicate them. openraft 0.9.25
//! waits for each append, vote, truncation and purge before it asks for the next; so each is one commit, made durable
//! before it is acknowledged, and they cannot overtake each other.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Entry, Fact, GroupId, LogId, Part, Types, Vote, Writer, decode, encode};
use crate::store::{Batch, Level, StoreError, TreeId};

/// Bytes of entries sent to a peer at a time, so that a message with an entry more stays below 1 MiB.
const CALL_BYTES: usize = 512 * 1024;
/// Entries read from the store at a time.
const PAGE: usize = 16;

/// The log of one group; also its own reader.
#[derive(Clone)]
pub(super) struct Log {
    writer: Writer,
    recent_bytes: usize,
    kept: Arc<Mutex<Kept>>,
    gate: Arc<Gate>,
}

/// What is known without reading the store.
#[derive(Default)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// The last entry, or `purged` when there is none.
    last: Option<LogId>,
    /// Lowest index that the store may hold.
    first: u64,
    /// The newest entries without a gap, each with its size when written.
    recent: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// `purged` is ahead of what the store says, see [`Gate`].
    purge_waits: bool,
}

impl Kept {
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// First index that can be read.
    fn start(&self) -> u64 {
        self.purged.map_or(self.first, |purged| self.first.max(purged.index + 1))
    }

    fn push(&mut self, entry: Entry, size: usize, limit: usize) {
        if self.start() >= self.next() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.recent.push_back((entry, size));
        self.bytes += size;
        while self.bytes > limit && self.recent.len() > 1 {
            self.bytes -= self.recent.pop_front().map_or(0, |(_, size)| size);
        }
    }

    fn forget_from(&mut self, index: u64, last: Option<LogId>) {
        while self.recent.back().is_some_and(|(entry, _)| entry.log_id.index >= index) {
            self.bytes -= self.recent.pop_back().map_or(0, |(_, size)| size);
        }
        self.last = last;
    }

    fn forget_upto(&mut self, upto: LogId) {
        while self.recent.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.bytes -= self.recent.pop_front().map_or(0, |(_, size)| size);
        }
        if self.next() <= upto.index + 1 {
            self.last = Some(upto);
        }
        self.purged = Some(upto);
    }
}

/// Holds back a purge until the state that replaces the entries is durable.
///
/// openraft purges the log as soon as it has handed a received snapshot to the machine. Were the purge durable before the
/// installed state, a crash in between would leave neither entries nor state. So the receiver announces the snapshot here,
/// the log notes the purge, and writes it before its next write, when the machine is done. openraft waits for that write,
/// so a purge must not be held back for a snapshot that it will not install: one that the applied state covers is not.
pub(super) struct Gate {
    install: watch::Sender<Install>,
    /// Number of entries that the stored state stands for.
    applied: AtomicU64,
    /// The log begins after its first entry, so a node that lags can need a snapshot.
    pub(super) purged: AtomicBool,
}

/// What is known of a received snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Install {
    None,
    /// It will replace the entries up to this index.
    Announced(u64),
    /// The store failed at it; openraft is about to stop.
    Failed,
}

impl Default for Gate {
    fn default() -> Self {
        Self { install: watch::Sender::new(Install::None), applied: 0.into(), purged: false.into() }
    }
}

impl Gate {
    pub(super) fn announce(&self, index: u64) {
        self.install.send_replace(Install::Announced(index));
    }

    /// The announced snapshot is installed, or it will not be.
    pub(super) fn open(&self) {
        self.install.send_if_modified(|install| {
            let announced = matches!(install, Install::Announced(_));
            if announced {
                *install = Install::None;
            }
            announced
        });
    }

    pub(super) fn fail(&self) {
        self.install.send_replace(Install::Failed);
    }

    pub(super) fn applied(&self, last: Option<LogId>) {
        self.applied.store(last.map_or(0, |last| last.index + 1), Ordering::Release);
    }

    fn holds(&self, upto: u64) -> bool {
        let announced = matches!(*self.install.borrow(), Install::Announced(index) if index <= upto);
        announced && self.applied.load(Ordering::Acquire) <= upto
    }

    async fn opened(&self) -> Result<(), StoreError> {
        let mut install = self.install.subscribe();
        let settled = install.wait_for(|install| !matches!(install, Install::Announced(_))).await;
        match settled.as_deref() {
            Ok(Install::Failed) | Err(_) => Err(StoreError::Closed),
            Ok(_) => Ok(()),
        }
    }
}

impl Log {
    pub(super) fn open(writer: Writer, recent_bytes: usize, gate: Arc<Gate>) -> Result<Self, StoreError> {
        let vote = writer.fact(Fact::Vote)?;
        let purged: Option<LogId> = writer.fact(Fact::Purged)?;
        let mut kept = Kept { vote, purged, last: purged, ..Kept::default() };
        let first = writer.store.scan(TreeId::RAFT_LOG, &key(writer.group, 0), 1)?;
        if let Some(first) = first.first().and_then(|(key, _)| index_of(writer.group, key)) {
            kept.first = first;
            if let Some(last) = newest(&writer, kept.start())? {
                kept.last = Some(last.log_id);
            }
        }
        gate.purged.store(purged.is_some(), Ordering::Release);
        Ok(Self { writer, recent_bytes, kept: Arc::new(Mutex::new(kept)), gate })
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.kept.lock().last
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.kept.lock().vote
    }

    async fn write(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.settle().await?;
        let mut batch = Batch::new();
        let mut sizes = Vec::with_capacity(entries.len());
        for entry in &entries {
            if let EntryPayload::Normal(commands) = &entry.payload
                && let Some(appended) = &commands.appended
            {
                appended.store(true, Ordering::Release);
            }
            let bytes = encode(entry);
            sizes.push(bytes.len());
            batch = batch.put(TreeId::RAFT_LOG, key(self.writer.group, entry.log_id.index), bytes);
        }
        self.writer.commit(batch, Level::Disk).await?;
        let mut kept = self.kept.lock();
        for (entry, size) in entries.into_iter().zip(sizes) {
            kept.push(entry, size, self.recent_bytes);
        }
        Ok(())
    }

    async fn remove_from(&self, since: LogId) -> Result<(), StoreError> {
        self.settle().await?;
        let (range, before) = {
            let kept = self.kept.lock();
            (since.index.max(kept.start())..kept.next(), since.index.checked_sub(1))
        };
        let batch = range.fold(Batch::new(), |b, index| b.delete(TreeId::RAFT_LOG, key(self.writer.group, index)));
        self.writer.commit(batch, Level::Disk).await?;
        let mut last = None;
        if let Some(before) = before {
            last = self.entries(before, before + 1, usize::MAX)?.first().map(|entry| entry.log_id);
        }
        let mut kept = self.kept.lock();
        let last = last.or(kept.purged);
        kept.forget_from(since.index, last);
        Ok(())
    }

    async fn remove_upto(&self, upto: LogId) -> Result<(), StoreError> {
        self.gate.purged.store(true, Ordering::Release);
        let waits = self.gate.holds(upto.index);
        if waits {
            self.kept.lock().purge_waits = true;
        } else {
            self.settle().await?;
            self.write_purge(upto).await?;
        }
        self.kept.lock().forget_upto(upto);
        Ok(())
    }

    /// Writes a purge that had to wait.
    async fn settle(&self) -> Result<(), StoreError> {
        let waits = {
            let kept = self.kept.lock();
            kept.purged.filter(|_| kept.purge_waits)
        };
        let Some(upto) = waits else { return Ok(()) };
        self.gate.opened().await?;
        self.write_purge(upto).await?;
        self.kept.lock().purge_waits = false;
        Ok(())
    }

    /// One batch, so that a mark and the entries below it never disagree. A key is nine bytes: millions of entries fit.
    async fn write_purge(&self, upto: LogId) -> Result<(), StoreError> {
        let group = self.writer.group;
        let (first, next) = {
            let kept = self.kept.lock();
            (kept.first, kept.next())
        };
        let batch = Batch::new().put(TreeId::RAFT, Fact::Purged.key(group), encode(&upto));
        let end = next.min(upto.index + 1);
        let batch = (first..end).fold(batch, |b, index| b.delete(TreeId::RAFT_LOG, key(group, index)));
        self.writer.commit(batch, Level::Process).await?;
        let mut kept = self.kept.lock();
        kept.first = kept.first.max(upto.index + 1);
        Ok(())
    }

    /// Entries from `start` to before `end`, as far as there are any without a gap, about `limit` bytes of them but one at
    /// least.
    pub(super) fn entries(&self, start: u64, end: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut taken = Taken { entries: Vec::new(), bytes: 0, limit };
        let mut next = start.max(self.kept.lock().start());
        loop {
            let upto = {
                let kept = self.kept.lock();
                let end = end.min(kept.next());
                let recent = kept.recent.front().map_or(end, |(entry, _)| entry.log_id.index);
                if next >= end {
                    return Ok(taken.entries);
                }
                if let Some(offset) = next.checked_sub(recent) {
                    taken.take_recent(&kept, offset, end);
                    return Ok(taken.entries);
                }
                end.min(recent)
            };
            let page = self.writer.store.scan(TreeId::RAFT_LOG, &key(self.writer.group, next), PAGE)?;
            if page.is_empty() {
                return Ok(taken.entries);
            }
            for (key, bytes) in page {
                if next >= upto {
                    break;
                }
                if index_of(self.writer.group, &key) != Some(next) || !taken.take(decoded(&bytes)?, bytes.len()) {
                    return Ok(taken.entries);
                }
                next += 1;
            }
        }
    }
}

/// Entries read, up to a number of bytes.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    limit: usize,
}

impl Taken {
    fn take(&mut self, entry: Entry, size: usize) -> bool {
        let fits = self.entries.is_empty() || self.bytes + size <= self.limit;
        if fits {
            self.entries.push(entry);
            self.bytes += size;
        }
        fits
    }

    fn take_recent(&mut self, kept: &Kept, offset: u64, end: u64) {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        let recent = kept.recent.iter().skip(skipped).take_while(|(entry, _)| entry.log_id.index < end);
        for (entry, size) in recent {
            if !self.take(entry.clone(), *size) {
                break;
            }
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX).map_err(|e| Part::Log.cannot_read(&e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError<u64>> {
        self.entries(start, end, CALL_BYTES).map_err(|e| Part::Log.cannot_read(&e))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let kept = self.kept.lock();
        Ok(LogState { last_purged_log_id: kept.purged, last_log_id: kept.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<u64>> {
        let batch = Batch::new().put(TreeId::RAFT, Fact::Vote.key(self.writer.group), encode(vote));
        self.writer.commit(batch, Level::Disk).await.map_err(|e| Part::Vote.cannot_write(&e))?;
        self.kept.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<u64>> {
        Ok(self.kept.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        flushed.log_io_completed(self.write(entries).await.map_err(io::Error::other));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError<u64>> {
        self.remove_from(since).await.map_err(|e| Part::Log.cannot_write(&e))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError<u64>> {
        self.remove_upto(upto).await.map_err(|e| Part::Log.cannot_write(&e))
    }
}

/// Adds an entry to what is written, where the log of a group that does not run has it.
pub(super) fn put_entry(batch: Batch, group: GroupId, entry: &Entry) -> Batch {
    batch.put(TreeId::RAFT_LOG, key(group, entry.log_id.index), encode(entry))
}

fn key(group: GroupId, index: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(group.0);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The index in a key, if it is one of this group.
fn index_of(group: GroupId, key: &[u8]) -> Option<u64> {
    let (&first, index) = key.split_first()?;
    let index = index.try_into().ok()?;
    (first == group.0).then(|| u64::from_be_bytes(index))
}

fn decoded(bytes: &Bytes) -> Result<Entry, StoreError> {
    decode("an entry of a replicated log", bytes)
}

/// The last entry of a log without gaps that begins at `start`. The store cannot read backwards, so this gallops.
fn newest(writer: &Writer, start: u64) -> Result<Option<Entry>, StoreError> {
    let read = |index| writer.store.get(TreeId::RAFT_LOG, &key(writer.group, index));
    let Some(mut newest) = read(start)? else { return Ok(None) };
    let (mut at, mut step) = (start, 1);
    while let Some(found) = read(at + step)? {
        (newest, at, step) = (found, at + step, step * 2);
    }
    while step > 1 {
        step /= 2;
        if let Some(found) = read(at + step)? {
            (newest, at) = (found, at + step);
        }
    }
    decoded(&newest).map(Some)
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;
    use proptest::prelude::*;

    use super::super::Commands;
    use super::*;
    use crate::store::{MemoryStore, Raw, Store};

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        let list = vec![Raw(vec![7; bytes].into())];
        Entry { log_id: id(index), payload: EntryPayload::Normal(Commands { list, appended: None }) }
    }

    fn open(store: &Arc<MemoryStore>, recent_bytes: usize) -> Log {
        let (stop, stopped) = watch::channel(false);
        std::mem::forget(stop);
        let writer = Writer { store: Arc::clone(store) as Arc<dyn Store>, group: GroupId(3), stopped };
        Log::open(writer, recent_bytes, Arc::default()).unwrap()
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[tokio::test]
    async fn old_entries_come_from_the_store() {
        let store = Arc::new(MemoryStore::default());
        let mut log = open(&store, 1000);
        log.write((0..100).map(|index| entry(index, 100)).collect()).await.unwrap();
        assert!(log.kept.lock().recent.len() < 10);
        let read = log.try_get_log_entries(5..98).await.unwrap();
        assert_eq!(indexes(&read), (5..98).collect::<Vec<_>>());
        assert_eq!(indexes(&log.try_get_log_entries(97..).await.unwrap()), [97, 98, 99]);
    }

    #[tokio::test]
    async fn a_call_is_limited_in_bytes_but_never_empty() {
        let mut log = open(&Arc::default(), 8 << 20);
        let sizes = [CALL_BYTES + 1, CALL_BYTES / 2, CALL_BYTES / 3, CALL_BYTES / 3];
        log.write((0..).zip(sizes).map(|(index, bytes)| entry(index, bytes)).collect()).await.unwrap();
        assert_eq!(indexes(&log.limited_get_log_entries(0, 4).await.unwrap()), [0]);
        assert_eq!(indexes(&log.limited_get_log_entries(1, 4).await.unwrap()), [1, 2]);
    }

    #[tokio::test]
    async fn a_purge_waits_for_the_announced_state() {
        let store = Arc::new(MemoryStore::default());
        let mut log = open(&store, 1000);
        log.write((0..3).map(|index| entry(index, 1)).collect()).await.unwrap();
        log.gate.announce(9);
        log.purge(id(9)).await.unwrap();
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(9)), Some(id(9))));
        assert!(log.try_get_log_entries(0..20).await.unwrap().is_empty());
        // After a crash all is as before.
        assert_eq!(indexes(&open(&store, 1000).try_get_log_entries(..).await.unwrap()), [0, 1, 2]);

        let waiting = log.write(vec![entry(10, 1)]);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending(), "an entry must not be durable before the purge");
        log.gate.open();
        waiting.await.unwrap();
        let mut again = open(&store, 1000);
        assert_eq!(indexes(&again.try_get_log_entries(..).await.unwrap()), [10]);
        assert_eq!(again.get_log_state().await.unwrap().last_purged_log_id, Some(id(9)));
    }

    #[tokio::test]
    async fn a_purge_of_what_the_state_covers_does_not_wait() {
        let store = Arc::new(MemoryStore::default());
        let mut log = open(&store, 1000);
        log.write((0..9).map(|index| entry(index, 1)).collect()).await.unwrap();
        log.gate.applied(Some(id(8)));
        log.gate.announce(2);
        log.purge(id(4)).await.unwrap();
        log.write(vec![entry(9, 1)]).await.unwrap();
        assert_eq!(indexes(&open(&store, 1000).try_get_log_entries(..).await.unwrap()), [5, 6, 7, 8, 9]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(u64),
        Truncate(u64),
        Purge(u64),
        Reopen,
    }

    proptest! {
        /// Whatever was written, the log reads as a plain list of entries would, also after a restart.
        #[test]
        fn reads_as_a_list(steps in prop::collection::vec(prop_oneof![
            4 => (1..6_u64).prop_map(Step::Append),
            1 => (0..8_u64).prop_map(Step::Truncate),
            1 => (0..8_u64).prop_map(Step::Purge),
            1 => Just(Step::Reopen),
        ], 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let store = Arc::new(MemoryStore::default());
            let mut log = open(&store, 200);
            let (mut start, mut end, mut purged) = (0_u64, 0_u64, None);
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let entries = (end..end + count).map(|index| entry(index, 20)).collect();
                        runtime.block_on(log.write(entries)).unwrap();
                        end += count;
                    }
                    Step::Truncate(back) => {
                        end = end.saturating_sub(back).max(start);
                        runtime.block_on(RaftLogStorage::truncate(&mut log, id(end))).unwrap();
                    }
                    Step::Purge(count) => {
                        start += count;
                        end = end.max(start);
                        if let Some(upto) = start.checked_sub(1) {
                            purged = Some(id(upto));
                            runtime.block_on(RaftLogStorage::purge(&mut log, id(upto))).unwrap();
                        }
                    }
                    Step::Reopen => log = open(&store, 200),
                }
                let read = runtime.block_on(log.try_get_log_entries(..)).unwrap();
                prop_assert_eq!(indexes(&read), (start..end).collect::<Vec<_>>());
                let state = runtime.block_on(log.get_log_state()).unwrap();
                prop_assert_eq!(state.last_purged_log_id, purged);
                prop_assert_eq!(state.last_log_id, end.checked_sub(1).map(id));
            }
        }
    }
}
