//! Making the index again, at start or when it fails: what a node does when it does not trust its sled folder.
//!
//! A folder is trusted when sled opens it, its digest is that of its content, and redo goes on from there. Otherwise it is
//! moved aside as `sled.quarantine-<unix time>` and a new one is made from the newest whole checkpoint and the redo log. If
//! that fails too (a full disk), the index is made in memory, and the next start tries the disk again.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk::{Index, IndexError};
use super::memory::MemoryIndex;
use super::memtable::MemTable;
use super::sled::SledIndex;
use super::{Batch, Lsn, Op, StoreError, checkpoint, redo};
use crate::clock;

/// Operations are applied to a new index in groups of about this size.
const GROUP_BYTES: usize = 4 << 20;
/// Folders set aside that are kept for whoever wants to look into them.
const QUARANTINES: usize = 2;

/// Where things are in a data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories.
    pub(super) fn create(root: &Path) -> Result<Self, StoreError> {
        let layout = Self { root: root.to_owned() };
        for dir in [layout.redo(), layout.checkpoints()] {
            fs::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        }
        Ok(layout)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn redo(&self) -> PathBuf {
        self.root.join("redo")
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.root.join("ckpt")
    }

    fn sled(&self) -> PathBuf {
        self.root.join("sled")
    }

    /// Stands while sled is being opened: damage on which sled aborts or hangs costs one start, not every start.
    fn opening(&self) -> PathBuf {
        self.root.join("sled.opening")
    }
}

/// The index at start, holding everything up to `last`, and whether it had to be made again.
pub(super) fn open_index(layout: &Layout, cache: u64, last: Lsn) -> Result<(Box<dyn Index>, bool), StoreError> {
    let unfinished = layout.opening().exists();
    // A full disk must not stop a start that only reads.
    let _ = fs::write(layout.opening(), []);
    let opened = if unfinished {
        Err(Failure::Index(IndexError::new("the last start ended while it was being opened")))
    } else {
        open_sled(layout, cache, last)
    };
    let (index, rebuilt): (Box<dyn Index>, _) = match opened {
        Ok(index) => (Box::new(MemTable::before(index)), false),
        Err(Failure::Index(failure)) => (rebuild(layout, cache, last, &failure, true)?, true),
        Err(Failure::Store(error)) => return Err(error),
    };
    let _ = fs::remove_file(layout.opening());
    Ok((index, rebuilt))
}

/// Makes the index of everything up to `upto` again. Only `on_disk` says whether sled is tried.
pub(super) fn rebuild(
    layout: &Layout,
    cache: u64,
    upto: Lsn,
    failure: &IndexError,
    on_disk: bool,
) -> Result<Box<dyn Index>, StoreError> {
    tracing::error!(%failure, upto = upto.0, "index lost, making it again from checkpoint and redo");
    set_aside(layout, failure.full)?;
    if on_disk {
        let built = SledIndex::open(&layout.sled(), cache).map_err(Failure::Index);
        match built.and_then(|index| load(Box::new(index), layout, upto)) {
            Ok(index) => return Ok(Box::new(MemTable::before(index))),
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Index(failure)) => {
                tracing::error!(%failure, "no index on disk, keeping it in memory until the next start");
                set_aside(layout, true)?;
            }
        }
    }
    load(Box::<MemoryIndex>::default(), layout, upto).map_err(|failure| match failure {
        Failure::Store(error) => error,
        Failure::Index(error) => StoreError::Index { detail: error.detail },
    })
}

/// What stopped the making of an index.
enum Failure {
    /// The index itself: another one can be made.
    Index(IndexError),
    /// What it is made from: nothing can be done.
    Store(StoreError),
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn open_sled(layout: &Layout, cache: u64, last: Lsn) -> Result<Box<dyn Index>, Failure> {
    let index = SledIndex::open(&layout.sled(), cache)?;
    let (applied, seen) = (index.applied(), index.seen());
    let oldest = redo::segments(&layout.redo())?.first().copied().unwrap_or_default();
    let unusable = if seen > last {
        Some(format!("it is at {}, redo ends at {}", seen.0, last.0))
    } else if applied.next() < oldest {
        Some(format!("it is at {}, redo begins at {}", applied.0, oldest.0))
    } else {
        None
    };
    let index: Box<dyn Index> = Box::new(index);
    if let Some(why) = unusable {
        index.abandon();
        return Err(IndexError::new(why).into());
    }
    replay(index, layout, applied, last)
}

/// Fills an empty index from the newest checkpoint and redo.
fn load(mut index: Box<dyn Index>, layout: &Layout, upto: Lsn) -> Result<Box<dyn Index>, Failure> {
    let mut after = Lsn(0);
    if let Some((path, span)) = checkpoint::newest(&layout.checkpoints(), upto)? {
        let mut failure = None;
        let read = checkpoint::read(&path, &mut |entries| {
            // Position 0 until all is in: were it cut short here, redo could not pass for the rest.
            index.apply(Lsn(0), &mut entries.iter()).map_err(|error| stop(&mut failure, error))
        });
        if let Err(error) = read {
            index.abandon();
            return Err(failure.map_or(Failure::Store(error), Failure::Index));
        }
        after = span.from;
    }
    replay(index, layout, after, upto)
}

/// Applies the redo after `after` up to `upto`.
fn replay(mut index: Box<dyn Index>, layout: &Layout, after: Lsn, upto: Lsn) -> Result<Box<dyn Index>, Failure> {
    let mut failure = None;
    let (mut group, mut bytes): (Vec<Op>, usize) = (Vec::new(), 0);
    let read = redo::replay(&layout.redo(), after, upto, &mut |lsn, batch: Batch| {
        bytes += batch.bytes();
        group.extend(batch.ops);
        if bytes < GROUP_BYTES {
            return Ok(());
        }
        bytes = 0;
        index.apply(lsn, &mut std::mem::take(&mut group).iter()).map_err(|error| stop(&mut failure, error))
    });
    let last = read.and_then(|()| {
        if index.applied() == upto {
            return Ok(());
        }
        index.apply(upto, &mut group.iter()).map_err(|error| stop(&mut failure, error))
    });
    match last {
        Ok(()) => Ok(index),
        Err(error) => {
            index.abandon();
            Err(failure.map_or(Failure::Store(error), Failure::Index))
        }
    }
}

/// Ends a read of the truth because the index failed; the reader passes the returned error through.
fn stop(failure: &mut Option<IndexError>, error: IndexError) -> StoreError {
    let detail = error.detail.clone();
    *failure = Some(error);
    StoreError::Index { detail }
}

/// Moves the sled folder out of the way. When the disk is full the folder is not to blame and its space is wanted.
fn set_aside(layout: &Layout, full: bool) -> Result<(), StoreError> {
    let sled = layout.sled();
    if !sled.exists() {
        return Ok(());
    }
    if full {
        // The abandoned instance has the file open: only cutting it gives the space back.
        let _ = fs::File::create(sled.join("db"));
        return fs::remove_dir_all(&sled).map_err(|e| StoreError::io("remove", &sled, e));
    }
    let now = clock::unix_ms() / 1000;
    let free =
        (now..now + 1000).map(|time| layout.root.join(format!("sled.quarantine-{time}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| layout.root.join("sled.quarantine"));
    fs::rename(&sled, &target).map_err(|e| StoreError::io("move", &sled, e))?;
    tracing::warn!(folder = %target.display(), "sled folder set aside");
    drop_old_quarantines(layout);
    Ok(())
}

fn drop_old_quarantines(layout: &Layout) {
    let Ok(entries) = fs::read_dir(&layout.root) else { return };
    let is_one = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("sled.quarantine-");
    let mut found: Vec<_> = entries.flatten().filter(is_one).map(|entry| entry.path()).collect();
    found.sort_unstable();
    let surplus = found.len().saturating_sub(QUARANTINES);
    for path in found.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(path);
    }
}
