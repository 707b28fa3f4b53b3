//! Replicated logs: many small Raft groups on one node, all in the node's one [`Store`].
//!
//! The protocol is openraft's; what is here is its storage, its network, and a handle that is safe to use from outside.
//!
//! ```text
//! propose -> proposer: one entry of many commands -> openraft -> log (tree RAFT_LOG, Level::Disk)
//!                                                      | committed
//!                                                      v
//!                       replies <- Machine::apply <- replica: one batch per apply (trees REPLICATED and RAFT)
//! ```
//!
//! [`log`] keeps entries and votes, [`machine`] the applied state, [`snapshot`] the files that carry it to a node that
//! lags, [`network`] the messages between nodes, [`proposer`] the way in, [`group`] the handle, [`hand_off`] the two ways
//! to move leadership on purpose, [`remains`] what can be made of a group whose majority is gone for good.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `RAFT_LOG` | group `u8`, index `u64 BE` | entry, postcard |
//! | `RAFT` | group `u8`, `1` / `2` / `3` | vote / last purged position / applied position, membership and slot |
//! | `REPLICATED` | group `u8`, slot `u8`, the machine's key | the machine's value |
//!
//! **What a crash leaves.** All groups write to one redo log, so what survives is a prefix of everything written. Entries
//! and votes are on the disk before they are acknowledged. The applied position is in the batch of the writes it stands
//! for, so the state may be behind the log but is never torn, and the log is purged after the state that replaces it. A
//! snapshot is installed into the slot that is not in use; one last batch turns the slot over, so that a crash before it
//! leaves the older state, and the leader sends the snapshot again.
//!
//! **Full disk.** A write waits until there is space again. The node seems dead to its groups for so long.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::{AnyError, EmptyNode, StorageError, StorageIOError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::NodeId;
use crate::store::{Batch, Level, Raw, Store, StoreError, TreeId};

mod group;
mod hand_off;
mod log;
mod machine;
mod network;
mod proposer;
mod remains;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use group::{Around, Group, Role, Status};
#[cfg(test)]
use group::{BarrierError, MembershipError, StatusWatch};
pub(crate) use hand_off::HandOffError;
pub(crate) use network::{Courier, Lost, ServeError};
pub(crate) use proposer::ProposeError;
pub(crate) use remains::{Remains, state as remaining_state};

/// Longest command in bytes.
pub(crate) const MAX_COMMAND: usize = 256 * 1024;

/// Pause between two attempts to write to a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

openraft::declare_raft_types!(
    /// What openraft deals with here. Addresses live elsewhere, so a node is nothing but its number.
    pub(crate) Types:
        D = Commands,
        R = Replies,
        NodeId = u64,
        Node = EmptyNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = snapshot::SnapshotFile,
        AsyncRuntime = openraft::TokioRuntime,
);

type Raft = openraft::Raft<Types>;
type Entry = openraft::Entry<Types>;
type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;

/// Names a group on every node: 0 is the control group, shard groups follow from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct GroupId(pub(crate) u8);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// Starts a task under a name.
pub(crate) type Spawner = Arc<dyn Fn(&'static str, BoxFuture<'static, ()>) + Send + Sync>;

/// Where a command stands in its group's history. No two commands have the same position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Index of the entry.
    pub(crate) index: u64,
    /// Number of the command in the entry, from 0.
    pub(crate) nth: u32,
    /// Term of the leader that made the entry.
    pub(crate) term: u64,
}

/// State that all nodes of a group build from the same commands.
///
/// Its durable state is a range of keys in the store. What it keeps in memory besides must be a function of that range.
pub(crate) trait Machine: Send + 'static {
    /// Executes a command and returns the reply. The same history has to give the same writes and replies on every node:
    /// no clock, no randomness, no look at anything but the machine itself. Commands come from peers, so one that makes no
    /// sense is answered, not panicked at.
    ///
    /// The writes of all commands of an entry (at most 256) have to fit in [`MAX_BATCH`](crate::store::MAX_BATCH), and
    /// cannot be read back before the next entry.
    fn apply(&mut self, at: Position, command: &[u8], writes: &mut Writes) -> Vec<u8>;

    /// What was applied since the last call is in the durable state now, and can be read there.
    fn committed(&mut self) {}

    /// Makes what is in memory again from the durable state: at the start, and after a snapshot took its place.
    ///
    /// # Errors
    /// When the state cannot be read; the group stops.
    fn reload(&mut self, state: &StateView) -> Result<(), StoreError>;

    /// Whether a snapshot may be read while later commands are applied.
    ///
    /// Such a dump is fuzzy: it says that it stands at position `p`, but some keys have the value of a later command. The
    /// node that installs it applies everything after `p` again, and is right once it is past the newest command that the
    /// dump has seen; as that one was committed, no node answers a linearizable read or leads before. This converges when
    /// each command puts and deletes keys that depend on the command and its position alone. It does **not** when `apply`
    /// looks at state before it writes (a counter, a compare-and-set, a fence kept in the range): then say `false`, and
    /// the range is read at once, which holds up the group for so long.
    fn lazily_dumped(&self) -> bool;
}

/// What a machine writes, under its own keys. It becomes durable together with the applied position.
#[derive(Debug)]
pub(crate) struct Writes {
    prefix: [u8; 2],
    batch: Batch,
    bytes: usize,
}

impl Writes {
    fn new(group: GroupId, slot: u8) -> Self {
        Self { prefix: [group.0, slot], batch: Batch::new(), bytes: 0 }
    }

    /// Writes into the state without a log: only while no node but this one has the group's state.
    pub(crate) fn outside(state: &StateView) -> Self {
        let [group, slot] = state.prefix();
        Self::new(GroupId(group), slot)
    }

    /// The writes as a batch for the store.
    pub(crate) fn into_batch(self) -> Batch {
        self.batch
    }

    /// Writes a value, under a key that is put together from two parts.
    pub(crate) fn put_at(&mut self, key: [&[u8]; 2], value: Bytes) {
        let key = [&self.prefix, key[0], key[1]].concat();
        self.bytes += key.len() + value.len();
        self.batch.push(TreeId::REPLICATED, key, Some(value));
    }

    /// Writes a value.
    pub(crate) fn put(&mut self, key: &[u8], value: impl Into<Bytes>) {
        self.put_at([key, &[]], value.into());
    }

    /// Removes a key that is put together from two parts.
    pub(crate) fn delete_at(&mut self, key: [&[u8]; 2]) {
        let key = [&self.prefix, key[0], key[1]].concat();
        self.bytes += key.len();
        self.batch.push(TreeId::REPLICATED, key, None);
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.delete_at([key, &[]]);
    }
}

/// The durable state of a machine, to read. On a node that installs a snapshot at the same time, one call may see the
/// state before and the next one the state after.
#[derive(Clone)]
pub(crate) struct StateView {
    store: Arc<dyn Store>,
    group: GroupId,
    slot: Arc<AtomicU8>,
}

impl StateView {
    /// The state of a group that has no log.
    pub(crate) fn alone(store: Arc<dyn Store>, group: GroupId) -> Self {
        Self { store, group, slot: Arc::default() }
    }

    /// The store that has the state of this group among others.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn prefix(&self) -> [u8; 2] {
        [self.group.0, self.slot.load(Ordering::Acquire)]
    }

    /// A view that stays with the slot that is in use now.
    fn fixed(&self) -> Self {
        Self { slot: Arc::new(AtomicU8::new(self.slot.load(Ordering::Acquire))), ..self.clone() }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(TreeId::REPLICATED, &[&self.prefix(), key].concat())
    }

    /// Reads up to `limit` pairs from the key `from` on, in order. Fewer pairs mean that the state ends there.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub(crate) fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let prefix = self.prefix();
        let mut pairs = self.store.scan(TreeId::REPLICATED, &[&prefix, from].concat(), limit)?;
        pairs.truncate(pairs.partition_point(|(key, _)| key.starts_with(&prefix)));
        for (key, _) in &mut pairs {
            *key = key.slice(prefix.len()..);
        }
        Ok(pairs)
    }
}

/// Whether any group has a log in this store.
///
/// # Errors
/// As [`Store::scan`].
pub(crate) fn is_kept_in(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(!store.scan(TreeId::RAFT, &[], 1)?.is_empty())
}

/// Settings of one group on one node. All nodes of a group should have the same.
#[derive(Debug, Clone)]
pub(crate) struct GroupConfig {
    /// Which group.
    pub(crate) group: GroupId,
    /// This node.
    pub(crate) node: NodeId,
    /// Interval of the leader's beats.
    pub(crate) heartbeat: Duration,
    /// Shortest time without a leader after which a node stands for election.
    pub(crate) election_min: Duration,
    /// Longest such time; also the leader's lease.
    pub(crate) election_max: Duration,
    /// Entries after the last snapshot that call for a new one.
    pub(crate) snapshot_after: u64,
    /// Entries kept behind a snapshot, for nodes that lag a little.
    pub(crate) keep: u64,
    /// Entries sent at a time.
    pub(crate) entries_per_call: u64,
    /// Bytes of recent entries kept in memory.
    pub(crate) recent_bytes: usize,
    /// Time that a command has from its proposal to its reply.
    pub(crate) commit_limit: Duration,
    /// Age of the last quorum from which a leader takes no commands.
    pub(crate) quorum_limit: Duration,
    /// Time that a successor has to catch up, and then to be elected, when leadership is handed off.
    pub(crate) hand_off_limit: Duration,
    /// Time that a change of members has.
    pub(crate) membership_limit: Duration,
    /// Time to make the first snapshot of a group that had its state before its log.
    pub(crate) seal_limit: Duration,
    /// Where snapshots are kept; in memory if nowhere.
    pub(crate) snapshots: Option<PathBuf>,
}

impl GroupConfig {
    /// The defaults for a group on a node.
    pub(crate) fn new(group: GroupId, node: NodeId) -> Self {
        Self {
            group,
            node,
            heartbeat: Duration::from_millis(600),
            election_min: Duration::from_millis(1800),
            election_max: Duration::from_secs(2),
            snapshot_after: 5000,
            keep: 1000,
            entries_per_call: 300,
            recent_bytes: 8 << 20,
            commit_limit: Duration::from_secs(3),
            quorum_limit: Duration::from_secs(2),
            hand_off_limit: Duration::from_millis(500),
            membership_limit: Duration::from_secs(10),
            seal_limit: Duration::from_mins(5),
            snapshots: None,
        }
    }

    /// Time that a peer has to answer a beat.
    fn answer_limit(&self) -> Duration {
        self.heartbeat * 2 / 3
    }

    fn openraft(&self) -> Result<openraft::Config, String> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: self.group.to_string(),
            // openraft looks at its timers every 1.5 times this: once a beat.
            heartbeat_interval: ms(self.answer_limit()),
            // See `group::beat`.
            enable_heartbeat: false,
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            max_payload_entries: self.entries_per_call,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.keep,
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|e| e.to_string())
    }
}

/// Commands of one entry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Commands {
    list: Vec<Raw>,
    /// Set once the entry is in this node's log. From then on nobody can say that the commands will not take effect.
    #[serde(skip)]
    appended: Option<Arc<AtomicBool>>,
}

/// Replies to the commands of one entry, in their order. Empty for entries of openraft's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Replies(Vec<Raw>);

/// Writes of one group. They wait while the disk is full, so that openraft, which stops for good at the first error, sees
/// only errors that are for good.
#[derive(Clone)]
struct Writer {
    store: Arc<dyn Store>,
    group: GroupId,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    async fn commit(&self, batch: Batch, level: Level) -> Result<(), StoreError> {
        let mut stopped = self.stopped.clone();
        loop {
            match self.store.commit(batch.clone(), level).await {
                Ok(_) => return Ok(()),
                Err(full) if full.is_full() => {
                    tracing::warn!(group = %self.group, error = %full, "write waits for space");
                    tokio::select! {
                        () = tokio::time::sleep(FULL_DISK_PAUSE) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => return Err(full),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads one of the group's own facts.
    fn fact<T: DeserializeOwned>(&self, fact: Fact) -> Result<Option<T>, StoreError> {
        let stored = self.store.get(TreeId::RAFT, &fact.key(self.group))?;
        stored.map(|bytes| decode("a fact of a replicated group", &bytes)).transpose()
    }
}

/// What a group keeps beside its entries and its state.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Fact {
    Vote = 1,
    Purged = 2,
    Applied = 3,
}

impl Fact {
    fn key(self, group: GroupId) -> Vec<u8> {
        vec![group.0, self as u8]
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data of known length is always encoded")
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|e| StoreError::Decode { what, detail: e.to_string() })
}

/// The part of the storage that failed, in openraft's terms.
#[derive(Debug, Clone, Copy)]
enum Part {
    Log,
    Vote,
    State,
    Snapshot,
}

impl Part {
    fn cannot_read(self, error: &StoreError) -> StorageError<u64> {
        let error = AnyError::new(error);
        match self {
            Self::Log => StorageIOError::read_logs(error),
            Self::Vote => StorageIOError::read_vote(error),
            Self::State => StorageIOError::read_state_machine(error),
            Self::Snapshot => StorageIOError::read_snapshot(None, error),
        }
        .into()
    }

    fn cannot_write(self, error: &StoreError) -> StorageError<u64> {
        let error = AnyError::new(error);
        match self {
            Self::Log => StorageIOError::write_logs(error),
            Self::Vote => StorageIOError::write_vote(error),
            Self::State => StorageIOError::write_state_machine(error),
            Self::Snapshot => StorageIOError::write_snapshot(None, error),
        }
        .into()
    }
}
