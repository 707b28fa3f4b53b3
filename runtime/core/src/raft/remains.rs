//! What a node has of a group whose majority is gone for good, and how the group becomes one of that node alone.
//!
//! The log goes on where it ends here, with an entry that makes this node the only voter. It stands in a term that nobody has
//! seen, so that it cannot be taken for an entry of the old leader. Whatever this node has in its log is decided with it,
//! also what the old majority had not decided yet; what only others had is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use openraft::{CommittedLeaderId, EntryPayload, Membership};
use tokio::sync::watch;

use super::log::{Log, put_entry};
use super::machine::Applied;
use super::{Entry, Fact, GroupId, LogId, StateView, Vote, Writer, encode};
use crate::NodeId;
use crate::store::{Batch, Store, StoreError, TreeId};

/// Bytes of entries read at a time.
const READ: usize = 512 * 1024;

/// What a store has of one group.
#[derive(Debug, Clone)]
pub(crate) struct Remains {
    group: GroupId,
    last: LogId,
    vote: Option<Vote>,
    /// Index of the last entry that is applied.
    pub(crate) applied: Option<u64>,
    /// Members that have a vote, as far as this node knows.
    pub(crate) voters: BTreeSet<NodeId>,
}

impl Remains {
    /// Reads them; none of a group of which this node never had anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn read(store: &Arc<dyn Store>, group: GroupId) -> Result<Option<Self>, StoreError> {
        let (_, stopped) = watch::channel(false);
        let writer = Writer { store: Arc::clone(store), group, stopped };
        let applied: Applied = writer.fact(Fact::Applied)?.unwrap_or_default();
        let log = Log::open(writer, READ, Arc::default())?;
        let mut membership = applied.membership.membership().clone();
        let mut next = applied.last.map_or(0, |last| last.index + 1);
        loop {
            let entries = log.entries(next, u64::MAX, READ)?;
            let Some(last) = entries.last() else { break };
            next = last.log_id.index + 1;
            for entry in entries {
                if let EntryPayload::Membership(newer) = entry.payload {
                    membership = newer;
                }
            }
        }
        // A snapshot may be ahead of the log.
        let Some(last) = log.last().max(applied.last) else { return Ok(None) };
        Ok(Some(Self {
            group,
            last,
            vote: log.vote(),
            applied: applied.last.map(|last| last.index),
            voters: membership.voter_ids().map(NodeId).collect(),
        }))
    }

    /// What makes `me` the only voter once it is written.
    pub(crate) fn sole_voter(&self, batch: Batch, me: NodeId) -> Batch {
        let term = self.last.leader_id.term.max(self.vote.map_or(0, |vote| vote.leader_id().term)) + 1;
        let voters = BTreeSet::from([me.0]);
        let membership = Membership::new(vec![voters.clone()], voters);
        let log_id = LogId::new(CommittedLeaderId::new(term, me.0), self.last.index + 1);
        let entry = Entry { log_id, payload: EntryPayload::Membership(membership) };
        let batch = batch.put(TreeId::RAFT, Fact::Vote.key(self.group), encode(&Vote::new(term, me.0)));
        put_entry(batch, self.group, &entry)
    }
}

/// The applied state of a group that does not run.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn state(store: &Arc<dyn Store>, group: GroupId) -> Result<StateView, StoreError> {
    let (_, stopped) = watch::channel(false);
    let writer = Writer { store: Arc::clone(store), group, stopped };
    let applied: Applied = writer.fact(Fact::Applied)?.unwrap_or_default();
    Ok(StateView { store: Arc::clone(store), group, slot: Arc::new(AtomicU8::new(applied.slot)) })
}
