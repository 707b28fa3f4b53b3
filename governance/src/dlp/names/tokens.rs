//! Words, numbers and marks of a text, as the tagger counts them.

use std::ops::Range;

use crate::dlp::context;

/// How a token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shape {
    /// `word`, or of a script without capitals.
    Lower = 1,
    /// `Word`, `O'Brien`, `Jean-Luc`.
    Title,
    /// `WORD`.
    Upper,
    /// `GitHub`, `McAdam`.
    Mixed,
    /// `J`.
    Initial,
    /// `12`, `12b`.
    Number,
    /// Letters, digits and underscores in one.
    Code,
    /// One sign.
    Mark,
    /// The end of a line.
    Break,
    /// What redaction has left; beyond the ends of the text, too.
    Gap,
}

impl Shape {
    pub(super) fn is_word(self) -> bool {
        matches!(self, Shape::Lower | Shape::Title | Shape::Upper | Shape::Mixed | Shape::Initial)
    }

    /// It may begin a name.
    pub(super) fn has_capital(self) -> bool {
        self.is_word() && self != Shape::Lower
    }
}

/// A part of the text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) shape: Shape,
}

impl Token {
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    pub(super) fn text(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// All tokens in order; blanks are none.
pub(super) fn split(text: &str, deaf: &[Range<usize>]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len() / 5);
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if !first.is_alphanumeric() && first != '_' {
            let shape = if first == '\n' { Shape::Break } else { Shape::Mark };
            if shape == Shape::Break || !first.is_whitespace() {
                tokens.push(Token { start, end: start + first.len_utf8(), shape });
            }
            continue;
        }
        let mut end = start + first.len_utf8();
        while let Some((at, next)) = chars.peek().copied() {
            let goes_on = next.is_alphanumeric() || next == '_' || joins(text, at, next);
            if !goes_on {
                break;
            }
            end = at + next.len_utf8();
            chars.next();
        }
        let (end, rest) = without_possessive(text, start, end);
        tokens.push(Token { start, end, shape: shape(text.get(start..end).unwrap_or_default()) });
        tokens.extend(rest.map(|rest| Token { start: rest.start, end: rest.end, shape: Shape::Lower }));
    }
    if !deaf.is_empty() {
        for token in tokens.iter_mut().filter(|token| context::inside(deaf, token.start)) {
            token.shape = Shape::Gap;
        }
    }
    tokens
}

/// An apostrophe or hyphen between letters.
fn joins(text: &str, at: usize, sign: char) -> bool {
    let next = || text.get(at + sign.len_utf8()..).and_then(|rest| rest.chars().next());
    matches!(sign, '\'' | '’' | '-') && next().is_some_and(char::is_alphabetic)
}

/// `Anna's` is a word and its `'s`.
fn without_possessive(text: &str, start: usize, end: usize) -> (usize, Option<Range<usize>>) {
    let word = text.get(start..end).unwrap_or_default();
    let cut = ["'s", "’s"].iter().find_map(|tail| word.strip_suffix(tail)).filter(|word| !word.is_empty());
    cut.map_or((end, None), |word| (start + word.len(), Some(start + word.len()..end)))
}

fn shape(word: &str) -> Shape {
    let (mut letters, mut digits, mut capitals, mut inner) = (0, 0, 0, 0);
    let mut before = ' ';
    for letter in word.chars() {
        let begins = matches!(before, ' ' | '\'' | '’' | '-');
        letters += usize::from(letter.is_alphabetic());
        digits += usize::from(letter.is_numeric() || letter == '_');
        capitals += usize::from(letter.is_uppercase());
        inner += usize::from(letter.is_uppercase() && !begins);
        before = letter;
    }
    let begins = word.chars().next().is_some_and(char::is_uppercase);
    match (letters, digits) {
        (0 | 1, 1..) if word.starts_with(|first: char| first.is_ascii_digit()) => Shape::Number,
        (_, 1..) => Shape::Code,
        (1, _) if begins => Shape::Initial,
        _ if capitals == letters => Shape::Upper,
        _ if inner > 0 => Shape::Mixed,
        _ if begins => Shape::Title,
        _ => Shape::Lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_marks_are_told_apart() {
        let text = "Anna's O'Brien, 12b J. McAdam\nJSON x_1 [NAME_1]";
        let placeholder = text.find('[').unwrap();
        let tokens = split(text, std::slice::from_ref(&(placeholder..text.len())));
        let told: Vec<_> = tokens.iter().map(|token| (token.text(text), token.shape)).collect();
        assert_eq!(
            told,
            [
                ("Anna", Shape::Title),
                ("'s", Shape::Lower),
                ("O'Brien", Shape::Title),
                (",", Shape::Mark),
                ("12b", Shape::Number),
                ("J", Shape::Initial),
                (".", Shape::Mark),
                ("McAdam", Shape::Mixed),
                ("\n", Shape::Break),
                ("JSON", Shape::Upper),
                ("x_1", Shape::Code),
                ("[", Shape::Gap),
                ("NAME_1", Shape::Gap),
                ("]", Shape::Gap),
            ]
        );
    }

    #[test]
    fn letters_beyond_ascii_are_letters() {
        let text = "Łukasz Ångström’s 東京";
        let told: Vec<_> = split(text, &[]).iter().map(|token| token.text(text)).collect();
        assert_eq!(told, ["Łukasz", "Ångström", "’s", "東京"]);
    }
}
