//! The records of one shard of jobs, in the store of its group.
//!
//! [`TREE`]: shard, UUID -> [`SCHEMA`], then [`Record`]. `UUIDv7` keys are in the order of creation.
//!
//! What came out of a job is sealed for whoever opened it. In the clear are its kind, how many units it has, its state and times.

use std::sync::Arc;

use aivillage_governance::keys::{CryptError, Kept, Personal, SubjectTag, VaultError};
use aivillage_runtime::store::{Batch, Level, Store, StoreError, TreeId};
use aivillage_runtime::{CallError, Run, Village};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use uuid::Uuid;

use super::PAGE;
use super::record::{Job, JobProblem};
use crate::shelf::Shelf;

/// Where the records are.
const TREE: TreeId = TreeId(68);
/// First byte of a record. One of before, when nothing was sealed, is JSON and begins with a brace.
const SCHEMA: u8 = 2;
/// What results are kept for, as their keys name it.
const PURPOSE: &str = "job";

/// A job, who does it, and for whom.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Stored {
    pub(super) job: Job,
    pub(super) worker: Run,
    /// None of a record of before.
    #[serde(skip)]
    pub(super) owner: Option<SubjectTag>,
}

/// A record as it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    owner: Option<SubjectTag>,
    worker: Run,
    /// JSON of the job without its end.
    job: ByteBuf,
    /// JSON of an [`End`], sealed; none while there is nothing.
    end: Option<Kept>,
}

/// What came out of a job.
#[derive(Serialize, Deserialize)]
struct End {
    result: Option<Value>,
    problem: Option<JobProblem>,
}

/// A record that was read: its job lacks what is sealed.
#[derive(Debug)]
pub(super) struct Shelved {
    pub(super) stored: Stored,
    end: Option<Kept>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Records {
    shelf: Shelf,
    personal: Personal,
}

impl Records {
    /// The records of the actor with this key, `{tenant}:{shard}`.
    pub(super) async fn open(village: &Village, store: Arc<dyn Store>, actor: &str) -> Result<Self, CallError> {
        let tenant = actor.rsplit_once(':').map_or(actor, |(tenant, _)| tenant);
        Ok(Self { shelf: Shelf::open(store, actor).await?, personal: Personal::new(village, tenant, PURPOSE)? })
    }

    /// Whose a job is that this one opens.
    ///
    /// # Errors
    /// [`CryptError::Shredded`] for who was erased.
    pub(super) async fn owner(&self, subject: &str) -> Result<SubjectTag, CallError> {
        let tag = self.personal.tag(subject)?;
        self.personal.seal_for(tag, subject.as_bytes(), &()).await?;
        Ok(tag)
    }

    /// All records, in their order.
    pub(super) fn all(&self) -> Result<Vec<(Uuid, Shelved)>, StoreError> {
        let (mut all, mut from) = (Vec::new(), Vec::new());
        loop {
            let page = self.shelf.page(TREE, &from, PAGE)?;
            for (key, bytes) in &page {
                from = [&key[..], &[0]].concat();
                all.push((Uuid::from_slice(key).map_err(|error| unreadable(&error))?, read(bytes)?));
            }
            if page.len() < PAGE {
                return Ok(all);
            }
        }
    }

    /// The jobs that one person opened.
    pub(super) fn of(&self, subject: SubjectTag) -> Result<Vec<Uuid>, StoreError> {
        let all = self.all()?.into_iter();
        Ok(all.filter(|(_, shelved)| shelved.stored.owner == Some(subject)).map(|(id, _)| id).collect())
    }

    /// One record, opened; of who was erased without its end.
    pub(super) async fn get(&self, id: Uuid) -> Result<Stored, CallError> {
        let bytes = self.shelf.get(TREE, &[id.as_bytes()])?.ok_or_else(|| unreadable(&"it is gone"))?;
        let Shelved { mut stored, end } = read(&bytes)?;
        let Some(end) = end else { return Ok(stored) };
        if let Some(json) = self.personal.open::<ByteBuf>(id.as_bytes(), &end).await? {
            let End { result, problem } = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
            (stored.job.result, stored.job.problem) = (result, problem);
        }
        Ok(stored)
    }

    /// A record as it is to be stored.
    pub(super) async fn seal(&self, id: Uuid, stored: &Stored) -> Result<Vec<u8>, CallError> {
        let mut job = stored.job.clone();
        let end = End { result: job.result.take(), problem: job.problem.take() };
        let record = Record {
            owner: stored.owner,
            worker: stored.worker,
            job: ByteBuf::from(serde_json::to_vec(&job).map_err(|error| unreadable(&error))?),
            end: self.seal_end(id, stored.owner, &end).await?,
        };
        Ok(postcard::to_extend(&record, vec![SCHEMA]).map_err(|error| unreadable(&error))?)
    }

    async fn seal_end(&self, id: Uuid, owner: Option<SubjectTag>, end: &End) -> Result<Option<Kept>, CallError> {
        if end.result.is_none() && end.problem.is_none() {
            return Ok(None);
        }
        let json = ByteBuf::from(serde_json::to_vec(end).map_err(|error| unreadable(&error))?);
        let Some(owner) = owner else { return Ok(Some(Kept::clear(&json)?)) };
        match self.personal.seal_for(owner, id.as_bytes(), &json).await {
            // Of who was erased meanwhile nothing is kept.
            Err(VaultError::Crypt(CryptError::Shredded { .. })) => Ok(None),
            sealed => Ok(Some(sealed?)),
        }
    }

    pub(super) async fn put(&self, id: Uuid, record: Vec<u8>) -> Result<(), StoreError> {
        let batch = Batch::new().put(TREE, self.shelf.key(&[id.as_bytes()]), record);
        self.shelf.commit(batch, Level::Disk).await
    }

    pub(super) async fn remove(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let batch = ids.iter().fold(Batch::new(), |batch, id| batch.delete(TREE, self.shelf.key(&[id.as_bytes()])));
        self.shelf.commit(batch, Level::Async).await
    }
}

fn read(bytes: &[u8]) -> Result<Shelved, StoreError> {
    let Some(record) = bytes.strip_prefix(&[SCHEMA]) else {
        let stored = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        return Ok(Shelved { stored, end: None });
    };
    let Record { owner, worker, job, end } = postcard::from_bytes(record).map_err(|error| unreadable(&error))?;
    let job = serde_json::from_slice(&job).map_err(|error| unreadable(&error))?;
    Ok(Shelved { stored: Stored { job, worker, owner }, end })
}

fn unreadable(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Decode { what: "job record", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::NodeId;
    use aivillage_runtime::store::MemoryStore;
    use serde_json::json;

    use super::*;
    use crate::job::{JobState, Plan};

    #[tokio::test]
    async fn a_record_of_before_results_were_sealed_is_read() {
        let village = Village::builder().start().await.unwrap();
        let records = Records::open(&village, Arc::<MemoryStore>::default(), "local:0").await.unwrap();
        let plan = Plan { kind: "test".into(), total: 9, unit: "documents".into() };
        let mut job = Job::new(Uuid::max(), "local", plan, "t");
        (job.state, job.result) = (JobState::Succeeded, Some(json!({"created": 9})));
        let worker = Run { node: NodeId(7), incarnation: 1 };
        let old = serde_json::to_vec(&json!({"job": job, "worker": worker})).unwrap();
        records.put(Uuid::max(), old).await.unwrap();
        let stored = records.get(Uuid::max()).await.unwrap();
        assert_eq!((&stored.job, stored.worker, stored.owner), (&job, worker, None));
        // Written again it is as those of now, and still nobody's.
        let again = records.seal(Uuid::max(), &stored).await.unwrap();
        records.put(Uuid::max(), again).await.unwrap();
        assert_eq!(records.get(Uuid::max()).await.unwrap().job, job);
    }
}
