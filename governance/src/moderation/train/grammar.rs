//! A counterfactual grammar: the same words asserted, denied, quoted, asked, said of things and of people.

use std::collections::{BTreeMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

use super::TrainError;
use super::corpus::{Kind, Row, Truth};
use crate::moderation::taxonomy::Category;

/// How deep slots may be in slots.
const DEPTH: usize = 5;
/// How often a line gets an opening, and an ending: what is said before and behind harm and harmlessness alike.
const AROUND: (f64, f64) = (0.35, 0.25);
/// Fewest words of a line that gets them.
const AROUND_WORDS: usize = 3;
/// Draws for each line wanted; a set with fewer different lines than wanted ends there.
const DRAWS: usize = 6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    slot: BTreeMap<String, Vec<String>>,
    set: Vec<Set>,
}

/// Lines with the same labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    #[serde(default)]
    labels: Vec<Category>,
    #[serde(default)]
    unknown: Vec<Category>,
    count: u32,
    #[serde(default = "one")]
    weight: f32,
    /// Is what people say on any day: most of its lines are not about harm at all.
    #[serde(default)]
    everyday: bool,
    lines: Vec<String>,
}

fn one() -> f32 {
    1.0
}

/// A parsed grammar.
#[derive(Debug)]
pub struct Grammar {
    slots: BTreeMap<String, Vec<String>>,
    sets: Vec<Set>,
}

impl Grammar {
    /// Parses a grammar; `extra` slots come from sources.
    ///
    /// # Errors
    /// [`TrainError::Grammar`] names the set and the slot that is missing.
    pub fn parse(toml: &str, extra: BTreeMap<String, Vec<String>>) -> Result<Self, TrainError> {
        let mut file: File = toml::from_str(toml).map_err(|e| TrainError::Grammar(e.to_string()))?;
        for (name, values) in extra {
            file.slot.entry(name).or_default().extend(values);
        }
        let grammar = Self { slots: file.slot, sets: file.set };
        let of_slots = grammar.slots.iter();
        for (name, lines) in of_slots.chain(grammar.sets.iter().map(|set| (&set.name, &set.lines))) {
            for slot in lines.iter().flat_map(|line| slots(line)) {
                if grammar.slots.get(slot).is_none_or(Vec::is_empty) {
                    return Err(TrainError::Grammar(format!("{name}: no slot {slot}")));
                }
            }
        }
        Ok(grammar)
    }

    /// Draws lines: `scale` times each set's count, without repetitions.
    #[must_use]
    pub fn rows(&self, seed: u64, scale: f64) -> Vec<Row> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rows = Vec::new();
        for set in &self.sets {
            let truth = Truth::only(&set.labels).except(&set.unknown);
            let kind = if set.everyday { Kind::Everyday } else { Kind::Drawn };
            let wanted = scaled(set.count, scale);
            let mut seen = HashSet::new();
            for n in 0..wanted * DRAWS {
                let Some(line) = set.lines.get(n % set.lines.len().max(1)).filter(|_| seen.len() < wanted) else {
                    break;
                };
                let text = self.fill(line, &mut rng, DEPTH);
                let text = self.surround(text, &mut rng);
                if seen.insert(text.clone()) {
                    let family = format!("{}: {line}", set.name);
                    rows.push(Row { text, truth, weight: set.weight, family, kind });
                }
            }
        }
        rows
    }

    /// Puts one of the slot `opening` before a text and one of `ending` behind it, now and then.
    fn surround(&self, text: String, rng: &mut StdRng) -> String {
        let (before, behind) = (rng.random_bool(AROUND.0), rng.random_bool(AROUND.1));
        let mut one = |slot: &str, is_wanted: bool| {
            let values = self.slots.get(slot).filter(|values| is_wanted && !values.is_empty())?;
            values.get(rng.random_range(0..values.len()))
        };
        let (opening, ending) = (one("opening", before), one("ending", behind));
        if text.split_whitespace().count() < AROUND_WORDS {
            return text;
        }
        format!("{}{text}{}", opening.map_or("", String::as_str), ending.map_or("", String::as_str))
    }

    fn fill(&self, line: &str, rng: &mut StdRng, depth: usize) -> String {
        let mut text = String::new();
        let mut rest = line;
        while let Some((before, slot, after)) = next_slot(rest) {
            text.push_str(before);
            let values = self.slots.get(slot).map_or(&[][..], Vec::as_slice);
            if let (Some(value), true) = (values.get(rng.random_range(0..values.len().max(1))), depth > 0) {
                text.push_str(&self.fill(value, rng, depth - 1));
            }
            rest = after;
        }
        text + rest
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is meant")]
fn scaled(count: u32, scale: f64) -> usize {
    (f64::from(count) * scale).round() as usize
}

/// What is before, in and behind the first `{slot}`.
fn next_slot(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once('{')?;
    let (slot, after) = rest.split_once('}')?;
    Some((before, slot, after))
}

fn slots(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, slot, after)) = next_slot(rest) {
        found.push(slot);
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::GRAMMAR;
    use super::*;

    const SMALL: &str = "[slot]\nwho = [\"{what} lovers\", \"cooks\"]\nwhat = [\"tea\", \"rice\"]\n\
        [[set]]\nname = \"s\"\nlabels = [\"spam\"]\ncount = 9\nlines = [\"all {who} know\", \"{what}!\"]";

    #[test]
    fn slots_are_filled_to_the_bottom_without_repetition() {
        let rows = Grammar::parse(SMALL, BTreeMap::new()).unwrap().rows(3, 1.0);
        let mut texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["all cooks know", "all rice lovers know", "all tea lovers know", "rice!", "tea!"]);
        assert!(rows.iter().all(|row| row.truth == Truth::only(&[Category::Spam])));
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let grammar = Grammar::parse(SMALL, BTreeMap::new()).unwrap();
        let texts = |seed| grammar.rows(seed, 0.3).into_iter().map(|row| row.text).collect::<Vec<_>>();
        assert_eq!(texts(5), texts(5));
    }

    #[test]
    fn a_missing_slot_is_named() {
        let error = Grammar::parse(&SMALL.replace("what = ", "other = "), BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("no slot what"), "{error}");
        assert!(Grammar::parse("[slot", BTreeMap::new()).unwrap_err().to_string().starts_with("grammar: "));
    }

    #[test]
    fn the_shipped_grammar_has_every_trained_category_and_none_about_children() {
        let slurs = [("slur".to_owned(), vec!["slur".to_owned()])].into();
        let grammar = Grammar::parse(GRAMMAR, slurs).unwrap();
        let rows = grammar.rows(1, 0.05);
        for category in Category::ALL {
            let some = rows.iter().any(|row| row.truth.head(category.index()) == Some(true));
            let by_rules_only = matches!(category, Category::Csam | Category::MinorGrooming);
            assert_eq!(some, !by_rules_only, "{}", category.code());
        }
    }
}
