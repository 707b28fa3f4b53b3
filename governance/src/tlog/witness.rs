//! `gov.witness`: cosigns the checkpoints of other nodes' logs, if they extend what it saw before.
//!
//! Key: any. Placement: per node. Durable: a [`Book`], the latest checkpoint of each log, before a cosignature leaves.
//! Lost in a crash: the mail in hand. It asks the [`Board`] for checkpoints as long as it lives.

mod book;
mod evidence;

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, CallError, Kind, KindOptions, Mail, Placement, Reply,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::board::{BOARD, Board, BoardMsg, Posted};
use super::files::{Disk, Files};
use super::note::SignatureLine;
use super::request::{AddCheckpoint, Refusal};
pub use book::{Book, BookError};
pub use evidence::Evidence;

/// How long one question to the board waits for a checkpoint.
const WAIT: Duration = Duration::from_secs(25);
/// Pause after a question that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a witness answers.
pub type Answer = Result<SignatureLine, Refusal>;

/// What a [`Witness`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum WitnessMsg {
    /// Cosigns a checkpoint, or says why not.
    AddCheckpoint(AddCheckpoint, Reply<Answer>),
    /// Pairs of checkpoints of one log that cannot both be true.
    Evidence(Reply<Vec<Evidence>>),
    /// The board has something, or it is time to ask it; sent by itself.
    Look(Vec<Posted>),
}

/// The behaviour; its data is a [`Book`].
pub struct Witness<F: Files = Disk> {
    book: Arc<Mutex<Book<F>>>,
    clock: fn() -> u64,
}

impl<F: Files> std::fmt::Debug for Witness<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Witness({:?})", self.book.lock())
    }
}

impl<F: Files> Witness<F> {
    /// A witness with this book; `clock` gives Unix milliseconds.
    #[must_use]
    pub fn new(book: Arc<Mutex<Book<F>>>, clock: fn() -> u64) -> Self {
        Self { book, clock }
    }
}

impl<F: Files> Kind for Witness<F> {
    const NAME: &'static str = "gov.witness";
    type Body = WitnessMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode).idle(None)
    }
}

/// The witness at work.
#[derive(Debug)]
pub struct Desk {
    cx: ActorCx,
    name: String,
    board: Addr<Board>,
}

impl<F: Files> Actor for Witness<F> {
    type Msg = Mail<WitnessMsg>;
    type State = Desk;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Desk, ActorProcessingErr> {
        let board = cx.village().addr::<Board>(BOARD);
        cx.tell_self(&me, WitnessMsg::Look(Vec::new()));
        Ok(Desk { name: self.book.lock().key().name().to_owned(), board, cx })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            WitnessMsg::AddCheckpoint(request, reply) => reply.complete(self.answer(desk, request).await),
            WitnessMsg::Evidence(reply) => {
                let evidence = self.book.lock().evidence();
                reply.complete(evidence.map_err(CallError::from));
            }
            WitnessMsg::Look(posted) => {
                for posting in posted {
                    self.give(desk, posting).await;
                }
                desk.look(&me);
            }
        }
        Ok(())
    }
}

impl<F: Files> Witness<F> {
    /// Answers a request; the book's files are written outside of the actor's thread.
    async fn answer(&self, desk: &Desk, request: AddCheckpoint) -> Result<Answer, CallError> {
        let (book, unix_s) = (Arc::clone(&self.book), (self.clock)() / 1000);
        let added = desk.cx.village().blocking("tlog.cosign", move || book.lock().add(&request, unix_s)).await?;
        match added {
            Ok(line) => Ok(Ok(line)),
            Err(BookError::Refused(refusal)) => Ok(Err(refusal)),
            Err(BookError::Log(error)) => Err(error.into()),
        }
    }

    /// Answers what the board shows. A failure of the own disk is no answer: another look comes.
    async fn give(&self, desk: &Desk, posting: Posted) {
        match self.answer(desk, posting.request).await {
            Ok(answer) => {
                // A board that is gone has no one waiting at it.
                let _ = desk.board.tell(BoardMsg::Give { id: posting.id, answer }).await;
            }
            Err(error) => tracing::error!(%error, "cannot cosign"),
        }
    }
}

impl Desk {
    /// Asks the board for what is new, and comes back with it.
    fn look(&self, me: &ActorRef<Mail<WitnessMsg>>) {
        let (cx, me, board) = (self.cx.clone(), me.clone(), self.board.clone());
        let witness = self.name.clone();
        let task = self.cx.village().task("tlog.look", async move {
            let asked = board.call().deadline(WAIT).ask(|reply| BoardMsg::Take { witness, reply }).await;
            if !matches!(asked, Ok(_) | Err(CallError::Timeout)) {
                tokio::time::sleep(PAUSE).await;
            }
            cx.tell_self(&me, WitnessMsg::Look(asked.unwrap_or_default()));
        });
        task.detach();
    }
}

#[cfg(test)]
mod tests;
