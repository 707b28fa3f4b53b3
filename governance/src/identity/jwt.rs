//! Access tokens: JWTs signed with Ed25519 (RFC 7519, 8037, 9068).
//!
//! jsonwebtoken reads and verifies; times are compared here, with the time as a value.

use std::collections::BTreeSet;
use std::fmt;

use aivillage_runtime::PrincipalKind;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, OctetKeyPairParameters, OctetKeyPairType, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accounts::{Amr, SubjectId};
use super::bearer::TokenId;
use super::error::IdentityError;
use super::role::Role;
use super::secret::Secret;

/// Most bytes of a token that is looked at; one of ours has less than half of it.
pub const TOKEN_MAX: usize = 4_096;
/// How far the clocks of two nodes may be apart, seconds.
pub const LEEWAY_S: u64 = 30;
/// Most actors in a chain of delegation.
pub const MAX_ACTORS: usize = 4;
/// `typ` of an access token, RFC 9068 section 2.1: no other signed text of ours passes for one.
const TYPE: &str = "at+jwt";

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// On whose behalf its bearer acts.
    pub sub: SubjectId,
    /// When it ends, Unix seconds.
    pub exp: u64,
    /// When it begins, Unix seconds.
    pub nbf: u64,
    /// When it was issued, Unix seconds.
    pub iat: u64,
    /// Names it.
    pub jti: Uuid,
    /// The tenant.
    pub tid: String,
    /// What the subject is.
    pub kind: PrincipalKind,
    /// The family of tokens it came from: gone, if that was revoked.
    pub sid: TokenId,
    /// Roles it may use at most.
    pub roles: BTreeSet<Role>,
    /// Narrowing of the roles, separated by spaces (RFC 8693 section 4.2); empty is none.
    pub scope: String,
    /// How the subject showed who it is.
    pub amr: BTreeSet<Amr>,
    /// When, Unix seconds.
    pub auth_time: u64,
    /// Who acts for the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
}

/// An actor, and who acted before it (RFC 8693 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// The actor.
    pub sub: SubjectId,
    /// Whom it was delegated by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
}

impl Claims {
    /// Who acts, the latest first.
    pub fn actors(&self) -> impl Iterator<Item = SubjectId> {
        std::iter::successors(self.act.as_deref(), |act| act.act.as_deref()).map(|act| act.sub)
    }

    /// The scopes, as a list.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.scope.split_ascii_whitespace().map(str::to_owned).collect()
    }
}

/// Why a token is not let in. For counters and tests: outside, all are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum BadToken {
    /// Not a token, or far too long.
    #[error("not a token")]
    Malformed,
    /// The header asks for another algorithm or type, or names no key.
    #[error("the header is not that of an access token")]
    Header,
    /// The signature is not one of the key that the token names.
    #[error("the signature does not fit")]
    Signature,
    /// A claim is missing, or is for another issuer or audience.
    #[error("a claim is missing or meant for others")]
    Claims,
    /// It has ended.
    #[error("expired")]
    Expired,
    /// It has not begun.
    #[error("not valid yet")]
    Early,
}

/// Signs access tokens with one key.
pub struct Signer {
    kid: String,
    key: EncodingKey,
    public: [u8; 32],
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// Takes the private key: 32 random bytes.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] for another length.
    pub fn try_new(seed: &[u8]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| IdentityError::Sealed)?;
        let der = pair.to_pkcs8v1().map_err(|_| IdentityError::Sealed)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| IdentityError::Sealed)?;
        Ok(Self { kid: kid_of(&public)?, key: EncodingKey::from_ed_der(der.as_ref()), public })
    }

    /// Names the key: its thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The token that says this.
    ///
    /// # Errors
    /// [`IdentityError::Sealed`] if it cannot be signed.
    pub fn sign(&self, claims: &Claims) -> Result<Secret, IdentityError> {
        let header =
            Header { typ: Some(TYPE.to_owned()), kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).map(Secret::new).map_err(|_| IdentityError::Sealed)
    }
}

/// The thumbprint of a public key, RFC 7638.
///
/// # Errors
/// [`IdentityError::Sealed`] if it cannot be computed.
pub fn kid_of(public: &[u8; 32]) -> Result<String, IdentityError> {
    let okp = OctetKeyPairParameters {
        key_type: OctetKeyPairType::OctetKeyPair,
        curve: EllipticCurve::Ed25519,
        x: BASE64.encode(public),
    };
    let jwk = Jwk { common: CommonParameters::default(), algorithm: AlgorithmParameters::OctetKeyPair(okp) };
    jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| IdentityError::Sealed)
}

/// What tokens are checked against.
#[derive(Debug, Clone)]
pub struct TokenRules(Validation);

impl TokenRules {
    /// Tokens of this issuer for this audience.
    #[must_use]
    pub fn new(issuer: &str, audience: &str) -> Self {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // By the wall clock, and unlike the cache; see `check_times`.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        Self(rules)
    }

    /// Checks signature and claims with the key that the token names.
    ///
    /// # Errors
    /// [`BadToken`]
    pub fn verify(&self, token: &str, key: &DecodingKey, now_ms: u64) -> Result<Claims, BadToken> {
        let read = jsonwebtoken::decode::<Claims>(token, key, &self.0).map_err(|error| bad(&error))?;
        if read.header.typ.as_deref() != Some(TYPE) || read.header.crit.is_some() {
            return Err(BadToken::Header);
        }
        if read.claims.actors().count() > MAX_ACTORS {
            return Err(BadToken::Claims);
        }
        check_times(&read.claims, now_ms)?;
        Ok(read.claims)
    }
}

/// The key that a token names. Cheap: nothing is verified.
///
/// # Errors
/// [`BadToken::Malformed`] or [`BadToken::Header`].
pub fn kid_in(token: &str) -> Result<String, BadToken> {
    if token.len() > TOKEN_MAX || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Err(BadToken::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| bad(&error))?;
    if header.alg != Algorithm::EdDSA {
        return Err(BadToken::Header);
    }
    header.kid.ok_or(BadToken::Header)
}

/// The tenant that a token claims to be of: tells whom to ask, and nothing more. Nothing is verified.
#[must_use]
pub fn tenant_in(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claimed {
        tid: String,
    }
    let claims = token.split('.').nth(1).filter(|_| token.len() <= TOKEN_MAX)?;
    serde_json::from_slice::<Claimed>(&BASE64.decode(claims).ok()?).ok().map(|claimed| claimed.tid)
}

/// Whether a verified token counts now.
///
/// # Errors
/// [`BadToken::Expired`], [`BadToken::Early`]
pub fn check_times(claims: &Claims, now_ms: u64) -> Result<(), BadToken> {
    let now = now_ms / 1_000;
    if claims.exp.saturating_add(LEEWAY_S) <= now {
        return Err(BadToken::Expired);
    }
    if claims.nbf > now.saturating_add(LEEWAY_S) {
        return Err(BadToken::Early);
    }
    Ok(())
}

fn bad(error: &jsonwebtoken::errors::Error) -> BadToken {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => BadToken::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => BadToken::Header,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience => BadToken::Claims,
        _ => BadToken::Malformed,
    }
}

#[cfg(test)]
mod tests;
