//! The control group's replicated state: who is in the cluster, who may join, and the little that all nodes must agree on.
//!
//! Every node applies the same [`ControlCommand`]s in the same order, so all hold the same state; a refusal is a decision
//! like any other. Nothing here reads a clock: commands carry the time of the node that proposed them.
//!
//! | look for | in |
//! |---|---|
//! | commands, replies, refusals | `command` |
//! | the state as a whole, its rows in the store | `state` |
//! | one member's life: restarts, transitions, flap damping | `member` |
//! | join tokens | `token` |
//! | small values with compare-and-set | `kv` |
//! | machines of upper crates | `machine` |

mod command;
mod kv;
mod machine;
mod member;
#[cfg(test)]
mod model;
mod state;
mod table;
mod token;

pub use command::{Cluster, ControlCommand, ControlRefused, ControlReply, Cookie};
pub use kv::KvEntry;
pub use machine::ControlMachine;
pub(crate) use member::ADDR_MAX;
pub use member::{HostedRecord, Member, MemberState, NodeRecord};
pub(crate) use state::{ControlState, NODES_MAX};
pub use token::TokenRecord;
