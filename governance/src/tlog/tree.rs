//! The algebra of the tree: roots, inclusion and consistency. RFC 6962 section 2.1.
//!
//! The recursion is that of the crate `tlog_tiles`; hashes come from whatever implements [`Nodes`].
//!
//! An inclusion proof alone does not bind the size of the tree: leaf 0 is proven by the same two hashes in trees of 3 and of 4.
//! The signed checkpoint binds it.

use std::cell::RefCell;

use tlog_tiles::tlog::{self, HashReader};

use super::error::LogError;
use super::hash::Hash;

/// Hashes in the longest proof: a tree has fewer than 2^63 entries.
pub const MAX_PROOF: usize = 63;

/// The proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold")]
pub struct BadProof;

/// Where the hashes of complete subtrees are.
pub(crate) trait Nodes {
    /// The hash over entries `index << level .. (index + 1) << level`.
    fn node(&self, level: u8, index: u64) -> Result<Hash, LogError>;
}

/// The right edge of a tree that grows: enough to add an entry and to know the root.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, the largest first: one for each bit of `size` that is 1.
    roots: Vec<Hash>,
}

impl Frontier {
    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of the next entry.
    pub fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                root = Hash::node(&left, &root);
            }
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// The root over all entries.
    #[must_use]
    pub fn root(&self) -> Hash {
        let fold = |right: Hash, left: &Hash| Hash::node(left, &right);
        match self.roots.split_last() {
            Some((last, rest)) => rest.iter().rev().fold(*last, fold),
            None => Hash::empty(),
        }
    }

    /// Takes the edge of a tree of `size` entries from its nodes.
    pub(crate) fn of(size: u64, nodes: &impl Nodes) -> Result<Self, LogError> {
        let (mut roots, mut start) = (Vec::new(), 0);
        for level in (0..63_u8).rev().filter(|level| size >> level & 1 == 1) {
            roots.push(nodes.node(level, start >> level)?);
            start += 1 << level;
        }
        Ok(Self { size, roots })
    }
}

/// The root over the first `size` entries.
pub(crate) fn root(size: u64, nodes: &impl Nodes) -> Result<Hash, LogError> {
    Ok(Frontier::of(size, nodes)?.root())
}

/// Proves that entry `index` is in the tree of `size` entries.
pub(crate) fn prove_inclusion(index: u64, size: u64, nodes: &impl Nodes) -> Result<Vec<Hash>, LogError> {
    if index >= size {
        return Err(LogError::OutOfRange { asked: index, size });
    }
    Reader::run(nodes, |reader| tlog::prove_record(size, index, reader))
}

/// Proves that the tree of `size` entries begins with the tree of `old`; empty if `old` is 0.
pub(crate) fn prove_consistency(old: u64, size: u64, nodes: &impl Nodes) -> Result<Vec<Hash>, LogError> {
    if old > size {
        return Err(LogError::OutOfRange { asked: old, size });
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    Reader::run(nodes, |reader| tlog::prove_tree(size, old, reader))
}

/// Checks that an entry with hash `leaf` is number `index` of the tree of `size` entries with this root.
///
/// # Errors
/// [`BadProof`].
pub fn verify_inclusion(proof: &[Hash], index: u64, leaf: Hash, size: u64, root: Hash) -> Result<(), BadProof> {
    if proof.len() > MAX_PROOF || size >> 63 != 0 {
        return Err(BadProof);
    }
    tlog::check_record(&theirs(proof), size, their(root), index, their(leaf)).map_err(|_| BadProof)
}

/// Checks that the tree of `size` entries with root `root` begins with the tree of `old` entries with root `old_root`.
///
/// # Errors
/// [`BadProof`].
pub fn verify_consistency(proof: &[Hash], old: u64, old_root: Hash, size: u64, root: Hash) -> Result<(), BadProof> {
    if proof.len() > MAX_PROOF || size >> 63 != 0 || old > size {
        return Err(BadProof);
    }
    if old == 0 {
        // Every tree begins with the empty one.
        return if proof.is_empty() && old_root == Hash::empty() { Ok(()) } else { Err(BadProof) };
    }
    tlog::check_tree(&theirs(proof), size, their(root), old, their(old_root)).map_err(|_| BadProof)
}

fn their(hash: Hash) -> tlog::Hash {
    tlog::Hash(hash.0)
}

fn theirs(hashes: &[Hash]) -> Vec<tlog::Hash> {
    hashes.iter().copied().map(their).collect()
}

/// Reads nodes for the crate, whose errors have no room for ours.
struct Reader<'a, N> {
    nodes: &'a N,
    failed: RefCell<Option<LogError>>,
}

impl<'a, N: Nodes> Reader<'a, N> {
    fn run(
        nodes: &'a N,
        prove: impl FnOnce(&Self) -> Result<Vec<tlog::Hash>, tlog::Error>,
    ) -> Result<Vec<Hash>, LogError> {
        let reader = Self { nodes, failed: RefCell::new(None) };
        let proof = prove(&reader);
        let failed = reader.failed.into_inner();
        proof.map(|hashes| hashes.into_iter().map(|hash| Hash(hash.0)).collect()).map_err(|error| {
            let unknown = || LogError::Damaged { file: "tile".into(), index: 0, what: error.to_string() };
            failed.unwrap_or_else(unknown)
        })
    }
}

impl<N: Nodes> HashReader for Reader<'_, N> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let read = |index: &u64| {
            let (level, n) = tlog::split_stored_hash_index(*index);
            self.nodes.node(level, n).map(their).map_err(|error| {
                self.failed.replace(Some(error));
                tlog::Error::InvalidTile
            })
        };
        indexes.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests;
