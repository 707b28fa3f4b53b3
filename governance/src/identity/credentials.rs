//! Any credential of any tenant, at any node: by the [`VerifierHandle`], or by a message where the tenant has no copy.
//!
//! A node that has a copy of a tenant's accounts answers without a message. One that has none asks the tenant's actor, and
//! believes a good answer for [`BELIEVED_MS`]: a revocation counts there that much later at most. Refusals are not kept.

use std::sync::Arc;

use aivillage_runtime::{CallError, MsgCx, Village, clock};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};

use super::actor::Identity;
use super::bearer::{Bearer, BearerHash, TenantTag};
use super::jwt::tenant_in;
use super::message::{IdentityMsg, Introspection};
use super::secret::Secret;
use super::tenants::Tenants;
use super::verifier::{Refusal, Verified, VerifierHandle};

/// How long a good answer of another node is believed, milliseconds.
const BELIEVED_MS: u64 = 5_000;
/// Answers of other nodes that are kept.
const KEPT: usize = 4_096;
/// Questions to other nodes at once: whoever makes credentials up can ask no more of them.
const ASKS: usize = 64;
/// Longest wait for another node.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a credential is not let in now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It is no good. To the outside all reasons are one.
    #[error(transparent)]
    Refused(Refusal),
    /// Its tenant's accounts are not read yet.
    #[error("the accounts are not read yet, try again in a moment")]
    NotReady,
    /// Its tenant's accounts are on nodes that do not answer.
    #[error("the accounts cannot be asked: {0}")]
    Unreachable(#[from] CallError),
}

impl From<Refusal> for CheckError {
    fn from(refusal: Refusal) -> Self {
        if refusal == Refusal::NotReady { Self::NotReady } else { Self::Refused(refusal) }
    }
}

/// Turns credentials into principals, wherever the accounts are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    village: Village,
    verifier: VerifierHandle,
    tenants: Tenants,
    kept: Cache<BearerHash, (Arc<Verified>, u64)>,
    asks: Semaphore,
}

impl Credentials {
    /// Those of a village that was built with [`install`](fn@super::install), which gave `verifier`.
    #[must_use]
    pub fn new(village: &Village, verifier: VerifierHandle) -> Self {
        let (kept, asks, tenants) = (Cache::new(KEPT), Semaphore::new(ASKS), Tenants::new(village));
        Self(Arc::new(Shared { village: village.clone(), verifier, tenants, kept, asks }))
    }

    /// The tenants.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.0.tenants
    }

    /// Whom an API key, a session or an access token stands for now. The session's actor is told that it is in use.
    ///
    /// # Errors
    /// [`CheckError`]
    pub async fn check(&self, text: &str) -> Result<Arc<Verified>, CheckError> {
        let now_ms = clock::unix_ms();
        let verified = match self.0.verifier.bearer(text, now_ms) {
            Ok(admitted) => {
                if let Some(id) = admitted.seen {
                    self.tell_seen(&admitted.verified.principal.tenant, id).await;
                }
                admitted.verified
            }
            Err(Refusal::Unknown) => match self.elsewhere(text) {
                Some(tenant) => self.ask(&tenant, text, now_ms).await?,
                None => return Err(Refusal::Unknown.into()),
            },
            Err(refusal) => return Err(refusal.into()),
        };
        let is_live = self.0.tenants.is_live(&verified.principal.tenant);
        if is_live { Ok(verified) } else { Err(Refusal::Unknown.into()) }
    }

    /// The tenant to ask about a credential that is not known here, if its accounts have no copy here.
    fn elsewhere(&self, text: &str) -> Option<String> {
        let tag = match Bearer::parse(text) {
            Ok(bearer) => bearer.tenant,
            Err(_) => TenantTag::of(&tenant_in(text)?),
        };
        if self.0.verifier.follows(tag) { None } else { self.0.tenants.tagged(tag) }
    }

    async fn ask(&self, tenant: &str, text: &str, now_ms: u64) -> Result<Arc<Verified>, CheckError> {
        let hash = BearerHash::of(text.as_bytes());
        if let Some((verified, until_ms)) = self.0.kept.get(&hash)
            && now_ms < until_ms
        {
            return Ok(verified);
        }
        let Ok(_asking) = self.0.asks.try_acquire() else {
            return Err(CallError::Overloaded { retry_after_ms: 1_000 }.into());
        };
        let asked = async {
            let addr = self.0.village.addr::<Identity>(tenant);
            addr.ask(|reply| IdentityMsg::Introspect(Secret::new(text), reply)).await
        };
        // On behalf of nobody yet.
        let context = MsgCx::request(Some(Instant::now() + PATIENCE), MsgCx::current().trace(), None);
        let Introspection { verified } = context.scope(asked).await?;
        let verified = verified.map(Arc::new).ok_or(Refusal::Unknown)?;
        self.0.kept.insert(hash, (verified.clone(), now_ms.saturating_add(BELIEVED_MS)));
        Ok(verified)
    }

    async fn tell_seen(&self, tenant: &str, id: super::bearer::TokenId) {
        let told = self.0.village.addr::<Identity>(tenant).tell(IdentityMsg::Seen(id)).await;
        if let Err(error) = told {
            tracing::debug!(%error, "the use of a session is not told, it ends early");
        }
    }

    /// Waits until this node knows a credential that was just made, a second at most: its owner may use it at once.
    pub async fn settle(&self, text: &str) {
        let mut changes = self.0.verifier.changes();
        let known = async {
            let is_here = |text: &str| match Bearer::parse(text) {
                Ok(bearer) => self.0.verifier.follows(bearer.tenant),
                Err(_) => tenant_in(text).is_some_and(|tenant| self.0.verifier.follows(TenantTag::of(&tenant))),
            };
            while is_here(text) && self.0.verifier.bearer(text, clock::unix_ms()).is_err() {
                // The sender lives as long as the verifier.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), known).await;
    }
}
