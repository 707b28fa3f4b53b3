//! The cluster side of a node: who else there is, what they agree on, and which part of the work is this node's.
//!
//! | look for | in |
//! |---|---|
//! | how a node founds, joins, resumes, leaves | `start` |
//! | decisions and the state that they make | `control`, [`crate::control`] |
//! | beats, leases, who is down | `member`, [`crate::membership`] |
//! | members and leaders of the replicated groups | `keeper`, [`crate::groups`] |
//! | sessions of `ractor_cluster` and what they tell | `presence` |
//! | a majority that is gone for good | `recover` |
//! | members that have moved | `addresses` |
//! | how old the copies here may be | `age` |
//! | what people are told of all that | `observe` |
//! | what a node says in its own name | `statement` |
//! | what travels between nodes beside mail | `services` |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use serde::Serialize;
use tokio::sync::watch;

use crate::blob::BlobLane;
use crate::clock;
use crate::control::{
    ControlCommand, ControlMachine, ControlRefused, ControlReply, KvEntry, MemberState, NodeRecord, TokenRecord,
};
use crate::groups::store::Shard;
use crate::groups::target::odd;
use crate::identity::{Identity, PublicKey};
use crate::join::JoinToken;
use crate::link::lane::Lane;
use crate::link::peers::PeersMsg;
use crate::membership::liveness::LivenessConfig;
use crate::node_id::{NodeId, Run};
use crate::placement::may_vote;
use crate::raft::{Group, Role};
use crate::router::Router;
use crate::supervisor::SupervisorHandle;
use crate::telemetry::{ClusterMetrics, LinkMetrics, Metrics};
use crate::transport::{ClusterTransport, Pins};

pub(crate) mod addresses;
mod age;
pub(crate) mod control;
pub(crate) mod keeper;
pub(crate) mod leads;
pub(crate) mod member;
mod observe;
pub(crate) mod presence;
pub(crate) mod recover;
pub(crate) mod services;
pub(crate) mod start;
mod statement;

pub use crate::link::gateway::NodeNews;
use control::Control;
pub use control::DecideError;
pub use recover::{DroppedNode, RecoverError, RecoveredGroup, Recovery};
pub use start::ClusterError;

/// A cluster is well only while a majority of its voters answered within this time.
const QUORUM_AGE: Duration = Duration::from_secs(2);

/// The cluster that a node belongs to. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) record: NodeRecord,
    pub(crate) incarnation: u64,
    pub(crate) max_voters: u8,
    pub(crate) liveness: LivenessConfig,
    pub(crate) transport: Arc<dyn ClusterTransport>,
    pub(crate) blobs: Arc<BlobLane>,
    pub(crate) pins: Pins,
    pub(crate) router: Arc<Router>,
    pub(crate) control: Control,
    pub(crate) shards: Vec<Arc<Shard>>,
    pub(crate) leads: Arc<leads::Leads>,
    /// Members whose groups are being taken over.
    pub(crate) gone: parking_lot::Mutex<std::collections::HashSet<NodeId>>,
    pub(crate) member: member::MemberRef,
    pub(crate) peers: ArcSwapOption<ActorRef<PeersMsg>>,
    pub(crate) services: std::sync::OnceLock<SupervisorHandle>,
    pub(crate) presence: presence::Presence,
    /// Members as the node that let this one in knew them, until its own copy of the state has any.
    pub(crate) bootstrap: Vec<NodeRecord>,
    pub(crate) cluster: crate::control::Cluster,
    pub(crate) addresses: addresses::Addresses,
    /// Addresses of any members, from the configuration.
    pub(crate) seeds: Arc<[String]>,
    /// What upper crates say is not well, by area.
    pub(crate) told: parking_lot::Mutex<std::collections::BTreeMap<&'static str, Vec<String>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({:016x})", self.0.cluster.id)
    }
}

/// How the cluster is, as one node sees it.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterStatus {
    /// Names the cluster, 16 hex digits.
    pub cluster: String,
    /// The node that says so.
    pub node: String,
    /// `healthy`, `degraded` or `no_quorum`.
    pub health: &'static str,
    /// What is not well, in words.
    pub problems: Vec<String>,
    /// Number of the membership.
    pub epoch: u64,
    /// Leader of the control group.
    pub leader: Option<String>,
    /// All members.
    pub members: Vec<MemberStatus>,
    /// All replicated groups; 0 is the control group.
    pub groups: Vec<GroupStatus>,
}

/// One member in a [`ClusterStatus`].
#[derive(Debug, Clone, Serialize)]
pub struct MemberStatus {
    /// Its id, 16 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where other nodes reach it.
    pub addr: String,
    /// `joining`, `up`, `draining` or `down`.
    pub state: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Why.
    pub reason: String,
    /// Share of the actors.
    pub weight: u32,
    /// Its labels.
    pub labels: crate::placement::Labels,
    /// Version of its program.
    pub version: String,
    /// Whether the node that says so has a link to it; always for itself.
    pub linked: bool,
    /// Replicated groups that it leads.
    pub leads: Vec<u8>,
}

/// One group in a [`ClusterStatus`].
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// Its number.
    pub group: u8,
    /// Its leader.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// Members with a vote.
    pub voters: Vec<String>,
    /// Members with a copy.
    pub learners: Vec<String>,
    /// Index of the last entry applied here.
    pub applied: Option<u64>,
}

impl Cluster {
    /// Names the cluster.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.cluster.id
    }

    /// Where other nodes reach this one.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.0.record.addr
    }

    /// All members, as this node knows them.
    #[must_use]
    pub fn members(&self) -> Vec<crate::control::Member> {
        self.0.control.replica.read(|state| state.members().cloned().collect())
    }

    /// Makes a token with which `uses` nodes may join within `ttl`.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn new_token(&self, uses: u32, ttl: Duration, note: &str) -> Result<JoinToken, DecideError> {
        let token = JoinToken::generate(self.id(), self.0.identity.public_key()).map_err(|_| DecideError::Stopped)?;
        let now_ms = clock::unix_ms();
        let record = TokenRecord {
            id: token.token_id,
            secret_hash: token.secret_hash(),
            expires_at_ms: now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            uses_left: uses,
            note: note.to_owned(),
        };
        self.0.control.decide(ControlCommand::CreateToken { token: record, now_ms }).await?;
        Ok(token)
    }

    /// See [`Village::has_ended`](crate::Village::has_ended).
    pub(crate) fn has_ended(&self, run: Run) -> bool {
        self.0.control.replica.read(|state| {
            state.member(run.node).is_some_and(|member| {
                let is_down = member.state == MemberState::Down;
                member.incarnation > run.incarnation || (member.incarnation == run.incarnation && is_down)
            })
        })
    }

    /// All tokens, without their secrets.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenRecord> {
        self.0.control.replica.read(|state| state.tokens().cloned().collect())
    }

    /// Ends a token.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn revoke_token(&self, id: u64) -> Result<(), DecideError> {
        self.0.control.decide(ControlCommand::RevokeToken { id }).await.map(drop)
    }

    /// Lets a node finish what it has and take nothing new.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn drain(&self, node: NodeId) -> Result<(), DecideError> {
        let incarnation = self.0.control.replica.read(|state| state.member(node).map(|member| member.incarnation));
        let command = ControlCommand::SetState {
            node,
            state: MemberState::Draining,
            incarnation: incarnation.unwrap_or(0),
            up_epoch: None,
            now_ms: clock::unix_ms(),
            reason: "drained".to_owned(),
        };
        self.0.control.decide(command).await.map(drop)
    }

    /// Forgets a node; it must join anew.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn remove(&self, node: NodeId, force: bool) -> Result<(), DecideError> {
        let (is_down, several) = self.0.control.replica.read(|state| {
            let is_down = state.member(node).is_some_and(|member| member.state == MemberState::Down);
            (is_down, state.members().count() > 1)
        });
        // That a node is up, or the last one, is refused by the decision itself.
        if several && (force || is_down) {
            let groups = keeper::stranded_by(&self.0, node);
            if !groups.is_empty() {
                return Err(ControlRefused::Stranded { groups }.into());
            }
        }
        self.0.control.decide(ControlCommand::RemoveNode { node, force }).await.map(drop)
    }

    /// A small value that all nodes agree on, as this node knows it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<KvEntry> {
        self.0.control.replica.read(|state| state.value(key).cloned())
    }

    /// Writes a small value, if `expect` is its version (0: it must not exist). Returns the new version.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn put(&self, key: &str, value: Vec<u8>, expect: Option<u64>) -> Result<u64, DecideError> {
        match self.0.control.decide(ControlCommand::Put { key: key.to_owned(), value, expect }).await? {
            ControlReply::Version(version) => Ok(version),
            _ => Err(DecideError::Stopped),
        }
    }

    /// Deletes a small value, if `expect` is its version.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn delete(&self, key: &str, expect: Option<u64>) -> Result<(), DecideError> {
        self.0.control.decide(ControlCommand::Delete { key: key.to_owned(), expect }).await.map(drop)
    }

    /// The small values whose names begin with `prefix`, as this node knows them.
    #[must_use]
    pub fn list(&self, prefix: &str) -> Vec<(String, KvEntry)> {
        self.0
            .control
            .replica
            .read(|state| state.values(prefix).map(|(key, entry)| (key.to_owned(), entry.clone())).collect())
    }

    /// Has a machine of the control group carry out a command, and returns its answer.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn command(&self, ns: &str, command: Vec<u8>) -> Result<Vec<u8>, DecideError> {
        let command = ControlCommand::Machine { ns: ns.to_owned(), command, now_ms: clock::unix_ms() };
        match self.0.control.decide(command).await? {
            ControlReply::Machine(answer) => Ok(answer),
            _ => Err(DecideError::Stopped),
        }
    }

    /// Reads a machine of the control group, as this node knows it; none when this program does not host it.
    #[must_use]
    pub fn machine<M: ControlMachine, T>(&self, ns: &str, read: impl FnOnce(&M) -> T) -> Option<T> {
        self.0.control.replica.read(|state| state.machine::<M>(ns).map(read))
    }

    /// The shard group that keeps the state of an actor of a `Replicated` kind, from 1.
    #[must_use]
    pub fn group_of(&self, kind: &str, key: &str) -> u8 {
        let group = self.0.router.view.group(crate::placement::slot(kind, key).0);
        u8::try_from(group + 1).unwrap_or(u8::MAX)
    }

    /// Tells when something that the control group decided is applied on this node; counts upwards.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.control.replica.changes()
    }

    /// Waits until the cluster is as wanted, as this node sees it, and returns how it is. It looks whenever members, leaders,
    /// problems or what is applied here change.
    pub async fn wait_for(&self, mut is_so: impl FnMut(&ClusterStatus) -> bool) -> ClusterStatus {
        let inner = &self.0;
        let (mut control, mut news) = (inner.control.replica.changes(), 0);
        let mut groups: Vec<_> = (0..=u8::MAX).map_while(|group| inner.group(group)).map(Group::watch).collect();
        loop {
            // What changes after this look is heard below.
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            let group = groups.iter_mut().map(|group| {
                let changed = async {
                    // A group that has ended never changes.
                    if !group.changed().await {
                        std::future::pending::<()>().await;
                    }
                };
                Box::pin(changed)
            });
            tokio::select! {
                _ = control.changed() => {}
                () = inner.router.news_since(&mut news) => {}
                _ = futures::future::select_all(group) => {}
            }
        }
    }

    /// Whether this node takes part: it is a member that is `Up`, and knows a leader.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        let inner = &self.0;
        let me = inner.router.view.me;
        let up = inner.control.replica.read(|state| state.member(me).is_some_and(|m| m.state == MemberState::Up));
        up && inner.control.group.status().leader.is_some()
            && (inner.router.view.is_alone() || inner.router.view.holds_lease())
    }

    /// Shows what is not well in an area of an upper crate, among the problems of the cluster; nothing once all is well again.
    pub fn tell_problems(&self, area: &'static str, problems: Vec<String>) {
        let is_new = {
            let mut told = self.0.told.lock();
            let is_new = told.remove(area).unwrap_or_default() != problems;
            if !problems.is_empty() {
                told.insert(area, problems);
            }
            is_new
        };
        if is_new {
            self.0.router.tell_news();
        }
    }

    /// Feeds the metrics.
    pub(crate) fn show(&self, metrics: &Metrics) {
        let lanes = self.0.router.lanes();
        let moved = |lane: &Arc<Lane>| [lane.bytes_in.load(Ordering::Relaxed), lane.bytes_out.load(Ordering::Relaxed)];
        let links: Vec<_> = lanes.iter().map(|lane| (lane.peer().to_string(), moved(lane))).collect();
        metrics.set::<ClusterMetrics>().show(&self.status(), &links);
        let link = metrics.set::<LinkMetrics>();
        for (reason, total) in self.0.transport.rejected() {
            link.rejected_in_all(reason, total);
        }
    }

    /// How the cluster is.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let inner = &self.0;
        let me = inner.router.view.me;
        let groups: Vec<_> =
            (0..=u8::MAX).map_while(|group| inner.group(group)).map(|group| inner.describe(group)).collect();
        let leads = |node: &str| {
            groups.iter().filter(|group| group.leader.as_deref() == Some(node)).map(|group| group.group).collect()
        };
        let (epoch, members) = inner.control.replica.read(|state| {
            let members = state.members().map(|member| {
                let id = member.record.id.to_string();
                MemberStatus {
                    name: member.record.name.clone(),
                    addr: member.record.addr.clone(),
                    state: member.state.to_string(),
                    since_ms: member.since_ms,
                    reason: member.reason.clone(),
                    weight: member.record.weight,
                    labels: member.record.labels.clone(),
                    version: member.record.version.clone(),
                    linked: member.record.id == me || inner.router.lane(member.record.id).is_some(),
                    leads: leads(&id),
                    id,
                }
            });
            (state.epoch(), members.collect::<Vec<_>>())
        });
        let mut problems = inner.problems(&members, &groups);
        problems.extend(inner.told.lock().values().flatten().cloned());
        let health = if !inner.has_quorum() {
            "no_quorum"
        } else if problems.is_empty() {
            "healthy"
        } else {
            "degraded"
        };
        ClusterStatus {
            cluster: format!("{:016x}", self.id()),
            node: me.to_string(),
            health,
            problems,
            epoch,
            leader: groups.first().and_then(|group| group.leader.clone()),
            members,
            groups,
        }
    }
}

impl Inner {
    /// A replicated group by its number; 0 is the control group.
    pub(crate) fn group(&self, number: u8) -> Option<&Group> {
        match number.checked_sub(1) {
            None => Some(&self.control.group),
            Some(shard) => self.shards.get(usize::from(shard))?.group(),
        }
    }

    /// The key of a member.
    pub(crate) fn key_of(&self, node: NodeId) -> Option<PublicKey> {
        let known = self.control.replica.read(|state| {
            let key = state.member(node).map(|member| member.record.public_key);
            (state.members().next().is_some()).then_some(key)
        });
        let joined = || self.bootstrap.iter().find(|record| record.id == node).map(|record| record.public_key);
        known.unwrap_or_else(joined).map(PublicKey)
    }

    fn describe(&self, group: &Group) -> GroupStatus {
        let status = group.status();
        let names = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect();
        let known = group.id().0.checked_sub(1).and_then(|shard| self.router.view.leader(usize::from(shard)));
        GroupStatus {
            group: group.id().0,
            leader: status.leader.or(known).map(|node| node.to_string()),
            term: status.term,
            voters: names(&status.voters),
            learners: names(&status.learners),
            applied: status.applied,
        }
    }

    /// Whether this node and a majority of the control group hear each other.
    fn has_quorum(&self) -> bool {
        let status = self.control.group.status();
        match status.role {
            Role::Leader => status.quorum_age.is_none_or(|age| age < QUORUM_AGE),
            _ => status.leader.is_some() && self.router.view.holds_lease(),
        }
    }

    fn problems(&self, members: &[MemberStatus], groups: &[GroupStatus]) -> Vec<String> {
        let mut problems = Vec::new();
        for member in members.iter().filter(|member| member.state != "up") {
            problems.push(format!("{} is {}", member.name, member.state));
        }
        if self.router.view.is_alone() {
            return problems;
        }
        for group in groups {
            if group.leader.is_none() && !group.voters.is_empty() {
                problems.push(format!("group {} has no leader", group.group));
            }
        }
        problems.extend(self.too_few_voters(members, groups));
        problems
    }

    /// Groups that cannot lose as many nodes as they should, because votes are still being given out.
    fn too_few_voters(&self, members: &[MemberStatus], groups: &[GroupStatus]) -> Vec<String> {
        let replicas = usize::from(self.control.replica.read(|state| state.cluster().map_or(1, |it| it.replicas)));
        let counts = |member: &&MemberStatus| member.state == "up" && member.weight > 0 && may_vote(&member.labels);
        let up = members.iter().filter(counts).count();
        let wanted = odd(up.min(replicas));
        // Of a group without a copy here nothing is known, unless it belongs here.
        let me = self.router.view.me.to_string();
        let holds_all = up <= replicas && members.iter().filter(counts).any(|member| member.id == me);
        let is_known = |group: &&GroupStatus| holds_all || !group.voters.is_empty();
        let few = groups.iter().filter(is_known).filter(|group| group.voters.len() < wanted);
        few.map(|group| format!("group {} has {} of {wanted} voters", group.group, group.voters.len())).collect()
    }
}
