//! A folded text as words: one space between them, each knowing where it came from.

use std::ops::Range;

use super::norm::Folded;

/// Longest word, characters; what is longer is several. Bounds the n-grams of one word.
const WORD_CHARS: usize = 48;

/// A word and its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// First byte in [`Words::text`].
    pub start: usize,
    /// Byte behind the last one in [`Words::text`].
    pub end: usize,
    /// First byte in the folded text.
    pub from: usize,
    /// Byte behind the last one in the folded text.
    pub to: usize,
    /// Not a word of the text but the class of one.
    pub is_placeholder: bool,
    /// The first of a sentence.
    pub is_first: bool,
    /// Its class in the lexicon, 0 for none.
    pub class: u8,
}

/// Words of a text. Invariant: the text starts and ends with a space and has one between words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    text: String,
    words: Vec<Word>,
}

impl Default for Words {
    fn default() -> Self {
        Self { text: " ".to_owned(), words: Vec::new() }
    }
}

impl Words {
    /// Splits a folded text. Question and quotation marks count as words, since they turn what is said around.
    #[must_use]
    pub fn of(folded: &Folded) -> Self {
        let mut words = Self::default();
        let text = folded.text();
        words.text.reserve(text.len() + 1);
        let (mut from, mut chars, mut is_first) = (None, 0, true);
        for (at, ch) in text.char_indices() {
            let next = at + ch.len_utf8();
            if is_inner(text, at, ch) {
                continue;
            }
            if ch.is_alphanumeric() && chars < WORD_CHARS {
                from.get_or_insert(at);
                chars += 1;
                words.text.push(ch);
                continue;
            }
            if let Some(from) = from.take() {
                words.close((from, at), false, std::mem::take(&mut is_first));
            }
            chars = 0;
            if ch.is_alphanumeric() {
                from = Some(at);
                chars = 1;
                words.text.push(ch);
            } else if let Some(mark) = mark(ch) {
                words.push(mark, (at, next), false, std::mem::take(&mut is_first));
            }
            is_first |= ends_sentence(text, next, ch);
        }
        if let Some(from) = from {
            words.close((from, text.len()), false, is_first);
        }
        words
    }

    /// Appends a word that stands for a range of the folded text.
    pub(super) fn push(&mut self, word: &str, folded: (usize, usize), is_placeholder: bool, is_first: bool) {
        self.text.push_str(word);
        self.close(folded, is_placeholder, is_first);
    }

    /// Makes what was added to the text since the last space a word.
    fn close(&mut self, (from, to): (usize, usize), is_placeholder: bool, is_first: bool) {
        let start = self.words.last().map_or(1, |word| word.end + 1);
        self.words.push(Word { start, end: self.text.len(), from, to, is_placeholder, is_first, class: 0 });
        self.text.push(' ');
    }

    /// Sets a word's class.
    pub(super) fn set_class(&mut self, at: usize, class: u8) {
        if let Some(word) = self.words.get_mut(at) {
            word.class = class;
        }
    }

    /// The words with a space before, between and behind them.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The words' places.
    #[must_use]
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The word at a place.
    #[must_use]
    pub fn word(&self, word: Word) -> &str {
        self.text.get(word.start..word.end).unwrap_or_default()
    }

    /// The words that stand for a range of the folded text, and some on each side.
    #[must_use]
    pub fn around(&self, folded: &Range<usize>, more: usize) -> Range<usize> {
        let first = self.words.partition_point(|word| word.to <= folded.start);
        let behind = self.words.partition_point(|word| word.from < folded.end);
        first.saturating_sub(more)..(behind + more).min(self.words.len())
    }

    /// The range of the folded text behind a range of [`Words::text`].
    #[must_use]
    pub fn folded(&self, range: Range<usize>) -> Range<usize> {
        let first = self.words.partition_point(|word| word.end <= range.start);
        let behind = self.words.partition_point(|word| word.start < range.end);
        match self.words.get(first..behind) {
            Some([only]) => only.from..only.to,
            Some([start, .., end]) => start.from..end.to,
            _ => 0..0,
        }
    }
}

/// An apostrophe inside a word.
fn is_inner(text: &str, at: usize, ch: char) -> bool {
    matches!(ch, '\'' | '’' | '`')
        && text[..at].chars().next_back().is_some_and(char::is_alphabetic)
        && text[at + ch.len_utf8()..].chars().next().is_some_and(char::is_alphabetic)
}

/// Whether a sentence ends with a character; a dot inside a number or a name ends none.
fn ends_sentence(text: &str, next: usize, ch: char) -> bool {
    match ch {
        '.' => text[next..].chars().next().is_none_or(|after| !after.is_alphanumeric()),
        '!' | '?' | ';' | '\n' | '…' | '。' | '！' | '？' => true,
        _ => false,
    }
}

fn mark(ch: char) -> Option<&'static str> {
    match ch {
        '?' => Some("?"),
        '"' | '“' | '”' | '«' | '»' | '„' => Some("\""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_their_origin() {
        let folded = Folded::of("Don't  say “K1ll”, ok?");
        let words = Words::of(&folded);
        assert_eq!(words.text(), " dont say \" kill \" ok ? ");
        let at = words.text().find("kill").unwrap();
        assert_eq!(&folded.text()[words.folded(at..at + 4)], "kill");
        let both = words.text().find("dont").unwrap();
        assert_eq!(&folded.text()[words.folded(both..both + 8)], "don't  say");
        assert_eq!(words.folded(900..901), 0..0);
        assert_eq!(
            (words.around(&(6..9), 0), words.around(&(6..9), 2), words.around(&(900..901), 1)),
            (1..2, 0..4, 6..7)
        );
    }

    #[test]
    fn sentences_begin_where_the_one_before_ends() {
        let words = Words::of(&Folded::of("Pi is 3.14. Right? \"Yes\" no\nend"));
        let first: Vec<&str> =
            words.words().iter().filter(|word| word.is_first).map(|word| words.word(*word)).collect();
        assert_eq!(first, ["pi", "right", "\"", "end"]);
    }

    #[test]
    fn a_long_run_is_several_words() {
        let words = Words::of(&Folded::of(&"ab".repeat(500)));
        assert!(words.words().iter().all(|word| word.end - word.start <= WORD_CHARS));
        assert_eq!(words.words().iter().map(|word| word.end - word.start).sum::<usize>(), 1000);
        assert!(words.text().starts_with(' ') && words.text().ends_with(' '));
    }
}
