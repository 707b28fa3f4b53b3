//! `gov.identity`: the accounts of a tenant, and who may log in as what.
//!
//! Key: tenant. Durable: yes, replicated; a reply is sent after its events are durable.
//! Lost in a crash: logins whose password is being checked; their callers get `NoReply` and try again.
//!
//! Passwords are checked beside the mailbox ([`Pending`]). What is let in on the hot path is not asked here: see
//! [`VerifierHandle`](super::VerifierHandle).

mod lists;
mod logins;
mod rights;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Entity, Kind, KindOptions, Mail,
    Principal, StoreError, VillageBuilder, clock,
};
use aws_lc_rs::rand;
use uuid::Uuid;

use super::accounts::{AccountEvent, Accounts, NewKey, NewSubject, SubjectId, Touched, check_name};
use super::bearer::{Bearer, BearerKind, Minted, TenantTag, TokenId};
use super::config::{IdentityConfig, Lives};
use super::error::IdentityError;
use super::hashing::{Hashing, Pending, new_password};
use super::jwt::Signer;
use super::lockout::LockKey;
use super::message::{Answer, CreatedKey, IdentityMsg, SetPassword};
use super::names::{self, Names, PURPOSE};
use super::password::Hasher;
use super::ring::SigningKey;
use super::role::Role;
use super::secret::{Pepper, SealKey};
use super::verifier::{TenantView, VerifierHandle, Watch};
use crate::keys::{CryptError, Personal, VaultError, VillageSecret};

/// What labels of keys are sealed for: they do not open as anything else of their owner.
const LABEL: &[u8] = b"label";
/// Ids and credentials tried before their maker gives up: two in a row are alike with a chance of 2^-50.
const TRIES: usize = 3;

/// What the actors of a node share: configuration and keys, the same on every node.
#[derive(Debug, Clone)]
pub struct IdentityNode {
    config: Arc<IdentityConfig>,
    secret: VillageSecret,
    keys: Arc<OnceLock<NodeKeys>>,
}

/// What is derived of the village's secret once it is there.
#[derive(Debug)]
struct NodeKeys {
    /// Seals what must be read again.
    seal: SealKey,
    /// Has the pepper of passwords.
    hashing: Hashing,
}

impl IdentityNode {
    /// Takes the secret that pepper and seal key come of. It may come later: until then what needs them is refused as
    /// [`IdentityError::NotReady`].
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] for a cost that Argon2 does not know.
    pub fn try_new(config: IdentityConfig, secret: VillageSecret) -> Result<Self, IdentityError> {
        config.argon2.params()?;
        Ok(Self { config: Arc::new(config), secret, keys: Arc::default() })
    }

    fn keys(&self) -> Result<&NodeKeys, IdentityError> {
        if let Some(keys) = self.keys.get() {
            return Ok(keys);
        }
        let derive = |purpose| self.secret.derive(purpose).ok_or(IdentityError::NotReady);
        let pepper = Pepper::new(derive("passwords")?.to_vec());
        let seal = SealKey::new(&*derive("credentials")?)?;
        let hashing = Hashing::new(Hasher::try_new(self.config.argon2, pepper)?);
        Ok(self.keys.get_or_init(|| NodeKeys { seal, hashing }))
    }

    fn seal(&self) -> Result<&SealKey, IdentityError> {
        self.keys().map(|keys| &keys.seal)
    }

    fn hashing(&self) -> Result<&Hashing, IdentityError> {
        self.keys().map(|keys| &keys.hashing)
    }
}

/// Hosts the accounts and follows them: the handle knows every tenant that has a copy on the node.
pub fn install(builder: VillageBuilder, node: &IdentityNode) -> (VillageBuilder, VerifierHandle) {
    let verifier = VerifierHandle::new(IdentityConfig::clone(&node.config));
    let (hosted, shown) = (node.clone(), verifier.clone());
    let builder = builder.host(move |_: &ActorCx| Identity(hosted.clone()));
    (builder.replica_view::<Identity, Watch>(move |_| Watch::new(shown.clone())), verifier)
}

/// The behaviour; its data is [`Accounts`].
#[derive(Debug)]
pub struct Identity(IdentityNode);

impl Kind for Identity {
    const NAME: &'static str = "gov.identity";
    type Body = IdentityMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

/// The accounts of a tenant, and what its logins need.
#[derive(Debug)]
pub struct Desk {
    cx: ActorCx,
    node: IdentityNode,
    lives: Lives,
    tag: TenantTag,
    accounts: Entity<Accounts>,
    personal: Personal,
    /// Read when they are first needed: the keys that they are sealed with may come later than the accounts.
    names: Option<Names>,
    /// What this tenant lets in, without the delay of a replica view.
    verifier: VerifierHandle,
    view: Arc<TenantView>,
    signer: Option<Signer>,
    pending: Pending,
    /// A commit failed: the store may hold more than the view shows.
    is_unsettled: bool,
}

impl Actor for Identity {
    type Msg = Mail<IdentityMsg>;
    type State = Desk;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Desk, ActorProcessingErr> {
        let accounts: Entity<Accounts> = cx.recover().await?;
        let lives = self.0.config.lives();
        let verifier = VerifierHandle::new(IdentityConfig { token_cache: 64, ..IdentityConfig::clone(&self.0.config) });
        let view = Arc::new(TenantView::new(cx.key(), &accounts, lives.clone()));
        verifier.show(cx.key(), Some(&view));
        Ok(Desk {
            node: self.0.clone(),
            lives,
            tag: TenantTag::of(cx.key()),
            accounts,
            personal: Personal::new(cx.village(), cx.key(), PURPOSE)?,
            names: None,
            verifier,
            view,
            signer: None,
            pending: Pending::default(),
            is_unsettled: false,
            cx,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        if mail.cx.principal().is_some_and(|by| by.tenant != desk.cx.key()) {
            // The port is dropped with the body: another tenant learns nothing.
            return Ok(());
        }
        desk.handle(&me, mail).await;
        Ok(())
    }
}

/// Why a command has no answer: one that its caller can decide on, or one that nobody here can mend.
#[derive(Debug)]
enum Failed {
    Told(IdentityError),
    Call(CallError),
}

impl From<IdentityError> for Failed {
    fn from(error: IdentityError) -> Self {
        Self::Told(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Call(error.into())
    }
}

impl From<VaultError> for Failed {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Crypt(CryptError::NoRoot | CryptError::NotLoaded) => Self::Told(IdentityError::NotReady),
            other => Self::Call(other.into()),
        }
    }
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Told(error) => AppError::new("governance_unavailable", error.to_string()).into(),
            Failed::Call(error) => error,
        }
    }
}

type Outcome<T> = Result<T, Failed>;

fn answer<T>(reply: Answer<T>, outcome: Outcome<T>) {
    match outcome {
        Ok(value) => reply.send(Ok(value)),
        Err(Failed::Told(error)) => reply.send(Err(error)),
        Err(Failed::Call(error)) => reply.fail(error),
    }
}

/// Random bytes that nobody can guess; not injectable.
fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| IdentityError::Sealed)?;
    Ok(bytes)
}

impl Desk {
    async fn handle(&mut self, me: &ActorRef<Mail<IdentityMsg>>, Mail { body, cx, .. }: Mail<IdentityMsg>) {
        let by = cx.principal();
        match body {
            IdentityMsg::Bootstrap(name, reply) => answer(reply, self.bootstrap(&name, by).await),
            IdentityMsg::CreateUser(new, reply) => answer(reply, self.create(new, by).await),
            IdentityMsg::SetPassword(asked, reply) => self.set_password(me, asked, by, reply).await,
            IdentityMsg::Login(login, reply) => self.login(me, login, reply).await,
            IdentityMsg::Mfa(shown, reply) => answer(reply, self.second_factor(shown).await),
            IdentityMsg::StepUp(shown, reply) => answer(reply, self.step_up(shown).await),
            IdentityMsg::OfferTotp(subject, reply) => answer(reply, self.offer_totp(subject, by).await),
            IdentityMsg::ConfirmTotp(subject, code, reply) => {
                answer(reply, self.confirm_totp(subject, &code, by).await);
            }
            IdentityMsg::Refresh(token, reply) => answer(reply, self.refresh(&token).await),
            IdentityMsg::Logout(secret, reply) => reply.complete(self.logout(&secret).await),
            IdentityMsg::Introspect(secret, reply) => reply.send(self.introspect(&secret).await),
            IdentityMsg::Delegate(asked, reply) => answer(reply, self.delegate(&asked, by).await),
            IdentityMsg::CreateKey(new, reply) => answer(reply, self.create_key(new, by).await),
            IdentityMsg::Revoke(id, reply) => answer(reply, self.revoke(id, by).await),
            IdentityMsg::ListKeys(subject, page, reply) => reply.complete(self.list_keys(subject, page).await),
            IdentityMsg::ListUsers(page, reply) => reply.complete(self.list_users(page).await),
            IdentityMsg::SetRoles(subject, roles, reply) => answer(reply, self.set_roles(subject, roles, by).await),
            IdentityMsg::Suspend(subject, is, reply) => answer(reply, self.suspend(subject, is, by).await),
            IdentityMsg::Find(whom, reply) => reply.complete(self.find(&whom).await),
            IdentityMsg::Jwks(reply) => reply.send(self.accounts.ring().jwks(clock::unix_ms())),
            IdentityMsg::RotateKeys(reply) => answer(reply, self.rotate_for(by).await),
            IdentityMsg::Seen(id) => self.seen(id).await,
            IdentityMsg::Hashed => self.hashed().await,
            IdentityMsg::Erase(subject, reply) => answer(reply, self.erase(subject, by).await),
        }
    }

    /// What the subjects are called.
    async fn names(&mut self) -> Outcome<&mut Names> {
        let names = match self.names.take() {
            Some(names) => names,
            None => Names::read(&self.accounts, &self.personal).await?,
        };
        Ok(self.names.insert(names))
    }

    /// Makes events durable, then lets the tenant's view follow.
    async fn commit(&mut self, events: Vec<AccountEvent>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let touched: Vec<_> = events.iter().map(AccountEvent::touches).collect();
        let was_unsettled = std::mem::replace(&mut self.is_unsettled, true);
        if let Err(error) = self.accounts.commit_all(events).await {
            // Whether it took place is known only when the accounts are read again.
            self.names = None;
            return Err(error);
        }
        self.is_unsettled = false;
        if was_unsettled {
            self.view = Arc::new(TenantView::new(self.cx.key(), &self.accounts, self.lives.clone()));
        } else {
            for touched in &touched {
                self.view.update(&self.accounts, *touched);
            }
        }
        if was_unsettled || touched.contains(&Touched::Ring) {
            self.verifier.show(self.cx.key(), Some(&self.view));
        }
        Ok(())
    }

    /// Makes a credential whose id is free: `open` says `Taken` if it is not.
    fn mint<T>(
        &self,
        kind: BearerKind,
        open: impl Fn(&Accounts, &Minted) -> Result<T, IdentityError>,
    ) -> Result<(Minted, T), IdentityError> {
        let mut tried = Err(IdentityError::Taken);
        for _ in 0..TRIES {
            let minted = Bearer::mint(kind, self.tag, &random()?);
            tried = open(&self.accounts, &minted).map(|opened| (minted, opened));
            if !matches!(tried, Err(IdentityError::Taken)) {
                break;
            }
        }
        tried
    }

    async fn bootstrap(&mut self, name: &str, by: Option<&Principal>) -> Outcome<CreatedKey> {
        if by.is_some() {
            return Err(IdentityError::Forbidden.into());
        }
        if self.accounts.subjects().next().is_some() {
            return Err(IdentityError::Founded.into());
        }
        check_name(name)?;
        let (id, now_ms) = (SubjectId(Uuid::now_v7()), clock::unix_ms());
        let ring = [self.signing_key()?, self.signing_key()?];
        let (name, sealed) = (name.trim(), names::seal(&self.personal, id, name.trim()).await?);
        self.names().await?;
        self.commit(self.accounts.found((id, name, sealed), ring, now_ms)?).await?;
        self.names().await?.add(id, name.to_owned());
        let key = NewKey { subject: id, label: "first".to_owned(), scopes: Vec::new(), expires_ms: None };
        self.create_key(key, None).await
    }

    async fn create(&mut self, new: NewSubject, by: Option<&Principal>) -> Outcome<SubjectId> {
        rights::check_grant(by, &new.roles)?;
        let (id, now_ms) = (SubjectId(Uuid::now_v7()), clock::unix_ms());
        // Whoever may make the first one runs the village: the tenant has no accounts that could say so.
        if self.accounts.ring().current().is_none() {
            let ring = [self.signing_key()?, self.signing_key()?];
            self.commit(Accounts::first_ring(ring, now_ms)).await?;
        }
        check_name(&new.name)?;
        if self.names().await?.id(&new.name).is_some() {
            return Err(IdentityError::Taken.into());
        }
        let name = new.name.trim().to_owned();
        let sealed = names::seal(&self.personal, id, &name).await?;
        self.commit(self.accounts.create_subject(id, new, sealed, now_ms)?).await?;
        self.names().await?.add(id, name);
        Ok(id)
    }

    async fn erase(&mut self, id: SubjectId, by: Option<&Principal>) -> Outcome<bool> {
        if by.is_some() {
            return Err(IdentityError::Forbidden.into());
        }
        let events = self.accounts.erase(id);
        let was_there = !events.is_empty();
        self.commit(events).await?;
        if let Some(names) = &mut self.names {
            names.remove(id);
        }
        Ok(was_there)
    }

    async fn set_roles(&mut self, id: SubjectId, roles: BTreeSet<Role>, by: Option<&Principal>) -> Outcome<()> {
        rights::check_grant(by, &roles)?;
        // Taking a role away asks for as much as giving it.
        rights::check_grant(by, self.accounts.subject(id).map_or(&BTreeSet::new(), |subject| &subject.roles))?;
        Ok(self.commit(self.accounts.set_roles(id, roles)?).await?)
    }

    async fn suspend(&mut self, id: SubjectId, is_suspended: bool, by: Option<&Principal>) -> Outcome<()> {
        rights::check_grant(by, self.accounts.subject(id).map_or(&BTreeSet::new(), |subject| &subject.roles))?;
        Ok(self.commit(self.accounts.suspend(id, is_suspended)?).await?)
    }

    async fn set_password(
        &mut self,
        me: &ActorRef<Mail<IdentityMsg>>,
        asked: SetPassword,
        by: Option<&Principal>,
        reply: Answer<()>,
    ) {
        let lock = LockKey::of(&asked.subject.to_string(), "password");
        if let Err(error) = self.check_password(&asked, lock, by) {
            return reply.send(Err(error));
        }
        if self.pending.is_full() {
            return reply.fail(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        let name = match self.names().await {
            Ok(names) => names.of(asked.subject).unwrap_or_default().to_owned(),
            Err(failed) => return answer(reply, Err(failed)),
        };
        let Some(subject) = self.accounts.subject(asked.subject) else { return };
        let known = (subject.passwords.clone(), vec![name, self.cx.key().to_owned()]);
        match random().and_then(|salt| Ok((salt, self.node.hashing()?))) {
            Ok((salt, hashing)) => {
                let work = new_password((asked, lock), known, salt, reply);
                self.pending.start((&self.cx, me), hashing, lock, work);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Whether a new password is worth hashing.
    fn check_password(&self, asked: &SetPassword, lock: LockKey, by: Option<&Principal>) -> Result<(), IdentityError> {
        let subject = self.accounts.subject(asked.subject);
        // Whoever sits at an open session must not be able to take the account over with it.
        if by.is_some_and(|by| by.subject == asked.subject.to_string()) {
            let shows = asked.current.is_some() || subject.is_none_or(|subject| subject.passwords.is_empty());
            return if shows { self.check_lock(lock) } else { Err(IdentityError::Forbidden) };
        }
        rights::check_own(by, &self.accounts, asked.subject)?;
        subject.ok_or_else(|| IdentityError::NotFound { what: "subject".to_owned() })?;
        // Wrong guesses of the present password do not keep an administrator from setting another.
        if asked.current.is_some() { self.check_lock(lock) } else { Ok(()) }
    }

    async fn create_key(&mut self, new: NewKey, by: Option<&Principal>) -> Outcome<CreatedKey> {
        rights::check_key(by, &self.accounts, &new)?;
        let now_ms = clock::unix_ms();
        if self.accounts.live(new.subject).is_none() {
            return Err(IdentityError::NotFound { what: "subject".to_owned() }.into());
        }
        let label = self.personal.seal(&new.subject.to_string(), LABEL, &new.label).await?;
        let make =
            |accounts: &Accounts, minted: &Minted| accounts.create_key(new.clone(), label.clone(), minted, now_ms);
        let (minted, events) = self.mint(BearerKind::ApiKey, make)?;
        self.commit(events).await?;
        Ok(CreatedKey { subject: new.subject, id: minted.id, secret: minted.secret })
    }

    async fn revoke(&mut self, id: TokenId, by: Option<&Principal>) -> Outcome<()> {
        let events = self.accounts.revoke(id)?;
        let may = |subject| rights::check_own(by, &self.accounts, subject).is_ok();
        if !self.accounts.owners(id).all(may) {
            // As if it did not exist: others' credentials are nobody's business.
            return Err(IdentityError::NotFound { what: "credential".to_owned() }.into());
        }
        Ok(self.commit(events).await?)
    }

    fn signing_key(&self) -> Result<SigningKey, IdentityError> {
        SigningKey::new(self.cx.key(), &random()?, self.node.seal()?)
    }

    async fn rotate_for(&mut self, by: Option<&Principal>) -> Outcome<()> {
        rights::check_grant(by, &BTreeSet::from([Role::SuperAdmin]))?;
        self.rotate().await
    }

    async fn rotate(&mut self) -> Outcome<()> {
        if self.accounts.ring().current().is_none() {
            return Err(IdentityError::NotFound { what: "tenant".to_owned() }.into());
        }
        let (next, at_ms, overlap_ms) = (self.signing_key()?, clock::unix_ms(), self.lives.overlap_ms());
        Ok(self.commit(vec![AccountEvent::RingRotated { next, at_ms, overlap_ms }]).await?)
    }

    async fn seen(&mut self, id: TokenId) {
        let events = self.accounts.see_session(id, &self.lives, clock::unix_ms());
        if let Err(error) = self.commit(events.into_iter().collect()).await {
            tracing::debug!(%error, "the use of a session is not noted, it ends early");
        }
    }
}

#[cfg(test)]
mod tests;
