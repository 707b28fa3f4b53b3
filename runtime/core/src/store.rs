//! Durable key-value state of one node: batches that are applied whole or not at all, in one order.
//!
//! The redo log is the truth, everything else can be made again from it:
//!
//! ```text
//! commit -> queue -> store-redo thread: one write + one fdatasync per group -> index (sled) -> the futures resolve
//!                                          redo/<lsn>.log                      sled/
//! store-ckpt thread: sorted dump ckpt/<lsn>.zst now and then; redo that no kept dump needs is deleted
//! ```
//!
//! [`redo`] writes and reads the log, [`checkpoint`] the dumps, [`sled`] and [`memory`] are the two indexes, [`repair`]
//! makes an index out of dump and log, [`disk`] puts them together. [`MemoryStore`] is the store of tests and of nodes
//! without a data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{ConfigError, Period, Size};

pub mod bench;
mod checkpoint;
mod disk;
mod measured;
mod memory;
mod memtable;
mod redo;
mod repair;
mod sled;

pub use disk::DiskStore;
pub(crate) use measured::Measured;
pub use memory::MemoryStore;
pub(crate) use redo::sync_dir;

/// Longest key in bytes; keys live in the inner nodes of the index.
pub const MAX_KEY: usize = 4 * 1024;
/// Longest value in bytes; larger things are blobs.
pub const MAX_VALUE: usize = 16 * 1024 * 1024;
/// Largest batch in bytes, keys and values together.
pub const MAX_BATCH: usize = 32 * 1024 * 1024;
/// Bytes that a write in a batch takes at most beyond its key and value.
pub const WRITE_BYTES: usize = 16;

/// Reads and atomic writes of one node's durable state.
pub trait Store: Send + Sync + 'static {
    /// Reads one value.
    ///
    /// # Errors
    /// When the state cannot be read even after a rebuild of the index.
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Reads up to `limit` pairs of one tree whose key is `from` or greater, in the order of their keys. Fewer than `limit`
    /// pairs mean that the tree ends there.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Writes a batch, atomic across trees. Reads see it when the future resolves, or a moment earlier, when it is not yet as
    /// safe as `level` says. An empty batch writes nothing: it resolves when all that was queued before it is visible and
    /// as safe as `level` says.
    ///
    /// # Cancel safety
    /// A future dropped before its first poll writes nothing. Dropped later, the batch may or may not be written, and it
    /// is written before anything that is committed afterwards: an empty batch waits for it.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] and [`StoreError::TooLarge`]: nothing was written. [`StoreError::Stopped`] and
    /// [`StoreError::Index`]: the outcome of this batch is known only after a restart.
    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>>;

    /// Largest batch that a commit takes, by [`Batch::size`].
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    /// Dumps the whole state, so that older redo can go. Resolves with the position that the dump starts from.
    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>>;

    /// Counters since the store was opened.
    fn stats(&self) -> StoreStats;

    /// Writes what is queued, ends, and gives its files free for whoever opens them next; afterwards all calls fail. Blocks.
    fn close(&self) {}
}

/// Opens the store that the `[store]` section names, with its files under `dir`.
///
/// # Errors
/// [`StoreError::InUse`] when another process holds the directory; [`StoreError::BadRecord`] and
/// [`StoreError::Incomplete`] when the redo log is damaged where no crash can damage it.
pub fn open(dir: &Path, config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config.backend {
        Backend::Sled => Arc::new(DiskStore::open(dir, config)?),
        Backend::Memory => Arc::new(MemoryStore::default()),
    })
}

/// A key space. 0 to 31 belong to this crate, 32 to 47 to memory, 48 to 63 to agents, 64 to 79 to the edge, 80 to 95 to
/// governance (90 and 91 the ledger's journal and checkpoints).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreeId(pub u16);

impl TreeId {
    /// Facts about the node itself.
    pub(crate) const NODE: Self = Self(0);
    /// Events of durable entities.
    pub const JOURNALS: Self = Self(1);
    /// Snapshots of durable entities.
    pub const SNAPSHOTS: Self = Self(2);
    /// Replies kept under idempotency keys.
    pub const REPLIES: Self = Self(3);
    /// Reference counts of blobs.
    pub const BLOBS: Self = Self(4);
    /// State of the replicated machines.
    pub const REPLICATED: Self = Self(5);
    /// Votes, purged and applied positions of the replicated groups.
    pub const RAFT: Self = Self(6);
    /// Log entries of the replicated groups.
    pub const RAFT_LOG: Self = Self(7);
    /// First number that the indexes keep for themselves.
    const RESERVED: u16 = 0xff00;
}

/// Position of a batch in the order of all batches of this store, from 1.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a batch must have survived when its commit resolves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is promised. The redo thread writes it with its group, so it costs and survives what `Process` does.
    Async,
    /// The end of the process (`kill -9`): the operating system has it.
    Process,
    /// The loss of power: the disk has it.
    #[default]
    Disk,
}

/// Puts and deletes that take effect together, in the order they were added.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write of one value.
    #[must_use]
    pub fn put(mut self, tree: TreeId, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.push(tree, key.into(), Some(value.into().into()));
        self
    }

    /// Adds the removal of one key; a key that is not there is no error.
    #[must_use]
    pub fn delete(mut self, tree: TreeId, key: impl Into<Vec<u8>>) -> Self {
        self.push(tree, key.into(), None);
        self
    }

    /// Adds a write, or a removal without a value.
    pub(crate) fn push(&mut self, tree: TreeId, key: Vec<u8>, value: Option<Bytes>) {
        self.ops.push(Op { tree, key: Raw(key.into()), value: value.map(Raw) });
    }

    /// The puts, and the deletes without value, in order.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (TreeId, &[u8], Option<&Bytes>)> {
        self.ops.iter().map(|op| (op.tree, &op.key.0[..], op.value.as_ref().map(|value| &value.0)))
    }

    /// Number of puts and deletes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True when there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes that it has at most where it is written in one piece.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes() + self.ops.len() * WRITE_BYTES
    }

    /// Bytes of all keys and values.
    fn bytes(&self) -> usize {
        self.ops.iter().map(|op| op.key.0.len() + op.value.as_ref().map_or(0, |value| value.0.len())).sum()
    }

    /// Refuses what the log or the index could not hold, before anything is written.
    fn check(&self) -> Result<(), StoreError> {
        let too_large = |what, size, max| Err(StoreError::TooLarge { what, size, max });
        for op in &self.ops {
            assert!(op.tree.0 < TreeId::RESERVED, "tree {} is reserved for the index", op.tree.0);
            if op.key.0.len() > MAX_KEY {
                return too_large("key", op.key.0.len(), MAX_KEY);
            }
            let value = op.value.as_ref().map_or(0, |value| value.0.len());
            if value > MAX_VALUE {
                return too_large("value", value, MAX_VALUE);
            }
        }
        if self.bytes() > MAX_BATCH {
            return too_large("batch", self.bytes(), MAX_BATCH);
        }
        Ok(())
    }
}

/// One write; no value means removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Op {
    tree: TreeId,
    key: Raw,
    value: Option<Raw>,
}

impl Op {
    /// The key in an index, where all trees share one key space.
    fn index_key(&self) -> Vec<u8> {
        index_key(self.tree, &self.key.0)
    }
}

/// `tree u16` big-endian, then the key: trees stay apart and in order.
fn index_key(tree: TreeId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + key.len());
    out.extend_from_slice(&tree.0.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Bytes that serde writes in one piece; a `Vec<u8>` goes one call per byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Bytes);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// Why the store refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Nothing was written, reads go on, writes go on when space returns.
    #[error("no space left in {}", dir.display())]
    NoSpace {
        /// The directory that cannot grow.
        dir: PathBuf,
    },
    /// Another process has the data directory open.
    #[error("data directory in use by pid {pid}")]
    InUse {
        /// That process.
        pid: u32,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The redo log is damaged in a place that had been written safely. Starting would lose acknowledged writes.
    #[error("{}: bad record at offset {offset}: {why}", file.display())]
    BadRecord {
        /// The segment.
        file: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Redo segments or checkpoints are missing, so the state cannot be made again.
    #[error("{}: {why}", dir.display())]
    Incomplete {
        /// The data directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The batch, or a part of it, is over a limit.
    #[error("{what} of {size} bytes is too large: the limit is {max}")]
    TooLarge {
        /// Key, value or batch.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Stored bytes are not what their reader expects.
    #[error("cannot decode {what}: {detail}")]
    Decode {
        /// Which stored thing.
        what: &'static str,
        /// Why not.
        detail: String,
    },
    /// Stored by a schema that this program cannot read.
    #[error("stored with schema {found}, this program knows {known}")]
    Schema {
        /// The version that wrote it.
        found: u16,
        /// The version of this program.
        known: u16,
    },
    /// An fdatasync failed: no write is taken until a restart.
    #[error("the store takes no more writes until a restart: {reason}")]
    Stopped {
        /// What happened.
        reason: String,
    },
    /// The index failed and could not be made again.
    #[error("index: {detail}")]
    Index {
        /// What happened.
        detail: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Nothing was written: another node writes this state now.
    #[error("another node has taken over")]
    Fenced,
    /// Too few copies of the state can be reached.
    #[error("a majority of the copies does not answer{}", if *unsure { "; whether it was written is unknown" } else { "; nothing was written" })]
    NoQuorum {
        /// The write may still take effect.
        unsure: bool,
    },
}

impl StoreError {
    /// True when the cause is a full disk: the same write can succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Sorts out the errors that mean "no more space" from all others.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::NoSpace { dir: path.parent().unwrap_or(path).to_owned() };
        }
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// A disk, a quota or the process's file size limit is exhausted.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Counters of one store.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStats {
    /// Position of the newest visible batch.
    pub last: Lsn,
    /// Batches written.
    pub commits: u64,
    /// Calls of fdatasync for commits.
    pub syncs: u64,
    /// Bytes of redo written.
    pub redo_bytes: u64,
    /// Times the index was made again from checkpoint and redo.
    pub rebuilds: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Checkpoints that failed; the next one is tried as usual.
    pub checkpoint_failures: u64,
    /// The index in use: `sled`, or `memory` when sled could not be made again (a full disk).
    pub index: String,
    /// The newest write was refused because the disk is full.
    pub full: bool,
}

/// What keeps the state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Redo log, sled index and checkpoints in the data directory.
    #[default]
    Sled,
    /// The heap: gone when the process ends.
    Memory,
}

/// `[store]` of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// What keeps the state.
    pub backend: Backend,
    /// The strongest level in use: with `process` no write waits for the disk.
    pub durability: Level,
    /// Memory that the index may use for pages.
    pub cache: Size,
    /// A checkpoint is written this long after the last one if anything changed.
    pub checkpoint: Period,
    /// A checkpoint is also written after this much redo.
    pub checkpoint_after: Size,
    /// Size of a redo segment, allocated ahead. Two more of this size stay free for the index.
    pub segment: Size,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Sled,
            durability: Level::Disk,
            cache: Size::from_mib(64),
            checkpoint: Period::from_secs(600),
            checkpoint_after: Size::from_mib(256),
            segment: Size::from_mib(64),
        }
    }
}

impl StoreConfig {
    /// Checks what no type can.
    ///
    /// # Errors
    /// Names the key and the bounds of its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("store.cache", self.cache, Size::from_kib(256), Size::from_mib(1 << 20)),
            ("store.checkpoint_after", self.checkpoint_after, Size::from_kib(1), Size::from_mib(1 << 20)),
            ("store.segment", self.segment, Size::from_kib(4), Size::from_mib(4096)),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::invalid(key, format!("{value} is not in {least} to {most}")));
            }
        }
        if self.checkpoint < Period::from_secs(1) {
            return Err(ConfigError::invalid("store.checkpoint", format!("{} is not at least 1s", self.checkpoint)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_reads_back_and_bad_values_are_named() {
        let config = StoreConfig::default();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("backend = \"sled\"\ndurability = \"disk\"\ncache = \"64MiB\"\ncheckpoint = \"10m\""));
        assert_eq!(toml::from_str::<StoreConfig>(&text).unwrap(), config);
        assert_eq!(toml::from_str::<StoreConfig>("").unwrap(), config);
        config.validate().unwrap();
        let bad = |text: &str| toml::from_str::<StoreConfig>(text).unwrap().validate().unwrap_err().to_string();
        assert!(bad("cache = \"1KiB\"").contains("store.cache"));
        assert!(bad("segment = \"8GiB\"").contains("store.segment"));
        assert!(bad("checkpoint_after = \"1B\"").contains("store.checkpoint_after"));
        assert!(bad("checkpoint = \"0s\"").contains("store.checkpoint"));
    }
}
