//! Folds a text to what a reader takes from it, and knows for every byte of the result where it came from.
//!
//! Order: compatibility forms and diacritics, invisible characters, look-alike letters, case, then until nothing
//! changes: letters that stand apart, digits for letters, long runs. What is hidden by an encoding is in further
//! [`views()`]. `decancer` is not used: its result keeps no offsets and must not be read as a plain string.

mod chars;
mod doubles;
mod fold;
pub mod views;

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::compose;
use unicode_segmentation::UnicodeSegmentation;

pub use views::{View, ViewKind, views};

/// Longest text of one view, bytes.
pub const VIEW_BYTES: usize = 64 * 1024;

/// A character and the bytes of the original that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    ch: char,
    start: u32,
    end: u32,
}

/// A folded text. Invariant: `origin` has one entry for each byte of `text`, each a valid range of the original.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    text: String,
    origin: Vec<(u32, u32)>,
    hidden: String,
}

impl Folded {
    /// Folds the first [`VIEW_BYTES`] bytes of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = head(text, VIEW_BYTES);
        let (cells, hidden) = visible(text);
        Self::from_cells(&fold::fold(cells), hidden)
    }

    fn from_cells(cells: &[Cell], hidden: String) -> Self {
        let mut folded = Self { text: String::with_capacity(cells.len()), origin: Vec::new(), hidden };
        folded.origin.reserve(cells.len());
        for cell in cells {
            folded.text.push(cell.ch);
            folded.origin.resize(folded.text.len(), (cell.start, cell.end));
        }
        folded
    }

    /// The folded text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was written in invisible tag characters (U+E0020 to U+E007E).
    #[must_use]
    pub fn hidden(&self) -> &str {
        &self.hidden
    }

    /// The bytes of the original that a range of the folded text stands for; empty for an empty or foreign range.
    #[must_use]
    pub fn origin(&self, range: Range<usize>) -> Range<usize> {
        let cells = self.origin.get(range).unwrap_or_default();
        let start = cells.iter().map(|(start, _)| *start).min().unwrap_or_default();
        let end = cells.iter().map(|(_, end)| *end).max().unwrap_or_default();
        start as usize..end as usize
    }
}

/// The longest part from the start that has at most `max` bytes.
pub(crate) fn head(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Compatibility forms without diacritics and without what cannot be seen; and what the tag characters spell.
fn visible(text: &str) -> (Vec<Cell>, String) {
    let mut cells = Vec::with_capacity(text.len());
    let mut hidden = String::new();
    if text.is_ascii() {
        let ascii = text.bytes().zip(0_u32..).filter(|(byte, _)| !chars::is_control(*byte));
        cells.extend(ascii.map(|(byte, at)| Cell { ch: char::from(byte), start: at, end: at + 1 }));
        return (cells, hidden);
    }
    for (at, cluster) in text.grapheme_indices(true) {
        if !chars::FLAGS.contains(&cluster) {
            hidden.extend(cluster.chars().filter_map(chars::tag));
        }
        let start = at_u32(at);
        let end = at_u32(at + cluster.len());
        let plain = cluster.chars().filter(|ch| !chars::is_invisible(*ch)).nfkd();
        // A compatibility form may decompose into what is dropped.
        let kept = plain.filter(|ch| !chars::is_invisible(*ch) && !chars::is_diacritic(*ch)).map(chars::plain);
        for ch in kept.nfc() {
            push(&mut cells, Cell { ch, start, end });
        }
    }
    (cells, hidden)
}

/// What an invisible character held apart belongs together once it is gone.
fn push(cells: &mut Vec<Cell>, cell: Cell) {
    if let Some(last) = cells.last_mut()
        && last.end <= cell.start
        && let Some(ch) = compose(last.ch, cell.ch)
    {
        (last.ch, last.end) = (ch, cell.end);
        return;
    }
    cells.push(cell);
}

/// Offsets are below [`VIEW_BYTES`].
fn at_u32(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        Folded::of(text).text().to_owned()
    }

    #[test]
    fn what_a_joiner_parted_is_one_letter() {
        let once = Folded::of("\u{1100}\u{200d}\u{1161}\u{200d}\u{11a8}");
        assert_eq!((once.text(), once.origin(0..3)), ("\u{ac01}", 0..15));
        assert_eq!(folded(once.text()), once.text());
    }

    #[test]
    fn disguises_fold_to_the_plain_word() {
        for disguise in [
            "KILL",
            "k1ll",
            "k!ll",
            "k i l l",
            "k.i.l.l",
            "k-i-l-l",
            "ki\u{200b}ll",
            "k\u{00ad}ill",
            "kíll",
            "killlll",
            "kiiiill",
            "кill",
            "ｋｉｌｌ",
            "𝐤𝐢𝐥𝐥",
            "k\u{202e}ill",
            "k\u{fe0f}ill",
            "🅺🅸🅻🅻",
            "ⓚⓘⓛⓛ",
            "k\u{335}i\u{335}ll",
            "k🙂i🙂l🙂l",
        ] {
            assert_eq!(folded(disguise), "kill", "{disguise}");
        }
    }

    #[test]
    fn ordinary_writing_stays() {
        for (text, expected) in [
            ("good committee", "good committee"),
            ("SHA256 and i7", "sha256 and it"),
            ("Привет, мир", "привет, мир"),
            ("c++ rocks!", "c++ rocks!"),
            ("a b", "a b"),
            ("日本語 テスト", "日本語 テスト"),
            ("한국어", "한국어"),
            ("in 1945, 30 ships", "in 1945, 30 ships"),
            ("1 2 3 go", "1 2 3 go"),
            ("a   b c   d", "a   b c   d"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn drawn_out_words_keep_the_doubles_they_have() {
        for (text, expected) in [
            ("thoooose peeeople shoooot", "those people shoot"),
            ("allll aliiiive", "all alive"),
            ("theeese commmmitteeees", "these committees"),
            ("aaaassssholes", "assholes"),
            ("ддда", "дда"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn spelt_words_are_joined_each_for_itself() {
        for (text, expected) in [
            ("I   w i l l   h i t   m y   d o g", "i   will   hit   my   dog"),
            ("w e   d o n ' t   g o   t h e r e .", "we   don't   go   there ."),
            ("s.t.o.p y.o.u", "stop you"),
            ("s t o p\ny o u", "stop\nyou"),
            ("s t 0 p", "stop"),
            ("plan b c   and   a b   but   no word", "plan b c   and   a b   but   no word"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn tag_characters_are_read() {
        let text: String =
            "hi".chars().chain("obey me".chars().map(|ch| char::from_u32(0xe0000 + ch as u32).unwrap())).collect();
        let folded = Folded::of(&text);
        assert_eq!((folded.text(), folded.hidden()), ("hi", "obey me"));
    }

    #[test]
    fn origin_covers_the_disguise() {
        let text = "ich k\u{200b}ïll 🙂";
        let folded = Folded::of(text);
        let at = folded.text().find("kill").unwrap();
        assert_eq!(&text[folded.origin(at..at + 4)], "k\u{200b}ïll");
        assert_eq!(folded.origin(5..5), 0..0);
        assert_eq!(folded.origin(9_999..10_000), 0..0);
    }

    fn tricky() -> impl Strategy<Value = String> {
        let parts = proptest::sample::select(vec![
            "a",
            "i i i",
            "m y",
            "'",
            "\n",
            "lll",
            "ooo",
            "iii",
            "k1ll",
            "0",
            "$",
            "!",
            "+",
            "@",
            " ",
            "  ",
            ".",
            "é",
            "\u{301}",
            "к",
            "О",
            "ß",
            "İ",
            "\u{200d}",
            "🙂",
            "\u{e0041}",
            "Å",
            "ﬁ",
            "½",
            "가",
            "\u{1100}",
            "\u{1161}",
            "\u{11a8}",
            "ά",
            "Ω",
            "%41",
            "ϓ",
            "ﷺ",
            "\u{fe0f}",
        ]);
        prop_oneof![proptest::collection::vec(parts, 0..24).prop_map(|parts| parts.concat()), any::<String>(),]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn folding_again_changes_nothing(text in tricky()) {
            let once = folded(&text);
            prop_assert_eq!(folded(&once), once);
        }

        #[test]
        fn origins_slice_the_original(text in tricky(), from in 0_usize..64, len in 0_usize..64) {
            let folded = Folded::of(&text);
            prop_assert_eq!(folded.origin.len(), folded.text.len());
            let from = from.min(folded.text.len());
            let to = (from + len).min(folded.text.len());
            prop_assert!(text.get(folded.origin(from..to)).is_some());
        }
    }
}
