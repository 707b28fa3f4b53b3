//! Figures of ranking and calibration, and those of a model on its test split.

use std::collections::BTreeMap;

use super::corpus::{Corpus, Kind, Split};
use super::thresholds::LIMITS;
use crate::moderation::engine::{Engine, Voice};
use crate::moderation::manifest::Manifest;
use crate::moderation::taxonomy::{ACTIONABLE, Category};

/// Bins of the calibration error.
const BINS: u8 = 15;

#[expect(clippy::cast_precision_loss, reason = "counts of examples")]
fn ratio(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// Probability that a harmful text scores above a harmless one, ties half; 0.5 without both. Area under the ROC curve.
#[must_use]
pub fn auroc(scores: &[(f64, bool)]) -> f64 {
    let mut sorted: Vec<&(f64, bool)> = scores.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut pairs) = (0_usize, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let yes = tied.iter().filter(|(_, yes)| *yes).count();
        let no = tied.len() - yes;
        pairs += ratio(yes, 1) * (ratio(below, 1) + ratio(no, 2));
        below += no;
    }
    let yes = scores.len() - below;
    if yes == 0 || below == 0 { 0.5 } else { pairs / (ratio(yes, 1) * ratio(below, 1)) }
}

/// Average precision: the mean of the precision at each harmful text, in order of score. Area under precision and
/// recall.
#[must_use]
pub fn average_precision(scores: &[(f64, bool)]) -> f64 {
    let mut sorted: Vec<&(f64, bool)> = scores.iter().collect();
    // Of equal scores the harmless come first: no luck of the order.
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let (mut found, mut sum) = (0, 0.0);
    for (seen, (_, yes)) in sorted.into_iter().enumerate() {
        if *yes {
            found += 1;
            sum += ratio(found, seen + 1);
        }
    }
    if found == 0 { 0.0 } else { sum / ratio(found, 1) }
}

/// Expected calibration error over 15 bins of equal width: how far probabilities are from frequencies.
#[must_use]
pub fn calibration_error(scores: &[(f64, bool)]) -> f64 {
    let width = 1.0 / f64::from(BINS);
    let mut error = 0.0;
    for bin in 0..BINS {
        let from = f64::from(bin) * width;
        let is_last = bin + 1 == BINS;
        let inside = scores.iter().filter(|(p, _)| *p >= from && (*p < from + width || is_last));
        let (mut sum, mut yes, mut all) = (0.0, 0, 0);
        for (p, is_yes) in inside {
            (sum, yes, all) = (sum + p, yes + usize::from(*is_yes), all + 1);
        }
        error += (sum - ratio(yes, 1)).abs();
        debug_assert!(yes <= all, "a bin has no more harmful texts than texts");
    }
    if scores.is_empty() { 0.0 } else { error / ratio(scores.len(), 1) }
}

/// Figures of a model on the test split, all lines of a template counted as one: `fpr.<level>` on harmless text,
/// `fpr.<level>.drawn` on that of the grammar, `recall.<category>` at the upper threshold,
/// `recall.<level>` their mean, `auroc.<category>`, `any_harm.auroc`, `any_harm.auprc`, `ece`, and counts.
#[must_use]
pub fn measure(engine: &Engine, corpus: &Corpus) -> BTreeMap<String, f64> {
    let test: Vec<_> = corpus.examples.iter().filter(|example| example.split == Split::Test).collect();
    let scores: Vec<_> = test.iter().map(|example| engine.scores(&example.text, Voice::Both).actionable.0).collect();
    let thresholds = engine.manifest().by_head();
    let mut metrics = BTreeMap::new();
    let (mut any, mut all_pairs) = (Vec::new(), Vec::new());
    for (example, scores) in test.iter().zip(&scores) {
        let is_harm = example.truth.is_harm();
        if is_harm || example.truth.is_benign() {
            any.push((f64::from(scores.iter().copied().fold(0.0, f32::max)), is_harm));
        }
        let known = (0..ACTIONABLE).filter_map(|head| Some((f64::from(scores[head]), example.truth.head(head)?)));
        all_pairs.extend(known);
    }
    metrics.insert("test.examples".to_owned(), ratio(test.len(), 1));
    metrics.insert("any_harm.auroc".to_owned(), auroc(&any));
    metrics.insert("any_harm.auprc".to_owned(), average_precision(&any));
    metrics.insert("ece".to_owned(), calibration_error(&all_pairs));
    for (level, ..) in LIMITS {
        let heads: Vec<Category> = Category::ALL.into_iter().filter(|category| category.level() == level).collect();
        for (kind, name) in [(Kind::Found, ""), (Kind::Drawn, ".drawn"), (Kind::Everyday, ".everyday")] {
            let harmless =
                test.iter().zip(&scores).filter(|(example, _)| example.truth.is_benign() && example.kind == kind);
            let (mut wrong, mut all) = (0.0, 0.0);
            for (example, scores) in harmless {
                let is_wrong = heads.iter().any(|head| scores[head.index()] >= thresholds[head.index()].hi);
                all += example.share;
                wrong += if is_wrong { example.share } else { 0.0 };
            }
            metrics.insert(format!("fpr.{level:?}{name}"), if all > 0.0 { wrong / all } else { 0.0 });
            metrics.insert(format!("test.harmless{name}"), all);
        }
        let mut recalls = Vec::new();
        for category in heads {
            let head = category.index();
            let pairs: Vec<(f64, bool)> = test
                .iter()
                .zip(&scores)
                .filter_map(|(example, scores)| Some((f64::from(scores[head]), example.truth.head(head)?)))
                .collect();
            let harmful = test.iter().zip(&scores).filter(|(example, _)| example.truth.head(head) == Some(true));
            let (mut found, mut all) = (0.0, 0.0);
            for (example, scores) in harmful {
                all += example.share;
                found += if scores[head] >= thresholds[head].hi { example.share } else { 0.0 };
            }
            if all <= 0.0 {
                continue;
            }
            recalls.push(found / all);
            metrics.insert(format!("recall.{}", category.code()), found / all);
            metrics.insert(format!("auroc.{}", category.code()), auroc(&pairs));
        }
        metrics.insert(format!("recall.{level:?}"), recalls.iter().sum::<f64>() / ratio(recalls.len().max(1), 1));
    }
    metrics
}

/// Figures as lines for people.
#[must_use]
pub fn table(manifest: &Manifest) -> String {
    manifest.metrics.iter().map(|(name, value)| format!("{name:<34} {value:.4}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_figures_of_small_cases() {
        let scores = [(0.9, true), (0.8, false), (0.7, true), (0.1, false)];
        assert!((auroc(&scores) - 0.75).abs() < 1e-12);
        assert!((average_precision(&scores) - f64::midpoint(1.0, 2.0 / 3.0)).abs() < 1e-12);
        assert!((auroc(&[(0.5, true), (0.5, false)]) - 0.5).abs() < 1e-12, "a tie is worth half");
        assert!((auroc(&[(0.5, true)]) - 0.5).abs() < 1e-12 && average_precision(&[]).abs() < 1e-12);
    }

    #[test]
    fn calibration_error_is_distance_from_frequency() {
        let right: Vec<(f64, bool)> = (0..100).map(|n| (0.25, n % 4 == 0)).collect();
        assert!(calibration_error(&right) < 1e-9);
        assert!((calibration_error(&[(1.0, false), (1.0, true)]) - 0.5).abs() < 1e-12);
    }
}
