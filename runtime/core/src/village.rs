//! A node of the village: builds it, hosts kinds on it, drains it.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ractor::Actor;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::actor_cx::ActorCx;
use crate::addr::{Addr, Target, await_reply};
use crate::blob::{BlobError, Blobs, Counted};
use crate::clock;
use crate::cluster::control::Replica;
use crate::cluster::recover::{RecoverError, Recovery, Survivor};
use crate::cluster::start::{ClusterError, Parts};
use crate::cluster::{self, Cluster};
use crate::config::{ConfigError, HotLimits, RuntimeConfig};
use crate::control::{ControlMachine, HostedRecord};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::directory::Directory;
use crate::error::CallError;
use crate::groups::store::{End, ReadOnly, Shard};
use crate::history::{Happening, History, What};
use crate::home::{Home, MAX_GROUPS, View};
use crate::hosted_kind::{ActorInfo, CallOptions, HostedKind, KindInfo, LocalKind};
use crate::identity::{Identity, IdentityError};
use crate::kind::{Durability, KIND_NAME_MAX, Kind};
use crate::mail::{Mail, MsgCx, Reply};
use crate::node_id::{NodeId, Run, next_incarnation};
use crate::raft::{self, GroupId, StateView};
use crate::registry::{self, Expose, ExposeError, MessageInfo};
use crate::replica_view::{ReplicaView, Views};
use crate::router::{KindRoute, Router};
use crate::store::{self, Batch, Level, Measured, MemoryStore, Store, StoreConfig, StoreError};
use crate::supervisor::{ChildSpec, RestartPolicy, Strategy, SupervisorHandle, SupervisorSpec};
use crate::task::{TaskHandle, Tasks};
use crate::telemetry::{MetricSet, Metrics, RuntimeMetrics, StoreMetrics};
use crate::topic::{Topic, TopicActor};

/// Blobs live 24 hours unreferenced, so an hour more or less does not matter.
const BLOB_GC_EVERY: Duration = Duration::from_hours(1);

/// A handle to this process's node. Cheap to clone.
#[derive(Clone)]
pub struct Village(Arc<Inner>);

struct Inner {
    run: Run,
    since: Instant,
    data_dir: Option<PathBuf>,
    config: watch::Sender<Arc<toml::Table>>,
    limits: Arc<HotLimits>,
    restart: ArcSwap<RestartPolicy>,
    drain_limit: ArcSwap<Duration>,
    store: Arc<dyn Store>,
    blobs: Blobs,
    metrics: Metrics,
    dead_letters: Arc<DeadLetters>,
    history: Arc<History>,
    tasks: Arc<Tasks>,
    router: Arc<Router>,
    cluster: Option<Cluster>,
    provided: Provided,
    /// Where the state of replicated actors is, by group.
    shards: Vec<Arc<Shard>>,
    /// Kinds that this node only sends to, made when they are first asked for.
    guests: DashMap<&'static str, Arc<dyn Any + Send + Sync>>,
    live: AtomicUsize,
    draining: AtomicBool,
    /// Why the root supervisor gave up, once it has.
    given_up: watch::Sender<Option<String>>,
    running: std::sync::OnceLock<Running>,
}

/// What exists once the node has started.
struct Running {
    kinds: HashMap<&'static str, Arc<dyn HostedKind>>,
    /// Names in the order of hosting; draining goes the other way.
    order: Vec<&'static str>,
    root: SupervisorHandle,
}

impl fmt::Debug for Village {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Village({})", self.0.run.node)
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The durable state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob folder cannot be opened.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The node has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node is not part of a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The data directory belongs to a node of a cluster.
    #[error("the data directory belongs to a node of a cluster, and this program does not start it as one")]
    InCluster,
    /// A kind's name is not allowed.
    #[error("bad kind name `{0}`: dotted lower-case words, at most {KIND_NAME_MAX} bytes, not `sys.…`")]
    KindName(&'static str),
    /// Two kinds have one name.
    #[error("kind `{0}` is hosted twice")]
    KindTwice(&'static str),
    /// Messages are exposed of a kind that is not hosted.
    #[error("messages of kind `{0}` are exposed, but it is not hosted")]
    NotHosted(&'static str),
    /// There is a replica view of a kind that has no replicas.
    #[error("kind `{0}` has a replica view, but its state is not replicated")]
    NotReplicated(&'static str),
    /// A message cannot be exposed.
    #[error(transparent)]
    Expose(#[from] ExposeError),
    /// The supervision tree did not come up.
    #[error("the supervision tree did not start: {0}")]
    Tree(String),
}

/// What did not end well at shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Some kinds were still busy at the end of `drain.timeout`; their actors were stopped.
    #[error("not drained in time: {0}")]
    Busy(String),
    /// The last checkpoint failed; the redo log has everything.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether the node can serve, and why not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// True when every check is.
    pub ready: bool,
    /// Name, result and explanation of each check.
    pub checks: Vec<HealthCheck>,
}

/// One line of [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HealthCheck {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What to know about it.
    pub detail: String,
}

type MakeKind = Box<dyn FnOnce(&Village, Vec<MessageInfo>) -> Arc<dyn HostedKind> + Send>;
type Describe = Box<dyn FnOnce() -> Result<Vec<MessageInfo>, ExposeError> + Send>;

/// Collects what a node is made of; from [`Village::builder`].
#[must_use = "nothing runs until `start`"]
#[derive(Default)]
pub struct VillageBuilder {
    config: toml::Table,
    data_dir: Option<PathBuf>,
    kinds: Vec<(HostedName, MakeKind)>,
    exposed: Vec<(&'static str, Describe)>,
    clustered: bool,
    machines: Vec<MakeMachine>,
    views: Views,
    /// Of kinds that have no replicas.
    bad_view: Option<&'static str>,
    provided: Provided,
}

/// What the parts of a program give each other, by type.
type Provided = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

type MakeMachine = Arc<dyn Fn() -> Box<dyn ControlMachine> + Send + Sync>;

/// Name and version of a hosted kind.
type HostedName = (&'static str, u16);

impl fmt::Debug for VillageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|((name, _), _)| name).collect();
        f.debug_struct("VillageBuilder")
            .field("data_dir", &self.data_dir)
            .field("kinds", &kinds)
            .finish_non_exhaustive()
    }
}

impl VillageBuilder {
    /// Takes the whole configuration; each actor reads its own section.
    pub fn config(mut self, config: toml::Table) -> Self {
        self.config = config;
        self
    }

    /// The configuration so far.
    #[must_use]
    pub fn table(&self) -> &toml::Table {
        &self.config
    }

    /// Keeps durable state in this folder. Without one it is kept in memory, which suits tests.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The data folder, if one was set.
    #[must_use]
    pub fn data_path(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Hosts a kind: `factory` makes the behaviour of each activation.
    pub fn host<A, F>(mut self, factory: F) -> Self
    where
        A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
        F: Fn(&ActorCx) -> A + Send + Sync + 'static,
    {
        let make = move |village: &Village, messages| -> Arc<dyn HostedKind> {
            let inner = &village.0;
            let metrics = inner.metrics.set::<RuntimeMetrics>();
            let (limits, router) = (inner.limits.clone(), inner.router.clone());
            let directory = Directory::new::<A>(limits, inner.dead_letters.clone(), metrics, router, true);
            let directory = Arc::new(directory);
            Arc::new(LocalKind::<A>::new(directory, Arc::new(factory), messages))
        };
        self.kinds.push(((A::NAME, A::VERSION), Box::new(make)));
        self
    }

    /// Makes the node one of a cluster: it listens at `node.listen` for others, joins with `join.token`, or founds a cluster
    /// of its own. One such node fits in a process.
    pub fn clustered(mut self) -> Self {
        self.clustered = true;
        self
    }

    /// Lets these messages of a hosted kind be called from outside.
    pub fn expose<K: Kind>(mut self, messages: impl IntoIterator<Item = Expose>) -> Self
    where
        K::Body: JsonSchema,
    {
        let messages: Vec<Expose> = messages.into_iter().collect();
        self.exposed.push((K::NAME, Box::new(move || registry::describe::<K::Body>(K::NAME, &messages))));
        self
    }

    /// Adds a machine to the control group. Every node of the cluster has to have the same ones.
    pub fn control_machine<M: ControlMachine>(mut self, make: impl Fn() -> M + Send + Sync + 'static) -> Self {
        self.machines.push(Arc::new(move || Box::new(make())));
        self
    }

    /// Follows the events of a `Replicated` kind on this node, whichever node its actors live on: `make` makes a view for each
    /// group, and gets its number, from 1. The kind need not be hosted here.
    pub fn replica_view<K: Kind, V: ReplicaView>(mut self, make: impl Fn(u8) -> V + Send + Sync + 'static) -> Self {
        if K::options().durable == Durability::Replicated {
            self.views.add(K::NAME, make);
        } else {
            self.bad_view = Some(K::NAME);
        }
        self
    }

    /// Gives all code of this node a value that [`Village::provided`] finds by its type; one of the same type is replaced.
    pub fn provide<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.provided.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(mut self) -> Result<Village, StartError> {
        check_names(&self.kinds)?;
        if let Some(kind) = self.bad_view {
            return Err(StartError::NotReplicated(kind));
        }
        self.kinds.insert(0, topic_kind());
        let config = RuntimeConfig::from_table(&self.config)?;
        let metrics = Metrics::new();
        let store = open_store(self.data_dir.as_deref(), &self.config, &metrics)?;
        let identity = match &self.data_dir {
            Some(dir) => Identity::load_or_create(dir)?,
            None => Identity::generate()?,
        };
        let node = identity.node_id();
        let blobs = match &self.data_dir {
            Some(dir) => Blobs::open(node, &dir.join("blobs"), store.clone())?,
            None => Blobs::in_memory(node, store.clone()),
        };
        let mut messages = self.described()?;
        let tasks = Arc::new(Tasks::default());
        let run = Run { node, incarnation: next_incarnation(&*store).await? };
        let router = Arc::new(Router::new(Arc::new(View::new(node)), tasks.clone()));
        let (cluster, shards) =
            self.join_cluster(&config, (identity, run), (&store, &blobs, &metrics), (&router, &tasks)).await?;
        let village = Village(Arc::new(Inner {
            run,
            since: Instant::now(),
            data_dir: self.data_dir,
            config: watch::Sender::new(Arc::new(self.config)),
            limits: Arc::new(HotLimits::new(&config.limits)),
            restart: ArcSwap::from_pointee(config.supervise.policy()),
            drain_limit: ArcSwap::from_pointee(config.drain.timeout.0),
            store,
            blobs,
            metrics,
            dead_letters: Arc::default(),
            history: Arc::default(),
            tasks,
            router,
            cluster,
            shards,
            provided: self.provided,
            guests: DashMap::new(),
            live: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            given_up: watch::Sender::new(None),
            running: std::sync::OnceLock::new(),
        }));
        let order: Vec<_> = self.kinds.iter().map(|((name, _), _)| *name).collect();
        let kinds: Vec<_> = self
            .kinds
            .into_iter()
            .map(|((name, _), make)| make(&village, messages.remove(name).unwrap_or_default()))
            .collect();
        let children = kinds.iter().map(|kind| kind.clone().child(village.clone())).collect();
        let root = start_tree(children, village.0.given_up.clone(), village.0.history.clone()).await?;
        let kinds: HashMap<_, _> = order.iter().copied().zip(kinds).collect();
        let running = Running { kinds, order, root };
        let services = village.cluster().map(Cluster::services).unwrap_or_default();
        village.0.router.serve_with(running.kinds.values().cloned(), services);
        assert!(village.0.running.set(running).is_ok(), "a node starts once");
        village.collect_blobs();
        if let Some(cluster) = village.cluster().cloned() {
            let given_up = village.0.given_up.clone();
            let run = cluster.run(&village, move |why| drop(given_up.send_replace(Some(why))));
            run.await.map_err(StartError::Tree)?;
        }
        tracing::info!(node = %node, "village started");
        Ok(village)
    }

    /// Makes a cluster whose majority is gone for good one of this node alone, from what its data directory has. Without
    /// `accept` it only says what that means. The node must be stopped, and starts as usual afterwards; the others have to
    /// join anew, with empty data directories. **They must not come back before: as a majority they would go on by
    /// themselves.**
    ///
    /// # Errors
    /// See [`RecoverError`]. After an error while it was under way, it is to be done again.
    pub async fn recover(self, accept: bool) -> Result<Recovery, RecoverError> {
        let dir = self.data_dir.unwrap_or_default();
        cluster::recover::check_dir(&dir)?;
        let config: StoreConfig = crate::config::section(&self.config, "store")?;
        let store = store::open(&dir, &config)?;
        let machines = self.machines;
        let replica = Replica::new(move || machines.iter().map(|make| make()).collect());
        let survivor = Survivor { identity: Identity::load_or_create(&dir)?, dir, store, replica };
        survivor.recover(accept).await
    }

    /// This node's copies of the replicated groups, to read while it is stopped; those that it does not have are empty. A copy
    /// may be behind that of another node.
    ///
    /// # Errors
    /// [`RecoverError::NoNode`], [`RecoverError::Config`], and [`RecoverError::Store`], as when the node runs.
    pub fn copies(self) -> Result<Vec<Arc<dyn Store>>, RecoverError> {
        let dir = self.data_dir.unwrap_or_default();
        cluster::recover::check_dir(&dir)?;
        let store = store::open(&dir, &crate::config::section(&self.config, "store")?)?;
        let copy = |group| Ok(Arc::new(ReadOnly(raft::remaining_state(&store, GroupId(group))?)) as Arc<dyn Store>);
        (1..=u8::try_from(MAX_GROUPS).unwrap_or(u8::MAX)).map(copy).collect()
    }

    /// Opens what this node has of a cluster, and where the state of replicated actors is.
    async fn join_cluster(
        &mut self,
        config: &RuntimeConfig,
        (identity, run): (Identity, Run),
        (store, blobs, metrics): (&Arc<dyn Store>, &Blobs, &Metrics),
        (router, tasks): (&Arc<Router>, &Arc<Tasks>),
    ) -> Result<(Option<Cluster>, Vec<Arc<Shard>>), StartError> {
        if !self.clustered {
            if raft::is_kept_in(&**store)? {
                return Err(StartError::InCluster);
            }
            router.view.set_groups(usize::from(config.control.groups));
            let alone = |group| {
                let (group, store) = (GroupId(group), store.clone());
                let feeds = self.views.open(group, tasks);
                Arc::new(Shard::alone(StateView::alone(store.clone(), group), store, feeds))
            };
            return Ok((None, (1..=config.control.groups).map(alone).collect()));
        }
        let kinds =
            self.kinds.iter().map(|((name, version), _)| HostedRecord { name: (*name).to_owned(), version: *version });
        let parts = Parts {
            incarnation: run.incarnation,
            identity,
            node: config.node.clone(),
            join: config.join.clone(),
            config: config.control.clone(),
            blob_rate: config.limits.blob_rate.bytes(),
            counted: Counted { blobs: metrics.set(), links: metrics.set() },
            blobs: blobs.clone(),
            store: store.clone(),
            router: router.clone(),
            tasks: tasks.clone(),
            dir: self.data_dir.clone(),
            kinds: kinds.collect(),
            replica: {
                let machines = self.machines.clone();
                Replica::new(move || machines.iter().map(|make| make()).collect())
            },
            views: std::mem::take(&mut self.views),
        };
        let cluster = cluster::start::open(parts).await?;
        let shards = cluster.0.shards.clone();
        Ok((Some(cluster), shards))
    }

    fn described(&mut self) -> Result<HashMap<&'static str, Vec<MessageInfo>>, StartError> {
        let hosted: HashSet<_> = self.kinds.iter().map(|((name, _), _)| *name).collect();
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        for (kind, describe) in self.exposed.drain(..) {
            if !hosted.contains(kind) {
                return Err(StartError::NotHosted(kind));
            }
            messages.entry(kind).or_default().extend(describe()?);
        }
        Ok(messages)
    }
}

fn topic_kind() -> (HostedName, MakeKind) {
    let VillageBuilder { mut kinds, .. } = VillageBuilder::default().host(|_| TopicActor);
    kinds.remove(0)
}

fn check_names(kinds: &[(HostedName, MakeKind)]) -> Result<(), StartError> {
    let mut seen = HashSet::new();
    for ((name, _), _) in kinds {
        let well_formed = !name.is_empty()
            && name.len() <= KIND_NAME_MAX
            && name.split('.').all(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            });
        if !well_formed || name.starts_with("sys.") {
            return Err(StartError::KindName(name));
        }
        if !seen.insert(name) {
            return Err(StartError::KindTwice(name));
        }
    }
    Ok(())
}

fn open_store(dir: Option<&Path>, config: &toml::Table, metrics: &Metrics) -> Result<Arc<dyn Store>, StartError> {
    let config: StoreConfig = crate::config::section(config, "store")?;
    let Some(dir) = dir else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    Ok(Arc::new(Measured { store: store::open(dir, &config)?, metrics: metrics.set::<StoreMetrics>() }))
}

/// Bytes free on the disk of a folder.
fn free_bytes(dir: &Path) -> Option<i64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    i64::try_from(disk.f_bavail.saturating_mul(disk.f_frsize)).ok()
}

/// root (one for one) over the hosts of all kinds.
async fn start_tree(
    children: Vec<ChildSpec>,
    given_up: watch::Sender<Option<String>>,
    history: Arc<History>,
) -> Result<SupervisorHandle, StartError> {
    let policy = RestartPolicy { max_restarts: 3, window: Duration::from_secs(10), ..RestartPolicy::default() };
    let root = SupervisorSpec::new("root", Strategy::OneForOne)
        .policy(policy)
        .on_give_up(move |why| drop(given_up.send_replace(Some(why.to_string()))))
        .on_crash(move |kind, reason| history.note(What::Restart, kind, reason));
    let root = children.into_iter().fold(root, SupervisorSpec::child);
    SupervisorHandle::start(root, None).await.map_err(|e| StartError::Tree(e.to_string()))
}

impl Village {
    /// Starts to describe a node.
    pub fn builder() -> VillageBuilder {
        VillageBuilder::default()
    }

    /// The address of an actor. It need not exist yet: the first message starts it.
    pub fn addr<K: Kind>(&self, key: impl AsRef<str>) -> Addr<K> {
        let directory = self.kind(K::NAME).map_or_else(|| self.guest::<K>(), |kind| kind.clone().as_any());
        let target = match directory.downcast::<Directory<K::Body>>() {
            Ok(directory) => match directory.entry(key.as_ref()) {
                Ok(entry) => Target::Local(directory, entry),
                Err(error) => Target::Nowhere(error),
            },
            // Another kind of this name is hosted here.
            Err(_) => Target::Nowhere(CallError::UnknownKind { kind: K::NAME.to_owned() }),
        };
        Addr::new(target)
    }

    /// Asks the actor that another node has of a [`Placement::PerNode`](crate::Placement::PerNode) kind. Its answers are those of
    /// [`Addr::ask`]; nothing is sent twice.
    ///
    /// # Errors
    /// Any [`CallError`]; `Unreachable` when there is no link to the node.
    pub async fn ask_on<K: Kind, T: Send + 'static>(
        &self,
        node: NodeId,
        key: &str,
        body: impl FnOnce(Reply<T>) -> K::Body,
    ) -> Result<T, CallError> {
        if node == self.node_id() {
            return self.addr::<K>(key).ask(body).await;
        }
        let mut cx = MsgCx::current().inherited();
        let call_timeout = self.0.limits.call_timeout();
        let deadline = *cx.deadline_mut().get_or_insert_with(|| Instant::now() + call_timeout);
        let (answer, answered) = oneshot::channel();
        let mail = Mail::new(body(Reply::typed(answer)), cx);
        self.0.router.ask_on(node, (&KindRoute::of::<K>(), key), mail, deadline).await?;
        await_reply(answered, deadline).await
    }

    /// The directory of a kind that this node does not host.
    fn guest<K: Kind>(&self) -> Arc<dyn Any + Send + Sync> {
        let make = || -> Arc<dyn Any + Send + Sync> {
            let inner = &self.0;
            let (limits, router) = (inner.limits.clone(), inner.router.clone());
            let (dead, metrics) = (inner.dead_letters.clone(), inner.metrics.set::<RuntimeMetrics>());
            Arc::new(Directory::new::<K>(limits, dead, metrics, router, false))
        };
        self.0.guests.entry(K::NAME).or_insert_with(make).clone()
    }

    /// The store that has the state of a slot, for an activation that `end` ends.
    pub(crate) async fn state_of(&self, home: &Home, slot: u8, end: &End) -> Result<Arc<dyn Store>, CallError> {
        home.admit(slot)?;
        if !home.follows_leader() {
            return Ok(self.0.store.clone());
        }
        let group = home.view.group(slot);
        let shard = self.0.shards.get(group).ok_or(CallError::Moved { to: None })?;
        let store = shard.activate(end).await.ok_or(CallError::Moved { to: home.view.leader(group) })?;
        // Behind whatever an earlier activation still has under way.
        store.commit(Batch::new(), Level::Async).await?;
        Ok(Arc::new(store))
    }

    /// The cluster that this node is part of.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.0.cluster.as_ref()
    }

    /// Sends a message given as JSON; its answer comes back as JSON, `None` for a message without answer.
    ///
    /// # Errors
    /// As [`Addr::ask`](crate::Addr::ask), and `Decode` when the body does not fit.
    pub async fn send_json(
        &self,
        kind: &str,
        key: &str,
        body: Value,
        options: CallOptions,
    ) -> Result<Option<Value>, CallError> {
        match self.kind(kind) {
            Some(kind) => kind.clone().send_json(key, body, options).await,
            None => Err(CallError::UnknownKind { kind: kind.to_owned() }),
        }
    }

    /// The kinds this node hosts, with their exposed messages.
    #[must_use]
    pub fn kinds(&self) -> Vec<KindInfo> {
        self.in_order().map(|kind| kind.info()).collect()
    }

    /// One kind with its exposed messages.
    #[must_use]
    pub fn kind_info(&self, kind: &str) -> Option<KindInfo> {
        self.kind(kind).map(|kind| kind.info())
    }

    /// The exposed messages of a kind, shared and ready to validate; `None` when the kind is not hosted.
    #[must_use]
    pub fn messages(&self, kind: &str) -> Option<Arc<[MessageInfo]>> {
        self.kind(kind).map(|kind| kind.messages())
    }

    /// The activations that live now, of one kind or of all.
    #[must_use]
    pub fn actors(&self, kind: Option<&str>) -> Vec<ActorInfo> {
        match kind {
            Some(kind) => self.kind(kind).map(|kind| kind.actors()).unwrap_or_default(),
            None => self.in_order().flat_map(|kind| kind.actors()).collect(),
        }
    }

    /// One actor, if it lives or is known.
    #[must_use]
    pub fn actor(&self, kind: &str, key: &str) -> Option<ActorInfo> {
        self.kind(kind)?.actor(key)
    }

    /// A topic of live events.
    pub fn topic(&self, name: impl AsRef<str>) -> Topic {
        Topic::new(self.addr(name))
    }

    /// The durable store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The content-addressed blob store.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Reads a section of the configuration; an absent section gives `T`'s defaults.
    ///
    /// # Errors
    /// When the section does not have the shape of `T`.
    pub fn config<T: DeserializeOwned>(&self, section: &str) -> Result<T, ConfigError> {
        crate::config::section(&self.0.config.borrow(), section)
    }

    /// Replaces the configuration; hot keys take effect at once.
    ///
    /// # Errors
    /// When the runtime's own sections do not fit; then nothing changes.
    pub fn reconfigure(&self, table: toml::Table) -> Result<(), ConfigError> {
        let config = RuntimeConfig::from_table(&table)?;
        self.0.limits.set(&config.limits);
        self.0.restart.store(Arc::new(config.supervise.policy()));
        self.0.drain_limit.store(Arc::new(config.drain.timeout.0));
        self.0.config.send_replace(Arc::new(table));
        Ok(())
    }

    /// Sees each new configuration.
    #[must_use]
    pub fn config_changes(&self) -> watch::Receiver<Arc<toml::Table>> {
        self.0.config.subscribe()
    }

    /// The value of this type that was given to [`VillageBuilder::provide`], if one was.
    #[must_use]
    pub fn provided<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.provided.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }

    /// The metric set `M`, made at first use.
    #[must_use]
    pub fn metrics<M: MetricSet>(&self) -> Arc<M> {
        self.0.metrics.set::<M>()
    }

    /// All metrics in the Prometheus text format.
    pub fn encode_metrics(&self) -> String {
        let (store, stats) = (self.0.metrics.set::<StoreMetrics>(), self.0.store.stats());
        store.redo_bytes.set(i64::try_from(stats.redo_bytes).unwrap_or(i64::MAX));
        let totals = [(&store.commits, stats.commits), (&store.syncs, stats.syncs), (&store.rebuilds, stats.rebuilds)];
        for (counter, total) in totals {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        if let Some(free) = self.0.data_dir.as_deref().and_then(free_bytes) {
            store.free_bytes.set(free);
        }
        if let Some(cluster) = self.cluster() {
            cluster.show(&self.0.metrics);
        }
        self.0.metrics.encode()
    }

    /// The newest messages that reached nobody.
    #[must_use]
    pub fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        self.0.dead_letters.latest(limit)
    }

    /// How many messages reached nobody since the start.
    #[must_use]
    pub fn dead_letters_total(&self) -> u64 {
        self.0.dead_letters.total()
    }

    /// What happened on this node and around it lately, the newest first.
    #[must_use]
    pub fn history(&self, limit: usize) -> Vec<Happening> {
        self.0.history.latest(limit)
    }

    /// Runs work outside a mailbox. A panic in it is logged and becomes an error of the handle; the context of the
    /// message in hand goes along.
    pub fn task<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> TaskHandle<T> {
        self.0.tasks.spawn(name, work)
    }

    /// Runs blocking or long computing work on a thread of its own.
    pub fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> TaskHandle<T> {
        Tasks::blocking(name, work)
    }

    /// Index of the last entry that this node's copy of each replicated group has applied, from group 1 on; 0 without a copy or a
    /// log. The most of all nodes is all that was acknowledged by then.
    #[must_use]
    pub fn applied(&self) -> Vec<u64> {
        self.0.shards.iter().map(|shard| shard.applied()).collect()
    }

    /// Waits until this node's copies have applied these entries, as [`Village::applied`] of some node told them, and its
    /// [`ReplicaView`]s show all that is applied. What this node has no copy of is not waited for.
    pub async fn shows(&self, applied: &[u64]) {
        let me = self.node_id();
        for (shard, until) in self.0.shards.iter().zip(applied) {
            shard.shows(me, *until).await;
        }
    }

    /// This node's copy of the group that keeps the state of an actor of a `Replicated` kind, to read; none where there is no copy.
    /// It may be behind, see [`Village::shows`].
    pub async fn copy_of<K: Kind>(&self, key: &str) -> Option<Arc<dyn Store>> {
        let group = self.0.router.view.group(crate::placement::slot(K::NAME, key).0);
        self.0.shards.get(group)?.copy(self.node_id()).await
    }

    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.run.node
    }

    /// This run of this node.
    #[must_use]
    pub fn run(&self) -> Run {
        self.0.run
    }

    /// Whether a run has certainly ended: its node has started again, or the members agreed that it is down. False while
    /// that is not known here; a node that was removed without having been down before is never known.
    #[must_use]
    pub fn has_ended(&self, run: Run) -> bool {
        if run.node == self.node_id() {
            return run.incarnation < self.run().incarnation;
        }
        self.cluster().is_some_and(|cluster| cluster.has_ended(run))
    }

    /// How long this node has been up.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.since.elapsed()
    }

    /// Where durable state is kept, unless it is in memory.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        self.0.data_dir.as_deref()
    }

    /// Whether the node is going down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Whether the node can serve, and why not.
    #[must_use]
    pub fn health(&self) -> Health {
        let store = self.0.store.stats();
        let mut checks = vec![
            HealthCheck {
                name: "store",
                ok: !store.full,
                detail: if store.full { "not writable; reads go on".to_owned() } else { "writable".to_owned() },
            },
            HealthCheck {
                name: "draining",
                ok: !self.is_draining(),
                detail: if self.is_draining() { "going down".to_owned() } else { "no".to_owned() },
            },
        ];
        if let Some(cluster) = self.cluster() {
            let ok = cluster.takes_part();
            let detail = if ok { "takes part" } else { "not taking part: see `village cluster status`" };
            checks.push(HealthCheck { name: "cluster", ok, detail: detail.to_owned() });
        }
        Health { ready: checks.iter().all(|check| check.ok), checks }
    }

    /// Stops admitting mail and lets mailboxes finish, kind by kind, the last hosted first.
    ///
    /// # Errors
    /// `Busy` names the kinds that were stopped when `drain.timeout` was over.
    pub async fn drain(&self) -> Result<(), ShutdownError> {
        let deadline = Instant::now() + **self.0.drain_limit.load();
        if let Some(cluster) = self.cluster()
            && !self.is_draining()
        {
            cluster.leave(deadline - Instant::now()).await;
        }
        self.0.draining.store(true, Ordering::SeqCst);
        let mut busy = Vec::new();
        for kind in self.in_order().rev() {
            if !kind.drain(deadline).await {
                busy.push(kind.info().kind);
            }
        }
        if busy.is_empty() { Ok(()) } else { Err(ShutdownError::Busy(busy.join(", "))) }
    }

    /// Drains, ends all tasks, writes a checkpoint and stops the supervision tree.
    ///
    /// # Errors
    /// See [`ShutdownError`]; the node is down all the same.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let drained = self.drain().await;
        if let Some(cluster) = self.cluster() {
            cluster.say_down().await;
            cluster.stop().await;
        }
        self.0.tasks.abort_all();
        if let Some(running) = self.0.running.get() {
            running.root.stop().await;
        }
        self.0.store.checkpoint().await?;
        let store = self.0.store.clone();
        // Whoever still holds the village keeps the directory from nobody.
        tokio::task::spawn_blocking(move || store.close()).await.unwrap_or_default();
        tracing::info!("village stopped");
        drained
    }

    /// Completes when the supervision tree has given up, with the reason: the process should end then.
    ///
    /// # Cancel safety
    /// Safe: the reason stays.
    pub async fn given_up(&self) -> String {
        let mut given_up = self.0.given_up.subscribe();
        let why = given_up.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Removes unreferenced blobs now and then.
    fn collect_blobs(&self) {
        let village = self.clone();
        let collect = async move {
            loop {
                tokio::time::sleep(BLOB_GC_EVERY).await;
                match village.blobs().gc(clock::unix_ms()).await {
                    Ok(collected) => tracing::debug!(?collected, "blobs collected"),
                    Err(error) => tracing::warn!(%error, "blobs not collected"),
                }
            }
        };
        self.task("blob.gc", collect).detach();
    }

    pub(crate) fn history_kept(&self) -> &Arc<History> {
        &self.0.history
    }

    /// The supervisor of all kinds.
    pub(crate) fn root(&self) -> Option<&SupervisorHandle> {
        self.0.running.get().map(|running| &running.root)
    }

    pub(crate) fn kind(&self, name: &str) -> Option<&Arc<dyn HostedKind>> {
        self.0.running.get()?.kinds.get(name)
    }

    fn in_order(&self) -> impl DoubleEndedIterator<Item = &Arc<dyn HostedKind>> {
        self.0
            .running
            .get()
            .into_iter()
            .flat_map(|running| running.order.iter().filter_map(|name| running.kinds.get(name)))
    }

    #[cfg(test)]
    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.0.router
    }

    pub(crate) fn hosted(&self) -> impl DoubleEndedIterator<Item = &Arc<dyn HostedKind>> {
        self.in_order()
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::clone(&self.0.restart.load())
    }

    pub(crate) fn live_actors(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    pub(crate) fn max_actors(&self) -> usize {
        self.0.limits.max_actors()
    }

    pub(crate) fn actor_started(&self) {
        self.0.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn actor_ended(&self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use ractor::{ActorProcessingErr, ActorRef};

    use super::*;

    struct Idler;

    impl Kind for Idler {
        const NAME: &'static str = "test.idler";
        type Body = ();
    }

    impl Actor for Idler {
        type Msg = Mail<()>;
        type State = ();
        type Arguments = ActorCx;

        async fn pre_start(&self, _: ActorRef<Mail<()>>, _: ActorCx) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn says_when_its_services_crash_too_often() {
        let village = Village::builder().host(|_: &ActorCx| Idler).start().await.unwrap();
        let kind = village.kind(Idler::NAME).unwrap().clone();
        let directory = kind.as_any().downcast::<Directory<()>>().unwrap();
        let given_up = village.given_up();
        tokio::pin!(given_up);
        let mut killed = None;
        let why = loop {
            let host = directory.host.load_full().unwrap();
            if killed.replace(host.get_id()) != Some(host.get_id()) {
                host.kill();
            }
            tokio::select! {
                biased;
                why = &mut given_up => break why,
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        };
        assert!(why.contains("test.idler"), "{why}");
    }
}
