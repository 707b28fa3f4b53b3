//! What can go wrong between a caller and an actor.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::task::TaskError;

/// A failure that an actor's author foresaw: a stable code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AppError {
    /// Stable `snake_case` name, e.g. `not_found`.
    pub code: Cow<'static, str>,
    /// What happened and what to do about it.
    pub message: String,
}

impl AppError {
    /// Makes an error out of its code and its sentence.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Why a `tell` or an `ask` did not succeed. Every ask ends in a reply or in one of these before its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The deadline passed while the actor was working; the effect is unknown.
    #[error("no reply before the deadline")]
    Timeout,
    /// The deadline had passed before the actor took the message; it had no effect.
    #[error("the deadline passed before the message was handled")]
    Expired,
    /// The mailbox is full, or the actor is recovering from crashes; it had no effect.
    #[error("overloaded, retry in {retry_after_ms} ms")]
    Overloaded {
        /// When another try makes sense.
        retry_after_ms: u32,
    },
    /// No node hosts this kind.
    #[error("unknown kind `{kind}`")]
    UnknownKind {
        /// The name that was asked for.
        kind: String,
    },
    /// The address or the body could not be read.
    #[error("cannot read the message: {detail}")]
    Decode {
        /// Where and why.
        detail: String,
    },
    /// The actor crashed while it handled this message; the effect is unknown.
    #[error("the actor crashed while handling the message")]
    Panicked,
    /// The activation could not start, time after time.
    #[error("the actor cannot start: {reason}")]
    NotStarted {
        /// What its start said last.
        reason: String,
    },
    /// The actor dropped the message without an answer.
    #[error("the actor gave no reply")]
    NoReply,
    /// The node is shutting down and admits nothing new.
    #[error("the node is draining")]
    Draining,
    /// The caller may not do this.
    #[error("denied: {reason}")]
    Denied {
        /// The rule that refused.
        reason: String,
    },
    /// The message is larger than a limit.
    #[error("too large: the limit is {max} bytes")]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The actor answered with an error of its own.
    #[error(transparent)]
    App(#[from] AppError),
    /// Durable state could not be read or written.
    #[error("store: {message}")]
    Store {
        /// What the store said.
        message: String,
        /// True when the disk is full: reads still work.
        full: bool,
    },
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store { message: error.to_string(), full: error.is_full() }
    }
}

impl From<TaskError> for CallError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Panicked { .. } => Self::Panicked,
            TaskError::Stopped { .. } => Self::Draining,
        }
    }
}

impl CallError {
    /// The stable `snake_case` name of this error.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Timeout => "actor_timeout",
            Self::Expired => "expired",
            Self::Overloaded { .. } => "overloaded",
            Self::UnknownKind { .. } => "actor_kind_unknown",
            Self::Decode { .. } => "bad_request",
            Self::Panicked => "actor_panicked",
            Self::NotStarted { .. } => "actor_not_started",
            Self::NoReply => "no_reply",
            Self::Draining => "draining",
            Self::Denied { .. } => "forbidden",
            Self::TooLarge { .. } => "payload_too_large",
            Self::App(app) => return app.code.clone(),
            Self::Store { full: true, .. } => "store_full",
            Self::Store { .. } => "store_failed",
        })
    }

    /// When another try makes sense, if the error says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after_ms } => Some(Duration::from_millis(u64::from(*retry_after_ms))),
            Self::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
