//! The truth of a shard in the node's store: documents, their versions, and a log of writes for the indexes to follow.
//!
//! | tree | key | value |
//! |---|---|---|
//! | [`LOG`] | shard, `seq u64 BE` | [`Entry`]; entries that the index has committed are removed with later writes |
//! | [`HEADS`] | shard, document | [`Head`] |
//! | [`VERSIONS`] | shard, document, `version u32 BE` | [`Version`] |
//! | [`TEXTS`] | shard, document, `version u32 BE`, `part u32 BE` | text of a large document, 64 KiB a part |
//! | [`CHUNKS`] | shard, document, `version u32 BE`, `page u32 BE` | chunks of a large document, 64 a page |
//!
//! Shard: first 8 bytes of BLAKE3 of the shard's key. Values are postcard. One `Put` is one batch: it is there as a
//! whole or not at all.

use std::sync::Arc;

use aivillage_runtime::{Batch, Store, TreeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chunk::Chunk;
use crate::document::Format;
use crate::error::MemoryError;

/// Writes in their order.
pub const LOG: TreeId = TreeId(32);
/// What is current of every document.
pub const HEADS: TreeId = TreeId(33);
/// Versions of documents.
pub const VERSIONS: TreeId = TreeId(34);
/// Parts of large texts.
pub const TEXTS: TreeId = TreeId(35);
/// Pages of long chunk lists.
pub const CHUNKS: TreeId = TreeId(36);

/// Bytes of a text part.
const PART: usize = 64 * 1024;
/// Chunks of a page.
const PAGE: usize = 64;
/// Entries read at a time.
const SCAN: usize = 512;

/// A document: first 16 bytes of BLAKE3(tenant, 0, collection, 0, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocKey(pub [u8; 16]);

impl DocKey {
    /// The key of a document by its external id.
    #[must_use]
    pub fn of(tenant: &str, collection: &str, id: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(tenant.as_bytes()).update(&[0]).update(collection.as_bytes()).update(&[0]).update(id.as_bytes());
        Self(first(hasher.finalize().as_bytes()))
    }

    /// Upper and lower half.
    #[must_use]
    pub fn halves(self) -> (u64, u64) {
        let number = u128::from_be_bytes(self.0);
        let low = number & u128::from(u64::MAX);
        (u64::try_from(number >> 64).unwrap_or(0), u64::try_from(low).unwrap_or(0))
    }

    /// Puts the halves together.
    #[must_use]
    pub fn from_halves(high: u64, low: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
}

/// First bytes of a longer digest.
pub(crate) fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// First 16 bytes of BLAKE3.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 16] {
    first(blake3::hash(bytes).as_bytes())
}

/// What happened, for the index to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The document has a new current version.
    Put(DocKey),
    /// The document is gone.
    Delete(DocKey),
}

/// What is current of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// External id.
    pub id: String,
    /// Current version; stays when the document is deleted, so that numbers are never used twice.
    pub version: u32,
    /// Oldest version that is kept.
    pub oldest: u32,
    /// Deleted: only this tombstone is left.
    pub deleted: bool,
    /// Digest of the normalised text.
    pub text: [u8; 16],
    /// Digest of everything that was given.
    pub content: [u8; 16],
    /// The document this one repeats: key and external id.
    pub duplicate_of: Option<(DocKey, String)>,
    /// `MinHash` signature of the text; empty if it has no words.
    pub signature: Vec<u8>,
    /// Language code.
    pub language: String,
}

/// One version of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Title.
    pub title: Option<String>,
    /// Where it can be read in full.
    pub url: Option<String>,
    /// Who said it.
    pub source: Option<String>,
    /// The caller's fields, as JSON.
    pub metadata: String,
    /// Structure of the text.
    pub format: Format,
    /// Language code.
    pub language: String,
    /// When it was stored, in Unix milliseconds.
    pub stored_ms: u64,
    /// Number of chunks.
    pub chunks: u32,
    /// Bytes of the text.
    pub bytes: u32,
    /// Text and chunks of a document that fits into one record.
    pub inline: Option<(String, Vec<Chunk>)>,
}

/// The part of the store that belongs to one shard.
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
    prefix: [u8; 8],
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Journal {
    /// The journal of the shard with this key.
    pub fn new(store: Arc<dyn Store>, shard: &str) -> Self {
        Self { store, prefix: first(blake3::hash(shard.as_bytes()).as_bytes()) }
    }

    fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = self.prefix.to_vec();
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    fn read<T: DeserializeOwned>(&self, tree: TreeId, key: &[u8]) -> Result<Option<T>, MemoryError> {
        self.store.get(tree, key).map_err(|error| failed(&error))?.map(|bytes| decode(&bytes)).transpose()
    }

    /// What is current of a document, a tombstone included.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn head(&self, doc: DocKey) -> Result<Option<Head>, MemoryError> {
        self.read(HEADS, &self.key(&[&doc.0]))
    }

    /// A version of a document.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn version(&self, doc: DocKey, version: u32) -> Result<Option<Version>, MemoryError> {
        self.read(VERSIONS, &self.key(&[&doc.0, &version.to_be_bytes()]))
    }

    /// The whole text of a version.
    ///
    /// # Errors
    /// `Journal` when the store fails or a part is missing.
    pub fn text(&self, doc: DocKey, number: u32, version: &Version) -> Result<String, MemoryError> {
        self.slice(doc, number, version, 0, version.bytes)
    }

    fn slice(&self, doc: DocKey, number: u32, version: &Version, from: u32, to: u32) -> Result<String, MemoryError> {
        let (from, to) = (from as usize, to as usize);
        if let Some((text, _)) = &version.inline {
            return Ok(text.get(from..to).unwrap_or_default().to_owned());
        }
        let mut bytes = Vec::with_capacity(to.saturating_sub(from));
        for part in from / PART..to.div_ceil(PART) {
            let key = self.key(&[&doc.0, &number.to_be_bytes(), &narrow(part).to_be_bytes()]);
            let data =
                self.store.get(TEXTS, &key).map_err(|error| failed(&error))?.ok_or_else(|| lost("a text part"))?;
            let start = from.saturating_sub(part * PART).min(data.len());
            let end = (to - part * PART).min(data.len());
            bytes.extend_from_slice(&data[start..end]);
        }
        String::from_utf8(bytes).map_err(|_| lost("whole characters"))
    }

    /// One chunk of a version with its text.
    ///
    /// # Errors
    /// `Journal` when the store fails or the chunk is missing.
    pub fn chunk(
        &self,
        doc: DocKey,
        number: u32,
        version: &Version,
        ordinal: u32,
    ) -> Result<(Chunk, String), MemoryError> {
        let at = ordinal as usize;
        let chunk = if let Some((_, chunks)) = &version.inline {
            chunks.get(at).cloned()
        } else {
            let page = narrow(at / PAGE).to_be_bytes();
            let page: Option<Vec<Chunk>> = self.read(CHUNKS, &self.key(&[&doc.0, &number.to_be_bytes(), &page]))?;
            page.and_then(|mut page| (at % PAGE < page.len()).then(|| page.swap_remove(at % PAGE)))
        };
        let chunk = chunk.ok_or_else(|| lost("a chunk"))?;
        let text = self.slice(doc, number, version, chunk.bytes.0, chunk.bytes.1)?;
        Ok((chunk, text))
    }

    /// All chunks of a version.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn chunks(&self, doc: DocKey, number: u32, version: &Version) -> Result<Vec<Chunk>, MemoryError> {
        if let Some((_, chunks)) = &version.inline {
            return Ok(chunks.clone());
        }
        let mut out = Vec::with_capacity(version.chunks as usize);
        for page in 0..version.chunks.div_ceil(narrow(PAGE)) {
            let key = self.key(&[&doc.0, &number.to_be_bytes(), &page.to_be_bytes()]);
            out.extend(self.read::<Vec<Chunk>>(CHUNKS, &key)?.ok_or_else(|| lost("a page of chunks"))?);
        }
        Ok(out)
    }

    /// Calls `each` for every document, tombstones included, in the order of their keys.
    ///
    /// # Errors
    /// `Journal` when the store fails; what `each` fails with.
    pub fn for_each_head(
        &self,
        mut each: impl FnMut(DocKey, Head) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        self.walk(HEADS, self.prefix.to_vec(), |key, value| {
            let Ok(doc) = <[u8; 16]>::try_from(&key[8..]) else { return Ok(()) };
            each(DocKey(doc), decode(value)?)
        })
    }

    /// Calls `each` for every log entry after `seq`.
    ///
    /// # Errors
    /// `Journal` when the store fails; what `each` fails with.
    pub fn for_each_entry(
        &self,
        after: u64,
        mut each: impl FnMut(u64, Entry) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        self.walk(LOG, self.key(&[&(after + 1).to_be_bytes()]), |key, value| {
            let Ok(seq) = <[u8; 8]>::try_from(&key[8..]) else { return Ok(()) };
            each(u64::from_be_bytes(seq), decode(value)?)
        })
    }

    fn walk(
        &self,
        tree: TreeId,
        mut from: Vec<u8>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        loop {
            let page = self.store.scan(tree, &from, SCAN).map_err(|error| failed(&error))?;
            for (key, value) in &page {
                if !key.starts_with(&self.prefix) || key.len() < 8 {
                    return Ok(());
                }
                each(key, value)?;
            }
            match page.last() {
                // The next key in order: this one and a zero byte.
                Some((last, _)) if page.len() == SCAN => from = [last, &[0][..]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Begins a batch of writes.
    #[must_use]
    pub fn batch(&self) -> JournalBatch<'_> {
        JournalBatch { journal: self, batch: Batch::new() }
    }
}

/// Writes that happen together or not at all.
#[derive(Debug)]
pub struct JournalBatch<'a> {
    journal: &'a Journal,
    batch: Batch,
}

impl JournalBatch<'_> {
    fn put(&mut self, tree: TreeId, key: Vec<u8>, value: Vec<u8>) {
        self.batch = std::mem::take(&mut self.batch).put(tree, key, value);
    }

    fn remove(&mut self, tree: TreeId, key: Vec<u8>) {
        self.batch = std::mem::take(&mut self.batch).delete(tree, key);
    }

    /// Adds a log entry.
    ///
    /// # Errors
    /// `Journal` when it has no binary form.
    pub fn log(&mut self, seq: u64, entry: Entry) -> Result<(), MemoryError> {
        self.put(LOG, self.journal.key(&[&seq.to_be_bytes()]), encode(&entry)?);
        Ok(())
    }

    /// Removes a log entry that every index has seen.
    pub fn forget(&mut self, seq: u64) {
        self.remove(LOG, self.journal.key(&[&seq.to_be_bytes()]));
    }

    /// Writes what is current of a document.
    ///
    /// # Errors
    /// `Journal` when it has no binary form.
    pub fn head(&mut self, doc: DocKey, head: &Head) -> Result<(), MemoryError> {
        self.put(HEADS, self.journal.key(&[&doc.0]), encode(head)?);
        Ok(())
    }

    /// Writes a version with its text and chunks; what does not fit into one record is written in parts.
    ///
    /// # Errors
    /// `Journal` when it has no binary form.
    pub fn version(
        &mut self,
        doc: DocKey,
        number: u32,
        mut version: Version,
        text: String,
        chunks: Vec<Chunk>,
    ) -> Result<(), MemoryError> {
        let place = self.journal.key(&[&doc.0, &number.to_be_bytes()]);
        version.chunks = narrow(chunks.len());
        version.bytes = narrow(text.len());
        if text.len() <= PART && chunks.len() <= PAGE {
            version.inline = Some((text, chunks));
        } else {
            for (n, part) in text.as_bytes().chunks(PART).enumerate() {
                self.put(TEXTS, [&place, &narrow(n).to_be_bytes()[..]].concat(), part.to_vec());
            }
            for (n, page) in chunks.chunks(PAGE).enumerate() {
                self.put(CHUNKS, [&place, &narrow(n).to_be_bytes()[..]].concat(), encode(&page)?);
            }
        }
        self.put(VERSIONS, place, encode(&version)?);
        Ok(())
    }

    /// Removes a version with all its parts.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn remove_version(&mut self, doc: DocKey, number: u32) -> Result<(), MemoryError> {
        let Some(version) = self.journal.version(doc, number)? else { return Ok(()) };
        let place = self.journal.key(&[&doc.0, &number.to_be_bytes()]);
        if version.inline.is_none() {
            for n in 0..version.bytes.div_ceil(narrow(PART)) {
                self.remove(TEXTS, [&place, &n.to_be_bytes()[..]].concat());
            }
            for n in 0..version.chunks.div_ceil(narrow(PAGE)) {
                self.remove(CHUNKS, [&place, &n.to_be_bytes()[..]].concat());
            }
        }
        self.remove(VERSIONS, place);
        Ok(())
    }

    /// The batch for the store.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.batch
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, MemoryError> {
    postcard::to_allocvec(value).map_err(|error| MemoryError::Journal { reason: error.to_string() })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MemoryError> {
    postcard::from_bytes(bytes)
        .map_err(|error| MemoryError::Journal { reason: format!("a record is damaged: {error}") })
}

/// A failure of the store, as one of the journal.
pub(crate) fn failed(error: &aivillage_runtime::StoreError) -> MemoryError {
    MemoryError::Journal { reason: error.to_string() }
}

/// A failure of the store, as a caller hears it.
pub(crate) fn store_error(error: &aivillage_runtime::StoreError) -> aivillage_runtime::CallError {
    aivillage_runtime::CallError::Store { message: error.to_string(), full: error.is_full() }
}

fn lost(what: &str) -> MemoryError {
    MemoryError::Journal { reason: format!("{what} is missing") }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::Level;
    use aivillage_runtime::store::MemoryStore;

    use super::*;
    use crate::chunk::{ChunkSize, chunks};

    fn journal(shard: &str, store: &Arc<dyn Store>) -> Journal {
        Journal::new(store.clone(), shard)
    }

    fn version() -> Version {
        Version {
            title: None,
            url: None,
            source: None,
            metadata: "{}".to_owned(),
            format: Format::Text,
            language: "eng".to_owned(),
            stored_ms: 1,
            chunks: 0,
            bytes: 0,
            inline: None,
        }
    }

    #[tokio::test]
    async fn large_documents_are_written_in_parts_and_removed_whole() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let journal = journal("s", &store);
        let text: String = (0..40_000).map(|n| format!("W\u{f6}rt{n} ends here. ")).collect();
        let cut = chunks(&text, Format::Text, ChunkSize::default());
        let doc = DocKey([7; 16]);
        let mut batch = journal.batch();
        batch.version(doc, 1, version(), text.clone(), cut.clone()).expect("encodes");
        store.commit(batch.into_batch(), Level::Disk).await.expect("commits");
        let stored = journal.version(doc, 1).expect("reads").expect("there");
        assert!(stored.inline.is_none());
        assert_eq!(journal.text(doc, 1, &stored).expect("reads"), text);
        assert_eq!(journal.chunks(doc, 1, &stored).expect("reads"), cut);
        for ordinal in [0, 63, 64, stored.chunks - 1] {
            let (chunk, body) = journal.chunk(doc, 1, &stored, ordinal).expect("reads");
            assert_eq!(body, chunk.of(&text));
        }
        let mut batch = journal.batch();
        batch.remove_version(doc, 1).expect("reads");
        store.commit(batch.into_batch(), Level::Disk).await.expect("commits");
        for tree in [VERSIONS, TEXTS, CHUNKS] {
            assert!(store.scan(tree, &[], 1).expect("reads").is_empty());
        }
    }

    #[tokio::test]
    async fn shards_do_not_see_each_other() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (a, b) = (journal("a", &store), journal("b", &store));
        let mut batch = a.batch();
        for seq in 1..=1200 {
            batch.log(seq, Entry::Put(DocKey([1; 16]))).expect("encodes");
        }
        store.commit(batch.into_batch(), Level::Disk).await.expect("commits");
        let count = |journal: &Journal, after| {
            let mut seen = 0;
            journal
                .for_each_entry(after, |_, _| {
                    seen += 1;
                    Ok(())
                })
                .expect("reads");
            seen
        };
        assert_eq!((count(&a, 0), count(&a, 1190), count(&b, 0)), (1200, 10, 0));
    }

    #[test]
    fn keys_of_collections_differ() {
        assert_ne!(DocKey::of("t", "a", "bc"), DocKey::of("t", "ab", "c"));
        let key = DocKey::of("t", "a", "b");
        let (high, low) = key.halves();
        assert_eq!(DocKey::from_halves(high, low), key);
    }
}
