//! The keys of one tenant, all of them wrapped: state made of events, safe to store, replicate and back up.
//!
//! A KEK (key encryption key) is wrapped under an epoch key of the [`Root`], DEKs (data encryption keys) under a KEK. What needs
//! a secret or randomness makes an event ([`KeyRing::found`], [`KeyRing::new_dek`], [`KeyRing::next_step`]); applying events needs
//! neither. There is one KEK, but while keys move from one to the next.
//!
//! **Why a KEK is replaced.** A DEK that was shredded is still in backups, wrapped under the KEK of its time. Were that KEK
//! wrapped again under each new epoch, today's root and an old backup would open it for ever. So a KEK that has wrapped a
//! shredded key is never carried into another epoch: the next epoch begins with a new KEK, the keys that live move to it, and
//! the old one ends with the epochs it was wrapped in.

mod event;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aivillage_runtime::Durable;
use serde::{Deserialize, Serialize};

use super::envelope::{Dek, MAX_MESSAGES};
use super::error::CryptError;
use super::root::Root;
use super::scope::{DekId, Purpose, Scope, SubjectTag, TenantId};
use super::secret::{Secret, Wrapped};

pub use event::{RingEvent, Tombstone};

/// Most DEKs of one ring: some 40 MB of state.
pub const MAX_DEKS: u64 = 250_000;
/// DEKs that one event moves to another KEK: some 100 KB, which a commit of a group takes.
const STEP: usize = 1_000;

/// When a DEK is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotateWhen {
    /// Messages sealed, at least.
    pub messages: u64,
    /// Or its age in milliseconds, at least.
    pub age_ms: u64,
}

/// The wrapped keys of a tenant.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRing {
    tenant: Option<TenantId>,
    version: u64,
    keks: BTreeMap<u32, Kek>,
    subjects: BTreeMap<SubjectTag, Vec<StoredDek>>,
    deks: u64,
    shredded: BTreeMap<SubjectTag, Tombstone>,
    /// The newest KEK has wrapped a key that was shredded since.
    tainted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kek {
    epoch: u64,
    wrapped: Wrapped,
    /// DEKs wrapped under it.
    deks: u64,
}

/// A DEK as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDek {
    /// Its name.
    pub id: DekId,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// Messages sealed with it that were counted so far.
    pub messages: u64,
    /// Generation of the KEK it is wrapped under.
    kek: u32,
    wrapped: Wrapped,
}

impl StoredDek {
    /// Whether it is to be replaced, with this many messages sealed.
    #[must_use]
    pub fn is_due(&self, sealed: u64, when: RotateWhen, now_ms: u64) -> bool {
        sealed >= when.messages.min(MAX_MESSAGES) || now_ms.saturating_sub(self.created_ms) >= when.age_ms
    }
}

impl Durable for KeyRing {
    type Event = RingEvent;

    fn apply(&mut self, event: &RingEvent) {
        self.version += 1;
        match event {
            RingEvent::Founded { tenant, epoch, kek } => {
                self.tenant = Some(*tenant);
                self.keks.insert(1, Kek { epoch: *epoch, wrapped: *kek, deks: 0 });
            }
            RingEvent::DekCreated { subject, purpose, id, at_ms, kek, wrapped } => {
                let purpose = purpose.clone();
                let dek = StoredDek { id: *id, purpose, created_ms: *at_ms, messages: 0, kek: *kek, wrapped: *wrapped };
                self.add(*subject, dek);
            }
            RingEvent::Counted(counts) => {
                for (subject, id, messages) in counts {
                    if let Some(dek) = self.dek_mut(subject, *id) {
                        dek.messages = dek.messages.max(*messages);
                    }
                }
            }
            RingEvent::EpochAdvanced { epoch, kek } => {
                if let Some(mut newest) = self.keks.last_entry() {
                    (newest.get_mut().epoch, newest.get_mut().wrapped) = (*epoch, *kek);
                }
            }
            RingEvent::KekRotated { epoch, kek } => {
                self.keks.insert(self.generation() + 1, Kek { epoch: *epoch, wrapped: *kek, deks: 0 });
                self.tainted = false;
                self.drop_empty_keks();
            }
            RingEvent::Rewrapped(deks) => self.rewrap(deks),
            RingEvent::Shredded { subject, at_ms } => self.bury(*subject, *at_ms),
        }
    }
}

impl KeyRing {
    /// Whose keys these are; none before the ring is founded.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.tenant
    }

    /// Events applied so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// DEKs that exist.
    #[must_use]
    pub fn deks(&self) -> u64 {
        self.deks
    }

    /// Subjects that were erased.
    #[must_use]
    pub fn shredded(&self) -> usize {
        self.shredded.len()
    }

    /// Generation of the newest KEK; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.keks.last_key_value().map_or(0, |(generation, _)| *generation)
    }

    /// The oldest epoch that this ring needs.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.keks.values().map(|kek| kek.epoch).min()
    }

    /// What is left of a subject, if it was erased.
    #[must_use]
    pub fn tombstone(&self, subject: SubjectTag) -> Option<&Tombstone> {
        self.shredded.get(&subject)
    }

    /// Everybody who has keys or was erased.
    pub fn subjects(&self) -> impl Iterator<Item = SubjectTag> {
        self.subjects.keys().chain(self.shredded.keys()).copied()
    }

    /// The DEKs of a subject, the oldest of each purpose first.
    #[must_use]
    pub fn deks_of(&self, subject: SubjectTag) -> &[StoredDek] {
        self.subjects.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// The DEK that seals in a scope now.
    #[must_use]
    pub fn newest(&self, scope: &Scope) -> Option<&StoredDek> {
        self.deks_of(scope.subject).iter().rev().find(|dek| dek.purpose == scope.purpose)
    }

    /// Whether something sealed with this DEK need not be sealed again.
    #[must_use]
    pub fn is_current(&self, scope: &Scope, dek: DekId) -> bool {
        self.newest(scope).is_some_and(|newest| newest.id == dek)
    }

    /// Founds the ring of a tenant.
    ///
    /// # Errors
    /// [`CryptError::NoRandom`].
    pub fn found(tenant: TenantId, root: &Root) -> Result<RingEvent, CryptError> {
        let epoch = root.current();
        let kek = wrap_kek(root, tenant, 1, epoch, &Secret::generate()?)?;
        Ok(RingEvent::Founded { tenant, epoch, kek })
    }

    /// Makes a DEK for a subject and a purpose.
    ///
    /// # Errors
    /// [`CryptError::Shredded`], [`CryptError::Full`], and when the KEK does not open.
    pub fn new_dek(&self, root: &Root, scope: &Scope, id: DekId, at_ms: u64) -> Result<RingEvent, CryptError> {
        if let Some(tombstone) = self.tombstone(scope.subject) {
            return Err(CryptError::Shredded { at_ms: tombstone.at_ms });
        }
        if self.deks >= MAX_DEKS {
            return Err(CryptError::Full { max: MAX_DEKS });
        }
        let (subject, purpose) = (scope.subject, scope.purpose.clone());
        let kek = self.generation();
        let context = dek_context(self.tenant, subject, &purpose, id);
        let wrapped = self.open_kek(root, kek)?.wrap(&context, &Secret::generate()?)?;
        Ok(RingEvent::DekCreated { subject, purpose, id, at_ms, kek, wrapped })
    }

    /// What is to happen next so that no key depends on an epoch before the root's current one; none when all is done. Apply it
    /// and ask again: an interruption is gone on with.
    ///
    /// # Errors
    /// When a key does not open.
    pub fn next_step(&self, root: &Root) -> Result<Option<RingEvent>, CryptError> {
        let (Some(tenant), Some((&generation, newest))) = (self.tenant, self.keks.last_key_value()) else {
            return Ok(None);
        };
        if self.keks.len() > 1 {
            return self.move_deks(root, generation).map(Some);
        }
        let epoch = root.current();
        if newest.epoch >= epoch {
            return Ok(None);
        }
        if self.tainted {
            let kek = wrap_kek(root, tenant, generation + 1, epoch, &Secret::generate()?)?;
            return Ok(Some(RingEvent::KekRotated { epoch, kek }));
        }
        let kek = wrap_kek(root, tenant, generation, epoch, &self.open_kek(root, generation)?)?;
        Ok(Some(RingEvent::EpochAdvanced { epoch, kek }))
    }

    /// Destroys all keys of a subject. None when that has happened already.
    #[must_use]
    pub fn shred(&self, subject: SubjectTag, at_ms: u64) -> Option<RingEvent> {
        self.tombstone(subject).is_none().then_some(RingEvent::Shredded { subject, at_ms })
    }

    /// The DEKs of a subject with their purposes, unwrapped, in the order of [`KeyRing::deks_of`].
    ///
    /// # Errors
    /// [`CryptError::EpochGone`] when this is a state whose epoch was destroyed; [`CryptError::Authenticate`] when it was
    /// altered, or belongs to another root.
    pub(crate) fn open_subject(&self, root: &Root, subject: SubjectTag) -> Result<Vec<(Purpose, Dek)>, CryptError> {
        let mut keks = OpenKeks::new(self, root);
        let mut opened = Vec::new();
        for dek in self.deks_of(subject) {
            let key = keks.dek(subject, dek)?;
            opened.push((dek.purpose.clone(), Dek::new(dek.id, &key, dek.messages)));
        }
        Ok(opened)
    }

    fn context(&self, subject: SubjectTag, dek: &StoredDek) -> Vec<u8> {
        dek_context(self.tenant, subject, &dek.purpose, dek.id)
    }

    fn open_kek(&self, root: &Root, generation: u32) -> Result<Secret, CryptError> {
        let (Some(tenant), Some(kek)) = (self.tenant, self.keks.get(&generation)) else {
            return Err(CryptError::Authenticate);
        };
        root.epoch_key(kek.epoch)?.unwrap(&kek_context(tenant, generation, kek.epoch), &kek.wrapped)
    }

    /// Moves the next DEKs from older KEKs to that of `to`.
    fn move_deks(&self, root: &Root, to: u32) -> Result<RingEvent, CryptError> {
        let all = self.subjects.iter().flat_map(|(subject, deks)| deks.iter().map(move |dek| (*subject, dek)));
        let next: Vec<_> = all.filter(|(_, dek)| dek.kek != to).take(STEP).collect();
        let new = self.open_kek(root, to)?;
        let mut old = OpenKeks::new(self, root);
        let mut moved = Vec::with_capacity(next.len());
        for (subject, dek) in next {
            let key = old.dek(subject, dek)?;
            moved.push((subject, dek.id, new.wrap(&self.context(subject, dek), &key)?));
        }
        Ok(RingEvent::Rewrapped(moved))
    }

    fn dek_mut(&mut self, subject: &SubjectTag, id: DekId) -> Option<&mut StoredDek> {
        self.subjects.get_mut(subject)?.iter_mut().find(|dek| dek.id == id)
    }

    fn add(&mut self, subject: SubjectTag, dek: StoredDek) {
        if let Some(kek) = self.keks.get_mut(&dek.kek) {
            kek.deks += 1;
            self.deks += 1;
            self.subjects.entry(subject).or_default().push(dek);
        }
    }

    fn rewrap(&mut self, moved: &[(SubjectTag, DekId, Wrapped)]) {
        let newest = self.generation();
        for (subject, id, wrapped) in moved {
            let Some(dek) = self.dek_mut(subject, *id) else { continue };
            let from = std::mem::replace(&mut dek.kek, newest);
            dek.wrapped = *wrapped;
            self.count_kek(from, -1);
            self.count_kek(newest, 1);
        }
        self.drop_empty_keks();
    }

    fn bury(&mut self, subject: SubjectTag, at_ms: u64) {
        let deks = self.subjects.remove(&subject).unwrap_or_default();
        let mut keys = Vec::with_capacity(deks.len());
        for dek in deks {
            self.deks -= 1;
            self.count_kek(dek.kek, -1);
            self.tainted |= dek.kek == self.generation();
            keys.push((dek.id, self.keks.get(&dek.kek).map_or(0, |kek| kek.epoch)));
        }
        self.shredded.insert(subject, Tombstone { at_ms, keys });
        self.drop_empty_keks();
    }

    fn count_kek(&mut self, generation: u32, change: i64) {
        if let Some(kek) = self.keks.get_mut(&generation) {
            kek.deks = kek.deks.saturating_add_signed(change);
        }
    }

    fn drop_empty_keks(&mut self) {
        let newest = self.generation();
        self.keks.retain(|generation, kek| *generation == newest || kek.deks > 0);
    }
}

/// The KEKs of a ring, each opened once.
struct OpenKeks<'a> {
    ring: &'a KeyRing,
    root: &'a Root,
    opened: BTreeMap<u32, Secret>,
}

impl<'a> OpenKeks<'a> {
    fn new(ring: &'a KeyRing, root: &'a Root) -> Self {
        Self { ring, root, opened: BTreeMap::new() }
    }

    fn dek(&mut self, subject: SubjectTag, dek: &StoredDek) -> Result<Secret, CryptError> {
        let kek = match self.opened.entry(dek.kek) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(closed) => closed.insert(self.ring.open_kek(self.root, dek.kek)?),
        };
        kek.unwrap(&self.ring.context(subject, dek), &dek.wrapped)
    }
}

fn wrap_kek(root: &Root, tenant: TenantId, generation: u32, epoch: u64, kek: &Secret) -> Result<Wrapped, CryptError> {
    root.epoch_key(epoch)?.wrap(&kek_context(tenant, generation, epoch), kek)
}

fn kek_context(tenant: TenantId, generation: u32, epoch: u64) -> Vec<u8> {
    [b"AVK1", &tenant.0.as_bytes()[..], &generation.to_le_bytes(), &epoch.to_le_bytes()].concat()
}

fn dek_context(tenant: Option<TenantId>, subject: SubjectTag, purpose: &Purpose, id: DekId) -> Vec<u8> {
    let tenant = tenant.map_or([0; 16], |tenant| *tenant.0.as_bytes());
    [b"AVD1", &tenant[..], subject.as_bytes(), id.0.as_bytes(), purpose.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests;
