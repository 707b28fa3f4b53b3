//! The name of a node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::store::{Batch, Level, Store, StoreError, TreeId};

/// Facts about the node itself.
const NODE_TREE: TreeId = TreeId(0);
const ID_KEY: &[u8] = b"node.id";

/// Names a node; shown as 16 hex digits. Drawn at random on the first start and kept in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl NodeId {
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let stored = store.get(NODE_TREE, ID_KEY)?;
        if let Some(id) = stored.as_deref().and_then(|bytes| bytes.try_into().ok()) {
            return Ok(Self(u64::from_be_bytes(id)));
        }
        let id: u64 = rand::random();
        store.commit(Batch::new().put(NODE_TREE, ID_KEY, id.to_be_bytes().to_vec()), Level::Disk).await?;
        Ok(Self(id))
    }
}
