//! Notes for the node's history how members and leaders change, as this node sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Inner;
use crate::control::MemberState;
use crate::history::{History, What};
use crate::node_id::NodeId;

/// Follows members and leaders until the node ends.
pub(super) async fn observe(inner: Arc<Inner>, history: Arc<History>) {
    let (mut changes, mut control) = (inner.control.replica.changes(), inner.control.group.watch());
    let (mut before, mut news) = (Seen::now(&inner), 0);
    loop {
        let goes_on = tokio::select! {
            changed = changes.changed() => changed.is_ok(),
            goes_on = control.changed() => goes_on,
            () = inner.router.news_since(&mut news) => true,
        };
        if !goes_on {
            return;
        }
        let now = Seen::now(&inner);
        if now != before {
            before = before.follow(now, |what, about, detail| history.note(what, about, detail));
        }
    }
}

/// Who is there and who leads.
#[derive(Debug, Clone, Default, PartialEq)]
struct Seen {
    /// Name, state and the reason for it.
    members: BTreeMap<NodeId, (String, MemberState, String)>,
    /// By the number of the group.
    leaders: BTreeMap<u8, NodeId>,
}

impl Seen {
    fn now(inner: &Inner) -> Self {
        let members = inner.control.replica.read(|state| {
            let seen = |member: &crate::control::Member| {
                (member.record.id, (member.record.name.clone(), member.state, member.reason.clone()))
            };
            state.members().map(seen).collect()
        });
        let view = &inner.router.view;
        let shard = |at: usize| Some((u8::try_from(at + 1).ok()?, view.leader(at)?));
        let control = inner.control.group.status().leader.map(|leader| (0, leader));
        Self { members, leaders: (0..inner.shards.len()).filter_map(shard).chain(control).collect() }
    }

    /// Tells what is new. A group without leader keeps the last one: that is over before anybody has read it.
    fn follow(mut self, now: Self, mut tell: impl FnMut(What, &str, &str)) -> Self {
        for (id, (name, state, reason)) in &now.members {
            match self.members.get(id) {
                Some((_, before, _)) if before == state => {}
                _ if reason.is_empty() => tell(What::Member, name, &state.to_string()),
                _ => tell(What::Member, name, &format!("{state}: {reason}")),
            }
        }
        for (_, (name, ..)) in self.members.iter().filter(|(id, _)| !now.members.contains_key(id)) {
            tell(What::Member, name, "removed");
        }
        self.members = now.members;
        for (group, leader) in now.leaders {
            if self.leaders.insert(group, leader) != Some(leader) {
                let name = self.members.get(&leader).map_or_else(|| leader.to_string(), |(name, ..)| name.clone());
                let group = if group == 0 { "control group".to_owned() } else { format!("group {group}") };
                tell(What::Leader, &group, &format!("led by {name}"));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(members: &[(u64, MemberState)], leaders: &[(u8, u64)]) -> Seen {
        let member = |(id, state): &(u64, MemberState)| (NodeId(*id), (format!("n{id}"), *state, String::new()));
        Seen {
            members: members.iter().map(member).collect(),
            leaders: leaders.iter().map(|(group, leader)| (*group, NodeId(*leader))).collect(),
        }
    }

    fn told(before: &Seen, now: Seen) -> (Vec<String>, Seen) {
        let mut told = Vec::new();
        let after = before.clone().follow(now, |_, about, detail| told.push(format!("{about} {detail}")));
        (told, after)
    }

    #[test]
    fn changes_of_members_and_leaders_are_told_once() {
        let before = seen(&[(1, MemberState::Up), (2, MemberState::Up)], &[(0, 1), (1, 2)]);
        let (news, after) = told(&before, before.clone());
        assert!(news.is_empty(), "{news:?}");
        let now = seen(&[(2, MemberState::Down), (3, MemberState::Joining)], &[(0, 3)]);
        let (news, after) = told(&after, now.clone());
        assert_eq!(news, ["n2 down", "n3 joining", "n1 removed", "control group led by n3"]);
        // Group 1 had no leader for a while.
        let (news, _) = told(&after, Seen { leaders: [(0, NodeId(3)), (1, NodeId(2))].into(), ..now });
        assert!(news.is_empty(), "{news:?}");
    }
}
