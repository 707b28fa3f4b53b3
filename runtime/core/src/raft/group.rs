//! The handle of one group on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    ChangeMembershipError, CheckIsLeaderError, ClientWriteError, ForwardToLeader, InitializeError, RaftError,
};
use openraft::{ChangeMembers, EmptyNode, RaftMetrics, ServerState};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::log::{Gate, Log};
use super::machine::Replica;
use super::network::{Caller, Fetcher, Network, Server};
use super::proposer::{Intake, Proposer};
use super::{
    Courier, GroupConfig, GroupId, Machine, ProposeError, Raft, ServeError, Spawner, StateView, Writer, encode,
};
use crate::NodeId;
use crate::blob::Offers;
use crate::clock;
use crate::store::{Store, StoreError};

/// What a group uses of its node.
pub(crate) struct Around<C> {
    /// Where log and state are kept.
    pub(crate) store: Arc<dyn Store>,
    /// The way to the other nodes.
    pub(crate) courier: C,
    /// Starts the group's tasks. openraft starts its own on the current runtime.
    pub(crate) spawner: Spawner,
}

/// The ways to the other nodes, as one group takes them.
struct Ways {
    caller: Caller,
    fetcher: Fetcher,
    offers: Offers,
}

/// Why a group does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The settings do not fit each other.
    #[error("settings of a replicated group: {0}")]
    Config(String),
    /// Log or state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// openraft refused.
    #[error("cannot start a replicated group: {0}")]
    Raft(String),
}

/// Why a read would not be linearizable now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BarrierError {
    /// This node does not lead the group, the named one may.
    #[error("not the leader of the group")]
    NotLeader(Option<NodeId>),
    /// A majority did not confirm in time that this node still leads.
    #[error("no quorum: a majority of the voters does not answer")]
    NoQuorum,
    /// The group on this node has ended.
    #[error("the group has stopped")]
    Stopped,
}

/// Why the members were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembershipError {
    /// This node does not lead the group, the named one may.
    #[error("not the leader of the group")]
    NotLeader(Option<NodeId>),
    /// Another change is not done yet.
    #[error("another change of members is under way")]
    Busy,
    /// The change makes no sense: no voter would be left, or a voter was no learner before.
    #[error("refused: {0}")]
    Refused(String),
    /// Not committed in time. It may still be.
    #[error("the change of members was not committed in time")]
    Unknown,
    /// The group on this node has ended.
    #[error("the group has stopped")]
    Stopped,
}

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Receives the log and has no vote, or is no member at all.
    Learner,
    /// Votes, and follows a leader or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads, as far as it knows.
    Leader,
    /// Has stopped.
    Stopped,
}

/// A group as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The leader, if one is known.
    pub(crate) leader: Option<NodeId>,
    /// The newest term that this node knows.
    pub(crate) term: u64,
    /// What this node is.
    pub(crate) role: Role,
    /// Index of the last entry in the log.
    pub(crate) last: Option<u64>,
    /// Index of the last entry applied.
    pub(crate) applied: Option<u64>,
    /// Term of the last entry applied.
    pub(crate) applied_term: Option<u64>,
    /// Index of the last entry in the newest snapshot.
    pub(crate) snapshot: Option<u64>,
    /// On a leader: time since a majority was last heard of, some hundred milliseconds when all is well. None on others,
    /// and on a leader that has not heard of one yet.
    pub(crate) quorum_age: Option<Duration>,
    /// Members with a vote, in order.
    pub(crate) voters: Vec<NodeId>,
    /// Members without, in order.
    pub(crate) learners: Vec<NodeId>,
    /// On a leader: up to which index each member has the log.
    pub(crate) matched: BTreeMap<u64, Option<u64>>,
}

impl Status {
    /// Whether an entry of the newest term is applied: a leader has then applied all that its predecessors committed.
    pub(crate) fn has_applied_own_term(&self) -> bool {
        self.applied_term == Some(self.term)
    }

    fn of(metrics: &RaftMetrics<u64, EmptyNode>) -> Self {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let learners: BTreeSet<u64> = membership.learner_ids().collect();
        let nodes = |ids: BTreeSet<u64>| ids.into_iter().map(NodeId).collect();
        let replication = metrics.replication.iter().flatten();
        Self {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            role: match metrics.state {
                _ if metrics.running_state.is_err() => Role::Stopped,
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            applied_term: metrics.last_applied.map(|id| id.leader_id.term),
            snapshot: metrics.snapshot.map(|id| id.index),
            quorum_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            voters: nodes(voters),
            learners: nodes(learners),
            matched: replication.map(|(node, id)| (*node, id.map(|id| id.index))).collect(),
        }
    }
}

/// Follows the status of a group.
#[derive(Debug, Clone)]
pub(crate) struct StatusWatch(watch::Receiver<RaftMetrics<u64, EmptyNode>>);

impl StatusWatch {
    /// The status now.
    pub(crate) fn status(&mut self) -> Status {
        Status::of(&self.0.borrow_and_update())
    }

    /// Waits until the status is another; false when the group has ended.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Waits for a status; the last one if the group ends before.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status();
            if wanted(&status) || !self.changed().await {
                return status;
            }
        }
    }
}

/// A replicated group on this node. Clones are the same group.
#[derive(Clone)]
pub(crate) struct Group {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: GroupConfig,
    pub(super) raft: Raft,
    pub(super) intake: Intake,
    pub(super) caller: Caller,
    /// One change of members or leader at a time.
    pub(super) office: Mutex<()>,
    /// The leader lets its lease run out, to be succeeded.
    pub(super) silent: Arc<AtomicBool>,
    pub(super) server: Server,
    view: StateView,
    stop: watch::Sender<bool>,
}

impl Group {
    /// Starts the group with what the store has of it. A group of which it has nothing waits to be
    /// [initialized](Self::initialize), or to be made a member by another node.
    ///
    /// # Errors
    /// When the settings make no sense or the store cannot be read.
    pub(crate) async fn start<C: Courier>(
        config: GroupConfig,
        machine: impl Machine,
        around: Around<C>,
    ) -> Result<Self, StartError> {
        let group = config.group;
        let courier = around.courier;
        let (calling, offers) = (courier.clone(), courier.offers().clone());
        let caller: Caller = Arc::new(move |to, body, limit| calling.call(to, group, body, limit));
        let fetcher: Fetcher = Arc::new(move |from, file| courier.fetch(from, file));
        let ways = Ways { caller, fetcher, offers };
        Self::open(config, Box::new(machine), around.store, ways, around.spawner).await
    }

    async fn open(
        config: GroupConfig,
        machine: Box<dyn Machine>,
        store: Arc<dyn Store>,
        ways: Ways,
        spawner: Spawner,
    ) -> Result<Self, StartError> {
        let Ways { caller, fetcher, offers } = ways;
        let settings = config.openraft().map_err(StartError::Config)?;
        let (stop, stopped) = watch::channel(false);
        let writer = Writer { store, group: config.group, stopped };
        let gate = Arc::<Gate>::default();
        let log = Log::open(writer.clone(), config.recent_bytes, Arc::clone(&gate))?;
        let replica = Replica::open(machine, writer, config.snapshots.clone(), Arc::clone(&gate)).await?;
        let (view, snapshots) = (replica.view(), replica.snapshots());
        let network = Network { caller: Arc::clone(&caller), offers };
        let raft = Raft::new(config.node.0, Arc::new(settings), network, log, replica).await;
        let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
        let (intake, proposer) = Proposer::new(raft.clone(), config.node, config.commit_limit);
        (spawner)("raft-proposer", Box::pin(proposer.run()));
        let (office, silent) = (Mutex::new(()), Arc::new(AtomicBool::new(false)));
        let beats = beat(raft.clone(), config.heartbeat, Arc::clone(&silent), stop.subscribe());
        (spawner)("raft-beat", Box::pin(beats));
        let server = Server::new(raft.clone(), snapshots, gate, spawner, fetcher);
        Ok(Self { inner: Arc::new(Inner { config, raft, intake, caller, office, silent, server, view, stop }) })
    }

    /// Which group it is.
    pub(crate) fn id(&self) -> GroupId {
        self.inner.config.group
    }

    pub(super) fn me(&self) -> NodeId {
        self.inner.config.node
    }

    /// Founds the group with its first voters. Every one of them may do it, with the same list; it does nothing to a group
    /// that was founded before.
    ///
    /// # Errors
    /// [`MembershipError::Refused`] when this node is not among them.
    pub(crate) async fn initialize(&self, voters: &[NodeId]) -> Result<(), MembershipError> {
        match self.inner.raft.initialize(ids(voters)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(refused)) => Err(MembershipError::Refused(refused.to_string())),
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
        }
    }

    /// Proposes a command on the leader, and returns the machine's reply once it is applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]; only after [`ProposeError::Unknown`] the command may have taken effect.
    ///
    /// # Cancel safety
    /// A command whose future is dropped may or may not take effect.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        self.may_propose()?;
        self.inner.intake.propose(command).await
    }

    fn may_propose(&self) -> Result<(), ProposeError> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.running_state.is_err() {
            return Err(ProposeError::Stopped);
        }
        if metrics.state != ServerState::Leader {
            return Err(ProposeError::NotLeader(self.other(metrics.current_leader)));
        }
        let age = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        // A leader that is silent on purpose has a successor soon; commands wait for it.
        if age.is_some_and(|age| age > self.inner.config.quorum_limit) && !self.is_silent() {
            return Err(ProposeError::NoQuorum);
        }
        Ok(())
    }

    /// Waits until this node has applied everything that was acknowledged by anybody before the call: what is read from
    /// its state afterwards is not stale.
    ///
    /// # Errors
    /// When this node does not lead, or cannot find out in time whether it does.
    pub(crate) async fn barrier(&self) -> Result<(), BarrierError> {
        if self.is_silent() {
            // It would have to ask the others, and that renews their lease.
            return Err(BarrierError::NoQuorum);
        }
        let confirmed = self.inner.raft.ensure_linearizable();
        match tokio::time::timeout(self.inner.config.commit_limit, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(BarrierError::NotLeader(self.other(to.leader_id)))
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(BarrierError::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(BarrierError::Stopped),
        }
    }

    fn is_silent(&self) -> bool {
        self.inner.silent.load(Ordering::Acquire)
    }

    /// The group as this node sees it.
    pub(crate) fn status(&self) -> Status {
        Status::of(&self.inner.raft.metrics().borrow())
    }

    /// How long ago this node's copy was known to lack nothing, as far as its leader was one.
    pub(crate) fn age(&self) -> Duration {
        let followed = self.inner.server.age();
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.state {
            ServerState::Leader => Duration::from_millis(metrics.millis_since_quorum_ack.unwrap_or(0)),
            _ => followed,
        }
    }

    /// Follows the status.
    pub(crate) fn watch(&self) -> StatusWatch {
        StatusWatch(self.inner.raft.metrics())
    }

    /// The machine's durable state on this node. It may be stale; after [`barrier`](Self::barrier) it is not.
    pub(crate) fn state(&self) -> StateView {
        self.inner.view.clone()
    }

    /// Adds a member without a vote, which then receives snapshot and log. Returns before it has them, see
    /// [`Status::matched`].
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub(crate) async fn add_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddNodes([(node.0, EmptyNode {})].into()), true).await
    }

    /// Gives exactly these members a vote. Each has to be a voter or a learner before; who loses the vote stays a learner.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub(crate) async fn set_voters(&self, voters: &[NodeId]) -> Result<(), MembershipError> {
        self.change(ChangeMembers::ReplaceAllVoters(ids(voters)), true).await
    }

    /// Removes a member; nothing happens if it is none. A leader that removes itself costs an election.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        let status = self.status();
        if status.voters.contains(&node) {
            return self.change(ChangeMembers::RemoveVoters(ids(&[node])), false).await;
        }
        if status.learners.contains(&node) {
            return self.change(ChangeMembers::RemoveNodes(ids(&[node])), false).await;
        }
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<u64, EmptyNode>, retain: bool) -> Result<(), MembershipError> {
        let _office = self.inner.office.lock().await;
        let changed = self.inner.raft.change_membership(change, retain);
        let Ok(changed) = tokio::time::timeout(self.inner.config.membership_limit, changed).await else {
            return Err(MembershipError::Unknown);
        };
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }))) => {
                Err(MembershipError::NotLeader(self.other(leader_id)))
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(refused))) => Err(match refused {
                ChangeMembershipError::InProgress(_) => MembershipError::Busy,
                refused => MembershipError::Refused(refused.to_string()),
            }),
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
        }
    }

    /// Makes the state as it is the beginning of the log: whoever becomes a member gets a snapshot of it first. For a group
    /// whose state was there before its log.
    ///
    /// # Errors
    /// When this node does not lead, or the snapshot is not made in time.
    pub(crate) async fn seal(&self) -> Result<(), String> {
        let mut watch = self.watch();
        let limit = self.inner.config.seal_limit;
        let leads = watch.wait_for(|status| status.role == Role::Leader && status.has_applied_own_term());
        let status = tokio::time::timeout(limit, leads).await.map_err(|_| "no election".to_owned())?;
        let upto = status.applied;
        let raft = &self.inner.raft;
        raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
        let made = watch.wait_for(|status| status.snapshot >= upto);
        tokio::time::timeout(limit, made).await.map_err(|_| "no snapshot".to_owned())?;
        raft.trigger().purge_log(upto.unwrap_or(0)).await.map_err(|error| error.to_string())
    }

    /// Serves what a [`Courier`] of another node brought, and returns the body of the answer.
    ///
    /// # Errors
    /// When the request cannot be served; the other node takes that for no answer.
    pub(crate) async fn serve(&self, from: NodeId, body: Bytes) -> Result<Bytes, ServeError> {
        let elect = async |request| self.stand(from, request).await;
        let answer = self.inner.server.serve(from, &body, elect).await?;
        Ok(encode(&answer).into())
    }

    /// Ends the group on this node. What was acknowledged is kept.
    pub(crate) async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.id(), %error, "replicated group ended badly");
        }
    }

    /// A leader to go to: this node is none, if it is asked for one.
    fn other(&self, leader: Option<u64>) -> Option<NodeId> {
        leader.map(NodeId).filter(|leader| *leader != self.me())
    }
}

/// Has the leader beat, at the moments at which all groups of the machine do: what goes to one node goes there in one piece, and
/// wakes it once.
async fn beat(raft: Raft, period: Duration, silent: Arc<AtomicBool>, mut stop: watch::Receiver<bool>) {
    let begun = u128::from(clock::boot_ms());
    let first = period.as_millis() - begun % period.as_millis().max(1);
    let first = Duration::from_millis(u64::try_from(first).unwrap_or_default());
    let mut beats = tokio::time::interval_at(Instant::now() + first, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let metrics = raft.metrics();
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = beats.tick() => {}
        }
        let leads = metrics.borrow().state == ServerState::Leader;
        if leads && !silent.load(Ordering::Acquire) && raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}

fn ids(nodes: &[NodeId]) -> BTreeSet<u64> {
    nodes.iter().map(|node| node.0).collect()
}
