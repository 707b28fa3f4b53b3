//! Subjects: made, named, given roles and passwords, suspended.

use std::collections::BTreeSet;

use aivillage_runtime::PrincipalKind;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::{AccountEvent, Accounts, MAX_SUBJECTS, Subject, SubjectId};
use crate::identity::error::IdentityError;
use crate::identity::ring::SigningKey;
use crate::identity::role::{Role, check_duties};

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
    /// What is compared of a name: those that look the same are the same.
    #[must_use]
    pub fn folded(name: &str) -> String {
        name.trim().nfkc().flat_map(char::to_lowercase).collect()
    }

    /// Founds the tenant: its signing keys and its first administrator.
    ///
    /// # Errors
    /// [`IdentityError::Founded`] when there are accounts, [`IdentityError::Invalid`] for the name.
    pub fn found(
        &self,
        (id, name): (SubjectId, &str),
        ring: [SigningKey; 2],
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        if !self.subjects.is_empty() {
            return Err(IdentityError::Founded);
        }
        let roles = BTreeSet::from([Role::SuperAdmin]);
        let first = NewSubject { kind: PrincipalKind::User, name: name.to_owned(), roles };
        let mut events = Self::first_ring(ring, now_ms);
        events.extend(self.new_subject(id, first, now_ms)?);
        Ok(events)
    }

    /// Gives the tenant its first signing keys.
    #[must_use]
    pub fn first_ring(ring: [SigningKey; 2], now_ms: u64) -> Vec<AccountEvent> {
        ring.into_iter().map(|next| AccountEvent::RingRotated { next, at_ms: now_ms, overlap_ms: 0 }).collect()
    }

    /// Makes a subject.
    ///
    /// # Errors
    /// [`IdentityError::Taken`], [`IdentityError::Invalid`], [`IdentityError::Sod`], [`IdentityError::TooMany`];
    /// [`IdentityError::NotFound`] before the tenant is founded
    pub fn create_subject(
        &self,
        id: SubjectId,
        new: NewSubject,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        if self.ring.current().is_none() {
            return Err(IdentityError::NotFound { what: "tenant".to_owned() });
        }
        self.new_subject(id, new, now_ms)
    }

    fn new_subject(&self, id: SubjectId, new: NewSubject, now_ms: u64) -> Result<Vec<AccountEvent>, IdentityError> {
        check_name(&new.name)?;
        check_duties(&new.roles)?;
        if new.kind == PrincipalKind::Node {
            return Err(invalid("kind", "is user, service or agent"));
        }
        if self.named(&new.name).is_some() || self.subject(id).is_some() {
            return Err(IdentityError::Taken);
        }
        if self.subjects.len() >= MAX_SUBJECTS {
            return Err(IdentityError::TooMany { max: MAX_SUBJECTS });
        }
        let subject = Subject {
            kind: new.kind,
            name: new.name.trim().to_owned(),
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

fn check_name(name: &str) -> Result<(), IdentityError> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(invalid("name", "has 1 to 128 bytes and no control characters"));
    }
    Ok(())
}

fn invalid(field: &str, why: &str) -> IdentityError {
    IdentityError::Invalid { field: field.to_owned(), why: why.to_owned() }
}
