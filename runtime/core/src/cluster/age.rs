//! How old what this node knows may be: its copies are read without asking anybody.
//!
//! A copy is known to be current when the leader of its group has just added to it, or found that it lacks nothing. That this
//! leader was still one is known by the node's lease, which the control leader renews only while a majority hears it.

use std::time::Duration;

use super::{Cluster, Inner};

impl Cluster {
    /// How long ago this node was sure to know all that the control group had decided; about a second when all is well, zero
    /// in a cluster of one node.
    #[must_use]
    pub fn control_age(&self) -> Duration {
        self.0.age(0)
    }

    /// The same of this node's copy of the group that keeps the state of an actor of a `Replicated` kind. Of a group without a
    /// copy here it is long ago.
    #[must_use]
    pub fn copy_age(&self, kind: &str, key: &str) -> Duration {
        self.0.age(self.group_of(kind, key))
    }
}

impl Inner {
    fn age(&self, group: u8) -> Duration {
        if self.router.view.is_alone() {
            return Duration::ZERO;
        }
        let copy = self.group(group).map_or(Duration::MAX, crate::raft::Group::age);
        copy.max(self.router.view.lease_age())
    }
}
