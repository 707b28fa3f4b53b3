//! How old copies may be that this node decides by.
//!
//! Accounts and policies are read from the node's own copies. A node that is cut off from its cluster would go on letting in
//! whoever was revoked meanwhile: when its copies may be older than `governance.stale_after`, it lets nobody in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aivillage_runtime::{Cluster, Village};

/// A copy may be too old to decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node may not know what its cluster decided in the last {} s; nothing is allowed until it does", age.as_secs())]
pub struct Stale {
    /// How old the copy may be.
    pub age: Duration,
}

/// Says whether copies are fresh enough. Clones say the same; before [`Freshness::begin`] all are.
#[derive(Debug, Clone)]
pub struct Freshness {
    village: Arc<OnceLock<Village>>,
    stale_after: Duration,
}

impl Freshness {
    /// Copies count until they may be this old.
    #[must_use]
    pub fn new(stale_after: Duration) -> Self {
        Self { village: Arc::default(), stale_after }
    }

    /// From now on this village's copies are meant.
    pub fn begin(&self, village: &Village) {
        self.village.get_or_init(|| village.clone());
    }

    /// Of what the whole cluster decides: policies, tenants.
    ///
    /// # Errors
    /// [`Stale`]
    pub fn of_cluster(&self) -> Result<(), Stale> {
        self.check(Cluster::control_age)
    }

    /// Of the state of an actor of a `Replicated` kind.
    ///
    /// # Errors
    /// [`Stale`]
    pub fn of_actor(&self, kind: &str, key: &str) -> Result<(), Stale> {
        self.check(|cluster| cluster.copy_age(kind, key))
    }

    fn check(&self, age: impl FnOnce(&aivillage_runtime::Cluster) -> Duration) -> Result<(), Stale> {
        let age = self.village.get().and_then(Village::cluster).map_or(Duration::ZERO, age);
        if age > self.stale_after { Err(Stale { age }) } else { Ok(()) }
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self::new(Duration::MAX)
    }
}
