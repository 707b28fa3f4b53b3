//! The agents' metrics.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use aivillage_runtime::MetricSet;
use aivillage_runtime::telemetry::LATENCY_BUCKETS;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Handles of all metrics of this crate.
#[derive(Debug)]
pub(crate) struct AgentMetrics {
    turns: Family<ByOutcome, Counter>,
    seconds: Histogram,
    running: Gauge,
    steps: Counter,
    tools: Family<ByTool, Counter>,
    models: Family<ByOutcome, Counter>,
    citations: Counter<u64, AtomicU64>,
    unanswerable: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTool {
    tool: &'static str,
    outcome: &'static str,
}

impl MetricSet for AgentMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            turns: Family::default(),
            seconds: Histogram::new(LATENCY_BUCKETS),
            running: Gauge::default(),
            steps: Counter::default(),
            tools: Family::default(),
            models: Family::default(),
            citations: Counter::default(),
            unanswerable: Counter::default(),
        };
        registry.register("agent_turns", "Turns by outcome", set.turns.clone());
        registry.register_with_unit("agent_turn_duration", "Time of a turn", Unit::Seconds, set.seconds.clone());
        registry.register("agent_turns_running", "Turns that run now", set.running.clone());
        registry.register("agent_steps", "Steps of turns", set.steps.clone());
        registry.register("agent_tool_calls", "Tool calls by tool and outcome", set.tools.clone());
        registry.register("agent_model_requests", "Generations by outcome", set.models.clone());
        registry.register("agent_citations", "Citations in answers", set.citations.clone());
        registry.register("agent_unanswerable", "Answers that say nothing was found", set.unanswerable.clone());
        set
    }
}

impl AgentMetrics {
    /// Counts a turn that begins; the guard counts its end, by panic too.
    #[must_use]
    pub(crate) fn turn_started(&self) -> Running<'_> {
        self.running.inc();
        Running(self)
    }

    /// Counts a finished turn.
    pub(crate) fn turn_done(
        &self,
        outcome: &'static str,
        took: Duration,
        steps: u64,
        citations: u64,
        answerable: bool,
    ) {
        self.turns.get_or_create(&ByOutcome { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
        self.steps.inc_by(steps);
        self.citations.inc_by(citations);
        if !answerable {
            self.unanswerable.inc();
        }
    }

    /// Counts a tool call.
    pub(crate) fn tool_done(&self, tool: &'static str, ok: bool) {
        self.tools.get_or_create(&ByTool { tool, outcome: outcome(ok) }).inc();
    }

    /// Counts a generation.
    pub(crate) fn model_done(&self, ok: bool) {
        self.models.get_or_create(&ByOutcome { outcome: outcome(ok) }).inc();
    }
}

fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

/// Lowers the gauge of running turns when dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AgentMetrics);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.dec();
    }
}
