//! Thresholds by the errors on harmless text that a level allows.

use std::collections::BTreeMap;

use super::corpus::{Corpus, Split};
use crate::moderation::engine::{Engine, Voice};
use crate::moderation::manifest::Threshold;
use crate::moderation::taxonomy::{ACTIONABLE, Category, Level};

/// Share of harmless texts that all heads of a level together may call harmful, and the least upper threshold of a
/// head, however well it parts the tuning texts.
pub(super) const LIMITS: [(Level, f64, f32); 3] =
    [(Level::H0, 0.000_5, 0.8), (Level::H1, 0.002, 0.7), (Level::H2, 0.01, 0.6)];
/// No head needs more than this: probabilities end below 1.
const MOST: f32 = 0.998;
/// The largest share of a level's limit that a head may use up alone is looked for in steps of a tenth.
const STEPS: u8 = 10;

/// Fits each head's thresholds on the harmless texts of the tuning split. Each head of a level gets the same share of
/// its errors, the largest with which all of them together keep to the level's limit.
pub(super) fn fit(engine: &Engine, corpus: &Corpus) -> BTreeMap<Category, Threshold> {
    let harmless = corpus.examples.iter().filter(|example| example.split == Split::Tune && example.truth.is_benign());
    let scores: Vec<_> = harmless.map(|example| engine.scores(&example.text, Voice::Both).actionable.0).collect();
    let mut thresholds: BTreeMap<_, _> =
        Category::ALL.map(|category| (category, Threshold::start(category))).into_iter().collect();
    for (level, limit, least) in LIMITS {
        let heads: Vec<Category> = Category::ALL.into_iter().filter(|category| category.level() == level).collect();
        let mut columns: Vec<Vec<f32>> =
            heads.iter().map(|head| scores.iter().map(|all| all[head.index()]).collect()).collect();
        let steps = (1..=STEPS).rev().map(|step| limit * f64::from(step) / f64::from(STEPS)).chain([0.0]);
        for share in steps {
            let upper: Vec<f32> = columns.iter_mut().map(|of_head| above(of_head, share).clamp(least, MOST)).collect();
            let is_wrong =
                |all: &&[f32; ACTIONABLE]| heads.iter().zip(&upper).any(|(head, hi)| all[head.index()] >= *hi);
            if scores.iter().filter(is_wrong).count() <= allowed(scores.len(), limit) || share <= 0.0 {
                thresholds.extend(heads.iter().zip(upper).map(|(head, hi)| (*head, around(*head, hi))));
                break;
            }
        }
    }
    thresholds
}

/// The band below an upper threshold in which a head is uncertain.
fn around(category: Category, hi: f32) -> Threshold {
    Threshold { lo: Threshold::start(category).lo.min(hi * 0.8), hi }
}

/// The least threshold that at most a share of the scores reaches.
fn above(scores: &mut [f32], share: f64) -> f32 {
    scores.sort_by(|a, b| b.total_cmp(a));
    let allowed = allowed(scores.len(), share);
    scores.get(allowed).map_or(0.0, |score| score.next_up())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a count")]
fn allowed(all: usize, share: f64) -> usize {
    (all as f64 * share).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_and_no_more_reaches_the_threshold() {
        let mut scores = [0.1, 0.9, 0.3, 0.5, 0.7];
        let reached = |threshold: f32| [0.1, 0.9, 0.3, 0.5, 0.7].iter().filter(|score| **score >= threshold).count();
        assert_eq!(reached(above(&mut scores, 0.0)), 0);
        assert_eq!(reached(above(&mut scores, 0.4)), 2);
        assert_eq!(reached(above(&mut scores, 0.59)), 2);
        assert!(above(&mut [], 0.5).abs() < f32::EPSILON);
    }
}
