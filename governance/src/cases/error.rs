//! Why a case does not go on as somebody wants.

use aivillage_runtime::{AppError, CallError};

use super::case::Phase;

/// Longest words of an appeal or a vote, bytes.
pub(super) const WORDS: usize = 4 * 1024;
/// Why a case does not go on as somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// There is none, or it is nobody's business.
    #[error("there is no such case")]
    NotFound,
    /// A verdict that lets the content pass as it is makes no case.
    #[error("the verdict restricts nobody, so there is nothing to open a case about")]
    NotActing,
    /// The constitution has no rule for the verdict's category.
    #[error("the constitution has no rule that restricts `{category}`")]
    NoRule {
        /// The category.
        category: &'static str,
    },
    /// Only the sender may do this.
    #[error("only who sent the content may do this")]
    NotSender,
    /// The case is elsewhere on its way.
    #[error("the case is {}, which does not allow this", phase.name())]
    WrongPhase {
        /// Where it is.
        phase: Phase,
    },
    /// The time for it has passed.
    #[error("the time for this ended at {at}")]
    Late {
        /// When, RFC 3339.
        at: String,
    },
    /// The juror has voted.
    #[error("a juror votes once, and this one has")]
    VotedAlready,
    /// A vote or appeal without words.
    #[error("say why, in words")]
    NoReason,
    /// Too many words.
    #[error("{bytes} bytes of words; at most {WORDS} are kept")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// No more cases fit, and none has ended.
    #[error("the docket is full of cases that have not ended")]
    Full,
    /// What happens cannot be logged, so it does not happen.
    #[error("nothing is done that cannot be logged: {0}")]
    Unlogged(String),
}

impl CaseError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NotActing | Self::NoRule { .. } | Self::NoReason => "payload_invalid",
            Self::NotSender => "forbidden",
            Self::WrongPhase { .. } | Self::VotedAlready => "conflict",
            Self::Late { .. } => "gone",
            Self::TooLong { .. } => "payload_too_large",
            Self::Full => "overloaded",
            Self::Unlogged(_) => "governance_unavailable",
        }
    }
}

impl From<CaseError> for CallError {
    fn from(error: CaseError) -> Self {
        AppError::new(error.code(), error.to_string()).into()
    }
}
