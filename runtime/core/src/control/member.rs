//! One member of the cluster and its life.
//!
//! ```text
//! AddNode -> Joining -> Up -> Draining -> Down        a clean stop
//!               ^       |                  ^ |
//!               |       +------------------+ |        silent, or gone
//!               +------ a new incarnation ---+        (from any state)
//! ```
//!
//! A node that goes down [`FLAPS`] times within [`FLAP_WINDOW_MS`] stays `Joining` for [`HOLD_MS`]: its keys would move to
//! and fro otherwise. A clean stop is no such fault, a restart that nobody noticed is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::command::ControlRefused;
use crate::kind::KIND_NAME_MAX;
use crate::node_id::NodeId;
use crate::placement::{Candidate, Labels, check_labels};

/// Downs within the window that make a node one that flaps.
const FLAPS: usize = 3;
const FLAP_WINDOW_MS: u64 = 10 * 60 * 1000;
/// How long a node that flaps must have been `Joining` before it may be `Up`.
const HOLD_MS: u64 = 60 * 1000;

/// Longest address in bytes: a host name has at most 253, and a port follows.
pub(crate) const ADDR_MAX: usize = 260;
/// Longest name, version or reason in bytes.
const TEXT_MAX: usize = 256;
/// Kinds that one node may host.
const KINDS_MAX: usize = 4096;

/// A kind that a node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedRecord {
    /// The kind.
    pub name: String,
    /// Version of its messages.
    pub version: u16,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Names the node.
    pub id: NodeId,
    /// Its Ed25519 key, to which others pin their connections.
    pub public_key: [u8; 32],
    /// Where others reach it, `host:port`.
    pub addr: String,
    /// Shown to people.
    pub name: String,
    /// What its operator says about it.
    pub labels: Labels,
    /// Its share of the keys, relative to others.
    pub weight: u32,
    /// Kinds that it hosts.
    pub kinds: Vec<HostedRecord>,
    /// Version of its program.
    pub version: String,
}

impl NodeRecord {
    /// Checks all parts against their limits.
    pub(super) fn check(&self) -> Result<(), ControlRefused> {
        ControlRefused::if_larger("address", self.addr.len(), ADDR_MAX)?;
        ControlRefused::if_larger("node name", self.name.len(), TEXT_MAX)?;
        ControlRefused::if_larger("version", self.version.len(), TEXT_MAX)?;
        check_labels(&self.labels)?;
        ControlRefused::if_more("kinds", self.kinds.len(), KINDS_MAX)?;
        let longest = self.kinds.iter().map(|kind| kind.name.len()).max();
        ControlRefused::if_larger("kind name", longest.unwrap_or(0), KIND_NAME_MAX)
    }
}

/// Where a member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// It is a member, and takes no part yet.
    Joining,
    /// It takes part.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It is gone; it may come back.
    Down,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it said about itself last.
    pub record: NodeRecord,
    /// Where it is in its life.
    pub state: MemberState,
    /// Since which Unix millisecond.
    pub since_ms: u64,
    /// Why, as shown to operators.
    pub reason: String,
    /// Which of its starts this is about; 0 before it told.
    pub incarnation: u64,
    /// Index of the log entry with which it joined: the oldest member has the smallest.
    pub joined_index: u64,
    /// Membership epoch at which it became `Up` last.
    pub up_epoch: u64,
    /// When it went down without a drain, oldest first, at most [`FLAPS`].
    downs: Vec<u64>,
    /// Whether it flapped when it became `Joining`.
    held: bool,
}

impl Member {
    pub(super) fn joining(record: NodeRecord, joined_index: u64, now_ms: u64) -> Self {
        Self {
            record,
            state: MemberState::Joining,
            since_ms: now_ms,
            reason: String::new(),
            incarnation: 0,
            joined_index,
            up_epoch: 0,
            downs: Vec::new(),
            held: false,
        }
    }

    /// The first member needs nobody's leave to take part.
    pub(super) fn founder(record: NodeRecord, incarnation: u64, joined_index: u64, now_ms: u64) -> Self {
        Self { state: MemberState::Up, incarnation, up_epoch: 1, ..Self::joining(record, joined_index, now_ms) }
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state == MemberState::Down
    }

    /// Its part in placement, if it takes part.
    pub(crate) fn candidate(&self) -> Option<Candidate<'_>> {
        let NodeRecord { id, weight, labels, .. } = &self.record;
        (self.state == MemberState::Up).then_some(Candidate { id: *id, weight: *weight, labels })
    }

    /// Whether `other`, the same member at another time, plays another part in placement.
    pub(super) fn moves_placement(&self, other: &Self) -> bool {
        self.candidate() != other.candidate()
            || (self.state == MemberState::Up && self.record.kinds != other.record.kinds)
    }

    /// It says what it is now; a new incarnation starts over.
    pub(super) fn update(&mut self, record: NodeRecord, incarnation: u64, now_ms: u64) -> Result<(), ControlRefused> {
        if self.record.public_key != record.public_key {
            return Err(ControlRefused::IdTaken);
        }
        if incarnation < self.incarnation {
            return Err(ControlRefused::StaleIncarnation { current: self.incarnation });
        }
        record.check()?;
        self.record = record;
        // The first start after `AddNode` is part of joining.
        let first = self.incarnation == 0 && self.state == MemberState::Joining;
        if incarnation > self.incarnation && !first {
            self.left(now_ms);
            self.join(now_ms);
            "restarted".clone_into(&mut self.reason);
        }
        self.incarnation = incarnation;
        Ok(())
    }

    /// It is the only member: nobody's keys move when it comes and goes.
    pub(super) fn needs_no_leave(&mut self, now_ms: u64) {
        self.downs.clear();
        if self.state != MemberState::Up {
            self.enter(MemberState::Up, now_ms);
        }
    }

    /// Moves it on. Returns the time until which it is held, if it wanted to be `Up` and must wait.
    pub(super) fn set(
        &mut self,
        to: MemberState,
        incarnation: u64,
        now_ms: u64,
        reason: String,
    ) -> Result<Option<u64>, ControlRefused> {
        use MemberState::{Down, Draining, Joining, Up};

        ControlRefused::if_larger("reason", reason.len(), TEXT_MAX)?;
        if incarnation != self.incarnation {
            return Err(ControlRefused::StaleIncarnation { current: self.incarnation });
        }
        let mut held = None;
        match (self.state, to) {
            (from, to) if from == to => return Ok(None),
            (Joining, Up) => match self.held_until(now_ms) {
                Some(until_ms) => return Err(ControlRefused::Damped { until_ms }),
                None => self.enter(Up, now_ms),
            },
            (Down, Joining) => self.join(now_ms),
            (Down, Up) if self.flaps(now_ms) => {
                self.join(now_ms);
                held = self.held_until(now_ms);
            }
            (Down, Up) | (Joining | Up, Draining) => self.enter(to, now_ms),
            (Joining | Up | Draining, Down) => {
                self.left(now_ms);
                self.enter(Down, now_ms);
            }
            (from, to) => return Err(ControlRefused::BadTransition { from, to }),
        }
        self.reason = reason;
        Ok(held)
    }

    fn enter(&mut self, state: MemberState, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
        self.held = false;
    }

    fn join(&mut self, now_ms: u64) {
        self.enter(MemberState::Joining, now_ms);
        self.held = self.flaps(now_ms);
    }

    /// It stopped taking part, and nobody had asked it to.
    fn left(&mut self, now_ms: u64) {
        if !matches!(self.state, MemberState::Joining | MemberState::Up) {
            return;
        }
        if self.downs.len() == FLAPS {
            self.downs.remove(0);
        }
        self.downs.push(now_ms);
    }

    fn flaps(&self, now_ms: u64) -> bool {
        self.downs.iter().filter(|at| now_ms.saturating_sub(**at) < FLAP_WINDOW_MS).count() >= FLAPS
    }

    /// A clock that went back between two leaders must not hold a node for longer, so a start in the future does not count.
    fn held_until(&self, now_ms: u64) -> Option<u64> {
        let until_ms = self.since_ms.saturating_add(HOLD_MS);
        (self.held && (self.since_ms..until_ms).contains(&now_ms)).then_some(until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::MemberState::{Down, Draining, Joining, Up};
    use super::*;

    const MINUTE: u64 = 60_000;

    fn record() -> NodeRecord {
        NodeRecord {
            id: NodeId(1),
            public_key: [1; 32],
            addr: "10.0.0.1:4100".into(),
            name: "one".into(),
            labels: Labels::new(),
            weight: 2,
            kinds: vec![HostedRecord { name: "agent".into(), version: 1 }],
            version: "0.1.0".into(),
        }
    }

    fn up() -> Member {
        Member::founder(record(), 1, 1, 0)
    }

    fn set(member: &mut Member, state: MemberState, now_ms: u64) -> Result<Option<u64>, ControlRefused> {
        member.set(state, member.incarnation, now_ms, "test".into())
    }

    /// Down and up again, twice, and down for the third time.
    fn flapping() -> Member {
        let mut member = up();
        for minute in 0..2 {
            set(&mut member, Down, minute * MINUTE).unwrap();
            assert_eq!(set(&mut member, Up, minute * MINUTE + 1), Ok(None));
        }
        set(&mut member, Down, 2 * MINUTE).unwrap();
        member
    }

    #[test]
    fn the_third_down_in_ten_minutes_holds_the_node_for_one() {
        let mut member = flapping();
        let back = 2 * MINUTE + 5;
        assert_eq!(set(&mut member, Up, back), Ok(Some(back + MINUTE)));
        assert_eq!(member.state, Joining);
        let damped = Err(ControlRefused::Damped { until_ms: back + MINUTE });
        assert_eq!(set(&mut member, Up, back + MINUTE - 1), damped);
        assert_eq!(set(&mut member, Up, back + MINUTE), Ok(None));
        assert_eq!(member.state, Up);
    }

    #[test]
    fn downs_that_are_far_apart_hold_nothing() {
        let mut member = flapping();
        assert_eq!(set(&mut member, Up, 10 * MINUTE), Ok(None));
        set(&mut member, Down, 12 * MINUTE).unwrap();
        assert_eq!(set(&mut member, Up, 12 * MINUTE), Ok(None));
    }

    #[test]
    fn a_clean_stop_is_no_flap() {
        let mut member = up();
        for now_ms in 0..9 {
            set(&mut member, Draining, now_ms).unwrap();
            set(&mut member, Down, now_ms).unwrap();
            assert_eq!(set(&mut member, Up, now_ms), Ok(None));
        }
    }

    #[test]
    fn restarts_that_nobody_noticed_are_flaps() {
        let mut member = up();
        for incarnation in 2..=4 {
            member.update(record(), incarnation, 0).unwrap();
            assert_eq!(member.state, Joining);
        }
        assert_eq!(set(&mut member, Up, 0), Err(ControlRefused::Damped { until_ms: MINUTE }));
    }

    #[test]
    fn a_clock_that_went_back_does_not_hold_the_node() {
        let mut member = flapping();
        set(&mut member, Joining, 100 * MINUTE).unwrap();
        assert_eq!(set(&mut member, Up, 3 * MINUTE), Ok(None));
    }

    #[test]
    fn an_older_start_is_refused() {
        let mut member = up();
        member.update(record(), 5, 0).unwrap();
        let stale = ControlRefused::StaleIncarnation { current: 5 };
        assert_eq!(member.update(record(), 4, 0), Err(stale.clone()));
        assert_eq!(member.set(Down, 4, 0, String::new()), Err(stale.clone()));
        assert_eq!(member.set(Down, 6, 0, String::new()), Err(stale));
    }

    #[test]
    fn an_update_of_the_same_start_changes_the_record_alone() {
        let mut member = up();
        let moved = NodeRecord { addr: "10.0.0.2:4100".into(), ..record() };
        assert_eq!(member.update(moved.clone(), 1, 9), Ok(()));
        assert_eq!((member.state, &member.record), (Up, &moved));
        let other = NodeRecord { public_key: [2; 32], ..record() };
        assert_eq!(member.update(other, 2, 9), Err(ControlRefused::IdTaken));
    }

    #[test]
    fn a_life_goes_only_forward() {
        let mut member = up();
        assert_eq!(set(&mut member, Joining, 0), Err(ControlRefused::BadTransition { from: Up, to: Joining }));
        set(&mut member, Draining, 0).unwrap();
        assert_eq!(set(&mut member, Up, 0), Err(ControlRefused::BadTransition { from: Draining, to: Up }));
        set(&mut member, Down, 0).unwrap();
        assert_eq!(set(&mut member, Draining, 0), Err(ControlRefused::BadTransition { from: Down, to: Draining }));
        assert_eq!(set(&mut member, Down, 7), Ok(None));
        assert_eq!(member.since_ms, 0, "a repeated transition is none");
    }

    #[test]
    fn records_over_the_limits_are_refused() {
        let too_large = |record: NodeRecord| matches!(record.check(), Err(ControlRefused::TooLarge { .. }));
        assert_eq!(record().check(), Ok(()));
        assert!(too_large(NodeRecord { addr: "x".repeat(261), ..record() }));
        assert!(too_large(NodeRecord { name: "x".repeat(257), ..record() }));
        assert!(too_large(NodeRecord { version: "x".repeat(257), ..record() }));
        let kind = |name| HostedRecord { name, version: 1 };
        assert!(too_large(NodeRecord { kinds: vec![kind("x".repeat(65))], ..record() }));
        let kinds = vec![kind("x".into()); 4097];
        assert!(matches!(NodeRecord { kinds, ..record() }.check(), Err(ControlRefused::Limit { max: 4096, .. })));
        let labels = Labels::from([("x".repeat(65), String::new())]);
        assert!(matches!(NodeRecord { labels, ..record() }.check(), Err(ControlRefused::BadLabels(_))));
    }
}
