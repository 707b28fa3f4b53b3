//! A tenant's keys on every node that has a copy of its ring, not only where its vault is.

use std::collections::BTreeSet;

use aivillage_runtime::ReplicaView;

use super::handle::VaultHandle;
use super::ring::{KeyRing, RingEvent};
use super::scope::TenantId;

/// Publishes the copies of the rings of one group in the node's [`VaultHandle`].
#[derive(Debug)]
pub struct Copies {
    handle: VaultHandle,
    tenants: BTreeSet<TenantId>,
}

impl Copies {
    /// Publishes in this handle.
    #[must_use]
    pub fn new(handle: VaultHandle) -> Self {
        Self { handle, tenants: BTreeSet::new() }
    }
}

impl ReplicaView for Copies {
    type State = KeyRing;

    async fn clear(&mut self) {
        self.handle.drop_copies(std::mem::take(&mut self.tenants).into_iter());
    }

    async fn restored(&mut self, key: &str, _: u64, ring: &KeyRing) {
        // A vault has no other keys than these.
        let Ok(tenant) = key.parse().map(TenantId) else { return };
        self.tenants.insert(tenant);
        self.handle.keep_copy(tenant, ring.clone());
    }

    async fn applied(&mut self, key: &str, _: u64, event: RingEvent) {
        let Ok(tenant) = key.parse().map(TenantId) else { return };
        self.tenants.insert(tenant);
        self.handle.change_copy(tenant, &event);
    }
}
