//! Which tool a request means: nearest example utterances, as a distribution over the agent's tools and *none*.
//!
//! A class scores `0.5 bm25 / max + 0.5 cosine` at its best utterance; scores become probabilities by softmax. Features are
//! the leading words, their neighbours in pairs, and shapes (a number, an expression, an agent's name) that stand for open sets of words.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::slots::{self, SlotKind};
use crate::rank::Index;
use crate::text;

/// The class of requests that mean no tool.
pub const NONE: &str = "none";

/// Softmax temperature. With scores in 0 to 1, a lead of 0.2 is a factor of e^2 in probability.
const TEMPERATURE: f32 = 0.1;
/// Below this likeness to every utterance a request is foreign, whatever its best class.
const FOREIGN: f32 = 0.4;
/// Words of a request that are read.
const LEADING: usize = 8;
/// Words that only carry a sentence, stemmed.
const CARRIERS: &[&str] = &[
    "a", "an", "the", "is", "ar", "be", "do", "you", "hav", "has", "me", "some", "giv", "in", "on", "of", "it", "we",
    "my", "your", "to", "for", "and", "at", "let", "what",
];
/// Courtesy before a request.
const POLITE: &[&str] = &["please", "can", "could", "would", "will", "you", "kindly", "hey", "ok", "and", "then"];

/// An example utterance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What a person says.
    pub text: String,
    /// The tool meant, or [`NONE`].
    pub tool: String,
    /// Kept from the classifier and used to measure it.
    #[serde(default)]
    pub held_out: bool,
}

/// The examples that come with the village.
///
/// # Errors
/// When a line of the embedded file is not an [`Example`].
pub fn embedded() -> Result<Vec<Example>, serde_json::Error> {
    include_str!("../../eval/intents.jsonl").lines().map(serde_json::from_str).collect()
}

/// What a request most likely means.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The tool, or [`NONE`].
    pub tool: String,
    /// Its probability.
    pub p: f32,
    /// Lead over the next class.
    pub margin: f32,
}

/// A nearest-utterance classifier.
#[derive(Debug, Clone)]
pub struct Classifier {
    index: Index,
    labels: Vec<String>,
    substances: Vec<HashSet<String>>,
    names: Vec<String>,
}

impl Classifier {
    /// Learns the examples that are not held out; `names` are the agents' ids, a shape of their own.
    #[must_use]
    pub fn new(examples: &[Example], names: Vec<String>) -> Self {
        let known: Vec<&Example> = examples.iter().filter(|example| !example.held_out).collect();
        let texts: Vec<Vec<String>> = known.iter().map(|example| features(&example.text, &names)).collect();
        let substances = texts.iter().map(|text| substance(text)).collect();
        Self {
            index: Index::new(&texts),
            substances,
            labels: known.iter().map(|example| example.tool.clone()).collect(),
            names,
        }
    }

    /// Judges a request among the tools that `allowed` admits; *none* is always a class.
    #[must_use]
    pub fn classify(&self, request: &str, allowed: impl Fn(&str) -> bool) -> Verdict {
        let query = features(request, &self.names);
        let (bm25, cosine) = (self.index.bm25(&query), self.index.cosine(&query));
        let top = bm25.iter().copied().fold(f32::EPSILON, f32::max);
        let mut best: BTreeMap<&str, f32> = BTreeMap::new();
        let substance = substance(&query);
        for (((label, words), bm25), cosine) in self.labels.iter().zip(&self.substances).zip(&bm25).zip(&cosine) {
            // "do you have feelings" is not near "do you have the time": they share no word that matters.
            if label != NONE && words.is_disjoint(&substance) {
                continue;
            }
            let score = 0.5 * bm25 / top + 0.5 * cosine;
            let entry = best.entry(label).or_insert(0.0);
            *entry = entry.max(score);
        }
        let likest = cosine.iter().copied().fold(0.0, f32::max);
        // A tool that the agent lacks stays in the contest: a request for it means nothing to this agent, not its second-best tool.
        softmax(&best).map_or_else(none, |verdict| {
            let usable = verdict.tool != NONE && allowed(&verdict.tool) && likest >= FOREIGN;
            if usable { verdict } else { none() }
        })
    }
}

/// The single words of a feature list without those that only carry a sentence.
fn substance(features: &[String]) -> HashSet<String> {
    let carries = |word: &str| word == "<start>" || word.contains(' ') || CARRIERS.contains(&word);
    features.iter().filter(|word| !carries(word)).cloned().collect()
}

fn none() -> Verdict {
    Verdict { tool: NONE.to_owned(), p: 1.0, margin: 1.0 }
}

fn softmax(scores: &BTreeMap<&str, f32>) -> Option<Verdict> {
    let weights: Vec<(&str, f32)> = scores.iter().map(|(label, score)| (*label, (score / TEMPERATURE).exp())).collect();
    let total: f32 = weights.iter().map(|(_, weight)| weight).sum();
    let (tool, first) = weights.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let second = weights.iter().filter(|(label, _)| *label != tool).map(|(_, weight)| *weight).fold(0.0, f32::max);
    Some(Verdict { tool: tool.to_owned(), p: first / total, margin: (first - second) / total })
}

/// Words, word pairs and shapes of a request. What a request wants stands at its beginning, so the first words count twice
/// and later ones, which are what it is about, not at all.
fn features(request: &str, names: &[String]) -> Vec<String> {
    let mut words: Vec<String> = vec!["<start>".to_owned()];
    for word in text::words(request) {
        if words.len() == 1 && POLITE.contains(&word.as_str()) {
            continue;
        }
        let agent = names.contains(&word);
        let shape = if word.bytes().any(|b| b.is_ascii_digit()) {
            "<number>".to_owned()
        } else if agent {
            "<agent>".to_owned()
        } else {
            text::stem(&word)
        };
        words.push(shape);
        // What follows an agent's name is its errand.
        if agent || words.len() > LEADING {
            break;
        }
    }
    let pairs = |words: &[String]| words.windows(2).map(|pair| pair.join(" ")).collect::<Vec<_>>();
    let first = words.get(..words.len().min(4)).unwrap_or(&words);
    let mut found = [words.clone(), pairs(&words), first.to_vec(), pairs(first)].concat();
    if !words.iter().any(|word| word == "<agent>") && slots::fill(SlotKind::Expression, request, &[]).is_some() {
        found.extend(std::iter::repeat_n("<expression>".to_owned(), 4));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_enough_examples() {
        let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for example in embedded().unwrap() {
            let entry = counts.entry(example.tool).or_default();
            if example.held_out { entry.1 += 1 } else { entry.0 += 1 }
        }
        assert_eq!(counts.len(), 8);
        assert!(counts.values().all(|(known, held_out)| *known >= 10 && *held_out >= 10), "{counts:?}");
    }

    #[test]
    fn an_absent_tool_is_not_replaced_by_another() {
        let classifier = Classifier::new(&embedded().unwrap(), vec!["sage".into()]);
        assert_eq!(classifier.classify("what time is it in Rome", |_| true).tool, "time.now");
        assert_eq!(classifier.classify("what time is it in Rome", |tool| tool != "time.now").tool, NONE);
    }
}
