//! How many cases and appeals there were, for who watches the village. The public report counts apart.

use aivillage_runtime::MetricSet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::case::Phase;
use super::docket::Docket;
use super::event::CaseEvent;
use crate::moderation::Level;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByLevel {
    level: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// Counters of the cases of this node.
#[derive(Debug)]
pub(super) struct CaseMetrics {
    opened: Family<ByLevel, Counter>,
    appeals: Family<ByOutcome, Counter>,
}

impl MetricSet for CaseMetrics {
    fn register(registry: &mut Registry) -> Self {
        let set = Self { opened: Family::default(), appeals: Family::default() };
        registry.register("mod_cases", "Cases opened about verdicts that act", set.opened.clone());
        registry.register("appeals", "Appeals that were made, and how they ended", set.appeals.clone());
        set
    }
}

impl CaseMetrics {
    /// Counts what has become durable; `docket` is as after the event.
    pub(super) fn count(&self, event: &CaseEvent, docket: &Docket) {
        match event {
            CaseEvent::Opened(_, case) => {
                let level = match case.judged.level() {
                    Level::H0 => "H0",
                    Level::H1 => "H1",
                    Level::H2 => "H2",
                    Level::H3 => "H3",
                };
                self.opened.get_or_create(&ByLevel { level }).inc();
            }
            CaseEvent::Appealed { .. } => self.outcome(Phase::Appealed),
            CaseEvent::Ended { case, phase, .. } if docket.case(*case).is_ok_and(|case| case.appeal.is_some()) => {
                self.outcome(*phase);
            }
            _ => {}
        }
    }

    fn outcome(&self, phase: Phase) {
        self.appeals.get_or_create(&ByOutcome { outcome: phase.name() }).inc();
    }
}
