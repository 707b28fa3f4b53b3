//! Opening a shard: its index is compared with the journal and brought up to it, or made anew from it.

use std::path::Path;
use std::sync::Arc;

use super::indexer::{CommitPolicy, IndexOp, Indexer};
use super::known::Known;
use crate::error::MemoryError;
use crate::journal::{DocKey, Entry, Head, Journal};
use crate::language::Tongue;
use crate::lexical::{IndexedChunk, IndexedDocument, Lexical};
use crate::metrics::MemoryMetrics;

/// An opened shard.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lexical: Lexical,
    pub(crate) indexer: Indexer,
    pub(crate) known: Known,
    /// First number still in the log, and last one used.
    pub(crate) log: (u64, u64),
}

/// Opens index and journal; blocking, and long when an index has to be rebuilt.
pub(crate) fn open(
    journal: &Journal,
    dir: Option<&Path>,
    now_ms: u64,
    policy: CommitPolicy,
    metrics: &Arc<MemoryMetrics>,
) -> Result<Opened, MemoryError> {
    let known = Known::load(journal)?;
    let log = log_range(journal)?;
    let mut opened = Lexical::open(dir, now_ms)?;
    // An index that is ahead of the journal, or further behind than the log reaches, belongs to another journal.
    let applied = opened.applied_seq.filter(|seq| *seq <= log.1 && *seq + 1 >= log.0);
    if applied.is_none() && (opened.applied_seq.is_some() || opened.lexical.chunks() > 0) {
        drop(opened);
        opened = Lexical::renew(dir, now_ms)?;
    }
    let indexer = Indexer::start(&opened.lexical, applied.unwrap_or(0), policy, metrics.clone())?;
    match applied {
        Some(seq) => replay(journal, seq, &indexer)?,
        None if known.live > 0 => {
            metrics.rebuilds.inc();
            rebuild(journal, log.1, known.live, &indexer)?;
        }
        None => {}
    }
    if !indexer.send(IndexOp::Flush) {
        return Err(MemoryError::Index { reason: "the index thread ended while it caught up".to_owned() });
    }
    Ok(Opened { lexical: opened.lexical, indexer, known, log })
}

pub(super) fn log_range(journal: &Journal) -> Result<(u64, u64), MemoryError> {
    let (mut from, mut to) = (u64::MAX, 0);
    journal.for_each_entry(0, |seq, _| {
        from = from.min(seq);
        to = to.max(seq);
        Ok(())
    })?;
    Ok((from.min(to + 1), to))
}

/// Hands the index what it has not seen.
fn replay(journal: &Journal, after: u64, indexer: &Indexer) -> Result<(), MemoryError> {
    journal.for_each_entry(after, |seq, entry| {
        let op = match entry {
            Entry::Delete(key) => IndexOp::Delete(seq, key),
            // What is current now is what the index shall hold, also where later entries say so again.
            Entry::Put(key) => match journal.head(key)?.filter(|head| !head.deleted) {
                Some(head) => IndexOp::Put(seq, Box::new(load(journal, key, &head)?), None),
                None => IndexOp::Delete(seq, key),
            },
        };
        indexer.send(op);
        Ok(())
    })
}

/// Hands the index everything. Only the last step says that it is complete: a crash before it means another rebuild.
fn rebuild(journal: &Journal, seq: u64, documents: u64, indexer: &Indexer) -> Result<(), MemoryError> {
    tracing::warn!(documents, "index is made anew from the journal");
    journal.for_each_head(|key, head| {
        if !head.deleted {
            indexer.send(IndexOp::Put(0, Box::new(load(journal, key, &head)?), None));
        }
        Ok(())
    })?;
    indexer.send(IndexOp::Seen(seq));
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
