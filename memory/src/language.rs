//! Words of a text as the index sees them: language by statistics, then lower case, stop words, stems, plain letters.

use std::collections::HashMap;
use std::sync::OnceLock;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, Stemmer, StopWordFilter, TextAnalyzer, Token,
    TokenStream, Tokenizer,
};
use unicode_normalization::char::is_combining_mark;
use whatlang::{Detector, Lang, Script};

use crate::chunk::is_unspaced;

/// Bytes of a text that language detection looks at; more changes nothing but the time it takes.
const DETECT_BYTES: usize = 1_000;
/// Longest indexed word in bytes.
const LONGEST_WORD: usize = 64;

/// A language by ISO 639-3 code, `und` where none was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tongue(&'static str);

/// Languages with stemmer and, mostly, stop words.
const STEMMED: &[(Lang, Language)] = &[
    (Lang::Ara, Language::Arabic),
    (Lang::Dan, Language::Danish),
    (Lang::Nld, Language::Dutch),
    (Lang::Eng, Language::English),
    (Lang::Fin, Language::Finnish),
    (Lang::Fra, Language::French),
    (Lang::Deu, Language::German),
    (Lang::Ell, Language::Greek),
    (Lang::Hun, Language::Hungarian),
    (Lang::Ita, Language::Italian),
    (Lang::Nob, Language::Norwegian),
    (Lang::Por, Language::Portuguese),
    (Lang::Ron, Language::Romanian),
    (Lang::Rus, Language::Russian),
    (Lang::Spa, Language::Spanish),
    (Lang::Swe, Language::Swedish),
    (Lang::Tam, Language::Tamil),
    (Lang::Tur, Language::Turkish),
];

/// Languages that are recognised beyond those, so that they are not mistaken for one of them.
const UNSTEMMED: &[Lang] = &[
    Lang::Cmn,
    Lang::Jpn,
    Lang::Kor,
    Lang::Pol,
    Lang::Ces,
    Lang::Slk,
    Lang::Ukr,
    Lang::Bul,
    Lang::Srp,
    Lang::Hrv,
    Lang::Heb,
    Lang::Hin,
    Lang::Vie,
    Lang::Tha,
    Lang::Pes,
    Lang::Cat,
];

impl Tongue {
    /// What is assumed of short texts in Latin letters.
    pub const ENGLISH: Self = Self("eng");
    /// No language was recognised.
    pub const UNKNOWN: Self = Self("und");

    /// The ISO 639-3 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0
    }

    /// The language with this code, if it is one that is told apart.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let lang = Lang::from_code(code)?;
        STEMMED
            .iter()
            .map(|(lang, _)| *lang)
            .chain(UNSTEMMED.iter().copied())
            .find(|l| *l == lang)
            .map(|l| Self(l.code()))
    }

    /// The language a text is written in. Short or mixed texts in Latin letters count as English.
    pub fn of(text: &str) -> Self {
        static DETECTOR: OnceLock<Detector> = OnceLock::new();
        let mut end = text.len().min(DETECT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let detector = DETECTOR.get_or_init(|| {
            Detector::with_allowlist(STEMMED.iter().map(|(lang, _)| *lang).chain(UNSTEMMED.iter().copied()).collect())
        });
        match detector.detect(&text[..end]) {
            Some(found) if found.script() != Script::Latin || found.is_reliable() => Self(found.lang().code()),
            Some(_) => Self::ENGLISH,
            None => Self::UNKNOWN,
        }
    }

    /// The chain that makes index words of this language's texts.
    pub fn analyzer(self) -> TextAnalyzer {
        static ANALYZERS: OnceLock<HashMap<&'static str, TextAnalyzer>> = OnceLock::new();
        let analyzers = ANALYZERS.get_or_init(|| {
            let stemmed = STEMMED.iter().map(|(lang, language)| (lang.code(), build(Some(*language))));
            stemmed.chain([(Self::UNKNOWN.0, build(None))]).collect()
        });
        analyzers.get(self.0).or_else(|| analyzers.get(Self::UNKNOWN.0)).cloned().unwrap_or_default()
    }
}

/// Words, lower-cased; stop words are recognised and stems made while letters still carry their accents.
fn build(language: Option<Language>) -> TextAnalyzer {
    let mut chain = TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser)
        .dynamic();
    if let Some(language) = language {
        if let Some(stop) = StopWordFilter::new(language) {
            chain = chain.filter_dynamic(stop);
        }
        chain = chain.filter_dynamic(Stemmer::new(language));
    }
    chain.filter_dynamic(AsciiFoldingFilter).build()
}

/// Calls `each` for every index word of `text`.
pub fn for_each_token(analyzer: &mut TextAnalyzer, text: &str, mut each: impl FnMut(&Token)) {
    let mut stream = analyzer.token_stream(text);
    while let Some(token) = stream.next() {
        each(token);
    }
}

/// English words that ask but do not describe what is asked for; beyond the index's stop words.
const QUESTION_WORDS: &[&str] = &[
    "what",
    "who",
    "whom",
    "whose",
    "which",
    "when",
    "where",
    "why",
    "how",
    "do",
    "does",
    "did",
    "done",
    "has",
    "have",
    "had",
    "can",
    "could",
    "would",
    "should",
    "may",
    "might",
    "must",
    "shall",
    "i",
    "you",
    "he",
    "she",
    "we",
    "me",
    "my",
    "your",
    "his",
    "her",
    "its",
    "our",
    "us",
    "them",
    "him",
    "about",
    "from",
    "were",
    "been",
    "being",
    "am",
    "than",
    "so",
    "also",
    "any",
    "some",
    "tell",
    "please",
    "give",
    "know",
    "explain",
    "describe",
    "many",
    "much",
    "there",
    "s",
    "t",
    "did",
    "anyone",
    "anything",
    "something",
    "someone",
    "let",
    "show",
    "find",
    "say",
    "says",
    "said",
    "mean",
    "means",
    "really",
    "just",
    "other",
];

/// Whether a lower-case word only asks.
pub(crate) fn is_question_word(word: &str) -> bool {
    QUESTION_WORDS.contains(&word)
}

/// Cuts text into words: runs of letters, digits and combining marks; overlapping pairs of characters where words are
/// not separated by blanks.
#[derive(Debug, Clone, Default)]
struct Words {
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, in_run: false, token: &mut self.token }
    }
}

#[derive(Debug)]
struct WordStream<'a> {
    text: &'a str,
    at: usize,
    /// The character before `at` was part of an unspaced run.
    in_run: bool,
    token: &'a mut Token,
}

impl WordStream<'_> {
    fn emit(&mut self, from: usize, to: usize) -> bool {
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.text.clear();
        self.token.text.push_str(&self.text[from..to]);
        true
    }

    fn word_end(&self, from: usize) -> usize {
        self.text[from..]
            .char_indices()
            .find(|&(_, c)| !(c.is_alphanumeric() || is_combining_mark(c)) || is_unspaced(c))
            .map_or(self.text.len(), |(offset, _)| from + offset)
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        while let Some(c) = self.text[self.at..].chars().next() {
            let from = self.at;
            let next = from + c.len_utf8();
            if is_unspaced(c) {
                self.at = next;
                let second = self.text[next..].chars().next().filter(|&c| is_unspaced(c));
                let alone = second.is_none() && !self.in_run;
                self.in_run = second.is_some();
                match second {
                    Some(second) => return self.emit(from, next + second.len_utf8()),
                    None if alone => return self.emit(from, next),
                    None => {}
                }
            } else if c.is_alphanumeric() {
                self.in_run = false;
                self.at = self.word_end(from);
                return self.emit(from, self.at);
            } else {
                self.in_run = false;
                self.at = next;
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(tongue: Tongue, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        for_each_token(&mut tongue.analyzer(), text, |token| out.push(token.text.clone()));
        out
    }

    #[test]
    fn languages_are_told_apart() {
        let german = "Der schnelle braune Fuchs springt \u{fc}ber den faulen Hund, und niemand hat ihn dabei gesehen.";
        assert_eq!(Tongue::of(german).code(), "deu");
        assert_eq!(Tongue::of("The history of the village is a history of its wells and of its people.").code(), "eng");
        assert_eq!(Tongue::of("\u{6211}\u{4eec}\u{7684}\u{6751}\u{5b50}").code(), "cmn");
        assert_eq!(Tongue::of("Lilu").code(), "eng");
        assert_eq!(Tongue::of("12 34").code(), "und");
    }

    #[test]
    fn english_is_stemmed_without_stop_words() {
        assert_eq!(tokens(Tongue::ENGLISH, "The cats are sleeping in Zürich"), ["cat", "sleep", "zurich"]);
    }

    #[test]
    fn accented_stop_words_are_recognised() {
        let german = Tongue::from_code("deu").expect("known");
        assert_eq!(tokens(german, "für Häuser"), ["haus"]);
    }

    #[test]
    fn unspaced_scripts_become_pairs() {
        assert_eq!(
            tokens(Tongue::UNKNOWN, "\u{6751}\u{5b50}\u{91cc} x \u{4e95}"),
            ["\u{6751}\u{5b50}", "\u{5b50}\u{91cc}", "x", "\u{4e95}"]
        );
    }

    #[test]
    fn unknown_codes_are_refused() {
        assert_eq!(Tongue::from_code("xx"), None);
        assert_eq!(Tongue::from_code("eng"), Some(Tongue::ENGLISH));
    }
}
