//! Whether passages answer a question, judged by which of its words they have.
//!
//! Every describing word of the question weighs its inverse document frequency; words that the memory does not have
//! weigh most. A passage covers a share of that weight. Pure.

use crate::context::{Gap, GapKind};
use crate::lexical::search::Sought;

/// Confidence from which an answer should be given.
pub const ANSWER_FROM: f32 = 0.5;

/// Share of the weight that a missing word must have to be told as a gap.
const GAP_SHARE: f32 = 0.3;
/// Passages that may complete each other.
const TOGETHER: usize = 3;

/// What the passages are worth as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// How sure it is that they answer the question, in `[0, 1]`.
    pub confidence: f32,
    /// Whether that is enough.
    pub answerable: bool,
    /// What they lack.
    pub gaps: Vec<Gap>,
}

/// Share of the question's weight that one passage covers, in `[0, 1]`.
pub fn share(sought: &[Sought], covered: &[f32]) -> f32 {
    let whole: f32 = sought.iter().map(weight).sum();
    let part: f32 = sought.iter().zip(covered).map(|(word, covered)| weight(word) * covered).sum();
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Words that only ask are nothing an answer must contain.
fn weight(word: &Sought) -> f32 {
    if word.asks { 0.0 } else { word.idf }
}

/// Judges passages, best first, by what each covers.
pub fn assess(sought: &[Sought], passages: &[Vec<f32>]) -> Assessment {
    let best = passages.iter().map(|covered| share(sought, covered)).fold(0.0, f32::max);
    let union = union(sought.len(), passages.iter().take(TOGETHER));
    let together = share(sought, &union);
    let confidence = confidence(best, together);
    Assessment { confidence, answerable: confidence >= ANSWER_FROM, gaps: gaps(sought, &union) }
}

fn union<'a>(words: usize, passages: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    let mut union = vec![0.0f32; words];
    for covered in passages {
        for (all, one) in union.iter_mut().zip(covered) {
            *all = all.max(*one);
        }
    }
    union
}

/// Grows with what the best passage covers alone, and with what the first ones cover together.
fn confidence(best: f32, together: f32) -> f32 {
    1.0 / (1.0 + (-(8.0 * best + 4.0 * together - 7.8)).exp())
}

/// Names and numbers that are nowhere, and words that weigh much and are in none of the first passages.
fn gaps(sought: &[Sought], union: &[f32]) -> Vec<Gap> {
    let whole: f32 = sought.iter().map(weight).sum();
    let mut gaps = Vec::new();
    for (n, (word, covered)) in sought.iter().zip(union).enumerate() {
        if *covered > 0.0 || weight(word) <= 0.0 {
            continue;
        }
        let named = n > 0 && word.word.starts_with(char::is_uppercase) || word.word.starts_with(char::is_numeric);
        let kind = if named && word.df == 0 {
            GapKind::UnknownEntity
        } else if weight(word) >= GAP_SHARE * whole {
            GapKind::UncoveredTerm
        } else {
            continue;
        };
        gaps.push(Gap { kind, text: word.word.clone() });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sought(words: &[(&str, u64, f32)]) -> Vec<Sought> {
        let word = |&(word, df, idf): &(&str, u64, f32)| Sought {
            word: word.to_owned(),
            terms: vec![word.to_lowercase()],
            df,
            idf,
            asks: false,
            fuzzy: false,
        };
        words.iter().map(word).collect()
    }

    #[test]
    fn a_passage_with_all_words_answers_and_one_with_none_does_not() {
        let sought = sought(&[("deep", 9, 2.0), ("well", 5, 3.0)]);
        assert!(assess(&sought, &[vec![1.0, 1.0]]).answerable);
        assert!(!assess(&sought, &[vec![1.0, 0.0]]).answerable);
        assert!(!assess(&sought, &[]).answerable);
    }

    #[test]
    fn what_is_missing_is_told() {
        let sought = sought(&[("where", 3, 1.0), ("Zanzibar", 0, 6.0), ("harbour", 2, 5.0)]);
        let gaps = assess(&sought, &[vec![1.0, 0.0, 0.0]]).gaps;
        let kinds: Vec<_> = gaps.iter().map(|gap| (gap.kind, gap.text.as_str())).collect();
        assert_eq!(kinds, [(GapKind::UnknownEntity, "Zanzibar"), (GapKind::UncoveredTerm, "harbour")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn more_coverage_never_lowers_confidence(
            idf in prop::collection::vec(0.1f32..8.0, 1..6),
            passages in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0.0f32), Just(1.0f32)], 6), 1..4),
            (passage, word) in (0usize..4, 0usize..6),
        ) {
            let sought: Vec<_> = idf.iter().flat_map(|idf| sought(&[("word", 1, *idf)])).collect();
            let before = assess(&sought, &passages).confidence;
            let mut better = passages.clone();
            let at = passage % passages.len();
            better[at][word] = 1.0;
            prop_assert!(assess(&sought, &better).confidence >= before);
        }
    }
}
