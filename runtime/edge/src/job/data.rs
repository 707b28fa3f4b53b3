//! The jobs of a person, for exporting and erasing.

use aivillage_governance::erasure::{DataOwner, Places, Subject};
use aivillage_runtime::{CallError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::shelved::Records;
use super::{JobActor, JobMsg, SHARDS, shard_key};

/// The jobs that people started, with what came out of them, as a store that keeps data about people.
#[derive(Debug, Clone, Copy)]
pub struct JobData;

impl DataOwner for JobData {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let (tag, mut places) = (subject.tag()?, Places::new());
            for shard in 0..SHARDS {
                let key = shard_key(&subject.tenant, shard);
                let Some(copy) = village.copy_of::<JobActor>(&key) else { continue };
                let jobs = Records::open(village, copy, &key).await?.of(tag)?.len() as u64;
                if jobs > 0 {
                    places.insert(key, jobs);
                }
            }
            Ok(places)
        }
        .boxed()
    }

    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move {
            let (tag, mut all) = (subject.tag()?, Vec::new());
            for place in places.keys() {
                let jobs = village.addr::<JobActor>(place).ask(|reply| JobMsg::Of(tag, reply)).await?;
                all.extend(jobs.into_iter().map(|job| json!(job)));
            }
            Ok(all)
        }
        .boxed()
    }

    fn erase<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let tag = subject.tag()?;
            for place in places.keys() {
                village.addr::<JobActor>(place).ask(|reply| JobMsg::Forget(tag, reply)).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
