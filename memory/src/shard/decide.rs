//! What becomes of documents that are to be stored or deleted, given what is stored: pure, but for reading the journal.

use std::collections::HashMap;

use aivillage_runtime::Batch;

use super::known::Known;
use crate::document::{DeleteReport, PutResult, PutStatus};
use crate::error::MemoryError;
use crate::journal::{DocKey, Entry, Head, Journal, JournalBatch, Version};
use crate::lexical::{IndexedChunk, IndexedDocument};
use crate::names::ShardName;
use crate::prepare::Prepared;

/// What the index has to follow, in order.
#[derive(Debug)]
pub(crate) enum Change {
    Put(u64, Box<IndexedDocument>),
    Delete(u64, DocKey),
}

/// One batch of decisions: sees its own writes, although nothing is durable before the batch is committed.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    name: &'a ShardName,
    journal: &'a Journal,
    known: &'a mut Known,
    keep_versions: u32,
    now_ms: u64,
    seq: u64,
    heads: HashMap<DocKey, Head>,
    batch: JournalBatch<'a>,
    pub(crate) changes: Vec<Change>,
}

impl<'a> Decision<'a> {
    /// Begins a batch; `seq` is the last number used in the log.
    pub(crate) fn new(
        name: &'a ShardName,
        journal: &'a Journal,
        known: &'a mut Known,
        keep_versions: u32,
        (seq, now_ms): (u64, u64),
    ) -> Self {
        let (batch, heads) = (journal.batch(), HashMap::new());
        Self { name, journal, known, keep_versions, now_ms, seq, heads, batch, changes: Vec::new() }
    }

    fn head(&self, key: DocKey) -> Result<Option<Head>, MemoryError> {
        match self.heads.get(&key) {
            Some(head) => Ok(Some(head.clone())),
            None => self.journal.head(key),
        }
    }

    /// Stores a document, or finds that it is there already.
    pub(crate) fn put(&mut self, document: Prepared) -> Result<PutResult, MemoryError> {
        let key = DocKey::of(&self.name.tenant, &self.name.collection, &document.id);
        let before = self.head(key)?;
        let current = before.as_ref().filter(|head| !head.deleted);
        if let Some(head) = current.filter(|head| head.content == document.content_digest) {
            return Ok(result(document.id, PutStatus::Unchanged, head));
        }
        if let Some(head) = current {
            self.known.remove(head);
        }
        let duplicate_of =
            self.known.original(key, &document.text_digest, document.signature.as_ref(), |key| self.head(key))?;
        let version = before.as_ref().map_or(1, |head| head.version + 1);
        let oldest = self.expire(key, current, version)?;
        let head = Head {
            id: document.id.clone(),
            version,
            oldest,
            deleted: false,
            text: document.text_digest,
            content: document.content_digest,
            duplicate_of,
            signature: document.signature.as_ref().map(super::super::dedup::Signature::to_bytes).unwrap_or_default(),
            language: document.tongue.code().to_owned(),
        };
        let status = if current.is_some() { PutStatus::Updated } else { PutStatus::Created };
        let answer = result(document.id.clone(), status, &head);
        self.seq += 1;
        self.changes.push(Change::Put(self.seq, Box::new(indexed(key, version, &document))));
        self.batch.log(self.seq, Entry::Put(key))?;
        self.batch.head(key, &head)?;
        let (record, text, chunks) = record(document, self.now_ms);
        self.batch.version(key, version, record, text, chunks)?;
        self.known.add(key, &head);
        self.heads.insert(key, head);
        Ok(answer)
    }

    /// Removes versions beyond those that are kept; gives the oldest that stays.
    fn expire(&mut self, key: DocKey, current: Option<&Head>, version: u32) -> Result<u32, MemoryError> {
        let Some(head) = current else { return Ok(version) };
        let oldest = (version + 1).saturating_sub(self.keep_versions).max(head.oldest);
        for old in head.oldest..oldest {
            self.batch.remove_version(key, old)?;
        }
        Ok(oldest)
    }

    /// Deletes documents by id; a tombstone stays.
    pub(crate) fn delete(&mut self, ids: Vec<String>) -> Result<DeleteReport, MemoryError> {
        let mut report = DeleteReport { deleted: Vec::new(), missing: Vec::new() };
        for id in ids {
            let key = DocKey::of(&self.name.tenant, &self.name.collection, &id);
            let Some(head) = self.head(key)?.filter(|head| !head.deleted) else {
                report.missing.push(id);
                continue;
            };
            self.known.remove(&head);
            for version in head.oldest..=head.version {
                self.batch.remove_version(key, version)?;
            }
            let tombstone = Head {
                deleted: true,
                text: [0; 16],
                content: [0; 16],
                duplicate_of: None,
                signature: Vec::new(),
                language: String::new(),
                ..head
            };
            self.seq += 1;
            self.batch.log(self.seq, Entry::Delete(key))?;
            self.batch.head(key, &tombstone)?;
            self.changes.push(Change::Delete(self.seq, key));
            self.heads.insert(key, tombstone);
            report.deleted.push(id);
        }
        Ok(report)
    }

    /// Removes log entries that the index has seen.
    pub(crate) fn forget(&mut self, entries: std::ops::Range<u64>) {
        entries.for_each(|seq| self.batch.forget(seq));
    }

    /// The batch, the last number used in the log, and what the index has to follow.
    pub(crate) fn finish(self) -> (Batch, u64, Vec<Change>) {
        (self.batch.into_batch(), self.seq, self.changes)
    }
}

fn result(id: String, status: PutStatus, head: &Head) -> PutResult {
    let duplicate_of = head.duplicate_of.as_ref().map(|(_, id)| id.clone());
    PutResult { id, status, version: Some(head.version), duplicate_of, error: None }
}

fn record(document: Prepared, now_ms: u64) -> (Version, String, Vec<crate::chunk::Chunk>) {
    let version = Version {
        title: document.title,
        url: document.url,
        source: document.source,
        metadata: document.metadata,
        format: document.format,
        language: document.tongue.code().to_owned(),
        stored_ms: now_ms,
        chunks: 0,
        bytes: 0,
        inline: None,
    };
    (version, document.text, document.chunks)
}

fn indexed(key: DocKey, version: u32, document: &Prepared) -> IndexedDocument {
    let chunks = document.chunks.iter().zip(0..).map(|(chunk, ordinal)| IndexedChunk {
        ordinal,
        heading: chunk.heading.clone(),
        body: chunk.of(&document.text).to_owned(),
    });
    IndexedDocument {
        key,
        version,
        id: document.id.clone(),
        title: document.title.clone().unwrap_or_default(),
        source: document.source.clone(),
        tongue: document.tongue,
        chunks: chunks.collect(),
    }
}
