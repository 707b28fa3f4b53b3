//! What can go wrong between a caller and an actor.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;
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

/// A refusal by a rule: what [`AppError`] says, and what a program shows about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable `snake_case` name.
    pub code: Cow<'static, str>,
    /// What was stopped and by which rule.
    pub message: String,
    /// A JSON object: the rule, and what can be done about it.
    pub notice: String,
    /// When another try makes sense, if ever.
    pub retry_after_ms: Option<u32>,
}

/// Why an ask of another node's actor has no answer, and who says so: what was certainly not handled may be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: CallError,
    /// The actor itself says so; it may have acted before.
    pub(crate) is_handled: bool,
}

impl Failure {
    pub(crate) fn by_handler(error: CallError) -> Self {
        Self { error, is_handled: true }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self { error, is_handled: false }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        failure.error
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
    /// Too few nodes that can hear each other: writes are refused, reads may be stale.
    #[error("no quorum: {detail}")]
    NoQuorum {
        /// What this node sees.
        detail: String,
    },
    /// No live node may host the actor.
    #[error("no node can host `{kind}`: {missing}")]
    NotPlaced {
        /// The kind.
        kind: String,
        /// What no live node has.
        missing: String,
    },
    /// The node that hosts the actor cannot be reached.
    #[error("node {node} cannot be reached{}", if *sent { "; whether the message was handled is unknown" } else { "" })]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Whether the message may have arrived.
        sent: bool,
    },
    /// The two nodes have different versions of the kind's messages.
    #[error("message version {got}, the node that hosts the actor has {have}")]
    VersionMismatch {
        /// The version of the host.
        have: u16,
        /// The version of the message.
        got: u16,
    },
    /// The one place that has this actor's state is away.
    #[error("the state of this `{kind}` is on a node that is away: {detail}")]
    SlotUnavailable {
        /// The kind.
        kind: String,
        /// Which node or group.
        detail: String,
    },
    /// The actor lives elsewhere now; it had no effect. Senders look it up again by themselves.
    #[error("the actor has moved")]
    Moved {
        /// Where to, if the sender of this error knows.
        to: Option<NodeId>,
    },
    /// A rule stopped what was asked or answered.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Moved { to: None },
            StoreError::NoQuorum { .. } => Self::NoQuorum { detail: error.to_string() },
            _ => Self::Store { message: error.to_string(), full: error.is_full() },
        }
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
            Self::NoQuorum { .. } => "no_quorum",
            Self::NotPlaced { .. } => "actor_not_placed",
            Self::Unreachable { .. } => "node_unreachable",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::SlotUnavailable { .. } => "slot_unavailable",
            Self::Moved { .. } => "actor_moved",
            Self::Refused(refusal) => return refusal.code.clone(),
        })
    }

    /// When another try makes sense, if the error says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after_ms } => Some(Duration::from_millis(u64::from(*retry_after_ms))),
            Self::Draining | Self::NoQuorum { .. } | Self::SlotUnavailable { .. } | Self::Unreachable { .. } => {
                Some(Duration::from_secs(1))
            }
            Self::Refused(refusal) => refusal.retry_after_ms.map(|ms| Duration::from_millis(u64::from(ms))),
            _ => None,
        }
    }
}
