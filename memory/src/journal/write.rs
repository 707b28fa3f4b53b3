//! Writing: what belongs together becomes a [`Unit`], units become batches that a commit takes.
//!
//! A unit that fits into one batch is written whole. One that does not is written in this order: a [`Loose`] record that
//! names its parts, the parts, and, in one batch, what names the parts and the removal of the record. So after an
//! interruption either the unit is there, or a record says what is left of it; that is removed before anything is written
//! under the same name.

use std::ops::Range;

use aivillage_governance::keys::SubjectTag;
use aivillage_runtime::store::WRITE_BYTES;
use aivillage_runtime::{Batch, TreeId};
use serde::Serialize;
use serde_bytes::Bytes;

use super::record::{Parts, StoredHead, StoredVersion, stored};
use super::{
    CHUNKS, DocKey, Entry, HEADS, Head, Journal, LOG, LOOSE, Logged, Loose, PAGE, PART, PEOPLE, Position, SHARDS,
    TEXTS, VERSIONS, Version, Whole, digest, encode, lost, narrow,
};
use crate::chunk::Chunk;
use crate::error::MemoryError;

/// A batch has at most this much, also where more would be taken: what waits for the disk should get there steadily.
const BATCH_BYTES: usize = 8 << 20;
/// Keys that a unit removes at once; what is more is removed after it.
const REMOVED: usize = 256;
/// Keys that one step of sweeping removes.
const SWEPT: usize = 1024;

/// A write; without a value a removal.
#[derive(Debug)]
struct Write {
    tree: TreeId,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Write {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + WRITE_BYTES
    }

    fn add_to(self, batch: Batch) -> Batch {
        match self.value {
            Some(value) => batch.put(self.tree, self.key, value),
            None => batch.delete(self.tree, self.key),
        }
    }
}

/// Writes that are seen together or not at all: those of one document.
#[derive(Debug)]
pub struct Unit<'a> {
    journal: &'a Journal,
    /// Seen by nobody without the rest.
    parts: Vec<Write>,
    rest: Vec<Write>,
    /// The version that the parts belong to, and how many they are.
    draft: Option<(Vec<u8>, Loose)>,
    /// It leaves something to be swept.
    loose: bool,
}

impl<'a> Unit<'a> {
    /// Begins a unit.
    #[must_use]
    pub fn new(journal: &'a Journal) -> Self {
        Self { journal, parts: Vec::new(), rest: Vec::new(), draft: None, loose: false }
    }

    fn put(&mut self, tree: TreeId, key: Vec<u8>, value: Vec<u8>) {
        self.rest.push(Write { tree, key, value: Some(value) });
    }

    pub(super) fn remove(&mut self, tree: TreeId, key: Vec<u8>) {
        self.rest.push(Write { tree, key, value: None });
    }

    /// Adds a log entry.
    ///
    /// # Errors
    /// `Journal` when it has no binary form.
    pub fn log(&mut self, at: Position, entry: Entry) -> Result<(), MemoryError> {
        let logged = Logged { entry, chain: at.chain };
        self.put(LOG, self.journal.key(&[&at.seq.to_be_bytes()]), encode(&logged)?);
        Ok(())
    }

    /// Writes what is current of a document, sealed for whose it is; gives the record's digest.
    ///
    /// # Errors
    /// `Keys` when it cannot be sealed, `Journal` when it has no binary form.
    pub fn head(&mut self, doc: DocKey, head: &Head) -> Result<[u8; 16], MemoryError> {
        let key = self.journal.key(&[&doc.0]);
        let kept = self.journal.seal(head.subject, (HEADS, &key), head)?;
        let Head { version, oldest, deleted, .. } = *head;
        let record = stored(&StoredHead { version, oldest, deleted, kept })?;
        let digest = digest(&record);
        self.put(HEADS, key, record);
        Ok(digest)
    }

    /// Notes that somebody has stored something here.
    pub fn person(&mut self, subject: SubjectTag) {
        self.put(PEOPLE, self.journal.person(subject), Vec::new());
    }

    /// Has all indexes of before void.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn next_generation(&mut self) -> Result<(), MemoryError> {
        let whole = self.journal.whole()?;
        let next = Whole { generation: whole.generation + 1, ..whole };
        self.put(SHARDS, self.journal.prefix.to_vec(), encode(&next)?);
        Ok(())
    }

    /// Writes a version with its text and chunks, sealed for whose it is; what does not fit into one record is written in parts.
    /// A unit has at most one version.
    ///
    /// # Errors
    /// `Keys` when it cannot be sealed, `Journal` when it has no binary form.
    pub fn version(
        &mut self,
        doc: DocKey,
        number: u32,
        mut version: Version,
        text: String,
        chunks: Vec<Chunk>,
    ) -> Result<(), MemoryError> {
        let journal = self.journal;
        let place = journal.key(&[&doc.0, &number.to_be_bytes()]);
        version.chunks = narrow(chunks.len());
        version.bytes = narrow(text.len());
        if text.len() <= PART && chunks.len() <= PAGE {
            version.inline = Some((text, chunks));
        } else {
            for (text, n) in text.as_bytes().chunks(PART).zip(0..) {
                self.part(version.subject, TEXTS, part_key(&place, n), Bytes::new(text))?;
            }
            for (page, n) in chunks.chunks(PAGE).zip(0..) {
                self.part(version.subject, CHUNKS, part_key(&place, n), page)?;
            }
            let Parts { texts, chunks } = Parts::of(&version);
            self.draft = Some((place.clone(), Loose { texts, chunks, next: 0, end: 0 }));
        }
        let kept = journal.seal(version.subject, (VERSIONS, &place), &version)?;
        self.put(VERSIONS, place, stored(&StoredVersion { parts: Parts::of(&version), kept })?);
        Ok(())
    }

    fn part<T: Serialize + ?Sized>(
        &mut self,
        subject: Option<SubjectTag>,
        tree: TreeId,
        key: Vec<u8>,
        value: &T,
    ) -> Result<(), MemoryError> {
        let value = stored(&self.journal.seal(subject, (tree, &key), &value)?)?;
        self.parts.push(Write { tree, key, value: Some(value) });
        Ok(())
    }

    /// Removes versions with all their parts: few at once, many after the unit.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn remove_versions(&mut self, doc: DocKey, numbers: Range<u32>) -> Result<(), MemoryError> {
        let mut keys = Vec::new();
        for number in numbers.clone() {
            // One that is not there yet is written by a unit before this one.
            let few = |parts: &Parts| keys.len() + parts.texts as usize + (parts.chunks as usize) < REMOVED;
            let parts = self.journal.parts(doc, number)?.filter(few);
            let Some(Parts { texts, chunks }) = parts else { return self.remove_later(doc, &numbers) };
            let place = self.journal.key(&[&doc.0, &number.to_be_bytes()]);
            keys.extend((0..texts).map(|n| (TEXTS, part_key(&place, n))));
            keys.extend((0..chunks).map(|n| (CHUNKS, part_key(&place, n))));
            keys.push((VERSIONS, place));
        }
        for (tree, key) in keys {
            self.remove(tree, key);
        }
        Ok(())
    }

    fn remove_later(&mut self, doc: DocKey, numbers: &Range<u32>) -> Result<(), MemoryError> {
        let loose = Loose { texts: 0, chunks: 0, next: numbers.start, end: numbers.end };
        self.put(LOOSE, self.journal.key(&[&doc.0, &numbers.start.to_be_bytes()]), encode(&loose)?);
        self.loose = true;
        Ok(())
    }
}

impl Parts {
    pub(super) fn of(version: &Version) -> Self {
        match version.inline {
            Some(_) => Self { texts: 0, chunks: 0 },
            None => Self { texts: version.bytes.div_ceil(narrow(PART)), chunks: version.chunks.div_ceil(narrow(PAGE)) },
        }
    }
}

fn part_key(place: &[u8], n: u32) -> Vec<u8> {
    [place, &n.to_be_bytes()].concat()
}

/// Units in their order, made into batches.
#[derive(Debug)]
pub struct JournalBatch<'a> {
    journal: &'a Journal,
    limit: usize,
    full: Vec<Batch>,
    open: Batch,
    size: usize,
    loose: bool,
}

impl<'a> JournalBatch<'a> {
    /// `max` is the largest batch that a commit takes. Not all of it is used: a unit's rest always fits.
    pub(super) fn new(journal: &'a Journal, max: usize) -> Self {
        let limit = (max - max / 8).min(BATCH_BYTES);
        Self { journal, limit, full: Vec::new(), open: Batch::new(), size: 0, loose: false }
    }

    /// Adds a unit.
    ///
    /// # Errors
    /// `Journal` when it is too large to be seen together; nothing of it is added then.
    pub fn add(&mut self, unit: Unit<'_>) -> Result<(), MemoryError> {
        let size = |writes: &[Write]| writes.iter().map(Write::size).sum::<usize>();
        let rest = size(&unit.rest);
        if rest > self.limit {
            return Err(MemoryError::Journal { reason: format!("a record of {rest} bytes is over {}", self.limit) });
        }
        self.loose |= unit.loose;
        let whole = size(&unit.parts) + rest;
        let Some((place, draft)) = unit.draft.filter(|_| whole > self.limit) else {
            self.make_room(whole);
            unit.parts.into_iter().chain(unit.rest).for_each(|write| self.push(write));
            return Ok(());
        };
        self.split(Write { tree: LOOSE, key: place.clone(), value: Some(encode(&draft)?) });
        unit.parts.into_iter().for_each(|part| self.split(part));
        // Nothing names a part that a later batch brings.
        self.close();
        unit.rest.into_iter().for_each(|write| self.push(write));
        self.push(Write { tree: LOOSE, key: place, value: None });
        Ok(())
    }

    /// Removes log entries that the index has seen.
    pub fn forget(&mut self, entries: Range<u64>) {
        for seq in entries {
            self.split(Write { tree: LOG, key: self.journal.key(&[&seq.to_be_bytes()]), value: None });
        }
    }

    /// Whether something has to be swept once this is committed.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        self.loose
    }

    /// The batches, to be committed one after the other.
    #[must_use]
    pub fn finish(mut self) -> Vec<Batch> {
        self.close();
        self.full
    }

    /// Adds a write that may be in another batch than the one before it.
    fn split(&mut self, write: Write) {
        self.make_room(write.size());
        self.push(write);
    }

    fn make_room(&mut self, size: usize) {
        if self.size + size > self.limit {
            self.close();
        }
    }

    fn push(&mut self, write: Write) {
        self.size += write.size();
        self.open = write.add_to(std::mem::take(&mut self.open));
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open));
            self.size = 0;
        }
    }
}

/// Removes a part of what a record names; the record then names the rest.
pub(super) fn sweep(journal: &Journal, (doc, number): (DocKey, u32), mut loose: Loose) -> Result<Batch, MemoryError> {
    let key = |number: u32| journal.key(&[&doc.0, &number.to_be_bytes()]);
    let (mut at, mut batch) = (number, Batch::new().delete(LOOSE, key(number)));
    while batch.len() < SWEPT {
        if loose.texts > 0 {
            loose.texts -= 1;
            batch = batch.delete(TEXTS, part_key(&key(at), loose.texts));
        } else if loose.chunks > 0 {
            loose.chunks -= 1;
            batch = batch.delete(CHUNKS, part_key(&key(at), loose.chunks));
        } else if loose.next < loose.end {
            at = loose.next;
            loose.next += 1;
            if let Some(parts) = journal.parts(doc, at)? {
                (loose.texts, loose.chunks) = (parts.texts, parts.chunks);
                batch = batch.delete(VERSIONS, key(at));
            }
        } else {
            return Ok(batch);
        }
    }
    if at < number {
        return Err(lost("the order of versions"));
    }
    Ok(batch.put(LOOSE, key(at), encode(&loose)?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use aivillage_runtime::store::MemoryStore;
    use aivillage_runtime::{Level, Store};

    use super::*;
    use crate::chunk::{ChunkSize, chunks};
    use crate::document::Format;

    const DOC: DocKey = DocKey([7; 16]);
    /// What a commit of a group takes.
    const MAX: usize = 256 * 1024;

    pub(in crate::journal) fn version() -> Version {
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
            subject: None,
        }
    }

    pub(in crate::journal) fn head(version: u32) -> Head {
        Head {
            id: "d".to_owned(),
            version,
            oldest: version,
            deleted: false,
            text: [0; 16],
            content: [0; 16],
            duplicate_of: None,
            signature: Vec::new(),
            language: "eng".to_owned(),
            subject: None,
        }
    }

    fn text(words: usize) -> String {
        (0..words).map(|n| format!("W\u{f6}rt{n} ends here. ")).collect()
    }

    /// The batches that store a text as this version.
    fn put(journal: &Journal, number: u32, text: &str) -> Vec<Batch> {
        let mut unit = Unit::new(journal);
        unit.head(DOC, &head(number)).expect("encodes");
        unit.version(DOC, number, version(), text.to_owned(), chunks(text, Format::Text, ChunkSize::default()))
            .expect("encodes");
        let mut batch = JournalBatch::new(journal, MAX);
        batch.add(unit).expect("fits");
        batch.finish()
    }

    async fn sweep_all(journal: &Journal) {
        while let Some(batch) = journal.sweep().expect("reads") {
            assert!(batch.size() <= MAX);
            journal.commit(vec![batch]).await.expect("commits");
        }
    }

    /// Trees that hold something.
    fn held(store: &Arc<dyn Store>) -> Vec<TreeId> {
        let trees = [LOG, HEADS, VERSIONS, TEXTS, CHUNKS, LOOSE];
        trees.into_iter().filter(|tree| !store.scan(*tree, &[], 1).expect("reads").is_empty()).collect()
    }

    #[tokio::test]
    async fn a_large_document_is_unseen_until_the_last_commit_and_removed_whole() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let journal = Journal::new(store.clone(), "s");
        let text = text(60_000);
        let cut = chunks(&text, Format::Text, ChunkSize::default());
        let batches = put(&journal, 1, &text);
        assert!(batches.len() > 4 && batches.iter().all(|batch| batch.size() <= MAX), "{}", batches.len());
        for batch in batches {
            assert!(journal.head(DOC).expect("reads").is_none() && journal.version(DOC, 1).expect("reads").is_none());
            store.commit(batch, Level::Disk).await.expect("commits");
        }
        assert!(!journal.is_loose().expect("reads"));
        let stored = journal.version(DOC, 1).expect("reads").expect("there");
        assert!(stored.inline.is_none());
        assert_eq!(journal.text(DOC, 1, &stored).expect("reads"), text);
        assert_eq!(journal.chunks(DOC, 1, &stored).expect("reads"), cut);
        for ordinal in [0, 63, 64, stored.chunks - 1] {
            let (chunk, body) = journal.chunk(DOC, 1, &stored, ordinal).expect("reads");
            assert_eq!(body, chunk.of(&text));
        }
        let mut unit = Unit::new(&journal);
        unit.remove_versions(DOC, 1..2).expect("reads");
        let mut batch = journal.batch();
        batch.add(unit).expect("fits");
        journal.commit(batch.finish()).await.expect("commits");
        sweep_all(&journal).await;
        assert_eq!(held(&store), [HEADS]);
    }

    #[tokio::test]
    async fn an_interrupted_write_leaves_nothing_behind_wherever_it_ended() {
        let (long, short) = (text(40_000), text(12_000));
        let steps = put(&Journal::new(Arc::new(MemoryStore::default()), "s"), 1, &long).len();
        assert!(steps > 3);
        for done in 0..steps {
            for retry in [Some(&short), None] {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
                let journal = Journal::new(store.clone(), "s");
                journal.commit(put(&journal, 1, &long).into_iter().take(done).collect()).await.expect("commits");
                assert!(journal.head(DOC).expect("reads").is_none());
                sweep_all(&journal).await;
                assert_eq!(held(&store), [], "{done} commits of {steps}");
                if let Some(text) = retry {
                    journal.commit(put(&journal, 1, text)).await.expect("commits");
                    let stored = journal.version(DOC, 1).expect("reads").expect("there");
                    assert_eq!(&journal.text(DOC, 1, &stored).expect("reads"), text);
                }
            }
        }
    }

    #[tokio::test]
    async fn many_versions_go_in_steps() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let journal = Journal::new(store.clone(), "s");
        let text = text(9_000);
        for number in 1..=20 {
            journal.commit(put(&journal, number, &text)).await.expect("commits");
        }
        for number in 21..=1500 {
            journal.commit(put(&journal, number, "a few words")).await.expect("commits");
        }
        let mut unit = Unit::new(&journal);
        unit.remove_versions(DOC, 1..1500).expect("reads");
        let mut batch = JournalBatch::new(&journal, MAX);
        batch.add(unit).expect("fits");
        assert!(batch.is_loose());
        journal.commit(batch.finish()).await.expect("commits");
        let first = journal.sweep().expect("reads").expect("something to do");
        journal.commit(vec![first]).await.expect("commits");
        assert!(journal.is_loose().expect("reads"), "not all at once");
        sweep_all(&journal).await;
        assert!(journal.version(DOC, 1499).expect("reads").is_none());
        assert!(journal.version(DOC, 1500).expect("reads").is_some());
        assert_eq!(held(&store), [HEADS, VERSIONS]);
    }

    #[test]
    fn small_documents_share_batches_and_none_is_too_large() {
        let journal = Journal::new(Arc::new(MemoryStore::default()), "s");
        let mut batch = JournalBatch::new(&journal, MAX);
        for n in 0..300 {
            let mut unit = Unit::new(&journal);
            unit.head(DocKey([u8::try_from(n % 256).unwrap(); 16]), &head(1)).expect("encodes");
            let text = text(40 + usize::from(n % 7 == 0) * 2000);
            unit.version(DOC, n, version(), text, Vec::new()).expect("encodes");
            batch.add(unit).expect("fits");
        }
        batch.forget(0..20_000);
        let batches = batch.finish();
        assert!(batches.iter().all(|batch| batch.size() <= MAX));
        assert!(batches.len() < 20, "{}", batches.len());
    }

    #[test]
    fn the_largest_record_fits() {
        let journal = Journal::new(Arc::new(MemoryStore::default()), "s");
        let wide = |chars: usize| "\u{10ffff}".repeat(chars);
        let mut unit = Unit::new(&journal);
        let id = "i".repeat(512);
        let head = Head { id, duplicate_of: Some(DOC), signature: vec![0; 512], ..head(1) };
        unit.head(DOC, &head).expect("encodes");
        unit.log(Position { seq: u64::MAX, chain: u64::MAX }, Entry::Put(DOC)).expect("encodes");
        let field = Some(wide(500));
        let metadata = "m".repeat(crate::prepare::METADATA_MAX);
        let version = Version { title: field.clone(), url: field.clone(), source: field, metadata, ..version() };
        let chunk = Chunk { heading: wide(240), bytes: (u32::MAX, u32::MAX), chars: (u32::MAX, u32::MAX), page: 1 };
        unit.version(DOC, 1, version, "x".repeat(PART), vec![chunk; PAGE]).expect("encodes");
        for n in 0..u32::try_from(REMOVED).unwrap() {
            unit.remove(TEXTS, journal.key(&[&DOC.0, &[0; 4], &n.to_be_bytes()]));
        }
        let mut batch = JournalBatch::new(&journal, MAX);
        batch.add(unit).expect("fits");
    }
}
