//! The log's metrics.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aivillage_runtime::MetricSet;
use aivillage_runtime::telemetry::LATENCY_BUCKETS;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::handle::LogStatus;

/// Handles of the metrics of a node's log.
#[derive(Debug)]
pub(crate) struct TlogMetrics {
    size: Gauge<i64, AtomicI64>,
    append: Histogram,
    cosignatures: Gauge<i64, AtomicI64>,
    witness_failures: Counter,
    refuses: Gauge<i64, AtomicI64>,
    forks: Gauge<i64, AtomicI64>,
}

impl MetricSet for TlogMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            size: Gauge::default(),
            append: Histogram::new(LATENCY_BUCKETS),
            cosignatures: Gauge::default(),
            witness_failures: Counter::default(),
            refuses: Gauge::default(),
            forks: Gauge::default(),
        };
        registry.register("tlog_size", "Entries of the transparency log", set.size.clone());
        registry.register_with_unit(
            "tlog_append",
            "Time to make the entries of one sync safe",
            Unit::Seconds,
            set.append.clone(),
        );
        registry.register("tlog_cosignatures", "Witnesses that cosigned the last checkpoint", set.cosignatures.clone());
        registry.register(
            "tlog_witness_failures",
            "Questions to witnesses without a cosignature",
            set.witness_failures.clone(),
        );
        registry.register("tlog_refuses", "Whether the log takes nothing: 1 if so", set.refuses.clone());
        registry.register("tlog_forks", "Logs of the cluster that signed two histories", set.forks.clone());
        set
    }
}

impl TlogMetrics {
    pub(crate) fn show(&self, status: &LogStatus) {
        self.size.set(i64::try_from(status.size).unwrap_or(i64::MAX));
        self.cosignatures.set(i64::try_from(status.cosigned).unwrap_or(i64::MAX));
        self.refuses.set(status.refuses.is_some().into());
    }

    pub(crate) fn appended(&self, took: Duration) {
        self.append.observe(took.as_secs_f64());
    }

    pub(crate) fn witness_failed(&self) {
        self.witness_failures.inc();
    }

    pub(crate) fn forks(&self, count: usize) {
        self.forks.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
