//! Where the ledger keeps its journal and its checkpoints, in the store of its group.
//!
//! | tree | key | value |
//! |---|---|---|
//! | [`SEGMENTS`] | shelf, `number u64 BE` | a [`Segment`] |
//! | [`CHECKPOINTS`] | shelf | postcard of a [`Name`] |
//! | [`CHECKPOINTS`] | shelf, `slot u8`, `part u32 BE` | part of the postcard of a [`Saved`] |
//!
//! Shelf: first 8 bytes of BLAKE3 of the actor's key. Segments are the truth and are kept for ever; a checkpoint only spares
//! carrying all of them out again, so one that is damaged is left aside. Its parts are written beside those of the last one,
//! then what names them.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::store::{Batch, Level, Store, StoreError, TreeId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::audit::{self, AuditError, Audited};
use super::books::{Books, REMEMBER, Saved};
use super::segment::{Head, Segment};

/// The journal.
pub(super) const SEGMENTS: TreeId = TreeId(90);
/// The checkpoints.
pub(super) const CHECKPOINTS: TreeId = TreeId(91);
/// Bytes of a part of a checkpoint.
const PART: usize = 64 * 1024;
/// Segments read at a time: at most 4 MiB.
const PAGE: usize = 16;

/// Where the newest checkpoint is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Name {
    slot: u8,
    parts: u32,
    /// BLAKE3 of its parts together.
    hash: [u8; 32],
}

/// How much there is to carry out again at the next start, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wear {
    /// Of the segments after the checkpoint.
    pub(super) tail: usize,
    /// Of the checkpoint.
    weight: usize,
}

impl Wear {
    /// Whether the segments after the checkpoint have so many bytes and outweigh it: so as much is written again as is new.
    pub(super) fn calls_for_checkpoint(self, after: usize) -> bool {
        self.tail >= after.max(self.weight)
    }

    /// After a checkpoint of this size, begun when `tail` bytes were to be carried out again.
    pub(super) fn after_checkpoint(self, tail: usize, weight: usize) -> Self {
        Self { tail: self.tail.saturating_sub(tail), weight }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Arc<dyn Store>,
    prefix: [u8; 8],
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

/// Why the books cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShelfError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is damaged.
    #[error("the ledger's journal is damaged: {0}")]
    Damaged(#[from] AuditError),
}

impl Shelf {
    /// The shelf of the actor with this key.
    pub(super) fn new(store: Arc<dyn Store>, actor: &str) -> Self {
        let mut prefix = [0; 8];
        blake3::Hasher::new().update(actor.as_bytes()).finalize_xof().fill(&mut prefix);
        Self { store, prefix }
    }

    fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        [&self.prefix[..], &parts.concat()].concat()
    }

    /// Makes a segment durable.
    pub(super) async fn append(&self, segment: &Segment) -> Result<(), StoreError> {
        let key = self.key(&[&segment.number.to_be_bytes()]);
        self.store.commit(Batch::new().put(SEGMENTS, key, segment.encode()), Level::Disk).await.map(drop)
    }

    /// Up to `limit` segments from a number on, as they are stored.
    pub(super) fn page(&self, from: u64, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let page = self.store.scan(SEGMENTS, &self.key(&[&from.to_be_bytes()]), limit)?;
        Ok(page.into_iter().filter(|(key, _)| key.starts_with(&self.prefix)).map(|(_, bytes)| bytes).collect())
    }

    fn segment(&self, number: u64) -> Result<Segment, ShelfError> {
        let stored = self.store.get(SEGMENTS, &self.key(&[&number.to_be_bytes()]))?;
        let stored = stored.ok_or(AuditError::Chain { number })?;
        Ok(audit::read(number, &stored)?)
    }

    /// Makes the books out of the newest checkpoint and the segments after it, once what an earlier activation wrote is seen.
    pub(super) async fn load(&self, remember: Duration) -> Result<(Books, Wear), ShelfError> {
        self.store.commit(Batch::new(), Level::Async).await?;
        let mut wear = Wear::default();
        let mut books = match self.checkpoint()? {
            Some((saved, weight)) => {
                wear.weight = weight;
                let recent = self.recent(&saved)?;
                Books::restore(remember, saved, recent)
            }
            None => Books::remembering(remember),
        };
        self.each(books.head().next, u64::MAX, |segment| {
            wear.tail += segment.size();
            books.replay(segment)
        })?;
        Ok((books, wear))
    }

    /// Looks at the segments from `from` to before `until`; each is unharmed, but need not follow the one before.
    fn each(
        &self,
        mut from: u64,
        until: u64,
        mut look: impl FnMut(&Segment) -> Result<(), AuditError>,
    ) -> Result<(), ShelfError> {
        while from < until {
            let page = self.page(from, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for bytes in page.iter().take(usize::try_from(until - from).unwrap_or(usize::MAX)) {
                look(&audit::read(from, bytes)?)?;
                from += 1;
            }
        }
        Ok(())
    }

    /// The segments before a checkpoint that its books remember, verified back from its head.
    fn recent(&self, saved: &Saved) -> Result<Vec<Segment>, ShelfError> {
        let (mut recent, mut head) = (Vec::new(), saved.head);
        while let Some(number) = head.next.checked_sub(1) {
            let segment = self.segment(number)?;
            if segment.hash != head.hash {
                return Err(AuditError::Chain { number }.into());
            }
            head = Head { next: number, hash: segment.prev };
            let is_oldest = segment.time_ns < saved.forgot_ns;
            recent.push(segment);
            if is_oldest {
                break;
            }
        }
        recent.reverse();
        Ok(recent)
    }

    fn name_of_checkpoint(&self) -> Result<Option<Name>, StoreError> {
        let stored = self.store.get(CHECKPOINTS, &self.key(&[]))?;
        Ok(stored.and_then(|stored| postcard::from_bytes(&stored).ok()))
    }

    /// The newest checkpoint and its size; none if it is not as it was written.
    fn checkpoint(&self) -> Result<Option<(Saved, usize)>, StoreError> {
        let Some(Name { slot, parts, hash }) = self.name_of_checkpoint()? else { return Ok(None) };
        let mut bytes = Vec::new();
        for part in 0..parts {
            let Some(part) = self.store.get(CHECKPOINTS, &self.key(&[&[slot], &part.to_be_bytes()]))? else { break };
            bytes.extend_from_slice(&part);
        }
        let unharmed = *blake3::hash(&bytes).as_bytes() == hash;
        let saved = unharmed.then(|| postcard::from_bytes(&bytes).ok()).flatten();
        if saved.is_none() {
            tracing::warn!("the ledger's checkpoint is damaged, the whole journal is carried out again");
        }
        Ok(saved.map(|saved| (saved, bytes.len())))
    }

    /// Writes a checkpoint and gives its size; after a crash in between the last one counts. One at a time.
    pub(super) async fn write_checkpoint(&self, saved: &Saved) -> Result<usize, StoreError> {
        let last = self.name_of_checkpoint()?;
        let slot = u8::from(last.is_some_and(|last| last.slot == 0));
        let bytes = postcard::to_allocvec(saved).map_err(|error| unwritable(&error))?;
        let mut parts = 0_u32;
        for part in bytes.chunks(PART) {
            let key = self.key(&[&[slot], &parts.to_be_bytes()]);
            self.store.commit(Batch::new().put(CHECKPOINTS, key, part), Level::Async).await?;
            parts += 1;
        }
        let name = Name { slot, parts, hash: *blake3::hash(&bytes).as_bytes() };
        let name = postcard::to_allocvec(&name).map_err(|error| unwritable(&error))?;
        self.store.commit(Batch::new().put(CHECKPOINTS, self.key(&[]), name), Level::Disk).await?;
        // Nothing names these any more; what an interruption leaves here is overwritten by the next checkpoint but one.
        if let Some(Name { slot, parts, .. }) = last {
            let keys = (0..parts).map(|part| self.key(&[&[slot], &part.to_be_bytes()]));
            let batch = keys.fold(Batch::new(), |batch, key| batch.delete(CHECKPOINTS, key));
            self.store.commit(batch, Level::Async).await?;
        }
        Ok(bytes.len())
    }

    /// Verifies the whole journal up to `head` and that it makes books with this digest.
    pub(super) fn audit(&self, remember: Duration, head: Head, digest: [u8; 32]) -> Result<Audited, ShelfError> {
        let mut books = Books::remembering(remember);
        self.each(0, head.next, |segment| books.replay(segment))?;
        follows_to(books.head(), head)?;
        let audited = books.balance()?;
        if books.digest() == digest { Ok(audited) } else { Err(AuditError::Differs.into()) }
    }
}

/// Whether a chain ends where it should.
fn follows_to(have: Head, want: Head) -> Result<(), AuditError> {
    if have == want { Ok(()) } else { Err(AuditError::Chain { number: have.next }) }
}

fn unwritable(why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Decode { what: "checkpoint of the ledger", detail: why.to_string() }
}

/// Why the ledger of a stopped node does not audit.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal is not what was written, or does not make the books.
    #[error(transparent)]
    Wrong(#[from] AuditError),
}

impl From<ShelfError> for StoppedError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Store(error) => Self::Store(error),
            ShelfError::Damaged(error) => Self::Wrong(error),
        }
    }
}

/// Verifies the ledger in a stopped node's copy of a group: the whole journal, and that it makes the books which the node would
/// start with. None when the copy has no ledger.
///
/// # Errors
/// The first thing that is wrong.
pub async fn audit_stopped(copy: Arc<dyn Store>) -> Result<Option<Audited>, StoppedError> {
    let shelf = Shelf::new(copy, super::KEY);
    if shelf.page(0, 1)?.is_empty() && shelf.name_of_checkpoint()?.is_none() {
        return Ok(None);
    }
    let (books, _) = shelf.load(REMEMBER).await?;
    Ok(Some(shelf.audit(REMEMBER, books.head(), books.digest())?))
}
