//! The newest writes on the heap before the index on disk: a durable commit pays for the redo log only.
//!
//! sled wakes its threads and writes for each batch; poured in by the hundred, a write costs it a tenth. What a crash
//! leaves here is in the redo log, and the next start applies it from there.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::disk::{Index, IndexError, Ops, Page};
use super::{Lsn, Op};

/// Writes held back; a pour of this many takes a few milliseconds, for which readers wait.
const OPS: usize = 256;
/// Bytes held back.
const BYTES: usize = 1 << 20;

/// An index with recent writes before it.
pub(super) struct MemTable {
    below: Box<dyn Index>,
    /// The last write of each key that `below` lacks.
    recent: BTreeMap<Vec<u8>, Op>,
    bytes: usize,
    applied: Lsn,
}

impl MemTable {
    pub(super) fn before(below: Box<dyn Index>) -> Self {
        let applied = below.applied();
        Self { below, recent: BTreeMap::new(), bytes: 0, applied }
    }
}

impl Index for MemTable {
    fn name(&self) -> &'static str {
        self.below.name()
    }

    fn applied(&self) -> Lsn {
        self.applied
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        match self.recent.get(key) {
            Some(op) => Ok(op.value.as_ref().map(|value| value.0.clone())),
            None => self.below.get(key),
        }
    }

    fn page(&self, page: &Page) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        let mut recent = self.recent.range(page.from.clone()..page.to.clone()).peekable();
        let mut found = Found { page, entries: Vec::new(), bytes: 0 };
        let mut part = page.clone();
        loop {
            let below = self.below.page(&part)?;
            // A part that is neither full nor empty may have ended at its limit of bytes.
            let Some((last, _)) = below.last() else { break };
            part.from = [last, &[0][..]].concat();
            for (key, value) in below {
                while let Some((_, op)) = recent.next_if(|(recent, _)| ***recent < *key) {
                    if !found.takes(op) {
                        return Ok(found.entries);
                    }
                }
                let goes_on = match recent.next_if(|(recent, _)| ***recent == *key) {
                    Some((_, op)) => found.takes(op),
                    None => found.push(key, value),
                };
                if !goes_on {
                    return Ok(found.entries);
                }
            }
        }
        while let Some((_, op)) = recent.next()
            && found.takes(op)
        {}
        Ok(found.entries)
    }

    fn apply(&mut self, lsn: Lsn, ops: Ops) -> Result<(), IndexError> {
        for op in ops {
            self.bytes += op.key.0.len() + op.value.as_ref().map_or(0, |value| value.0.len());
            self.recent.insert(op.index_key(), op.clone());
        }
        self.applied = lsn;
        if self.recent.len() >= OPS || self.bytes >= BYTES { self.pour().map(drop) } else { Ok(()) }
    }

    fn pour(&mut self) -> Result<Lsn, IndexError> {
        if self.below.applied() != self.applied {
            self.below.apply(self.applied, &mut self.recent.values())?;
            self.recent.clear();
            self.bytes = 0;
        }
        Ok(self.applied)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.below.flush()
    }

    fn close(mut self: Box<Self>) {
        match self.pour() {
            Ok(_) => self.below.close(),
            Err(error) => {
                tracing::warn!(%error, "the index on disk is behind, the next start brings it up to date");
                self.below.abandon();
            }
        }
    }

    fn abandon(self: Box<Self>) {
        self.below.abandon();
    }
}

/// A page being filled.
struct Found<'a> {
    page: &'a Page,
    entries: Vec<(Bytes, Bytes)>,
    bytes: usize,
}

impl Found<'_> {
    /// Adds what `op` wrote, if anything; false when the page is full.
    fn takes(&mut self, op: &Op) -> bool {
        op.value.as_ref().is_none_or(|value| self.push(op.index_key().into(), value.0.clone()))
    }

    fn push(&mut self, key: Bytes, value: Bytes) -> bool {
        let fits = self.entries.len() < self.page.limit && self.page.takes(&mut self.bytes, key.len() + value.len());
        if fits {
            self.entries.push((key, value));
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::MemoryIndex;
    use super::super::{Raw, TreeId};
    use super::*;

    fn op(key: u8, value: Option<u8>) -> Op {
        let raw = |bytes: Vec<u8>| Raw(Bytes::from(bytes));
        Op { tree: TreeId(1), key: raw(vec![key]), value: value.map(|value| raw(vec![value; usize::from(value)])) }
    }

    proptest! {
        /// Whatever is written and whenever it is poured, reads are those of one map.
        #[test]
        fn reads_do_not_show_where_a_write_is(
            writes in prop::collection::vec((0..24_u8, prop::option::of(0..9_u8), prop::bool::weighted(0.1)), 0..80),
            from in 0..24_u8,
            limit in 0..12_usize,
            bytes in prop_oneof![Just(usize::MAX), 1..60_usize],
        ) {
            let mut one = MemoryIndex::default();
            let mut two = MemTable::before(Box::<MemoryIndex>::default());
            for (lsn, (key, value, pour)) in (1..).zip(writes) {
                let op = op(key, value);
                one.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                two.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                if pour {
                    prop_assert_eq!(two.pour().unwrap(), Lsn(lsn));
                }
            }
            prop_assert_eq!(one.applied(), two.applied());
            let page = Page::of_tree(TreeId(1), &[from], limit).at_most(bytes);
            prop_assert_eq!(one.page(&page).unwrap(), two.page(&page).unwrap());
            for key in 0..24 {
                let key = op(key, None).index_key();
                prop_assert_eq!(one.get(&key).unwrap(), two.get(&key).unwrap());
            }
        }
    }

    #[test]
    fn pours_when_much_is_held_back() {
        let mut table = MemTable::before(Box::<MemoryIndex>::default());
        let ops: Vec<Op> = (0..=255).map(|key| op(key, Some(1))).collect();
        table.apply(Lsn(1), &mut ops[..255].iter()).unwrap();
        assert_eq!(table.below.applied(), Lsn(0));
        table.apply(Lsn(2), &mut ops[255..].iter()).unwrap();
        assert_eq!((table.below.applied(), table.recent.len()), (Lsn(2), 0));
    }
}
