//! `gov.tlog`: the transparency log of this node, for whoever is not in the same crate.
//!
//! Key: any. Placement: per node. Durable: the log's files; an append is answered when it is as safe as was asked.
//! Lost in a crash: the mail in hand, and buffered entries that were not written yet.

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Kind, KindOptions, Mail, Overflow, Placement, Reply,
};
use serde::{Deserialize, Serialize};

use super::board::{BOARD, Board};
use super::cosign::Collector;
use super::entry::Event;
use super::handle::{Ack, Command, LogHandle, Receipt};
use super::hash::Hash;
use super::note::{Note, SignatureLine};
use super::proof::TlogProof;
use super::request::AddCheckpoint;

/// What an [`AuditLog`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum AuditLogMsg {
    /// Appends an entry.
    Append {
        /// What happened.
        entry: Box<Event>,
        /// What to wait for.
        ack: Ack,
        /// Where it is.
        reply: Reply<Receipt>,
    },
    /// Proves that an entry is in the tree of a size.
    Prove {
        /// Which entry.
        index: u64,
        /// Entries of the tree.
        size: u64,
        /// The proof.
        reply: Reply<Vec<Hash>>,
    },
    /// Proves that one tree begins with another.
    Consistency {
        /// Entries of the smaller tree.
        old: u64,
        /// Entries of the larger tree.
        size: u64,
        /// The proof.
        reply: Reply<Vec<Hash>>,
    },
    /// The proof file of an entry under the last checkpoint.
    Proof(u64, Reply<TlogProof>),
    /// A checkpoint of all that is safe.
    Checkpoint(Reply<Note>),
    /// Entries from one on.
    Tail {
        /// The first.
        from: u64,
        /// At most so many, and at most 256.
        limit: u32,
        /// Their bytes: canonical JSON.
        reply: Reply<Vec<Vec<u8>>>,
    },
    /// What to ask of a witness that has the checkpoint of this size.
    Request(u64, Reply<AddCheckpoint>),
    /// Adds cosignatures to the last checkpoint and tells how many witnesses cosigned it.
    Cosign(Vec<SignatureLine>, Reply<u32>),
}

/// The behaviour; its data is a [`LogHandle`].
#[derive(Debug)]
pub struct AuditLog(LogHandle);

impl AuditLog {
    /// The actor in front of a log; it also looks after the log's cosignatures. A crash of the actor does not touch the log.
    #[must_use]
    pub fn new(log: LogHandle) -> Self {
        Self(log)
    }
}

impl Kind for AuditLog {
    const NAME: &'static str = "gov.tlog";
    type Body = AuditLogMsg;

    fn options() -> KindOptions {
        // A sender waits until the log has room: an entry is not dropped because many come at once.
        KindOptions::default().placement(Placement::PerNode).overflow(Overflow::Wait)
    }
}

impl Actor for AuditLog {
    type Msg = Mail<AuditLogMsg>;
    type State = LogHandle;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<LogHandle, ActorProcessingErr> {
        self.0.measure(cx.village().metrics());
        let board = cx.village().addr::<Board>(BOARD);
        if let Some(collector) = Collector::new(self.0.clone(), board) {
            cx.village().task("tlog.collect", collector.run()).detach();
        }
        Ok(self.0.clone())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        log: &mut LogHandle,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            // Waits for a place in the queue only: this is how a full queue fills the mailbox.
            AuditLogMsg::Append { entry, ack, reply } => log.submit(entry, ack, reply.into()).await,
            AuditLogMsg::Prove { index, size, reply } => log.tell(Command::Prove(index, size, reply.into())),
            AuditLogMsg::Consistency { old, size, reply } => log.tell(Command::Consistency(old, size, reply.into())),
            AuditLogMsg::Proof(index, reply) => log.tell(Command::Proof(index, reply.into())),
            AuditLogMsg::Checkpoint(reply) => log.tell(Command::Sign(reply.into())),
            AuditLogMsg::Tail { from, limit, reply } => log.tell(Command::Tail(from, limit, reply.into())),
            AuditLogMsg::Request(old, reply) => log.tell(Command::Request(old, reply.into())),
            AuditLogMsg::Cosign(lines, reply) => log.tell(Command::Cosign(lines, reply.into())),
        }
        Ok(())
    }
}
