//! The Raft groups: the control group 0, in which all nodes are, and the shard groups 1 to G, which hold what the kinds with
//! replicated state remember.
//!
//! | look for | in |
//! |---|---|
//! | the next change of membership or leadership | `plan` |
//! | which nodes should vote in a group, which should hold a copy | `target` |
//! | the state of a group, and the store of an actor in it | `machine`, `store` |
//! | what is told to the views beside a copy | `feed` |
//! | no node leads more groups than its part | `spread` |

pub(crate) mod feed;
pub(crate) mod machine;
#[cfg(test)]
mod model;
mod plan;
mod spread;
pub(crate) mod store;
pub(crate) mod target;

pub(crate) use plan::{Change, GroupView, Node, Sizes, plan, stranded_by};
