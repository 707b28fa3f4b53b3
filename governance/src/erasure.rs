//! Erasure: all that is kept of a person goes, on every node, and a certificate says so that anybody can check.
//!
//! | look for | in |
//! |---|---|
//! | what a store has to do for it | [`DataOwner`], [`Owners`] |
//! | the actor that erases, and keeps the certificates | [`actor`] |
//! | what one node still has | [`census`] |
//! | who signs | [`signer`] |
//!
//! The keys go first: from then on nothing of the person can be read or stored any more, whatever fails afterwards. Then each store
//! removes what it has, and each node counts what is left. There is a certificate only when every member counted nothing.

pub mod actor;
pub mod census;
pub mod signer;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use aivillage_runtime::{ActorCx, CallError, MsgCx, Village, VillageBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys::{CryptError, SubjectTag, TenantId, VillageSecret};

pub use actor::{Erased, Erasure, ErasureMsg};
pub use census::{Census, CensusMsg, members};
pub use signer::CertificateSigner;

/// Somebody whose data is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whose space it is in.
    pub tenant: String,
    /// Their name there: the subject of their principal.
    pub name: String,
}

/// Names of people are in no log.
impl Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Subject {
    /// As keys and what is sealed name them.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn tag(&self) -> Result<SubjectTag, CryptError> {
        SubjectTag::of(TenantId::of(&self.tenant), &self.name)
    }
}

/// A store that keeps data about people. What is asked of it may be asked again.
pub trait DataOwner: Debug + Send + Sync + 'static {
    /// Its name in certificates.
    fn name(&self) -> &'static str;

    /// Where this node has items about the subject, and how many. What cannot be looked at is an error, never nothing.
    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>>;

    /// The items at these places, which some node has told.
    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>>;

    /// Why the items at these places have to be kept for now, if they have to: nothing is erased then, and whoever asked is told.
    fn hold<'a>(
        &'a self,
        _village: &'a Village,
        _subject: &'a Subject,
        _places: &'a Places,
    ) -> BoxFuture<'a, Result<Option<String>, CallError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// Removes the items at these places on all nodes. Their keys are gone already.
    fn erase<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<(), CallError>>;
}

/// Does what only the village itself may do, in its own name; the deadline stays that of the message in hand.
pub(crate) async fn as_village<T>(work: impl Future<Output = T>) -> T {
    let current = MsgCx::current();
    MsgCx::request(current.deadline(), current.trace(), None).scope(work).await
}

/// Places in a store, and how many items about a subject each has.
pub type Places = BTreeMap<String, u64>;

/// The stores of a program that keep data about people. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Owners(Arc<RwLock<Vec<Arc<dyn DataOwner>>>>);

impl Owners {
    /// Adds a store; every node of a cluster has to have the same ones.
    pub fn add(&self, owner: impl DataOwner) {
        self.0.write().push(Arc::new(owner));
    }

    fn all(&self) -> Vec<Arc<dyn DataOwner>> {
        self.0.read().clone()
    }
}

/// Hosts erasure; the certificates are signed by a key that all nodes derive of `secret`.
pub fn install(builder: VillageBuilder, owners: &Owners, secret: VillageSecret) -> VillageBuilder {
    let (counted, erased) = (owners.clone(), owners.clone());
    let signer = CertificateSigner::new(secret);
    builder
        .provide(owners.clone())
        .provide(signer.clone())
        .host(move |_: &ActorCx| Census::new(counted.clone()))
        .host(move |_: &ActorCx| Erasure::new(erased.clone(), signer.clone()))
}

#[cfg(test)]
mod tests;
