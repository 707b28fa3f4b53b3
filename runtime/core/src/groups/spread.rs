//! No node leads more shard groups than its part, `ceil(groups / nodes)`, where the votes allow it.
//!
//! Groups and the nodes that may lead them are a bipartite graph, and leaders a semi-matching. From a node that leads most,
//! the search follows groups to their other voters and on from there; the shortest way to a node that leads at least two
//! fewer is an improvement of the whole (Harvey, Ladner, Lovász and Tamir 2003: without such a way the highest load is as
//! low as it can be). The last step of that way is taken first, so that no node is overloaded on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::plan::{Change, GroupView};
use crate::node_id::NodeId;

/// A quick hand-off needs the old and the next leader to be a majority.
const VOTERS_MAX: usize = 3;

/// The next hand-off, if a node leads more than its part and can give away. `ready` are the shard groups whose leadership
/// may move, each with those of its voters that may lead.
pub(super) fn next(groups: &[GroupView], ready: &[(&GroupView, BTreeSet<NodeId>)]) -> Option<Change> {
    let mut loads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for id in ready.iter().flat_map(|(_, heirs)| heirs) {
        loads.entry(*id).or_default();
    }
    let nodes = loads.len();
    let shards = groups.iter().filter(|group| !group.is_control());
    for leader in shards.clone().filter_map(|group| group.leader) {
        *loads.entry(leader).or_default() += 1;
    }
    let part = shards.count().div_ceil(nodes.max(1));

    let movable = |(group, _): &&(&GroupView, BTreeSet<NodeId>)| group.voters.len() <= VOTERS_MAX;
    let ready: Vec<_> = ready.iter().filter(movable).collect();
    let most = loads.values().copied().max().filter(|most| *most > part)?;
    let mut heaviest = loads.iter().filter(|(_, load)| **load == most);
    heaviest.find_map(|(from, _)| last_step(*from, most, &loads, &ready))
}

/// The last step of the shortest way from a node with `most` groups to one with at least two fewer.
fn last_step(
    from: NodeId,
    most: usize,
    loads: &BTreeMap<NodeId, usize>,
    ready: &[&(&GroupView, BTreeSet<NodeId>)],
) -> Option<Change> {
    let mut seen = BTreeSet::from([from]);
    let mut open = VecDeque::from([from]);
    while let Some(node) = open.pop_front() {
        let led = ready.iter().filter(|(group, _)| group.leader == Some(node));
        for (group, heirs) in led {
            for heir in heirs {
                if !seen.insert(*heir) {
                    continue;
                }
                if loads.get(heir).is_some_and(|load| load + 2 <= most) {
                    return Some(Change::HandOff { group: group.group, to: *heir });
                }
                open.push_back(*heir);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: u8, leader: u64, voters: &[u64]) -> GroupView {
        let voters = voters.iter().map(|id| NodeId(*id)).collect();
        let none = BTreeSet::new();
        GroupView { group, voters, learners: none.clone(), caught_up: none, leader: Some(NodeId(leader)) }
    }

    fn next_of(groups: &[GroupView]) -> Option<Change> {
        let ready: Vec<_> = groups.iter().map(|group| (group, group.voters.clone())).collect();
        next(groups, &ready)
    }

    #[test]
    fn a_node_that_leads_too_many_hands_one_to_the_least_loaded_it_can() {
        let groups: Vec<_> = (1..=4).map(|n| group(n, 1, &[1, 2, 3])).collect();
        assert_eq!(next_of(&groups), Some(Change::HandOff { group: 1, to: NodeId(2) }));
    }

    #[test]
    fn nothing_moves_while_nobody_leads_more_than_its_part() {
        // ceil(5 / 3) = 2
        let leaders = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)];
        let groups: Vec<_> = leaders.iter().map(|(n, leader)| group(*n, *leader, &[1, 2, 3])).collect();
        assert_eq!(next_of(&groups), None);
    }

    #[test]
    fn the_way_may_lead_over_a_third_node() {
        // 1 can give to 2 only, and 2 to 3, who leads nothing; ceil(4 / 3) = 2.
        let mut groups = vec![group(1, 1, &[1, 2]), group(2, 1, &[1, 2]), group(3, 1, &[1]), group(4, 2, &[2, 3])];
        groups.push(group(5, 2, &[2, 3]));
        let step = next_of(&groups).unwrap();
        assert_eq!(step, Change::HandOff { group: 4, to: NodeId(3) });
        groups[3].leader = Some(NodeId(3));
        assert_eq!(next_of(&groups), Some(Change::HandOff { group: 1, to: NodeId(2) }));
    }

    #[test]
    fn large_groups_stay() {
        let groups: Vec<_> = (1..=8).map(|n| group(n, 1, &[1, 2, 3, 4, 5])).collect();
        assert_eq!(next_of(&groups), None);
    }
}
