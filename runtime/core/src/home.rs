//! Which node acts for the keys of one kind, as this node knows it now. Read for every message, so it is atomics only.
//!
//! A village of one node acts for everything. With more, a node acts for a slot of a kind without replicated state while it
//! holds its lease, is the slot's owner, and every other node has seen that it is (`settled`); and for a slot of a replicated
//! kind while it leads the slot's group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock;
use crate::control::ControlState;
use crate::error::CallError;
use crate::kind::{Durability, KindOptions, Placement};
use crate::node_id::NodeId;
use crate::placement::{self, Labels, SlotId};

/// Most shard groups of a cluster.
pub(crate) const MAX_GROUPS: usize = 64;
/// Slots that the keys of a kind hash into.
pub(crate) const SLOTS: usize = 256;

/// What holds for all kinds of this node.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) me: NodeId,
    /// No other node: everything is here.
    alone: AtomicBool,
    /// Boot time in milliseconds until which this node may act as an owner.
    lease_until: AtomicU64,
    /// Boot time in milliseconds at which the newest acked beat was sent.
    acked: AtomicU64,
    /// Every node that may act has applied this membership epoch.
    settled: AtomicU64,
    /// Number of shard groups; fixed when the cluster was founded.
    groups: AtomicUsize,
    /// Leader of each shard group, 0 while unknown.
    leaders: [AtomicU64; MAX_GROUPS],
}

impl View {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            alone: AtomicBool::new(true),
            lease_until: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            groups: AtomicUsize::new(1),
            leaders: [const { AtomicU64::new(0) }; MAX_GROUPS],
        }
    }

    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    pub(crate) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Release);
    }

    pub(crate) fn holds_lease(&self) -> bool {
        clock::boot_ms() < self.lease_until.load(Ordering::Acquire)
    }

    pub(crate) fn extend_lease(&self, until: u64) {
        self.lease_until.fetch_max(until, Ordering::AcqRel);
    }

    /// Notes that the control leader has acked a beat that was sent then.
    pub(crate) fn acked(&self, sent: u64) {
        self.acked.fetch_max(sent, Ordering::AcqRel);
    }

    /// How long ago this node was certainly heard by a control leader that a majority hears.
    pub(crate) fn lease_age(&self) -> Duration {
        Duration::from_millis(clock::boot_ms().saturating_sub(self.acked.load(Ordering::Acquire)))
    }

    pub(crate) fn settle(&self, epoch: u64) {
        self.settled.fetch_max(epoch, Ordering::AcqRel);
    }

    /// The shard group of a slot, from 0.
    pub(crate) fn group(&self, slot: u8) -> usize {
        let groups = u8::try_from(self.groups.load(Ordering::Acquire)).unwrap_or(u8::MAX);
        usize::from(placement::group_of(SlotId(slot), groups) - 1)
    }

    pub(crate) fn set_groups(&self, groups: usize) {
        self.groups.store(groups.clamp(1, MAX_GROUPS), Ordering::Release);
    }

    pub(crate) fn leader(&self, group: usize) -> Option<NodeId> {
        let leader = self.leaders.get(group)?.load(Ordering::Acquire);
        (leader != 0).then_some(NodeId(leader))
    }

    pub(crate) fn set_leader(&self, group: usize, leader: Option<NodeId>) {
        if let Some(slot) = self.leaders.get(group) {
            slot.store(leader.map_or(0, |node| node.0), Ordering::Release);
        }
    }
}

/// What holds for one kind.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) view: Arc<View>,
    kind: &'static str,
    rule: Rule,
    singleton: bool,
    /// Its state is on one node, so it stays there.
    stays: bool,
    require: Labels,
    prefer: Labels,
    owners: Box<[Owner]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// On other nodes only.
    Guest,
    /// On every node for itself.
    PerNode,
    /// On the owner of the slot.
    Owner,
    /// On the leader of the slot's group.
    Leader,
}

#[derive(Debug, Default)]
struct Owner {
    /// 0 while nobody can be.
    node: AtomicU64,
    /// Epoch since which it is.
    since: AtomicU64,
}

impl Home {
    /// `hosted` is false for a kind that this node only sends to.
    pub(crate) fn new(view: Arc<View>, kind: &'static str, options: &KindOptions, hosted: bool) -> Self {
        let rule = match (options.placement, options.durable) {
            (Placement::PerNode, _) => Rule::PerNode,
            (_, Durability::Replicated) => Rule::Leader,
            _ if hosted => Rule::Owner,
            _ => Rule::Guest,
        };
        Self {
            view,
            kind,
            rule,
            singleton: options.placement == Placement::Singleton,
            stays: options.durable == Durability::Local,
            require: options.require.clone(),
            prefer: options.prefer.clone(),
            owners: (0..SLOTS).map(|_| Owner::default()).collect(),
        }
    }

    /// The slot of a key; all keys of a singleton share one.
    pub(crate) fn slot(&self, key: &str) -> u8 {
        placement::slot(self.kind, if self.singleton { "" } else { key }).0
    }

    /// Whether a message to this slot has to go through the router: to another node, or, for a replicated kind, in a form
    /// that can be sent again if the leader changes.
    #[inline]
    pub(crate) fn is_routed(&self, slot: u8) -> bool {
        self.rule == Rule::Guest || (!self.view.is_alone() && self.is_routed_among_many(slot))
    }

    fn is_routed_among_many(&self, slot: u8) -> bool {
        match self.rule {
            Rule::PerNode => false,
            Rule::Guest | Rule::Leader => true,
            Rule::Owner => !self.acts(slot),
        }
    }

    /// Whether this node may act for a slot now.
    #[inline]
    pub(crate) fn acts(&self, slot: u8) -> bool {
        if self.view.is_alone() { self.rule != Rule::Guest } else { self.acts_among_many(slot) }
    }

    fn acts_among_many(&self, slot: u8) -> bool {
        let view = &self.view;
        match self.rule {
            Rule::PerNode => true,
            Rule::Guest => false,
            Rule::Leader => view.leader(view.group(slot)) == Some(view.me),
            Rule::Owner => {
                let owner = &self.owners[usize::from(slot)];
                owner.node.load(Ordering::Acquire) == view.me.0
                    && owner.since.load(Ordering::Acquire) <= view.settled.load(Ordering::Acquire)
                    && view.holds_lease()
            }
        }
    }

    /// Lets a message to a slot in, or says that it had no effect and may be sent again.
    pub(crate) fn admit(&self, slot: u8) -> Result<(), CallError> {
        if self.acts(slot) {
            return Ok(());
        }
        Err(CallError::Moved { to: self.of(slot).filter(|node| *node != self.view.me) })
    }

    /// True while this node may not act for what it owns, because it does not hear enough of the others.
    pub(crate) fn has_lost_touch(&self) -> bool {
        self.rule == Rule::Owner && !self.view.holds_lease()
    }

    /// Where messages to a slot go; `None` while nobody can take them.
    pub(crate) fn of(&self, slot: u8) -> Option<NodeId> {
        if self.view.is_alone() || self.rule == Rule::PerNode {
            return (self.rule != Rule::Guest).then_some(self.view.me);
        }
        if self.rule == Rule::Leader {
            return self.view.leader(self.view.group(slot));
        }
        let owner = self.owners[usize::from(slot)].node.load(Ordering::Acquire);
        (owner != 0).then_some(NodeId(owner))
    }

    /// True for a kind whose slots follow the leaders of their groups.
    pub(crate) fn follows_leader(&self) -> bool {
        self.rule == Rule::Leader
    }

    /// True for a kind whose state is on one node only.
    pub(crate) fn stays(&self) -> bool {
        self.stays
    }

    /// Takes over who owns the slots in a membership. `gap`: memberships in between were not seen, so that an owner may have
    /// changed twice.
    pub(crate) fn follow(&self, members: &ControlState, gap: bool) {
        let candidates = members.candidates(self.kind);
        let oldest = self.stays.then(|| members.oldest_host(self.kind)).flatten();
        self.assign(members.epoch(), gap, |slot| {
            if self.stays {
                return oldest;
            }
            placement::owner(self.kind, SlotId(slot), &self.require, &self.prefer, &candidates).ok()
        });
    }

    /// Why no node can host the kind.
    pub(crate) fn missing(&self, members: &ControlState) -> String {
        let candidates = members.candidates(self.kind);
        let owner = placement::owner(self.kind, SlotId(0), &self.require, &self.prefer, &candidates);
        owner.err().map_or_else(|| "no live node that hosts it".to_owned(), |missing| missing.to_string())
    }

    pub(crate) fn assign(&self, epoch: u64, gap: bool, owner: impl Fn(u8) -> Option<NodeId>) {
        for (slot, now) in (0..=u8::MAX).zip(&self.owners) {
            let node = owner(slot).map_or(0, |node| node.0);
            if !gap && now.node.load(Ordering::Acquire) == node {
                continue;
            }
            // Never its owner at an epoch that is older than its ownership.
            now.node.store(0, Ordering::Release);
            now.since.store(epoch, Ordering::Release);
            now.node.store(node, Ordering::Release);
        }
    }
}
