//! Answers made only of verbatim sentences of the retrieved passages, each with its citation.
//!
//! A sentence's rank is `0.5 cosine + 0.3 bm25 / max + 0.2 trust`; up to four are chosen by maximal marginal relevance
//! (Carbonell and Goldstein 1998, lambda 0.7). Whether anything is said at all is decided by *support*: the share of the
//! question's rare terms that the best sentence covers. It cannot infer, translate or summarise, and says nothing when unsure.

use std::collections::HashSet;
use std::ops::Range;

use crate::answer::{Citation, Evidence, NOTHING};
use crate::rank::Index;
use crate::text;

/// Share of a question's weighted terms that a sentence must cover before anything is answered.
///
/// Calibrated on `eval/answerable.jsonl`: the value with the highest F1 among those that answer at most 5 % of the unsupported questions.
pub const THETA: f32 = 0.72;

/// Weight of relevance against novelty in the choice of sentences.
const LAMBDA: f32 = 0.7;
const MAX_SENTENCES: usize = 4;
const MAX_CHARS: usize = 700;
/// A sentence longer than this is a table or a dump, not prose.
const MAX_SENTENCE_CHARS: usize = 600;
/// Sentences considered; retrieval returns 8 passages of some ten sentences.
const MAX_CANDIDATES: usize = 512;
/// Most nearest titles named when nothing answers.
const NEAREST: usize = 3;

/// An extractive answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// Sentences with `[n]` markers, or [`NOTHING`] and the nearest titles.
    pub answer: String,
    /// One citation per sentence.
    pub citations: Vec<Citation>,
    /// Whether the passages carry an answer.
    pub answerable: bool,
    /// Support of the best sentence, 0 to 1.
    pub support: f32,
}

struct Candidate {
    passage: usize,
    range: Range<usize>,
    terms: Vec<String>,
    support: f32,
    score: f32,
}

impl AsRef<[String]> for Candidate {
    fn as_ref(&self) -> &[String] {
        &self.terms
    }
}

/// Composes an answer to `question` from the passages with the calibrated threshold.
#[must_use]
pub fn compose(question: &str, passages: &[Evidence]) -> Composition {
    compose_above(question, passages, THETA)
}

/// Composes with another threshold: calibration, and callers who prefer silence or speech.
#[must_use]
pub fn compose_above(question: &str, passages: &[Evidence], theta: f32) -> Composition {
    let candidates = ranked(question, passages);
    let support = candidates.iter().map(|candidate| candidate.support).fold(0.0, f32::max);
    if support < theta {
        return Composition { answer: nothing(passages), citations: Vec::new(), answerable: false, support };
    }
    // Beside the best sentence only those that carry most of what it carries: company must not dilute the answer.
    let floor = theta.max(0.75 * support);
    let kept: Vec<Candidate> = candidates.into_iter().filter(|candidate| candidate.support >= floor).collect();
    let citations: Vec<Citation> = (1..)
        .zip(diverse(&kept, passages))
        .filter_map(|(n, chosen)| Citation::of(n, passages.get(chosen.passage)?, chosen.range.clone()))
        .collect();
    let sentences: Vec<String> =
        citations.iter().map(|citation| format!("{} [{}]", citation.quote, citation.n)).collect();
    Composition { answer: sentences.join(" "), citations, answerable: true, support }
}

/// The sentence of `passage` that shares most with `claim`; the first one where none shares anything.
#[must_use]
pub fn key_sentence(claim: &str, passage: &str) -> Option<Range<usize>> {
    let ranges: Vec<Range<usize>> = text::sentences(passage);
    let index = Index::new(
        &ranges.iter().map(|range| text::terms(passage.get(range.clone()).unwrap_or_default())).collect::<Vec<_>>(),
    );
    let cosine = index.cosine(&text::terms(claim));
    let scored = ranges.into_iter().zip(cosine).map(|(range, cosine)| {
        // A heading names the topic and says nothing about it.
        let prose = passage.get(range.clone()).is_some_and(is_prose);
        (range, cosine + if prose { 0.1 } else { 0.0 })
    });
    // `max_by` takes the last of equals; reversed, the first.
    scored.rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(range, _)| range)
}

/// [`NOTHING`] with the nearest titles.
#[must_use]
pub fn nothing(passages: &[Evidence]) -> String {
    let mut titles: Vec<&str> = Vec::new();
    for passage in passages {
        if !passage.title.is_empty() && !titles.contains(&passage.title.as_str()) {
            titles.push(&passage.title);
        }
    }
    titles.truncate(NEAREST);
    if titles.is_empty() { NOTHING.to_owned() } else { format!("{NOTHING}; nearest: {}", titles.join(", ")) }
}

/// All usable sentences with support and score.
fn ranked(question: &str, passages: &[Evidence]) -> Vec<Candidate> {
    let mut candidates = sentences_of(passages);
    let index = Index::new(&candidates);
    let query = text::terms(question);
    let (cosine, bm25) = (index.cosine(&query), index.bm25(&query));
    let top = bm25.iter().copied().fold(f32::EPSILON, f32::max);
    let asked = Asked::new(question, query, &index);
    let titles: Vec<Vec<f32>> = passages.iter().map(|passage| asked.matches(&text::terms(&passage.title))).collect();
    let mut before: (usize, Vec<f32>) = (usize::MAX, Vec::new());
    for ((candidate, cosine), bm25) in candidates.iter_mut().zip(cosine).zip(bm25) {
        let own = asked.matches(&candidate.terms);
        let neighbour = if before.0 == candidate.passage { &before.1[..] } else { &[] };
        if let (Some(passage), Some(title)) = (passages.get(candidate.passage), titles.get(candidate.passage)) {
            let sentence = passage.text.get(candidate.range.clone()).unwrap_or_default();
            candidate.support = asked.support(sentence, &own, title, neighbour);
            candidate.score = 0.5 * cosine + 0.3 * bm25 / top + 0.2 * passage.trust;
        }
        before = (candidate.passage, own);
    }
    candidates
}

fn sentences_of(passages: &[Evidence]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for (passage, evidence) in passages.iter().enumerate() {
        for range in text::sentences(&evidence.text) {
            let Some(sentence) = evidence.text.get(range.clone()) else { continue };
            if is_prose(sentence) && seen.insert(sentence) && candidates.len() < MAX_CANDIDATES {
                candidates.push(Candidate { passage, range, terms: text::terms(sentence), support: 0.0, score: 0.0 });
            }
        }
    }
    candidates
}

/// Headings, questions, fragments and dumps are no answers.
fn is_prose(sentence: &str) -> bool {
    let words = sentence.split_whitespace().count();
    words >= 3
        && !sentence.starts_with('#')
        && !sentence.ends_with('?')
        && sentence.chars().count() <= MAX_SENTENCE_CHARS
}

/// What a question asks for: its weighted terms and the kind of value that would answer it.
struct Asked {
    terms: Vec<(String, f32)>,
    total: f32,
    words: HashSet<String>,
    wants: Wants,
}

#[derive(Clone, Copy, PartialEq)]
enum Wants {
    Anything,
    Number,
    Date,
    Name,
}

impl Asked {
    fn new(question: &str, query: Vec<String>, index: &Index) -> Self {
        let words: Vec<String> = text::words(question);
        let measure = measure(&words).map(text::stem);
        let mut seen = HashSet::new();
        let terms: Vec<(String, f32)> = query
            .into_iter()
            .filter(|term| seen.insert(term.clone()))
            .map(|term| {
                let share = if Some(&term) == measure.as_ref() { MEASURE_WEIGHT } else { 1.0 };
                let weight = share * index.idf(&term);
                (term, weight)
            })
            .collect();
        let total = terms.iter().map(|(_, weight)| weight).sum();
        Self { terms, total, wants: wanted(&words), words: words.into_iter().collect() }
    }

    /// How well each term of the question is met by `terms`.
    fn matches(&self, terms: &[String]) -> Vec<f32> {
        self.terms.iter().map(|(term, _)| best_match(term, terms)).collect()
    }

    /// Share of the question's weight that a sentence covers; its title covers for it, the sentence before for half. The
    /// slices say how well each term is met.
    fn support(&self, sentence: &str, own: &[f32], title: &[f32], before: &[f32]) -> f32 {
        // A sentence that shares nothing itself answers nothing, whatever its title says.
        if self.total <= 0.0 || own.iter().all(|met| *met <= 0.0) {
            return 0.0;
        }
        let met = |of: &[f32], at: usize| of.get(at).copied().unwrap_or(0.0);
        let cover = |at: usize| met(own, at).max(0.9 * met(title, at)).max(0.5 * met(before, at));
        let covered: f32 = self.terms.iter().enumerate().map(|(at, (_, weight))| weight * cover(at)).sum();
        let kind = if self.answered_in_kind(sentence) { 1.0 } else { 0.6 };
        kind * covered / self.total
    }

    fn answered_in_kind(&self, sentence: &str) -> bool {
        let is_number = |word: &str| word.bytes().any(|b| b.is_ascii_digit()) || NUMBERS.contains(&word);
        match self.wants {
            Wants::Anything => true,
            Wants::Number => text::words(sentence).iter().any(|word| is_number(word) && !self.words.contains(word)),
            Wants::Date => text::words(sentence).iter().any(|word| {
                (is_number(word) || text::MONTHS.contains(&word.as_str()) || TIMES.contains(&word.as_str()))
                    && !self.words.contains(word)
            }),
            Wants::Name => sentence
                .split_whitespace()
                .skip(1)
                .chain(sentence.split_whitespace().take(1))
                .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
                .filter(|word| word.chars().next().is_some_and(char::is_uppercase))
                .any(|word| {
                    let lower = word.to_lowercase();
                    !self.words.contains(&lower) && !text::is_stop(&lower)
                }),
        }
    }
}

const NUMBERS: &[&str] = &[
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty", "thirty",
    "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion", "half",
    "once", "twice", "dozen", "zero", "none",
];
const TIMES: &[&str] = &[
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "spring",
    "summer",
    "autumn",
    "winter",
    "morning",
    "noon",
    "evening",
    "night",
    "midnight",
    "dawn",
    "dusk",
    "century",
    "yesterday",
    "today",
    "tomorrow",
    "before",
    "after",
    "daily",
    "weekly",
    "monthly",
    "yearly",
];
/// Words after "how" that ask for a quantity.
const QUANTITIES: &[&str] = &[
    "many", "much", "long", "old", "tall", "far", "deep", "high", "heavy", "wide", "fast", "large", "big", "often",
    "hot", "cold",
];

/// Weight of the measure in "how long": a sentence that gives the quantity seldom names the measure.
const MEASURE_WEIGHT: f32 = 0.3;

/// The word after "how" that asks for a quantity.
fn measure(words: &[String]) -> Option<&str> {
    let pair = words.windows(2).find(|pair| pair[0] == "how" && QUANTITIES.contains(&pair[1].as_str()))?;
    Some(&pair[1])
}

fn wanted(words: &[String]) -> Wants {
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", String::as_str);
        match word.as_str() {
            "how" if QUANTITIES.contains(&next) => return Wants::Number,
            "when" => return Wants::Date,
            "what" | "which" if matches!(next, "year" | "date" | "day" | "month") => return Wants::Date,
            "who" | "whose" | "whom" => return Wants::Name,
            _ => {}
        }
    }
    Wants::Anything
}

/// 1 for the term itself, 0.8 for a word of the same root ("invention", "invented"), else 0.
fn best_match(term: &str, terms: &[String]) -> f32 {
    if terms.iter().any(|other| other == term) {
        return 1.0;
    }
    let digits = term.bytes().any(|b| b.is_ascii_digit());
    let length = term.chars().count();
    let kin = |other: &String| {
        // Most words differ in their first letter; only the others are worth counting.
        term.as_bytes().first() == other.as_bytes().first() && {
            let shared = term.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
            let of = other.chars().count();
            shared >= 5 && 4 * shared >= 3 * length.min(of) && 5 * shared >= 3 * length.max(of)
        }
    };
    if !digits && terms.iter().any(kin) { 0.8 } else { 0.0 }
}

/// Maximal marginal relevance over the candidates, within the limits of an answer.
fn diverse<'a>(candidates: &'a [Candidate], passages: &[Evidence]) -> Vec<&'a Candidate> {
    let index = Index::new(candidates);
    let mut chosen: Vec<usize> = Vec::new();
    let mut chars = 0;
    while chosen.len() < MAX_SENTENCES {
        let gain = |at: usize, candidate: &Candidate| {
            let alike = chosen.iter().map(|other| index.between(at, *other)).fold(0.0, f32::max);
            // Support leads, the score mix orders those of equal support.
            LAMBDA * f32::midpoint(candidate.score, candidate.support) - (1.0 - LAMBDA) * alike
        };
        let open = candidates.iter().enumerate().filter(|(at, _)| !chosen.contains(at));
        let Some((at, best)) = open.max_by(|(i, a), (j, b)| gain(*i, a).total_cmp(&gain(*j, b)).then(j.cmp(i))) else {
            break;
        };
        let length = length_of(best, passages);
        // The first sentence is always told whole; later ones only where they add and fit.
        if !chosen.is_empty() && (chars + length > MAX_CHARS || gain(at, best) <= 0.0) {
            break;
        }
        chars += length;
        chosen.push(at);
    }
    chosen.into_iter().filter_map(|at| candidates.get(at)).collect()
}

fn length_of(candidate: &Candidate, passages: &[Evidence]) -> usize {
    let text = passages.get(candidate.passage).and_then(|passage| passage.text.get(candidate.range.clone()));
    text.map_or(0, |text| text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::check_citations;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Doc {
        id: String,
        title: String,
        text: String,
    }

    #[derive(Deserialize)]
    struct Case {
        question: String,
        doc: Option<String>,
        answer: Option<String>,
    }

    fn lines<T: for<'de> Deserialize<'de>>(text: &str) -> Vec<T> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    struct Fixture {
        corpus: Vec<Evidence>,
        index: Index,
        cases: Vec<Case>,
    }

    impl Fixture {
        fn load() -> Self {
            let docs: Vec<Doc> = lines(include_str!("../../eval/corpus.jsonl"));
            let index = Index::new(
                &docs.iter().map(|doc| text::terms(&format!("{} {}", doc.title, doc.text))).collect::<Vec<_>>(),
            );
            let corpus = docs.into_iter().map(|doc| passage(&doc.id, &doc.title, &doc.text)).collect();
            Self { corpus, index, cases: lines(include_str!("../../eval/answerable.jsonl")) }
        }

        /// The 8 best documents, as retrieval would hand them over.
        fn retrieve(&self, question: &str) -> Vec<Evidence> {
            let scores = self.index.bm25(&text::terms(question));
            let mut order: Vec<usize> = (0..scores.len()).filter(|at| scores[*at] > 0.0).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.into_iter().take(8).map(|at| self.corpus[at].clone()).collect()
        }

        fn figures<'a>(&self, cases: impl Iterator<Item = &'a Case>, theta: f32) -> Figures {
            let mut figures = Figures::default();
            for case in cases {
                let composed = compose_above(&case.question, &self.retrieve(&case.question), theta);
                let right = case.answer.as_ref().is_some_and(|gold| composed.answer.contains(gold.as_str()));
                figures.count(case.doc.is_some(), composed.answerable);
                figures.right += f32::from(u8::from(right));
                let faults = std::env::var_os("SHOW_FAULTS").is_some();
                if faults && (case.doc.is_some() != composed.answerable || case.doc.is_some() && !right) {
                    eprintln!("{:.2} {} -> {}", composed.support, case.question, composed.answer);
                }
            }
            figures
        }
    }

    #[derive(Debug, Default)]
    struct Figures {
        true_answers: f32,
        missed: f32,
        false_answers: f32,
        silent: f32,
        right: f32,
    }

    impl Figures {
        fn count(&mut self, supported: bool, answered: bool) {
            match (supported, answered) {
                (true, true) => self.true_answers += 1.0,
                (true, false) => self.missed += 1.0,
                (false, true) => self.false_answers += 1.0,
                (false, false) => self.silent += 1.0,
            }
        }
        fn f1(&self) -> f32 {
            2.0 * self.true_answers / (2.0 * self.true_answers + self.false_answers + self.missed)
        }
        fn false_rate(&self) -> f32 {
            self.false_answers / (self.false_answers + self.silent)
        }
    }

    fn passage(doc: &str, title: &str, text: &str) -> Evidence {
        let end = u32::try_from(text.chars().count()).unwrap();
        Evidence {
            doc: doc.into(),
            title: title.into(),
            text: text.into(),
            span: (0, end),
            trust: 0.5,
            ..Evidence::default()
        }
    }

    #[test]
    fn unsupported_questions_stay_unanswered_and_supported_ones_do_not() {
        let fixture = Fixture::load();
        let figures = fixture.figures(fixture.cases.iter(), THETA);
        eprintln!("{figures:?} f1 {:.3} false answers {:.3}", figures.f1(), figures.false_rate());
        assert!(figures.silent + figures.false_answers >= 200.0);
        assert!(figures.false_rate() <= 0.05, "{figures:?}");
        assert!(figures.f1() >= 0.85, "{figures:?}");
        // What is answered must hold the answer, not only be about it.
        assert!(figures.right / figures.true_answers >= 0.95, "{figures:?}");
    }

    /// The threshold is chosen on one half of the questions and must hold on the other.
    #[test]
    fn theta_chosen_on_one_half_holds_on_the_other() {
        let fixture = Fixture::load();
        let support = |case: &Case| compose(&case.question, &fixture.retrieve(&case.question)).support;
        let measured: Vec<(bool, f32)> = fixture.cases.iter().map(|case| (case.doc.is_some(), support(case))).collect();
        let figures = |odd: usize, theta: f32| {
            let mut figures = Figures::default();
            for (supported, support) in measured.iter().skip(odd).step_by(2) {
                figures.count(*supported, *support >= theta);
            }
            figures
        };
        let grid = (30u8..90)
            .map(|percent| f32::from(percent) / 100.0)
            .filter(|theta| figures(0, *theta).false_rate() <= 0.05);
        let theta = grid.max_by(|a, b| figures(0, *a).f1().total_cmp(&figures(0, *b).f1())).unwrap();
        let (fit, other) = (figures(0, theta), figures(1, theta));
        eprintln!(
            "theta {theta} f1 {:.3}/{:.3} false {:.3}/{:.3}",
            fit.f1(),
            other.f1(),
            fit.false_rate(),
            other.false_rate()
        );
        assert!((theta - THETA).abs() <= 0.06, "calibration gives {theta}");
        assert!(other.f1() >= 0.85 && other.false_rate() <= 0.05, "{other:?}");
    }

    #[test]
    fn nothing_is_said_without_support() {
        let composed =
            compose("What is the capital of Peru?", &[passage("b", "Bees", "Bees live in hives and make honey.")]);
        assert_eq!(composed.answer, format!("{NOTHING}; nearest: Bees"));
        assert!(!composed.answerable && composed.citations.is_empty());
        assert_eq!(compose("What is the capital of Peru?", &[]).answer, NOTHING);
        assert!(!compose("", &[passage("b", "Bees", "Bees live in hives.")]).answerable);
    }

    #[test]
    fn answers_stay_within_their_limits() {
        let text: Vec<String> = (0..40)
            .map(|n| format!("The red barn number {n} stands beside the long river road of the valley."))
            .collect();
        let composed = compose("Where does the red barn stand?", &[passage("b", "Barns", &text.join(" "))]);
        assert!(composed.answerable && (1..=MAX_SENTENCES).contains(&composed.citations.len()));
        assert!(composed.citations.iter().map(|citation| citation.quote.chars().count()).sum::<usize>() <= MAX_CHARS);
    }

    fn sentence() -> impl Strategy<Value = String> {
        let word = prop_oneof!["[a-z]{1,8}", "(river|barn|honey|Äpfel|größe|1874|[.]|\\n|\\[1\\]|#|日本語)"];
        prop::collection::vec(word, 1..12).prop_map(|words| format!("{}.", words.join(" ")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn every_sentence_is_verbatim_and_cited(
            texts in prop::collection::vec(prop::collection::vec(sentence(), 1..8), 0..6),
            question in sentence(),
            theta in 0.0f32..0.7,
        ) {
            let passages: Vec<Evidence> = texts.iter().enumerate()
                .map(|(at, sentences)| passage(&format!("d{at}"), "T", &sentences.join(" "))).collect();
            let composed = compose_above(&question, &passages, theta);
            let plain: String = composed.citations.iter().fold(composed.answer.clone(), |text, citation| {
                text.replacen(&format!("{} [{}]", citation.quote, citation.n), "", 1)
            });
            if composed.answerable {
                prop_assert!(plain.trim().is_empty(), "beside the quotes: {plain:?}");
            }
            for citation in &composed.citations {
                prop_assert_eq!(check_citations("", std::slice::from_ref(citation), &passages), Ok(()));
            }
        }
    }
}
