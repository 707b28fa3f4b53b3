//! When something that crashed may come up again: restart intensity and back-off, free of clocks and actors.
//!
//! Intensity (Erlang/OTP `supervisor`, "Tuning the intensity and period"): a restart at time `t` is admitted iff fewer than
//! `max_restarts` restarts lie in `(t - window, t]`. Back-off: the first restart is at once, restart `k + 1` waits
//! `d_k = min(backoff_max, backoff_base * 2^(k-1)) * U(0.8, 1.2)`, and `k` falls back to 0 after `healthy_after` without a crash.
//! The jitter keeps children that died together from coming back together.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// How often, and how fast, something that crashes is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts admitted within `window`; 0 never restarts.
    pub max_restarts: u32,
    /// Length of the sliding window; zero counts nothing, so every restart is admitted.
    pub window: Duration,
    /// Delay of the second restart, doubled for each further one; zero turns the back-off off.
    pub backoff_base: Duration,
    /// Upper bound of the delay before jitter, which may add 20 % to it.
    pub backoff_max: Duration,
    /// Time without a crash after which the next crash counts as the first again.
    pub healthy_after: Duration,
}

impl RestartPolicy {
    /// The policy of system supervisors: 3 restarts in 5 s, delays from 50 ms to 10 s.
    pub const SYSTEM: Self = Self {
        max_restarts: 3,
        window: Duration::from_secs(5),
        backoff_base: Duration::from_millis(50),
        backoff_max: Duration::from_secs(10),
        healthy_after: Duration::from_mins(1),
    };

    /// The policy of a host of many activations: 100 restarts in 10 s, delays as in [`Self::SYSTEM`].
    pub const HOST: Self = Self { max_restarts: 100, window: Duration::from_secs(10), ..Self::SYSTEM };

    /// Sets how many restarts are admitted in how long a window.
    #[must_use]
    pub const fn intensity(self, max_restarts: u32, window: Duration) -> Self {
        Self { max_restarts, window, ..self }
    }

    /// Sets the delay of the second restart and the bound that doubling it runs into.
    #[must_use]
    pub const fn backoff(self, base: Duration, max: Duration) -> Self {
        Self { backoff_base: base, backoff_max: max, ..self }
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::SYSTEM
    }
}

/// What to do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this time; zero means at once.
    RestartAfter(Duration),
    /// It crashed too often: leave it down and tell whoever is above.
    GiveUp,
}

/// Counts restarts in a sliding window. Invariant: holds at most `max_restarts` instants, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intensity {
    restarts: VecDeque<Instant>,
}

impl Intensity {
    /// Records a restart at `now` if the window has room for it, and says whether it had.
    pub(crate) fn admit(&mut self, policy: &RestartPolicy, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|&oldest| now.saturating_duration_since(oldest) >= policy.window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= policy.max_restarts as usize {
            return false;
        }
        self.restarts.push_back(now);
        true
    }
}

/// Grows the delay between the restarts of one thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    /// Crashes since it was last healthy.
    crashes: u32,
    /// When it came up, or is due to, after the latest crash.
    up_since: Option<Instant>,
}

impl Backoff {
    /// Counts a crash and returns the delay before the restart, in whole milliseconds: the resolution of the timer.
    pub(crate) fn crashed(&mut self, policy: &RestartPolicy, now: Instant, rng: &mut impl Rng) -> Duration {
        self.healthy(policy, now);
        let delay = match self.crashes {
            0 => Duration::ZERO,
            k => {
                let doubled = policy.backoff_base.saturating_mul(1_u32.checked_shl(k - 1).unwrap_or(u32::MAX));
                let jittered = doubled.min(policy.backoff_max).mul_f64(rng.random_range(0.8..1.2));
                Duration::from_millis(u64::try_from(jittered.as_millis()).unwrap_or(u64::MAX))
            }
        };
        self.crashes = self.crashes.saturating_add(1);
        self.up_since = Some(now + delay);
        delay
    }

    /// Notes that it came up at `now`.
    pub(crate) fn started(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// Forgets earlier crashes if it has been up for `healthy_after`; says whether none is remembered.
    pub(crate) fn healthy(&mut self, policy: &RestartPolicy, now: Instant) -> bool {
        if self.up_since.is_some_and(|since| now.saturating_duration_since(since) >= policy.healthy_after) {
            self.crashes = 0;
        }
        self.crashes == 0
    }
}

/// The restart history of one thing that restarts alone, such as one activation of a kind.
///
/// Time and randomness are values, so a seed replays every decision.
#[derive(Debug, Clone)]
pub struct RestartTracker {
    policy: RestartPolicy,
    intensity: Intensity,
    backoff: Backoff,
}

impl RestartTracker {
    /// Starts with an empty history.
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, intensity: Intensity::default(), backoff: Backoff::default() }
    }

    /// Records a crash, or a start that failed, at `now` and decides about the restart.
    ///
    /// After [`Decision::GiveUp`] the history stays: the next crash is admitted once the window has room again.
    pub fn crashed(&mut self, now: Instant, rng: &mut impl Rng) -> Decision {
        if self.intensity.admit(&self.policy, now) {
            Decision::RestartAfter(self.backoff.crashed(&self.policy, now, rng))
        } else {
            Decision::GiveUp
        }
    }

    /// Notes that it came up at `now`. Without this call it counts as up from the moment its restart was due.
    pub fn started(&mut self, now: Instant) {
        self.backoff.started(now);
    }

    /// Says whether no crash is remembered, so that the tracker may be dropped; crashes are forgotten after
    /// [`RestartPolicy::healthy_after`] of being up.
    pub fn healthy(&mut self, now: Instant) -> bool {
        self.backoff.healthy(&self.policy, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const GENEROUS: RestartPolicy = RestartPolicy::SYSTEM.intensity(u32::MAX, Duration::from_secs(1));

    fn delay(tracker: &mut RestartTracker, now: Instant, rng: &mut SmallRng) -> Duration {
        match tracker.crashed(now, rng) {
            Decision::RestartAfter(delay) => delay,
            Decision::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn first_restart_is_at_once_and_the_next_ones_double_up_to_the_bound() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut tracker = RestartTracker::new(GENEROUS);
        let mut now = Instant::now();
        assert_eq!(delay(&mut tracker, now, &mut rng), Duration::ZERO);
        for k in 0..40_u32 {
            let expected = (0.05 * 2_f64.powi(i32::try_from(k).unwrap())).min(10.0);
            let got = delay(&mut tracker, now, &mut rng);
            // Whole milliseconds: up to 1 ms less than the factor 0.8.
            let range = expected * 0.8 - 0.001..=expected * 1.2;
            assert!(range.contains(&got.as_secs_f64()), "restart {k}: {got:?} is not in {range:?}");
            now += got;
        }
    }

    #[test]
    fn the_fourth_restart_in_the_window_is_refused_and_admitted_when_the_window_has_moved_on() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut tracker = RestartTracker::new(RestartPolicy::SYSTEM);
        let start = Instant::now();
        for second in 0..3 {
            assert_ne!(tracker.crashed(start + Duration::from_secs(second), &mut rng), Decision::GiveUp);
        }
        assert_eq!(tracker.crashed(start + Duration::from_millis(4_999), &mut rng), Decision::GiveUp);
        assert_ne!(tracker.crashed(start + Duration::from_secs(5), &mut rng), Decision::GiveUp);
    }

    #[test]
    fn a_minute_of_health_resets_the_delay() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut tracker = RestartTracker::new(GENEROUS);
        let mut now = Instant::now();
        for _ in 0..5 {
            delay(&mut tracker, now, &mut rng);
        }
        tracker.started(now);
        now += Duration::from_millis(59_999);
        assert!(!tracker.healthy(now));
        now += Duration::from_millis(1);
        assert!(tracker.healthy(now));
        assert_eq!(delay(&mut tracker, now, &mut rng), Duration::ZERO);
    }

    #[test]
    fn waiting_for_the_restart_does_not_count_as_health() {
        let mut rng = SmallRng::seed_from_u64(4);
        let policy = GENEROUS.backoff(Duration::from_secs(100), Duration::from_secs(100));
        let mut tracker = RestartTracker::new(policy);
        let now = Instant::now();
        delay(&mut tracker, now, &mut rng);
        let wait = delay(&mut tracker, now, &mut rng);
        assert!(wait >= Duration::from_secs(80));
        assert!(!tracker.healthy(now + wait + Duration::from_secs(59)));
        assert!(tracker.healthy(now + wait + Duration::from_mins(1)));
    }

    #[test]
    fn no_restart_is_admitted_when_the_maximum_is_zero() {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut tracker = RestartTracker::new(RestartPolicy::SYSTEM.intensity(0, Duration::from_secs(5)));
        assert_eq!(tracker.crashed(Instant::now(), &mut rng), Decision::GiveUp);
    }

    #[test]
    fn zero_backoff_restarts_at_once_every_time() {
        let mut rng = SmallRng::seed_from_u64(6);
        let mut tracker = RestartTracker::new(GENEROUS.backoff(Duration::ZERO, Duration::ZERO));
        let now = Instant::now();
        assert!((0..50).all(|_| delay(&mut tracker, now, &mut rng).is_zero()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The definition itself, over the whole history, is the reference.
        #[test]
        fn admitted_restarts_never_exceed_the_intensity(
            gaps in prop::collection::vec(0_u64..2_000, 1..60), max in 0_u32..6, window_ms in 1_u64..5_000,
        ) {
            let policy = RestartPolicy::SYSTEM.intensity(max, Duration::from_millis(window_ms));
            let mut intensity = Intensity::default();
            let start = Instant::now();
            let mut at = 0;
            let mut admitted: Vec<u64> = Vec::new();
            for gap in gaps {
                at += gap;
                let inside = admitted.iter().filter(|&&r| at - r < window_ms).count();
                let expected = inside < max as usize;
                prop_assert_eq!(intensity.admit(&policy, start + Duration::from_millis(at)), expected);
                if expected {
                    admitted.push(at);
                }
            }
        }
    }
}
