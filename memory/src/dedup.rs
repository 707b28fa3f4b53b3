//! Finding documents that repeat others: exactly, by content hash, and nearly, by `MinHash` with banded LSH.
//!
//! Broder 1997: the share of equal minima under random permutations of the shingles' hashes estimates the Jaccard
//! similarity of two texts. 32 bands of 4 rows make a candidate of a pair with similarity s with probability
//! 1 - (1 - s^4)^32: 0.873 at 0.5, 1 - 4.8e-8 at 0.8.

use std::collections::HashMap;

use crate::chunk::words;

/// Number of permutations.
pub const PERMUTATIONS: usize = 128;
/// Words in a shingle.
pub const SHINGLE: usize = 5;
/// Estimated Jaccard similarity from which a document counts as a copy.
pub const NEAR: f64 = 0.8;

const BANDS: usize = 32;
const ROWS: usize = PERMUTATIONS / BANDS;
/// Candidates of one band that are looked at; boilerplate fills a bucket, and the first ones are as good as any.
const CANDIDATES: usize = 16;

/// Minima of the shingle hashes under each permutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Box<[u32; PERMUTATIONS]>);

impl Signature {
    /// The signature of a text; `None` if it has no word.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let mut minima = Box::new([u32::MAX; PERMUTATIONS]);
        let mut window = [0u64; SHINGLE];
        let mut seen = 0;
        for word in words(text) {
            window.rotate_left(1);
            window[SHINGLE - 1] = hash_word(word);
            seen += 1;
            if seen >= SHINGLE {
                fold(&mut minima, shingle(&window));
            }
        }
        if seen == 0 {
            return None;
        }
        if seen < SHINGLE {
            fold(&mut minima, shingle(&window[SHINGLE - seen..]));
        }
        Some(Self(minima))
    }

    /// Estimated Jaccard similarity of the texts' shingle sets, in `[0, 1]`; standard error at most 0.045.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> f64 {
        let equal = self.0.iter().zip(other.0.iter()).filter(|(a, b)| a == b).count();
        f64::from(u32::try_from(equal).unwrap_or(0)) / 128.0
    }

    /// The stored form: 128 little-endian `u32`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|minimum| minimum.to_le_bytes()).collect()
    }

    /// Reads the stored form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PERMUTATIONS * 4 {
            return None;
        }
        let mut minima = Box::new([0; PERMUTATIONS]);
        for (minimum, bytes) in minima.iter_mut().zip(bytes.chunks_exact(4)) {
            *minimum = u32::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(Self(minima))
    }

    fn bands(&self) -> impl Iterator<Item = u64> {
        self.0
            .chunks_exact(ROWS)
            .enumerate()
            .map(|(band, rows)| rows.iter().fold(mix(band as u64), |hash, row| mix(hash ^ u64::from(*row))))
    }
}

/// `(a, b)` of each permutation `x -> (a x + b) >> 32`, a odd (multiply-shift, Dietzfelbinger 1996).
const PERMUTE: [(u64, u64); PERMUTATIONS] = {
    let mut out = [(0, 0); PERMUTATIONS];
    let mut i = 0;
    while i < PERMUTATIONS {
        out[i] = (mix(2 * i as u64 + 1) | 1, mix(2 * i as u64 + 2));
        i += 1;
    }
    out
};

/// The finaliser of `splitmix64`.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn fold(minima: &mut [u32; PERMUTATIONS], shingle: u64) {
    for (minimum, (a, b)) in minima.iter_mut().zip(PERMUTE) {
        let hash = (a.wrapping_mul(shingle).wrapping_add(b) >> 32) as u32;
        *minimum = (*minimum).min(hash);
    }
}

fn shingle(words: &[u64]) -> u64 {
    words.iter().fold(0, |hash, word| mix(hash ^ word))
}

/// FNV-1a over the lower-cased word.
fn hash_word(word: &str) -> u64 {
    word.chars()
        .flat_map(char::to_lowercase)
        .fold(0xcbf2_9ce4_8422_2325, |hash, c| (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Signatures seen so far, by band. Holds numbers only: the caller keeps what a number stands for.
#[derive(Debug, Default)]
pub struct Lsh {
    /// Newest entry of each bucket.
    heads: HashMap<u64, u32>,
    /// Document and next older entry of the same bucket.
    entries: Vec<(u32, u32)>,
}

const END: u32 = u32::MAX;

impl Lsh {
    /// Adds a document.
    pub fn insert(&mut self, document: u32, signature: &Signature) {
        for band in signature.bands() {
            let entry = u32::try_from(self.entries.len()).unwrap_or(END);
            if entry == END {
                return;
            }
            let older = self.heads.insert(band, entry).unwrap_or(END);
            self.entries.push((document, older));
        }
    }

    /// Documents that share a band with the signature, each once, those sharing most bands first.
    #[must_use]
    pub fn candidates(&self, signature: &Signature) -> Vec<u32> {
        let mut shared: HashMap<u32, u32> = HashMap::new();
        for band in signature.bands() {
            let mut at = self.heads.get(&band).copied().unwrap_or(END);
            for _ in 0..CANDIDATES {
                let Some(&(document, older)) = self.entries.get(at as usize) else { break };
                *shared.entry(document).or_default() += 1;
                at = older;
            }
        }
        let mut candidates: Vec<_> = shared.into_iter().collect();
        candidates.sort_unstable_by_key(|&(document, bands)| (std::cmp::Reverse(bands), document));
        candidates.into_iter().map(|(document, _)| document).collect()
    }
}

/// Share of the shorter text's word 3-grams that the other one contains, in `[0, 1]`: tells copies of a passage apart
/// from other passages of the same document.
#[must_use]
pub fn containment(a: &str, b: &str) -> f64 {
    let grams = |text: &str| -> std::collections::HashSet<u64> {
        let hashes: Vec<u64> = words(text).map(hash_word).collect();
        if hashes.len() < 3 { [shingle(&hashes)].into() } else { hashes.windows(3).map(shingle).collect() }
    };
    let (a, b) = (grams(a), grams(b));
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let shared = few.iter().filter(|gram| many.contains(gram)).count();
    ratio(shared, few.len())
}

fn ratio(part: usize, whole: usize) -> f64 {
    let of = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { of(part) / of(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("word{n} ")).collect()
    }

    #[test]
    fn estimate_is_near_the_true_similarity() {
        // 96 of 104 shingles shared: J = 92 / 108... computed below from the sets themselves.
        let (a, b) = (numbered(0..200), numbered(20..220));
        let (sa, sb) = (Signature::of(&a).expect("words"), Signature::of(&b).expect("words"));
        let (shingles, shared) = (196.0, 176.0);
        let truth = shared / (2.0 * shingles - shared);
        // Three standard errors of 128 Bernoulli trials.
        assert!((sa.similarity(&sb) - truth).abs() < 0.12, "{} against {truth}", sa.similarity(&sb));
    }

    #[test]
    fn near_copies_are_candidates_and_others_are_not() {
        let mut lsh = Lsh::default();
        for n in 0..200 {
            lsh.insert(n, &Signature::of(&numbered(n * 1000..n * 1000 + 150)).expect("words"));
        }
        let copy = format!("{} and a new end", numbered(7000..7150));
        let candidates = lsh.candidates(&Signature::of(&copy).expect("words"));
        assert_eq!(candidates.first(), Some(&7));
        assert!(lsh.candidates(&Signature::of(&numbered(900_000..900_150)).expect("words")).is_empty());
    }

    #[test]
    fn case_and_punctuation_do_not_matter() {
        let (a, b) = ("The quick, brown fox jumps.", "the quick brown FOX jumps");
        assert_eq!(Signature::of(a), Signature::of(b));
    }

    #[test]
    fn short_texts_have_a_signature_and_empty_ones_none() {
        assert!(Signature::of("two words").is_some());
        assert_eq!(Signature::of(" ... "), None);
    }

    #[test]
    fn signature_survives_its_stored_form() {
        let signature = Signature::of("one two three four five six").expect("words");
        assert_eq!(Signature::from_bytes(&signature.to_bytes()), Some(signature));
        assert_eq!(Signature::from_bytes(&[0; 7]), None);
    }

    #[test]
    fn containment_tells_copies_from_neighbours() {
        assert!(containment("a b c d e f", "x a b c d e f y") > 0.99);
        assert!(containment("a b c d e f", "g h i j k l") < 0.01);
    }
}
