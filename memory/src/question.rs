//! A query as typed: words, `"phrases"`, `-excluded` words and `field:value` filters. Anything that does not parse is
//! plain words; there are no syntax errors.

use serde::{Deserialize, Serialize};

use crate::normalize::one_line;

/// Fields a filter may name.
pub const FILTER_FIELDS: &[&str] = &["title", "source", "lang", "id"];

/// A parsed query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The words that are searched and scored, those of phrases included, in their order.
    pub text: String,
    /// Word sequences that must occur.
    pub phrases: Vec<String>,
    /// Words and phrases that must not occur.
    pub excluded: Vec<String>,
    /// Field and value pairs that must hold.
    pub filters: Vec<(String, String)>,
}

impl Question {
    /// Reads a query.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let line = one_line(query, usize::MAX);
        let mut question = Self::default();
        let mut words = Vec::new();
        let mut rest = line.as_str();
        while let Some(item) = next_item(&mut rest) {
            match item {
                Item::Excluded(what) => question.excluded.push(what.to_owned()),
                Item::Filter(field, value) => question.filters.push((field.to_owned(), value.to_owned())),
                Item::Phrase(phrase) => {
                    words.push(phrase);
                    question.phrases.push(phrase.to_owned());
                }
                Item::Word(word) => words.push(word),
            }
        }
        question.text = words.join(" ");
        question
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && !self.text.contains(char::is_alphanumeric)
    }
}

enum Item<'a> {
    Word(&'a str),
    Phrase(&'a str),
    Excluded(&'a str),
    Filter(&'a str, &'a str),
}

fn next_item<'a>(rest: &mut &'a str) -> Option<Item<'a>> {
    *rest = rest.trim_start();
    let first = rest.chars().next()?;
    if let Some(phrase) = quoted(rest, 0) {
        return Some(Item::Phrase(phrase));
    }
    if first == '-' {
        if let Some(phrase) = quoted(rest, 1) {
            return Some(Item::Excluded(phrase));
        }
        let word = take_word(rest);
        // A lone dash, or a number such as -5, excludes nothing.
        return Some(match word.strip_prefix('-') {
            Some(excluded) if excluded.starts_with(char::is_alphabetic) => Item::Excluded(excluded),
            _ => Item::Word(word),
        });
    }
    if let Some((field, at)) = filter_field(rest) {
        if let Some(value) = quoted(rest, at) {
            return Some(Item::Filter(field, value));
        }
        let word = take_word(rest);
        return Some(if word.len() > at { Item::Filter(field, &word[at..]) } else { Item::Word(&word[..at - 1]) });
    }
    Some(Item::Word(take_word(rest)))
}

/// The words between the quotation mark at `at` and the next one; `rest` goes on behind it.
fn quoted<'a>(rest: &mut &'a str, at: usize) -> Option<&'a str> {
    let inner = rest[at..].strip_prefix('"')?;
    let end = inner.find('"')?;
    let phrase = inner[..end].trim();
    if !phrase.contains(char::is_alphanumeric) {
        return None;
    }
    *rest = &inner[end + 1..];
    Some(phrase)
}

fn filter_field(rest: &str) -> Option<(&'static str, usize)> {
    FILTER_FIELDS.iter().find_map(|field| {
        let after = rest.strip_prefix(field)?.strip_prefix(':')?;
        (!after.starts_with(' ')).then_some((*field, field.len() + 1))
    })
}

fn take_word<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(' ').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phrases_exclusions_and_filters_are_read() {
        let got = Question::parse(r#"deep "village well" -dry -"old mill" source:notes.md title:"The Well" water"#);
        assert_eq!(got.text, "deep village well water");
        assert_eq!(got.phrases, ["village well"]);
        assert_eq!(got.excluded, ["dry", "old mill"]);
        let want = [("source", "notes.md"), ("title", "The Well")];
        assert_eq!(got.filters, want.map(|(f, v)| (f.to_owned(), v.to_owned())));
    }

    #[test]
    fn malformed_input_is_plain_words() {
        let got = Question::parse(r#"what" is -5 - title: "" AND ( foo:bar"#);
        assert_eq!(got.text, r#"what" is -5 - title: "" AND ( foo:bar"#);
        assert_eq!((got.phrases.len(), got.excluded.len(), got.filters.len()), (0, 0, 0));
    }

    #[test]
    fn questions_without_words_are_empty() {
        assert!(Question::parse(" ?! ").is_empty());
        assert!(!Question::parse("source:x").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_a_question(query in "(\\PC|\"|-|title:| ){0,40}") {
            drop(Question::parse(&query));
        }
    }
}
