//! What strangers may cost: the limits of a listener, and the pace at which one address may try to join.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses whose attempts are remembered; 1024 buckets are some 50 KB.
const MAX_BUCKETS: usize = 1024;

/// What connections that are not yet authenticated may take. Loopback is an address like any other.
///
/// A newcomer is always taken in; who is dropped for it keeps both promises: no address can shut another one out, and
/// sockets that say nothing cannot shut anybody out, however many there are and even from the same address.
/// - One address has at most `silent_per_address` connections that have not sent a byte. The oldest goes for the next.
/// - All connections without a finished handshake together are at most `half_open`. For the next, the oldest silent one
///   goes while those are a quarter of the table or more, else the oldest of the address with the most handshakes.
///
/// So a handshake is lost only to a flood that starts handshakes, too: from the own address more than 3/4 of `half_open`
/// within one round trip, or from as many addresses. A dialler tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerLimits {
    /// From accepting a connection to the end of its handshake; also the time to dial.
    pub handshake: Duration,
    /// Connections without a finished handshake.
    pub half_open: usize,
    /// Those of one address (IPv6: one /64 network) that have not sent a byte.
    pub silent_per_address: usize,
    /// Attempts to join that one address has at once.
    pub join_burst: u32,
    /// Time until an address gets one more.
    pub join_refill: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            half_open: 64,
            silent_per_address: 4,
            join_burst: 10,
            join_refill: Duration::from_secs(6),
        }
    }
}

/// Who is counted as one: an IPv4 address or an IPv6 network of 64 bits, which is what one customer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Address(IpAddr);

impl Address {
    pub(super) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) if !ip.is_loopback() => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            ip => ip,
        })
    }
}

/// Token buckets, one per address. A forgotten address starts with a full one.
#[derive(Debug)]
pub(super) struct Buckets {
    burst: f64,
    per_s: f64,
    levels: HashMap<Address, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    seen: Instant,
}

impl Buckets {
    pub(super) fn new(limits: &ListenerLimits) -> Self {
        let per_s = 1.0 / limits.join_refill.as_secs_f64().max(1e-6);
        Self { burst: f64::from(limits.join_burst), per_s, levels: HashMap::new() }
    }

    /// Whether `address` may try now.
    pub(super) fn take(&mut self, address: Address, now: Instant) -> bool {
        if self.levels.len() >= MAX_BUCKETS && !self.levels.contains_key(&address) {
            self.make_room(now);
        }
        let level = self.levels.get(&address).map_or(self.burst, |bucket| self.level(bucket, now));
        let taken = level >= 1.0;
        let level = if taken { level - 1.0 } else { level };
        self.levels.insert(address, Bucket { level, seen: now });
        taken
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let grown = bucket.level + self.per_s * now.saturating_duration_since(bucket.seen).as_secs_f64();
        grown.min(self.burst)
    }

    /// Forgets the addresses whose buckets are full again, or else the one that loses least by it.
    fn make_room(&mut self, now: Instant) {
        let mut levels = std::mem::take(&mut self.levels);
        levels.retain(|_, bucket| self.level(bucket, now) < self.burst);
        if levels.len() >= MAX_BUCKETS {
            let fullest = levels.iter().max_by(|a, b| self.level(a.1, now).total_cmp(&self.level(b.1, now)));
            if let Some(address) = fullest.map(|(address, _)| *address) {
                levels.remove(&address);
            }
        }
        self.levels = levels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn ten_attempts_then_one_each_six_seconds() {
        let mut buckets = Buckets::new(&ListenerLimits::default());
        let start = Instant::now();
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!((0..20).filter(|_| buckets.take(a, start)).count(), 10);
        assert!(buckets.take(b, start), "others have their own");
        assert!(!buckets.take(a, start + Duration::from_millis(5_900)));
        assert!(buckets.take(a, start + Duration::from_millis(6_100)));
        assert!(!buckets.take(a, start + Duration::from_millis(6_200)));
        let later = start + Duration::from_hours(1);
        assert_eq!((0..20).filter(|_| buckets.take(a, later)).count(), 10);
    }

    #[test]
    fn memory_is_bounded_and_the_worst_offender_is_remembered() {
        let mut buckets = Buckets::new(&ListenerLimits::default());
        let start = Instant::now();
        let worst = address("192.0.2.1");
        while buckets.take(worst, start) {}
        for n in 0..3 * MAX_BUCKETS {
            let other = Address::of(Ipv6Addr::from((n as u128) << 64).into());
            assert!(buckets.take(other, start));
            assert!(buckets.levels.len() <= MAX_BUCKETS);
        }
        assert!(!buckets.take(worst, start));
        assert!(buckets.take(address("192.0.2.9"), start + Duration::from_hours(1)));
        assert_eq!(buckets.levels.len(), 1, "full buckets need not be remembered");
    }

    #[test]
    fn one_network_is_one_address() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::1"), address("::2"));
    }
}
