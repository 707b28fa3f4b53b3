//! The two ends of a transfer: a file that others may read, and one that is being fetched.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::BlobId;
use super::ranges::{Range, Ranges};
use super::wire::RANGE;

/// A file to read from. One that is removed or replaced meanwhile stays readable.
#[derive(Debug, Clone)]
pub(crate) enum Served {
    /// On the disk, with its length.
    File(Arc<File>, u64),
    /// On the heap.
    Heap(Bytes),
}

impl Served {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Heap(bytes) => bytes.len() as u64,
        }
    }

    /// Up to `len` bytes from `offset` on, read where that holds up nobody.
    pub(crate) async fn read(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let rest = self.len().saturating_sub(offset).min(len);
        match self {
            Self::Heap(bytes) if rest == 0 => Ok(bytes.slice(..0)),
            Self::Heap(bytes) => Ok(bytes.slice(at(offset)..at(offset + rest))),
            Self::File(file, _) => {
                let (file, mut bytes) = (file.clone(), vec![0; at(rest)]);
                aside(move || file.read_exact_at(&mut bytes, offset).map(|()| bytes.into())).await
            }
        }
    }
}

/// Files that others may read for as long as somebody offers them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offers(Arc<Mutex<HashMap<BlobId, (usize, Served)>>>);

impl Offers {
    /// Lets others read a file until what is returned is dropped.
    pub(crate) fn offer(&self, id: BlobId, file: Served) -> Offer {
        self.0.lock().entry(id).or_insert((0, file)).0 += 1;
        Offer { offers: self.clone(), id }
    }

    pub(crate) fn find(&self, id: BlobId) -> Option<Served> {
        self.0.lock().get(&id).map(|(_, file)| file.clone())
    }
}

/// Ends with it: that others may read a file.
#[derive(Debug)]
#[must_use]
pub(crate) struct Offer {
    offers: Offers,
    id: BlobId,
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Entry::Occupied(mut offered) = self.offers.0.lock().entry(self.id) {
            offered.get_mut().0 -= 1;
            if offered.get().0 == 0 {
                offered.remove();
            }
        }
    }
}

/// Where the bytes of a fetched file go.
#[derive(Debug)]
pub(crate) enum Landing {
    /// Into a file.
    File(File),
    /// Onto the heap.
    Heap(Mutex<Vec<u8>>),
}

impl Landing {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset),
            Self::Heap(heap) => {
                let at = usize::try_from(offset).map_err(io::Error::other)?;
                let mut heap = heap.lock();
                // Parts come in any order, but at most a few are open at once.
                let end = at.saturating_add(bytes.len()).max(heap.len());
                heap.resize(end, 0);
                heap[at..at + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn hash(&self) -> io::Result<BlobId> {
        match self {
            Self::File(file) => {
                let mut hasher = blake3::Hasher::new();
                let mut file = file.try_clone()?;
                io::Seek::rewind(&mut file)?;
                hasher.update_reader(file)?;
                Ok(BlobId(hasher.finalize().into()))
            }
            Self::Heap(heap) => Ok(BlobId::of(&heap.lock())),
        }
    }
}

/// A file that is being fetched, and what of it is here. A fetch that broke off goes on with the same one.
#[derive(Debug)]
pub(crate) struct Download {
    id: BlobId,
    landing: Landing,
    ranges: Mutex<Ranges>,
}

impl Download {
    /// A file of `len` bytes, the first `have` of which have landed already.
    pub(crate) fn new(id: BlobId, len: u64, landing: Landing, have: u64) -> Self {
        Self { id, landing, ranges: Mutex::new(Ranges::new(len, have, RANGE)) }
    }

    pub(crate) fn id(&self) -> BlobId {
        self.id
    }

    pub(crate) fn landing(&self) -> &Landing {
        &self.landing
    }

    pub(crate) fn take_heap(&self) -> Bytes {
        match &self.landing {
            Landing::Heap(heap) => std::mem::take(&mut *heap.lock()).into(),
            Landing::File(_) => Bytes::new(),
        }
    }

    /// How much is here without a gap, from the begin on.
    pub(super) fn prefix(&self) -> u64 {
        self.ranges.lock().prefix()
    }

    /// A fetch begins; none before it goes on. Returns how many parts there are to fetch.
    pub(crate) fn begin(&self) -> u64 {
        let mut ranges = self.ranges.lock();
        ranges.give_back_all();
        ranges.waiting()
    }

    /// The next part to fetch.
    pub(super) fn take(&self) -> Option<Range> {
        self.ranges.lock().take()
    }

    /// The next part to fetch: its offset and its length.
    #[cfg(test)]
    pub(crate) fn next_part(&self) -> Option<(u64, u64)> {
        self.take().map(|range| (range.at, range.end - range.at))
    }

    /// What is missing of a part is left to others. Returns where that begins.
    pub(super) fn give_back(&self, end: u64) -> u64 {
        self.ranges.lock().give_back(end)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.ranges.lock().is_complete()
    }

    /// Lands bytes of the part that ends at `end`, and gives the buffer back.
    pub(crate) async fn land(self: &Arc<Self>, at: u64, end: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let download = self.clone();
        let write = move || download.landing.write(at, &bytes).map(|()| bytes);
        let bytes = if matches!(self.landing, Landing::Heap(_)) { write()? } else { aside(write).await? };
        self.ranges.lock().advance(end, bytes.len() as u64);
        Ok(bytes)
    }

    /// Whether what is here is the file that was to be fetched.
    pub(crate) async fn is_right(self: &Arc<Self>) -> io::Result<bool> {
        let download = self.clone();
        Ok(self.is_complete() && aside(move || download.landing.hash()).await? == self.id)
    }
}

/// Runs file work where it may block. A panic in it goes on in the caller.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(io::Error::other("the node shuts down")),
    }
}
