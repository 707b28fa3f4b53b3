//! What an agent answers with: text, citations, the steps that led there, and the events told on the way.

use aivillage_memory::trust;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::openai::Usage;

/// The sentence an agent answers with when the evidence does not carry an answer.
pub const NOTHING: &str = "nothing in the village memory answers this";

/// A retrieved passage as the composer reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Collection of the document.
    pub collection: String,
    /// Id of the document.
    pub doc: String,
    /// Title of the document.
    pub title: String,
    /// Text of the passage.
    pub text: String,
    /// Characters `[start, end)` of the passage in the stored text.
    pub span: (u32, u32),
    /// Address of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Trust in the source, 0 to 1.
    pub trust: f32,
}

impl Evidence {
    /// Whether nobody whom this village knows answers for it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        trust::is_foreign(self.trust)
    }
}

/// A numbered proof: the quoted characters stand verbatim in the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Citation {
    /// The number in the answer's `[n]` marker.
    pub n: u32,
    /// Id of the document.
    pub doc: String,
    /// Collection of the document.
    pub collection: String,
    /// Title of the document.
    pub title: String,
    /// Address of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The characters themselves.
    pub quote: String,
    /// Characters `[start, end)` of the quote in the stored text.
    pub span: (u32, u32),
    /// Trust in the source, 0 to 1.
    pub trust: f32,
}

impl Citation {
    /// Cites `range` (bytes of the passage's text) as number `n`; `None` if the range is not a slice of it.
    #[must_use]
    pub fn of(n: u32, evidence: &Evidence, range: std::ops::Range<usize>) -> Option<Self> {
        let quote = evidence.text.get(range.clone())?;
        let before = evidence.text.get(..range.start)?.chars().count();
        let start = evidence.span.0.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
        let end = start.saturating_add(u32::try_from(quote.chars().count()).unwrap_or(u32::MAX));
        Some(Self {
            n,
            doc: evidence.doc.clone(),
            collection: evidence.collection.clone(),
            title: evidence.title.clone(),
            url: evidence.url.clone(),
            quote: quote.to_owned(),
            span: (start, end),
            trust: evidence.trust,
        })
    }
}

/// One thing an agent did for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Position, from 1.
    pub n: u32,
    /// `plan`, `tool`, `retrieve`, `delegate`, `generate` or `compose`.
    pub kind: String,
    /// Tool, agent or provider concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Arguments of a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Value>,
    /// Whether it succeeded.
    pub ok: bool,
    /// Milliseconds it took.
    pub ms: u64,
    /// Outcome in one line: a result, a count or the error.
    pub detail: String,
}

/// Why a turn ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The request was answered.
    #[default]
    Stop,
    /// A needed value is missing; the answer asks for it.
    AskUser,
    /// A limit of the turn was reached; the answer is what was known.
    Limit,
    /// The same call kept giving the same result.
    LoopDetected,
    /// The model's stream broke after its first token; the answer is what had come.
    Cut,
    /// A tool failed; the answer says why.
    ToolFailed,
}

/// A finished answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Plain text with `[n]` markers.
    pub answer: String,
    /// The proofs behind the markers.
    pub citations: Vec<Citation>,
    /// What was done.
    pub steps: Vec<Step>,
    /// The provider that wrote the text: `extractive`, `rules` (a tool's own result) or `openai:<name>`.
    pub provider: String,
    /// False when the memory does not carry an answer.
    pub answerable: bool,
    /// Why the turn ended.
    pub finish: Finish,
    /// Conversation the exchange was appended to.
    pub conversation: String,
    /// Tokens of the model, or Unicode words for `extractive` and `rules`.
    pub usage: Usage,
    /// Trace that shows the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Whether words of tools, the web or strangers had a part in it: who goes on with it does nothing privileged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tainted: bool,
}

/// What a turn tells while it runs, published on the topic named by `stream_to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TurnEvent {
    /// A step began.
    Step {
        /// Position, from 1.
        n: u32,
        /// See [`Step::kind`].
        kind: String,
    },
    /// A tool is called.
    ToolCall {
        /// Name of the tool.
        tool: String,
        /// Its arguments.
        args: Value,
    },
    /// A tool returned.
    ToolResult {
        /// Name of the tool.
        tool: String,
        /// Milliseconds it took.
        ms: u64,
        /// Whether it succeeded.
        ok: bool,
    },
    /// Passages were found.
    Retrieved {
        /// How many.
        n: u32,
    },
    /// A piece of the answer's text.
    Delta {
        /// The piece.
        text: String,
    },
    /// A proof of the answer.
    Citation {
        /// The proof.
        citation: Citation,
    },
    /// Token counts.
    Usage {
        /// The counts.
        usage: Usage,
    },
    /// The whole answer; nothing follows.
    Final {
        /// The answer.
        answer: Box<Answer>,
    },
    /// The turn failed; nothing follows.
    Error {
        /// Stable code.
        code: String,
        /// What was wrong.
        message: String,
    },
}

/// A fault of an answer's citations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CitationFault {
    /// A marker names no citation.
    #[error("marker [{0}] has no citation")]
    Missing(u32),
    /// A quote is not in any passage of its document.
    #[error("citation {0} is not verbatim in its passage")]
    NotVerbatim(u32),
}

/// Checks that every `[n]` of the text has a citation and every quote stands verbatim, at its span, in a passage of its document.
///
/// # Errors
/// The first [`CitationFault`]; the caller drops the marker or the answer.
pub fn check_citations(text: &str, citations: &[Citation], evidence: &[Evidence]) -> Result<(), CitationFault> {
    if let Some(n) = markers(text).into_iter().find(|n| citations.iter().all(|citation| citation.n != *n)) {
        return Err(CitationFault::Missing(n));
    }
    let stands = |citation: &Citation| evidence.iter().any(|passage| holds(passage, citation));
    match citations.iter().find(|citation| !stands(citation)) {
        Some(citation) => Err(CitationFault::NotVerbatim(citation.n)),
        None => Ok(()),
    }
}

fn holds(passage: &Evidence, citation: &Citation) -> bool {
    let same = passage.doc == citation.doc && passage.collection == citation.collection;
    let Some(skip) = citation.span.0.checked_sub(passage.span.0) else { return false };
    let rest = passage.text.char_indices().map(|(at, _)| at).chain([passage.text.len()]).nth(skip as usize);
    same && rest.and_then(|at| passage.text.get(at..)).is_some_and(|rest| rest.starts_with(&citation.quote))
}

/// Numbers of the `[n]` markers in `text`, in order.
#[must_use]
pub fn markers(text: &str) -> Vec<u32> {
    text.split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .filter(|(digits, _)| (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|(digits, _)| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage() -> Evidence {
        Evidence {
            doc: "d".into(),
            text: "Äpfel sind rot. Birnen sind grün.".into(),
            span: (100, 133),
            ..Evidence::default()
        }
    }

    #[test]
    fn spans_count_characters_of_the_stored_text() {
        let evidence = passage();
        let at = evidence.text.find("Birnen").unwrap();
        let citation = Citation::of(1, &evidence, at..evidence.text.len()).unwrap();
        assert_eq!(citation.span, (116, 133));
        assert_eq!(check_citations("Birnen sind grün. [1]", &[citation], &[evidence]), Ok(()));
    }

    #[test]
    fn faults_are_named() {
        let evidence = passage();
        let mut citation = Citation::of(1, &evidence, 0..6).unwrap();
        assert_eq!(
            check_citations("x [2]", &[citation.clone()], std::slice::from_ref(&evidence)),
            Err(CitationFault::Missing(2))
        );
        citation.quote.push('!');
        assert_eq!(check_citations("x [1]", &[citation], &[evidence]), Err(CitationFault::NotVerbatim(1)));
    }

    #[test]
    fn brackets_that_are_not_markers_are_left_alone() {
        assert_eq!(markers("a[i] [12] [x] [1234] []"), [12]);
    }
}
