//! Logs, metrics and traces of a node.
pub mod metrics;
mod process;

pub use metrics::{KindMetrics, LATENCY_BUCKETS, MetricSet, Metrics, Outcome, RuntimeMetrics, StoreMetrics};
