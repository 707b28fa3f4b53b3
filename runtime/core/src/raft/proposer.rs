//! The way into a group: what waits becomes one entry, two entries are in flight.
//!
//! openraft 0.9.25 makes an entry, an append and an fdatasync of every write, one after the other: 64 clients got 0.9 k
//! commits/s. With their commands in one entry they get 32 k.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use openraft::error::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResponse;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::{Commands, MAX_COMMAND, Raft, Types};
use crate::NodeId;
use crate::store::Raw;

/// Commands of one entry.
const ENTRY_LEN: usize = 256;
/// Bytes of the commands of one entry.
const ENTRY_BYTES: usize = 256 * 1024;
/// Entries in flight: the next one is written while the last one goes round.
const DEPTH: usize = 2;
/// Commands that wait.
const QUEUE: usize = 4096;
/// Bytes of the commands that wait or are in flight.
const QUEUE_BYTES: usize = 8 << 20;

/// Why a command has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// This node does not lead the group, the named one may. The command will not take effect.
    #[error("not the leader of the group")]
    NotLeader(Option<NodeId>),
    /// This node leads, but has not heard from a majority for a while, or did not get to the command in time. The command
    /// will not take effect.
    #[error("no quorum: a majority of the voters does not answer")]
    NoQuorum,
    /// The command was written to the log of this node, and it is not known whether it is or will be committed: it may
    /// take effect later. A retry has to be one that does no harm then.
    #[error("the outcome of the command is not known")]
    Unknown,
    /// The command is over the limit.
    #[error("a command of {size} bytes is too large: the limit is {MAX_COMMAND}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The group on this node has ended. The command will not take effect.
    #[error("the group has stopped")]
    Stopped,
}

/// How far a command is. Whoever changes it first decides: the proposer that takes it, or the caller that gives up.
const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A command on its way.
struct Ticket {
    command: Bytes,
    stage: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Bytes, ProposeError>>,
    _room: OwnedSemaphorePermit,
}

impl Ticket {
    fn take(&self) -> bool {
        move_on(&self.stage, TAKEN)
    }
}

fn move_on(stage: &AtomicU8, to: u8) -> bool {
    stage.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Withdraws a command that still waits when its caller goes away.
struct Withdrawal(Arc<AtomicU8>);

impl Withdrawal {
    /// True when the command is certain not to take effect.
    fn withdraw(&self) -> bool {
        move_on(&self.0, WITHDRAWN)
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Takes commands in.
#[derive(Clone)]
pub(super) struct Intake {
    queue: mpsc::Sender<Ticket>,
    holds: mpsc::Sender<oneshot::Sender<Hold>>,
    room: Arc<Semaphore>,
    limit: Duration,
}

/// While it lives, the proposer proposes nothing.
#[derive(Debug)]
pub(super) struct Hold {
    _released: oneshot::Sender<()>,
}

impl Intake {
    /// Proposes a command and waits for its reply.
    ///
    /// # Cancel safety
    /// A command whose future is dropped may or may not take effect.
    pub(super) async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        let size = command.len();
        if size > MAX_COMMAND {
            return Err(ProposeError::TooLarge { size });
        }
        let deadline = Instant::now() + self.limit;
        let stage = Arc::new(AtomicU8::new(WAITING));
        let withdrawal = Withdrawal(Arc::clone(&stage));
        let (reply, outcome) = oneshot::channel();
        let admitted = async {
            let size = u32::try_from(size.max(1)).expect("a command is at most MAX_COMMAND");
            let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(drop)?;
            self.queue.send(Ticket { command, stage, reply, _room: room }).await.map_err(drop)?;
            outcome.await.map_err(drop)
        };
        match tokio::time::timeout_at(deadline, admitted).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(())) if withdrawal.withdraw() => Err(ProposeError::Stopped),
            Err(_) if withdrawal.withdraw() => Err(ProposeError::NoQuorum),
            Ok(Err(())) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Waits until nothing is in flight and keeps it so. Commands wait meanwhile.
    pub(super) async fn hold(&self) -> Option<Hold> {
        let (ready, held) = oneshot::channel();
        self.holds.send(ready).await.ok()?;
        held.await.ok()
    }
}

/// Makes entries of commands.
pub(super) struct Proposer {
    raft: Raft,
    me: NodeId,
    queue: mpsc::Receiver<Ticket>,
    /// Did not fit in the last entry.
    left_over: Option<Ticket>,
    holds: mpsc::Receiver<oneshot::Sender<Hold>>,
    held: Held,
    in_flight: FuturesUnordered<BoxFuture<'static, ()>>,
    limit: Duration,
}

/// Whether the proposer holds.
enum Held {
    No,
    /// Once nothing is in flight.
    Soon(oneshot::Sender<Hold>),
    Until(oneshot::Receiver<()>),
}

impl Proposer {
    pub(super) fn new(raft: Raft, me: NodeId, limit: Duration) -> (Intake, Self) {
        let (queue, tickets) = mpsc::channel(QUEUE);
        let (hold, holds) = mpsc::channel(1);
        let intake = Intake { queue, holds: hold, room: Arc::new(Semaphore::new(QUEUE_BYTES)), limit };
        let in_flight = FuturesUnordered::new();
        let (left_over, held) = (None, Held::No);
        (intake, Self { raft, me, queue: tickets, left_over, holds, held, in_flight, limit })
    }

    /// Runs until every [`Intake`] is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.held = match self.held {
                Held::Soon(ready) if self.in_flight.is_empty() => begin_hold(ready),
                held => held,
            };
            let proposes = matches!(self.held, Held::No) && self.in_flight.len() < DEPTH;
            tokio::select! {
                biased;
                Some(()) = self.in_flight.next() => {}
                () = released(&mut self.held) => self.held = Held::No,
                Some(ready) = self.holds.recv(), if matches!(self.held, Held::No) => self.held = Held::Soon(ready),
                ticket = next(&mut self.left_over, &mut self.queue), if proposes => match ticket {
                    Some(first) => self.propose(first).await,
                    None => break,
                },
            }
        }
        while self.in_flight.next().await.is_some() {}
    }

    async fn propose(&mut self, first: Ticket) {
        let tickets = self.gather(first);
        if tickets.is_empty() {
            return;
        }
        let appended = Arc::new(AtomicBool::new(false));
        let list = tickets.iter().map(|ticket| Raw(ticket.command.clone())).collect();
        let commands = Commands { list, appended: Some(Arc::clone(&appended)) };
        let Ok(outcome) = self.raft.client_write_ff(commands).await else {
            return answer(tickets, Err(ProposeError::Stopped));
        };
        let (me, limit) = (self.me, self.limit);
        let wait = async move {
            let outcome = match tokio::time::timeout(limit, outcome).await {
                Ok(Ok(written)) => outcome_of(written, &appended, me),
                // The core ended, or took too long.
                Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
            };
            answer(tickets, outcome);
        };
        self.in_flight.push(wait.boxed());
    }

    /// What goes into one entry with the first command.
    fn gather(&mut self, first: Ticket) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(ticket) = next.take() {
            let size = ticket.command.len();
            if !tickets.is_empty() && bytes + size > ENTRY_BYTES {
                self.left_over = Some(ticket);
                break;
            }
            if ticket.take() {
                bytes += size;
                tickets.push(ticket);
            }
            if tickets.len() < ENTRY_LEN {
                next = self.queue.try_recv().ok();
            }
        }
        tickets
    }
}

fn begin_hold(ready: oneshot::Sender<Hold>) -> Held {
    let (release, released) = oneshot::channel();
    match ready.send(Hold { _released: release }) {
        Ok(()) => Held::Until(released),
        Err(_) => Held::No,
    }
}

async fn next(left_over: &mut Option<Ticket>, queue: &mut mpsc::Receiver<Ticket>) -> Option<Ticket> {
    match left_over.take() {
        Some(ticket) => Some(ticket),
        None => queue.recv().await,
    }
}

/// Resolves when a hold ends; never while there is none.
async fn released(held: &mut Held) {
    match held {
        Held::Until(released) => drop(released.await),
        Held::No | Held::Soon(_) => std::future::pending().await,
    }
}

type Written = Result<ClientWriteResponse<Types>, ClientWriteError<u64, openraft::EmptyNode>>;

fn outcome_of(written: Written, appended: &AtomicBool, me: NodeId) -> Result<Vec<Raw>, ProposeError> {
    match written {
        Ok(written) => Ok(written.data.0),
        // Written here and cut off again by a younger leader: a third node may still have it, and lead one day.
        Err(_) if appended.load(Ordering::Acquire) => Err(ProposeError::Unknown),
        Err(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. })) => {
            Err(ProposeError::NotLeader(leader_id.map(NodeId).filter(|leader| *leader != me)))
        }
        Err(ClientWriteError::ChangeMembershipError(_)) => Err(ProposeError::Unknown),
    }
}

fn answer(tickets: Vec<Ticket>, outcome: Result<Vec<Raw>, ProposeError>) {
    let outcome = outcome.and_then(|replies| {
        let fits = replies.len() == tickets.len();
        if fits { Ok(replies) } else { Err(ProposeError::Unknown) }
    });
    match outcome {
        Ok(replies) => {
            for (ticket, reply) in tickets.into_iter().zip(replies) {
                // Nobody listens when the caller went away; the command stands.
                let _ = ticket.reply.send(Ok(reply.0));
            }
        }
        Err(error) => {
            for ticket in tickets {
                let _ = ticket.reply.send(Err(error.clone()));
            }
        }
    }
}
