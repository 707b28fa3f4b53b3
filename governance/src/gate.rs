//! The gate: one call that everything passes which comes in, goes on or goes out.
//!
//! ```text
//! admit(stage, who, content) = rate limit -> policies -> suspension -> data loss -> moderation -> log
//! ```
//!
//! | look for | in |
//! |---|---|
//! | who sends, what passes, what a refused sender is told | [`Ctx`], [`Admission`], [`Denied`], [`Notice`] |
//! | what judges, and what does when it cannot | [`Judge`] |
//! | personal and secret data by stage | [`DlpStages`] |
//! | how often somebody may ask | [`DefenceConfig`] |
//! | a stream of which only judged text goes out | [`OutputGuard`] |
//!
//! Who is suspended sends nothing at the stages that are the sender's ([`Stage::is_senders`]). Reading goes on, and so does the way
//! to an appeal: neither passes here.
//!
//! What cannot answer, denies: policies and log by [`Why::GovernanceUnavailable`]. Where moderation cannot judge, its hard rules
//! still do; what is to be kept, sent off or published is denied, the rest passes `unchecked` and is judged within [`RECHECK`].
//! What only passes waits for no disk and takes no lock.
//!
//! A part of the program finds the gate with [`Gate::of`]. A village without governance has none; nothing is judged there.

mod admission;
mod clean;
mod config;
mod judge;
mod metrics;
mod recheck;
mod record;
mod refuse;
mod stream;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aivillage_runtime::{MsgCx, Principal, Village};
use tokio::sync::watch;
use tracing::{Instrument, debug_span};
use uuid::Uuid;

pub use admission::{Act, Admission, Count, Ctx, DataLabel, Denied, Notice, Why};
pub use config::{DefenceConfig, DlpStages, Treatment};
pub use judge::{Judge, Moderation, Unavailable};
pub use stream::{OutputGuard, Released};

use crate::cases::{Cases, Sender, Standings};
use crate::constitution::chain::Chain;
use crate::install::HERE;
use crate::limits::{Exceeded, Limits};
use crate::moderation::rules::RulesError;
use crate::moderation::{Policy, Stage, Verdict};
use crate::policy::{Decision, Pdp, PdpHandle, PdpMsg, Request, Resource, Snapshot};
use crate::tlog::Home;
use clean::{Cleaned, Cleaner};
use judge::{Court, Judged};
use metrics::GateMetrics;
use recheck::{Rechecks, Waiting};
use record::{Subject, acts, append};
use refuse::exceeded;

/// Within this time what passed unjudged is judged, once moderation can.
pub const RECHECK: Duration = Duration::from_mins(1);
/// Between two tries while it cannot.
const RETRY: Duration = Duration::from_secs(20);
/// Longest wait for a case to be opened; who was refused waits for it.
const OPENING: Duration = Duration::from_secs(2);
/// The article that protected data is protected by.
const DATA_ARTICLE: &str = "A4.1";
/// Contents longer than this are judged on a thread of their own, bytes: they take milliseconds.
const LONG: usize = 4 * 1024;

/// What a gate is made of.
#[derive(Debug)]
pub struct Parts {
    /// Who may do what.
    pub pdp: PdpHandle,
    /// Who judges content.
    pub judge: Arc<dyn Judge>,
    /// What is done about H2 while only the rules judge.
    pub policy: Policy,
    /// How often somebody may ask.
    pub defence: DefenceConfig,
    /// What happens to data.
    pub dlp: DlpStages,
    /// What denials cite.
    pub constitution: Arc<Chain>,
    /// Who is suspended.
    pub standings: Standings,
    /// Unix milliseconds.
    pub clock: fn() -> u64,
}

/// The gate of a node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pdp: PdpHandle,
    court: Court,
    cleaner: Cleaner,
    dlp: DlpStages,
    limits: Limits,
    exempt: HashSet<String>,
    constitution: Arc<Chain>,
    standings: Standings,
    clock: fn() -> u64,
    log: OnceLock<Home>,
    village: OnceLock<Village>,
    metrics: OnceLock<Arc<GateMetrics>>,
    rechecks: Rechecks,
}

/// A content after the layers that look at it.
struct Inspected {
    cleaned: Cleaned,
    judged: Option<Judged>,
}

impl Gate {
    /// Puts a gate together.
    ///
    /// # Errors
    /// [`RulesError`]: the rules of this release are broken; a test keeps them from that.
    pub fn new(parts: Parts) -> Result<Self, RulesError> {
        Ok(Self(Arc::new(Shared {
            pdp: parts.pdp,
            court: Court::new(parts.judge, parts.policy)?,
            cleaner: Cleaner::new(parts.dlp.clone()),
            dlp: parts.dlp,
            limits: Limits::new(&parts.defence.limits()),
            exempt: parts.defence.exempt.into_iter().collect(),
            constitution: parts.constitution,
            standings: parts.standings,
            clock: parts.clock,
            log: OnceLock::new(),
            village: OnceLock::new(),
            metrics: OnceLock::new(),
            rechecks: Rechecks::default(),
        })))
    }

    /// The gate of a village; none of one without governance. The first call puts its later judgements to work.
    #[must_use]
    pub fn of(village: &Village) -> Option<Self> {
        let gate = Self::clone(&*village.provided::<Self>()?);
        gate.begin(village);
        Some(gate)
    }

    fn begin(&self, village: &Village) {
        let mut is_new = false;
        self.0.village.get_or_init(|| village.clone());
        self.0.metrics.get_or_init(|| {
            is_new = true;
            village.metrics()
        });
        if is_new {
            let gate = self.clone();
            village.task("gate.recheck", async move { gate.recheck().await }).detach();
        }
    }

    /// Has what acts and what is denied logged. The first log stays; without one nothing is logged, and nothing denied for it.
    pub fn log_to(&self, home: Home) {
        // A second one would part the story in two.
        drop(self.0.log.set(home));
    }

    /// Wakes the policies of a village that nobody serves; those of one that is served are awake.
    pub async fn policies(&self, village: &Village) {
        if self.0.pdp.epoch().is_none()
            && let Err(error) = village.addr::<Pdp>(HERE).ask(PdpMsg::Epoch).await
        {
            tracing::debug!(%error, "policies not asked for yet");
        }
    }

    /// The policies at work.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.0.pdp.snapshot()
    }

    /// Tells when other policies are at work.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.pdp.changes()
    }

    /// The thing that an action of the policies is done to, where a caller knows only its name: a tool, if the action is for
    /// tools, else what the action is for. An action that the policies do not know is denied whatever this is.
    #[must_use]
    pub fn thing(&self, action: &str, name: &str, tenant: &str) -> Resource {
        let snapshot = self.0.pdp.snapshot();
        let kinds = snapshot.as_ref().map(|snapshot| snapshot.bundle().resource_kinds(action)).unwrap_or_default();
        let kind = kinds.iter().find(|kind| **kind == "Tool").or(kinds.first()).copied().unwrap_or("Tool");
        Resource::new(kind, name, tenant)
    }

    /// Counts a request of an address that has not said who it is. Loopback is exempt: everything on this machine shares it.
    ///
    /// # Errors
    /// [`Why::RateLimited`].
    pub fn address(&self, ip: IpAddr) -> Result<(), Box<Denied>> {
        if ip.is_loopback() {
            return Ok(());
        }
        self.0.limits.ip(ip).map_err(|e| Box::new(exceeded(Stage::UserInput, Uuid::nil(), e)))
    }

    /// The part of [`Gate::admit`] that needs no content, for a door that has not read it: limits, then policies. What it denies
    /// the door logs, which knows the request.
    ///
    /// # Errors
    /// [`Why::RateLimited`], [`Why::Forbidden`], [`Why::GovernanceUnavailable`].
    pub fn enter(&self, stage: Stage, cx: &Ctx) -> Result<Option<Arc<Decision>>, Box<Denied>> {
        let entered = self.entered(Uuid::now_v7(), stage, cx);
        entered.inspect_err(|denied| self.told(stage, denied))
    }

    fn entered(&self, id: Uuid, stage: Stage, cx: &Ctx) -> Result<Option<Arc<Decision>>, Box<Denied>> {
        debug_span!("gate.limit").in_scope(|| self.limit(cx)).map_err(|e| Box::new(exceeded(stage, id, e)))?;
        let Some(act) = &cx.act else { return Ok(None) };
        debug_span!("gate.pdp").in_scope(|| self.decide(id, stage, &cx.request(act))).map(Some)
    }

    fn limit(&self, cx: &Ctx) -> Result<(), Exceeded> {
        let Principal { tenant, subject, .. } = &cx.principal;
        if cx.count == Count::Not || self.0.exempt.contains(&format!("{tenant}/{subject}")) {
            return Ok(());
        }
        if cx.count == Count::Write {
            self.0.limits.principal(tenant, subject)?;
        }
        self.0.limits.tenant(tenant)
    }

    fn decide(&self, id: Uuid, stage: Stage, request: &Request) -> Result<Arc<Decision>, Box<Denied>> {
        let started = Instant::now();
        let decided = self.0.pdp.decide(request);
        let result = match &decided {
            Ok(decision) if decision.allow => "allow",
            Ok(_) => "deny",
            Err(_) => "unavailable",
        };
        if let Some(metrics) = self.0.metrics.get() {
            metrics.decision(result, started.elapsed());
        }
        let decision = decided.map_err(|error| Box::new(Denied::unavailable(id, stage, &error)))?;
        if decision.allow {
            return Ok(decision);
        }
        Err(Box::new(self.forbidden(id, stage, request, &decision)))
    }

    /// Lets content pass at a stage, or not. Nobody else puts the steps together.
    ///
    /// # Errors
    /// [`Denied`]: the content must go nowhere.
    ///
    /// # Cancel safety
    /// Dropped, nothing has passed; an entry of the log may tell that it was about to.
    pub async fn admit(&self, stage: Stage, cx: &Ctx, content: String) -> Result<Admission, Box<Denied>> {
        let mut all = self.admit_all(stage, cx, vec![content]).await;
        // As many as there were.
        all.pop().unwrap_or_else(|| Err(Box::new(Denied::unavailable(Uuid::nil(), stage, &"no content"))))
    }

    /// The same for contents of one sender that stand for themselves; limits and policies are asked once.
    pub async fn admit_all(
        &self,
        stage: Stage,
        cx: &Ctx,
        contents: Vec<String>,
    ) -> Vec<Result<Admission, Box<Denied>>> {
        let span = debug_span!("gate.admit", stage = stage.code(), contents = contents.len());
        async {
            let (started, count) = (Instant::now(), contents.len());
            let all = match self.before(stage, cx).await {
                Err(denied) => vec![Err(denied); count],
                Ok(decision) => self.contents(stage, cx, (contents, decision)).await,
            };
            for denied in all.iter().filter_map(|one| one.as_ref().err()) {
                self.told(stage, denied);
            }
            if let Some(metrics) = self.0.metrics.get() {
                metrics.admitted(stage, started.elapsed());
            }
            all
        }
        .instrument(span)
        .await
    }

    /// Limits, policies, and whether the log is there.
    async fn before(&self, stage: Stage, cx: &Ctx) -> Result<Option<Arc<Decision>>, Box<Denied>> {
        let id = Uuid::now_v7();
        let unavailable = |why: &dyn std::fmt::Display| Box::new(Denied::unavailable(id, stage, why));
        if let Some(refuses) = self.0.log.get().and_then(|home| home.log().refuses()) {
            return Err(unavailable(&refuses));
        }
        let subject = Subject { id, stage, cx };
        let entered = self.decided(&subject, self.entered(id, stage, cx)).await?;
        let Some(suspended) = self.suspension(&subject) else { return Ok(entered) };
        if let Some(home) = self.0.log.get()
            && let Err(error) = append(home, subject.suspension(home, &suspended), false).await
        {
            tracing::error!(%error, "a denial is not in the transparency log");
        }
        Err(Box::new(suspended))
    }

    /// Why a sender may send nothing now.
    fn suspension(&self, subject: &Subject<'_>) -> Option<Denied> {
        let Principal { tenant, subject: name, .. } = &subject.cx.principal;
        if !subject.stage.is_senders() || subject.cx.is_program() {
            return None;
        }
        let mark = self.0.standings.suspended(&Sender::new(&**tenant, &**name), (self.0.clock)())?;
        Some(self.suspended(subject.id, subject.stage, &mark))
    }

    /// Logs what the policies have decided.
    async fn decided(
        &self,
        subject: &Subject<'_>,
        entered: Result<Option<Arc<Decision>>, Box<Denied>>,
    ) -> Result<Option<Arc<Decision>>, Box<Denied>> {
        let (Some(home), Some(act)) = (self.0.log.get(), &subject.cx.act) else { return entered };
        match &entered {
            Ok(Some(decision)) if self.is_privileged(&act.action) => {
                // What is privileged is on the disk before it is done.
                let unavailable = |error| Box::new(Denied::unavailable(subject.id, subject.stage, &error));
                append(home, subject.decision(home, act, decision), true).await.map_err(unavailable)?;
            }
            Err(denied) if denied.why == Why::Forbidden => {
                let decided = Decision {
                    policy_ids: denied.notice.policies.clone(),
                    articles: denied.notice.articles.clone(),
                    epoch: self.0.pdp.epoch().unwrap_or_default(),
                    ..Decision::default()
                };
                if let Err(error) = append(home, subject.decision(home, act, &decided), false).await {
                    tracing::error!(%error, "a denial is not in the transparency log");
                }
            }
            _ => {}
        }
        entered
    }

    fn is_privileged(&self, action: &str) -> bool {
        self.0.pdp.snapshot().is_some_and(|snapshot| snapshot.bundle().is_privileged(action))
    }

    async fn contents(
        &self,
        stage: Stage,
        cx: &Ctx,
        (contents, decision): (Vec<String>, Option<Arc<Decision>>),
    ) -> Vec<Result<Admission, Box<Denied>>> {
        let count = contents.len();
        let is_short = contents.iter().map(String::len).sum::<usize>() <= LONG;
        let inspected = if is_short {
            contents.into_iter().map(|content| self.inspect(stage, content)).collect()
        } else {
            let gate = self.clone();
            let all = move || contents.into_iter().map(|content| gate.inspect(stage, content)).collect::<Vec<_>>();
            match tokio::task::spawn_blocking(all).await {
                Ok(inspected) => inspected,
                Err(error) => {
                    let denied = Denied::unavailable(Uuid::now_v7(), stage, &error);
                    return (0..count).map(|_| Err(Box::new(denied.clone()))).collect();
                }
            }
        };
        let mut all = Vec::with_capacity(count);
        for inspected in inspected {
            let subject = Subject { id: Uuid::now_v7(), stage, cx };
            let conclude = self.conclude(subject, inspected, decision.clone()).instrument(debug_span!("gate.log"));
            all.push(conclude.await);
        }
        all
    }

    /// Looks at a content: data, then what it says. Pure but for what is counted.
    fn inspect(&self, stage: Stage, content: String) -> Inspected {
        let started = Instant::now();
        let cleaned = debug_span!("gate.dlp").in_scope(|| self.0.cleaner.clean(stage, content));
        if let Some(metrics) = self.0.metrics.get() {
            metrics.data(&cleaned.found, started.elapsed());
        }
        if !cleaned.barred.is_empty() {
            return Inspected { cleaned, judged: None };
        }
        let started = Instant::now();
        let judged = debug_span!("gate.moderate").in_scope(|| self.0.court.judge(&cleaned.content));
        if let Some(metrics) = self.0.metrics.get() {
            metrics.verdict(stage, &judged.verdict, started.elapsed());
        }
        Inspected { cleaned, judged: Some(judged) }
    }

    async fn conclude(
        &self,
        subject: Subject<'_>,
        inspected: Inspected,
        decision: Option<Arc<Decision>>,
    ) -> Result<Admission, Box<Denied>> {
        let (id, stage) = (subject.id, subject.stage);
        let Inspected { cleaned, judged } = inspected;
        let mut is_logged = false;
        if let Some(home) = self.0.log.get() {
            let is_barred = !cleaned.barred.is_empty();
            if is_barred || cleaned.is_redacted {
                let kinds = if is_barred { &cleaned.barred } else { &cleaned.found };
                self.log(&subject, home, subject.data(home, kinds, is_barred), is_barred).await?;
                is_logged = true;
            }
            if let Some(judged) = judged.as_ref().filter(|judged| acts(judged.verdict.action)) {
                let event = subject.verdict(home, &judged.verdict, false);
                self.log(&subject, home, event, !judged.verdict.action.passes()).await?;
                is_logged = true;
            }
        }
        let Some(judged) = judged else { return Err(Box::new(self.barred(id, stage, &cleaned.barred))) };
        if !judged.verdict.action.passes() {
            let mut denied = self.moderated(id, stage, &judged.verdict);
            denied.notice.case = self.case(&subject, judged.verdict, cleaned.content).await;
            return Err(Box::new(denied));
        }
        let Cleaned { content, is_redacted, found, .. } = cleaned;
        let mut admission =
            Admission { id, content, is_redacted, found, verdict: None, unchecked: false, decision, is_logged };
        let Some(why) = judged.unchecked else {
            return Ok(Admission { verdict: Some(judged.verdict), ..admission });
        };
        if stage.must_be_judged() {
            return Err(Box::new(Denied::unavailable(id, stage, &why)));
        }
        let (cx, content) = (subject.cx.clone(), admission.content.clone());
        if !self.0.rechecks.keep(Waiting { id, stage, cx, content }) {
            return Err(Box::new(Denied::unavailable(id, stage, &"too much waits to be judged")));
        }
        if let Some(metrics) = self.0.metrics.get() {
            metrics.unchecked();
        }
        admission.unchecked = true;
        Ok(admission)
    }

    /// Opens the case by which the sender can appeal. What is denied stays denied when there is none: the notice says so.
    async fn case(&self, subject: &Subject<'_>, verdict: Verdict, content: String) -> Option<String> {
        let (village, principal) = (self.0.village.get()?, &subject.cx.principal);
        if !subject.stage.is_senders() || subject.cx.is_program() {
            return None;
        }
        let sender = Sender::new(&*principal.tenant, &*principal.subject);
        let (cases, stage) = (Cases::new(village), subject.stage);
        // In the village's own name: nobody opens cases about somebody.
        let open = MsgCx::request(Some(tokio::time::Instant::now() + OPENING), subject.cx.trace, None)
            .scope(async move { cases.open(verdict, sender, stage, content).await });
        match open.await {
            Ok(notice) => Some(notice.case),
            Err(error) => {
                tracing::error!(%error, "no case was opened about what was withheld");
                None
            }
        }
    }

    /// Logs; what passes only logged does not pass when that fails, and what is denied stays denied.
    async fn log(
        &self,
        subject: &Subject<'_>,
        home: &Home,
        event: crate::tlog::Event,
        is_denial: bool,
    ) -> Result<(), Box<Denied>> {
        match append(home, event, false).await {
            Ok(()) => Ok(()),
            Err(error) if is_denial => {
                tracing::error!(%error, "a denial is not in the transparency log");
                Ok(())
            }
            Err(error) => Err(Box::new(Denied::unavailable(subject.id, subject.stage, &error))),
        }
    }

    /// Guards a stream of an agent's words.
    #[must_use]
    pub fn guard_output(&self, cx: Ctx) -> OutputGuard {
        OutputGuard::new(self.clone(), cx)
    }

    fn told(&self, stage: Stage, denied: &Denied) {
        if let Some(metrics) = self.0.metrics.get() {
            metrics.denied(stage, denied.why.code());
        }
    }
}

#[cfg(test)]
mod tests;
