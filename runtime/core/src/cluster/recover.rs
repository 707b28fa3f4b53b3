//! A cluster whose majority is gone for good, made one of a single node from what a survivor has.
//!
//! It happens while the node is stopped. First each group that the node has gets this node as its only voter, in one batch.
//! Then the groups run here without a way to any other node, until everything in their logs is applied and the control
//! group has removed the others: so these have no key in the cluster any more when the node opens its door again. A mark in
//! the store keeps the node from starting in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde::Serialize;

use super::control::Replica;
use crate::blob::{Download, FetchError, Offers};
use crate::config::ConfigError;
use crate::control::{ControlCommand, ControlRefused, ControlReply};
use crate::groups::feed::Feeds;
use crate::groups::machine::ShardMachine;
use crate::identity::{Identity, IdentityError};
use crate::node_id::NodeId;
use crate::raft::{
    Around, Courier, Group, GroupConfig, GroupId, Lost, Machine, Remains, Role, Spawner, remaining_state,
};
use crate::store::{Batch, Level, Store, StoreError, TreeId};
use crate::task::Tasks;

/// Stands in the store while a recovery is under way.
const MARK: &[u8] = b"node.recovering";
/// How long a group may take to apply what is in its log.
const APPLY: Duration = Duration::from_mins(5);

/// What a recovery does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The survivor, 16 hex digits.
    pub node: String,
    /// Names the cluster, 16 hex digits.
    pub cluster: String,
    /// All replicated groups; 0 is the control group.
    pub groups: Vec<RecoveredGroup>,
    /// Members that are dropped.
    pub dropped: Vec<DroppedNode>,
    /// Whether it was done.
    pub done: bool,
}

/// One group in a [`Recovery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveredGroup {
    /// Its number.
    pub group: u8,
    /// Index of the last entry that this node has applied; none when it has no copy, and the group begins empty.
    pub applied: Option<u64>,
    /// Whether this node is a voter, so that it was asked about everything that was acknowledged.
    pub voter: bool,
    /// The voters before.
    pub voters: Vec<String>,
}

/// A member that has to join anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedNode {
    /// Its id, 16 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it was.
    pub addr: String,
}

/// Why a cluster is not recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The directory is not a node's.
    #[error("{} is not the data directory of a node", dir.display())]
    NoNode {
        /// The directory.
        dir: PathBuf,
    },
    /// The node is part of no cluster, or never got a copy of what that decided.
    #[error("{} has nothing of a cluster", dir.display())]
    NoCluster {
        /// The directory.
        dir: PathBuf,
    },
    /// The cluster has removed this node.
    #[error("this node was removed from its cluster, and what it has is not the cluster's any more")]
    Removed,
    /// Something else than this is in the way.
    #[error("group {group}: {detail}")]
    Group {
        /// Its number.
        group: u8,
        /// What went wrong.
        detail: String,
    },
    /// The configuration does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's key cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Whether a recovery was begun and not ended.
///
/// # Errors
/// As [`Store::get`].
pub(crate) fn is_under_way(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.get(TreeId::NODE, MARK)?.is_some())
}

/// A survivor that does not run.
pub(crate) struct Survivor {
    pub(crate) dir: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) store: Arc<dyn Store>,
    /// With the machines of this program.
    pub(crate) replica: Replica,
}

/// Refuses a directory that is no node's, before anything is made in it.
pub(crate) fn check_dir(dir: &Path) -> Result<(), RecoverError> {
    let is_node = Identity::is_kept_in(dir);
    if is_node { Ok(()) } else { Err(RecoverError::NoNode { dir: dir.to_owned() }) }
}

impl Survivor {
    /// Recovers the cluster, or says what that would mean.
    pub(crate) async fn recover(self, accept: bool) -> Result<Recovery, RecoverError> {
        let me = self.identity.node_id();
        let mut replica = self.replica.clone();
        replica.reload(&remaining_state(&self.store, GroupId(0))?)?;
        let cluster = replica.read(|state| state.cluster().cloned());
        let cluster = cluster.ok_or_else(|| RecoverError::NoCluster { dir: self.dir.clone() })?;
        if replica.read(|state| state.member(me).is_none()) {
            return Err(RecoverError::Removed);
        }
        let remains: Result<Vec<_>, _> =
            (0..=cluster.groups).map(|group| Remains::read(&self.store, GroupId(group))).collect();
        let remains = remains?;
        let mut recovery = Recovery {
            node: me.to_string(),
            cluster: format!("{:016x}", cluster.id),
            groups: (0..).zip(&remains).map(|(group, remains)| described(group, remains.as_ref(), me)).collect(),
            dropped: dropped(&replica, me),
            done: false,
        };
        if !accept {
            return Ok(recovery);
        }
        let batch = remains.iter().flatten().fold(Batch::new(), |batch, remains| remains.sole_voter(batch, me));
        self.store.commit(batch.put(TreeId::NODE, MARK, Vec::new()), Level::Disk).await?;
        let applied = self.settle(&remains, me).await?;
        for (group, applied) in recovery.groups.iter_mut().zip(applied) {
            group.applied = applied;
        }
        self.store.commit(Batch::new().delete(TreeId::NODE, MARK), Level::Disk).await?;
        self.store.checkpoint().await?;
        recovery.done = true;
        Ok(recovery)
    }

    /// Runs the groups until all is applied and nobody else is a member. Returns the last index of each that was applied.
    async fn settle(&self, remains: &[Option<Remains>], me: NodeId) -> Result<Vec<Option<u64>>, RecoverError> {
        let tasks = Arc::new(Tasks::default());
        let mut applied = Vec::new();
        for (number, remains) in (0..).zip(remains) {
            if remains.is_none() {
                applied.push(None);
                continue;
            }
            let failed = |detail: String| RecoverError::Group { group: number, detail };
            let group = self.start(number, me, &tasks).await.map_err(failed)?;
            let mut watch = group.watch();
            let whole = watch.wait_for(|status| status.role == Role::Leader && status.has_applied_own_term());
            let whole = tokio::time::timeout(APPLY, whole).await;
            let upto = whole.map_err(|_| failed("its log is not applied".to_owned()))?.applied;
            let settled = if number == 0 { self.remove_others(&group, me).await } else { Ok(()) };
            group.shutdown().await;
            settled.map_err(failed)?;
            applied.push(upto);
        }
        tasks.abort_all();
        Ok(applied)
    }

    async fn start(&self, number: u8, me: NodeId, tasks: &Arc<Tasks>) -> Result<Group, String> {
        let mut config = GroupConfig::new(GroupId(number), me);
        config.snapshots = Some(self.dir.join("raft"));
        let tasks = tasks.clone();
        let spawner: Spawner = Arc::new(move |name, work| tasks.spawn(name, work).detach());
        let around = Around { store: self.store.clone(), courier: Nobody::default(), spawner };
        let started = if number == 0 {
            Group::start(config, self.replica.clone(), around).await
        } else {
            Group::start(config, ShardMachine::new(Feeds::default()), around).await
        };
        started.map_err(|error| error.to_string())
    }

    async fn remove_others(&self, control: &Group, me: NodeId) -> Result<(), String> {
        for node in others(&self.replica, me) {
            let command = postcard::to_allocvec(&ControlCommand::RemoveNode { node, force: true });
            let reply = control.propose(command.map_err(|error| error.to_string())?.into()).await;
            let reply = reply.map_err(|error| error.to_string())?;
            let decided: Result<ControlReply, ControlRefused> =
                postcard::from_bytes(&reply).map_err(|error| error.to_string())?;
            decided.map_err(|refused| format!("{node} is not removed: {refused}"))?;
        }
        Ok(())
    }
}

fn others(replica: &Replica, me: NodeId) -> Vec<NodeId> {
    replica.read(|state| state.members().map(|member| member.record.id).filter(|node| *node != me).collect())
}

fn described(group: u8, remains: Option<&Remains>, me: NodeId) -> RecoveredGroup {
    RecoveredGroup {
        group,
        applied: remains.and_then(|remains| remains.applied),
        voter: remains.is_some_and(|remains| remains.voters.contains(&me)),
        voters: remains.map(|remains| remains.voters.iter().map(NodeId::to_string).collect()).unwrap_or_default(),
    }
}

fn dropped(replica: &Replica, me: NodeId) -> Vec<DroppedNode> {
    replica.read(|state| {
        let others = state.members().map(|member| &member.record).filter(|record| record.id != me);
        let dropped = |record: &crate::control::NodeRecord| DroppedNode {
            id: record.id.to_string(),
            name: record.name.clone(),
            addr: record.addr.clone(),
        };
        others.map(dropped).collect()
    })
}

/// There is no other node.
#[derive(Clone, Default)]
struct Nobody(Offers);

impl Courier for Nobody {
    fn call(&self, _: NodeId, _: GroupId, _: Bytes, _: Duration) -> BoxFuture<'static, Result<Bytes, Lost>> {
        ready(Err(Lost::NoLink)).boxed()
    }

    fn fetch(&self, _: NodeId, _: Arc<Download>) -> BoxFuture<'static, Result<(), FetchError>> {
        ready(Err(FetchError::NotThere)).boxed()
    }

    fn offers(&self) -> &Offers {
        &self.0
    }
}
