//! Connections that were turned away: counted by reason, logged rarely.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One line per reason in this time: an outsider decides how often there would be one.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a connection did not become a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// Its key is not a member's.
    NotPinned,
    /// It shows no raw Ed25519 key.
    NoRawKey,
    /// It speaks another version of TLS, or none of our protocols.
    Protocol,
    /// It did not finish its handshake in time.
    Timeout,
    /// It does not speak TLS, or breaks its rules.
    Garbage,
    /// It made room for others that came later.
    HalfOpen,
    /// Its address tried to join too often.
    RateLimited,
    /// It went away itself, or refused us.
    Closed,
}

impl Rejected {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NotPinned,
        Self::NoRawKey,
        Self::Protocol,
        Self::Timeout,
        Self::Garbage,
        Self::HalfOpen,
        Self::RateLimited,
        Self::Closed,
    ];

    /// Its name as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotPinned => "not_pinned",
            Self::NoRawKey => "no_raw_key",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Garbage => "garbage",
            Self::HalfOpen => "half_open",
            Self::RateLimited => "rate_limited",
            Self::Closed => "closed",
        }
    }

    /// Whether an operator may want to act: somebody who talks like a node of a village, but is not let in.
    fn is_notable(self) -> bool {
        matches!(self, Self::NotPinned | Self::RateLimited | Self::HalfOpen)
    }
}

/// The counters of one listener.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    /// By the position in [`Rejected::ALL`].
    counts: [AtomicU64; Rejected::ALL.len()],
    logged: Mutex<[Pace; Rejected::ALL.len()]>,
}

impl Rejections {
    pub(super) fn count(&self, reason: Rejected, remote: IpAddr) {
        let total = self.counts[reason as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if !self.logged.lock()[reason as usize].is_due(Instant::now()) {
            return;
        }
        let reason_name = reason.as_str();
        if reason.is_notable() {
            tracing::warn!(reason = reason_name, %remote, total, "connection refused");
        } else {
            tracing::debug!(reason = reason_name, %remote, total, "connection refused");
        }
    }

    pub(super) fn snapshot(&self) -> [(Rejected, u64); Rejected::ALL.len()] {
        Rejected::ALL.map(|reason| (reason, self.counts[reason as usize].load(Ordering::Relaxed)))
    }
}

/// Lets one log line pass in [`LOG_EVERY`].
#[derive(Debug, Default)]
pub(super) struct Pace(Option<Instant>);

impl Pace {
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let rejections = Rejections::default();
        for (times, reason) in Rejected::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| rejections.count(reason, [127, 0, 0, 1].into()));
        }
        let counts = rejections.snapshot().map(|(_, count)| count);
        assert_eq!(counts, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn one_line_in_ten_seconds() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert!(pace.is_due(start));
        assert!(!pace.is_due(start + LOG_EVERY / 2));
        assert!(pace.is_due(start + LOG_EVERY));
        assert!(!pace.is_due(start + LOG_EVERY * 3 / 2));
    }
}
