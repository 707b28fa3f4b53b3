//! What happens to cases.

use serde::{Deserialize, Serialize};

use super::case::{Appeal, Case, CaseId, Phase, Rereview, Vote};
use super::jury::Juror;
use super::standing::Restriction;
use crate::keys::SubjectTag;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CaseEvent {
    /// A verdict restricted somebody.
    Opened(CaseId, Box<Case>),
    /// The same came again.
    Repeated(CaseId, u64),
    /// The sender appealed; it is decided by the deadline.
    Appealed {
        /// Which case.
        case: CaseId,
        /// The appeal.
        appeal: Appeal,
        /// When silence decides, Unix milliseconds.
        deadline_ms: u64,
    },
    /// Another model looked.
    Rereviewed {
        /// Which case.
        case: CaseId,
        /// What came of it.
        look: Rereview,
        /// What is kept from the sender from now on, if that changes.
        restriction: Option<Restriction>,
    },
    /// A jury was drawn.
    JuryDrawn {
        /// Which case.
        case: CaseId,
        /// Root of the checkpoint that seeded the draw, hex.
        root: String,
        /// Digest of those who were drawn from, hex.
        pool: String,
        /// The jury.
        jurors: Vec<Juror>,
    },
    /// A juror voted.
    Voted(CaseId, Vote),
    /// The jury agrees with the verdict; the community may be asked.
    JuryUpheld(CaseId, u64),
    /// The community is asked.
    Referred(CaseId, u64),
    /// The case ended.
    Ended {
        /// Which case.
        case: CaseId,
        /// How.
        phase: Phase,
        /// Whether a deadline passed.
        is_timed_out: bool,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// Cases that ended long ago were removed.
    Forgotten(Vec<CaseId>),
    /// All that there was of a sender was removed.
    Erased(SubjectTag),
}
