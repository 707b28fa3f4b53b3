//! The links of a node to its peers.
//!
//! | look for | in |
//! |---|---|
//! | what travels on a lane, the lane, one lane to each peer | `record`, `lane`, `peers` |
//! | sessions of `ractor_cluster` beside the lanes | `session` |
//! | what the nodes say to each other over sessions | `gateway`, `hint` |

pub(crate) mod gateway;
pub(crate) mod hint;
pub(crate) mod lane;
pub(crate) mod peers;
pub(crate) mod record;
pub(crate) mod session;
