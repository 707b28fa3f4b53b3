//! A circuit breaker: after repeated failures a provider is left alone for a while, so that callers fall back at once.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Failures within [`WINDOW`] that open the breaker.
const FAILURES: usize = 5;
/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(30);
/// How long an open breaker refuses.
const OPEN: Duration = Duration::from_secs(10);

/// State of one provider's breaker. After [`OPEN`] one request is let through; its outcome closes or reopens it.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: VecDeque<Instant>,
    opened: Option<Instant>,
    probing: bool,
}

impl Breaker {
    /// Whether a request may go out now.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.opened {
            None => true,
            Some(at) if now.duration_since(at) < OPEN || self.probing => false,
            Some(_) => {
                self.probing = true;
                true
            }
        }
    }

    /// Notes how a request ended.
    pub fn record(&mut self, ok: bool, now: Instant) {
        self.probing = false;
        if ok {
            self.failures.clear();
            self.opened = None;
            return;
        }
        self.failures.push_back(now);
        self.failures.retain(|at| now.duration_since(*at) <= WINDOW);
        if self.opened.is_some() || self.failures.len() >= FAILURES {
            self.opened = Some(now);
        }
    }

    /// Notes that a request was broken off by its caller: it says nothing, but another probe may go out.
    pub fn release(&mut self) {
        self.probing = false;
    }

    /// Whether requests are refused now.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.opened.is_some_and(|at| now.duration_since(at) < OPEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(start: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.admits(start));
            breaker.record(false, start);
        }
        breaker
    }

    #[test]
    fn five_failures_open_it_for_ten_seconds() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert!(!breaker.admits(start + Duration::from_secs(9)) && breaker.is_open(start));
        assert!(breaker.admits(start + OPEN));
        assert!(!breaker.admits(start + OPEN), "one probe at a time");
        breaker.record(true, start + OPEN);
        assert!(breaker.admits(start + OPEN));
    }

    #[test]
    fn a_failed_probe_reopens_it() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert!(breaker.admits(start + OPEN));
        breaker.record(false, start + OPEN);
        assert!(!breaker.admits(start + OPEN + Duration::from_secs(9)));
    }

    #[test]
    fn old_failures_do_not_count() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for n in 0..20 {
            breaker.record(false, start + Duration::from_secs(8 * n));
        }
        assert!(breaker.admits(start + Duration::from_secs(160)));
    }
}
