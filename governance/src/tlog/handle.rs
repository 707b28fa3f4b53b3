//! The log for callers in the same process: a queue to the one thread that writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use aivillage_runtime::Reply;
use aivillage_runtime::config::{ConfigError, Period};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::entry::{Entry, Event};
use super::error::LogError;
use super::files::Files;
use super::hash::Hash;
use super::log::Log;
use super::metrics::TlogMetrics;
use super::note::{Note, SignatureLine, VerifierKey};
use super::proof::TlogProof;
use super::request::AddCheckpoint;
use super::writer::Writer;

/// Most entries that are read at once: a log of entries as long as they may be makes 64 MiB of them.
pub const MAX_READ: u64 = 1_000;

/// `[governance.tlog]` of `cluster.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlogConfig {
    /// Most entries that one sync makes safe.
    pub batch: usize,
    /// How long entries that nobody waits for are gathered. Whoever waits for the disk does not wait for this.
    pub gather: Period,
    /// How often a log that grew is signed.
    pub checkpoint: Period,
    /// Entries that may be under way; who comes later waits.
    pub queue: usize,
    /// Cosignatures that a checkpoint should have; a smaller cluster has fewer.
    pub witnesses: usize,
    /// Time between two bundles of entries that are read again in the background; zero reads none.
    pub reread: Period,
}

impl Default for TlogConfig {
    fn default() -> Self {
        Self {
            batch: 256,
            gather: Period::from_millis(5),
            checkpoint: Period::from_secs(1),
            queue: 8_192,
            witnesses: 2,
            reread: Period::from_millis(100),
        }
    }
}

impl TlogConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: &str| Err(ConfigError::invalid(format!("governance.tlog.{key}"), why));
        if self.batch == 0 {
            return wrong("batch", "must be at least 1");
        }
        if self.queue < self.batch {
            return wrong("queue", "must not be below governance.tlog.batch");
        }
        if self.checkpoint.get().is_zero() {
            return wrong("checkpoint", "must be above zero");
        }
        if self.gather > self.checkpoint {
            return wrong("gather", "must not be above governance.tlog.checkpoint");
        }
        Ok(())
    }

    /// How many witnesses a cluster of `nodes` asks for: no node is its own.
    #[must_use]
    pub fn quorum(&self, nodes: usize) -> usize {
        self.witnesses.min(nodes.saturating_sub(1))
    }
}

/// What an append waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// A place in the queue. A crash of the node may lose the entry; a full disk does not.
    Buffered,
    /// The disk.
    Durable,
    /// A checkpoint with cosignatures of so many witnesses.
    Witnessed(u8),
}

/// What an append gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which entry of the log it became; a buffered one does not know yet.
    pub index: Option<u64>,
    /// For a witnessed one, what convinces anybody.
    pub proof: Option<TlogProof>,
}

/// How the log is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogStatus {
    /// Entries that are safe.
    pub size: u64,
    /// The last checkpoint.
    pub checkpoint: Option<Arc<Note>>,
    /// Why nothing is taken at the moment, or ever again.
    pub refuses: Option<LogError>,
    /// Witnesses that may cosign.
    pub witnesses: Arc<[VerifierKey]>,
    /// How many have cosigned the last checkpoint.
    pub cosigned: usize,
    /// How many are wanted.
    pub wanted: usize,
}

/// The log's metrics, once there is a node that shows them.
pub(crate) type Meter = Arc<OnceLock<Arc<TlogMetrics>>>;

/// Where an answer goes. Dropped without one, it tells that the log has stopped.
#[derive(Debug)]
pub(crate) struct Done<T>(Option<To<T>>);

#[derive(Debug)]
enum To<T> {
    Here(oneshot::Sender<Result<T, LogError>>),
    Mail(Reply<T>),
}

impl<T> Done<T> {
    fn here() -> (Self, oneshot::Receiver<Result<T, LogError>>) {
        let (answer, heard) = oneshot::channel();
        (Self(Some(To::Here(answer))), heard)
    }

    pub(crate) fn send(mut self, answer: Result<T, LogError>) {
        self.put(answer);
    }

    fn put(&mut self, answer: Result<T, LogError>) {
        match self.0.take() {
            // Who stopped waiting does not miss the answer.
            Some(To::Here(to)) => drop(to.send(answer)),
            Some(To::Mail(reply)) => reply.complete(answer),
            None => {}
        }
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.0 {
            Some(To::Here(to)) => to.is_closed(),
            Some(To::Mail(reply)) => reply.is_closed(),
            None => true,
        }
    }
}

impl<T> From<Reply<T>> for Done<T> {
    fn from(reply: Reply<T>) -> Self {
        Self(Some(To::Mail(reply)))
    }
}

impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        self.put(Err(stopped()));
    }
}

fn stopped() -> LogError {
    LogError::Stopped { reason: "its thread has ended".to_owned() }
}

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Box<Append>),
    Prove(u64, u64, Done<Vec<Hash>>),
    Consistency(u64, u64, Done<Vec<Hash>>),
    Proof(u64, Done<TlogProof>),
    Tail(u64, u32, Done<Vec<Vec<u8>>>),
    /// How many entries there are.
    Size(Done<u64>),
    /// Signs now if the log grew.
    Sign(Done<Note>),
    /// The request for a witness that has this size.
    Request(u64, Done<AddCheckpoint>),
    Cosign(Vec<SignatureLine>, Done<u32>),
    Trust(Vec<VerifierKey>, Done<()>),
    /// The entries in full files and the root over them.
    Full(Done<(u64, Hash)>),
    /// Takes and signs nothing any more.
    Halt(LogError, Done<()>),
    /// Writes what is queued, signs, and ends.
    Close(Done<()>),
}

/// An entry to be appended.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) event: Box<Event>,
    pub(crate) ack: Ack,
    pub(crate) done: Done<Receipt>,
    /// Its place in the queue.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// A place in the queue, taken before the deed that is to be logged: to put the entry there takes no wait, so it can be done
/// wherever the deed ends, also where it is dropped half done.
#[derive(Debug)]
pub struct Place {
    log: LogHandle,
    permit: OwnedSemaphorePermit,
}

impl Place {
    /// Appends an entry, as with [`Ack::Buffered`].
    ///
    /// # Errors
    /// As [`LogHandle::append`].
    pub fn append(self, event: Event) -> Result<(), LogError> {
        self.log.accept(&event)?;
        let event = Box::new(event);
        let append = Append { event, ack: Ack::Buffered, done: Done(None), _place: self.permit };
        self.log.commands.send(Command::Append(Box::new(append))).map_err(|_| stopped())
    }
}

/// Some entries in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// Number of the first.
    pub from: u64,
    /// Their bytes: canonical JSON.
    pub entries: Vec<Vec<u8>>,
    /// Entries that the log has.
    pub size: u64,
}

/// Appends to the log of this node. Clones are the same log; when the last one is gone, what is queued is written.
#[derive(Debug, Clone)]
pub struct LogHandle {
    commands: mpsc::Sender<Command>,
    places: Arc<Semaphore>,
    status: watch::Receiver<LogStatus>,
    node: Arc<str>,
    key: VerifierKey,
    /// Whether somebody looks after cosignatures.
    collecting: Arc<AtomicBool>,
    metrics: Meter,
}

impl LogHandle {
    /// Starts the thread that writes `log`. `node` is what entries name as their origin, `clock` gives Unix milliseconds.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start<F: Files>(log: Log<F>, node: &str, config: TlogConfig, clock: fn() -> u64) -> Result<Self, LogError> {
        let (commands, received) = mpsc::channel();
        let (publish, status) = watch::channel(LogStatus::default());
        let key = log.key().clone();
        let metrics = Meter::default();
        let writer = Writer::new(log, node, config, clock, publish, Arc::clone(&metrics));
        let thread = std::thread::Builder::new().name("tlog".to_owned()).spawn(move || writer.run(&received));
        thread.map_err(|e| LogError::io("start a thread for", "pending", &e))?;
        let places = Arc::new(Semaphore::new(config.queue.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { commands, places, status, node: node.into(), key, collecting: Arc::default(), metrics })
    }

    pub(crate) fn begin_collecting(&self) -> bool {
        !self.collecting.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn end_collecting(&self) {
        self.collecting.store(false, Ordering::Relaxed);
    }

    /// The key that signs the checkpoints.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// How the log is now.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        self.status.borrow().clone()
    }

    /// Tells each change of the log's status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LogStatus> {
        self.status.clone()
    }

    /// Appends an entry and waits for what `ack` says, and before that for a place in the queue. A caller that must not act
    /// unlogged refuses on any error.
    ///
    /// # Errors
    /// [`LogError::BadEntry`], [`LogError::TooLarge`], [`LogError::Full`]: it is not appended. [`LogError::TooFewWitnesses`]
    /// likewise. [`LogError::Stopped`] and [`LogError::Io`]: whether it is, the next start knows.
    ///
    /// # Cancel safety
    /// Dropped while it waits for a place, nothing is appended; later the entry is, and the receipt is lost.
    pub async fn append(&self, event: Event, ack: Ack) -> Result<Receipt, LogError> {
        let (done, heard) = Done::here();
        self.submit(Box::new(event), ack, done).await;
        heard.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Takes a place in the queue, once there is one.
    ///
    /// # Errors
    /// Why the log takes nothing: do not begin what must not go unlogged.
    pub async fn reserve(&self) -> Result<Place, LogError> {
        self.accepts()?;
        let permit = self.places.clone().acquire_owned().await.map_err(|_| stopped())?;
        // It may have stopped while this waited.
        self.accepts()?;
        Ok(Place { log: self.clone(), permit })
    }

    /// Why nothing is taken now, if nothing is.
    #[must_use]
    pub fn refuses(&self) -> Option<LogError> {
        self.status.borrow().refuses.clone()
    }

    fn accepts(&self) -> Result<(), LogError> {
        self.refuses().map_or(Ok(()), Err)
    }

    /// As `append`; waits for a place in the queue only, and the answer goes to `done`.
    pub(crate) async fn submit(&self, event: Box<Event>, ack: Ack, done: Done<Receipt>) {
        let Ok(place) = self.places.clone().acquire_owned().await else { return };
        if let Err(error) = self.accept(&event) {
            return done.send(Err(error));
        }
        let is_buffered = ack == Ack::Buffered;
        let (told, done) = if is_buffered { (Some(done), Done(None)) } else { (None, done) };
        // A queue that is closed drops the answer's port, which tells so.
        let append = Append { event, ack, done, _place: place };
        let sent = self.commands.send(Command::Append(Box::new(append)));
        if let Some(told) = told {
            told.send(sent.map(|()| Receipt { index: None, proof: None }).map_err(|_| stopped()));
        }
    }

    /// Refuses at once what could not be written later.
    fn accept(&self, event: &Event) -> Result<(), LogError> {
        self.accepts()?;
        // The largest numbers: whatever place it gets, it will not be longer.
        let longest = Entry::new(Event::clone(event), &self.node, 1 << 53, 1 << 53);
        longest.to_bytes().map(drop).map_err(LogError::from)
    }

    async fn ask<T>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, LogError> {
        let (done, heard) = Done::here();
        self.tell(command(done));
        heard.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Sends a command; if there is nobody to take it, its answer says so.
    pub(crate) fn tell(&self, command: Command) {
        drop(self.commands.send(command));
    }

    /// Proves that entry `index` is in the tree of `size` entries.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`], [`LogError::Damaged`], [`LogError::Stopped`].
    pub async fn prove(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        self.ask(|done| Command::Prove(index, size, done)).await
    }

    /// Proves that the tree of `size` entries begins with the tree of `old` entries.
    ///
    /// # Errors
    /// As [`LogHandle::prove`].
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        self.ask(|done| Command::Consistency(old, size, done)).await
    }

    /// The proof file of an entry under the last checkpoint.
    ///
    /// # Errors
    /// As [`LogHandle::prove`].
    pub async fn proof(&self, index: u64) -> Result<TlogProof, LogError> {
        self.ask(|done| Command::Proof(index, done)).await
    }

    /// Entries from `from` on, at most `limit` and at most 256.
    ///
    /// # Errors
    /// As [`LogHandle::prove`].
    pub async fn tail(&self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, LogError> {
        self.ask(|done| Command::Tail(from, limit, done)).await
    }

    /// Up to `limit` entries, at most [`MAX_READ`]: from `from` on, or the newest. What was appended before is among them.
    ///
    /// # Errors
    /// As [`LogHandle::prove`].
    pub async fn entries(&self, from: Option<u64>, limit: u64) -> Result<Entries, LogError> {
        // Comes behind what is queued, which is counted then.
        let size = self.ask(Command::Size).await?;
        let limit = limit.min(MAX_READ);
        let from = from.unwrap_or(size.saturating_sub(limit));
        if from > size {
            return Err(LogError::OutOfRange { asked: from, size });
        }
        let end = size.min(from.saturating_add(limit));
        let (mut entries, mut next) = (Vec::new(), from);
        while next < end {
            let read = self.tail(next, u32::try_from(end - next).unwrap_or(u32::MAX)).await?;
            if read.is_empty() {
                break;
            }
            next += read.len() as u64;
            entries.extend(read);
        }
        Ok(Entries { from, entries, size })
    }

    /// A checkpoint of all that is safe now; signs one if the last is older.
    ///
    /// # Errors
    /// [`LogError::Fork`], [`LogError::Full`], [`LogError::Io`], [`LogError::Stopped`].
    pub async fn checkpoint(&self) -> Result<Note, LogError> {
        self.ask(Command::Sign).await
    }

    /// What to ask of a witness whose latest checkpoint of this log has `old` entries.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when the last checkpoint has fewer; else as [`LogHandle::prove`].
    pub async fn request(&self, old: u64) -> Result<AddCheckpoint, LogError> {
        self.ask(|done| Command::Request(old, done)).await
    }

    /// Adds cosignatures to the last checkpoint and answers appends that waited for them. Gives how many witnesses cosigned it.
    ///
    /// # Errors
    /// [`LogError::BadCosignature`], [`LogError::Full`], [`LogError::Io`], [`LogError::Stopped`].
    pub async fn cosign(&self, lines: Vec<SignatureLine>) -> Result<u32, LogError> {
        self.ask(|done| Command::Cosign(lines, done)).await
    }

    /// Sets the witnesses whose cosignatures count.
    ///
    /// # Errors
    /// [`LogError::Stopped`].
    pub async fn trust(&self, witnesses: Vec<VerifierKey>) -> Result<(), LogError> {
        self.ask(|done| Command::Trust(witnesses, done)).await
    }

    /// The entries in full files, and the root over them.
    pub(crate) async fn full(&self) -> Result<(u64, Hash), LogError> {
        self.ask(Command::Full).await
    }

    /// Ends the log for a reason that was found outside of it: it takes and signs nothing any more, and is read as before.
    pub(crate) async fn halt(&self, why: LogError) -> Result<(), LogError> {
        self.ask(|done| Command::Halt(why, done)).await
    }

    /// Feeds the metrics from now on.
    pub(crate) fn measure(&self, metrics: Arc<TlogMetrics>) {
        metrics.show(&self.status.borrow());
        // Another activation measures the same log by the same handles.
        let _ = self.metrics.set(metrics);
    }

    pub(crate) fn metrics(&self) -> Option<&TlogMetrics> {
        self.metrics.get().map(Arc::as_ref)
    }

    /// Writes what is queued, signs it, and ends the thread. Appends fail from then on.
    ///
    /// # Errors
    /// What the last write or signature failed with.
    pub async fn close(&self) -> Result<(), LogError> {
        self.ask(Command::Close).await
    }
}

#[cfg(test)]
mod tests;
