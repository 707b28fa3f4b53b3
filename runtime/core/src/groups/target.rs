//! Which nodes should vote in a group, and which should hold a copy without a vote.
//!
//! Control group: every node has a copy; 1 voter with 1 or 2 nodes, 3 with 3 or 4, 5 from 5 on. Those that vote stay, the
//! oldest members come next, because a vote that moves buys nothing.
//!
//! Shard group: up to `replicas` copies on the nodes that rank first, of which an odd number votes: with 2 nodes, one votes
//! and the other holds a copy. Votes follow the ranking, so that groups and leaders spread by weight.
//!
//! In both, a node that is `Down` keeps its place for [`REPLACE_MS`], and after that until there is another node for it. A
//! node that drains gives up its vote at once, and keeps its place in the same way: a restart moves no data.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::plan::{GroupView, Node, Sizes};
use crate::control::MemberState;
use crate::node_id::NodeId;
use crate::placement::{may_vote, rank_voters};

/// How long a node may be `Down` before another takes its place.
const REPLACE_MS: u64 = 5 * 60 * 1000;
/// With this many nodes or more, those that stay away do not reduce the number of voters below it: a vote that is missing
/// costs no more than one that was taken away, and the entries are on two disks.
const VOTERS_KEPT: usize = 3;

/// Where a group should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) learners: BTreeSet<NodeId>,
}

impl Target {
    pub(super) fn new(group: &GroupView, nodes: &[Node<'_>], sizes: Sizes, now_ms: u64) -> Self {
        if group.is_control() { control(group, nodes, sizes, now_ms) } else { shard(group, nodes, sizes, now_ms) }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

fn control(group: &GroupView, nodes: &[Node<'_>], sizes: Sizes, now_ms: u64) -> Target {
    let may_hold = |node: &&Node<'_>| {
        may_vote(node.labels) && (node.state != MemberState::Joining || group.voters.contains(&node.id))
    };
    let eligible: Vec<&Node<'_>> = nodes.iter().filter(may_hold).collect();
    let wanted = odd(usize::from(sizes.max_voters).min(part_takers(&eligible, now_ms)));

    let mut pool: Vec<&Node<'_>> = eligible;
    pool.retain(|node| match node.state {
        MemberState::Up => true,
        MemberState::Draining => false,
        MemberState::Joining | MemberState::Down => group.voters.contains(&node.id),
    });
    pool.sort_by_key(|node| {
        let (votes, up) = (group.voters.contains(&node.id), node.state == MemberState::Up);
        let leads = group.leader == Some(node.id);
        (stays_away(node, now_ms), Reverse((votes, up, leads)), node.joined_index, node.id)
    });
    let voters: BTreeSet<NodeId> = pool.iter().take(wanted).map(|node| node.id).collect();

    let copies = nodes
        .iter()
        .filter(|node| matches!(node.state, MemberState::Up | MemberState::Joining) || group.holds(node.id));
    let learners = copies.map(|node| node.id).filter(|id| !voters.contains(id)).collect();
    Target { voters, learners }
}

fn shard(group: &GroupView, nodes: &[Node<'_>], sizes: Sizes, now_ms: u64) -> Target {
    let may_hold = |node: &&Node<'_>| {
        may_vote(node.labels) && node.weight > 0 && (node.state != MemberState::Joining || group.holds(node.id))
    };
    let eligible: Vec<&Node<'_>> = nodes.iter().filter(may_hold).collect();
    let wanted = usize::from(sizes.replicas).min(part_takers(&eligible, now_ms));

    let candidates: Vec<_> = eligible.iter().map(|node| node.candidate()).collect();
    let ranked = rank_voters(group.group, &candidates);
    let mut pool: Vec<&Node<'_>> =
        ranked.iter().filter_map(|id| eligible.iter().find(|node| node.id == *id)).copied().collect();
    pool.retain(|node| node.state == MemberState::Up || group.holds(node.id));
    // Stable: within each half the ranking stays.
    pool.sort_by_key(|node| stays_away(node, now_ms));
    pool.truncate(wanted);

    let may_lead = pool.iter().filter(|node| node.state != MemberState::Draining);
    let voters: BTreeSet<NodeId> = may_lead.take(odd(wanted)).map(|node| node.id).collect();
    let learners = pool.iter().map(|node| node.id).filter(|id| !voters.contains(id)).collect();
    Target { voters, learners }
}

/// The number of nodes from which the number of voters follows.
fn part_takers(eligible: &[&Node<'_>], now_ms: u64) -> usize {
    let present = eligible.iter().filter(|node| !stays_away(node, now_ms)).count();
    present.max(eligible.len().min(VOTERS_KEPT))
}

fn stays_away(node: &Node<'_>, now_ms: u64) -> bool {
    node.state == MemberState::Down && now_ms.saturating_sub(node.since_ms) >= REPLACE_MS
}

/// The largest odd number up to `n`: one more voter than that helps against no failure.
pub(crate) fn odd(n: usize) -> usize {
    n.saturating_sub((n + 1) % 2)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Node;
    use super::MemberState::{Down, Draining, Joining, Up};
    use super::*;
    use crate::placement::Labels;

    static NONE: Labels = Labels::new();
    const SIZES: Sizes = Sizes { max_voters: 5, replicas: 3 };

    fn node(id: u64, state: MemberState) -> Node<'static> {
        Node { id: NodeId(id), weight: 1, labels: &NONE, state, since_ms: 0, joined_index: id }
    }

    fn up(ids: impl IntoIterator<Item = u64>) -> Vec<Node<'static>> {
        ids.into_iter().map(|id| node(id, Up)).collect()
    }

    /// Three nodes of which `last` is in that state, and a fourth that ranks behind them.
    fn and_a_spare(last: MemberState) -> Vec<Node<'static>> {
        let mut nodes = [up([1, 2]), vec![node(3, last)], up([4])].concat();
        nodes[..3].iter_mut().for_each(|node| node.weight = u32::MAX);
        nodes
    }

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn view(group: u8, voters: &[u64], learners: &[u64]) -> GroupView {
        let leader = voters.first().map(|id| NodeId(*id));
        GroupView { group, voters: ids(voters), learners: ids(learners), caught_up: BTreeSet::new(), leader }
    }

    #[test]
    fn numbers_of_voters_follow_the_number_of_nodes() {
        let control = [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)];
        for (nodes, voters) in control {
            let target = Target::new(&view(0, &[1], &[]), &up(1..=nodes), SIZES, 0);
            assert_eq!(target.voters.len(), voters, "{nodes} nodes");
            assert_eq!(target.learners.len() + voters, usize::try_from(nodes).unwrap());
        }
        for (nodes, voters, learners) in [(1, 1, 0), (2, 1, 1), (3, 3, 0), (4, 3, 0), (9, 3, 0)] {
            let target = Target::new(&view(1, &[1], &[]), &up(1..=nodes), SIZES, 0);
            assert_eq!((target.voters.len(), target.learners.len()), (voters, learners), "{nodes} nodes");
        }
        let capped = Sizes { max_voters: 4, replicas: 3 };
        assert_eq!(Target::new(&view(0, &[1], &[]), &up(1..=9), capped, 0).voters.len(), 3);
    }

    #[test]
    fn control_votes_stay_where_they_are_and_then_go_to_the_oldest() {
        let target = Target::new(&view(0, &[4, 5], &[]), &up(1..=5), Sizes { max_voters: 3, replicas: 3 }, 0);
        assert_eq!(target.voters, ids(&[1, 4, 5]));
    }

    #[test]
    fn shard_votes_follow_the_ranking() {
        let nodes = up(1..=6);
        let candidates: Vec<_> = nodes.iter().map(Node::candidate).collect();
        for group in 1..=8 {
            let expected = rank_voters(group, &candidates).into_iter().take(3).collect();
            assert_eq!(Target::new(&view(group, &[1, 2, 3], &[]), &nodes, SIZES, 0).voters, expected);
        }
    }

    #[test]
    fn a_voter_that_is_down_is_replaced_after_five_minutes() {
        let nodes = and_a_spare(Down);
        for group in [0, 1] {
            let view = view(group, &[1, 2, 3], &[]);
            assert_eq!(Target::new(&view, &nodes, SIZES, REPLACE_MS - 1).voters, ids(&[1, 2, 3]));
            assert_eq!(Target::new(&view, &nodes, SIZES, REPLACE_MS).voters, ids(&[1, 2, 4]));
            let three = &nodes[..3];
            assert_eq!(Target::new(&view, three, SIZES, REPLACE_MS).voters, ids(&[1, 2, 3]), "nobody replaces it");
        }
    }

    #[test]
    fn five_voters_become_three_when_two_stay_away() {
        let nodes = [up([1, 2, 3]), vec![node(4, Down), node(5, Down)]].concat();
        let view = view(0, &[1, 2, 3, 4, 5], &[]);
        assert_eq!(Target::new(&view, &nodes, SIZES, REPLACE_MS - 1).voters.len(), 5);
        assert_eq!(Target::new(&view, &nodes, SIZES, REPLACE_MS).voters, ids(&[1, 2, 3]));
    }

    #[test]
    fn a_node_that_drains_has_no_vote_and_keeps_its_copy() {
        let nodes = and_a_spare(Draining);
        let shard = Target::new(&view(1, &[1, 2, 3], &[]), &nodes, SIZES, 0);
        assert_eq!((shard.voters, shard.learners), (ids(&[1, 2]), ids(&[3])));
        let control = Target::new(&view(0, &[1, 2, 3], &[4]), &nodes, SIZES, 0);
        assert_eq!((control.voters, control.learners), (ids(&[1, 2, 4]), ids(&[3])));
    }

    #[test]
    fn a_joining_node_gets_a_copy_of_the_control_state_alone() {
        let nodes = [up([1]), vec![node(2, Joining)]].concat();
        let control = Target::new(&view(0, &[1], &[]), &nodes, SIZES, 0);
        assert_eq!((control.voters, control.learners), (ids(&[1]), ids(&[2])));
        assert!(Target::new(&view(1, &[1], &[]), &nodes, SIZES, 0).learners.is_empty());
        // A node that is held after flapping keeps what it has.
        assert_eq!(Target::new(&view(1, &[1], &[2]), &nodes, SIZES, 0).learners.len(), 1);
    }

    #[test]
    fn nodes_on_batteries_never_vote() {
        let battery = Labels::from([("battery".into(), "true".into())]);
        let mut nodes = up(1..=3);
        nodes[0].labels = &battery;
        let control = Target::new(&view(0, &[1], &[]), &nodes, SIZES, 0);
        assert_eq!((control.voters, control.learners), (ids(&[2]), ids(&[1, 3])));
        assert!(!Target::new(&view(1, &[1], &[]), &nodes, SIZES, 0).contains(NodeId(1)));
    }

    #[test]
    fn shard_groups_keep_off_nodes_without_weight() {
        let mut nodes = up(1..=3);
        nodes[0].weight = 0;
        assert!(!Target::new(&view(1, &[1], &[]), &nodes, SIZES, 0).contains(NodeId(1)));
        assert_eq!(Target::new(&view(0, &[1], &[]), &nodes, SIZES, 0).voters.len(), 3);
    }
}
