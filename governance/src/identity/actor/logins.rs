//! Logging in, in one step or two, and what follows until the logout.

use aivillage_runtime::{ActorRef, CallError, Mail, Principal, clock};
use uuid::Uuid;

use super::{Desk, Outcome, answer, random, rights};
use crate::identity::accounts::{
    AccountEvent, Accounts, Amr, Challenge, Refreshed, Shown, Subject, SubjectId, Wants, place,
};
use crate::identity::bearer::{Bearer, BearerKind, Minted, TokenId};
use crate::identity::error::IdentityError;
use crate::identity::hashing::{Done, check_login};
use crate::identity::jwt::Claims;
use crate::identity::lockout::LockKey;
use crate::identity::message::{Answer, Delegate, IdentityMsg, Introspection, LoggedIn, Login, SecondFactor};
use crate::identity::names::folded;
use crate::identity::password::PASSWORD_MAX_BYTES;
use crate::identity::secret::Secret;
use crate::identity::totp::{self, Enrolment};
use crate::identity::verifier::Verified;

/// Longest delay that is told when others' attempts are under way.
const BUSY_MS: u64 = 1_000;
/// Most bytes of a name or network that is looked at.
const MAX_TEXT: usize = 256;

fn factor_lock(subject: SubjectId) -> LockKey {
    LockKey::of(&subject.to_string(), "factor")
}

impl Desk {
    /// Refuses an attempt that is not to be looked at yet. Those under way count as failures, or a burst would be free.
    pub(super) fn check_lock(&self, lock: LockKey) -> Result<(), IdentityError> {
        let (locks, now_ms) = (self.accounts.lockouts(), clock::unix_ms());
        let wait_ms = locks.wait_ms(lock, now_ms);
        if wait_ms > 0 {
            return Err(IdentityError::Locked { retry_after_ms: wait_ms });
        }
        if self.pending.running(lock) >= locks.free(lock, now_ms) {
            return Err(IdentityError::Locked { retry_after_ms: BUSY_MS });
        }
        Ok(())
    }

    pub(super) async fn login(&mut self, me: &ActorRef<Mail<IdentityMsg>>, login: Login, reply: Answer<LoggedIn>) {
        let texts = [&login.name, &login.network];
        // Nobody's password is that long: not hashed, so not counted either.
        if texts.iter().any(|text| text.len() > MAX_TEXT) || login.password.expose().len() > PASSWORD_MAX_BYTES {
            return reply.send(Err(IdentityError::Refused));
        }
        let named = match self.names().await {
            Ok(names) => names.id(&login.name),
            Err(failed) => return answer(reply, Err(failed)),
        };
        // Of who has an account no name is kept, not even its hash.
        let lock = LockKey::of(&named.map_or_else(|| folded(&login.name), |id| id.to_string()), &login.network);
        if let Err(error) = self.check_lock(lock) {
            return reply.send(Err(error));
        }
        if self.pending.is_full() {
            return reply.fail(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        let account = named.and_then(|id| Some((id, self.accounts.live(id)?)));
        let account = account.and_then(|(id, one)| Some((id, one.password_sets, one.passwords.first()?.clone())));
        match random().and_then(|salt| Ok((salt, self.node.hashing()?))) {
            Ok((salt, hashing)) => {
                let work = check_login((login, lock), account, salt, reply);
                self.pending.start((&self.cx, me), hashing, lock, work);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Goes on with those whose hash is done.
    pub(super) async fn hashed(&mut self) {
        for done in self.pending.take() {
            match done {
                Done::Login { login, lock, checked, is_right, rehashed, reply } => {
                    let right = checked.filter(|_| is_right);
                    answer(reply, self.logged_in(login.wants, lock, right, rehashed).await);
                }
                Done::Password { subject, lock, before, hashed, reply } => {
                    answer(reply, self.password_hashed(subject, lock, before.as_deref(), hashed).await);
                }
            }
        }
    }

    async fn logged_in(
        &mut self,
        wants: Wants,
        lock: LockKey,
        right: Option<(SubjectId, u64)>,
        rehashed: Option<String>,
    ) -> Outcome<LoggedIn> {
        // The account may have changed while its password was checked.
        let is_present = |id, sets| self.accounts.live(id).is_some_and(|subject| subject.password_sets == sets);
        let right = right.filter(|(id, sets)| is_present(*id, *sets));
        let Some((id, _)) = right else { return self.failed(lock).await };
        let mut events: Vec<_> = rehashed.map(|phc| AccountEvent::PasswordRehashed(id, phc)).into_iter().collect();
        if self.accounts.live(id).is_some_and(Subject::has_mfa) {
            return self.challenge(events, id, lock, wants).await;
        }
        events.extend(self.cleared(lock));
        let shown = Shown { amr: [Amr::Pwd].into(), auth_ms: clock::unix_ms() };
        self.grant(events, id, wants, shown).await
    }

    /// Counts a failure, and refuses.
    async fn failed<T>(&mut self, lock: LockKey) -> Outcome<T> {
        self.commit(vec![AccountEvent::LoginFailed(lock, clock::unix_ms())]).await?;
        Err(IdentityError::Refused.into())
    }

    fn cleared(&self, lock: LockKey) -> Option<AccountEvent> {
        self.accounts.lockouts().has(lock).then_some(AccountEvent::LoginCleared(lock))
    }

    async fn password_hashed(
        &mut self,
        id: SubjectId,
        lock: LockKey,
        before: Option<&str>,
        hashed: Result<String, IdentityError>,
    ) -> Outcome<()> {
        if hashed == Err(IdentityError::Refused) {
            return self.failed(lock).await;
        }
        let is_same = self.accounts.subject(id).is_some_and(|one| one.passwords.first().map(String::as_str) == before);
        if !is_same {
            // Another change came first: what was checked is not what there is.
            return Err(IdentityError::Refused.into());
        }
        let mut events = self.accounts.set_password(id, hashed?)?;
        events.extend(self.cleared(lock));
        Ok(self.commit(events).await?)
    }

    async fn challenge(
        &mut self,
        mut events: Vec<AccountEvent>,
        subject: SubjectId,
        lock: LockKey,
        wants: Wants,
    ) -> Outcome<LoggedIn> {
        let minted = Bearer::mint(BearerKind::Challenge, self.tag, &random()?);
        let now_ms = clock::unix_ms();
        let until_ms = now_ms.saturating_add(self.lives.challenge_ms);
        let challenge = Challenge { hash: minted.hash, subject, lock, wants, expires_ms: until_ms };
        events.extend(self.accounts.challenge(&minted, challenge, now_ms));
        self.commit(events).await?;
        Ok(LoggedIn::Mfa { challenge: minted.secret, until_ms })
    }

    /// Checks a second factor; the events use it up. Failures count from all networks together: whoever comes as far has the
    /// password, and a code has six digits only.
    async fn check_factor(&mut self, subject: SubjectId, code: &Secret) -> Outcome<Vec<AccountEvent>> {
        let lock = factor_lock(subject);
        self.check_lock(lock)?;
        let whose = (self.cx.key(), subject);
        match self.accounts.check_factor(whose, code, self.node.seal()?, clock::unix_ms()) {
            Ok(used) => Ok([Some(used), self.cleared(lock)].into_iter().flatten().collect()),
            Err(IdentityError::Refused) => self.failed(lock).await,
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn second_factor(&mut self, shown: SecondFactor) -> Outcome<LoggedIn> {
        let now_ms = clock::unix_ms();
        let (id, challenge) = self.accounts.open_challenge(self.tag, &shown.credential, now_ms)?;
        let Challenge { subject, lock, wants, .. } = challenge.clone();
        let mut events = self.check_factor(subject, &shown.code).await?;
        events.push(AccountEvent::ChallengeClosed(id));
        events.extend(self.cleared(lock));
        let shown = Shown { amr: [Amr::Pwd, Amr::Otp, Amr::Mfa].into(), auth_ms: now_ms };
        self.grant(events, subject, wants, shown).await
    }

    pub(super) async fn step_up(&mut self, shown: SecondFactor) -> Outcome<LoggedIn> {
        let now_ms = clock::unix_ms();
        let (id, session) = self.accounts.find_session(self.tag, &shown.credential, &self.lives, now_ms)?;
        let subject = session.subject;
        let until_ms = session.made_ms.saturating_add(self.lives.session_ms);
        let used = self.check_factor(subject, &shown.code).await?;
        let raise = |accounts: &Accounts, minted: &Minted| accounts.raise_session(id, minted, &self.lives, now_ms);
        let (minted, mut events) = self.mint(BearerKind::Session, raise)?;
        events.extend(used);
        self.commit(events).await?;
        Ok(LoggedIn::Session { secret: minted.secret, until_ms })
    }

    /// Opens what the login asked for.
    async fn grant(
        &mut self,
        mut events: Vec<AccountEvent>,
        subject: SubjectId,
        wants: Wants,
        shown: Shown,
    ) -> Outcome<LoggedIn> {
        let (now_ms, lives) = (clock::unix_ms(), &self.lives);
        match wants {
            Wants::Session => {
                let (minted, opened) = self.mint(BearerKind::Session, |accounts, minted| {
                    accounts.open_session(subject, minted, shown.clone(), lives, now_ms)
                })?;
                events.extend(opened);
                let until_ms = now_ms.saturating_add(self.lives.session_ms);
                self.commit(events).await?;
                Ok(LoggedIn::Session { secret: minted.secret, until_ms })
            }
            Wants::Tokens { scopes } => {
                let (minted, opened) = self.mint(BearerKind::Refresh, |accounts, minted| {
                    accounts.open_family((subject, scopes.clone()), minted, shown.clone(), lives, now_ms)
                })?;
                events.extend(opened);
                self.commit(events).await?;
                self.tokens(minted.id, minted.secret).await
            }
        }
    }

    /// A new access token of a family beside its refresh token.
    async fn tokens(&mut self, family: TokenId, refresh: Secret) -> Outcome<LoggedIn> {
        let jti = Uuid::now_v7();
        let claims = self.accounts.claims((self.cx.key(), family), jti, &self.node.config, clock::unix_ms())?;
        let access = self.sign(&claims).await?;
        Ok(LoggedIn::Tokens { access, until_ms: claims.exp.saturating_mul(1_000), refresh })
    }

    /// Signs with the current key; one that has signed for long enough gives way first.
    async fn sign(&mut self, claims: &Claims) -> Outcome<Secret> {
        if self.accounts.ring().is_due(self.lives.rotation_ms, clock::unix_ms()) {
            self.rotate().await?;
        }
        let current = self.accounts.ring().current().ok_or(IdentityError::Refused)?;
        let signer = match self.signer.take().filter(|signer| signer.kid() == current.kid) {
            Some(signer) => signer,
            None => current.open(self.cx.key(), self.node.seal()?)?,
        };
        let signed = signer.sign(claims);
        self.signer = Some(signer);
        Ok(signed?)
    }

    pub(super) async fn refresh(&mut self, token: &Secret) -> Outcome<LoggedIn> {
        let (tag, bytes, mut next) = (self.tag, random()?, None);
        let mint = |id| next.insert(Bearer::mint_again(BearerKind::Refresh, tag, id, &bytes)).clone();
        let refreshed = self.accounts.refresh(tag, token, mint, &self.lives, clock::unix_ms())?;
        match (refreshed, next) {
            (Refreshed::Rotated(event, family), Some(next)) => {
                self.commit(vec![event]).await?;
                self.tokens(family, next.secret).await
            }
            (Refreshed::Reused(event) | Refreshed::Rotated(event, _), _) => {
                tracing::warn!(tenant = self.cx.key(), "a refresh token was used twice, its family ends");
                self.commit(vec![event]).await?;
                Err(IdentityError::Refused.into())
            }
        }
    }

    pub(super) async fn logout(&mut self, secret: &Secret) -> Result<(), CallError> {
        let now_ms = clock::unix_ms();
        let session = self.accounts.find_session(self.tag, secret, &self.lives, now_ms).map(|(id, _)| id);
        let family = self.accounts.find_family(self.tag, secret);
        let family = family.or_else(|_| self.verifier.claims(secret.expose(), now_ms).map(|claims| claims.sid));
        let mut events = Vec::new();
        events.extend(session.map(AccountEvent::SessionClosed));
        events.extend(family.map(AccountEvent::FamilyClosed));
        Ok(self.commit(events).await?)
    }

    pub(super) async fn introspect(&mut self, secret: &Secret) -> Introspection {
        let admitted = self.verifier.bearer(secret.expose(), clock::unix_ms());
        let Ok(admitted) = admitted else { return Introspection::default() };
        if let Some(id) = admitted.seen(clock::unix_ms()) {
            self.seen(id).await;
        }
        Introspection { verified: Some(Verified::clone(&admitted.verified)) }
    }

    pub(super) async fn delegate(&mut self, asked: &Delegate, by: Option<&Principal>) -> Outcome<Secret> {
        let now_ms = clock::unix_ms();
        let parent = self.verifier.claims(asked.token.expose(), now_ms).map_err(|_| IdentityError::Refused)?;
        rights::check_delegation(by, parent.sub, asked.actor)?;
        let to = (asked.actor, asked.scopes.as_slice());
        let claims = self.accounts.delegate(&parent, to, Uuid::now_v7(), now_ms)?;
        self.sign(&claims).await
    }

    pub(super) async fn offer_totp(&mut self, id: SubjectId, by: Option<&Principal>) -> Outcome<Enrolment> {
        rights::check_own(by, &self.accounts, id)?;
        let secret: [u8; totp::TOTP_RANDOM] = random()?;
        let sealed = self.node.seal()?.seal(&place(self.cx.key(), id), &secret)?;
        let events = self.accounts.offer_totp(id, sealed)?;
        let name = self.names().await?.of(id).unwrap_or_default().to_owned();
        let shown = totp::enrolment(&secret, &self.node.config.issuer, &name)?;
        self.commit(events).await?;
        Ok(shown)
    }

    pub(super) async fn confirm_totp(
        &mut self,
        id: SubjectId,
        code: &Secret,
        by: Option<&Principal>,
    ) -> Outcome<Vec<Secret>> {
        rights::check_own(by, &self.accounts, id)?;
        let lock = factor_lock(id);
        self.check_lock(lock)?;
        let (codes, hashes) = totp::recovery_codes(&id.to_string(), &random()?);
        let (whose, seal) = ((self.cx.key(), id), self.node.seal()?);
        match self.accounts.confirm_totp(whose, (code, hashes), seal, clock::unix_ms()) {
            Ok(events) => self.commit(events).await?,
            Err(IdentityError::Refused) => return self.failed(lock).await,
            Err(error) => return Err(error.into()),
        }
        Ok(codes)
    }
}
