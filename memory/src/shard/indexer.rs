//! The thread that keeps an index up with the journal: adds what is durable, commits every half second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::error::MemoryError;
use crate::journal::DocKey;
use crate::lexical::writer::Writer;
use crate::lexical::{IndexedDocument, Lexical};
use crate::metrics::MemoryMetrics;

/// Documents that may wait for the thread; beyond, those who hand over wait.
const QUEUE: usize = 1024;

/// What the index shall do; numbers are those of the journal's log.
#[derive(Debug)]
pub(crate) enum IndexOp {
    /// Hold this version of the document. The permit bounds what waits, and is given back once it is indexed.
    Put(u64, Box<IndexedDocument>, Option<Arc<OwnedSemaphorePermit>>),
    /// Hold it no longer.
    Delete(u64, DocKey),
    /// It has been handed everything up to here.
    Seen(u64),
    /// Make everything so far searchable now.
    Flush,
}

/// When the index commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitPolicy {
    pub(crate) every: Duration,
    pub(crate) chunks: u64,
}

/// A running index thread. It ends, with a last commit, when this is dropped.
#[derive(Debug)]
pub(crate) struct Indexer {
    ops: Option<SyncSender<IndexOp>>,
    searchable: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Takes the index for writing and starts the thread. `seq` is the journal entry the index goes up to.
    pub(crate) fn start(
        lexical: &Lexical,
        seq: u64,
        policy: CommitPolicy,
        metrics: Arc<MemoryMetrics>,
    ) -> Result<Self, MemoryError> {
        let writer = Writer::new(lexical)?;
        let (ops, inbox) = sync_channel(QUEUE);
        let (tell, searchable) = watch::channel(seq);
        let mut work = Work { writer, tell, policy, metrics, seq, chunks: 0, since: None };
        let thread = std::thread::Builder::new()
            .name("memory-index".to_owned())
            .spawn(move || {
                if let Err(error) = work.run(&inbox) {
                    tracing::error!(%error, "index thread ended");
                } else if let Err(error) = work.writer.close() {
                    tracing::warn!(%error, "a merge of index segments failed");
                }
            })
            .map_err(|error| MemoryError::Index { reason: error.to_string() })?;
        Ok(Self { ops: Some(ops), searchable, thread: Some(thread) })
    }

    /// Hands work over, waiting for room; false when the thread has ended. Blocking.
    pub(crate) fn send(&self, op: IndexOp) -> bool {
        self.ops.as_ref().is_some_and(|ops| ops.send(op).is_ok())
    }

    /// The log entry up to which writes are searchable.
    pub(crate) fn searchable(&self) -> watch::Receiver<u64> {
        self.searchable.clone()
    }

    /// Ends the thread and gives what to wait for; blocking.
    pub(crate) fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.ops = None;
        self.thread.take()
    }
}

struct Work {
    writer: Writer,
    tell: watch::Sender<u64>,
    policy: CommitPolicy,
    metrics: Arc<MemoryMetrics>,
    seq: u64,
    /// Chunks added since the last commit.
    chunks: u64,
    /// When the oldest uncommitted change came in.
    since: Option<Instant>,
}

impl Work {
    fn run(&mut self, inbox: &Receiver<IndexOp>) -> Result<(), MemoryError> {
        loop {
            let op = match self.since {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => inbox.recv_timeout(self.policy.every.saturating_sub(since.elapsed())),
            };
            match op {
                Ok(op) => self.take(op)?,
                Err(RecvTimeoutError::Timeout) => self.commit()?,
                Err(RecvTimeoutError::Disconnected) => return self.commit(),
            }
        }
    }

    fn take(&mut self, op: IndexOp) -> Result<(), MemoryError> {
        match op {
            IndexOp::Put(seq, document, permit) => {
                let chunks = self.writer.put(&document)?;
                self.chunks += chunks;
                self.metrics.chunks.inc_by(chunks);
                drop(permit);
                self.seen(seq);
            }
            IndexOp::Delete(seq, key) => {
                self.writer.delete(key);
                self.seen(seq);
            }
            IndexOp::Seen(seq) => self.seen(seq),
            IndexOp::Flush => return self.commit(),
        }
        if self.chunks >= self.policy.chunks { self.commit() } else { Ok(()) }
    }

    fn seen(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
        self.since.get_or_insert_with(Instant::now);
    }

    fn commit(&mut self) -> Result<(), MemoryError> {
        if self.since.take().is_some() {
            self.writer.commit(self.seq)?;
            self.chunks = 0;
            self.metrics.commits.inc();
            self.tell.send_replace(self.seq);
        }
        Ok(())
    }
}
