//! Opening a shard: its index is compared with the journal and brought up to it, or made anew from it.
//!
//! The journal may have gone on elsewhere since the index was last written here, and in theory an index may have seen what
//! the journal never kept. So it is used only if its position is one of the journal's history from which the log holds
//! everything that follows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::remove_outdated;
use super::indexer::{CommitPolicy, IndexOp, Indexer};
use super::known::Known;
use crate::error::MemoryError;
use crate::journal::{DocKey, Entry, Head, Journal, LogRange, Position};
use crate::language::Tongue;
use crate::lexical::writer::Writer;
use crate::lexical::{IndexedChunk, IndexedDocument, Lexical};
use crate::metrics::MemoryMetrics;
use crate::names::index_name;

/// An opened shard.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lexical: Lexical,
    pub(crate) indexer: Indexer,
    pub(crate) known: Known,
    pub(crate) log: LogRange,
    /// The journal holds something that has to be swept.
    pub(crate) loose: bool,
    /// The folder that the indexes are in, that of this one, and which it is.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) generation: u64,
}

/// Opens index and journal; blocking, and long when an index has to be rebuilt. A search finds everything then.
pub(crate) fn open(
    journal: &Journal,
    folder: Option<&Path>,
    now_ms: u64,
    policy: CommitPolicy,
    metrics: &Arc<MemoryMetrics>,
) -> Result<Opened, MemoryError> {
    let generation = journal.whole()?.generation;
    let dir = folder.map(|folder| folder.join(index_name(generation)));
    let mut opened = Lexical::open(dir.as_deref(), now_ms)?;
    // Before the journal is read: a predecessor on this node that still holds the index may still write.
    let mut writer = Writer::new(&opened.lexical)?;
    let known = Known::load(journal)?;
    let log = journal.log()?;
    let start = opened.applied.unwrap_or_default();
    let empty = opened.lexical.chunks() == 0;
    // One that holds chunks of nowhere was being made anew when its process ended.
    let usable = journal.leads_on_from(start, log)? && (start != Position::default() || empty);
    let fresh = opened.applied.is_none() && empty;
    if !usable && !fresh {
        drop((writer, opened));
        opened = Lexical::renew(dir.as_deref(), now_ms)?;
        writer = Writer::new(&opened.lexical)?;
    }
    let indexer = Indexer::start(writer, if usable { start } else { Position::default() }, policy, metrics.clone())?;
    if usable {
        replay(journal, start.seq, &indexer)?;
    } else {
        metrics.rebuilds.inc();
        rebuild(journal, log.last, known.live, &indexer)?;
    }
    if !indexer.flush() {
        return Err(MemoryError::Index { reason: "the index thread ended while it caught up".to_owned() });
    }
    if let Some(folder) = folder
        && let Err(error) = remove_outdated(folder, Some(generation))
    {
        // The next erasure finds them.
        tracing::error!(%error, "indexes of before an erasure cannot be removed");
    }
    let (loose, folder) = (journal.is_loose()?, folder.map(Path::to_owned));
    Ok(Opened { lexical: opened.lexical, indexer, known, log, loose, folder, dir, generation })
}

/// Hands the index what it has not seen.
pub(super) fn replay(journal: &Journal, after: u64, indexer: &Indexer) -> Result<(), MemoryError> {
    journal.for_each_entry(after, |seq, logged| {
        let at = Position { seq, chain: logged.chain };
        let op = match logged.entry {
            Entry::Delete(key) => IndexOp::Delete(at, key),
            // What is current now is what the index shall hold, also where later entries say so again.
            Entry::Put(key) => match journal.head(key)?.filter(|head| !head.deleted) {
                Some(head) => IndexOp::Put(at, Box::new(load(journal, key, &head)?), None),
                None => IndexOp::Delete(at, key),
            },
        };
        indexer.send(op);
        Ok(())
    })
}

/// Hands the index everything. Only the last step says that it is complete: a crash before it means another rebuild.
pub(super) fn rebuild(journal: &Journal, at: Position, documents: u64, indexer: &Indexer) -> Result<(), MemoryError> {
    tracing::warn!(documents, "index is made anew from the journal");
    journal.for_each_head(|key, head| {
        if !head.deleted {
            indexer.send(IndexOp::Put(Position::default(), Box::new(load(journal, key, &head)?), None));
        }
        Ok(())
    })?;
    indexer.send(IndexOp::Seen(at));
    Ok(())
}

/// A document's current version as the index wants it.
fn load(journal: &Journal, key: DocKey, head: &Head) -> Result<IndexedDocument, MemoryError> {
    let missing = || MemoryError::Journal { reason: format!("version {} of `{}` is missing", head.version, head.id) };
    let version = journal.version(key, head.version)?.ok_or_else(missing)?;
    let text = journal.text(key, head.version, &version)?;
    let chunks = journal.chunks(key, head.version, &version)?;
    let chunks = chunks.into_iter().zip(0..).map(|(chunk, ordinal)| IndexedChunk {
        ordinal,
        body: chunk.of(&text).to_owned(),
        heading: chunk.heading,
    });
    Ok(IndexedDocument {
        key,
        version: head.version,
        id: head.id.clone(),
        title: version.title.unwrap_or_default(),
        source: version.source,
        tongue: Tongue::from_code(&version.language).unwrap_or(Tongue::UNKNOWN),
        chunks: chunks.collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aivillage_runtime::Store;
    use aivillage_runtime::store::MemoryStore;
    use prometheus_client::registry::Registry;

    use aivillage_runtime::MetricSet;

    use super::*;
    use crate::chunk::ChunkSize;
    use crate::document::Document;
    use crate::lexical::search::Plan;
    use crate::names::ShardName;
    use crate::prepare::{PrepareLimits, prepare};
    use crate::question::Question;
    use crate::shard::decide::{Change, Decision};

    const LIMITS: PrepareLimits =
        PrepareLimits { bytes: 1 << 20, chunks: 100, size: ChunkSize { min: 60, max: 200, overlap: 40 } };

    /// A shard's journal, and the folder of an index on one node.
    struct World {
        journal: Journal,
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
            Self { journal: Journal::new(store, "t:main:0"), dir: tempfile::tempdir().expect("a folder") }
        }

        /// Stores documents elsewhere: the index here hears nothing of it.
        async fn change(&self, work: impl FnOnce(&mut Decision<'_>)) -> Vec<Change> {
            let name = ShardName::new("t", "main").expect("valid");
            let mut known = Known::load(&self.journal).expect("reads");
            let at = self.journal.log().expect("reads").last;
            let mut decision = Decision::new(&name, &self.journal, &mut known, 10, (at, 1));
            work(&mut decision);
            let written = decision.finish();
            self.journal.commit(written.batches).await.expect("commits");
            written.changes
        }

        async fn put(&self, ids: std::ops::Range<u32>, word: &str) -> Vec<Change> {
            self.change(|decision| {
                for id in ids {
                    let text = format!("Note number{id} is all about {word} and says nothing else.");
                    let document = Document { id: Some(format!("d{id}")), text, ..Document::default() };
                    decision.put(prepare(document, LIMITS).expect("fine"), None).expect("stored");
                }
            })
            .await
        }

        async fn delete(&self, id: &str) {
            self.change(|decision| drop(decision.delete(vec![id.to_owned()]).expect("deleted"))).await;
        }

        async fn forget(&self, entries: std::ops::Range<u64>) {
            let mut batch = self.journal.batch();
            batch.forget(entries);
            self.journal.commit(batch.finish()).await.expect("commits");
        }

        /// Opens the shard on this node, once; true if the index was made anew. Says what it holds for a word.
        fn open(&self, word: &str) -> (bool, Vec<String>) {
            let metrics = Arc::new(MemoryMetrics::register(&mut Registry::default()));
            let mut opened = self.opened(&metrics);
            let found = found(&opened.lexical, word, &self.journal);
            opened.indexer.stop().expect("runs").join().expect("ends");
            (metrics.rebuilds.get() > 0, found)
        }

        fn opened(&self, metrics: &Arc<MemoryMetrics>) -> Opened {
            let policy = CommitPolicy { every: Duration::from_millis(1), chunks: 1000 };
            open(&self.journal, Some(self.dir.path()), 7, policy, metrics).expect("opens")
        }
    }

    fn found(lexical: &Lexical, word: &str, journal: &Journal) -> Vec<String> {
        let hits = Plan::new(lexical, &Question::parse(word)).search(lexical, 1000).expect("searches");
        let id = |key| journal.head(key).expect("reads").map_or_else(|| "?".to_owned(), |head| head.id);
        let mut ids: Vec<String> = hits.into_iter().map(|hit| id(hit.key)).collect();
        ids.sort();
        ids
    }

    fn ids(ids: std::ops::Range<u32>) -> Vec<String> {
        let mut ids: Vec<String> = ids.map(|id| format!("d{id}")).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn an_absent_index_is_made_from_the_log_or_from_all_documents() {
        let world = World::new();
        world.put(0..9, "wells").await;
        world.delete("d0").await;
        assert_eq!(world.open("wells"), (false, ids(1..9)));
        std::fs::remove_dir_all(world.dir.path().join("lexical")).expect("removed");
        world.forget(1..5).await;
        assert_eq!(world.open("wells"), (true, ids(1..9)));
        assert_eq!(world.open("wells"), (false, ids(1..9)), "once is enough");
    }

    #[tokio::test]
    async fn an_index_that_is_behind_follows_the_log() {
        let world = World::new();
        world.put(0..6, "wells").await;
        assert_eq!(world.open("wells"), (false, ids(0..6)));
        world.put(4..8, "mills").await;
        world.delete("d0").await;
        // The one it goes on from has to be there.
        world.forget(1..6).await;
        assert_eq!(world.open("wells"), (false, ids(1..4)));
        assert_eq!(world.open("mills"), (false, ids(4..8)));
    }

    #[tokio::test]
    async fn an_index_that_is_further_behind_than_the_log_is_made_anew() {
        let world = World::new();
        world.put(0..6, "wells").await;
        world.open("wells");
        world.put(4..8, "mills").await;
        world.delete("d0").await;
        world.forget(1..7).await;
        assert_eq!(world.open("wells"), (true, ids(1..4)));
        assert_eq!(world.open("mills"), (false, ids(4..8)));
        assert!(std::fs::read_dir(world.dir.path()).expect("listing").count() == 1, "the old one is gone");
    }

    #[tokio::test]
    async fn an_index_ahead_of_the_journal_is_made_anew() {
        // It holds documents that were never kept, and the journal has not come that far, or has, with others.
        for later in [0, 1, 2, 5] {
            let world = World::new();
            world.put(0..3, "wells").await;
            let metrics = Arc::new(MemoryMetrics::register(&mut Registry::default()));
            let mut opened = world.opened(&metrics);
            let lost = World::new();
            lost.put(0..3, "wells").await;
            for change in lost.put(10..12, "mills").await {
                let Change::Put(at, document) = change else { panic!("only puts") };
                assert!(opened.indexer.send(IndexOp::Put(at, document, None)));
            }
            assert!(opened.indexer.flush());
            opened.indexer.stop().expect("runs").join().expect("ends");
            drop(opened);
            world.put(20..20 + later, "towers").await;
            assert_eq!(world.open("mills"), (true, ids(0..0)), "{later} later");
            assert_eq!(world.open("towers"), (false, ids(20..20 + later)));
            assert_eq!(world.open("wells"), (false, ids(0..3)));
        }
    }

    #[tokio::test]
    async fn an_index_of_before_an_erasure_is_never_opened_again() {
        let world = World::new();
        world.put(0..6, "wells").await;
        world.open("wells");
        std::fs::create_dir(world.dir.path().join("lexical.damaged-3")).expect("made");
        // The process ends here.
        let nobody = aivillage_governance::keys::TenantId::of("t");
        let nobody = aivillage_governance::keys::SubjectTag::of(nobody, "ada").expect("valid");
        world.journal.commit(world.journal.forget(nobody).expect("reads")).await.expect("commits");
        assert_eq!(world.open("wells"), (false, ids(0..6)), "made of the log");
        let left: Vec<_> = std::fs::read_dir(world.dir.path()).expect("listing").collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(world.dir.path().join("lexical-1").exists());
    }

    #[tokio::test]
    async fn a_rebuild_that_was_cut_off_is_begun_again() {
        let world = World::new();
        world.put(0..6, "wells").await;
        world.forget(1..4).await;
        let dir = world.dir.path().join("lexical");
        let fresh = Lexical::open(Some(&dir), 1).expect("opens");
        let mut writer = Writer::new(&fresh.lexical).expect("free");
        writer.put(&crate::lexical::tests::document(1, "", "wells of nowhere")).expect("put");
        writer.commit(Position::default()).expect("commits");
        drop((writer, fresh));
        assert_eq!(world.open("wells"), (true, ids(0..6)));
    }
}
