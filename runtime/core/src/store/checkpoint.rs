//! Dumps of the whole state, `ckpt/<lsn, 16 hex digits>.zst`: where a rebuild begins, and what lets old redo go.
//!
//! A file is a row of blocks: `len u32`, `crc32c u32` of the bytes that follow, zstd of the postcard of a [`Block`] of about
//! 1 MiB. The last block is [`Block::End`]; a file without it was never finished.
//!
//! Writes go on while the dump is made, so an entry may already show a batch later than `from`. Replaying redo from `from`
//! puts that right, because puts and deletes can be done twice: each key ends with its newest value. It takes redo up to
//! `upto`, the newest batch that the dump can have seen; redo was synced to there before the file got its name.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::redo::{numbered, sync_dir};
use super::{Lsn, Op, StoreError};

/// Checkpoints kept: should the newest be unreadable, the one before does.
pub(super) const KEPT: usize = 2;

/// Raw bytes of entries in a block.
pub(super) const BLOCK: usize = 1 << 20;

/// Longest block that is read back: one entry can be larger than `BLOCK`.
const MAX_BLOCK: usize = BLOCK + super::MAX_KEY + super::MAX_VALUE + (1 << 20);

#[derive(Debug, Serialize, Deserialize)]
enum Block {
    /// Entries in the order of trees and keys.
    Entries(Vec<Op>),
    /// What the dump holds.
    End(Span),
}

/// The batches that a dump shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// All batches up to here are in the dump.
    pub(super) from: Lsn,
    /// No batch after this one is.
    pub(super) upto: Lsn,
}

/// A checkpoint in the making, in a file that no start looks at.
#[derive(Debug)]
pub(super) struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    dir: PathBuf,
}

impl Writer {
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let path = dir.join("new.tmp");
        let file = File::create(&path).map_err(|e| StoreError::io("create", &path, e))?;
        Ok(Self { out: BufWriter::new(file), path, dir: dir.to_owned() })
    }

    /// Adds entries; all have a value, keys go up.
    pub(super) fn entries(&mut self, entries: Vec<Op>) -> Result<(), StoreError> {
        self.block(&Block::Entries(entries))
    }

    /// Gives the file its name, once it is on the disk.
    pub(super) fn finish(mut self, span: Span) -> Result<(), StoreError> {
        self.block(&Block::End(span))?;
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        flushed.map_err(|e| StoreError::io("write", &self.path, e))?;
        let name = file_path(&self.dir, span.from);
        fs::rename(&self.path, &name).map_err(|e| StoreError::io("rename", &self.path, e))?;
        sync_dir(&self.dir)
    }

    fn block(&mut self, block: &Block) -> Result<(), StoreError> {
        let raw = postcard::to_allocvec(block)
            .map_err(|e| StoreError::Decode { what: "checkpoint", detail: e.to_string() })?;
        let mut write = || {
            let packed = zstd::bulk::compress(&raw, 1)?;
            let len = u32::try_from(packed.len()).map_err(io::Error::other)?;
            self.out.write_all(&len.to_le_bytes())?;
            self.out.write_all(&crc32c::crc32c(&packed).to_le_bytes())?;
            self.out.write_all(&packed)
        };
        write().map_err(|e| StoreError::io("write", &self.path, e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // On a full disk half a dump must not keep the space. A finished one has another name by now.
        let _ = fs::remove_file(&self.path);
    }
}

/// Positions of the finished checkpoints, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<Lsn>, StoreError> {
    numbered(dir, "zst")
}

/// Deletes all but the newest [`KEPT`], and returns the position after which redo is still needed.
pub(super) fn prune(dir: &Path) -> Result<Lsn, StoreError> {
    let mut found = list(dir)?;
    while found.len() > KEPT {
        let path = file_path(dir, found.remove(0));
        fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    }
    // While there is only one, redo from the very first batch stands in for the other.
    Ok(if found.len() == KEPT { found[0] } else { Lsn(0) })
}

/// The newest checkpoint that is whole and whose redo exists, up to `last`.
pub(super) fn newest(dir: &Path, last: Lsn) -> Result<Option<(PathBuf, Span)>, StoreError> {
    for lsn in list(dir)?.into_iter().rev() {
        let path = file_path(dir, lsn);
        match read(&path, &mut |_| Ok(())) {
            Ok(span) if span.upto <= last => return Ok(Some((path, span))),
            Ok(span) => {
                let (file, needs) = (path.display(), span.upto.0);
                tracing::warn!(%file, needs, last = last.0, "checkpoint passed over: redo ends too early for it");
            }
            Err(error) => tracing::warn!(%error, "checkpoint passed over"),
        }
    }
    Ok(None)
}

/// Checks a checkpoint block by block and hands its entries to `visit`.
pub(super) fn read(path: &Path, visit: &mut dyn FnMut(Vec<Op>) -> Result<(), StoreError>) -> Result<Span, StoreError> {
    let file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
    let mut input = BufReader::new(file);
    let mut offset = 0;
    loop {
        let bad = |why: String| StoreError::BadRecord { file: path.to_owned(), offset, why };
        let (block, len) = read_block(&mut input).map_err(|e| bad(e.to_string()))?;
        match block {
            Block::Entries(entries) => visit(entries)?,
            Block::End(span) => return Ok(span),
        }
        offset += len;
    }
}

fn read_block(input: &mut impl Read) -> io::Result<(Block, u64)> {
    let mut header = [0; 8];
    input.read_exact(&mut header)?;
    let [len, crc] = [0, 4].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    if len as usize > MAX_BLOCK {
        return Err(io::Error::other("the length is wrong"));
    }
    let mut packed = vec![0; len as usize];
    input.read_exact(&mut packed)?;
    if crc32c::crc32c(&packed) != crc {
        return Err(io::Error::other("the checksum is wrong"));
    }
    let raw = zstd::bulk::decompress(&packed, MAX_BLOCK)?;
    let block = postcard::from_bytes(&raw).map_err(io::Error::other)?;
    Ok((block, 8 + u64::from(len)))
}

fn file_path(dir: &Path, lsn: Lsn) -> PathBuf {
    dir.join(format!("{:016x}.zst", lsn.0))
}

#[cfg(test)]
mod tests {
    use super::super::{Raw, TreeId};
    use super::*;

    fn entry(n: u32) -> Op {
        let value = vec![7; 100].into();
        Op { tree: TreeId(5), key: Raw(n.to_be_bytes().to_vec().into()), value: Some(Raw(value)) }
    }

    fn write(dir: &Path, from: u64, upto: u64) -> PathBuf {
        let mut writer = Writer::create(dir).unwrap();
        writer.entries((0..50).map(entry).collect()).unwrap();
        writer.entries((50..70).map(entry).collect()).unwrap();
        writer.finish(Span { from: Lsn(from), upto: Lsn(upto) }).unwrap();
        file_path(dir, Lsn(from))
    }

    #[test]
    fn entries_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), 3, 4);
        let mut found = Vec::new();
        let span = read(&path, &mut |entries| {
            found.extend(entries);
            Ok(())
        });
        assert_eq!(span.unwrap(), Span { from: Lsn(3), upto: Lsn(4) });
        assert_eq!(found, (0..70).map(entry).collect::<Vec<_>>());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed_and_the_older_one_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let older = write(dir.path(), 3, 4);
        let path = write(dir.path(), 8, 9);
        let good = fs::read(&path).unwrap();
        assert_eq!(newest(dir.path(), Lsn(9)).unwrap().unwrap().0, path);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(newest(dir.path(), Lsn(9)).unwrap().unwrap().0, older, "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(newest(dir.path(), Lsn(9)).unwrap().unwrap().0, older, "cut at {at}");
        }
    }

    #[test]
    fn checkpoint_that_saw_more_than_redo_holds_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let older = write(dir.path(), 3, 4);
        write(dir.path(), 8, 12);
        assert_eq!(newest(dir.path(), Lsn(11)).unwrap().unwrap().0, older);
        assert!(newest(dir.path(), Lsn(2)).unwrap().is_none());
    }

    #[test]
    fn two_are_kept_and_hold_redo_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3, 4);
        assert_eq!(prune(dir.path()).unwrap(), Lsn(0));
        write(dir.path(), 8, 9);
        assert_eq!(prune(dir.path()).unwrap(), Lsn(3));
        write(dir.path(), 20, 20);
        assert_eq!(prune(dir.path()).unwrap(), Lsn(8));
        assert_eq!(list(dir.path()).unwrap(), [Lsn(8), Lsn(20)]);
    }
}
