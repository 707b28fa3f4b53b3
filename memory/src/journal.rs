//! The truth of a shard in the store of its group: documents, their versions, and a log of writes for the indexes to follow.
//!
//! | tree | key | value |
//! |---|---|---|
//! | [`LOG`] | shard, `seq u64 BE` | [`Logged`]; older ones that the index has committed are removed with later writes |
//! | [`HEADS`] | shard, document | [`Head`], sealed |
//! | [`VERSIONS`] | shard, document, `version u32 BE` | [`Version`], sealed |
//! | [`TEXTS`] | shard, document, `version u32 BE`, `part u32 BE` | text of a large document, 64 KiB a part, sealed |
//! | [`CHUNKS`] | shard, document, `version u32 BE`, `page u32 BE` | chunks of a large document, 64 a page, sealed |
//! | [`LOOSE`] | shard, document, `version u32 BE` | [`Loose`]: what nothing names, or nothing names any more, and has to go |
//! | [`SHARDS`] | shard | [`Whole`]: generation of the index, key for the names of documents, sealed |
//! | [`PEOPLE`] | shard, subject | nothing: who has stored something here |
//!
//! Shard: first 8 bytes of BLAKE3 of the shard's key. Values are postcard. A commit has a largest size, which a document may
//! exceed: then its parts are written first. They are seen once the commit that names them is there, which is whole or not
//! there at all ([`write`]). A version counts while its head says so: from `oldest` to `version`; of those in between, one whose
//! author was erased is missing.
//!
//! **What is sealed.** All that somebody has written, or that is made of it: ids, titles, addresses, sources, metadata, text,
//! chunks, digests, signatures, languages. It opens with the keys of whoever stored that version, for this record only;
//! once they are destroyed it reads as if it were deleted. A program without principal is nobody in
//! particular; a village without keys keeps all in the clear, and what was stored in the clear stays so.
//!
//! **What is not sealed**, because it is needed where there are no keys, or to find something: how many versions and parts a
//! document has; whose it is, as a tag; its [`DocKey`], a keyed hash of its id, whose key is sealed; and the history's digests,
//! which are made of sealed records. None of it lets somebody who guesses the words see that the guess is right.

mod people;
mod record;
mod write;

use std::sync::{Arc, OnceLock};

use aivillage_governance::keys::{CryptError, Kept, Personal, SubjectTag, VaultError};
use aivillage_runtime::{Batch, CallError, Level, Store, TreeId};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use self::record::{ClearHead, Parts, StoredHead, StoredVersion};
use crate::chunk::Chunk;
use crate::document::Format;
use crate::error::MemoryError;
use crate::names::ShardName;

pub use self::people::Belongings;
pub use self::write::{JournalBatch, Unit};

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
/// What has to be removed.
pub const LOOSE: TreeId = TreeId(37);
/// What holds for a shard as a whole.
pub const SHARDS: TreeId = TreeId(38);
/// Who has stored something in a shard.
pub const PEOPLE: TreeId = TreeId(39);

/// Bytes of a text part.
const PART: usize = 64 * 1024;
/// Chunks of a page.
const PAGE: usize = 64;
/// Entries read at a time.
const SCAN: usize = 512;

/// Whose the key for the names of documents is. No account and no key can have this name.
const NAMES: &str = "\0names of documents";

/// A document: first 16 bytes of BLAKE3(tenant, 0, collection, 0, id), keyed where the village has keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocKey(pub [u8; 16]);

impl DocKey {
    /// The key of a document by its external id; `names` is the shard's key for them.
    #[must_use]
    pub fn of(names: Option<&[u8; 32]>, ShardName { tenant, collection }: &ShardName, id: &str) -> Self {
        let mut hasher = names.map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed);
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

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// What happened.
    pub entry: Entry,
    /// See [`Position::chain`].
    pub chain: u64,
}

/// A place in the history of a shard. The default stands before the first entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the newest entry, counted from 1.
    pub seq: u64,
    /// Digest of all entries so far: two histories with the same one are the same.
    pub chain: u64,
}

impl Position {
    /// The place after one more entry. `record`, a digest of the head as it is stored, tells apart what the entry alone does not.
    #[must_use]
    pub fn next(self, entry: Entry, version: u32, record: &[u8; 16]) -> Self {
        let (kind, DocKey(doc)) = match entry {
            Entry::Put(doc) => (1, doc),
            Entry::Delete(doc) => (2, doc),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain.to_le_bytes()).update(&[kind]).update(&doc);
        hasher.update(&version.to_le_bytes()).update(record);
        Self { seq: self.seq + 1, chain: u64::from_le_bytes(first(hasher.finalize().as_bytes())) }
    }
}

/// What the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// First number that is still in it; the one after the last if it is empty.
    pub first: u64,
    /// Its newest entry.
    pub last: Position,
}

/// Parts of the version in the key, and whole versions after them, that have to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loose {
    /// Parts of the text.
    pub texts: u32,
    /// Pages of chunks.
    pub chunks: u32,
    /// The first version that has to go.
    pub next: u32,
    /// The first after those.
    pub end: u32,
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
    /// The document this one repeats.
    pub duplicate_of: Option<DocKey>,
    /// `MinHash` signature of the text; empty if it has no words.
    pub signature: Vec<u8>,
    /// Language code.
    pub language: String,
    /// Whose it is; none in the clear.
    #[serde(skip)]
    pub subject: Option<SubjectTag>,
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
    /// Whose it is; none in the clear.
    #[serde(skip)]
    pub subject: Option<SubjectTag>,
}

/// What holds for a shard as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// How often somebody was erased from it. Each time all indexes of before are void.
    pub generation: u64,
    /// The key for the names of its documents.
    names: Option<Kept>,
}

/// The part of the store that belongs to one shard.
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
    prefix: [u8; 8],
    /// Seals and opens; without it nothing sealed can be read.
    personal: Option<Personal>,
    names: Arc<OnceLock<[u8; 32]>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Journal {
    /// The journal of the shard with this key, in the clear.
    pub fn new(store: Arc<dyn Store>, shard: &str) -> Self {
        Self { store, prefix: first(blake3::hash(shard.as_bytes()).as_bytes()), personal: None, names: Arc::default() }
    }

    /// The same, with what is new in it sealed.
    #[must_use]
    pub fn sealed_by(self, personal: Personal) -> Self {
        Self { personal: Some(personal), ..self }
    }

    fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = self.prefix.to_vec();
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    /// Whose a message's documents are, as records name it; none where nothing is sealed.
    ///
    /// # Errors
    /// `Keys` for a name that is too long.
    pub fn owner(&self, subject: &str) -> Result<Option<SubjectTag>, MemoryError> {
        let owner = self.personal.as_ref().map_or(Ok(None), |personal| personal.owner(subject));
        Ok(owner.map_err(VaultError::from)?)
    }

    /// Has the keys as they are now.
    ///
    /// # Errors
    /// When the vault cannot be asked.
    pub async fn refresh(&self) -> Result<(), CallError> {
        match &self.personal {
            Some(personal) => Ok(personal.refresh().await?),
            None => Ok(()),
        }
    }

    fn seal(
        &self,
        subject: Option<SubjectTag>,
        (tree, key): (TreeId, &[u8]),
        value: &impl Serialize,
    ) -> Result<Kept, MemoryError> {
        match &self.personal {
            Some(personal) => Ok(personal.blocking_seal(subject, &place(tree, key), value)?),
            None => Ok(Kept::clear(value).map_err(|_| VaultError::from(CryptError::NotAnEnvelope))?),
        }
    }

    /// What was sealed; none if its owner was erased.
    fn open<T: DeserializeOwned>(&self, (tree, key): (TreeId, &[u8]), kept: &Kept) -> Result<Option<T>, MemoryError> {
        match (kept, &self.personal) {
            (_, Some(personal)) => Ok(personal.blocking_open(&place(tree, key), kept)?),
            (Kept::Clear(plain), None) => decode(plain).map(Some),
            (Kept::Sealed(..), None) => Err(VaultError::from(CryptError::NotLoaded).into()),
        }
    }

    fn value(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, MemoryError> {
        self.store.get(tree, key).map_err(|error| failed(&error))
    }

    fn read<T: DeserializeOwned>(&self, tree: TreeId, key: &[u8]) -> Result<Option<T>, MemoryError> {
        self.value(tree, key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// A part of a document, whether or not it is of before they were sealed.
    fn part<T: DeserializeOwned>(&self, tree: TreeId, key: &[u8], what: &str) -> Result<T, MemoryError> {
        let bytes = self.value(tree, key)?.ok_or_else(|| lost(what))?;
        match record::marked(&bytes) {
            Some(stored) => self.open((tree, key), &decode(stored)?)?.ok_or_else(|| lost(what)),
            None => decode(&bytes),
        }
    }

    /// What holds for the shard as a whole.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn whole(&self) -> Result<Whole, MemoryError> {
        Ok(self.read(SHARDS, &self.prefix)?.unwrap_or_default())
    }

    /// Reads the key for the names of documents. If there is none yet and names are to be sealed, makes one: it counts once the
    /// batch is committed and this is called again.
    ///
    /// # Errors
    /// `Journal` when the store fails, `Keys` when it does not open.
    pub fn learn_names(&self) -> Result<Option<Batch>, MemoryError> {
        let whole = self.whole()?;
        let place = (SHARDS, &self.prefix[..]);
        if let Some(kept) = &whole.names {
            let names = self.open(place, kept)?.ok_or_else(|| lost("the key for the names of documents"))?;
            self.names.get_or_init(|| names);
            return Ok(None);
        }
        let Some(owner) = self.owner(NAMES)? else { return Ok(None) };
        let names = Some(self.seal(Some(owner), place, &rand::random::<[u8; 32]>())?);
        Ok(Some(Batch::new().put(SHARDS, self.prefix, encode(&Whole { names, ..whole })?)))
    }

    /// Where a document is, or will be.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn find(&self, name: &ShardName, id: &str) -> Result<DocKey, MemoryError> {
        let clear = DocKey::of(None, name, id);
        let Some(names) = self.names.get() else { return Ok(clear) };
        let doc = DocKey::of(Some(names), name, id);
        // One of before there were keys is still where it was.
        let is_at = |doc: DocKey| Ok::<_, MemoryError>(self.value(HEADS, &self.key(&[&doc.0]))?.is_some());
        Ok(if !is_at(doc)? && is_at(clear)? { clear } else { doc })
    }

    /// What is current of a document, a tombstone included.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn head(&self, doc: DocKey) -> Result<Option<Head>, MemoryError> {
        let key = self.key(&[&doc.0]);
        self.value(HEADS, &key)?.map(|bytes| self.open_head(&key, &bytes)).transpose()
    }

    fn open_head(&self, key: &[u8], bytes: &[u8]) -> Result<Head, MemoryError> {
        let Some(stored) = record::marked(bytes) else { return Ok(decode::<ClearHead>(bytes)?.into()) };
        let stored: StoredHead = decode(stored)?;
        let opened: Option<Head> = self.open((HEADS, key), &stored.kept)?;
        let subject = stored.kept.subject();
        Ok(opened.map_or_else(|| Head::closed(&stored), |head| Head { subject, ..head }))
    }

    /// A version of a document; none if it is not there, or its author was erased.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn version(&self, doc: DocKey, version: u32) -> Result<Option<Version>, MemoryError> {
        let key = self.key(&[&doc.0, &version.to_be_bytes()]);
        let Some(bytes) = self.value(VERSIONS, &key)? else { return Ok(None) };
        let Some(stored) = record::marked(&bytes) else { return decode(&bytes).map(Some) };
        let StoredVersion { kept, .. } = decode(stored)?;
        let version: Option<Version> = self.open((VERSIONS, &key), &kept)?;
        Ok(version.map(|version| Version { subject: kept.subject(), ..version }))
    }

    /// Whether a version is there, readable or not.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn has_version(&self, doc: DocKey, version: u32) -> Result<bool, MemoryError> {
        Ok(self.parts(doc, version)?.is_some())
    }

    /// What is kept beside a version; its keys are not needed.
    fn parts(&self, doc: DocKey, version: u32) -> Result<Option<Parts>, MemoryError> {
        let Some(bytes) = self.value(VERSIONS, &self.key(&[&doc.0, &version.to_be_bytes()]))? else { return Ok(None) };
        match record::marked(&bytes) {
            Some(stored) => Ok(Some(decode::<StoredVersion>(stored)?.parts)),
            None => Ok(Some(Parts::of(&decode(&bytes)?))),
        }
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
            let data = self.text_part(&key)?;
            let start = from.saturating_sub(part * PART).min(data.len());
            let end = (to - part * PART).min(data.len());
            bytes.extend_from_slice(&data[start..end]);
        }
        String::from_utf8(bytes).map_err(|_| lost("whole characters"))
    }

    fn text_part(&self, key: &[u8]) -> Result<Vec<u8>, MemoryError> {
        let bytes = self.value(TEXTS, key)?.ok_or_else(|| lost("a text part"))?;
        // One of before they were sealed is the text itself.
        let Some(stored) = record::marked(&bytes) else { return Ok(bytes.to_vec()) };
        let part: Option<ByteBuf> = self.open((TEXTS, key), &decode(stored)?)?;
        part.map(ByteBuf::into_vec).ok_or_else(|| lost("a text part"))
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
            let key = self.key(&[&doc.0, &number.to_be_bytes(), &page]);
            let mut page: Vec<Chunk> = self.part(CHUNKS, &key, "a page of chunks")?;
            (at % PAGE < page.len()).then(|| page.swap_remove(at % PAGE))
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
            out.extend(self.part::<Vec<Chunk>>(CHUNKS, &key, "a page of chunks")?);
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
            each(DocKey(doc), self.open_head(key, value)?)
        })
    }

    /// Calls `each` for every log entry after `seq`.
    ///
    /// # Errors
    /// `Journal` when the store fails; what `each` fails with.
    pub fn for_each_entry(
        &self,
        after: u64,
        mut each: impl FnMut(u64, Logged) -> Result<(), MemoryError>,
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

    /// What the log holds.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn log(&self) -> Result<LogRange, MemoryError> {
        let (mut first, mut last) = (None, Position::default());
        self.for_each_entry(0, |seq, logged| {
            first.get_or_insert(seq);
            last = Position { seq, chain: logged.chain };
            Ok(())
        })?;
        Ok(LogRange { first: first.unwrap_or(last.seq + 1), last })
    }

    /// Whether an index that has come to `at` has seen a part of this history, and the log holds the rest.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn leads_on_from(&self, at: Position, log: LogRange) -> Result<bool, MemoryError> {
        if at == Position::default() {
            return Ok(log.first == 1);
        }
        let logged: Option<Logged> = self.read(LOG, &self.key(&[&at.seq.to_be_bytes()]))?;
        Ok(logged.is_some_and(|logged| logged.chain == at.chain))
    }

    /// Begins a row of writes.
    #[must_use]
    pub fn batch(&self) -> JournalBatch<'_> {
        JournalBatch::new(self, self.store.max_batch())
    }

    /// Writes batches one after the other; all of them are on the disk when this resolves.
    ///
    /// # Errors
    /// Those of the store. What of the batches is written is known after an empty one has been.
    pub async fn commit(&self, batches: Vec<Batch>) -> Result<(), CallError> {
        let mut left = batches.len();
        for batch in batches {
            left -= 1;
            // The last one takes along what went before it.
            let level = if left == 0 { Level::Disk } else { Level::Async };
            self.store.commit(batch, level).await?;
        }
        Ok(())
    }

    /// Waits until nothing that was written before is under way any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn settle(&self) -> Result<(), CallError> {
        Ok(self.store.commit(Batch::new(), Level::Async).await.map(drop)?)
    }

    /// The next step of removing what has to go; `None` when all is gone.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn sweep(&self) -> Result<Option<Batch>, MemoryError> {
        let page = self.store.scan(LOOSE, &self.prefix, 1).map_err(|error| failed(&error))?;
        let Some((key, value)) = page.first().filter(|(key, _)| key.starts_with(&self.prefix)) else { return Ok(None) };
        let place = key[8..].split_first_chunk().and_then(|(doc, version)| Some((*doc, version.try_into().ok()?)));
        let (doc, version) = place.ok_or_else(|| lost("the end of a key"))?;
        write::sweep(self, (DocKey(doc), u32::from_be_bytes(version)), decode(value)?).map(Some)
    }

    /// True if something has to go.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn is_loose(&self) -> Result<bool, MemoryError> {
        let page = self.store.scan(LOOSE, &self.prefix, 1).map_err(|error| failed(&error))?;
        Ok(page.first().is_some_and(|(key, _)| key.starts_with(&self.prefix)))
    }
}

/// What a sealed record is bound to: `tree u16` big-endian, then its key.
fn place(tree: TreeId, key: &[u8]) -> Vec<u8> {
    [&tree.0.to_be_bytes(), key].concat()
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

fn lost(what: &str) -> MemoryError {
    MemoryError::Journal { reason: format!("{what} is missing") }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::store::MemoryStore;

    use super::*;

    fn journal(shard: &str, store: &Arc<dyn Store>) -> Journal {
        Journal::new(store.clone(), shard)
    }

    #[tokio::test]
    async fn shards_do_not_see_each_other() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (a, b) = (journal("a", &store), journal("b", &store));
        let (mut batch, mut unit, mut at) = (a.batch(), Unit::new(&a), Position::default());
        for _ in 0..1200 {
            at = at.next(Entry::Put(DocKey([1; 16])), 1, &[0; 16]);
            unit.log(at, Entry::Put(DocKey([1; 16]))).expect("encodes");
        }
        batch.add(unit).expect("fits");
        a.commit(batch.finish()).await.expect("commits");
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
        assert_eq!(a.log().expect("reads"), LogRange { first: 1, last: at });
        assert_eq!(b.log().expect("reads"), LogRange { first: 1, last: Position::default() });
    }

    #[tokio::test]
    async fn an_index_leads_on_only_within_its_own_history() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let journal = journal("s", &store);
        let (mut batch, mut unit) = (journal.batch(), Unit::new(&journal));
        let mut at = vec![Position::default()];
        for n in 1..=4 {
            let entry = Entry::Put(DocKey([n; 16]));
            let next = at[at.len() - 1].next(entry, 1, &[n; 16]);
            unit.log(next, entry).expect("encodes");
            at.push(next);
        }
        let leads_on = |at: Position| journal.leads_on_from(at, journal.log().expect("reads")).expect("reads");
        assert!(leads_on(at[0]), "nothing happened yet");
        batch.add(unit).expect("fits");
        journal.commit(batch.finish()).await.expect("commits");
        assert!(at.iter().all(|at| leads_on(*at)));
        let other = at[1].next(Entry::Put(DocKey([2; 16])), 1, &[9; 16]);
        assert!(!leads_on(other), "another document took this place");
        assert!(!leads_on(at[4].next(Entry::Delete(DocKey([1; 16])), 1, &[0; 16])), "it has what nobody stored");
        let mut batch = journal.batch();
        batch.forget(1..3);
        journal.commit(batch.finish()).await.expect("commits");
        assert_eq!(at.iter().map(|at| leads_on(*at)).collect::<Vec<_>>(), [false, false, false, true, true]);
    }

    #[tokio::test]
    async fn what_was_stored_before_it_was_sealed_is_read() {
        let (store, doc): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::default()), DocKey([1; 16]));
        let journal = journal("s", &store);
        let text: String = (0..9_000).map(|n| format!("W\u{f6}rt number{n} ends here. ")).collect();
        let cut = crate::chunk::chunks(&text, Format::Text, crate::chunk::ChunkSize::default());
        let (whole, short) = (write::tests::version(), "A few words.".to_owned());
        let long = Version { bytes: narrow(text.len()), chunks: narrow(cut.len()), ..whole.clone() };
        let short = Version { bytes: 12, chunks: 0, inline: Some((short, Vec::new())), ..whole };
        let old = ClearHead::sample("d", Some((DocKey([2; 16]), "original".to_owned())));
        let key = |number: u32, part: Option<u32>| {
            let part = part.map(u32::to_be_bytes);
            journal.key(&[&doc.0, &number.to_be_bytes(), part.as_ref().map_or(&[][..], |part| &part[..])])
        };
        let mut batch = Batch::new().put(HEADS, journal.key(&[&doc.0]), encode(&old).expect("encodes"));
        batch = batch.put(VERSIONS, key(1, None), encode(&short).expect("encodes"));
        batch = batch.put(VERSIONS, key(2, None), encode(&long).expect("encodes"));
        for (part, n) in text.as_bytes().chunks(PART).zip(0..) {
            batch = batch.put(TEXTS, key(2, Some(n)), part.to_vec());
        }
        for (page, n) in cut.chunks(PAGE).zip(0..) {
            batch = batch.put(CHUNKS, key(2, Some(n)), encode(&page).expect("encodes"));
        }
        journal.commit(vec![batch]).await.expect("commits");
        let head = journal.head(doc).expect("reads").expect("there");
        assert_eq!((head.id.as_str(), head.duplicate_of, head.subject), ("d", Some(DocKey([2; 16])), None));
        assert_eq!(journal.version(doc, 1), Ok(Some(short)));
        assert_eq!(journal.text(doc, 2, &long), Ok(text.clone()));
        assert_eq!(journal.chunks(doc, 2, &long), Ok(cut.clone()));
        assert_eq!(journal.chunk(doc, 2, &long, 70).map(|(_, body)| body), Ok(cut[70].of(&text).to_owned()));
        // It goes whole.
        let mut unit = Unit::new(&journal);
        unit.remove_versions(doc, 1..3).expect("reads");
        let mut batch = journal.batch();
        batch.add(unit).expect("fits");
        journal.commit(batch.finish()).await.expect("commits");
        let left = [VERSIONS, TEXTS, CHUNKS].map(|tree| store.scan(tree, &[], 9).expect("reads").len());
        assert_eq!(left, [0, 0, 0]);
    }

    #[test]
    fn keys_of_collections_differ() {
        let of = |names, collection, id| DocKey::of(names, &ShardName::new("t", collection).expect("valid"), id);
        assert_ne!(of(None, "a", "bc"), of(None, "ab", "c"));
        let key = of(None, "a", "b");
        assert_ne!(of(Some(&[0; 32]), "a", "b"), key);
        let (high, low) = key.halves();
        assert_eq!(DocKey::from_halves(high, low), key);
    }
}
