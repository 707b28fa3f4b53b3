//! `gov.root`: begins the epochs of the keys, and hands the root key to nodes that join.
//!
//! Key: always [`KEY`]. Placement: the member that has been there for longest. Durable: the root is a file of each node, the epochs
//! are agreed on by the cluster. Lost in a crash: the mail in hand; an epoch that was to begin begins when it starts again.
//!
//! **Clocks.** When the epoch ends is told by the wall clock once, when the actor starts; from then on by one that cannot be set. So
//! a clock that jumps ends no epoch early, and one that was wrong at the start ends one at most.

use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Kind, KindOptions, Mail, Placement,
    Reply, clock,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::config::KeysConfig;
use super::epochs::remaining;
use super::handle::VaultHandle;
use super::node::{Handed, KeysNode};
use super::register::Register;
use super::vault::{Plain, Vault, VaultError};

/// The key of the one actor.
pub const KEY: &str = "main";
/// Pause before an epoch that could not begin is tried again, and before a root that is not there yet is looked for.
const AGAIN: Duration = Duration::from_secs(10);

/// What a [`RootKeeper`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum RootMsg {
    /// The root, for a member. A caller from outside gets no answer.
    Fetch(Reply<Plain>),
    /// How the epochs are.
    Status(Reply<EpochStatus>),
    /// Begins the next epoch now.
    Advance(Reply<EpochStatus>),
    /// It is time, or may be; sent by itself.
    Due,
    /// An epoch has begun, or not; sent by itself.
    Done(Result<EpochStatus, String>),
}

/// How the epochs are, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStatus {
    /// The epoch that new keys are wrapped in.
    pub current: u64,
    /// The oldest epoch whose key is left.
    pub first: u64,
    /// When the current one began, Unix milliseconds.
    pub since_ms: u64,
    /// Milliseconds until the next one begins.
    pub next_ms: u64,
    /// Tenants with keys.
    pub tenants: u64,
    /// Of them, those that still need an epoch that is over.
    pub behind: u64,
}

/// The behaviour; its data is [`Epochs`].
#[derive(Debug, Clone)]
pub struct RootKeeper(KeysNode);

impl RootKeeper {
    /// Keeps the epochs of the cluster of this node.
    #[must_use]
    pub fn new(node: KeysNode) -> Self {
        Self(node)
    }
}

impl Kind for RootKeeper {
    const NAME: &'static str = "gov.root";
    type Body = RootMsg;

    fn options() -> KindOptions {
        // Where local state is kept, a node that just joined is not asked.
        KindOptions::default().placement(Placement::Singleton).durable(Durability::Local).idle(None)
    }
}

/// The epochs and who waits for the next one.
#[derive(Debug)]
pub struct Epochs {
    cx: ActorCx,
    handle: VaultHandle,
    config: KeysConfig,
    /// When the next epoch begins; none before the root is there.
    due: Option<Instant>,
    under_way: bool,
    waiting: Vec<Reply<EpochStatus>>,
}

impl Actor for RootKeeper {
    type Msg = Mail<RootMsg>;
    type State = Epochs;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Epochs, ActorProcessingErr> {
        let (handle, config) = (self.0.handle().clone(), self.0.config().clone());
        let mut epochs = Epochs { cx, handle, config, due: None, under_way: false, waiting: Vec::new() };
        epochs.look(&me);
        Ok(epochs)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        epochs: &mut Epochs,
    ) -> Result<(), ActorProcessingErr> {
        let is_from_outside = mail.cx.principal().is_some();
        match mail.body {
            RootMsg::Fetch(_) if is_from_outside => tracing::warn!("somebody from outside asked for the root key"),
            RootMsg::Fetch(reply) => match epochs.handle.keystore(|keystore| Handed::of(keystore)) {
                Ok(root) => reply.send(root),
                Err(error) => reply.fail(error),
            },
            RootMsg::Status(reply) => reply.complete(epochs.status().map_err(CallError::from)),
            RootMsg::Advance(reply) => {
                epochs.waiting.push(reply);
                epochs.begin(&me);
            }
            RootMsg::Due => epochs.look(&me),
            RootMsg::Done(done) => epochs.done(&me, &done),
        }
        Ok(())
    }
}

impl Epochs {
    /// Begins an epoch that is due, or waits until it is.
    fn look(&mut self, me: &ActorRef<Mail<RootMsg>>) {
        let now = Instant::now();
        match self.due {
            Some(due) if due <= now => self.begin(me),
            Some(due) => self.wake(me, due - now),
            None => match self.status() {
                Ok(status) => {
                    self.due = Some(now + Duration::from_millis(status.next_ms));
                    self.wake(me, Duration::from_millis(status.next_ms));
                }
                Err(_) => self.wake(me, AGAIN),
            },
        }
    }

    fn wake(&self, me: &ActorRef<Mail<RootMsg>>, after: Duration) {
        self.cx.timer(me, after, RootMsg::Due).detach();
    }

    fn begin(&mut self, me: &ActorRef<Mail<RootMsg>>) {
        if std::mem::replace(&mut self.under_way, true) {
            return;
        }
        let vault = Vault::new(self.cx.village().clone(), self.handle.clone());
        let (cx, me, epoch_ms) = (self.cx.clone(), me.clone(), self.config.epoch_ms());
        let work = async move {
            let advanced = vault.advance_epoch(clock::unix_ms()).await;
            // What this node knows of the decision may be behind it.
            let status = advanced.and_then(|advanced| {
                let (current, first, behind) = (advanced.current, advanced.first, advanced.behind.len() as u64);
                Ok(EpochStatus { current, first, behind, ..status(&vault, epoch_ms)? })
            });
            cx.tell_self(&me, RootMsg::Done(status.map_err(|error| error.to_string())));
        };
        self.cx.village().task("keys.epoch", work).detach();
    }

    fn done(&mut self, me: &ActorRef<Mail<RootMsg>>, done: &Result<EpochStatus, String>) {
        self.under_way = false;
        let next = match done {
            Ok(status) => {
                tracing::info!(epoch = status.current, behind = status.behind, "the keys are in a new epoch");
                self.config.epoch.get()
            }
            Err(error) => {
                tracing::error!(error, "the next epoch of the keys could not begin");
                AGAIN
            }
        };
        self.due = Some(Instant::now() + next);
        self.wake(me, next);
        for reply in self.waiting.drain(..) {
            reply.complete(done.clone().map_err(|error| AppError::new("crypt_epoch", error)));
        }
    }

    fn status(&self) -> Result<EpochStatus, VaultError> {
        let vault = Vault::new(self.cx.village().clone(), self.handle.clone());
        status(&vault, self.config.epoch_ms())
    }
}

fn status(vault: &Vault, epoch_ms: u64) -> Result<EpochStatus, VaultError> {
    let of_file = || {
        vault.handle().keystore(|keystore| {
            let root = keystore.root();
            ((root.first(), root.current()), keystore.since_ms(), keystore.needs().clone())
        })
    };
    let agreed = Register::new(vault.village(), vault.handle()).agreed();
    let agreed = agreed.map(|(agreed, needs)| ((agreed.first, agreed.current), agreed.since_ms, needs));
    let ((first, current), since_ms, needs) = agreed.map_or_else(of_file, Ok)?;
    let behind = needs.values().filter(|epoch| **epoch < current).count() as u64;
    let next_ms = remaining(since_ms, epoch_ms, clock::unix_ms());
    Ok(EpochStatus { current, first, since_ms, next_ms, tenants: needs.len() as u64, behind })
}
