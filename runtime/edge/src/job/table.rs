//! `edge.jobs`: the jobs of a tenant in the order of their creation.
//!
//! Key: the tenant. Durable: no; it asks the actors that keep the records. Lost in a crash: answers under way.

use std::cmp::Reverse;

use aivillage_runtime::{Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, Mail, Reply, Village};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Job, JobActor, JobMsg, SHARDS, shard_key, shard_of};

/// What a [`JobTable`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobTableMsg {
    /// Lists the jobs of a tenant, the newest first.
    List {
        /// Only those that are older than this one.
        before: Option<Uuid>,
        /// At most so many.
        limit: usize,
        /// The jobs.
        reply: Reply<Vec<Job>>,
    },
}

/// The behaviour.
#[derive(Debug)]
pub struct JobTable;

impl Kind for JobTable {
    const NAME: &'static str = "edge.jobs";
    type Body = JobTableMsg;
}

impl Actor for JobTable {
    type Msg = Mail<JobTableMsg>;
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
        let JobTableMsg::List { before, limit, reply } = mail.body;
        let (village, tenant) = (cx.village().clone(), cx.key().to_owned());
        // One list need not wait for another.
        let answer = async move { reply.complete(list(&village, &tenant, before, limit).await) };
        cx.village().task("edge.jobs", answer).detach();
        Ok(())
    }
}

/// Names first, so that only the records of the page travel.
async fn list(village: &Village, tenant: &str, before: Option<Uuid>, limit: usize) -> Result<Vec<Job>, CallError> {
    let addr = |shard| village.addr::<JobActor>(shard_key(tenant, shard));
    let newest =
        (0..SHARDS).map(async |shard| addr(shard).query(|reply| JobMsg::Newest { before, limit, reply }).await);
    let mut ids: Vec<Uuid> = try_join_all(newest).await?.into_iter().flatten().collect();
    ids.sort_unstable_by_key(|id| Reverse(*id));
    ids.truncate(limit);
    let read = |shard| {
        let ids: Vec<Uuid> = ids.iter().copied().filter(|id| shard_of(*id) == shard).collect();
        (!ids.is_empty()).then_some(async move { addr(shard).query(|reply| JobMsg::Read(ids, reply)).await })
    };
    let mut jobs: Vec<Job> = try_join_all((0..SHARDS).filter_map(read)).await?.into_iter().flatten().collect();
    // The text of a `UUIDv7` has the order of its bytes.
    jobs.sort_unstable_by(|one, other| other.id.cmp(&one.id));
    Ok(jobs)
}
