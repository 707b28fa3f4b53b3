//! The name of a node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::{Batch, Level, Store, StoreError, TreeId};

const STARTS_KEY: &[u8] = b"node.starts";

/// Names a node; shown as 16 hex digits. The first 8 bytes of the SHA-256 of its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, BadNodeId> {
        let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| plain).map(Self).ok_or(BadNodeId)
    }
}

/// The text is not 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id has 16 hex digits")]
pub struct BadNodeId;

/// One run of a node's program: what tells whether it is still the one that began something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The node.
    pub node: NodeId,
    /// Which of its starts this is, from 1.
    #[serde(default)]
    pub incarnation: u64,
}

/// Counts the starts of this node: its incarnation, from 1.
pub(crate) async fn next_incarnation(store: &dyn Store) -> Result<u64, StoreError> {
    let stored = store.get(TreeId::NODE, STARTS_KEY)?;
    let before = stored.and_then(|bytes| bytes[..].try_into().ok()).map_or(0, u64::from_be_bytes);
    let next = before + 1;
    store.commit(Batch::new().put(TreeId::NODE, STARTS_KEY, next.to_be_bytes().to_vec()), Level::Disk).await?;
    Ok(next)
}
