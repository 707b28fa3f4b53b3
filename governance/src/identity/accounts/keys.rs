//! API keys: made and revoked.

use serde::{Deserialize, Serialize};

use super::{AccountEvent, Accounts, ApiKey, MAX_GRANTS, SubjectId, TokenId};
use crate::identity::bearer::Minted;
use crate::identity::error::IdentityError;
use crate::keys::Kept;

/// Most scopes of a key or a family of tokens.
const MAX_SCOPES: usize = 32;
/// Most bytes of a scope or a label.
const MAX_TEXT: usize = 64;

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Whose it is to be.
    pub subject: SubjectId,
    /// What it is for.
    pub label: String,
    /// Narrowing of the subject's roles; empty means none.
    pub scopes: Vec<String>,
    /// When it ends, Unix milliseconds; `None` never.
    pub expires_ms: Option<u64>,
}

impl Accounts {
    /// Makes a key; `label` is its label, sealed.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] without a live subject, [`IdentityError::Invalid`], [`IdentityError::TooMany`];
    /// [`IdentityError::Taken`] when the id is in use: another random one will do.
    pub fn create_key(
        &self,
        new: NewKey,
        label: Kept,
        minted: &Minted,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        self.live(new.subject).ok_or_else(|| IdentityError::NotFound { what: "subject".to_owned() })?;
        check_scopes(&new.scopes)?;
        if new.label.len() > MAX_TEXT {
            return Err(invalid("label", "has at most 64 bytes"));
        }
        if new.expires_ms.is_some_and(|at| at <= now_ms) {
            return Err(invalid("expires_ms", "is in the future"));
        }
        if self.key(minted.id).is_some() {
            return Err(IdentityError::Taken);
        }
        let ended = |key: &ApiKey| key.expires_ms.is_some_and(|at| at <= now_ms);
        let (old, valid): (Vec<_>, Vec<_>) =
            self.keys().filter(|(_, key)| key.subject == new.subject).partition(|(_, key)| ended(key));
        if valid.len() >= MAX_GRANTS {
            return Err(IdentityError::TooMany { max: MAX_GRANTS });
        }
        let NewKey { subject, scopes, expires_ms, .. } = new;
        let key = ApiKey { hash: minted.hash, subject, label, scopes, made_ms: now_ms, expires_ms };
        let mut events: Vec<_> = old.into_iter().map(|(id, _)| AccountEvent::KeyRevoked(id)).collect();
        events.push(AccountEvent::KeyCreated(minted.id, Box::new(key)));
        Ok(events)
    }

    /// Whose credential this is.
    pub fn owners(&self, id: TokenId) -> impl Iterator<Item = SubjectId> {
        let (key, session) = (self.key(id), self.session(id));
        let owners = [key.map(|one| one.subject), session.map(|one| one.subject)];
        owners.into_iter().chain([self.family(id).map(|one| one.subject)]).flatten()
    }

    /// Revokes a key, a session or a family of tokens by its id.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`]
    pub fn revoke(&self, id: TokenId) -> Result<Vec<AccountEvent>, IdentityError> {
        let mut events = Vec::new();
        events.extend(self.key(id).map(|_| AccountEvent::KeyRevoked(id)));
        events.extend(self.session(id).map(|_| AccountEvent::SessionClosed(id)));
        events.extend(self.family(id).map(|_| AccountEvent::FamilyClosed(id)));
        if events.is_empty() { Err(IdentityError::NotFound { what: "credential".to_owned() }) } else { Ok(events) }
    }
}

/// Scopes are words, so that a token can list them between spaces.
pub(super) fn check_scopes(scopes: &[String]) -> Result<(), IdentityError> {
    let is_word = |scope: &String| {
        (1..=MAX_TEXT).contains(&scope.len()) && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    if scopes.len() <= MAX_SCOPES && scopes.iter().all(is_word) {
        return Ok(());
    }
    Err(invalid("scopes", "are at most 32 words of at most 64 visible ASCII characters"))
}

fn invalid(field: &str, why: &str) -> IdentityError {
    IdentityError::Invalid { field: field.to_owned(), why: why.to_owned() }
}
