//! The hot path: a credential becomes a [`Principal`] without a message, a lock or a wait.
//!
//! [`VerifierHandle`] reads what every tenant known on this node lets in ([`TenantView`]). It is fed with the events of the
//! `gov.identity` actors by a [`Watch`] beside each copy of their groups, so a revocation counts on a node as soon as the
//! event is applied there. Tenants whose group has no copy here are [`Refusal::Unknown`].

mod cow_map;
mod tenant;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aivillage_runtime::Principal;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::watch as progress;
use uuid::Uuid;

pub use tenant::TenantView;
pub use watch::Watch;

use super::accounts::{Amr, SubjectId};
use super::bearer::{Bearer, Malformed, TenantTag, TokenId};
use super::config::IdentityConfig;
use super::jwt::{BadToken, Claims, TokenRules, kid_in};
use tenant::{Known, SessionView};

/// Who shows a credential, and how it came by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whom it stands for.
    #[serde(with = "shared")]
    pub principal: Arc<Principal>,
    /// Roles of the subject that count only after a second factor, which was not shown.
    pub waiting: Vec<String>,
    /// Names the credential in logs.
    pub credential: Credential,
    /// How the subject logged in; empty for API keys.
    pub amr: BTreeSet<Amr>,
    /// When, Unix milliseconds.
    pub auth_ms: Option<u64>,
    /// Who acts for the subject, the latest first.
    pub actors: Vec<SubjectId>,
}

/// A principal is sent as it is.
mod shared {
    use std::sync::Arc;

    use aivillage_runtime::Principal;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(principal: &Arc<Principal>, to: S) -> Result<S::Ok, S::Error> {
        Principal::serialize(principal, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Principal>, D::Error> {
        Principal::deserialize(from).map(Arc::new)
    }
}

/// Which credential was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// An API key.
    ApiKey(TokenId),
    /// A session.
    Session(TokenId),
    /// An access token.
    Token {
        /// Its own name.
        jti: Uuid,
        /// The family it came from.
        family: TokenId,
    },
}

/// A credential that was let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Whose it is.
    pub verified: Arc<Verified>,
    session: Option<(TokenId, Arc<SessionView>)>,
}

impl Admitted {
    /// The session, if it is in use and its actor should hear of it (`IdentityMsg::Seen`): one request a minute is told. Who
    /// only looks whether it still counts does not ask.
    #[must_use]
    pub fn seen(&self, now_ms: u64) -> Option<TokenId> {
        let (id, _) = self.session.as_ref().filter(|(_, session)| session.is_to_be_reported(now_ms))?;
        Some(*id)
    }
}

/// Why a credential is not let in. For counters and tests: to the outside all but `NotReady` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It has not the form of an API key or session.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is no good access token.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// It is for something else, e.g. a refresh token.
    #[error("a credential of another kind")]
    Kind,
    /// No such credential, any more or ever.
    #[error("unknown or revoked")]
    Unknown,
    /// The secret is not that of the id.
    #[error("the secret does not fit")]
    Mismatch,
    /// It has ended.
    #[error("expired")]
    Expired,
    /// The tenant's accounts are being read again; in a moment it may be right.
    #[error("the accounts are not read yet")]
    NotReady,
}

/// Where a credential's tenant is found.
#[derive(Debug, Clone, Default)]
struct Index {
    tags: HashMap<TenantTag, Vec<Slot>>,
    kids: HashMap<String, Arc<TenantView>>,
}

impl Index {
    /// A signing key that nobody knows may be that of a tenant which is read again.
    fn unknown(&self) -> Refusal {
        let is_reading = self.tags.values().flatten().any(|slot| slot.view.is_none());
        if is_reading { Refusal::NotReady } else { Refusal::Unknown }
    }
}

/// A tenant that is known here.
#[derive(Debug, Clone)]
struct Slot {
    name: Arc<str>,
    /// `None` while it is read again.
    view: Option<Arc<TenantView>>,
}

#[derive(Debug)]
struct Shared {
    config: IdentityConfig,
    rules: TokenRules,
    index: ArcSwap<Index>,
    /// Held by whoever changes the index.
    changing: Mutex<()>,
    tokens: Cache<Box<str>, Known>,
    /// Counts changes.
    progress: progress::Sender<u64>,
}

/// Turns credentials into principals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifierHandle(Arc<Shared>);

impl VerifierHandle {
    /// Knows no tenant yet.
    #[must_use]
    pub fn new(config: IdentityConfig) -> Self {
        Self(Arc::new(Shared {
            rules: TokenRules::new(&config.issuer, &config.audience),
            index: ArcSwap::default(),
            changing: Mutex::new(()),
            tokens: Cache::new(config.token_cache),
            progress: progress::Sender::new(0),
            config,
        }))
    }

    /// Looks at whatever follows `Bearer`: an API key, or an access token.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn bearer(&self, text: &str, now_ms: u64) -> Result<Admitted, Refusal> {
        // No JWT begins with `av`: its first letters are those of `{"`, `eyJ`.
        if text.starts_with("av") { self.secret(text, now_ms) } else { self.token(text, now_ms) }
    }

    /// Looks at an API key or a session. Garbage is refused by its checksum, unhashed.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn secret(&self, text: &str, now_ms: u64) -> Result<Admitted, Refusal> {
        let shown = Bearer::parse(text)?;
        let index = self.0.index.load();
        let mut refusal = Refusal::Unknown;
        for slot in index.tags.get(&shown.tenant).into_iter().flatten() {
            match slot.view.as_ref().map_or(Err(Refusal::NotReady), |view| view.check(&shown, now_ms)) {
                Err(Refusal::Unknown) => {}
                Err(other) => refusal = other,
                admitted => return admitted,
            }
        }
        Err(refusal)
    }

    /// Looks at an access token. One that was verified before is not verified again, but what it rests on is looked up.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn token(&self, text: &str, now_ms: u64) -> Result<Admitted, Refusal> {
        self.known(text, now_ms).map(|known| known.admitted())
    }

    /// As [`VerifierHandle::token`], and tells what the token says.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn claims(&self, text: &str, now_ms: u64) -> Result<Claims, Refusal> {
        self.known(text, now_ms).map(|known| known.claims().clone())
    }

    fn known(&self, text: &str, now_ms: u64) -> Result<Known, Refusal> {
        let index = self.0.index.load();
        if let Some(known) = self.0.tokens.get(text) {
            let view = index.kids.get(&*known.kid).ok_or(Refusal::Unknown)?;
            return view.look_again(&known, now_ms);
        }
        let kid = kid_in(text)?;
        let view = index.kids.get(&kid).ok_or_else(|| index.unknown())?;
        let known = view.verify(text, &kid, &self.0.rules, now_ms)?;
        self.0.tokens.insert(text.into(), known.clone());
        Ok(known)
    }

    /// Whether a tenant is followed here, so that what is unknown here is unknown everywhere, but for a moment.
    #[must_use]
    pub fn follows(&self, tenant: TenantTag) -> bool {
        self.0.index.load().tags.get(&tenant).is_some_and(|slots| !slots.is_empty())
    }

    /// Changes whenever a tenant's view has changed; for who waits for a change.
    #[must_use]
    pub fn changes(&self) -> progress::Receiver<u64> {
        self.0.progress.subscribe()
    }

    /// How credentials of this node's tenants live.
    #[must_use]
    pub fn config(&self) -> &IdentityConfig {
        &self.0.config
    }

    /// Shows a tenant; `None` while it is read again.
    pub fn show(&self, tenant: &str, view: Option<&Arc<TenantView>>) {
        self.reindex(|index| {
            index.kids.retain(|_, shown| shown.name() != tenant);
            if let Some(view) = view {
                index.kids.extend(view.kids().into_iter().map(|kid| (kid, view.clone())));
            }
            let slots = index.tags.entry(TenantTag::of(tenant)).or_default();
            slots.retain(|slot| &*slot.name != tenant);
            slots.push(Slot { name: tenant.into(), view: view.cloned() });
        });
    }

    /// Forgets a tenant: nobody follows it here any more.
    pub fn forget(&self, tenant: &str) {
        self.reindex(|index| {
            index.kids.retain(|_, shown| shown.name() != tenant);
            if let Some(slots) = index.tags.get_mut(&TenantTag::of(tenant)) {
                slots.retain(|slot| &*slot.name != tenant);
            }
        });
    }

    fn reindex(&self, change: impl FnOnce(&mut Index)) {
        let _changing = self.0.changing.lock();
        let mut index = Index::clone(&self.0.index.load());
        change(&mut index);
        self.0.index.store(Arc::new(index));
        self.changed();
    }

    fn changed(&self) {
        self.0.progress.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
