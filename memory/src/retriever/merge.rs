//! One context out of what several shards found. Pure.

use std::collections::HashMap;

use crate::context::{Context, Coverage, Mode, Parts, Passage};
use crate::dedup::containment;
use crate::evidence::{assess, share};
use crate::lexical::search::Sought;
use crate::shard::read::{Found, FoundPassage};
use crate::trust::prior;

/// Share of word 3-grams from which passages of two documents that repeat each other are copies.
const COPY: f64 = 0.5;

/// What one collection found.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) collection: String,
    pub(super) found: Found,
}

/// A passage on its way into the context.
struct Candidate {
    collection: String,
    passage: FoundPassage,
    score: f32,
    covered: Vec<f32>,
    copies: u32,
}

/// Orders passages of all collections by normalised score, folds copies, and judges the best `k`.
pub(super) fn merge(answers: Vec<Answered>, k: usize, coverage: Coverage, trace_id: Option<String>) -> Context {
    let sought = merge_sought(&answers);
    let mut candidates: Vec<Candidate> = answers.into_iter().flat_map(|answer| candidates(answer, &sought)).collect();
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept = fold(candidates);
    kept.truncate(k);
    let covered: Vec<Vec<f32>> = kept.iter().map(|candidate| candidate.covered.clone()).collect();
    let assessment = assess(&sought, &covered);
    let passages = kept.into_iter().zip(1..).map(|(candidate, n)| passage(candidate, n, &sought)).collect();
    Context {
        passages,
        answers: Vec::new(),
        contradictions: Vec::new(),
        gaps: assessment.gaps,
        confidence: assessment.confidence,
        answerable: assessment.answerable,
        coverage,
        mode: Mode::Fast,
        trace_id,
    }
}

/// The words sought, each with its frequency over all collections.
fn merge_sought(answers: &[Answered]) -> Vec<Sought> {
    let mut merged: Vec<Sought> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for word in answers.iter().flat_map(|answer| &answer.found.sought) {
        if let Some(&at) = places.get(&word.word) {
            merged[at].df += word.df;
            // A word is as telling as where it is most common: elsewhere it is just not the topic.
            merged[at].idf = merged[at].idf.min(word.idf);
            merged[at].fuzzy &= word.fuzzy;
        } else {
            places.insert(word.word.clone(), merged.len());
            merged.push(word.clone());
        }
    }
    merged
}

fn candidates(answer: Answered, sought: &[Sought]) -> Vec<Candidate> {
    let Answered { collection, found } = answer;
    let place = |word: &Sought| found.sought.iter().position(|own| own.word == word.word);
    let places: Vec<Option<usize>> = sought.iter().map(place).collect();
    let normal = |score: f32| if found.score_max > 0.0 { (score / found.score_max).clamp(0.0, 1.0) } else { 0.0 };
    let make = |passage: FoundPassage| {
        let covered =
            places.iter().map(|at| at.and_then(|at| passage.covered.get(at)).copied().unwrap_or(0.0)).collect();
        Candidate { collection: collection.clone(), score: normal(passage.score), covered, copies: 0, passage }
    };
    found.passages.into_iter().map(make).collect()
}

/// Leaves the best of passages that repeat each other, and counts the others.
fn fold(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        match kept.iter_mut().find(|best| are_copies(best, &candidate)) {
            Some(best) => best.copies += 1,
            None => kept.push(candidate),
        }
    }
    kept
}

fn are_copies(a: &Candidate, b: &Candidate) -> bool {
    let same_document = a.collection == b.collection && a.passage.doc == b.passage.doc;
    if same_document {
        return false;
    }
    if a.passage.text == b.passage.text {
        return true;
    }
    let original =
        |candidate: &Candidate| candidate.passage.duplicate_of.clone().unwrap_or(candidate.passage.doc.clone());
    a.collection == b.collection
        && (a.passage.duplicate_of.is_some() || b.passage.duplicate_of.is_some())
        && original(a) == original(b)
        && containment(&a.passage.text, &b.passage.text) >= COPY
}

fn passage(candidate: Candidate, n: u32, sought: &[Sought]) -> Passage {
    let Candidate { collection, passage, score, covered, copies } = candidate;
    Passage {
        n,
        collection,
        doc: passage.doc,
        version: passage.version,
        chunk: passage.ordinal,
        title: passage.title,
        heading: Some(passage.heading).filter(|heading| !heading.is_empty()),
        page: Some(passage.page).filter(|page| *page > 0),
        text: passage.text,
        span: passage.span,
        score,
        parts: Parts { bm25: passage.score },
        coverage: share(sought, &covered),
        source: passage.source,
        trust: prior(passage.url.as_deref()),
        url: passage.url,
        language: passage.language,
        copies,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(doc: &str, duplicate_of: Option<&str>, text: &str, score: f32) -> FoundPassage {
        FoundPassage {
            doc: doc.to_owned(),
            duplicate_of: duplicate_of.map(str::to_owned),
            version: 1,
            ordinal: 0,
            title: None,
            heading: String::new(),
            text: text.to_owned(),
            span: (0, 1),
            page: 0,
            source: None,
            url: None,
            language: "eng".to_owned(),
            score,
            covered: vec![1.0],
        }
    }

    fn answered(collection: &str, word: (&str, f32), passages: Vec<FoundPassage>) -> Answered {
        let (word, idf) = word;
        let terms = vec![word.to_owned()];
        let sought = vec![Sought { word: word.to_owned(), terms, df: 1, idf, asks: false, fuzzy: false }];
        let found = Found { sought, chunks: 10, score_max: 10.0, passages };
        Answered { collection: collection.to_owned(), found }
    }

    #[test]
    fn copies_are_folded_and_counted() {
        let text = "the village well is very deep and its water is clear";
        let passages = vec![
            found("a", None, text, 5.0),
            found("b", Some("a"), &format!("{text} indeed"), 4.0),
            found("c", None, "another passage about a well", 3.0),
            found("d", Some("a"), "another part of a copy that says other things", 2.0),
        ];
        let context = merge(vec![answered("main", ("well", 2.0), passages)], 8, Coverage::default(), None);
        let got: Vec<_> = context.passages.iter().map(|p| (p.doc.as_str(), p.copies)).collect();
        assert_eq!(got, [("a", 1), ("c", 0), ("d", 0)]);
    }

    #[test]
    fn collections_are_ordered_by_share_of_their_best_score() {
        let one = answered("one", ("well", 2.0), vec![found("a", None, "x well", 5.0)]);
        let two = answered("two", ("well", 2.0), vec![found("a", None, "y well", 7.0)]);
        let context = merge(vec![one, two], 8, Coverage::default(), None);
        let got: Vec<_> = context.passages.iter().map(|p| (p.n, p.collection.as_str(), p.score)).collect();
        assert_eq!(got, [(1, "two", 0.7), (2, "one", 0.5)]);
    }

    #[test]
    fn nothing_found_is_not_answerable() {
        let context = merge(vec![answered("main", ("well", 2.0), Vec::new())], 8, Coverage::default(), None);
        assert!(!context.answerable && context.passages.is_empty() && context.confidence < 0.1);
    }
}
