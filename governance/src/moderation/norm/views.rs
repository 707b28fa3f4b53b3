//! Further texts inside a text: what tag characters, base64, hex, percent signs and rot13 hide.

use std::ops::Range;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

use super::Folded;
use super::head;

/// Shortest encoded span, characters.
const SPAN_MIN: usize = 16;
/// How often what was decoded is decoded again.
const DEPTH: usize = 2;
/// Bytes of decoded text in all.
const BUDGET: usize = 16 * 1024;
/// Views in all.
const VIEWS_MAX: usize = 32;
/// Words that nearly every English text of some length has.
const COMMON: [&str; 16] =
    ["the", "and", "you", "to", "of", "is", "in", "for", "your", "all", "this", "that", "with", "how", "me", "are"];

/// How a view's text is written in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKind {
    /// As it stands.
    Plain,
    /// In invisible tag characters.
    Tags,
    /// In base64.
    Base64,
    /// In hexadecimal.
    Hex,
    /// With percent signs.
    Percent,
    /// Each letter moved by thirteen.
    Rot13,
}

/// A text to be looked at.
#[derive(Debug, Clone)]
pub struct View {
    /// How it is written.
    pub kind: ViewKind,
    /// What it says.
    pub text: Folded,
    /// The bytes of the original that spell it; none where the text itself knows.
    within: Option<Range<usize>>,
}

impl View {
    /// The bytes of the original behind a range of the view's text.
    #[must_use]
    pub fn origin(&self, range: Range<usize>) -> Range<usize> {
        self.within.clone().unwrap_or_else(|| self.text.origin(range))
    }
}

/// The text itself, then what is hidden in it.
#[must_use]
pub fn views(text: &str) -> Vec<View> {
    let text = head(text, super::VIEW_BYTES);
    let plain = Folded::of(text);
    let mut hidden = Vec::new();
    if !plain.hidden().is_empty() {
        hidden.push((ViewKind::Tags, plain.hidden().to_owned(), 0..text.len()));
    }
    hidden.extend(decoded(text));
    if let Some(turned) = rot13(plain.text()) {
        hidden.push((ViewKind::Rot13, turned, 0..text.len()));
    }
    let mut views = vec![View { kind: ViewKind::Plain, text: plain, within: None }];
    let mut budget = BUDGET;
    for _ in 0..DEPTH {
        let mut deeper = Vec::new();
        for (kind, inner, within) in hidden {
            if views.len() >= VIEWS_MAX || budget == 0 {
                return views;
            }
            let inner = head(&inner, budget);
            budget -= inner.len();
            deeper.extend(decoded(inner).into_iter().map(|(kind, text, _)| (kind, text, within.clone())));
            views.push(View { kind, text: Folded::of(inner), within: Some(within) });
        }
        hidden = deeper;
    }
    views
}

type Hidden = (ViewKind, String, Range<usize>);

/// What encoded spans of a text say.
fn decoded(text: &str) -> Vec<Hidden> {
    let mut found = Vec::new();
    for span in spans(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')) {
        let word = &text[span.clone()];
        if let Some(inner) = hex(word) {
            found.push((ViewKind::Hex, inner, span));
        } else if let Some(inner) = base64(word) {
            found.push((ViewKind::Base64, inner, span));
        }
    }
    for span in spans(text, u8::is_ascii_graphic) {
        let word = &text[span.clone()];
        // Two are common in links; a text in disguise has more.
        if word.bytes().filter(|byte| *byte == b'%').count() > 2 {
            let inner = percent_encoding::percent_decode_str(word).decode_utf8_lossy().into_owned();
            if inner != word && is_text(&inner) {
                found.push((ViewKind::Percent, inner, span));
            }
        }
    }
    found.truncate(VIEWS_MAX);
    found
}

/// Runs of at least [`SPAN_MIN`] bytes of a kind; all of them ASCII.
fn spans(text: &str, belongs: fn(&u8) -> bool) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    for run in text.as_bytes().chunk_by(|a, b| belongs(a) == belongs(b)) {
        if run.len() >= SPAN_MIN && belongs(&run[0]) {
            spans.push(at..at + run.len());
        }
        at += run.len();
    }
    spans
}

fn hex(word: &str) -> Option<String> {
    readable(HEXLOWER_PERMISSIVE.decode(word.as_bytes()).ok()?)
}

fn base64(word: &str) -> Option<String> {
    let bytes = BASE64_NOPAD.decode(word.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(word.as_bytes()));
    readable(bytes.ok()?)
}

fn readable(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| is_text(text))
}

/// Whether decoded bytes are words rather than noise: mostly letters and spaces.
fn is_text(text: &str) -> bool {
    let (mut all, mut wordy) = (0_usize, 0_usize);
    for ch in text.chars() {
        all += 1;
        wordy += usize::from(ch.is_alphabetic() || ch == ' ');
    }
    all >= 6 && wordy * 10 >= all * 7
}

/// The text moved by thirteen letters, if that has clearly more common words.
fn rot13(text: &str) -> Option<String> {
    if text.len() < SPAN_MIN {
        return None;
    }
    let turn = |ch: char| match ch {
        'a'..='m' => char::from(ch as u8 + 13),
        'n'..='z' => char::from(ch as u8 - 13),
        _ => ch,
    };
    let common = |text: &str| {
        let words = text.split(|ch: char| !ch.is_alphanumeric()).filter(|word| COMMON.contains(word));
        words.take(64).count()
    };
    let turned: String = text.chars().map(turn).collect();
    let (here, there) = (common(text), common(&turned));
    (there >= 2 && there > 2 * here).then_some(turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<(ViewKind, String)> {
        views(text).into_iter().skip(1).map(|view| (view.kind, view.text.text().to_owned())).collect()
    }

    #[test]
    fn encodings_are_read() {
        let secret = "obey the hidden words of me";
        let base64 = data_encoding::BASE64.encode(secret.as_bytes());
        let hex = data_encoding::HEXUPPER.encode(secret.as_bytes());
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for (kind, text) in [(ViewKind::Base64, base64), (ViewKind::Hex, hex), (ViewKind::Percent, percent)] {
            assert_eq!(hidden(&format!("look: {text} ok")), [(kind, secret.to_owned())]);
        }
        assert_eq!(hidden("borl gur uvqqra jbeqf bs zr"), [(ViewKind::Rot13, secret.to_owned())]);
    }

    #[test]
    fn decoding_goes_two_deep_and_no_deeper() {
        let mut text = "attack at dawn with everyone".to_owned();
        for _ in 0..3 {
            text = data_encoding::BASE64_NOPAD.encode(text.as_bytes());
        }
        assert!(hidden(&text).len() <= DEPTH, "{:?}", hidden(&text));
    }

    #[test]
    fn origin_of_a_decoded_view_is_the_encoded_span() {
        let text = format!("see {} end", data_encoding::BASE64_NOPAD.encode(b"obey the hidden words"));
        let view = &views(&text)[1];
        assert_eq!(view.origin(0..4), 4..text.len() - 4);
    }

    #[test]
    fn hashes_paths_and_links_hide_nothing() {
        let sha = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in
            [sha, "https://example.org/a%20b?q=c%3Dd", "/usr/lib/x86_64-linux-gnu/libc", "AAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(hidden(text), [], "{text}");
        }
    }
}
