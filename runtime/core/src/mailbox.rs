//! The bound of a mailbox: ractor's own mailboxes have none.
//!
//! Two counters on their own cache lines: `sent` is bumped by senders, `done` by the actor alone. Depth is their
//! difference and includes the message in hand. A ticket per message would cost an allocation each.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Keeps a counter on a cache line (and its prefetched neighbour) of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// The senders' side.
#[derive(Debug, Default)]
struct Sent {
    count: AtomicU64,
    /// `done` as a sender last saw it. While it is enough, the actor's cache line stays with the actor.
    done_seen: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Gauge {
    sent: Padded<Sent>,
    done: Padded<AtomicU64>,
    capacity: u64,
    waiters: AtomicU32,
    room: Notify,
    shed: AtomicU64,
}

/// A waiter looks again after this long even without a wake-up: `done` and `waiters` are read without a fence, so a
/// wake-up can be missed.
pub(crate) const RECHECK: Duration = Duration::from_millis(5);

impl Gauge {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            sent: Padded::default(),
            done: Padded::default(),
            capacity: u64::from(capacity.max(1)),
            waiters: AtomicU32::new(0),
            room: Notify::new(),
            shed: AtomicU64::new(0),
        }
    }

    /// Takes a place; false when there is none.
    #[inline]
    pub(crate) fn admit(&self) -> bool {
        let sent = self.sent.0.count.fetch_add(1, Ordering::Relaxed);
        if sent.saturating_sub(self.sent.0.done_seen.load(Ordering::Relaxed)) < self.capacity {
            return true;
        }
        let done = self.done.0.load(Ordering::Acquire);
        self.sent.0.done_seen.store(done, Ordering::Relaxed);
        if sent.saturating_sub(done) < self.capacity {
            return true;
        }
        self.sent.0.count.fetch_sub(1, Ordering::Relaxed);
        self.shed.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Takes a place beyond the bound: for an actor's own timers and results, which must not be lost.
    pub(crate) fn admit_own(&self) {
        self.sent.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back the place of a message that could not be delivered.
    pub(crate) fn retract(&self) {
        self.sent.0.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until there may be a place; false when `deadline` comes first. Takes no place itself.
    pub(crate) async fn wait_for_room(&self, deadline: Option<Instant>) -> bool {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let found = loop {
            let room = self.room.notified();
            if self.depth() < self.capacity {
                break true;
            }
            let recheck = Instant::now() + RECHECK;
            match deadline {
                Some(at) if at <= Instant::now() => break false,
                Some(at) => drop(tokio::time::timeout_at(at.min(recheck), room).await),
                None => drop(tokio::time::timeout_at(recheck, room).await),
            }
        };
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// Counts a handled message. Only the actor calls this, so a plain load and store do.
    #[inline]
    pub(crate) fn handled(&self) -> u64 {
        let done = self.done.0.load(Ordering::Relaxed) + 1;
        self.done.0.store(done, Ordering::Release);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            self.room.notify_one();
        }
        done
    }

    #[inline]
    pub(crate) fn done(&self) -> u64 {
        self.done.0.load(Ordering::Acquire)
    }

    /// Messages waiting or in hand.
    pub(crate) fn depth(&self) -> u64 {
        let done = self.done();
        self.sent.0.count.load(Ordering::Acquire).saturating_sub(done)
    }

    /// Refusals since the last call.
    pub(crate) fn take_shed(&self) -> u64 {
        self.shed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn refuses_beyond_capacity_and_admits_again() {
        let gauge = Gauge::new(2);
        assert!(gauge.admit() && gauge.admit());
        assert!(!gauge.admit());
        assert_eq!(gauge.depth(), 2);
        gauge.handled();
        assert!(gauge.admit());
        assert_eq!(gauge.take_shed(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_room() {
        let gauge = Arc::new(Gauge::new(1));
        assert!(gauge.admit());
        let waiter = gauge.clone();
        let waiting = async move { waiter.wait_for_room(None).await };
        let (found, _) = tokio::join!(waiting, async { gauge.handled() });
        assert!(found);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_the_deadline() {
        let gauge = Gauge::new(1);
        assert!(gauge.admit());
        assert!(!gauge.wait_for_room(Some(Instant::now() + Duration::from_secs(1))).await);
    }

    #[test]
    fn never_above_capacity_from_many_threads() {
        let gauge = Gauge::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).filter(|_| gauge.admit()).count());
            }
        });
        assert_eq!(gauge.depth(), 64);
    }
}
