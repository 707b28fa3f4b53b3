//! Whether a proposal may be put to the vote. The same proposal has the same findings everywhere. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::document::{Article, Document, Rule};
use super::taxonomy::{Level, categories};

/// Part of the treasury, as its divisor, above which a payment to the proposer alone is refused.
const LARGE: u128 = 100;
/// The article of separate powers.
const SEPARATE_POWERS: &str = "A8.1";
/// The article of bounds.
const LIMITS: &str = "A8.2";
/// The article of amendments.
const AMENDMENT: &str = "A11.1";

/// What somebody wants to change. What is now in force comes from who asks, not from the proposer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who proposes.
    pub proposer: String,
    /// Parameters.
    pub changes: Vec<Change>,
    /// A new `constitution.toml`.
    pub constitution: Option<String>,
    /// Payments out of the treasury.
    pub payments: Vec<Payment>,
    /// What the treasury has, millionths of a US dollar.
    pub treasury_micro: u128,
}

/// A change of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: String,
    /// Its value now.
    pub from: f64,
    /// Its value then.
    pub to: f64,
}

/// A payment out of the treasury.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Who gains.
    pub beneficiaries: Vec<String>,
    /// How much, millionths of a US dollar.
    pub amount_micro: u128,
}

/// What stands against a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The article that it would break.
    pub article: String,
    /// How.
    pub what: Broken,
}

/// How a proposal would break an article.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The parameter has no bound, so no vote changes it.
    #[error("`{key}` has no bound")]
    Unbounded {
        /// Which.
        key: String,
    },
    /// The value is outside the bound.
    #[error("`{key}` is to be {to}: it is {min} to {max}")]
    Outside {
        /// Which.
        key: String,
        /// What it is to be.
        to: f64,
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
    /// The step is too long for one vote.
    #[error("`{key}` changes by more than {max_change_pct} percent")]
    Step {
        /// Which.
        key: String,
        /// Longest step.
        max_change_pct: f64,
    },
    /// The text is no constitution, or not the next one.
    #[error("not the next constitution: {reason}")]
    Document {
        /// Why not.
        reason: String,
    },
    /// An entrenched article would say less, or something else.
    #[error("entrenched article `{id}` may only be extended")]
    Entrenched {
        /// Which.
        id: String,
    },
    /// A rule of an entrenched article would do something else, or no longer be reached.
    #[error("`{category}` of level {level:?} in namespace `{namespace}` is to be treated in another way")]
    Weakened {
        /// The level.
        level: Level,
        /// The category.
        category: String,
        /// Where; empty anywhere else than where a rule is for.
        namespace: String,
    },
    /// The proposer alone gains.
    #[error("only the proposer gains from payments of {amount_micro} millionths of a dollar")]
    SoleBeneficiary {
        /// All payments to the proposer alone.
        amount_micro: u128,
    },
}

impl Document {
    /// What stands against a proposal; nothing, if it may be voted on.
    #[must_use]
    pub fn check(&self, proposal: &Proposal) -> Vec<Finding> {
        let mut findings: Vec<_> = proposal.changes.iter().filter_map(|change| self.check_change(change)).collect();
        findings.extend(proposal.constitution.iter().flat_map(|toml| self.check_constitution(toml)));
        findings.extend(check_payments(proposal));
        findings
    }

    fn check_change(&self, change: &Change) -> Option<Finding> {
        let Change { key, from, to } = change.clone();
        let Some(bound) = self.bound(&key) else { return Some(finding(LIMITS, Broken::Unbounded { key })) };
        let (min, max, max_change_pct) = (bound.min, bound.max, bound.max_change_pct);
        // Written so that what is not a number is outside.
        if !(min..=max).contains(&to) {
            return Some(finding(&bound.article, Broken::Outside { key, to, min, max }));
        }
        // From 0 any step is infinitely many percent: only the bound limits it.
        let is_short = from == 0.0 || (to - from).abs() <= from.abs() * max_change_pct / 100.0;
        (!is_short).then(|| finding(&bound.article, Broken::Step { key, max_change_pct }))
    }

    fn check_constitution(&self, toml: &str) -> Vec<Finding> {
        let document = |reason| vec![finding(AMENDMENT, Broken::Document { reason })];
        let new = match Self::parse(toml) {
            Ok(new) => new,
            Err(error) => return document(error.to_string()),
        };
        if new.name() != self.name() || Some(new.version()) != self.version().checked_add(1) {
            return document(format!("it is version {} of `{}`", new.version(), new.name()));
        }
        let entrenched = self.articles().iter().filter(|article| article.entrenched);
        let articles = entrenched.filter(|old| !new.article(&old.id).is_some_and(|new| extends(old, new)));
        let articles = articles.map(|old| finding(&old.id, Broken::Entrenched { id: old.id.clone() }));
        articles.chain(self.weakened_by(&new)).collect()
    }

    /// Rules are compared by what they come to, since one that is put in front of another takes its place.
    fn weakened_by(&self, new: &Self) -> Vec<Finding> {
        let rules = self.rules().iter().chain(new.rules());
        let named: BTreeSet<_> = rules.filter_map(|rule| rule.when.namespace.as_deref()).collect();
        let mut findings = Vec::new();
        for (level, category) in
            Level::ALL.into_iter().flat_map(|level| categories(level).iter().map(move |it| (level, *it)))
        {
            for namespace in named.iter().copied().chain([""]) {
                let Some((old, article)) = self.rule_for(level, category, namespace) else { continue };
                let is_kept = new.rule_for(level, category, namespace).is_some_and(|(new, _)| does_as_much(old, new));
                if article.entrenched && !is_kept {
                    let (category, namespace) = (category.to_owned(), namespace.to_owned());
                    findings.push(finding(&article.id, Broken::Weakened { level, category, namespace }));
                }
            }
        }
        findings
    }
}

fn finding(article: &str, what: Broken) -> Finding {
    Finding { article: article.to_owned(), what }
}

/// Whether an article says all that it said, and perhaps more after it.
fn extends(old: &Article, new: &Article) -> bool {
    let rest = new.text.strip_prefix(&old.text);
    let is_apart = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
    is_apart && new.entrenched && new.title == old.title
}

/// Whether a rule that took another's place comes of the same article and does the same.
fn does_as_much(old: &Rule, new: &Rule) -> bool {
    old.article == new.article && old.measure == new.measure
}

fn check_payments(proposal: &Proposal) -> Option<Finding> {
    let is_alone = |payment: &&Payment| payment.beneficiaries.iter().all(|who| *who == proposal.proposer);
    let alone = proposal.payments.iter().filter(is_alone);
    let amount_micro = alone.fold(0_u128, |sum, payment| sum.saturating_add(payment.amount_micro));
    let is_large = amount_micro > proposal.treasury_micro / LARGE;
    is_large.then(|| finding(SEPARATE_POWERS, Broken::SoleBeneficiary { amount_micro }))
}
