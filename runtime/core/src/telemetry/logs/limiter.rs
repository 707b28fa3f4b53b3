//! Keeps one place in the code from flooding the log: ten lines a second, and the next line says how many were left out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

/// Lines that one place may print in a [`WINDOW`].
const LINES: u64 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines by place. Bounded by the number of log statements in the program.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    places: HashMap<Identifier, Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    printed: u64,
    suppressed: u64,
}

impl Limiter {
    /// Says whether the line may be printed, and if so, how many of its place were not since the last.
    pub(super) fn admit(&mut self, place: Identifier, now: Instant) -> Option<u64> {
        let place = self.places.entry(place).or_insert(Place { since: now, printed: 0, suppressed: 0 });
        if now.saturating_duration_since(place.since) >= WINDOW {
            (place.since, place.printed) = (now, 0);
        }
        if place.printed == LINES {
            place.suppressed += 1;
            return None;
        }
        place.printed += 1;
        Some(std::mem::take(&mut place.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;

    use super::*;

    #[test]
    fn what_was_left_out_is_told_with_the_next_line() {
        let event = tracing::callsite! { name: "x", kind: tracing::metadata::Kind::EVENT, fields: };
        let place = event.metadata().callsite();
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let printed = (0..25).filter_map(|_| limiter.admit(place.clone(), start)).count();
        assert_eq!(printed, 10);
        assert_eq!(limiter.admit(place.clone(), start + Duration::from_millis(999)), None);
        assert_eq!(limiter.admit(place.clone(), start + WINDOW), Some(16));
        assert_eq!(limiter.admit(place, start + WINDOW), Some(0));
    }
}
