//! An outside opinion on what the models are not sure of. It moves a verdict inside the uncertain band only.

mod chat;

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use chat::{ChatGuard, GuardAddress};

use super::decide::Policy;
use super::manifest::Threshold;
use super::taxonomy::{Action, Category};
use super::verdict::Verdict;

/// Failures in a row after which a guard is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// What a guard thinks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opinion {
    /// The category it speaks of.
    pub category: Category,
    /// How likely it is, 0 to 1.
    pub p: f32,
}

/// A guard did not answer. The verdict stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not in time.
    #[error("the guard did not answer in time")]
    TimedOut,
    /// With something that is no opinion.
    #[error("the guard's answer is no opinion: {0}")]
    Nonsense(String),
    /// Not at all.
    #[error("the guard failed: {0}")]
    Failed(String),
    /// It failed too often and is left alone for a while.
    #[error("the guard is left alone after {FAILURES} failures")]
    Open,
}

/// Who can be asked: a chat endpoint, an agent of the village.
pub trait Guard: Send + Sync {
    /// Asks about a text, with the categories it may name.
    fn ask(&self, text: &str, about: &[Category]) -> impl Future<Output = Result<String, GuardError>> + Send;
}

/// Parses a guard's answer, `{"category": .., "p": ..}`, alone or inside other words.
///
/// # Errors
/// [`GuardError::Nonsense`]: there is no such object, or its numbers are none.
pub fn parse(answer: &str) -> Result<Opinion, GuardError> {
    let nonsense = |why: &str| GuardError::Nonsense(why.to_owned());
    let (start, end) = answer.find('{').zip(answer.rfind('}')).ok_or_else(|| nonsense("no JSON object"))?;
    let object = answer.get(start..=end).ok_or_else(|| nonsense("no JSON object"))?;
    let opinion: Opinion = serde_json::from_str(object).map_err(|e| nonsense(&e.to_string()))?;
    if (0.0..=1.0).contains(&opinion.p) { Ok(opinion) } else { Err(nonsense("p is not between 0 and 1")) }
}

/// Leaves a guard alone that fails again and again. Time comes in as a value.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// Whether the guard may be asked now. After a pause one question is let through to try.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.until {
            Some(until) if now < until => false,
            Some(_) => {
                self.until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    /// Remembers how a question ended.
    pub fn record(&mut self, is_ok: bool, now: Instant) {
        if is_ok {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.until = Some(now + PAUSE);
        }
    }
}

/// Asks a guard within a time limit.
///
/// # Errors
/// [`GuardError`]; the verdict stays as it is.
pub async fn consult<G: Guard>(
    guard: &G,
    breaker: &Mutex<Breaker>,
    limit: Duration,
    text: &str,
    verdict: &Verdict,
) -> Result<Opinion, GuardError> {
    if !breaker.lock().admits(tokio::time::Instant::now().into_std()) {
        return Err(GuardError::Open);
    }
    let about: Vec<Category> = verdict.scores.iter().map(|score| score.category).collect();
    let answer = tokio::time::timeout(limit, guard.ask(text, &about)).await.unwrap_or(Err(GuardError::TimedOut));
    let opinion = answer.and_then(|answer| parse(&answer));
    breaker.lock().record(opinion.is_ok(), tokio::time::Instant::now().into_std());
    opinion
}

/// Applies an opinion. A verdict that is sure stays, and so does one on which the guard speaks of a category that the
/// models did not doubt about.
#[must_use]
pub fn refine(verdict: Verdict, opinion: Opinion, threshold: Threshold, policy: &Policy) -> Verdict {
    let doubted = verdict.scores.iter().any(|score| score.category == opinion.category);
    if !verdict.is_uncertain || verdict.action != Action::Monitor || !doubted {
        return verdict;
    }
    if opinion.p < threshold.hi {
        return Verdict {
            action: Action::Allow,
            category: None,
            level: None,
            article: None,
            is_uncertain: false,
            ..verdict
        };
    }
    Verdict {
        action: policy.action(opinion.category),
        category: Some(opinion.category),
        level: Some(opinion.category.level()),
        article: Some(opinion.category.article().to_owned()),
        p: opinion.p,
        is_uncertain: false,
        ..verdict
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Score;
    use super::*;

    struct Says(Result<&'static str, GuardError>);

    impl Guard for Says {
        async fn ask(&self, _: &str, _: &[Category]) -> Result<String, GuardError> {
            match &self.0 {
                Err(GuardError::TimedOut) => std::future::pending().await,
                other => other.clone().map(str::to_owned),
            }
        }
    }

    fn doubtful() -> Verdict {
        let scores = vec![Score { category: Category::Extortion, p: 0.5 }];
        Verdict {
            action: Action::Monitor,
            category: Some(Category::Extortion),
            is_uncertain: true,
            scores,
            ..Verdict::default()
        }
    }

    async fn ask(guard: Says, breaker: &Mutex<Breaker>) -> Result<Opinion, GuardError> {
        consult(&guard, breaker, Duration::from_secs(2), "x", &doubtful()).await
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_to_fail_is_told_and_five_in_a_row_open_the_circuit() {
        let breaker = Mutex::new(Breaker::default());
        let good = || Says(Ok("I think {\"category\": \"extortion\", \"p\": 0.9} so"));
        assert_eq!(ask(good(), &breaker).await, Ok(Opinion { category: Category::Extortion, p: 0.9 }));
        assert_eq!(ask(Says(Err(GuardError::TimedOut)), &breaker).await, Err(GuardError::TimedOut));
        for nonsense in ["no", "{\"category\": \"tea\", \"p\": 1}", "{\"category\": \"spam\", \"p\": 7}"] {
            assert!(matches!(ask(Says(Ok(nonsense)), &breaker).await, Err(GuardError::Nonsense(_))));
        }
        let failed = GuardError::Failed("refused".into());
        assert_eq!(ask(Says(Err(failed.clone())), &breaker).await, Err(failed));
        assert_eq!(ask(good(), &breaker).await, Err(GuardError::Open));
        tokio::time::advance(PAUSE).await;
        assert!(ask(good(), &breaker).await.is_ok());
        assert!(breaker.lock().until.is_none());
    }

    #[test]
    fn an_opinion_moves_only_what_was_doubted() {
        let threshold = Threshold { lo: 0.3, hi: 0.8 };
        let about = |category, p| Opinion { category, p };
        let refined = |verdict, opinion| refine(verdict, opinion, threshold, &Policy::default());
        let raised = refined(doubtful(), about(Category::Extortion, 0.9));
        assert_eq!((raised.action, raised.article.as_deref()), (Action::Block, Some("A1.2")));
        let lowered = refined(doubtful(), about(Category::Extortion, 0.1));
        assert_eq!((lowered.action, lowered.category), (Action::Allow, None));
        assert_eq!(refined(doubtful(), about(Category::Spam, 1.0)), doubtful());
        let sure = Verdict { action: Action::Block, is_uncertain: false, ..doubtful() };
        assert_eq!(refined(sure.clone(), about(Category::Extortion, 0.0)), sure);
    }
}
