//! English words with a doubled letter: what a drawn-out word (`killlll`, `thoooose`) may stand for.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Some 3,200 words with a doubled letter out of the sources of training that `WordNet` knows, by how often they occur; those
/// whose spelling with a single letter is far more common are left out, but for some that are drawn out more (`off`).
static WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("../../../data/doubles.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect()
});

/// Whether a lower-case word is one with a doubled letter.
pub(super) fn is_word(word: &str) -> bool {
    WORDS.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_known_and_singles_are_not() {
        assert!(is_word("kill") && is_word("shooting") && !is_word("those") && !is_word("beeen"));
        assert!(WORDS.iter().all(|word| word.as_bytes().windows(2).any(|pair| pair[0] == pair[1])));
    }
}
