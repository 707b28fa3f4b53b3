//! Tokens as chunk sizes count them.
//!
//! A token is a word, a single character of a script written without blanks, or 16 characters of anything longer, so
//! that endless words, rules of dashes and base64 have a size too.

use std::ops::Range;

/// Characters of one word, or of one run of signs, that count as one token.
const RUN: usize = 16;

/// Most bytes a piece may have per token it may have: bounds text that is all signs and blanks.
pub(super) const BYTES_PER_TOKEN: usize = 64;

/// Number of tokens in `text`.
#[must_use]
pub fn count(text: &str) -> usize {
    let mut meter = Meter::default();
    text.chars().map(|c| usize::from(meter.starts_token(c))).sum()
}

/// Part of a text with its size.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) tokens: usize,
}

/// Cuts `text` before the first token that would be over `max`; blanks at the cut belong to no piece.
pub(super) fn pieces(text: &str, max: usize) -> Vec<Piece> {
    let mut out = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    let mut meter = Meter::default();
    for (at, c) in text.char_indices() {
        let one = usize::from(meter.starts_token(c));
        let full = one == 1 && tokens == max;
        if full || at - start >= max * BYTES_PER_TOKEN {
            push(&mut out, text, start..at, tokens);
            start = at;
            meter = Meter::default();
            tokens = usize::from(meter.starts_token(c));
        } else {
            tokens += one;
        }
    }
    push(&mut out, text, start..text.len(), tokens);
    out
}

fn push(out: &mut Vec<Piece>, text: &str, range: Range<usize>, tokens: usize) {
    let piece = &text[range.clone()];
    let start = range.start + (piece.len() - piece.trim_start().len());
    let end = range.start + piece.trim_end().len();
    if start < end {
        out.push(Piece { range: start..end, tokens });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Run {
    #[default]
    None,
    Word(usize),
    Signs(usize),
}

/// Walks over characters and tells where tokens start.
#[derive(Debug, Default)]
struct Meter(Run);

impl Meter {
    fn starts_token(&mut self, c: char) -> bool {
        if c.is_whitespace() {
            self.0 = Run::None;
            return false;
        }
        if is_unspaced(c) {
            self.0 = Run::None;
            return true;
        }
        let next = match self.0 {
            Run::Word(n) if c.is_alphanumeric() => Run::Word(n + 1),
            _ if c.is_alphanumeric() => Run::Word(1),
            Run::Signs(n) => Run::Signs(n + 1),
            // Signs touching a word are free up to a point: "word," and "(word)" are one token each.
            Run::None | Run::Word(_) => Run::Signs(1),
        };
        self.0 = next;
        match next {
            Run::Word(n) => n % RUN == 1,
            Run::Signs(n) => n % RUN == 0,
            Run::None => false,
        }
    }
}

/// The words of a text as they stand: runs of letters and digits, single characters of unspaced scripts.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let first = rest.chars().next()?;
        let end = if is_unspaced(first) {
            first.len_utf8()
        } else {
            rest.find(|c: char| !c.is_alphanumeric() || is_unspaced(c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// Scripts whose words are not separated by blanks.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'        // Thai, Lao
        | '\u{1000}'..='\u{109f}'      // Myanmar
        | '\u{1780}'..='\u{17ff}'      // Khmer
        | '\u{3040}'..='\u{30ff}'      // Hiragana, Katakana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}'    // Han
    ) && c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_unspaced_characters_count() {
        assert_eq!(count("The cat, (asleep) \u{4e2d}\u{6587}."), 5);
        assert_eq!(count(&"x".repeat(160)), 10);
        assert_eq!(count(&"-".repeat(160)), 10);
    }

    #[test]
    fn pieces_hold_at_most_max_tokens() {
        let got = pieces("one two three four five", 2);
        let want = [(0..7, 2), (8..18, 2), (19..23, 1)];
        assert_eq!(got, want.map(|(range, tokens)| Piece { range, tokens }));
    }
}
