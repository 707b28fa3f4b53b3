//! Names, addresses and places: what no check digit tells. A linear tagger looks at each word that begins with a capital, at
//! its neighbours, and at what lists know of it; the model is in the program, and its card is `governance/models/names.md`.
//!
//! Collins 2002, "Discriminative training methods for hidden Markov models": averaged perceptron, decoded from left to right.

mod features;
pub(super) mod model;
mod tokens;
pub mod train;

use std::ops::Range;
use std::sync::LazyLock;

use features::Known;
use model::{Model, Tag};
use tokens::{Shape, Token};

use super::{DataKind, Finding};

/// The model of this release.
static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::decode(include_bytes!("../../models/names.avnm")).expect("the model is a constant and a test reads it")
});

/// Lowest and highest score of what is found here: no word is as sure as a check digit.
const SCORES: (u8, u8) = (55, 90);

/// Kinds that are found here.
pub(super) const KINDS: [DataKind; 3] = [DataKind::Name, DataKind::Address, DataKind::Place];

/// Findings of the wanted kinds, in order. Words in `deaf` ranges (placeholders, sorted) are never part of one.
pub(super) fn scan(text: &str, deaf: &[Range<usize>], wanted: impl Fn(DataKind) -> bool) -> Vec<Finding> {
    let mut found = find(&MODEL, text, deaf);
    found.retain(|finding| wanted(finding.kind));
    found
}

fn find(model: &Model, text: &str, deaf: &[Range<usize>]) -> Vec<Finding> {
    let tokens = tokens::split(text, deaf);
    let known: Vec<Known> = tokens.iter().map(|token| Known::of(text, token, model)).collect();
    spans(text, &tokens, &model.tag(&known))
}

/// Runs of tags as findings, without the punctuation at their ends.
fn spans(text: &str, tokens: &[Token], tags: &[(Tag, i32)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((tag, _)) = tags.get(at) {
        let Some(kind) = tag.kind() else {
            at += 1;
            continue;
        };
        let more = tags.iter().skip(at + 1).take_while(|(next, _)| *next == tag.inside()).count();
        let (run, margins) = (at..at + 1 + more, tags.get(at..at + 1 + more).unwrap_or_default());
        found.extend(finding(text, tokens.get(run).unwrap_or_default(), kind, margins));
        at += 1 + more;
    }
    found
}

fn finding(text: &str, tokens: &[Token], kind: DataKind, margins: &[(Tag, i32)]) -> Option<Finding> {
    let last = tokens.iter().rposition(|token| token.shape != Shape::Mark)?;
    let tokens = tokens.get(..=last)?;
    let word = |token: &&Token| token.shape.is_word() && token.len() > 1;
    let is_one = match kind {
        // A street without a house is no address, and a number without a street neither.
        DataKind::Address => {
            tokens.iter().any(|token| token.shape == Shape::Number) && tokens.iter().any(|token| word(&token))
        }
        _ => tokens.iter().any(|token| word(&token)),
    };
    let span = tokens.first()?.start..tokens.last()?.end;
    let sum: i32 = margins.iter().map(|(_, margin)| *margin).sum();
    let mean = sum / i32::try_from(margins.len()).unwrap_or(1).max(1);
    let score = i32::from(SCORES.0) + mean / model::MARGIN_UNIT;
    let score = u8::try_from(score.clamp(i32::from(SCORES.0), i32::from(SCORES.1))).unwrap_or(SCORES.0);
    (is_one && text.get(span.clone()).is_some()).then_some(Finding { kind, span, score })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(DataKind, &str)> {
        scan(text, &[], |_| true).into_iter().map(|finding| (finding.kind, &text[finding.span])).collect()
    }

    #[test]
    fn people_are_found_in_the_forms_in_which_they_are_written() {
        for (text, name) in [
            ("The nurse told Maria Gonzalez to wait.", "Maria Gonzalez"),
            ("Please ask Dr. Whitaker about it.", "Whitaker"),
            ("I saw Jean-Luc Moreau yesterday.", "Jean-Luc Moreau"),
            ("signed by J. R. Thompson", "J. R. Thompson"),
            ("Patient: Kowalski, Anna", "Kowalski, Anna"),
            ("Vincent van Dijk has not paid.", "Vincent van Dijk"),
            ("Siobhan O'Connor's car is here.", "Siobhan O'Connor"),
        ] {
            assert_eq!(found(text), [(DataKind::Name, name)], "{text}");
        }
    }

    #[test]
    fn addresses_are_found_in_the_order_of_their_land() {
        for (text, address) in [
            ("She lives at 48 Maple Avenue now.", "48 Maple Avenue"),
            ("Er wohnt in der Lindenstraße 12.", "Lindenstraße 12"),
            ("Elle habite 7 rue de la Gare.", "7 rue de la Gare"),
            ("Vive en Calle Toledo 33.", "Calle Toledo 33"),
        ] {
            assert_eq!(found(text), [(DataKind::Address, address)], "{text}");
        }
    }

    #[test]
    fn ordinary_words_with_capitals_are_nobody() {
        for text in [
            "The bridge is old.",
            "May I come on Sunday?",
            "Will Mark be read as a verb? Mark the box.",
            "Grace period: 14 days",
            "Install Docker and Kubernetes, then restart Redis.",
            "The New York Times and the Oxford English Dictionary",
            "WARNING: Could not open file",
            "Chapter 12: The History of the Bridge",
        ] {
            let names: Vec<_> = found(text).into_iter().filter(|(kind, _)| *kind != DataKind::Place).collect();
            assert_eq!(names, [], "{text}");
        }
    }

    #[test]
    fn words_of_placeholders_are_never_part_of_a_name() {
        let text = "Maria [NAME_1] Gonzalez";
        for finding in scan(text, &[6..14], |_| true) {
            assert!(finding.span.end <= 6 || finding.span.start >= 14, "{finding:?}");
        }
    }

    #[test]
    fn the_model_is_small_and_what_is_no_model_is_refused() {
        let bytes = include_bytes!("../../models/names.avnm");
        assert!(bytes.len() <= 1 << 20, "{}", bytes.len());
        assert!(Model::decode(bytes).is_ok());
        for cut in [0, 3, 8, 20, bytes.len() - 1] {
            assert!(Model::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut other = bytes.to_vec();
        other[0] ^= 1;
        assert!(Model::decode(&other).is_err());
    }
}
