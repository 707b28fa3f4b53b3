//! Wall-clock time, read in one place so that everything else takes it as a value.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn unix_ms() -> u64 {
    now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
