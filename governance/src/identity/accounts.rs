//! The accounts of one tenant: pure state, made of [`AccountEvent`]s.
//!
//! Commands look at the state and say which events follow, or why none do; they change nothing. Time and randomness are
//! values. Which credentials are let in is told by what is here: what was revoked is gone.
//!
//! What people call themselves and their keys is sealed for them ([`Kept`](crate::keys::Kept)); it is read outside of this.

mod before;
mod event;
mod grants;
mod keys;
mod mfa;
mod record;
mod subjects;

use std::collections::BTreeMap;
use std::ops::Bound;

use aivillage_runtime::{Durable, StoreError};
use serde::{Deserialize, Serialize};

pub use event::{AccountEvent, Touched};
pub use grants::Refreshed;
pub(super) use grants::{counting, session_end_ms};
pub use keys::NewKey;
pub(super) use mfa::place;
pub use record::{Amr, ApiKey, Challenge, Family, Session, Shown, Subject, SubjectId, TotpRecord, Wants};
pub use subjects::NewSubject;
pub(super) use subjects::check_name;

use super::bearer::{Bearer, BearerHash, BearerKind, TenantTag, TokenId};
use super::error::IdentityError;
use super::lockout::Lockouts;
use super::password::PASSWORD_HISTORY;
use super::ring::KeyRing;

/// Most subjects of a tenant.
pub const MAX_SUBJECTS: usize = 100_000;
/// Most sessions, families and keys of a subject, each. The oldest session or family makes room for a new one.
pub const MAX_GRANTS: usize = 100;

/// Subjects, what they log in with, and what logins gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    subjects: BTreeMap<SubjectId, Subject>,
    keys: BTreeMap<TokenId, ApiKey>,
    sessions: BTreeMap<TokenId, Session>,
    families: BTreeMap<TokenId, Family>,
    challenges: BTreeMap<TokenId, Challenge>,
    lockouts: Lockouts,
    ring: KeyRing,
}

impl Accounts {
    /// A subject.
    #[must_use]
    pub fn subject(&self, id: SubjectId) -> Option<&Subject> {
        self.subjects.get(&id)
    }

    /// A subject that may act.
    #[must_use]
    pub fn live(&self, id: SubjectId) -> Option<&Subject> {
        self.subject(id).filter(|subject| !subject.is_suspended)
    }

    /// All subjects, in the order of their making.
    pub fn subjects(&self) -> impl Iterator<Item = (SubjectId, &Subject)> {
        self.subjects_after(Bound::Unbounded)
    }

    /// Subjects from one on.
    pub fn subjects_after(&self, after: Bound<SubjectId>) -> impl Iterator<Item = (SubjectId, &Subject)> {
        self.subjects.range((after, Bound::Unbounded)).map(|(id, subject)| (*id, subject))
    }

    /// All keys that are not revoked.
    pub fn keys(&self) -> impl Iterator<Item = (TokenId, &ApiKey)> {
        self.keys_after(Bound::Unbounded)
    }

    /// Keys from one on, by their ids.
    pub fn keys_after(&self, after: Bound<TokenId>) -> impl Iterator<Item = (TokenId, &ApiKey)> {
        self.keys.range((after, Bound::Unbounded)).map(|(id, key)| (*id, key))
    }

    /// All sessions that were not ended.
    pub fn sessions(&self) -> impl Iterator<Item = (TokenId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// All families that were not ended.
    pub fn families(&self) -> impl Iterator<Item = (TokenId, &Family)> {
        self.families.iter().map(|(id, family)| (*id, family))
    }

    /// A key.
    #[must_use]
    pub fn key(&self, id: TokenId) -> Option<&ApiKey> {
        self.keys.get(&id)
    }

    /// A session.
    #[must_use]
    pub fn session(&self, id: TokenId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// A family of tokens.
    #[must_use]
    pub fn family(&self, id: TokenId) -> Option<&Family> {
        self.families.get(&id)
    }

    /// Who failed to log in.
    #[must_use]
    pub fn lockouts(&self) -> &Lockouts {
        &self.lockouts
    }

    /// The signing keys.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    fn known(&self, id: SubjectId) -> Result<&Subject, IdentityError> {
        self.subject(id).ok_or_else(|| IdentityError::NotFound { what: "subject".to_owned() })
    }

    fn change(&mut self, id: SubjectId, change: impl FnOnce(&mut Subject)) {
        if let Some(subject) = self.subjects.get_mut(&id) {
            change(subject);
        }
    }

    fn rotate(&mut self, id: TokenId, hash: BearerHash, expires_ms: u64) {
        if let Some(family) = self.families.get_mut(&id) {
            family.used.insert(family.hash.short());
            (family.hash, family.expires_ms) = (hash, expires_ms);
        }
    }
}

/// Reads a credential of one kind and one tenant.
fn read(text: &str, kind: BearerKind, tenant: TenantTag) -> Result<Bearer<'_>, IdentityError> {
    let bearer = Bearer::parse(text).map_err(|_| IdentityError::Refused)?;
    if bearer.kind == kind && bearer.tenant == tenant { Ok(bearer) } else { Err(IdentityError::Refused) }
}

impl Durable for Accounts {
    type Event = AccountEvent;
    const SCHEMA: u16 = 2;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::SubjectCreated(id, subject) => drop(self.subjects.insert(*id, (**subject).clone())),
            AccountEvent::PasswordSet(id, phc) => self.change(*id, |subject| {
                subject.password_sets += 1;
                subject.passwords.insert(0, phc.clone());
                subject.passwords.truncate(PASSWORD_HISTORY);
            }),
            AccountEvent::PasswordRehashed(id, phc) => self.change(*id, |subject| {
                if let Some(present) = subject.passwords.first_mut() {
                    present.clone_from(phc);
                }
            }),
            AccountEvent::RolesSet(id, roles) => self.change(*id, |subject| subject.roles.clone_from(roles)),
            AccountEvent::Suspended(id, is) => self.change(*id, |subject| subject.is_suspended = *is),
            AccountEvent::TotpOffered(..)
            | AccountEvent::TotpConfirmed(..)
            | AccountEvent::TotpUsed(..)
            | AccountEvent::RecoveryUsed(..) => self.apply_mfa(event),
            AccountEvent::LoginFailed(key, at_ms) => self.lockouts.failed(*key, *at_ms),
            AccountEvent::LoginCleared(key) => self.lockouts.cleared(*key),
            AccountEvent::ChallengeOpened(id, challenge) => drop(self.challenges.insert(*id, (**challenge).clone())),
            AccountEvent::ChallengeClosed(id) => drop(self.challenges.remove(id)),
            AccountEvent::SessionOpened(id, session) => drop(self.sessions.insert(*id, (**session).clone())),
            AccountEvent::SessionSeen(id, at_ms) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.seen_ms = session.seen_ms.max(*at_ms);
                }
            }
            AccountEvent::SessionClosed(id) => drop(self.sessions.remove(id)),
            AccountEvent::FamilyOpened(id, family) => drop(self.families.insert(*id, (**family).clone())),
            AccountEvent::FamilyRotated(id, hash, expires_ms) => self.rotate(*id, *hash, *expires_ms),
            AccountEvent::FamilyClosed(id) => drop(self.families.remove(id)),
            AccountEvent::KeyCreated(id, key) => drop(self.keys.insert(*id, (**key).clone())),
            AccountEvent::KeyRevoked(id) => drop(self.keys.remove(id)),
            AccountEvent::RingRotated { next, at_ms, overlap_ms } => {
                self.ring.rotate(next.clone(), *at_ms, *overlap_ms);
            }
            AccountEvent::SubjectErased(id) => drop(self.subjects.remove(id)),
        }
    }

    fn upgrade(from: u16, bytes: &[u8]) -> Result<AccountEvent, StoreError> {
        before::event(from, bytes)
    }

    fn upgrade_snapshot(from: u16, bytes: &[u8]) -> Result<Self, StoreError> {
        before::accounts(from, bytes)
    }
}

#[cfg(test)]
pub(super) mod tests;
