//! `memory.folders`: the folders of indexes on one node, also of shards that have moved away.
//!
//! Key: any, usually [`HERE`](aivillage_governance::HERE). Placement: one per node, each asked by its id. Durable: no. Lost in a
//! crash: the mail in hand.
//!
//! An index is not sealed, so one of before an erasure may hold words of the erased. Its folder's name tells: it is not that of
//! the shard's generation. A node that has no copy of the shard cannot use an index either, so there every folder is outdated.

use std::io;
use std::path::{Path, PathBuf};

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, Placement, Reply, Village,
};
use serde::{Deserialize, Serialize};

use super::Shard;
use crate::error::MemoryError;
use crate::lexical::io;
use crate::names::{ShardName, index_name};

/// What a [`Folders`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum FoldersMsg {
    /// Removes the indexes of the shard with this key that are of before a generation.
    Clear(String, u64, Reply<()>),
}

/// The behaviour.
#[derive(Debug)]
pub struct Folders;

impl Kind for Folders {
    const NAME: &'static str = "memory.folders";
    type Body = FoldersMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for Folders {
    type Msg = Mail<FoldersMsg>;
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
        match mail.body {
            FoldersMsg::Clear(shard, generation, reply) => {
                let village = cx.village().clone();
                let work = async move { reply.complete(clear(&village, &shard, generation).await) };
                cx.village().task("memory.folders", work).detach();
            }
        }
        Ok(())
    }
}

async fn clear(village: &Village, shard: &str, generation: u64) -> Result<(), CallError> {
    let name = ShardName::parse(shard)?;
    let Some(folder) = village.data_dir().map(|data| name.folder(data)) else { return Ok(()) };
    let current = village.copy_of::<Shard>(shard).map(|_| generation);
    let removed = village.blocking("memory.folders", move || remove_outdated(&folder, current)).await;
    Ok(removed.map_err(|_| CallError::Panicked)??)
}

/// The folders among those of a shard that are not of the current generation.
///
/// # Errors
/// `Index` when the folder cannot be looked at.
pub(crate) fn outdated(folder: &Path, current: Option<u64>) -> Result<Vec<PathBuf>, MemoryError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| io(&error))?,
    };
    let current = current.map(index_name);
    let is_current = |name: &str| {
        // A damaged one that was set aside is named like its index, with an extension.
        current
            .as_deref()
            .and_then(|current| name.strip_prefix(current))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io(&error))?;
        if !entry.file_name().to_str().is_some_and(is_current) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes them.
///
/// # Errors
/// `Index` when one cannot be removed.
pub(crate) fn remove_outdated(folder: &Path, current: Option<u64>) -> Result<(), MemoryError> {
    for path in outdated(folder, current)? {
        if let Err(error) = std::fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(io(&error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_is_of_the_current_generation_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(outdated(&dir.path().join("none"), None), Ok(Vec::new()));
        for name in ["lexical", "lexical.damaged-1", "lexical-1", "lexical-1.damaged-2", "lexical-12"] {
            std::fs::create_dir_all(dir.path().join(name).join("deep")).unwrap();
        }
        assert_eq!(outdated(dir.path(), Some(0)).unwrap().len(), 3);
        remove_outdated(dir.path(), Some(1)).unwrap();
        assert_eq!(left(dir.path()), ["lexical-1", "lexical-1.damaged-2"]);
        remove_outdated(dir.path(), None).unwrap();
        assert!(left(dir.path()).is_empty());
    }
}
