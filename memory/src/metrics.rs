//! What memory counts.

use aivillage_runtime::MetricSet;
use aivillage_runtime::telemetry::metrics::latency_histogram;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Metrics of this crate; the registry adds `village_`.
#[derive(Debug)]
pub struct MemoryMetrics {
    /// Documents stored, as new or as new version.
    pub documents: Counter,
    /// Documents refused.
    pub refused: Counter,
    /// Documents found to repeat another one.
    pub duplicates: Counter,
    /// Documents deleted.
    pub deleted: Counter,
    /// Chunks indexed.
    pub chunks: Counter,
    /// Commits of an index.
    pub commits: Counter,
    /// Indexes rebuilt from the journal.
    pub rebuilds: Counter,
    /// Files whose parser failed or ran out of time.
    pub parser_failures: Counter,
    /// From a durable write's arrival to its answer.
    pub put: Histogram,
    /// From a query's arrival at the retriever to its answer.
    pub query: Histogram,
}

impl MetricSet for MemoryMetrics {
    fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let documents = counter("memory_documents", "Documents stored, new ones and new versions");
        let refused = counter("memory_refused_documents", "Documents refused");
        let duplicates = counter("memory_duplicate_documents", "Documents found to repeat another one");
        let deleted = counter("memory_deleted_documents", "Documents deleted");
        let chunks = counter("memory_indexed_chunks", "Chunks indexed");
        let commits = counter("memory_index_commits", "Commits of an index");
        let rebuilds = counter("memory_index_rebuilds", "Indexes rebuilt from the journal");
        let parser_failures = counter("memory_parser_failures", "Files whose parser failed or ran out of time");
        let mut histogram = |name: &str, help: &str| {
            let histogram = latency_histogram();
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        let put = histogram("memory_put", "From the arrival of a write to its answer");
        let query = histogram("memory_query", "From the arrival of a query to its answer");
        Self { documents, refused, duplicates, deleted, chunks, commits, rebuilds, parser_failures, put, query }
    }
}
