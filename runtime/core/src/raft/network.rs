//! Messages between the nodes of one group.
//!
//! A body is postcard and at most 1 MiB: entries are limited by the log's reader, snapshots go in pieces that are
//! acknowledged one by one. A peer that does not answer is `Unreachable` to openraft, which then waits before it tries
//! again; at any other error it tries at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, oneshot};

use super::log::Gate;
use super::snapshot::{Draft, SnapshotFile, Snapshots, aside};
use super::{GroupId, LogId, Part, Raft, Spawner, Types, Vote, decode, encode};
use crate::NodeId;
use crate::store::{Raw, StoreError};

/// Bytes of a snapshot sent at a time.
const PIECE: usize = 512 * 1024;
/// Pause before a peer that did not answer is tried again.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Brings a request to a node and its answer back.
pub(crate) trait Courier: Clone + Send + Sync + 'static {
    /// Hands `body` to [`Group::serve`](super::Group::serve) of the group on that node.
    fn call(&self, to: NodeId, group: GroupId, body: Bytes, limit: Duration)
    -> BoxFuture<'static, Result<Bytes, Lost>>;
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
#[derive(Debug, thiserror::Error)]
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
    /// A piece of a snapshot does not follow the one before; the sender has to begin again.
    #[error("piece at {found} of a snapshot, expected {expected}")]
    Gap {
        /// Where the piece begins.
        found: u64,
        /// Where it had to begin.
        expected: u64,
    },
    /// A received snapshot could not be kept, or is damaged.
    #[error("snapshot: {0}")]
    Snapshot(StoreError),
    /// The group on this node has ended.
    #[error("the group has stopped")]
    Stopped,
}

/// Calls one group's namesake on another node.
pub(super) type Caller = Arc<dyn Fn(NodeId, Bytes, Duration) -> BoxFuture<'static, Result<Bytes, Lost>> + Send + Sync>;

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Piece(Piece),
    Elect(Elect),
}

impl Request {
    /// The node in whose name it is made.
    fn speaker(&self) -> NodeId {
        let vote = match self {
            Self::Append(append) => &append.vote,
            Self::Vote(vote) => &vote.vote,
            Self::Piece(piece) => &piece.vote,
            Self::Elect(elect) => &elect.vote,
        };
        NodeId(vote.leader_id.node_id)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    /// The piece is kept, send the next.
    More,
    /// The snapshot is installed or not needed; or a younger leader is known, if the vote says so.
    Installed(Vote),
    /// The node stands for election.
    Standing,
    /// It does not, for a reason.
    NotStanding(String),
}

/// A part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct Piece {
    vote: Vote,
    /// Tells one transfer from another.
    transfer: u64,
    offset: u64,
    data: Raw,
    last: bool,
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
    pub(super) piece_limit: Duration,
    pub(super) install_limit: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        let (piece_limit, install_limit) = (self.piece_limit, self.install_limit);
        Peer { node: NodeId(target), caller: Arc::clone(&self.caller), piece_limit, install_limit }
    }
}

/// One other node of the group.
pub(super) struct Peer {
    node: NodeId,
    caller: Caller,
    piece_limit: Duration,
    install_limit: Duration,
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
        let transfer = rand::random();
        let mut offset = 0;
        loop {
            let read = file.aside(move |file| file.read(offset, PIECE)).await;
            let data = read.map_err(|e| StreamingError::StorageError(Part::Snapshot.cannot_read(&e)))?;
            let next = offset + data.len() as u64;
            let last = next >= file.len();
            let piece = Request::Piece(Piece { vote, transfer, offset, data: Raw(data), last });
            let limit = if last { self.install_limit } else { self.piece_limit };
            let installed = self.call(piece, limit, |answer| match answer {
                Answer::More if !last => Some(None),
                Answer::Installed(vote) => Some(Some(vote)),
                _ => None,
            });
            if let Some(vote) = installed.await? {
                return Ok(vote);
            }
            offset = next;
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
    /// The one transfer that is under way: a newer one takes its place.
    incoming: Mutex<Option<Incoming>>,
    /// One installation at a time.
    installing: Arc<Mutex<()>>,
    /// One more than the highest index that a leader spoke of.
    heard: AtomicU64,
}

/// A snapshot of which some pieces have come.
struct Incoming {
    transfer: u64,
    draft: Draft,
    next: u64,
}

impl Server {
    pub(super) fn new(raft: Raft, snapshots: Snapshots, gate: Arc<Gate>, spawner: Spawner) -> Self {
        let (incoming, installing, heard) = (Mutex::default(), Arc::default(), AtomicU64::new(0));
        Self { raft, snapshots, gate, spawner, incoming, installing, heard }
    }

    /// The highest index that a leader spoke of since the start.
    pub(super) fn heard(&self) -> Option<u64> {
        self.heard.load(Ordering::Acquire).checked_sub(1)
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
                Answer::Append(self.raft.append_entries(append).await.map_err(stopped)?)
            }
            Request::Vote(vote) => Answer::Vote(self.raft.vote(vote).await.map_err(stopped)?),
            Request::Piece(piece) => self.take(piece).await?,
            Request::Elect(request) => match elect(request).await {
                Ok(()) => Answer::Standing,
                Err(why) => Answer::NotStanding(why),
            },
        })
    }

    async fn take(&self, piece: Piece) -> Result<Answer, ServeError> {
        let known = self.raft.metrics().borrow().vote;
        if piece.vote < known {
            return Ok(Answer::Installed(known));
        }
        let whole = {
            let mut incoming = self.incoming.lock().await;
            if piece.offset == 0 {
                let draft = self.snapshots.draft().map_err(ServeError::Snapshot)?;
                *incoming = Some(Incoming { transfer: piece.transfer, draft, next: 0 });
            }
            let at = incoming.as_mut().filter(|incoming| incoming.transfer == piece.transfer);
            let expected = at.as_ref().map_or(0, |at| at.next);
            let Some(at) = at.filter(|at| at.next == piece.offset) else {
                return Err(ServeError::Gap { found: piece.offset, expected });
            };
            at.draft.write(&piece.data.0).map_err(ServeError::Snapshot)?;
            at.next += piece.data.0.len() as u64;
            if !piece.last {
                return Ok(Answer::More);
            }
            incoming.take()
        };
        let Some(whole) = whole else { return Err(ServeError::Stopped) };
        self.install(piece.vote, whole.draft).await.map(Answer::Installed)
    }

    /// Runs in a task of its own: a caller that goes away must not leave a snapshot announced that nobody waits for.
    async fn install(&self, vote: Vote, draft: Draft) -> Result<Vote, ServeError> {
        let (done, outcome) = oneshot::channel();
        let (raft, gate, installing) = (self.raft.clone(), Arc::clone(&self.gate), Arc::clone(&self.installing));
        let work = async move {
            let _one = installing.lock().await;
            let _ = done.send(install(&raft, &gate, vote, draft).await);
        };
        (self.spawner)("raft-install", Box::pin(work));
        outcome.await.unwrap_or(Err(ServeError::Stopped))
    }
}

async fn install(raft: &Raft, gate: &Gate, vote: Vote, draft: Draft) -> Result<Vote, ServeError> {
    let on_disk = matches!(draft, Draft::Disk(_));
    let verified = aside(on_disk, move || {
        let file = draft.finish()?;
        file.verify().map(|meta| (meta, file))
    });
    let (meta, file) = verified.await.map_err(ServeError::Snapshot)?;
    let upto: Option<LogId> = meta.last_log_id;
    if let Some(upto) = upto {
        gate.announce(upto.index);
    }
    let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: Box::new(file) }).await;
    gate.open();
    installed.map(|response| response.vote).map_err(|_| ServeError::Stopped)
}
