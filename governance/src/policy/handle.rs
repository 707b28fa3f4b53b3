//! Decisions without a message: the newest snapshot, read without a lock.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::bundle::Bundle;
use super::decide::{Decision, Snapshot};
use super::explain::Explanation;
use super::request::Request;

/// No bundle has been loaded: nothing can be decided, so nothing is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no policies are loaded yet; nothing is allowed until they are")]
pub struct Unavailable;

/// Decides with the newest bundle. Clones see the same one.
#[derive(Debug, Clone)]
pub struct PdpHandle {
    current: Arc<ArcSwapOption<Snapshot>>,
    cache: usize,
}

impl PdpHandle {
    /// A handle without a bundle; each bundle remembers at most `cache` decisions.
    #[must_use]
    pub fn new(cache: usize) -> Self {
        Self { current: Arc::default(), cache }
    }

    /// Decides.
    ///
    /// # Errors
    /// [`Unavailable`] before the first bundle.
    pub fn decide(&self, request: &Request) -> Result<Arc<Decision>, Unavailable> {
        self.current.load().as_ref().map(|snapshot| snapshot.decide(request)).ok_or(Unavailable)
    }

    /// Decides and says why.
    ///
    /// # Errors
    /// [`Unavailable`] before the first bundle.
    pub fn explain(&self, request: &Request) -> Result<Explanation, Unavailable> {
        self.snapshot().map(|snapshot| snapshot.explain(request)).ok_or(Unavailable)
    }

    /// The bundle at work, to decide several things by the same one.
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
        newer(&before)
    }
}
