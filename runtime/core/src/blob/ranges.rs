//! Which parts of a file have still to be fetched.

use std::collections::BTreeMap;

/// A part that somebody fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The next byte that is missing.
    pub(super) at: u64,
    pub(super) end: u64,
}

/// The parts of one file. Everything before `next` is here, but for what is open or was given back.
#[derive(Debug)]
pub(super) struct Ranges {
    len: u64,
    size: u64,
    next: u64,
    /// Being fetched: where each is, by its end.
    open: BTreeMap<u64, u64>,
    left: Vec<Range>,
}

impl Ranges {
    /// A file of `len` bytes, the first `have` of which are here, in parts of at most `size` bytes.
    pub(super) fn new(len: u64, have: u64, size: u64) -> Self {
        Self { len, size, next: have.min(len), open: BTreeMap::new(), left: Vec::new() }
    }

    /// The next part to fetch.
    pub(super) fn take(&mut self) -> Option<Range> {
        let range = self.left.pop().or_else(|| {
            let at = self.next;
            self.next = at.saturating_add(self.size).min(self.len);
            (at < self.next).then_some(Range { at, end: self.next })
        })?;
        self.open.insert(range.end, range.at);
        Some(range)
    }

    /// `bytes` more of an open part are here; the part is closed when all are.
    pub(super) fn advance(&mut self, end: u64, bytes: u64) {
        let Some(at) = self.open.get_mut(&end) else { return };
        *at = at.saturating_add(bytes).min(end);
        if *at == end {
            self.open.remove(&end);
        }
    }

    /// What is missing of an open part is to be fetched by somebody else. Returns where that begins.
    pub(super) fn give_back(&mut self, end: u64) -> u64 {
        let Some(at) = self.open.remove(&end) else { return end };
        self.left.push(Range { at, end });
        at
    }

    /// Nobody fetches anything any more.
    pub(super) fn give_back_all(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.left.extend(open.into_iter().map(|(end, at)| Range { at, end }));
    }

    /// Number of parts that nobody fetches yet.
    pub(super) fn waiting(&self) -> u64 {
        (self.len - self.next).div_ceil(self.size) + self.left.len() as u64
    }

    pub(super) fn is_complete(&self) -> bool {
        self.next == self.len && self.open.is_empty() && self.left.is_empty()
    }

    /// How much is here without a gap, from the begin on.
    pub(super) fn prefix(&self) -> u64 {
        let left = self.left.iter().map(|range| range.at);
        self.open.values().copied().chain(left).fold(self.next, u64::min)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is fetched in which order and lost in between, each byte is fetched once, and none is missing at the end.
        #[test]
        fn every_byte_comes_once(
            len in 0..200_u64,
            have in 0..220_u64,
            steps in prop::collection::vec((0..4_u8, 0..40_u64), 0..60),
        ) {
            let (mut ranges, mut open) = (Ranges::new(len, have, 16), Vec::<Range>::new());
            let mut here = vec![0; usize::try_from(len).unwrap()];
            here.iter_mut().take(usize::try_from(have).unwrap()).for_each(|byte| *byte = 1);
            let mut bring = |ranges: &mut Ranges, range: &mut Range, bytes: u64| {
                for _ in 0..bytes.min(range.end - range.at) {
                    here[usize::try_from(range.at).unwrap()] += 1;
                    range.at += 1;
                    ranges.advance(range.end, 1);
                }
                let gap = here.iter().position(|count| *count == 0).unwrap_or(here.len());
                assert!(ranges.prefix() <= gap as u64);
            };
            for (step, bytes) in steps {
                match step {
                    0 => open.extend(ranges.take()),
                    1 => open.pop().into_iter().for_each(|range| assert_eq!(ranges.give_back(range.end), range.at)),
                    2 => {
                        ranges.give_back_all();
                        open.clear();
                    }
                    _ => {
                        if let Some(range) = open.first_mut() {
                            bring(&mut ranges, range, bytes);
                        }
                        open.retain(|range| range.at < range.end);
                    }
                }
            }
            ranges.give_back_all();
            while let Some(mut range) = ranges.take() {
                prop_assert!(!ranges.is_complete());
                bring(&mut ranges, &mut range, u64::MAX);
            }
            prop_assert!(ranges.is_complete() && ranges.waiting() == 0 && ranges.prefix() == len);
            prop_assert!(here.iter().all(|count| *count == 1));
        }
    }
}
