//! The short way to the cases of all shards.

use aivillage_runtime::{Addr, CallError, Village};
use futures::future::try_join_all;

use super::actor::CaseActor;
use super::case::{CaseId, Choice, Grounds, SHARDS, Sender};
use super::message::{CasesMsg, NewCase};
use super::notice::Notice;
use super::report::{Quarter, Tally};
use super::view::CaseView;
use crate::moderation::{Stage, Verdict};

/// The cases of a village. Who asks is the principal of the message that is being handled.
#[derive(Debug, Clone)]
pub struct Cases {
    village: Village,
}

impl Cases {
    /// The cases of this village.
    #[must_use]
    pub fn new(village: &Village) -> Self {
        Self { village: village.clone() }
    }

    fn shard(&self, shard: u8) -> Addr<CaseActor> {
        self.village.addr(shard.to_string())
    }

    fn of(&self, case: CaseId) -> Addr<CaseActor> {
        self.shard(case.shard())
    }

    /// Opens a case about a verdict that acts, and gives what its sender is to be told. `evidence` is the text, whole.
    ///
    /// # Errors
    /// Code `payload_invalid` for a verdict that restricts nobody, `governance_unavailable` when it cannot be logged; any other
    /// [`CallError`].
    pub async fn open(
        &self,
        verdict: Verdict,
        sender: Sender,
        stage: Stage,
        evidence: String,
    ) -> Result<Notice, CallError> {
        self.open_case(NewCase::new(verdict, sender, stage, evidence)).await
    }

    /// The same with all that may be said of it.
    ///
    /// # Errors
    /// As [`Cases::open`].
    pub async fn open_case(&self, new: NewCase) -> Result<Notice, CallError> {
        let shard = self.shard(new.sender.shard());
        shard.ask(|reply| CasesMsg::Open(Box::new(new), reply)).await
    }

    /// The sender appeals.
    ///
    /// # Errors
    /// Codes `not_found`, `forbidden`, `conflict`, `gone`, `payload_invalid`, `payload_too_large`; any other [`CallError`].
    pub async fn appeal(&self, case: CaseId, grounds: Grounds, text: String) -> Result<CaseView, CallError> {
        self.of(case).ask(|reply| CasesMsg::Appeal { case, grounds, text, reply }).await
    }

    /// A juror votes.
    ///
    /// # Errors
    /// As [`Cases::appeal`].
    pub async fn vote(&self, case: CaseId, choice: Choice, reason: String) -> Result<CaseView, CallError> {
        self.of(case).ask(|reply| CasesMsg::Vote { case, choice, reason, reply }).await
    }

    /// The sender asks the community about what the jury has upheld.
    ///
    /// # Errors
    /// As [`Cases::appeal`].
    pub async fn refer(&self, case: CaseId) -> Result<CaseView, CallError> {
        self.of(case).ask(|reply| CasesMsg::Refer(case, reply)).await
    }

    /// One case.
    ///
    /// # Errors
    /// Code `not_found`, also for who has no part in it; any other [`CallError`].
    pub async fn get(&self, case: CaseId) -> Result<CaseView, CallError> {
        self.of(case).query(|reply| CasesMsg::Get(case, reply)).await
    }

    /// The newest cases that the caller has a part in, of all shards.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn list(&self, before: Option<CaseId>, limit: usize) -> Result<Vec<CaseView>, CallError> {
        let list = async |shard| self.shard(shard).query(|reply| CasesMsg::List { before, limit, reply }).await;
        let mut all: Vec<CaseView> = try_join_all((0..SHARDS).map(list)).await?.into_iter().flatten().collect();
        // The text of a `UUIDv7` has the order of its bytes.
        all.sort_unstable_by(|one, other| other.case.cmp(&one.case));
        all.truncate(limit);
        Ok(all)
    }

    /// The counts of a quarter, of all shards.
    ///
    /// # Errors
    /// Any [`CallError`].
    pub async fn tally(&self, quarter: Quarter) -> Result<Tally, CallError> {
        let count = async |shard| self.shard(shard).ask(|reply| CasesMsg::Tally(quarter, reply)).await;
        let mut all = Tally::default();
        for shard in try_join_all((0..SHARDS).map(count)).await? {
            all.add(&shard);
        }
        Ok(all)
    }

    /// Lets every shard end what time has ended.
    ///
    /// # Errors
    /// The first shard that cannot be reached.
    pub async fn look(&self) -> Result<(), CallError> {
        let look = async |shard| self.shard(shard).tell(CasesMsg::Tick).await;
        try_join_all((0..SHARDS).map(look)).await.map(drop)
    }
}
