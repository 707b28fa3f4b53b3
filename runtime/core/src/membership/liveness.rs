//! Who may act: the [`Lease`] of each node and the [`Watchdog`] of the control leader, free of clocks, links and
//! actors.
//!
//! Time is a value: milliseconds of the machine's `CLOCK_BOOTTIME`, which also counts while it sleeps. Times of two
//! machines are never compared, only lengths. A node beats to the leader each `beat`; the leader answers ("acks") or
//! keeps silent.
//!
//! **Invariant: at most one node acts for a slot.** A node acts for a slot only while it is the owner in the membership
//! it has applied, holds its lease, and `settled` has reached the epoch since which it is the owner without a gap. Why
//! that holds:
//!
//! 1. *A node that is `Down` holds no lease.* A lease ends `lease` after the acked beat was **sent**, by the node's
//!    clock; the leader counts `down_after` from the moment it **received** that beat or a later one, by its own. A
//!    clock that is wrong by up to 10 % lets the lease last `lease / 0.9` and the leader wait only `down_after / 1.1`,
//!    so `lease * 11 / 9 < down_after` is asked: 3.2 s * 11 / 9 = 3.911 s < 4 s. (3.5 s would need clocks that differ
//!    by less than 14 % from each other; with one 10 % slow and the other 10 % fast its lease outlives the wait by 0.25
//!    s.) From the decision on the leader acks the node no more, so that the commit may take as long as it likes. With
//!    `fast_down` hard evidence stands for the wait: a process that is gone holds no lease. A forged reset of the link
//!    and an address where nobody listens any more would break this, for at most the rest of the lease.
//! 2. *The leader's predecessor takes no part in this.* It acks only while a round trip to a quorum, begun less than
//!    [`QUORUM_FRESH`] ago, has succeeded. Every other voter of that quorum refuses its vote for `election_max` after
//!    it (a leader that gives way itself knows it), so the successor is elected later: 1 s / 0.9 = 1.11 s < 2 s / 1.1 =
//!    1.82 s. The successor counts silence from its election.
//! 3. *All leases are held by nodes that have applied at least `settled`, for ever.* `settled` is the least epoch that
//!    the members (`Up` or draining) have reported as applied, at most the leader's own. Later acks go only to beats
//!    that report at least what the node has reported before, the epoch at which it became a member, and the leader's
//!    epoch at its election; each of the three bounds all values of `settled` told until then.
//! 4. Of two nodes that act for one slot one has the older membership, and the other became the owner after it (else
//!    one membership would name two owners): at an epoch beyond what the first has applied, which by 3 is not settled.
//!
//! What the caller owes: a node reports an epoch only when the activations of all slots that it lost up to it have
//! ended, and a membership that jumped over epochs (a snapshot) counts as the loss of every slot; the beats of a node
//! are numbered upwards over its restarts too ([`first_seq`]); a member's end is committed with the epoch at which it
//! became one, so that a late `SetDown` cannot hit the node that came back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::config::ConfigError;

/// The leader acks beats only while its last proof of a quorum is younger than this.
pub(crate) const QUORUM_FRESH: Duration = Duration::from_secs(1);

/// Share of `down_after` that a lease lasts, in per cent; less than 9 / 11, which two clocks 10 % off in opposite
/// directions need.
const LEASE_PERCENT: u32 = 80;
/// Beats that may wait for their ack. More than a lease's worth of them is never of use.
const IN_FLIGHT_MAX: usize = 64;
/// A watchdog that was not asked for this long did not run, and its beats lay unread.
const LOOK_GAP_MS: u64 = 1_000;
/// A proposal to end a member is repeated after this long without an outcome.
const ASK_AGAIN_MS: u64 = 1_000;
/// Refused dials after a closed link that prove a process dead.
const REFUSALS: u8 = 2;

/// Counts the changes of the membership. A node has applied an epoch or it has not; owners of slots follow from it
/// alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Epoch(pub(crate) u64);

/// The lengths that leases and failure detection live by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LivenessConfig {
    /// Time between two beats of a node.
    pub(crate) beat: Duration,
    /// Silence after which a member is declared `Down`.
    pub(crate) down_after: Duration,
    /// How long an acked beat lets a node act, from its sending.
    pub(crate) lease: Duration,
    /// Whether a closed link and refused dials end a member at once.
    pub(crate) fast_down: bool,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(4), true)
    }
}

impl LivenessConfig {
    /// The longest safe lease, a little rounded down, for these lengths.
    pub(crate) fn new(beat: Duration, down_after: Duration, fast_down: bool) -> Self {
        Self { beat, down_after, lease: down_after * LEASE_PERCENT / 100, fast_down }
    }

    /// Checks the lengths against each other and against the longest election timeout of the control group, which is
    /// also how long its voters stand by a leader. The reasons are in the module's head.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the length that is too short or too long.
    pub(crate) fn validate(&self, election_max: Duration) -> Result<(), ConfigError> {
        if self.beat.is_zero() || self.beat * 3 > self.lease {
            let message =
                format!("{:?} is not above zero and at most a third of the lease of {:?}", self.beat, self.lease);
            return Err(ConfigError::invalid("control.beat", message));
        }
        if !outlasts(self.down_after, self.lease) {
            let message = format!("{:?} is not above 11/9 of the lease of {:?}", self.down_after, self.lease);
            return Err(ConfigError::invalid("control.down_after", message));
        }
        if !outlasts(election_max, QUORUM_FRESH) {
            let message = format!("the longer of the two, {election_max:?}, is not above 11/9 of {QUORUM_FRESH:?}");
            return Err(ConfigError::invalid("control.election", message));
        }
        Ok(())
    }
}

/// Whether `wait` by a clock 10 % fast ends after `held` by a clock 10 % slow, begun at the same instant.
fn outlasts(wait: Duration, held: Duration) -> bool {
    wait.as_nanos() * 9 > held.as_nanos() * 11
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// The number of the first beat of a process, by the incarnation of its node: above all numbers of earlier processes,
/// so that no ack meant for one of those renews a lease. A process that beats each millisecond runs out of numbers in
/// 49 days.
pub(crate) fn first_seq(incarnation: u64) -> u64 {
    incarnation << 32
}

/// What a node tells the leader each `beat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// Who beats.
    pub(crate) node: NodeId,
    /// Its number, from [`first_seq`] upwards.
    pub(crate) seq: u64,
    /// Newest epoch that it has applied and for which nothing of a lost slot is left running.
    pub(crate) applied: Epoch,
}

/// The leader's answer to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ack {
    /// The number of the beat.
    pub(crate) seq: u64,
    /// No node acts by a membership older than this; zero if the leader does not know yet.
    pub(crate) settled: Epoch,
}

/// A node's permission to act. Begins without one; a process that starts again begins anew.
///
/// Invariants: never lasts beyond `lease` after the sending of an acked beat; neither its end nor `settled` goes back.
#[derive(Debug)]
pub(crate) struct Lease {
    length_ms: u64,
    in_flight: VecDeque<(u64, u64)>,
    until: Option<u64>,
    settled: Epoch,
}

#[cfg_attr(not(test), allow(dead_code, reason = "a node asks the same of the atomics of its `View`"))]
impl Lease {
    pub(crate) fn new(config: &LivenessConfig) -> Self {
        Self { length_ms: millis(config.lease), in_flight: VecDeque::new(), until: None, settled: Epoch::default() }
    }

    /// Notes a beat. `now` must be read before it is handed to the link.
    pub(crate) fn sent(&mut self, seq: u64, now: u64) {
        self.in_flight.push_back((seq, now));
        if self.in_flight.len() > IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
    }

    /// Notes an ack and returns the lease's end if that moved. Late, repeated and unknown acks change nothing.
    pub(crate) fn acked(&mut self, ack: Ack) -> Option<u64> {
        let position = self.in_flight.iter().position(|(seq, _)| *seq == ack.seq)?;
        let (_, sent) = self.in_flight.drain(..=position).next_back()?;
        self.settled = self.settled.max(ack.settled);
        let until = sent.saturating_add(self.length_ms);
        let moved = self.until.is_none_or(|old| old < until);
        moved.then(|| *self.until.insert(until))
    }

    /// When the beat was sent that a lease until then came of.
    pub(crate) fn begun(&self, until: u64) -> u64 {
        until.saturating_sub(self.length_ms)
    }

    /// Whether the node may act at `now`; asked before every message, since a process may have been stopped for a
    /// while.
    pub(crate) fn holds(&self, now: u64) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the node may act at `now` for a slot that it owns, in every membership it applied, from epoch `since`
    /// on.
    pub(crate) fn acts(&self, since: Epoch, now: u64) -> bool {
        self.settled >= since && self.holds(now)
    }

    /// No node acts by a membership older than this.
    pub(crate) fn settled(&self) -> Epoch {
        self.settled
    }

    /// Ends the lease for good: acks under way do not bring it back. For a node that leaves.
    pub(crate) fn give_up(&mut self) {
        self.until = None;
        self.in_flight.clear();
    }
}

/// Why a member is to be declared `Down`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It sent no beat for this long.
    Silent {
        /// Milliseconds since its last beat, or since the leader listens.
        ms: u64,
    },
    /// It closed its link and then nobody listened at its address.
    Refused,
}

/// A member whose end is to be proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Who.
    pub(crate) node: NodeId,
    /// The epoch at which it became a member; the proposal must have no effect if that is another by then.
    pub(crate) joined: Epoch,
    /// What is held against it.
    pub(crate) why: Why,
}

/// The leader's watch over the members. Acks nothing and declares nobody `Down` on a node that does not lead.
///
/// The caller feeds it in the order in which it applies the control log. Memory: one entry a member.
#[derive(Debug)]
pub(crate) struct Watchdog {
    config: LivenessConfig,
    office: Option<Office>,
    members: BTreeMap<NodeId, Member>,
}

/// One term of this node as the leader.
#[derive(Debug)]
struct Office {
    elected: u64,
    /// The leader's applied epoch at its election: at least every `settled` that was told before.
    floor: Epoch,
    applied: Epoch,
    /// When the newest proof of a quorum was begun.
    quorum: Option<u64>,
    /// Since when it would have heard a beat; moves on when it was stopped, or cut off.
    listens: u64,
    looked: u64,
}

impl Office {
    fn has_quorum(&self, now: u64) -> bool {
        self.quorum.is_some_and(|began| now.saturating_sub(began) < millis(QUORUM_FRESH))
    }
}

#[derive(Debug)]
struct Member {
    joined: Epoch,
    heard: u64,
    seq: Option<u64>,
    applied: Option<Epoch>,
    closed: bool,
    refusals: u8,
    /// When its end was last proposed. From the first time on it gets no ack, for the proposal may be committed at any
    /// time.
    condemned: Option<u64>,
}

impl Member {
    fn new(joined: Epoch, now: u64) -> Self {
        Self { joined, heard: now, seq: None, applied: None, closed: false, refusals: 0, condemned: None }
    }

    /// Least epoch that a beat must report to be acked.
    fn least(&self, floor: Epoch) -> Epoch {
        floor.max(self.joined).max(self.applied.unwrap_or_default())
    }
}

impl Watchdog {
    pub(crate) fn new(config: LivenessConfig) -> Self {
        Self { config, office: None, members: BTreeMap::new() }
    }

    /// This node leads, and has applied the first entry of its own term, thus all that its predecessors may have
    /// committed: epoch `applied` with these members (`Up` or draining) and the epochs at which they became so. Members
    /// whose link is closed are to be told again by [`Self::link_closed`].
    pub(crate) fn elected(&mut self, now: u64, applied: Epoch, members: impl IntoIterator<Item = (NodeId, Epoch)>) {
        self.office = Some(Office { elected: now, floor: applied, applied, quorum: None, listens: now, looked: now });
        self.members = members.into_iter().map(|(node, joined)| (node, Member::new(joined, now))).collect();
    }

    /// This node leads no more.
    pub(crate) fn deposed(&mut self) {
        self.office = None;
        self.members.clear();
    }

    /// A round trip to a quorum that was begun at `began` proved that this node led then. Not to be derived from an age
    /// that somebody else measured: it does not grow while this process is stopped or the machine sleeps.
    pub(crate) fn quorum(&mut self, began: u64) {
        if let Some(office) = &mut self.office
            && began >= office.elected
        {
            office.quorum = office.quorum.max(Some(began));
        }
    }

    /// The leader has applied this epoch. [`Self::joined`] and [`Self::forget`] tell what it changed, and come first.
    pub(crate) fn applied(&mut self, epoch: Epoch) {
        if let Some(office) = &mut self.office {
            office.applied = office.applied.max(epoch);
        }
    }

    /// A node became a member (`Up`) at epoch `since`.
    pub(crate) fn joined(&mut self, node: NodeId, since: Epoch, now: u64) {
        if self.office.is_some() {
            self.members.insert(node, Member::new(since, now));
        }
    }

    /// A member is `Down` or removed.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.members.remove(&node);
    }

    /// Takes a beat; the ack, if there is one, is to be sent back. A beat of a node that is no member is never acked.
    pub(crate) fn beat(&mut self, beat: Beat, now: u64) -> Option<Ack> {
        let office = self.office.as_ref()?;
        let member = self.members.get_mut(&beat.node)?;
        if member.seq.is_some_and(|newest| beat.seq <= newest) {
            return None; // overtaken: its process may be gone, and its epoch with it
        }
        member.seq = Some(beat.seq);
        if member.condemned.is_some() {
            return None;
        }
        member.heard = now;
        member.closed = false;
        member.refusals = 0;
        if beat.applied < member.least(office.floor) {
            return None; // it lags behind what is settled: its membership may name owners that are not
        }
        member.applied = Some(beat.applied);
        office.has_quorum(now).then(|| Ack { seq: beat.seq, settled: self.settled() })
    }

    /// The link to a member was closed by the other side.
    pub(crate) fn link_closed(&mut self, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.closed = true;
        }
    }

    /// A dial that was begun at `dialled` was refused: nobody listens. Counts after a close, and only if it was begun
    /// after the member's last beat came, else it tells of a process before the one that beats.
    pub(crate) fn dial_refused(&mut self, node: NodeId, dialled: u64) {
        let Some(elected) = self.office.as_ref().map(|office| office.elected) else { return };
        if let Some(member) = self.members.get_mut(&node)
            && member.closed
            && dialled > member.heard.max(elected)
        {
            member.refusals = member.refusals.saturating_add(1);
        }
    }

    /// Members whose end is to be proposed now; to be asked several times a second.
    ///
    /// A member stays condemned until its end is applied, and comes up again here each second until then. A leader that
    /// was stopped, or has no quorum, blames nobody: it starts to listen afresh.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Fault> {
        let Some(office) = &mut self.office else { return Vec::new() };
        let stopped = now.saturating_sub(office.looked) > LOOK_GAP_MS;
        office.looked = now;
        let cut_off = !office.has_quorum(now);
        if stopped || cut_off {
            office.listens = now;
        }
        if cut_off {
            return Vec::new();
        }
        let (config, listens) = (self.config, office.listens);
        let due = self.members.iter_mut().filter_map(|(node, member)| {
            let why = member.fault(&config, listens, now)?;
            let asked = member.condemned.is_some_and(|asked| now.saturating_sub(asked) < ASK_AGAIN_MS);
            (!asked).then(|| {
                member.condemned = Some(now);
                Fault { node: *node, joined: member.joined, why }
            })
        });
        due.collect()
    }

    /// The newest epoch by which or by a later one all who act do act. Zero while a member has not reported to this
    /// leader.
    pub(crate) fn settled(&self) -> Epoch {
        let Some(office) = &self.office else { return Epoch::default() };
        let reported = self.members.values().map(|member| member.applied.unwrap_or_default());
        reported.min().unwrap_or_default().min(office.applied)
    }

    /// Members that have not reported the leader's epoch, so that slots moved at it wait for them.
    pub(crate) fn behind(&self) -> impl Iterator<Item = NodeId> {
        let applied = self.office.as_ref().map_or(Epoch::default(), |office| office.applied);
        self.members.iter().filter(move |(_, member)| member.applied < Some(applied)).map(|(node, _)| *node)
    }
}

impl Member {
    fn fault(&self, config: &LivenessConfig, listens: u64, now: u64) -> Option<Why> {
        if config.fast_down && self.refusals >= REFUSALS {
            return Some(Why::Refused);
        }
        let silent_ms = now.saturating_sub(self.heard.max(listens));
        let silent = silent_ms >= millis(config.down_after) || self.condemned.is_some();
        silent.then_some(Why::Silent { ms: silent_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0xa);
    const B: NodeId = NodeId(0xb);

    fn secs(text: &str) -> Duration {
        text.parse::<crate::config::Period>().unwrap().get()
    }

    fn ack(seq: u64, settled: u64) -> Ack {
        Ack { seq, settled: Epoch(settled) }
    }

    fn lease() -> Lease {
        Lease::new(&LivenessConfig::default())
    }

    #[test]
    fn a_lease_runs_from_the_sending_of_the_beat() {
        let mut lease = lease();
        assert!(!lease.holds(0));
        lease.sent(1, 10_000);
        assert_eq!(lease.acked(ack(1, 0)), Some(13_200));
        assert!(lease.holds(13_199) && !lease.holds(13_200));
    }

    #[test]
    fn late_doubled_and_foreign_acks_change_nothing() {
        let mut lease = lease();
        lease.sent(1, 10_000);
        lease.sent(2, 10_500);
        assert_eq!(lease.acked(ack(2, 7)), Some(13_700));
        assert_eq!(lease.acked(ack(2, 8)), None, "doubled");
        assert_eq!(lease.acked(ack(1, 8)), None, "overtaken");
        assert_eq!(lease.acked(ack(9, 8)), None, "never sent");
        assert!(lease.holds(13_699) && !lease.holds(13_700));
        assert_eq!(lease.settled(), Epoch(7));
    }

    #[test]
    fn a_node_acts_with_a_lease_and_a_settled_claim() {
        let mut lease = lease();
        lease.sent(1, 0);
        lease.sent(2, 500);
        lease.acked(ack(1, 5));
        assert!(lease.acts(Epoch(5), 3_199) && !lease.acts(Epoch(6), 3_199) && !lease.acts(Epoch(5), 3_200));
        lease.acked(ack(2, 4));
        assert!(lease.acts(Epoch(5), 3_200), "settled does not go back");
    }

    #[test]
    fn a_lease_given_up_does_not_come_back() {
        let mut lease = lease();
        lease.sent(1, 0);
        lease.acked(ack(1, 0));
        lease.sent(2, 500);
        lease.give_up();
        assert_eq!(lease.acked(ack(2, 0)), None);
        assert!(!lease.holds(501));
    }

    #[test]
    fn beats_without_acks_are_bounded() {
        let mut lease = lease();
        for seq in 0..1_000 {
            lease.sent(seq, seq);
        }
        assert_eq!(lease.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(lease.acked(ack(0, 0)), None);
        assert_eq!(lease.acked(ack(999, 0)), Some(4_199));
        assert!(lease.in_flight.is_empty());
    }

    #[test]
    fn numbers_of_a_later_process_are_above_all_earlier_ones() {
        assert!(first_seq(8) > first_seq(7) + u64::from(u32::MAX));
    }

    #[test]
    fn derived_leases_end_before_down_on_the_worst_clocks() {
        for tenths in 10..600_u32 {
            let config = LivenessConfig::new(secs("100ms"), secs("100ms") * tenths, true);
            assert!(config.validate(secs("2s")).is_ok(), "{config:?}");
            assert!(config.lease.as_secs_f64() / 0.9 < config.down_after.as_secs_f64() / 1.1, "{config:?}");
        }
        assert_eq!(LivenessConfig::default().lease, secs("3200ms"));
    }

    #[test]
    fn lengths_that_break_the_promise_are_named() {
        let config = LivenessConfig::default();
        let refused = |config: LivenessConfig, election_max| config.validate(election_max).unwrap_err().to_string();
        assert_eq!(
            refused(LivenessConfig { lease: secs("3500ms"), ..config }, secs("2s")),
            "control.down_after: 4s is not above 11/9 of the lease of 3.5s"
        );
        for beat in ["1100ms", "0s"] {
            let message =
                format!("control.beat: {:?} is not above zero and at most a third of the lease of 3.2s", secs(beat));
            assert_eq!(refused(LivenessConfig { beat: secs(beat), ..config }, secs("2s")), message);
        }
        assert_eq!(refused(config, secs("1s")), "control.election: the longer of the two, 1s, is not above 11/9 of 1s");
    }

    /// A leader since 10 s, at epoch 5, with the members A and B, that has just proved its quorum.
    fn leader() -> Watchdog {
        leader_with(LivenessConfig::default())
    }

    fn leader_with(config: LivenessConfig) -> Watchdog {
        let mut watchdog = Watchdog::new(config);
        watchdog.elected(10_000, Epoch(5), [(A, Epoch(1)), (B, Epoch(2))]);
        watchdog.quorum(10_000);
        watchdog
    }

    fn beat(node: NodeId, seq: u64, applied: u64) -> Beat {
        Beat { node, seq, applied: Epoch(applied) }
    }

    /// Asks twice a second with a fresh quorum, over the milliseconds up to `until`, and returns when somebody was due.
    fn watch(watchdog: &mut Watchdog, from: u64, until: u64) -> Vec<(u64, NodeId, Why)> {
        let mut all = Vec::new();
        for now in (from..=until).step_by(500) {
            watchdog.quorum(now);
            all.extend(watchdog.due(now).into_iter().map(|fault| (now, fault.node, fault.why)));
        }
        all
    }

    #[test]
    fn only_a_leader_with_a_fresh_quorum_acks() {
        let mut watchdog = Watchdog::new(LivenessConfig::default());
        watchdog.quorum(9_000);
        assert_eq!(watchdog.beat(beat(A, 1, 5), 9_000), None, "it does not lead");
        watchdog.elected(10_000, Epoch(5), [(A, Epoch(1))]);
        assert_eq!(watchdog.beat(beat(A, 2, 5), 10_000), None, "nothing is proved");
        watchdog.quorum(9_999);
        assert_eq!(watchdog.beat(beat(A, 3, 5), 10_000), None, "the proof is of an earlier term");
        watchdog.quorum(10_100);
        watchdog.quorum(10_050);
        assert_eq!(watchdog.beat(beat(A, 4, 5), 11_099), Some(ack(4, 5)));
        assert_eq!(watchdog.beat(beat(A, 5, 5), 11_100), None, "the proof is old");
        assert_eq!(watchdog.beat(beat(B, 1, 5), 10_200), None, "no member");
        watchdog.quorum(11_200);
        watchdog.deposed();
        assert_eq!(watchdog.beat(beat(A, 6, 5), 11_200), None, "it leads no more");
    }

    #[test]
    fn a_silent_member_is_due_after_four_seconds_and_gets_no_ack_from_then_on() {
        let mut watchdog = leader();
        assert_eq!(watch(&mut watchdog, 10_000, 12_000), []);
        assert!(watchdog.beat(beat(A, 1, 5), 12_250).is_some());
        let due = watch(&mut watchdog, 12_500, 15_000);
        assert_eq!(due.first(), Some(&(14_000, B, Why::Silent { ms: 4_000 })), "counted from the election");
        assert_eq!(due.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [14_000, 15_000], "asked again each second");
        assert_eq!(watchdog.beat(beat(B, 1, 5), 15_100), None);
        let due = watch(&mut watchdog, 15_500, 16_500);
        assert_eq!(due.first(), Some(&(16_000, B, Why::Silent { ms: 6_000 })), "condemned, whatever comes");
        watchdog.joined(B, Epoch(7), 16_600);
        watchdog.quorum(16_600);
        assert_eq!(watchdog.beat(beat(B, 2, 6), 16_600), None, "its membership is older than its own");
        assert!(watchdog.beat(beat(B, 3, 7), 16_700).is_some());
    }

    #[test]
    fn a_fault_names_the_membership_that_is_to_end() {
        let mut watchdog = leader();
        watchdog.quorum(14_000);
        watchdog.due(14_000); // it was not asked for long, so it begins to listen
        watch(&mut watchdog, 14_500, 17_500);
        watchdog.quorum(18_000);
        let joined: Vec<_> = watchdog.due(18_000).into_iter().map(|fault| (fault.node, fault.joined)).collect();
        assert_eq!(joined, [(A, Epoch(1)), (B, Epoch(2))]);
    }

    #[test]
    fn a_leader_that_was_stopped_blames_nobody() {
        let mut watchdog = leader();
        assert_eq!(watch(&mut watchdog, 10_000, 10_500), []);
        assert_eq!(watch(&mut watchdog, 20_000, 23_500), []);
        assert_eq!(watch(&mut watchdog, 24_000, 24_000).len(), 2);
    }

    #[test]
    fn a_leader_that_is_cut_off_blames_nobody() {
        let mut watchdog = leader();
        for now in (10_500..20_000).step_by(500) {
            assert_eq!(watchdog.due(now), []);
        }
        assert_eq!(watch(&mut watchdog, 20_000, 23_000), []);
        assert_eq!(watch(&mut watchdog, 23_500, 23_500).len(), 2, "four seconds after it was last cut off");
    }

    #[test]
    fn a_closed_link_and_two_refusals_are_hard_evidence() {
        let mut watchdog = leader();
        watchdog.dial_refused(A, 10_001);
        watchdog.dial_refused(A, 10_002);
        assert_eq!(watch(&mut watchdog, 10_100, 10_100), [], "no link was closed");
        watchdog.link_closed(A);
        watchdog.dial_refused(A, 10_101);
        assert_eq!(watch(&mut watchdog, 10_200, 10_200), [], "one may be chance");
        watchdog.dial_refused(A, 10_201);
        assert_eq!(watch(&mut watchdog, 10_300, 10_300), [(10_300, A, Why::Refused)]);
        watchdog.forget(A);
        assert_eq!(watch(&mut watchdog, 10_400, 11_400), []);
    }

    #[test]
    fn evidence_from_before_a_beat_or_the_election_does_not_count() {
        let mut watchdog = leader();
        for _ in 0..2 {
            watchdog.link_closed(A);
            watchdog.dial_refused(A, 10_000);
        }
        watchdog.dial_refused(A, 10_010);
        watchdog.beat(beat(A, 1, 5), 10_020);
        watchdog.link_closed(A);
        watchdog.dial_refused(A, 10_020);
        watchdog.dial_refused(A, 10_021);
        assert_eq!(watch(&mut watchdog, 10_100, 10_100), []);
    }

    #[test]
    fn evidence_is_ignored_where_it_may_be_forged() {
        let mut watchdog = leader_with(LivenessConfig { fast_down: false, ..LivenessConfig::default() });
        watchdog.link_closed(A);
        watchdog.dial_refused(A, 10_100);
        watchdog.dial_refused(A, 10_200);
        assert_eq!(watch(&mut watchdog, 10_300, 13_800), []);
    }

    #[test]
    fn settled_is_what_every_member_has_reported() {
        let mut watchdog = leader();
        assert_eq!(watchdog.beat(beat(A, 1, 5), 10_100), Some(ack(1, 0)), "nothing is known of B");
        assert_eq!(watchdog.beat(beat(B, 1, 5), 10_100), Some(ack(1, 5)));
        watchdog.beat(beat(A, 2, 6), 10_200);
        assert_eq!(watchdog.beat(beat(B, 2, 6), 10_200), Some(ack(2, 5)), "the leader is at 5 itself");
        watchdog.applied(Epoch(7));
        assert_eq!(watchdog.settled(), Epoch(6));
        assert_eq!(watchdog.behind().collect::<Vec<_>>(), [A, B]);
        watchdog.beat(beat(A, 3, 7), 10_300);
        assert_eq!((watchdog.settled(), watchdog.behind().collect::<Vec<_>>()), (Epoch(6), vec![B]));
        watchdog.forget(B);
        assert_eq!(watchdog.settled(), Epoch(7), "who is down does not count");
    }

    #[test]
    fn a_new_member_holds_settled_back_until_it_reports() {
        let mut watchdog = leader();
        watchdog.beat(beat(A, 1, 5), 10_100);
        watchdog.beat(beat(B, 1, 5), 10_100);
        let c = NodeId(0xc);
        watchdog.joined(c, Epoch(6), 10_200);
        watchdog.applied(Epoch(6));
        assert_eq!(watchdog.settled(), Epoch(0));
        assert_eq!(watchdog.beat(beat(c, 1, 5), 10_300), None, "it has not applied its own joining");
        assert_eq!(watchdog.beat(beat(c, 2, 6), 10_400), Some(ack(2, 5)));
    }

    #[test]
    fn a_beat_with_an_older_epoch_than_reported_or_settled_is_not_acked() {
        let mut watchdog = leader();
        assert_eq!(watchdog.beat(beat(A, 1, 4), 10_100), None, "another leader may have told that 5 is settled");
        assert!(watchdog.beat(beat(A, 2, 7), 10_200).is_some());
        assert_eq!(watchdog.beat(beat(A, 3, 6), 10_300), None, "a process that started with an older state");
        assert!(watchdog.beat(beat(A, 4, 7), 10_400).is_some());
    }

    #[test]
    fn a_beat_that_was_overtaken_is_not_heard() {
        let mut watchdog = leader();
        assert!(watchdog.beat(beat(A, first_seq(2), 5), 10_100).is_some());
        assert_eq!(watchdog.beat(beat(A, first_seq(1) + 9, 7), 10_200), None, "of a process that is gone");
        assert_eq!(watchdog.beat(beat(A, first_seq(2), 5), 10_200), None, "doubled");
        watch(&mut watchdog, 10_500, 13_500);
        watchdog.quorum(14_100);
        assert!(watchdog.due(14_100).iter().any(|fault| fault.node == A));
    }
}
