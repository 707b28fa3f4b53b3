//! What is kept of subjects and of what they log in with.

use std::collections::BTreeSet;
use std::fmt;

use aivillage_runtime::PrincipalKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::bearer::BearerHash;
use crate::identity::lockout::LockKey;
use crate::identity::role::Role;
use crate::keys::Kept;

/// Names a subject for good, whatever it is called; a `UUIDv7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectId(pub Uuid);

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a subject showed who it is (RFC 8176).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amr {
    /// A password.
    Pwd,
    /// A time-based or a recovery code.
    Otp,
    /// More than one factor.
    Mfa,
}

/// A person, program or agent of the tenant. Its name is sealed for it; it was not once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject<N = Kept> {
    /// What it is.
    pub kind: PrincipalKind,
    /// What it logs in with.
    pub name: N,
    /// What it may be.
    pub roles: BTreeSet<Role>,
    /// It may do nothing until that is taken back.
    pub is_suspended: bool,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// PHC strings, the present one first.
    pub passwords: Vec<String>,
    /// How often it got one; a hash that is made anew of the same one does not count.
    pub password_sets: u64,
    /// Its second factor.
    pub totp: Option<TotpRecord>,
    /// Hashes of the recovery codes that are left.
    pub recovery: Vec<BearerHash>,
}

impl<N> Subject<N> {
    /// Whether a login needs a second factor.
    #[must_use]
    pub fn has_mfa(&self) -> bool {
        self.totp.as_ref().is_some_and(|totp| totp.is_confirmed)
    }
}

/// A device that makes codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpRecord {
    /// The secret, sealed.
    pub sealed: Vec<u8>,
    /// A code of it was shown, so it works.
    pub is_confirmed: bool,
    /// Step of the last code; no code up to it counts any more.
    pub last_step: u64,
}

/// A key of a program. Its label is sealed for its owner; it was not once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey<N = Kept> {
    /// SHA-256 of its text.
    pub hash: BearerHash,
    /// Whose it is.
    pub subject: SubjectId,
    /// What it is for, in its owner's words.
    pub label: N,
    /// Narrowing of the owner's roles; empty means none.
    pub scopes: Vec<String>,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// When it ends, Unix milliseconds; `None` never.
    pub expires_ms: Option<u64>,
}

/// How and when a login took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What was shown.
    pub amr: BTreeSet<Amr>,
    /// When, Unix milliseconds.
    pub auth_ms: u64,
}

/// A session of a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of its text.
    pub hash: BearerHash,
    /// Whose it is.
    pub subject: SubjectId,
    /// How it began. A session that a second factor replaces keeps its absolute end.
    pub shown: Shown,
    /// When the first of its line was opened, Unix milliseconds.
    pub made_ms: u64,
    /// When it was last used, Unix milliseconds, to the minute.
    pub seen_ms: u64,
}

/// Refresh tokens that came out of one login; one of them is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// SHA-256 of the valid one.
    pub hash: BearerHash,
    /// Whose it is.
    pub subject: SubjectId,
    /// How it began.
    pub shown: Shown,
    /// Narrowing of the owner's roles; empty means none.
    pub scopes: Vec<String>,
    /// When the login was, Unix milliseconds.
    pub made_ms: u64,
    /// When the valid one ends, Unix milliseconds.
    pub expires_ms: u64,
    /// The first 64 bits of the hashes of those before it: whoever shows one again is not the owner, or not alone.
    pub used: BTreeSet<u64>,
}

/// A right password that waits for the second factor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// SHA-256 of its text.
    pub hash: BearerHash,
    /// Whose it is.
    pub subject: SubjectId,
    /// Where the failures are counted.
    pub lock: LockKey,
    /// What the login asked for.
    pub wants: Wants,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
}

/// What a login is to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    /// A session, for a browser's cookie.
    Session,
    /// An access and a refresh token.
    Tokens {
        /// Narrowing of the roles; empty means none.
        scopes: Vec<String>,
    },
}
