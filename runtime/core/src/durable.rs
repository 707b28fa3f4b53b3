//! State that is made of events: what an actor keeps over crashes and restarts.
//!
//! An actor recovers its [`Entity`] when it starts, changes it only by committing events, and answers after the commit.
//! Every event whose commit returned survives `kill -9` and the loss of power. What is lost is what was never committed.
//!
//! Events and states are written with postcard, which does not describe itself: types that need that to be read
//! (`serde_json::Value`, `#[serde(untagged)]`, `flatten`, `skip_serializing_if`) cannot be used in them. Fields are told
//! apart by their order, so a changed type needs a higher [`Durable::SCHEMA`].
//!
//! | tree | key | value |
//! |---|---|---|
//! | journals | entity, `seq u64 BE` | `schema u16 LE`, event |
//! | snapshots | entity | `schema u16 LE`, `seq u64 LE` of the last event in it, state |
//! | snapshots | entity | `schema u16 LE` with its highest bit set, `seq u64 LE`, `slot u8`, `parts u32 LE` |
//! | snapshots | entity, `slot u8`, `part u32 BE` | part of a state that is too large for one commit |
//! | replies | entity, idempotency key | `at u64 LE` in Unix milliseconds, reply |
//!
//! Entity: `kind length u8`, kind, `key length u16 BE`, key; so no entity's keys begin with those of another.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock;
use crate::mail::Idem;
use crate::store::{Batch, Level, Store, StoreError, TreeId};

/// Events after the last snapshot that call for a new one.
pub const SNAPSHOT_EVENTS: usize = 1000;
/// Events that do so already when they outweigh the snapshot: a small state is cheaper to write than to read from events.
pub const SNAPSHOT_FEW_EVENTS: usize = 64;
/// How much heavier they are then.
const OUTWEIGHS: usize = 8;
/// Bytes of events after the last snapshot that call for a new one.
pub const SNAPSHOT_BYTES: usize = 1 << 20;
/// Replies that one entity keeps for repeated requests.
pub const REPLIES: usize = 1024;
/// How long a reply is kept.
pub const REPLY_AGE: Duration = Duration::from_hours(24);

/// Bytes of a part of a large state.
const PART: usize = 64 * 1024;
/// Keys that are removed by one commit.
const REMOVED: usize = 128;
/// Set in the schema of a snapshot that is in parts.
const IN_PARTS: u16 = 1 << 15;

/// Attempts to read an entity that is written meanwhile. It is, at most, once for every snapshot that is taken of it.
const READS: usize = 16;

/// Entries read from the store at a time.
const PAGE: usize = 256;

/// State made of events. `Default` is the state before the first.
pub trait Durable: Default + Serialize + DeserializeOwned + Send + 'static {
    /// What happened, in the past tense.
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// Raised with every change of the state's or the event's type.
    const SCHEMA: u16 = 1;

    /// Changes the state. It must do the same at each replay: no clock, no randomness, no effect outside.
    fn apply(&mut self, event: &Self::Event);

    /// Reads an event that was written with an older schema.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when that is not known any more; the entity cannot be recovered then.
    fn upgrade(from: u16, _bytes: &[u8]) -> Result<Self::Event, StoreError> {
        Err(StoreError::Schema { found: from, known: Self::SCHEMA })
    }

    /// Reads a snapshot that was written with an older schema.
    ///
    /// # Errors
    /// As [`Durable::upgrade`].
    fn upgrade_snapshot(from: u16, _bytes: &[u8]) -> Result<Self, StoreError> {
        Err(StoreError::Schema { found: from, known: Self::SCHEMA })
    }
}

/// What there is of an entity in the store.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Number of the newest event.
    seq: u64,
    /// Events after the snapshot, and their bytes.
    events: usize,
    bytes: usize,
    /// Bytes of the snapshot.
    weight: usize,
}

impl Counts {
    fn call_for_snapshot(self) -> bool {
        let outweighed = self.events >= SNAPSHOT_FEW_EVENTS && self.bytes >= OUTWEIGHS * self.weight;
        outweighed || self.events >= SNAPSHOT_EVENTS || self.bytes >= SNAPSHOT_BYTES
    }
}

/// A recovered state; it dereferences to `D` and changes by committed events only.
pub struct Entity<D> {
    state: D,
    store: Arc<dyn Store>,
    prefix: Vec<u8>,
    counts: Counts,
    /// Where the parts of the snapshot are, if it is in parts.
    slot: Option<u8>,
    /// Time and key of the stored replies, oldest first.
    replies: Replies,
    /// A commit did not end: the store may hold more than `state` shows, or less.
    unsettled: bool,
}

impl<D> Deref for Entity<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.state
    }
}

impl<D: fmt::Debug> fmt::Debug for Entity<D> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Entity").field("state", &self.state).field("seq", &self.counts.seq).finish_non_exhaustive()
    }
}

impl<D: Durable> Entity<D> {
    /// Reads the newest snapshot of `kind`/`key` and the events after it.
    ///
    /// # Errors
    /// When the store fails, or holds what this program cannot read.
    pub async fn recover(store: Arc<dyn Store>, kind: &str, key: &str) -> Result<Self, StoreError> {
        let prefix = prefix(kind, key)?;
        let state = D::default();
        let replies = VecDeque::new();
        let mut entity =
            Self { state, store, prefix, counts: Counts::default(), slot: None, replies, unsettled: false };
        entity.reload().await?;
        Ok(entity)
    }

    /// Makes one event durable, then applies it.
    ///
    /// # Cancel safety
    /// A dropped commit may or may not have taken place. The next commit finds out first and goes on from there.
    ///
    /// # Errors
    /// As [`Store::commit`]; the state is as before.
    pub async fn commit(&mut self, event: D::Event) -> Result<(), StoreError> {
        self.commit_all(vec![event]).await
    }

    /// Makes several events durable together, then applies them.
    ///
    /// # Cancel safety
    /// As [`Entity::commit`].
    ///
    /// # Errors
    /// As [`Entity::commit`].
    pub async fn commit_all(&mut self, events: Vec<D::Event>) -> Result<(), StoreError> {
        self.settle().await?;
        let written = self.prepare(&events).await?;
        self.unsettled = true;
        self.store.commit(written.batch, Level::Disk).await?;
        self.unsettled = false;
        for event in &events {
            self.state.apply(event);
        }
        self.counts = written.counts;
        Ok(())
    }

    /// Makes an event and the reply to its request durable together; a request with the same `idem` that comes again
    /// within [`REPLY_AGE`], before [`REPLIES`] others, has no effect and gets the first one's reply.
    ///
    /// `reply` sees the state after the event. Without `idem` this is a commit that computes a reply.
    ///
    /// # Cancel safety
    /// As [`Entity::commit`]; until then the state may show an event that is not durable.
    ///
    /// # Errors
    /// As [`Entity::commit`]; [`StoreError::Decode`] when the stored reply is not an `R`.
    pub async fn commit_once<R>(
        &mut self,
        idem: Option<Idem>,
        event: D::Event,
        reply: impl FnOnce(&D) -> R,
    ) -> Result<R, StoreError>
    where
        R: Serialize + DeserializeOwned,
    {
        self.commit_once_at(idem, clock::unix_ms(), event, reply).await
    }

    /// [`Entity::commit_once`] with the time as a value.
    ///
    /// # Errors
    /// As [`Entity::commit_once`].
    pub async fn commit_once_at<R>(
        &mut self,
        idem: Option<Idem>,
        now_ms: u64,
        event: D::Event,
        reply: impl FnOnce(&D) -> R,
    ) -> Result<R, StoreError>
    where
        R: Serialize + DeserializeOwned,
    {
        let Some(Idem(idem)) = idem else {
            self.commit(event).await?;
            return Ok(reply(&self.state));
        };
        self.settle().await?;
        if let Some(stored) = self.stored_reply(idem, now_ms)? {
            return Ok(stored);
        }
        // The snapshot that a batch may carry is of the state before the event, the reply of the one after it.
        let written = self.prepare(std::slice::from_ref(&event)).await?;
        self.unsettled = true;
        self.state.apply(&event);
        let reply = reply(&self.state);
        let (batch, replies) = self.remember(written.batch, idem, now_ms, &reply)?;
        if let Err(error) = self.store.commit(batch, Level::Disk).await {
            // Takes the event back, if it can be known that it is not durable. Otherwise the next commit settles it.
            let _ = self.settle().await;
            return Err(error);
        }
        self.unsettled = false;
        self.counts = written.counts;
        self.replies = replies;
        Ok(reply)
    }

    /// Reads the state again if it is not known to be that of the store.
    async fn settle(&mut self) -> Result<(), StoreError> {
        if self.unsettled { self.reload().await } else { Ok(()) }
    }

    async fn reload(&mut self) -> Result<(), StoreError> {
        // A commit of an earlier activation may still be on its way; read before it lands, its event would be overwritten.
        self.store.commit(Batch::new(), Level::Async).await?;
        let snapshot = self.store.get(TreeId::SNAPSHOTS, &self.prefix)?;
        (self.state, self.slot, self.counts) = match snapshot {
            Some(stored) => self.read_snapshot(&stored)?,
            None => (D::default(), None, Counts::default()),
        };
        for (key, stored) in self.under_prefix(TreeId::JOURNALS, &(self.counts.seq + 1).to_be_bytes())? {
            self.counts.seq += 1;
            if key != self.counts.seq.to_be_bytes()[..] {
                return Err(bad("event", &format!("event {} is missing", self.counts.seq)));
            }
            self.state.apply(&read_event::<D>(&stored)?);
            self.counts.events += 1;
            self.counts.bytes += stored.len();
        }
        self.replies.clear();
        for (key, stored) in self.under_prefix(TreeId::REPLIES, &[])? {
            let idem = key[..].try_into().map_err(|_| bad("reply", &"its key is not 16 bytes"))?;
            self.replies.push_back((read_reply(&stored)?.0, idem));
        }
        self.replies.make_contiguous().sort_unstable();
        self.unsettled = false;
        Ok(())
    }

    /// Entries of this entity from a key on, without its prefix.
    fn under_prefix(&self, tree: TreeId, from: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = Vec::new();
        let mut from = [&self.prefix, from].concat();
        loop {
            let page = self.store.scan(tree, &from, PAGE)?;
            let full = page.len() == PAGE;
            for (key, value) in page {
                if !key.starts_with(&self.prefix) {
                    return Ok(found);
                }
                from = [&key, &[0][..]].concat();
                found.push((key.slice(self.prefix.len()..), value));
            }
            if !full {
                return Ok(found);
            }
        }
    }

    /// The batch for these events. A snapshot that is due and would make it too large is taken first.
    async fn prepare(&mut self, events: &[D::Event]) -> Result<Written, StoreError> {
        let written = self.write(Batch::new(), events)?;
        // The other half is for a reply, and for those that go with it.
        let large = written.batch.size() > self.store.max_batch() / 2;
        if !self.counts.call_for_snapshot() || !(large || self.slot.is_some()) {
            return Ok(written);
        }
        self.take_snapshot().await?;
        self.write(Batch::new(), events)
    }

    /// Takes a snapshot in parts: those first, beside the parts of the last one, then what names them. What they replace goes
    /// in the end, together with what an interruption of this has left.
    async fn take_snapshot(&mut self) -> Result<(), StoreError> {
        let state = encode(&[], "snapshot", &self.state)?;
        let slot = u8::from(self.slot == Some(0));
        self.unsettled = true;
        let mut parts = 0_u32;
        for part in state.chunks(PART) {
            let batch = Batch::new().put(TreeId::SNAPSHOTS, self.part_key(slot, parts), part);
            self.store.commit(batch, Level::Async).await?;
            parts += 1;
        }
        let schema = (D::SCHEMA | IN_PARTS).to_le_bytes();
        let head = [&schema[..], &self.counts.seq.to_le_bytes(), &[slot], &parts.to_le_bytes()].concat();
        self.store.commit(Batch::new().put(TreeId::SNAPSHOTS, self.prefix.clone(), head), Level::Disk).await?;
        let parts: Vec<_> = (0..parts).map(|part| [&[slot], &part.to_be_bytes()[..]].concat()).collect();
        let old_parts = self.under_prefix(TreeId::SNAPSHOTS, &[0])?.into_iter().map(|(key, _)| key);
        let old_parts = old_parts.filter(|key| !parts.iter().any(|part| part[..] == key[..]));
        let old_events = self.under_prefix(TreeId::JOURNALS, &[])?.into_iter().map(|(key, _)| key);
        let old_events = old_events.filter(|key| key[..] <= self.counts.seq.to_be_bytes()[..]);
        let old = old_parts.map(|key| (TreeId::SNAPSHOTS, key)).chain(old_events.map(|key| (TreeId::JOURNALS, key)));
        let old: Vec<_> = old.map(|(tree, key)| (tree, [&self.prefix, &key[..]].concat())).collect();
        for keys in old.chunks(REMOVED) {
            let batch = keys.iter().fold(Batch::new(), |batch, (tree, key)| batch.delete(*tree, key.clone()));
            self.store.commit(batch, Level::Async).await?;
        }
        self.unsettled = false;
        self.counts = Counts { seq: self.counts.seq, events: 0, bytes: 0, weight: state.len() };
        self.slot = Some(slot);
        Ok(())
    }

    fn part_key(&self, slot: u8, part: u32) -> Vec<u8> {
        [&self.prefix, &[slot][..], &part.to_be_bytes()].concat()
    }

    /// The state of a snapshot and where its parts are.
    fn read_snapshot(&self, stored: &[u8]) -> Result<(D, Option<u8>, Counts), StoreError> {
        let short = || bad("snapshot", &"too short");
        let (schema, rest) = stored.split_first_chunk().ok_or_else(short)?;
        let (seq, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (schema, seq) = (u16::from_le_bytes(*schema), u64::from_le_bytes(*seq));
        let counts = |weight| Counts { seq, weight, ..Counts::default() };
        if schema & IN_PARTS == 0 {
            return Ok((read_state(schema, rest)?, None, counts(stored.len())));
        }
        let (slot, count) = rest.split_first().ok_or_else(short)?;
        let count = u32::from_le_bytes(count.try_into().map_err(|_| short())?);
        let mut state = Vec::new();
        for part in 0..count {
            let part = self.store.get(TreeId::SNAPSHOTS, &self.part_key(*slot, part))?;
            state.extend_from_slice(&part.ok_or_else(|| bad("snapshot", &"a part is missing"))?);
        }
        Ok((read_state(schema & !IN_PARTS, &state)?, Some(*slot), counts(state.len())))
    }

    /// Adds events to a batch, and a snapshot of the present state when there are enough since the last one.
    fn write(&self, mut batch: Batch, events: &[D::Event]) -> Result<Written, StoreError> {
        let mut counts = self.counts;
        if self.counts.call_for_snapshot() {
            let mut snapshot = encode(&D::SCHEMA.to_le_bytes(), "snapshot", &(Fixed(counts.seq), &self.state))?;
            snapshot.shrink_to_fit();
            counts.weight = snapshot.len();
            batch = batch.put(TreeId::SNAPSHOTS, self.prefix.clone(), snapshot);
            for seq in counts.seq + 1 - counts.events as u64..=counts.seq {
                batch = batch.delete(TreeId::JOURNALS, self.event_key(seq));
            }
            (counts.events, counts.bytes) = (0, 0);
        }
        for event in events {
            counts.seq += 1;
            let stored = encode(&D::SCHEMA.to_le_bytes(), "event", event)?;
            debug_assert!(read_event::<D>(&stored).is_ok(), "events must be readable by postcard");
            counts.events += 1;
            counts.bytes += stored.len();
            batch = batch.put(TreeId::JOURNALS, self.event_key(counts.seq), stored);
        }
        Ok(Written { batch, counts })
    }

    fn event_key(&self, seq: u64) -> Vec<u8> {
        [&self.prefix, &seq.to_be_bytes()[..]].concat()
    }

    fn reply_key(&self, idem: [u8; 16]) -> Vec<u8> {
        [&self.prefix, &idem[..]].concat()
    }

    fn stored_reply<R: DeserializeOwned>(&self, idem: [u8; 16], now_ms: u64) -> Result<Option<R>, StoreError> {
        let Some(stored) = self.store.get(TreeId::REPLIES, &self.reply_key(idem))? else { return Ok(None) };
        let (at, reply) = read_reply(&stored)?;
        if is_old(at, now_ms) {
            return Ok(None);
        }
        postcard::from_bytes(reply).map(Some).map_err(|e| bad("reply", &e))
    }

    /// Adds a reply to the batch and takes out what is too old or too much. Returns the replies that are stored then.
    fn remember<R: Serialize>(
        &self,
        mut batch: Batch,
        idem: [u8; 16],
        now_ms: u64,
        reply: &R,
    ) -> Result<(Batch, Replies), StoreError> {
        let mut replies = self.replies.clone();
        replies.retain(|(_, stored)| *stored != idem);
        while replies.len() >= REPLIES || replies.front().is_some_and(|(at, _)| is_old(*at, now_ms)) {
            let Some((_, old)) = replies.pop_front() else { break };
            batch = batch.delete(TreeId::REPLIES, self.reply_key(old));
        }
        replies.push_back((now_ms, idem));
        let stored = encode(&now_ms.to_le_bytes(), "reply", reply)?;
        Ok((batch.put(TreeId::REPLIES, self.reply_key(idem), stored), replies))
    }
}

/// Time and idempotency key of stored replies.
type Replies = VecDeque<(u64, [u8; 16])>;

/// A batch, and the counts that hold once it is committed.
struct Written {
    batch: Batch,
    counts: Counts,
}

/// A number that postcard writes as 8 bytes.
struct Fixed(u64);

impl Serialize for Fixed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_le_bytes().serialize(serializer)
    }
}

fn prefix(kind: &str, key: &str) -> Result<Vec<u8>, StoreError> {
    let too_large = |what, size, max| StoreError::TooLarge { what, size, max };
    let kind_len = u8::try_from(kind.len()).map_err(|_| too_large("kind", kind.len(), 255))?;
    let key_len = u16::try_from(key.len()).map_err(|_| too_large("key", key.len(), 65_535))?;
    Ok([&[kind_len], kind.as_bytes(), &key_len.to_be_bytes(), key.as_bytes()].concat())
}

/// Kind and key of the entity that a stored key begins with, and the rest.
fn split(stored: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (kind_len, rest) = stored.split_first()?;
    let (kind, rest) = rest.split_at_checked(usize::from(*kind_len))?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
    Some((std::str::from_utf8(kind).ok()?, std::str::from_utf8(key).ok()?, rest))
}

/// Kind, key and number of the event that is kept under a key of the journals.
pub(crate) fn event_of(stored: &[u8]) -> Option<(&str, &str, u64)> {
    let (kind, key, seq) = split(stored)?;
    Some((kind, key, u64::from_be_bytes(seq.try_into().ok()?)))
}

/// The keys of a kind's entities, in a store that has few others.
///
/// # Errors
/// As [`Store::scan`].
pub(crate) fn keys(store: &dyn Store, kind: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut found = BTreeSet::new();
    let first = prefix(kind, "")?;
    for tree in [TreeId::SNAPSHOTS, TreeId::JOURNALS] {
        // All entities of the kind begin so.
        let mut from = first[..=kind.len()].to_vec();
        while let Some((stored, _)) = store.scan(tree, &from, 1)?.pop() {
            let Some((of, key, _)) = split(&stored).filter(|(of, _, _)| *of == kind) else { break };
            // No key of the entity is after this one.
            from = [&prefix(of, key)?[..], &[0xff; 9]].concat();
            found.insert(key.to_owned());
        }
    }
    Ok(found)
}

/// Reads an entity that others may write meanwhile: its state and the number of its newest event.
///
/// # Errors
/// As [`Entity::recover`]; also when it was replaced again and again while it was read.
pub(crate) async fn read_only<D: Durable>(
    store: &Arc<dyn Store>,
    kind: &str,
    key: &str,
) -> Result<(D, u64), StoreError> {
    let head = prefix(kind, key)?;
    for _ in 0..READS {
        let before = store.get(TreeId::SNAPSHOTS, &head)?;
        let read = Entity::recover(store.clone(), kind, key).await;
        // Events go, and parts of a snapshot are replaced, only after another snapshot is named.
        if store.get(TreeId::SNAPSHOTS, &head)? == before {
            return read.map(|entity| (entity.state, entity.counts.seq));
        }
    }
    Err(bad("snapshot", &"it is replaced faster than it is read"))
}

fn encode(head: &[u8], what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(value, head.to_vec()).map_err(|e| bad(what, &e))
}

pub(crate) fn read_event<D: Durable>(stored: &[u8]) -> Result<D::Event, StoreError> {
    let (schema, event) = stored.split_first_chunk().ok_or_else(|| bad("event", &"too short"))?;
    match u16::from_le_bytes(*schema) {
        schema if schema == D::SCHEMA => postcard::from_bytes(event).map_err(|e| bad("event", &e)),
        schema if schema < D::SCHEMA => D::upgrade(schema, event),
        found => Err(StoreError::Schema { found, known: D::SCHEMA }),
    }
}

fn read_state<D: Durable>(schema: u16, state: &[u8]) -> Result<D, StoreError> {
    match schema {
        schema if schema == D::SCHEMA => postcard::from_bytes(state).map_err(|e| bad("snapshot", &e)),
        schema if schema < D::SCHEMA => D::upgrade_snapshot(schema, state),
        found => Err(StoreError::Schema { found, known: D::SCHEMA }),
    }
}

fn read_reply(stored: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let (at, reply) = stored.split_first_chunk().ok_or_else(|| bad("reply", &"too short"))?;
    Ok((u64::from_le_bytes(*at), reply))
}

/// A reply from the future (the clock was set back) is not old.
fn is_old(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) >= u64::try_from(REPLY_AGE.as_millis()).unwrap_or(u64::MAX)
}

fn bad(what: &'static str, detail: &impl ToString) -> StoreError {
    StoreError::Decode { what, detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use serde::Deserialize;

    use super::*;
    use crate::store::{Lsn, MemoryStore, StoreStats};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Account {
        balance: i64,
        changes: u64,
        note: String,
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Changed {
        Added(i64),
        Noted(String),
    }

    impl Durable for Account {
        type Event = Changed;
        fn apply(&mut self, event: &Changed) {
            match event {
                Changed::Added(amount) => self.balance += amount,
                Changed::Noted(note) => self.note.clone_from(note),
            }
            self.changes += 1;
        }
    }

    /// Grows with each event.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Log(Vec<String>);

    impl Durable for Log {
        type Event = String;
        fn apply(&mut self, line: &String) {
            self.0.push(line.clone());
        }
    }

    /// The second version: events carry cents.
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Cents {
        cents: i64,
    }

    impl Durable for Cents {
        type Event = i64;
        const SCHEMA: u16 = 2;
        fn apply(&mut self, cents: &i64) {
            self.cents += cents;
        }
        fn upgrade(_: u16, bytes: &[u8]) -> Result<i64, StoreError> {
            match postcard::from_bytes(bytes) {
                Ok(Changed::Added(amount)) => Ok(amount * 100),
                _ => Ok(0),
            }
        }
        fn upgrade_snapshot(_: u16, bytes: &[u8]) -> Result<Self, StoreError> {
            let old: Account = postcard::from_bytes(bytes).map_err(|e| bad("snapshot", &e))?;
            Ok(Self { cents: old.balance * 100 })
        }
    }

    /// Fails commits in the ways a crash or a full disk can.
    #[derive(Debug, Default)]
    struct Flaky {
        inner: MemoryStore,
        mode: AtomicU8,
        /// Largest batch; 0 for that of the inner store.
        max: AtomicUsize,
        /// Commits until `mode` becomes `REFUSE`; 0 for never.
        fuse: AtomicUsize,
    }

    const WORK: u8 = 0;
    /// Refuses the batch.
    const REFUSE: u8 = 1;
    /// Writes the batch and reports a failure.
    const WRITE_AND_FAIL: u8 = 2;
    /// Writes the batch and never answers.
    const WRITE_AND_HANG: u8 = 3;

    impl Store for Flaky {
        fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.inner.get(tree, key)
        }
        fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
            self.inner.scan(tree, from, limit)
        }
        fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
            let failed = || Err(StoreError::Stopped { reason: "test".to_owned() });
            if batch.size() > self.max_batch() {
                let (size, max) = (batch.size(), self.max_batch());
                return std::future::ready(Err(StoreError::TooLarge { what: "batch", size, max })).boxed();
            }
            if self.fuse.load(SeqCst) > 0 && self.fuse.fetch_sub(1, SeqCst) == 1 {
                self.mode.store(REFUSE, SeqCst);
            }
            match self.mode.load(SeqCst) {
                mode if mode == WORK || batch.is_empty() => self.inner.commit(batch, level),
                REFUSE => std::future::ready(failed()).boxed(),
                mode => {
                    let written = self.inner.commit(batch, level);
                    async move {
                        written.await?;
                        if mode == WRITE_AND_HANG {
                            std::future::pending::<()>().await;
                        }
                        failed()
                    }
                    .boxed()
                }
            }
        }
        fn max_batch(&self) -> usize {
            match self.max.load(SeqCst) {
                0 => self.inner.max_batch(),
                max => max,
            }
        }
        fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
            self.inner.checkpoint()
        }
        fn stats(&self) -> StoreStats {
            self.inner.stats()
        }
    }

    async fn recover<D: Durable>(store: &Arc<Flaky>) -> Entity<D> {
        Entity::recover(Arc::clone(store) as Arc<dyn Store>, "account", "ada").await.unwrap()
    }

    fn count(store: &Flaky, tree: TreeId) -> usize {
        store.scan(tree, &[], usize::MAX).unwrap().len()
    }

    #[tokio::test]
    async fn state_comes_back_and_entities_are_apart() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        ada.commit(Changed::Added(5)).await.unwrap();
        ada.commit_all(vec![Changed::Added(2), Changed::Noted("tea".to_owned())]).await.unwrap();
        for (kind, key) in [("accoun", "tada"), ("account", "ad"), ("account", "ada\0"), ("account", "")] {
            let other = Entity::<Account>::recover(Arc::clone(&store) as Arc<dyn Store>, kind, key).await.unwrap();
            assert_eq!(*other, Account::default(), "{kind} {key}");
        }
        let expected = Account { balance: 7, changes: 3, note: "tea".to_owned() };
        assert_eq!(*ada, expected);
        assert_eq!(*recover::<Account>(&store).await, expected);
    }

    #[tokio::test]
    async fn snapshot_replaces_events_that_outweigh_it() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        for n in 0..SNAPSHOT_FEW_EVENTS {
            assert_eq!(count(&store, TreeId::JOURNALS), n);
            ada.commit(Changed::Added(1)).await.unwrap();
        }
        assert_eq!(count(&store, TreeId::SNAPSHOTS), 0);
        ada.commit(Changed::Added(1)).await.unwrap();
        assert_eq!((count(&store, TreeId::SNAPSHOTS), count(&store, TreeId::JOURNALS)), (1, 1));
        let mut again = recover::<Account>(&store).await;
        assert_eq!(*again, *ada);
        assert_eq!(again.balance, 65);
        // The second snapshot also counts events that were there at recovery.
        for _ in 0..SNAPSHOT_FEW_EVENTS {
            again.commit(Changed::Added(1)).await.unwrap();
        }
        assert_eq!(count(&store, TreeId::JOURNALS), 1);
        assert_eq!(recover::<Account>(&store).await.balance, 129);
    }

    #[tokio::test]
    async fn snapshot_of_a_heavy_state_replaces_a_thousand_events() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        ada.commit(Changed::Noted("x".repeat(SNAPSHOT_BYTES / 2))).await.unwrap();
        for _ in 0..SNAPSHOT_FEW_EVENTS {
            ada.commit(Changed::Added(1)).await.unwrap();
        }
        assert_eq!((count(&store, TreeId::SNAPSHOTS), count(&store, TreeId::JOURNALS)), (1, 1));
        let mut ada = recover::<Account>(&store).await;
        for n in 1..SNAPSHOT_EVENTS {
            assert_eq!(count(&store, TreeId::JOURNALS), n);
            ada.commit(Changed::Added(1)).await.unwrap();
        }
        ada.commit(Changed::Added(1)).await.unwrap();
        assert_eq!(count(&store, TreeId::JOURNALS), 1);
        assert_eq!(*recover::<Account>(&store).await, *ada);
    }

    #[tokio::test]
    async fn snapshot_comes_after_a_mebibyte() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        for _ in 0..5 {
            ada.commit(Changed::Noted("x".repeat(SNAPSHOT_BYTES / 4))).await.unwrap();
        }
        assert_eq!((count(&store, TreeId::SNAPSHOTS), count(&store, TreeId::JOURNALS)), (1, 1));
        assert_eq!(*recover::<Account>(&store).await, *ada);
    }

    #[tokio::test]
    async fn state_larger_than_a_commit_is_kept_in_parts() {
        let store = Arc::<Flaky>::default();
        store.max.store(256 * 1024, SeqCst);
        let mut ada = recover::<Log>(&store).await;
        let line = |n: usize| format!("{n:-<1000}");
        for n in 0..3 * SNAPSHOT_EVENTS {
            ada.commit_once(Some(Idem([1; 16])), line(n), |_| ()).await.unwrap();
            ada.commit(line(n)).await.unwrap();
        }
        assert_eq!(ada.0.len(), 3 * SNAPSHOT_EVENTS + 1);
        assert!(count(&store, TreeId::JOURNALS) <= SNAPSHOT_EVENTS + 1);
        let parts = count(&store, TreeId::SNAPSHOTS);
        let size = postcard::to_allocvec(&*ada).unwrap().len();
        assert!(parts <= 1 + size.div_ceil(PART), "{parts} parts of {size} bytes");
        assert_eq!(*recover::<Log>(&store).await, *ada);
    }

    #[tokio::test]
    async fn snapshot_in_parts_may_end_anywhere() {
        for fuse in 1..40 {
            let store = Arc::<Flaky>::default();
            store.max.store(256 * 1024, SeqCst);
            let mut ada = recover::<Log>(&store).await;
            for n in 0..=2 * SNAPSHOT_EVENTS {
                ada.commit(format!("{n:->400}")).await.unwrap();
            }
            let before = ada.0.clone();
            while ada.counts.events < SNAPSHOT_EVENTS {
                ada.commit(String::new()).await.unwrap();
            }
            store.fuse.store(fuse, SeqCst);
            let failed = ada.commit("x".to_owned()).await.is_err();
            store.fuse.store(0, SeqCst);
            store.mode.store(WORK, SeqCst);
            let mut again = recover::<Log>(&store).await;
            assert_eq!(again.0[..before.len()], before[..]);
            assert_eq!(again.0.last().unwrap() == "x", !failed);
            for _ in 0..=SNAPSHOT_EVENTS {
                again.commit("y".to_owned()).await.unwrap();
            }
            assert_eq!(recover::<Log>(&store).await.0, again.0, "{fuse}");
            let size = postcard::to_allocvec(&*again).unwrap().len();
            assert!(count(&store, TreeId::SNAPSHOTS) <= 1 + size.div_ceil(PART), "{fuse}");
            assert!(count(&store, TreeId::JOURNALS) <= SNAPSHOT_EVENTS + 1, "{fuse}");
        }
    }

    #[tokio::test]
    async fn refused_commit_changes_nothing() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        ada.commit(Changed::Added(1)).await.unwrap();
        store.mode.store(REFUSE, SeqCst);
        ada.commit(Changed::Added(10)).await.unwrap_err();
        ada.commit_once(Some(Idem([1; 16])), Changed::Added(100), |account| account.balance).await.unwrap_err();
        assert_eq!(ada.balance, 1);
        store.mode.store(WORK, SeqCst);
        let reply = ada.commit_once(Some(Idem([1; 16])), Changed::Added(100), |account| account.balance).await;
        assert_eq!(reply.unwrap(), 101);
        assert_eq!(recover::<Account>(&store).await.balance, 101);
    }

    #[tokio::test]
    async fn commit_of_unknown_outcome_is_found_out_before_the_next() {
        for mode in [WRITE_AND_FAIL, WRITE_AND_HANG] {
            let store = Arc::<Flaky>::default();
            let mut ada = recover::<Account>(&store).await;
            store.mode.store(mode, SeqCst);
            // A hanging commit is polled once and dropped, as by a timeout.
            assert!(ada.commit(Changed::Added(10)).now_or_never().is_none_or(|outcome| outcome.is_err()));
            store.mode.store(WORK, SeqCst);
            ada.commit(Changed::Added(1)).await.unwrap();
            assert_eq!(ada.balance, 11);
            assert_eq!(recover::<Account>(&store).await.balance, 11);
        }
    }

    #[tokio::test]
    async fn repeated_request_has_one_effect_over_crashes() {
        for mode in [WORK, REFUSE, WRITE_AND_FAIL, WRITE_AND_HANG] {
            let store = Arc::<Flaky>::default();
            for attempt in 0..3 {
                store.mode.store(if attempt == 0 { mode } else { WORK }, SeqCst);
                let mut ada = recover::<Account>(&store).await;
                let request = ada.commit_once(Some(Idem([7; 16])), Changed::Added(10), |account| account.balance);
                let reply = request.now_or_never();
                if attempt > 0 {
                    assert_eq!(reply.unwrap().unwrap(), 10, "attempt {attempt} after {mode}");
                }
            }
            assert_eq!(recover::<Account>(&store).await.changes, 1);
        }
    }

    #[tokio::test]
    async fn replies_are_kept_for_a_day_and_up_to_a_number() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        let day = u64::try_from(REPLY_AGE.as_millis()).unwrap();
        let key = |n: u64| Some(Idem([n.to_le_bytes(), [0; 8]].concat().try_into().unwrap()));
        let add = || Changed::Added(1);
        assert_eq!(ada.commit_once_at(key(0), 1000, add(), |account| account.balance).await.unwrap(), 1);
        assert_eq!(ada.commit_once_at(key(0), 999 + day, add(), |account| account.balance).await.unwrap(), 1);
        assert_eq!(ada.commit_once_at(key(0), 1000 + day, add(), |account| account.balance).await.unwrap(), 2);
        assert_eq!(count(&store, TreeId::REPLIES), 1);
        for n in 1..=REPLIES as u64 {
            ada.commit_once_at(key(n), 2000 + day + n, add(), |_| ()).await.unwrap();
        }
        assert_eq!(count(&store, TreeId::REPLIES), REPLIES);
        // The oldest had to go; the order is the same after a restart.
        let mut ada = recover::<Account>(&store).await;
        let before = ada.balance;
        ada.commit_once_at(key(1), 4000 + day, add(), |_| ()).await.unwrap();
        assert_eq!(ada.balance, before);
        ada.commit_once_at(key(0), 4000 + day, add(), |account| account.balance).await.unwrap();
        assert_eq!(ada.balance, before + 1);
        assert_eq!(count(&store, TreeId::REPLIES), REPLIES);
        // A day later all have gone with the next request.
        ada.commit_once_at(key(5000), 9000 + 2 * day, add(), |_| ()).await.unwrap();
        assert_eq!(count(&store, TreeId::REPLIES), 1);
    }

    #[tokio::test]
    async fn older_schema_is_upgraded_and_a_newer_one_refused() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        for _ in 0..=SNAPSHOT_EVENTS {
            ada.commit(Changed::Added(1)).await.unwrap();
        }
        let mut cents = recover::<Cents>(&store).await;
        assert_eq!(cents.cents, 100_100);
        cents.commit(1).await.unwrap();
        let refused = Entity::<Account>::recover(Arc::clone(&store) as Arc<dyn Store>, "account", "ada").await;
        assert!(matches!(refused, Err(StoreError::Schema { found: 2, known: 1 })));
        let other = Entity::<Account>::recover(store, "account", &"k".repeat(70_000)).await;
        assert!(matches!(other, Err(StoreError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn missing_event_is_noticed() {
        let store = Arc::<Flaky>::default();
        let mut ada = recover::<Account>(&store).await;
        for _ in 0..3 {
            ada.commit(Changed::Added(1)).await.unwrap();
        }
        let key = ada.event_key(2);
        store.commit(Batch::new().delete(TreeId::JOURNALS, key), Level::Disk).await.unwrap();
        let broken = Entity::<Account>::recover(store, "account", "ada").await;
        assert!(matches!(broken, Err(StoreError::Decode { .. })));
    }
}
