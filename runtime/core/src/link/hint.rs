//! What gateways tell each other. Nobody knows who sent a hint, so it may refresh what a node would find out anyway, and no
//! more: a false one costs its reader one wrong turn.
//!
//! Bytes: the version (1), then postcard. What is longer than [`MAX`], of another version, or does not decode to its last
//! byte, is nothing: a newer node may say what this one does not know.

use serde::{Deserialize, Serialize};

use crate::cluster::member::Lead;
use crate::node_id::NodeId;

/// Longest frame that a session takes.
pub(crate) const FRAME_MAX: usize = 64 * 1024;
/// Longest hint. What `ractor_cluster` adds to it is some dozen bytes; a longer frame would cost the whole session.
pub(crate) const MAX: usize = FRAME_MAX - 1024;

const VERSION: u8 = 1;

/// News of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hint {
    /// A shard group has a new leader.
    Lead(Lead),
    /// How a node is.
    State {
        /// Which one.
        node: NodeId,
        /// Its live actors, of a thousand that it could have.
        load_permille: u16,
        /// Membership epoch that it has applied.
        epoch: u64,
    },
}

impl Hint {
    /// Its bytes; none if they are too many.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![VERSION]).ok()?;
        (bytes.len() <= MAX).then_some(bytes)
    }

    /// Reads what anybody may have sent.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, body) = bytes.split_first()? else { return None };
        match postcard::take_from_bytes(body) {
            Ok((hint, [])) if bytes.len() <= MAX => Some(hint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_hint() -> impl Strategy<Value = Hint> {
        let lead = (any::<u8>(), any::<u64>(), any::<u64>())
            .prop_map(|(group, term, node)| Hint::Lead(Lead { group, term, node: NodeId(node) }));
        let state = (any::<u64>(), any::<u16>(), any::<u64>()).prop_map(|(node, load_permille, epoch)| Hint::State {
            node: NodeId(node),
            load_permille,
            epoch,
        });
        prop_oneof![lead, state]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn hints_round_trip(hint in any_hint()) {
            prop_assert_eq!(Hint::decode(&hint.encode().unwrap()), Some(hint));
        }

        #[test]
        fn garbage_is_nothing(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            if let Some(hint) = Hint::decode(&bytes) {
                prop_assert!(Hint::decode(&hint.encode().unwrap()) == Some(hint));
            }
        }

        #[test]
        fn cut_or_lengthened_hints_are_nothing(hint in any_hint(), cut in 1_usize..8, more in any::<u8>()) {
            let whole = hint.encode().unwrap();
            prop_assert_eq!(Hint::decode(&whole[..whole.len().saturating_sub(cut)]), None);
            prop_assert_eq!(Hint::decode(&[&whole[..], &[more]].concat()), None);
        }

        #[test]
        fn other_versions_are_nothing(hint in any_hint(), version in 2_u8..) {
            let mut bytes = hint.encode().unwrap();
            bytes[0] = version;
            prop_assert_eq!(Hint::decode(&bytes), None);
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let lead = Hint::Lead(Lead { group: 3, term: 7, node: NodeId(0x1_0001) });
        assert_eq!(lead.encode().unwrap(), [1, 0, 3, 7, 0x81, 0x80, 0x04]);
        let state = Hint::State { node: NodeId(1), load_permille: 200, epoch: 5 };
        assert_eq!(state.encode().unwrap(), [1, 1, 1, 0xc8, 1, 5]);
        assert_eq!(Hint::decode(&vec![VERSION; MAX + 1]), None);
    }
}
