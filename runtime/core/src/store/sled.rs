//! The index on disk: the newest value of every key, in sled 0.34.
//!
//! sled checks each piece of its log when it reads it, but a damaged piece found while opening counts as the end of the log:
//! older values come back, keys vanish, and nothing tells. So the index carries a digest of itself: the sum modulo 2^128 of
//! a hash of every entry, kept up to date with each write and written with it, beside two LSNs: everything up to the first is
//! in, and nothing after the second. Opening reads everything and compares. If it matches and redo reaches to the second,
//! what redo holds after the first is applied again, and the content is exactly the state at its end. Any difference, error or panic means that the index is made again. After that, sled's own checks hold
//! for what it reads, and every value carries a CRC-32C of key and value besides.
//!
//! | key | value |
//! |---|---|
//! | `tree u16 BE`, key | sealed: 0, value; or 1, `length u64 LE` of a value in chunks |
//! | `fffe`, key of the above, `chunk u32 BE` | sealed: 0, up to 128 KiB of the value |
//! | `ffff` | sealed: 0, `applied u64 LE`, `seen u64 LE`, `digest u128 LE` |
//!
//! Sealed: `crc32c u32 LE` of key and rest, then the rest.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use sled::IVec;

use super::Lsn;
use super::disk::{Index, IndexError, Ops, Page};

/// Longer values are cut into chunks of this size: sled keeps what does not fit a 512 KiB segment in files of their own,
/// each with an fsync.
const CHUNK: usize = 128 * 1024;
/// Tree of the chunks; above all trees of users.
const CHUNKS: [u8; 2] = [0xff, 0xfe];
/// Key of LSNs and digest.
const META: [u8; 2] = [0xff, 0xff];

/// How long sled's lock may be held by what is about to give it up, and how often it is tried.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Value in place.
const INLINE: u8 = 0;
/// Value in chunks.
const CHUNKED: u8 = 1;

/// A write of a stored entry.
#[derive(Debug)]
struct Write {
    /// What is stored now.
    old: Option<IVec>,
    /// What is to be stored; nothing removes it.
    new: Option<Vec<u8>>,
    /// An operation has decided on `new`.
    touched: bool,
}

impl Write {
    fn set(&mut self, new: Option<Vec<u8>>) {
        (self.new, self.touched) = (new, true);
    }
}

/// A sled database that knows up to where, and with what content, it was written.
pub(super) struct SledIndex {
    db: sled::Db,
    /// sled's log.
    file: PathBuf,
    meta: Meta,
}

/// What the content is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Meta {
    /// All of it up to here is in.
    applied: Lsn,
    /// Nothing after this is in.
    seen: Lsn,
    digest: u128,
}

impl SledIndex {
    /// Opens or creates the database and checks all of it.
    pub(super) fn open(dir: &Path, cache: u64) -> Result<Self, IndexError> {
        // No flusher thread: the content can be made again, and an idle node must not touch the disk.
        let config = sled::Config::new().path(dir).cache_capacity(cache).flush_every_ms(None);
        let end = Instant::now() + LOCK_WAIT;
        let db = open_when_free(&config, || pause_until(end))?;
        let mut index = Self { db, file: dir.join("db"), meta: Meta::default() };
        match guard(|| index.verify()) {
            Ok(meta) => {
                index.meta = meta;
                Ok(index)
            }
            Err(error) => {
                Box::new(index).abandon();
                Err(error)
            }
        }
    }

    /// Nothing after this is in.
    pub(super) fn seen(&self) -> Lsn {
        self.meta.seen
    }

    /// LSNs and digest, if they are those of the content.
    fn verify(&self) -> Result<Meta, IndexError> {
        let (mut meta, mut digest) = (Meta::default(), 0_u128);
        for entry in self.db.iter() {
            let (key, value) = entry?;
            if *key == META {
                meta = decode_meta(&value)?;
            } else {
                digest = digest.wrapping_add(entry_hash(&key, &value));
            }
        }
        if digest != meta.digest {
            return Err(IndexError::new(format!("content and digest differ at {}", meta.seen.0)));
        }
        Ok(meta)
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        match self.db.get(key)? {
            Some(stored) => self.value(key, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// The user's value behind a stored one.
    fn value(&self, key: &[u8], stored: &[u8]) -> Result<Bytes, IndexError> {
        let (tag, rest) = unseal(key, stored)?;
        if tag == INLINE {
            return Ok(Bytes::copy_from_slice(rest));
        }
        let len = chunked_len(rest)?;
        let mut value = BytesMut::with_capacity(len);
        for chunk in chunk_keys(key, len) {
            let stored = self.db.get(&chunk)?.ok_or_else(|| IndexError::new("a chunk is missing"))?;
            value.put_slice(unseal(&chunk, &stored)?.1);
        }
        if value.len() != len {
            return Err(IndexError::new("a chunk has the wrong length"));
        }
        Ok(value.freeze())
    }

    /// Turns the operations into writes of stored entries, the last one of each key, beside what is stored now.
    fn writes(&self, ops: Ops) -> Result<BTreeMap<Vec<u8>, Write>, IndexError> {
        let mut writes = BTreeMap::new();
        for op in ops {
            let key = op.index_key();
            let write = self.write_of(&mut writes, key.clone())?;
            let replaced = write.new.as_deref().or(write.old.as_deref().filter(|_| !write.touched));
            let chunks = match replaced.map(|old| unseal(&key, old)).transpose()? {
                Some((CHUNKED, rest)) => chunked_len(rest)?,
                _ => 0,
            };
            for chunk in chunk_keys(&key, chunks) {
                self.write_of(&mut writes, chunk)?.set(None);
            }
            let stored = match &op.value {
                None => None,
                Some(value) if value.0.len() <= CHUNK => Some(seal(&key, INLINE, &value.0)),
                Some(value) => {
                    for (chunk, part) in chunk_keys(&key, value.0.len()).zip(value.0.chunks(CHUNK)) {
                        let part = seal(&chunk, INLINE, part);
                        self.write_of(&mut writes, chunk)?.set(Some(part));
                    }
                    Some(seal(&key, CHUNKED, &(value.0.len() as u64).to_le_bytes()))
                }
            };
            self.write_of(&mut writes, key)?.set(stored);
        }
        Ok(writes)
    }

    fn write_of<'w>(
        &self,
        writes: &'w mut BTreeMap<Vec<u8>, Write>,
        key: Vec<u8>,
    ) -> Result<&'w mut Write, IndexError> {
        Ok(match writes.entry(key) {
            Entry::Occupied(write) => write.into_mut(),
            Entry::Vacant(write) => {
                let old = self.db.get(write.key())?;
                write.insert(Write { old, new: None, touched: false })
            }
        })
    }

    fn write(&mut self, meta: Meta, ops: Ops) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        let mut digest = self.meta.digest;
        for (key, Write { old, new, .. }) in self.writes(ops)? {
            if let Some(old) = &old {
                digest = digest.wrapping_sub(entry_hash(&key, old));
            }
            match new {
                Some(value) => {
                    digest = digest.wrapping_add(entry_hash(&key, &value));
                    batch.insert(key, value);
                }
                None if old.is_some() => batch.remove(key),
                // Written and removed again before it came here.
                None => {}
            }
        }
        let meta = Meta { digest, ..meta };
        batch.insert(&META, encode_meta(meta));
        self.db.apply_batch(batch)?;
        self.meta = meta;
        Ok(())
    }
}

impl Index for SledIndex {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn applied(&self) -> Lsn {
        self.meta.applied
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        guard(|| self.read(key))
    }

    fn page(&self, page: &Page) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        guard(|| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for entry in self.db.range(page.from.clone()..page.to.clone()).take(page.limit) {
                let (key, stored) = entry?;
                let value = self.value(&key, &stored)?;
                if !page.takes(&mut bytes, key.len() + value.len()) {
                    break;
                }
                found.push((Bytes::copy_from_slice(&key), value));
            }
            Ok(found)
        })
    }

    fn apply(&mut self, lsn: Lsn, ops: Ops) -> Result<(), IndexError> {
        let seen = self.meta.seen.max(lsn);
        guard(|| self.write(Meta { applied: lsn, seen, digest: 0 }, ops))
    }

    fn apply_some(&mut self, upto: Lsn, ops: Ops) -> Result<(), IndexError> {
        let seen = self.meta.seen.max(upto);
        guard(|| self.write(Meta { seen, ..self.meta }, ops))
    }

    fn flush(&self) -> Result<(), IndexError> {
        guard(|| Ok(self.db.flush().map(drop)?))?;
        // sled's flush is enough for the end of the process, not for that of the machine.
        File::open(&self.file).and_then(|file| file.sync_all()).map_err(|e| sled::Error::Io(e).into())
    }

    fn close(self: Box<Self>) {
        if let Err(error) = guard(|| {
            drop(self);
            Ok(())
        }) {
            tracing::warn!(%error, "sled did not close cleanly, the next start checks it anyway");
        }
    }

    fn abandon(self: Box<Self>) {
        // Never dropped: a drop writes what is buffered, into files that its successor may have created meanwhile, and it can
        // panic or wait forever. Costs its cache until the process ends, which is why `disk` bounds the rebuilds.
        std::mem::forget(self);
    }
}

/// Opens the database. Nobody else can have it, by the store's own lock: but sled's threads keep the lock of one that was just
/// closed for a moment, and so does a process that this one is about to start. So it is tried again for as long as `wait`
/// says so.
fn open_when_free(config: &sled::Config, mut wait: impl FnMut() -> bool) -> Result<sled::Db, IndexError> {
    loop {
        match guard(|| Ok(config.open()?)) {
            Err(error) if error.detail.contains("could not acquire lock") && wait() => {}
            opened => return opened,
        }
    }
}

/// Waits a moment, unless it is past `end`.
#[allow(clippy::disallowed_methods, reason = "opening blocks anyway, for as long as all of the index takes to read")]
fn pause_until(end: Instant) -> bool {
    let goes_on = Instant::now() < end;
    if goes_on {
        std::thread::sleep(LOCK_PAUSE);
    }
    goes_on
}

/// Turns a panic inside sled into an error: sled 0.34 asserts on much of what it reads.
fn guard<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(IndexError::new(format!("sled panicked: {}", text.unwrap_or("no message"))))
    })
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        let full = matches!(&error, sled::Error::Io(cause) if super::is_full(cause));
        Self { full, ..Self::new(format!("sled: {error}")) }
    }
}

/// 128 bits of BLAKE3 over length of key, key and value. Entries differ in their keys, so a sum of these is zero or that of
/// another content only by chance, 2^-128.
fn entry_hash(key: &[u8], stored: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(stored);
    let hash = hasher.finalize();
    let (half, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u128::from_le_bytes(*half)
}

fn seal(key: &[u8], tag: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + rest.len());
    out.extend_from_slice(&[0; 4]);
    out.push(tag);
    out.extend_from_slice(rest);
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

fn unseal<'a>(key: &[u8], stored: &'a [u8]) -> Result<(u8, &'a [u8]), IndexError> {
    let bad = || IndexError::new("a value does not match its checksum");
    let (crc, rest) = stored.split_first_chunk().ok_or_else(bad)?;
    if crc32c::crc32c_append(crc32c::crc32c(key), rest) != u32::from_le_bytes(*crc) {
        return Err(bad());
    }
    rest.split_first().map(|(tag, rest)| (*tag, rest)).ok_or_else(bad)
}

fn encode_meta(meta: Meta) -> Vec<u8> {
    let lsns = [meta.applied.0.to_le_bytes(), meta.seen.0.to_le_bytes()].concat();
    seal(&META, INLINE, &[&lsns[..], &meta.digest.to_le_bytes()].concat())
}

fn decode_meta(stored: &[u8]) -> Result<Meta, IndexError> {
    let (_, rest) = unseal(&META, stored)?;
    let parts = rest.split_first_chunk().and_then(|(applied, rest)| {
        let (seen, digest) = rest.split_first_chunk()?;
        Some((*applied, *seen, *digest.first_chunk()?))
    });
    let (applied, seen, digest) = parts.ok_or_else(|| IndexError::new("the digest is too short"))?;
    let [applied, seen] = [applied, seen].map(|lsn| Lsn(u64::from_le_bytes(lsn)));
    Ok(Meta { applied, seen, digest: u128::from_le_bytes(digest) })
}

fn chunked_len(rest: &[u8]) -> Result<usize, IndexError> {
    let len = rest.first_chunk().map(|len| u64::from_le_bytes(*len));
    let len = len.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= super::MAX_VALUE);
    len.ok_or_else(|| IndexError::new("the length of a value is wrong"))
}

/// Keys of the chunks of a value of `len` bytes.
fn chunk_keys(key: &[u8], len: usize) -> impl Iterator<Item = Vec<u8>> {
    (0_u32..).take(len.div_ceil(CHUNK)).map(move |number| {
        let mut chunk = CHUNKS.to_vec();
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(&number.to_be_bytes());
        chunk
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, TreeId};
    use super::*;

    const CACHE: u64 = 8 << 20;
    const TREE: TreeId = TreeId(7);

    fn apply(index: &mut SledIndex, lsn: u64, batch: &Batch) {
        index.apply(Lsn(lsn), &mut batch.ops.iter()).unwrap();
    }

    /// An index of three keys, the last with chunks, whose database was then changed behind its back.
    fn tampered(change: impl FnOnce(&sled::Db)) -> Result<SledIndex, IndexError> {
        let dir = tempfile::tempdir().unwrap();
        let mut index = SledIndex::open(dir.path(), CACHE).unwrap();
        apply(&mut index, 1, &Batch::new().put(TREE, *b"a", *b"old").put(TREE, *b"b", *b"value"));
        apply(&mut index, 2, &Batch::new().put(TREE, *b"a", *b"new").put(TREE, *b"c", vec![1; 2 * CHUNK]));
        change(&index.db);
        Box::new(index).close();
        SledIndex::open(dir.path(), CACHE)
    }

    fn key(key: &[u8]) -> Vec<u8> {
        super::super::index_key(TREE, key)
    }

    #[test]
    fn what_was_written_is_trusted() {
        let index = tampered(|_| ()).unwrap();
        assert_eq!(index.applied(), Lsn(2));
        assert_eq!(index.get(&key(b"a")).unwrap().unwrap(), b"new"[..]);
        assert_eq!(index.get(&key(b"c")).unwrap().unwrap(), vec![1; 2 * CHUNK]);
    }

    #[test]
    fn a_lock_that_is_about_to_be_given_up_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let before = SledIndex::open(dir.path(), CACHE).unwrap();
        let file = File::open(&before.file).unwrap();
        Box::new(before).close();
        file.lock().unwrap();
        let config = sled::Config::new().path(dir.path());
        let mut waits = 0;
        let opened = open_when_free(&config, || {
            waits += 1;
            file.unlock().is_ok()
        });
        assert_eq!((opened.map(drop).map_err(|error| error.detail), waits), (Ok(()), 1));
    }

    #[test]
    fn a_lock_that_stays_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let _before = SledIndex::open(dir.path(), CACHE).unwrap();
        let mut left = 3;
        let config = sled::Config::new().path(dir.path());
        let opened = open_when_free(&config, || {
            left -= 1;
            left > 0
        });
        assert!(opened.is_err_and(|error| error.detail.contains("could not acquire lock")) && left == 0);
    }

    #[test]
    fn whole_values_that_are_not_the_newest_are_not_trusted() {
        // Each of these passes every checksum of sled and of the values.
        let older = |db: &sled::Db| drop(db.insert(key(b"a"), seal(&key(b"a"), INLINE, b"old")).unwrap());
        let vanished = |db: &sled::Db| drop(db.remove(key(b"b")).unwrap());
        let risen = |db: &sled::Db| drop(db.insert(key(b"d"), seal(&key(b"d"), INLINE, b"dead")).unwrap());
        let no_chunk = |db: &sled::Db| drop(db.remove(chunk_keys(&key(b"c"), 1).next().unwrap()).unwrap());
        let no_meta = |db: &sled::Db| drop(db.remove(META).unwrap());
        let swapped = |db: &sled::Db| {
            let (a, b) = (db.get(key(b"a")).unwrap().unwrap(), db.get(key(b"b")).unwrap().unwrap());
            db.insert(key(b"a"), b).unwrap();
            db.insert(key(b"b"), a).unwrap();
        };
        let changes: [&dyn Fn(&sled::Db); 6] = [&older, &vanished, &risen, &no_chunk, &no_meta, &swapped];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(tampered(change).is_err(), "change {number}");
        }
    }

    #[test]
    fn swapped_values_and_missing_chunks_are_noticed_by_reads() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = SledIndex::open(dir.path(), CACHE).unwrap();
        apply(&mut index, 1, &Batch::new().put(TREE, *b"a", *b"1").put(TREE, *b"c", vec![1; 2 * CHUNK]));
        index.db.insert(key(b"b"), index.db.get(key(b"a")).unwrap().unwrap()).unwrap();
        index.db.remove(chunk_keys(&key(b"c"), 2 * CHUNK).nth(1).unwrap()).unwrap();
        assert!(index.get(&key(b"b")).is_err());
        assert!(index.get(&key(b"c")).is_err());
        assert!(index.get(&key(b"a")).is_ok());
    }

    #[test]
    fn replaced_chunks_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = SledIndex::open(dir.path(), CACHE).unwrap();
        for (lsn, len) in [(1, 5 * CHUNK), (2, 2 * CHUNK), (3, 3 * CHUNK + 1), (4, 10)] {
            apply(&mut index, lsn, &Batch::new().put(TREE, *b"c", vec![1; len]));
            let chunks = if len > CHUNK { len.div_ceil(CHUNK) } else { 0 };
            assert_eq!(index.db.len(), 2 + chunks);
        }
        apply(&mut index, 5, &Batch::new().put(TREE, *b"c", vec![1; 2 * CHUNK]).delete(TREE, *b"c"));
        assert_eq!((index.db.len(), index.meta.digest), (1, 0));
    }

    #[test]
    fn panic_becomes_an_error() {
        let caught: Result<(), _> = guard(|| panic!("assertion of {}", "sled"));
        assert_eq!(caught.unwrap_err().detail, "sled panicked: assertion of sled");
    }
}
