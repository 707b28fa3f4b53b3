//! What happened to the accounts of a tenant, and which records an event changes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::{ApiKey, Challenge, Family, Session, Subject, SubjectId};
use crate::identity::bearer::{BearerHash, TokenId};
use crate::identity::lockout::LockKey;
use crate::identity::ring::SigningKey;
use crate::identity::role::Role;

/// A change of a tenant's accounts. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountEvent {
    /// A subject was made.
    SubjectCreated(SubjectId, Box<Subject>),
    /// It got a password.
    PasswordSet(SubjectId, String),
    /// Its password was hashed anew, at the present cost.
    PasswordRehashed(SubjectId, String),
    /// It got other roles.
    RolesSet(SubjectId, BTreeSet<Role>),
    /// It was suspended, or let in again.
    Suspended(SubjectId, bool),
    /// It was shown the sealed secret of a second factor.
    TotpOffered(SubjectId, Vec<u8>),
    /// It showed a first code, of this step, and got recovery codes.
    TotpConfirmed(SubjectId, u64, Vec<BearerHash>),
    /// It showed the code of this step.
    TotpUsed(SubjectId, u64),
    /// It used up a recovery code.
    RecoveryUsed(SubjectId, BearerHash),
    /// Somebody failed to log in.
    LoginFailed(LockKey, u64),
    /// Somebody logged in.
    LoginCleared(LockKey),
    /// A right password waits for the second factor.
    ChallengeOpened(TokenId, Box<Challenge>),
    /// It waits no more.
    ChallengeClosed(TokenId),
    /// A session began.
    SessionOpened(TokenId, Box<Session>),
    /// It was used.
    SessionSeen(TokenId, u64),
    /// It ended.
    SessionClosed(TokenId),
    /// A login gave its first refresh token.
    FamilyOpened(TokenId, Box<Family>),
    /// That was replaced by the next, which ends at a time.
    FamilyRotated(TokenId, BearerHash, u64),
    /// The family ended.
    FamilyClosed(TokenId),
    /// A key was made.
    KeyCreated(TokenId, Box<ApiKey>),
    /// It was revoked.
    KeyRevoked(TokenId),
    /// The next signing key became the current one.
    RingRotated {
        /// The one after it.
        next: SigningKey,
        /// When.
        at_ms: u64,
        /// For how long the one before verifies.
        overlap_ms: u64,
    },
    /// A subject was erased; what it had ended before.
    SubjectErased(SubjectId),
}

/// The record that an event changes, as far as a verifier has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// A subject, with all its keys.
    Subject(SubjectId),
    /// A key.
    Key(TokenId),
    /// A session.
    Session(TokenId),
    /// A family of tokens.
    Family(TokenId),
    /// The signing keys.
    Ring,
    /// Nothing that lets anybody in.
    Nothing,
}

impl AccountEvent {
    /// What it changes.
    #[must_use]
    pub fn touches(&self) -> Touched {
        match self {
            Self::SubjectCreated(id, _) | Self::RolesSet(id, _) | Self::Suspended(id, _) | Self::SubjectErased(id) => {
                Touched::Subject(*id)
            }
            Self::SessionOpened(id, _) | Self::SessionSeen(id, _) | Self::SessionClosed(id) => Touched::Session(*id),
            Self::FamilyOpened(id, _) | Self::FamilyRotated(id, ..) | Self::FamilyClosed(id) => Touched::Family(*id),
            Self::KeyCreated(id, _) | Self::KeyRevoked(id) => Touched::Key(*id),
            Self::RingRotated { .. } => Touched::Ring,
            Self::PasswordSet(..)
            | Self::PasswordRehashed(..)
            | Self::TotpOffered(..)
            | Self::TotpConfirmed(..)
            | Self::TotpUsed(..)
            | Self::RecoveryUsed(..)
            | Self::LoginFailed(..)
            | Self::LoginCleared(_)
            | Self::ChallengeOpened(..)
            | Self::ChallengeClosed(_) => Touched::Nothing,
        }
    }
}
