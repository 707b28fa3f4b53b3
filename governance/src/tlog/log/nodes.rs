//! Where the hashes of an open log are: in memory at the right edge, else in tiles on disk.

use std::cell::RefCell;
use std::collections::HashMap;

use super::super::edge::Edge;
use super::super::error::LogError;
use super::super::files::Files;
use super::super::hash::Hash;
use super::super::path::TilePath;
use super::super::tree::Nodes;
use super::Log;

/// Hashes for one proof, which takes several from the same tile.
pub(super) struct LogNodes<'a, F> {
    files: &'a F,
    edge: &'a Edge,
    tiles: RefCell<HashMap<TilePath, Vec<Hash>>>,
}

impl<'a, F: Files> LogNodes<'a, F> {
    pub(super) fn new(log: &'a Log<F>) -> Self {
        Self::of(&log.files, &log.edge)
    }

    pub(super) fn of(files: &'a F, edge: &'a Edge) -> Self {
        Self { files, edge, tiles: RefCell::default() }
    }

    fn in_tile(&self, path: TilePath, at: usize, count: usize) -> Result<Hash, LogError> {
        let mut tiles = self.tiles.borrow_mut();
        let tile = match tiles.entry(path) {
            std::collections::hash_map::Entry::Occupied(tile) => tile.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(read_tile(self.files, path)?),
        };
        let hashes = tile.get(at..at + count);
        hashes.map(Hash::subtree).ok_or_else(|| LogError::damaged(&path, path.first_entry(), "it is too short"))
    }
}

impl<F: Files> Nodes for LogNodes<'_, F> {
    fn node(&self, level: u8, index: u64) -> Result<Hash, LogError> {
        let (tile, within) = (level / 8, level % 8);
        let (from, count) = (index << within, 1_usize << within);
        if let Some(hashes) = self.edge.get(tile, from, count) {
            return Ok(Hash::subtree(hashes));
        }
        let at = usize::try_from(from % 256).unwrap_or(0);
        self.in_tile(TilePath::tile(tile, from / 256), at, count)
    }
}

/// Reads a full tile of hashes.
pub(super) fn read_tile(files: &impl Files, path: TilePath) -> Result<Vec<Hash>, LogError> {
    let name = path.to_string();
    let damaged = |what: &str| LogError::damaged(&path, path.first_entry(), what);
    let bytes = files.read(&name).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => damaged("it is missing"),
        _ => LogError::io("read", &name, &e),
    })?;
    Hash::row(&bytes).filter(|hashes| hashes.len() == 256).ok_or_else(|| damaged("it does not hold 256 hashes"))
}
