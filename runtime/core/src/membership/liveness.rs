//! Who may act: the [`Lease`] of each node and the [`Watchdog`] of the control leader, free of clocks, links and actors.
//!
//! Time is a value: milliseconds of the machine's `CLOCK_BOOTTIME`, which also counts while it sleeps. Times of two machines are
//! never compared, only lengths. A node beats to the leader each `beat`; the leader answers ("acks") or keeps silent.
//!
//! **Invariant: at most one node acts for a slot.** A node acts for a slot only while it is the owner in the membership it
//! has applied, holds its lease, and `settled` has reached the epoch since which it is the owner without a gap. Why that holds:
//!
//! 1. *A node that is `Down` holds no lease.* A lease ends `lease` after the acked beat was **sent**, by the node's clock;
//!    the leader counts `down_after` from the moment it **received** that beat or a later one, by its own. A clock that is
//!    wrong by up to 10 % lets the lease last `lease / 0.9` and the leader wait only `down_after / 1.1`, so
//!    `lease * 11 / 9 < down_after` is asked: 3.2 s * 11 / 9 = 3.911 s < 4 s. (3.5 s would need clocks that differ by less
//!    than 14 % from each other; with one 10 % slow and the other 10 % fast its lease outlives the wait by 0.25 s.)
//!    From the decision on the leader acks the node no more, so that the commit may take as long as it likes.
//! 2. *The leader's predecessor takes no part in this.* It acks only while a round trip to a quorum, begun less than
//!    [`QUORUM_FRESH`] ago, has succeeded. Every voter of that quorum refuses its vote for `election_max` after it, so the
//!    successor is elected later: 1 s / 0.9 = 1.11 s < 2 s / 1.1 = 1.82 s. The successor counts silence from its election.
//! 3. *All leases are held by nodes that have applied at least `settled`, for ever.* `settled` is the least epoch that the
//!    members (`Up` or draining) have reported as applied, at most the leader's own. Later acks go only to beats that report at
//!    least what the node has reported before, the epoch at which it became a member, and the leader's epoch at its election;
//!    each of the three bounds all values of `settled` told until then.
//! 4. Of two nodes that act for one slot one has the older membership, and the other became the owner after it (else one
//!    membership would name two owners): at an epoch beyond what the first has applied, which by 3 is not settled.
//!
//! What the caller owes: a node reports an epoch only when the activations of all slots that it lost up to it have ended, and
//! a membership that jumped over epochs (a snapshot) counts as the loss of every slot; the beats of a node are numbered
//! upwards over its restarts too ([`first_seq`]); a member's end is committed with the epoch at which it became one, so
//! that a late `SetDown` cannot hit the node that came back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::config::ConfigError;

/// The leader acks beats only while its last proof of a quorum is younger than this.
pub(crate) const QUORUM_FRESH: Duration = Duration::from_secs(1);

/// Share of `down_after` that a lease lasts, in per cent; less than 9 / 11, which two clocks 10 % off in opposite directions need.
const LEASE_PERCENT: u32 = 80;
/// Beats that may wait for their ack. More than a lease's worth of them is never of use.
const IN_FLIGHT_MAX: usize = 64;
/// A watchdog that was not asked for this long did not run, and its beats lay unread.
const LOOK_GAP_MS: u64 = 1_000;
/// A proposal to end a member is repeated after this long without an outcome.
const ASK_AGAIN_MS: u64 = 1_000;
/// Refused dials after a closed link that prove a process dead.
const REFUSALS: u8 = 2;

/// Counts the changes of the membership. A node has applied an epoch or it has not; owners of slots follow from it alone.
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

    /// Checks the lengths against each other and against the longest election timeout of the control group, which is also
    /// how long its voters stand by a leader. The reasons are in the module's head.
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

/// The number of the first beat of a process, by the incarnation of its node: above all numbers of earlier processes, so
/// that no ack meant for one of those renews a lease. A process that beats each millisecond runs out of numbers in 49 days.
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

    /// Whether the node may act at `now`; asked before every message, since a process may have been stopped for a while.
    pub(crate) fn holds(&self, now: u64) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the node may act at `now` for a slot that it owns, in every membership it applied, from epoch `since` on.
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
    /// When its end was last proposed. From the first time on it gets no ack, for the proposal may be committed at any time.
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

    /// This node leads, and has applied the first entry of its own term, thus all that its predecessors may have committed:
    /// epoch `applied` with these members (`Up` or draining) and the epochs at which they became so. Members whose link is
    /// closed are to be told again by [`Self::link_closed`].
    pub(crate) fn elected(&mut self, now: u64, applied: Epoch, members: impl IntoIterator<Item = (NodeId, Epoch)>) {
        self.office = Some(Office { elected: now, floor: applied, applied, quorum: None, listens: now, looked: now });
        self.members = members.into_iter().map(|(node, joined)| (node, Member::new(joined, now))).collect();
    }

    /// This node leads no more.
    pub(crate) fn deposed(&mut self) {
        self.office = None;
        self.members.clear();
    }

    /// A round trip to a quorum that was begun at `began` proved that this node led then. Not to be derived from an age that
    /// somebody else measured: it does not grow while this process is stopped or the machine sleeps.
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

    /// A dial that was begun at `dialled` was refused: nobody listens. Counts after a close, and only if it was begun after the
    /// member's last beat came, else it tells of a process before the one that beats.
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

    /// The newest epoch by which or by a later one all who act do act. Zero while a member has not reported to this leader.
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
