//! An entity of a `Replicated` kind on its shard group: a counter whose every event carries the value it leads to.
//!
//! An activation keeps its state and the term it was made in, and may live on for a while after its node lost that
//! term, even into a later term of the same node. An event counts only if its proposal's term is its entry's.

use std::collections::HashMap;

use super::group::Entry;
use super::net::NODES;

#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) op: u64,
    value: u64,
    /// The activation's.
    pub(super) term: u64,
}

#[derive(Debug, Clone, Copy)]
struct Activation {
    term: u64,
    value: u64,
    /// The operation whose commit it waits for; it handles nothing else.
    busy: Option<u64>,
}

/// What becomes of an operation that reached a node.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was committed before: the stored reply.
    Stored,
    /// To be proposed.
    Propose(Write),
    /// Not now; the client tries again.
    Refused,
}

#[derive(Default)]
pub(super) struct Entity {
    /// Value after each prefix of the log.
    values: Vec<u64>,
    /// Position in the log of each event that counts.
    places: HashMap<u64, usize>,
    activations: [Option<Activation>; NODES],
    acked: Vec<u64>,
    pub(super) fenced: u64,
}

impl Entity {
    fn value_at(&self, length: usize) -> u64 {
        length.checked_sub(1).map_or(0, |last| self.values[last])
    }

    /// The fence: what an entry of the log does, on every replica alike. A value that does not follow the one before
    /// was made from stale state.
    pub(super) fn committed(&mut self, entry: &Entry<Write>, fence: bool) -> Result<(), String> {
        let Write { op, value, term } = entry.command;
        let before = self.value_at(self.values.len());
        if fence && term != entry.term {
            self.fenced += 1;
            self.values.push(before);
            return Ok(());
        }
        if self.places.insert(op, self.values.len()).is_some() {
            return Err(format!("event {op} was applied twice"));
        }
        self.values.push(value);
        let follows = value == before + 1;
        if follows { Ok(()) } else { Err(format!("event {op} leads to {value} from {before}: an update was lost")) }
    }

    /// The process at `node` is gone, or noticed that its term is over.
    pub(super) fn stop(&mut self, node: usize) {
        self.activations[node] = None;
    }

    /// The term of the activation at `node`.
    pub(super) fn term(&self, node: usize) -> Option<u64> {
        self.activations[node].map(|activation| activation.term)
    }

    /// An operation reaches a node that has applied `applied` entries and may activate in `term`, if it surely leads
    /// it.
    pub(super) fn handle(&mut self, node: usize, op: u64, applied: usize, term: Option<u64>) -> Answer {
        if self.activations[node].is_none() {
            let Some(term) = term else { return Answer::Refused };
            self.activations[node] = Some(Activation { term, value: self.value_at(applied), busy: None });
        }
        let Some(activation) = &mut self.activations[node] else { return Answer::Refused };
        if activation.busy.is_some() {
            return Answer::Refused;
        }
        if self.places.get(&op).is_some_and(|place| *place < applied) {
            return Answer::Stored;
        }
        activation.busy = Some(op);
        Answer::Propose(Write { op, value: activation.value + 1, term: activation.term })
    }

    /// The node applies the entry at `index`. Returns whether its client gets an answer from here.
    pub(super) fn applied(&mut self, node: usize, index: usize, write: &Write) -> bool {
        let counts = self.places.get(&write.op) == Some(&index);
        let Some(activation) = &mut self.activations[node] else { return false };
        if activation.busy != Some(write.op) || activation.term != write.term {
            return false;
        }
        if counts {
            *activation = Activation { value: write.value, busy: None, ..*activation };
        } else {
            self.activations[node] = None; // moved: its state is not the entity's
        }
        counts
    }

    /// The client has its answer.
    pub(super) fn answered(&mut self, op: u64) {
        self.acked.push(op);
    }

    pub(super) fn is_answered(&self, op: u64) -> bool {
        self.acked.contains(&op)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self.acked.iter().find(|op| !self.places.contains_key(op)) {
            Some(op) => Err(format!("event {op} was acknowledged and is missing")),
            None => Ok(()),
        }
    }
}
