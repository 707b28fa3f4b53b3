//! Deterministic machines of upper crates that live in the control group.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use super::command::ControlRefused;
use crate::store::StoreError;

/// Longest command in bytes: an entry of the control log is at most this large.
const COMMAND_MAX: usize = 256 * 1024;

/// State of an upper crate that all nodes must agree on: a ledger, a vote.
///
/// Every node of the cluster must host the same machines, and each must come to the same state and the same answers from
/// the same commands: no clock, no randomness, no effect outside. It is for decisions, not for data: its whole state is
/// one value of the store.
pub trait ControlMachine: Any + Send + Sync {
    /// Names the machine, the same in every version of the program.
    fn ns(&self) -> &'static str;

    /// Carries out one command and answers it. A command that cannot be read is answered too, never a panic.
    fn apply(&mut self, index: u64, now_ms: u64, command: &[u8]) -> Vec<u8>;

    /// Writes the whole state, at most [`MAX_VALUE`](crate::store::MAX_VALUE) bytes.
    fn save(&self) -> Vec<u8>;

    /// Takes a state that was written by [`ControlMachine::save`].
    ///
    /// # Errors
    /// [`StoreError::Decode`] or [`StoreError::Schema`] when it cannot be read; the node does not start then.
    fn load(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
}

/// The machines by name.
#[derive(Default)]
pub(super) struct Machines {
    hosted: BTreeMap<&'static str, Box<dyn ControlMachine>>,
    changed: BTreeSet<&'static str>,
    /// Stored states of machines that this program does not host: kept for one that does.
    other: BTreeMap<String, Vec<u8>>,
}

impl Machines {
    pub(super) fn new(machines: Vec<Box<dyn ControlMachine>>) -> Self {
        let count = machines.len();
        let hosted: BTreeMap<_, _> = machines.into_iter().map(|machine| (machine.ns(), machine)).collect();
        assert!(hosted.len() == count, "two control machines have the same name");
        Self { hosted, ..Self::default() }
    }

    /// Takes a state that is in the store already.
    pub(super) fn load(&mut self, ns: String, bytes: &[u8]) -> Result<(), StoreError> {
        match self.hosted.get_mut(ns.as_str()) {
            Some(machine) => machine.load(bytes)?,
            None => drop(self.other.insert(ns, bytes.to_vec())),
        }
        Ok(())
    }

    pub(super) fn get<M: ControlMachine>(&self, ns: &str) -> Option<&M> {
        let machine: &dyn Any = self.hosted.get(ns)?.as_ref();
        machine.downcast_ref()
    }

    pub(super) fn apply(
        &mut self,
        index: u64,
        now_ms: u64,
        ns: String,
        command: &[u8],
    ) -> Result<Vec<u8>, ControlRefused> {
        ControlRefused::if_larger("machine command", command.len(), COMMAND_MAX)?;
        let Some(machine) = self.hosted.get_mut(ns.as_str()) else {
            return Err(ControlRefused::UnknownMachine { ns });
        };
        self.changed.insert(machine.ns());
        Ok(machine.apply(index, now_ms, command))
    }

    /// States of the machines that had a command since the last call.
    pub(super) fn take_changed(&mut self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|ns| self.hosted.get(ns).map(|machine| (ns, machine.save())))
    }

    /// All states, as they are stored.
    #[cfg(test)]
    pub(super) fn states(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        let other = self.other.iter().map(|(ns, bytes)| (ns.as_str(), bytes.clone()));
        self.hosted.iter().map(|(ns, machine)| (*ns, machine.save())).chain(other)
    }
}
