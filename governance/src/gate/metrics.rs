//! The gate's metrics. Labels are of bounded sets, never names or content.

use std::time::Duration;

use aivillage_runtime::MetricSet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::dlp::DataKind;
use crate::moderation::{Level, Stage, Verdict};

use super::judge::name_of;

/// Upper bounds in seconds: most of it takes microseconds.
const BUCKETS: [f64; 12] = [1e-6, 5e-6, 25e-6, 50e-6, 100e-6, 150e-6, 250e-6, 500e-6, 1e-3, 2e-3, 10e-3, 100e-3];

#[derive(Debug, Clone, Copy)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// Handles of all metrics of the gate.
#[derive(Debug)]
pub(super) struct GateMetrics {
    verdicts: Family<ByVerdict, Counter>,
    decisions: Family<ByResult, Counter>,
    denied: Family<ByCode, Counter>,
    data: Family<ByType, Counter>,
    unchecked: Counter,
    admit: Family<ByStage, Histogram, Buckets>,
    layers: Family<ByLayer, Histogram, Buckets>,
    pdp: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerdict {
    level: &'static str,
    category: &'static str,
    action: &'static str,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStage {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLayer {
    layer: &'static str,
}

impl MetricSet for GateMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self {
            verdicts: Family::default(),
            decisions: Family::default(),
            denied: Family::default(),
            data: Family::default(),
            unchecked: Counter::default(),
            admit: Family::new_with_constructor(Buckets),
            layers: Family::new_with_constructor(Buckets),
            pdp: Histogram::new(BUCKETS),
        };
        registry.register("mod_verdicts", "Verdicts of moderation", set.verdicts.clone());
        registry.register("pdp_decisions", "Decisions of the policies by result", set.decisions.clone());
        registry.register("gate_denied", "What did not pass the gate, by code", set.denied.clone());
        registry.register("dlp_hits", "Personal and secret data that was found", set.data.clone());
        registry.register("mod_unchecked", "Contents that passed unjudged, to be judged later", set.unchecked.clone());
        registry.register_with_unit("gate_admit", "Time of an admission", Unit::Seconds, set.admit.clone());
        registry.register_with_unit("mod_latency", "Time of a layer", Unit::Seconds, set.layers.clone());
        registry.register_with_unit("pdp_latency", "Time of a decision", Unit::Seconds, set.pdp.clone());
        set
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::H0 => "H0",
        Level::H1 => "H1",
        Level::H2 => "H2",
        Level::H3 => "H3",
    }
}

impl GateMetrics {
    pub(super) fn verdict(&self, stage: Stage, verdict: &Verdict, took: Duration) {
        self.verdicts
            .get_or_create(&ByVerdict {
                level: verdict.level.map_or("none", level),
                category: verdict.category.map_or("none", |category| category.code()),
                action: name_of(verdict.action),
                stage: stage.code(),
            })
            .inc();
        self.layers.get_or_create(&ByLayer { layer: "moderation" }).observe(took.as_secs_f64());
    }

    pub(super) fn decision(&self, result: &'static str, took: Duration) {
        self.decisions.get_or_create(&ByResult { result }).inc();
        self.pdp.observe(took.as_secs_f64());
    }

    pub(super) fn denied(&self, stage: Stage, code: &'static str) {
        self.denied.get_or_create(&ByCode { code, stage: stage.code() }).inc();
    }

    pub(super) fn data(&self, found: &[DataKind], took: Duration) {
        for kind in found {
            self.data.get_or_create(&ByType { r#type: kind.label() }).inc();
        }
        self.layers.get_or_create(&ByLayer { layer: "dlp" }).observe(took.as_secs_f64());
    }

    pub(super) fn unchecked(&self) {
        self.unchecked.inc();
    }

    pub(super) fn admitted(&self, stage: Stage, took: Duration) {
        self.admit.get_or_create(&ByStage { stage: stage.code() }).observe(took.as_secs_f64());
    }
}
