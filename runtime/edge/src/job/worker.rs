//! `edge.worker`: does the work of one job, on the node where it was asked for.
//!
//! Key: the job's id. Placement: per node. Durable: no. Lost in a crash: the work; the job's record hears no more of it and
//! becomes `failed` with code `interrupted`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use aivillage_memory::document::PutError;
use aivillage_memory::{Document, Memory, Put, PutResult, PutStatus, WaitFor};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Idem, Kind, KindOptions, Mail, MsgCx, Placement,
    Principal, Reply, TaskHandle,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{BEAT, Job, JobActor, JobMsg, Outcome, Plan, Progress, REPORT, shard};
use crate::metrics::EdgeMetrics;

/// Documents one step of an ingest writes; the job reports after each.
const STEP: usize = 64;
/// Longest time one step of the work may take.
const STEP_LIMIT: Duration = Duration::from_mins(10);
/// How often an end is told again if it cannot be told, a second apart. Then the record calls the job interrupted.
const TELL: u32 = 60;
/// Errors of single documents that a result names.
const ERRORS: usize = 100;

/// What a [`Worker`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum WorkerMsg {
    /// Opens the job and begins, unless another worker has it; the record is durable before the reply.
    Start {
        /// Who started it; the work runs on this principal's behalf.
        owner: Principal,
        /// What to do.
        work: Work,
        /// The new job.
        reply: Reply<Job>,
    },
    /// The work has ended; sent by itself.
    Ended,
}

/// Work that a job can do.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Writes documents into the memory.
    Ingest {
        /// Target; the default collection if absent.
        collection: Option<String>,
        /// What to write.
        documents: Vec<Document>,
    },
}

impl Work {
    fn plan(&self) -> Plan {
        match self {
            Work::Ingest { documents, .. } => {
                Plan { kind: "memory.ingest".into(), total: documents.len() as u64, unit: "documents".into() }
            }
        }
    }
}

/// The behaviour; its data is [`Bench`].
#[derive(Debug)]
pub struct Worker;

impl Kind for Worker {
    const NAME: &'static str = "edge.worker";
    type Body = WorkerMsg;

    fn options() -> KindOptions {
        // It gets no mail while it works; it asks to be stopped when it is done.
        KindOptions::default().placement(Placement::PerNode).idle(None)
    }
}

/// The running work.
#[derive(Debug)]
pub struct Bench {
    cx: ActorCx,
    task: Option<TaskHandle<()>>,
}

impl Actor for Worker {
    type Msg = Mail<WorkerMsg>;
    type State = Bench;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Bench, ActorProcessingErr> {
        Ok(Bench { cx, task: None })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        bench: &mut Bench,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            WorkerMsg::Start { owner, work, reply } => reply.complete(bench.start(&me, owner, work).await),
            WorkerMsg::Ended => bench.task = None,
        }
        if bench.task.is_none() {
            bench.cx.passivate();
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, bench: &mut Bench) -> Result<(), ActorProcessingErr> {
        if let Some(task) = bench.task.take() {
            task.abort();
        }
        Ok(())
    }
}

impl Bench {
    async fn start(&mut self, me: &ActorRef<Mail<WorkerMsg>>, owner: Principal, work: Work) -> Result<Job, CallError> {
        let not_found = |_| CallError::from(AppError::new("not_found", "the key of a worker is the id of its job"));
        let id = Uuid::parse_str(self.cx.key()).map_err(not_found)?;
        let record = self.cx.village().addr::<JobActor>(shard(&owner.tenant, id));
        let (plan, worker) = (work.plan(), self.cx.village().run());
        let open = record.call().idem(Idem::of(&[id.as_bytes(), b"open"]));
        let (job, has_it) = open.ask(|reply| JobMsg::Open { id, plan, worker, reply }).await?;
        if has_it && self.task.is_none() {
            let (cx, me, progress) = (self.cx.clone(), me.clone(), job.progress.clone());
            let owner = Arc::new(owner);
            // The request that started it has a deadline of its own, which does not hold here.
            let context = MsgCx::request(None, None, Some(owner.clone()));
            let shift = Shift { cx, id, owner, progress: watch::Sender::new(progress) };
            let working = async move {
                shift.work(work).await;
                shift.cx.tell_self(&me, WorkerMsg::Ended);
            };
            self.task = Some(self.cx.village().task("edge.job", context.scope(working)));
        }
        Ok(job)
    }
}

/// One job being worked on.
struct Shift {
    cx: ActorCx,
    id: Uuid,
    owner: Arc<Principal>,
    progress: watch::Sender<Progress>,
}

impl Shift {
    async fn work(&self, work: Work) {
        let metrics = self.cx.village().metrics::<EdgeMetrics>();
        metrics.jobs.inc();
        let working = async {
            match work {
                Work::Ingest { collection, documents } => self.ingest(collection, documents).await,
            }
        };
        // A panic of the work must end the job, not leave it running.
        let working = AssertUnwindSafe(working).catch_unwind();
        tokio::select! {
            outcome = working => {
                let fault = |_| Outcome::Failed {
                    code: "internal".into(),
                    detail: "the work hit a fault of the server".into(),
                };
                self.finish(outcome.unwrap_or_else(fault)).await;
            }
            // Cancelled, or taken for lost: there is nothing to tell.
            () = self.report() => {}
        }
        metrics.jobs.dec();
    }

    /// Tells the progress, and at least that it goes on, until the job has ended otherwise.
    async fn report(&self) {
        let mut changes = self.progress.subscribe();
        let (id, worker) = (self.id, self.cx.village().run());
        loop {
            let progress = changes.borrow_and_update().clone();
            // While the record cannot be reached the work goes on: that may pass.
            if let Ok(false) = self.record().ask(|reply| JobMsg::Report { id, worker, progress, reply }).await {
                return;
            }
            sleep(REPORT).await;
            let _ = tokio::time::timeout(BEAT, changes.changed()).await;
        }
    }

    async fn finish(&self, outcome: Outcome) {
        let id = self.id;
        for _ in 0..TELL {
            let outcome = outcome.clone();
            let call = self.record();
            let call = call.call().idem(Idem::of(&[id.as_bytes(), b"finish"]));
            match call.ask(|reply| JobMsg::Finish { id, outcome, reply }).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, job = %id, "end of a job not told yet"),
            }
            sleep(Duration::from_secs(1)).await;
        }
        tracing::warn!(job = %id, "end of a job not told");
    }

    fn record(&self) -> aivillage_runtime::Addr<JobActor> {
        self.cx.village().addr(shard(&self.owner.tenant, self.id))
    }

    async fn ingest(&self, collection: Option<String>, documents: Vec<Document>) -> Outcome {
        let memory = Memory::new(self.cx.village(), self.owner.tenant.clone());
        let total = documents.len() as u64;
        let mut counts = [0_u64; 4];
        let mut errors = Vec::new();
        let mut rest = documents.into_iter().peekable();
        let mut done = 0;
        while rest.peek().is_some() {
            let documents: Vec<Document> = rest.by_ref().take(STEP).collect();
            done += documents.len() as u64;
            let wait = if rest.peek().is_some() { WaitFor::Durable } else { WaitFor::Searchable };
            let ids: Vec<_> = documents.iter().map(|document| document.id.clone().unwrap_or_default()).collect();
            let put = Put { collection: collection.clone(), documents, wait };
            let context = MsgCx::request(Some(Instant::now() + STEP_LIMIT), None, Some(self.owner.clone()));
            let results = match context.scope(memory.put(put)).await {
                Ok(report) => report.results,
                // None of this step may be kept; what comes after it may.
                Err(error) if is_withheld(&error) => ids.into_iter().map(|id| withheld(id, &error)).collect(),
                Err(error) => return Outcome::Failed { code: error.code().into_owned(), detail: error.to_string() },
            };
            for result in results {
                counts[result.status as usize] += 1;
                if result.status == PutStatus::Failed && errors.len() < ERRORS {
                    errors.push(json!({"id": result.id, "error": result.error}));
                }
            }
            let message = format!("{done} of {total} documents");
            self.progress.send_replace(Progress { done, total, unit: "documents".into(), message });
        }
        let [created, updated, unchanged, failed] = counts;
        Outcome::Done(json!({
            "created": created, "updated": updated, "unchanged": unchanged, "failed": failed, "errors": errors,
        }))
    }
}

/// Whether the gate keeps the documents from the memory, and not only for now.
fn is_withheld(error: &CallError) -> bool {
    matches!(error, CallError::Refused(_)) && error.retry_after().is_none()
}

fn withheld(id: String, error: &CallError) -> PutResult {
    let error = PutError { code: error.code().into_owned(), message: error.to_string() };
    PutResult { id, status: PutStatus::Failed, version: None, duplicate_of: None, error: Some(error) }
}
