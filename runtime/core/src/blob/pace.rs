//! How fast bytes go to one peer.

use std::time::Duration;

use tokio::time::Instant;

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Hands out the times at which bytes may go. Invariant: within any time `t` at most `rate * (t + BURST)` bytes, and the
/// last ones handed out.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; no limit if none.
    rate: Option<f64>,
    free_at: Option<Instant>,
}

impl Pace {
    /// 0 is no limit.
    #[allow(clippy::cast_precision_loss, reason = "nobody counts the bytes of 2^53 a second")]
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: (rate > 0).then_some(rate as f64), free_at: None }
    }

    /// When the next `bytes` may go.
    pub(super) fn reserve(&mut self, bytes: u32, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = self.free_at.map_or(earliest, |free| free.max(earliest));
        self.free_at = Some(at + Duration::from_secs_f64(f64::from(bytes) / rate));
        at.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_their_time_and_pauses_are_not_saved_up() {
        let (mut pace, start) = (Pace::new(1000), Instant::now());
        assert_eq!(pace.reserve(100, start), start);
        assert_eq!(pace.reserve(500, start), start);
        assert_eq!(pace.reserve(1, start), start + Duration::from_millis(500));
        let later = start + Duration::from_secs(100);
        assert_eq!(pace.reserve(1000, later), later);
        assert_eq!(pace.reserve(1, later), later + Duration::from_millis(900));
        let mut free = Pace::new(0);
        assert_eq!([free.reserve(u32::MAX, start), free.reserve(1, start)], [start, start]);
    }
}
