//! How long the actors of a kind spend on one mail: counts on a logarithmic scale, from which quantiles are read.
//!
//! Ten buckets a decade from 100 ns to 100 s, so a quantile is at most a third too high. Recording is two relaxed adds, on
//! the few mails that are timed at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds within a decade, in hundredths. All bounds of `LATENCY_BUCKETS` are among them.
const STEPS: [u64; 10] = [100, 125, 150, 200, 250, 300, 400, 500, 600, 750];
/// 100 ns to 75 s.
const DECADES: usize = 9;
/// And what takes longer, shown as 100 s.
const BUCKETS: usize = STEPS.len() * DECADES + 1;
/// Upper bounds in nanoseconds.
const BOUNDS: [u64; BUCKETS] = bounds();
/// Those of them that the exported histogram has.
const EXPORTED: [u64; 3] = [100, 250, 500];
/// And these, around the objective of 100 ms; in nanoseconds.
const EXPORTED_TOO: [u64; 2] = [75_000_000, 150_000_000];

const fn bounds() -> [u64; BUCKETS] {
    let mut all = [100_000_000_000; BUCKETS];
    let (mut at, mut unit) = (0, 1);
    while at < BUCKETS - 1 {
        all[at] = STEPS[at % STEPS.len()] * unit;
        at += 1;
        if at.is_multiple_of(STEPS.len()) {
            unit *= 10;
        }
    }
    all
}

/// The counts of one kind. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct HandleTimes(Arc<Scale>);

#[derive(Debug)]
struct Scale {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

impl HandleTimes {
    pub(super) fn observe(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < nanos).min(BUCKETS - 1);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        self.0.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn handling(&self) -> Handling {
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Handling::of(
            BOUNDS.iter().zip(counts).filter(|(_, count)| *count > 0).map(|(bound, count)| (us(*bound), count)),
        )
    }
}

#[allow(clippy::cast_precision_loss, reason = "at most 10^11, far below 2^53")]
fn us(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Whether the exported histogram has a bound too: at 1, 2.5 and 5 from a microsecond to ten seconds, and around the objective.
fn is_exported(at: usize) -> bool {
    let plain = EXPORTED.contains(&STEPS[at % STEPS.len()]) && (1_000..=10_000_000_000).contains(&BOUNDS[at]);
    plain || EXPORTED_TOO.contains(&BOUNDS[at])
}

impl TypedMetric for HandleTimes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for HandleTimes {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let (mut buckets, mut gathered, mut all) = (Vec::new(), 0, 0);
        for (at, count) in self.0.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            gathered += count;
            all += count;
            if is_exported(at) {
                buckets.push((us(BOUNDS[at]) / 1e6, std::mem::take(&mut gathered)));
            }
        }
        buckets.push((f64::INFINITY, gathered));
        let sum = Duration::from_nanos(self.0.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, all, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Times that actors spent on mails which were timed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Handling {
    /// Mails that were timed.
    pub samples: u64,
    /// Half of them took at most this, microseconds; at most a third too high.
    pub p50_us: Option<f64>,
    /// 99 of 100 took at most this.
    pub p99_us: Option<f64>,
    /// Upper bound in microseconds, and mails within it that are above the bound before; rising, without empty ones.
    pub buckets: Vec<(f64, u64)>,
}

impl Handling {
    fn of(buckets: impl IntoIterator<Item = (f64, u64)>) -> Self {
        let buckets: Vec<_> = buckets.into_iter().collect();
        let samples = buckets.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        let [p50_us, p99_us] = [50, 99].map(|percent| quantile(&buckets, samples, percent));
        Self { samples, p50_us, p99_us, buckets }
    }

    /// What came after an earlier look at the same counts.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let known = |bound: f64| before.buckets.iter().find(|(known, _)| known.total_cmp(&bound).is_eq());
        let newer =
            |(bound, count): &(f64, u64)| (*bound, count.saturating_sub(known(*bound).map_or(0, |(_, count)| *count)));
        Self::of(self.buckets.iter().map(newer).filter(|(_, count)| *count > 0))
    }
}

/// The bound of the first bucket with which so many per cent are reached.
fn quantile(buckets: &[(f64, u64)], samples: u64, percent: u64) -> Option<f64> {
    let rank = samples.saturating_mul(percent).div_ceil(100);
    let mut reached: u64 = 0;
    let bucket = buckets.iter().find(|(_, count)| {
        reached = reached.saturating_add(*count);
        reached >= rank
    });
    bucket.map(|(bound, _)| *bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::LATENCY_BUCKETS;

    #[test]
    fn the_scale_rises_by_at_most_a_third_and_has_the_common_bounds() {
        assert_eq!((BOUNDS[0], BOUNDS[BUCKETS - 1]), (100, 100_000_000_000));
        for pair in BOUNDS.windows(2) {
            assert!(pair[0] < pair[1] && pair[1] * 3 <= pair[0] * 4, "{pair:?}");
        }
        let exported: Vec<_> = (0..BUCKETS).filter(|at| is_exported(*at)).map(|at| BOUNDS[at]).collect();
        for bound in LATENCY_BUCKETS {
            assert!(exported.iter().any(|nanos| (us(*nanos) / 1e6 - bound).abs() < 1e-12), "{bound} in {exported:?}");
        }
        assert_eq!(exported.len(), 24, "{exported:?}");
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!(HandleTimes::default().handling(), Handling::default());
    }

    #[test]
    fn what_came_since_is_told_from_what_was_before() {
        let times = HandleTimes::default();
        times.observe(Duration::from_secs(1));
        let before = times.handling();
        times.observe(Duration::from_micros(5));
        let since = times.handling().since(&before);
        assert_eq!((since.samples, since.p50_us, since.p99_us), (1, Some(5.0), Some(5.0)));
        assert_eq!(times.handling().since(&times.handling()), Handling::default());
    }

    proptest! {
        /// Against the sorted values: never below, and at most a third above.
        #[test]
        fn quantiles_are_close_to_the_true_ones(mut nanos in proptest::collection::vec(100_u64..50_000_000_000, 1..300)) {
            let times = HandleTimes::default();
            for nanos in &nanos {
                times.observe(Duration::from_nanos(*nanos));
            }
            nanos.sort_unstable();
            let seen = times.handling();
            for (percent, quantile) in [(50, seen.p50_us), (99, seen.p99_us)] {
                let truth = us(nanos[(nanos.len() * percent).div_ceil(100) - 1]);
                let quantile = quantile.unwrap();
                prop_assert!(truth <= quantile && quantile <= truth * 4.0 / 3.0, "{truth} {quantile}");
            }
        }
    }
}
