//! `gov.board`: where logs show their checkpoints and witnesses find them, on whatever nodes they are.
//!
//! Key: always [`BOARD`]. Placement: spread. Durable: no. Lost in a crash: what is posted; logs post again at their next
//! checkpoint. Nobody needs to trust the board: it can withhold cosignatures and make none.

use std::collections::HashMap;
use std::time::Duration;

use aivillage_runtime::{Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, Reply};
use serde::{Deserialize, Serialize};

use super::request::AddCheckpoint;
use super::witness::Answer;

/// The key of the one board.
pub const BOARD: &str = "board";
/// Postings that may wait for answers: 64 nodes that ask several witnesses each.
const MAX_POSTED: usize = 1_024;
/// Postings a witness takes at a time; a larger answer would be several megabytes.
const BATCH: usize = 64;
/// Witnesses that may wait.
const MAX_WAITING: usize = 256;
/// How often postings and witnesses are forgotten that nobody waits for.
const SWEEP: Duration = Duration::from_secs(5);

/// What a [`Board`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum BoardMsg {
    /// Shows a checkpoint to a witness and waits for its answer.
    Post {
        /// The checkpoint, and the proof from the size that the witness has.
        request: AddCheckpoint,
        /// The name of the witness.
        to: String,
        /// What it says.
        reply: Reply<Answer>,
    },
    /// Takes what is posted to a witness and was not taken yet; waits until there is something.
    Take {
        /// The witness.
        witness: String,
        /// What is new.
        reply: Reply<Vec<Posted>>,
    },
    /// A witness's answer to a posting.
    Give {
        /// The posting.
        id: u64,
        /// The cosignature, or why there is none.
        answer: Answer,
    },
    /// Forgets what nobody waits for; sent by itself.
    Sweep,
}

/// A checkpoint on the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Names it.
    pub id: u64,
    /// What is asked.
    pub request: AddCheckpoint,
}

/// The behaviour; its data is [`Postings`].
#[derive(Debug)]
pub struct Board;

impl Kind for Board {
    const NAME: &'static str = "gov.board";
    type Body = BoardMsg;

    fn options() -> KindOptions {
        KindOptions::default().idle(None)
    }
}

/// What is posted, and who waits for it.
#[derive(Debug)]
pub struct Postings {
    cx: ActorCx,
    /// Starts with the time, so that an answer to a posting of an earlier activation finds none of this one.
    next: u64,
    open: Vec<Posting>,
    waiting: HashMap<String, Reply<Vec<Posted>>>,
}

#[derive(Debug)]
struct Posting {
    posted: Posted,
    to: String,
    /// The witness has it. If it got lost on the way, the log posts its next checkpoint.
    is_taken: bool,
    reply: Reply<Answer>,
}

impl Actor for Board {
    type Msg = Mail<BoardMsg>;
    type State = Postings;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Postings, ActorProcessingErr> {
        cx.timer(&me, SWEEP, BoardMsg::Sweep).detach();
        let next = aivillage_runtime::clock::unix_ms() << 20;
        Ok(Postings { cx, next, open: Vec::new(), waiting: HashMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        board: &mut Postings,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            BoardMsg::Post { request, to, reply } => board.post(request, to, reply),
            BoardMsg::Take { witness, reply } => board.take(witness, reply),
            BoardMsg::Give { id, answer } => board.give(id, answer),
            BoardMsg::Sweep => {
                board.sweep();
                board.cx.timer(&me, SWEEP, BoardMsg::Sweep).detach();
            }
        }
        Ok(())
    }
}

impl Postings {
    fn post(&mut self, request: AddCheckpoint, to: String, reply: Reply<Answer>) {
        if self.open.len() >= MAX_POSTED {
            self.sweep();
        }
        if self.open.len() >= MAX_POSTED {
            return reply.fail(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        self.next += 1;
        let posted = Posted { id: self.next, request };
        let waiting = self.waiting.remove(&to).filter(|waiting| !waiting.is_closed());
        let is_taken = waiting.is_some();
        if let Some(waiting) = waiting {
            waiting.send(vec![posted.clone()]);
        }
        self.open.push(Posting { posted, to, is_taken, reply });
    }

    fn take(&mut self, witness: String, reply: Reply<Vec<Posted>>) {
        let is_new = |posting: &&mut Posting| posting.to == witness && !posting.is_taken && !posting.reply.is_closed();
        let take = |posting: &mut Posting| {
            posting.is_taken = true;
            posting.posted.clone()
        };
        let new: Vec<_> = self.open.iter_mut().filter(is_new).take(BATCH).map(take).collect();
        if !new.is_empty() {
            return reply.send(new);
        }
        if self.waiting.len() >= MAX_WAITING {
            return reply.fail(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        self.waiting.insert(witness, reply);
    }

    fn give(&mut self, id: u64, answer: Answer) {
        if let Some(at) = self.open.iter().position(|posting| posting.posted.id == id) {
            self.open.swap_remove(at).reply.send(answer);
        }
    }

    fn sweep(&mut self) {
        self.open.retain(|posting| !posting.reply.is_closed());
        self.waiting.retain(|_, reply| !reply.is_closed());
    }
}
