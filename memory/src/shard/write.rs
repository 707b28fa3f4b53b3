//! The write side of a shard: one task that takes writes in order, makes them durable together, and hands them to the
//! index.
//!
//! Preparing runs ahead on other threads; what waits for one commit to end goes into the next one together.
//!
//! After a failed commit nobody knows what is stored: the next thing is to find out ([`WriteSide::settle`]), and until that
//! succeeds writes fail as it does. A commit that another node has fenced never succeeds again, so the shard ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aivillage_governance::keys::{Personal, SubjectTag};
use aivillage_runtime::{ActorCx, AppError, Batch, CallError, MsgCx, Reply, Village, clock};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::decide::{Change, Decision, Written};
use super::gated;
use super::indexer::{IndexOp, Indexer};
use super::known::Known;
use super::open::Opened;
use super::read::{Counts, IndexHere};
use crate::document::{Delete, DeleteReport, Document, PutReport, PutResult, PutStatus, WaitFor};
use crate::error::MemoryError;
use crate::journal::{Journal, LogRange};
use crate::metrics::MemoryMetrics;
use crate::names::ShardName;
use crate::prepare::{PrepareLimits, Prepared, prepare};
use crate::registry::{Registry, RegistryMsg};

/// Writes that are prepared at the same time.
const AHEAD: usize = 2;
/// Writes that are made durable together.
const TOGETHER: usize = 16;
/// Log entries removed beyond those written, so that the log shrinks after a burst.
const FORGET_AHEAD: u64 = 512;
/// Entries that the index has seen and that stay in the log, for the indexes of other nodes, which follow when the shard
/// moves to them: one that is further behind is made anew.
const LOG_KEPT: u64 = 4096;
/// Longest wait for the registry, which only writes a name down.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// Pause before the journal is looked at again when that failed.
const SETTLE: Duration = Duration::from_secs(1);

/// A write on its way.
#[derive(Debug)]
pub(crate) enum Job {
    Put { documents: Vec<Document>, cx: MsgCx, wait: WaitFor, permit: OwnedSemaphorePermit, reply: Reply<PutReport> },
    Delete { delete: Delete, reply: Reply<DeleteReport> },
    Forget { subject: SubjectTag, reply: Reply<u64> },
}

/// A write whose documents have been looked at.
enum Ready {
    Put {
        documents: Vec<Result<Prepared, (String, MemoryError)>>,
        /// Whose they are.
        subject: Option<SubjectTag>,
        wait: WaitFor,
        permit: Arc<OwnedSemaphorePermit>,
        reply: Reply<PutReport>,
        arrived: Instant,
    },
    Delete {
        delete: Delete,
        reply: Reply<DeleteReport>,
    },
    Forget(SubjectTag, Reply<u64>),
}

impl Ready {
    fn fail(self, error: CallError) {
        match self {
            Self::Put { reply, .. } => reply.fail(error),
            Self::Delete { reply, .. } => reply.fail(error),
            Self::Forget(_, reply) => reply.fail(error),
        }
    }
}

/// An answer that waits for its write to be durable, or searchable.
enum Answer {
    Put {
        report: PutReport,
        wait: WaitFor,
        permit: Arc<OwnedSemaphorePermit>,
        reply: Reply<PutReport>,
        arrived: Instant,
    },
    Delete {
        report: DeleteReport,
        wait: WaitFor,
        reply: Reply<DeleteReport>,
    },
}

impl Answer {
    fn wait(&self) -> WaitFor {
        match self {
            Self::Put { wait, .. } | Self::Delete { wait, .. } => *wait,
        }
    }

    fn send(self, metrics: &MemoryMetrics) {
        match self {
            Self::Put { report, reply, arrived, .. } => {
                metrics.put.observe(arrived.elapsed().as_secs_f64());
                reply.send(report);
            }
            Self::Delete { report, reply, .. } => reply.send(report),
        }
    }

    fn fail(self, error: CallError) {
        match self {
            Self::Put { reply, .. } => reply.fail(error),
            Self::Delete { reply, .. } => reply.fail(error),
        }
    }
}

/// What the writing task owns.
pub(crate) struct WriteSide {
    pub(crate) name: ShardName,
    cx: ActorCx,
    pub(crate) village: Village,
    pub(crate) journal: Journal,
    pub(crate) limits: PrepareLimits,
    pub(crate) keep_versions: u32,
    pub(crate) metrics: Arc<MemoryMetrics>,
    pub(crate) counts: watch::Sender<Counts>,
    pub(crate) index: watch::Sender<IndexHere>,
    /// The folder that the indexes are in, and which of them it is.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) generation: u64,
    pub(crate) known: Known,
    pub(crate) indexer: Indexer,
    pub(crate) log: LogRange,
    /// A commit has failed, and it is not known what is stored.
    unsettled: bool,
    /// The journal holds something that has to be swept.
    loose: bool,
    /// The registry knows the collection.
    registered: bool,
}

/// What one step will do.
struct Decided {
    written: Written,
    answers: Vec<Answer>,
    forgotten: u64,
}

impl WriteSide {
    pub(crate) fn new(
        (name, cx, journal): (ShardName, ActorCx, Journal),
        (limits, keep_versions): (PrepareLimits, u32),
        metrics: Arc<MemoryMetrics>,
        opened: Opened,
    ) -> (Self, watch::Receiver<Counts>, watch::Receiver<IndexHere>) {
        let Opened { lexical, indexer, known, log, loose, folder, dir, generation } = opened;
        let (counts, seen) = watch::channel(Counts::of(&known, log.last.seq));
        let (index, searched) = watch::channel(IndexHere { lexical, dir });
        (
            Self {
                name,
                village: cx.village().clone(),
                cx,
                journal,
                limits,
                keep_versions,
                metrics,
                counts,
                index,
                folder,
                generation,
                known,
                indexer,
                log,
                unsettled: false,
                loose,
                registered: false,
            },
            seen,
            searched,
        )
    }

    /// The log entry up to which writes are searchable.
    pub(crate) fn searchable(&self) -> watch::Receiver<u64> {
        self.indexer.searchable()
    }

    /// Takes writes until there are no more senders, or the index thread has ended.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        let (village, limits) = (self.village.clone(), self.limits);
        let tenant: Arc<str> = self.name.tenant.as_str().into();
        let jobs = futures::stream::poll_fn(move |cx| inbox.poll_recv(cx));
        let journal = self.journal.clone();
        let ready =
            jobs.map(move |job| ready((village.clone(), journal.clone()), tenant.clone(), limits, job)).buffered(AHEAD);
        let mut ready = std::pin::pin!(ready.filter_map(std::future::ready).ready_chunks(TOGETHER));
        loop {
            let next = async {
                if !self.unsettled {
                    return ready.next().await;
                }
                // The journal is looked at again even if nobody writes: what is stored after all should be found.
                tokio::time::timeout(SETTLE, ready.next()).await.unwrap_or(Some(Vec::new()))
            };
            let Some(jobs) = next.await else { break };
            match self.all(jobs).await {
                Some(next) => self = next,
                None => return,
            }
        }
        if let Some(thread) = self.indexer.stop() {
            // A panic of the thread has been printed; the journal has everything.
            drop(self.village.blocking("memory.close", move || thread.join()).await);
        }
    }

    /// Writes, and after that erasures: what they take out goes whenever it was written.
    async fn all(mut self, jobs: Vec<Ready>) -> Option<Self> {
        let (mut writes, mut erased) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            match job {
                Ready::Forget(subject, reply) => erased.push((subject, reply)),
                write => writes.push(write),
            }
        }
        self = self.step(writes).await?;
        for (subject, reply) in erased {
            let forgotten;
            (self, forgotten) = self.forget(subject).await?;
            reply.complete(forgotten);
        }
        Some(self)
    }

    /// Decides, commits, answers, indexes. `None` when the shard has to start again.
    async fn step(mut self, jobs: Vec<Ready>) -> Option<Self> {
        let settled;
        (self, settled) = self.settle().await?;
        if let Err(error) = settled {
            for job in jobs {
                job.fail(error.clone());
            }
            return Some(self);
        }
        let decided;
        (self, decided) = self.blocking("memory.decide", move |side| side.decide(jobs)).await?;
        let Decided { written, answers, forgotten } = decided;
        if !written.batches.is_empty()
            && let Err(error) = self.commit(written.batches).await
        {
            self.unsettled = true;
            for answer in answers {
                answer.fail(error.clone());
            }
            return self.settle().await.map(|(side, _)| side);
        }
        self.log = LogRange { first: self.log.first + forgotten, last: written.at };
        self.loose |= written.loose;
        self.counts.send_replace(Counts::of(&self.known, written.at.seq));
        let (now, later): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.wait() == WaitFor::Durable);
        let permits: Vec<_> = now.iter().chain(&later).filter_map(Answer::permit).collect();
        for answer in now {
            answer.send(&self.metrics);
        }
        let flush = !later.is_empty();
        self.answer_when_searchable(later, written.at.seq);
        let changes = written.changes;
        let indexed;
        (self, indexed) = self.blocking("memory.index", move |side| side.index(changes, &permits, flush)).await?;
        if !indexed {
            return None;
        }
        // What cannot be swept now can be later.
        self.settle().await.map(|(side, _)| side)
    }

    pub(super) async fn blocking<T: Send + 'static>(
        mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Option<(Self, T)> {
        let village = self.village.clone();
        let working = village.blocking(name, move || {
            let done = work(&mut self);
            (self, done)
        });
        working.await.ok()
    }

    /// Makes batches durable that nobody waits for; what they leave is swept.
    pub(super) async fn commit_all(&mut self, batches: Vec<Batch>) -> Result<(), CallError> {
        let committed = self.commit(batches).await;
        self.unsettled |= committed.is_err();
        self.loose = true;
        committed
    }

    /// Has the shard start again with the next message.
    pub(super) fn end(&self) {
        self.cx.passivate();
    }

    /// Makes batches durable; the collection's name first, so that nothing is stored where nobody looks.
    async fn commit(&mut self, batches: Vec<Batch>) -> Result<(), CallError> {
        if !self.registered {
            let (registry, name) = (self.village.addr::<Registry>(&self.name.tenant), self.name.collection.clone());
            registry.call().deadline(REGISTER_LIMIT).ask(|reply| RegistryMsg::Ensure(name, reply)).await?;
            self.registered = true;
        }
        self.journal.commit(batches).await
    }

    /// Finds out what is stored if that is not known, and removes from the journal what has to go. `None` when the shard has
    /// to start again.
    pub(super) async fn settle(mut self) -> Option<(Self, Result<(), CallError>)> {
        if self.unsettled {
            if let Err(error) = self.journal.settle().await {
                if matches!(error, CallError::Moved { .. }) {
                    // Another activation writes now. This one must not stay, should its messages still come here.
                    self.end();
                }
                return Some((self, Err(error)));
            }
            let loaded;
            (self, loaded) = self.blocking("memory.reload", Self::reload).await?;
            if let Err(error) = loaded {
                return Some((self, Err(error.into())));
            }
            self.unsettled = false;
        }
        while self.loose {
            let batch;
            (self, batch) = self.blocking("memory.sweep", |side| side.journal.sweep()).await?;
            let swept = match batch {
                Ok(Some(batch)) => self.journal.commit(vec![batch]).await,
                Ok(None) => {
                    self.loose = false;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = swept {
                self.unsettled = true;
                return Some((self, Err(error)));
            }
        }
        Some((self, Ok(())))
    }

    /// Takes over what is stored; what was stored after all goes to the index.
    fn reload(&mut self) -> Result<(), MemoryError> {
        self.known = Known::load(&self.journal)?;
        let indexed = self.log.last.seq;
        self.log = self.journal.log()?;
        self.loose = self.journal.is_loose()?;
        self.counts.send_replace(Counts::of(&self.known, self.log.last.seq));
        super::open::replay(&self.journal, indexed, &self.indexer)
    }

    fn decide(&mut self, jobs: Vec<Ready>) -> Decided {
        let searchable = *self.indexer.searchable().borrow();
        let stamp = (self.log.last, clock::unix_ms());
        let mut decision = Decision::new(&self.name, &self.journal, &mut self.known, self.keep_versions, stamp);
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Ready::Put { documents, subject, wait, permit, reply, arrived } => {
                    let put = |document| put(&mut decision, document, subject, &self.metrics);
                    let results = documents.into_iter().map(put);
                    answers.push(Answer::Put {
                        report: PutReport { results: results.collect() },
                        wait,
                        permit,
                        reply,
                        arrived,
                    });
                }
                Ready::Delete { delete, reply } => match decision.delete(delete.ids) {
                    Ok(report) => {
                        self.metrics.deleted.inc_by(report.deleted.len() as u64);
                        answers.push(Answer::Delete { report, wait: delete.wait, reply });
                    }
                    Err(error) => reply.fail(error),
                },
                Ready::Forget(_, reply) => reply.fail(CallError::NoReply),
            }
        }
        let written = decision.changes.len() as u64;
        // What the index has seen for long. The newest stays in any case: it tells where the history goes on.
        let seen = searchable.saturating_sub(self.log.first + LOG_KEPT);
        let forgotten = if written == 0 { 0 } else { seen.min(written + FORGET_AHEAD) };
        decision.forget(self.log.first..self.log.first + forgotten);
        Decided { written: decision.finish(), answers, forgotten }
    }

    /// Hands changes to the index; false when its thread has ended.
    fn index(&self, changes: Vec<Change>, permits: &[Arc<OwnedSemaphorePermit>], flush: bool) -> bool {
        let permit = permits.last().cloned();
        let sent = changes.into_iter().all(|change| match change {
            Change::Put(at, document) => self.indexer.send(IndexOp::Put(at, document, permit.clone())),
            Change::Delete(at, key) => self.indexer.send(IndexOp::Delete(at, key)),
        });
        sent && (!flush || self.indexer.send(IndexOp::Flush(None)))
    }

    fn answer_when_searchable(&self, answers: Vec<Answer>, seq: u64) {
        if answers.is_empty() {
            return;
        }
        let (mut searchable, metrics) = (self.indexer.searchable(), self.metrics.clone());
        let work = async move {
            let found = searchable.wait_for(|seen| *seen >= seq).await.is_ok();
            for answer in answers {
                if found {
                    answer.send(&metrics);
                } else {
                    let lost = "the write is durable, but the index restarts before it is searchable";
                    answer.fail(AppError::new("index_failed", lost).into());
                }
            }
        };
        self.village.task("memory.searchable", work).detach();
    }
}

impl Answer {
    fn permit(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        match self {
            Self::Put { permit, .. } => Some(permit.clone()),
            Self::Delete { .. } => None,
        }
    }
}

/// Lets the documents of a write pass the gate, and prepares them on a thread of their own; `None` when there is nothing to do:
/// none of them passes, or the node is going down.
async fn ready(
    (village, journal): (Village, Journal),
    tenant: Arc<str>,
    limits: PrepareLimits,
    job: Job,
) -> Option<Ready> {
    let arrived = Instant::now();
    match job {
        Job::Forget { subject, reply } => Some(Ready::Forget(subject, reply)),
        Job::Delete { delete, reply } => Some(Ready::Delete { delete, reply }),
        Job::Put { documents, cx, wait, permit, reply } => {
            let owner = journal.owner(Personal::subject_of(&cx)).map_err(CallError::from);
            let admitted = gated::admit(&village, &tenant, &cx, documents).await;
            let (subject, admitted) = match owner.and_then(|owner| Ok((owner, admitted?))) {
                Ok(ready) => ready,
                Err(error) => {
                    reply.fail(error);
                    return None;
                }
            };
            let prepared = village.blocking("memory.prepare", move || {
                let prepare = |document: Result<_, _>| document.and_then(|document| guarded(document, limits));
                admitted.into_iter().map(prepare).collect()
            });
            if let Ok(documents) = prepared.await {
                Some(Ready::Put { documents, subject, wait, permit: Arc::new(permit), reply, arrived })
            } else {
                reply.fail(CallError::Draining);
                None
            }
        }
    }
}

/// A document that makes the code fail is refused; the others of its request are stored.
fn guarded(document: Document, limits: PrepareLimits) -> Result<Prepared, (String, MemoryError)> {
    let id = document.id.clone().unwrap_or_default();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| prepare(document, limits)));
    done.unwrap_or_else(|_| {
        let reason = "an internal error".to_owned();
        Err((id.clone(), MemoryError::ParserFailed { name: id, reason }))
    })
}

fn put(
    decision: &mut Decision<'_>,
    document: Result<Prepared, (String, MemoryError)>,
    subject: Option<SubjectTag>,
    metrics: &MemoryMetrics,
) -> PutResult {
    let outcome = document.and_then(|document| {
        let id = document.id.clone();
        decision.put(document, subject).map_err(|error| (id, error))
    });
    match outcome {
        Ok(result) => {
            metrics.documents.inc_by(u64::from(result.status != PutStatus::Unchanged));
            metrics.duplicates.inc_by(u64::from(result.duplicate_of.is_some()));
            result
        }
        Err((id, error)) => {
            metrics.refused.inc();
            PutResult { id, status: PutStatus::Failed, version: None, duplicate_of: None, error: Some((&error).into()) }
        }
    }
}
