//! The last messages that reached nobody, for people who ask why.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::clock;

/// How many dead letters a node remembers.
const RING: usize = 10_000;

/// A message that reached nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// Kind it was sent to.
    pub kind: &'static str,
    /// Hash of the key; keys may be personal data.
    pub key_hash: String,
    /// Why it was lost.
    pub reason: &'static str,
    /// How many messages were lost at once.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct DeadLetters {
    ring: Mutex<VecDeque<DeadLetter>>,
    total: AtomicU64,
}

impl DeadLetters {
    pub(crate) fn record(&self, kind: &'static str, key: &str, reason: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        self.total.fetch_add(count, Ordering::Relaxed);
        let key_hash = blake3::hash(key.as_bytes()).to_hex()[..16].to_owned();
        tracing::debug!(kind, key_hash, reason, count, "dead letters");
        let mut ring = self.ring.lock();
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(DeadLetter { at_ms: clock::unix_ms(), kind, key_hash, reason, count });
    }

    pub(crate) fn latest(&self, limit: usize) -> Vec<DeadLetter> {
        self.ring.lock().iter().rev().take(limit).cloned().collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_is_bounded_and_newest_first() {
        let letters = DeadLetters::default();
        for _ in 0..=RING {
            letters.record("k", "key", "crashed", 1);
        }
        letters.record("k", "key", "draining", 2);
        assert_eq!(letters.latest(usize::MAX).len(), RING);
        assert_eq!(letters.latest(1)[0].reason, "draining");
        assert_eq!(letters.total(), RING as u64 + 3);
    }
}
