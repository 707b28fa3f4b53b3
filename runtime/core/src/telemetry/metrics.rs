//! The node's metrics: one registry, filled by each crate's own table ([`MetricSet`]) and written as `OpenMetrics` text.
//!
//! Handles are made once and kept; on the message path a metric is an atomic add. Names are `area_noun_unit`, prefixed with
//! `village_` by the registry; `_total` and the unit are added when written. Labels come from bounded sets: a kind, an
//! outcome, a reason, never a key or an id.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::handling::{HandleTimes, Handling};
use super::process::ProcessMetrics;
use crate::cluster::ClusterStatus;

/// Upper bounds of latency buckets in seconds: 0.5 ms to 10 s with an exact bound at the objective of 100 ms.
pub const LATENCY_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Makes a histogram over [`LATENCY_BUCKETS`].
#[must_use]
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// The metric table of one crate or area.
pub trait MetricSet: Send + Sync + 'static {
    /// Makes the handles and registers them. The registry adds the prefix `village_`.
    fn register(registry: &mut Registry) -> Self;
}

/// All metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Sets of the runtime and of the areas: `village_…`.
    village: Registry,
    /// What every process exports under the names that common dashboards know: `process_…`.
    process: Registry,
    sets: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Metrics {
    /// A registry that holds `build_info`, the process metrics and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut village = Registry::with_prefix("village");
        let revision = option_env!("VILLAGE_REVISION").unwrap_or("unknown");
        let build = [("version", env!("CARGO_PKG_VERSION")), ("revision", revision)];
        village.register("build", "Version and source revision of the running program", Info::new(build.to_vec()));
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessMetrics));
        Self { inner: Mutex::new(Inner { village, process, sets: HashMap::new() }) }
    }

    /// The set `M`, registered on first use. Ask once and keep it: this takes a lock.
    pub fn set<M: MetricSet>(&self) -> Arc<M> {
        let inner = &mut *self.inner.lock();
        let set = inner.sets.entry(TypeId::of::<M>()).or_insert_with(|| Arc::new(M::register(&mut inner.village)));
        Arc::clone(set).downcast().expect("sets are stored under the id of their type")
    }

    /// The present values as `OpenMetrics` text, `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    #[must_use]
    pub fn encode(&self) -> String {
        let inner = self.inner.lock();
        let mut text = String::with_capacity(16 * 1024);
        encode_registry(&mut text, &inner.village)
            .and_then(|()| encode_registry(&mut text, &inner.process))
            .and_then(|()| encode_eof(&mut text))
            .expect("writing to a string cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Label of what is counted by actor kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    kind: &'static str,
    reason: &'static str,
}

/// What became of a mail that reached its actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Handled.
    Ok,
    /// `handle` returned an error, which ended the activation.
    Failed,
    /// `handle` panicked.
    Panicked,
    /// Its deadline had passed; not handled.
    Expired,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Panicked, Self::Expired];

    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Expired => "expired",
        }
    }
}

/// The table of the actor kit.
#[derive(Debug)]
pub struct RuntimeMetrics {
    live: Family<ByKind, Gauge>,
    messages: Family<ByOutcome, Counter>,
    handle: Family<ByKind, HandleTimes>,
    restarts: Family<ByKind, Counter>,
    dead_letters: Family<ByReason, Counter>,
    shed: Family<ByKind, Counter>,
}

impl RuntimeMetrics {
    /// The handles of one kind; made once, when the kind is hosted.
    #[must_use]
    pub fn kind(&self, kind: &'static str) -> KindMetrics {
        let by_kind = ByKind { kind };
        let messages = Outcome::ALL
            .map(|outcome| self.messages.get_or_create_owned(&ByOutcome { kind, outcome: outcome.label() }));
        KindMetrics {
            live: self.live.get_or_create_owned(&by_kind),
            messages,
            handle: self.handle.get_or_create_owned(&by_kind),
            restarts: self.restarts.get_or_create_owned(&by_kind),
            shed: self.shed.get_or_create_owned(&by_kind),
        }
    }

    /// Counts mails that no actor will handle. `reason` is one of a fixed set of words.
    pub fn dead_letters(&self, kind: &'static str, reason: &'static str, count: u64) {
        self.dead_letters.get_or_create(&ByReason { kind, reason }).inc_by(count);
    }
}

impl MetricSet for RuntimeMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            live: Family::default(),
            messages: Family::default(),
            handle: Family::default(),
            restarts: Family::default(),
            dead_letters: Family::default(),
            shed: Family::default(),
        };
        registry.register("actor_live", "Activations that are running now", set.live.clone());
        registry.register("actor_messages", "Mails that reached their actor, by outcome", set.messages.clone());
        let help = "Time an actor spent on one mail, sampled";
        registry.register_with_unit("actor_handle", help, Unit::Seconds, set.handle.clone());
        registry.register("actor_restarts", "Activations started again after a crash", set.restarts.clone());
        registry.register("dead_letters", "Mails that no actor will handle, by reason", set.dead_letters.clone());
        registry.register("shed", "Mails refused because the mailbox was full", set.shed.clone());
        set
    }
}

/// Label of what is turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    reason: &'static str,
}

/// The table of the links to other nodes.
#[derive(Debug)]
pub struct LinkMetrics {
    rejected: Family<ByCause, Counter>,
}

impl LinkMetrics {
    /// Counts a connection or session that was turned away. `reason` is one of a fixed set of words.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ByCause { reason }).inc();
    }

    /// Takes over what somebody else has counted for a reason of its own.
    pub(crate) fn rejected_in_all(&self, reason: &'static str, total: u64) {
        let counter = self.rejected.get_or_create(&ByCause { reason });
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}

impl MetricSet for LinkMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self { rejected: Family::default() };
        let help = "Connections and sessions of other nodes that were turned away, by reason";
        registry.register("link_rejected", help, set.rejected.clone());
        set
    }
}

/// Label of what moves between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDir {
    dir: &'static str,
}

/// The table of the blob lane.
#[derive(Debug)]
pub struct BlobMetrics {
    received: Counter,
    sent: Counter,
}

impl BlobMetrics {
    /// Bytes of a file came from another node.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Bytes of a file went to another node.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }
}

impl MetricSet for BlobMetrics {
    fn register(registry: &mut Registry) -> Self {
        let moved = Family::<ByDir, Counter>::default();
        let [received, sent] = ["in", "out"].map(|dir| moved.get_or_create_owned(&ByDir { dir }));
        registry.register("blob_bytes", "Bytes of blobs and snapshots from and to other nodes", moved);
        Self { received, sent }
    }
}

/// Pre-bound handles of one kind: each call is an atomic operation.
#[derive(Debug, Clone)]
pub struct KindMetrics {
    live: Gauge,
    messages: [Counter; Outcome::ALL.len()],
    handle: HandleTimes,
    restarts: Counter,
    shed: Counter,
}

impl KindMetrics {
    /// An activation came up.
    pub fn started(&self) {
        self.live.inc();
    }

    /// An activation ended, for whatever reason.
    pub fn ended(&self) {
        self.live.dec();
    }

    /// The number of activations that are up.
    #[must_use]
    pub fn live(&self) -> i64 {
        self.live.get()
    }

    /// Counts mails by what became of them.
    pub fn messages(&self, outcome: Outcome, count: u64) {
        self.messages[outcome as usize].inc_by(count);
    }

    /// Mails counted so far, whatever became of them.
    #[must_use]
    pub fn messages_total(&self) -> u64 {
        self.messages.iter().map(Counter::get).sum()
    }

    /// Records the time one mail took.
    pub fn handled_in(&self, elapsed: Duration) {
        self.handle.observe(elapsed);
    }

    /// Times recorded so far.
    #[must_use]
    pub fn handling(&self) -> Handling {
        self.handle.handling()
    }

    /// An activation was started again after a crash.
    pub fn restarted(&self) {
        self.restarts.inc();
    }

    /// Restarts counted so far.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.get()
    }

    /// A mail was refused because the mailbox was full.
    pub fn shed(&self) {
        self.shed.inc();
    }
}

/// The table of the store.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Time from handing in a batch to its being durable at the level asked for.
    pub commit_seconds: Histogram,
    /// Batches written.
    pub commits: Counter,
    /// Calls of fdatasync for them.
    pub syncs: Counter,
    /// Bytes of redo log that a restart would read.
    pub redo_bytes: Gauge,
    /// Times the index was built again from the redo log.
    pub rebuilds: Counter,
    /// Bytes free on the disk of the data directory.
    pub free_bytes: Gauge,
}

impl MetricSet for StoreMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            commit_seconds: latency_histogram(),
            commits: Counter::default(),
            syncs: Counter::default(),
            redo_bytes: Gauge::default(),
            rebuilds: Counter::default(),
            free_bytes: Gauge::default(),
        };
        let help = "Time from handing in a batch to its being durable";
        registry.register_with_unit("store_commit", help, Unit::Seconds, set.commit_seconds.clone());
        registry.register("store_commits", "Batches written to the redo log", set.commits.clone());
        registry.register("store_syncs", "Calls of fdatasync for commits", set.syncs.clone());
        let help = "Size of the redo log that a restart would read";
        registry.register_with_unit("store_redo", help, Unit::Bytes, set.redo_bytes.clone());
        registry.register("store_rebuilds", "Times the index was built again from the redo log", set.rebuilds.clone());
        let help = "Free space on the disk of the data directory";
        registry.register_with_unit("store_free", help, Unit::Bytes, set.free_bytes.clone());
        set
    }
}

/// One member in one state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    node: String,
    state: String,
}

/// One replicated group; 0 is the control group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByGroup {
    group: u8,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    peer: String,
}

/// One peer and one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    peer: String,
    direction: &'static str,
}

/// The table of the cluster, as its node saw it when the metrics were read. A cluster has at most 64 nodes, so ids may be
/// labels.
#[derive(Debug)]
pub struct ClusterMetrics {
    member_state: Family<ByState, Gauge>,
    leader: Family<ByGroup, Gauge>,
    term: Family<ByGroup, Gauge>,
    applied: Family<ByGroup, Gauge>,
    link_up: Family<ByPeer, Gauge>,
    link_bytes: Family<ByDirection, Gauge>,
}

impl MetricSet for ClusterMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            member_state: Family::default(),
            leader: Family::default(),
            term: Family::default(),
            applied: Family::default(),
            link_up: Family::default(),
            link_bytes: Family::default(),
        };
        registry.register("member_state", "1 for the state that a member is in", set.member_state.clone());
        registry.register("raft_leader", "1 when this node leads the group", set.leader.clone());
        registry.register("raft_term", "Newest term of the group", set.term.clone());
        registry.register("raft_applied_index", "Last entry of the group applied here", set.applied.clone());
        registry.register("link_up", "1 while there is a link to the peer", set.link_up.clone());
        let help = "Bytes over the present link to the peer";
        registry.register_with_unit("link_moved", help, Unit::Bytes, set.link_bytes.clone());
        set
    }
}

impl ClusterMetrics {
    /// Takes over how the cluster is; members that are gone are forgotten.
    pub(crate) fn show(&self, status: &ClusterStatus, links: &[(String, [u64; 2])]) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.member_state.clear();
        self.link_up.clear();
        self.link_bytes.clear();
        for member in &status.members {
            let labels = ByState { node: member.id.clone(), state: member.state.clone() };
            self.member_state.get_or_create(&labels).set(1);
            if member.id != status.node {
                self.link_up.get_or_create(&ByPeer { peer: member.id.clone() }).set(i64::from(member.linked));
            }
        }
        for group in &status.groups {
            let labels = ByGroup { group: group.group };
            let leads = group.leader.as_deref() == Some(status.node.as_str());
            self.leader.get_or_create(&labels).set(i64::from(leads));
            self.term.get_or_create(&labels).set(gauge(group.term));
            self.applied.get_or_create(&labels).set(gauge(group.applied.unwrap_or(0)));
        }
        for (peer, [received, sent]) in links {
            for (direction, bytes) in [("in", received), ("out", sent)] {
                let labels = ByDirection { peer: peer.clone(), direction };
                self.link_bytes.get_or_create(&labels).set(gauge(*bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value of the sample whose name and labels are exactly `series`.
    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn runtime_table_is_written_under_the_designed_names() {
        let metrics = Metrics::new();
        let runtime = metrics.set::<RuntimeMetrics>();
        let counter = runtime.kind("counter");
        counter.started();
        counter.started();
        counter.ended();
        counter.messages(Outcome::Ok, 7);
        counter.messages(Outcome::Panicked, 1);
        counter.handled_in(Duration::from_millis(100));
        counter.restarted();
        counter.shed();
        runtime.dead_letters("counter", "stopped", 3);
        metrics.set::<StoreMetrics>().rebuilds.inc();
        let text = metrics.encode();
        for (series, expected) in [
            (r#"village_actor_live{kind="counter"}"#, 1.0),
            (r#"village_actor_messages_total{kind="counter",outcome="ok"}"#, 7.0),
            (r#"village_actor_messages_total{kind="counter",outcome="panicked"}"#, 1.0),
            (r#"village_actor_messages_total{kind="counter",outcome="expired"}"#, 0.0),
            (r#"village_actor_handle_seconds_bucket{le="0.1",kind="counter"}"#, 1.0),
            (r#"village_actor_handle_seconds_bucket{le="0.075",kind="counter"}"#, 0.0),
            (r#"village_actor_handle_seconds_bucket{le="+Inf",kind="counter"}"#, 1.0),
            (r#"village_actor_handle_seconds_sum{kind="counter"}"#, 0.1),
            (r#"village_actor_restarts_total{kind="counter"}"#, 1.0),
            (r#"village_dead_letters_total{kind="counter",reason="stopped"}"#, 3.0),
            (r#"village_shed_total{kind="counter"}"#, 1.0),
            ("village_store_commits_total", 0.0),
            ("village_store_syncs_total", 0.0),
            ("village_store_rebuilds_total", 1.0),
            ("village_store_redo_bytes", 0.0),
            ("village_store_free_bytes", 0.0),
            ("village_store_commit_seconds_count", 0.0),
            (r#"village_build_info{version="0.1.0",revision="unknown"}"#, 1.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(counter.messages_total(), 8);
        assert_eq!((counter.live(), counter.restarts()), (1, 1));
    }

    #[test]
    fn process_series_are_read_from_the_running_process() {
        let text = Metrics::new().encode();
        for (series, least) in [
            ("process_resident_memory_bytes", 1_000_000.0),
            ("process_open_fds", 3.0),
            ("process_max_fds", 3.0),
            ("process_cpu_seconds_total", 0.0),
            ("process_threads", 1.0),
            ("process_uptime_seconds", 0.0),
            ("process_start_time_seconds", 1_700_000_000.0),
        ] {
            assert!(value(&text, series).is_some_and(|value| value >= least), "{series} in\n{text}");
        }
    }

    #[test]
    fn a_set_is_registered_once_however_often_it_is_asked_for() {
        let metrics = Metrics::new();
        let sets: Vec<Arc<RuntimeMetrics>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| metrics.set::<RuntimeMetrics>())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sets.iter().all(|set| Arc::ptr_eq(set, &sets[0])));
        sets[0].kind("counter").started();
        assert_eq!(metrics.encode().matches("# TYPE village_actor_live gauge").count(), 1);
    }
}
