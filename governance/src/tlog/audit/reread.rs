//! Reading the full files of a log that is being written: they never change.

use super::super::files::Files;
use super::super::hash::Hash;
use super::super::log::CHECKPOINT;
use super::super::path::WIDTH;
use super::{Audit, Claim, Finding};

/// Reads the full bundles and their tiles step by step, and holds them against the root that the log has in memory.
#[derive(Debug)]
pub(crate) struct Rereading {
    audit: Audit,
    size: u64,
    root: Hash,
    /// The next bundle.
    next: u64,
}

impl Rereading {
    /// Begins to read the first `size` entries, a multiple of 256, whose root should be `root`.
    pub(crate) fn new(size: u64, root: Hash) -> Self {
        let mut audit = Audit::default();
        audit.roots.insert(size, None);
        audit.note_root();
        Self { audit, size, root, next: 0 }
    }

    /// Whether all is read, or enough is found.
    pub(crate) fn is_done(&self) -> bool {
        let is_bad =
            !(self.audit.mismatches.is_empty() && self.audit.findings.is_empty() && self.audit.above.is_empty());
        is_bad || self.next >= self.size / WIDTH
    }

    /// Reads the next bundle and the tiles that it completes.
    pub(crate) fn step(&mut self, files: &impl Files) {
        self.audit.bundle(files, self.next);
        self.next += 1;
    }

    /// What is wrong, the cause. Reads what is left: whether an entry or its hash was changed only the root can tell.
    pub(crate) fn finding(mut self, files: &impl Files) -> Option<Finding> {
        while self.next < self.size / WIDTH {
            self.step(files);
        }
        self.audit.settle(&[Claim { file: CHECKPOINT, size: self.size, root: self.root }]);
        self.audit.findings.into_iter().next()
    }
}
