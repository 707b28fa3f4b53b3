//! The snapshot that hot paths read: no mailbox, no lock.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::decide::Policy;
use super::engine::Engine;
use super::guard::{Breaker, ChatGuard, consult, refine};
use super::taxonomy::Action;
use super::verdict::{CheckError, CheckRequest, Verdict};

/// Judges in process with the engine that was published last.
#[derive(Debug, Clone)]
pub struct ModeratorHandle {
    engine: Arc<ArcSwap<Engine>>,
    policy: Arc<Policy>,
    guard: Option<Arc<Watch>>,
}

/// A guard, how long it may take and whether it is left alone.
#[derive(Debug)]
struct Watch {
    guard: ChatGuard,
    limit: Duration,
    breaker: Mutex<Breaker>,
}

impl ModeratorHandle {
    /// A handle that begins with an engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine: Arc::new(ArcSwap::from_pointee(engine)), policy: Arc::default(), guard: None }
    }

    /// The same engine, where a namespace without a policy of its own has this one.
    #[must_use]
    pub fn under(self, policy: Policy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// What a namespace without a policy of its own does.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The same engine, with a guard that [`ModeratorHandle::consider`] and [`ModeratorHandle::rereview`] ask.
    #[must_use]
    pub fn guarded(self, guard: ChatGuard, limit: Duration) -> Self {
        Self { guard: Some(Arc::new(Watch { guard, limit, breaker: Mutex::default() })), ..self }
    }

    /// The engine in use.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.load_full()
    }

    /// Judges a content; costs well below a millisecond for a message, some 25 ms for 64 KiB.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub fn check(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        self.engine.load().check(request, policy)
    }

    /// Judges a content by model B alone.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub fn recheck(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        self.engine.load().recheck(request, policy)
    }

    /// Judges a content, and asks the guard, if there is one, about what is uncertain. Without an answer the verdict stays.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub async fn consider(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        let verdict = self.check(request, policy)?;
        Ok(self.advise(&request.content, verdict, policy).await)
    }

    /// The first review of an appeal: model B, and the guard about what that one is uncertain of. Neither sees what was decided.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub async fn rereview(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        let verdict = self.recheck(request, policy)?;
        Ok(self.advise(&request.content, verdict, policy).await)
    }

    /// Lets the guard, if there is one, say what becomes of a text about which a verdict is uncertain. Without an answer the
    /// verdict stays.
    pub async fn advise(&self, text: &str, verdict: Verdict, policy: &Policy) -> Verdict {
        let Some(watch) = &self.guard else { return verdict };
        if !verdict.is_uncertain || verdict.action != Action::Monitor {
            return verdict;
        }
        match consult(&watch.guard, &watch.breaker, watch.limit, text, &verdict).await {
            Ok(opinion) => {
                let thresholds = self.engine.load().manifest().by_head();
                refine(verdict, opinion, thresholds[opinion.category.index()], policy)
            }
            Err(error) => {
                tracing::debug!(%error, "no opinion of the guard, the verdict stays");
                verdict
            }
        }
    }

    /// Puts another engine in use; checks under way end with the one before.
    pub fn publish(&self, engine: Engine) {
        self.engine.store(Arc::new(engine));
    }
}
