//! What the memory has of a person, as a store that keeps data about people: for exporting and erasing.
//!
//! A node has what its copies of the shards have, and indexes in folders, which are not sealed: those of before the last erasure
//! from a shard count as well, whoever is asked for, until they are gone.

use aivillage_governance::HERE;
use aivillage_governance::erasure::{DataOwner, Places, Subject, members};
use aivillage_runtime::{CallError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::document::DocumentView;
use crate::error::MemoryError;
use crate::journal::Journal;
use crate::names::ShardName;
use crate::registry::{Registry, RegistryMsg};
use crate::shard::folders::{Folders, FoldersMsg, outdated};
use crate::shard::{Shard, ShardMsg};

/// The documents that people have stored. A place is the key of a shard.
#[derive(Debug, Clone, Copy)]
pub struct MemoryData;

impl DataOwner for MemoryData {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let mut places = Places::new();
            let registry = village.addr::<Registry>(&subject.tenant);
            for collection in registry.call().repeatable().ask(RegistryMsg::List).await? {
                let name = ShardName::new(&subject.tenant, &collection)?;
                let items = count(village, &name, subject).await?;
                if items > 0 {
                    places.insert(name.key(), items);
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
            let mut all = Vec::new();
            for key in places.keys() {
                let documents = documents(village, key, subject).await?;
                all.extend(documents.iter().map(|document| json!(document)));
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
            for key in places.keys() {
                let shard = village.addr::<Shard>(key);
                let generation = shard.call().repeatable().ask(|reply| ShardMsg::Forget(tag, reply)).await?;
                for node in members(village) {
                    let clear = |reply| FoldersMsg::Clear(key.clone(), generation, reply);
                    village.ask_on::<Folders, _>(node, HERE, clear).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }
}

/// What this node has of a person in one shard.
async fn count(village: &Village, name: &ShardName, subject: &Subject) -> Result<u64, CallError> {
    let (tag, key) = (subject.tag()?, name.key());
    let copy = village.copy_of::<Shard>(&key);
    let folder = village.data_dir().map(|data| name.folder(data));
    let work = move || {
        let journal = copy.map(|copy| Journal::new(copy, &key));
        let items = journal.as_ref().map_or(Ok(0), |journal| journal.count_of(tag))?;
        let generation = journal.map(|journal| journal.whole()).transpose()?.map(|whole| whole.generation);
        let folders = folder.map_or_else(|| Ok(Vec::new()), |folder| outdated(&folder, generation))?;
        Ok::<_, MemoryError>(items + folders.len() as u64)
    };
    let counted = village.blocking("memory.count", work).await;
    Ok(counted.map_err(|_| CallError::Panicked)??)
}

/// All documents of a person in one shard, each version for itself.
async fn documents(village: &Village, key: &str, subject: &Subject) -> Result<Vec<DocumentView>, CallError> {
    let (tag, mut all, mut after) = (subject.tag()?, Vec::new(), None);
    loop {
        let shard = village.addr::<Shard>(key);
        let (documents, next) = shard.call().repeatable().ask(|reply| ShardMsg::Of(tag, after, reply)).await?;
        all.extend(documents);
        if next.is_none() {
            return Ok(all);
        }
        after = next;
    }
}
