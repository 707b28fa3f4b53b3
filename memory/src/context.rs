//! The question a caller asks and the context it gets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much work an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One round of full-text search.
    #[default]
    Fast,
    /// Answered as `fast` by this version; the context says so.
    Balanced,
    /// Answered as `fast` by this version; the context says so.
    Comprehensive,
}

/// A question to the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Words, `"phrases"`, `-excluded` words, filters such as `source:notes.md`, `title:`, `lang:`, `id:`.
    pub text: String,
    /// Passages wanted.
    #[serde(default = "eight")]
    pub k: usize,
    /// How thoroughly to look.
    #[serde(default)]
    pub mode: Mode,
    /// Where to look; everywhere if empty.
    #[serde(default)]
    pub collections: Vec<String>,
}

fn eight() -> usize {
    8
}

impl Query {
    /// A question to all collections, eight passages wanted.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), k: eight(), mode: Mode::Fast, collections: Vec::new() }
    }
}

/// What the memory knows about a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// The best passages, best first.
    pub passages: Vec<Passage>,
    /// Short answers; empty in mode `fast`, which only finds passages.
    pub answers: Vec<AnswerCandidate>,
    /// Values that sources disagree on; empty in mode `fast`.
    pub contradictions: Vec<Contradiction>,
    /// What the passages do not cover.
    pub gaps: Vec<Gap>,
    /// How sure it is that the passages answer the question, in `[0, 1]`.
    pub confidence: f32,
    /// Whether an answer should be given; if not, the honest reply is that nothing here answers the question.
    pub answerable: bool,
    /// Which collections were asked.
    pub coverage: Coverage,
    /// How it was looked for.
    pub mode: Mode,
    /// Trace of the request.
    pub trace_id: Option<String>,
}

/// A passage with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Passage {
    /// Number in this context, from 1.
    pub n: u32,
    /// Its collection.
    pub collection: String,
    /// Id of its document.
    pub doc: String,
    /// Version of its document.
    pub version: u32,
    /// Which chunk of the document it is, from 0.
    pub chunk: u32,
    /// Title of its document.
    pub title: Option<String>,
    /// Headings it stands under, outermost first.
    pub heading: Option<String>,
    /// Page it stands on.
    pub page: Option<u32>,
    /// The words themselves.
    pub text: String,
    /// Characters of the stored text it takes up: from, to.
    pub span: (u32, u32),
    /// How well it fits, in `[0, 1]`: its BM25 score as share of the best possible for this question.
    pub score: f32,
    /// What the score is made of.
    pub parts: Parts,
    /// Share of the question's weight that its words cover, in `[0, 1]`.
    pub coverage: f32,
    /// Who said it.
    pub source: Option<String>,
    /// Where it can be read in full.
    pub url: Option<String>,
    /// Language by ISO 639-3 code.
    pub language: String,
    /// How far its source is believed, in `[0, 1]`.
    pub trust: f32,
    /// Copies of it that were found and left out.
    pub copies: u32,
}

/// Scores of the channels that found a passage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parts {
    /// BM25, not normalised.
    pub bm25: f32,
}

/// A short answer with the passages that state it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerCandidate {
    /// The answer.
    pub text: String,
    /// Its probability.
    pub p: f32,
    /// Numbers of the passages.
    pub passages: Vec<u32>,
}

/// Something that passages disagree on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contradiction {
    /// What is stated.
    pub slot: String,
    /// What is said about it, and where.
    pub values: Vec<AnswerCandidate>,
}

/// What kind of thing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// An important word of the question is in none of the passages.
    UncoveredTerm,
    /// A name or number of the question is nowhere in the memory.
    UnknownEntity,
}

/// Something that the passages do not cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// What kind of thing.
    pub kind: GapKind,
    /// The words of the question.
    pub text: String,
}

/// Which shards were asked and which answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Shards asked.
    pub asked: u32,
    /// Shards that answered.
    pub answered: u32,
    /// Those that did not.
    pub missing_shards: Vec<String>,
}
