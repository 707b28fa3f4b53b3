//! The Raft groups: the control group 0, in which all nodes are, and the shard groups 1 to G, which hold what the kinds with
//! replicated state remember.
//!
//! | look for | in |
//! |---|---|
//! | the next change of membership or leadership | `plan` |
//! | which nodes should vote in a group, which should hold a copy | `target` |
//! | no node leads more groups than its part | `spread` |

#[cfg(test)]
mod model;
mod plan;
mod spread;
mod target;

pub(crate) use plan::{Change, GroupView, Node, Sizes, plan, stranded_by};
