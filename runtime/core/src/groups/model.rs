//! A small world of nodes that join, crash, return, drain and leave, in which the plan is carried out step by step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::plan::{Change, GroupView, Node, Sizes, plan};
use crate::control::MemberState::{self, Down, Draining, Joining, Up};
use crate::node_id::NodeId;
use crate::placement::{Labels, may_vote, rank_voters};

const GROUPS: u8 = 8;
/// Most nodes of the world.
const NODES: usize = 7;
/// Rounds within which the plan must come to rest: 9 groups, each with a few changes for each node.
const ROUNDS: usize = 9 * NODES * 8;
const MINUTE: u64 = 60_000;

/// What happens to the node that the index picks.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join {
        weight: u32,
        battery: bool,
    },
    Arrive(prop::sample::Index),
    Crash(prop::sample::Index),
    Return(prop::sample::Index),
    Drain(prop::sample::Index),
    Remove(prop::sample::Index),
    CatchUp,
    Wait(u64),
    /// The plan is made, and that many of its changes are carried out before anything else happens.
    Plan(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => (prop_oneof![9 => 1_u32..9, 1 => Just(0)], prop::bool::weighted(0.1))
            .prop_map(|(weight, battery)| Event::Join { weight, battery }),
        3 => index().prop_map(Event::Arrive),
        2 => index().prop_map(Event::Crash),
        2 => index().prop_map(Event::Return),
        1 => index().prop_map(Event::Drain),
        1 => index().prop_map(Event::Remove),
        4 => Just(Event::CatchUp),
        1 => (0_u64..10).prop_map(|minutes| Event::Wait(minutes * MINUTE)),
        9 => (1_usize..5).prop_map(Event::Plan),
    ]
}

struct SimNode {
    weight: u32,
    labels: Labels,
    state: MemberState,
    since_ms: u64,
    joined_index: u64,
}

struct World {
    nodes: BTreeMap<NodeId, SimNode>,
    groups: Vec<GroupView>,
    sizes: Sizes,
    now_ms: u64,
    /// Nodes that ever were.
    born: u64,
}

impl World {
    fn founded(sizes: Sizes) -> Self {
        let first = NodeId(0x1234_5678);
        let none = BTreeSet::new();
        let group = |group| GroupView {
            group,
            voters: BTreeSet::from([first]),
            learners: none.clone(),
            caught_up: none.clone(),
            leader: Some(first),
        };
        let node = SimNode { weight: 1, labels: Labels::new(), state: Up, since_ms: 0, joined_index: 1 };
        let groups = (0..=GROUPS).map(group).collect();
        Self { nodes: BTreeMap::from([(first, node)]), groups, sizes, now_ms: 0, born: 1 }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Join { weight, battery } if self.nodes.len() < NODES => {
                self.born += 1;
                // Any ids will do, as long as they differ and hash apart.
                let id = NodeId(self.born.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let labels = if battery { Labels::from([("battery".into(), "true".into())]) } else { Labels::new() };
                let (since_ms, joined_index) = (self.now_ms, self.born);
                self.nodes.insert(id, SimNode { weight, labels, state: Joining, since_ms, joined_index });
            }
            Event::Join { .. } => {}
            Event::Arrive(index) => self.enter(index, &[Joining], Up),
            Event::Crash(index) => self.enter(index, &[Joining, Up, Draining], Down),
            Event::Return(index) => self.enter(index, &[Down], Joining),
            Event::Drain(index) => self.enter(index, &[Joining, Up], Draining),
            Event::Remove(index) => self.remove(index),
            Event::CatchUp => self.catch_up(),
            Event::Wait(ms) => self.now_ms += ms,
            Event::Plan(steps) => drop(self.step(steps)),
        }
        self.elect();
    }

    fn enter(&mut self, index: prop::sample::Index, from: &[MemberState], to: MemberState) {
        let now_ms = self.now_ms;
        let mut nodes: Vec<_> = self.nodes.values_mut().filter(|node| from.contains(&node.state)).collect();
        if !nodes.is_empty() {
            let at = index.index(nodes.len());
            (nodes[at].state, nodes[at].since_ms) = (to, now_ms);
        }
    }

    /// Removes a node that is down, unless groups could never have a majority again.
    fn remove(&mut self, index: prop::sample::Index) {
        let down: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| node.state == Down).map(|(id, _)| *id).collect();
        if down.is_empty() {
            return;
        }
        let id = down[index.index(down.len())];
        let stays = |voter: &&NodeId| **voter != id && self.nodes.contains_key(voter);
        if self.groups.iter().all(|group| group.voters.iter().filter(stays).count() * 2 > group.voters.len()) {
            self.nodes.remove(&id);
        }
    }

    fn is_live(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.state != Down)
    }

    fn has_majority(&self, group: &GroupView) -> bool {
        group.voters.iter().filter(|id| self.is_live(**id)).count() * 2 > group.voters.len()
    }

    /// Groups whose leader is gone elect another if they can.
    fn elect(&mut self) {
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            let leads = group.leader.is_some_and(|id| group.voters.contains(&id) && self.is_live(id));
            if !leads || !self.has_majority(group) {
                let elected = group.voters.iter().copied().find(|id| self.is_live(*id));
                self.groups[at].leader = elected.filter(|_| self.has_majority(&self.groups[at]));
            }
        }
    }

    fn catch_up(&mut self) {
        for at in 0..self.groups.len() {
            if self.groups[at].leader.is_some() {
                let live = self.groups[at].learners.iter().copied().filter(|id| self.is_live(*id));
                let live: BTreeSet<NodeId> = live.collect();
                self.groups[at].caught_up.extend(live);
            }
        }
    }

    fn plan(&self) -> Vec<Change> {
        let nodes: Vec<Node<'_>> = self
            .nodes
            .iter()
            .map(|(id, node)| {
                let SimNode { weight, labels, state, since_ms, joined_index } = node;
                let (weight, state, since_ms, joined_index) = (*weight, *state, *since_ms, *joined_index);
                Node { id: *id, weight, labels, state, since_ms, joined_index }
            })
            .collect();
        plan(&nodes, &self.groups, self.sizes, &[], self.now_ms)
    }

    /// Makes a plan, checks it, and carries out its first `steps` changes. Returns whether there was anything to do.
    fn step(&mut self, steps: usize) -> bool {
        let changes = self.plan();
        let mut groups = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        for change in &changes {
            let group = &self.groups[usize::from(change.group())];
            assert!(groups.insert(change.group()), "two changes of one group in {changes:?}");
            assert!(nodes.insert(change.node()), "two changes for one node in {changes:?}");
            let from = group.leader.filter(|_| matches!(change, Change::HandOff { .. }));
            assert!(from.is_none_or(|from| nodes.insert(from)), "a change for a leader that hands off in {changes:?}");
        }
        for change in changes.iter().take(steps) {
            self.carry_out(*change);
        }
        !changes.is_empty()
    }

    fn carry_out(&mut self, change: Change) {
        let at = usize::from(change.group());
        assert!(self.has_majority(&self.groups[at]), "{change:?} cannot be committed");
        let node = change.node();
        let up = self.nodes.get(&node).is_some_and(|node| node.state == Up);
        let is_control = change.group() == 0;
        let joining = self.nodes.get(&node).is_some_and(|node| node.state == Joining);
        let group = &mut self.groups[at];
        match change {
            Change::AddLearner { .. } => {
                assert!((up || joining && is_control) && !group.voters.contains(&node), "{change:?}");
                assert!(group.learners.insert(node), "{change:?}");
            }
            Change::Promote { .. } => {
                assert!(up && group.caught_up.remove(&node) && group.learners.remove(&node), "{change:?}");
                group.voters.insert(node);
            }
            Change::Demote { .. } => {
                assert!(group.leader != Some(node) && group.voters.remove(&node), "{change:?}");
                group.learners.insert(node);
                group.caught_up.insert(node);
            }
            Change::Remove { .. } => {
                assert!(group.leader != Some(node), "{change:?}");
                assert!(group.voters.remove(&node) || group.learners.remove(&node), "{change:?}");
                group.caught_up.remove(&node);
            }
            Change::HandOff { to, .. } => {
                assert!(up && group.voters.contains(&to) && group.leader != Some(to), "{change:?}");
                group.leader = Some(to);
            }
        }
        assert!(self.has_majority(&self.groups[at]), "{change:?} loses the majority");
    }

    /// Plans until there is nothing left to do.
    fn come_to_rest(&mut self) {
        for _ in 0..ROUNDS {
            self.catch_up();
            if !self.step(usize::MAX) {
                return;
            }
            self.elect();
        }
        panic!("no rest after {ROUNDS} rounds, next {:?}, groups {:?}", self.plan(), self.groups);
    }

    /// All nodes that are members are up.
    fn heal(&mut self) {
        for node in self.nodes.values_mut() {
            (node.state, node.since_ms) = (Up, self.now_ms);
        }
        self.elect();
    }

    fn check_healthy(&self) {
        let eligible: Vec<_> = self.nodes.iter().filter(|(_, node)| may_vote(&node.labels)).collect();
        let odd = |n: usize| [0, 1, 1, 3, 3, 5, 5, 5, 7][n];
        let voters = odd(eligible.len().min(usize::from(self.sizes.max_voters)));
        let control = &self.groups[0];
        // Without a node that may vote, the one that founded the cluster goes on.
        if voters > 0 {
            assert_eq!(control.voters.len(), voters, "{control:?}");
            assert!(control.voters.iter().all(|id| eligible.iter().any(|(node, _)| *node == id)), "{control:?}");
        }
        assert_eq!(control.voters.len() + control.learners.len(), self.nodes.len(), "{control:?}");

        let candidates: Vec<_> = self
            .nodes
            .iter()
            .map(|(id, node)| crate::placement::Candidate { id: *id, weight: node.weight, labels: &node.labels })
            .collect();
        for group in &self.groups[1..] {
            let ranked = rank_voters(group.group, &candidates);
            let copies = ranked.len().min(usize::from(self.sizes.replicas));
            if copies > 0 {
                let expected: BTreeSet<NodeId> = ranked[..odd(copies)].iter().copied().collect();
                assert_eq!(group.voters, expected, "group {}", group.group);
                let expected: BTreeSet<NodeId> = ranked[odd(copies)..copies].iter().copied().collect();
                assert_eq!(group.learners, expected, "group {}", group.group);
            }
        }
        self.check_spread();
    }

    /// The highest number of groups that a node leads is its part, or the least that the votes allow.
    fn check_spread(&self) {
        let shards = &self.groups[1..];
        if shards.iter().any(|group| group.voters.len() > 3) {
            return;
        }
        let nodes: BTreeSet<NodeId> = shards.iter().flat_map(|group| &group.voters).copied().collect();
        let part = shards.len().div_ceil(nodes.len());
        let least = (part..=shards.len()).find(|cap| can_be_led(shards, *cap));
        let led = |node: &NodeId| shards.iter().filter(|group| group.leader == Some(*node)).count();
        let most = nodes.iter().map(led).max();
        assert!(most <= least, "{most:?} led by one node where {least:?} would do: {shards:?}");
    }
}

/// Whether each group can have a leader so that no node leads more than `cap`: augmenting paths, as Kuhn has them.
fn can_be_led(groups: &[GroupView], cap: usize) -> bool {
    fn place(
        at: usize,
        groups: &[GroupView],
        cap: usize,
        led: &mut BTreeMap<NodeId, Vec<usize>>,
        seen: &mut BTreeSet<NodeId>,
    ) -> bool {
        for voter in &groups[at].voters {
            if !seen.insert(*voter) {
                continue;
            }
            let has = led.get(voter).cloned().unwrap_or_default();
            if has.len() < cap {
                led.entry(*voter).or_default().push(at);
                return true;
            }
            for other in has {
                if place(other, groups, cap, led, seen) {
                    let list = led.entry(*voter).or_default();
                    list.retain(|group| *group != other);
                    list.push(at);
                    return true;
                }
            }
        }
        false
    }
    let mut led = BTreeMap::new();
    (0..groups.len()).all(|at| place(at, groups, cap, &mut led, &mut BTreeSet::new()))
}

fn sizes() -> impl Strategy<Value = Sizes> {
    prop_oneof![
        3 => Just(Sizes { max_voters: 5, replicas: 3 }),
        1 => (1_u8..=5, 1_u8..=5).prop_map(|(max_voters, replicas)| Sizes { max_voters, replicas }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every change that is carried out is checked on the way: see [`World::carry_out`].
    #[test]
    fn no_change_loses_a_majority_and_all_groups_come_to_rest(
        sizes in sizes(), events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::founded(sizes);
        for event in events {
            world.happen(event);
        }
        // First with those that are gone, who have been for long enough to be replaced.
        world.now_ms += 10 * MINUTE;
        world.come_to_rest();
        for group in world.groups.iter().filter(|group| group.leader.is_some()) {
            prop_assert!(group.voters.union(&group.learners).all(|id| world.nodes.contains_key(id)), "{:?}", group);
        }
        // Then with all members back.
        world.heal();
        world.come_to_rest();
        world.check_healthy();
    }
}

#[test]
fn three_nodes_lead_three_three_and_two_of_eight_groups() {
    let mut world = World::founded(Sizes { max_voters: 5, replicas: 3 });
    for _ in 0..2 {
        world.happen(Event::Join { weight: 1, battery: false });
    }
    world.heal();
    world.come_to_rest();
    world.check_healthy();
    let led = |id: &NodeId| world.groups[1..].iter().filter(|group| group.leader == Some(*id)).count();
    let mut loads: Vec<usize> = world.nodes.keys().map(led).collect();
    loads.sort_unstable();
    assert_eq!(loads, [2, 3, 3]);
}
