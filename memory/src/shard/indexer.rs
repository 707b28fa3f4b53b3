//! The thread that keeps an index up with the journal: adds what is durable, commits every half second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::error::MemoryError;
use crate::journal::{DocKey, Position};
use crate::lexical::IndexedDocument;
use crate::lexical::writer::Writer;
use crate::metrics::MemoryMetrics;

/// Documents that may wait for the thread; beyond, those who hand over wait.
const QUEUE: usize = 1024;

/// What the index shall do; positions are those of the journal's history.
#[derive(Debug)]
pub(crate) enum IndexOp {
    /// Hold this version of the document. The permit bounds what waits, and is given back once it is indexed.
    Put(Position, Box<IndexedDocument>, Option<Arc<OwnedSemaphorePermit>>),
    /// Hold it no longer.
    Delete(Position, DocKey),
    /// It has been handed everything up to here.
    Seen(Position),
    /// Go on with another index, which holds nothing yet.
    Renew(Box<Writer>),
    /// Make everything so far searchable now, and tell when it is.
    Flush(Option<Sender<()>>),
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
    /// Starts the thread. `at` is how far in the journal the index has come.
    pub(crate) fn start(
        writer: Writer,
        at: Position,
        policy: CommitPolicy,
        metrics: Arc<MemoryMetrics>,
    ) -> Result<Self, MemoryError> {
        let (ops, inbox) = sync_channel(QUEUE);
        let (tell, searchable) = watch::channel(at.seq);
        let mut work = Work { writer, tell, policy, metrics, at, chunks: 0, since: None };
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

    /// Waits until everything that was handed over is searchable; false when the thread has ended. Blocking.
    pub(crate) fn flush(&self) -> bool {
        let (done, flushed) = channel();
        self.send(IndexOp::Flush(Some(done))) && flushed.recv().is_ok()
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
    at: Position,
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
            IndexOp::Put(at, document, permit) => {
                let chunks = self.writer.put(&document)?;
                self.chunks += chunks;
                self.metrics.chunks.inc_by(chunks);
                drop(permit);
                self.seen(at);
            }
            IndexOp::Delete(at, key) => {
                self.writer.delete(key);
                self.seen(at);
            }
            IndexOp::Seen(at) => self.seen(at),
            IndexOp::Renew(writer) => {
                // Until its merges have ended the old one writes files.
                std::mem::replace(&mut self.writer, *writer).close()?;
                (self.at, self.chunks, self.since) = (Position::default(), 0, None);
            }
            IndexOp::Flush(done) => {
                self.commit()?;
                if let Some(done) = done {
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                return Ok(());
            }
        }
        if self.chunks >= self.policy.chunks { self.commit() } else { Ok(()) }
    }

    fn seen(&mut self, at: Position) {
        if at.seq > self.at.seq {
            self.at = at;
        }
        self.since.get_or_insert_with(Instant::now);
    }

    fn commit(&mut self) -> Result<(), MemoryError> {
        if self.since.take().is_some() {
            self.writer.commit(self.at)?;
            self.chunks = 0;
            self.metrics.commits.inc();
            // An index that is made anew begins before what was searchable already, in another one.
            self.tell.send_if_modified(|seen| std::mem::replace(seen, self.at.seq.max(*seen)) < self.at.seq);
        }
        Ok(())
    }
}
