//! The newest writes on the heap before the index on disk: a durable commit pays for the redo log only.
//!
//! A write costs sled many times what it costs a map, and most of what is written is soon replaced: events by a snapshot, the
//! entries of a group's log by a purge. So writes gather here in two generations. One fills, and when it is half full, the full
//! one is poured into sled a few writes at a time, those that were replaced left out. What a crash leaves here is in the redo
//! log, and the next start applies it from there.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::disk::{Index, IndexError, Ops, Page};
use super::{Lsn, Op};

/// Writes of a full generation.
const OPS: usize = 64 << 10;
/// Bytes of a full generation.
const BYTES: usize = 16 << 20;
/// Writes poured at a time, for which readers and committers wait a fraction of a millisecond.
const STEP: usize = 16;
/// Bytes poured at a time, at least one write.
const STEP_BYTES: usize = 64 << 10;
/// Writes looked at for that, at most.
const LOOKS: usize = 512;
/// Writes poured for each that comes in, so that one generation is empty before the other is full.
const PACE: usize = 3;

/// An index with recent writes before it.
pub(super) struct MemTable {
    below: Box<dyn Index>,
    /// What comes in.
    filling: Generation,
    /// What was full, as far as `below` lacks it.
    full: Generation,
    /// Up to where `full` is.
    full_upto: Lsn,
    applied: Lsn,
    /// Up to where writes are here, the group that is being applied included.
    newest: Lsn,
    /// Writes that came in and that none was poured for yet.
    due: usize,
}

/// The last write of each key.
#[derive(Default)]
struct Generation {
    ops: BTreeMap<Vec<u8>, Op>,
    bytes: usize,
}

impl Generation {
    /// Whether a part of the room is used up.
    fn is_filled(&self, part: usize) -> bool {
        self.ops.len() >= OPS / part || self.bytes >= BYTES / part
    }

    fn insert(&mut self, key: Vec<u8>, op: Op) {
        self.bytes += size(&op);
        self.bytes -= self.ops.insert(key, op).as_ref().map_or(0, size);
    }

    fn remove(&mut self, key: &[u8]) {
        self.bytes -= self.ops.remove(key).as_ref().map_or(0, size);
    }
}

fn size(op: &Op) -> usize {
    op.key.0.len() + op.value.as_ref().map_or(0, |value| value.0.len())
}

impl MemTable {
    pub(super) fn before(below: Box<dyn Index>) -> Self {
        let applied = below.applied();
        let (filling, full) = (Generation::default(), Generation::default());
        Self { below, filling, full, full_upto: applied, applied, newest: applied, due: 0 }
    }

    /// Writes that `below` lacks, in the order of their keys.
    fn recent(&self, page: &Page) -> impl Iterator<Item = (&Vec<u8>, &Op)> {
        let [mut newer, mut older] = [&self.filling, &self.full]
            .map(|generation| generation.ops.range(page.from.clone()..page.to.clone()).peekable());
        std::iter::from_fn(move || match (newer.peek(), older.peek()) {
            (Some((new, _)), Some((old, _))) => match new.cmp(old) {
                Ordering::Less => newer.next(),
                Ordering::Greater => older.next(),
                Ordering::Equal => {
                    older.next();
                    newer.next()
                }
            },
            (Some(_), None) => newer.next(),
            (None, _) => older.next(),
        })
    }

    fn pour_some(&mut self) -> Result<(), IndexError> {
        self.pour_upto(STEP)
    }

    fn pour_upto(&mut self, count: usize) -> Result<(), IndexError> {
        let (mut step, mut bytes, mut looks) = (Vec::with_capacity(count), 0, 0);
        while step.len() < count
            && bytes < STEP_BYTES
            && looks < LOOKS
            && let Some((key, op)) = self.full.ops.pop_first()
        {
            looks += 1;
            if !self.filling.ops.contains_key(&key) {
                bytes += size(&op);
                step.push(op);
            }
        }
        // Taken out already: after an error `below` is made again, from the redo log. What was left out is not to be missed as
        // long as the log reaches to what replaces it, hence `newest`.
        self.below.apply_some(self.newest, &mut step.iter())?;
        if self.full.ops.is_empty() {
            self.full.bytes = 0;
            self.below.apply(self.full_upto, &mut std::iter::empty())?;
        }
        Ok(())
    }

    fn is_pouring(&self) -> bool {
        self.full_upto != self.below.applied()
    }

    /// Has what came in poured next, if nothing else is.
    fn turn(&mut self) {
        if !self.is_pouring() {
            self.full = std::mem::take(&mut self.filling);
            self.full_upto = self.applied;
        }
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
        match self.filling.ops.get(key).or_else(|| self.full.ops.get(key)) {
            Some(op) => Ok(op.value.as_ref().map(|value| value.0.clone())),
            None => self.below.get(key),
        }
    }

    fn page(&self, page: &Page) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        let mut recent = self.recent(page).peekable();
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
        self.newest = lsn;
        self.apply_some(lsn, ops)?;
        self.applied = lsn;
        if self.filling.is_filled(1) {
            // Only when more came at once than half a generation.
            while self.is_pouring() {
                self.pour_some()?;
            }
            self.turn();
        }
        Ok(())
    }

    fn apply_some(&mut self, _: Lsn, ops: Ops) -> Result<(), IndexError> {
        for op in ops {
            let key = op.index_key();
            let is_lone =
                op.value.is_none() && self.filling.ops.contains_key(&key) && !self.full.ops.contains_key(&key);
            if is_lone && self.below.get(&key)?.is_none() {
                // Written and removed again, and nobody saw.
                self.filling.remove(&key);
                continue;
            }
            self.filling.insert(key, op.clone());
            self.due += PACE;
            if self.due >= STEP {
                self.due = 0;
                if self.is_pouring() && self.filling.is_filled(2) {
                    self.pour_some()?;
                }
            }
        }
        Ok(())
    }

    fn pour(&mut self, upto: Lsn) -> Result<bool, IndexError> {
        if self.below.applied() < upto {
            self.turn();
            self.pour_some()?;
        }
        Ok(self.below.applied() >= upto)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.below.flush()
    }

    fn close(mut self: Box<Self>) {
        let upto = self.applied;
        let poured = loop {
            match self.pour(upto) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match poured {
            Ok(()) => self.below.close(),
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
            writes in prop::collection::vec((0..24_u8, prop::option::of(0..9_u8), prop_oneof![9 => Just(0), 1 => 1..3_u8]), 0..80),
            from in 0..24_u8,
            limit in 0..12_usize,
            bytes in prop_oneof![Just(usize::MAX), 1..60_usize],
        ) {
            let mut one = MemoryIndex::default();
            let mut two = MemTable::before(Box::<MemoryIndex>::default());
            for (lsn, (key, value, pours)) in (1..).zip(writes) {
                let op = op(key, value);
                one.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                two.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                for _ in 0..pours {
                    two.pour(Lsn(lsn)).unwrap();
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

    proptest! {
        /// A crash loses the heap: what is below and the log after its position give back everything.
        #[test]
        fn crash_loses_nothing_that_the_log_has(
            writes in prop::collection::vec((0..12_u8, prop::option::of(0..9_u8), prop_oneof![2 => Just(0), 1 => 1..4_u8]), 1..60),
        ) {
            let mut one = MemoryIndex::default();
            let mut two = MemTable::before(Box::<MemoryIndex>::default());
            let mut log = Vec::new();
            for (lsn, (key, value, pours)) in (1..).zip(writes) {
                let op = op(key, value);
                one.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                two.apply(Lsn(lsn), &mut std::iter::once(&op)).unwrap();
                log.push(op);
                let mut pours = (0..pours).map(|_| two.pour_one());
                prop_assert!(pours.all(|poured| poured.is_ok()));
            }
            let at = usize::try_from(two.below.applied().0).unwrap();
            let mut left = two.below;
            left.apply(one.applied(), &mut log[at..].iter()).unwrap();
            let page = Page::of_tree(TreeId(1), &[], usize::MAX);
            prop_assert_eq!(one.page(&page).unwrap(), left.page(&page).unwrap());
        }
    }

    impl MemTable {
        /// As `pour_some`, but a single write, so that little is much.
        fn pour_one(&mut self) -> Result<(), IndexError> {
            self.turn();
            self.pour_upto(1)
        }
    }

    fn ops(range: std::ops::Range<u32>) -> Vec<Op> {
        let key = |n: u32| Raw(Bytes::copy_from_slice(&n.to_be_bytes()));
        range.map(|n| Op { tree: TreeId(1), key: key(n), value: Some(key(n)) }).collect()
    }

    #[test]
    fn full_generation_is_poured_in_steps() {
        let mut table = MemTable::before(Box::<MemoryIndex>::default());
        let all = u32::try_from(OPS).unwrap();
        table.apply(Lsn(1), &mut ops(0..all - 1).iter()).unwrap();
        assert!(!table.is_pouring());
        table.apply(Lsn(2), &mut ops(all - 1..all).iter()).unwrap();
        assert!(table.is_pouring());
        assert!(!table.pour(Lsn(2)).unwrap());
        assert_eq!((table.below.applied(), table.full.ops.len()), (Lsn(0), OPS - STEP));
        while !table.pour(Lsn(2)).unwrap() {}
        assert!(table.below.applied() == Lsn(2) && !table.is_pouring());
    }

    #[test]
    fn what_is_removed_in_time_is_never_poured() {
        let mut table = MemTable::before(Box::<MemoryIndex>::default());
        let gone = |ops: Vec<Op>| ops.into_iter().map(|op| Op { value: None, ..op }).collect::<Vec<_>>();
        for (lsn, n) in (1..).step_by(2).zip(0..u32::try_from(4 * OPS).unwrap()) {
            table.apply(Lsn(lsn), &mut ops(n..n + 1).iter()).unwrap();
            table.apply(Lsn(lsn + 1), &mut gone(ops(n..n + 1)).iter()).unwrap();
        }
        assert!(table.filling.ops.is_empty() && table.filling.bytes == 0 && !table.is_pouring());
        // Nor what the other generation removes; what is below already, is removed there.
        let all = u32::try_from(OPS).unwrap();
        table.apply(Lsn(1 << 20), &mut ops(0..all).iter()).unwrap();
        assert!(!table.pour(Lsn(1 << 20)).unwrap());
        table.apply(Lsn(2 << 20), &mut gone(ops(0..all / 4)).iter()).unwrap();
        while !table.pour(Lsn(2 << 20)).unwrap() {}
        let page = Page::of_tree(TreeId(1), &[], usize::MAX);
        assert_eq!(table.below.page(&page).unwrap().len(), OPS - OPS / 4);
    }

    #[test]
    fn one_generation_is_poured_while_the_other_fills() {
        let mut table = MemTable::before(Box::<MemoryIndex>::default());
        let all = u32::try_from(OPS).unwrap();
        table.apply(Lsn(1), &mut ops(0..all).iter()).unwrap();
        // One at a time, and never a pause to pour.
        for (lsn, n) in (2..).zip(all..2 * all) {
            table.apply(Lsn(lsn), &mut ops(n..n + 1).iter()).unwrap();
        }
        assert!(table.below.applied() >= Lsn(1));
        assert_eq!(table.filling.ops.len() + table.full.ops.len(), OPS);
        // However much comes at once, no more than two generations are held back.
        table.apply(Lsn(1 << 20), &mut ops(2 * all..9 * all).iter()).unwrap();
        table.apply(Lsn(2 << 20), &mut ops(9 * all..16 * all).iter()).unwrap();
        assert!(table.filling.ops.is_empty() && table.below.applied() == Lsn(1 << 20));
    }
}
