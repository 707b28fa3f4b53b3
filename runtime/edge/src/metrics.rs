//! The numbers of the door; names follow the `OpenTelemetry` HTTP conventions, labels are bounded.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aivillage_runtime::MetricSet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Labels of one request, named by the `OpenTelemetry` conventions.
#[expect(clippy::struct_field_names, reason = "the convention's names")]
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// The route's template, never the raw path.
    pub(crate) http_route: &'static str,
    /// One of the registered methods, or `_OTHER`.
    pub(crate) http_request_method: &'static str,
    /// The status answered.
    pub(crate) http_response_status_code: u16,
}

/// A label with a fixed set of values.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// How an attempt to authenticate ended.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Outcome {
    outcome: &'static str,
}

/// The kind of a stream.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct StreamKind {
    kind: &'static str,
}

/// All metrics of the edge.
#[derive(Debug)]
pub(crate) struct EdgeMetrics {
    duration: Family<RequestLabels, Histogram, fn() -> Histogram>,
    /// Requests between their head and the end of the handler.
    pub(crate) active: Gauge<i64, AtomicI64>,
    shed: Family<Reason, Counter>,
    auth: Family<Outcome, Counter>,
    streams: Family<StreamKind, Gauge>,
    /// Answers served from the idempotency store.
    pub(crate) replays: Counter,
    /// Jobs that are queued or running.
    pub(crate) jobs: Gauge<i64, AtomicI64>,
    /// Connections open on the public listener.
    pub(crate) connections: Gauge<i64, AtomicI64>,
}

fn latency() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl MetricSet for EdgeMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = EdgeMetrics {
            duration: Family::new_with_constructor(latency),
            active: Gauge::default(),
            shed: Family::default(),
            auth: Family::default(),
            streams: Family::default(),
            replays: Counter::default(),
            jobs: Gauge::default(),
            connections: Gauge::default(),
        };
        registry.register_with_unit(
            "http_server_request_duration",
            "Time from the request's head to the response's head",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("http_server_active_requests", "Requests being answered", metrics.active.clone());
        registry.register("edge_shed", "Requests refused because the server was at a limit", metrics.shed.clone());
        registry.register("edge_auth", "Checks of a credential", metrics.auth.clone());
        registry.register("edge_streams_active", "Open event streams", metrics.streams.clone());
        registry.register("edge_idempotency_replays", "Answers replayed from the store", metrics.replays.clone());
        registry.register("edge_jobs_active", "Jobs queued or running", metrics.jobs.clone());
        registry.register("edge_connections_active", "Connections on the public listener", metrics.connections.clone());
        metrics
    }
}

impl EdgeMetrics {
    pub(crate) fn observe(&self, labels: &RequestLabels, took: Duration) {
        self.duration.get_or_create(labels).observe(took.as_secs_f64());
    }

    pub(crate) fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn auth(&self, outcome: &'static str) {
        self.auth.get_or_create(&Outcome { outcome }).inc();
    }

    /// The gauge of one kind of stream.
    pub(crate) fn streams(&self, kind: &'static str) -> Gauge {
        self.streams.get_or_create(&StreamKind { kind }).clone()
    }
}

/// The method as a label: unknown words from outside must not make new series.
pub(crate) fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        _ => "_OTHER",
    }
}
