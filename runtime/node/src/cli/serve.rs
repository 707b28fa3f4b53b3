//! One node in this process: starts it, says when it is ready, follows its configuration, drains it.

use std::{
    fs, io,
    net::TcpListener,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aivillage_edge::{Edge, EdgeError, RunningEdge};
use aivillage_governance::{
    Governance, InstallError,
    keys::{KeysNode, KeystoreError, RootError},
    policy::{Bundle, PolicyConfig},
    tlog::{Home, HomeError, TlogConfig},
};
use aivillage_runtime::{
    Identity, JoinUrl, StartError, StoreError, Village, clock,
    cluster::{ClusterError, ClusterStatus},
    config::{ConfigWatch, Loaded},
    join::JoinError,
    telemetry::Telemetry,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::{
    Exit, Failure, Global, Outcome,
    client::{self, ADDRESS_FILE},
    config::{self, Sources},
    fleet,
    options::NodeOptions,
    output::{self, BOLD, DIM, GOOD, NAME, paint},
    policy,
};
use crate::{Cluster, FullError, governed};

/// In the data directory of a node that is a member of a cluster: where it listened for the others last.
pub(crate) const CLUSTER_FILE: &str = "cluster.addr";
/// In the data directory of every node.
const IDENTITY_FILE: &str = "identity.ed25519";
/// How often a node that is not ready is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Pause before the log's actors are woken again.
const PAUSE: Duration = Duration::from_secs(1);

/// A node to be served.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) options: NodeOptions,
    /// What it joins, unless it is a member already.
    pub(crate) join: Option<JoinUrl>,
    /// Ends when standard input does.
    pub(crate) with_parent: bool,
}

impl Serve {
    /// Starts, serves, drains.
    ///
    /// # Errors
    /// Exit 2 for a wrong configuration, 3 when data directory or port is in use or the cluster denies the token, 4 when the
    /// store or the cluster cannot be reached, 1 when draining was cut short, 70 when the supervisors gave up, 78 when the
    /// transparency log does not verify.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let started = Instant::now();
        let sources = self.options.sources(global, self.join.as_ref());
        let loaded = sources.load().map_err(|error| config::refused(&error))?;
        let data = &loaded.value.node.data;
        one_node_only(data)?;
        if self.join.is_some() && data.join(CLUSTER_FILE).exists() {
            output::note(format_args!("{} is that of a member already: starting it", data.display()));
        }
        let name = loaded.value.node.display_name();
        let telemetry = Telemetry::install(&loaded.value.telemetry, &name).map_err(|error| config::refused(&error))?;
        let telemetry = Arc::new(telemetry);
        let outcome = self.serve(global, sources, loaded, &telemetry, started).await;
        telemetry.shutdown();
        outcome
    }

    async fn serve(
        &self,
        global: &Global,
        sources: Sources,
        loaded: Loaded<Cluster>,
        telemetry: &Arc<Telemetry>,
        started: Instant,
    ) -> Outcome {
        raise_open_files();
        let mut stop = StopSignals::listen(self.with_parent)?;
        let node = Node::start(&loaded).await?;
        node.follow(&sources, loaded, telemetry.clone());
        let voice = Voice { quiet: self.options.quiet, json: global.json, started };
        voice.hello(&node, &sources);
        let serving = async {
            node.until_ready(|waiting| voice.waiting(waiting)).await;
            voice.ready(&node, &sources);
            std::future::pending::<()>().await;
        };
        let failure = tokio::select! {
            () = stop.first() => None,
            why = node.village.given_up() => Some(
                Failure::new(Exit::GaveUp, format!("the village gave up: {why}"))
                    .hint("its log says which part crashed; what was acknowledged is in the store"),
            ),
            why = node.governance.refused() => Some(
                Failure::new(Exit::Refused, why)
                    .hint("join with an empty data directory, or start this one without its cluster's --join"),
            ),
            () = serving => None,
        };
        voice.draining();
        let drained = node.drain(stop).await;
        failure.map_or(drained, Err)
    }
}

/// A directory with several nodes in it is not the directory of one.
fn one_node_only(data: &Path) -> Result<(), Failure> {
    let nodes = fleet::directories(data);
    if nodes.is_empty() || is_node(data) {
        return Ok(());
    }
    let nodes = nodes.len();
    Err(Failure::new(Exit::Refused, format!("{} holds the data of {nodes} nodes", data.display()))
        .hint(format!("start them with `village up --nodes {nodes}`, or name another directory with --data DIR")))
}

/// Whether a directory is that of a node.
pub(crate) fn is_node(data: &Path) -> bool {
    data.join(IDENTITY_FILE).exists()
}

/// What the command says while it serves.
struct Voice {
    quiet: bool,
    json: bool,
    started: Instant,
}

impl Voice {
    /// Where things are.
    fn hello(&self, node: &Node, sources: &Sources) {
        if self.quiet || self.json {
            return;
        }
        let edge = &node.edge;
        let line =
            |name: &str, value: &str| output::say(format_args!("  {} {value}", paint(DIM, format_args!("{name:<8}"))));
        output::say(format_args!("\n  {}\n", paint(BOLD, "AI Village")));
        let url = paint(NAME, format_args!("http://{}", edge.addr));
        line("address", &format!("{url}  {}", paint(DIM, "docs at /docs, OpenAI clients at /v1")));
        line("key", &edge.admin_key_path.display().to_string());
        line("data", &node.data.display().to_string());
        line("cluster", &format!("{}  {}", node.cluster_addr(), paint(DIM, "`village token new` lets a node join")));
        line("metrics", &format!("http://{}/metrics", edge.admin_addr));
        line("config", &sources.file().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string()));
    }

    /// What the node waits for.
    fn waiting(&self, what: &str) {
        if self.quiet || self.json {
            return tracing::info!(what, "not ready yet");
        }
        output::note(paint(DIM, format_args!("  {what}")));
    }

    fn ready(&self, node: &Node, sources: &Sources) {
        let (edge, seconds) = (&node.edge, self.started.elapsed().as_secs_f64());
        let url = format!("http://{}", edge.addr);
        if self.json {
            output::say(json!({
                "ready": true, "url": url, "admin_url": format!("http://{}", edge.admin_addr),
                "key_file": edge.admin_key_path, "data": node.data, "config": sources.file(),
                "node": node.village.node_id().to_string(), "name": node.name, "cluster_addr": node.cluster_addr(),
                "seconds": seconds, "pid": std::process::id(),
            }));
            return;
        }
        let ready = format!("{} in {seconds:.2} s at {url}", paint(GOOD, "ready"));
        if self.quiet {
            output::say(ready);
            return;
        }
        let program = program();
        output::say(format_args!(
            "\n  In another terminal:\n    {program} memory add ~/notes\n    {program} ask sage \"what do my notes say about ...?\"\n"
        ));
        output::say(format_args!("  {ready}; Ctrl-C stops\n"));
    }

    fn draining(&self) {
        if !self.quiet && !self.json {
            output::note(paint(DIM, "\ndraining; a second signal stops at once"));
        }
    }
}

/// How this program was called.
pub(crate) fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "village".to_owned())
}

/// A started village with its door.
struct Node {
    village: Village,
    governance: Governance,
    edge: RunningEdge,
    log: Home,
    name: String,
    data: PathBuf,
    drain_timeout: Duration,
}

impl Node {
    async fn start(loaded: &Loaded<Cluster>) -> Result<Self, Failure> {
        let node = &loaded.value.node;
        let data = node.data.clone();
        let mut table = loaded.table.clone();
        if let Some(listen) = last_listen(&node.listen, &node.advertise, &data) {
            let section = table.entry("node").or_insert_with(|| toml::Table::new().into());
            section.as_table_mut().map(|section| section.insert("listen".to_owned(), listen.into()));
        }
        check_policies(&loaded.value.governance.policy)?;
        let log = open_log(&data, loaded.value.governance.tlog)?;
        let builder = Village::builder().config(table).data_dir(&data).clustered();
        let (builder, governance) = governed(builder).map_err(|error| install_failure(&error))?;
        check_root(&governance.keys, &data)?;
        let builder = log.install(builder);
        let village = builder.start().await.map_err(|error| start_failure(&error))?;
        match Edge::start_logged(&village, loaded.value.edge.clone(), &data, &governance, log.clone()).await {
            Ok(edge) => {
                let drain_timeout = loaded.value.drain.timeout.get();
                let node = Self { village, governance, edge, log, name: node.display_name(), data, drain_timeout };
                node.leave_word();
                node.wake_log();
                Ok(node)
            }
            Err(error) => {
                let failure = edge_failure(&error);
                // Nothing was served yet; what the shutdown would add is secondary to why it happens.
                let _ = village.shutdown().await;
                Err(failure)
            }
        }
    }

    /// Lets log and witness look for each other, once the node takes part.
    fn wake_log(&self) {
        let (village, log) = (self.village.clone(), self.log.clone());
        let wake = async move {
            while let Err(error) = log.begin(&village).await {
                tracing::debug!(%error, "the transparency log is not cosigned yet");
                tokio::time::sleep(PAUSE).await;
            }
        };
        self.village.task("tlog.begin", wake).detach();
    }

    /// Writes where this node is, for commands and for its next start.
    fn leave_word(&self) {
        for (name, address) in [(ADDRESS_FILE, self.edge.addr.to_string()), (CLUSTER_FILE, self.cluster_addr())] {
            if let Err(error) = fs::write(self.data.join(name), address) {
                tracing::warn!(%error, name, "address file not written");
            }
        }
    }

    fn cluster_addr(&self) -> String {
        self.village.cluster().map(|cluster| cluster.addr().to_owned()).unwrap_or_default()
    }

    /// Waits until the node takes part; `tell` hears what it waits for whenever that changes.
    async fn until_ready(&self, tell: impl Fn(&str)) {
        let mut told = String::new();
        loop {
            let takes_part = self.village.health().ready;
            let has_policies = self.governance.pdp.epoch().is_some();
            let has_secret = self.governance.secret.is_there() && self.governance.keys.handle().has_root();
            if takes_part && has_policies && has_secret {
                return;
            }
            let waiting = match self.village.cluster() {
                Some(cluster) if !takes_part => waiting(&cluster.status()),
                _ if !has_policies => "waiting for the policies".to_owned(),
                _ => "waiting for the keys of the village".to_owned(),
            };
            if waiting != told {
                tell(&waiting);
                told = waiting;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Applies a changed configuration, on SIGHUP or when the file changes.
    fn follow(&self, sources: &Sources, first: Loaded<Cluster>, telemetry: Arc<Telemetry>) {
        let reread = sources.clone();
        let watch =
            ConfigWatch::new(sources.file().map(Path::to_owned), first, Cluster::HOT.iter().copied(), move || {
                reread.load()
            });
        let mut values = watch.subscribe();
        let village = self.village.clone();
        self.village
            .task("config.apply", async move {
                while values.changed().await.is_ok() {
                    let cluster = Arc::clone(&values.borrow_and_update());
                    if let Err(error) = apply(&village, &telemetry, &cluster) {
                        tracing::error!(%error, "configuration not applied");
                    }
                }
            })
            .detach();
        self.village
            .task("config.watch", async move {
                if let Err(error) = watch.run().await {
                    tracing::warn!(%error, "the configuration is not followed");
                }
            })
            .detach();
    }

    /// Lets everything in hand finish; a second signal or the time limit cuts it short.
    async fn drain(self, mut stop: StopSignals) -> Outcome {
        let _ = fs::remove_file(self.data.join(ADDRESS_FILE));
        let (village, edge, log) = (self.village, self.edge, self.log);
        let drained = async {
            edge.drain().await;
            let stopped = village.shutdown().await.map_err(|error| error.to_string());
            // The last: what was done until now is in it.
            stopped.and(log.log().close().await.map_err(|error| error.to_string()))
        };
        let kept = "everything acknowledged is in the store";
        tokio::select! {
            result = timeout(self.drain_timeout, drained) => match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Failure::new(Exit::Failed, format!("not drained cleanly: {error}"))),
                Err(_) => Err(Failure::new(Exit::Failed, format!("not drained within drain.timeout; {kept}"))),
            },
            () = stop.first() => Err(Failure::new(Exit::Failed, format!("stopped by a second signal; {kept}"))),
        }
    }
}

/// A folder of policies that cannot be used is told now, and not by a node that allows nothing.
fn check_policies(config: &PolicyConfig) -> Result<(), Failure> {
    let hint = "`village policy check DIR` looks at a folder of policies without a village";
    let sources = config
        .sources()
        .map_err(|error| Failure::new(Exit::Usage, format!("governance.policy.dir: {error}")).hint(hint))?;
    Bundle::load(&sources).map_err(|error| Failure { exit: Exit::Usage, ..policy::refused(&error) }.hint(hint))?;
    Ok(())
}

/// A root key that does not open is told now, and not by a node that keeps nothing.
fn check_root(keys: &KeysNode, data: &Path) -> Result<(), Failure> {
    keys.check(&data.join(GOVERNANCE)).map_err(|error| {
        let (exit, hint) = match &error {
            RootError::NoPassphrase { .. } | RootError::PassphraseFile { .. } => {
                (Exit::Usage, "`village config show` has the section [governance.keys]")
            }
            RootError::Keystore(KeystoreError::Damaged { .. }) => (
                Exit::Unsound,
                "without the key nothing opens that this node sealed; a member of its cluster has it too",
            ),
            _ => (Exit::Refused, "nothing that is sealed opens without the root key"),
        };
        Failure::new(exit, format!("the root key: {}", client::chain(&error))).hint(hint)
    })
}

/// With port 0 a node takes the port that it had before, if that is free: the others look for it there first, and after a
/// restart of all of them it is the only place they know.
fn last_listen(listen: &str, advertise: &str, data: &Path) -> Option<String> {
    let (host, "0") = listen.rsplit_once(':')? else { return None };
    if !advertise.is_empty() && !advertise.ends_with(":0") {
        return None;
    }
    let last = fs::read_to_string(data.join(CLUSTER_FILE)).ok()?;
    let (_, port) = last.trim().rsplit_once(':')?;
    let address = format!("{host}:{port}");
    TcpListener::bind(&address).is_ok().then_some(address)
}

/// What a node that is not ready waits for.
fn waiting(status: &ClusterStatus) -> String {
    let (here, all) = (status.members.iter().filter(|member| member.linked).count(), status.members.len());
    if all == 0 {
        "waiting for the others to tell who there is".to_owned()
    } else if here < all {
        format!("waiting for the other nodes: {here} of {all} here")
    } else {
        "waiting to be taken in".to_owned()
    }
}

fn apply(village: &Village, telemetry: &Telemetry, cluster: &Cluster) -> Result<(), Box<dyn std::error::Error>> {
    telemetry.apply(&cluster.telemetry)?;
    village.reconfigure(toml::Table::try_from(cluster)?)?;
    Ok(())
}

/// A connection is an open file. Many systems let a process have 1024 and more if it asks.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// SIGINT and SIGTERM, and the end of the process that started this one.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    parent: Option<pipe::Receiver>,
}

impl StopSignals {
    pub(crate) fn listen(with_parent: bool) -> Result<Self, Failure> {
        let wrong = |error: io::Error| Failure::new(Exit::Failed, format!("no signal handler: {error}"));
        let listen = |kind| signal(kind).map_err(wrong);
        let standard_input = || pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?);
        let parent = with_parent.then(standard_input).transpose().map_err(wrong)?;
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, parent })
    }

    /// The next signal.
    ///
    /// # Cancel safety
    /// Safe: no signal is lost.
    pub(crate) async fn first(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = gone(&mut self.parent) => self.parent = None,
        }
    }
}

/// Completes when the other end of the pipe is closed; never without a pipe.
async fn gone(parent: &mut Option<pipe::Receiver>) {
    let Some(pipe) = parent else { return std::future::pending().await };
    while pipe.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
}

/// Where a node keeps its log and what belongs to it.
pub(crate) const GOVERNANCE: &str = "governance";

fn open_log(data: &Path, config: TlogConfig) -> Result<Home, Failure> {
    fs::create_dir_all(data).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot make the data directory {}: {error}", data.display()))
    })?;
    let identity = Identity::load_or_create(data).map_err(|error| start_failure(&error.into()))?;
    let dir = data.join(GOVERNANCE);
    Home::open(&dir, &identity.node_id().to_string(), config, clock::unix_ms).map_err(|error| log_failure(&error, &dir))
}

fn log_failure(error: &HomeError, dir: &Path) -> Failure {
    let text = format!("the transparency log: {}", client::chain(error));
    if matches!(error, HomeError::InUse { .. }) {
        return Failure::new(Exit::Refused, text)
            .hint("stop that process, or give this village a directory of its own with --data DIR");
    }
    if !error.is_damage() {
        return Failure::new(Exit::Unavailable, text);
    }
    let (log, dir) = (Home::folder_in(dir), dir.display());
    Failure::new(Exit::Unsound, text).hint(format!(
        "`village log audit {}` names the first bad file; restore it from a copy. Or keep {dir} as evidence: move it away, and the \
         node begins a new log under a new key",
        log.display()
    ))
}

fn install_failure(error: &FullError) -> Failure {
    let text = client::chain(error);
    let FullError::Governance(InstallError::Constitution(_)) = error else { return Failure::new(Exit::Usage, text) };
    Failure::new(Exit::Unsound, text).hint(
        "`village constitution verify DIR --root-key KEY` looks at it without a village; restore it or have it signed",
    )
}

fn start_failure(error: &StartError) -> Failure {
    let (exit, hint) = match error {
        StartError::Config(_) => (Exit::Usage, None),
        StartError::Store(StoreError::InUse { .. }) => {
            (Exit::Refused, Some("stop that process, or give this village a directory of its own with --data DIR"))
        }
        StartError::Store(_) | StartError::Blobs(_) => (Exit::Unavailable, None),
        StartError::Cluster(error) => cluster_failure(error),
        _ => (Exit::Failed, None),
    };
    let failure = Failure::new(exit, client::chain(error));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn cluster_failure(error: &ClusterError) -> (Exit, Option<&'static str>) {
    match error {
        ClusterError::Listen { .. } => (
            Exit::Refused,
            Some(
                "`--cluster-listen 127.0.0.1:0` takes any free port; another village may be running: `village status`",
            ),
        ),
        ClusterError::NoAddress { .. } => (Exit::Usage, Some("give it with --advertise HOST:PORT")),
        ClusterError::Token(_) => (Exit::Usage, Some("`village token new` prints the whole line")),
        ClusterError::Join { source, .. } => match source {
            JoinError::Denied | JoinError::WrongNode { .. } => (Exit::Refused, None),
            JoinError::TooLarge => (Exit::Failed, None),
            _ => (
                Exit::Unavailable,
                Some("is the village there up, and does it listen where this machine can reach it?"),
            ),
        },
        ClusterError::Recovering => {
            (Exit::Refused, Some("end it: `village cluster recover --data DIR --i-accept-data-loss`"))
        }
        ClusterError::Store(_) => (Exit::Unavailable, None),
        _ => (Exit::Failed, None),
    }
}

fn edge_failure(error: &EdgeError) -> Failure {
    let failure = |exit| Failure::new(exit, client::chain(error));
    match error {
        EdgeError::PortInUse { .. } => failure(Exit::Refused).hint("`--listen 127.0.0.1:0` takes any free port"),
        EdgeError::NotLoopback { .. } | EdgeError::Config { .. } => failure(Exit::Usage),
        EdgeError::AdminKey { .. } => failure(Exit::Refused),
        _ => failure(Exit::Failed),
    }
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::cluster::MemberStatus;

    use super::*;

    fn status(linked: &[bool]) -> ClusterStatus {
        let member = |linked: &bool| MemberStatus {
            id: String::new(),
            name: String::new(),
            addr: String::new(),
            state: "joining".into(),
            since_ms: 0,
            reason: String::new(),
            weight: 1,
            labels: aivillage_runtime::Labels::new(),
            version: String::new(),
            linked: *linked,
            leads: Vec::new(),
        };
        ClusterStatus {
            cluster: String::new(),
            node: String::new(),
            health: "no_quorum",
            problems: Vec::new(),
            epoch: 0,
            leader: None,
            members: linked.iter().map(member).collect(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_node_says_what_it_waits_for() {
        assert_eq!(waiting(&status(&[true, false, false])), "waiting for the other nodes: 1 of 3 here");
        assert_eq!(waiting(&status(&[true, true])), "waiting to be taken in");
        assert_eq!(waiting(&status(&[])), "waiting for the others to tell who there is");
    }

    #[test]
    fn a_free_port_is_kept_from_start_to_start() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(last_listen("127.0.0.1:0", "", data.path()), None);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        fs::write(data.path().join(CLUSTER_FILE), &address).unwrap();
        assert_eq!(last_listen("127.0.0.1:0", "", data.path()), None);
        drop(taken);
        assert_eq!(last_listen("127.0.0.1:0", "", data.path()), Some(address.clone()));
        assert_eq!(last_listen("127.0.0.1:0", "attic:0", data.path()), Some(address));
        assert_eq!(last_listen("127.0.0.1:0", "attic:4100", data.path()), None);
        assert_eq!(last_listen("127.0.0.1:4100", "", data.path()), None);
    }

    #[test]
    fn the_directory_of_several_nodes_is_not_that_of_one() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(one_node_only(data.path()), Ok(()));
        fs::create_dir(data.path().join("n1")).unwrap();
        let refused = one_node_only(data.path()).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.hint.unwrap().contains("--nodes 1"));
        fs::write(data.path().join(IDENTITY_FILE), "").unwrap();
        assert_eq!(one_node_only(data.path()), Ok(()));
    }

    #[test]
    fn failures_of_the_cluster_have_their_exit_codes() {
        let join = |source| StartError::Cluster(ClusterError::Join { addr: "attic:4100".into(), source });
        let broken = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listen = ClusterError::Listen { addr: "127.0.0.1:4100".into(), source: broken() };
        let cases = [
            (StartError::Cluster(listen), Exit::Refused, "--cluster-listen"),
            (join(JoinError::Denied), Exit::Refused, ""),
            (join(JoinError::Unreachable { addr: "attic:4100".into(), source: broken() }), Exit::Unavailable, "reach"),
            (StartError::Cluster(ClusterError::Token("cut".into())), Exit::Usage, "village token new"),
            (StartError::Cluster(ClusterError::NoAddress { listen: "[::]:1".into() }), Exit::Usage, "--advertise"),
        ];
        for (error, exit, hint) in cases {
            let failure = start_failure(&error);
            assert_eq!(failure.exit, exit, "{failure:?}");
            assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{failure}");
        }
        assert!(start_failure(&join(JoinError::Denied)).message.contains("village token new"));
    }
}
