//! The ledger's metrics; on the node where it is.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aivillage_runtime::MetricSet;
use aivillage_runtime::telemetry::LATENCY_BUCKETS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::books::{Answer, Books};

/// Handles of the ledger's metrics.
#[derive(Debug)]
pub(super) struct LedgerMetrics {
    transfers: Family<ByOutcome, Counter>,
    commits: Histogram,
    accounts: Gauge<i64, AtomicI64>,
    holds: Gauge<i64, AtomicI64>,
    segments: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

impl MetricSet for LedgerMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            transfers: Family::default(),
            commits: Histogram::new(LATENCY_BUCKETS),
            accounts: Gauge::default(),
            holds: Gauge::default(),
            segments: Gauge::default(),
        };
        registry.register("ledger_transfers", "Transfers by outcome", set.transfers.clone());
        let help = "Time to carry out and make durable the requests of one commit";
        registry.register_with_unit("ledger_commit", help, Unit::Seconds, set.commits.clone());
        registry.register("ledger_accounts", "Accounts", set.accounts.clone());
        registry.register("ledger_holds", "Pending transfers that are open", set.holds.clone());
        registry.register("ledger_segments", "Segments of the journal", set.segments.clone());
        set
    }
}

impl LedgerMetrics {
    pub(super) fn show(&self, books: &Books) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.accounts.set(number(books.accounts_len() as u64));
        self.holds.set(number(books.open_len() as u64));
        self.segments.set(number(books.head().next));
    }

    /// Counts transfers that are answered.
    pub(super) fn count(&self, answer: &Answer) {
        let Answer::Transfers(results) = answer else { return };
        let accepted = results.iter().filter(|result| result.is_accepted()).count() as u64;
        for (outcome, count) in [("accepted", accepted), ("refused", results.len() as u64 - accepted)] {
            self.transfers.get_or_create(&ByOutcome { outcome }).inc_by(count);
        }
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }
}
