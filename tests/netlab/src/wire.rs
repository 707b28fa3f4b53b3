//! One directed link: what becomes of a packet that enters it.
//!
//! Pure: the time comes in, the fate goes out. Chance is a hash of (seed, link, number of the packet), so it does not depend on what
//! other links do or on which settings were in force before. Order is kept: jitter is a queue somewhere on the way, not a second way.

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most bytes on one wire, so that a long delay and a fast sender cannot eat the memory: 1 Gbit/s for 250 ms.
const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;

/// What a directed link does to its packets. The default is a perfect one: no delay, no loss, no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkConfig {
    /// Time on the way, the same for each packet.
    pub delay: Duration,
    /// Further time on the way, evenly spread over `0..jitter`. Packets do not overtake each other.
    pub jitter: Duration,
    /// Share of packets that is lost, 0 to 1.
    pub loss: f64,
    /// Bytes (of IP packets, headers included) that leave in a second, at least 1; none for no limit.
    pub rate_bytes_per_s: Option<u64>,
    /// Bytes that may wait for the rate; a packet that finds no room is dropped. Without a rate nothing waits.
    pub queue_bytes: u64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate_bytes_per_s: None,
            queue_bytes: 256 << 10, // what a small router has: 170 full packets
        }
    }
}

/// What became of the packets of a directed link so far, in packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Handed to the other node's kernel.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Dropped because the link was blocked, those under way at that moment included.
    pub blocked: u64,
    /// Not taken by the other node's kernel: its device is down.
    pub refused: u64,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives at once: nothing holds it and nothing is before it.
    Now,
    /// It arrives at this instant.
    At(Instant),
    /// It is gone, silently.
    Dropped,
}

/// A directed link. Invariant: `in_flight_bytes` is the sum of the packets with [`Fate::At`] that have not left by
/// [`Wire::leave`] or [`Wire::block`].
#[derive(Debug)]
pub(crate) struct Wire {
    config: LinkConfig,
    is_blocked: bool,
    key: u64,
    entered: u64,
    /// When the sender's end will have sent what waits.
    sent_at: Instant,
    /// When the last packet arrives; the next one does not arrive before it.
    last_due: Instant,
    in_flight_bytes: u64,
    stats: LinkStats,
}

impl Wire {
    /// A wire whose chance follows from the seed and its two ends.
    pub(crate) fn new(config: LinkConfig, seed: u64, from: usize, to: usize, now: Instant) -> Self {
        let mut ends = [0; 16];
        ends[..8].copy_from_slice(&(from as u64).to_le_bytes());
        ends[8..].copy_from_slice(&(to as u64).to_le_bytes());
        Self {
            config,
            is_blocked: false,
            key: xxh3_64_with_seed(&ends, seed),
            entered: 0,
            sent_at: now,
            last_due: now,
            in_flight_bytes: 0,
            stats: LinkStats::default(),
        }
    }

    pub(crate) fn config(&self) -> LinkConfig {
        self.config
    }

    pub(crate) fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Sets what holds for packets that enter from now on. Those under way keep their instant and may be overtaken.
    pub(crate) fn set(&mut self, config: LinkConfig, now: Instant) {
        self.config = config;
        self.sent_at = now;
        self.last_due = now;
    }

    /// Cuts the wire. The caller takes away what is on it and says how many packets that were.
    pub(crate) fn block(&mut self, were_under_way: u64) {
        self.is_blocked = true;
        self.in_flight_bytes = 0;
        self.stats.blocked += were_under_way;
    }

    /// Mends the wire; the next packet meets it empty.
    pub(crate) fn unblock(&mut self, now: Instant) {
        if self.is_blocked {
            self.is_blocked = false;
            self.sent_at = now;
            self.last_due = now;
        }
    }

    /// Decides on a packet that enters.
    pub(crate) fn enter(&mut self, bytes: usize, now: Instant) -> Fate {
        if self.is_blocked {
            self.stats.blocked += 1;
            return Fate::Dropped;
        }
        let (loss, jitter) = self.draw();
        if loss < self.config.loss {
            self.stats.lost += 1;
            return Fate::Dropped;
        }
        let bytes = bytes as u64;
        let Some(sent_at) = self.sent_at(bytes, now) else {
            self.stats.overflowed += 1;
            return Fate::Dropped;
        };
        let due = (sent_at + self.config.delay + self.config.jitter.mul_f64(jitter)).max(self.last_due);
        self.last_due = due;
        if due <= now && self.in_flight_bytes == 0 {
            return Fate::Now;
        }
        self.in_flight_bytes += bytes;
        Fate::At(due)
    }

    /// Takes a packet off that had [`Fate::At`].
    pub(crate) fn leave(&mut self, bytes: usize) {
        self.in_flight_bytes -= bytes as u64;
    }

    /// Counts a packet that reached the other end.
    pub(crate) fn arrived(&mut self, was_taken: bool) {
        if was_taken {
            self.stats.delivered += 1;
        } else {
            self.stats.refused += 1;
        }
    }

    /// Two numbers in `0..1` that belong to the next packet: for its loss and for its jitter.
    fn draw(&mut self) -> (f64, f64) {
        const SPAN: f64 = 4_294_967_296.0; // 2^32
        let chance = xxh3_64_with_seed(&self.entered.to_le_bytes(), self.key);
        self.entered += 1;
        let [loss, jitter] = [chance >> 32, chance & u64::from(u32::MAX)]
            .map(|half| f64::from(u32::try_from(half).expect("32 of the 64 bits")) / SPAN);
        (loss, jitter)
    }

    /// When the sender's end will have sent the packet; none if there is no room for it.
    fn sent_at(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        if self.in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let Some(rate) = self.config.rate_bytes_per_s else { return Some(now) };
        let backlog = self.sent_at.saturating_duration_since(now);
        let needed = backlog + time_to_send(bytes, rate);
        if needed > time_to_send(self.config.queue_bytes.max(bytes), rate) {
            return None;
        }
        self.sent_at = now + needed;
        Some(self.sent_at)
    }
}

/// Rounded up, so that the rate is never exceeded.
fn time_to_send(bytes: u64, rate_bytes_per_s: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate_bytes_per_s.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn wire(config: LinkConfig, seed: u64, now: Instant) -> Wire {
        Wire::new(config, seed, 0, 1, now)
    }

    fn fates(config: LinkConfig, seed: u64, from: usize, to: usize) -> Vec<Fate> {
        let now = Instant::now();
        let mut wire = Wire::new(config, seed, from, to, now);
        (0..200).map(|_| wire.enter(100, now)).collect()
    }

    #[test]
    fn perfect_wire_delivers_at_once() {
        let now = Instant::now();
        let mut wire = wire(LinkConfig::default(), 1, now);
        assert_eq!(wire.enter(1_500, now), Fate::Now);
    }

    #[test]
    fn packet_waits_for_those_before_it_after_the_delay_shrank() {
        let now = Instant::now();
        let mut wire = wire(LinkConfig { delay: 10 * MS, ..LinkConfig::default() }, 1, now);
        assert_eq!(wire.enter(100, now), Fate::At(now + 10 * MS));
        wire.leave(100);
        assert_eq!(wire.enter(100, now + MS), Fate::At(now + 11 * MS));
        wire.set(LinkConfig::default(), now + 2 * MS);
        assert_eq!(wire.enter(100, now + 2 * MS), Fate::At(now + 2 * MS), "queued behind what is under way");
        wire.leave(200);
        assert_eq!(wire.enter(100, now + 2 * MS), Fate::Now);
    }

    #[test]
    fn jitter_stays_in_its_range_and_keeps_the_order() {
        let now = Instant::now();
        let mut wire = wire(LinkConfig { delay: 5 * MS, jitter: 20 * MS, ..LinkConfig::default() }, 3, now);
        let mut last = now;
        let mut spread = Vec::new();
        for n in 0..500 {
            let entered = now + n * 100 * MS; // so far apart that the order does not interfere
            let Fate::At(due) = wire.enter(100, entered) else { panic!("a delayed packet is under way") };
            assert!(due > last && (5 * MS..25 * MS).contains(&(due - entered)));
            spread.push(due - entered);
            last = due;
        }
        assert!(*spread.iter().min().unwrap() < 7 * MS && *spread.iter().max().unwrap() > 23 * MS);
        let at_once: Vec<Fate> = (0..50).map(|_| wire.enter(100, last)).collect();
        assert!(at_once.iter().zip(&at_once[1..]).all(|pair| matches!(pair, (Fate::At(a), Fate::At(b)) if a <= b)));
    }

    #[test]
    fn chance_depends_on_seed_and_direction_and_on_nothing_else() {
        let config = LinkConfig { loss: 0.5, ..LinkConfig::default() };
        assert_eq!(fates(config, 1, 0, 1), fates(config, 1, 0, 1));
        assert_ne!(fates(config, 1, 0, 1), fates(config, 2, 0, 1));
        assert_ne!(fates(config, 1, 0, 1), fates(config, 1, 1, 0));
    }

    #[test]
    fn blocked_packets_do_not_shift_the_chance_of_later_ones() {
        let config = LinkConfig { loss: 0.5, ..LinkConfig::default() };
        let now = Instant::now();
        let mut wire = wire(config, 9, now);
        let first: Vec<Fate> = (0..100).map(|_| wire.enter(100, now)).collect();
        wire.block(0);
        assert_eq!(wire.enter(100, now), Fate::Dropped);
        wire.unblock(now);
        let rest = (0..100).map(|_| wire.enter(100, now));
        assert_eq!(first.into_iter().chain(rest).collect::<Vec<_>>(), fates(config, 9, 0, 1));
        assert_eq!(wire.stats().blocked, 1);
    }

    #[test]
    fn rate_spaces_packets_and_the_full_queue_drops() {
        let now = Instant::now();
        let config = LinkConfig { rate_bytes_per_s: Some(1_000_000), queue_bytes: 3_000, ..LinkConfig::default() };
        let mut wire = wire(config, 1, now);
        assert_eq!(wire.enter(1_000, now), Fate::At(now + MS));
        assert_eq!(wire.enter(1_000, now), Fate::At(now + 2 * MS));
        assert_eq!(wire.enter(1_000, now), Fate::At(now + 3 * MS));
        assert_eq!(wire.enter(1_000, now), Fate::Dropped);
        assert_eq!(wire.enter(1_000, now + MS), Fate::At(now + 4 * MS), "one has left, one has room");
        assert_eq!(wire.stats().overflowed, 1);
    }

    #[test]
    fn packet_larger_than_the_queue_passes_an_idle_wire() {
        let now = Instant::now();
        let config = LinkConfig { rate_bytes_per_s: Some(1_000_000), queue_bytes: 0, ..LinkConfig::default() };
        let mut wire = wire(config, 1, now);
        assert_eq!(wire.enter(1_000, now), Fate::At(now + MS));
        assert_eq!(wire.enter(1, now), Fate::Dropped);
        assert_eq!(wire.enter(1_000, now + MS), Fate::At(now + 2 * MS));
    }

    #[test]
    fn long_delay_does_not_hold_unbounded_memory() {
        let now = Instant::now();
        let mut wire = wire(LinkConfig { delay: 1_000 * MS, ..LinkConfig::default() }, 1, now);
        let packet = 1 << 20;
        assert!((0..32).all(|_| matches!(wire.enter(packet, now), Fate::At(_))));
        assert_eq!(wire.enter(packet, now), Fate::Dropped);
        wire.leave(packet);
        assert!(matches!(wire.enter(packet, now), Fate::At(_)));
    }
}
