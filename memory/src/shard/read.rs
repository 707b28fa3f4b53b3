//! The read side of a shard: documents out of the journal, passages out of index and journal. Blocking.

use std::path::{Path, PathBuf};

use aivillage_governance::keys::SubjectTag;
use aivillage_runtime::CallError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::known::Known;
use crate::document::{CollectionStats, DocumentView, GetDocument};
use crate::error::MemoryError;
use crate::journal::{DocKey, Head, Journal, Version};
use crate::lexical::Lexical;
use crate::lexical::search::{Hit, Plan, Sought};
use crate::names::ShardName;
use crate::question::Question;

/// Hits that are looked at for one that is returned: some belong to versions that are no longer current.
const SURPLUS: usize = 8;

/// About how much text one page of a person's documents has, bytes.
const PAGE_BYTES: usize = 256 * 1024;

/// Where a person's documents are gone on with; none at the beginning, and at the end.
pub(crate) type Place = Option<(DocKey, u32)>;
/// Some of a person's documents, and where the rest is.
pub(crate) type Page = (Vec<DocumentView>, Place);

/// A search in one shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchShard {
    /// What is sought.
    pub question: Question,
    /// Most passages to return.
    pub limit: usize,
}

/// What a shard found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Words of the question, weighed by this shard.
    pub sought: Vec<Sought>,
    /// Chunks of the shard.
    pub chunks: u64,
    /// The best score a chunk could have.
    pub score_max: f32,
    /// Passages, best first.
    pub passages: Vec<FoundPassage>,
}

/// A passage as its shard knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundPassage {
    /// External id of the document.
    pub doc: String,
    /// The document that this one repeats.
    pub duplicate_of: Option<String>,
    /// Version of the document.
    pub version: u32,
    /// Place of the chunk in it.
    pub ordinal: u32,
    /// Title of the document.
    pub title: Option<String>,
    /// Headings above the chunk.
    pub heading: String,
    /// Text of the chunk.
    pub text: String,
    /// Characters of the stored text.
    pub span: (u32, u32),
    /// Page, 0 if there are none.
    pub page: u32,
    /// Who said it.
    pub source: Option<String>,
    /// Where it can be read.
    pub url: Option<String>,
    /// Language code.
    pub language: String,
    /// BM25.
    pub score: f32,
    /// For each word sought: 1 if the passage has it, less if only a neighbour, 0 if not.
    pub covered: Vec<f32>,
}

/// Numbers of a shard that its writing side publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Counts {
    documents: u64,
    duplicates: u64,
    languages: Vec<(String, u64)>,
    pub(crate) journal_seq: u64,
}

impl Counts {
    pub(crate) fn of(known: &Known, journal_seq: u64) -> Self {
        let mut languages: Vec<_> =
            known.languages.iter().filter(|(_, n)| **n > 0).map(|(l, n)| (l.clone(), *n)).collect();
        languages.sort_by_key(|(_, documents)| std::cmp::Reverse(*documents));
        Self { documents: known.live, duplicates: known.duplicates, languages, journal_seq }
    }
}

/// The index of the shard on this node; another one once somebody was erased.
#[derive(Debug, Clone)]
pub(crate) struct IndexHere {
    pub(crate) lexical: Lexical,
    pub(crate) dir: Option<PathBuf>,
}

/// What reading needs; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ReadSide {
    pub(crate) name: ShardName,
    pub(crate) journal: Journal,
    pub(crate) index: watch::Receiver<IndexHere>,
    pub(crate) counts: watch::Receiver<Counts>,
    pub(crate) searchable: watch::Receiver<u64>,
}

impl ReadSide {
    /// A stored document.
    pub(crate) fn get(&self, wanted: &GetDocument) -> Result<DocumentView, CallError> {
        let key = self.journal.find(&self.name, &wanted.id)?;
        let missing = |what: String| MemoryError::NotFound { what, collection: self.name.collection.clone() };
        let head = self.journal.head(key)?.filter(|head| !head.deleted);
        let head = head.ok_or_else(|| missing(format!("document `{}`", wanted.id)))?;
        let number = wanted.version.unwrap_or(head.version);
        // Versions that are no longer kept may still be there for a moment.
        let kept = (head.oldest..=head.version).contains(&number);
        let version = if kept { self.journal.version(key, number)? } else { None };
        let version = version.ok_or_else(|| missing(format!("version {number} of `{}`", wanted.id)))?;
        Ok(self.view(key, head, number, version)?)
    }

    /// A version of a document, for whoever asked for it.
    fn view(&self, key: DocKey, head: Head, number: u32, version: Version) -> Result<DocumentView, MemoryError> {
        let mut versions = Vec::new();
        for number in head.oldest..=head.version {
            // One whose author was erased is missing.
            if self.journal.has_version(key, number)? {
                versions.push(number);
            }
        }
        Ok(DocumentView {
            collection: self.name.collection.clone(),
            id: head.id,
            version: number,
            versions,
            text: self.journal.text(key, number, &version)?,
            title: version.title,
            format: version.format,
            url: version.url,
            source: version.source,
            metadata: serde_json::from_str(&version.metadata).unwrap_or_default(),
            language: version.language,
            duplicate_of: self.id_of(head.duplicate_of)?,
            stored_ms: version.stored_ms,
            chunks: version.chunks,
        })
    }

    /// Id of the document that another one repeats; none if its author was erased.
    fn id_of(&self, original: Option<DocKey>) -> Result<Option<String>, MemoryError> {
        let head = original.map(|key| self.journal.head(key)).transpose()?.flatten();
        Ok(head.map(|head| head.id).filter(|id| !id.is_empty()))
    }

    /// The next versions that are a person's, after a place.
    pub(crate) fn of(&self, subject: SubjectTag, mut after: Place) -> Result<Page, MemoryError> {
        let (mut views, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES {
            after = self.journal.version_of(subject, after)?;
            let Some((key, number)) = after else { break };
            let (head, version) = (self.journal.head(key)?, self.journal.version(key, number)?);
            let (Some(head), Some(version)) = (head, version) else { continue };
            let view = self.view(key, head, number, version)?;
            bytes += view.text.len() + view.metadata.len();
            views.push(view);
        }
        Ok((views, after))
    }

    /// Numbers of the collection.
    pub(crate) fn stats(&self) -> CollectionStats {
        let counts = self.counts.borrow().clone();
        CollectionStats {
            collection: self.name.collection.clone(),
            documents: counts.documents,
            chunks: self.index.borrow().lexical.chunks(),
            duplicates: counts.duplicates,
            journal_seq: counts.journal_seq,
            searchable_seq: *self.searchable.borrow(),
            index_bytes: self.index.borrow().dir.as_deref().map_or(0, folder_bytes),
            languages: counts.languages,
        }
    }

    /// The best passages. Documents deleted or replaced since the last commit of the index are left out.
    pub(crate) fn search(&self, search: &SearchShard) -> Result<Found, MemoryError> {
        let lexical = self.index.borrow().lexical.clone();
        let plan = Plan::new(&lexical, &search.question);
        let mut passages = Vec::with_capacity(search.limit);
        for hit in plan.search(&lexical, search.limit + SURPLUS)? {
            if passages.len() == search.limit {
                break;
            }
            passages.extend(self.passage(hit)?);
        }
        let score_max = plan.score_max();
        Ok(Found { sought: plan.sought, chunks: lexical.chunks(), score_max, passages })
    }

    fn passage(&self, hit: Hit) -> Result<Option<FoundPassage>, MemoryError> {
        let Some(head) = self.journal.head(hit.key)? else { return Ok(None) };
        if head.deleted || head.version != hit.version {
            return Ok(None);
        }
        let Some(version) = self.journal.version(hit.key, hit.version)? else { return Ok(None) };
        let (chunk, text) = self.journal.chunk(hit.key, hit.version, &version, hit.ordinal)?;
        Ok(Some(FoundPassage {
            doc: head.id,
            duplicate_of: self.id_of(head.duplicate_of)?,
            version: hit.version,
            ordinal: hit.ordinal,
            title: version.title,
            heading: chunk.heading,
            text,
            span: chunk.chars,
            page: chunk.page,
            source: version.source,
            url: version.url,
            language: version.language,
            score: hit.score,
            covered: hit.covered,
        }))
    }
}

fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|file| file.len()).sum()
}
