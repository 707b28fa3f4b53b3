//! `gov.keys`: the keys of one tenant.
//!
//! Key: the [`TenantId`]. Durable: the wrapped keys, replicated ([`KeyRing`]); the unwrapped ones are in the node's
//! [`VaultHandle`] while the actor is active there. Lost in a crash: the mail in hand, and how many messages were sealed since the
//! last epoch began: a DEK then lives longer than its count allows by at most those.
//!
//! [`Vault`] is how the rest of a node uses it: the handle where that has the keys, messages where it has not.

mod client;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Entity, Kind, KindOptions, Mail,
    Reply, StoreError, clock,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

pub use client::{Advanced, Vault, VaultError};

use super::certificate::{DestroyedKey, Stamp};
use super::config::KeysConfig;
use super::error::CryptError;
use super::handle::VaultHandle;
use super::keystore::KeystoreError;
use super::node::KeysNode;
use super::register::Register;
use super::ring::{KeyRing, RingEvent, RotateWhen};
use super::scope::{DekId, Purpose, Scope, SubjectTag, TenantId};

/// Counts that one event carries.
const COUNTS: usize = 1_000;
/// DEKs that are replaced with a new epoch; more of them wait for the next one.
const ROTATED: usize = 1_000;

/// What a [`KeyVault`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum KeyVaultMsg {
    /// Seals a value, with a new key if there is none yet.
    Seal {
        /// Whom it is about.
        subject: SubjectTag,
        /// What it is kept for.
        purpose: Purpose,
        /// Where it will be stored.
        record: ByteBuf,
        /// The value.
        plain: Plain,
        /// The envelope.
        reply: Reply<Result<ByteBuf, CryptError>>,
    },
    /// Opens a value.
    Open {
        /// Whom it is about.
        subject: SubjectTag,
        /// What it is kept for.
        purpose: Purpose,
        /// Where it was stored.
        record: ByteBuf,
        /// The envelope.
        sealed: ByteBuf,
        /// The value.
        reply: Reply<Result<Plain, CryptError>>,
    },
    /// Makes sure that there is a key that may seal, durable before the reply; tells which.
    Prepare(SubjectTag, Purpose, Reply<Result<DekId, CryptError>>),
    /// Makes a new key that seals from now on; older ones still open.
    Rotate(SubjectTag, Purpose, Reply<Result<DekId, CryptError>>),
    /// Destroys all keys of a subject, for good; durable before the reply. A repetition gets the same answer.
    Shred(SubjectTag, Reply<Result<Shredding, CryptError>>),
    /// What there is, without secrets.
    Status(Reply<VaultStatus>),
    /// Moves the keys into this epoch or a later one and replaces those that are due; tells the oldest epoch still needed.
    AdvanceEpoch(u64, Reply<Result<u64, CryptError>>),
    /// The wrapped keys, for a node that has no copy of them.
    Ring(Reply<KeyRing>),
    /// One step of that; between two of them other mail is handled.
    Step,
}

/// A value in the clear: not shown, and overwritten when dropped.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plain(ByteBuf);

impl Plain {
    /// Takes a value.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(ByteBuf::from(bytes))
    }

    /// The value.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).into_vec()
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({} bytes)", self.0.len())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What became of a subject's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shredding {
    /// When they were destroyed.
    pub at: Stamp,
    /// The keys, as a certificate names them.
    pub keys: Vec<DestroyedKey>,
    /// When no backup holds them readably any more, if epochs advance as configured.
    pub backups_unreadable_by: Stamp,
}

/// What a tenant's vault holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// Whose it is.
    pub tenant: TenantId,
    /// The oldest epoch that its keys are wrapped in; none before the first key.
    pub epoch: Option<u64>,
    /// Generation of its KEK.
    pub generation: u32,
    /// DEKs.
    pub keys: u64,
    /// Subjects that were erased.
    pub shredded: u64,
    /// Messages that this node sealed or opened in vain because the bytes were not what was sealed, of all tenants.
    pub refused: u64,
}

/// The behaviour; its data is [`Keys`].
#[derive(Debug)]
pub struct KeyVault {
    handle: VaultHandle,
}

impl KeyVault {
    /// The vaults of a node, which publish their keys in `handle`.
    #[must_use]
    pub fn new(handle: VaultHandle) -> Self {
        Self { handle }
    }
}

impl Kind for KeyVault {
    const NAME: &'static str = "gov.keys";
    type Body = KeyVaultMsg;

    fn options() -> KindOptions {
        // Without the actor the node has no keys, so it stays.
        KindOptions::default().durable(Durability::Replicated).idle(None).mailbox(4_096)
    }
}

/// The ring of a tenant, and who waits for its epoch.
#[derive(Debug)]
pub struct Keys {
    cx: ActorCx,
    tenant: TenantId,
    ring: Entity<KeyRing>,
    handle: VaultHandle,
    config: KeysConfig,
    waiting: Vec<Reply<Result<u64, CryptError>>>,
}

impl Actor for KeyVault {
    type Msg = Mail<KeyVaultMsg>;
    type State = Keys;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Keys, ActorProcessingErr> {
        let tenant = TenantId(cx.key().parse()?);
        let (ring, config) = (cx.recover::<KeyRing>().await?, cx.config("governance.keys")?);
        if let Some(node) = cx.village().provided::<KeysNode>() {
            node.ready(cx.village()).await?;
        }
        let keys = Keys { cx, tenant, ring, handle: self.handle.clone(), config, waiting: Vec::new() };
        if let Some(epoch) = keys.ring.epoch() {
            keys.register().enroll(tenant, epoch).await?;
        }
        keys.handle.hold(&keys.ring, tenant)?;
        Ok(keys)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        keys: &mut Keys,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            KeyVaultMsg::Seal { subject, purpose, record, plain, reply } => {
                let sealed = keys.seal(keys.scope(subject, purpose), &record, &plain).await;
                reply.complete(answer(sealed));
            }
            KeyVaultMsg::Open { subject, purpose, record, sealed, reply } => {
                let opened = keys.handle.open(&keys.scope(subject, purpose), &record, &sealed);
                reply.send(opened.map(Plain::new));
            }
            KeyVaultMsg::Prepare(subject, purpose, reply) => {
                reply.complete(answer(keys.prepare(&keys.scope(subject, purpose)).await));
            }
            KeyVaultMsg::Rotate(subject, purpose, reply) => {
                reply.complete(answer(keys.rotate(&keys.scope(subject, purpose)).await));
            }
            KeyVaultMsg::Shred(subject, reply) => reply.complete(answer(keys.shred(subject).await)),
            KeyVaultMsg::Status(reply) => reply.send(keys.status()),
            KeyVaultMsg::AdvanceEpoch(epoch, reply) => keys.begin_epoch(&me, epoch, reply).await,
            KeyVaultMsg::Ring(reply) => reply.send(KeyRing::clone(&keys.ring)),
            KeyVaultMsg::Step => keys.step(&me).await,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, keys: &mut Keys) -> Result<(), ActorProcessingErr> {
        keys.handle.release(keys.tenant);
        Ok(())
    }
}

/// Why a request has no result.
enum Fault {
    /// Its caller is told.
    Crypt(CryptError),
    /// The system could not do it.
    Call(CallError),
}

impl From<CryptError> for Fault {
    fn from(error: CryptError) -> Self {
        Self::Crypt(error)
    }
}

impl From<KeystoreError> for Fault {
    fn from(error: KeystoreError) -> Self {
        Self::Crypt(error.into())
    }
}

impl From<VaultError> for Fault {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Crypt(error) => Self::Crypt(error),
            other => Self::Call(other.into()),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Call(error.into())
    }
}

fn answer<T>(outcome: Result<T, Fault>) -> Result<Result<T, CryptError>, CallError> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Crypt(error)) => Ok(Err(error)),
        Err(Fault::Call(error)) => Err(error),
    }
}

impl Keys {
    fn scope(&self, subject: SubjectTag, purpose: Purpose) -> Scope {
        Scope { tenant: self.tenant, subject, purpose }
    }

    async fn seal(&mut self, scope: Scope, record: &[u8], plain: &Plain) -> Result<ByteBuf, Fault> {
        self.prepare(&scope).await?;
        Ok(ByteBuf::from(self.handle.seal(&scope, record, &plain.0)?))
    }

    async fn prepare(&mut self, scope: &Scope) -> Result<DekId, Fault> {
        if let Some(newest) = self.ring.newest(scope) {
            let sealed = self.handle.sealed(scope, newest.id).unwrap_or(newest.messages);
            if !newest.is_due(sealed, self.rotate_when(), clock::unix_ms()) {
                return Ok(newest.id);
            }
        }
        self.rotate(scope).await
    }

    async fn rotate(&mut self, scope: &Scope) -> Result<DekId, Fault> {
        self.found().await?;
        let (id, now_ms, ring) = (DekId::now(), clock::unix_ms(), &self.ring);
        let event = self.handle.keystore(|keystore| ring.new_dek(keystore.root(), scope, id, now_ms))??;
        self.ring.commit(event).await?;
        self.handle.publish_subject(&self.ring, scope.subject)?;
        Ok(id)
    }

    async fn shred(&mut self, subject: SubjectTag) -> Result<Shredding, Fault> {
        self.found().await?;
        if let Some(event) = self.ring.shred(subject, clock::unix_ms()) {
            self.ring.commit(event).await?;
            tracing::info!(tenant = %self.tenant, "the keys of a subject were destroyed");
        }
        self.handle.publish_subject(&self.ring, subject)?;
        let tombstone = self.ring.tombstone(subject).ok_or(CryptError::NoKey)?;
        let at = Stamp(tombstone.at_ms);
        let key = |(dek_id, epoch): &(DekId, u64)| DestroyedKey { dek_id: *dek_id, epoch: *epoch, destroyed_at: at };
        let unreadable = tombstone.at_ms.saturating_add(self.config.epoch_ms().saturating_mul(2));
        let keys = tombstone.keys.iter().map(key).collect();
        Ok(Shredding { at, keys, backups_unreadable_by: Stamp(unreadable) })
    }

    fn status(&self) -> VaultStatus {
        VaultStatus {
            tenant: self.tenant,
            epoch: self.ring.epoch(),
            generation: self.ring.generation(),
            keys: self.ring.deks(),
            shredded: self.ring.shredded() as u64,
            refused: self.handle.refused(),
        }
    }

    /// Makes the first KEK if there is none.
    async fn found(&mut self) -> Result<(), Fault> {
        if self.ring.tenant().is_some() {
            return Ok(());
        }
        self.register().follow().await?;
        let event = self.handle.keystore(|keystore| KeyRing::found(self.tenant, keystore.root()))??;
        if let RingEvent::Founded { epoch, .. } = &event {
            self.register().enroll(self.tenant, *epoch).await?;
        }
        self.ring.commit(event).await?;
        Ok(self.handle.publish(&self.ring)?)
    }

    fn register(&self) -> Register<'_> {
        Register::new(self.cx.village(), &self.handle)
    }

    fn rotate_when(&self) -> RotateWhen {
        RotateWhen { messages: self.config.rotate_messages, age_ms: self.config.rotate_after_ms() }
    }

    async fn begin_epoch(
        &mut self,
        me: &ActorRef<Mail<KeyVaultMsg>>,
        epoch: u64,
        reply: Reply<Result<u64, CryptError>>,
    ) {
        self.waiting.push(reply);
        if self.waiting.len() > 1 {
            return;
        }
        if let Err(error) = self.register().reach(epoch).await {
            return self.end_epoch(Err(error.into()));
        }
        match self.replace_due().await {
            Ok(()) => self.step(me).await,
            Err(fault) => self.end_epoch(Err(fault)),
        }
    }

    /// Writes down how often each key has sealed, and replaces those that are due among them.
    async fn replace_due(&mut self) -> Result<(), Fault> {
        let counts = self.handle.counts(&self.ring);
        for counts in counts.chunks(COUNTS) {
            self.ring.commit(RingEvent::Counted(counts.to_vec())).await?;
        }
        let (now_ms, when) = (clock::unix_ms(), self.rotate_when());
        let due = counts.iter().filter_map(|(subject, id, sealed)| {
            let dek = self.ring.deks_of(*subject).iter().find(|dek| dek.id == *id)?;
            let scope = self.scope(*subject, dek.purpose.clone());
            (dek.is_due(*sealed, when, now_ms) && self.ring.is_current(&scope, *id)).then_some(scope)
        });
        let due: Vec<_> = due.take(ROTATED).collect();
        for scope in due {
            self.rotate(&scope).await?;
        }
        Ok(())
    }

    async fn step(&mut self, me: &ActorRef<Mail<KeyVaultMsg>>) {
        match self.move_on().await {
            Ok(true) => drop(self.cx.tell_self(me, KeyVaultMsg::Step)),
            Ok(false) => self.end_epoch(Ok(self.ring.epoch())),
            Err(fault) => self.end_epoch(Err(fault)),
        }
    }

    async fn move_on(&mut self) -> Result<bool, Fault> {
        let ring = &self.ring;
        let Some(event) = self.handle.keystore(|keystore| ring.next_step(keystore.root()))?? else { return Ok(false) };
        self.ring.commit(event).await?;
        Ok(true)
    }

    fn end_epoch(&mut self, outcome: Result<Option<u64>, Fault>) {
        let current = self.handle.keystore(|keystore| keystore.root().current());
        let outcome = answer(outcome.and_then(|epoch| Ok(epoch.map_or(current, Ok)?)));
        for reply in self.waiting.drain(..) {
            reply.complete(outcome.clone());
        }
    }
}

impl From<CryptError> for CallError {
    fn from(error: CryptError) -> Self {
        Self::App(AppError::new(error.code(), error.to_string()))
    }
}

#[cfg(test)]
mod tests;
