//! Rate limits: how often an address, a principal, a tenant and a login may ask.
//!
//! Each is a generic cell rate algorithm (GCRA, by `governor`): a burst at once, then one each period; no queue, no timer.
//! Keys are bounded: a new one that finds no room shares one cell with all others that find none, so a flood of
//! made-up keys neither fills the memory nor locks out whoever is known.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::{DefaultKeyedStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests of one address.
    Ip,
    /// Writes of one principal.
    Principal,
    /// Requests of one tenant.
    Tenant,
    /// Attempts to log in, by account and network.
    Login,
}

/// Too many; nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{limit:?} limit exceeded, retry in {} ms", retry_after.as_millis())]
pub struct Exceeded {
    /// Which limit.
    pub limit: Limit,
    /// Time until one more is allowed, if nobody else takes it.
    pub retry_after: Duration,
}

/// So many in a period, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Allowed in each period, at least 1.
    pub count: NonZeroU32,
    /// The period, milliseconds, at least 1.
    pub per_ms: NonZeroU32,
    /// Allowed at once, at least 1.
    pub burst: NonZeroU32,
}

/// `[governance.limits]` of `cluster.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests of one address.
    pub ip: Rate,
    /// Writes of one principal.
    pub principal: Rate,
    /// Requests of one tenant.
    pub tenant: Rate,
    /// Attempts to log in.
    pub login: Rate,
    /// Keys that each limit knows at once.
    pub keys: NonZeroU32,
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

const fn rate(count: u32, per_ms: u32, burst: u32) -> Rate {
    Rate { count: at_least_one(count), per_ms: at_least_one(per_ms), burst: at_least_one(burst) }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            ip: rate(50, 1_000, 100),
            principal: rate(100, 60_000, 20),
            tenant: rate(1_000, 1_000, 1_000),
            login: rate(5, 60_000, 5),
            keys: at_least_one(100_000),
        }
    }
}

impl Rate {
    fn quota(self) -> Quota {
        let each = Duration::from_millis(u64::from(self.per_ms.get())) / self.count.get();
        // A period below a nanosecond each is finer than the clock.
        let each = each.max(Duration::from_nanos(1));
        Quota::with_period(each).map_or_else(|| Quota::per_second(self.count), |quota| quota.allow_burst(self.burst))
    }
}

/// The limits of one node. Cheap to ask: one atomic exchange, no allocation.
#[derive(Debug)]
pub struct Limits<C: Clock = DefaultClock> {
    ip: Keyed<C>,
    principal: Keyed<C>,
    tenant: Keyed<C>,
    login: Keyed<C>,
}

impl Limits {
    /// Limits by the machine's monotonic clock.
    #[must_use]
    pub fn new(config: &LimitsConfig) -> Self {
        Limits::with_clock(config, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    /// Limits by another clock; tests move it.
    #[must_use]
    pub fn with_clock(config: &LimitsConfig, clock: &C) -> Self {
        let keyed = |limit, rate| Keyed::new(limit, rate, config.keys, clock.clone());
        Limits {
            ip: keyed(Limit::Ip, config.ip),
            principal: keyed(Limit::Principal, config.principal),
            tenant: keyed(Limit::Tenant, config.tenant),
            login: keyed(Limit::Login, config.login),
        }
    }
}

impl<C: Clock> Limits<C> {
    /// Counts a request of an address; of IPv6 the /64 counts, which one host has for itself.
    ///
    /// # Errors
    /// [`Exceeded`]: answer 429 with `Retry-After`.
    pub fn ip(&self, address: IpAddr) -> Result<(), Exceeded> {
        self.ip.check(key(&[&network(address)]))
    }

    /// Counts a write of a principal.
    ///
    /// # Errors
    /// [`Exceeded`]: answer 429 with `Retry-After`.
    pub fn principal(&self, tenant: &str, subject: &str) -> Result<(), Exceeded> {
        self.principal.check(key(&[tenant.as_bytes(), subject.as_bytes()]))
    }

    /// Counts a request of a tenant.
    ///
    /// # Errors
    /// [`Exceeded`]: answer 429 with `Retry-After`.
    pub fn tenant(&self, tenant: &str) -> Result<(), Exceeded> {
        self.tenant.check(key(&[tenant.as_bytes()]))
    }

    /// Counts an attempt to log in to an account from an address: a stranger elsewhere does not lock its owner out.
    ///
    /// # Errors
    /// [`Exceeded`]: answer 429 with `Retry-After`, whatever the password was.
    pub fn login(&self, account: &str, address: IpAddr) -> Result<(), Exceeded> {
        self.login.check(key(&[account.as_bytes(), &network(address)]))
    }
}

/// What a key is known by: of fixed size however long it is, and not to be collided on purpose.
type Key = [u8; 16];

/// Each part with its length before it, so that no two lists of parts read alike.
fn key(parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

fn network(address: IpAddr) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            // 0.0.0.0/8 of IPv6 is reserved: no /64 in use reads like this.
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(v6) => v6.octets().first_chunk().copied().unwrap_or_default(),
    }
}

/// One limit over many keys.
#[derive(Debug)]
struct Keyed<C: Clock> {
    limit: Limit,
    cells: RateLimiter<Key, Cells, C, NoOpMiddleware<C::Instant>>,
    max: usize,
    /// When it was last looked for keys to forget.
    swept: Mutex<Option<C::Instant>>,
}

impl<C: Clock> Keyed<C> {
    fn new(limit: Limit, rate: Rate, keys: NonZeroU32, clock: C) -> Self {
        let max = usize::try_from(keys.get()).unwrap_or(usize::MAX);
        let cells = Cells { known: DefaultKeyedStateStore::default(), others: InMemoryState::default(), max };
        let cells = RateLimiter::new(rate.quota(), cells, clock);
        Keyed { limit, cells, max, swept: Mutex::new(None) }
    }

    fn check(&self, key: Key) -> Result<(), Exceeded> {
        if self.cells.len() >= self.max {
            self.sweep();
        }
        let now = self.cells.clock().now();
        self.cells
            .check_key(&key)
            .map_err(|until| Exceeded { limit: self.limit, retry_after: until.wait_time_from(now) })
    }

    /// Forgets keys that may do their whole burst again, at most once a second.
    fn sweep(&self) {
        let now = self.cells.clock().now();
        let mut swept = self.swept.lock();
        if swept.is_none_or(|last| Duration::from(now.duration_since(last)) >= SWEEP) {
            *swept = Some(now);
            self.cells.retain_recent();
        }
    }
}

/// The state of every known key, and one for all that found no room.
#[derive(Debug)]
struct Cells {
    known: DefaultKeyedStateStore<Key>,
    others: InMemoryState,
    max: usize,
}

impl StateStore for Cells {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(cell) = self.known.get(key) {
            return cell.measure_and_replace(&NotKeyed::NonKey, measure);
        }
        if self.known.len() >= self.max {
            return self.others.measure_and_replace(&NotKeyed::NonKey, measure);
        }
        self.known.entry(*key).or_default().measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

impl ShrinkableKeyedStateStore<Key> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        self.known.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.known.len()
    }

    fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Between two looks for keys to forget: each reads all of them.
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn limits(config: &LimitsConfig) -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limits::with_clock(config, &clock), clock)
    }

    fn address(last: u32) -> IpAddr {
        IpAddr::V4((0x0A00_0000 + last).into())
    }

    #[test]
    fn burst_then_one_each_period() {
        let (limits, clock) = limits(&LimitsConfig::default());
        for _ in 0..100 {
            assert_eq!(limits.ip(address(1)), Ok(()));
        }
        let exceeded = Exceeded { limit: Limit::Ip, retry_after: Duration::from_millis(20) };
        assert_eq!(limits.ip(address(1)), Err(exceeded));
        assert_eq!(limits.ip(address(2)), Ok(()), "another address has its own");
        clock.advance(Duration::from_millis(19));
        assert_eq!(limits.ip(address(1)), Err(Exceeded { retry_after: Duration::from_millis(1), ..exceeded }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limits.ip(address(1)), Ok(()));
    }

    #[test]
    fn each_limit_says_its_name_and_its_default() {
        let (limits, _clock) = limits(&LimitsConfig::default());
        let until_refused = |check: &dyn Fn() -> Result<(), Exceeded>| {
            let allowed = (0..10_000).take_while(|_| check().is_ok()).count();
            (allowed, check().unwrap_err().limit)
        };
        assert_eq!(until_refused(&|| limits.ip(address(1))), (100, Limit::Ip));
        assert_eq!(until_refused(&|| limits.principal("t", "s")), (20, Limit::Principal));
        assert_eq!(until_refused(&|| limits.tenant("t")), (1_000, Limit::Tenant));
        assert_eq!(until_refused(&|| limits.login("ann", address(1))), (5, Limit::Login));
        assert_eq!(limits.login("ann", address(2)), Ok(()), "elsewhere");
        assert_eq!(limits.principal("ts", ""), Ok(()), "parts do not run together");
    }

    #[test]
    fn hosts_of_one_network_of_ipv6_share_a_limit() {
        let network_of = |text: &str| network(text.parse().unwrap());
        assert_eq!(network_of("2001:db8::1"), network_of("2001:db8::2"));
        assert_ne!(network_of("2001:db8::1"), network_of("2001:db8:0:1::1"));
        assert_eq!(network_of("::ffff:10.0.0.1"), network_of("10.0.0.1"));
        assert_ne!(network_of("10.0.0.1"), network_of("10.0.0.2"));
    }

    #[test]
    fn a_flood_of_keys_has_one_cell_and_locks_no_known_one_out() {
        let config = LimitsConfig { keys: at_least_one(2), ..LimitsConfig::default() };
        let (limits, clock) = limits(&config);
        assert_eq!(limits.ip(address(1)), Ok(()));
        assert_eq!(limits.ip(address(2)), Ok(()));
        let allowed = (3..1_000).filter(|last| limits.ip(address(*last)).is_ok()).count();
        assert_eq!(allowed, 100, "one burst for all of them");
        assert_eq!(limits.ip(address(1)), Ok(()));
        assert_eq!(limits.ip.cells.len(), 2);
        clock.advance(Duration::from_secs(2));
        assert_eq!(limits.ip(address(5)), Ok(()));
        assert_eq!(limits.ip.cells.len(), 1, "those with a whole burst are forgotten");
    }

    #[test]
    fn records_survive_the_wire() {
        let exceeded = Exceeded { limit: Limit::Login, retry_after: Duration::from_secs(12) };
        let bytes = postcard::to_allocvec(&exceeded).unwrap();
        assert_eq!(postcard::from_bytes::<Exceeded>(&bytes).unwrap(), exceeded);
        assert_eq!(exceeded.to_string(), "Login limit exceeded, retry in 12000 ms");
        assert_eq!(toml::from_str::<LimitsConfig>("").unwrap(), LimitsConfig::default());
        assert!(toml::from_str::<LimitsConfig>("ip = { count = 0, per_ms = 1, burst = 1 }").is_err(), "0 is no rate");
        assert!(toml::from_str::<LimitsConfig>("keyz = 1").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // GCRA: never more than the burst and what the time has added, whatever the pattern.
        #[test]
        fn never_more_than_burst_and_rate(gaps in proptest::collection::vec(0_u64..400, 1..200), count in 1_u32..50, burst in 1_u32..20) {
            let config = LimitsConfig { tenant: rate(count, 1_000, burst), ..LimitsConfig::default() };
            let (limits, clock) = limits(&config);
            let (mut allowed, mut elapsed) = (0_u64, 0_u64);
            for gap in gaps {
                clock.advance(Duration::from_millis(gap));
                elapsed += gap;
                allowed += u64::from(limits.tenant("t").is_ok());
                // The period of one is rounded to the nanosecond: at most one more.
                prop_assert!(allowed <= u64::from(burst) + elapsed * u64::from(count) / 1_000 + 1);
            }
        }

        #[test]
        fn after_the_time_told_one_more_is_allowed(count in 1_u32..50, burst in 1_u32..20) {
            let config = LimitsConfig { tenant: rate(count, 1_000, burst), ..LimitsConfig::default() };
            let (limits, clock) = limits(&config);
            let exceeded = (0..=burst).find_map(|_| limits.tenant("t").err()).unwrap();
            clock.advance(exceeded.retry_after);
            prop_assert_eq!(limits.tenant("t"), Ok(()));
        }
    }
}
