//! Decisions, and a bundle that remembers those it made.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::request::Request;

/// Whether a request is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Whether it may be done.
    pub allow: bool,
    /// The policies that decided: the permits of an allow, the forbids of a deny. Empty when there was no permit.
    pub policy_ids: Vec<String>,
    /// The articles of the constitution that those cite.
    pub articles: Vec<String>,
    /// Why the question or a policy could not be evaluated.
    pub errors: Vec<String>,
    /// The bundle that decided. All nodes with the same one decide alike; streams ask again when it changes.
    pub epoch: u64,
}

impl Decision {
    /// The answer to a question that cannot be asked.
    pub(super) fn refused(why: String) -> Self {
        Self { errors: vec![why], ..Self::default() }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allowed" } else { "denied" })?;
        if self.policy_ids.is_empty() && self.errors.is_empty() {
            return f.write_str(", no policy permits it");
        }
        if !self.policy_ids.is_empty() {
            write!(f, " by {}", self.policy_ids.join(", "))?;
        }
        self.errors.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

/// One bundle at work. Its decisions are remembered by the whole request: what identity or a keeper says of principal and
/// resource is in it, so nothing remembered can be stale, and a new bundle begins with an empty memory.
pub struct Snapshot {
    bundle: Arc<Bundle>,
    epoch: u64,
    decided: Cache<Request, Arc<Decision>>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("bundle", &self.bundle).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Puts a bundle to work that remembers at most `cache` decisions.
    #[must_use]
    pub fn new(bundle: Arc<Bundle>, epoch: u64, cache: usize) -> Self {
        Self { bundle, epoch, decided: Cache::new(cache.max(1)) }
    }

    /// Decides.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Arc<Decision> {
        if let Some(decision) = self.decided.get(request) {
            return decision;
        }
        let decision = Arc::new(Decision { epoch: self.epoch, ..self.bundle.decide(request) });
        // What is at fault can be of any size, and costs little to refuse again.
        if request.fault().is_none() {
            self.decided.insert(request.clone(), decision.clone());
        }
        decision
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Which one it is.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}
