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

/// Milliseconds since the machine started, its sleep included: leases go on while a laptop sleeps, which `Instant` does not.
#[must_use]
pub fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}
