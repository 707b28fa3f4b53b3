//! `edge.job`: the records of long operations that clients started and may come back to.
//!
//! Key: `{tenant}:{shard 0..15}`. Durable: the records, replicated, on every change of a job's state. Progress is in memory.
//! Lost in a crash: the newest progress; workers report it again.
//!
//! The work is done by a [`Worker`] on the node that was asked. A job whose worker is silent for too long, or belongs to an
//! earlier run of this node's program, becomes `failed` with code `interrupted`: never silently lost. Every change is told on
//! the topic `jobs.{id}`. [`JobTable`] lists the jobs of all shards.
//!
//! When the request that opened a job is repeated after its worker was lost, the job goes on with the worker of the repetition.
//!
//! What came out of a job is sealed for whoever opened it ([`shelved`]); who that is, is a tag.

mod data;
mod record;
mod shelved;
mod table;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use aivillage_governance::keys::{Personal, SubjectTag};
use aivillage_runtime::store::StoreError;
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Kind, KindOptions, Mail, Reply, Run,
    clock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

pub use data::JobData;
pub use record::{Job, JobLinks, JobProblem, JobState, Outcome, Plan, Progress};
pub use table::{JobTable, JobTableMsg};
pub use worker::{Work, Worker, WorkerMsg};

use shelved::{Records, Stored};

/// Activations that share the jobs of a tenant.
pub(crate) const SHARDS: u8 = 16;
/// Jobs of one shard. Beyond that the oldest ended ones go early.
const MAX_JOBS: usize = 1_000;
/// Bytes of a record: it is one commit of the group, which takes little more.
const MAX_RECORD: usize = 192 * 1024;
/// How long ended jobs are kept.
const KEEP_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Longest silence of a worker that works.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which a worker is taken for lost: longer than a new leader takes.
const LOST: Duration = Duration::from_secs(15);
/// How often running jobs are looked at.
const CHECK: Duration = Duration::from_secs(5);
/// Least time between two progress events.
const REPORT: Duration = Duration::from_millis(250);
/// Records read at once when all are looked at.
const PAGE: usize = 64;

/// What a [`JobActor`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobMsg {
    /// Makes the record of a job that begins; durable before the reply. A repeated one is the same job, with another worker
    /// if it has lost its own.
    Open {
        /// Names the job, a `UUIDv7`.
        id: Uuid,
        /// What it is going to do.
        plan: Plan,
        /// Who offers to do it.
        worker: Run,
        /// The job, and whether that worker has it.
        reply: Reply<(Job, bool)>,
    },
    /// The work goes on; tells whether it should.
    Report {
        /// Which job.
        id: Uuid,
        /// Who works on it.
        worker: Run,
        /// How far it is.
        progress: Progress,
        /// False when the job has ended, or is another worker's.
        reply: Reply<bool>,
    },
    /// The work has ended. The first end stays.
    Finish {
        /// Which job.
        id: Uuid,
        /// How.
        outcome: Outcome,
        /// Sent when it is durable.
        reply: Reply<()>,
    },
    /// Ends a job if it still runs; its worker hears of it with its next report.
    Cancel(Uuid, Reply<Job>),
    /// One record.
    Get(Uuid, Reply<Job>),
    /// Several records; those that are gone are left out.
    Read(Vec<Uuid>, Reply<Vec<Job>>),
    /// The newest jobs, newest first.
    Newest {
        /// Only those that are older than this one.
        before: Option<Uuid>,
        /// At most so many.
        limit: usize,
        /// Their names.
        reply: Reply<Vec<Uuid>>,
    },
    /// Ends the jobs whose worker is lost; sent by itself.
    Check,
    /// Forgets jobs that ended long ago.
    Sweep,
    /// The jobs that one person opened, who is erased or wants to see them.
    Of(SubjectTag, Reply<Vec<Job>>),
    /// Forgets them, also those that run, and tells how many.
    Forget(SubjectTag, Reply<u64>),
}

/// The shard of a job: its last bits are random.
fn shard_of(id: Uuid) -> u8 {
    let [.., last] = id.into_bytes();
    last % SHARDS
}

/// The actor's key for a job.
pub(crate) fn shard(tenant: &str, id: Uuid) -> String {
    shard_key(tenant, shard_of(id))
}

/// The actor's key of a shard.
pub(crate) fn shard_key(tenant: &str, shard: u8) -> String {
    format!("{tenant}:{shard}")
}

/// The topic on which a job's changes are told.
pub(crate) fn topic(id: &str) -> String {
    format!("jobs.{id}")
}

/// The behaviour; its data is [`Jobs`].
#[derive(Debug)]
pub struct JobActor;

impl Kind for JobActor {
    const NAME: &'static str = "edge.job";
    type Body = JobMsg;
    const VERSION: u16 = 2;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

/// The jobs of one shard.
#[derive(Debug)]
pub struct Jobs {
    cx: ActorCx,
    records: Records,
    /// All jobs in the order of creation, with what changes while they run.
    known: BTreeMap<Uuid, Option<Box<Running>>>,
    /// A [`JobMsg::Check`] is on its way.
    checking: bool,
}

/// A job that has not ended.
#[derive(Debug)]
struct Running {
    stored: Stored,
    heard: Instant,
    told: Option<Instant>,
}

impl Actor for JobActor {
    type Msg = Mail<JobMsg>;
    type State = Jobs;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Jobs, ActorProcessingErr> {
        let records = Records::open(cx.village(), cx.store().clone(), cx.key()).await?;
        let mut jobs = Jobs { cx, records, known: BTreeMap::new(), checking: false };
        jobs.load()?;
        jobs.check(&me).await;
        jobs.sweep().await;
        Ok(jobs)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        jobs: &mut Jobs,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            JobMsg::Open { id, plan, worker, reply } => {
                reply.complete(jobs.open(id, plan, (Personal::subject_of(&mail.cx), worker)).await);
                jobs.check_later(&me);
            }
            JobMsg::Report { id, worker, progress, reply } => reply.send(jobs.report(id, worker, progress).await),
            JobMsg::Finish { id, outcome, reply } => reply.complete(jobs.finish(id, outcome).await),
            JobMsg::Cancel(id, reply) => reply.complete(jobs.cancel(id).await),
            JobMsg::Get(id, reply) => reply.complete(jobs.get(id).await),
            JobMsg::Read(ids, reply) => reply.complete(jobs.read(&ids).await),
            JobMsg::Newest { before, limit, reply } => reply.send(jobs.newest(before, limit)),
            JobMsg::Check => {
                jobs.checking = false;
                jobs.check(&me).await;
            }
            JobMsg::Sweep => jobs.sweep().await,
            JobMsg::Of(subject, reply) => reply.complete(jobs.of(subject).await),
            JobMsg::Forget(subject, reply) => reply.complete(jobs.forget_of(subject).await),
        }
        Ok(())
    }
}

impl Jobs {
    fn load(&mut self) -> Result<(), StoreError> {
        for (id, shelved) in self.records.all()? {
            // One that has not ended has nothing yet that would be sealed.
            let is_final = shelved.stored.job.state.is_final();
            let running = (!is_final).then(|| Box::new(Running::new(shelved.stored)));
            self.known.insert(id, running);
        }
        Ok(())
    }

    async fn check(&mut self, me: &ActorRef<Mail<JobMsg>>) {
        if let Err(error) = self.interrupt().await {
            tracing::debug!(%error, "interrupted jobs not ended yet");
        }
        self.check_later(me);
    }

    /// Looks again later, as long as there is something to look at.
    fn check_later(&mut self, me: &ActorRef<Mail<JobMsg>>) {
        if !self.checking && self.known.values().any(Option::is_some) {
            self.checking = true;
            self.cx.timer(me, CHECK, JobMsg::Check).detach();
        }
    }

    async fn open(&mut self, id: Uuid, plan: Plan, (owner, worker): (&str, Run)) -> Result<(Job, bool), CallError> {
        if let Some(stored) = self.find(id).await? {
            return self.open_again(id, stored, worker).await;
        }
        if self.known.len() >= MAX_JOBS {
            let ended = self.known.iter().find(|(_, running)| running.is_none()).map(|(id, _)| *id);
            let ended = ended.ok_or(CallError::Overloaded { retry_after_ms: 10_000 })?;
            self.forget(&[ended]).await?;
        }
        let owner = Some(self.records.owner(owner).await?);
        let tenant = self.cx.key().rsplit_once(':').map_or(self.cx.key(), |(tenant, _)| tenant);
        let stored = Stored { job: Job::new(id, tenant, plan, &now()), worker, owner };
        self.save(id, stored.clone()).await?;
        Ok((stored.job, true))
    }

    /// The request that opened a job has come again: its client has no answer yet.
    async fn open_again(&mut self, id: Uuid, mut stored: Stored, worker: Run) -> Result<(Job, bool), CallError> {
        let is_lost = match self.known.get(&id) {
            Some(Some(running)) => self.is_lost(running) || self.cx.village().has_ended(stored.worker),
            _ => stored.job.is_interrupted(),
        };
        if is_lost {
            stored.worker = worker;
            stored.job.begin_again(&now());
            self.save(id, stored.clone()).await?;
        }
        let has_it = stored.worker == worker && !stored.job.state.is_final();
        Ok((stored.job, has_it))
    }

    async fn report(&mut self, id: Uuid, worker: Run, progress: Progress) -> bool {
        let Some(Some(running)) = self.known.get_mut(&id) else { return false };
        if running.stored.worker != worker {
            return false;
        }
        let at = Instant::now();
        running.heard = at;
        let job = &mut running.stored.job;
        if job.progress != progress {
            job.progress = progress;
            job.updated_at = now();
            if running.told.is_none_or(|told| at.duration_since(told) >= REPORT) {
                running.told = Some(at);
                tell(&self.cx, job).await;
            }
        }
        true
    }

    async fn finish(&mut self, id: Uuid, outcome: Outcome) -> Result<(), CallError> {
        self.end(id, |job| job.finish(outcome, &now())).await
    }

    async fn cancel(&mut self, id: Uuid) -> Result<Job, CallError> {
        let end = |job: &mut Job| {
            job.problem = Some(JobProblem { code: "cancelled".into(), detail: "stopped by its owner".into() });
            job.change(JobState::Cancelled, &now())
        };
        self.end(id, end).await?;
        self.get(id).await
    }

    /// Ends a job that runs.
    async fn end(&mut self, id: Uuid, end: impl FnOnce(&mut Job) -> bool) -> Result<(), CallError> {
        let Some(Some(running)) = self.known.get(&id) else { return Ok(()) };
        let mut stored = running.stored.clone();
        end(&mut stored.job);
        self.save(id, stored).await
    }

    /// Ends the jobs whose worker is lost.
    async fn interrupt(&mut self) -> Result<(), CallError> {
        let runs = self.known.iter().filter_map(|(id, running)| Some((*id, running.as_deref()?)));
        let lost: Vec<Uuid> = runs.filter(|(_, running)| self.is_lost(running)).map(|(id, _)| id).collect();
        for id in lost {
            const WHY: &str = "the node stopped before the job was done; start it again";
            self.end(id, |job| job.fail(record::INTERRUPTED, WHY, &now())).await?;
        }
        Ok(())
    }

    fn is_lost(&self, running: &Running) -> bool {
        let (worker, own) = (running.stored.worker, self.cx.village().run());
        (worker.node == own.node && worker != own) || running.heard.elapsed() >= LOST
    }

    async fn get(&self, id: Uuid) -> Result<Job, CallError> {
        let stored = self.find(id).await?;
        let stored = stored.ok_or_else(|| AppError::new("not_found", "there is no such job"))?;
        Ok(stored.job)
    }

    async fn read(&self, ids: &[Uuid]) -> Result<Vec<Job>, CallError> {
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            jobs.extend(self.find(*id).await?.map(|stored| stored.job));
        }
        Ok(jobs)
    }

    async fn find(&self, id: Uuid) -> Result<Option<Stored>, CallError> {
        match self.known.get(&id) {
            None => Ok(None),
            Some(Some(running)) => Ok(Some(running.stored.clone())),
            Some(None) => self.records.get(id).await.map(Some),
        }
    }

    async fn of(&self, subject: SubjectTag) -> Result<Vec<Job>, CallError> {
        self.read(&self.records.of(subject)?).await
    }

    async fn forget_of(&mut self, subject: SubjectTag) -> Result<u64, CallError> {
        let ids = self.records.of(subject)?;
        for some in ids.chunks(PAGE) {
            self.forget(some).await?;
        }
        Ok(ids.len() as u64)
    }

    fn newest(&self, before: Option<Uuid>, limit: usize) -> Vec<Uuid> {
        let older = self.known.range(..before.unwrap_or(Uuid::max()));
        older.rev().take(limit).map(|(id, _)| *id).collect()
    }

    /// Makes a record durable, then tells it.
    async fn save(&mut self, id: Uuid, mut stored: Stored) -> Result<(), CallError> {
        let mut record = self.records.seal(id, &stored).await?;
        if record.len() > MAX_RECORD {
            let job = &mut stored.job;
            let detail = format!("the result has {} bytes, more than the {MAX_RECORD} that are kept", record.len());
            (job.state, job.result) = (JobState::Failed, None);
            job.problem = Some(JobProblem { code: "result_too_large".into(), detail });
            record = self.records.seal(id, &stored).await?;
        }
        self.records.put(id, record).await?;
        tell(&self.cx, &stored.job).await;
        let running = (!stored.job.state.is_final()).then(|| Box::new(Running::new(stored)));
        self.known.insert(id, running);
        Ok(())
    }

    async fn sweep(&mut self) {
        if let Err(error) = self.forget_old().await {
            tracing::warn!(%error, "old jobs not forgotten, trying again in an hour");
        }
    }

    async fn forget_old(&mut self) -> Result<(), CallError> {
        let floor = uuid_floor(clock::unix_ms().saturating_sub(KEEP_MS));
        let old = self.known.range(..floor).filter(|(_, running)| running.is_none());
        let old: Vec<Uuid> = old.map(|(id, _)| *id).collect();
        for ids in old.chunks(PAGE) {
            self.forget(ids).await?;
        }
        Ok(())
    }

    async fn forget(&mut self, ids: &[Uuid]) -> Result<(), CallError> {
        self.records.remove(ids).await?;
        for id in ids {
            self.known.remove(id);
        }
        Ok(())
    }
}

impl Running {
    fn new(stored: Stored) -> Self {
        Self { stored, heard: Instant::now(), told: None }
    }
}

/// Live events may be lost, the record not: a full topic is no reason to fail.
async fn tell(cx: &ActorCx, job: &Job) {
    if let Err(error) = cx.village().topic(topic(&job.id)).post(json!(job)).await {
        tracing::debug!(%error, "job event not told");
    }
}

fn now() -> String {
    chrono::DateTime::<chrono::Utc>::from(clock::now()).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The least `UUIDv7` of a millisecond: its first 48 bits are the time (RFC 9562 5.7).
fn uuid_floor(unix_ms: u64) -> Uuid {
    Uuid::from_u128(u128::from(unix_ms) << 80)
}

#[cfg(test)]
mod tests {
    use aivillage_governance::erasure::{DataOwner, Places, Subject};
    use aivillage_governance::keys::{self, KeysConfig, KeysNode, TenantId, Vault};
    use aivillage_memory::Document;
    use aivillage_runtime::testing::{asked, sent};
    use aivillage_runtime::{Addr, MsgCx, NodeId, Principal, PrincipalKind, Village};

    use super::*;

    /// Of a node that nobody knows.
    const ELSEWHERE: Run = Run { node: NodeId(7), incarnation: 1 };
    const MAX: Uuid = Uuid::from_u128(u128::MAX);

    async fn village() -> Village {
        let builder = Village::builder().host(|_: &ActorCx| JobActor).host(|_: &ActorCx| JobTable);
        builder.start().await.unwrap()
    }

    fn plan() -> Plan {
        Plan { kind: "test".into(), total: 9, unit: "documents".into() }
    }

    /// The n-th job ever, in shard 0.
    fn id(ms: u64) -> Uuid {
        uuid_floor(clock::unix_ms() + ms)
    }

    fn jobs(village: &Village) -> Addr<JobActor> {
        village.addr("local:0")
    }

    async fn open(jobs: &Addr<JobActor>, id: Uuid, worker: Run) -> (Job, bool) {
        jobs.ask(|reply| JobMsg::Open { id, plan: plan(), worker, reply }).await.unwrap()
    }

    async fn report(jobs: &Addr<JobActor>, id: Uuid, worker: Run, done: u64) -> bool {
        let progress = Progress { done, total: 9, ..Progress::default() };
        jobs.ask(|reply| JobMsg::Report { id, worker, progress, reply }).await.unwrap()
    }

    async fn get(jobs: &Addr<JobActor>, id: Uuid) -> Job {
        jobs.ask(|reply| JobMsg::Get(id, reply)).await.unwrap()
    }

    #[tokio::test]
    async fn a_job_is_opened_once_and_its_first_end_stays() {
        let village = village().await;
        let (jobs, id) = (jobs(&village), id(0));
        let (job, has_it) = open(&jobs, id, ELSEWHERE).await;
        assert_eq!((job.state, job.tenant.as_str(), has_it), (JobState::Running, "local", true));
        assert_eq!(open(&jobs, id, ELSEWHERE).await, (job.clone(), true));
        assert_eq!(open(&jobs, id, village.run()).await, (job, false), "its worker goes on");
        assert!(report(&jobs, id, ELSEWHERE, 3).await);
        assert_eq!(get(&jobs, id).await.progress.done, 3);
        let finish = |outcome| jobs.ask(|reply| JobMsg::Finish { id, outcome, reply });
        finish(Outcome::Done(json!({"created": 9}))).await.unwrap();
        finish(Outcome::Failed { code: "late".into(), detail: String::new() }).await.unwrap();
        assert!(!report(&jobs, id, ELSEWHERE, 4).await);
        assert!(!open(&jobs, id, ELSEWHERE).await.1, "there is nothing more to do");
        let job = jobs.ask(|reply| JobMsg::Cancel(id, reply)).await.unwrap();
        assert_eq!((job.state, job.progress.done, job.problem), (JobState::Succeeded, 9, None));
    }

    #[tokio::test]
    async fn what_came_out_of_a_job_is_sealed_for_its_owner_and_forgotten_with_them() {
        let keys = KeysNode::new(KeysConfig::default());
        let builder = keys::install(Village::builder(), &keys).host(|_: &ActorCx| JobActor);
        let village = builder.start().await.unwrap();
        let (jobs, mine, other, runs) = (jobs(&village), id(0), id(1), id(2));
        let by = |subject: &str| {
            let (tenant, subject) = ("local".to_owned(), subject.to_owned());
            let owner = Principal { tenant, subject, kind: PrincipalKind::User, roles: vec![], scopes: vec![] };
            MsgCx::request(None, None, Some(std::sync::Arc::new(owner)))
        };
        for (id, whose) in [(mine, "ada"), (other, "bob"), (runs, "ada")] {
            by(whose).scope(open(&jobs, id, ELSEWHERE)).await;
        }
        for id in [mine, other] {
            let outcome = Outcome::Done(json!({"errors": ["canary"]}));
            jobs.ask(|reply| JobMsg::Finish { id, outcome, reply }).await.unwrap();
        }
        assert_eq!(get(&jobs, mine).await.result, Some(json!({"errors": ["canary"]})));
        let stored = village.copy_of::<JobActor>("local:0").unwrap();
        let stored = stored.scan(aivillage_runtime::TreeId(68), &[], 9).unwrap();
        assert_eq!(stored.len(), 3);
        assert!(!stored.iter().any(|(_, record)| record.windows(6).any(|bytes| bytes == b"canary")));
        let (data, ada) = (JobData, Subject { tenant: "local".into(), name: "ada".into() });
        let places = data.enumerate(&village, &ada).await.unwrap();
        assert_eq!(places, [("local:0".to_owned(), 2)].into());
        assert_eq!(data.export(&village, &ada, &places).await.unwrap().len(), 2);

        let tag = ada.tag().unwrap();
        Vault::of(&village).unwrap().shred(TenantId::of("local"), tag).await.unwrap();
        assert_eq!(get(&jobs, mine).await.result, None, "it does not open any more");
        let again =
            async { jobs.ask(|reply| JobMsg::Open { id: id(3), plan: plan(), worker: ELSEWHERE, reply }).await };
        assert_eq!(by("ada").scope(again).await.unwrap_err().code(), "crypt_shredded");
        data.erase(&village, &ada, &places).await.unwrap();
        assert_eq!(data.enumerate(&village, &ada).await.unwrap(), Places::new());
        assert!(!report(&jobs, runs, ELSEWHERE, 1).await, "its worker hears that it is over");
        assert_eq!(get(&jobs, other).await.result, Some(json!({"errors": ["canary"]})));
    }

    #[tokio::test]
    async fn a_cancelled_job_tells_its_worker_to_stop() {
        let village = village().await;
        let (jobs, id) = (jobs(&village), id(0));
        open(&jobs, id, ELSEWHERE).await;
        let job = jobs.ask(|reply| JobMsg::Cancel(id, reply)).await.unwrap();
        assert_eq!((job.state, job.problem.unwrap().code.as_str()), (JobState::Cancelled, "cancelled"));
        assert!(!report(&jobs, id, ELSEWHERE, 0).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_lost_its_worker_goes_on_when_its_request_is_repeated() {
        let village = village().await;
        let (jobs, earlier) = (jobs(&village), Run { incarnation: 0, ..village.run() });
        let (lost, interrupted) = (id(0), id(1));
        for id in [lost, interrupted] {
            open(&jobs, id, ELSEWHERE).await;
        }
        tokio::time::advance(LOST).await;
        let (job, has_it) = open(&jobs, lost, earlier).await;
        assert_eq!((job.state, has_it), (JobState::Running, true), "nobody has ended it yet");
        assert!(!report(&jobs, lost, ELSEWHERE, 1).await, "the one that was lost");
        jobs.tell(JobMsg::Check).await.unwrap();
        for id in [lost, interrupted] {
            assert_eq!(get(&jobs, id).await.state, JobState::Failed);
            let (job, has_it) = open(&jobs, id, village.run()).await;
            assert_eq!((job.state, job.problem, has_it), (JobState::Running, None, true));
            assert!(report(&jobs, id, village.run(), 1).await);
        }
        jobs.tell(JobMsg::Check).await.unwrap();
        assert_eq!(get(&jobs, lost).await.state, JobState::Running);
    }

    #[tokio::test]
    async fn a_job_of_an_earlier_run_of_this_node_is_interrupted_at_once() {
        let village = village().await;
        let (jobs, id) = (jobs(&village), id(0));
        let earlier = Run { incarnation: 0, ..village.run() };
        open(&jobs, id, earlier).await;
        jobs.tell(JobMsg::Check).await.unwrap();
        let job = get(&jobs, id).await;
        assert_eq!((job.state, job.problem.unwrap().code.as_str()), (JobState::Failed, "interrupted"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_worker_is_silent_is_interrupted() {
        let village = village().await;
        let (jobs, silent, loud) = (jobs(&village), id(0), id(1));
        for id in [silent, loud] {
            open(&jobs, id, ELSEWHERE).await;
        }
        for _ in 0..LOST.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(report(&jobs, loud, ELSEWHERE, 0).await);
        }
        jobs.tell(JobMsg::Check).await.unwrap();
        assert_eq!(get(&jobs, silent).await.problem.unwrap().code, "interrupted");
        assert_eq!(get(&jobs, loud).await.state, JobState::Running);
    }

    #[tokio::test]
    async fn jobs_that_ended_long_ago_are_forgotten() {
        let village = village().await;
        let (jobs, old, new, runs) = (jobs(&village), uuid_floor(1_000), id(0), uuid_floor(2_000));
        for id in [old, new, runs] {
            open(&jobs, id, ELSEWHERE).await;
        }
        for id in [old, new] {
            jobs.ask(|reply| JobMsg::Finish { id, outcome: Outcome::Done(json!(1)), reply }).await.unwrap();
        }
        jobs.tell(JobMsg::Sweep).await.unwrap();
        let left = jobs.ask(|reply| JobMsg::Newest { before: None, limit: 9, reply }).await.unwrap();
        assert_eq!(left, [new, runs]);
        let gone = jobs.ask(|reply| JobMsg::Get(old, reply)).await.unwrap_err();
        assert_eq!(gone.code(), "not_found");
    }

    #[tokio::test]
    async fn a_full_shard_forgets_the_oldest_that_ended() {
        let village = village().await;
        let jobs = jobs(&village);
        let ids: Vec<Uuid> = (0..=MAX_JOBS as u64).map(id).collect();
        let (newest, full) = ids.split_last().unwrap();
        for id in full {
            open(&jobs, *id, ELSEWHERE).await;
        }
        let refused = jobs.ask(|reply| JobMsg::Open { id: *newest, plan: plan(), worker: ELSEWHERE, reply }).await;
        assert!(matches!(refused, Err(CallError::Overloaded { .. })), "{refused:?}");
        jobs.ask(|reply| JobMsg::Cancel(full[3], reply)).await.unwrap();
        open(&jobs, *newest, ELSEWHERE).await;
        assert!(jobs.ask(|reply| JobMsg::Get(full[3], reply)).await.is_err());
    }

    #[tokio::test]
    async fn a_result_that_is_too_large_fails_the_job_and_says_so() {
        let village = village().await;
        let (jobs, id) = (jobs(&village), id(0));
        open(&jobs, id, ELSEWHERE).await;
        let outcome = Outcome::Done(json!("x".repeat(MAX_RECORD)));
        jobs.ask(|reply| JobMsg::Finish { id, outcome, reply }).await.unwrap();
        let job = get(&jobs, id).await;
        assert_eq!((job.state, job.result), (JobState::Failed, None));
        assert_eq!(job.problem.unwrap().code, "result_too_large");
    }

    #[tokio::test]
    async fn list_is_newest_first_over_all_shards_and_continues_before_a_job() {
        let village = village().await;
        let ids: Vec<Uuid> = (0..40).map(|n| Uuid::from_u128(id(n).as_u128() + u128::from(n))).collect();
        for id in &ids {
            open(&village.addr(shard("local", *id)), *id, ELSEWHERE).await;
        }
        let page = async |tenant: &str, before, limit| {
            let table = village.addr::<JobTable>(tenant);
            let jobs = table.ask(|reply| JobTableMsg::List { before, limit, reply }).await.unwrap();
            jobs.into_iter().map(|job| Uuid::parse_str(&job.id).unwrap()).collect::<Vec<_>>()
        };
        let newest_first: Vec<Uuid> = ids.iter().rev().copied().collect();
        assert_eq!(page("local", None, 7).await, newest_first[..7]);
        assert_eq!(page("local", Some(newest_first[6]), 200).await, newest_first[7..]);
        assert!(page("other", None, 5).await.is_empty());
    }

    #[test]
    fn messages_are_the_same_on_another_node() {
        macro_rules! check {
            ($kind:ty, $message:pat => $reply:ident, $ask:expr, $answer:expr) => {
                let open = |body| match body {
                    $message => $reply,
                    #[allow(unreachable_patterns, reason = "some have one message only")]
                    other => panic!("{other:?}"),
                };
                assert_eq!(asked::<$kind, _>($ask, open, $answer), Ok($answer));
            };
        }
        let id = Uuid::max();
        let worker = ELSEWHERE;
        let mut job = Job::new(id, "local", plan(), "t");
        job.finish(Outcome::Done(json!({"big": u64::MAX, "list": [null, 1.5, {}]})), "t2");
        let job = || job.clone();
        let (progress, outcome) = (Progress { done: u64::MAX, ..Progress::default() }, Outcome::Done(json!([1, null])));
        check!(JobActor, JobMsg::Open { id: MAX, reply, .. } => reply, |reply| JobMsg::Open { id, plan: plan(), worker, reply }, (job(), true));
        check!(JobActor, JobMsg::Report { id: MAX, worker: ELSEWHERE, progress: Progress { done: u64::MAX, .. }, reply } => reply,
            |reply| JobMsg::Report { id, worker, progress, reply }, true);
        check!(JobActor, JobMsg::Finish { outcome: Outcome::Done(_), reply, .. } => reply,
            |reply| JobMsg::Finish { id, outcome, reply }, ());
        check!(JobActor, JobMsg::Cancel(MAX, reply) => reply, |reply| JobMsg::Cancel(id, reply), job());
        check!(JobActor, JobMsg::Get(MAX, reply) => reply, |reply| JobMsg::Get(id, reply), job());
        check!(JobActor, JobMsg::Read(_, reply) => reply, |reply| JobMsg::Read(vec![id; 3], reply), vec![job(); 3]);
        check!(JobActor, JobMsg::Newest { before: Some(MAX), limit: usize::MAX, reply } => reply,
            |reply| JobMsg::Newest { before: Some(id), limit: usize::MAX, reply }, vec![id; 2]);
        let ada = SubjectTag::of(TenantId::of("local"), "ada").unwrap();
        check!(JobActor, JobMsg::Of(_, reply) => reply, |reply| JobMsg::Of(ada, reply), vec![job()]);
        check!(JobActor, JobMsg::Forget(_, reply) => reply, |reply| JobMsg::Forget(ada, reply), 9);
        for plain in [JobMsg::Check, JobMsg::Sweep] {
            assert_eq!(format!("{:?}", sent::<JobActor>(&plain).unwrap()), format!("{plain:?}"));
        }
        check!(JobTable, JobTableMsg::List { before: None, limit: 201, reply } => reply,
            |reply| JobTableMsg::List { before: None, limit: 201, reply }, vec![job()]);
        let owner = || Principal {
            tenant: "local".into(),
            subject: "admin".into(),
            kind: PrincipalKind::User,
            roles: vec!["admin".into()],
            scopes: Vec::new(),
        };
        let documents = || vec![Document { id: Some("x".into()), text: "t".into(), ..Document::default() }];
        let work = || Work::Ingest { collection: Some("c".into()), documents: documents() };
        let open = |body| match body {
            WorkerMsg::Start { owner: got, work: Work::Ingest { collection: Some(_), documents: sent }, reply } => {
                assert_eq!((got, sent), (owner(), documents()));
                reply
            }
            other => panic!("{other:?}"),
        };
        let start = |reply| WorkerMsg::Start { owner: owner(), work: work(), reply };
        assert_eq!(asked::<Worker, _>(start, open, job()), Ok(job()));
        assert!(matches!(sent::<Worker>(&WorkerMsg::Ended), Ok(WorkerMsg::Ended)));
    }
}
