//! The thread that writes: it takes what is queued, makes it safe with one sync, and answers.
//!
//! While a sync is under way the queue fills, so the next one covers more: who waits for the disk waits for no timer. Only
//! entries that nobody waits for are gathered for a moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::entry::{Entry, Event};
use super::error::LogError;
use super::files::Files;
use super::handle::{Ack, Append, Command, Done, LogStatus, Meter, Receipt, TlogConfig};
use super::log::Log;
use super::note::Note;
use super::request::AddCheckpoint;

/// So many times the time between checkpoints a new one waits for cosignatures of the last.
const PATIENCE: u32 = 5;
/// Least time between two looks at what is to be signed.
const LEAST: Duration = Duration::from_millis(1);

/// The writing thread's state.
pub(crate) struct Writer<F: Files> {
    log: Log<F>,
    node: String,
    config: TlogConfig,
    clock: fn() -> u64,
    status: Publish,
    metrics: Meter,
    /// Buffered entries that found the disk full; they keep their places in the queue.
    held: Vec<Append>,
    /// Safe entries that wait for witnesses.
    waiting: VecDeque<Waiting>,
    ticked_at: Instant,
    signed_at: Instant,
}

struct Waiting {
    index: u64,
    witnesses: usize,
    append: Append,
}

/// Tells the status; at the end of the thread, however it ends, that the log has stopped.
struct Publish(watch::Sender<LogStatus>);

impl Drop for Publish {
    fn drop(&mut self) {
        let reason = "its thread has ended".to_owned();
        self.0.send_modify(|status| _ = status.refuses.get_or_insert(LogError::Stopped { reason }));
    }
}

impl<F: Files> Writer<F> {
    pub(crate) fn new(
        log: Log<F>,
        node: &str,
        config: TlogConfig,
        clock: fn() -> u64,
        status: watch::Sender<LogStatus>,
        metrics: Meter,
    ) -> Self {
        let mut writer = Self {
            log,
            node: node.to_owned(),
            config,
            clock,
            status: Publish(status),
            metrics,
            held: Vec::new(),
            waiting: VecDeque::new(),
            ticked_at: Instant::now(),
            signed_at: Instant::now(),
        };
        writer.publish(None);
        writer
    }

    /// Serves until all handles are gone or one closes the log.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let mut batch = std::mem::take(&mut self.held);
            let next = self.gather(commands, &mut batch);
            self.commit(batch);
            match next {
                Next::Command(Command::Close(done)) => return self.close(Some(done)),
                Next::Ended => return self.close(None),
                Next::Command(command) => self.serve(command),
                Next::Nothing => {}
            }
            self.tick();
        }
    }

    /// Takes appends until a batch is full, the queue is empty and somebody waits, or something else comes.
    fn gather(&self, commands: &Receiver<Command>, batch: &mut Vec<Append>) -> Next {
        let mut until = Instant::now() + self.until_tick();
        while batch.len() < self.config.batch.max(1) {
            let is_awaited = batch.iter().any(|append| append.ack != Ack::Buffered);
            let wait = if is_awaited { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            match commands.recv_timeout(wait) {
                Ok(Command::Append(append)) => {
                    if batch.is_empty() {
                        until = until.min(Instant::now() + self.config.gather.get());
                    }
                    batch.push(*append);
                }
                Ok(command) => return Next::Command(command),
                Err(RecvTimeoutError::Timeout) => return Next::Nothing,
                Err(RecvTimeoutError::Disconnected) => return Next::Ended,
            }
        }
        Next::Nothing
    }

    fn until_tick(&self) -> Duration {
        self.config.checkpoint.get().max(LEAST).saturating_sub(self.ticked_at.elapsed())
    }

    /// Makes a batch safe and answers those who wait for that.
    fn commit(&mut self, batch: Vec<Append>) {
        let (mut taken, mut entries) = (Vec::new(), Vec::new());
        let (first, now) = (self.log.size(), (self.clock)());
        for append in batch {
            match self.encode(&append, first + entries.len() as u64, now) {
                Ok(bytes) => {
                    entries.push(bytes);
                    taken.push(append);
                }
                Err(error) => append.done.send(Err(error)),
            }
        }
        if entries.is_empty() {
            return;
        }
        let began = Instant::now();
        match self.log.append(&entries) {
            Ok(first) => {
                if let Some(metrics) = self.metrics.get() {
                    metrics.appended(began.elapsed());
                }
                (first..).zip(taken).for_each(|(index, append)| self.settle(index, append));
                self.publish(None);
            }
            Err(error) => self.refuse(taken, &error),
        }
    }

    fn encode(&self, append: &Append, seq: u64, now: u64) -> Result<Bytes, LogError> {
        if let Ack::Witnessed(wanted) = append.ack {
            let (wanted, have) = (usize::from(wanted), self.log.witnesses().len());
            if wanted > have {
                return Err(LogError::TooFewWitnesses { wanted, have });
            }
        }
        Ok(Entry::new(Event::clone(&append.event), &self.node, seq, now).to_bytes()?.into())
    }

    fn settle(&mut self, index: u64, append: Append) {
        match append.ack {
            Ack::Witnessed(witnesses) => {
                self.waiting.push_back(Waiting { index, witnesses: usize::from(witnesses), append });
            }
            Ack::Durable | Ack::Buffered => append.done.send(Ok(Receipt { index: Some(index), proof: None })),
        }
    }

    /// Nothing of a batch was written. What was promised a place keeps it while there is hope.
    fn refuse(&mut self, batch: Vec<Append>, error: &LogError) {
        tracing::error!(%error, "the transparency log takes nothing");
        // Before the answers: who hears one finds the log refusing.
        self.publish(Some(error.clone()));
        let is_full = matches!(error, LogError::Full { .. });
        for append in batch {
            if is_full && append.ack == Ack::Buffered {
                self.held.push(append);
            } else {
                append.done.send(Err(error.clone()));
            }
        }
    }

    fn publish(&mut self, refuses: Option<LogError>) {
        let (log, waiting) = (&self.log, &self.waiting);
        let longest = waiting.iter().map(|waiting| waiting.witnesses).max().unwrap_or(0);
        let wanted = self.config.witnesses.min(log.witnesses().len()).max(longest);
        self.status.0.send_if_modified(|status| {
            let before = status.clone();
            if status.checkpoint.as_deref() != log.checkpoint() {
                status.checkpoint = log.checkpoint().cloned().map(Arc::new);
                status.cosigned = log.cosigned();
            }
            if *status.witnesses != *log.witnesses() {
                status.witnesses = log.witnesses().into();
                status.cosigned = log.cosigned();
            }
            (status.size, status.refuses, status.wanted) = (log.size(), refuses, wanted);
            *status != before
        });
        if let Some(metrics) = self.metrics.get() {
            metrics.show(&self.status.0.borrow());
        }
    }

    fn serve(&mut self, command: Command) {
        match command {
            Command::Prove(index, size, done) => done.send(self.log.prove(index, size)),
            Command::Consistency(old, size, done) => done.send(self.log.consistency(old, size)),
            Command::Proof(index, done) => done.send(self.log.proof(index)),
            Command::Tail(from, limit, done) => {
                let entries = self.log.read(from, usize::try_from(limit).unwrap_or(usize::MAX));
                done.send(entries.map(|entries| entries.into_iter().map(Vec::from).collect()));
            }
            Command::Size(done) => done.send(Ok(self.log.size())),
            Command::Sign(done) => done.send(self.sign()),
            Command::Request(old, done) => done.send(self.request(old)),
            Command::Cosign(lines, done) => {
                let cosigned = self.log.add_cosignatures(&lines);
                self.answer_witnessed();
                self.publish_same();
                done.send(cosigned.map(|count| u32::try_from(count).unwrap_or(u32::MAX)));
            }
            Command::Trust(keys, done) => {
                self.log.set_witnesses(keys);
                self.publish_same();
                done.send(Ok(()));
            }
            Command::Full(done) => done.send(self.log.full()),
            Command::Halt(why, done) => {
                self.log.halt(&why);
                self.publish(Some(LogError::Stopped { reason: why.to_string() }));
                done.send(Ok(()));
            }
            // Taken out of the queue before.
            Command::Append(append) => self.commit(vec![*append]),
            Command::Close(done) => drop(done),
        }
    }

    fn request(&self, old: u64) -> Result<AddCheckpoint, LogError> {
        let size = self.log.checkpoint_size();
        let note = self.log.checkpoint().cloned().ok_or(LogError::OutOfRange { asked: old, size })?;
        Ok(AddCheckpoint { old, proof: self.log.consistency(old, size)?, note })
    }

    fn sign(&mut self) -> Result<Note, LogError> {
        (self.ticked_at, self.signed_at) = (Instant::now(), Instant::now());
        let signed = self.log.sign();
        match &signed {
            Ok(_) => {
                self.answer_witnessed();
                // A log that could not write does not sign either; what it holds back it tries again first.
                if self.held.is_empty() { self.publish(None) } else { self.publish_same() }
            }
            Err(error) => {
                tracing::error!(%error, "the transparency log is not signed");
                self.publish(Some(error.clone()));
            }
        }
        signed
    }

    /// Publishes what changed besides whether anything is taken.
    fn publish_same(&mut self) {
        let refuses = self.status.0.borrow().refuses.clone();
        self.publish(refuses);
    }

    /// Signs what grew when it is time, at once if somebody waits for witnesses.
    fn tick(&mut self) {
        self.waiting.retain(|waiting| !waiting.append.done.is_closed());
        let (is_due, covered) = (self.until_tick().is_zero(), self.log.checkpoint_size());
        let is_awaited = self.waiting.back().is_some_and(|last| last.index >= covered);
        if self.log.size() > covered && (is_due || is_awaited) && !self.is_being_cosigned() {
            // A failure is told by the status, and tried again at the next tick.
            let _ = self.sign();
        } else if is_due {
            self.ticked_at = Instant::now();
            self.recover_space();
        }
    }

    /// Cosignatures of the last checkpoint are waited for and may still come: a new one would make them worthless.
    fn is_being_cosigned(&self) -> bool {
        let is_waited_for = self.waiting.front().is_some_and(|first| first.index < self.log.checkpoint_size());
        let patience = self.config.checkpoint.get().saturating_mul(PATIENCE);
        is_waited_for && self.signed_at.elapsed() < patience
    }

    /// Takes appends again after the disk was full: the next one tells whether it still is.
    fn recover_space(&mut self) {
        let is_full = matches!(self.status.0.borrow().refuses, Some(LogError::Full { .. }));
        if is_full && self.held.is_empty() {
            self.publish(None);
        }
    }

    /// Answers those whose entry is under a checkpoint with enough cosignatures.
    fn answer_witnessed(&mut self) {
        let (size, cosigned) = (self.log.checkpoint_size(), self.log.cosigned());
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.index < size && waiting.witnesses <= cosigned {
                let proof = self.log.proof(waiting.index);
                let receipt = proof.map(|proof| Receipt { index: Some(waiting.index), proof: Some(proof) });
                waiting.append.done.send(receipt);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    fn close(mut self, done: Option<Done<()>>) {
        let held = std::mem::take(&mut self.held);
        self.commit(held);
        let signed = if self.log.size() > 0 { self.sign().map(drop) } else { Ok(()) };
        // Before the answer: who hears it finds the log closed.
        self.publish(Some(LogError::Stopped { reason: "it was closed".to_owned() }));
        // The folder is free for another process, or this one, once it is answered.
        drop(self.log);
        if let Some(done) = done {
            done.send(signed);
        }
    }
}

/// What ended the gathering of a batch.
enum Next {
    Command(Command),
    Nothing,
    /// All handles are gone.
    Ended,
}
