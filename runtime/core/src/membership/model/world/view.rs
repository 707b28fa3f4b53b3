//! The membership at each epoch, and the owners that follow from it.

use super::{Epoch, Flaw, NODES, SLOTS, Slots};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum State {
    Absent,
    Up,
    Draining,
    Down,
}

/// A committed change of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
    Up(usize),
    Drain(usize),
    /// Has no effect unless the node is a member since this epoch.
    Down(usize, Epoch),
}

/// The membership at an epoch, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) states: [State; NODES],
    pub(super) since: [Epoch; NODES],
    pub(super) owned: [Slots; NODES],
}

impl View {
    pub(super) fn is_member(&self, node: usize) -> bool {
        matches!(self.states[node], State::Up | State::Draining)
    }

    pub(super) fn then(mut self, change: Change, epoch: Epoch, flaw: Option<Flaw>) -> Self {
        match change {
            Change::Up(node) if !self.is_member(node) => {
                self.states[node] = State::Up;
                self.since[node] = epoch;
            }
            Change::Drain(node) if self.states[node] == State::Up => self.states[node] = State::Draining,
            Change::Down(node, since)
                if self.is_member(node) && (self.since[node] == since || flaw == Some(Flaw::UnfencedDown)) =>
            {
                self.states[node] = State::Down;
            }
            _ => return self,
        }
        self.owned = [0; NODES];
        for slot in 0..SLOTS {
            let up = (0..NODES).filter(|node| self.states[*node] == State::Up);
            if let Some(owner) = up.max_by_key(|node| score(*node, slot)) {
                self.owned[owner] |= 1 << slot;
            }
        }
        self
    }
}

/// Rendezvous: any fixed mix of node and slot will do.
fn score(node: usize, slot: usize) -> u64 {
    let mixed = (node as u64 * 8 + slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
}

pub(super) fn epoch(length: usize) -> Epoch {
    Epoch(length as u64)
}
