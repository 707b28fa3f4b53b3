//! What becomes of documents that are to be stored or deleted, given what is stored: pure, but for reading the journal.

use std::collections::HashMap;

use aivillage_governance::keys::SubjectTag;
use aivillage_runtime::Batch;

use super::known::Known;
use crate::document::{DeleteReport, PutResult, PutStatus};
use crate::error::MemoryError;
use crate::journal::{DocKey, Entry, Head, Journal, JournalBatch, Position, Unit, Version};
use crate::lexical::{IndexedChunk, IndexedDocument};
use crate::names::ShardName;
use crate::prepare::Prepared;

/// What the index has to follow, in order.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Position, Box<IndexedDocument>),
    Delete(Position, DocKey),
}

/// A row of decisions: sees its own writes, although nothing is durable before they are committed.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    name: &'a ShardName,
    journal: &'a Journal,
    known: &'a mut Known,
    keep_versions: u32,
    now_ms: u64,
    at: Position,
    heads: HashMap<DocKey, Head>,
    batch: JournalBatch<'a>,
    pub(crate) changes: Vec<Change>,
}

impl<'a> Decision<'a> {
    /// Begins a row; `at` is the end of the journal's history.
    pub(crate) fn new(
        name: &'a ShardName,
        journal: &'a Journal,
        known: &'a mut Known,
        keep_versions: u32,
        (at, now_ms): (Position, u64),
    ) -> Self {
        let (batch, heads) = (journal.batch(), HashMap::new());
        Self { name, journal, known, keep_versions, now_ms, at, heads, batch, changes: Vec::new() }
    }

    fn head(&self, key: DocKey) -> Result<Option<Head>, MemoryError> {
        match self.heads.get(&key) {
            Some(head) => Ok(Some(head.clone())),
            None => self.journal.head(key),
        }
    }

    /// Stores a document as somebody's, or finds that it is there already.
    pub(crate) fn put(&mut self, document: Prepared, subject: Option<SubjectTag>) -> Result<PutResult, MemoryError> {
        let key = self.journal.find(self.name, &document.id)?;
        let before = self.head(key)?;
        let current = before.as_ref().filter(|head| !head.deleted);
        // What somebody else stores is theirs, too: it stays when the other one is erased.
        let is_stored = |head: &&Head| head.content == document.content_digest && head.subject == subject;
        if let Some(head) = current.filter(is_stored) {
            let original = head.duplicate_of.map(|key| self.head(key)).transpose()?.flatten();
            return Ok(result(
                document.id,
                PutStatus::Unchanged,
                head.version,
                original.map(|head| head.id).filter(|id| !id.is_empty()),
            ));
        }
        let original =
            self.known.original(key, &document.text_digest, document.signature.as_ref(), |key| self.head(key))?;
        let (duplicate_of, original) = original.unzip();
        let version = before.as_ref().map_or(1, |head| head.version + 1);
        let oldest = current.map_or(version, |head| (version + 1).saturating_sub(self.keep_versions).max(head.oldest));
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
            subject,
        };
        let status = if current.is_some() { PutStatus::Updated } else { PutStatus::Created };
        let answer = result(document.id.clone(), status, version, original);
        let mut unit = Unit::new(self.journal);
        let at = self.at.next(Entry::Put(key), version, &unit.head(key, &head)?);
        let change = Change::Put(at, Box::new(indexed(key, version, &document)));
        unit.log(at, Entry::Put(key))?;
        let newcomer = subject.filter(|subject| !self.known.people.contains(subject));
        if let Some(subject) = newcomer {
            unit.person(subject);
        }
        if let Some(before) = current {
            unit.remove_versions(key, before.oldest..oldest)?;
        }
        let (record, text, chunks) = record(document, subject, self.now_ms);
        unit.version(key, version, record, text, chunks)?;
        self.batch.add(unit)?;
        self.known.people.extend(newcomer);
        if let Some(before) = current {
            self.known.remove(before);
        }
        self.known.add(key, &head);
        self.took(at, change, key, head);
        Ok(answer)
    }

    fn took(&mut self, at: Position, change: Change, key: DocKey, head: Head) {
        self.at = at;
        self.changes.push(change);
        self.heads.insert(key, head);
    }

    /// Deletes documents by id; a tombstone stays.
    pub(crate) fn delete(&mut self, ids: Vec<String>) -> Result<DeleteReport, MemoryError> {
        let mut report = DeleteReport { deleted: Vec::new(), missing: Vec::new() };
        for id in ids {
            let key = self.journal.find(self.name, &id)?;
            let Some(head) = self.head(key)?.filter(|head| !head.deleted) else {
                report.missing.push(id);
                continue;
            };
            let tombstone = Head {
                deleted: true,
                text: [0; 16],
                content: [0; 16],
                duplicate_of: None,
                signature: Vec::new(),
                language: String::new(),
                ..head.clone()
            };
            let mut unit = Unit::new(self.journal);
            let at = self.at.next(Entry::Delete(key), tombstone.version, &unit.head(key, &tombstone)?);
            unit.log(at, Entry::Delete(key))?;
            unit.remove_versions(key, head.oldest..head.version + 1)?;
            self.batch.add(unit)?;
            self.known.remove(&head);
            self.took(at, Change::Delete(at, key), key, tombstone);
            report.deleted.push(id);
        }
        Ok(report)
    }

    /// Removes log entries that the index has seen.
    pub(crate) fn forget(&mut self, entries: std::ops::Range<u64>) {
        self.batch.forget(entries);
    }

    /// What is to be committed, and what the index has to follow then.
    pub(crate) fn finish(self) -> Written {
        Written { loose: self.batch.is_loose(), batches: self.batch.finish(), at: self.at, changes: self.changes }
    }
}

/// The outcome of a row of decisions.
#[derive(Debug)]
pub(crate) struct Written {
    /// To be committed one after the other.
    pub(crate) batches: Vec<Batch>,
    /// The end of the journal's history then.
    pub(crate) at: Position,
    /// What the index has to follow.
    pub(crate) changes: Vec<Change>,
    /// They leave something to be swept.
    pub(crate) loose: bool,
}

fn result(id: String, status: PutStatus, version: u32, duplicate_of: Option<String>) -> PutResult {
    PutResult { id, status, version: Some(version), duplicate_of, error: None }
}

fn record(document: Prepared, subject: Option<SubjectTag>, now_ms: u64) -> (Version, String, Vec<crate::chunk::Chunk>) {
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
        subject,
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
