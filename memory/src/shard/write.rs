//! The write side of a shard: one task that takes writes in order, makes them durable together, and hands them to the
//! index.
//!
//! Preparing runs ahead on other threads; what waits for one commit to end goes into the next one together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aivillage_runtime::{AppError, Batch, CallError, Level, Reply, Village, clock};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::decide::{Change, Decision};
use super::indexer::{IndexOp, Indexer};
use super::known::Known;
use super::open::Opened;
use super::read::Counts;
use crate::document::{Delete, DeleteReport, Document, PutReport, PutResult, PutStatus, WaitFor};
use crate::error::MemoryError;
use crate::journal::{Journal, store_error};
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
/// Longest wait for the registry, which only writes a name down.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);

/// A write on its way.
#[derive(Debug)]
pub(crate) enum Job {
    Put { documents: Vec<Document>, wait: WaitFor, permit: OwnedSemaphorePermit, reply: Reply<PutReport> },
    Delete { delete: Delete, reply: Reply<DeleteReport> },
}

/// A write whose documents have been looked at.
enum Ready {
    Put {
        documents: Vec<Result<Prepared, (String, MemoryError)>>,
        wait: WaitFor,
        permit: Arc<OwnedSemaphorePermit>,
        reply: Reply<PutReport>,
        arrived: Instant,
    },
    Delete {
        delete: Delete,
        reply: Reply<DeleteReport>,
    },
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
    pub(crate) village: Village,
    pub(crate) journal: Journal,
    pub(crate) limits: PrepareLimits,
    pub(crate) keep_versions: u32,
    pub(crate) metrics: Arc<MemoryMetrics>,
    pub(crate) counts: watch::Sender<Counts>,
    known: Known,
    indexer: Indexer,
    /// First number still in the log, and last one used.
    log: (u64, u64),
    /// The registry knows the collection.
    registered: bool,
}

/// What one commit will do.
struct Decided {
    batch: Batch,
    seq: u64,
    changes: Vec<Change>,
    answers: Vec<Answer>,
    forgotten: u64,
}

impl WriteSide {
    pub(crate) fn new(
        (name, village, journal): (ShardName, Village, Journal),
        (limits, keep_versions): (PrepareLimits, u32),
        metrics: Arc<MemoryMetrics>,
        opened: Opened,
    ) -> (Self, watch::Receiver<Counts>) {
        let Opened { indexer, known, log, .. } = opened;
        let (counts, seen) = watch::channel(Counts::of(&known, log.1));
        (
            Self {
                name,
                village,
                journal,
                limits,
                keep_versions,
                metrics,
                counts,
                known,
                indexer,
                log,
                registered: false,
            },
            seen,
        )
    }

    /// The log entry up to which writes are searchable.
    pub(crate) fn searchable(&self) -> watch::Receiver<u64> {
        self.indexer.searchable()
    }

    /// Takes writes until there are no more senders, or the index thread has ended.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        let (village, limits) = (self.village.clone(), self.limits);
        let jobs = futures::stream::poll_fn(move |cx| inbox.poll_recv(cx));
        let ready = jobs.map(move |job| ready(village.clone(), limits, job)).buffered(AHEAD);
        let mut ready = std::pin::pin!(ready.filter_map(std::future::ready).ready_chunks(TOGETHER));
        while let Some(jobs) = ready.next().await {
            match self.step(jobs).await {
                Some(next) => self = next,
                None => return,
            }
        }
        if let Some(thread) = self.indexer.stop() {
            // A panic of the thread has been printed; the journal has everything.
            drop(self.village.blocking("memory.close", move || thread.join()).await);
        }
    }

    /// Decides, commits, answers, indexes. `None` when the shard has to start again.
    async fn step(mut self, jobs: Vec<Ready>) -> Option<Self> {
        let village = self.village.clone();
        let (side, decided) = village
            .blocking("memory.decide", move || {
                let decided = self.decide(jobs);
                (self, decided)
            })
            .await
            .ok()?;
        self = side;
        let Decided { batch, seq, changes, answers, forgotten } = decided;
        if !batch.is_empty()
            && let Err(error) = self.commit(batch).await
        {
            for answer in answers {
                answer.fail(error.clone());
            }
            return self.reload().await;
        }
        self.log = (self.log.0 + forgotten, seq);
        self.counts.send_replace(Counts::of(&self.known, seq));
        let (now, later): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.wait() == WaitFor::Durable);
        let permits: Vec<_> = now.iter().chain(&later).filter_map(Answer::permit).collect();
        for answer in now {
            answer.send(&self.metrics);
        }
        let flush = !later.is_empty();
        self.answer_when_searchable(later, seq);
        let (side, indexed) = village
            .blocking("memory.index", move || {
                let indexed = self.index(changes, &permits, flush);
                (self, indexed)
            })
            .await
            .ok()?;
        indexed.then_some(side)
    }

    /// Makes a batch durable; the collection's name first, so that nothing is stored where nobody looks.
    async fn commit(&mut self, batch: Batch) -> Result<(), CallError> {
        if !self.registered {
            let (registry, name) = (self.village.addr::<Registry>(&self.name.tenant), self.name.collection.clone());
            registry.call().deadline(REGISTER_LIMIT).ask(|reply| RegistryMsg::Ensure(name, reply)).await?;
            self.registered = true;
        }
        self.village.store().commit(batch, Level::Disk).await.map(drop).map_err(|error| store_error(&error))
    }

    fn decide(&mut self, jobs: Vec<Ready>) -> Decided {
        let searchable = *self.indexer.searchable().borrow();
        let stamp = (self.log.1, clock::unix_ms());
        let mut decision = Decision::new(&self.name, &self.journal, &mut self.known, self.keep_versions, stamp);
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Ready::Put { documents, wait, permit, reply, arrived } => {
                    let results = documents.into_iter().map(|document| put(&mut decision, document, &self.metrics));
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
            }
        }
        let written = decision.changes.len() as u64;
        // The newest entry the index has seen stays: it tells where numbers go on after a restart.
        let forgotten =
            if written == 0 { 0 } else { searchable.saturating_sub(self.log.0).min(written + FORGET_AHEAD) };
        decision.forget(self.log.0..self.log.0 + forgotten);
        let (batch, seq, changes) = decision.finish();
        Decided { batch, seq, changes, answers, forgotten }
    }

    /// Hands changes to the index; false when its thread has ended.
    fn index(&self, changes: Vec<Change>, permits: &[Arc<OwnedSemaphorePermit>], flush: bool) -> bool {
        let permit = permits.last().cloned();
        let sent = changes.into_iter().all(|change| match change {
            Change::Put(seq, document) => self.indexer.send(IndexOp::Put(seq, document, permit.clone())),
            Change::Delete(seq, key) => self.indexer.send(IndexOp::Delete(seq, key)),
        });
        sent && (!flush || self.indexer.send(IndexOp::Flush))
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

    /// After a failed commit nobody knows what is stored: looks.
    async fn reload(mut self) -> Option<Self> {
        let journal = self.journal.clone();
        let loaded = self
            .village
            .blocking("memory.reload", move || {
                Ok::<_, MemoryError>((Known::load(&journal)?, super::open::log_range(&journal)?))
            })
            .await;
        let (known, log) = loaded.ok()?.ok()?;
        // Entries that were written after all are not in the index: only a restart replays them.
        if log.1 != self.log.1 {
            return None;
        }
        self.known = known;
        self.log = log;
        Some(self)
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

/// Prepares the documents of a write on a thread of their own; `None` when the node is going down.
async fn ready(village: Village, limits: PrepareLimits, job: Job) -> Option<Ready> {
    let arrived = Instant::now();
    match job {
        Job::Delete { delete, reply } => Some(Ready::Delete { delete, reply }),
        Job::Put { documents, wait, permit, reply } => {
            let prepared = village.blocking("memory.prepare", move || {
                documents.into_iter().map(|document| guarded(document, limits)).collect()
            });
            if let Ok(documents) = prepared.await {
                Some(Ready::Put { documents, wait, permit: Arc::new(permit), reply, arrived })
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
    metrics: &MemoryMetrics,
) -> PutResult {
    let outcome = document.and_then(|document| {
        let id = document.id.clone();
        decision.put(document).map_err(|error| (id, error))
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
