//! What one tenant lets in now: a projection of its [`Accounts`], one record at a time.
//!
//! What is not here is refused, so a revocation is an absence. Keys, sessions and families of a suspended subject are absent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aivillage_runtime::Principal;
use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;

use super::cow_map::CowMap;
use super::{Admitted, Credential, Refusal, Verified};
use crate::identity::accounts::{Accounts, Amr, Subject, SubjectId, Touched, counting, session_end_ms};
use crate::identity::bearer::{Bearer, BearerHash, BearerKind, TokenId};
use crate::identity::config::Lives;
use crate::identity::jwt::{BadToken, Claims, TokenRules, check_times};
use crate::identity::role::Role;

/// A session that is in use is reported this often, milliseconds.
const SEEN_MS: u64 = 60_000;

#[derive(Debug)]
struct KeyView {
    hash: BearerHash,
    expires_ms: u64,
    verified: Arc<Verified>,
}

#[derive(Debug)]
pub(super) struct SessionView {
    hash: BearerHash,
    ends_ms: u64,
    /// When its use is to be reported next. Each report is asked of one request only.
    report_ms: AtomicU64,
    verified: Arc<Verified>,
}

/// What tokens of a family may use at most.
#[derive(Debug)]
pub(super) struct FamilyView {
    subject: SubjectId,
    roles: BTreeSet<Role>,
    /// Those that wait for a second factor.
    waiting: BTreeSet<Role>,
    ends_ms: u64,
}

/// A key that verifies tokens.
#[derive(Debug, Clone)]
pub(super) struct VerifyKey {
    pub(super) kid: String,
    key: DecodingKey,
    until_ms: u64,
}

/// A token that was verified, as the cache keeps it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) kid: Arc<str>,
    claims: Arc<Claims>,
    family: Arc<FamilyView>,
    verified: Arc<Verified>,
}

/// What a tenant lets in.
#[derive(Debug)]
pub struct TenantView {
    name: String,
    lives: Lives,
    keys: CowMap<TokenId, Arc<KeyView>>,
    sessions: CowMap<TokenId, Arc<SessionView>>,
    families: CowMap<TokenId, Arc<FamilyView>>,
    /// Roles of those who may act for others.
    actors: CowMap<SubjectId, Arc<BTreeSet<Role>>>,
    ring: ArcSwap<Vec<VerifyKey>>,
}

impl TenantView {
    /// Everything that `accounts` lets in.
    #[must_use]
    pub fn new(name: &str, accounts: &Accounts, lives: Lives) -> Self {
        let view = Self {
            name: name.to_owned(),
            lives,
            keys: CowMap::default(),
            sessions: CowMap::default(),
            families: CowMap::default(),
            actors: CowMap::default(),
            ring: ArcSwap::default(),
        };
        accounts.subjects().for_each(|(id, _)| view.show_actor(accounts, id));
        accounts.keys().for_each(|(id, _)| view.update(accounts, Touched::Key(id)));
        accounts.sessions().for_each(|(id, _)| view.update(accounts, Touched::Session(id)));
        accounts.families().for_each(|(id, _)| view.update(accounts, Touched::Family(id)));
        view.update(accounts, Touched::Ring);
        view
    }

    /// The tenant.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows a changed record; `accounts` is as after the change.
    pub fn update(&self, accounts: &Accounts, touched: Touched) {
        match touched {
            Touched::Subject(id) => self.show_subject(accounts, id),
            Touched::Key(id) => self.keys.set(&id, self.key_view(accounts, id).as_ref()),
            Touched::Session(id) => self.sessions.set(&id, self.session_view(accounts, id).as_ref()),
            Touched::Family(id) => self.families.set(&id, self.family_view(accounts, id).as_ref()),
            Touched::Ring => self.ring.store(Arc::new(ring_view(accounts))),
            Touched::Nothing => {}
        }
    }

    fn show_subject(&self, accounts: &Accounts, id: SubjectId) {
        self.show_actor(accounts, id);
        let keys = accounts.keys().filter(|(_, key)| key.subject == id);
        keys.for_each(|(key, _)| self.update(accounts, Touched::Key(key)));
        let sessions = accounts.sessions().filter(|(_, session)| session.subject == id);
        sessions.for_each(|(session, _)| self.update(accounts, Touched::Session(session)));
        let families = accounts.families().filter(|(_, family)| family.subject == id);
        families.for_each(|(family, _)| self.update(accounts, Touched::Family(family)));
    }

    fn show_actor(&self, accounts: &Accounts, id: SubjectId) {
        let roles = accounts.live(id).map(|subject| Arc::new(subject.roles.clone()));
        self.actors.set(&id, roles.as_ref());
    }

    fn key_view(&self, accounts: &Accounts, id: TokenId) -> Option<Arc<KeyView>> {
        let key = accounts.key(id)?;
        let subject = accounts.live(key.subject)?;
        let principal = self.principal(key.subject, subject, &subject.roles, key.scopes.clone());
        let verified = Verified {
            principal: Arc::new(principal),
            waiting: Vec::new(),
            credential: Credential::ApiKey(id),
            amr: BTreeSet::new(),
            auth_ms: None,
            actors: Vec::new(),
        };
        let expires_ms = key.expires_ms.unwrap_or(u64::MAX);
        Some(Arc::new(KeyView { hash: key.hash, expires_ms, verified: Arc::new(verified) }))
    }

    fn session_view(&self, accounts: &Accounts, id: TokenId) -> Option<Arc<SessionView>> {
        let session = accounts.session(id)?;
        let subject = accounts.live(session.subject)?;
        let roles = counting(&subject.roles, &session.shown, &self.lives);
        let verified = Verified {
            principal: Arc::new(self.principal(session.subject, subject, &roles, Vec::new())),
            waiting: names(subject.roles.difference(&roles)),
            credential: Credential::Session(id),
            amr: session.shown.amr.clone(),
            auth_ms: Some(session.shown.auth_ms),
            actors: Vec::new(),
        };
        let report_ms = AtomicU64::new(session.seen_ms.saturating_add(SEEN_MS));
        let ends_ms = session_end_ms(session, &self.lives);
        Some(Arc::new(SessionView { hash: session.hash, ends_ms, report_ms, verified: Arc::new(verified) }))
    }

    fn family_view(&self, accounts: &Accounts, id: TokenId) -> Option<Arc<FamilyView>> {
        let family = accounts.family(id)?;
        let subject = accounts.live(family.subject)?;
        let roles = counting(&subject.roles, &family.shown, &self.lives);
        let waiting = subject.roles.difference(&roles).copied().collect();
        let ends_ms = family.expires_ms.saturating_add(self.lives.access_ms);
        Some(Arc::new(FamilyView { subject: family.subject, roles, waiting, ends_ms }))
    }

    fn principal(&self, id: SubjectId, subject: &Subject, roles: &BTreeSet<Role>, scopes: Vec<String>) -> Principal {
        let roles = names(roles);
        Principal { tenant: self.name.clone(), subject: id.to_string(), kind: subject.kind, roles, scopes }
    }

    /// Checks an API key or a session.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn check(&self, shown: &Bearer<'_>, now_ms: u64) -> Result<Admitted, Refusal> {
        match shown.kind {
            BearerKind::ApiKey => {
                let key = self.keys.get(&shown.id).ok_or(Refusal::Unknown)?;
                admit(&key.hash, key.expires_ms, shown, now_ms)?;
                Ok(Admitted { verified: key.verified.clone(), session: None })
            }
            BearerKind::Session => {
                let session = self.sessions.get(&shown.id).ok_or(Refusal::Unknown)?;
                admit(&session.hash, session.ends_ms, shown, now_ms)?;
                Ok(Admitted { verified: session.verified.clone(), session: Some((shown.id, session)) })
            }
            BearerKind::Refresh | BearerKind::Challenge => Err(Refusal::Kind),
        }
    }

    /// The names of the keys that verify.
    pub(super) fn kids(&self) -> Vec<String> {
        self.ring.load().iter().map(|key| key.kid.clone()).collect()
    }

    /// Verifies a token that names a key of this tenant.
    pub(super) fn verify(&self, token: &str, kid: &str, rules: &TokenRules, now_ms: u64) -> Result<Known, Refusal> {
        let ring = self.ring.load();
        let key = ring.iter().find(|key| key.kid == kid && now_ms < key.until_ms).ok_or(Refusal::Unknown)?;
        let claims = rules.verify(token, &key.key, now_ms)?;
        // One tenant's key must not speak for another.
        if claims.tid != self.name {
            return Err(Refusal::Token(BadToken::Claims));
        }
        self.known(kid.into(), Arc::new(claims), now_ms)
    }

    /// Looks again at a token that was verified before: what it rests on may be gone.
    pub(super) fn look_again(&self, known: &Known, now_ms: u64) -> Result<Known, Refusal> {
        check_times(&known.claims, now_ms)?;
        let is_there = |key: &VerifyKey| *key.kid == *known.kid && now_ms < key.until_ms;
        if !self.ring.load().iter().any(is_there) {
            return Err(Refusal::Unknown);
        }
        let same = self.families.get(&known.claims.sid).is_some_and(|family| Arc::ptr_eq(&family, &known.family));
        // Roles of actors change without the family.
        if same && known.verified.actors.is_empty() && now_ms < known.family.ends_ms {
            return Ok(known.clone());
        }
        self.known(known.kid.clone(), known.claims.clone(), now_ms)
    }

    fn known(&self, kid: Arc<str>, claims: Arc<Claims>, now_ms: u64) -> Result<Known, Refusal> {
        let family = self.families.get(&claims.sid).ok_or(Refusal::Unknown)?;
        if family.subject != claims.sub {
            return Err(Refusal::Token(BadToken::Claims));
        }
        if family.ends_ms <= now_ms {
            return Err(Refusal::Expired);
        }
        let mut roles: BTreeSet<Role> = claims.roles.intersection(&family.roles).copied().collect();
        for actor in claims.actors() {
            let has = self.actors.get(&actor).ok_or(Refusal::Unknown)?;
            roles.retain(|role| has.contains(role));
        }
        let principal = Principal {
            tenant: self.name.clone(),
            subject: claims.sub.to_string(),
            kind: claims.kind,
            roles: names(&roles),
            scopes: claims.scopes(),
        };
        // Who acts for others shows no second factor of theirs.
        let waiting = if claims.act.is_none() { names(&family.waiting) } else { Vec::new() };
        let verified = Verified {
            principal: Arc::new(principal),
            waiting,
            credential: Credential::Token { jti: claims.jti, family: claims.sid },
            amr: claims.amr.iter().copied().collect::<BTreeSet<Amr>>(),
            auth_ms: Some(claims.auth_time.saturating_mul(1_000)),
            actors: claims.actors().collect(),
        };
        Ok(Known { kid, claims, family, verified: Arc::new(verified) })
    }
}

impl Known {
    pub(super) fn admitted(&self) -> Admitted {
        Admitted { verified: self.verified.clone(), session: None }
    }

    /// What the token says.
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl SessionView {
    pub(super) fn is_to_be_reported(&self, now_ms: u64) -> bool {
        let due = self.report_ms.load(Ordering::Relaxed);
        let take = || self.report_ms.compare_exchange(due, now_ms + SEEN_MS, Ordering::Relaxed, Ordering::Relaxed);
        now_ms >= due && take().is_ok()
    }
}

fn names<'a>(roles: impl IntoIterator<Item = &'a Role>) -> Vec<String> {
    roles.into_iter().map(|role| role.name().to_owned()).collect()
}

fn admit(stored: &BearerHash, ends_ms: u64, shown: &Bearer<'_>, now_ms: u64) -> Result<(), Refusal> {
    if !stored.matches(&shown.hash()) {
        return Err(Refusal::Mismatch);
    }
    if ends_ms <= now_ms { Err(Refusal::Expired) } else { Ok(()) }
}

fn ring_view(accounts: &Accounts) -> Vec<VerifyKey> {
    let keys = accounts.ring().verifying();
    keys.map(|one| VerifyKey {
        kid: one.key.kid.clone(),
        key: DecodingKey::from_ed_der(&one.key.public),
        until_ms: one.until_ms.unwrap_or(u64::MAX),
    })
    .collect()
}
