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

use features::{Known, flag};
use model::{Model, Tag};
use tokens::{Shape, Token};

use super::{DataKind, Finding};

/// The model of this release.
static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::decode(include_bytes!("../../models/names.avnm")).expect("the model is a constant and a test reads it")
});

/// Lowest and highest score of what is found here: no word is as sure as a check digit.
const SCORES: (u8, u8) = (55, 90);

/// What streets are called where the house comes behind them, or before a word that stands for the street.
const STREETS: [&str; 22] = [
    "rue",
    "avenue",
    "boulevard",
    "chemin",
    "allée",
    "quai",
    "impasse",
    "place",
    "calle",
    "avenida",
    "plaza",
    "paseo",
    "via",
    "viale",
    "corso",
    "piazza",
    "rua",
    "ul",
    "ulica",
    "strada",
    "straße",
    "strasse",
];
/// How the names of streets end in languages that write both in one word.
const STREET_ENDS: [&str; 18] = [
    "straße", "strasse", "str", "weg", "gasse", "platz", "allee", "ufer", "damm", "straat", "laan", "gracht", "plein",
    "kade", "gatan", "vägen", "vej", "gade",
];

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
    spans(text, &tokens, &known, &model.tag(&known))
}

/// Runs of tags as findings.
fn spans(text: &str, tokens: &[Token], known: &[Known], tags: &[(Tag, i32)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let (mut at, mut before) = (0, 0);
    while let Some((tag, _)) = tags.get(at) {
        let Some(kind) = tag.kind() else {
            at += 1;
            continue;
        };
        let more = tags.iter().skip(at + 1).take_while(|(next, _)| *next == tag.inside()).count();
        let run = Run { text, kind, tokens, known };
        let end = at + 1 + more + run.surnames(at + 1 + more);
        let start = at - run.forenames(before..at);
        found.extend(run.finding(start..end, tags.get(at..end).unwrap_or_default()));
        (at, before) = (end, end);
    }
    found
}

/// Tokens that were tagged as one thing, among all.
struct Run<'a> {
    text: &'a str,
    kind: DataKind,
    tokens: &'a [Token],
    known: &'a [Known],
}

impl Run<'_> {
    fn finding(&self, run: Range<usize>, margins: &[(Tag, i32)]) -> Option<Finding> {
        let tokens = self.tokens.get(run.clone())?;
        let tokens = tokens.get(..self.full_stop(tokens))?;
        let last = tokens.iter().rposition(|token| self.is_last(*token))?;
        let (tokens, known) = (tokens.get(..=last)?, self.known.get(run.start..=run.start + last)?);
        let is_named = tokens.iter().any(|token| token.shape.is_word() && token.len() > 1);
        if !is_named || self.kind == DataKind::Address && !self.has_house_and_street(tokens, known) {
            return None;
        }
        let span = tokens.first()?.start..tokens.last()?.end;
        let sum: i32 = margins.iter().map(|(_, margin)| *margin).sum();
        let mean = sum / i32::try_from(margins.len()).unwrap_or(1).max(1);
        let score = i32::from(SCORES.0) + mean / model::MARGIN_UNIT;
        let score = u8::try_from(score.clamp(i32::from(SCORES.0), i32::from(SCORES.1))).unwrap_or(SCORES.0);
        self.text.get(span.clone()).map(|_| Finding { kind: self.kind, span, score })
    }

    /// How many words from there on can only be names of the same person.
    fn surnames(&self, from: usize) -> usize {
        self.known.iter().skip(from).take_while(|known| self.goes_on(known)).count()
    }

    /// The same of the words before.
    fn forenames(&self, before: Range<usize>) -> usize {
        self.known.get(before).unwrap_or_default().iter().rev().take_while(|known| self.goes_on(known)).count()
    }

    fn goes_on(&self, known: &Known) -> bool {
        self.kind == DataKind::Name
            && known.shape == Shape::Title
            && known.flags & (flag::FIRST | flag::LAST) != 0
            && known.flags & flag::COMMON == 0
    }

    /// Where a sentence ends in the run: at a point that shortens no word.
    fn full_stop(&self, tokens: &[Token]) -> usize {
        let is_short = |before: &Token| before.shape == Shape::Initial || before.shape.is_word() && before.len() <= 3;
        let shortens = |at: usize| {
            let before = at.checked_sub(1).and_then(|at| tokens.get(at));
            let is_house = tokens.get(at + 1).is_some_and(|next| next.shape == Shape::Number);
            before.is_some_and(|before| is_short(before) || is_house && before.shape != Shape::Number)
        };
        let ends = |at: &usize| tokens.get(*at).is_some_and(|token| token.text(self.text) == ".") && !shortens(*at);
        (0..tokens.len()).find(ends).unwrap_or(tokens.len())
    }

    /// No mark ends anything, and no small word a name: "Rio de Janeiro now".
    fn is_last(&self, token: Token) -> bool {
        match token.shape {
            Shape::Mark => false,
            Shape::Lower => self.kind == DataKind::Address,
            _ => true,
        }
    }

    /// A street without a house is no address, and a number beside any word ("Room 12") neither.
    fn has_house_and_street(&self, tokens: &[Token], known: &[Known]) -> bool {
        let house = tokens.iter().position(|token| token.shape == Shape::Number);
        let is_street = |(at, (token, known)): (usize, (&Token, &Known))| {
            let word = features::folded(token.text(self.text));
            let is_behind_its_house = house.is_some_and(|house| house < at);
            STREETS.contains(&word.as_str())
                || STREET_ENDS.iter().any(|end| word.len() > end.len() && word.ends_with(end))
                || known.flags & flag::STREET != 0 && is_behind_its_house
        };
        house.is_some() && tokens.iter().zip(known).enumerate().any(is_street)
    }
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
            ("I saw Jean-Luc Moreau yesterday.", "Jean-Luc Moreau"),
            ("signed by J. R. Thompson", "J. R. Thompson"),
            ("Siobhan O'Connor's car is here.", "Siobhan O'Connor"),
            ("Anna Miller, born 3 May 1931, lives here", "Anna Miller"),
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
            ("Er wohnt in der Lindenstr. 12. Montag kommt er.", "Lindenstr. 12"),
        ] {
            let addresses: Vec<_> = found(text).into_iter().filter(|(kind, _)| *kind == DataKind::Address).collect();
            assert_eq!(addresses, [(DataKind::Address, address)], "{text}");
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
            "Room 794, Opus 49, Phase 2, Gate 12",
        ] {
            let names: Vec<_> = found(text).into_iter().filter(|(kind, _)| *kind != DataKind::Place).collect();
            assert_eq!(names, [], "{text}");
        }
    }

    #[test]
    fn words_of_placeholders_are_never_part_of_a_name() {
        let text = "Maria [NAME_1] Gonzalez";
        for finding in scan(text, std::slice::from_ref(&(6..14)), |_| true) {
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
