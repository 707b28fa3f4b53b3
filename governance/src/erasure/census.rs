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
    /// How far this node's copies are.
    Applied(Reply<Vec<u64>>),
    /// Where each store has items about the subject on this node, once its copies are so far.
    Find(Subject, Vec<u64>, Reply<Vec<(String, Places)>>),
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
        let (village, owners) = (cx.village().clone(), self.0.clone());
        match mail.body {
            CensusMsg::Applied(reply) => reply.send(village.applied()),
            CensusMsg::Find(subject, applied, mut reply) => {
                let work = async move {
                    tokio::select! {
                        () = village.shows(&applied) => reply.complete(find(&village, &owners, &subject).await),
                        () = reply.closed() => {}
                    }
                };
                cx.village().task("erasure.count", work).detach();
            }
        }
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

/// All nodes that may have something of somebody.
#[must_use]
pub fn members(village: &Village) -> Vec<NodeId> {
    match village.cluster() {
        Some(cluster) => cluster.members().iter().map(|member| member.record.id).collect(),
        None => vec![village.node_id()],
    }
}

/// What every member has of what was acknowledged when this was called. Also those that are away or behind: they answer when they
/// know, or it is an error.
pub(super) async fn find_everywhere(village: &Village, subject: &Subject) -> Result<Vec<Has>, CallError> {
    let nodes = members(village);
    let mut newest: Vec<u64> = Vec::new();
    for node in &nodes {
        let applied = village.ask_on::<Census, _>(*node, HERE, CensusMsg::Applied).await?;
        newest.resize(newest.len().max(applied.len()), 0);
        for (newest, applied) in newest.iter_mut().zip(applied) {
            *newest = applied.max(*newest);
        }
    }
    let mut all = Vec::new();
    for node in nodes {
        let find = |reply| CensusMsg::Find(subject.clone(), newest.clone(), reply);
        let found = village.ask_on::<Census, _>(node, HERE, find).await?;
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
