//! What happens to the keys of a tenant, as it is stored.

use serde::{Deserialize, Serialize};

use crate::keys::scope::{DekId, Purpose, SubjectTag, TenantId};
use crate::keys::secret::Wrapped;

/// What is left of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// When its keys were destroyed, Unix milliseconds.
    pub at_ms: u64,
    /// The keys that it had, and the epoch in which each was destroyed.
    pub keys: Vec<(DekId, u64)>,
}

/// What happened to the keys of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingEvent {
    /// The ring was founded, with its first KEK.
    Founded {
        /// Whose it is.
        tenant: TenantId,
        /// The epoch that the KEK is wrapped in.
        epoch: u64,
        /// The KEK.
        kek: Wrapped,
    },
    /// A DEK was made; it seals from now on what is sealed for its subject and purpose.
    DekCreated {
        /// Whom it is about.
        subject: SubjectTag,
        /// What it is for.
        purpose: Purpose,
        /// Its name.
        id: DekId,
        /// When, Unix milliseconds.
        at_ms: u64,
        /// Generation of the KEK it is wrapped under.
        kek: u32,
        /// The key.
        wrapped: Wrapped,
    },
    /// Messages were sealed: how many in all, of each DEK.
    Counted(Vec<(SubjectTag, DekId, u64)>),
    /// The KEK was wrapped in a newer epoch.
    EpochAdvanced {
        /// The epoch.
        epoch: u64,
        /// The KEK.
        kek: Wrapped,
    },
    /// There is a new KEK; the DEKs are to move to it.
    KekRotated {
        /// The epoch that it is wrapped in.
        epoch: u64,
        /// The KEK.
        kek: Wrapped,
    },
    /// DEKs moved to the newest KEK. Older ones without DEKs are destroyed.
    Rewrapped(Vec<(SubjectTag, DekId, Wrapped)>),
    /// All keys of a subject were destroyed; it never gets others.
    Shredded {
        /// The subject.
        subject: SubjectTag,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

impl RingEvent {
    /// Whose keys it changes; none of an event that changes how they are wrapped only.
    #[must_use]
    pub fn subject(&self) -> Option<SubjectTag> {
        match self {
            Self::DekCreated { subject, .. } | Self::Shredded { subject, .. } => Some(*subject),
            _ => None,
        }
    }
}
