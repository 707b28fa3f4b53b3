//! What is said to [`Identity`](super::Identity), and what it answers.

use std::collections::BTreeSet;

use aivillage_runtime::{PrincipalKind, Reply};
use serde::{Deserialize, Serialize};

use super::accounts::{NewKey, NewSubject, SubjectId, Wants};
use super::bearer::TokenId;
use super::error::IdentityError;
use super::ring::PublicJwks;
use super::role::Role;
use super::secret::Secret;
use super::totp::Enrolment;
use super::verifier::Verified;

/// What a caller gets: an answer, or what it can decide on.
pub type Answer<T> = Reply<Result<T, IdentityError>>;

/// What the accounts of a tenant understand.
#[derive(Debug, Serialize, Deserialize)]
pub enum IdentityMsg {
    /// Founds the tenant: its signing keys, its first administrator with this name, and a key of that one.
    Bootstrap(String, Answer<CreatedKey>),
    /// Makes a person, program or agent.
    CreateUser(NewSubject, Answer<SubjectId>),
    /// Gives a subject a password; all its logins end.
    SetPassword(SetPassword, Answer<()>),
    /// Logs in with name and password.
    Login(Login, Answer<LoggedIn>),
    /// Shows the second factor to a challenge.
    Mfa(SecondFactor, Answer<LoggedIn>),
    /// Shows the second factor in a session, which is replaced by one that counts as such.
    StepUp(SecondFactor, Answer<LoggedIn>),
    /// Offers a subject a second factor.
    OfferTotp(SubjectId, Answer<Enrolment>),
    /// Shows the first code of what was offered. The recovery codes are shown once.
    ConfirmTotp(SubjectId, Secret, Answer<Vec<Secret>>),
    /// Gets new tokens for a refresh token. One that was used before ends its whole family.
    Refresh(Secret, Answer<LoggedIn>),
    /// Ends the session or the family of tokens that a credential belongs to; says nothing of what that was.
    Logout(Secret, Reply<()>),
    /// What a credential is worth now (RFC 7662).
    Introspect(Secret, Reply<Introspection>),
    /// Gets a token by which an agent acts for the subject of another token (RFC 8693).
    Delegate(Delegate, Answer<Secret>),
    /// Makes a key. Its text is shown once.
    CreateKey(NewKey, Answer<CreatedKey>),
    /// Revokes a key, a session or a family of tokens by its id.
    Revoke(TokenId, Answer<()>),
    /// Lists keys, of one subject or of all, in the order of their ids.
    ListKeys(Option<SubjectId>, Page<TokenId>, Reply<Vec<KeyInfo>>),
    /// Lists subjects in the order of their making.
    ListUsers(Page<SubjectId>, Reply<Vec<UserInfo>>),
    /// Gives a subject other roles; all its logins end.
    SetRoles(SubjectId, BTreeSet<Role>, Answer<()>),
    /// Suspends a subject, or lets it in again.
    Suspend(SubjectId, bool, Answer<()>),
    /// Looks for a subject by its id or its name.
    Find(String, Reply<Option<UserInfo>>),
    /// The public keys of the tenant's tokens.
    Jwks(Reply<PublicJwks>),
    /// Has the next signing key sign from now on.
    RotateKeys(Answer<()>),
    /// A session is in use.
    Seen(TokenId),
    /// Hashes are done; sent by itself, and to others' harm of no use.
    Hashed,
    /// Removes a subject with all that it has, from within only; tells whether there was one.
    Erase(SubjectId, Answer<bool>),
}

/// A login by password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// What the account is called.
    pub name: String,
    /// Its password.
    pub password: Secret,
    /// From where, as far as failures are counted together: e.g. `198.51.100.0/24`.
    pub network: String,
    /// What it is to give.
    pub wants: Wants,
}

/// A second factor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The challenge or the session.
    pub credential: Secret,
    /// A code of the device, or a recovery code.
    pub code: Secret,
}

/// A new password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPassword {
    /// Whose.
    pub subject: SubjectId,
    /// The present one. An administrator may leave it out for others.
    pub current: Option<Secret>,
    /// The new one.
    pub new: Secret,
}

/// A delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// The token of whoever delegates.
    pub token: Secret,
    /// Who is to act.
    pub actor: SubjectId,
    /// Narrowing; empty leaves that of the token.
    pub scopes: Vec<String>,
}

/// Part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<I> {
    /// Only what comes after this one.
    pub after: Option<I>,
    /// At most so many, and never more than 1,000.
    pub limit: u16,
}

/// A key that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// Whose.
    pub subject: SubjectId,
    /// Names it.
    pub id: TokenId,
    /// Its text.
    pub secret: Secret,
}

/// What a login gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoggedIn {
    /// A session.
    Session {
        /// For the cookie.
        secret: Secret,
        /// When it ends in any case, Unix milliseconds.
        until_ms: u64,
    },
    /// Tokens.
    Tokens {
        /// A JWT.
        access: Secret,
        /// When it ends, Unix milliseconds.
        until_ms: u64,
        /// For [`IdentityMsg::Refresh`], once.
        refresh: Secret,
    },
    /// A second factor is asked for.
    Mfa {
        /// For [`IdentityMsg::Mfa`].
        challenge: Secret,
        /// When it ends, Unix milliseconds.
        until_ms: u64,
    },
}

/// What a credential is worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introspection {
    /// Whom it stands for; of one that is not let in, nothing is told.
    pub verified: Option<Verified>,
}

/// A key in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `ApiKey`")]
pub struct KeyInfo {
    pub id: TokenId,
    pub subject: SubjectId,
    pub label: String,
    pub scopes: Vec<String>,
    pub made_ms: u64,
    pub expires_ms: Option<u64>,
}

/// A subject in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `Subject`")]
pub struct UserInfo {
    pub id: SubjectId,
    pub kind: PrincipalKind,
    pub name: String,
    pub roles: BTreeSet<Role>,
    pub is_suspended: bool,
    pub has_password: bool,
    pub has_mfa: bool,
    pub made_ms: u64,
}
