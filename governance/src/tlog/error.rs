//! What can go wrong with a log.

use std::io;

use aivillage_runtime::{AppError, CallError};
use serde::{Deserialize, Serialize};

use super::bundle::MAX_ENTRY;
use super::entry::EntryError;

/// Why a log did not do what was asked. After all but `Stopped`, `Damaged`, `Fork` and `Convicted` it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The entry is too large; nothing was appended.
    #[error("an entry of {bytes} bytes; the limit is {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The entry has no canonical form; nothing was appended.
    #[error("the entry cannot be written: {detail}")]
    BadEntry {
        /// Which field, and why.
        detail: String,
    },
    /// The disk is full; nothing was appended or signed. Reads still work; appends do again when there is room.
    #[error("no space left to write {file}")]
    Full {
        /// The file, below the log's folder.
        file: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {file}: {detail}")]
    Io {
        /// What was tried.
        what: String,
        /// The file, below the log's folder.
        file: String,
        /// What the operating system said.
        detail: String,
    },
    /// A file does not hold what was written there. Restore it.
    #[error("{file} is damaged at entry {index}: {what}")]
    Damaged {
        /// The file, below the log's folder.
        file: String,
        /// The first entry that is touched.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// The log does not extend what was signed: signing would fork history. Audit it, restore the files.
    #[error(
        "the log does not extend its last signed checkpoint, from entry {index} on; audit it and restore the files"
    )]
    Fork {
        /// The first entry that cannot be vouched for.
        index: u64,
    },
    /// Another node has a second checkpoint of some size that this log's key signed: there is a second history.
    #[error("the log has signed two histories, as another node shows; audit it, and begin a new log under a new key")]
    Convicted,
    /// There is no such entry, or no tree of that size.
    #[error("{asked} is beyond the log's {size} entries")]
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// Entries of the log or of the tree.
        size: u64,
    },
    /// More witnesses are wanted than there are.
    #[error("{wanted} cosignatures are wanted, and there are {have} witnesses")]
    TooFewWitnesses {
        /// Cosignatures asked for.
        wanted: usize,
        /// Witnesses known.
        have: usize,
    },
    /// A note that was to be merged is not a cosignature of this log's checkpoint.
    #[error("not a cosignature of the current checkpoint: {detail}")]
    BadCosignature {
        /// What is wrong.
        detail: String,
    },
    /// The log writes no more, since a file may not hold what was written to it, or its thread ended. Callers refuse what they
    /// could not log; a restart of the node recovers.
    #[error("the log has stopped: {reason}")]
    Stopped {
        /// What stopped it.
        reason: String,
    },
}

impl LogError {
    pub(crate) fn io(what: &str, file: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { file: file.to_owned() },
            _ => Self::Io { what: what.to_owned(), file: file.to_owned(), detail: error.to_string() },
        }
    }

    pub(crate) fn damaged(file: &(impl ToString + ?Sized), index: u64, what: &str) -> Self {
        Self::Damaged { file: file.to_string(), index, what: what.to_owned() }
    }

    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "tlog_entry_too_large",
            Self::BadEntry { .. } => "tlog_bad_entry",
            Self::Full { .. } => "tlog_full",
            Self::Io { .. } => "tlog_io",
            Self::Damaged { .. } => "tlog_damaged",
            Self::Fork { .. } => "tlog_fork",
            Self::Convicted => "tlog_convicted",
            Self::OutOfRange { .. } => "tlog_out_of_range",
            Self::TooFewWitnesses { .. } => "tlog_too_few_witnesses",
            Self::BadCosignature { .. } => "tlog_bad_cosignature",
            Self::Stopped { .. } => "tlog_stopped",
        }
    }
}

impl From<EntryError> for LogError {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::TooLarge(bytes) => Self::TooLarge { bytes, max: MAX_ENTRY },
            error => Self::BadEntry { detail: error.to_string() },
        }
    }
}

impl From<LogError> for CallError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full { .. } => Self::Store { message: error.to_string(), full: true },
            LogError::TooLarge { max, .. } => Self::TooLarge { max: max as u64 },
            _ => AppError::new(error.code(), error.to_string()).into(),
        }
    }
}
