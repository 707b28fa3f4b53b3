//! Leases, `Down`, settled epochs and the fence of terms under a simulated network, seed by seed.
//!
//! 3 to 5 machines whose clocks run 10 % slow to 10 % fast; messages are lost, late, doubled and overtaken; links fail,
//! also one way; processes are stopped, killed and started with older state; nodes join and drain; control leaders are
//! deposed without knowing it. Checked: no two nodes act for one slot at one instant; no acknowledged event of a
//! `Replicated` entity is missing, applied twice or made from stale state; within 15 s after everything healed each
//! slot has a node that acts. Process deaths are genuine: a forged reset of a link may cost the first promise, see
//! `fast_down`.
//!
//! `MODEL_SEED=7 cargo test -p aivillage-runtime membership::model -- --nocapture` replays one seed and prints its
//! events.
//! `MODEL_SEEDS=1000000` runs more of them. Each [`Flaw`] takes one rule out; the model must notice.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers of the model's own")]

mod entity;
mod group;
mod net;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use world::{Broken, Seen, World};

const SEEDS: u64 = 10_000;

/// One rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// The lease is longer than the leader's patience.
    LongLease,
    /// The lease is shorter than that, but not by what two clocks may differ.
    NoMargin,
    /// A node acts for what it owns, settled or not.
    Unsettled,
    /// A new leader blames nodes for a silence before its election.
    NoWait,
    /// A leader acks without proof of a quorum.
    StaleQuorum,
    /// A new leader acks nodes that have not applied what it has.
    NoFloor,
    /// A late `Down` hits a node that has come back.
    UnfencedDown,
    /// An event counts in whatever term it is committed.
    Unfenced,
}

impl Flaw {
    fn lease(self) -> Option<Duration> {
        match self {
            Self::LongLease => Some(Duration::from_millis(4_500)),
            Self::NoMargin => Some(Duration::from_millis(3_500)),
            _ => None,
        }
    }
}

/// A seed, the millisecond at which it broke something, and what.
type Failure = (u64, (u64, Broken));

/// Runs seeds on all cores until one fails, and returns what happened or the least failing seed that was met.
fn explore(seeds: u64, flaw: Option<Flaw>) -> Result<Seen, Failure> {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Ok(Seen::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || total.lock().unwrap().is_err() {
                break;
            }
            let outcome = World::new(seed, flaw, false).run();
            // A rule left out may cost time too; what must be shown is that it costs a promise.
            let outcome = outcome.or_else(|broken| match broken {
                (_, Broken::NotWhole(_)) if flaw.is_some() => Ok(Seen::default()),
                broken => Err(broken),
            });
            let mut total = total.lock().unwrap();
            match (outcome, &mut *total) {
                (Ok(seen), Ok(sum)) => sum.add(seen),
                (Err(broken), Ok(_)) => *total = Err((seed, broken)),
                (Err(broken), Err(least)) if seed < least.0 => *least = (seed, broken),
                _ => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap()
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.downs += other.downs;
        self.refused += other.refused;
        self.rejoins += other.rejoins;
        self.drains += other.drains;
        self.elections += other.elections;
        self.hand_overs += other.hand_overs;
        self.writes += other.writes;
        self.fenced += other.fenced;
    }
}

#[test]
fn at_most_one_node_acts_and_no_acknowledged_event_is_lost() {
    if let Ok(seed) = std::env::var("MODEL_SEED") {
        let seed = seed.parse().expect("MODEL_SEED is a number");
        World::new(seed, None, true).run().unwrap();
        return;
    }
    let seeds = std::env::var("MODEL_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("MODEL_SEEDS is a number"));
    match explore(seeds, None) {
        Ok(seen) => {
            eprintln!("{seen:?}");
            let common = [seen.downs, seen.refused, seen.rejoins, seen.hand_overs, seen.elections, seen.writes];
            let enough = common.into_iter().all(|count| count >= seeds / 10);
            assert!(enough && seen.drains >= seeds / 10 && seen.fenced >= seeds / 100, "too little happens: {seen:?}");
        }
        Err((seed, (at_ms, broken))) => panic!("MODEL_SEED={seed}, at {at_ms} ms: {broken:?}"),
    }
}

#[test]
fn each_rule_is_needed() {
    let mut missed = Vec::new();
    for flaw in [
        Flaw::LongLease,
        Flaw::NoMargin,
        Flaw::Unsettled,
        Flaw::NoWait,
        Flaw::StaleQuorum,
        Flaw::NoFloor,
        Flaw::UnfencedDown,
        Flaw::Unfenced,
    ] {
        let outcome = explore(SEEDS, Some(flaw));
        eprintln!("{flaw:?}: {outcome:?}");
        let as_expected = match outcome {
            Err((_, (_, Broken::Event(_)))) => flaw == Flaw::Unfenced,
            Err((_, (_, Broken::TwoAct(_)))) => flaw != Flaw::Unfenced,
            _ => false,
        };
        if !as_expected {
            missed.push(flaw);
        }
    }
    assert!(missed.is_empty(), "nothing breaks with {missed:?}");
}
