//! `edge.job`: one long operation that a client started and may come back to.
//!
//! Key: the job's `UUIDv7`. Durable: the record, as a value of [`TREE`], on every change of state, in the store of the node that
//! has all jobs of the village. Lost in a crash: the work.
//! A job found unfinished by a new activation becomes `failed` with code `interrupted`: never silently lost.
//! Every change is told on the topic `jobs.{id}`. [`JobTable`] lists them, on the same node.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aivillage_memory::{Document, Memory, Put, PutStatus, WaitFor};
use aivillage_runtime::store::{Batch, Level, StoreError, TreeId};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Kind, KindOptions, Mail, MsgCx,
    Principal, Reply, TaskHandle, Village, clock,
};
use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Where the records are kept: UUID -> JSON of [`Job`]. `UUIDv7` keys are in the order of creation.
const TREE: TreeId = TreeId(64);
/// Documents one step of an ingest writes; the job reports after each.
const STEP: usize = 64;
/// Longest time one step of the work may take.
const STEP_LIMIT: Duration = Duration::from_mins(10);
/// How long finished jobs are kept.
const KEEP_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Least time between two progress events.
const REPORT: Duration = Duration::from_millis(250);
/// Records read at once when all jobs are looked at.
const PAGE: usize = 256;

/// What a [`JobActor`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobMsg {
    /// Creates the job and starts the work; the record is durable before the reply.
    Start {
        /// Who started it; the work runs on this principal's behalf.
        owner: Principal,
        /// What to do.
        work: Work,
        /// The new job.
        reply: Reply<Job>,
    },
    /// The work went on.
    Progress(Progress),
    /// The work ended.
    Finish(Outcome),
    /// Stops the work if it still runs.
    Cancel(Reply<Job>),
    /// The record.
    Get(Reply<Job>),
}

/// Work that a job can do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// Writes documents into the memory.
    Ingest {
        /// Target; the default collection if absent.
        collection: Option<String>,
        /// What to write.
        documents: Vec<Document>,
    },
}

/// How a job's work ended.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// With a result.
    Done(Value),
    /// With an error.
    Failed {
        /// Stable code.
        code: String,
        /// What was wrong.
        detail: String,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted, not begun.
    Queued,
    /// Being worked on.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended with a problem.
    Failed,
    /// Stopped by its owner.
    Cancelled,
}

impl JobState {
    /// True if nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What a unit is.
    pub unit: String,
    /// What happens now.
    pub message: String,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobProblem {
    /// Stable code.
    pub code: String,
    /// What was wrong.
    pub detail: String,
}

/// The record of a job, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// `UUIDv7`.
    pub id: String,
    /// Isolation boundary.
    pub tenant: String,
    /// What kind of work.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<JobProblem>,
    /// Where to look.
    pub links: JobLinks,
}

/// Addresses of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobLinks {
    /// The record.
    #[serde(rename = "self")]
    pub own: String,
    /// Its events.
    pub events: String,
}

impl Job {
    fn new(id: &str, tenant: &str, work: &Work, now: &str) -> Self {
        let (kind, total, unit) = match work {
            Work::Ingest { documents, .. } => ("memory.ingest", documents.len() as u64, "documents"),
        };
        Job {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            kind: kind.to_owned(),
            state: JobState::Queued,
            progress: Progress { done: 0, total, unit: unit.to_owned(), message: String::new() },
            created_at: now.to_owned(),
            updated_at: now.to_owned(),
            result: None,
            problem: None,
            links: JobLinks { own: format!("/v1/jobs/{id}"), events: format!("/v1/jobs/{id}/events") },
        }
    }

    /// Moves on; a final state is never left.
    fn change(&mut self, state: JobState, now: &str) -> bool {
        if self.state.is_final() {
            return false;
        }
        self.state = state;
        now.clone_into(&mut self.updated_at);
        true
    }

    fn fail(&mut self, code: &str, detail: &str, now: &str) -> bool {
        let changed = self.change(JobState::Failed, now);
        if changed {
            self.problem = Some(JobProblem { code: code.to_owned(), detail: detail.to_owned() });
        }
        changed
    }

    fn finish(&mut self, outcome: Outcome, now: &str) -> bool {
        match outcome {
            Outcome::Failed { code, detail } => self.fail(&code, &detail, now),
            Outcome::Done(result) => {
                let changed = self.change(JobState::Succeeded, now);
                if changed {
                    self.progress.done = self.progress.total;
                    self.result = Some(result);
                }
                changed
            }
        }
    }

    /// The name of the event that tells this state.
    pub(crate) fn event(&self) -> &'static str {
        match self.state {
            JobState::Queued | JobState::Running => "progress",
            JobState::Succeeded => "result",
            JobState::Failed | JobState::Cancelled => "error",
        }
    }
}

/// The topic on which a job's changes are told.
pub(crate) fn topic(id: &str) -> String {
    format!("jobs.{id}")
}

/// The behaviour; its data is [`Running`].
#[derive(Debug)]
pub struct JobActor;

impl Kind for JobActor {
    const NAME: &'static str = "edge.job";
    type Body = JobMsg;

    fn options() -> KindOptions {
        // A working job gets no mail for long stretches; it asks to be stopped when it is done.
        KindOptions::default().durable(Durability::Local).idle(None)
    }
}

/// The record and, while it runs, its worker.
#[derive(Debug)]
pub struct Running {
    cx: ActorCx,
    job: Option<Job>,
    worker: Option<TaskHandle<()>>,
    reported: Option<Instant>,
}

impl Actor for JobActor {
    type Msg = Mail<JobMsg>;
    type State = Running;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Running, ActorProcessingErr> {
        let job = load(cx.village(), cx.key())?;
        let mut running = Running { cx, job, worker: None, reported: None };
        running.interrupt().await?;
        Ok(running)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            JobMsg::Start { owner, work, reply } => reply.complete(running.start(&me, owner, work).await),
            JobMsg::Progress(progress) => running.progress(progress).await,
            JobMsg::Finish(outcome) => running.finish(outcome).await?,
            JobMsg::Cancel(reply) => reply.complete(running.cancel().await),
            JobMsg::Get(reply) => reply.complete(running.record()),
        }
        if running.job.as_ref().is_none_or(|job| job.state.is_final()) {
            running.cx.passivate();
        }
        Ok(())
    }
}

impl Running {
    fn record(&self) -> Result<Job, CallError> {
        self.job.clone().ok_or_else(|| AppError::new("not_found", "there is no such job").into())
    }

    /// An unfinished job in a new activation has lost its worker.
    async fn interrupt(&mut self) -> Result<(), CallError> {
        let Some(job) = &mut self.job else { return Ok(()) };
        if job.fail("interrupted", "the node stopped before the job was done; start it again", &now()) {
            self.save().await?;
        }
        Ok(())
    }

    async fn start(&mut self, me: &ActorRef<Mail<JobMsg>>, owner: Principal, work: Work) -> Result<Job, CallError> {
        if let Some(job) = &self.job {
            // A repeated start with the same id is the same job.
            return Ok(job.clone());
        }
        let now = now();
        let mut job = Job::new(self.cx.key(), &owner.tenant, &work, &now);
        job.change(JobState::Running, &now);
        self.job = Some(job.clone());
        if let Err(error) = self.save().await {
            self.job = None;
            return Err(error);
        }
        let (cx, me) = (self.cx.clone(), me.clone());
        self.worker = Some(self.cx.village().task("edge.job", async move {
            // A panic of the work must end the job, not leave it running for ever.
            let outcome = AssertUnwindSafe(run(&cx, &me, owner, work)).catch_unwind().await.unwrap_or_else(|_| {
                Outcome::Failed { code: "internal".into(), detail: "the work hit a fault of the server".into() }
            });
            cx.tell_self(&me, JobMsg::Finish(outcome));
        }));
        Ok(job)
    }

    async fn progress(&mut self, progress: Progress) {
        let Some(job) = self.job.as_mut().filter(|job| !job.state.is_final()) else { return };
        job.progress = progress;
        job.updated_at = now();
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT) {
            self.reported = Some(Instant::now());
            self.tell().await;
        }
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), CallError> {
        let changed = self.job.as_mut().is_some_and(|job| job.finish(outcome, &now()));
        self.worker = None;
        if changed { self.save().await } else { Ok(()) }
    }

    async fn cancel(&mut self) -> Result<Job, CallError> {
        let changed = self.job.as_mut().is_some_and(|job| job.change(JobState::Cancelled, &now()));
        if changed {
            if let Some(worker) = self.worker.take() {
                worker.abort();
            }
            if let Some(job) = &mut self.job {
                job.problem = Some(JobProblem { code: "cancelled".into(), detail: "stopped by its owner".into() });
            }
            self.save().await?;
        }
        self.record()
    }

    /// Makes the present state durable, then tells it.
    async fn save(&self) -> Result<(), CallError> {
        let Some(job) = &self.job else { return Ok(()) };
        let bytes = serde_json::to_vec(job).map_err(|e| CallError::Decode { detail: e.to_string() })?;
        let key = key(&job.id).unwrap_or_default();
        self.cx.village().store().commit(Batch::new().put(TREE, key, bytes), Level::Disk).await?;
        self.tell().await;
        Ok(())
    }

    /// Live events may be lost, the record not: a full topic is no reason to fail.
    async fn tell(&self) {
        let Some(job) = &self.job else { return };
        if let Err(error) = self.cx.village().topic(topic(&job.id)).post(json!(job)).await {
            tracing::debug!(%error, "job event not told");
        }
    }
}

/// What a [`JobTable`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobTableMsg {
    /// Lists the jobs of a tenant, the newest first.
    List {
        /// Only those that are older than this one.
        before: Option<String>,
        /// At most so many.
        limit: usize,
        /// The jobs.
        reply: Reply<Vec<Job>>,
    },
}

/// `edge.jobs`: the table of all jobs of a tenant. Key: the tenant. It keeps nothing of its own; it lives where the records are.
#[derive(Debug)]
pub struct JobTable;

impl Kind for JobTable {
    const NAME: &'static str = "edge.jobs";
    type Body = JobTableMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Local)
    }
}

impl Actor for JobTable {
    type Msg = Mail<JobTableMsg>;
    type State = ActorCx;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<ActorCx, ActorProcessingErr> {
        Ok(cx)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        cx: &mut ActorCx,
    ) -> Result<(), ActorProcessingErr> {
        let JobTableMsg::List { before, limit, reply } = mail.body;
        let (village, tenant) = (cx.village().clone(), cx.key().to_owned());
        // The walk over the table takes long when there are many; others need not wait for it.
        let read = cx.village().blocking("edge.jobs", move || list(&village, &tenant, before.as_deref(), limit));
        let answer = async move { reply.complete(read.await.map_err(CallError::from).and_then(|jobs| Ok(jobs?))) };
        cx.village().task("edge.jobs", answer).detach();
        Ok(())
    }
}

/// Does the work on the owner's behalf. The request that started it has a deadline of its own, which does not hold here.
async fn run(cx: &ActorCx, me: &ActorRef<Mail<JobMsg>>, owner: Principal, work: Work) -> Outcome {
    let owner = Arc::new(owner);
    match work {
        Work::Ingest { collection, documents } => ingest(cx, me, &owner, collection, documents).await,
    }
}

async fn ingest(
    cx: &ActorCx,
    me: &ActorRef<Mail<JobMsg>>,
    owner: &Arc<Principal>,
    collection: Option<String>,
    documents: Vec<Document>,
) -> Outcome {
    let memory = Memory::new(cx.village(), owner.tenant.clone());
    let total = documents.len() as u64;
    let mut counts = [0_u64; 4];
    let mut errors = Vec::new();
    let mut rest = documents.into_iter().peekable();
    let mut done = 0;
    while rest.peek().is_some() {
        let documents: Vec<Document> = rest.by_ref().take(STEP).collect();
        done += documents.len() as u64;
        let wait = if rest.peek().is_some() { WaitFor::Durable } else { WaitFor::Searchable };
        let put = Put { collection: collection.clone(), documents, wait };
        let context = MsgCx::request(Some(Instant::now() + STEP_LIMIT), None, Some(owner.clone()));
        let report = match context.scope(memory.put(put)).await {
            Ok(report) => report,
            Err(error) => return Outcome::Failed { code: error.code().into_owned(), detail: error.to_string() },
        };
        for result in report.results {
            counts[result.status as usize] += 1;
            if result.status == PutStatus::Failed && errors.len() < 100 {
                errors.push(json!({"id": result.id, "error": result.error}));
            }
        }
        let message = format!("{done} of {total} documents");
        cx.tell_self(me, JobMsg::Progress(Progress { done, total, unit: "documents".into(), message }));
    }
    let [created, updated, unchanged, failed] = counts;
    Outcome::Done(json!({
        "created": created, "updated": updated, "unchanged": unchanged, "failed": failed, "errors": errors,
    }))
}

fn now() -> String {
    chrono::DateTime::<chrono::Utc>::from(clock::now()).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The store's key of a job: its UUID in binary; `None` if `id` is no UUID.
fn key(id: &str) -> Option<Vec<u8>> {
    uuid::Uuid::parse_str(id).ok().map(|id| id.as_bytes().to_vec())
}

fn load(village: &Village, id: &str) -> Result<Option<Job>, StoreError> {
    let Some(key) = key(id) else { return Ok(None) };
    let bytes = village.store().get(TREE, &key)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Up to `limit` jobs of a tenant, the newest first, those before `before` only.
fn list(village: &Village, tenant: &str, before: Option<&str>, limit: usize) -> Result<Vec<Job>, StoreError> {
    let mut newest: Vec<Job> = Vec::new();
    let end = before.and_then(key);
    let mut from = Vec::new();
    loop {
        let page = village.store().scan(TREE, &from, PAGE)?;
        let full = page.len() == PAGE;
        for (id, value) in page {
            if end.as_ref().is_some_and(|end| id.as_ref() >= end.as_slice()) {
                newest.reverse();
                return Ok(newest);
            }
            from = id.to_vec();
            from.push(0);
            let Ok(job) = serde_json::from_slice::<Job>(&value) else { continue };
            if job.tenant == tenant {
                if newest.len() == limit {
                    newest.remove(0);
                }
                newest.push(job);
            }
        }
        if !full {
            newest.reverse();
            return Ok(newest);
        }
    }
}

/// After a start: ends the jobs that the last run left unfinished and forgets those that ended long ago.
pub(crate) async fn recover(village: &Village) -> Result<(), CallError> {
    let oldest = uuid_floor(clock::unix_ms().saturating_sub(KEEP_MS));
    let mut from = Vec::new();
    loop {
        let page = village.store().scan(TREE, &from, PAGE)?;
        let mut expired = Batch::new();
        for (id, value) in &page {
            from = id.to_vec();
            from.push(0);
            match serde_json::from_slice::<Job>(value) {
                // A new activation finds out by itself that its worker is gone.
                Ok(job) if !job.state.is_final() => {
                    drop(village.addr::<JobActor>(&job.id).ask(JobMsg::Get).await?);
                }
                Ok(_) if id.as_ref() >= oldest.as_slice() => {}
                _ => expired = expired.delete(TREE, id.to_vec()),
            }
        }
        if !expired.is_empty() {
            village.store().commit(expired, Level::Async).await?;
        }
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// The least `UUIDv7` of a millisecond: its first 48 bits are the time (RFC 9562 5.7).
fn uuid_floor(unix_ms: u64) -> Vec<u8> {
    let mut id = vec![0; 16];
    let [_, _, time @ ..] = unix_ms.to_be_bytes();
    id.splice(..6, time);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        Work::Ingest { collection: None, documents: vec![Document::default()] }
    }

    async fn village() -> Village {
        Village::builder().host(|_: &ActorCx| JobActor).host(|_: &ActorCx| JobTable).start().await.unwrap()
    }

    async fn put(village: &Village, job: &Job) {
        let bytes = serde_json::to_vec(job).unwrap();
        village.store().commit(Batch::new().put(TREE, key(&job.id).unwrap(), bytes), Level::Disk).await.unwrap();
    }

    #[test]
    fn a_final_state_is_never_left() {
        let mut job = Job::new("x", "local", &work(), "t0");
        assert!(job.change(JobState::Running, "t1"));
        assert!(job.finish(Outcome::Done(json!(1)), "t2"));
        assert!(!job.change(JobState::Cancelled, "t3"));
        assert!(!job.fail("late", "late", "t3"));
        assert_eq!((job.state, job.updated_at.as_str(), job.problem), (JobState::Succeeded, "t2", None));
    }

    #[tokio::test]
    async fn an_unfinished_job_of_an_earlier_run_is_interrupted() {
        let village = village().await;
        let id = uuid::Uuid::now_v7().to_string();
        let mut job = Job::new(&id, "local", &work(), &now());
        job.change(JobState::Running, &now());
        put(&village, &job).await;
        recover(&village).await.unwrap();
        let stored = load(&village, &id).unwrap().unwrap();
        assert_eq!(stored.state, JobState::Failed);
        assert_eq!(stored.problem.unwrap().code, "interrupted");
    }

    #[tokio::test]
    async fn finished_jobs_are_forgotten_after_a_week() {
        let village = village().await;
        let old = uuid::Uuid::from_slice(&uuid_floor(1_000)).unwrap().to_string();
        let mut job = Job::new(&old, "local", &work(), "t");
        job.finish(Outcome::Done(Value::Null), "t");
        put(&village, &job).await;
        recover(&village).await.unwrap();
        assert!(load(&village, &old).unwrap().is_none());
    }

    #[tokio::test]
    async fn list_is_newest_first_and_continues_before_a_job() {
        let village = village().await;
        let ids: Vec<String> = (1..=5).map(|ms| uuid::Uuid::from_slice(&uuid_floor(ms)).unwrap().to_string()).collect();
        for id in &ids {
            put(&village, &Job::new(id, "local", &work(), "t")).await;
        }
        let page = async |tenant: &str, before: Option<&String>, limit| {
            let before = before.cloned();
            let table = village.addr::<JobTable>(tenant);
            let jobs = table.ask(|reply| JobTableMsg::List { before, limit, reply }).await.unwrap();
            jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
        };
        assert_eq!(page("local", None, 2).await, [ids[4].clone(), ids[3].clone()]);
        assert_eq!(page("local", Some(&ids[3]), 5).await, [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
        assert!(page("other", None, 5).await.is_empty());
    }

    #[tokio::test]
    async fn unknown_jobs_are_not_found() {
        let error = village().await.addr::<JobActor>("nonsense").ask(JobMsg::Get).await.unwrap_err();
        assert_eq!(error.code(), "not_found");
    }
}
