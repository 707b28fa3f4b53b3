//! The hashes that are in no full tile on disk yet: the right edge of each level of tiles.

use super::error::LogError;
use super::hash::Hash;
use super::path::{TilePath, WIDTH};

/// Levels of tiles: a tree has fewer than 2^63 entries.
const LEVELS: usize = 8;

/// The right edge. Invariant: level `l + 1` has one hash for each complete tile of level `l`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    levels: [Level; LEVELS],
}

/// Hashes of one level from `start`, a multiple of 256, on.
#[derive(Debug, Clone, Default)]
struct Level {
    start: u64,
    hashes: Vec<Hash>,
}

impl Edge {
    /// The edge of a tree of `size` entries, a multiple of 256, whose complete tiles are all on disk. `root_of` gives the
    /// root of a complete tile.
    pub(crate) fn load(
        size: u64,
        mut root_of: impl FnMut(u8, u64) -> Result<Hash, LogError>,
    ) -> Result<Self, LogError> {
        let mut edge = Self::default();
        let mut count = size;
        for (below, level) in edge.levels.iter_mut().enumerate() {
            level.start = count - count % WIDTH;
            if let Some(below) = below.checked_sub(1) {
                // 8 levels fit into a byte.
                let below = u8::try_from(below).unwrap_or(u8::MAX);
                level.hashes = (level.start..count).map(|n| root_of(below, n)).collect::<Result<_, _>>()?;
            }
            count /= WIDTH;
        }
        Ok(edge)
    }

    /// Adds the hash of the next entry.
    pub(crate) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in &mut self.levels {
            level.hashes.push(hash);
            let len = level.hashes.len();
            if len % 256 != 0 {
                return;
            }
            hash = Hash::subtree(&level.hashes[len - 256..]);
        }
    }

    /// Hashes `from..from + count` of a level; `None` if they are on disk or not there.
    pub(crate) fn get(&self, level: u8, from: u64, count: usize) -> Option<&[Hash]> {
        let level = self.levels.get(usize::from(level))?;
        let at = usize::try_from(from.checked_sub(level.start)?).ok()?;
        level.hashes.get(at..at.checked_add(count)?)
    }

    /// Complete tiles that are not on disk.
    pub(crate) fn full(&self) -> impl Iterator<Item = (TilePath, &[Hash])> {
        self.tiles().filter(|(_, hashes)| hashes.len() == 256)
    }

    /// The last, incomplete tile of each level that has one.
    pub(crate) fn partial(&self) -> impl Iterator<Item = (TilePath, &[Hash])> {
        self.tiles().filter_map(|(path, hashes)| Some((path.partial(u8::try_from(hashes.len()).ok()?), hashes)))
    }

    fn tiles(&self) -> impl Iterator<Item = (TilePath, &[Hash])> {
        (0..8).zip(&self.levels).flat_map(|(number, level)| {
            let indexes = level.start / WIDTH..;
            indexes.zip(level.hashes.chunks(256)).map(move |(index, hashes)| (TilePath::tile(number, index), hashes))
        })
    }

    /// Forgets complete tiles: they are on disk now.
    pub(crate) fn drop_full(&mut self) {
        for level in &mut self.levels {
            let full = level.hashes.len() - level.hashes.len() % 256;
            level.hashes.drain(..full);
            level.start += full as u64;
        }
    }
}
