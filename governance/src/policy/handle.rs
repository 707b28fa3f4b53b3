//! Decisions without a message: the newest snapshot, read without a lock.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::bundle::Bundle;
use super::decide::{Decision, Snapshot};
use super::explain::Explanation;
use super::request::Request;
use crate::freshness::{Freshness, Stale};

/// Nothing can be decided, so nothing is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No bundle has been loaded.
    #[error("no policies are loaded yet; nothing is allowed until they are")]
    NotLoaded,
    /// The one there is may not be that of the cluster any more.
    #[error(transparent)]
    Stale(#[from] Stale),
}

/// Decides with the newest bundle. Clones see the same one.
#[derive(Debug, Clone)]
pub struct PdpHandle {
    current: Arc<ArcSwapOption<Snapshot>>,
    /// The epoch at work, 0 without one.
    epoch: Arc<watch::Sender<u64>>,
    cache: usize,
    freshness: Freshness,
}

impl PdpHandle {
    /// A handle without a bundle; each bundle remembers at most `cache` decisions.
    #[must_use]
    pub fn new(cache: usize) -> Self {
        Self { current: Arc::default(), epoch: Arc::new(watch::Sender::new(0)), cache, freshness: Freshness::default() }
    }

    /// The same, which decides nothing while this node may not know what its cluster decided.
    #[must_use]
    pub fn fresh_by(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// Decides.
    ///
    /// # Errors
    /// [`Unavailable`] before the first bundle, and when it may be too old.
    pub fn decide(&self, request: &Request) -> Result<Arc<Decision>, Unavailable> {
        self.freshness.of_cluster()?;
        self.current.load().as_ref().map(|snapshot| snapshot.decide(request)).ok_or(Unavailable::NotLoaded)
    }

    /// Decides and says why.
    ///
    /// # Errors
    /// As [`PdpHandle::decide`].
    pub fn explain(&self, request: &Request) -> Result<Explanation, Unavailable> {
        self.freshness.of_cluster()?;
        self.snapshot().map(|snapshot| snapshot.explain(request)).ok_or(Unavailable::NotLoaded)
    }

    /// The bundle at work, however old: for what it knows, and to decide several things by the same one.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Which bundle is at work.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.current.load().as_ref().map(|snapshot| snapshot.epoch())
    }

    /// Puts a bundle to work unless a newer one is; tells whether it did. Requests under way end with the one they began with.
    #[expect(clippy::must_use_candidate, reason = "what it does matters, not whether it had to")]
    pub fn publish(&self, bundle: Arc<Bundle>, epoch: u64) -> bool {
        let next = Arc::new(Snapshot::new(bundle, epoch, self.cache));
        let newer = |old: &Option<Arc<Snapshot>>| old.as_ref().is_none_or(|old| old.epoch() < epoch);
        let before = self.current.rcu(|old| if newer(old) { Some(next.clone()) } else { old.clone() });
        let is_newer = newer(&before);
        if is_newer {
            self.epoch.send_modify(|at_work| *at_work = epoch.max(*at_work));
        }
        is_newer
    }

    /// Tells when another bundle is at work.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }
}
