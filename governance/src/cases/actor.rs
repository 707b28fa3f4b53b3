//! `gov.cases`: the cases of a sixteenth of all senders, and what their senders may not do meanwhile.
//!
//! Key: shard, 0 to 15; a sender's cases and standing are in one, so that both change by one commit. Durable: yes, replicated; a
//! reply is sent after its events are durable and have their place in the log. Lost in a crash: second looks under way, which
//! begin anew; of content that abuses children none is kept, so there the machine's suspension ends by itself.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Entity, Kind, KindOptions, Mail, Principal,
    StoreError, clock,
};

use super::case::{Case, CaseId, Phase, Rereview, Sender, Vote, rfc3339};
use super::court::{Court, agrees};
use super::docket::Docket;
use super::error::CaseError;
use super::event::CaseEvent;
use super::jury::{self, Juror};
use super::message::{CasesMsg, NewCase};
use super::metrics::CaseMetrics;
use super::notice::Notice;
use super::view::CaseView;
use super::words::{self, Words};
use crate::keys::{CryptError, VaultError};
use crate::moderation::{Action, CheckRequest, H2Action, Level, Policy, Verdict};

/// How often deadlines are looked at while there are any.
const LOOK: Duration = Duration::from_secs(30);
/// Most cases in one answer.
const PAGE: usize = 200;
/// Roles that may look at the cases of their tenant.
const MODERATORS: [&str; 2] = ["admin", "super_admin"];
/// The role that certifies what the community has decided.
const CERTIFIER: &str = "trustee";

/// The behaviour; its data is [`Docket`].
#[derive(Debug)]
pub struct CaseActor(Court);

impl CaseActor {
    /// A shard of this court.
    #[must_use]
    pub fn new(court: Court) -> Self {
        Self(court)
    }
}

impl Kind for CaseActor {
    const NAME: &'static str = "gov.cases";
    type Body = CasesMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

/// A shard at work.
#[derive(Debug)]
pub struct Bench {
    cx: ActorCx,
    me: ActorRef<Mail<CasesMsg>>,
    court: Court,
    shard: u8,
    docket: Entity<Docket>,
    metrics: Arc<CaseMetrics>,
    /// A [`CasesMsg::Tick`] is on its way.
    is_ticking: bool,
}

/// Why a message has no answer: its sender can decide on it, or nobody here can mend it.
#[derive(Debug)]
enum Failed {
    Told(CaseError),
    Call(CallError),
}

impl From<CaseError> for Failed {
    fn from(error: CaseError) -> Self {
        Self::Told(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Call(error.into())
    }
}

impl From<VaultError> for Failed {
    fn from(error: VaultError) -> Self {
        Self::Call(error.into())
    }
}

impl From<CryptError> for Failed {
    fn from(error: CryptError) -> Self {
        Self::Call(error.into())
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Told(error) => error.into(),
            Failed::Call(error) => error,
        }
    }
}

type Outcome<T> = Result<T, Failed>;

impl Actor for CaseActor {
    type Msg = Mail<CasesMsg>;
    type State = Bench;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Bench, ActorProcessingErr> {
        let docket: Entity<Docket> = cx.recover().await?;
        let shard = cx.key().parse().map_err(|_| format!("{:?} is no shard of the cases", cx.key()))?;
        let metrics = cx.village().metrics::<CaseMetrics>();
        let mut bench = Bench { cx, me, court: self.0.clone(), shard, docket, metrics, is_ticking: false };
        bench.court.standings.show(shard, bench.docket.senders());
        bench.resume().await;
        bench.tick_later();
        Ok(bench)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        bench: &mut Bench,
    ) -> Result<(), ActorProcessingErr> {
        let by = mail.cx.principal();
        match mail.body {
            CasesMsg::Open(new, reply) => reply.complete(bench.open(*new, by).await),
            CasesMsg::Appeal { case, grounds, text, reply } => {
                reply.complete(bench.appeal(case, (grounds, &text), by).await);
            }
            CasesMsg::Vote { case, choice, reason, reply } => {
                reply.complete(bench.vote(case, (choice, reason), by).await);
            }
            CasesMsg::Refer(case, reply) => reply.complete(bench.refer(case, by).await),
            CasesMsg::Community(case, overturns, reply) => reply.complete(bench.community(case, overturns, by).await),
            CasesMsg::Get(case, reply) => reply.complete(bench.get(case, by).await),
            CasesMsg::List { before, limit, reply } => reply.complete(bench.list(before, limit, by).await),
            CasesMsg::Tally(quarter, reply) => reply.send(bench.docket.tally(quarter)),
            // Nobody from outside says what a model has found.
            CasesMsg::Rereviewed(case, verdict) if by.is_none() => bench.rereviewed(case, &verdict).await,
            CasesMsg::Of(sender, reply) if by.is_none() => reply.complete(bench.of(&sender).await),
            CasesMsg::Held(sender, reply) if by.is_none() => reply.send(bench.held(&sender)),
            CasesMsg::Erase(sender, reply) if by.is_none() => reply.complete(bench.erase(&sender).await),
            CasesMsg::Rereviewed(..) | CasesMsg::Of(..) | CasesMsg::Held(..) | CasesMsg::Erase(..) => {}
            CasesMsg::Tick => {
                bench.is_ticking = false;
                bench.tick().await;
            }
        }
        bench.tick_later();
        Ok(())
    }
}

/// What somebody is to a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Sender,
    Juror,
    Moderator,
}

/// None for whom the case does not concern: it does not exist for them.
fn part(case: &Case, by: Option<&Principal>) -> Option<Part> {
    let Some(by) = by else { return Some(Part::Moderator) };
    let is_home = by.tenant == case.sender.tenant;
    if is_home && by.subject == case.sender.subject {
        return Some(Part::Sender);
    }
    if case.is_juror(&by.tenant, &by.subject) {
        return Some(Part::Juror);
    }
    (is_home && MODERATORS.iter().any(|role| by.has_role(role))).then_some(Part::Moderator)
}

impl Bench {
    /// Makes events durable with their entry, then lets everybody see what follows.
    async fn commit(
        &mut self,
        action: &str,
        by: Option<&Principal>,
        id: CaseId,
        events: Vec<CaseEvent>,
    ) -> Outcome<()> {
        if events.is_empty() {
            return Ok(());
        }
        let place = self.court.log.place().await?;
        self.docket.commit_all(events.clone()).await?;
        for event in &events {
            self.metrics.count(event, &self.docket);
        }
        self.court.standings.show(self.shard, self.docket.senders());
        if let Ok(case) = self.docket.case(id) {
            self.court.log.fill(place, action, by, (id, case));
        }
        Ok(())
    }

    async fn open(&mut self, new: NewCase, by: Option<&Principal>) -> Outcome<Notice> {
        let content = new.content.clone();
        let (asked, case) = self.court.fill_in(new, clock::unix_ms())?;
        let sealed = Words::of(self.cx.village(), asked, &case.sender)?.seal_case(case).await?;
        let (id, events) = self.docket.open(asked, sealed)?;
        let is_new = events.iter().any(|event| matches!(event, CaseEvent::Opened(..)));
        self.commit(if is_new { "open" } else { "repeat" }, by, id, events).await?;
        let case = self.read(id).await?;
        if is_new && case.judged.level() == Level::H0 {
            self.look_anew(id, content, case.judged.h2);
        }
        Ok(Notice::of(id, &case))
    }

    fn words(&self, id: CaseId) -> Outcome<Words> {
        Ok(Words::of(self.cx.village(), id, &self.docket.case(id)?.sender)?)
    }

    /// A case with its words.
    async fn read(&self, id: CaseId) -> Outcome<Case<String>> {
        Ok(self.words(id)?.open_case(self.docket.case(id)?).await?)
    }

    /// A case that the caller has this part in.
    async fn mine(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<Part> {
        // What time has ended meanwhile has ended, whether or not somebody looked.
        self.end_what_is_due().await?;
        Ok(part(self.docket.case(id)?, by).ok_or(CaseError::NotFound)?)
    }

    async fn view(&self, id: CaseId, part: Part) -> Outcome<CaseView> {
        Ok(self.read(id).await?.view(id, part == Part::Juror))
    }

    async fn appeal(
        &mut self,
        id: CaseId,
        (grounds, text): (super::Grounds, &str),
        by: Option<&Principal>,
    ) -> Outcome<CaseView> {
        let part = self.mine(id, by).await?;
        if part != Part::Sender {
            return Err(CaseError::NotSender.into());
        }
        let sealed = self.words(id)?.seal(words::Part::Appeal, text).await?;
        let events = self.docket.appeal(id, grounds, (text, sealed), clock::unix_ms())?;
        self.commit("appeal", by, id, events).await?;
        self.resume_one(id).await;
        self.view(id, part).await
    }

    async fn vote(
        &mut self,
        id: CaseId,
        (choice, reason): (super::Choice, String),
        by: Option<&Principal>,
    ) -> Outcome<CaseView> {
        self.mine(id, by).await?;
        let by = by.ok_or(CaseError::NotFound)?;
        let juror = Juror { tenant: by.tenant.clone(), subject: by.subject.clone() };
        let sealed = self.words(id)?.seal(words::Part::Reason, &reason).await?;
        let vote = Vote { juror, choice, reason: sealed, at_ms: clock::unix_ms() };
        let events = self.docket.vote(id, vote, &reason)?;
        self.commit("vote", Some(by), id, events).await?;
        self.view(id, Part::Juror).await
    }

    async fn refer(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<CaseView> {
        let part = self.mine(id, by).await?;
        if part != Part::Sender {
            return Err(CaseError::NotSender.into());
        }
        let events = self.docket.refer(id, clock::unix_ms())?;
        self.commit("refer", by, id, events).await?;
        self.view(id, part).await
    }

    async fn community(&mut self, id: CaseId, overturns: bool, by: Option<&Principal>) -> Outcome<CaseView> {
        self.end_what_is_due().await?;
        let case = self.docket.case(id)?;
        let certifies = by.is_none_or(|by| by.tenant == case.sender.tenant && by.has_role(CERTIFIER));
        if !certifies {
            return Err(CaseError::NotFound.into());
        }
        let events = self.docket.community(id, overturns, clock::unix_ms())?;
        self.commit("community", by, id, events).await?;
        self.view(id, Part::Moderator).await
    }

    async fn get(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<CaseView> {
        let part = self.mine(id, by).await?;
        self.view(id, part).await
    }

    async fn list(
        &self,
        before: Option<CaseId>,
        limit: usize,
        by: Option<&Principal>,
    ) -> Result<Vec<CaseView>, CallError> {
        let older = self.docket.cases().filter(|(id, _)| before.is_none_or(|before| *id < before));
        let seen = older.filter_map(|(id, case)| Some((id, part(case, by)?))).take(limit.min(PAGE));
        let mut views = Vec::new();
        for (id, part) in seen {
            // The text is for who looks at one case.
            views.push(CaseView { content: None, ..self.view(id, part).await? });
        }
        Ok(views)
    }

    async fn of(&self, sender: &Sender) -> Result<Vec<CaseView>, CallError> {
        let mut views = Vec::new();
        for (id, _) in self.docket.cases().filter(|(_, case)| case.sender == *sender) {
            // The text is the sender's own; of H0 also they see an excerpt only.
            views.push(self.view(id, Part::Juror).await?);
        }
        Ok(views)
    }

    fn held(&self, sender: &Sender) -> Option<String> {
        let (id, until_ms) = self.docket.held(sender, clock::unix_ms())?;
        Some(format!("case {id} is evidence of a grave harm, kept until {}", rfc3339(until_ms)))
    }

    async fn erase(&mut self, sender: &Sender) -> Result<u64, CallError> {
        let subject = sender.tag()?;
        let items = self.docket.items(subject);
        if items > 0 {
            self.docket.commit(CaseEvent::Erased(subject)).await?;
            self.court.standings.show(self.shard, self.docket.senders());
        }
        Ok(items)
    }

    /// What waits for another model is shown to it again.
    async fn resume(&self) {
        let waiting: Vec<CaseId> = self.docket.awaiting_rereview().map(|(id, _)| id).collect();
        for id in waiting {
            self.resume_one(id).await;
        }
    }

    async fn resume_one(&self, id: CaseId) {
        let case = match self.read(id).await {
            Ok(case) => case,
            Err(failed) => return self.later("a case cannot be read", &failed),
        };
        match (case.content, &case.rereview) {
            (Some(content), _) => self.look_anew(id, content, case.judged.h2),
            // Its text is not kept. Who looked when it was opened has not seen the verdict either.
            (None, look) if case.phase == Phase::Appealed => {
                let agrees = look.as_ref().is_none_or(|look| look.agrees);
                let action = if agrees { Action::Seal } else { Action::Allow };
                let model = look.as_ref().map_or_else(String::new, |look| look.model.clone());
                let verdict = Verdict { action, model, ..Verdict::default() };
                self.cx.tell_self(&self.me, CasesMsg::Rereviewed(id, Box::new(verdict)));
            }
            (None, _) => {}
        }
    }

    /// Shows a text to who had no part in its verdict. The answer comes as a message.
    fn look_anew(&self, id: CaseId, content: String, h2: H2Action) {
        let (cx, me, moderator) = (self.cx.clone(), self.me.clone(), self.court.moderator.clone());
        let look = async move {
            let request = CheckRequest { content, ..CheckRequest::default() };
            match moderator.rereview(&request, &Policy::all(h2)).await {
                Ok(verdict) => drop(cx.tell_self(&me, CasesMsg::Rereviewed(id, Box::new(verdict)))),
                Err(error) => tracing::warn!(%error, case = %id, "a case is not looked at anew"),
            }
        };
        self.cx.village().task("cases.rereview", look).detach();
    }

    async fn rereviewed(&mut self, id: CaseId, verdict: &Verdict) {
        let done = async {
            let level = self.docket.case(id)?.judged.level();
            let look =
                Rereview { agrees: agrees(level, verdict), model: verdict.model.clone(), at_ms: clock::unix_ms() };
            let events = self.docket.rereview(id, look)?;
            self.commit("rereview", None, id, events).await?;
            self.draw_juries().await
        };
        if let Err(failed) = done.await {
            self.later("a second look is not noted", &failed);
        }
    }

    fn later(&self, what: &'static str, failed: &Failed) {
        tracing::debug!(shard = self.shard, error = ?failed, what, "trying again");
    }

    /// Draws juries for all that wait for one, if there are enough to draw from.
    async fn draw_juries(&mut self) -> Outcome<()> {
        let waiting: Vec<(CaseId, String)> =
            self.docket.awaiting_jury().map(|(id, case)| (id, case.sender.tenant.clone())).collect();
        for (id, tenant) in waiting {
            let eligible = self.court.jurors.eligible(&tenant);
            if eligible.len() < jury::JURORS {
                continue;
            }
            let root = self.court.log.root().await?;
            let Some(jurors) = jury::draw(&jury::seed(&root, id), &eligible) else { continue };
            let drawn_by = (data_encoding::HEXLOWER.encode(&root), jury::digest(&eligible));
            let events = self.docket.jury(id, drawn_by, jurors)?;
            self.commit("jury", None, id, events).await?;
        }
        Ok(())
    }

    async fn end_what_is_due(&mut self) -> Outcome<()> {
        for event in self.docket.due(clock::unix_ms()) {
            match event {
                CaseEvent::Ended { case, .. } => self.commit("end", None, case, vec![event]).await?,
                other => self.docket.commit(other).await?,
            }
        }
        Ok(())
    }

    async fn tick(&mut self) {
        self.resume().await;
        let done = async {
            self.end_what_is_due().await?;
            self.draw_juries().await
        };
        if let Err(failed) = done.await {
            self.later("deadlines are not kept", &failed);
        }
    }

    fn tick_later(&mut self) {
        if !self.is_ticking && self.docket.is_waiting() {
            self.is_ticking = true;
            self.cx.timer(&self.me, LOOK, CasesMsg::Tick).detach();
        }
    }
}
