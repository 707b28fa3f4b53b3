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

use super::case::{Case, CaseId, Phase, Rereview, Vote};
use super::court::{Court, agrees};
use super::docket::Docket;
use super::error::CaseError;
use super::event::CaseEvent;
use super::jury::{self, Juror};
use super::message::{CasesMsg, NewCase};
use super::metrics::CaseMetrics;
use super::notice::Notice;
use super::view::CaseView;
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
    Store(StoreError),
}

impl From<CaseError> for Failed {
    fn from(error: CaseError) -> Self {
        Self::Told(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Told(error) => error.into(),
            Failed::Store(error) => error.into(),
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
        bench.resume();
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
            CasesMsg::List { before, limit, reply } => reply.send(bench.list(before, limit, by)),
            CasesMsg::Tally(quarter, reply) => reply.send(bench.docket.tally(quarter)),
            // Nobody from outside says what a model has found.
            CasesMsg::Rereviewed(case, verdict) if by.is_none() => bench.rereviewed(case, &verdict).await,
            CasesMsg::Rereviewed(..) => {}
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
        let (id, events) = self.docket.open(asked, case)?;
        let is_new = events.iter().any(|event| matches!(event, CaseEvent::Opened(..)));
        self.commit(if is_new { "open" } else { "repeat" }, by, id, events).await?;
        let case = self.docket.case(id)?;
        if is_new && case.judged.level() == Level::H0 {
            self.look_anew(id, content, case.judged.h2);
        }
        Ok(Notice::of(id, case))
    }

    /// A case that the caller has this part in.
    async fn mine(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<Part> {
        // What time has ended meanwhile has ended, whether or not somebody looked.
        self.end_what_is_due().await?;
        Ok(part(self.docket.case(id)?, by).ok_or(CaseError::NotFound)?)
    }

    fn view(&self, id: CaseId, part: Part) -> Outcome<CaseView> {
        Ok(self.docket.case(id)?.view(id, part == Part::Juror))
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
        let events = self.docket.appeal(id, grounds, text, clock::unix_ms())?;
        self.commit("appeal", by, id, events).await?;
        self.resume_one(id);
        self.view(id, part)
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
        let vote = Vote { juror, choice, reason, at_ms: clock::unix_ms() };
        let events = self.docket.vote(id, vote)?;
        self.commit("vote", Some(by), id, events).await?;
        self.view(id, Part::Juror)
    }

    async fn refer(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<CaseView> {
        let part = self.mine(id, by).await?;
        if part != Part::Sender {
            return Err(CaseError::NotSender.into());
        }
        let events = self.docket.refer(id, clock::unix_ms())?;
        self.commit("refer", by, id, events).await?;
        self.view(id, part)
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
        self.view(id, Part::Moderator)
    }

    async fn get(&mut self, id: CaseId, by: Option<&Principal>) -> Outcome<CaseView> {
        let part = self.mine(id, by).await?;
        self.view(id, part)
    }

    fn list(&self, before: Option<CaseId>, limit: usize, by: Option<&Principal>) -> Vec<CaseView> {
        let older = self.docket.cases().filter(|(id, _)| before.is_none_or(|before| *id < before));
        let seen = older.filter_map(|(id, case)| Some(case.view(id, part(case, by)? == Part::Juror)));
        // The text is for who looks at one case.
        seen.take(limit.min(PAGE)).map(|view| CaseView { content: None, ..view }).collect()
    }

    /// What waits for another model is shown to it again.
    fn resume(&self) {
        let waiting: Vec<CaseId> = self.docket.awaiting_rereview().map(|(id, _)| id).collect();
        for id in waiting {
            self.resume_one(id);
        }
    }

    fn resume_one(&self, id: CaseId) {
        let Ok(case) = self.docket.case(id) else { return };
        match (&case.content, &case.rereview) {
            (Some(content), _) => self.look_anew(id, content.clone(), case.judged.h2),
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
        self.resume();
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
