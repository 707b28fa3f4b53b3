//! The redo log: every batch in order, in segments `redo/<first lsn, 16 hex digits>.log` that are allocated ahead.
//!
//! A segment is a row of records, little-endian, then zeros:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of the body, never 0 |
//! | 4 | CRC-32C of the LSN's 8 bytes and the body |
//! | 8 | LSN, one more than the record before |
//! | n | postcard of (`synced`, batch): the newest LSN that fdatasync had made safe when this was written, and the batch |
//!
//! A crash can tear what was written after the last fdatasync, and nothing else. So a bad record is *torn* when it is in
//! the newest segment and no intact record after it says that it was synced: the log is cut there. Any other bad record
//! was safe once, so the disk lost it: reading stops with an error, because going on would drop acknowledged writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{Batch, Lsn, StoreError};

/// Bytes before the body of a record.
const HEADER: usize = 16;

/// Zeros written ahead of the records at a time. fdatasync of a write into space that was only allocated also waits for the
/// file system's journal, which says that the space is in use now; over zeros it does not.
const AHEAD: u64 = 1 << 20;

/// The writing end of the log; one thread owns it.
#[derive(Debug)]
pub(super) struct Redo {
    dir: PathBuf,
    /// Size of a new segment.
    segment: u64,
    /// The newest segment: records end at `at`, what was ever written at `written`, space at `capacity`.
    file: File,
    path: PathBuf,
    at: u64,
    written: u64,
    capacity: u64,
    /// The record to be written next.
    next: Lsn,
    /// Everything up to here is on the disk.
    synced: Lsn,
    /// Set once the file can no longer be trusted to hold what was written.
    stopped: Option<StoreError>,
    buffer: Vec<u8>,
}

impl Redo {
    /// Opens the log in `dir`, cutting a torn end off, or begins an empty one.
    pub(super) fn open(dir: &Path, segment: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let newest = segments(dir)?.last().copied();
        let first = newest.unwrap_or(Lsn(1));
        let path = segment_path(dir, first);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| StoreError::io("open", &path, e))?;
        let end = read_segment(&path, first, true, &mut |_, _| Ok(()))?;
        let mut redo = Self {
            dir: dir.to_owned(),
            segment,
            file,
            path,
            at: end.offset,
            written: end.offset,
            capacity: end.offset,
            next: end.next,
            synced: Lsn(end.next.0 - 1),
            stopped: None,
            buffer: Vec::new(),
        };
        // What lies behind the end must never be read as records again. It goes to the disk before anything is built on it.
        redo.truncate()?;
        redo.sync_dir()?;
        // On a full disk reads must still work: the first write finds no space and tries again.
        if redo.at < segment && allocate(&redo.file, segment).is_ok() {
            redo.capacity = segment;
        }
        Ok(redo)
    }

    /// The newest record, 0 before the first.
    pub(super) fn last(&self) -> Lsn {
        Lsn(self.next.0 - 1)
    }

    /// Everything up to here is on the disk.
    pub(super) fn synced(&self) -> Lsn {
        self.synced
    }

    /// Writes the batches with one call, in the process's sense of safe. Returns the position of the first, and the bytes.
    pub(super) fn append(&mut self, batches: &[&Batch]) -> Result<(Lsn, u64), StoreError> {
        self.check()?;
        let first = self.next;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut lsn = first;
        for batch in batches {
            buffer = encode(buffer, lsn, self.synced, batch)?;
            lsn = lsn.next();
        }
        let written = self.write(&buffer);
        let len = buffer.len() as u64;
        // A large group is rare; its buffer is not kept.
        self.buffer = if buffer.capacity() > 4 << 20 { Vec::new() } else { buffer };
        written?;
        self.next = lsn;
        Ok((first, len))
    }

    /// Makes everything written so far survive the loss of power.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if let Err(error) = self.file.sync_data() {
            // The kernel may have dropped the pages it could not write: a second try would succeed and mean nothing.
            return Err(self.stop(StoreError::io("sync", &self.path, error)));
        }
        self.synced = self.last();
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.stopped.as_ref().map_or(Ok(()), |error| Err(StoreError::Stopped { reason: error.to_string() }))
    }

    fn stop(&mut self, error: StoreError) -> StoreError {
        tracing::error!(%error, "redo log stopped, restart the node");
        let stopped = StoreError::Stopped { reason: error.to_string() };
        self.stopped = Some(error);
        stopped
    }

    fn write(&mut self, records: &[u8]) -> Result<(), StoreError> {
        let len = records.len() as u64;
        if self.at + len > self.capacity {
            self.rotate(len)?;
        }
        self.write_ahead(len);
        if let Err(error) = self.file.write_all_at(records, self.at) {
            let error = StoreError::io("write", &self.path, error);
            // A part of the group may stand in the file: were it found at the next start, a refused write would take
            // effect. Without space behind it the next write begins a new segment.
            return Err(self.truncate().map_or_else(|e| self.stop(e), |()| error));
        }
        self.at += len;
        self.written = self.written.max(self.at);
        Ok(())
    }

    /// Prepares for small writes the space behind the next `len` bytes. Without it they are slower, and no worse.
    fn write_ahead(&mut self, len: u64) {
        let end = self.at + len;
        if end <= self.written || len >= AHEAD {
            return;
        }
        let zeros = vec![0; usize::try_from(AHEAD.min(self.capacity - end)).unwrap_or(0)];
        if self.file.write_all_at(&zeros, end).is_ok() {
            self.written = end + zeros.len() as u64;
        }
    }

    /// Ends the file at the last record, on the disk too.
    fn truncate(&mut self) -> Result<(), StoreError> {
        (self.written, self.capacity) = (self.at, self.at);
        let cut = self.file.set_len(self.at).and_then(|()| self.file.sync_all());
        cut.map_err(|e| StoreError::io("truncate", &self.path, e))
    }

    /// Begins a new segment with room for `len` bytes. Nothing has changed when it fails.
    fn rotate(&mut self, len: u64) -> Result<(), StoreError> {
        let size = self.segment.max(len);
        // The index grows with the log and takes a full disk worse; it gets what two segments would need.
        let space = statvfs(&self.dir).map_err(|e| StoreError::io("measure", &self.dir, e.into()))?;
        if space.f_bavail.saturating_mul(space.f_frsize) < size + 2 * self.segment {
            return Err(StoreError::NoSpace { dir: self.dir.clone() });
        }
        // Only the newest segment may be torn, so this one has to be whole before another exists.
        if self.synced < self.last() {
            self.sync()?;
        }
        let path = segment_path(&self.dir, self.next);
        if path == self.path {
            // Nothing was ever written to the newest segment (its space could not be allocated): try that again.
            return self.reserve(size);
        }
        let file = create(&path, size).map_err(|e| {
            let _ = fs::remove_file(&path);
            StoreError::io("allocate", &path, e)
        })?;
        if let Err(error) = self.sync_dir() {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        // Returns the space that was allocated ahead; zeros there do no harm if it fails.
        let _ = self.file.set_len(self.at);
        (self.file, self.path, self.at, self.written, self.capacity) = (file, path, 0, 0, size);
        Ok(())
    }

    fn reserve(&mut self, size: u64) -> Result<(), StoreError> {
        allocate(&self.file, size).map_err(|e| StoreError::io("allocate", &self.path, e))?;
        self.capacity = size;
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), StoreError> {
        sync_dir(&self.dir)
    }
}

/// Makes created, renamed and removed names in `dir` survive the loss of power.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| StoreError::io("sync", dir, e))
}

/// A new file of `size` bytes of zeros that are already taken from the disk.
fn create(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    allocate(&file, size)?;
    Ok(file)
}

/// Takes `size` bytes from the disk, so that writes into them cannot run out of space and fdatasync has less to do.
pub(super) fn allocate(file: &File, size: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        // Some network file systems cannot: writes will find out about space one by one.
        Err(Errno::OPNOTSUPP) => file.set_len(size),
        other => Ok(other?),
    }
}

fn segment_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:016x}.log", first.0))
}

/// Deletes the segments that hold nothing after `upto`. The newest always stays.
pub(super) fn prune(dir: &Path, upto: Lsn) -> Result<(), StoreError> {
    let firsts = segments(dir)?;
    for (first, following) in firsts.iter().zip(firsts.iter().skip(1)) {
        if following.0 <= upto.0 + 1 {
            let path = segment_path(dir, *first);
            fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// First positions of all segments, in order.
pub(super) fn segments(dir: &Path) -> Result<Vec<Lsn>, StoreError> {
    numbered(dir, "log")
}

/// Positions in the names `<16 hex digits>.<extension>` of `dir`, in order.
pub(super) fn numbered(dir: &Path, extension: &str) -> Result<Vec<Lsn>, StoreError> {
    let read = |e| StoreError::io("list", dir, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(extension)?.strip_suffix('.'));
        if let Some(number) = number.filter(|number| number.len() == 16) {
            found.extend(u64::from_str_radix(number, 16).map(Lsn));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls `visit` with every batch after `after` and up to `upto`, in order.
///
/// Fails when the log does not hold all of them.
pub(super) fn replay(
    dir: &Path,
    after: Lsn,
    upto: Lsn,
    visit: &mut dyn FnMut(Lsn, Batch) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let firsts = segments(dir)?;
    let mut next = after.next();
    for (index, first) in firsts.iter().enumerate() {
        let following = firsts.get(index + 1);
        if next > upto || following.is_some_and(|following| *following <= next) {
            continue;
        }
        let path = segment_path(dir, *first);
        let end = read_segment(&path, *first, following.is_none(), &mut |lsn, batch| {
            if lsn != next || lsn > upto {
                return Ok(());
            }
            next = next.next();
            visit(lsn, batch)
        })?;
        if let Some(following) = following.filter(|following| **following != end.next) {
            let why = format!("the segment ends before {}, the next one begins at {}", end.next.0, following.0);
            return Err(StoreError::BadRecord { file: path, offset: end.offset, why });
        }
    }
    if next <= upto {
        let why = format!("redo holds nothing at {}, wanted are {} to {}", next.0, after.0 + 1, upto.0);
        return Err(StoreError::Incomplete { dir: dir.to_owned(), why });
    }
    Ok(())
}

/// Where the good records of a segment end.
struct End {
    next: Lsn,
    offset: u64,
}

/// Calls `visit` with every record of one segment. A torn end is passed over in the newest one.
fn read_segment(
    path: &Path,
    first: Lsn,
    newest: bool,
    visit: &mut dyn FnMut(Lsn, Batch) -> Result<(), StoreError>,
) -> Result<End, StoreError> {
    let bytes = fs::read(path).map_err(|e| StoreError::io("read", path, e))?;
    let zeros = zeros_from(&bytes);
    let (mut offset, mut lsn) = (0, first);
    // A record may itself end in zeros and so reach behind `zeros`.
    while offset < zeros {
        let bad = |why: String| StoreError::BadRecord { file: path.to_owned(), offset: offset as u64, why };
        match decode(&bytes[offset..], lsn) {
            Ok(record) => {
                visit(lsn, record.batch)?;
                offset += record.len;
                lsn = lsn.next();
            }
            Err(Unreadable::Foreign(why)) => return Err(bad(why)),
            Err(Unreadable::Damaged(why)) if !newest => return Err(bad(why.to_owned())),
            Err(Unreadable::Damaged(why)) => {
                if let Some(later) = later_witness(&bytes[offset..zeros], lsn) {
                    return Err(bad(format!("{why}, and record {} says that it had been synced", later.0)));
                }
                let (file, cut) = (path.display(), zeros - offset);
                tracing::warn!(%file, offset, cut, why, "unfinished write at the end of the redo log cut off");
                break;
            }
        }
    }
    Ok(End { next: lsn, offset: offset as u64 })
}

/// Where the zeros begin that a segment ends with.
fn zeros_from(bytes: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    // Whole blocks are compared at once: a fresh segment is 64 MiB of zeros.
    let Some(last) = bytes.chunks(BLOCK).rposition(|block| block != &[0; BLOCK][..block.len()]) else { return 0 };
    let end = bytes.len().min((last + 1) * BLOCK);
    bytes[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A record that was read.
struct Record {
    synced: Lsn,
    batch: Batch,
    /// Bytes with the header.
    len: usize,
}

/// Why a record cannot be read.
enum Unreadable {
    /// A crash or the disk left it incomplete.
    Damaged(&'static str),
    /// It is whole, but no record that this program would write here. Never cut off.
    Foreign(String),
}

/// Appends one record.
fn encode(mut out: Vec<u8>, lsn: Lsn, synced: Lsn, batch: &Batch) -> Result<Vec<u8>, StoreError> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&lsn.0.to_le_bytes());
    out = postcard::to_extend(&(synced, batch), out)
        .map_err(|e| StoreError::Decode { what: "batch", detail: e.to_string() })?;
    let len = u32::try_from(out.len() - start - HEADER).expect("a batch is at most MAX_BATCH");
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Reads the record at the start of `bytes`, which must be the one at `expected`.
fn decode(bytes: &[u8], expected: Lsn) -> Result<Record, Unreadable> {
    let (lsn, body) = intact(bytes).map_err(Unreadable::Damaged)?;
    if lsn != expected {
        return Err(Unreadable::Foreign(format!("found record {} in place of {}", lsn.0, expected.0)));
    }
    let (synced, batch) = postcard::from_bytes(body).map_err(|e| Unreadable::Foreign(e.to_string()))?;
    Ok(Record { synced, batch, len: HEADER + body.len() })
}

/// Position and body of the record at the start of `bytes`, if its checksum holds.
fn intact(bytes: &[u8]) -> Result<(Lsn, &[u8]), &'static str> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or("the header is cut off")?;
    let [len, crc, lsn_low, lsn_high] =
        [0, 4, 8, 12].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    let body = rest.get(..len as usize).filter(|body| !body.is_empty()).ok_or("the length is wrong")?;
    if crc32c::crc32c_append(crc32c::crc32c(&header[8..]), body) != crc {
        return Err("the checksum is wrong");
    }
    Ok((Lsn(u64::from(lsn_high) << 32 | u64::from(lsn_low)), body))
}

/// Looks behind a damaged record at `lost` for an intact one that was written after `lost` had been synced.
fn later_witness(bytes: &[u8], lost: Lsn) -> Option<Lsn> {
    let most = lost.0 + (bytes.len() / HEADER) as u64;
    for offset in 1..bytes.len().saturating_sub(HEADER) {
        let Some(lsn) = bytes[offset + 8..].first_chunk().map(|lsn| u64::from_le_bytes(*lsn)) else { break };
        if lsn <= lost.0 || lsn > most {
            continue;
        }
        let record = decode(&bytes[offset..], Lsn(lsn)).ok();
        if record.is_some_and(|record| record.synced >= lost) {
            return Some(Lsn(lsn));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::TreeId;
    use super::*;

    fn batch(value: &[u8]) -> Batch {
        Batch::new().put(TreeId(9), *b"key", value)
    }

    /// All batches in the log, by replaying it.
    fn read(dir: &Path, upto: u64) -> Result<Vec<Batch>, StoreError> {
        let mut found = Vec::new();
        replay(dir, Lsn(0), Lsn(upto), &mut |_, batch| {
            found.push(batch);
            Ok(())
        })?;
        Ok(found)
    }

    fn flip(path: &Path, offset: u64) {
        let mut bytes = fs::read(path).unwrap();
        bytes[usize::try_from(offset).unwrap()] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn record_layout_is_as_documented() {
        let record = encode(Vec::new(), Lsn(7), Lsn(5), &batch(b"v")).unwrap();
        // synced, one op, tree 9, key of 3 bytes, a value of 1 byte.
        let body = b"\x05\x01\x09\x03key\x01\x01v";
        assert_eq!(record[..4], 10_u32.to_le_bytes());
        assert_eq!(record[8..16], 7_u64.to_le_bytes());
        assert_eq!(&record[16..], body);
        assert_eq!(record[4..8], crc32c::crc32c(&record[8..]).to_le_bytes());
    }

    #[test]
    fn log_goes_on_over_segments_and_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let batches: Vec<_> = (0..40_u8).map(|n| batch(&[n; 300])).collect();
        for pair in batches.chunks(2) {
            let mut redo = Redo::open(dir.path(), 2048).unwrap();
            redo.append(&pair.iter().collect::<Vec<_>>()).unwrap();
            redo.sync().unwrap();
        }
        assert!(segments(dir.path()).unwrap().len() >= 6);
        assert_eq!(read(dir.path(), 40).unwrap(), batches);
        assert!(matches!(read(dir.path(), 41), Err(StoreError::Incomplete { .. })));
    }

    #[test]
    fn values_of_zeros_at_the_end_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let zeros = batch(&vec![0; 20_000]);
        Redo::open(dir.path(), 1 << 20).unwrap().append(&[&zeros]).unwrap();
        assert_eq!(Redo::open(dir.path(), 1 << 20).unwrap().last(), Lsn(1));
        assert_eq!(read(dir.path(), 1).unwrap(), [zeros]);
    }

    #[test]
    fn damage_before_a_synced_record_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut redo = Redo::open(dir.path(), 1 << 20).unwrap();
        redo.append(&[&batch(b"one")]).unwrap();
        let second = redo.at;
        redo.append(&[&batch(b"two")]).unwrap();
        redo.sync().unwrap();
        redo.append(&[&batch(b"three")]).unwrap();
        let path = redo.path.clone();
        drop(redo);
        flip(&path, second + 20);
        let error = Redo::open(dir.path(), 1 << 20).unwrap_err();
        assert!(matches!(&error, StoreError::BadRecord { file, offset, .. } if *file == path && *offset == second));
    }

    #[test]
    fn unsynced_records_behind_a_torn_one_are_cut_and_never_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut redo = Redo::open(dir.path(), 1 << 20).unwrap();
        redo.append(&[&batch(b"one")]).unwrap();
        redo.sync().unwrap();
        let second = redo.at;
        redo.append(&[&batch(b"two"), &batch(b"three")]).unwrap();
        let path = redo.path.clone();
        drop(redo);
        flip(&path, second + 20);
        let mut redo = Redo::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(redo.last(), Lsn(1));
        // As long as the torn record: were "three" still in the file, it would follow.
        redo.append(&[&batch(b"TWO")]).unwrap();
        drop(redo);
        assert_eq!(Redo::open(dir.path(), 1 << 20).unwrap().last(), Lsn(2));
        assert_eq!(read(dir.path(), 2).unwrap(), [batch(b"one"), batch(b"TWO")]);
    }

    #[test]
    fn whole_but_unknown_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let record = encode(Vec::new(), Lsn(3), Lsn(0), &batch(b"v")).unwrap();
        fs::write(segment_path(dir.path(), Lsn(1)), record).unwrap();
        assert!(matches!(Redo::open(dir.path(), 1 << 20), Err(StoreError::BadRecord { offset: 0, .. })));
    }

    #[test]
    fn missing_segment_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut redo = Redo::open(dir.path(), 1024).unwrap();
        for n in 0..12_u8 {
            redo.append(&[&batch(&[n; 300])]).unwrap();
        }
        let firsts = segments(dir.path()).unwrap();
        fs::remove_file(segment_path(dir.path(), firsts[1])).unwrap();
        assert!(matches!(read(dir.path(), 12), Err(StoreError::BadRecord { .. })));
    }

    #[test]
    fn pruning_keeps_what_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let mut redo = Redo::open(dir.path(), 1024).unwrap();
        for n in 0..12_u8 {
            redo.append(&[&batch(&[n; 300])]).unwrap();
        }
        let before = segments(dir.path()).unwrap().len();
        prune(dir.path(), Lsn(7)).unwrap();
        assert!(segments(dir.path()).unwrap().len() < before);
        let mut found = 0;
        replay(dir.path(), Lsn(7), Lsn(12), &mut |_, _| {
            found += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(found, 5);
        assert!(matches!(read(dir.path(), 12), Err(StoreError::Incomplete { .. } | StoreError::BadRecord { .. })));
    }
}
