//! Sentence boundaries: Unicode's rules (UAX 29), mended where a full stop does not end a sentence.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations after which a sentence goes on, lower case, without the last full stop.
const ABBREVIATIONS: &[&str] = &[
    "dr", "mr", "mrs", "ms", "prof", "st", "sr", "jr", "vs", "etc", "e.g", "i.e", "cf", "fig", "figs", "eq", "eqs",
    "no", "nos", "vol", "vols", "pp", "ed", "eds", "al", "inc", "ltd", "co", "corp", "gen", "col", "lt", "sgt", "capt",
    "rev", "hon", "approx", "ca", "dept", "est", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct",
    "nov", "dec", "z.b", "d.h", "u.a", "bzw", "usw", "nr", "bd", "hrsg", "s.o", "mme", "mlle", "p.ex", "ee", "uu",
];

/// The sentences of a paragraph as byte ranges, without blanks around them. A line end inside the paragraph counts as
/// a blank: text that was wrapped by hand keeps its sentences.
#[must_use]
pub fn sentences(paragraph: &str) -> Vec<Range<usize>> {
    let unwrapped = paragraph.replace('\n', " ");
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut open: Option<usize> = None;
    for (at, part) in unwrapped.split_sentence_bound_indices() {
        let end = at + part.trim_end().len();
        let start = open.unwrap_or(at + (part.len() - part.trim_start().len()));
        if end <= start {
            continue;
        }
        if goes_on(&unwrapped[start..end]) {
            open = Some(start);
        } else {
            out.push(start..end);
            open = None;
        }
    }
    if let Some(start) = open {
        out.push(start..unwrapped.trim_end().len());
    }
    out
}

/// Whether what looks like a sentence ends in an abbreviation, an initial or the number of a list item.
fn goes_on(sentence: &str) -> bool {
    let Some(body) = sentence.strip_suffix('.') else { return false };
    let last = body.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"')).next().unwrap_or_default();
    let mut chars = last.chars();
    match (chars.next(), chars.next()) {
        (Some(initial), None) if initial.is_uppercase() && initial != 'I' => true,
        (Some(first), _) if first.is_ascii_digit() => body.len() == last.len(),
        (Some(_), _) if last.len() <= 6 => ABBREVIATIONS.contains(&last.to_lowercase().as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn sentences_end_at_full_stops_and_question_marks() {
        assert_eq!(split("It rains. Does it? Yes!  It does."), ["It rains.", "Does it?", "Yes!", "It does."]);
    }

    #[test]
    fn abbreviations_and_initials_do_not_end_a_sentence() {
        assert_eq!(
            split("Dr. Smith met J. R. Tolkien. They talked."),
            ["Dr. Smith met J. R. Tolkien.", "They talked."]
        );
        assert_eq!(split("See e.g. Fig. 3 for this. Done."), ["See e.g. Fig. 3 for this.", "Done."]);
    }

    #[test]
    fn wrapped_lines_are_one_sentence() {
        assert_eq!(split("A line that\nwas wrapped. Next"), ["A line that\nwas wrapped.", "Next"]);
    }

    #[test]
    fn numbers_keep_their_points() {
        assert_eq!(split("Pi is 3.14 or so. Good."), ["Pi is 3.14 or so.", "Good."]);
        assert_eq!(split("1. First item."), ["1. First item."]);
    }

    #[test]
    fn other_scripts_have_their_own_stops() {
        assert_eq!(split("\u{4f60}\u{597d}\u{3002}\u{518d}\u{89c1}\u{3002}").len(), 2);
    }
}
