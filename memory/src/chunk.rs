//! Cutting a document into the pieces that retrieval works on.
//!
//! A chunk is a range of the stored text: whole sentences, `min..=max` tokens where the text allows it, never across
//! a heading or a page, beginning with the last sentence of the chunk before it if that is short. Heading lines are
//! no part of a chunk's text; their path is its `heading`.

mod outline;
mod sentence;
mod token;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use self::sentence::sentences;
pub use self::token::count as token_count;
pub(crate) use self::token::{is_unspaced, words};

use self::outline::{Paragraph, Section, outline};
use crate::document::Format;
use crate::normalize::PAGE_BREAK;

/// Sizes of chunks, in tokens (words, or single characters of scripts without blanks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSize {
    /// A chunk ends at a paragraph's end once it has this many.
    pub min: usize,
    /// A chunk never has more.
    pub max: usize,
    /// A last sentence of at most this many is repeated in the next chunk.
    pub overlap: usize,
}

impl Default for ChunkSize {
    fn default() -> Self {
        Self { min: 60, max: 200, overlap: 40 }
    }
}

/// One retrieval unit of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Headings above it, outermost first, joined by ` > `.
    pub heading: String,
    /// Its place in the stored text, in bytes.
    pub bytes: (u32, u32),
    /// The same place in characters.
    pub chars: (u32, u32),
    /// Page it stands on, counted from 1; 0 in a document without page breaks.
    pub page: u32,
}

impl Chunk {
    /// The chunk's text.
    #[must_use]
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.bytes.0 as usize..self.bytes.1 as usize).unwrap_or_default()
    }
}

/// Cuts normalised text into chunks, in order. Texts must be smaller than 4 GiB.
#[must_use]
pub fn chunks(text: &str, format: Format, size: ChunkSize) -> Vec<Chunk> {
    let paged = text.contains(PAGE_BREAK);
    let mut place = Place::default();
    let mut out = Vec::new();
    for section in outline(text, format) {
        let first = out.len();
        for range in pack(text, &section, size) {
            out.push(place.chunk(text, &section.heading, range, paged));
        }
        if out.len() == first
            && let Some(line) = section.heading_line
        {
            // A heading with nothing below it is still findable.
            out.push(place.chunk(text, &section.heading, line, paged));
        }
    }
    out
}

/// Runs along the text once and turns byte offsets into character offsets and pages.
#[derive(Debug, Default)]
struct Place {
    byte: usize,
    char: usize,
    page_breaks: u32,
}

impl Place {
    fn chunk(&mut self, text: &str, heading: &str, range: Range<usize>, paged: bool) -> Chunk {
        self.seek(text, range.start);
        let start = self.char;
        let page = if paged { self.page_breaks + 1 } else { 0 };
        // The next chunk may begin inside this one (overlap), so the end is counted apart.
        let length = text[range.clone()].chars().count();
        Chunk {
            heading: heading.to_owned(),
            bytes: (narrow(range.start), narrow(range.end)),
            chars: (narrow(start), narrow(start + length)),
            page,
        }
    }

    fn seek(&mut self, text: &str, to: usize) {
        assert!(to >= self.byte, "chunks come in order");
        for c in text[self.byte..to].chars() {
            self.char += 1;
            self.page_breaks += u32::from(c == PAGE_BREAK);
        }
        self.byte = to;
    }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A run of text that is not divided further: a sentence, or a piece of one that is too long.
#[derive(Debug, Clone)]
struct Unit {
    range: Range<usize>,
    tokens: usize,
}

/// Fills chunks with the units of one section.
fn pack(text: &str, section: &Section, size: ChunkSize) -> Vec<Range<usize>> {
    let mut packer = Packer { size, done: Vec::new(), open: Vec::new(), tokens: 0 };
    for paragraph in &section.paragraphs {
        let units = units(text, paragraph, size.max);
        let whole: usize = units.iter().map(|unit| unit.tokens).sum();
        if paragraph.starts_page {
            packer.close(false);
        } else if packer.tokens >= size.min && packer.tokens + whole > size.max {
            packer.close(true);
        }
        for unit in units {
            packer.add(unit);
        }
    }
    packer.close(false);
    packer.done
}

#[derive(Debug)]
struct Packer {
    size: ChunkSize,
    done: Vec<Range<usize>>,
    open: Vec<Unit>,
    tokens: usize,
}

impl Packer {
    fn add(&mut self, unit: Unit) {
        if self.overflows(&unit) {
            self.close(true);
            if self.overflows(&unit) {
                self.open.clear();
                self.tokens = 0;
            }
        }
        self.tokens += unit.tokens;
        self.open.push(unit);
    }

    fn overflows(&self, unit: &Unit) -> bool {
        self.open.first().is_some_and(|first| {
            self.tokens + unit.tokens > self.size.max
                || unit.range.end - first.range.start > self.size.max * token::BYTES_PER_TOKEN
        })
    }

    /// Ends the open chunk; with `carry`, the next one begins with its last sentence if that is short.
    fn close(&mut self, carry: bool) {
        let open = std::mem::take(&mut self.open);
        self.tokens = 0;
        let (Some(first), Some(last)) = (open.first(), open.last()) else { return };
        let range = first.range.start..last.range.end;
        // A chunk that holds only what it repeats says nothing new.
        if self.done.last().is_none_or(|previous| previous.end < range.end) {
            self.done.push(range);
        }
        if carry && open.len() > 1 && last.tokens <= self.size.overlap {
            self.tokens = last.tokens;
            self.open.push(last.clone());
        }
    }
}

/// The sentences of a paragraph, those over `max` tokens cut into pieces.
fn units(text: &str, paragraph: &Paragraph, max: usize) -> Vec<Unit> {
    let body = &text[paragraph.range.clone()];
    let base = paragraph.range.start;
    let mut out = Vec::new();
    let ranges = if paragraph.prose { sentences(body) } else { lines(body) };
    for range in ranges {
        for piece in token::pieces(&body[range.clone()], max) {
            let start = base + range.start + piece.range.start;
            let end = base + range.start + piece.range.end;
            out.push(Unit { range: start..end, tokens: piece.tokens });
        }
    }
    out
}

/// The non-blank lines of a block of code or of a table.
fn lines(body: &str) -> Vec<Range<usize>> {
    let mut at = 0;
    let mut out = Vec::new();
    for line in body.split_inclusive('\n') {
        let end = at + line.trim_end().len();
        if end > at {
            out.push(at..end);
        }
        at += line.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::normalize::normalize;

    fn texts(text: &str, format: Format, size: ChunkSize) -> Vec<(String, String)> {
        chunks(text, format, size).iter().map(|c| (c.heading.clone(), c.of(text).to_owned())).collect()
    }

    fn small() -> ChunkSize {
        ChunkSize { min: 3, max: 8, overlap: 4 }
    }

    #[test]
    fn sentences_fill_a_chunk_and_the_last_is_repeated() {
        let text = "One two three four. Five six seven. Eight nine ten eleven.";
        let got = texts(text, Format::Text, small());
        assert_eq!(got[0].1, "One two three four. Five six seven.");
        assert_eq!(got[1].1, "Five six seven. Eight nine ten eleven.");
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn no_chunk_crosses_a_heading() {
        let text = "# Cats\n\nCats sleep.\n\n## Food\n\nCats eat.\n\n# Dogs\n\nDogs bark.";
        let got = texts(text, Format::Markdown, ChunkSize::default());
        let want = [("Cats", "Cats sleep."), ("Cats > Food", "Cats eat."), ("Dogs", "Dogs bark.")];
        assert_eq!(got, want.map(|(h, t)| (h.to_owned(), t.to_owned())));
    }

    #[test]
    fn heading_without_body_is_kept() {
        assert_eq!(
            texts("# Only a title", Format::Markdown, small()),
            [("Only a title".to_owned(), "# Only a title".to_owned())]
        );
    }

    #[test]
    fn pages_are_counted_and_not_crossed() {
        let text = "First page.\u{c}Second page.\u{c}\u{c}Fourth page.";
        let got: Vec<_> =
            chunks(text, Format::Text, ChunkSize::default()).iter().map(|c| (c.page, c.of(text).to_owned())).collect();
        assert_eq!(
            got,
            [(1, "First page.".to_owned()), (2, "Second page.".to_owned()), (4, "Fourth page.".to_owned())]
        );
    }

    #[test]
    fn blocks_stay_apart() {
        let text = "ada: hello\n\nbob: hi\nthere";
        let got = texts(text, Format::Blocks, ChunkSize::default());
        assert_eq!(got.iter().map(|c| c.1.as_str()).collect::<Vec<_>>(), ["ada: hello", "bob: hi\nthere"]);
    }

    #[test]
    fn text_without_blanks_is_cut() {
        let text = "x".repeat(100_000);
        let got = chunks(&text, Format::Text, ChunkSize::default());
        assert!(got.len() > 10, "one endless word must not be one chunk: {}", got.len());
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                "[a-zA-Z\u{e9}\u{df}\u{4e2d}\u{6587}0-9]{1,9}",
                Just(". ".to_owned()),
                Just("! ".to_owned()),
                Just("\n\n".to_owned()),
                Just("\n".to_owned()),
                Just("\n# h ".to_owned()),
                Just("\n```\n".to_owned()),
                Just("\n- ".to_owned()),
                Just("\u{c}".to_owned()),
                Just(" ".to_owned()),
                "\\PC{0,6}",
            ],
            0..120,
        )
        .prop_map(|parts| normalize(&parts.concat()))
    }

    fn any_format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Text), Just(Format::Markdown), Just(Format::Blocks)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn character_span_slices_to_the_chunk(text in any_text(), format in any_format()) {
            for chunk in chunks(&text, format, small()) {
                let (from, to) = (chunk.chars.0 as usize, chunk.chars.1 as usize);
                let sliced: String = text.chars().skip(from).take(to - from).collect();
                prop_assert_eq!(sliced.as_str(), chunk.of(&text));
                prop_assert!(!sliced.trim().is_empty());
            }
        }

        #[test]
        fn every_word_is_in_a_chunk_or_a_heading(text in any_text(), format in any_format()) {
            let mut covered = vec![false; text.len()];
            for chunk in chunks(&text, format, small()) {
                covered[chunk.bytes.0 as usize..chunk.bytes.1 as usize].fill(true);
            }
            for section in outline(&text, format) {
                if let Some(line) = section.heading_line {
                    covered[line].fill(true);
                }
            }
            for (at, c) in text.char_indices() {
                prop_assert!(covered[at] || !c.is_alphanumeric(), "{c:?} at {at} of {text:?} is lost");
            }
        }

        #[test]
        fn no_chunk_is_over_the_maximum(text in any_text(), format in any_format()) {
            for chunk in chunks(&text, format, small()) {
                if !chunk.of(&text).starts_with('#') {
                    prop_assert!(token_count(chunk.of(&text)) <= small().max, "{:?}", chunk.of(&text));
                }
            }
        }
    }
}
