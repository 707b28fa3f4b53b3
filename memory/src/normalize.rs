//! The one form in which text is stored: NFC, `\n` line ends, no control characters.
//!
//! Offsets of chunks and passages count characters of this form, never of the text that came in.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Separates the pages of a paged document in stored text.
pub const PAGE_BREAK: char = '\u{c}';

/// Brings text into the stored form. Idempotent.
#[must_use]
pub fn normalize(text: &str) -> String {
    let cleaned = clean(text);
    match is_nfc_quick(cleaned.chars()) {
        IsNormalized::Yes => cleaned,
        _ => cleaned.nfc().collect(),
    }
}

/// Drops control characters, unifies line ends, cuts trailing blanks and keeps at most one blank line in a row.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut line_ends = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                '\n'
            }
            '\u{2028}' | '\u{85}' => '\n',
            other => other,
        };
        match c {
            '\n' => {
                trim_blanks(&mut out);
                line_ends += 1;
                if line_ends <= 2 && !out.is_empty() {
                    out.push('\n');
                }
            }
            PAGE_BREAK => {
                trim_blanks(&mut out);
                line_ends = 0;
                out.push(PAGE_BREAK);
            }
            '\t' | '\u{a0}' => out.push(' '),
            c if is_dropped(c) => {}
            c => {
                if c != ' ' {
                    line_ends = 0;
                }
                out.push(c);
            }
        }
    }
    out.truncate(out.trim_end_matches([' ', '\n']).len());
    out
}

fn trim_blanks(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
}

/// Control characters, byte order marks, bidirectional overrides and invisible format characters, which serve hiding
/// text from people; joiners stay, since scripts need them.
fn is_dropped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{feff}' | '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{fffe}' | '\u{ffff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

/// A title or heading on one line, with single blanks, cut at `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let joined = normalize(text).replace(PAGE_BREAK, " ");
    let mut out = String::new();
    for word in joined.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    match out.char_indices().nth(max) {
        Some((end, _)) => out[..end].to_owned(),
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn composed_and_decomposed_text_are_equal() {
        assert_eq!(normalize("cafe\u{301}"), "caf\u{e9}");
    }

    #[test]
    fn control_and_hidden_characters_are_dropped() {
        assert_eq!(normalize("\u{feff}a\u{0}b\u{202e}c\u{200b}d\u{7f}"), "abcd");
    }

    #[test]
    fn line_ends_and_blank_lines_are_unified() {
        assert_eq!(normalize("\r\n\r\na  \r\nb\rc\n\n\n\n d\n\n"), "a\nb\nc\n\n d");
    }

    #[test]
    fn page_breaks_stay() {
        assert_eq!(normalize("one\n\u{c}two"), "one\n\u{c}two");
    }

    #[test]
    fn one_line_cuts_at_characters() {
        assert_eq!(one_line("  \u{e9}a\n b ", 3), "\u{e9}a ");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn normalizing_twice_changes_nothing(text in "[\\PC\\n\\r\\t \u{c}\u{301}\u{308}a-c]{0,200}") {
            let once = normalize(&text);
            prop_assert_eq!(normalize(&once), once);
        }
    }
}
