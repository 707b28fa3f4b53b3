//! Delays after failed logins, for each account as seen from each network.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// Failures that cost nothing.
pub const FREE_FAILURES: u32 = 5;
/// First delay, milliseconds; doubled with each further failure.
const FIRST_DELAY_MS: u64 = 1_000;
/// Longest delay.
const LAST_DELAY_MS: u64 = 15 * 60 * 1_000;
/// Failures this old are forgotten.
const FORGET_MS: u64 = 24 * 60 * 60 * 1_000;
/// Most accounts and networks kept of a tenant; each entry has cost its maker the time of a password hash.
const MAX_ENTRIES: usize = 4_096;

/// An account as seen from a network. Made of names that may not exist, so they are hashed and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockKey([u8; 16]);

impl LockKey {
    /// Names `login` from `network`, e.g. `198.51.100.0/24`.
    #[must_use]
    pub fn of(login: &str, network: &str) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&(login.len() as u64).to_le_bytes());
        hash.update(login.as_bytes());
        hash.update(network.as_bytes());
        Self(hash.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Failures {
    count: u32,
    last_ms: u64,
}

/// Who failed how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockouts {
    entries: BTreeMap<LockKey, Failures>,
}

impl Lockouts {
    /// How long no attempt is looked at, milliseconds; 0 when one is.
    #[must_use]
    pub fn wait_ms(&self, key: LockKey, now_ms: u64) -> u64 {
        let Some(failures) = self.entries.get(&key) else { return 0 };
        (failures.last_ms + delay_ms(failures.count)).saturating_sub(now_ms)
    }

    /// Attempts that may be under way at once: as many as failures are free, and one of those that wait.
    #[must_use]
    pub fn free(&self, key: LockKey, now_ms: u64) -> u32 {
        let failures = self.entries.get(&key).filter(|failures| !failures.is_forgotten(now_ms));
        FREE_FAILURES.saturating_sub(failures.map_or(0, |failures| failures.count)).max(1)
    }

    /// Counts a failure.
    pub fn failed(&mut self, key: LockKey, at_ms: u64) {
        let known = self.entries.get(&key).filter(|failures| !failures.is_forgotten(at_ms));
        let count = known.map_or(0, |failures| failures.count).saturating_add(1);
        if !self.entries.contains_key(&key) && self.entries.len() >= MAX_ENTRIES {
            self.make_room(at_ms);
        }
        self.entries.insert(key, Failures { count, last_ms: at_ms });
    }

    /// Forgets the failures: a login succeeded.
    pub fn cleared(&mut self, key: LockKey) {
        self.entries.remove(&key);
    }

    /// Whether there is anything to forget.
    #[must_use]
    pub fn has(&self, key: LockKey) -> bool {
        self.entries.contains_key(&key)
    }

    /// What is forgotten first has failed least, then longest ago: a flood of other names does not unlock one.
    fn make_room(&mut self, now_ms: u64) {
        self.entries.retain(|_, failures| !failures.is_forgotten(now_ms));
        if self.entries.len() >= MAX_ENTRIES {
            let least = self.entries.iter().min_by_key(|(_, failures)| (failures.count, failures.last_ms));
            if let Some(key) = least.map(|(key, _)| *key) {
                self.entries.remove(&key);
            }
        }
    }
}

impl Failures {
    fn is_forgotten(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ms) >= FORGET_MS
    }
}

fn delay_ms(failures: u32) -> u64 {
    let Some(beyond) = failures.checked_sub(FREE_FAILURES) else { return 0 };
    FIRST_DELAY_MS.checked_shl(beyond).filter(|_| beyond < 32).map_or(LAST_DELAY_MS, |delay| delay.min(LAST_DELAY_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_delay_doubles_from_one_second_to_fifteen_minutes() {
        let (mut locks, key) = (Lockouts::default(), LockKey::of("ada", "192.0.2.0/24"));
        let mut waits = Vec::new();
        for _ in 0..17 {
            locks.failed(key, 10);
            waits.push(locks.wait_ms(key, 10) / 1_000);
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        assert_eq!(locks.wait_ms(key, 10 + 900_000), 0);
        assert_eq!(locks.wait_ms(LockKey::of("ada", "198.51.100.0/24"), 10), 0);
        assert_eq!((locks.free(key, 10), locks.free(LockKey::of("eve", ""), 10)), (1, 5));
        locks.failed(key, 10 + FORGET_MS);
        assert_eq!(locks.free(key, 10 + FORGET_MS), 4);
        locks.cleared(key);
        assert!(!locks.has(key));
    }

    #[test]
    fn a_flood_of_names_does_not_unlock_one() {
        let (mut locks, key) = (Lockouts::default(), LockKey::of("ada", ""));
        for at in 0..8 {
            locks.failed(key, at);
        }
        for n in 0..2 * MAX_ENTRIES {
            locks.failed(LockKey::of(&n.to_string(), ""), 100);
        }
        assert_eq!(locks.entries.len(), MAX_ENTRIES);
        assert!(locks.wait_ms(key, 100) > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn guesses_are_slow_whatever_the_pace(pauses in prop::collection::vec(0_u64..2_000_000, 200)) {
            let (mut locks, key, mut now, mut looked_at) = (Lockouts::default(), LockKey::of("a", "b"), 0, 0_u64);
            for pause in pauses {
                now += pause;
                if locks.wait_ms(key, now) == 0 {
                    looked_at += 1;
                    locks.failed(key, now);
                }
            }
            // Fifteen to get to the longest delay, then one in each.
            prop_assert!(looked_at <= 16 + now / LAST_DELAY_MS, "{looked_at} in {now} ms");
        }
    }
}
