//! Who belongs to the cluster, and who of them may act.
//!
//! | look for | in |
//! |---|---|
//! | the lease of a node, the leader's watch over all, hand-over of slots without a death | [`liveness`] |
//! | the proof by simulation: two nodes never act for one slot | `model` |

pub(crate) mod liveness;
#[cfg(test)]
mod model;
