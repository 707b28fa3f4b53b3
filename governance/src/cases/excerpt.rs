//! What is shown of a text: enough to know which one is meant, not enough to do its harm again.

use std::ops::Range;

use crate::dlp;
use crate::moderation::Level;
use crate::moderation::verdict::Evidence;

/// Bytes shown before the first place of evidence.
const BEFORE: usize = 80;
/// Bytes shown from there on.
const BEHIND: usize = 160;
/// What stands for a character that is not shown.
const DOT: char = '.';

/// A part of a text around the evidence, as long as it was: of what was matched the first letter and asterisks, of the rest
/// dots for H0 and H1 and the words themselves for H2; personal data and secrets are always dots.
#[must_use]
pub fn excerpt(text: &str, evidence: &[Evidence], level: Level) -> String {
    let at = window(text, evidence);
    let shown = text.get(at.clone()).unwrap_or_default();
    let spans: Vec<Range<usize>> = evidence.iter().map(|place| place.start as usize..place.end as usize).collect();
    let secret: Vec<Range<usize>> =
        dlp::scan(shown).into_iter().map(|found| found.span.start + at.start..found.span.end + at.start).collect();
    let is_in = |spans: &[Range<usize>], at: usize| spans.iter().any(|span| span.contains(&at));
    let keeps_words = level > Level::H1;
    let redact = |(offset, ch): (usize, char)| {
        let at = at.start + offset;
        if ch.is_whitespace() {
            ch
        } else if is_in(&secret, at) {
            DOT
        } else if is_in(&spans, at) {
            if spans.iter().any(|span| span.start == at) { ch } else { '*' }
        } else if keeps_words {
            ch
        } else {
            DOT
        }
    };
    shown.char_indices().map(redact).collect()
}

/// The same part as it was, for whoever judges it anew.
pub(super) fn kept(text: &str, evidence: &[Evidence], most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let first = evidence.iter().map(|place| place.start as usize).min().unwrap_or_default();
    let start = text.floor_char_boundary(first.saturating_sub(most / 4));
    let end = text.floor_char_boundary(start.saturating_add(most));
    text.get(start..end).unwrap_or_default().to_owned()
}

fn window(text: &str, evidence: &[Evidence]) -> Range<usize> {
    let first = evidence.iter().map(|place| place.start as usize).min().unwrap_or_default().min(text.len());
    let start = text.floor_char_boundary(first.saturating_sub(BEFORE));
    start..text.floor_char_boundary(first.saturating_add(BEHIND))
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;

    use super::*;

    fn place(start: usize, end: usize) -> Evidence {
        Evidence { start: u32::try_from(start).unwrap(), end: u32::try_from(end).unwrap(), by: "model".into() }
    }

    #[test]
    fn h2_keeps_the_words_around_and_what_is_graver_only_their_length() {
        let text = "you are a fool, all of you";
        let of = |level| excerpt(text, &[place(10, 14)], level);
        assert_eq!(of(Level::H2), "you are a f***, all of you");
        assert_eq!(of(Level::H1), "... ... . f***. ... .. ...");
        assert_eq!(of(Level::H0), of(Level::H1));
    }

    #[test]
    fn personal_data_is_never_shown() {
        let text = "fool, write to ann.smith@example.com or 4111 1111 1111 1111, said Maria Gonzalez";
        let shown = excerpt(text, &[place(0, 4)], Level::H2);
        assert!(shown.starts_with("f***, write to ......") && shown.ends_with(", said ..... ........"), "{shown}");
        assert!(!shown.contains("ann") && !shown.contains("4111"), "{shown}");
    }

    #[test]
    fn what_is_kept_of_a_long_text_has_the_evidence_in_it() {
        let text = format!("{}needle{}", "ä".repeat(9_000), "b".repeat(9_000));
        let kept = kept(&text, &[place(18_000, 18_006)], 8_192);
        assert!(kept.contains("needle") && kept.len() <= 8_192, "{}", kept.len());
        assert_eq!(super::kept("short", &[], 8_192), "short");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn of_grave_text_only_first_letters_of_matches_are_shown(text in "[a-zäö ]{0,400}", spans in prop::collection::vec((0_usize..500, 0_usize..40), 0..4)) {
            let evidence: Vec<Evidence> = spans.iter().map(|(start, long)| place(*start, start + long)).collect();
            let shown = excerpt(&text, &evidence, Level::H0);
            prop_assert!(shown.chars().filter(|ch| ch.is_alphabetic()).count() <= evidence.len());
            let mild = excerpt(&text, &evidence, Level::H2);
            prop_assert_eq!(mild.chars().count(), shown.chars().count());
        }
    }
}
