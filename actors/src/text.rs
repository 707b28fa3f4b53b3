//! Words, terms and sentences of natural text: the ground of routing and of extractive answers.
//!
//! Sentences follow UAX #29 with two repairs that plain prose needs: a single line break inside a paragraph is not an end,
//! and neither is the dot of a known abbreviation. Terms are lower-case words without function words, reduced by a
//! light English suffix stripper; words of other languages pass through it unchanged in practice.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// In the order of the year.
pub(crate) const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Function words and light verbs that carry no topic, sorted for binary search.
const STOP: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "being", "between", "both", "but", "by", "can", "could", "did", "do", "does", "doing", "done",
    "during", "each", "either", "else", "ever", "every", "explain", "few", "find", "for", "from", "get", "give",
    "given", "go", "got", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if",
    "in", "into", "is", "it", "its", "itself", "just", "know", "let", "like", "many", "may", "me", "might", "more",
    "most", "much", "must", "my", "no", "nor", "not", "now", "of", "off", "on", "one", "only", "or", "other", "our",
    "out", "over", "own", "please", "said", "same", "say", "says", "shall", "she", "should", "so", "some", "such",
    "tell", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "through", "to",
    "too", "under", "until", "up", "us", "use", "used", "very", "was", "we", "were", "what", "when", "where", "which",
    "while", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
];

/// Words whose dot does not end a sentence.
const ABBREVIATIONS: &[&str] = &[
    "dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "no.", "fig.", "e.g.", "i.e.", "vs.", "cf.", "approx.", "ca.", "jr.",
    "sr.", "vol.", "sec.", "eq.",
];

/// Lower-case words of `text` in order, without a possessive ending.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    text.unicode_words()
        .map(|word| {
            let lower = word.to_lowercase().replace('\u{2019}', "'");
            lower.strip_suffix("'s").map_or(lower.clone(), str::to_owned)
        })
        .collect()
}

/// Whether the lower-case `word` carries no topic.
#[must_use]
pub fn is_stop(word: &str) -> bool {
    STOP.binary_search(&word).is_ok()
}

/// Content terms of `text` in order: words without function words, stemmed.
#[must_use]
pub fn terms(text: &str) -> Vec<String> {
    words(text).iter().filter(|word| !is_stop(word)).map(|word| stem(word)).collect()
}

/// Reduces an English word to a stem shared by its usual inflections.
#[must_use]
pub fn stem(word: &str) -> String {
    if word.len() <= 3 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return word.to_owned();
    }
    let singular = singular(word);
    let base = without_ending(&singular);
    let base = base.strip_suffix('e').filter(|rest| rest.len() >= 3).unwrap_or(&base);
    // Short stems keep their `y`: "lay" itself is too short to be stemmed and must meet "lays".
    let long = base.strip_suffix('y').filter(|rest| rest.len() >= 3);
    long.map_or_else(|| base.to_owned(), |rest| format!("{rest}i"))
}

fn singular(word: &str) -> String {
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() >= 2) {
        return format!("{rest}y");
    }
    for ending in ["sses", "xes", "zes", "ches", "shes"] {
        if word.ends_with(ending) {
            return word.get(..word.len() - 2).unwrap_or(word).to_owned();
        }
    }
    let kept = ["ss", "us", "is"].iter().any(|ending| word.ends_with(ending));
    if kept { word.to_owned() } else { word.strip_suffix('s').unwrap_or(word).to_owned() }
}

fn without_ending(word: &str) -> String {
    if let Some(rest) = word.strip_suffix("ied").filter(|rest| rest.len() >= 2) {
        return format!("{rest}y");
    }
    for ending in ["ing", "ed", "ly"] {
        let Some(rest) = word.strip_suffix(ending) else { continue };
        if rest.len() < 3 || !rest.bytes().any(|b| b"aeiouy".contains(&b)) {
            continue;
        }
        let mut back = rest.bytes().rev();
        let (last, before) = (back.next(), back.next());
        let doubled = last == before && !matches!(last, Some(b'l' | b's' | b'z'));
        return if doubled { rest.get(..rest.len() - 1).unwrap_or(rest).to_owned() } else { rest.to_owned() };
    }
    word.to_owned()
}

/// Byte ranges of the sentences of `text`, trimmed, in order and without overlap.
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let flat = unwrap_lines(text);
    let mut found: Vec<Range<usize>> = Vec::new();
    for (start, piece) in flat.split_sentence_bound_indices() {
        let range = start..start + piece.len();
        match found.last_mut() {
            Some(last) if ends_in_abbreviation(flat.get(last.clone()).unwrap_or_default()) => last.end = range.end,
            _ => found.push(range),
        }
    }
    found.into_iter().filter_map(|range| trimmed(text, range)).collect()
}

/// Same bytes with single line breaks inside a paragraph as spaces, so that wrapped prose stays one sentence.
fn unwrap_lines(text: &str) -> String {
    let mut flat = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let Some(body) = line.strip_suffix('\n') else {
            flat.push_str(line);
            break;
        };
        flat.push_str(body);
        let next = lines.peek().map_or("", |next| next.trim());
        let joins = !starts_block(body.trim(), true) && !starts_block(next, false);
        flat.push(if joins { ' ' } else { '\n' });
    }
    flat
}

/// Whether a trimmed line stands alone: blank, heading, list item, table row, quote. A list item may be continued.
fn starts_block(line: &str, first: bool) -> bool {
    let marks: &[char] = if first { &['#', '|'] } else { &['#', '|', '-', '*', '+', '>'] };
    let numbered = line.split_once(". ").is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
    line.is_empty() || line.starts_with(marks) || (!first && numbered)
}

fn ends_in_abbreviation(sentence: &str) -> bool {
    let last = sentence.split_whitespace().next_back().unwrap_or_default();
    let initial = last.len() == 2 && last.ends_with('.') && last.starts_with(|c: char| c.is_ascii_uppercase());
    (initial || ABBREVIATIONS.contains(&last.to_lowercase().as_str())) && !sentence.ends_with('\n')
}

fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let piece = text.get(range.clone())?;
    let start = range.start + (piece.len() - piece.trim_start().len());
    let end = start + piece.trim().len();
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn inflections_share_a_stem() {
        for group in [
            ["builds", "building"],
            ["study", "studies"],
            ["stopped", "stops"],
            ["making", "makes"],
            ["boxes", "box"],
            ["lays", "lay"],
        ] {
            assert_eq!(stem(group[0]), stem(group[1]), "{group:?}");
        }
        assert_eq!(stem("glass"), "glass");
    }

    #[test]
    fn sentences_survive_wrapped_lines_and_abbreviations() {
        let text = "# Bees\n\nDr. Hale keeps\nbees. They sleep, e.g. in winter!\n- one item\n- two";
        let found: Vec<_> = sentences(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, ["# Bees", "Dr. Hale keeps\nbees.", "They sleep, e.g. in winter!", "- one item", "- two"]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn sentences_are_ordered_slices(text in "\\PC{0,200}") {
            let mut end = 0;
            for range in sentences(&text) {
                proptest::prop_assert!(range.start >= end && text.get(range.clone()).is_some());
                end = range.end;
            }
        }
    }
}
