//! `gov.census`: what this node still has of a person.
//!
//! Key: any, usually [`HERE`]. Placement: one per node, each asked by its id. Durable: no. Lost in a crash: the mail in
//! hand.

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, NodeId, Placement, Reply, Village,
};
use serde::{Deserialize, Serialize};

use super::{Owners, Places, Subject};
use crate::HERE;

/// What a [`Census`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum CensusMsg {
    /// Where each store has items about the subject on this node.
    Find(Subject, Reply<Vec<(String, Places)>>),
}

/// The behaviour.
#[derive(Debug)]
pub struct Census(Owners);

impl Census {
    /// Counts in these stores.
    #[must_use]
    pub fn new(owners: Owners) -> Self {
        Self(owners)
    }
}

impl Kind for Census {
    const NAME: &'static str = "gov.census";
    type Body = CensusMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for Census {
    type Msg = Mail<CensusMsg>;
    type State = ActorCx;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<ActorCx, ActorProcessingErr> {
        Ok(cx)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        cx: &mut ActorCx,
    ) -> Result<(), ActorProcessingErr> {
        let CensusMsg::Find(subject, reply) = mail.body;
        let (village, owners) = (cx.village().clone(), self.0.clone());
        let work = async move { reply.complete(find(&village, &owners, &subject).await) };
        cx.village().task("erasure.count", work).detach();
        Ok(())
    }
}

async fn find(village: &Village, owners: &Owners, subject: &Subject) -> Result<Vec<(String, Places)>, CallError> {
    let mut found = Vec::new();
    for owner in owners.all() {
        found.push((owner.name().to_owned(), owner.enumerate(village, subject).await?));
    }
    Ok(found)
}

/// What one store has on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Has {
    pub(super) node: NodeId,
    pub(super) owner: String,
    pub(super) places: Places,
}

impl Has {
    pub(super) fn items(&self) -> u64 {
        self.places.values().sum()
    }
}

/// What every member has, also those that are away: they answer or it is an error.
pub(super) async fn find_everywhere(village: &Village, subject: &Subject) -> Result<Vec<Has>, CallError> {
    let nodes = match village.cluster() {
        Some(cluster) => cluster.members().iter().map(|member| member.record.id).collect(),
        None => vec![village.node_id()],
    };
    let mut all = Vec::new();
    for node in nodes {
        let found = village.ask_on::<Census, _>(node, HERE, |reply| CensusMsg::Find(subject.clone(), reply)).await?;
        all.extend(found.into_iter().map(|(owner, places)| Has { node, owner, places }));
    }
    Ok(all)
}

/// The places of a store on whichever node.
pub(super) fn places_of(all: &[Has], owner: &str) -> Places {
    let mut places = Places::new();
    for (place, items) in all.iter().filter(|has| has.owner == owner).flat_map(|has| &has.places) {
        let most = places.entry(place.clone()).or_default();
        *most = items.max(most).to_owned();
    }
    places
}
