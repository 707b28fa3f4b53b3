//! The bundle that all nodes of a cluster agree on.
//!
//! The machine keeps it packed and does not look inside: whoever proposes one has loaded it, and every node loads it before it
//! decides by it. So a node with an older program can refuse it without the nodes' copies of this state drifting apart.

use aivillage_runtime::StoreError;
use aivillage_runtime::control::ControlMachine;
use serde::{Deserialize, Serialize};

use super::sources::PACKED_MAX;

/// The machine's name.
pub const NS: &str = "governance.policy";

/// The newest bundle and how many there were.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMachine {
    version: u64,
    hash: [u8; 32],
    #[serde(with = "serde_bytes")]
    packed: Vec<u8>,
}

/// A new bundle in place of version `expect`.
#[derive(Debug, Serialize, Deserialize)]
struct Put {
    expect: u64,
    hash: [u8; 32],
    #[serde(with = "serde_bytes")]
    packed: Vec<u8>,
}

/// Why a bundle was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PolicyRefused {
    /// Another one was first.
    #[error("the policies are at version {current} by now; look at them and try again")]
    Conflict {
        /// The version there is.
        current: u64,
    },
    /// It does not fit.
    #[error("a packed bundle has at most {max} bytes")]
    TooLarge {
        /// How many there may be.
        max: u64,
    },
    /// The command or the answer is that of another version of the program.
    #[error("not a command of this version: {0}")]
    Unreadable(String),
}

impl PolicyMachine {
    /// The command that puts a bundle in place of version `expect`, 0 for the first.
    #[must_use]
    pub fn put(expect: u64, hash: [u8; 32], packed: Vec<u8>) -> Vec<u8> {
        // Numbers and bytes always can be written.
        postcard::to_allocvec(&Put { expect, hash, packed }).unwrap_or_default()
    }

    /// Reads the answer to [`PolicyMachine::put`]: the new version.
    ///
    /// # Errors
    /// See [`PolicyRefused`].
    pub fn answer(bytes: &[u8]) -> Result<u64, PolicyRefused> {
        postcard::from_bytes(bytes).unwrap_or_else(|error| Err(PolicyRefused::Unreadable(error.to_string())))
    }

    /// The version of the newest bundle, 0 when there was none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The newest bundle, packed.
    #[must_use]
    pub fn packed(&self) -> Option<&[u8]> {
        (self.version > 0).then_some(&self.packed[..])
    }

    /// The hash of the newest bundle on the node that proposed it; one with other built-in files has another.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    fn take(&mut self, command: &[u8]) -> Result<u64, PolicyRefused> {
        let Put { expect, hash, packed } =
            postcard::from_bytes(command).map_err(|error| PolicyRefused::Unreadable(error.to_string()))?;
        if expect != self.version {
            return Err(PolicyRefused::Conflict { current: self.version });
        }
        if packed.len() > PACKED_MAX {
            return Err(PolicyRefused::TooLarge { max: PACKED_MAX as u64 });
        }
        *self = Self { version: expect + 1, hash, packed };
        Ok(self.version)
    }
}

impl ControlMachine for PolicyMachine {
    fn ns(&self) -> &'static str {
        NS
    }

    fn apply(&mut self, _: u64, _: u64, command: &[u8]) -> Vec<u8> {
        postcard::to_allocvec(&self.take(command)).unwrap_or_default()
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        *self = postcard::from_bytes(bytes)
            .map_err(|error| StoreError::Decode { what: "policy bundle", detail: error.to_string() })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(machine: &mut PolicyMachine, expect: u64, size: usize) -> Result<u64, PolicyRefused> {
        PolicyMachine::answer(&machine.apply(1, 2, &PolicyMachine::put(expect, [7; 32], vec![1; size])))
    }

    #[test]
    fn a_bundle_takes_the_place_of_the_one_it_was_made_from() {
        let mut machine = PolicyMachine::default();
        assert_eq!(machine.packed(), None);
        assert_eq!(put(&mut machine, 1, 3), Err(PolicyRefused::Conflict { current: 0 }));
        assert_eq!(put(&mut machine, 0, 3), Ok(1));
        assert_eq!(put(&mut machine, 0, 4), Err(PolicyRefused::Conflict { current: 1 }));
        assert_eq!(put(&mut machine, 1, PACKED_MAX + 1), Err(PolicyRefused::TooLarge { max: PACKED_MAX as u64 }));
        assert_eq!((machine.packed(), machine.hash()), (Some(&[1, 1, 1][..]), [7; 32]));
    }

    #[test]
    fn its_state_is_the_same_after_a_restart() {
        let mut machine = PolicyMachine::default();
        put(&mut machine, 0, 9).unwrap();
        let mut again = PolicyMachine::default();
        again.load(&machine.save()).unwrap();
        assert_eq!(again, machine);
        assert!(matches!(again.load(b"\xff"), Err(StoreError::Decode { what: "policy bundle", .. })));
    }

    #[test]
    fn what_cannot_be_read_is_answered() {
        let mut machine = PolicyMachine::default();
        let answer = PolicyMachine::answer(&machine.apply(1, 2, b"\xff"));
        assert!(matches!(answer, Err(PolicyRefused::Unreadable(_))), "{answer:?}");
        assert!(matches!(PolicyMachine::answer(b""), Err(PolicyRefused::Unreadable(_))));
        assert_eq!(machine, PolicyMachine::default());
    }
}
