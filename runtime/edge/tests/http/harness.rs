//! A village with a counter, a slow actor, memory and agents, and its door on free ports.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aivillage_actors::ConversationData;
use aivillage_edge::config::LimitsConfig;
use aivillage_edge::{AnswerData, Edge, EdgeConfig, JobData, RunningEdge};
use aivillage_governance::Governance;
use aivillage_governance::tlog::{Home, TlogConfig};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, ClusterStatus, Expose, Kind, Mail, Reply, Village, VillageBuilder,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

/// What a [`Counter`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) enum CounterMsg {
    /// Adds and answers with the sum.
    Add(u64, Reply<u64>),
    /// Adds, answers nothing.
    Bump(u64),
    /// Answers when the test says so.
    Wait(Reply<u64>),
    /// Fails.
    Panic(Reply<u64>),
    /// Exposed as an action that the policies do not know.
    Odd(Reply<u64>),
    /// Not exposed.
    Secret(Reply<u64>),
}

/// Counts; each `Add` is counted in `runs` too.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    pub runs: Arc<AtomicU64>,
    pub waiting: Arc<AtomicU64>,
    pub go: Arc<Notify>,
    pub arrived: Arc<Notify>,
}

impl Kind for Counter {
    const NAME: &'static str = "test.counter";
    type Body = CounterMsg;
}

impl Actor for Counter {
    type Msg = Mail<CounterMsg>;
    type State = u64;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, sum: &mut u64) -> Result<(), ActorProcessingErr> {
        match mail.body {
            CounterMsg::Add(n, reply) => {
                self.runs.fetch_add(1, Ordering::SeqCst);
                *sum = sum.saturating_add(n);
                reply.send(*sum);
            }
            CounterMsg::Bump(n) => *sum = sum.saturating_add(n),
            CounterMsg::Wait(reply) => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.arrived.notify_waiters();
                self.go.notified().await;
                reply.send(*sum);
            }
            CounterMsg::Panic(_) => panic!("on purpose"),
            CounterMsg::Odd(reply) | CounterMsg::Secret(reply) => reply.send(*sum),
        }
        Ok(())
    }
}

/// A running door with what a test needs to talk to it.
pub(crate) struct Door {
    pub village: Village,
    pub edge: RunningEdge,
    pub governance: Governance,
    pub key: String,
    pub counter: Counter,
    pub client: Client,
    pub dir: tempfile::TempDir,
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut EdgeConfig)) -> Self {
        Self::on(|builder| builder, change).await
    }

    /// With this configuration.
    pub(crate) async fn configured(config: &str) -> Self {
        let config = config.parse().unwrap();
        Self::on(|builder| builder.config(config), |_| {}).await
    }

    /// On a node that joins the cluster of another; ready, and so is the other to work with it.
    pub(crate) async fn join(other: &Door) -> Self {
        Self::join_as(other, "").await
    }

    /// The same with more in its configuration.
    pub(crate) async fn join_as(other: &Door, more: &str) -> Self {
        let cluster = other.village.cluster().unwrap();
        let token = cluster.new_token(1, Duration::from_mins(1), "test").await.unwrap();
        let seed = cluster.addr();
        let config = format!("{more}\nnode.listen = '127.0.0.1:0'\njoin.token = '{token}'\njoin.seeds = ['{seed}']");
        let config: toml::Table = config.parse().unwrap();
        let joined = Self::on(|builder| builder.config(config).clustered(), |_| {}).await;
        for door in [other, &joined] {
            let is_settled = |status: &ClusterStatus| {
                // Before that the copies are still on their way.
                let is_copied = status.groups.iter().all(|group| group.voters.len() + group.learners.len() == 2);
                door.village.health().ready && status.health == "healthy" && status.members.len() == 2 && is_copied
            };
            let settled = door.village.cluster().unwrap().wait_for(is_settled);
            tokio::time::timeout(Duration::from_secs(30), settled).await.expect("two nodes that are well");
        }
        joined
    }

    /// On a node that has founded a cluster.
    pub(crate) async fn clustered() -> Self {
        let listen = "node.listen = '127.0.0.1:0'".parse().unwrap();
        Self::on(|builder| builder.config(listen).clustered(), |_| {}).await
    }

    /// On a node that has founded a cluster, with a transparency log.
    pub(crate) async fn clustered_and_logged() -> (Self, Home) {
        let dir = tempfile::tempdir().unwrap();
        let clock = aivillage_runtime::clock::unix_ms;
        let home = Home::open(&dir.path().join("governance"), "node", TlogConfig::default(), clock).unwrap();
        // One principal tries every route.
        let config = "node.listen = '127.0.0.1:0'\ngovernance.defence.principal = '1000000/s'".parse().unwrap();
        let build = |builder: VillageBuilder| home.install(builder.config(config).clustered());
        (Self::start(dir, Some(home.clone()), build, |_| {}).await, home)
    }

    /// With a transparency log.
    pub(crate) async fn logged() -> (Self, Home) {
        let dir = tempfile::tempdir().unwrap();
        let clock = aivillage_runtime::clock::unix_ms;
        let home = Home::open(&dir.path().join("governance"), "node", TlogConfig::default(), clock).unwrap();
        (Self::start(dir, Some(home.clone()), |builder| home.install(builder), |_| {}).await, home)
    }

    /// With this configuration and a transparency log.
    pub(crate) async fn configured_and_logged(config: &str) -> (Self, Home) {
        let dir = tempfile::tempdir().unwrap();
        let clock = aivillage_runtime::clock::unix_ms;
        let home = Home::open(&dir.path().join("governance"), "node", TlogConfig::default(), clock).unwrap();
        let config = config.parse().unwrap();
        let build = |builder: VillageBuilder| home.install(builder.config(config));
        (Self::start(dir, Some(home.clone()), build, |_| {}).await, home)
    }

    /// On a node that is built so.
    pub(crate) async fn on(
        build: impl FnOnce(VillageBuilder) -> VillageBuilder,
        change: impl FnOnce(&mut EdgeConfig),
    ) -> Self {
        Self::start(tempfile::tempdir().unwrap(), None, build, change).await
    }

    async fn start(
        dir: tempfile::TempDir,
        log: Option<Home>,
        build: impl FnOnce(VillageBuilder) -> VillageBuilder,
        change: impl FnOnce(&mut EdgeConfig),
    ) -> Self {
        let counter =
            Counter { runs: Arc::default(), waiting: Arc::default(), go: Arc::default(), arrived: Arc::default() };
        let (builder, governance) = aivillage_governance::install(build(builder(&counter))).unwrap();
        governance.secret.set(zeroize::Zeroizing::new([7; 32]));
        governance.owners.add(ConversationData);
        governance.owners.add(AnswerData);
        governance.owners.add(JobData);
        let village = builder.start().await.unwrap();
        let mut config = config();
        change(&mut config);
        let edge = Edge::start_logged(&village, config, dir.path(), &governance, log).await.unwrap();
        let key = std::fs::read_to_string(&edge.admin_key_path).unwrap().trim().to_owned();
        let client = Client::builder().no_proxy().build().unwrap();
        // A node that joins has policies once it takes part.
        eventually("policies", async || governance.pdp.epoch()).await;
        Door { village, edge, governance, key, counter, client, dir }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.edge.addr)
    }

    /// A request with the admin key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(&self.key)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.dir.path().join("admin.key")
    }
}

/// Looks until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Free ports, everything else as shipped.
pub(crate) fn config() -> EdgeConfig {
    // All logins of a test come from one address.
    let limits = LimitsConfig { login: "1000/min burst 1000".parse().unwrap() };
    EdgeConfig {
        limits,
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        ..EdgeConfig::default()
    }
}

fn builder(counter: &Counter) -> VillageBuilder {
    let counter = counter.clone();
    let builder = Village::builder().host(move |_: &ActorCx| counter.clone()).expose::<Counter>([
        Expose::new("Add", "actor.call"),
        Expose::new("Bump", "actor.call"),
        Expose::new("Wait", "actor.read"),
        Expose::new("Odd", "counter.odd"),
        Expose::new("Panic", "actor.call"),
    ]);
    let builder = aivillage_memory::install(aivillage_edge::install(builder));
    aivillage_actors::install(builder).unwrap()
}

/// Status and JSON body; the body must be a problem with `code` if the status is an error.
pub(crate) async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let mime = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(mime, "application/problem+json", "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["trace_id"].as_str().unwrap().len(), 32, "{body}");
    assert!(body["type"].as_str().unwrap().starts_with("urn:aivillage:problem:"));
    (status, body["code"].as_str().unwrap().to_owned())
}
