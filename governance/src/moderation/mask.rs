//! The viewpoint firewall, part 1: words for people, faiths, countries, parties and ideologies become placeholders.
//!
//! What a model never sees it cannot weigh: texts that differ in listed terms of one class only have the same features,
//! hence the same scores. Slurs are not listed, they are not viewpoints.

use std::collections::HashMap;

use serde::Deserialize;

use super::norm::Folded;
use super::words::{Word, Words};

/// Most words of a listed term.
const TERM_WORDS: usize = 4;
/// Words that only repeat that people are meant (`black people`), taken into the placeholder before them.
const PEOPLE: [&str; 14] = [
    "people",
    "person",
    "persons",
    "folk",
    "folks",
    "community",
    "communities",
    "guys",
    "ppl",
    "individuals",
    "families",
    "americans",
    "population",
    "citizens",
];

/// The list is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// It is not the TOML that is expected.
    #[error("viewpoints: {0}")]
    Syntax(String),
    /// A term that could never match, or is in two classes.
    #[error("viewpoints: \"{term}\" {why}")]
    Term {
        /// The term.
        term: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: Vec<String>,
    religion: Vec<String>,
    nationality: Vec<String>,
    party: Vec<String>,
    ideology: Vec<String>,
}

/// The listed terms.
#[derive(Debug)]
pub struct Mask {
    classes: HashMap<String, &'static str>,
}

impl Mask {
    /// Reads a list: one array of terms for each class.
    ///
    /// # Errors
    /// [`MaskError`]; the list is part of a release, so fix the release.
    pub fn parse(toml: &str) -> Result<Self, MaskError> {
        let file: File = toml::from_str(toml).map_err(|e| MaskError::Syntax(e.to_string()))?;
        let mut mask = Self { classes: HashMap::new() };
        for (class, terms) in [
            ("<g>", file.group),
            ("<r>", file.religion),
            ("<n>", file.nationality),
            ("<p>", file.party),
            ("<i>", file.ideology),
        ] {
            for term in &terms {
                mask.add(term, class)?;
            }
        }
        Ok(mask)
    }

    fn add(&mut self, term: &str, class: &'static str) -> Result<(), MaskError> {
        let fail = |why| Err(MaskError::Term { term: term.to_owned(), why });
        let words = Words::of(&Folded::of(term));
        let key = words.text().trim().to_owned();
        if key != term {
            return fail("is not as texts are folded");
        }
        if words.words().len() > TERM_WORDS {
            return fail("has too many words");
        }
        if self.classes.insert(key, class).is_some_and(|other| other != class) {
            return fail("is in two classes");
        }
        // A plural is the same viewpoint. One that is listed itself may be of another class.
        self.classes.entry(format!("{term}s")).or_insert(class);
        Ok(())
    }

    /// The terms with their placeholders, plurals included.
    pub fn terms(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.classes.iter().map(|(term, class)| (term.as_str(), *class))
    }

    /// Replaces listed terms, the longest first; equal placeholders side by side become one.
    #[must_use]
    pub fn apply(&self, words: &Words) -> Words {
        let mut masked = Words::default();
        let mut last: Option<&str> = None;
        let all = words.words();
        let mut at = 0;
        while let Some(word) = all.get(at) {
            let found = self.at(words, all.get(at..).unwrap_or_default());
            let (taken, class) = found.unwrap_or((1, ""));
            let to = all.get(at + taken - 1).map_or(word.to, |word| word.to);
            if class.is_empty() {
                let text = words.word(*word);
                if last.is_none() || !PEOPLE.contains(&text) {
                    masked.push(text, (word.from, word.to), false, word.is_first);
                    last = None;
                }
            } else if last != Some(class) {
                masked.push(class, (word.from, to), true, word.is_first);
                last = Some(class);
            }
            at += taken;
        }
        masked
    }

    /// How many words from the start are a listed term, and its class.
    fn at(&self, words: &Words, rest: &[Word]) -> Option<(usize, &'static str)> {
        (1..=TERM_WORDS.min(rest.len())).rev().find_map(|count| {
            let term = words.text().get(rest[0].start..rest[count - 1].end)?;
            self.classes.get(term).map(|class| (count, *class))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        group = ["woman", "women", "black", "old person"]
        religion = ["muslim", "jew"]
        nationality = ["pole"]
        party = ["green party"]
        ideology = ["socialism"]
    "#;

    fn masked(text: &str) -> String {
        let mask = Mask::parse(LIST).unwrap();
        mask.apply(&Words::of(&Folded::of(text))).text().trim().to_owned()
    }

    #[test]
    fn terms_plurals_and_people_become_one_placeholder() {
        assert_eq!(masked("Black women are here"), "<g> are here");
        assert_eq!(masked("black people are here"), "<g> are here");
        assert_eq!(masked("The MUSLIMS, the Jews"), "the <r> the <r>");
        assert_eq!(masked("an old person voted Green Party"), "an <g> voted <p>");
        assert_eq!(masked("these people"), "these people");
    }

    #[test]
    fn origin_survives_the_mask() {
        let folded = Folded::of("all old persons here");
        let words = Mask::parse(LIST).unwrap().apply(&Words::of(&folded));
        let place = words.words()[1];
        assert!(place.is_placeholder);
        assert_eq!(&folded.text()[place.from..place.to], "old persons");
    }

    #[test]
    fn an_unusable_list_is_told() {
        assert!(matches!(Mask::parse("group = 1"), Err(MaskError::Syntax(_))));
        let with = |term: &str| Mask::parse(&LIST.replace("pole", term)).unwrap_err().to_string();
        assert!(with("Pole").contains("not as texts are folded"));
        assert!(with("aa bb cc dd ee").contains("too many words"), "{}", with("aa bb cc dd ee"));
        assert!(with("muslim").contains("two classes"));
    }
}
