//! Sealing and opening without a mailbox: the unwrapped keys of this process, read without a lock.
//!
//! The actor of a tenant publishes its ring here after each event. A subject's keys are one entry of one of 64 maps behind an
//! [`ArcSwap`]: a reader takes a pointer, a new key copies a 64th of the pointers. Keys that leave are overwritten when the last
//! reader drops them. A key in use takes some 700 bytes.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aivillage_runtime::Durable;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::envelope::{Dek, Envelope};
use super::error::CryptError;
use super::keystore::Keystore;
use super::ring::{KeyRing, RingEvent};
use super::scope::{DekId, Purpose, Scope, SubjectTag, TenantId};

/// Maps that the subjects of a tenant are spread over.
const SHARDS: usize = 64;
/// Envelopes that do not authenticate, after which somebody is called.
const ALERT: u64 = 3;

/// Seals and opens with the keys that are loaded in this process. Clones share them.
#[derive(Clone)]
pub struct VaultHandle(Arc<Inner>);

struct Inner {
    keystore: Mutex<Option<Keystore>>,
    tenants: ArcSwap<HashMap<TenantId, Arc<Tenant>>>,
    /// Rings that this node has a copy of: they stay when their actor goes.
    copies: Mutex<HashMap<TenantId, KeyRing>>,
    /// Tenants whose actor is in this process.
    held: Mutex<HashSet<TenantId>>,
    refused: AtomicU64,
    /// Counts what came to be open or closed here: the root, rings, subjects.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for VaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.0.tenants.load().len();
        f.debug_struct("VaultHandle").field("tenants", &tenants).field("refused", &self.refused()).finish()
    }
}

/// The keys of a tenant.
struct Tenant {
    shards: Vec<ArcSwap<Shard>>,
    /// Version of the newest ring seen; held while another one is published.
    version: Mutex<u64>,
}

type Shard = HashMap<SubjectTag, Subject>;
/// The DEKs of a subject, the newest of a purpose last.
type Keys = Arc<[(Purpose, Arc<Dek>)]>;

impl Tenant {
    fn in_use(&self, subject: SubjectTag) -> Keys {
        match self.shards.get(shard_of(subject)).and_then(|shard| shard.load().get(&subject).cloned()) {
            Some(Subject::Keys(keys)) => keys,
            _ => Keys::default(),
        }
    }
}

#[derive(Clone)]
enum Subject {
    Keys(Keys),
    Shredded { at_ms: u64 },
}

impl VaultHandle {
    /// A handle without tenants; their actors bring them.
    #[must_use]
    pub fn new(keystore: Keystore) -> Self {
        let handle = Self::without_root();
        *handle.0.keystore.lock() = Some(keystore);
        handle
    }

    /// A handle that seals and opens nothing before it gets a root key.
    #[must_use]
    pub fn without_root() -> Self {
        Self(Arc::new(Inner {
            keystore: Mutex::default(),
            tenants: ArcSwap::default(),
            copies: Mutex::default(),
            held: Mutex::default(),
            refused: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }))
    }

    /// Tells when something may open here that did not, or does not any more: keys come to a node, and go, in their own time.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether the root key is there.
    #[must_use]
    pub fn has_root(&self) -> bool {
        self.0.keystore.lock().is_some()
    }

    /// Takes the root key; the first one stays. What this node has copies of opens from now on.
    pub(crate) fn take_root(&self, keystore: Keystore) {
        self.0.keystore.lock().get_or_insert(keystore);
        for ring in self.0.copies.lock().values() {
            self.show(ring, None);
        }
        self.changed();
    }

    /// Keeps the copy of a ring that this node has.
    pub(crate) fn keep_copy(&self, tenant: TenantId, ring: KeyRing) {
        self.show(&ring, None);
        self.0.copies.lock().insert(tenant, ring);
    }

    /// Changes the copy of a ring by an event.
    pub(crate) fn change_copy(&self, tenant: TenantId, event: &RingEvent) {
        let mut copies = self.0.copies.lock();
        let ring = copies.entry(tenant).or_default();
        ring.apply(event);
        match event {
            RingEvent::DekCreated { .. } | RingEvent::Shredded { .. } => self.show(ring, event.subject()),
            RingEvent::Founded { .. } => self.show(ring, None),
            _ => {}
        }
    }

    /// The node has no copies of these rings any more.
    pub(crate) fn drop_copies(&self, tenants: impl Iterator<Item = TenantId>) {
        for tenant in tenants {
            self.0.copies.lock().remove(&tenant);
            self.forget(tenant);
        }
    }

    fn show(&self, ring: &KeyRing, subject: Option<SubjectTag>) {
        let shown = match subject {
            Some(subject) => self.publish_subject(ring, subject),
            None => self.publish(ring),
        };
        match shown {
            // They are shown once the root is there.
            Ok(()) | Err(CryptError::NoRoot) => {}
            Err(error) => tracing::error!(%error, "a tenant's keys do not open on this node"),
        }
        self.changed();
    }

    /// Seals `plain` into the record `record`, which is where it will be stored.
    ///
    /// # Errors
    /// [`CryptError::Shredded`] for good. [`CryptError::NotLoaded`], [`CryptError::NoKey`], [`CryptError::Exhausted`]:
    /// [`Vault::prepare`](super::Vault::prepare) first. [`CryptError::TooLarge`], [`CryptError::NoRandom`].
    pub fn seal(&self, scope: &Scope, record: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptError> {
        self.newest(scope)?.seal(scope.tenant, record, plain)
    }

    /// Opens what was sealed into the record `record`.
    ///
    /// # Errors
    /// [`CryptError::Authenticate`] and what else says that the bytes are not what was sealed here;
    /// [`CryptError::Shredded`], [`CryptError::UnknownKey`], [`CryptError::NotLoaded`].
    pub fn open(&self, scope: &Scope, record: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptError> {
        let opened = Envelope::parse(sealed).and_then(|envelope| {
            let dek = self.dek(scope, envelope.dek())?;
            dek.open(scope.tenant, record, &envelope)
        });
        opened.inspect_err(|error| self.count(error))
    }

    /// Whether a sealed value need not be sealed again. Its key may be an old one, which opens it but seals no more.
    ///
    /// # Errors
    /// As [`VaultHandle::open`], but that nothing is authenticated.
    pub fn is_current(&self, scope: &Scope, sealed: &[u8]) -> Result<bool, CryptError> {
        Ok(self.newest(scope)?.id == Envelope::parse(sealed)?.dek())
    }

    /// Envelopes that did not authenticate or were no envelopes, since the process started.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Runs `work` on the file that the root key is in. What writes it blocks.
    ///
    /// # Errors
    /// [`CryptError::NoRoot`].
    pub(crate) fn keystore<T>(&self, work: impl FnOnce(&mut Keystore) -> T) -> Result<T, CryptError> {
        self.0.keystore.lock().as_mut().map(work).ok_or(CryptError::NoRoot)
    }

    /// Takes the whole ring of a tenant.
    pub(crate) fn publish(&self, ring: &KeyRing) -> Result<(), CryptError> {
        let Some(tenant) = ring.tenant() else { return Ok(()) };
        let before = self.0.tenants.load().get(&tenant).cloned();
        // A copy of the ring may be behind its actor.
        if before.as_ref().is_some_and(|tenant| *tenant.version.lock() > ring.version()) {
            return Ok(());
        }
        let mut shards: Vec<Shard> = std::iter::repeat_with(Shard::new).take(SHARDS).collect();
        for subject in ring.subjects() {
            let in_use = before.as_ref().map_or_else(Keys::default, |tenant| tenant.in_use(subject));
            let opened = self.opened(ring, subject, &in_use)?;
            if let (Some(shard), Some(opened)) = (shards.get_mut(shard_of(subject)), opened) {
                shard.insert(subject, opened);
            }
        }
        let shards = shards.into_iter().map(ArcSwap::from_pointee).collect();
        let loaded = Arc::new(Tenant { shards, version: Mutex::new(ring.version()) });
        self.0.tenants.rcu(|tenants| {
            let mut tenants = HashMap::clone(tenants);
            tenants.insert(tenant, loaded.clone());
            tenants
        });
        Ok(())
    }

    /// Takes one subject of a ring whose other subjects have not changed since it was published.
    pub(crate) fn publish_subject(&self, ring: &KeyRing, subject: SubjectTag) -> Result<(), CryptError> {
        let loaded = ring.tenant().and_then(|tenant| self.0.tenants.load().get(&tenant).cloned());
        let Some(loaded) = loaded else { return self.publish(ring) };
        let mut version = loaded.version.lock();
        let Some(shard) = loaded.shards.get(shard_of(subject)).filter(|_| ring.version() > *version) else {
            return Ok(());
        };
        let mut after = Shard::clone(&shard.load());
        match self.opened(ring, subject, &loaded.in_use(subject))? {
            Some(opened) => after.insert(subject, opened),
            None => after.remove(&subject),
        };
        shard.store(Arc::new(after));
        *version = ring.version();
        Ok(())
    }

    /// Takes the ring of a tenant whose actor is in this process from now on.
    pub(crate) fn hold(&self, ring: &KeyRing, tenant: TenantId) -> Result<(), CryptError> {
        self.0.held.lock().insert(tenant);
        self.publish(ring)?;
        self.changed();
        Ok(())
    }

    /// The tenant's actor is in this process no more.
    pub(crate) fn release(&self, tenant: TenantId) {
        self.0.held.lock().remove(&tenant);
        self.forget(tenant);
    }

    /// Forgets the keys of a tenant, if neither its actor nor a copy of its ring is here.
    fn forget(&self, tenant: TenantId) {
        if self.0.copies.lock().contains_key(&tenant) || self.0.held.lock().contains(&tenant) {
            return;
        }
        self.0.tenants.rcu(|tenants| {
            let mut tenants = HashMap::clone(tenants);
            tenants.remove(&tenant);
            tenants
        });
    }

    /// Messages sealed with a DEK, as far as this process knows.
    pub(crate) fn sealed(&self, scope: &Scope, dek: DekId) -> Option<u64> {
        self.dek(scope, dek).ok().map(|dek| dek.sealed())
    }

    /// Messages sealed with each DEK that has sealed more than the ring knows.
    pub(crate) fn counts(&self, ring: &KeyRing) -> Vec<(SubjectTag, DekId, u64)> {
        let loaded = ring.tenant().and_then(|tenant| self.0.tenants.load().get(&tenant).cloned());
        let mut counts = Vec::new();
        for shard in loaded.iter().flat_map(|tenant| &tenant.shards) {
            for (subject, keys) in shard.load().iter() {
                let Subject::Keys(keys) = keys else { continue };
                for (stored, (_, dek)) in ring.deks_of(*subject).iter().zip(keys.iter()) {
                    if stored.id == dek.id && dek.sealed() > stored.messages {
                        counts.push((*subject, dek.id, dek.sealed()));
                    }
                }
            }
        }
        counts
    }

    /// A subject's keys out of its ring. Those that are in use stay, with what they have counted.
    fn opened(
        &self,
        ring: &KeyRing,
        subject: SubjectTag,
        in_use: &[(Purpose, Arc<Dek>)],
    ) -> Result<Option<Subject>, CryptError> {
        if let Some(tombstone) = ring.tombstone(subject) {
            return Ok(Some(Subject::Shredded { at_ms: tombstone.at_ms }));
        }
        let opened = self.keystore(|keystore| ring.open_subject(keystore.root(), subject))??;
        let keys: Keys = opened
            .into_iter()
            .map(|(purpose, dek)| {
                let used = in_use.iter().find(|(_, used)| used.id == dek.id).map(|(_, used)| used.clone());
                (purpose, used.unwrap_or_else(|| Arc::new(dek)))
            })
            .collect();
        Ok((!keys.is_empty()).then_some(Subject::Keys(keys)))
    }

    fn newest(&self, scope: &Scope) -> Result<Arc<Dek>, CryptError> {
        let keys = self.keys(scope)?.ok_or(CryptError::NoKey)?;
        let newest = keys.iter().rev().find(|(purpose, _)| *purpose == scope.purpose);
        newest.map(|(_, dek)| dek.clone()).ok_or(CryptError::NoKey)
    }

    fn dek(&self, scope: &Scope, id: DekId) -> Result<Arc<Dek>, CryptError> {
        let keys = self.keys(scope)?;
        let dek =
            keys.iter().flat_map(|keys| keys.iter()).find(|(purpose, dek)| dek.id == id && *purpose == scope.purpose);
        dek.map(|(_, dek)| dek.clone()).ok_or(CryptError::UnknownKey { dek: id })
    }

    fn keys(&self, scope: &Scope) -> Result<Option<Keys>, CryptError> {
        let tenants = self.0.tenants.load();
        let shard = tenants.get(&scope.tenant).and_then(|tenant| tenant.shards.get(shard_of(scope.subject)));
        match shard.ok_or(CryptError::NotLoaded)?.load().get(&scope.subject) {
            Some(Subject::Keys(keys)) => Ok(Some(keys.clone())),
            Some(Subject::Shredded { at_ms }) => Err(CryptError::Shredded { at_ms: *at_ms }),
            None => Ok(None),
        }
    }

    fn count(&self, error: &CryptError) {
        if !error.is_suspicious() {
            return;
        }
        let refused = self.0.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if refused == ALERT {
            tracing::error!(refused, "stored envelopes do not authenticate: look for tampering or a failing disk");
        } else {
            tracing::warn!(refused, code = error.code(), "a stored envelope was refused");
        }
    }
}

fn shard_of(subject: SubjectTag) -> usize {
    let [first, ..] = subject.as_bytes();
    usize::from(*first) % SHARDS
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::Durable;
    use uuid::Uuid;

    use super::*;
    use crate::keys::ring::RingEvent;

    struct Made {
        handle: VaultHandle,
        ring: KeyRing,
    }

    impl Made {
        fn new() -> Self {
            let handle = VaultHandle::new(Keystore::in_memory().unwrap());
            let mut made = Self { handle, ring: KeyRing::default() };
            let found = made.handle.keystore(|keystore| KeyRing::found(tenant(), keystore.root())).unwrap().unwrap();
            made.ring.apply(&found);
            made.handle.publish(&made.ring).unwrap();
            made
        }

        fn apply(&mut self, subject: SubjectTag, event: &RingEvent) {
            self.ring.apply(event);
            self.handle.publish_subject(&self.ring, subject).unwrap();
        }

        fn key(&mut self, name: &str, id: u128) {
            let scope = scope(name);
            let ring = &self.ring;
            let id = DekId(Uuid::from_u128(id));
            let event = self.handle.keystore(|keystore| ring.new_dek(keystore.root(), &scope, id, 1)).unwrap().unwrap();
            self.apply(scope.subject, &event);
        }
    }

    fn tenant() -> TenantId {
        TenantId::of("local")
    }

    fn scope(name: &str) -> Scope {
        Scope::new(tenant(), name, "memory").unwrap()
    }

    #[test]
    fn keys_serve_once_they_are_published() {
        let mut made = Made::new();
        assert_eq!(made.handle.seal(&scope("ada"), b"r", b"x"), Err(CryptError::NoKey));
        made.key("ada", 1);
        let sealed = made.handle.seal(&scope("ada"), b"r", b"x").unwrap();
        assert_eq!(made.handle.open(&scope("ada"), b"r", &sealed).unwrap(), b"x");
        let other = Scope::new(tenant(), "ada", "audit").unwrap();
        let unknown = Err(CryptError::UnknownKey { dek: DekId(Uuid::from_u128(1)) });
        assert_eq!(made.handle.open(&other, b"r", &sealed), unknown, "another purpose");
        assert_eq!(made.handle.open(&scope("bob"), b"r", &sealed), unknown, "another subject");
        let foreign = Scope::new(TenantId::of("other"), "ada", "memory").unwrap();
        assert_eq!(made.handle.open(&foreign, b"r", &sealed), Err(CryptError::NotLoaded));
        made.handle.forget(tenant());
        assert_eq!(made.handle.open(&scope("ada"), b"r", &sealed), Err(CryptError::NotLoaded));
    }

    #[test]
    fn older_key_opens_and_says_that_it_is_old() {
        let mut made = Made::new();
        made.key("ada", 1);
        let old = made.handle.seal(&scope("ada"), b"r", b"x").unwrap();
        assert_eq!(made.handle.is_current(&scope("ada"), &old), Ok(true));
        made.key("ada", 2);
        assert_eq!(made.handle.is_current(&scope("ada"), &old), Ok(false));
        assert_eq!(made.handle.open(&scope("ada"), b"r", &old).unwrap(), b"x");
        let new = made.handle.seal(&scope("ada"), b"r", b"x").unwrap();
        assert_eq!(made.handle.is_current(&scope("ada"), &new), Ok(true));
        let counts = made.handle.counts(&made.ring);
        let counted: Vec<_> = counts.iter().map(|(_, id, messages)| (id.0.as_u128(), *messages)).collect();
        assert_eq!(counted, [(1, 1), (2, 1)], "what an old key has counted is not lost when a new one comes");
    }

    #[test]
    fn late_news_of_a_ring_bring_no_key_back() {
        let mut made = Made::new();
        made.key("ada", 1);
        let sealed = made.handle.seal(&scope("ada"), b"r", b"x").unwrap();
        let late = made.ring.clone();
        let event = made.ring.shred(scope("ada").subject, 9).unwrap();
        made.apply(scope("ada").subject, &event);
        made.handle.publish_subject(&late, scope("ada").subject).unwrap();
        for outcome in [made.handle.open(&scope("ada"), b"r", &sealed), made.handle.seal(&scope("ada"), b"r", b"x")] {
            assert_eq!(outcome, Err(CryptError::Shredded { at_ms: 9 }));
        }
    }

    #[test]
    fn only_suspicious_failures_are_counted() {
        let mut made = Made::new();
        made.key("ada", 1);
        let sealed = made.handle.seal(&scope("ada"), b"r", b"x").unwrap();
        made.handle.open(&scope("bob"), b"r", &sealed).unwrap_err();
        assert_eq!(made.handle.refused(), 0);
        made.handle.open(&scope("ada"), b"other", &sealed).unwrap_err();
        made.handle.open(&scope("ada"), b"r", b"clear").unwrap_err();
        made.handle.open(&scope("ada"), b"r", &sealed[..40]).unwrap_err();
        assert_eq!(made.handle.refused(), 3);
    }
}
