//! Who judges content: the moderator's snapshot, and what is left when it cannot.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::moderation::norm::{VIEW_BYTES, views};
use crate::moderation::rules::{Rules, RulesError};
use crate::moderation::stream::HOLDBACK;
use crate::moderation::verdict::TEXT_BYTES;
use crate::moderation::words::Words;
use crate::moderation::{Action, Category, CheckError, ModeratorHandle, Policy, StreamScanner, Verdict};

/// Verdicts that are remembered: what an agent hands on is not judged again at each of its stations.
const REMEMBERED: usize = 4_096;
/// Longest text whose verdict is remembered, bytes.
const REMEMBERED_BYTES: usize = 64 * 1024;
/// Bytes that two parts of a text too long for one check have in common.
const OVERLAP: usize = 1_024;

/// Moderation cannot judge now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("moderation is unavailable: {0}")]
pub struct Unavailable(pub String);

/// What judges content. Tenant, sender and stage are not told, so they have no say.
pub trait Judge: Send + Sync + fmt::Debug {
    /// Judges a text of at most 1 MiB.
    ///
    /// # Errors
    /// [`Unavailable`]: the text is not judged.
    fn judge(&self, text: &str) -> Result<Verdict, Unavailable>;

    /// Names what judges; verdicts under another name are not remembered.
    fn name(&self) -> String;

    /// Scans a stream; none where a stream cannot be scanned.
    fn scanner(&self) -> Option<StreamScanner>;
}

/// The moderator of this node, under one policy about H2.
#[derive(Debug, Clone)]
pub struct Moderation {
    /// The engine in use.
    pub handle: ModeratorHandle,
    /// What is done about H2.
    pub policy: Policy,
}

impl Judge for Moderation {
    fn judge(&self, text: &str) -> Result<Verdict, Unavailable> {
        let engine = self.handle.engine();
        engine.judge(text, &self.policy).map_err(|error: CheckError| Unavailable(error.to_string()))
    }

    fn name(&self) -> String {
        self.handle.engine().name().to_owned()
    }

    fn scanner(&self) -> Option<StreamScanner> {
        Some(StreamScanner::new(self.handle.engine(), self.policy.clone(), HOLDBACK))
    }
}

/// A judge that may fail, what stays when it does, and what was judged lately.
#[derive(Debug)]
pub(super) struct Court {
    judge: Arc<dyn Judge>,
    rules: Rules,
    policy: Policy,
    known: Cache<[u8; 16], Arc<Verdict>>,
    /// So that nobody can make two texts of one key.
    key: [u8; 32],
}

/// A judgement.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// By the hard rules alone; `verdict` is not to be relied on where it passes.
    pub(super) unchecked: Option<Unavailable>,
}

impl Court {
    pub(super) fn new(judge: Arc<dyn Judge>, policy: Policy) -> Result<Self, RulesError> {
        let rules = Rules::parse(include_str!("../../data/rules.toml"))?;
        Ok(Self { judge, rules, policy, known: Cache::new(REMEMBERED), key: rand::random() })
    }

    /// Judges a text, by the hard rules alone if the judge cannot.
    pub(super) fn judge(&self, text: &str) -> Judged {
        let judged = catch_unwind(AssertUnwindSafe(|| self.remembered(text)));
        let judged = judged.unwrap_or_else(|_| Err(Unavailable("it failed on this text".to_owned())));
        match judged {
            Ok(verdict) => Judged { verdict, unchecked: None },
            Err(why) => Judged { verdict: self.by_rules(text), unchecked: Some(why) },
        }
    }

    fn remembered(&self, text: &str) -> Result<Verdict, Unavailable> {
        if text.len() > REMEMBERED_BYTES {
            return self.whole(text);
        }
        let key = self.key_of(text);
        if let Some(verdict) = self.known.get(&key) {
            return Ok(Verdict::clone(&verdict));
        }
        let verdict = self.judge.judge(text)?;
        self.known.insert(key, Arc::new(verdict.clone()));
        Ok(verdict)
    }

    fn key_of(&self, text: &str) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let name = self.judge.name();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(text.as_bytes());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        key
    }

    /// The gravest verdict on the parts of a text.
    fn whole(&self, text: &str) -> Result<Verdict, Unavailable> {
        let mut worst: Option<Verdict> = None;
        for part in parts(text, TEXT_BYTES) {
            let verdict = self.judge.judge(part)?;
            if worst.as_ref().is_none_or(|worst| (verdict.action, verdict.p) > (worst.action, worst.p)) {
                worst = Some(verdict);
            }
        }
        Ok(worst.unwrap_or_default())
    }

    /// What the rules say that decide alone.
    fn by_rules(&self, text: &str) -> Verdict {
        let found = parts(text, VIEW_BYTES).flat_map(|part| self.hard(part)).min();
        let Some(category) = found else { return Verdict::default() };
        Verdict {
            action: self.policy.action(category),
            category: Some(category),
            level: Some(category.level()),
            article: Some(category.article().to_owned()),
            rule: Some("rules".to_owned()),
            p: 1.0,
            ..Verdict::default()
        }
    }

    fn hard(&self, text: &str) -> Vec<Category> {
        let is_hard = |n: usize| self.rules.rules().get(n).filter(|rule| rule.hard).map(|rule| rule.category);
        let mut found: Vec<Category> = self.rules.raw_hits(text).filter_map(|hit| is_hard(hit.rule)).collect();
        for view in views(text) {
            let words = Words::of(&view.text);
            found.extend(self.rules.hits(&words).filter_map(|hit| is_hard(hit.rule)));
        }
        found
    }

    pub(super) fn scanner(&self) -> Option<StreamScanner> {
        self.judge.scanner()
    }
}

/// Parts of at most `size` bytes, each with an end of the one before.
fn parts(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut start = Some(0);
    std::iter::from_fn(move || {
        let from = start?;
        let end = text.floor_char_boundary(from + size);
        start = (end < text.len()).then(|| text.floor_char_boundary(end - OVERLAP));
        text.get(from..end)
    })
}

/// How a verdict is told in metrics.
pub(super) fn name_of(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Monitor => "monitor",
        Action::Support => "support",
        Action::Label => "label",
        Action::Limit => "limit",
        Action::Block => "block",
        Action::Seal => "seal",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_cover_a_text_and_overlap(text in "(\\PC|é|字){0,400}") {
            let text = text.repeat(8);
            let size = OVERLAP + 64;
            let all: Vec<&str> = parts(&text, size).collect();
            prop_assert!(all.iter().all(|part| part.len() <= size));
            prop_assert!(all.first().is_some_and(|first| text.starts_with(first)));
            prop_assert!(all.last().is_some_and(|last| text.ends_with(last)));
            let total: usize = all.iter().map(|part| part.len()).sum();
            prop_assert!(total >= text.len() + (all.len() - 1) * (OVERLAP - 4));
        }
    }
}
