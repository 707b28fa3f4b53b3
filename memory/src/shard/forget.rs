//! Taking a person out of a shard: what is theirs out of the journal, and the index that holds their words altogether.
//!
//! 1. The journal begins the next generation of the index, removes what is theirs, and last that they were here
//!    ([`Journal::forget`](crate::journal::Journal)). From the first of it on no index of before is opened again.
//! 2. The shard makes an index of that generation, in another folder, of what the journal has; what was sealed for an erased
//!    person does not open any more. Meanwhile it answers from the old one, and shows nothing of theirs: passages are read from
//!    the journal.
//! 3. The folders of before are removed, here and by [`folders`](super::folders) on the other nodes.
//!
//! Whatever interrupts this, the erasure is asked for again and finds what is left: the person in the journal, or a folder by its
//! name. A shard that starts in between makes the index when it opens.

use aivillage_governance::keys::SubjectTag;
use aivillage_runtime::{Batch, CallError, clock};

use super::folders::remove_outdated;
use super::indexer::IndexOp;
use super::known::Known;
use super::open::rebuild;
use super::read::{Counts, IndexHere};
use super::write::WriteSide;
use crate::error::MemoryError;
use crate::lexical::Lexical;
use crate::lexical::writer::Writer;
use crate::names::index_name;

impl WriteSide {
    /// Takes out a person; tells the generation of the index that is searched then. `None` when the shard has to start again.
    pub(super) async fn forget(mut self, subject: SubjectTag) -> Option<(Self, Result<u64, CallError>)> {
        // None that was destroyed seals from here on.
        if let Err(error) = self.journal.refresh().await {
            return Some((self, Err(error)));
        }
        let found;
        (self, found) = self.blocking("memory.forget", move |side| side.belongings(subject)).await?;
        let committed = match found {
            Ok(batches) if batches.is_empty() => Ok(()),
            Ok(batches) => self.commit_all(batches).await,
            Err(error) => Err(error.into()),
        };
        let settled;
        (self, settled) = self.settle().await?;
        if let Err(error) = committed.and(settled) {
            return Some((self, Err(error)));
        }
        let renewed;
        (self, renewed) = self.blocking("memory.renew", Self::renew).await?;
        if let Err(error) = &renewed {
            // It may be half made: what opens next makes it whole.
            tracing::error!(%error, "the index without the erased cannot be made");
            self.end();
            return None;
        }
        Some((self, renewed.map_err(CallError::from)))
    }

    /// What takes the person out of the journal; nothing if they are not there.
    fn belongings(&mut self, subject: SubjectTag) -> Result<Vec<Batch>, MemoryError> {
        if !self.journal.knows(subject)? {
            return Ok(Vec::new());
        }
        self.journal.forget(subject)
    }

    /// Goes on with an index of the journal's generation, unless it has it already, and removes all others.
    fn renew(&mut self) -> Result<u64, MemoryError> {
        let generation = self.journal.whole()?.generation;
        self.known = Known::load(&self.journal)?;
        self.counts.send_replace(Counts::of(&self.known, self.log.last.seq));
        if generation != self.generation {
            let ended = || MemoryError::Index { reason: "the index thread has ended".to_owned() };
            // Who waits for a write to be searchable is answered from the old one.
            self.indexer.flush().then_some(()).ok_or_else(ended)?;
            let dir = self.folder.as_ref().map(|folder| folder.join(index_name(generation)));
            let opened = Lexical::open(dir.as_deref(), clock::unix_ms())?;
            self.indexer.send(IndexOp::Renew(Box::new(Writer::new(&opened.lexical)?)));
            self.metrics.rebuilds.inc();
            rebuild(&self.journal, self.log.last, self.known.live, &self.indexer)?;
            self.indexer.flush().then_some(()).ok_or_else(ended)?;
            self.index.send_replace(IndexHere { lexical: opened.lexical, dir });
            self.generation = generation;
        }
        if let Some(folder) = &self.folder {
            remove_outdated(folder, Some(generation))?;
        }
        Ok(generation)
    }
}
