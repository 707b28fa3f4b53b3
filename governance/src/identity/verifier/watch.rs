//! Feeds a [`VerifierHandle`] from one group's copy on this node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aivillage_runtime::{Durable, ReplicaView};

use super::{TenantView, VerifierHandle};
use crate::identity::accounts::{AccountEvent, Accounts, Touched};

/// Follows the accounts of the tenants of one group.
#[derive(Debug)]
pub struct Watch {
    verifier: VerifierHandle,
    tenants: HashMap<String, (Accounts, Arc<TenantView>)>,
    /// Those that are not read again yet.
    unread: HashSet<String>,
}

impl Watch {
    /// Feeds this verifier.
    #[must_use]
    pub fn new(verifier: VerifierHandle) -> Self {
        Self { verifier, tenants: HashMap::new(), unread: HashSet::new() }
    }

    fn take(&mut self, tenant: &str, accounts: Accounts) {
        let view = Arc::new(TenantView::new(tenant, &accounts, self.verifier.config().lives()));
        self.verifier.show(tenant, Some(&view));
        self.unread.remove(tenant);
        self.tenants.insert(tenant.to_owned(), (accounts, view));
    }

    fn apply(&mut self, tenant: &str, seq: u64, event: &AccountEvent) {
        let Some((accounts, view)) = self.tenants.get_mut(tenant) else {
            if seq > 1 {
                // What came before is not known here: nothing is let in on half a story.
                self.unread.insert(tenant.to_owned());
                return self.verifier.show(tenant, None);
            }
            let mut accounts = Accounts::default();
            accounts.apply(event);
            return self.take(tenant, accounts);
        };
        accounts.apply(event);
        let touched = event.touches();
        view.update(accounts, touched);
        if touched == Touched::Ring {
            self.verifier.show(tenant, Some(view));
        } else {
            self.verifier.changed();
        }
    }
}

impl ReplicaView for Watch {
    type State = Accounts;

    /// Until a tenant is read again nothing is let in: what was shown before may have been revoked.
    async fn clear(&mut self) {
        for (tenant, _) in self.tenants.drain() {
            self.verifier.show(&tenant, None);
            self.unread.insert(tenant);
        }
    }

    async fn restored(&mut self, tenant: &str, _seq: u64, accounts: &Accounts) {
        self.take(tenant, accounts.clone());
    }

    async fn applied(&mut self, tenant: &str, seq: u64, event: AccountEvent) {
        self.apply(tenant, seq, &event);
    }
}

/// A view ends with its node, or has panicked and is made anew.
impl Drop for Watch {
    fn drop(&mut self) {
        for tenant in self.tenants.keys().chain(&self.unread) {
            self.verifier.forget(tenant);
        }
    }
}
