//! Messages between the nodes of one group.
//!
//! A body is postcard and at most 1 MiB: entries are limited by the log's reader. A peer that does not answer is
//! `Unreachable` to openraft, which then waits before it tries again; at any other error it tries at once.
//!
//! A snapshot does not travel in messages. The leader offers the file and names it; the follower fetches it as it would a
//! blob, and installs it. The leader asks again and again until that is done, and ends its offer when it gives up: the fetch
//! ends then, too. The file offered stays readable when a newer one takes its place.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot};
use parking_lot::Mutex as SyncMutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, oneshot};

use super::log::Gate;
use super::snapshot::{Draft, SnapshotFile, Snapshots, aside};
use super::{GroupId, LogId, Part, Raft, Spawner, Types, Vote, decode, encode};
use crate::NodeId;
use crate::blob::{BlobId, Download, FetchError, Offers};
use crate::clock;
use crate::store::StoreError;

/// A follower that is not done with a snapshot says so after this time.
const UNDERWAY: Duration = Duration::from_secs(5);
/// Time that it has to say so.
const UNDERWAY_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a peer that did not answer is tried again.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Brings a request to a node and its answer back.
pub(crate) trait Courier: Clone + Send + Sync + 'static {
    /// Hands `body` to [`Group::serve`](super::Group::serve) of the group on that node.
    fn call(&self, to: NodeId, group: GroupId, body: Bytes, limit: Duration)
    -> BoxFuture<'static, Result<Bytes, Lost>>;

    /// Fetches what is missing of a file that the node offers.
    fn fetch(&self, from: NodeId, file: Arc<Download>) -> BoxFuture<'static, Result<(), FetchError>>;

    /// What this node offers.
    fn offers(&self) -> &Offers;
}

/// Why a request has no answer. It may have been served all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// No connection to the node.
    #[error("no link to the node")]
    NoLink,
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// The node would not serve it.
    #[error("refused: {0}")]
    Refused(String),
}

/// Why a request was not served.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ServeError {
    /// The body is not a request.
    #[error(transparent)]
    Malformed(StoreError),
    /// The request speaks for another node than the one that sent it.
    #[error("node {from} speaks for node {claimed}")]
    Forged {
        /// Who sent it.
        from: NodeId,
        /// For whom it speaks.
        claimed: NodeId,
    },
    /// A snapshot was not fetched.
    #[error("snapshot not fetched: {0}")]
    Fetch(FetchError),
    /// A snapshot could not be kept, or is damaged.
    #[error("snapshot: {0}")]
    Snapshot(StoreError),
    /// The group on this node has ended.
    #[error("the group has stopped")]
    Stopped,
}

/// Calls one group's namesake on another node.
pub(super) type Caller = Arc<dyn Fn(NodeId, Bytes, Duration) -> BoxFuture<'static, Result<Bytes, Lost>> + Send + Sync>;

/// Fetches a file from another node.
pub(super) type Fetcher =
    Arc<dyn Fn(NodeId, Arc<Download>) -> BoxFuture<'static, Result<(), FetchError>> + Send + Sync>;

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Install(Install),
    Elect(Elect),
}

impl Request {
    /// The node in whose name it is made.
    fn speaker(&self) -> NodeId {
        let vote = match self {
            Self::Append(append) => &append.vote,
            Self::Vote(vote) => &vote.vote,
            Self::Install(install) => &install.vote,
            Self::Elect(elect) => &elect.vote,
        };
        NodeId(vote.leader_id.node_id)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    /// The snapshot is being fetched or installed; ask again.
    Underway,
    /// The snapshot is installed or not needed; or a younger leader is known, if the vote says so.
    Installed(Vote),
    /// The node stands for election.
    Standing,
    /// It does not, for a reason.
    NotStanding(String),
}

/// Has a snapshot fetched from the node that sends this, and installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Install {
    vote: Vote,
    /// Name of the file.
    id: BlobId,
    /// Its bytes.
    len: u64,
}

/// Asks a follower to take over from the leader that sends it.
#[derive(Serialize, Deserialize)]
pub(super) struct Elect {
    /// The leader's vote.
    pub(super) vote: Vote,
    /// The leader's last entry.
    pub(super) last: Option<u64>,
}

/// Makes the connections of one group.
pub(super) struct Network {
    pub(super) caller: Caller,
    pub(super) offers: Offers,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer { node: NodeId(target), caller: Arc::clone(&self.caller), offers: self.offers.clone() }
    }
}

/// One other node of the group.
pub(super) struct Peer {
    node: NodeId,
    caller: Caller,
    offers: Offers,
}

impl Peer {
    /// The answer, if it is one that `expected` takes.
    async fn call<T>(
        &self,
        request: Request,
        limit: Duration,
        expected: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, Unreachable> {
        let body = (self.caller)(self.node, encode(&request).into(), limit).await.map_err(|e| Unreachable::new(&e))?;
        let answer = decode("an answer of a peer", &body).map_err(|e| Unreachable::new(&e))?;
        expected(answer).ok_or_else(|| Unreachable::new(&Lost::Refused("an answer to another question".to_owned())))
    }

    async fn send(&self, vote: Vote, file: &SnapshotFile) -> Result<Vote, StreamingError<Types, Fatal<u64>>> {
        let served = file.aside(SnapshotFile::served).await;
        let (id, served) = served.map_err(|e| StreamingError::StorageError(Part::Snapshot.cannot_read(&e)))?;
        let _offer = self.offers.offer(id, served);
        let install = Install { vote, id, len: file.len() };
        loop {
            let done = self.call(Request::Install(install), UNDERWAY_LIMIT, |answer| match answer {
                Answer::Underway => Some(None),
                Answer::Installed(vote) => Some(Some(vote)),
                _ => None,
            });
            if let Some(vote) = done.await? {
                return Ok(vote);
            }
        }
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let answer = self.call(Request::Append(request), option.hard_ttl(), |answer| match answer {
            Answer::Append(answer) => Some(answer),
            _ => None,
        });
        Ok(answer.await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let answer = self.call(Request::Vote(request), option.hard_ttl(), |answer| match answer {
            Answer::Vote(answer) => Some(answer),
            _ => None,
        });
        Ok(answer.await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send(vote, &snapshot.snapshot) => sent.map(SnapshotResponse::new),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACK_OFF))
    }
}

/// Serves the requests of peers.
pub(super) struct Server {
    raft: Raft,
    snapshots: Snapshots,
    gate: Arc<Gate>,
    spawner: Spawner,
    fetcher: Fetcher,
    /// The one snapshot that is coming, or came last: a newer one takes its place.
    incoming: SyncMutex<Option<Incoming>>,
    /// A snapshot of which a part has come, for when it is asked for again.
    partial: Arc<SyncMutex<Option<Partial>>>,
    /// One installation at a time.
    installing: Arc<Mutex<()>>,
    /// One more than the highest index that a leader spoke of.
    heard: AtomicU64,
    /// Boot time in milliseconds at which a leader last sent what this node then had; 0 before that.
    current_at: AtomicU64,
}

/// A snapshot that is fetched and installed. Dropping it ends the fetch, but not the installation.
struct Incoming {
    install: Install,
    outcome: Outcome,
    _wanted: oneshot::Sender<()>,
}

type Outcome = Shared<BoxFuture<'static, Result<Vote, ServeError>>>;

/// What has come of a snapshot.
struct Partial {
    draft: Draft,
    len: u64,
    download: Arc<Download>,
}

impl Server {
    pub(super) fn new(raft: Raft, snapshots: Snapshots, gate: Arc<Gate>, spawner: Spawner, fetcher: Fetcher) -> Self {
        Self {
            raft,
            snapshots,
            gate,
            spawner,
            fetcher,
            incoming: SyncMutex::default(),
            partial: Arc::default(),
            installing: Arc::default(),
            heard: AtomicU64::new(0),
            current_at: AtomicU64::new(0),
        }
    }

    /// The highest index that a leader spoke of since the start.
    pub(super) fn heard(&self) -> Option<u64> {
        self.heard.load(Ordering::Acquire).checked_sub(1)
    }

    /// How long ago a leader last made sure that this node lacks nothing of what it has sent.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(clock::boot_ms().saturating_sub(self.current_at.load(Ordering::Acquire)))
    }

    fn hear(&self, append: &AppendEntriesRequest<Types>) {
        let last = append.entries.last().map(|entry| entry.log_id).max(append.prev_log_id).max(append.leader_commit);
        self.heard.fetch_max(last.map_or(0, |last| last.index + 1), Ordering::AcqRel);
    }

    /// Answers a request, except [`Request::Elect`], which is handed to `elect`.
    pub(super) async fn serve(
        &self,
        from: NodeId,
        body: &[u8],
        elect: impl AsyncFnOnce(Elect) -> Result<(), String>,
    ) -> Result<Answer, ServeError> {
        let request: Request = decode("a request of a peer", body).map_err(ServeError::Malformed)?;
        let claimed = request.speaker();
        if claimed != from {
            return Err(ServeError::Forged { from, claimed });
        }
        let stopped = |_| ServeError::Stopped;
        Ok(match request {
            Request::Append(append) => {
                self.hear(&append);
                let at = clock::boot_ms();
                let answer = self.raft.append_entries(append).await.map_err(stopped)?;
                if matches!(answer, AppendEntriesResponse::Success) {
                    self.current_at.fetch_max(at, Ordering::AcqRel);
                }
                Answer::Append(answer)
            }
            Request::Vote(vote) => Answer::Vote(self.raft.vote(vote).await.map_err(stopped)?),
            Request::Install(install) => self.take(from, install).await?,
            Request::Elect(request) => match elect(request).await {
                Ok(()) => Answer::Standing,
                Err(why) => Answer::NotStanding(why),
            },
        })
    }

    async fn take(&self, from: NodeId, install: Install) -> Result<Answer, ServeError> {
        let known = self.raft.metrics().borrow().vote;
        if install.vote < known {
            return Ok(Answer::Installed(known));
        }
        let outcome = self.outcome(from, install);
        match tokio::time::timeout(UNDERWAY, outcome).await {
            Ok(Ok(vote)) => Ok(Answer::Installed(vote)),
            Ok(Err(error)) => {
                // The next time it is tried again.
                let mut incoming = self.incoming.lock();
                incoming.take_if(|incoming| incoming.install == install);
                Err(error)
            }
            Err(_) => Ok(Answer::Underway),
        }
    }

    /// What becomes of the snapshot; begins with it unless it is under way.
    fn outcome(&self, from: NodeId, install: Install) -> Outcome {
        let mut incoming = self.incoming.lock();
        if let Some(incoming) = incoming.as_ref().filter(|incoming| incoming.install == install) {
            return incoming.outcome.clone();
        }
        let (done, outcome) = oneshot::channel();
        let outcome = outcome.map(|outcome| outcome.unwrap_or(Err(ServeError::Stopped))).boxed().shared();
        let (wanted, mut unwanted) = oneshot::channel();
        *incoming = Some(Incoming { install, outcome: outcome.clone(), _wanted: wanted });
        let (raft, gate, installing) = (self.raft.clone(), Arc::clone(&self.gate), Arc::clone(&self.installing));
        let (fetcher, snapshots, partial) =
            (Arc::clone(&self.fetcher), self.snapshots.clone(), Arc::clone(&self.partial));
        // A task of its own: a caller that goes away must not leave a snapshot announced that nobody waits for.
        let work = async move {
            let fetched = tokio::select! {
                fetched = fetch(&fetcher, &snapshots, &partial, from, install) => fetched,
                _ = &mut unwanted => return,
            };
            let installed = match fetched {
                Ok(file) => {
                    let _one = installing.lock().await;
                    put(&raft, &gate, install.vote, file).await
                }
                Err(error) => Err(error),
            };
            let _ = done.send(installed);
        };
        (self.spawner)("raft-install", Box::pin(work));
        outcome
    }
}

/// Fetches a snapshot, or what is missing of it. What came is put back when the other node is lost.
async fn fetch(
    fetcher: &Fetcher,
    snapshots: &Snapshots,
    partial: &SyncMutex<Option<Partial>>,
    from: NodeId,
    Install { id, len, .. }: Install,
) -> Result<SnapshotFile, ServeError> {
    let same = partial.lock().take().filter(|partial| (partial.download.id(), partial.len) == (id, len));
    let coming = match same {
        Some(coming) => coming,
        None => begin(snapshots, id, len).map_err(ServeError::Snapshot)?,
    };
    let download = Arc::clone(&coming.download);
    match fetcher(from, Arc::clone(&download)).await {
        Ok(()) => {}
        Err(error @ FetchError::Unreachable(_)) => {
            *partial.lock() = Some(coming);
            return Err(ServeError::Fetch(error));
        }
        Err(error) => return Err(ServeError::Fetch(error)),
    }
    let right = download.is_right().await.map_err(|e| ServeError::Fetch(FetchError::Write(Arc::new(e))))?;
    if !right {
        return Err(ServeError::Fetch(FetchError::Mismatch));
    }
    let landed = aside(snapshots.on_disk(), move || coming.draft.landed(&download, len)).await;
    landed.map_err(ServeError::Snapshot)
}

fn begin(snapshots: &Snapshots, id: BlobId, len: u64) -> Result<Partial, StoreError> {
    let draft = snapshots.draft()?;
    let download = Arc::new(Download::new(id, len, draft.landing()?, 0));
    Ok(Partial { draft, len, download })
}

/// Puts a snapshot in the place of the state.
async fn put(raft: &Raft, gate: &Gate, vote: Vote, file: SnapshotFile) -> Result<Vote, ServeError> {
    let meta = file.aside(SnapshotFile::verify).await.map_err(ServeError::Snapshot)?;
    let upto: Option<LogId> = meta.last_log_id;
    if let Some(upto) = upto {
        gate.announce(upto.index);
    }
    let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: Box::new(file) }).await;
    gate.open();
    installed.map(|response| response.vote).map_err(|_| ServeError::Stopped)
}
