//! The store of a replicated actor: what it commits is an entry of its group's log.
//!
//! An activation whose commits are fenced is of no use any more, also where the node still leads or leads again: it is ended,
//! and the next mail starts one that may commit.
//!
//! Reads see this node's copy. They are not stale after a commit of the same activation, and an empty commit does for those
//! at the start: it is an entry too, so it comes after everything an earlier activation had under way.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::RwLock;

use super::feed::{Feeds, Told};
use super::machine::{Command, Outcome, key_of, write};
use crate::node_id::NodeId;
use crate::raft::{Group, MAX_COMMAND, ProposeError, Role, StateView, Status, Writes};
use crate::store::{Batch, Level, Lsn, MAX_BATCH, Store, StoreError, StoreStats, TreeId};

/// Bytes of a command beyond its writes: the term and how many they are.
const COMMAND_BYTES: usize = 32;

/// A shard group on this node, or its place in a village of one node, where no log is kept.
pub(crate) struct Shard {
    state: StateView,
    store: Arc<dyn Store>,
    group: Option<Group>,
    feeds: Feeds,
    /// No other node has a copy yet, so a commit writes the state itself. Held while it does.
    direct: RwLock<bool>,
}

impl Shard {
    /// The place of a group in a village that is no cluster.
    pub(crate) fn alone(state: StateView, store: Arc<dyn Store>, feeds: Feeds) -> Self {
        feeds.reset(&state);
        Self { state, store, group: None, feeds, direct: RwLock::new(true) }
    }

    /// A group of a cluster; `direct` until it has been founded.
    pub(crate) fn of(group: Group, store: Arc<dyn Store>, feeds: Feeds, direct: bool) -> Self {
        Self { state: group.state(), store, group: Some(group), feeds, direct: RwLock::new(direct) }
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Index of the last entry that this node's copy has applied; 0 where there is no log.
    pub(crate) fn applied(&self) -> u64 {
        self.group.as_ref().and_then(|group| group.status().applied).unwrap_or(0)
    }

    /// Completes once this node's copy, if it has one, has applied the entry `until`, and its replica views show it.
    pub(crate) async fn shows(&self, me: NodeId, until: u64) {
        if let Some(group) = &self.group {
            let behind = |status: &Status| has_copy(status, me) && status.applied.unwrap_or(0) < until;
            group.watch().wait_for(|status| !behind(status)).await;
        }
        self.feeds.shown().await;
    }

    /// This node's copy, to be read only; none where it has none, or one that is not kept up any more.
    pub(crate) fn copy(&self, me: NodeId) -> Option<ReadOnly> {
        // Without voters the group is not founded yet, and this node's is the only copy.
        let is_here = |status: &Status| status.voters.is_empty() || has_copy(status, me);
        self.group.as_ref().is_none_or(|group| is_here(&group.status())).then(|| ReadOnly(self.state.clone()))
    }

    /// Ends direct commits, those under way included: the group is about to be founded.
    pub(crate) async fn end_direct(&self) {
        *self.direct.write().await = false;
    }

    pub(crate) async fn is_direct(&self) -> bool {
        *self.direct.read().await
    }

    /// The store for an activation that starts now; none when another node leads.
    pub(crate) async fn activate(self: &Arc<Self>, end: &End) -> Option<ShardStore> {
        let store = |term| ShardStore { shard: self.clone(), term, end: end.clone() };
        if self.is_direct().await {
            return Some(store(None));
        }
        let status = self.group.as_ref()?.status();
        (status.role == Role::Leader).then(|| store(Some(status.term)))
    }

    async fn commit(&self, term: Option<u64>, batch: Batch, level: Level) -> Result<Lsn, StoreError> {
        {
            let direct = self.direct.read().await;
            if *direct {
                let mut writes = Writes::outside(&self.state);
                write(&batch, &mut writes);
                let told = Told::begin(&self.feeds, &batch);
                let written = self.store.commit(writes.into_batch(), level).await?;
                told.done();
                return Ok(written);
            }
        }
        // An activation of before the group was founded has no term, so its commits are fenced.
        let (Some(group), Some(term)) = (&self.group, term) else { return Err(StoreError::Fenced) };
        let command = postcard::to_allocvec(&Command { term, batch });
        let command = command.map_err(|e| StoreError::Decode { what: "batch", detail: e.to_string() })?;
        let size = command.len();
        match group.propose(command.into()).await {
            Ok(reply) => match postcard::from_bytes(&reply) {
                Ok(Outcome::Done) => Ok(self.store.stats().last),
                Ok(Outcome::Fenced) => Err(StoreError::Fenced),
                Ok(Outcome::Unreadable) | Err(_) => {
                    Err(StoreError::Decode { what: "batch", detail: "another version leads the group".to_owned() })
                }
            },
            Err(ProposeError::NotLeader(_)) => Err(StoreError::Fenced),
            Err(ProposeError::NoQuorum) => Err(StoreError::NoQuorum { unsure: false }),
            Err(ProposeError::Unknown) => Err(StoreError::NoQuorum { unsure: true }),
            Err(ProposeError::TooLarge { .. }) => Err(StoreError::TooLarge { what: "batch", size, max: MAX_COMMAND }),
            Err(ProposeError::Stopped) => Err(StoreError::Closed),
        }
    }
}

fn has_copy(status: &Status, node: NodeId) -> bool {
    status.voters.contains(&node) || status.learners.contains(&node)
}

/// Asks for the end of an activation.
pub(crate) type End = Arc<dyn Fn() + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub(crate) struct ShardStore {
    shard: Arc<Shard>,
    /// When the activation began; none before the group was founded.
    term: Option<u64>,
    end: End,
}

impl Store for ShardStore {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.shard.state.get(&key_of(tree, key))
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        scan(&self.shard.state, tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let this = self.clone();
        let commit = async move {
            let committed = this.shard.commit(this.term, batch, level).await;
            if matches!(committed, Err(StoreError::Fenced)) {
                (this.end)();
            }
            committed
        };
        commit.boxed()
    }

    fn max_batch(&self) -> usize {
        // The founding of the group ends activations without a term, so what is a small batch does not change under one.
        if self.term.is_some() { MAX_COMMAND - COMMAND_BYTES } else { MAX_BATCH }
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.shard.store.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.shard.store.stats()
    }
}

fn scan(state: &StateView, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut pairs = state.scan(&key_of(tree, from), limit)?;
    let prefix = tree.0.to_be_bytes();
    pairs.truncate(pairs.partition_point(|(key, _)| key.starts_with(&prefix)));
    for (key, _) in &mut pairs {
        *key = key.slice(prefix.len()..);
    }
    Ok(pairs)
}

/// This node's copy of a group, for those who may not write.
pub(crate) struct ReadOnly(pub(crate) StateView);

impl Store for ReadOnly {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(&key_of(tree, key))
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        scan(&self.0, tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        if batch.is_empty() { self.0.store().commit(batch, level) } else { ready(Err(StoreError::Fenced)).boxed() }
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.0.store().checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.0.store().stats()
    }
}
