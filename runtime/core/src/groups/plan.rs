//! The next changes that bring each group nearer to its [`Target`](super::target::Target), one at a time.
//!
//! A change is planned only for a group whose leader and majority are there, and never one that would leave it without a
//! majority of live voters. A node takes part in one change at a time, so that it copies one group after the other. The plan
//! is made anew from what is seen: changes that failed are planned again, those that became wrong are not.
//!
//! Order within a group: members that were removed go; copies come; votes that are too many go; leadership leaves a node
//! that shall not vote, before the votes change around it; votes come, as soon as their copy is complete; copies that are
//! too many go.

use std::collections::{BTreeMap, BTreeSet};

use super::spread;
use super::target::Target;
use crate::control::{Member, MemberState};
use crate::node_id::NodeId;
use crate::placement::{Candidate, Labels};

/// A member as the plan sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) id: NodeId,
    pub(crate) weight: u32,
    pub(crate) labels: &'a Labels,
    pub(crate) state: MemberState,
    /// Since when, in the same milliseconds as the plan's.
    pub(crate) since_ms: u64,
    /// The oldest member has the smallest.
    pub(crate) joined_index: u64,
}

impl<'a> From<&'a Member> for Node<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            id: member.record.id,
            weight: member.record.weight,
            labels: &member.record.labels,
            state: member.state,
            since_ms: member.since_ms,
            joined_index: member.joined_index,
        }
    }
}

impl<'a> Node<'a> {
    pub(super) fn candidate(&self) -> Candidate<'a> {
        Candidate { id: self.id, weight: self.weight, labels: self.labels }
    }
}

/// A group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupView {
    /// 0 is the control group.
    pub(crate) group: u8,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
    /// Learners whose log is as long as the leader's, or nearly.
    pub(crate) caught_up: BTreeSet<NodeId>,
    pub(crate) leader: Option<NodeId>,
}

impl GroupView {
    pub(super) fn is_control(&self) -> bool {
        self.group == 0
    }

    pub(super) fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// How many should vote, at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// In the control group.
    pub(crate) max_voters: u8,
    /// In a shard group, where those that do not make an odd number hold a copy.
    pub(crate) replicas: u8,
}

/// One change of one group, carried out by the group's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// A node gets a copy, without a vote.
    AddLearner { group: u8, node: NodeId },
    /// A learner gets a vote.
    Promote { group: u8, node: NodeId },
    /// A voter stays as a learner.
    Demote { group: u8, node: NodeId },
    /// A voter or learner goes.
    Remove { group: u8, node: NodeId },
    /// The leader lets another voter lead. With more than 3 voters that takes a lease's time without writes.
    HandOff { group: u8, to: NodeId },
}

impl Change {
    pub(crate) fn group(&self) -> u8 {
        match *self {
            Self::AddLearner { group, .. }
            | Self::Promote { group, .. }
            | Self::Demote { group, .. }
            | Self::Remove { group, .. }
            | Self::HandOff { group, .. } => group,
        }
    }

    /// The node that it is about; with a hand-off the next leader.
    pub(crate) fn node(&self) -> NodeId {
        match *self {
            Self::AddLearner { node, .. }
            | Self::Promote { node, .. }
            | Self::Demote { node, .. }
            | Self::Remove { node, .. }
            | Self::HandOff { to: node, .. } => node,
        }
    }

    pub(super) fn is_hand_off(&self) -> bool {
        matches!(self, Self::HandOff { .. })
    }
}

/// The changes to begin now, at most one in each group and for each node, beside those that are `running`.
pub(crate) fn plan(
    nodes: &[Node<'_>],
    groups: &[GroupView],
    sizes: Sizes,
    running: &[Change],
    now_ms: u64,
) -> Vec<Change> {
    let scene = Scene::new(nodes, groups);
    let mut busy = Busy::default();
    for change in running {
        busy.begin(*change, groups);
    }
    let mut settled = Vec::new();
    let mut changes = Vec::new();
    for group in groups {
        if busy.groups.contains(&group.group) || !scene.can_change(group) {
            continue;
        }
        let target = Target::new(group, nodes, sizes, now_ms);
        let options = scene.options(group, &target);
        if options.is_empty() && !group.is_control() {
            settled.push((group, target));
        } else if let Some(change) = options.into_iter().find(|change| busy.is_free(change, group)) {
            busy.begin(change, groups);
            changes.push(change);
        }
    }
    // One at a time: each changes what the next is decided on.
    if !running.iter().chain(&changes).any(Change::is_hand_off) {
        let ready: Vec<_> = settled.iter().map(|(group, target)| (*group, scene.heirs(group, target))).collect();
        let next = spread::next(groups, &ready);
        let led = |change: &Change| groups.iter().find(|group| group.group == change.group());
        changes.extend(next.filter(|change| led(change).is_some_and(|group| busy.is_free(change, group))));
    }
    changes
}

/// Groups that have a majority of live voters now, and would have none without `node`.
pub(crate) fn stranded_by(node: NodeId, nodes: &[Node<'_>], groups: &[GroupView]) -> Vec<u8> {
    let scene = Scene::new(nodes, groups);
    let others: Vec<Node<'_>> = nodes.iter().filter(|other| other.id != node).copied().collect();
    let without = Scene::new(&others, groups);
    let stranded =
        groups.iter().filter(|group| scene.has_majority(&group.voters) && !without.has_majority(&group.voters));
    stranded.map(|group| group.group).collect()
}

/// Who is in a change already.
#[derive(Default)]
struct Busy {
    groups: BTreeSet<u8>,
    nodes: BTreeSet<NodeId>,
}

impl Busy {
    fn begin(&mut self, change: Change, groups: &[GroupView]) {
        self.groups.insert(change.group());
        self.nodes.insert(change.node());
        if change.is_hand_off() {
            let group = groups.iter().find(|group| group.group == change.group());
            self.nodes.extend(group.and_then(|group| group.leader));
        }
    }

    fn is_free(&self, change: &Change, group: &GroupView) -> bool {
        let from = group.leader.filter(|_| change.is_hand_off());
        !self.groups.contains(&change.group()) && !from.iter().chain([&change.node()]).any(|id| self.nodes.contains(id))
    }
}

/// What is known about nodes across groups.
struct Scene {
    states: BTreeMap<NodeId, MemberState>,
    /// Groups that each node leads.
    leads: BTreeMap<NodeId, usize>,
    /// Nodes that copy a group and are not done.
    copying: BTreeSet<NodeId>,
}

impl Scene {
    fn new(nodes: &[Node<'_>], groups: &[GroupView]) -> Self {
        let mut leads = BTreeMap::new();
        for leader in groups.iter().filter_map(|group| group.leader) {
            *leads.entry(leader).or_default() += 1;
        }
        let copying = groups.iter().flat_map(|group| group.learners.difference(&group.caught_up)).copied();
        Self { states: nodes.iter().map(|node| (node.id, node.state)).collect(), leads, copying: copying.collect() }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.states.get(&node) == Some(&MemberState::Up)
    }

    fn is_draining(&self, node: NodeId) -> bool {
        self.states.get(&node) == Some(&MemberState::Draining)
    }

    fn is_live(&self, node: NodeId) -> bool {
        self.states.get(&node).is_some_and(|state| *state != MemberState::Down)
    }

    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.iter().filter(|id| self.is_live(**id)).count() * 2 > voters.len()
    }

    fn can_change(&self, group: &GroupView) -> bool {
        let led = group.leader.is_some_and(|leader| group.voters.contains(&leader) && self.is_live(leader));
        led && self.has_majority(&group.voters)
    }

    /// All changes that bring a group nearer to its target, the most important first.
    fn options(&self, group: &GroupView, target: &Target) -> Vec<Change> {
        let mut options = self.gone(group);
        options.extend(self.copies(group, target));
        options.extend(self.votes_to_take(group, target));
        options.extend(self.hand_off(group, target));
        options.extend(self.votes_to_give(group, target));
        let spare = group.learners.iter().filter(|id| !target.contains(**id));
        options.extend(spare.map(|id| Change::Remove { group: group.group, node: *id }));
        options
    }

    /// Those that are not members any more.
    fn gone(&self, group: &GroupView) -> Vec<Change> {
        let gone = group.voters.union(&group.learners).filter(|id| !self.states.contains_key(id));
        let gone = gone.filter(|id| self.survives_without(group, **id));
        gone.map(|id| Change::Remove { group: group.group, node: *id }).collect()
    }

    /// Copies to be made, on nodes that make no other.
    fn copies<'a>(&'a self, group: &'a GroupView, target: &'a Target) -> impl Iterator<Item = Change> + 'a {
        let wanted = target.voters.iter().chain(&target.learners).filter(|id| !group.holds(**id));
        let free = wanted.filter(move |id| match self.states.get(id) {
            Some(MemberState::Up) => !self.copying.contains(id),
            // It is not `Up` before it knows the control state.
            Some(MemberState::Joining) => group.is_control(),
            _ => false,
        });
        free.map(|id| Change::AddLearner { group: group.group, node: *id })
    }

    /// Votes that are too many: those of nodes that are gone before those of others, and never the leader's.
    fn votes_to_take(&self, group: &GroupView, target: &Target) -> Vec<Change> {
        let too_many = group.voters.len() > target.voters.len();
        let replaced = self.heirs_apparent(group, target).next().is_some();
        let mut unwanted: Vec<NodeId> = group.voters.difference(&target.voters).copied().collect();
        unwanted.retain(|id| {
            let timely = too_many || self.is_draining(*id) || (replaced && !self.is_live(*id));
            timely && group.leader != Some(*id) && self.survives_without(group, *id)
        });
        unwanted.sort_by_key(|id| self.is_live(*id));
        let take = |node| {
            let keeps_copy = target.learners.contains(&node);
            let group = group.group;
            if keeps_copy { Change::Demote { group, node } } else { Change::Remove { group, node } }
        };
        unwanted.into_iter().map(take).collect()
    }

    /// A leader that shall not vote hands off to one that shall; if it drains, to anybody.
    fn hand_off(&self, group: &GroupView, target: &Target) -> Option<Change> {
        let leader = group.leader.filter(|leader| !target.voters.contains(leader))?;
        let mut heirs = self.heirs(group, target);
        if heirs.is_empty() && self.is_draining(leader) {
            heirs = group.voters.iter().copied().filter(|id| self.is_up(*id)).collect();
        }
        let least = heirs.into_iter().min_by_key(|id| (self.leads.get(id).copied().unwrap_or(0), *id))?;
        Some(Change::HandOff { group: group.group, to: least })
    }

    /// Votes to be given to nodes whose copy is complete. An even number is passed through, not stayed at: it needs one
    /// more live voter than the odd number below.
    fn votes_to_give(&self, group: &GroupView, target: &Target) -> Vec<Change> {
        if group.voters.len() > target.voters.len() {
            return Vec::new();
        }
        let ready: Vec<NodeId> = self.heirs_apparent(group, target).collect();
        let becomes_odd = group.voters.len().is_multiple_of(2);
        let goes_on = ready.len() > 1 || group.voters.difference(&target.voters).next().is_some();
        if !becomes_odd && !goes_on {
            return Vec::new();
        }
        ready.into_iter().map(|node| Change::Promote { group: group.group, node }).collect()
    }

    /// Learners that shall vote and can.
    fn heirs_apparent<'a>(&'a self, group: &'a GroupView, target: &'a Target) -> impl Iterator<Item = NodeId> + 'a {
        let ready = group.caught_up.iter().filter(|id| group.learners.contains(id) && target.voters.contains(id));
        ready.copied().filter(|id| self.is_up(*id))
    }

    /// Voters that may lead.
    fn heirs(&self, group: &GroupView, target: &Target) -> BTreeSet<NodeId> {
        group.voters.intersection(&target.voters).copied().filter(|id| self.is_up(*id)).collect()
    }

    fn survives_without(&self, group: &GroupView, node: NodeId) -> bool {
        let mut voters = group.voters.clone();
        voters.remove(&node);
        self.has_majority(&voters)
    }
}

#[cfg(test)]
mod tests {
    use super::MemberState::{Down, Draining, Up};
    use super::*;

    static NONE: Labels = Labels::new();
    const SIZES: Sizes = Sizes { max_voters: 5, replicas: 3 };

    fn nodes(states: &[MemberState]) -> Vec<Node<'static>> {
        let node = |(id, state): (u64, &MemberState)| Node {
            id: NodeId(id),
            weight: 1,
            labels: &NONE,
            state: *state,
            since_ms: 0,
            joined_index: id,
        };
        (1..).zip(states).map(node).collect()
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    /// All learners have caught up.
    fn view(group: u8, voters: &[u64], learners: &[u64], leader: u64) -> GroupView {
        let learners = ids(learners);
        let leader = Some(NodeId(leader));
        GroupView { group, voters: ids(voters), caught_up: learners.clone(), learners, leader }
    }

    fn next(nodes: &[Node<'_>], group: &GroupView, now_ms: u64) -> Vec<Change> {
        plan(nodes, std::slice::from_ref(group), SIZES, &[], now_ms)
    }

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);
    const N3: NodeId = NodeId(3);

    #[test]
    fn a_third_node_gives_a_vote_to_the_second_too() {
        let three = nodes(&[Up, Up, Up]);
        assert_eq!(next(&three, &view(1, &[1], &[2], 1), 0), [Change::AddLearner { group: 1, node: N3 }]);
        let mut copying = view(1, &[1], &[2, 3], 1);
        copying.caught_up.remove(&N3);
        assert_eq!(next(&three, &copying, 0), [], "two voters are worse than one");
        assert_eq!(next(&three, &view(1, &[1], &[2, 3], 1), 0), [Change::Promote { group: 1, node: N2 }]);
        assert_eq!(next(&three, &view(1, &[1, 2], &[3], 1), 0), [Change::Promote { group: 1, node: N3 }]);
        assert_eq!(next(&three, &view(1, &[1, 2, 3], &[], 1), 0), []);
    }

    #[test]
    fn a_voter_of_two_nodes_drains_over_to_the_other() {
        let two = nodes(&[Draining, Up]);
        assert_eq!(next(&two, &view(1, &[1], &[2], 1), 0), [Change::Promote { group: 1, node: N2 }]);
        assert_eq!(next(&two, &view(1, &[1, 2], &[], 1), 0), [Change::HandOff { group: 1, to: N2 }]);
        assert_eq!(next(&two, &view(1, &[1, 2], &[], 2), 0), [Change::Demote { group: 1, node: N1 }]);
        assert_eq!(next(&two, &view(1, &[2], &[1], 2), 0), []);
    }

    #[test]
    fn the_last_voter_that_lives_never_leaves() {
        assert_eq!(next(&nodes(&[Draining]), &view(1, &[1], &[], 1), 0), []);
        let two = nodes(&[Draining, Down]);
        assert_eq!(next(&two, &view(1, &[1], &[2], 1), u64::MAX), []);
        let three = nodes(&[Up, Draining, Down]);
        assert_eq!(next(&three, &view(1, &[1, 2, 3], &[], 1), 0), [], "1 of 2 is no majority");
    }

    #[test]
    fn a_group_without_leader_or_majority_is_left_alone() {
        let mut group = view(1, &[1, 2, 3], &[], 1);
        assert_eq!(next(&nodes(&[Up, Down, Down]), &group, u64::MAX), []);
        group.leader = None;
        assert_eq!(next(&nodes(&[Up, Up]), &group, 0), []);
    }

    #[test]
    fn a_removed_member_goes_at_once() {
        let two = nodes(&[Up, Up]);
        let group = view(0, &[1, 2, 9], &[], 1);
        assert_eq!(next(&two, &group, 0), [Change::Remove { group: 0, node: NodeId(9) }]);
        assert_eq!(next(&two, &view(0, &[1, 2], &[], 1), 0), [Change::Demote { group: 0, node: N2 }]);
    }

    #[test]
    fn a_dead_voter_goes_when_its_successor_is_ready() {
        let four = nodes(&[Up, Up, Down, Up]);
        let late = 300_000;
        let new = NodeId(4);
        assert_eq!(next(&four, &view(1, &[1, 2, 3], &[], 1), late), [Change::AddLearner { group: 1, node: new }]);
        let mut group = view(1, &[1, 2, 3], &[4], 1);
        group.caught_up.clear();
        assert_eq!(next(&four, &group, late), []);
        assert_eq!(next(&four, &view(1, &[1, 2, 3], &[4], 1), late), [Change::Remove { group: 1, node: N3 }]);
        assert_eq!(next(&four, &view(1, &[1, 2], &[4], 1), late), [Change::Promote { group: 1, node: new }]);
    }

    #[test]
    fn a_node_copies_one_group_after_the_other() {
        let two = nodes(&[Up, Up]);
        let groups: Vec<_> = (1..=3).map(|group| view(group, &[1], &[], 1)).collect();
        let first = Change::AddLearner { group: 1, node: N2 };
        assert_eq!(plan(&two, &groups, SIZES, &[], 0), [first]);
        assert_eq!(plan(&two, &groups, SIZES, &[first], 0), []);
        let mut copying = groups;
        copying[0].learners.insert(N2);
        assert_eq!(plan(&two, &copying, SIZES, &[], 0), []);
        copying[0].caught_up.insert(N2);
        let next = plan(&two, &copying, SIZES, &[], 0);
        assert!(next.contains(&Change::AddLearner { group: 2, node: N2 }) || next.len() == 1, "{next:?}");
    }

    #[test]
    fn removals_that_end_a_majority_are_known_before() {
        let two = nodes(&[Up, Up]);
        let groups = [view(0, &[1], &[2], 1), view(1, &[2], &[1], 2), view(2, &[1, 2], &[], 1)];
        assert_eq!(stranded_by(N2, &two, &groups), [1, 2]);
        assert_eq!(stranded_by(N1, &two, &groups), [0, 2]);
    }
}
