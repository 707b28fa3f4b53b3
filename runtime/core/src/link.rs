//! The links of a node to its peers.

pub(crate) mod lane;
pub(crate) mod record;
