//! What a log asks of a witness. C2SP tlog-witness, "add-checkpoint".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::checkpoint::number;
use super::hash::Hash;
use super::note::{BadNote, Malformed, Note};
use super::tree::MAX_PROOF;

/// A new checkpoint, and the proof that it extends the one the witness has; shown and read as the body of the HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddCheckpoint {
    /// Size of the checkpoint that the witness has, as the log believes.
    pub old: u64,
    /// Consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub note: Note,
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for AddCheckpoint {
    type Err = BadNote;

    fn from_str(text: &str) -> Result<Self, BadNote> {
        const BAD: BadNote = BadNote::Malformed(Malformed::SignatureLine);
        let (head, note) = text.split_once("\n\n").ok_or(BadNote::Malformed(Malformed::NoSignatures))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(number).ok_or(BAD)?;
        let proof: Vec<_> = lines.map(Hash::from_base64).take(MAX_PROOF + 1).collect::<Option<_>>().ok_or(BAD)?;
        if proof.len() > MAX_PROOF {
            return Err(BadNote::Malformed(Malformed::TooLarge));
        }
        Ok(Self { old, proof, note: note.parse()? })
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read, or its old size is above that of the checkpoint.
    #[error("the request is malformed: {detail}")]
    BadRequest {
        /// What is wrong.
        detail: String,
    },
    /// The witness does not know the log.
    #[error("the log is unknown here")]
    UnknownOrigin,
    /// No signature by a key of the log.
    #[error("the log did not sign it")]
    BadSignature,
    /// The witness has another size, or another root of that size.
    #[error("the latest checkpoint here has size {size}")]
    Conflict {
        /// Size of the checkpoint that the witness has.
        size: u64,
    },
    /// The checkpoint does not extend the one that the witness has.
    #[error("the proof does not hold")]
    BadProof,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest { .. } => 400,
            Self::BadSignature => 403,
            Self::UnknownOrigin => 404,
            Self::Conflict { .. } => 409,
            Self::BadProof => 422,
        }
    }

    /// The body of the answer; that of 409 has the type `text/x.tlog.size`.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::Conflict { size } => format!("{size}\n"),
            _ => format!("{self}\n"),
        }
    }
}
