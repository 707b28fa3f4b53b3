//! Large immutable bytes, named by their BLAKE3 hash and kept as files beside the store.
//!
//! A blob is written once and read by name. Whoever needs it for longer takes a reference ([`Blobs::retain`]); a blob
//! without references goes at the first [`Blobs::gc`] that comes 24 hours or more after its last use.
//!
//! A file gets its name when all of it is on the disk, and its record in the store after that; the collector removes in the
//! opposite order. So a record's file exists, and a file without a record is garbage that a crash left.
//!
//! A blob that another node has is fetched with [`Blobs::fetch`], over the blob lane:
//!
//! | look for | in |
//! |---|---|
//! | the streams between nodes, and what they may cost | `lane`, `pace` |
//! | requests and answers | `wire` |
//! | what is missing of a file, and where it goes | `ranges`, `transfer` |

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::clock;
use crate::node_id::NodeId;
use crate::store::{Batch, Level, Store, StoreError, TreeId, sync_dir};

mod lane;
mod pace;
mod ranges;
mod transfer;
mod wire;

pub(crate) use lane::{BlobLane, Counted, FetchError};
pub(crate) use transfer::{Download, Landing, Offers, Served};

/// How long an unreferenced blob is kept.
pub const UNREFERENCED_AGE: Duration = Duration::from_hours(24);

/// Age from which a blob that is fetched again counts as new.
const RENEWED_AFTER_MS: u64 = 60 * 60 * 1000;
/// Bytes hashed and written at a time.
const CHUNK: usize = 256 * 1024;
/// Beginning of the names of files that are being written.
const PARTIAL: &str = "partial-";

/// Name of a blob: the BLAKE3 hash of its bytes, written in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// The hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for BlobId {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        blake3::Hash::from(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<Self, BlobError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| BlobError::BadId { text: text.to_owned() })?;
        Ok(Self(hash.into()))
    }
}

/// A blob, its length, and a node that has it. It travels in messages; who needs the bytes [fetches](Blobs::fetch) them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Where it was written.
    pub node: NodeId,
    /// The name.
    pub id: BlobId,
    /// Length in bytes.
    pub len: u64,
}

/// Why a blob could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no such blob here.
    #[error("no blob {id}")]
    NotFound {
        /// Its name.
        id: BlobId,
    },
    /// The bytes on disk are not those that were written.
    #[error("blob {id} is damaged")]
    Damaged {
        /// Its name.
        id: BlobId,
    },
    /// A reference was given back that nobody had taken.
    #[error("blob {id} has no references")]
    NotReferenced {
        /// Its name.
        id: BlobId,
    },
    /// Not the name of a blob.
    #[error("{text:?} is not 64 hex digits")]
    BadId {
        /// What was given.
        text: String,
    },
    /// The node does not have it, or not any more.
    #[error("node {node} has no blob {id}")]
    NotThere {
        /// Its name.
        id: BlobId,
        /// Who should have it.
        node: NodeId,
    },
    /// What the node sent is another blob, or one of another length. Nothing of it is kept.
    #[error("what node {node} sent is not blob {id}")]
    Mismatch {
        /// The name asked for.
        id: BlobId,
        /// Who sent it.
        node: NodeId,
    },
    /// The node could not be reached for long enough. What came is kept, and a further fetch goes on there.
    #[error("cannot fetch blob {id} from node {node}")]
    Unreachable {
        /// Its name.
        id: BlobId,
        /// Who has it.
        node: NodeId,
        /// What happened last.
        #[source]
        source: Arc<io::Error>,
    },
    /// The reader that the bytes come from failed.
    #[error("cannot read the source of a blob: {0}")]
    Source(#[source] io::Error),
    /// The store or its directory failed; [`StoreError::NoSpace`] when the disk is full.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a collection removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Number of blobs and unfinished files.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The blobs of a node. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    node: NodeId,
    files: Arc<Files>,
    store: Arc<dyn Store>,
    /// Held while records change: counts are read, changed and written.
    records: Arc<Mutex<()>>,
    /// The way to other nodes, in a cluster.
    lane: Arc<OnceLock<Arc<BlobLane>>>,
    /// Held while a blob is fetched, so that it comes once.
    fetches: Arc<parking_lot::Mutex<HashMap<BlobId, Weak<Mutex<()>>>>>,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Blobs").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Stored in [`TreeId::BLOBS`] under the hash.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    references: u64,
    len: u64,
    /// When it was last written, or lost its last reference.
    idle_since_ms: u64,
}

impl Blobs {
    /// Keeps the blobs of `node` as files in `dir`, which is made if it is not there, and their records in `store`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(node: NodeId, dir: &Path, store: Arc<dyn Store>) -> Result<Self, BlobError> {
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        Ok(Self::over(node, Files::Directory(dir.to_owned()), store))
    }

    /// Keeps blobs on the heap.
    pub fn in_memory(node: NodeId, store: Arc<dyn Store>) -> Self {
        Self::over(node, Files::Heap(RwLock::default()), store)
    }

    fn over(node: NodeId, files: Files, store: Arc<dyn Store>) -> Self {
        let (records, lane, fetches) = (Arc::default(), Arc::default(), Arc::default());
        Self { node, files: Arc::new(files), store, records, lane, fetches }
    }

    /// Blobs of other nodes are fetched over this lane from now on.
    pub(crate) fn connect(&self, lane: Arc<BlobLane>) {
        // A node has one, made at its start.
        let _ = self.lane.set(lane);
    }

    /// Writes a blob. When this returns it survives the loss of power.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left behind.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<BlobRef, BlobError> {
        let bytes = bytes.into();
        self.put_reader(io::Cursor::new(bytes)).await
    }

    /// Writes a blob of any length from a reader, which is read on a blocking thread.
    ///
    /// # Errors
    /// As [`Blobs::put`]; [`BlobError::Source`] when the reader fails.
    pub async fn put_reader(&self, source: impl Read + Send + 'static) -> Result<BlobRef, BlobError> {
        let files = Arc::clone(&self.files);
        let partial = blocking(move || files.write(source)).await?;
        self.publish(partial).await
    }

    async fn publish(&self, partial: Partial) -> Result<BlobRef, BlobError> {
        let (id, len) = (partial.id, partial.len);
        let _guard = self.records.lock().await;
        let files = Arc::clone(&self.files);
        blocking(move || files.publish(&partial)).await?;
        let references = self.record(id)?.map_or(0, |record| record.references);
        self.write_record(id, Record { references, len, idle_since_ms: clock::unix_ms() }).await?;
        Ok(BlobRef { node: self.node, id, len })
    }

    /// Brings a blob here from the node that has it, unless it is here. What came is checked against its name, and durable
    /// when this returns; as any blob without references it is kept for [`UNREFERENCED_AGE`]. A lost connection is made
    /// again and the rest fetched, and so does a later call go on where this one ended.
    ///
    /// # Cancel safety
    /// What has come by then is kept for a later call.
    ///
    /// # Errors
    /// [`BlobError::NotThere`], [`BlobError::Mismatch`], [`BlobError::Unreachable`]; [`BlobError::NotFound`] for a blob of this
    /// node that is gone; [`BlobError::Store`] when it cannot be written here.
    pub async fn fetch(&self, blob: &BlobRef) -> Result<(), BlobError> {
        let BlobRef { node, id, len } = *blob;
        let flight = self.flight(id);
        let _alone = flight.lock().await;
        if self.is_kept(id).await? {
            return Ok(());
        }
        if node == self.node {
            return Err(BlobError::NotFound { id });
        }
        let Some(lane) = self.lane.get() else {
            let source = Arc::new(io::Error::new(io::ErrorKind::NotConnected, "this node is in no cluster"));
            return Err(BlobError::Unreachable { id, node, source });
        };
        loop {
            let files = Arc::clone(&self.files);
            let arrival = blocking(move || files.begin(id, len)).await?;
            let right = match lane.fetch(node, &arrival.download).await {
                Ok(()) => arrival.download.is_right().await.map_err(|e| arrival.unwritten(&e))?,
                Err(FetchError::Mismatch) => false,
                Err(error) => return Err(arrival.failed(error, node)),
            };
            if right {
                let partial = blocking(move || arrival.finish(len)).await?;
                return self.publish(partial).await.map(drop);
            }
            let resumed = arrival.resumed;
            blocking(move || arrival.discard()).await?;
            if !resumed {
                return Err(BlobError::Mismatch { id, node });
            }
            // What was left of an earlier fetch may be what a crash made of it.
        }
    }

    fn flight(&self, id: BlobId) -> Arc<Mutex<()>> {
        let mut fetches = self.fetches.lock();
        if let Some(flight) = fetches.get(&id).and_then(Weak::upgrade) {
            return flight;
        }
        fetches.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        fetches.insert(id, Arc::downgrade(&flight));
        flight
    }

    /// Whether the blob is here, and stays for a while.
    async fn is_kept(&self, id: BlobId) -> Result<bool, BlobError> {
        let _guard = self.records.lock().await;
        let Some(record) = self.record(id)? else { return Ok(false) };
        let files = Arc::clone(&self.files);
        match blocking(move || files.len(id)).await {
            Ok(_) => {}
            Err(BlobError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let now_ms = clock::unix_ms();
        if record.references == 0 && now_ms.saturating_sub(record.idle_since_ms) > RENEWED_AFTER_MS {
            self.write_record(id, Record { idle_since_ms: now_ms, ..record }).await?;
        }
        Ok(true)
    }

    /// Reads a whole blob and checks it against its name.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`].
    pub async fn get(&self, id: BlobId) -> Result<Bytes, BlobError> {
        let files = Arc::clone(&self.files);
        blocking(move || {
            let bytes = files.read(id, 0, u64::MAX)?;
            if BlobId::of(&bytes) == id { Ok(bytes) } else { Err(BlobError::Damaged { id }) }
        })
        .await
    }

    /// Reads up to `len` bytes from `offset` on; fewer when the blob ends there. A part cannot be checked against the name:
    /// who needs that calls [`Blobs::verify`] or [`Blobs::get`].
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub async fn read(&self, id: BlobId, offset: u64, len: u64) -> Result<Bytes, BlobError> {
        let files = Arc::clone(&self.files);
        blocking(move || files.read(id, offset, len)).await
    }

    /// Checks a blob of any length against its name.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`].
    pub async fn verify(&self, id: BlobId) -> Result<(), BlobError> {
        let files = Arc::clone(&self.files);
        blocking(move || if files.hash(id)? == id { Ok(()) } else { Err(BlobError::Damaged { id }) }).await
    }

    /// Length of a blob in bytes.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn len(&self, id: BlobId) -> Result<u64, BlobError> {
        self.files.len(id)
    }

    /// References taken to a blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn references(&self, id: BlobId) -> Result<u64, BlobError> {
        Ok(self.record(id)?.ok_or(BlobError::NotFound { id })?.references)
    }

    /// Takes a reference; it lasts over restarts until [`Blobs::release`].
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub async fn retain(&self, id: BlobId) -> Result<(), BlobError> {
        let _guard = self.records.lock().await;
        let record = self.record(id)?.ok_or(BlobError::NotFound { id })?;
        self.write_record(id, Record { references: record.references + 1, ..record }).await
    }

    /// Gives a reference back. A blob without any is kept for [`UNREFERENCED_AGE`].
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::NotReferenced`].
    pub async fn release(&self, id: BlobId) -> Result<(), BlobError> {
        let _guard = self.records.lock().await;
        let record = self.record(id)?.ok_or(BlobError::NotFound { id })?;
        let references = record.references.checked_sub(1).ok_or(BlobError::NotReferenced { id })?;
        self.write_record(id, Record { references, idle_since_ms: clock::unix_ms(), ..record }).await
    }

    /// Removes the blobs that nobody has referred to for [`UNREFERENCED_AGE`] at `now_ms`, and what crashes left behind.
    ///
    /// # Errors
    /// When the store or the directory fails; what is left goes next time.
    pub async fn gc(&self, now_ms: u64) -> Result<Collected, BlobError> {
        const PAGE: usize = 256;
        let _guard = self.records.lock().await;
        let mut from = Vec::new();
        loop {
            let page = self.store.scan(TreeId::BLOBS, &from, PAGE)?;
            let mut batch = Batch::new();
            for (key, value) in &page {
                let record = decode(value)?;
                if record.references == 0 && is_old(record.idle_since_ms, now_ms) {
                    batch = batch.delete(TreeId::BLOBS, key.to_vec());
                }
                from = [key, &[0][..]].concat();
            }
            self.store.commit(batch, Level::Disk).await?;
            if page.len() < PAGE {
                break;
            }
        }
        let (files, store) = (Arc::clone(&self.files), Arc::clone(&self.store));
        blocking(move || files.sweep(now_ms, |id| Ok(store.get(TreeId::BLOBS, id.as_bytes())?.is_some()))).await
    }

    fn record(&self, id: BlobId) -> Result<Option<Record>, BlobError> {
        self.store.get(TreeId::BLOBS, id.as_bytes())?.map(|value| decode(&value)).transpose()
    }

    async fn write_record(&self, id: BlobId, record: Record) -> Result<(), BlobError> {
        let value = postcard::to_allocvec(&record)
            .map_err(|e| StoreError::Decode { what: "blob record", detail: e.to_string() })?;
        self.store.commit(Batch::new().put(TreeId::BLOBS, id.0, value), Level::Disk).await?;
        Ok(())
    }
}

/// Where the bytes are.
#[derive(Debug)]
enum Files {
    Directory(PathBuf),
    Heap(RwLock<HashMap<BlobId, Bytes>>),
}

/// A blob that is written but has no name yet. Its file goes with it.
struct Partial {
    id: BlobId,
    len: u64,
    place: Place,
}

/// Where a partial blob is.
enum Place {
    File(PathBuf),
    Heap(Bytes),
}

/// A blob that is being fetched. What has come without a gap stays in its file when it ends before it is finished.
struct Arrival {
    download: Arc<Download>,
    /// None on the heap, and once it is finished.
    path: Option<PathBuf>,
    /// A part was here before.
    resumed: bool,
}

impl Arrival {
    fn failed(&self, error: FetchError, node: NodeId) -> BlobError {
        let id = self.download.id();
        match error {
            FetchError::NotThere => BlobError::NotThere { id, node },
            FetchError::Mismatch => BlobError::Mismatch { id, node },
            FetchError::Unreachable(source) => BlobError::Unreachable { id, node, source },
            FetchError::Write(error) => self.unwritten(&error),
        }
    }

    fn unwritten(&self, error: &io::Error) -> BlobError {
        let path = self.path.as_deref().unwrap_or(Path::new("memory"));
        // An error of the system keeps its number, which says whether the disk is full.
        let error =
            error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
        StoreError::io("write", path, error).into()
    }

    /// Makes what has come durable.
    fn finish(mut self, len: u64) -> Result<Partial, BlobError> {
        let place = match (self.download.landing(), &self.path) {
            (Landing::File(file), Some(path)) => {
                file.sync_all().map_err(|e| StoreError::io("sync", path, e))?;
                Place::File(path.clone())
            }
            _ => Place::Heap(self.download.take_heap()),
        };
        self.path = None;
        Ok(Partial { id: self.download.id(), len, place })
    }

    fn discard(mut self) -> Result<(), BlobError> {
        match self.path.take() {
            Some(path) => Ok(fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?),
            None => Ok(()),
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // What came beyond a gap is not known to a later fetch.
        if let (Some(path), Landing::File(file)) = (&self.path, self.download.landing()) {
            let _ = match self.download.prefix() {
                0 => fs::remove_file(path),
                prefix => file.set_len(prefix),
            };
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing nothing has this name.
        if let Place::File(path) = &self.place {
            let _ = fs::remove_file(path);
        }
    }
}

impl Files {
    fn write(&self, mut source: impl Read) -> Result<Partial, BlobError> {
        let Self::Directory(dir) = self else {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).map_err(BlobError::Source)?;
            let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
            return Ok(Partial { id, len, place: Place::Heap(bytes.into()) });
        };
        let path = dir.join(format!("{PARTIAL}{}", uuid::Uuid::now_v7()));
        let failed = |e| StoreError::io("write", &path, e);
        let mut file = File::create_new(&path).map_err(failed)?;
        let mut partial = Partial { id: BlobId::of(&[]), len: 0, place: Place::File(path.clone()) };
        let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; CHUNK]);
        loop {
            let filled = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BlobError::Source(error)),
            };
            hasher.update(&chunk[..filled]);
            file.write_all(&chunk[..filled]).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        (partial.id, partial.len) = (BlobId(hasher.finalize().into()), hasher.count());
        Ok(partial)
    }

    /// A place for a blob that is fetched, with what an earlier fetch left of it.
    fn begin(&self, id: BlobId, len: u64) -> Result<Arrival, BlobError> {
        let Self::Directory(dir) = self else {
            let download = Download::new(id, len, Landing::Heap(parking_lot::Mutex::default()), 0);
            return Ok(Arrival { download: Arc::new(download), path: None, resumed: false });
        };
        let path = dir.join(format!("{PARTIAL}{id}"));
        let failed = |e| StoreError::io("open", &path, e);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut have = file.metadata().map_err(failed)?.len();
        if have > len {
            file.set_len(0).map_err(failed)?;
            have = 0;
        }
        let download = Arc::new(Download::new(id, len, Landing::File(file), have));
        Ok(Arrival { download, path: Some(path), resumed: have > 0 })
    }

    /// A blob for others to read.
    fn serve(&self, id: BlobId) -> Result<Served, BlobError> {
        match self {
            Self::Heap(blobs) => Ok(Served::Heap(blobs.read().get(&id).ok_or(BlobError::NotFound { id })?.clone())),
            Self::Directory(dir) => {
                let path = path(dir, id);
                let file = open(&path, id)?;
                let len = file.metadata().map_err(|e| StoreError::io("read", &path, e))?.len();
                Ok(Served::File(Arc::new(file), len))
            }
        }
    }

    /// Gives a blob its name. One that is already there is replaced: this one is known to be good.
    fn publish(&self, partial: &Partial) -> Result<(), BlobError> {
        let id = partial.id;
        match (self, &partial.place) {
            (Self::Directory(dir), Place::File(file)) => {
                fs::rename(file, path(dir, id)).map_err(|e| StoreError::io("rename", file, e))?;
                sync_dir(dir)?;
            }
            (Self::Heap(blobs), Place::Heap(bytes)) => {
                blobs.write().insert(id, bytes.clone());
            }
            _ => unreachable!("`write` puts a blob where `publish` names it"),
        }
        Ok(())
    }

    fn read(&self, id: BlobId, offset: u64, len: u64) -> Result<Bytes, BlobError> {
        let all = self.len(id)?;
        let start = offset.min(all);
        let end = offset.saturating_add(len).min(all);
        let at = |position| usize::try_from(position).unwrap_or(usize::MAX);
        match self {
            Self::Heap(blobs) => {
                let blobs = blobs.read();
                Ok(blobs.get(&id).ok_or(BlobError::NotFound { id })?.slice(at(start)..at(end)))
            }
            Self::Directory(dir) => {
                let path = path(dir, id);
                let mut bytes = vec![0; at(end - start)];
                let file = open(&path, id)?;
                file.read_exact_at(&mut bytes, start).map_err(|e| StoreError::io("read", &path, e))?;
                Ok(bytes.into())
            }
        }
    }

    fn hash(&self, id: BlobId) -> Result<BlobId, BlobError> {
        let Self::Directory(dir) = self else { return Ok(BlobId::of(&self.read(id, 0, u64::MAX)?)) };
        let path = path(dir, id);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(open(&path, id)?).map_err(|e| StoreError::io("read", &path, e))?;
        Ok(BlobId(hasher.finalize().into()))
    }

    fn len(&self, id: BlobId) -> Result<u64, BlobError> {
        match self {
            Self::Heap(blobs) => Ok(blobs.read().get(&id).ok_or(BlobError::NotFound { id })?.len() as u64),
            Self::Directory(dir) => {
                let path = path(dir, id);
                Ok(open(&path, id)?.metadata().map_err(|e| StoreError::io("read", &path, e))?.len())
            }
        }
    }

    /// Removes what has no record, and writes that never ended.
    fn sweep(
        &self,
        now_ms: u64,
        has_record: impl Fn(BlobId) -> Result<bool, BlobError>,
    ) -> Result<Collected, BlobError> {
        let mut collected = Collected::default();
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Heap(blobs) => {
                let ids: Vec<_> = blobs.read().keys().copied().collect();
                for id in ids {
                    if !has_record(id)? {
                        collected.add(blobs.write().remove(&id).map_or(0, |bytes| bytes.len() as u64));
                    }
                }
                return Ok(collected);
            }
        };
        let failed = |e| StoreError::io("list", dir, e);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let garbage = match name.to_str().map(|name| (name.starts_with(PARTIAL), name.parse())) {
                Some((true, _)) => true,
                Some((false, Ok(id))) => !has_record(id)?,
                // Not a file of ours.
                _ => false,
            };
            let metadata = entry.metadata().map_err(failed)?;
            let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let written_ms = written.map_or(0, |written| u64::try_from(written.as_millis()).unwrap_or(u64::MAX));
            // A young file may be one that is being written.
            if garbage && is_old(written_ms, now_ms) {
                fs::remove_file(entry.path()).map_err(|e| StoreError::io("remove", &entry.path(), e))?;
                collected.add(metadata.len());
            }
        }
        Ok(collected)
    }
}

impl Collected {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

fn path(dir: &Path, id: BlobId) -> PathBuf {
    dir.join(id.to_string())
}

fn open(path: &Path, id: BlobId) -> Result<File, BlobError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound { id },
        _ => StoreError::io("open", path, error).into(),
    })
}

fn decode(value: &[u8]) -> Result<Record, BlobError> {
    let record = postcard::from_bytes(value);
    Ok(record.map_err(|e| StoreError::Decode { what: "blob record", detail: e.to_string() })?)
}

fn is_old(since_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= u64::try_from(UNREFERENCED_AGE.as_millis()).unwrap_or(u64::MAX)
}

/// Runs file work where it may block. A panic in it goes on in the caller.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(StoreError::Closed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const NODE: NodeId = NodeId(1);
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    /// The same blobs in a directory and on the heap.
    fn both(dir: &Path) -> [Blobs; 2] {
        let store = || Arc::<MemoryStore>::default();
        [Blobs::open(NODE, dir, store()).unwrap(), Blobs::in_memory(NODE, store())]
    }

    #[tokio::test]
    async fn bytes_come_back_whole_and_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for blobs in both(dir.path()) {
            let blob = blobs.put_reader(io::Cursor::new(bytes.clone())).await.unwrap();
            assert_eq!(blob, BlobRef { node: NODE, id: BlobId::of(&bytes), len: 700_000 });
            assert_eq!(blobs.put(bytes.clone()).await.unwrap(), blob);
            assert_eq!(blobs.get(blob.id).await.unwrap(), bytes);
            assert_eq!(blobs.read(blob.id, 300_000, 1000).await.unwrap(), bytes[300_000..301_000]);
            assert_eq!(blobs.read(blob.id, 699_990, 1000).await.unwrap(), bytes[699_990..]);
            assert!(blobs.read(blob.id, u64::MAX, 1000).await.unwrap().is_empty());
            assert_eq!(blobs.len(blob.id).unwrap(), 700_000);
            blobs.verify(blob.id).await.unwrap();
            assert_eq!(blob.id.to_string().parse::<BlobId>().unwrap(), blob.id);
            assert!(matches!(blobs.get(BlobId::of(b"other")).await, Err(BlobError::NotFound { .. })));
        }
    }

    #[tokio::test]
    async fn damage_is_noticed_and_mended_by_writing_again() {
        let dir = tempfile::tempdir().unwrap();
        let [blobs, _] = both(dir.path());
        let blob = blobs.put(&b"good bytes"[..]).await.unwrap();
        fs::write(path(dir.path(), blob.id), b"evil bytes").unwrap();
        assert!(matches!(blobs.get(blob.id).await, Err(BlobError::Damaged { .. })));
        assert!(matches!(blobs.verify(blob.id).await, Err(BlobError::Damaged { .. })));
        blobs.put(&b"good bytes"[..]).await.unwrap();
        blobs.verify(blob.id).await.unwrap();
    }

    #[tokio::test]
    async fn unreferenced_blobs_go_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        for blobs in both(dir.path()) {
            let kept = blobs.put(&b"kept"[..]).await.unwrap().id;
            let idle = blobs.put(&b"idle"[..]).await.unwrap().id;
            blobs.retain(kept).await.unwrap();
            blobs.retain(kept).await.unwrap();
            blobs.release(kept).await.unwrap();
            assert_eq!(blobs.references(kept).unwrap(), 1);
            assert_eq!(blobs.gc(clock::unix_ms() + DAY_MS - 60_000).await.unwrap(), Collected::default());
            let collected = blobs.gc(clock::unix_ms() + DAY_MS).await.unwrap();
            assert_eq!(collected, Collected { blobs: 1, bytes: 4 });
            assert!(matches!(blobs.get(idle).await, Err(BlobError::NotFound { .. })));
            blobs.verify(kept).await.unwrap();
            blobs.release(kept).await.unwrap();
            assert!(matches!(blobs.release(kept).await, Err(BlobError::NotReferenced { .. })));
            assert_eq!(blobs.gc(clock::unix_ms() + DAY_MS).await.unwrap().blobs, 1);
            assert!(matches!(blobs.retain(kept).await, Err(BlobError::NotFound { .. })));
        }
    }

    #[tokio::test]
    async fn what_crashes_leave_is_collected_and_foreign_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let [blobs, _] = both(dir.path());
        let orphan = path(dir.path(), BlobId::of(b"orphan"));
        let partial = dir.path().join(format!("{PARTIAL}1"));
        let foreign = dir.path().join("README");
        for file in [&orphan, &partial, &foreign] {
            fs::write(file, b"orphan").unwrap();
        }
        assert_eq!(blobs.gc(clock::unix_ms()).await.unwrap(), Collected::default());
        assert_eq!(blobs.gc(clock::unix_ms() + DAY_MS).await.unwrap(), Collected { blobs: 2, bytes: 12 });
        assert!(foreign.exists() && !orphan.exists() && !partial.exists());
    }

    #[tokio::test]
    async fn failed_source_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        for blobs in both(dir.path()) {
            assert!(matches!(blobs.put_reader(Broken).await, Err(BlobError::Source(_))));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
