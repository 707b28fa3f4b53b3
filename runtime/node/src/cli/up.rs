//! `village up`: the whole village in this process, until a signal ends it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use aivillage_edge::{Edge, EdgeError, RunningEdge};
use aivillage_runtime::{
    StartError, StoreError, Village,
    config::{ConfigWatch, Loaded},
    telemetry::Telemetry,
};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::{
    Exit, Failure, Global, Outcome,
    client::{self, ADDRESS_FILE},
    config::{self, Sources},
    output::{self, BOLD, DIM, GOOD, NAME, paint},
};
use crate::{Cluster, full};

/// Arguments of `village up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village up
  village up --data ~/.village --listen 127.0.0.1:8181
  village up --set limits.mailbox=4096 --set telemetry.log=debug

Ctrl-C or SIGTERM drains and exits 0, a second one exits 1 at once; SIGHUP reads the configuration again.")]
pub(crate) struct Up {
    /// Configuration file [default: ./cluster.toml if it exists].
    #[arg(long, value_name = "FILE", env = "VILLAGE_CONFIG")]
    config: Option<PathBuf>,
    /// Address to serve on; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Set one key of the configuration.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Print one line when ready and nothing else.
    #[arg(long, short)]
    quiet: bool,
}

impl Up {
    /// Starts, serves, drains.
    ///
    /// # Errors
    /// Exit 2 for a wrong configuration, 3 when data directory or port is in use, 4 when the store cannot be opened, 1 when
    /// draining was cut short, 70 when the supervisors gave up.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let started = Instant::now();
        let sources = self.sources(global);
        let loaded = sources.load().map_err(|error| config::refused(&error))?;
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
        let mut stop = StopSignals::listen()?;
        let data = loaded.value.node.data.clone();
        let node = Node::start(&loaded, &data).await?;
        node.follow(&sources, loaded, telemetry.clone());
        self.announce(&node, &data, &sources, started, global.json);
        let given_up = tokio::select! {
            () = stop.first() => None,
            why = node.village.given_up() => Some(why),
        };
        if !self.quiet && !global.json {
            output::note(paint(DIM, "\ndraining; a second signal stops at once"));
        }
        let drained = node.drain(stop).await;
        match given_up {
            None => drained,
            Some(why) => Err(Failure::new(Exit::GaveUp, format!("the village gave up: {why}"))
                .hint("its log says which part crashed; what was acknowledged is in the store")),
        }
    }

    /// The options of this command are configuration too.
    fn sources(&self, global: &Global) -> Sources {
        let mut sets = self.sets.clone();
        if let Some(data) = &global.data {
            sets.push(format!("node.data={}", toml::Value::from(&*data.to_string_lossy())));
        }
        if let Some(listen) = self.listen {
            sets.push(format!("edge.listen={listen}"));
            // Who takes any port for the API wants no fixed one beside it.
            if listen.port() == 0 && !self.sets.iter().any(|set| set.starts_with("edge.admin_listen")) {
                sets.push(format!("edge.admin_listen={listen}"));
            }
        }
        Sources::new(self.config.clone(), sets)
    }

    fn announce(&self, node: &Node, data: &Path, sources: &Sources, started: Instant, as_json: bool) {
        let (edge, seconds) = (&node.edge, started.elapsed().as_secs_f64());
        let (url, admin) = (format!("http://{}", edge.addr), format!("http://{}", edge.admin_addr));
        if as_json {
            output::say(json!({
                "ready": true, "url": url, "admin_url": admin, "key_file": edge.admin_key_path, "data": data,
                "config": sources.file(), "node": node.village.node_id().to_string(), "seconds": seconds, "pid": std::process::id(),
            }));
            return;
        }
        let ready = format!("{} in {seconds:.2} s at {url}", paint(GOOD, "ready"));
        if self.quiet {
            output::say(ready);
            return;
        }
        let line =
            |name: &str, value: &str| output::say(format_args!("  {} {value}", paint(DIM, format_args!("{name:<8}"))));
        output::say(format_args!("\n  {}\n", paint(BOLD, "AI Village")));
        line("address", &format!("{}  {}", paint(NAME, &url), paint(DIM, "docs at /docs, OpenAI clients at /v1")));
        line("key", &edge.admin_key_path.display().to_string());
        line("data", &data.display().to_string());
        line("metrics", &format!("{admin}/metrics"));
        line("config", &sources.file().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string()));
        let program = std::env::args().next().unwrap_or_else(|| "village".to_owned());
        output::say(format_args!(
            "\n  In another terminal:\n    {program} memory add ~/notes\n    {program} ask sage \"what do my notes say about ...?\"\n"
        ));
        output::say(format_args!("  {ready}; Ctrl-C stops\n"));
    }
}

/// A started village with its door.
struct Node {
    village: Village,
    edge: RunningEdge,
    address_file: PathBuf,
    drain_timeout: std::time::Duration,
}

impl Node {
    async fn start(loaded: &Loaded<Cluster>, data: &Path) -> Result<Self, Failure> {
        let builder = Village::builder().config(loaded.table.clone()).data_dir(data);
        let builder = full(builder).map_err(|error| Failure::new(Exit::Usage, client::chain(&error)))?;
        let village = builder.start().await.map_err(|error| start_failure(&error))?;
        match Edge::start(&village, loaded.value.edge.clone(), data).await {
            Ok(edge) => {
                let address_file = data.join(ADDRESS_FILE);
                if let Err(error) = fs::write(&address_file, edge.addr.to_string()) {
                    tracing::warn!(%error, "address file not written, clients need --url");
                }
                Ok(Self { village, edge, address_file, drain_timeout: loaded.value.drain.timeout.get() })
            }
            Err(error) => {
                let failure = edge_failure(&error);
                // Nothing was served yet; what the shutdown would add is secondary to why it happens.
                let _ = village.shutdown().await;
                Err(failure)
            }
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
        let _ = fs::remove_file(&self.address_file);
        let (village, edge) = (self.village, self.edge);
        let drained = async {
            edge.drain().await;
            village.shutdown().await
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

/// SIGINT and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, format!("no signal handler: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The next signal.
    async fn first(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn start_failure(error: &StartError) -> Failure {
    let (exit, hint) = match error {
        StartError::Config(_) => (Exit::Usage, None),
        StartError::Store(StoreError::InUse { .. }) => {
            (Exit::Refused, Some("stop that process, or give this village a directory of its own with --data DIR"))
        }
        StartError::Store(_) | StartError::Blobs(_) => (Exit::Unavailable, None),
        _ => (Exit::Failed, None),
    };
    let failure = Failure::new(exit, client::chain(error));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
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
