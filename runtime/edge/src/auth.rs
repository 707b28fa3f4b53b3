//! Who calls: the check of a request's credential.
//!
//! | credential | where | checked by |
//! |---|---|---|
//! | the admin key of `<data>/admin.key` | `Authorization: Bearer`, `x-api-key` | [`AdminKey`] |
//! | API key `avk_`, session `avs_` | the same | [`Credentials`] |
//! | access token, a JWT | the same | [`Credentials`] |
//! | session | the cookie `__Host-session`, with `Origin` | [`Credentials`] |
//!
//! The checksum of a key is looked at first, so garbage costs nothing. Every refusal has the same words.

mod admin;
mod given;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::identity::accounts::Amr;
use aivillage_governance::identity::bearer::{Bearer, TokenId};
use aivillage_governance::identity::{CheckError, Credentials, HOME, Secret, Verified};
use aivillage_runtime::{Principal, PrincipalKind, clock};
use axum::http::{HeaderMap, Method, Uri};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::error::{ApiError, Code};
pub(crate) use admin::AdminKey;
pub(crate) use given::{Given, same_origin, set_cookie};

/// The tenant of whoever runs the village.
pub(crate) const TENANT: &str = HOME;
/// The one answer to every kind of wrong credential: which part was wrong is nobody's business.
const REFUSAL: &str = "send an API key, a session or an access token as `Authorization: Bearer <it>`; the key of this \
                       village's keeper is in <data>/admin.key";
/// How long a second factor counts for what is privileged.
const MFA_FRESH: Duration = Duration::from_mins(10);

/// A caller whose credential was good.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) principal: Arc<Principal>,
    /// Whether the caller proved itself in a second way too, recently.
    pub(crate) mfa: bool,
    /// What its credential says besides; none for the admin key and for nobody.
    pub(crate) verified: Option<Arc<Verified>>,
}

impl Known {
    /// A caller that has shown nothing. It has no role, and no tenant's actor takes it for one of its own.
    pub(crate) fn nobody(from: Option<IpAddr>) -> Self {
        let subject = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
        Self { principal: Arc::new(nobody("", subject)), mfa: false, verified: None }
    }

    fn new(verified: Arc<Verified>, now_ms: u64) -> Self {
        let fresh_ms = u64::try_from(MFA_FRESH.as_millis()).unwrap_or(u64::MAX);
        let is_fresh = verified.auth_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < fresh_ms);
        let mfa = is_fresh && verified.amr.contains(&Amr::Mfa);
        Self { principal: verified.principal.clone(), mfa, verified: Some(verified) }
    }
}

fn known(checked: Result<Arc<Verified>, CheckError>) -> Result<Known, ApiError> {
    match checked {
        Ok(verified) => Ok(Known::new(verified, clock::unix_ms())),
        Err(CheckError::Refused(_)) => Err(ApiError::new(Code::Unauthenticated, REFUSAL)),
        Err(error @ (CheckError::NotReady | CheckError::Stale(_))) => {
            Err(ApiError::new(Code::GovernanceUnavailable, error.to_string()).retry_after(Duration::from_secs(1)))
        }
        Err(CheckError::Unreachable(error)) => Err(error.into()),
    }
}

/// Somebody without rights in a tenant: never the village itself, which is a message without a principal.
pub(crate) fn nobody(tenant: &str, subject: impl Into<String>) -> Principal {
    let (tenant, subject) = (tenant.to_owned(), subject.into());
    // A scope that is no action of any policy.
    Principal { tenant, subject, kind: PrincipalKind::User, roles: Vec::new(), scopes: vec!["-".to_owned()] }
}

/// The key of the node, everybody's credentials, and the limiters of wrong attempts.
#[derive(Debug)]
pub(crate) struct Verifier {
    admin: AdminKey,
    root: Known,
    credentials: Credentials,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_id: DefaultKeyedRateLimiter<TokenId>,
    clock: DefaultClock,
}

impl Verifier {
    pub(crate) fn new(admin: AdminKey, credentials: Credentials) -> Self {
        const ADDRESS: std::num::NonZeroU32 = std::num::NonZeroU32::new(20).expect("not zero");
        const KEY_ID: std::num::NonZeroU32 = std::num::NonZeroU32::new(5).expect("not zero");
        let root = Principal {
            tenant: TENANT.into(),
            subject: "admin".into(),
            kind: PrincipalKind::User,
            roles: vec!["super_admin".into()],
            scopes: Vec::new(),
        };
        Verifier {
            admin,
            root: Known { principal: Arc::new(root), mfa: true, verified: None },
            credentials,
            by_address: RateLimiter::keyed(Quota::per_minute(ADDRESS)),
            by_id: RateLimiter::keyed(Quota::per_minute(KEY_ID)),
            clock: DefaultClock::default(),
        }
    }

    /// Everybody's credentials.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The caller behind a request.
    ///
    /// A good credential always passes. Wrong ones are counted per address (20 a minute) and per key id (5 a minute); beyond
    /// that the refusal is 429, so that a guesser is slowed and no neighbour on the same address is locked out.
    pub(crate) async fn check(
        &self,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        from: Option<IpAddr>,
    ) -> Result<Known, ApiError> {
        let Some(given) = Given::of(headers) else {
            return Err(ApiError::new(Code::Unauthenticated, REFUSAL));
        };
        if given.is_cookie {
            same_origin(method, uri, headers)?;
        }
        self.look(given.text, from).await
    }

    async fn look(&self, text: &str, from: Option<IpAddr>) -> Result<Known, ApiError> {
        let shown = Bearer::parse(text).ok();
        if shown.is_some_and(|shown| self.admin.is(&shown)) {
            return Ok(self.root.clone());
        }
        let checked = self.credentials.check(text).await;
        if let Err(CheckError::Refused(refusal)) = &checked {
            tracing::debug!(%refusal, "a credential was refused");
            self.throttle(shown.map(|shown| shown.id), from)?;
        }
        known(checked)
    }

    /// Who a credential that was good stands for now. That is no attempt, and no use of a session.
    ///
    /// # Errors
    /// As [`Verifier::check`], but for limits.
    pub(crate) async fn look_again(&self, credential: &Secret) -> Result<Known, ApiError> {
        let text = credential.expose();
        if Bearer::parse(text).is_ok_and(|shown| self.admin.is(&shown)) {
            return Ok(self.root.clone());
        }
        known(self.credentials.look_again(text).await)
    }

    fn throttle(&self, id: Option<TokenId>, from: Option<IpAddr>) -> Result<(), ApiError> {
        let address = from.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let refused =
            self.by_address.check_key(&address).err().or_else(|| id.and_then(|id| self.by_id.check_key(&id).err()));
        match refused {
            None => Ok(()),
            Some(until) => Err(ApiError::new(Code::RateLimited, "too many wrong keys, wait before the next attempt")
                .retry_after(until.wait_time_from(self.clock.now()).max(Duration::from_secs(1)))),
        }
    }

    /// Forgets addresses and key ids whose buckets are full again.
    pub(crate) fn tidy(&self) {
        self.by_address.retain_recent();
        self.by_id.retain_recent();
    }
}

#[cfg(test)]
mod tests;
