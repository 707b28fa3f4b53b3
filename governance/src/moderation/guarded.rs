//! What takes a rule's hit back: words around it that report, deny or ask.

use std::collections::BTreeMap;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

/// Bytes before and behind a hit in which a guard is looked for.
const AROUND: (usize, usize) = (72, 56);

/// Named patterns of words that take a hit back.
#[derive(Debug, Default)]
pub struct Guards {
    all: BTreeMap<String, Regex>,
}

impl Guards {
    /// Compiles alternatives of whole words for each name.
    ///
    /// # Errors
    /// An expression is wrong.
    pub fn compile(named: &BTreeMap<String, Vec<String>>) -> Result<Self, regex::Error> {
        let one = |patterns: &Vec<String>| {
            RegexBuilder::new(&format!(r"\b(?:{})\b", patterns.join("|"))).unicode(false).build()
        };
        let all = named.iter().map(|(name, patterns)| Ok((name.clone(), one(patterns)?)));
        Ok(Self { all: all.collect::<Result<_, regex::Error>>()? })
    }

    /// Whether there is a guard of a name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Whether one of the named guards stands near a hit.
    #[must_use]
    pub fn speak(&self, names: &[String], text: &str, hit: &Range<usize>) -> bool {
        if names.is_empty() {
            return false;
        }
        let from = text.floor_char_boundary(hit.start.saturating_sub(AROUND.0));
        let to = text.ceil_char_boundary(hit.end.saturating_add(AROUND.1).min(text.len()));
        let near = text.get(from..to).unwrap_or_default();
        names.iter().filter_map(|name| self.all.get(name)).any(|guard| guard.is_match(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_and_a_whole_word_speaks() {
        let guards = Guards::compile(&[("report".to_owned(), vec!["police".to_owned(), "he said".to_owned()])].into());
        let guards = guards.unwrap();
        let near = |text: &str| {
            let at = text.find("hit").unwrap();
            guards.speak(&["report".to_owned()], text, &(at..at + 3))
        };
        assert!(near("the police say hit") && near("hit he said"));
        assert!(!near("policed hit") && !near(&format!("police {} hit", "word ".repeat(20))));
        assert!(!guards.speak(&[], "police hit", &(7..10)));
        assert!(guards.has("report") && !guards.has("other"));
        assert!(Guards::compile(&[("x".to_owned(), vec!["(".to_owned()])].into()).is_err());
    }
}
