//! Classes of words that mean alike: which stand near each other tells the models what single words do not.
//!
//! Viewpoints have no place here: words are marked after the mask, and all placeholders of people are of one class, those
//! of parties and ideologies of another.

use std::collections::HashMap;

use serde::Deserialize;

use super::words::Words;

/// The lexicon of this release.
pub const LEXICON: &str = include_str!("../../data/lexicon.toml");

/// Most words of a phrase.
const PHRASE_WORDS: usize = 4;
/// Endings of inflected forms, with what the base may have instead.
const ENDINGS: [(&str, &[&str]); 6] =
    [("s", &[""]), ("es", &["", "e"]), ("ed", &["", "e"]), ("d", &[""]), ("ing", &["", "e"]), ("ies", &["y"])];
/// The class of people, and that of parties and ideologies.
const PLACEHOLDERS: [(&str, u8); 5] = [("<g>", 1), ("<r>", 1), ("<n>", 1), ("<p>", 2), ("<i>", 2)];

/// The lexicon is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LexiconError {
    /// It is not the TOML that is expected.
    #[error("lexicon: {0}")]
    Syntax(String),
    /// A phrase that could never be found, or is in two classes.
    #[error("lexicon: \"{phrase}\" {why}")]
    Phrase {
        /// The phrase.
        phrase: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More classes than a byte counts.
    #[error("lexicon: {0} classes, at most 250 can be told apart")]
    Classes(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    class: std::collections::BTreeMap<String, Vec<String>>,
}

/// Phrases with their classes.
#[derive(Debug, Default)]
pub struct Lexicon {
    classes: HashMap<String, u8>,
    /// First words of phrases of several words, with the most words that such a phrase has.
    starts: HashMap<String, usize>,
}

impl Lexicon {
    /// Reads a lexicon: an array of phrases for each class.
    ///
    /// # Errors
    /// [`LexiconError`]; the lexicon is part of a release, so fix the release.
    pub fn parse(toml: &str) -> Result<Self, LexiconError> {
        let File { class } = toml::from_str(toml).map_err(|e| LexiconError::Syntax(e.to_string()))?;
        let mut lexicon = Self::default();
        let first = 3;
        for (n, phrases) in class.values().enumerate() {
            let id = u8::try_from(n + first).ok().filter(|id| *id <= 252).ok_or(LexiconError::Classes(class.len()))?;
            for phrase in phrases {
                lexicon.add(phrase, id)?;
            }
        }
        Ok(lexicon)
    }

    fn add(&mut self, phrase: &str, class: u8) -> Result<(), LexiconError> {
        let fail = |why| Err(LexiconError::Phrase { phrase: phrase.to_owned(), why });
        let words: Vec<&str> = phrase.split(' ').collect();
        if words
            .iter()
            .any(|word| word.is_empty() || !word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        {
            return fail("is not as texts are folded");
        }
        if words.len() > PHRASE_WORDS {
            return fail("has too many words");
        }
        if self.classes.insert(phrase.to_owned(), class).is_some() {
            return fail("is there twice");
        }
        if words.len() > 1 {
            let most = self.starts.entry(words[0].to_owned()).or_default();
            *most = words.len().max(*most);
        }
        Ok(())
    }

    /// Writes the class of each word into it; the words of a phrase behind its first have none.
    pub fn mark(&self, words: &mut Words) {
        let mut at = 0;
        while at < words.words().len() {
            let (count, class) = self.at(words, at).unwrap_or((1, 0));
            words.set_class(at, class);
            at += count;
        }
    }

    /// How many words from a place are a phrase, and its class.
    fn at(&self, words: &Words, at: usize) -> Option<(usize, u8)> {
        let all = words.words();
        let first = all.get(at)?;
        let word = words.word(*first);
        if first.is_placeholder {
            return PLACEHOLDERS.iter().find(|(name, _)| *name == word).map(|(_, class)| (1, *class));
        }
        let most = self.starts.get(word).copied().unwrap_or(1);
        let phrase = (2..=most).rev().find_map(|count| {
            let last = all.get(at + count - 1)?;
            let class = self.classes.get(words.text().get(first.start..last.end)?)?;
            Some((count, *class))
        });
        phrase.or_else(|| Some((1, self.word(word)?)))
    }

    /// The class of a word or of what it is a form of.
    fn word(&self, word: &str) -> Option<u8> {
        if let Some(class) = self.classes.get(word) {
            return Some(*class);
        }
        ENDINGS.iter().find_map(|(ending, bases)| {
            let stem = word.strip_suffix(ending).filter(|stem| stem.len() >= 3)?;
            let base = bases.iter().find_map(|base| {
                if base.is_empty() { self.classes.get(stem) } else { self.classes.get(&format!("{stem}{base}")) }
            });
            // stabbed, stabbing
            let bytes = stem.as_bytes();
            let is_double = ending.len() > 1 && bytes[bytes.len() - 1] == bytes[bytes.len() - 2];
            base.or_else(|| stem.get(..stem.len() - 1).filter(|_| is_double).and_then(|base| self.classes.get(base)))
                .copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::mask::Mask;
    use super::super::norm::Folded;
    use super::*;

    const SMALL: &str = "[class]\nact = [\"stab\", \"make\", \"blow up\"]\nwho = [\"i\", \"enemy\"]";

    fn classes(lexicon: &Lexicon, text: &str) -> Vec<u8> {
        let mask = Mask::parse(include_str!("../../data/viewpoints.toml")).unwrap();
        let mut words = mask.apply(&Words::of(&Folded::of(text)));
        lexicon.mark(&mut words);
        words.words().iter().map(|word| word.class).collect()
    }

    #[test]
    fn forms_and_phrases_have_their_class() {
        let lexicon = Lexicon::parse(SMALL).unwrap();
        assert_eq!(classes(&lexicon, "I stabbed enemies, making it blow up"), [4, 3, 4, 3, 0, 3, 0]);
        assert_eq!(classes(&lexicon, "blow it, blow"), [0, 0, 0]);
    }

    #[test]
    fn all_people_are_one_class() {
        let lexicon = Lexicon::parse(LEXICON).unwrap();
        assert_eq!(classes(&lexicon, "women"), classes(&lexicon, "Muslims"));
        assert_eq!(classes(&lexicon, "Germans"), [1]);
        assert_eq!(classes(&lexicon, "liberals"), classes(&lexicon, "tories"));
    }

    #[test]
    fn an_unusable_lexicon_is_told() {
        let error = |toml: &str| Lexicon::parse(toml).unwrap_err().to_string();
        assert!(error("class = 1").starts_with("lexicon: "));
        assert!(error("[class]\na = [\"Kill\"]").contains("not as texts are folded"));
        assert!(error("[class]\na = [\"a b c d e\"]").contains("too many words"));
        assert!(error("[class]\na = [\"x\"]\nb = [\"x\"]").contains("twice"));
        let many: String = (0..251).map(|n| format!("c{n} = [\"w{n}\"]\n")).collect();
        assert!(error(&format!("[class]\n{many}")).contains("251 classes"));
    }

    #[test]
    fn no_phrase_is_a_viewpoint() {
        let mask = Mask::parse(include_str!("../../data/viewpoints.toml")).unwrap();
        let lexicon = Lexicon::parse(LEXICON).unwrap();
        let masked: Vec<&String> = lexicon
            .classes
            .keys()
            .filter(|phrase| mask.apply(&Words::of(&Folded::of(phrase))).words().iter().any(|word| word.is_placeholder))
            .collect();
        assert_eq!(masked, Vec::<&String>::new());
    }
}
