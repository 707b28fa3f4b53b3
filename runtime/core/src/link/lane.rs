//! A lane: the one stream of records to a peer, over which all mail goes.
//!
//! Writing: a sender appends its record to the lane's buffer and wakes the writer unless it is awake already; the writer
//! takes the whole buffer and writes it at once. So a lone message leaves without delay, and many leave together.
//! Reading: one task decodes in place and hands each mail to [`Dispatch`], which never waits; so order holds.
//!
//! What has not been written yet is bounded by [`ROOM`]: beyond it senders of mail wait, and beyond [`WAITERS`] of them get
//! `Overloaded`. Answers and the node's own services do not wait there, so a full lane never blocks an answer or a beat.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use super::record::{self, BadRecord, Envelope, Hello, MAX_BODY, MailRecord, PART, Record, To};
use crate::error::{CallError, Failure};
use crate::node_id::NodeId;

/// Bytes of mail that may wait to be written.
const ROOM: usize = 1 << 20;
/// Senders that may wait for room.
const WAITERS: usize = 8192;
/// Answers and node services may pile up to this much before a peer that does not read is given up.
const BACKLOG: usize = 2 * MAX_BODY;
/// Bodies that may be under way in parts from one peer at once.
const PARTIAL: usize = 64;
/// Cancelled asks that are remembered until their handlers look.
const CANCELLED: usize = 4096;
/// Bytes read at once.
const READ: usize = 64 << 10;
/// A peer says hello within this time.
const GREETING: Duration = Duration::from_secs(5);

/// Takes what arrives. It runs on the lane's reading task and must not wait.
pub(crate) trait Dispatch: Send + Sync + 'static {
    /// A mail; `body` has all its parts. An ask has a port for its answer.
    fn mail(&self, from: NodeId, mail: &MailRecord<'_>, body: Body<'_>, port: Option<LanePort>);
    /// The peer had no room for a tell to this actor.
    fn shed(&self, from: NodeId, kind: u32, key: &str, retry_after: Duration);
}

/// A body as it came.
pub(crate) enum Body<'a> {
    /// Still in the reader's buffer.
    Here(&'a [u8]),
    /// Put together from its parts.
    Whole(Bytes),
}

impl Body<'_> {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Here(bytes) => Bytes::copy_from_slice(bytes),
            Self::Whole(bytes) => bytes,
        }
    }
}

impl std::ops::Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::Whole(bytes) => bytes,
        }
    }
}

/// The writing side of a lane, shared by all who send.
pub(crate) struct Lane {
    peer: NodeId,
    incarnation: u64,
    out: Mutex<Out>,
    wake: Notify,
    room: Semaphore,
    waiting: AtomicUsize,
    asks: Mutex<Asks>,
    next_part: AtomicU64,
    closed: AtomicBool,
    gone: Notify,
    /// Asks of the peer that it no longer waits for.
    cancelled: Mutex<VecDeque<u64>>,
    cancels: Notify,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({})", self.peer)
    }
}

#[derive(Default)]
struct Out {
    buffer: Vec<u8>,
    /// Position of the buffer's first byte in all that was ever appended.
    base: u64,
    /// How much of it has to be given back to `room` once it is written.
    charged: usize,
    /// The writer is awake.
    scheduled: bool,
}

#[derive(Default)]
struct Asks {
    pending: Slab<Pending>,
    generation: u32,
}

struct Pending {
    generation: u32,
    /// Where its record begins in all that was ever appended; unset while it is being written.
    at: u64,
    answer: oneshot::Sender<Result<Bytes, Failure>>,
}

/// The two halves of an opened lane that have to be run.
pub(crate) struct Tasks<R, W> {
    lane: Arc<Lane>,
    read: R,
    write: W,
    buffer: BytesMut,
}

/// Says hello on a fresh stream and hears who is there.
pub(crate) async fn open<R, W>(
    (mut read, mut write): (R, W),
    own: Hello,
    peer: NodeId,
) -> io::Result<(Arc<Lane>, Tasks<R, W>)>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let greeting = async {
        let mut hello = Vec::new();
        record::write_hello(&mut hello, &own);
        write.write_all(&hello).await?;
        write.flush().await?;
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            let found = match record::read(&buffer).map_err(invalid)? {
                Some((Record::Hello(hello), used)) => Some((hello, used)),
                Some(_) => return Err(invalid(BadRecord("no hello"))),
                None => None,
            };
            if let Some((hello, used)) = found {
                buffer.advance(used);
                return Ok((hello, buffer));
            }
            if read.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let (hello, buffer) = tokio::time::timeout(GREETING, greeting).await??;
    if hello.proto != own.proto {
        return Err(invalid(BadRecord("another protocol version")));
    }
    if hello.cluster != own.cluster || hello.node != peer.0 {
        return Err(invalid(BadRecord("not who its key says")));
    }
    let lane = Arc::new(Lane::new(peer, hello.incarnation));
    Ok((lane.clone(), Tasks { lane, read, write, buffer }))
}

fn invalid(error: BadRecord) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Lane {
    fn new(peer: NodeId, incarnation: u64) -> Self {
        Self {
            peer,
            incarnation,
            out: Mutex::default(),
            wake: Notify::new(),
            room: Semaphore::new(ROOM),
            waiting: AtomicUsize::new(0),
            asks: Mutex::default(),
            next_part: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            gone: Notify::new(),
            cancelled: Mutex::default(),
            cancels: Notify::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// Who is at the other end; its TLS key says so.
    pub(crate) fn peer(&self) -> NodeId {
        self.peer
    }

    /// Which start of the peer this is.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Completes when the lane has closed. Cancel safe.
    pub(crate) async fn closed(&self) {
        let gone = self.gone.notified();
        tokio::pin!(gone);
        gone.as_mut().enable();
        if !self.is_closed() {
            gone.await;
        }
    }

    /// Closes the lane: every ask that waits for an answer ends.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.room.close();
        self.wake.notify_one();
        self.gone.notify_waiters();
        self.cancels.notify_waiters();
        // Under the lock of `out` no ask is between its entry and its record.
        let written = self.out.lock().base;
        let pending: Vec<_> = self.asks.lock().pending.drain().collect();
        for ask in pending {
            let _ = ask.answer.send(Err(CallError::Unreachable { node: self.peer, sent: ask.at < written }.into()));
        }
    }

    /// Sends a mail that has no answer; resolves when it stands in the buffer.
    pub(crate) async fn tell(&self, to: &To<'_>, envelope: &Envelope, body: &[u8]) -> Result<(), CallError> {
        let (parts, rest) = self.send_parts(to, envelope, body).await?;
        self.append(to, rest.len(), |out| record::write_mail(out, None, to, (envelope, Instant::now()), (parts, rest)))
            .map(drop)
    }

    /// As [`Self::tell`] if that need not wait; false if it has to, or the lane has closed.
    pub(crate) fn try_tell(&self, to: &To<'_>, envelope: &Envelope, body: &[u8]) -> bool {
        let Ok(len) = u32::try_from(body.len()) else { return false };
        if body.len() > PART {
            return false;
        }
        let Ok(room) = self.room.try_acquire_many(len) else { return false };
        room.forget();
        let at = self.append(to, body.len(), |out| {
            record::write_mail(out, None, to, (envelope, Instant::now()), (None, body));
        });
        at.is_ok()
    }

    /// Sends a mail and waits for its answer, without a limit of its own.
    ///
    /// # Cancel safety
    /// Dropped, it tells the peer that nobody waits.
    pub(crate) async fn ask(&self, to: &To<'_>, envelope: &Envelope, body: &[u8]) -> Result<Bytes, Failure> {
        let (parts, rest) = self.send_parts(to, envelope, body).await?;
        let (answer, answered) = oneshot::channel();
        let corr = {
            let mut asks = self.asks.lock();
            asks.generation = asks.generation.wrapping_add(1);
            let generation = asks.generation;
            let index = asks.pending.insert(Pending { generation, at: u64::MAX, answer });
            u64::from(generation) << 32 | index as u64
        };
        let mut waiting = Waiting { lane: self, corr, sent: false };
        let at = self.append(to, rest.len(), |out| {
            record::write_mail(out, Some(corr), to, (envelope, Instant::now()), (parts, rest));
        })?;
        waiting.sent = true;
        self.placed(corr, at);
        let result = answered.await;
        waiting.sent = false;
        result.unwrap_or(Err(CallError::Unreachable { node: self.peer, sent: true }.into()))
    }

    /// Notes where the record of an ask stands, and ends it if the lane closed meanwhile.
    fn placed(&self, corr: u64, at: u64) {
        if let Some(ask) = self.asks.lock().get(corr) {
            ask.at = at;
        }
        if self.is_closed()
            && let Some(ask) = self.asks.lock().take(corr)
        {
            let sent = at < self.out.lock().base;
            let _ = ask.answer.send(Err(CallError::Unreachable { node: self.peer, sent }.into()));
        }
    }

    /// Waits for room for the last piece of a body, and sends the pieces before it.
    async fn send_parts<'b>(
        &self,
        to: &To<'_>,
        envelope: &Envelope,
        body: &'b [u8],
    ) -> Result<(Option<u64>, &'b [u8]), CallError> {
        if body.len() > MAX_BODY {
            return Err(CallError::TooLarge { max: MAX_BODY as u64 });
        }
        let (mut parts, mut rest) = (Unfinished { lane: self, id: None }, body);
        while rest.len() > PART {
            let id = *parts.id.get_or_insert_with(|| self.next_part.fetch_add(1, Ordering::Relaxed));
            let (piece, left) = rest.split_at(PART);
            self.wait_for_room(to, envelope, PART).await?;
            self.append(to, PART, |out| record::write_part(out, id, piece))?;
            rest = left;
        }
        self.wait_for_room(to, envelope, rest.len()).await?;
        Ok((parts.id.take(), rest))
    }

    async fn wait_for_room(&self, to: &To<'_>, envelope: &Envelope, len: usize) -> Result<(), CallError> {
        if to.node {
            return Ok(());
        }
        let permits = u32::try_from(len).expect("at most PART");
        if let Ok(room) = self.room.try_acquire_many(permits) {
            room.forget();
            return Ok(());
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITERS {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(CallError::Overloaded { retry_after_ms: 50 });
        }
        let _leave = Leave(&self.waiting);
        let room = self.room.acquire_many(permits);
        let room = match envelope.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, room).await.map_err(|_| CallError::Expired)?,
            None => room.await,
        };
        room.map_err(|_| CallError::Unreachable { node: self.peer, sent: false })?.forget();
        Ok(())
    }

    /// Appends a record and wakes the writer. Says where the record begins.
    fn append(&self, to: &To<'_>, charge: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<u64, CallError> {
        let mut out = self.out.lock();
        if self.is_closed() {
            return Err(CallError::Unreachable { node: self.peer, sent: false });
        }
        let at = out.base + out.buffer.len() as u64;
        write(&mut out.buffer);
        if !to.node {
            out.charged += charge;
        }
        self.schedule(out);
        Ok(at)
    }

    /// Appends what must never wait. A peer that reads nothing of it for long is given up.
    fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = self.out.lock();
        if self.is_closed() {
            return;
        }
        write(&mut out.buffer);
        if out.buffer.len() > BACKLOG {
            drop(out);
            tracing::warn!(peer = %self.peer, "peer reads nothing, link closed");
            return self.close();
        }
        self.schedule(out);
    }

    fn schedule(&self, mut out: parking_lot::MutexGuard<'_, Out>) {
        if !out.scheduled {
            out.scheduled = true;
            drop(out);
            self.wake.notify_one();
        }
    }

    /// Takes all that is to be written; how much of it was charged. `None` when the lane has closed.
    async fn take(&self, into: &mut Vec<u8>) -> Option<usize> {
        loop {
            {
                let mut out = self.out.lock();
                if self.is_closed() {
                    return None;
                }
                if !out.buffer.is_empty() {
                    std::mem::swap(into, &mut out.buffer);
                    out.base += into.len() as u64;
                    return Some(std::mem::take(&mut out.charged));
                }
                out.scheduled = false;
            }
            self.wake.notified().await;
        }
    }

    /// Asks whether anybody is there; any answer counts in `bytes_in`.
    pub(crate) fn ping(&self) {
        self.push(record::write_ping);
    }

    /// Tells the sender of a tell that its mailbox was full.
    pub(crate) fn shed(&self, kind: u32, key: &str, retry_after_ms: u32) {
        self.push(|out| record::write_shed(out, kind, retry_after_ms, key));
    }

    fn answer(&self, corr: u64, result: Result<&[u8], Failure>) {
        match result {
            Ok(body) if body.len() <= PART => self.push(|out| record::write_reply(out, corr, None, body)),
            Ok(body) if body.len() <= MAX_BODY => {
                let id = self.next_part.fetch_add(1, Ordering::Relaxed);
                let last = body.len() - body.len() % PART;
                for piece in body[..last].chunks(PART) {
                    self.push(|out| record::write_part(out, id, piece));
                }
                self.push(|out| record::write_reply(out, corr, Some(id), &body[last..]));
            }
            Ok(_) => {
                let failure = Failure::by_handler(CallError::TooLarge { max: MAX_BODY as u64 });
                self.push(|out| record::write_fail(out, corr, &failure));
            }
            Err(failure) => self.push(|out| record::write_fail(out, corr, &failure)),
        }
    }

    fn answered(&self, corr: u64, result: Result<Bytes, Failure>) {
        // Nobody waits for an answer that is not there any more.
        if let Some(ask) = self.asks.lock().take(corr) {
            let _ = ask.answer.send(result);
        }
    }

    fn cancelled(&self, corr: u64) {
        let mut cancelled = self.cancelled.lock();
        if cancelled.len() == CANCELLED {
            cancelled.pop_front();
        }
        cancelled.push_back(corr);
        drop(cancelled);
        self.cancels.notify_waiters();
    }
}

impl Asks {
    fn get(&mut self, corr: u64) -> Option<&mut Pending> {
        let (generation, index) = split(corr);
        self.pending.get_mut(index).filter(|ask| ask.generation == generation)
    }

    fn take(&mut self, corr: u64) -> Option<Pending> {
        let (_, index) = split(corr);
        self.get(corr)?;
        self.pending.try_remove(index)
    }
}

fn split(corr: u64) -> (u32, usize) {
    let generation = u32::try_from(corr >> 32).unwrap_or(u32::MAX);
    (generation, usize::try_from(corr & u64::from(u32::MAX)).unwrap_or(usize::MAX))
}

/// Pieces whose end has not been sent; dropped, it takes them back.
struct Unfinished<'a> {
    lane: &'a Lane,
    id: Option<u64>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.lane.push(|out| record::write_part(out, id, &[]));
        }
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An ask in flight; dropped before its answer, it cancels.
struct Waiting<'a> {
    lane: &'a Lane,
    corr: u64,
    sent: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = self.lane.asks.lock().take(self.corr).is_some();
        if waited && self.sent {
            self.lane.push(|out| record::write_cancel(out, self.corr));
        }
    }
}

/// Where the answer to an ask of the peer goes.
#[derive(Debug)]
pub(crate) struct LanePort {
    lane: Arc<Lane>,
    corr: u64,
}

impl LanePort {
    pub(crate) fn complete(self, result: Result<&[u8], Failure>) {
        self.forget();
        self.lane.answer(self.corr, result);
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lane.is_closed() || self.lane.cancelled.lock().contains(&self.corr)
    }

    pub(crate) async fn closed(&mut self) {
        loop {
            let told = self.lane.cancels.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.is_closed() {
                return;
            }
            told.await;
        }
    }

    fn forget(&self) {
        let mut cancelled = self.lane.cancelled.lock();
        if !cancelled.is_empty() {
            cancelled.retain(|corr| *corr != self.corr);
        }
    }
}

impl<R, W> Tasks<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Runs the lane until it closes; says why it did.
    pub(crate) async fn run(self, dispatch: Arc<dyn Dispatch>) -> io::Result<()> {
        let Self { lane, mut read, mut write, mut buffer } = self;
        let ended = tokio::select! {
            ended = write_all(&lane, &mut write) => ended,
            ended = read_all(&lane, &mut read, &mut buffer, &*dispatch) => ended,
            () = lane.closed() => Ok(()),
        };
        lane.close();
        // The peer sees the end at once; whether it reads what was left does not matter.
        let _ = tokio::time::timeout(Duration::from_millis(100), write.shutdown()).await;
        ended
    }
}

async fn write_all<W: AsyncWrite + Unpin>(lane: &Lane, write: &mut W) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(READ);
    while let Some(charged) = lane.take(&mut buffer).await {
        write.write_all(&buffer).await?;
        write.flush().await?;
        lane.bytes_out.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        lane.room.add_permits(charged);
        // Large buffers are for times of much mail.
        if buffer.len() < READ && buffer.capacity() > ROOM {
            buffer = Vec::with_capacity(READ);
        }
        buffer.clear();
    }
    Ok(())
}

async fn read_all<R: AsyncRead + Unpin>(
    lane: &Arc<Lane>,
    read: &mut R,
    buffer: &mut BytesMut,
    dispatch: &dyn Dispatch,
) -> io::Result<()> {
    let mut parts = Parts::default();
    loop {
        let mut at = 0;
        while let Some((record, used)) = record::read(&buffer[at..]).map_err(invalid)? {
            receive(lane, record, &mut parts, dispatch).map_err(invalid)?;
            at += used;
        }
        buffer.advance(at);
        buffer.reserve(READ);
        let got = read.read_buf(buffer).await?;
        if got == 0 {
            return Ok(());
        }
        lane.bytes_in.fetch_add(got as u64, Ordering::Relaxed);
        if got >= READ / 2 {
            // Much mail: whoever it was for handles it while it is in the processor's cache.
            tokio::task::yield_now().await;
        }
    }
}

fn receive(lane: &Arc<Lane>, record: Record<'_>, parts: &mut Parts, dispatch: &dyn Dispatch) -> Result<(), BadRecord> {
    match record {
        Record::Mail(mail) => {
            let body = match mail.head.parts {
                None => Body::Here(mail.body),
                parts_id => Body::Whole(parts.whole(parts_id, mail.body)?),
            };
            let port = mail.corr.map(|corr| LanePort { lane: lane.clone(), corr });
            dispatch.mail(lane.peer, &mail, body, port);
        }
        Record::Reply { corr, parts: id, body } => lane.answered(corr, Ok(parts.whole(id, body)?)),
        Record::Fail { corr, failure } => lane.answered(corr, Err(failure)),
        Record::Cancel { corr } => lane.cancelled(corr),
        Record::Part { id, bytes } => parts.add(id, bytes)?,
        Record::Shed { kind, retry_after_ms, key } => {
            dispatch.shed(lane.peer, kind, key, Duration::from_millis(u64::from(retry_after_ms)));
        }
        Record::Ping => lane.push(record::write_pong),
        Record::Pong => {}
        Record::Hello(_) => return Err(BadRecord("a second hello")),
    }
    Ok(())
}

/// Bodies of which not everything is there yet.
#[derive(Default)]
struct Parts {
    partial: HashMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Parts {
    fn add(&mut self, id: u64, bytes: &[u8]) -> Result<(), BadRecord> {
        if bytes.is_empty() {
            self.bytes -= self.partial.remove(&id).map_or(0, |body| body.len());
            return Ok(());
        }
        self.bytes += bytes.len();
        if self.bytes > 2 * MAX_BODY {
            return Err(BadRecord("too many bytes in parts"));
        }
        if self.partial.len() >= PARTIAL && !self.partial.contains_key(&id) {
            return Err(BadRecord("too many bodies in parts"));
        }
        self.partial.entry(id).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn whole(&mut self, id: Option<u64>, last: &[u8]) -> Result<Bytes, BadRecord> {
        let Some(id) = id else { return Ok(Bytes::copy_from_slice(last)) };
        let mut body = self.partial.remove(&id).ok_or(BadRecord("unknown parts"))?;
        self.bytes -= body.len();
        body.extend_from_slice(last);
        Ok(Bytes::from(body))
    }
}

#[cfg(test)]
mod tests;
