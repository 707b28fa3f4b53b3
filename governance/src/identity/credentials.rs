//! Any credential of any tenant, at any node: by the [`VerifierHandle`], or by a message where the tenant has no copy.
//!
//! A node that has a copy of a tenant's accounts answers without a message. One that has none asks the tenant's actor, and
//! believes a good answer for [`BELIEVED_MS`]: a revocation counts there that much later at most. Refusals are not kept.

use std::sync::Arc;

use aivillage_runtime::{CallError, Cluster, Kind, MsgCx, Village, clock};
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Duration, Instant};

use super::actor::Identity;
use super::bearer::{Bearer, BearerHash, TenantTag};
use super::jwt::tenant_in;
use super::message::{IdentityMsg, Introspection};
use super::secret::Secret;
use super::tenants::Tenants;
use super::verifier::{Refusal, Verified, VerifierHandle};
use crate::freshness::{Freshness, Stale};

/// How long a good answer of another node is believed, milliseconds.
const BELIEVED_MS: u64 = 1_000;
/// Answers of other nodes that are kept.
const KEPT: usize = 4_096;
/// Questions to other nodes at once: whoever makes credentials up can ask no more of them.
const ASKS: usize = 64;
/// Longest wait for another node.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for one that may not be there: this node has not heard of its cluster for long.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a credential is not let in now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It is no good. To the outside all reasons are one.
    #[error(transparent)]
    Refused(Refusal),
    /// Its tenant's accounts are not read yet.
    #[error("the accounts are not read yet, try again in a moment")]
    NotReady,
    /// What is known here of its tenant's accounts may be old, and those who know better do not answer.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Its tenant's accounts are on nodes that do not answer.
    #[error("the accounts cannot be asked: {0}")]
    Unreachable(#[from] CallError),
}

impl From<Refusal> for CheckError {
    fn from(refusal: Refusal) -> Self {
        if refusal == Refusal::NotReady { Self::NotReady } else { Self::Refused(refusal) }
    }
}

/// See [`Credentials::changes`].
#[derive(Debug)]
pub struct Changes {
    accounts: watch::Receiver<u64>,
    control: Option<watch::Receiver<u64>>,
}

impl Changes {
    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// A change that was not told is told by the next call.
    pub async fn next(&mut self) {
        let control = async {
            match &mut self.control {
                Some(control) => control.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = self.accounts.changed() => changed,
            changed = control => changed,
        };
        if changed.is_err() {
            // The village has ended, and nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Turns credentials into principals, wherever the accounts are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    village: Village,
    verifier: VerifierHandle,
    freshness: Freshness,
    tenants: Tenants,
    kept: Cache<BearerHash, (Arc<Verified>, u64)>,
    asks: Semaphore,
}

impl Credentials {
    /// Those of a village that was built with [`install`](fn@super::install), which gave `verifier`.
    #[must_use]
    pub fn new(village: &Village, verifier: VerifierHandle, freshness: Freshness) -> Self {
        let (kept, asks, tenants) = (Cache::new(KEPT), Semaphore::new(ASKS), Tenants::new(village));
        Self(Arc::new(Shared { village: village.clone(), verifier, freshness, tenants, kept, asks }))
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
        self.admit(text, true).await
    }

    /// The same for what was let in before, e.g. a stream that goes on: that is no use of a session.
    ///
    /// # Errors
    /// [`CheckError`]
    pub async fn look_again(&self, text: &str) -> Result<Arc<Verified>, CheckError> {
        self.admit(text, false).await
    }

    async fn admit(&self, text: &str, is_use: bool) -> Result<Arc<Verified>, CheckError> {
        let now_ms = clock::unix_ms();
        let verified = match self.0.verifier.bearer(text, now_ms) {
            Ok(admitted) if self.is_current(&admitted.verified.principal.tenant) => {
                if let Some(id) = is_use.then(|| admitted.seen(now_ms)).flatten() {
                    self.tell_seen(&admitted.verified.principal.tenant, id).await;
                }
                admitted.verified
            }
            Ok(admitted) => self.ask(&admitted.verified.principal.tenant, text, now_ms).await?,
            Err(Refusal::Unknown) => match self.elsewhere(text) {
                Some(tenant) => self.ask(&tenant, text, now_ms).await?,
                None => return Err(Refusal::Unknown.into()),
            },
            Err(refusal) => return Err(refusal.into()),
        };
        self.0.freshness.of_cluster()?;
        let is_live = self.0.tenants.is_live(&verified.principal.tenant);
        if is_live { Ok(verified) } else { Err(Refusal::Unknown.into()) }
    }

    /// Tells when what a credential is worth on this node may have changed: accounts of tenants that are followed here, or
    /// which tenants there are. Of accounts elsewhere nothing is told.
    #[must_use]
    pub fn changes(&self) -> Changes {
        let control = self.0.village.cluster().map(Cluster::changes);
        Changes { accounts: self.0.verifier.changes(), control }
    }

    /// Whether the copy of a tenant's accounts counts; one that this node is not sent any more grows old.
    fn is_current(&self, tenant: &str) -> bool {
        self.0.freshness.of_actor(Identity::NAME, tenant).is_ok()
    }

    /// The tenant to ask about a credential that is not known here, if its accounts have no copy here that counts.
    fn elsewhere(&self, text: &str) -> Option<String> {
        let tag = match Bearer::parse(text) {
            Ok(bearer) => bearer.tenant,
            Err(_) => TenantTag::of(&tenant_in(text)?),
        };
        let tenant = self.0.tenants.tagged(tag)?;
        (!self.0.verifier.follows(tag) || !self.is_current(&tenant)).then_some(tenant)
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
        let patience = if self.is_current(tenant) { PATIENCE } else { LITTLE_PATIENCE };
        // On behalf of nobody yet.
        let context = MsgCx::request(Some(Instant::now() + patience), MsgCx::current().trace(), None);
        let asked = context.scope(asked).await;
        if asked.is_err() {
            // Nobody of this node's part of the cluster knows: that is not for the caller to sort out.
            self.0.freshness.of_actor(Identity::NAME, tenant)?;
        }
        let Introspection { verified } = asked?;
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

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::identity::bearer::BearerKind;
    use crate::identity::password::Argon2Config;
    use crate::identity::{CreatedKey, IdentityConfig, IdentityNode, install};
    use crate::keys::VillageSecret;

    /// A village with the key of an account, and credentials as on a node that has no copy of it.
    async fn bench() -> (Village, CreatedKey, Credentials) {
        let secret = VillageSecret::default();
        secret.set(Zeroizing::new([1; 32]));
        let argon2 = Argon2Config { m_kib: 8, t: 1, p: 1 };
        let config = IdentityConfig { argon2, ..IdentityConfig::default() };
        let (builder, _) = install(Village::builder(), &IdentityNode::try_new(config.clone(), secret).unwrap());
        let village = builder.start().await.unwrap();
        let key = village.addr::<Identity>("local").ask(|reply| IdentityMsg::Bootstrap("root".into(), reply)).await;
        let credentials = Credentials::new(&village, VerifierHandle::new(config), Freshness::default());
        (village, key.unwrap().unwrap(), credentials)
    }

    #[tokio::test]
    async fn a_node_without_a_copy_asks_and_believes_for_a_second() {
        let (village, key, credentials) = bench().await;
        let text = key.secret.expose();
        let verified = credentials.check(text).await.unwrap();
        assert_eq!(
            (&*verified.principal.tenant, &verified.principal.roles[..]),
            ("local", &["super_admin".to_owned()][..])
        );
        let now_ms = clock::unix_ms();
        let revoked = village.addr::<Identity>("local").ask(|reply| IdentityMsg::Revoke(key.id, reply)).await;
        assert_eq!(revoked.unwrap(), Ok(()));
        assert!(credentials.ask("local", text, now_ms).await.is_ok());
        let later = credentials.ask("local", text, now_ms + BELIEVED_MS).await;
        assert_eq!(later.unwrap_err(), CheckError::Refused(Refusal::Unknown));
    }

    #[tokio::test]
    async fn what_is_of_no_tenant_or_no_form_is_refused_without_a_message() {
        let (_village, key, credentials) = bench().await;
        let foreign =
            Bearer::mint(BearerKind::ApiKey, TenantTag::of("acme"), &[7; crate::identity::bearer::BEARER_RANDOM]);
        for text in ["", "nonsense", "eyJh.eyJh.x", foreign.secret.expose()] {
            assert!(matches!(credentials.check(text).await, Err(CheckError::Refused(_))), "{text}");
        }
        assert_eq!(credentials.elsewhere(foreign.secret.expose()), None);
        assert_eq!(credentials.elsewhere(key.secret.expose()).as_deref(), Some("local"));
    }

    #[tokio::test]
    async fn too_many_questions_at_once_are_refused() {
        let (_village, key, credentials) = bench().await;
        let _all = credentials.0.asks.try_acquire_many(u32::try_from(ASKS).unwrap()).unwrap();
        let refused = credentials.check(key.secret.expose()).await.unwrap_err();
        assert!(matches!(refused, CheckError::Unreachable(CallError::Overloaded { .. })), "{refused}");
    }
}
