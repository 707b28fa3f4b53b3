//! What a sender may not do for a while, and why.
//!
//! | level | what follows |
//! |---|---|
//! | H0 | suspended for the hours of the rule; for longer only if the second look agrees |
//! | H1 | suspended when strikes reach the number of the rule; a strike weighs half after each 30 days |
//! | H2 | by category, within 30 days: a notice, limited for an hour, limited for a day, blocked for a week |

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::{CaseId, DAY_MS, HOUR_MS, SHARDS, Sender, Terms};
use crate::moderation::{Category, Level};

/// After this a strike weighs half, and a rung of the ladder is forgotten.
const HALF_LIFE_MS: u64 = 30 * DAY_MS;
/// Half-lives after which a strike is forgotten: it weighs a thousandth.
const FORGOTTEN: u64 = 10;
/// How long H0 is suspended once the second look agrees: what H1 has at most.
pub(crate) const CONFIRMED_MS: u64 = 7 * DAY_MS;
/// What is remembered of one sender. Older marks weigh less and go first.
const MARKS: usize = 256;

/// What a sender may not do, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Nothing is kept from them: it was said, no more.
    Nothing,
    /// Content of the category has a smaller reach.
    Limited,
    /// Content of the category does not pass.
    Blocked,
    /// They may do nothing.
    Suspended,
}

/// What a case keeps its sender from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restriction {
    /// What.
    pub kept: Kept,
    /// Until when, Unix milliseconds; 0 for nothing.
    pub until_ms: u64,
}

impl Restriction {
    /// None.
    pub const NONE: Self = Self { kept: Kept::Nothing, until_ms: 0 };

    fn of(kept: Kept, until_ms: u64) -> Self {
        Self { kept, until_ms }
    }

    /// Whether it binds now.
    #[must_use]
    pub fn binds(&self, now_ms: u64) -> bool {
        self.kept > Kept::Nothing && now_ms < self.until_ms
    }
}

/// What a case has left behind with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which case.
    pub case: CaseId,
    /// What was found.
    pub category: Category,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// What it keeps the sender from.
    pub restriction: Restriction,
}

/// What is known of one sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    marks: Vec<Mark>,
}

impl Standing {
    /// Strikes for H1 at a time, in thousandths.
    #[must_use]
    pub fn strikes_milli(&self, now_ms: u64) -> u64 {
        let of_h1 = self.marks.iter().filter(|mark| mark.category.level() == Level::H1);
        of_h1.map(|mark| 1_000_u64 >> (now_ms.saturating_sub(mark.at_ms) / HALF_LIFE_MS).min(63)).sum()
    }

    /// Rungs of the ladder of an H2 category that the sender stands on.
    #[must_use]
    pub fn rung(&self, category: Category, now_ms: u64) -> usize {
        let is_young = |mark: &&Mark| now_ms.saturating_sub(mark.at_ms) < HALF_LIFE_MS;
        self.marks.iter().filter(|mark| mark.category == category).filter(is_young).count()
    }

    /// What one more verdict leads to.
    #[must_use]
    pub fn next(&self, category: Category, terms: &Terms, now_ms: u64) -> Restriction {
        let suspended = || {
            let hours = u64::from(terms.suspend_hours);
            Restriction::of(Kept::Suspended, now_ms.saturating_add(hours.saturating_mul(HOUR_MS)))
        };
        match category.level() {
            Level::H0 => suspended(),
            Level::H1 => {
                let enough = terms.strikes > 0
                    && self.strikes_milli(now_ms).saturating_add(1_000) >= u64::from(terms.strikes) * 1_000;
                if enough { suspended() } else { Restriction::NONE }
            }
            Level::H2 => match self.rung(category, now_ms) {
                0 => Restriction::NONE,
                1 => Restriction::of(Kept::Limited, now_ms.saturating_add(HOUR_MS)),
                2 => Restriction::of(Kept::Limited, now_ms.saturating_add(DAY_MS)),
                _ => Restriction::of(Kept::Blocked, now_ms.saturating_add(7 * DAY_MS)),
            },
            Level::H3 => Restriction::NONE,
        }
    }

    pub(super) fn add(&mut self, mark: Mark) {
        let now_ms = mark.at_ms;
        self.marks.retain(|old| now_ms.saturating_sub(old.at_ms) < FORGOTTEN * HALF_LIFE_MS);
        if self.marks.len() >= MARKS {
            self.marks.remove(0);
        }
        self.marks.push(mark);
    }

    /// The case does not keep the sender from anything any more; it still counts.
    pub(super) fn lift(&mut self, case: CaseId) {
        self.restrict(case, &Restriction::NONE);
    }

    pub(super) fn restrict(&mut self, case: CaseId, restriction: &Restriction) {
        for mark in self.marks.iter_mut().filter(|mark| mark.case == case) {
            mark.restriction = restriction.clone();
        }
    }

    /// As if the case had never been.
    pub(super) fn clear(&mut self, case: CaseId) {
        self.marks.retain(|mark| mark.case != case);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// What binds at a time.
    fn binding(&self, now_ms: u64) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(move |mark| mark.restriction.binds(now_ms))
    }
}

/// What is kept from senders, read without a message. Clones see the same.
///
/// It follows the copies of the cases on this node, and so is behind by as much as they are.
#[derive(Debug, Clone)]
pub struct Standings(Arc<[ArcSwap<BTreeMap<Sender, Standing>>]>);

impl Default for Standings {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| ArcSwap::default()).collect())
    }
}

impl Standings {
    /// What suspends a sender now: of several the one that does so longest.
    #[must_use]
    pub fn suspended(&self, sender: &Sender, now_ms: u64) -> Option<Mark> {
        self.most(sender, now_ms, |mark| mark.restriction.kept == Kept::Suspended)
    }

    /// What is kept from a sender in a category now, with the case.
    #[must_use]
    pub fn kept(&self, sender: &Sender, category: Category, now_ms: u64) -> Option<(CaseId, Restriction)> {
        let concerns = |mark: &Mark| mark.category == category || mark.restriction.kept == Kept::Suspended;
        self.most(sender, now_ms, concerns).map(|mark| (mark.case, mark.restriction))
    }

    fn most(&self, sender: &Sender, now_ms: u64, is_meant: impl Fn(&Mark) -> bool) -> Option<Mark> {
        let shown = self.0.get(usize::from(sender.shard()))?.load();
        let meant = shown.get(sender)?.binding(now_ms).filter(|mark| is_meant(mark));
        meant.max_by_key(|mark| (mark.restriction.kept, mark.restriction.until_ms)).cloned()
    }

    pub(crate) fn show(&self, shard: u8, standings: &BTreeMap<Sender, Standing>) {
        if let Some(slot) = self.0.get(usize::from(shard)) {
            slot.store(Arc::new(standings.clone()));
        }
    }
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn terms(strikes: u8, suspend_hours: u32) -> Terms {
        Terms { rule: "R".into(), article: "A1.2".into(), version: 1, strikes, suspend_hours, appeal_days: 30 }
    }

    fn mark(n: u128, category: Category, at_ms: u64) -> Mark {
        let case = CaseId::of(Uuid::from_u128(n << 8), &Sender::new("acme", "ann"));
        Mark { case, category, at_ms, restriction: Restriction::NONE }
    }

    fn after(marks: impl IntoIterator<Item = Mark>) -> Standing {
        let mut standing = Standing::default();
        marks.into_iter().for_each(|mark| standing.add(mark));
        standing
    }

    #[test]
    fn the_third_strike_suspends_for_a_week_and_old_ones_weigh_half() {
        let (extortion, rule) = (Category::Extortion, terms(3, 168));
        let twice = after([mark(1, extortion, 0), mark(2, Category::Ncii, 1)]);
        assert_eq!(after([mark(1, extortion, 0)]).next(extortion, &rule, 2), Restriction::NONE);
        let suspended = twice.next(extortion, &rule, 2);
        assert_eq!(suspended, Restriction::of(Kept::Suspended, 2 + 7 * DAY_MS));
        assert_eq!(twice.strikes_milli(HALF_LIFE_MS + 1), 1_000);
        assert_eq!(twice.next(extortion, &rule, HALF_LIFE_MS + 1), Restriction::NONE);
        assert_eq!(twice.strikes_milli(u64::MAX), 0);
        // A rule without strikes never suspends.
        assert_eq!(twice.next(extortion, &terms(0, 168), 2), Restriction::NONE);
    }

    #[test]
    fn h2_climbs_a_ladder_of_its_own_category_and_h3_none() {
        let rule = terms(0, 0);
        let marks = |n: u64| after((0..n).map(|at| mark(u128::from(at), Category::Spam, at)));
        let next = |n| marks(n).next(Category::Spam, &rule, 10);
        assert_eq!(next(0), Restriction::NONE);
        assert_eq!(next(1), Restriction::of(Kept::Limited, 10 + HOUR_MS));
        assert_eq!(next(2), Restriction::of(Kept::Limited, 10 + DAY_MS));
        assert_eq!(next(3), Restriction::of(Kept::Blocked, 10 + 7 * DAY_MS));
        assert_eq!(next(9), next(3));
        assert_eq!(marks(3).next(Category::Gore, &rule, 10), Restriction::NONE);
        assert_eq!(marks(3).next(Category::Spam, &rule, 10 + HALF_LIFE_MS), Restriction::NONE);
        assert_eq!(marks(9).next(Category::Protest, &rule, 10), Restriction::NONE);
    }

    #[test]
    fn what_binds_is_told_by_category_and_a_suspension_in_all() {
        let sender = Sender::new("acme", "ann");
        let mut limited = mark(1, Category::Spam, 0);
        limited.restriction = Restriction::of(Kept::Limited, 50);
        let mut suspended = mark(2, Category::Ncii, 0);
        suspended.restriction = Restriction::of(Kept::Suspended, 20);
        let standings = Standings::default();
        standings.show(sender.shard(), &[(sender.clone(), after([limited.clone(), suspended.clone()]))].into());
        assert_eq!(standings.suspended(&sender, 10), Some(suspended.clone()));
        assert_eq!(standings.kept(&sender, Category::Gore, 10).unwrap().1.kept, Kept::Suspended);
        assert_eq!(standings.suspended(&sender, 20), None);
        assert_eq!(standings.kept(&sender, Category::Spam, 20), Some((limited.case, limited.restriction)));
        assert_eq!(standings.kept(&sender, Category::Gore, 20), None);
        assert_eq!(standings.suspended(&Sender::new("acme", "bob"), 10), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn strikes_only_fall_with_time_and_marks_are_bounded(ats in prop::collection::vec(0_u64..HALF_LIFE_MS * 12, 0..300), later in 0..HALF_LIFE_MS) {
            let mut ats = ats;
            ats.sort_unstable();
            let last = ats.last().copied().unwrap_or_default();
            let standing = after(ats.into_iter().enumerate().map(|(n, at)| mark(n as u128, Category::Ncii, at)));
            prop_assert!(standing.marks.len() <= MARKS);
            prop_assert!(standing.strikes_milli(last + later) <= standing.strikes_milli(last));
        }
    }
}
