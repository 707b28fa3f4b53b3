//! What the tagger looks at: a word, its shape, what lists know of it, and the same of two neighbours on each side.

use xxhash_rust::xxh3::xxh3_64;

use super::model::{Model, Tag};
use super::tokens::{Shape, Token};

/// What lists know of a word.
pub(super) mod flag {
    pub(in super::super) const FIRST: u8 = 1;
    pub(in super::super) const LAST: u8 = 1 << 1;
    pub(in super::super) const CITY: u8 = 1 << 2;
    pub(in super::super) const LAND: u8 = 1 << 3;
    pub(in super::super) const STREET: u8 = 1 << 4;
    /// Also written without a capital in ordinary text.
    pub(in super::super) const COMMON: u8 = 1 << 5;
    pub(super) const PROPER: u8 = FIRST | LAST | CITY;
}

/// Features of one token.
pub(super) const COUNT: usize = 26;

/// A word that is known as a name only: the model learns of the lists, not of single names.
const SOME_NAME: u64 = 1;
/// A number, whichever.
const SOME_NUMBER: u64 = 2;
/// A word of which nothing is to be learned but how it looks: its features have no row.
const FORGOTTEN: u64 = 3;
/// Which features look at which word itself.
const WORDS: [(u64, isize); 14] = [
    (1, 0),
    (6, -1),
    (7, -2),
    (8, 1),
    (9, 2),
    (10, -1),
    (11, 1),
    (12, -1),
    (12, -2),
    (13, 1),
    (13, 2),
    (21, 0),
    (23, -1),
    (25, 1),
];
/// Longest word that lists have, bytes.
const WORD_BYTES: usize = 48;
/// Words of streets that are written without a capital.
const STREETS: [&str; 16] = [
    "rue",
    "avenue",
    "boulevard",
    "chemin",
    "allée",
    "quai",
    "impasse",
    "place",
    "calle",
    "avenida",
    "via",
    "viale",
    "corso",
    "piazza",
    "rua",
    "ul",
];

/// What is known of a token before its neighbours are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) shape: Shape,
    pub(super) flags: u8,
    /// Hash of the word in lower case.
    word: u64,
    /// Hashes of its last three and four letters.
    tails: [u64; 2],
}

impl Known {
    pub(super) const NONE: Known = Known { shape: Shape::Gap, flags: 0, word: 0, tails: [0; 2] };

    pub(super) fn of(text: &str, token: &Token, model: &Model) -> Self {
        let (shape, word) = (token.shape, token.text(text));
        if !shape.is_word() {
            // Of numbers only the shape counts, of marks which it is.
            let word = if shape == Shape::Mark { xxh3_64(word.as_bytes()) } else { SOME_NUMBER };
            return Known { shape, flags: 0, word, tails: [0; 2] };
        }
        if shape == Shape::Lower {
            let flags = if STREETS.contains(&word) { flag::STREET } else { 0 };
            return Known { shape, flags, word: xxh3_64(word.as_bytes()), tails: [0; 2] };
        }
        let lower = folded(word);
        let tail = |letters: usize| {
            let from = lower.char_indices().rev().nth(letters - 1).map_or(0, |(at, _)| at);
            xxh3_64(lower.get(from..).unwrap_or_default().as_bytes())
        };
        let known =
            Known { shape, flags: model.flags(&lower), word: xxh3_64(lower.as_bytes()), tails: [tail(3), tail(4)] };
        known.masked()
    }

    /// The same word as if it had never been seen and no list had it.
    pub(super) fn forgotten(self) -> Self {
        Known { flags: 0, word: FORGOTTEN, ..self }
    }

    fn masked(self) -> Self {
        let is_name = self.flags & flag::PROPER != 0 && self.flags & flag::COMMON == 0;
        if is_name { Known { word: SOME_NAME, ..self } } else { self }
    }

    /// The tagger decides on it; anything else is part of nothing.
    pub(super) fn is_candidate(&self, before: Tag) -> bool {
        match self.shape {
            Shape::Mixed => self.flags != 0,
            Shape::Lower | Shape::Mark => before != Tag::O || self.flags & flag::STREET != 0,
            shape => shape.has_capital() || shape == Shape::Number,
        }
    }
}

/// As lists write a word.
pub(super) fn folded(word: &str) -> String {
    let cut = word.get(..word.floor_char_boundary(WORD_BYTES)).unwrap_or_default();
    cut.chars().flat_map(char::to_lowercase).map(|letter| if letter == '’' { '\'' } else { letter }).collect()
}

/// Rows of the model's table that speak for or against each tag of the token at `at`; beyond its end where there is none.
pub(super) fn rows(known: &[Known], at: usize, before: Tag) -> [usize; COUNT] {
    let near = |step: isize| at.checked_add_signed(step).and_then(|at| known.get(at)).unwrap_or(&Known::NONE);
    let [w2, w1, w0, n1, n2] = [-2, -1, 0, 1, 2].map(near);
    let flags = |one: &Known| u64::from(one.flags);
    let shape = |one: &Known| one.shape as u64;
    let seen = |one: &Known| u64::from(one.flags) << 8 | one.shape as u64;
    let tag = before as u64;
    let both = |a: u64, b: u64| a << 20 | b;
    let starts = u64::from(matches!(w1.shape, Shape::Break | Shape::Gap | Shape::Mark));
    let values: [(u64, u64); COUNT] = [
        (0, 0),
        (w0.word, 0),
        (shape(w0), starts),
        (w0.tails[0], 0),
        (w0.tails[1], flags(w0)),
        (seen(w0), starts),
        (w1.word, 0),
        (w2.word, 0),
        (n1.word, 0),
        (n2.word, 0),
        (w1.word, seen(w0)),
        (n1.word, seen(w0)),
        (w1.word, w2.word),
        (n1.word, n2.word),
        (both(seen(w1), seen(w0)), 0),
        (both(seen(w0), seen(n1)), 0),
        (both(seen(w1), seen(w0)), seen(n1)),
        (both(seen(w0), seen(n1)), seen(n2)),
        (both(seen(w2), seen(w1)), seen(w0)),
        (tag, 0),
        (tag, seen(w0)),
        (tag, w0.word),
        (both(tag, seen(n1)), seen(w0)),
        (both(tag, seen(w0)), w1.word),
        (both(both(shape(w1), shape(w0)), shape(n1)), tag),
        (both(tag, seen(w0)), n1.word),
    ];
    let mut rows = [0; COUNT];
    for (place, (row, (a, b))) in (0_u64..).zip(rows.iter_mut().zip(values)) {
        let mut bytes = [0_u8; 24];
        for (part, value) in bytes.chunks_exact_mut(8).zip([place, a, b]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        let is_forgotten = WORDS.iter().any(|(of, step)| *of == place && near(*step).word == FORGOTTEN);
        *row = if is_forgotten { usize::MAX } else { Model::row(xxh3_64(&bytes)) };
    }
    rows
}
