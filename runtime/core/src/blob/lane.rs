//! The blob lane: large bytes between nodes, on streams of their own, so that they never delay mail or beats.
//!
//! A fetch opens up to [`STREAMS`] streams to the node that has the file, and brings a part of at most 4 MiB over each at a
//! time. A stream that is lost costs what it had under way; the rest of its part is asked for again. Whether the whole is
//! right is for the caller to check: [`Download::is_right`].
//!
//! What one member may cost another: [`SERVED`] streams, a buffer of [`CHUNK`] bytes for each, the configured rate, and
//! [`REFUSED`] bad requests on a stream; a stream on which nothing moves for [`STALLED`] is closed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pace::Pace;
use super::ranges::Range;
use super::transfer::{Download, Offers, Served, aside};
use super::wire::{ANSWER, Answer, RANGE, REQUEST, Request, Status};
use super::{BlobError, BlobId, Files};
use crate::link::peers::Peer;
use crate::node_id::NodeId;
use crate::telemetry::{BlobMetrics, LinkMetrics};
use crate::transport::{AuthStream, ClusterTransport, Io, Protocol};

/// Bytes read, sent and written at a time.
const CHUNK: u64 = 256 * 1024;
/// Streams of one fetch.
const STREAMS: u64 = 4;
/// Streams that this node opens to one member; fetches beyond wait.
const OPENED: usize = 8;
/// Streams that one member may open here: more than it opens, as it may not know yet that one has ended.
const SERVED: usize = 16;
/// Requests on one stream that come to nothing.
const REFUSED: u32 = 8;
/// What a request counts for the pace, beside its bytes.
const COST: u32 = 4096;
/// Longest time in which not one chunk moves.
const STALLED: Duration = Duration::from_secs(20);
/// Streams lost one after the other, without a byte between, after which the node counts as not reachable.
const ATTEMPTS: u32 = 5;
/// Pause after a lost stream; doubled with each.
const REDIAL: Duration = Duration::from_millis(100);

/// Why a file was not fetched. What is here of it stays here.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    /// The node does not have it.
    #[error("it is not there")]
    NotThere,
    /// What the node has is not what was asked for.
    #[error("what is there is another one")]
    Mismatch,
    /// The node cannot be reached, or not for long enough.
    #[error("cannot reach the node: {0}")]
    Unreachable(#[source] Arc<io::Error>),
    /// What came could not be written.
    #[error("cannot write it: {0}")]
    Write(#[source] Arc<io::Error>),
}

/// The lane of one node.
pub(crate) struct BlobLane {
    transport: Arc<dyn ClusterTransport>,
    files: Arc<Files>,
    offers: Offers,
    members: ArcSwap<HashMap<NodeId, Member>>,
    /// Bytes a second to one member; 0 is no limit.
    rate: u64,
    metrics: Arc<BlobMetrics>,
    rejections: Arc<LinkMetrics>,
}

#[derive(Clone)]
struct Member {
    peer: Peer,
    pace: Arc<Mutex<Pace>>,
    opened: Arc<Semaphore>,
    served: Arc<Semaphore>,
}

/// Where bytes, and what is turned away, are counted.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) blobs: Arc<BlobMetrics>,
    pub(crate) links: Arc<LinkMetrics>,
}

impl BlobLane {
    /// Serves the files of a node and what it offers besides, at most `rate` bytes a second to each member (0: no limit).
    pub(crate) fn new(transport: Arc<dyn ClusterTransport>, blobs: &super::Blobs, rate: u64, counted: Counted) -> Self {
        let Counted { blobs: metrics, links: rejections } = counted;
        let (files, offers, members) = (blobs.files.clone(), Offers::default(), ArcSwap::default());
        Self { transport, files, offers, members, rate, metrics, rejections }
    }

    /// The other members are these.
    pub(crate) fn set_members(&self, peers: &HashMap<NodeId, Peer>) {
        let before = self.members.load();
        let member = |(node, peer): (&NodeId, &Peer)| {
            let member = match before.get(node) {
                Some(member) => Member { peer: peer.clone(), ..member.clone() },
                None => Member {
                    peer: peer.clone(),
                    pace: Arc::new(Mutex::new(Pace::new(self.rate))),
                    opened: Arc::new(Semaphore::new(OPENED)),
                    served: Arc::new(Semaphore::new(SERVED)),
                },
            };
            (*node, member)
        };
        self.members.store(Arc::new(peers.iter().map(member).collect()));
    }

    /// What this node offers besides its blobs.
    pub(crate) fn offers(&self) -> &Offers {
        &self.offers
    }

    fn member(&self, node: NodeId) -> io::Result<Member> {
        let member = self.members.load().get(&node).cloned();
        member.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no member of the cluster"))
    }

    /// Fetches what is missing of a file.
    ///
    /// # Cancel safety
    /// What has come by then stays with the [`Download`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) async fn fetch(&self, from: NodeId, download: &Arc<Download>) -> Result<(), FetchError> {
        let streams = download.begin().min(STREAMS);
        let lost = Mutex::new(None);
        let fetcher = Fetcher { lane: self, from, download, lost: &lost };
        try_join_all((0..streams).map(|number| fetcher.run(number == 0))).await?;
        if download.is_complete() {
            return Ok(());
        }
        let lost = lost.into_inner().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
        Err(FetchError::Unreachable(Arc::new(lost)))
    }

    /// Serves a stream that a member opened, until either side has enough.
    pub(crate) async fn serve(&self, stream: AuthStream) {
        let node = stream.peer.node_id();
        let Ok(member) = self.member(node) else { return };
        let Ok(_permit) = member.served.try_acquire() else {
            return self.rejections.rejected("blob_streams");
        };
        if let Err(error) = self.answer_all(node, &member, stream.io).await {
            tracing::debug!(peer = %node, %error, "blob stream ended");
        }
    }

    async fn answer_all(&self, node: NodeId, member: &Member, mut io: Box<dyn Io>) -> io::Result<()> {
        let (mut refused, mut last) = (0, None);
        loop {
            let mut bytes = [0; REQUEST];
            in_time(io.read_exact(&mut bytes)).await?;
            // One that was removed meanwhile gets nothing more.
            self.member(node)?;
            self.wait_for(member, COST).await;
            let request = Request::decode(&bytes);
            let found = self.find(request, &mut last).await;
            let (status, len) = match &found {
                Ok(file) => (Status::Found, file.len().saturating_sub(request.offset).min(request.len)),
                Err(status) => (*status, 0),
            };
            in_time(io.write_all(&Answer { status, len }.encode())).await?;
            match found {
                Ok(file) => self.send(member, &mut io, &file, request.offset, len).await?,
                Err(_) => refused += 1,
            }
            in_time(io.flush()).await?;
            if refused >= REFUSED {
                self.rejections.rejected("blob_requests");
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too many bad requests"));
            }
        }
    }

    /// The file asked for; `last` keeps it for the next request.
    async fn find(&self, request: Request, last: &mut Option<(BlobId, Served)>) -> Result<Served, Status> {
        if request.len > RANGE {
            return Err(Status::TooLong);
        }
        let file = match last {
            Some((id, file)) if *id == request.id => file.clone(),
            _ => last.insert((request.id, self.open(request.id).await?)).1.clone(),
        };
        if request.offset > file.len() { Err(Status::OutOfRange) } else { Ok(file) }
    }

    async fn open(&self, id: BlobId) -> Result<Served, Status> {
        if let Some(offered) = self.offers.find(id) {
            return Ok(offered);
        }
        let files = self.files.clone();
        let opened = aside(move || Ok(files.serve(id))).await;
        match opened {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(BlobError::NotFound { .. })) => Err(Status::Unknown),
            _ => Err(Status::Failed),
        }
    }

    async fn send(
        &self,
        member: &Member,
        io: &mut Box<dyn Io>,
        file: &Served,
        mut offset: u64,
        len: u64,
    ) -> io::Result<()> {
        let end = offset + len;
        while offset < end {
            let bytes = file.read(offset, CHUNK.min(end - offset)).await?;
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.wait_for(member, size).await;
            in_time(io.write_all(&bytes)).await?;
            self.metrics.sent(u64::from(size));
            offset += u64::from(size);
        }
        Ok(())
    }

    async fn wait_for(&self, member: &Member, bytes: u32) {
        let (now, may_go) = {
            let now = Instant::now();
            (now, member.pace.lock().reserve(bytes, now))
        };
        if may_go > now {
            sleep_until(may_go).await;
        }
    }
}

/// Fetches parts of one file, one at a time.
struct Fetcher<'a> {
    lane: &'a BlobLane,
    from: NodeId,
    download: &'a Arc<Download>,
    /// How the last stream was lost that was one too many.
    lost: &'a Mutex<Option<io::Error>>,
}

/// Why a part has not come.
enum Broken {
    /// The stream is lost.
    Stream(io::Error),
    /// It makes no sense to try again.
    ForGood(FetchError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl Fetcher<'_> {
    /// The first waits until it may open a stream; the others are there to be faster.
    async fn run(&self, is_first: bool) -> Result<(), FetchError> {
        let gone = |error| FetchError::Unreachable(Arc::new(error));
        let opened = self.lane.member(self.from).map_err(gone)?.opened;
        let permit = if is_first { opened.acquire().await.ok() } else { opened.try_acquire().ok() };
        if permit.is_none() {
            return Ok(());
        }
        let (mut stream, mut failures) = (None, 0);
        while let Some(range) = self.download.take() {
            let lost = match self.bring(&mut stream, range).await {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(Broken::ForGood(error)) => return Err(error),
                Err(Broken::Stream(error)) => error,
            };
            stream = None;
            let has_moved = self.download.give_back(range.end) > range.at;
            failures = if has_moved { 1 } else { failures + 1 };
            tracing::debug!(peer = %self.from, error = %lost, failures, "blob stream lost");
            if failures >= ATTEMPTS {
                *self.lost.lock() = Some(lost);
                return Ok(());
            }
            sleep(REDIAL * 2_u32.pow(failures - 1)).await;
        }
        Ok(())
    }

    async fn bring(&self, stream: &mut Option<Box<dyn Io>>, range: Range) -> Result<(), Broken> {
        let Range { mut at, end } = range;
        let io = match stream {
            Some(io) => io,
            None => stream.insert(self.dial().await?),
        };
        let request = Request { id: self.download.id(), offset: at, len: end - at };
        in_time(io.write_all(&request.encode())).await?;
        in_time(io.flush()).await?;
        let mut bytes = [0; ANSWER];
        in_time(io.read_exact(&mut bytes)).await?;
        let answer = Answer::decode(&bytes).ok_or(io::ErrorKind::InvalidData).map_err(io::Error::from)?;
        match answer.status {
            Status::Found if answer.len == end - at => {}
            Status::Found | Status::OutOfRange | Status::TooLong => return Err(Broken::ForGood(FetchError::Mismatch)),
            Status::Unknown => return Err(Broken::ForGood(FetchError::NotThere)),
            Status::Failed => return Err(io::Error::other("the node cannot read it").into()),
        }
        let mut chunk = Vec::new();
        while at < end {
            chunk.resize(usize::try_from(CHUNK.min(end - at)).unwrap_or(usize::MAX), 0);
            in_time(io.read_exact(&mut chunk)).await?;
            let landed = self.download.land(at, end, chunk).await;
            chunk = landed.map_err(|error| Broken::ForGood(FetchError::Write(Arc::new(error))))?;
            at += chunk.len() as u64;
            self.lane.metrics.received(chunk.len() as u64);
        }
        Ok(())
    }

    async fn dial(&self) -> io::Result<Box<dyn Io>> {
        let peer = self.lane.member(self.from)?.peer;
        Ok(self.lane.transport.dial(&peer.addr, peer.key, Protocol::Blob).await?.io)
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STALLED, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
