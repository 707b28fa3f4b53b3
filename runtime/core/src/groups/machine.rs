//! The state of a shard group: the stores of the entities whose slots it holds, as one key range.
//!
//! Key: `tree u16` big-endian, then the key that the entity's store has there. A command is a batch of puts and deletes and
//! the term in which its activation began. It is applied only in that term (the *fence*): within one term one node leads,
//! and so one activation of each key writes; whatever an older activation still sends is refused.

use serde::{Deserialize, Serialize};

use super::feed::{Feeds, Wanted};
use crate::raft::{Machine, Position, StateView, Writes};
use crate::store::{Batch, StoreError, TreeId};

/// What an activation proposes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    /// Term of the leader that the activation lives on.
    pub(crate) term: u64,
    /// What to write.
    pub(crate) batch: Batch,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Written.
    Done,
    /// Nothing was written: the activation is of another term.
    Fenced,
    /// Nothing was written: the command cannot be read.
    Unreadable,
}

/// See the module.
pub(crate) struct ShardMachine {
    feeds: Feeds,
    /// Events that are applied and cannot be read yet.
    applied: Wanted,
}

impl ShardMachine {
    pub(crate) fn new(feeds: Feeds) -> Self {
        Self { feeds, applied: Wanted::new() }
    }
}

impl Machine for ShardMachine {
    fn apply(&mut self, at: Position, command: &[u8], writes: &mut Writes) -> Vec<u8> {
        let outcome = match postcard::from_bytes::<Command>(command) {
            Ok(command) if command.term == at.term => {
                write(&command.batch, writes);
                self.applied.extend(self.feeds.wanted(&command.batch));
                Outcome::Done
            }
            Ok(_) => Outcome::Fenced,
            Err(_) => Outcome::Unreadable,
        };
        postcard::to_allocvec(&outcome).unwrap_or_default()
    }

    fn committed(&mut self) {
        self.feeds.push(std::mem::take(&mut self.applied));
    }

    fn reload(&mut self, state: &StateView) -> Result<(), StoreError> {
        self.feeds.reset(state);
        Ok(())
    }

    /// What a command writes depends on it and its position alone.
    fn lazily_dumped(&self) -> bool {
        true
    }
}

/// Adds a batch of an entity's store to the writes of its group.
pub(crate) fn write(batch: &Batch, writes: &mut Writes) {
    for (tree, key, value) in batch.writes() {
        match value {
            Some(value) => writes.put_at([&tree.0.to_be_bytes(), key], value.clone()),
            None => writes.delete_at([&tree.0.to_be_bytes(), key]),
        }
    }
}

/// Where the group keeps a key of an entity's store.
pub(crate) fn key_of(tree: TreeId, key: &[u8]) -> Vec<u8> {
    [&tree.0.to_be_bytes(), key].concat()
}
