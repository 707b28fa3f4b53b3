//! How a node becomes part of a cluster, at its start: it founds one, joins one, or goes on as a member of one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use ractor::Actor;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::addresses::{self, AddrRecord, Addresses, AddrsService};
use super::control::{Control, ControlService, Replica};
use super::leads::LeadsService;
use super::member::{self, BeatService, Member, MemberMsg, MemberRef};
use super::presence::Presence;
use super::services::{ADDRS, BEAT, CONTROL, LEADS, LaneCourier, RAFT, RaftService};
use super::{Cluster, DecideError, Inner, keeper, observe, recover};
use crate::blob::{BlobLane, Blobs, Counted};
use crate::clock;
use crate::config::{ControlConfig, JoinConfig, NodeConfig};
use crate::control::{Cluster as Founded, ControlCommand, Cookie, HostedRecord, MemberState, NodeRecord};
use crate::groups::machine::ShardMachine;
use crate::groups::store::Shard;
use crate::history::What;
use crate::hosted_kind::HostedKind;
use crate::identity::{Identity, PublicKey};
use crate::join::{JoinError, JoinRequest, JoinUrl, request_join, serve_join};
use crate::link::peers::{Evidence, Peer, Peers, PeersMsg, Witness};
use crate::node_id::NodeId;
use crate::raft::{Around, Group, GroupConfig, GroupId, Role, Spawner};
use crate::replica_view::Views;
use crate::router::{Router, Service};
use crate::store::{Batch, Level, Store, StoreError, TreeId};
use crate::supervisor::{ChildSpec, Strategy, SupervisorHandle, SupervisorSpec};
use crate::task::Tasks;
use crate::transport::{ClusterTransport, ListenerLimits, Pins, Protocol, TlsTcp};
use crate::village::Village;

/// What the node that let this one in said, kept until this node's own copy of the control state has it.
const JOINED_KEY: &[u8] = b"node.joined";
/// Join requests that are decided at once.
const JOINS: usize = 16;
/// How long a founder waits for itself to lead.
const FOUND: Duration = Duration::from_secs(10);
/// Pause before a node says again what it is now.
const ANNOUNCE: Duration = Duration::from_millis(500);

/// Why a node is not part of a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {addr} for other nodes: {source}")]
    Listen {
        /// `node.listen`.
        addr: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Other nodes could not be told where this one is.
    #[error("node.listen is {listen}, so the address for other nodes has to be given as node.advertise")]
    NoAddress {
        /// `node.listen`.
        listen: String,
    },
    /// The join token cannot be read.
    #[error("join.token: {0}")]
    Token(String),
    /// No seed let this node in.
    #[error("cannot join through {addr}")]
    Join {
        /// The last seed that was tried.
        addr: String,
        /// Why not.
        #[source]
        source: JoinError,
    },
    /// The answer to the join request is of another version.
    #[error("the node at {addr} speaks another version")]
    Version {
        /// The seed.
        addr: String,
    },
    /// A replicated group did not start.
    #[error("group {group}: {detail}")]
    Group {
        /// Its number.
        group: u8,
        /// Why not.
        detail: String,
    },
    /// The founding was not decided.
    #[error("the cluster was not founded: {0}")]
    Found(DecideError),
    /// A recovery was begun and not ended.
    #[error("the recovery of the cluster was cut off")]
    Recovering,
    /// What the node knows of its cluster cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a joining node is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Joined {
    cluster: Founded,
    members: Vec<NodeRecord>,
}

/// What a cluster node is made of.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u64,
    pub(crate) node: NodeConfig,
    pub(crate) join: JoinConfig,
    pub(crate) config: ControlConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    /// Bytes a second of blobs to one member; 0 is no limit.
    pub(crate) blob_rate: u64,
    pub(crate) counted: Counted,
    pub(crate) router: Arc<Router>,
    pub(crate) tasks: Arc<Tasks>,
    /// For snapshots; in memory if nowhere.
    pub(crate) dir: Option<PathBuf>,
    /// Kinds hosted here, with the versions of their messages.
    pub(crate) kinds: Vec<HostedRecord>,
    pub(crate) replica: Replica,
    pub(crate) views: Views,
}

impl Parts {
    fn group_config(&self, group: u8) -> GroupConfig {
        let mut config = GroupConfig::new(GroupId(group), self.identity.node_id());
        config.heartbeat = self.config.heartbeat.get();
        [config.election_min, config.election_max] = self.config.election.map(crate::config::Period::get);
        config.snapshots = self.dir.as_ref().map(|dir| dir.join("raft"));
        config
    }

    fn spawner(&self) -> Spawner {
        let tasks = self.tasks.clone();
        Arc::new(move |name, work| tasks.spawn(name, work).detach())
    }

    fn around(&self, blobs: &Arc<BlobLane>) -> Around<LaneCourier> {
        let courier = LaneCourier { router: self.router.clone(), blobs: blobs.clone() };
        Around { store: self.store.clone(), courier, spawner: self.spawner() }
    }
}

/// Opens the node's door and its groups, and makes it a member.
pub(crate) async fn open(parts: Parts) -> Result<Cluster, ClusterError> {
    if recover::is_under_way(&*parts.store)? {
        return Err(ClusterError::Recovering);
    }
    let pins = Pins::default();
    let listen = &parts.node.listen;
    let spawn = |work| parts.tasks.spawn("cluster.listen", work).detach();
    let transport = TlsTcp::bind(listen, &parts.identity, &pins, ListenerLimits::default(), spawn).await;
    let transport = transport.map_err(|source| ClusterError::Listen { addr: listen.clone(), source })?;
    let transport: Arc<dyn ClusterTransport> = Arc::new(transport);
    let counted = parts.counted.clone();
    let blobs = Arc::new(BlobLane::new(transport.clone(), &parts.blobs, parts.blob_rate, counted));
    parts.blobs.connect(blobs.clone());
    let record = record(&parts, transport.local_addr())?;
    let group = Group::start(parts.group_config(0), parts.replica.clone(), parts.around(&blobs)).await;
    let group = group.map_err(|error| ClusterError::Group { group: 0, detail: error.to_string() })?;
    let control = Control::new(group, parts.replica.clone(), parts.router.clone());
    let joined = membership(&parts, &control, &*transport, &record).await?;
    let view = &parts.router.view;
    view.set_groups(usize::from(joined.cluster.groups));
    let alone = is_alone(&control.replica, view.me);
    view.set_alone(alone);
    parts.router.follow(&control.replica);
    let shards = shards(&parts, &blobs, &joined.cluster, alone).await?;
    let own = AddrRecord::sign(&parts.identity, joined.cluster.id, parts.incarnation, &record.addr);
    let addresses = Addresses::open(joined.cluster.id, parts.store.clone(), own).await?;
    let seeds = parts.join.seeds.iter().filter(|seed| **seed != record.addr).cloned().collect();
    Ok(Cluster(Arc::new(Inner {
        identity: parts.identity,
        record,
        incarnation: parts.incarnation,
        max_voters: parts.config.max_voters,
        liveness: parts.config.liveness(),
        transport,
        blobs,
        pins,
        router: parts.router,
        control,
        shards,
        leads: Arc::default(),
        gone: parking_lot::Mutex::default(),
        member: MemberRef::default(),
        peers: arc_swap::ArcSwapOption::empty(),
        services: OnceLock::new(),
        presence: Presence::default(),
        bootstrap: joined.members,
        cluster: joined.cluster,
        addresses,
        seeds,
        told: parking_lot::Mutex::default(),
    })))
}

/// What this node says about itself.
fn record(parts: &Parts, local: Option<SocketAddr>) -> Result<NodeRecord, ClusterError> {
    let node = &parts.node;
    let addr = match (node.advertise.as_str(), local) {
        ("", Some(local)) if local.ip().is_unspecified() => {
            let ip = outward(local.ip()).ok_or_else(|| ClusterError::NoAddress { listen: node.listen.clone() })?;
            SocketAddr::new(ip, local.port()).to_string()
        }
        ("", Some(local)) => local.to_string(),
        ("", None) => node.listen.clone(),
        (advertise, local) => match (advertise.rsplit_once(':'), local) {
            // The port that was taken for 0.
            (Some((host, "0")), Some(local)) => format!("{host}:{}", local.port()),
            _ => advertise.to_owned(),
        },
    };
    Ok(NodeRecord {
        id: parts.identity.node_id(),
        public_key: parts.identity.public_key().0,
        addr,
        name: node.display_name(),
        labels: node.labels.clone(),
        weight: node.effective_weight(),
        kinds: parts.kinds.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The address from which this machine would send to others. Nothing is sent: the address is one for documentation, RFC 5737.
fn outward(unspecified: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0)).ok()?;
    let there: SocketAddr = if unspecified.is_ipv4() { ([192, 0, 2, 1], 9).into() } else { return None };
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// Founds a cluster, joins one, or finds that this node is a member.
async fn membership(
    parts: &Parts,
    control: &Control,
    transport: &dyn ClusterTransport,
    record: &NodeRecord,
) -> Result<Joined, ClusterError> {
    let known = control.replica.read(|state| {
        let members = state.members().map(|member| member.record.clone()).collect();
        state.cluster().map(|cluster| Joined { cluster: cluster.clone(), members })
    });
    if let Some(known) = known {
        return Ok(known);
    }
    if let Some(bytes) = parts.store.get(TreeId::NODE, JOINED_KEY)?
        && let Ok(joined) = postcard::from_bytes(&bytes)
    {
        return Ok(joined);
    }
    if parts.join.token.is_empty() {
        return found(parts, control, record).await;
    }
    let joined = join(&parts.join, transport, record).await?;
    let bytes = postcard::to_allocvec(&joined).unwrap_or_default();
    parts.store.commit(Batch::new().put(TreeId::NODE, JOINED_KEY, bytes), Level::Disk).await?;
    Ok(joined)
}

async fn found(parts: &Parts, control: &Control, record: &NodeRecord) -> Result<Joined, ClusterError> {
    let me = parts.identity.node_id();
    let group = &control.group;
    let failed = |detail: String| ClusterError::Group { group: 0, detail };
    group.initialize(&[me]).await.map_err(|error| failed(error.to_string()))?;
    let mut status = group.watch();
    let leads = status.wait_for(|status| status.role == Role::Leader);
    tokio::time::timeout(FOUND, leads).await.map_err(|_| failed("no election".to_owned()))?;
    let mut cookie = [0; 32];
    rand::fill(&mut cookie);
    let cluster = Founded {
        id: rand::random(),
        cookie: Cookie(cookie),
        groups: parts.config.groups,
        replicas: parts.config.replicas,
    };
    let command = ControlCommand::Found {
        cluster: cluster.clone(),
        record: record.clone(),
        incarnation: parts.incarnation,
        now_ms: clock::unix_ms(),
    };
    control.decide(command).await.map_err(ClusterError::Found)?;
    tracing::info!(cluster = format!("{:016x}", cluster.id), "cluster founded");
    Ok(Joined { cluster, members: vec![record.clone()] })
}

async fn join(
    config: &JoinConfig,
    transport: &dyn ClusterTransport,
    record: &NodeRecord,
) -> Result<Joined, ClusterError> {
    let token = match config.token.strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(path).map_err(|error| ClusterError::Token(format!("{path}: {error}")))?,
        None => config.token.clone(),
    };
    let bytes = postcard::to_allocvec(record).unwrap_or_default();
    let mut last = None;
    for seed in &config.seeds {
        let url: JoinUrl =
            format!("{}@{seed}", token.trim()).parse().map_err(|error| ClusterError::Token(format!("{error}")))?;
        match request_join(transport, &url, bytes.clone()).await {
            Ok(answer) => {
                return postcard::from_bytes(&answer).map_err(|_| ClusterError::Version { addr: seed.clone() });
            }
            Err(source) => last = Some(ClusterError::Join { addr: seed.clone(), source }),
        }
    }
    Err(last.unwrap_or_else(|| ClusterError::Token("join.seeds is empty".to_owned())))
}

fn is_alone(replica: &Replica, me: NodeId) -> bool {
    replica.read(|state| state.members().count() == 1 && state.member(me).is_some())
}

async fn shards(
    parts: &Parts,
    blobs: &Arc<BlobLane>,
    cluster: &Founded,
    alone: bool,
) -> Result<Vec<Arc<Shard>>, ClusterError> {
    let mut shards = Vec::new();
    for number in 1..=cluster.groups {
        let feeds = parts.views.open(GroupId(number), &parts.tasks);
        let machine = ShardMachine::new(feeds.clone());
        let group = Group::start(parts.group_config(number), machine, parts.around(blobs)).await;
        let group = group.map_err(|error| ClusterError::Group { group: number, detail: error.to_string() })?;
        let direct = alone && group.status().voters.is_empty();
        shards.push(Arc::new(Shard::of(group, parts.store.clone(), feeds, direct)));
    }
    Ok(shards)
}

impl Cluster {
    /// Services that other nodes may call.
    pub(crate) fn services(&self) -> HashMap<u32, Arc<dyn Service>> {
        let inner = &self.0;
        let tasks = inner.router.shared_tasks();
        let mut services: HashMap<u32, Arc<dyn Service>> = HashMap::new();
        let control = ControlService { control: inner.control.clone(), tasks: tasks.clone() };
        services.insert(CONTROL, Arc::new(control));
        services.insert(BEAT, Arc::new(BeatService(inner.member.clone())));
        services.insert(ADDRS, Arc::new(AddrsService(Arc::downgrade(inner))));
        services.insert(LEADS, Arc::new(LeadsService { leads: inner.leads.clone(), router: inner.router.clone() }));
        for group in (0..=u8::MAX).map_while(|number| inner.group(number)) {
            let service = RaftService { group: group.clone(), tasks: tasks.clone() };
            services.insert(RAFT + u32::from(group.id().0), Arc::new(service));
        }
        services
    }

    /// Takes part from now on.
    pub(crate) async fn run(
        &self,
        village: &Village,
        on_give_up: impl FnOnce(String) + Send + 'static,
    ) -> Result<(), String> {
        let inner = &self.0;
        let kinds: Arc<[Arc<dyn HostedKind>]> = village.hosted().cloned().collect();
        let on_give_up = std::sync::Mutex::new(Some(on_give_up));
        let spec = SupervisorSpec::new("cluster", Strategy::RestForOne)
            .on_give_up(move |why| {
                if let Some(tell) = on_give_up.lock().ok().and_then(|mut tell| tell.take()) {
                    tell(why.to_string());
                }
            })
            .on_crash({
                let history = village.history_kept().clone();
                move |child, reason| history.note(What::Restart, child, reason)
            })
            .child(self.peers_spec())
            .child(self.member_spec(&kinds));
        let services = SupervisorHandle::start(spec, None).await.map_err(|error| error.to_string())?;
        let _ = inner.services.set(services);
        self.start_sessions(village).await;
        for group in 0..inner.shards.len() {
            village.task("group.follow", keeper::follow(inner.clone(), group, kinds.clone())).detach();
        }
        village.task("groups.keep", keeper::keep(inner.clone())).detach();
        village.task("cluster.follow", follow(inner.clone())).detach();
        let observing = observe::observe(inner.clone(), village.history_kept().clone());
        village.task("cluster.observe", observing).detach();
        village.task("cluster.accept", accept(inner.clone())).detach();
        village.task("cluster.announce", announce(inner.clone())).detach();
        Ok(())
    }

    fn peers_spec(&self) -> ChildSpec {
        let inner = self.0.clone();
        let start = move |supervisor| {
            let inner = inner.clone();
            let told = inner.clone();
            let witness: Witness = Arc::new(move |evidence| {
                match evidence {
                    Evidence::Up(node) => {
                        told.presence.lane_up(node);
                        let inner = told.clone();
                        let telling = async move { addresses::tell(&inner, node, &inner.addresses.all()).await };
                        told.router.tasks().spawn("addresses", telling).detach();
                    }
                    Evidence::Refused(node, _) => keeper::succeed(&told, node),
                    Evidence::Closed(_) => {}
                }
                member::tell(&told.member, MemberMsg::Evidence(evidence));
            });
            let peers = Peers {
                router: inner.router.clone(),
                transport: inner.transport.clone(),
                cluster: inner.cluster.id,
                incarnation: inner.incarnation,
                seeds: inner.seeds.clone(),
                witness,
            };
            async move {
                let (peers, _) = Actor::spawn_linked(None, peers, (), supervisor).await?;
                inner.peers.store(Some(Arc::new(peers.clone())));
                let _ = peers.send_message(PeersMsg::Members(others(&inner)));
                Ok(peers.get_cell())
            }
            .boxed()
        };
        ChildSpec::new("sys.link", start)
    }

    fn member_spec(&self, kinds: &Arc<[Arc<dyn HostedKind>]>) -> ChildSpec {
        let (inner, kinds) = (self.0.clone(), kinds.clone());
        let start = move |supervisor| {
            let peers = inner.clone();
            let probe = move |node| {
                if let Some(peers) = &*peers.peers.load() {
                    let _ = peers.send_message(PeersMsg::Probe(node));
                }
            };
            let member = Member {
                probe: Arc::new(probe),
                router: inner.router.clone(),
                control: inner.control.clone(),
                config: inner.liveness,
                incarnation: inner.incarnation,
                kinds: kinds.clone(),
                leads: inner.leads.clone(),
                myself: inner.member.clone(),
            };
            async move { Actor::spawn_linked(None, member, (), supervisor).await.map(|(member, _)| member.get_cell()) }
                .boxed()
        };
        ChildSpec::new("sys.member", start)
    }

    /// Leaves in good order: hands off what it leads, lets its keys move, and says that it is down.
    pub(crate) async fn leave(&self, limit: Duration) {
        let inner = &self.0;
        let me = inner.router.view.me;
        if inner.router.view.is_alone() {
            return;
        }
        let leaving = async {
            let _ = self.drain(me).await;
            keeper::hand_off_all(inner, &inner.shards).await;
        };
        if tokio::time::timeout(limit, leaving).await.is_err() {
            tracing::warn!("not everything was handed off");
        }
    }

    /// The last word of a node that has drained.
    pub(crate) async fn say_down(&self) {
        let inner = &self.0;
        if inner.router.view.is_alone() {
            return;
        }
        let down = ControlCommand::SetState {
            node: inner.router.view.me,
            state: MemberState::Down,
            incarnation: inner.incarnation,
            up_epoch: None,
            now_ms: clock::unix_ms(),
            reason: "stopped".to_owned(),
        };
        if let Err(error) = inner.control.decide(down).await {
            tracing::debug!(%error, "left without a word");
        }
    }

    /// Ends everything that runs for the cluster.
    pub(crate) async fn stop(&self) {
        let inner = &self.0;
        if let Some(services) = inner.services.get() {
            services.stop().await;
        }
        inner.presence.end();
        for group in (0..=u8::MAX).map_while(|number| inner.group(number)) {
            group.shutdown().await;
        }
    }
}

/// The other members and where they are: as the membership knows, or as they say themselves since a later start.
pub(super) fn others(inner: &Inner) -> HashMap<NodeId, Peer> {
    let me = inner.router.view.me;
    let known: Vec<_> = inner
        .control
        .replica
        .read(|state| state.members().map(|member| (member.record.clone(), member.incarnation)).collect());
    let joined = || inner.bootstrap.iter().map(|record| (record.clone(), 0)).collect();
    let records = if known.is_empty() { joined() } else { known };
    let peer = |(record, incarnation): (NodeRecord, u64)| {
        let addr = inner.addresses.since(record.id, incarnation).unwrap_or(record.addr);
        (record.id, Peer { key: PublicKey(record.public_key), addr })
    };
    records.into_iter().filter(|(record, _)| record.id != me).map(peer).collect()
}

/// Keeps pins and links in step with the membership.
async fn follow(inner: Arc<Inner>) {
    let (mut changes, mut moves) = (inner.control.replica.changes(), inner.addresses.changes());
    let mut before = None;
    loop {
        let now = others(&inner);
        if before.as_ref() != Some(&now) {
            inner.addresses.retain(|node| node == inner.record.id || now.contains_key(&node)).await;
            inner.pins.replace(now.values().map(|peer| peer.key));
            inner.blobs.set_members(&now);
            if let Some(peers) = &*inner.peers.load() {
                let _ = peers.send_message(PeersMsg::Members(now.clone()));
            }
            inner.presence.members(now.clone());
            before = Some(now);
        }
        if inner.router.view.is_alone() && !is_alone(&inner.control.replica, inner.router.view.me) {
            tracing::info!("no longer alone");
            inner.router.view.set_alone(false);
            member::tell(&inner.member, MemberMsg::Changed);
        }
        let goes_on = tokio::select! {
            changed = changes.changed() => changed.is_ok(),
            moved = moves.changed() => moved.is_ok(),
        };
        if !goes_on {
            return;
        }
    }
}

/// Takes the streams that others open.
async fn accept(inner: Arc<Inner>) {
    let (joins, tasks) = (Arc::new(Semaphore::new(JOINS)), inner.router.shared_tasks());
    loop {
        let stream = match inner.transport.accept().await {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(%error, "no more links from other nodes"),
        };
        match stream.protocol {
            Protocol::Data => {
                if let Some(peers) = &*inner.peers.load() {
                    let _ = peers.send_message(PeersMsg::Accepted(stream));
                }
            }
            Protocol::Join => {
                // One more than can be decided at once is closed; it may come again.
                let Ok(permit) = joins.clone().try_acquire_owned() else { continue };
                let inner = inner.clone();
                let serving = async move {
                    let _permit = permit;
                    let peer = stream.peer;
                    let decide = async |request| admit(&inner, peer, request).await;
                    if let Err(error) = serve_join(stream, decide).await {
                        tracing::debug!(%error, "join request not served");
                    }
                };
                tasks.spawn("join", serving).detach();
            }
            Protocol::Session => inner.presence.accepted(stream),
            Protocol::Blob => {
                let blobs = inner.blobs.clone();
                tasks.spawn("blob.serve", async move { blobs.serve(stream).await }).detach();
            }
        }
    }
}

/// Decides on a join request; none when it is refused.
async fn admit(inner: &Inner, peer: PublicKey, request: JoinRequest) -> Option<Vec<u8>> {
    let record: NodeRecord = postcard::from_bytes(&request.record).ok()?;
    if record.public_key != peer.0 || record.id != peer.node_id() {
        return None;
    }
    let name = record.name.clone();
    let add = ControlCommand::AddNode {
        token_id: request.token_id,
        secret_hash: request.secret_hash(),
        record,
        now_ms: clock::unix_ms(),
    };
    if let Err(error) = inner.control.decide(add).await {
        tracing::warn!(node = %peer.node_id(), %error, "join refused");
        return None;
    }
    tracing::info!(node = %peer.node_id(), name, "node joined");
    let members = inner.control.replica.read(|state| state.members().map(|member| member.record.clone()).collect());
    postcard::to_allocvec(&Joined { cluster: inner.cluster.clone(), members }).ok()
}

/// Says what this node is now, once after each start.
async fn announce(inner: Arc<Inner>) {
    loop {
        let known = inner.control.replica.read(|state| {
            state
                .member(inner.record.id)
                .is_some_and(|member| member.record == inner.record && member.incarnation == inner.incarnation)
        });
        if known {
            return;
        }
        let update = ControlCommand::UpdateNode {
            record: inner.record.clone(),
            incarnation: inner.incarnation,
            now_ms: clock::unix_ms(),
        };
        if let Err(error) = inner.control.decide(update).await {
            tracing::debug!(%error, "not announced yet");
        }
        tokio::time::sleep(ANNOUNCE).await;
    }
}
