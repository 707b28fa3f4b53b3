//! Subjects: made, named, given roles and passwords, suspended.

use std::collections::BTreeSet;

use aivillage_runtime::PrincipalKind;
use serde::{Deserialize, Serialize};

use super::{AccountEvent, Accounts, MAX_SUBJECTS, Subject, SubjectId};
use crate::identity::error::IdentityError;
use crate::identity::ring::SigningKey;
use crate::identity::role::{Role, check_duties};
use crate::keys::Kept;

/// Most bytes of a name.
const MAX_NAME: usize = 128;

/// A subject to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSubject {
    /// What it is; nodes are no subjects of a tenant.
    pub kind: PrincipalKind,
    /// What it logs in with.
    pub name: String,
    /// What it may be.
    pub roles: BTreeSet<Role>,
}

impl Accounts {
    /// Founds the tenant: its signing keys and its first administrator, with its name and that sealed.
    ///
    /// # Errors
    /// [`IdentityError::Founded`] when there are accounts, [`IdentityError::Invalid`] for the name.
    pub fn found(
        &self,
        (id, name, sealed): (SubjectId, &str, Kept),
        ring: [SigningKey; 2],
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        if !self.subjects.is_empty() {
            return Err(IdentityError::Founded);
        }
        let roles = BTreeSet::from([Role::SuperAdmin]);
        let first = NewSubject { kind: PrincipalKind::User, name: name.to_owned(), roles };
        let mut events = Self::first_ring(ring, now_ms);
        events.extend(self.new_subject(id, first, sealed, now_ms)?);
        Ok(events)
    }

    /// Gives the tenant its first signing keys.
    #[must_use]
    pub fn first_ring(ring: [SigningKey; 2], now_ms: u64) -> Vec<AccountEvent> {
        ring.into_iter().map(|next| AccountEvent::RingRotated { next, at_ms: now_ms, overlap_ms: 0 }).collect()
    }

    /// Makes a subject; `name` is its name, sealed, which nobody else may have.
    ///
    /// # Errors
    /// [`IdentityError::Taken`] for its id, [`IdentityError::Invalid`], [`IdentityError::Sod`], [`IdentityError::TooMany`];
    /// [`IdentityError::NotFound`] before the tenant is founded
    pub fn create_subject(
        &self,
        id: SubjectId,
        new: NewSubject,
        name: Kept,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        if self.ring.current().is_none() {
            return Err(IdentityError::NotFound { what: "tenant".to_owned() });
        }
        self.new_subject(id, new, name, now_ms)
    }

    fn new_subject(
        &self,
        id: SubjectId,
        new: NewSubject,
        name: Kept,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        check_name(&new.name)?;
        check_duties(&new.roles)?;
        if new.kind == PrincipalKind::Node {
            return Err(invalid("kind", "is user, service or agent"));
        }
        if self.subject(id).is_some() {
            return Err(IdentityError::Taken);
        }
        if self.subjects.len() >= MAX_SUBJECTS {
            return Err(IdentityError::TooMany { max: MAX_SUBJECTS });
        }
        let subject = Subject {
            kind: new.kind,
            name,
            roles: new.roles,
            is_suspended: false,
            made_ms: now_ms,
            passwords: Vec::new(),
            password_sets: 0,
            totp: None,
            recovery: Vec::new(),
        };
        Ok(vec![AccountEvent::SubjectCreated(id, Box::new(subject))])
    }

    /// Gives a subject a hashed password; its logins end.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`]
    pub fn set_password(&self, id: SubjectId, phc: String) -> Result<Vec<AccountEvent>, IdentityError> {
        self.known(id)?;
        Ok(self.end_logins(id, AccountEvent::PasswordSet(id, phc)))
    }

    /// Gives a subject other roles; its logins end, so that none keeps what it had. Keys go by the new roles at once.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Sod`]
    pub fn set_roles(&self, id: SubjectId, roles: BTreeSet<Role>) -> Result<Vec<AccountEvent>, IdentityError> {
        let subject = self.known(id)?;
        check_duties(&roles)?;
        if subject.roles == roles {
            return Ok(Vec::new());
        }
        Ok(self.end_logins(id, AccountEvent::RolesSet(id, roles)))
    }

    /// Suspends a subject or lets it in again. A suspension ends its logins for good and holds its keys.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`]
    pub fn suspend(&self, id: SubjectId, is_suspended: bool) -> Result<Vec<AccountEvent>, IdentityError> {
        let subject = self.known(id)?;
        if subject.is_suspended == is_suspended {
            return Ok(Vec::new());
        }
        Ok(self.end_logins(id, AccountEvent::Suspended(id, is_suspended)))
    }

    /// Removes a subject with all that it has; there may be none.
    #[must_use]
    pub fn erase(&self, id: SubjectId) -> Vec<AccountEvent> {
        if self.subject(id).is_none() {
            return Vec::new();
        }
        let keys = self.keys().filter(|(_, key)| key.subject == id);
        let mut events: Vec<_> = keys.map(|(id, _)| AccountEvent::KeyRevoked(id)).collect();
        events.extend(self.end_logins(id, AccountEvent::Suspended(id, true)));
        events.push(AccountEvent::SubjectErased(id));
        events
    }

    /// What there is of a subject: itself, its keys, and what its logins gave it.
    #[must_use]
    pub fn items(&self, id: SubjectId) -> u64 {
        let keys = self.keys().filter(|(_, key)| key.subject == id).count();
        let sessions = self.sessions().filter(|(_, session)| session.subject == id).count();
        let families = self.families().filter(|(_, family)| family.subject == id).count();
        let challenges = self.challenges.values().filter(|challenge| challenge.subject == id).count();
        (usize::from(self.subject(id).is_some()) + keys + sessions + families + challenges) as u64
    }

    /// The event, then the end of all that logins have given the subject.
    fn end_logins(&self, id: SubjectId, event: AccountEvent) -> Vec<AccountEvent> {
        let sessions = self.sessions().filter(|(_, session)| session.subject == id);
        let families = self.families().filter(|(_, family)| family.subject == id);
        let challenges = self.challenges.iter().filter(|(_, challenge)| challenge.subject == id);
        let mut events = vec![event];
        events.extend(sessions.map(|(id, _)| AccountEvent::SessionClosed(id)));
        events.extend(families.map(|(id, _)| AccountEvent::FamilyClosed(id)));
        events.extend(challenges.map(|(id, _)| AccountEvent::ChallengeClosed(*id)));
        events
    }
}

/// Whether a subject may be called so.
///
/// # Errors
/// [`IdentityError::Invalid`]
pub(in crate::identity) fn check_name(name: &str) -> Result<(), IdentityError> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(invalid("name", "has 1 to 128 bytes and no control characters"));
    }
    Ok(())
}

fn invalid(field: &str, why: &str) -> IdentityError {
    IdentityError::Invalid { field: field.to_owned(), why: why.to_owned() }
}
