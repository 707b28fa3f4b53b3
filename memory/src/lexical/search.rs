//! From a question to scored chunks.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tantivy::collector::TopDocs;
use tantivy::query::{
    BooleanQuery, BoostQuery, DisjunctionMaxQuery, EmptyQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocAddress, DocSet, Searcher, Term};

use super::Lexical;
use crate::error::MemoryError;
use crate::journal::DocKey;
use crate::language::{Tongue, for_each_token, is_question_word};
use crate::question::Question;

/// Languages a question is analysed in; a shard with more of them is searched in its most frequent ones.
const TONGUES: usize = 4;
/// Words of a question that are searched; the rest of a pasted page adds nothing.
const WORDS: usize = 64;
/// Shortest word that is tried with one letter changed.
const FUZZY_CHARS: usize = 5;
/// Indexed words that an unknown word may stand for.
const FUZZY_WORDS: usize = 4;
/// What a fuzzy match is worth beside an exact one.
pub const FUZZY_WEIGHT: f32 = 0.7;
/// Words a phrase may have between its own.
const PHRASE_SLOP: u32 = 1;

/// A word of the question with the index words it may stand for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sought {
    /// The word as typed.
    pub word: String,
    /// Index words, one for each language in which they differ.
    pub terms: Vec<String>,
    /// Chunks that hold one of them; at most, as alternatives may share chunks.
    pub df: u64,
    /// Inverse document frequency, ln(1 + (N - df + 0.5) / (df + 0.5)).
    pub idf: f32,
    /// It only asks ("how", "many"): searched, but nothing that an answer must contain.
    pub asks: bool,
    /// The terms are neighbours of an unknown word.
    pub fuzzy: bool,
}

/// A question made ready for one index.
#[derive(Debug)]
pub struct Plan {
    /// Its words.
    pub sought: Vec<Sought>,
    query: Box<dyn Query>,
}

/// A found chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The document.
    pub key: DocKey,
    /// The version that was indexed.
    pub version: u32,
    /// The chunk's place in it.
    pub ordinal: u32,
    /// BM25.
    pub score: f32,
    /// For each word sought: 1 if the chunk has it, title and heading included; less if only a neighbour; 0 if not.
    pub covered: Vec<f32>,
}

impl Plan {
    /// Analyses a question in the languages of the index.
    #[must_use]
    pub fn new(lexical: &Lexical, question: &Question) -> Self {
        let searcher = lexical.reader.searcher();
        let mut tongues: Vec<Tongue> = lexical.tongues().into_iter().map(|(tongue, _)| tongue).take(TONGUES).collect();
        if tongues.is_empty() {
            tongues.push(Tongue::ENGLISH);
        }
        own_tongue_first(&mut tongues, &question.text);
        let mut sought = words(&question.text, &tongues);
        let chunks = searcher.num_docs().max(1);
        for word in &mut sought {
            weigh(word, &searcher, lexical.fields.text, chunks);
        }
        let query = build(lexical, question, &sought, &tongues, &searcher);
        Self { sought, query }
    }

    /// The best chunks, best first.
    ///
    /// # Errors
    /// `Index` when the index cannot be read.
    pub fn search(&self, lexical: &Lexical, limit: usize) -> Result<Vec<Hit>, MemoryError> {
        let searcher = lexical.reader.searcher();
        if self.query.is::<EmptyQuery>() || limit == 0 {
            return Ok(Vec::new());
        }
        let top = searcher.search(&*self.query, &TopDocs::with_limit(limit).order_by_score())?;
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            hits.push((address, hit(&searcher, address, score, self.sought.len())?));
        }
        self.cover(&searcher, lexical.fields.text, &mut hits)?;
        Ok(hits.into_iter().map(|(_, hit)| hit).collect())
    }

    /// Marks the words that each hit has. The postings know; making words of the texts again would cost more than the search.
    fn cover(&self, searcher: &Searcher, field: Field, hits: &mut [(DocAddress, Hit)]) -> Result<(), MemoryError> {
        let mut in_order: Vec<_> = hits.iter_mut().map(|(address, hit)| (*address, &mut hit.covered)).collect();
        in_order.sort_unstable_by_key(|(address, _)| *address);
        for segment in in_order.chunk_by_mut(|(a, _), (b, _)| a.segment_ord == b.segment_ord) {
            let Some((first, _)) = segment.first() else { continue };
            let index = searcher.segment_reader(first.segment_ord).inverted_index(field)?;
            for (at, word) in self.sought.iter().enumerate() {
                let worth = if word.fuzzy { FUZZY_WEIGHT } else { 1.0 };
                for term in &word.terms {
                    let term = Term::from_field_text(field, term);
                    let postings = index.read_postings(&term, IndexRecordOption::Basic);
                    let Some(mut postings) = postings.map_err(tantivy::TantivyError::from)? else { continue };
                    for (address, covered) in &mut *segment {
                        let id = address.doc_id;
                        let found = if postings.doc() < id { postings.seek(id) } else { postings.doc() };
                        if let Some(covered) = covered.get_mut(at).filter(|_| found == id) {
                            *covered = worth;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The highest score a chunk could have: every word that describes something, saturated.
    #[must_use]
    pub fn score_max(&self) -> f32 {
        // BM25 of a term tends to idf (k1 + 1) with its frequency.
        let idf: f32 = self.sought.iter().filter(|word| !word.asks).map(|word| word.idf).sum();
        idf * 2.2
    }
}

fn hit(searcher: &Searcher, address: DocAddress, score: f32, words: usize) -> Result<Hit, MemoryError> {
    let fast = searcher.segment_reader(address.segment_ord).fast_fields();
    let read = |field: &str| -> Result<u64, MemoryError> {
        fast.u64(field)?
            .first(address.doc_id)
            .ok_or_else(|| MemoryError::Index { reason: format!("a chunk without `{field}`") })
    };
    let place = read("place")?;
    let (version, ordinal) = (place >> 32, place & u64::from(u32::MAX));
    Ok(Hit {
        key: DocKey::from_halves(read("doc_high")?, read("doc_low")?),
        version: u32::try_from(version).unwrap_or(0),
        ordinal: u32::try_from(ordinal).unwrap_or(0),
        score,
        covered: vec![0.0; words],
    })
}

/// Puts the language first that the question itself is in: the one that knows most of its words as stop words. Language
/// statistics say little about so few words.
fn own_tongue_first(tongues: &mut [Tongue], text: &str) {
    let words = |tongue: &Tongue| {
        let mut words = 0;
        for_each_token(&mut tongue.analyzer(), text, |_| words += 1);
        words
    };
    let own = tongues.iter().enumerate().min_by_key(|(_, tongue)| words(tongue)).map_or(0, |(at, _)| at);
    if let Some(leading) = tongues.get_mut(..=own) {
        leading.rotate_right(1);
    }
}

/// Words of the question, each under the stems it has in the given languages. What the first language knows as a stop
/// word is left out.
fn words(text: &str, tongues: &[Tongue]) -> Vec<Sought> {
    let mut out: Vec<(usize, Sought)> = Vec::new();
    for (n, tongue) in tongues.iter().enumerate() {
        for_each_token(&mut tongue.analyzer(), text, |token| {
            let room = n == 0 && out.len() < WORDS;
            let known = out.iter_mut().find(|(at, _)| *at == token.offset_from);
            match known {
                Some((_, sought)) if !sought.terms.contains(&token.text) => sought.terms.push(token.text.clone()),
                None if room => {
                    let word = text[token.offset_from..token.offset_to].to_owned();
                    let asks = is_question_word(&word.to_lowercase());
                    let terms = vec![token.text.clone()];
                    out.push((token.offset_from, Sought { word, terms, df: 0, idf: 0.0, asks, fuzzy: false }));
                }
                _ => {}
            }
        });
    }
    let mut seen = HashSet::new();
    out.into_iter().map(|(_, sought)| sought).filter(|sought| seen.insert(sought.terms.clone())).collect()
}

/// Counts a word, and looks for its neighbours if the index does not have it.
fn weigh(sought: &mut Sought, searcher: &Searcher, field: Field, chunks: u64) {
    sought.df = sought.terms.iter().map(|term| doc_freq(searcher, field, term)).sum();
    // Deleted chunks are counted until segments merge; a document frequency above N is one of those moments.
    sought.idf = idf(sought.df.min(chunks), chunks);
    if sought.df == 0 && !sought.asks && sought.word.chars().count() >= FUZZY_CHARS {
        let near = neighbours(&sought.terms, searcher, field);
        if !near.is_empty() {
            sought.terms = near;
            sought.fuzzy = true;
        }
    }
}

fn doc_freq(searcher: &Searcher, field: Field, term: &str) -> u64 {
    searcher.doc_freq(&Term::from_field_text(field, term)).unwrap_or(0)
}

/// ln(1 + (N - n + 0.5) / (n + 0.5)). Robertson and Zaragoza 2009, with the 1 that keeps it positive.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^24 where the difference matters")]
fn idf(df: u64, chunks: u64) -> f32 {
    let (n, total) = (df as f32, chunks as f32);
    (1.0 + (total - n + 0.5) / (n + 0.5)).ln()
}

/// Indexed words at distance 1, the most frequent first.
fn neighbours(terms: &[String], searcher: &Searcher, field: Field) -> Vec<String> {
    let mut near: Vec<(u32, String)> = Vec::new();
    for term in terms.iter().filter(|term| !term.chars().any(|c| c.is_ascii_digit())) {
        let Ok(automaton) = FuzzyTermQuery::new(Term::from_field_text(field, term), 1, true).automaton() else {
            continue;
        };
        for segment in searcher.segment_readers() {
            let Ok(inverted) = segment.inverted_index(field) else { continue };
            let Ok(mut found) = inverted.terms().search(&automaton).into_stream() else { continue };
            while let Some((bytes, info)) = found.next() {
                let Ok(word) = std::str::from_utf8(bytes) else { continue };
                match near.iter_mut().find(|(_, known)| known == word) {
                    Some((df, _)) => *df += info.doc_freq,
                    None => near.push((info.doc_freq, word.to_owned())),
                }
            }
        }
    }
    near.sort_unstable_by(|a, b| b.cmp(a));
    near.into_iter().take(FUZZY_WORDS).map(|(_, word)| word).collect()
}

fn build(
    lexical: &Lexical,
    question: &Question,
    sought: &[Sought],
    tongues: &[Tongue],
    searcher: &Searcher,
) -> Box<dyn Query> {
    let fields = lexical.fields;
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    let asks_only = sought.iter().all(|word| word.asks);
    let words: Vec<(Occur, Box<dyn Query>)> = sought
        .iter()
        .filter(|word| asks_only || !word.asks)
        .map(|word| (Occur::Should, any_of(fields.text, word, searcher)))
        .collect();
    if !words.is_empty() {
        clauses.push((Occur::Must, Box::new(BooleanQuery::new(words))));
    }
    for phrase in &question.phrases {
        clauses.extend(phrase_query(fields.text, phrase, tongues).map(|query| (Occur::Must, query)));
    }
    for excluded in &question.excluded {
        clauses.extend(phrase_query(fields.text, excluded, tongues).map(|query| (Occur::MustNot, query)));
    }
    for (field, value) in &question.filters {
        let query: Option<Box<dyn Query>> = match field.as_str() {
            "title" => phrase_query(fields.title, value, tongues),
            "source" => Some(exact(fields.source, &value.to_lowercase())),
            "lang" => Some(exact(fields.lang, &value.to_lowercase())),
            _ => Some(exact(fields.id, value)),
        };
        clauses.extend(query.map(|query| (Occur::Must, query)));
    }
    if clauses.iter().any(|(occur, _)| *occur == Occur::Must) {
        Box::new(BooleanQuery::new(clauses))
    } else {
        Box::new(EmptyQuery)
    }
}

fn exact(field: Field, value: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(field, value), IndexRecordOption::Basic))
}

/// The best of several index words that stand for one word. All weigh what the word weighs: a form that only the few
/// documents of another language have would make a common word in them a rare one.
fn any_of(field: Field, word: &Sought, searcher: &Searcher) -> Box<dyn Query> {
    let chunks = searcher.num_docs().max(1);
    let one = |term: &String| -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_text(field, term), IndexRecordOption::WithFreqs))
    };
    let leveled = |term: &String| -> Box<dyn Query> {
        let own = idf(doc_freq(searcher, field, term).min(chunks), chunks);
        // With many millions of chunks the weight of a word that all have is zero in `f32`.
        let level = if word.fuzzy { 1.0 } else { word.idf / own.max(f32::MIN_POSITIVE) };
        Box::new(BoostQuery::new(one(term), level))
    };
    match &word.terms[..] {
        [term] => one(term),
        many => Box::new(DisjunctionMaxQuery::new(many.iter().map(leveled).collect())),
    }
}

/// Words in this order, under the stems of any of the languages; `None` if no language leaves a word of it.
fn phrase_query(field: Field, phrase: &str, tongues: &[Tongue]) -> Option<Box<dyn Query>> {
    let mut forms: Vec<Vec<(usize, Term)>> = Vec::new();
    for tongue in tongues {
        let mut terms = Vec::new();
        for_each_token(&mut tongue.analyzer(), phrase, |token| {
            terms.push((token.position, Term::from_field_text(field, &token.text)));
        });
        if !terms.is_empty() && !forms.contains(&terms) {
            forms.push(terms);
        }
    }
    let mut queries: Vec<Box<dyn Query>> = forms
        .into_iter()
        .map(|mut terms| -> Box<dyn Query> {
            match terms.len() {
                1 => Box::new(TermQuery::new(terms.remove(0).1, IndexRecordOption::WithFreqs)),
                _ => Box::new(PhraseQuery::new_with_offset_and_slop(terms, PHRASE_SLOP)),
            }
        })
        .collect();
    match queries.len() {
        0 => None,
        1 => queries.pop(),
        _ => Some(Box::new(DisjunctionMaxQuery::new(queries))),
    }
}
