//! Hashed n-grams of masked words.
//!
//! Word 1- to 3-grams in 2^19 buckets, character 3- to 5-grams inside words in 2^18, xxh3-64 with seed 0; counts weigh
//! `1 + ln(n)`. Classes of words that stand near each other, alone and up to three, share the buckets of words. Words,
//! classes and characters are scaled to length 1 apart from each other, or the many characters drown the words.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::words::{Word, Words};

/// Log2 of the buckets of word n-grams.
pub const WORD_BITS: u8 = 19;
/// Log2 of the buckets of character n-grams.
pub const CHAR_BITS: u8 = 18;
/// All buckets: the words', then the characters'.
pub const BUCKETS: usize = (1 << WORD_BITS) + (1 << CHAR_BITS);
/// Log2 of the buckets of model B.
pub const BAG_BITS: u8 = 13;
/// Longest window that is scored at once, bytes of masked text. In a longer one a harmful sentence drowns: with 512 a
/// threat behind harmless lines was missed.
pub const WINDOW: usize = 256;
/// Bytes that a window has in common with the one before.
pub const OVERLAP: usize = 96;

/// Most words from one class to the next that counts as near.
const CLASS_GAP: usize = 5;
/// Fewest bytes of sentences that are scored alone: what a next sentence takes back must not be torn from it.
const SENTENCE: usize = 80;
/// Sum of squares below which a block keeps a smaller length: one word alone must not have the weight of a sentence.
const SHORT: f32 = 6.0;

/// The features of a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Buckets and weights, ascending.
    pub sparse: Vec<(u32, f32)>,
    /// Buckets of model B: 1- and 2-grams of words and of classes, with repetitions.
    pub bag: Vec<u16>,
}

/// Ranges of words, each of at most [`WINDOW`] bytes and at least one word.
#[must_use]
pub fn windows(words: &Words) -> Vec<Range<usize>> {
    let all = words.words();
    let mut windows = Vec::new();
    let mut first = 0;
    while let Some(start) = all.get(first) {
        let behind = all.partition_point(|word| word.end <= start.start + WINDOW).max(first + 1);
        windows.push(first..behind);
        if behind == all.len() {
            break;
        }
        let overlap = all[behind].start.saturating_sub(OVERLAP);
        first = all.partition_point(|word| word.start < overlap).clamp(first + 1, behind);
    }
    windows
}

/// Sentences shorter than a window, each with those that follow until they have [`SENTENCE`] bytes; none if all is one.
/// Scored besides windows: harmless sentences around a harmful one must not drown it.
#[must_use]
pub fn sentences(words: &Words) -> Vec<Range<usize>> {
    let all = words.words();
    let mut sentences = Vec::new();
    let mut first = 0;
    for at in (1..=all.len()).filter(|at| all.get(*at).is_none_or(|word| word.is_first)) {
        let is_whole = first == 0 && at == all.len();
        let is_short = all[at - 1].end - all[first].start < SENTENCE;
        if is_whole || is_short && at < all.len() {
            continue;
        }
        match sentences.last_mut() {
            // A short end goes with what is before.
            Some(Range { end, .. }) if is_short && *end == first => *end = at,
            _ if all[at - 1].end - all[first].start < WINDOW => sentences.push(first..at),
            _ => {}
        }
        first = at;
    }
    sentences
}

impl Features {
    /// Hashes the words of a window.
    #[must_use]
    pub fn of(words: &Words, window: Range<usize>) -> Self {
        let text = words.text();
        let part = words.words().get(window).unwrap_or_default();
        let mut ids = Vec::with_capacity(16 * part.len());
        let mut bag = Vec::with_capacity(2 * part.len());
        for size in 1..=3 {
            for gram in part.windows(size) {
                let hash = word_hash(text, gram);
                ids.push(word_bucket(hash));
                if size < 3 {
                    // Other bits than model A's, so that what collides there does not here.
                    bag.extend(u16::try_from(low_bits(hash >> 40, BAG_BITS)));
                }
            }
        }
        let mut sparse = Vec::with_capacity(ids.len() * 4);
        weigh(&mut ids, &mut sparse);
        ids.clear();
        class_grams(part, &mut ids, &mut bag);
        weigh(&mut ids, &mut sparse);
        ids.clear();
        for word in part.iter().filter(|word| !word.is_placeholder) {
            char_grams(text, *word, &mut ids);
        }
        weigh(&mut ids, &mut sparse);
        // Words and classes share buckets.
        sparse.sort_unstable_by_key(|(id, _)| *id);
        sparse.dedup_by(|later, first| {
            later.0 == first.0 && {
                first.1 += later.1;
                true
            }
        });
        Self { sparse, bag }
    }
}

/// The buckets of classes and of those that follow each other with few words between.
fn class_grams(part: &[Word], ids: &mut Vec<u32>, bag: &mut Vec<u16>) {
    let mut near: [(usize, u8); 3] = [(0, 0); 3];
    for (at, word) in part.iter().enumerate().filter(|(_, word)| word.class > 0) {
        near = [near[1], near[2], (at, word.class)];
        let [(a_at, a), (b_at, b), (_, c)] = near;
        let has_b = b > 0 && at - b_at <= CLASS_GAP;
        let has_a = has_b && a > 0 && b_at - a_at <= CLASS_GAP;
        let grams =
            [Some([0, 0, c]), has_b.then_some([0, b, c]), has_a.then_some([a, 0xff, c]), has_a.then_some([a, b, c])];
        for (n, gram) in grams.into_iter().enumerate() {
            let Some([a, b, c]) = gram else { continue };
            // No text has a word that starts so.
            let hash = xxh3_64(&[1, a, b, c]);
            ids.push(word_bucket(hash));
            if n < 2 {
                bag.extend(u16::try_from(low_bits(hash >> 40, BAG_BITS)));
            }
        }
    }
}

/// The hash of adjacent words.
pub(super) fn word_hash(text: &str, gram: &[Word]) -> u64 {
    let (Some(first), Some(last)) = (gram.first(), gram.last()) else { return 0 };
    xxh3_64(text.as_bytes().get(first.start..last.end).unwrap_or_default())
}

/// The bucket of a word n-gram's hash.
pub(super) fn word_bucket(hash: u64) -> u32 {
    low_bits(hash, WORD_BITS)
}

#[expect(clippy::cast_possible_truncation, reason = "masked to fewer than 32 bits")]
fn low_bits(hash: u64, bits: u8) -> u32 {
    (hash & ((1 << bits) - 1)) as u32
}

/// The buckets of a word's character n-grams; the spaces around it mark its ends.
fn char_grams(text: &str, word: Word, ids: &mut Vec<u32>) {
    let Some(padded) = text.get(word.start - 1..word.end + 1) else { return };
    if padded.len() < 4 {
        return;
    }
    let mut bounds = [0; 64];
    let starts = padded.char_indices().map(|(at, _)| at).chain([padded.len()]);
    let count = bounds.iter_mut().zip(starts).map(|(bound, at)| *bound = at).count();
    let bounds = &bounds[..count];
    for size in 3..=5 {
        for gram in bounds.windows(size + 1) {
            let bytes = &padded.as_bytes()[gram[0]..gram[size]];
            ids.push((1 << WORD_BITS) + low_bits(xxh3_64(bytes), CHAR_BITS));
        }
    }
}

/// Appends buckets with weights of length 1 together.
fn weigh(ids: &mut [u32], sparse: &mut Vec<(u32, f32)>) {
    ids.sort_unstable();
    let first = sparse.len();
    let mut squares = 0.0;
    for run in ids.chunk_by(|a, b| a == b) {
        // Counts are small; u16 saturates far above what a window holds.
        let weight = 1.0 + f32::from(u16::try_from(run.len()).unwrap_or(u16::MAX)).ln();
        squares += weight * weight;
        sparse.push((run[0], weight));
    }
    let scale = 1.0 / squares.max(SHORT).sqrt();
    for (_, weight) in &mut sparse[first..] {
        *weight *= scale;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::norm::Folded;
    use super::*;

    fn words(text: &str) -> Words {
        Words::of(&Folded::of(text))
    }

    #[test]
    fn both_blocks_have_length_one() {
        let words = words("the quick brown fox jumps over the lazy dog");
        let features = Features::of(&words, 0..words.words().len());
        let length = |range: Range<u32>| {
            let part = features.sparse.iter().filter(|(id, _)| range.contains(id));
            part.map(|(_, weight)| weight * weight).sum::<f32>()
        };
        let split = 1 << WORD_BITS;
        // Nothing is marked here, so words have their buckets for themselves.
        assert!((length(0..split) - 1.0).abs() < 1e-5 && (length(split..u32::MAX) - 1.0).abs() < 1e-5);
        assert!(features.sparse.is_sorted_by_key(|(id, _)| *id));
        assert_eq!(features.bag.len(), 9 + 8);
    }

    #[test]
    fn short_sentences_go_with_the_next() {
        let of = |text: &str| sentences(&words(text));
        let ten = "word ".repeat(20);
        assert_eq!(of(&format!("{ten}. no. {ten}! {ten}? yes")), [0..20, 20..41, 41..63]);
        assert!(of("one two three. four five six").is_empty());
        let behind = of(&format!("{}. one two three", "word ".repeat(90)));
        assert_eq!((behind.len(), behind[0].clone()), (1, 90..93));
    }

    #[test]
    fn classes_near_each_other_are_features() {
        let of = |text: &str, classes: &[u8]| {
            let mut words = words(text);
            classes.iter().enumerate().for_each(|(at, class)| words.set_class(at, *class));
            Features::of(&words, 0..words.words().len())
        };
        let plain = of("one two three", &[]);
        let marked = of("one two three", &[7, 0, 8]);
        assert!(marked.sparse.len() > plain.sparse.len() && marked.sparse.is_sorted_by_key(|(id, _)| *id));
        // 7, 8 and both.
        assert_eq!(marked.bag.len(), plain.bag.len() + 3);
        let far = of("one two three four five six seven", &[7, 0, 0, 0, 0, 0, 8]);
        assert_eq!(far.bag.len(), of("one two three four five six seven", &[]).bag.len() + 2);
    }

    #[test]
    fn order_of_words_counts() {
        let (a, b) = (words("dog bites man"), words("man bites dog"));
        assert_ne!(Features::of(&a, 0..3), Features::of(&b, 0..3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn windows_cover_all_words_in_order(text in "[a-z?\" ]{0,3000}") {
            let words = words(&text);
            let mut next = 0;
            for window in windows(&words) {
                prop_assert!(window.start <= next && window.end > next);
                let all = words.words();
                prop_assert!(all[window.end - 1].end - all[window.start].start <= WINDOW);
                next = window.end;
            }
            prop_assert_eq!(next, words.words().len());
        }
    }
}
