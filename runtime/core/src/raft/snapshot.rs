//! Snapshots: the state of one group at one position, as a file.
//!
//! ```text
//! "AVRAFT01" | len u32, postcard(SnapshotMeta) | { key len u32, value len u32, key, value }* | ff ff ff ff | BLAKE3 of all before
//! ```
//!
//! Numbers are little-endian. A file is written under a name of its own, synced, and renamed to `gXX.snapshot`; only the
//! newest is kept. The state itself is in the store, so a file that is missing or damaged at the start is no loss.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{GroupId, LogId, SnapshotMeta, decode, encode};
use crate::blob::{BlobId, Download, Landing, Served};
use crate::store::{MAX_KEY, MAX_VALUE, StoreError, sync_dir};

const MAGIC: &[u8; 8] = b"AVRAFT01";
const END: [u8; 4] = [0xff; 4];
const HASH: usize = 32;
/// Longest description: it holds a membership of at most a few hundred nodes.
const MAX_META: usize = 1 << 20;
/// Bytes read at a time.
const READ: usize = 512 * 1024;

/// The bytes of a snapshot, complete or being received. A file that was not kept is removed when the last handle goes.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile(Content);

#[derive(Debug, Clone)]
enum Content {
    Memory(Bytes),
    Disk(Arc<Spool>),
}

/// A file, and whether it is to stay.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    len: u64,
    path: Mutex<PathBuf>,
    kept: AtomicBool,
    /// Its hash, once somebody wanted to know.
    id: OnceLock<BlobId>,
}

impl Spool {
    fn new(file: File, len: u64, path: PathBuf, kept: bool) -> Self {
        Self { file, len, path: path.into(), kept: kept.into(), id: OnceLock::new() }
    }

    fn hash(&self) -> io::Result<BlobId> {
        let (mut hash, mut chunk, mut at) = (blake3::Hasher::new(), vec![0; READ], 0);
        while at < self.len {
            let rest = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(READ);
            let chunk = &mut chunk[..rest];
            self.file.read_exact_at(chunk, at)?;
            hash.update(chunk);
            at += rest as u64;
        }
        Ok(BlobId::from(*hash.finalize().as_bytes()))
    }

    fn failed(&self, action: &'static str, error: io::Error) -> StoreError {
        StoreError::io(action, &self.path.lock(), error)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            let _ = fs::remove_file(&*self.path.get_mut());
        }
    }
}

impl SnapshotFile {
    pub(super) fn empty() -> Self {
        Self(Content::Memory(Bytes::new()))
    }

    pub(super) fn len(&self) -> u64 {
        match &self.0 {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Disk(spool) => spool.len,
        }
    }

    /// The file for others to read, and its name. It stays readable when a newer one takes its place.
    pub(super) fn served(&self) -> Result<(BlobId, Served), StoreError> {
        match &self.0 {
            Content::Memory(bytes) => Ok((BlobId::of(bytes), Served::Heap(bytes.clone()))),
            Content::Disk(spool) => {
                let file = spool.file.try_clone().map_err(|e| spool.failed("read", e))?;
                let id = match spool.id.get() {
                    Some(id) => *id,
                    None => spool.hash().map_err(|e| spool.failed("read", e))?,
                };
                Ok((*spool.id.get_or_init(|| id), Served::File(Arc::new(file), spool.len)))
            }
        }
    }

    /// Up to `limit` bytes from `offset` on; none at the end.
    pub(super) fn read(&self, offset: u64, limit: usize) -> Result<Bytes, StoreError> {
        let rest = self.len().saturating_sub(offset);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(limit);
        match &self.0 {
            Content::Memory(bytes) => {
                let from = bytes.len() - usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(from..from + len))
            }
            Content::Disk(spool) => {
                let mut bytes = vec![0; len];
                spool.file.read_exact_at(&mut bytes, offset).map_err(|e| spool.failed("read", e))?;
                Ok(bytes.into())
            }
        }
    }

    /// Reads all of it and says what it is.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub(super) fn verify(&self) -> Result<SnapshotMeta, StoreError> {
        let mut pairs = self.pairs()?;
        while pairs.next()?.is_some() {}
        Ok(pairs.meta)
    }

    /// The pairs in it. What has been returned is known to be right only when the end was reached.
    pub(super) fn pairs(&self) -> Result<Pairs, StoreError> {
        Pairs::open(self.clone())
    }

    /// Runs work on the file where it holds up nobody.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let on_disk = matches!(self.0, Content::Disk(_));
        let file = self.clone();
        aside(on_disk, move || work(&file)).await
    }
}

/// Runs work that waits for the disk on a thread for such work.
pub(super) async fn aside<T: Send + 'static>(
    on_disk: bool,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if !on_disk {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(damaged(format!("the thread that worked on it ended: {e}"))))
}

fn damaged(detail: impl Into<String>) -> StoreError {
    StoreError::Decode { what: "a snapshot", detail: detail.into() }
}

/// Reads a snapshot from its begin to its end, with the hash checked there.
pub(super) struct Pairs {
    pub(super) meta: SnapshotMeta,
    file: SnapshotFile,
    offset: u64,
    buffer: BytesMut,
    hash: blake3::Hasher,
    ended: bool,
}

impl Pairs {
    fn open(file: SnapshotFile) -> Result<Self, StoreError> {
        let (buffer, hash) = (BytesMut::new(), blake3::Hasher::new());
        let mut pairs = Self { meta: SnapshotMeta::default(), file, offset: 0, buffer, hash, ended: false };
        if pairs.take(MAGIC.len())? != MAGIC[..] {
            return Err(damaged("it does not begin as one"));
        }
        let len = pairs.number()?;
        if len > MAX_META {
            return Err(damaged(format!("its description has {len} bytes")));
        }
        pairs.meta = decode("the description of a snapshot", &pairs.take(len)?)?;
        Ok(pairs)
    }

    /// The next pair, or none after the last.
    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let key = self.take(4)?;
        if key == END[..] {
            return self.end().map(|()| None);
        }
        let (key, value) = (key.clone().get_u32_le() as usize, self.number()?);
        if key > MAX_KEY || value > MAX_VALUE {
            return Err(damaged(format!("a key of {key} and a value of {value} bytes")));
        }
        Ok(Some((self.take(key)?, self.take(value)?)))
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let found = self.hash.finalize();
        let hash = self.take(HASH)?;
        if hash != found.as_bytes()[..] {
            return Err(damaged("its hash is not that of its content"));
        }
        if !self.buffer.is_empty() || self.offset < self.file.len() {
            return Err(damaged("something follows its end"));
        }
        self.ended = true;
        Ok(())
    }

    fn number(&mut self) -> Result<usize, StoreError> {
        Ok(self.take(4)?.get_u32_le() as usize)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, StoreError> {
        while self.buffer.len() < len {
            let more = self.file.read(self.offset, READ)?;
            if more.is_empty() {
                return Err(damaged("it is cut off"));
            }
            self.offset += more.len() as u64;
            self.buffer.extend_from_slice(&more);
        }
        let taken = self.buffer.split_to(len).freeze();
        self.hash.update(&taken);
        Ok(taken)
    }
}

/// A snapshot being written or received.
#[derive(Debug)]
pub(super) enum Draft {
    Memory(Vec<u8>),
    Disk(Spool),
}

impl Draft {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Memory(content) => content.extend_from_slice(bytes),
            Self::Disk(spool) => {
                spool.file.write_all(bytes).map_err(|e| spool.failed("write", e))?;
                spool.len += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Where a snapshot that is fetched goes; [`landed`](Self::landed) takes it from there.
    pub(super) fn landing(&self) -> Result<Landing, StoreError> {
        match self {
            Self::Memory(_) => Ok(Landing::Heap(Mutex::default())),
            Self::Disk(spool) => Ok(Landing::File(spool.file.try_clone().map_err(|e| spool.failed("open", e))?)),
        }
    }

    /// Takes over what was fetched.
    pub(super) fn landed(self, download: &Download, len: u64) -> Result<SnapshotFile, StoreError> {
        match self {
            Self::Memory(_) => Self::Memory(download.take_heap().into()).finish(),
            Self::Disk(mut spool) => {
                spool.len = len;
                Self::Disk(spool).finish()
            }
        }
    }

    pub(super) fn finish(self) -> Result<SnapshotFile, StoreError> {
        Ok(SnapshotFile(match self {
            Self::Memory(content) => Content::Memory(content.into()),
            Self::Disk(spool) => {
                spool.file.sync_all().map_err(|e| spool.failed("sync", e))?;
                Content::Disk(Arc::new(spool))
            }
        }))
    }
}

/// Writes a snapshot of known content.
pub(super) struct Dump {
    draft: Draft,
    hash: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Dump {
    pub(super) fn begin(draft: Draft, meta: &SnapshotMeta) -> Result<Self, StoreError> {
        let mut dump = Self { draft, hash: blake3::Hasher::new(), buffer: MAGIC.to_vec() };
        let meta = encode(meta);
        dump.buffer.extend_from_slice(&length(meta.len()));
        dump.buffer.extend_from_slice(&meta);
        dump.flush()?;
        Ok(dump)
    }

    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        for bytes in [&length(key.len()), &length(value.len()), key, value] {
            self.buffer.extend_from_slice(bytes);
        }
        if self.buffer.len() < READ { Ok(()) } else { self.flush() }
    }

    pub(super) fn finish(mut self) -> Result<SnapshotFile, StoreError> {
        self.buffer.extend_from_slice(&END);
        self.flush()?;
        self.draft.write(self.hash.finalize().as_bytes())?;
        self.draft.finish()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.hash.update(&self.buffer);
        self.draft.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Keys and values are below their limits, and so far from `END`.
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("keys, values and descriptions have limits below 4 GiB").to_le_bytes()
}

/// The newest snapshot of a group, and where new ones are made.
#[derive(Clone)]
pub(super) struct Snapshots(Arc<Shelf>);

struct Shelf {
    group: GroupId,
    dir: Option<PathBuf>,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    drafts: AtomicU64,
}

impl Snapshots {
    /// Finds the snapshot of an earlier run, and removes what was not finished.
    pub(super) async fn open(group: GroupId, dir: Option<PathBuf>, applied: Option<LogId>) -> Result<Self, StoreError> {
        let on_disk = dir.is_some();
        let shelf = Shelf { group, dir, current: Mutex::new(None), drafts: AtomicU64::new(0) };
        aside(on_disk, move || {
            if let Some(dir) = &shelf.dir {
                shelf.sweep(dir)?;
                *shelf.current.lock() = shelf.find(dir, applied);
            }
            Ok(Self(Arc::new(shelf)))
        })
        .await
    }

    pub(super) fn on_disk(&self) -> bool {
        self.0.dir.is_some()
    }

    pub(super) fn current(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        self.0.current.lock().clone()
    }

    /// A place for a new snapshot.
    pub(super) fn draft(&self) -> Result<Draft, StoreError> {
        let Some(dir) = &self.0.dir else { return Ok(Draft::Memory(Vec::new())) };
        let path = dir.join(format!("{}-{}.part", self.0.name(), self.0.drafts.fetch_add(1, Ordering::Relaxed)));
        let opened = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = opened.map_err(|e| StoreError::io("create", &path, e))?;
        Ok(Draft::Disk(Spool::new(file, 0, path, false)))
    }

    /// Makes a finished snapshot the current one, unless that is newer. Returns what is current then.
    pub(super) fn keep(
        &self,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<(SnapshotMeta, SnapshotFile), StoreError> {
        let mut current = self.0.current.lock();
        if let Some(newer) = current.as_ref().filter(|(current, _)| current.last_log_id > meta.last_log_id) {
            return Ok(newer.clone());
        }
        if let (Content::Disk(spool), Some(dir)) = (&file.0, &self.0.dir) {
            let path = self.0.path(dir);
            let mut from = spool.path.lock();
            fs::rename(&*from, &path).map_err(|e| StoreError::io("rename a snapshot to", &path, e))?;
            *from = path;
            spool.kept.store(true, Ordering::Release);
            sync_dir(dir)?;
        }
        Ok(current.insert((meta, file)).clone())
    }
}

impl Shelf {
    fn name(&self) -> String {
        format!("g{:02x}", self.group.0)
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.snapshot", self.name()))
    }

    fn sweep(&self, dir: &Path) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("list", dir, e);
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let prefix = format!("{}-", self.name());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let own = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.starts_with(&prefix));
            if own && path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
            }
        }
        Ok(())
    }

    /// The file of an earlier run, if it is whole and not newer than the state.
    fn find(&self, dir: &Path, applied: Option<LogId>) -> Option<(SnapshotMeta, SnapshotFile)> {
        let path = self.path(dir);
        let opened = File::open(&path).and_then(|file| file.metadata().map(|of| (file, of.len())));
        let (file, len) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "snapshot is not readable, a new one is made when needed");
                return None;
            }
        };
        let file = SnapshotFile(Content::Disk(Arc::new(Spool::new(file, len, path.clone(), true))));
        match file.verify() {
            Ok(meta) if meta.last_log_id <= applied => Some((meta, file)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "snapshot is damaged, a new one is made when needed");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;
    use proptest::prelude::*;

    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let last_log_id = Some(LogId::new(CommittedLeaderId::new(1, 1), index));
        SnapshotMeta { last_log_id, snapshot_id: "one".to_owned(), ..SnapshotMeta::default() }
    }

    fn dumped(draft: Draft, meta: &SnapshotMeta, pairs: &[(Vec<u8>, Vec<u8>)]) -> SnapshotFile {
        let mut dump = Dump::begin(draft, meta).unwrap();
        for (key, value) in pairs {
            dump.pair(key, value).unwrap();
        }
        dump.finish().unwrap()
    }

    fn bytes(file: &SnapshotFile) -> Vec<u8> {
        file.read(0, usize::MAX).unwrap().to_vec()
    }

    proptest! {
        /// What went in comes out, and one changed byte or a cut is noticed.
        #[test]
        fn content_is_whole_or_refused(
            pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..40)), 0..9),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let file = dumped(Draft::Memory(Vec::new()), &meta(7), &pairs);
            let mut read = file.pairs().unwrap();
            prop_assert_eq!(&read.meta, &meta(7));
            let mut found = Vec::new();
            while let Some((key, value)) = read.next().unwrap() {
                found.push((key.to_vec(), value.to_vec()));
            }
            prop_assert_eq!(found, pairs);

            let mut content = bytes(&file);
            let at = at.index(content.len());
            prop_assert!(SnapshotFile(Content::Memory(content[..at].to_vec().into())).verify().is_err());
            content[at] ^= flip;
            prop_assert!(SnapshotFile(Content::Memory(content.into())).verify().is_err());
        }
    }

    #[tokio::test]
    async fn a_file_that_others_read_stays_as_it_is_when_a_newer_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let open = |home| Snapshots::open(GroupId(3), home, meta(9).last_log_id);
        for snapshots in [open(None).await.unwrap(), open(Some(dir.path().to_owned())).await.unwrap()] {
            let keep = |index, pairs: &[(Vec<u8>, Vec<u8>)]| {
                let file = dumped(snapshots.draft().unwrap(), &meta(index), pairs);
                snapshots.keep(meta(index), file).unwrap().1
            };
            let old = keep(4, &[(vec![1], vec![2; READ])]);
            let (id, served) = old.served().unwrap();
            let content = bytes(&old);
            drop(old);
            let new = keep(6, &[]);
            assert_eq!((BlobId::of(&content), new.served().unwrap().0 == id), (id, false));
            assert_eq!(served.read(0, u64::MAX).await.unwrap(), content);
        }
    }

    #[tokio::test]
    async fn the_newest_file_is_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = Some(dir.path().to_owned());
        let open = |applied| Snapshots::open(GroupId(3), home.clone(), Some(applied));
        let snapshots = open(meta(9).last_log_id.unwrap()).await.unwrap();
        assert!(snapshots.current().is_none());
        for index in [4, 6, 5] {
            let file = dumped(snapshots.draft().unwrap(), &meta(index), &[]);
            snapshots.keep(meta(index), file).unwrap();
        }
        assert_eq!(snapshots.current().unwrap().0, meta(6));
        let unfinished = snapshots.draft().unwrap();
        std::mem::forget(unfinished);
        drop(snapshots);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        let again = open(meta(9).last_log_id.unwrap()).await.unwrap();
        assert_eq!(again.current().unwrap().0, meta(6));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let behind = open(meta(5).last_log_id.unwrap()).await.unwrap();
        assert!(behind.current().is_none(), "a snapshot newer than the state is not used");
    }
}
