//! Thresholds by the errors on harmless text that a level allows.

use std::collections::BTreeMap;

use super::corpus::{Corpus, Kind, Split};
use crate::moderation::engine::{Engine, Voice};
use crate::moderation::manifest::Threshold;
use crate::moderation::taxonomy::{ACTIONABLE, Category, Level};

/// Share of harmless texts that all heads of a level together may call harmful, and the least upper threshold of a
/// head: who is more likely harmless than not is not restricted. Together they allow 0.5 %.
pub(super) const LIMITS: [(Level, f64, f32); 3] =
    [(Level::H0, 0.000_5, 0.5), (Level::H1, 0.001_5, 0.5), (Level::H2, 0.003, 0.5)];
/// What a level's limit is multiplied by on each kind of harmless text. Lines that look like harm were written to be
/// hard, and what is kept to on them here is exceeded on others like them. Most templates of the grammar are denials and
/// reports of harm, which are rare elsewhere: with 5 for them violent threats had a threshold of 0.94 and a recall of 0.11.
const KINDS: [(Kind, f64); 4] =
    [(Kind::Found, 1.0), (Kind::Everyday, 1.0), (Kind::LookAlike, 0.4), (Kind::Drawn, 20.0)];
/// No head needs more than this: probabilities end below 1.
const MOST: f32 = 0.998;
/// The largest share of a level's limit that a head may use up alone is looked for in steps of a twentieth.
const STEPS: u8 = 20;
/// Sums of shares are not exact.
const ROUNDING: f64 = 1e-6;

/// The scores of a harmless text and what it counts.
type Scored = ([f32; ACTIONABLE], f64);

/// Fits each head's thresholds on the harmless texts of the tuning split, so that the level's limit is kept to on each
/// kind of them.
pub(super) fn fit(engine: &Engine, corpus: &Corpus) -> BTreeMap<Category, Threshold> {
    let mut thresholds: BTreeMap<_, _> =
        Category::ALL.map(|category| (category, Threshold::start(category))).into_iter().collect();
    let pools: Vec<(Vec<Scored>, f64)> =
        KINDS.into_iter().map(|(kind, part)| (pool(engine, corpus, kind), part)).collect();
    for (level, limit, least) in LIMITS {
        let heads: Vec<Category> = Category::ALL.into_iter().filter(|category| category.level() == level).collect();
        let upper: Vec<Vec<f32>> = pools.iter().map(|(pool, part)| level_of(&heads, pool, limit * part)).collect();
        for (n, head) in heads.into_iter().enumerate() {
            let hi = upper.iter().filter_map(|of_pool| of_pool.get(n)).fold(least, |most, hi| hi.max(most)).min(MOST);
            thresholds.insert(head, around(head, hi));
        }
    }
    thresholds
}

fn pool(engine: &Engine, corpus: &Corpus, kind: Kind) -> Vec<Scored> {
    let harmless = corpus.examples.iter().filter(|example| example.split == Split::Tune && example.truth.is_benign());
    let of_kind = harmless.filter(|example| example.kind == kind);
    of_kind.map(|example| (engine.scores(&example.text, Voice::Both).actionable.0, example.share)).collect()
}

/// The least thresholds of a level's heads that keep to its limit on a pool of harmless texts: each head gets the same
/// share of the errors, the largest with which all of them together keep to it.
fn level_of(heads: &[Category], pool: &[Scored], limit: f64) -> Vec<f32> {
    let all: f64 = pool.iter().map(|(_, share)| share).sum();
    let mut columns: Vec<Vec<(f32, f64)>> =
        heads.iter().map(|head| pool.iter().map(|(scores, share)| (scores[head.index()], *share)).collect()).collect();
    for step in (0..=STEPS).rev() {
        let allowed = all * limit * f64::from(step) / f64::from(STEPS);
        let upper: Vec<f32> = columns.iter_mut().map(|of_head| above(of_head, allowed)).collect();
        let is_wrong =
            |scores: &[f32; ACTIONABLE]| heads.iter().zip(&upper).any(|(head, hi)| scores[head.index()] >= *hi);
        let wrong: f64 = pool.iter().filter(|(scores, _)| is_wrong(scores)).map(|(_, share)| share).sum();
        if step == 0 || wrong <= all * limit + ROUNDING {
            return upper;
        }
    }
    Vec::new()
}

/// The band below an upper threshold in which a head is uncertain.
fn around(category: Category, hi: f32) -> Threshold {
    Threshold { lo: Threshold::start(category).lo.min(hi * 0.8), hi }
}

/// The least threshold that no more of the scores reach than is allowed.
fn above(scores: &mut [(f32, f64)], allowed: f64) -> f32 {
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut reached = 0.0;
    let first_too_many = scores.iter().find(|(_, share)| {
        reached += share;
        reached > allowed + ROUNDING
    });
    first_too_many.map_or(0.0, |(score, _)| score.next_up())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_a_level_keep_to_its_limit_together() {
        let heads = [Category::Hate, Category::Spam];
        // Each head is wrong about other texts.
        let pool: Vec<Scored> = (0..100_u8)
            .map(|n| {
                let mut scores = [0.0; ACTIONABLE];
                scores[heads[usize::from(n % 2)].index()] = f32::from(n) / 100.0;
                (scores, 0.5)
            })
            .collect();
        let upper = level_of(&heads, &pool, 0.1);
        let wrong = pool.iter().filter(|(all, _)| heads.iter().zip(&upper).any(|(head, hi)| all[head.index()] >= *hi));
        assert_eq!(wrong.count(), 10);
        assert_eq!(level_of(&heads, &[], 0.1), [0.0, 0.0]);
    }

    #[test]
    fn what_is_allowed_and_no_more_reaches_the_threshold() {
        let all = [(0.1, 1.0), (0.9, 1.0), (0.3, 1.0), (0.5, 1.0), (0.7, 1.0)];
        let reached = |threshold: f32| all.iter().filter(|(score, _)| *score >= threshold).count();
        assert_eq!(reached(above(&mut all.clone(), 0.0)), 0);
        assert_eq!(reached(above(&mut all.clone(), 2.0)), 2);
        assert_eq!(reached(above(&mut all.clone(), 2.9)), 2);
        assert_eq!(reached(above(&mut all.clone(), 5.0)), 5);
        assert!(above(&mut [], 0.5).abs() < f32::EPSILON);
    }
}
