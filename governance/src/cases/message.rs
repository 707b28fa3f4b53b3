//! What is said to `gov.cases`, and what it answers. A refusal is a `CallError` with the code of
//! [`CaseError`](super::CaseError).

use aivillage_runtime::Reply;
use serde::{Deserialize, Serialize};

use super::case::{CaseId, Choice, Grounds, Sender, Tier};
use super::notice::Notice;
use super::report::{Quarter, Tally};
use super::view::CaseView;
use crate::moderation::{Stage, Verdict};

/// A verdict that a case is to be opened about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewCase {
    /// Which case it becomes; the same one again is the same case.
    pub id: CaseId,
    /// What was said of the content.
    pub verdict: Verdict,
    /// Who sent it.
    pub sender: Sender,
    /// Where it was on its way.
    pub stage: Stage,
    /// The text, whole.
    pub content: String,
    /// The tenant's tier.
    pub tier: Tier,
    /// The namespace that it was for, as the constitution's rules name it; empty for none.
    pub namespace: String,
}

impl NewCase {
    /// A verdict on what somebody sent.
    #[must_use]
    pub fn new(verdict: Verdict, sender: Sender, stage: Stage, content: String) -> Self {
        let id = CaseId::new(&sender);
        Self { id, verdict, sender, stage, content, tier: Tier::default(), namespace: String::new() }
    }
}

/// What a shard of cases understands. Messages without a principal are from the village itself.
#[derive(Debug, Serialize, Deserialize)]
pub enum CasesMsg {
    /// Opens a case; from within only.
    Open(Box<NewCase>, Reply<Notice>),
    /// The sender appeals.
    Appeal {
        /// Which case.
        case: CaseId,
        /// What is held against the verdict.
        grounds: Grounds,
        /// In words.
        text: String,
        /// The case as it is then.
        reply: Reply<CaseView>,
    },
    /// A juror votes.
    Vote {
        /// Which case.
        case: CaseId,
        /// For what.
        choice: Choice,
        /// Why.
        reason: String,
        /// The case as it is then.
        reply: Reply<CaseView>,
    },
    /// The sender, whom the jury has not convinced, asks the community.
    Refer(CaseId, Reply<CaseView>),
    /// What the community has decided: whether it overturns; from who certifies votes.
    Community(CaseId, bool, Reply<CaseView>),
    /// One case.
    Get(CaseId, Reply<CaseView>),
    /// The newest cases that the caller may see, at most so many; only those older than one, if it is given.
    List {
        /// Older than this one.
        before: Option<CaseId>,
        /// At most so many.
        limit: usize,
        /// The newest first.
        reply: Reply<Vec<CaseView>>,
    },
    /// The counts of a quarter.
    Tally(Quarter, Reply<Tally>),
    /// Another model has looked; sent by itself.
    Rereviewed(CaseId, Box<Verdict>),
    /// Ends what time ends, and draws juries that could not be drawn before.
    Tick,
    /// All cases of one sender with their texts, who wants to see them; from within only.
    Of(Sender, Reply<Vec<CaseView>>),
    /// Why the cases of one sender have to be kept, if they have to; from within only.
    Held(Sender, Reply<Option<String>>),
    /// Removes all that there is of one sender, and tells how much that was; from within only.
    Erase(Sender, Reply<u64>),
}
