//! What logins give: sessions, and families of tokens.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::keys::check_scopes;
use super::{AccountEvent, Accounts, Amr, Family, MAX_GRANTS, Session, Shown, SubjectId, TokenId, read};
use crate::identity::bearer::{BearerKind, Minted, TenantTag};
use crate::identity::config::{IdentityConfig, Lives};
use crate::identity::error::IdentityError;
use crate::identity::jwt::{Act, Claims, MAX_ACTORS};
use crate::identity::role::Role;
use crate::identity::secret::Secret;

/// Refresh tokens that a family has at most: each leaves 64 bits behind.
const MAX_ROTATIONS: usize = 4_096;
/// A session is noted as used at most this often, milliseconds.
const SEEN_MS: u64 = 60_000;
/// Expired sessions and families that a login removes at most.
const SWEEP: usize = 64;

/// What follows from a refresh token that was shown.
#[derive(Debug)]
pub enum Refreshed {
    /// It was the valid one.
    Rotated(AccountEvent, TokenId),
    /// It was used before: the family ends, and the token is refused.
    Reused(AccountEvent),
}

/// The roles that count: those that ask for a second factor only after one.
#[must_use]
pub(in crate::identity) fn counting(roles: &BTreeSet<Role>, shown: &Shown, lives: &Lives) -> BTreeSet<Role> {
    let has_mfa = shown.amr.contains(&Amr::Mfa);
    roles.iter().copied().filter(|role| has_mfa || !lives.mfa_roles.contains(role)).collect()
}

/// When a session ends if it is not used.
#[must_use]
pub(in crate::identity) fn session_end_ms(session: &Session, lives: &Lives) -> u64 {
    session.seen_ms.saturating_add(lives.idle_ms).min(session.made_ms.saturating_add(lives.session_ms))
}

impl Accounts {
    /// Opens a session for a subject that showed who it is.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] unless the subject is live; [`IdentityError::Taken`]: another random id will do.
    pub fn open_session(
        &self,
        subject: SubjectId,
        minted: &Minted,
        shown: Shown,
        lives: &Lives,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        self.live(subject).ok_or(IdentityError::Refused)?;
        if self.session(minted.id).is_some() {
            return Err(IdentityError::Taken);
        }
        let ended = self.sessions().filter(|(_, one)| session_end_ms(one, lives) <= now_ms).map(|(id, _)| id);
        let mut closed: BTreeSet<TokenId> = ended.take(SWEEP).collect();
        let of_subject = self.sessions().filter(|(_, one)| one.subject == subject);
        closed.extend(beyond(of_subject.map(|(id, one)| (one.made_ms, id)).collect()));
        let mut events: Vec<_> = closed.into_iter().map(AccountEvent::SessionClosed).collect();
        let session = Session { hash: minted.hash, subject, shown, made_ms: now_ms, seen_ms: now_ms };
        events.push(AccountEvent::SessionOpened(minted.id, Box::new(session)));
        Ok(events)
    }

    /// Replaces a session by one that was opened with a second factor; it ends when the first one would have.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] unless the old one is open.
    pub fn raise_session(
        &self,
        old: TokenId,
        minted: &Minted,
        lives: &Lives,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        let session = self.session(old).filter(|one| now_ms < session_end_ms(one, lives));
        let session = session.ok_or(IdentityError::Refused)?;
        if self.session(minted.id).is_some() {
            return Err(IdentityError::Taken);
        }
        let mut raised = session.clone();
        raised.shown.amr.extend([Amr::Otp, Amr::Mfa]);
        (raised.hash, raised.shown.auth_ms, raised.seen_ms) = (minted.hash, now_ms, now_ms);
        Ok(vec![AccountEvent::SessionClosed(old), AccountEvent::SessionOpened(minted.id, Box::new(raised))])
    }

    /// Finds the session that a text is of.
    ///
    /// # Errors
    /// [`IdentityError::Refused`]
    pub fn find_session(
        &self,
        tenant: TenantTag,
        text: &Secret,
        lives: &Lives,
        now_ms: u64,
    ) -> Result<(TokenId, &Session), IdentityError> {
        let shown = read(text.expose(), BearerKind::Session, tenant)?;
        let session = self.session(shown.id).filter(|one| one.hash.matches(&shown.hash()));
        let session = session.filter(|one| now_ms < session_end_ms(one, lives)).ok_or(IdentityError::Refused)?;
        Ok((shown.id, session))
    }

    /// Notes that a session is in use; at most once a minute.
    #[must_use]
    pub fn see_session(&self, id: TokenId, lives: &Lives, now_ms: u64) -> Option<AccountEvent> {
        let session = self.session(id).filter(|one| now_ms < session_end_ms(one, lives))?;
        (now_ms.saturating_sub(session.seen_ms) >= SEEN_MS).then_some(AccountEvent::SessionSeen(id, now_ms))
    }

    /// Opens a family of tokens for a subject that showed who it is.
    ///
    /// # Errors
    /// As [`Accounts::open_session`]; [`IdentityError::Invalid`] for the scopes.
    pub fn open_family(
        &self,
        (subject, scopes): (SubjectId, Vec<String>),
        minted: &Minted,
        shown: Shown,
        lives: &Lives,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        self.live(subject).ok_or(IdentityError::Refused)?;
        check_scopes(&scopes)?;
        if self.family(minted.id).is_some() {
            return Err(IdentityError::Taken);
        }
        let ended = self.families().filter(|(_, one)| one.expires_ms <= now_ms).map(|(id, _)| id);
        let mut closed: BTreeSet<TokenId> = ended.take(SWEEP).collect();
        let of_subject = self.families().filter(|(_, one)| one.subject == subject);
        closed.extend(beyond(of_subject.map(|(id, one)| (one.made_ms, id)).collect()));
        let mut events: Vec<_> = closed.into_iter().map(AccountEvent::FamilyClosed).collect();
        let (hash, expires_ms) = (minted.hash, now_ms.saturating_add(lives.refresh_ms));
        let used = BTreeSet::new();
        let family = Family { hash, subject, shown, scopes, made_ms: now_ms, expires_ms, used };
        events.push(AccountEvent::FamilyOpened(minted.id, Box::new(family)));
        Ok(events)
    }

    /// Finds the family whose valid refresh token a text is.
    ///
    /// # Errors
    /// [`IdentityError::Refused`]
    pub fn find_family(&self, tenant: TenantTag, text: &Secret) -> Result<TokenId, IdentityError> {
        let shown = read(text.expose(), BearerKind::Refresh, tenant)?;
        let family = self.family(shown.id).filter(|family| family.hash.matches(&shown.hash()));
        family.map(|_| shown.id).ok_or(IdentityError::Refused)
    }

    /// Takes a refresh token; `mint` makes the next one of the family.
    ///
    /// # Errors
    /// [`IdentityError::Refused`]
    pub fn refresh(
        &self,
        tenant: TenantTag,
        text: &Secret,
        mint: impl FnOnce(TokenId) -> Minted,
        lives: &Lives,
        now_ms: u64,
    ) -> Result<Refreshed, IdentityError> {
        let shown = read(text.expose(), BearerKind::Refresh, tenant)?;
        let family = self.family(shown.id).ok_or(IdentityError::Refused)?;
        let hash = shown.hash();
        if family.used.contains(&hash.short()) {
            return Ok(Refreshed::Reused(AccountEvent::FamilyClosed(shown.id)));
        }
        let is_over = now_ms >= family.expires_ms || family.used.len() >= MAX_ROTATIONS;
        if is_over || !family.hash.matches(&hash) || self.live(family.subject).is_none() {
            return Err(IdentityError::Refused);
        }
        let end_ms = family.made_ms.saturating_add(lives.family_ms);
        let expires_ms = now_ms.saturating_add(lives.refresh_ms).min(end_ms);
        let next = mint(shown.id);
        Ok(Refreshed::Rotated(AccountEvent::FamilyRotated(shown.id, next.hash, expires_ms), shown.id))
    }

    /// What an access token of a family says.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] unless family and subject are live.
    pub fn claims(
        &self,
        (tenant, family_id): (&str, TokenId),
        jti: Uuid,
        config: &IdentityConfig,
        now_ms: u64,
    ) -> Result<Claims, IdentityError> {
        let family = self.family(family_id).ok_or(IdentityError::Refused)?;
        let subject = self.live(family.subject).ok_or(IdentityError::Refused)?;
        let (lives, now_s) = (config.lives(), now_ms / 1_000);
        Ok(Claims {
            iss: config.issuer.clone(),
            aud: config.audience.clone(),
            sub: family.subject,
            exp: now_s.saturating_add(lives.access_ms / 1_000),
            nbf: now_s,
            iat: now_s,
            jti,
            tid: tenant.to_owned(),
            kind: subject.kind,
            sid: family_id,
            roles: counting(&subject.roles, &family.shown, &lives),
            scope: family.scopes.join(" "),
            amr: family.shown.amr.clone(),
            auth_time: family.shown.auth_ms / 1_000,
            act: None,
        })
    }

    /// What a token says by which `actor` acts for the subject of `parent`, a token that was verified. It has no role that
    /// one of them has not, no scope that `parent` has not, and ends with it.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] unless the actor is live, [`IdentityError::TooDeep`]; [`IdentityError::Forbidden`] for a
    /// scope too many.
    pub fn delegate(
        &self,
        parent: &Claims,
        (actor, scopes): (SubjectId, &[String]),
        jti: Uuid,
        now_ms: u64,
    ) -> Result<Claims, IdentityError> {
        let acting = self.live(actor).ok_or(IdentityError::Refused)?;
        if parent.actors().count() >= MAX_ACTORS {
            return Err(IdentityError::TooDeep { max: MAX_ACTORS });
        }
        check_scopes(scopes)?;
        let had = parent.scopes();
        if !had.is_empty() && !scopes.iter().all(|scope| had.contains(scope)) {
            return Err(IdentityError::Forbidden);
        }
        let scope = if scopes.is_empty() { parent.scope.clone() } else { scopes.join(" ") };
        let roles = parent.roles.intersection(&acting.roles).copied().collect();
        let act = Some(Box::new(Act { sub: actor, act: parent.act.clone() }));
        let now_s = now_ms / 1_000;
        Ok(Claims { jti, iat: now_s, nbf: now_s, scope, roles, act, ..parent.clone() })
    }
}

/// The oldest, if there is no room for another.
fn beyond(mut grants: Vec<(u64, TokenId)>) -> Vec<TokenId> {
    grants.sort_unstable();
    let many = (grants.len() + 1).saturating_sub(MAX_GRANTS);
    grants.into_iter().take(many).map(|(_, id)| id).collect()
}
