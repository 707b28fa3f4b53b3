//! Labelled text, parted for fitting, tuning and testing.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::moderation::manifest::SourceEntry;
use crate::moderation::mask::Mask;
use crate::moderation::norm::Folded;
use crate::moderation::taxonomy::{ACTIONABLE, CATEGORIES, Category};
use crate::moderation::words::Words;

/// What is known of an example, one bit for each category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    yes: u32,
    known: u32,
}

impl Truth {
    /// Harmless and without viewpoint.
    pub const BENIGN: Self = Self { yes: 0, known: (1 << CATEGORIES) - 1 };
    const HARMS: u32 = (1 << ACTIONABLE) - 1;

    /// These categories and no other.
    #[must_use]
    pub fn only(categories: &[Category]) -> Self {
        categories.iter().fold(Self::BENIGN, |truth, category| Self { yes: truth.yes | 1 << category.index(), ..truth })
    }

    /// The same, but whether these categories apply is not known.
    #[must_use]
    pub fn except(self, categories: &[Category]) -> Self {
        let mask = categories.iter().fold(0, |mask, category| mask | 1 << category.index()) & !self.yes;
        Self { known: self.known & !mask, ..self }
    }

    /// The same, with nothing known of the harms it does not have.
    #[must_use]
    pub fn at_least(self) -> Self {
        Self { known: self.known & (!Self::HARMS | self.yes), ..self }
    }

    /// Whether a head applies, if that is known.
    #[must_use]
    pub fn head(self, head: usize) -> Option<bool> {
        (self.known >> head & 1 == 1).then_some(self.yes >> head & 1 == 1)
    }

    /// Whether a category that can lead to an action applies.
    #[must_use]
    pub fn is_harm(self) -> bool {
        self.yes & Self::HARMS != 0
    }

    /// Whether it is known that none does.
    #[must_use]
    pub fn is_benign(self) -> bool {
        !self.is_harm() && self.known & Self::HARMS == Self::HARMS
    }
}

/// What an example is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Weights.
    Fit,
    /// Calibration and thresholds.
    Tune,
    /// Figures.
    Test,
}

impl Split {
    /// Texts of one family, say of one template, go together.
    fn of(family: &str, is_benign: bool) -> Self {
        // Thresholds at an error of 1 in 10,000 need many harmless texts.
        let (fit, tune) = if is_benign { (50, 85) } else { (70, 85) };
        match xxh3_64(family.as_bytes()) % 100 {
            part if part < fit => Self::Fit,
            part if part < tune => Self::Tune,
            _ => Self::Test,
        }
    }
}

/// A labelled text.
#[derive(Debug, Clone)]
pub struct Example {
    /// The text.
    pub text: String,
    /// What is known of it.
    pub truth: Truth,
    /// What an error about it costs.
    pub weight: f32,
    /// What it is for.
    pub split: Split,
    /// Its source's place in [`Corpus::entries`].
    pub source: usize,
    /// How it came about.
    pub kind: Kind,
    /// What it counts among those of its kind: all lines of a template count as one.
    pub share: f64,
}

/// How a text came about; errors are counted apart for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Written by somebody for a purpose of its own.
    Found,
    /// Drawn from the grammar.
    Drawn,
    /// Drawn from the sets of the grammar with what people say on any day.
    Everyday,
    /// Harmless, and written to look like harm.
    LookAlike,
}

/// All labelled text.
#[derive(Debug, Default)]
pub struct Corpus {
    /// The examples.
    pub examples: Vec<Example>,
    /// Where they are from.
    pub entries: Vec<SourceEntry>,
    seen: HashSet<u64>,
    families: HashMap<u64, Vec<usize>>,
}

/// A text of a source.
#[derive(Debug, Clone)]
pub struct Row {
    /// The text.
    pub text: String,
    /// What is known of it.
    pub truth: Truth,
    /// What an error about it costs.
    pub weight: f32,
    /// Rows that must not be parted; empty for one that stands alone.
    pub family: String,
    /// How it came about.
    pub kind: Kind,
}

impl Corpus {
    /// Takes a source. Texts that the models could not tell from an earlier one are left out.
    pub fn add(&mut self, name: &str, licence: &str, rows: Vec<Row>, mask: &Mask) {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        let source = self.entries.len();
        let before = self.examples.len();
        for row in rows {
            hasher.update(row.text.as_bytes());
            hasher.update([0]);
            let masked = mask.apply(&Words::of(&Folded::of(&row.text)));
            if masked.words().is_empty() || !self.seen.insert(xxh3_64(masked.text().as_bytes())) {
                continue;
            }
            let family = if row.family.is_empty() { masked.text() } else { row.family.as_str() };
            let split = Split::of(family, row.truth.is_benign());
            self.families.entry(xxh3_64(family.as_bytes())).or_default().push(self.examples.len());
            self.examples.push(Example {
                text: row.text,
                truth: row.truth,
                weight: row.weight,
                split,
                source,
                kind: row.kind,
                share: 1.0,
            });
        }
        for family in self.families.drain().map(|(_, members)| members) {
            // No more lines than a u32 counts are drawn.
            let share = 1.0 / f64::from(u32::try_from(family.len()).unwrap_or(u32::MAX));
            for member in family {
                self.examples[member].share = share;
            }
        }
        self.entries.push(SourceEntry {
            name: name.to_owned(),
            licence: licence.to_owned(),
            sha256: data_encoding::HEXLOWER.encode(&hasher.finalize()),
            rows: (self.examples.len() - before) as u64,
        });
    }

    /// Takes harmless lines that look like harm, all of them for tuning.
    pub fn add_lookalikes(&mut self, name: &str, licence: &str, rows: Vec<Row>, mask: &Mask) {
        let before = self.examples.len();
        self.add(name, licence, rows, mask);
        for example in self.examples.iter_mut().skip(before) {
            (example.split, example.kind) = (Split::Tune, Kind::LookAlike);
        }
    }

    /// Notes a text that is no source of examples and that the model depends on all the same.
    pub fn note(&mut self, name: &str, licence: &str, text: &str) {
        use sha2::{Digest, Sha256};
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        self.entries.push(SourceEntry { name: name.to_owned(), licence: licence.to_owned(), sha256, rows: 0 });
    }

    /// How many examples are harmful.
    #[must_use]
    pub fn harmful(&self) -> usize {
        self.examples.iter().filter(|example| example.truth.is_harm()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_knows_what_it_does_not_know() {
        let hate = Truth::only(&[Category::Hate]);
        assert_eq!((hate.head(Category::Hate.index()), hate.head(Category::Spam.index())), (Some(true), Some(false)));
        let vague = hate.except(&[Category::Harassment]);
        assert_eq!(vague.head(Category::Harassment.index()), None);
        assert_eq!(hate.at_least().head(Category::Spam.index()), None);
        assert_eq!(hate.at_least().head(Category::Hate.index()), Some(true));
        assert!(hate.is_harm() && !hate.is_benign() && Truth::BENIGN.is_benign());
        assert!(!Truth::only(&[Category::Protest]).is_harm());
        assert!(!Truth::BENIGN.except(&[Category::Hate]).is_benign());
    }

    #[test]
    fn texts_that_look_the_same_are_taken_once_and_families_stay_together() {
        let mask = Mask::parse(include_str!("../../../data/viewpoints.toml")).unwrap();
        let (truth, kind) = (Truth::BENIGN, Kind::Drawn);
        let row = |text: &str| Row { text: text.into(), truth, weight: 1.0, family: "one".into(), kind };
        let mut corpus = Corpus::default();
        corpus.add("own", "MIT", vec![row("Women sing"), row("Men SING"), row("birds sing"), row("  ")], &mask);
        assert_eq!(corpus.examples.len(), 2);
        assert_eq!(corpus.examples[0].split, corpus.examples[1].split);
        assert!(
            corpus.examples.iter().all(|example| (example.share - 0.5).abs() < 1e-9 && example.kind == Kind::Drawn)
        );
        corpus.add_lookalikes("like", "MIT", vec![Row { family: String::new(), ..row("a killer whale") }], &mask);
        let last = corpus.examples.last().unwrap();
        assert_eq!((last.split, last.kind), (Split::Tune, Kind::LookAlike));
        assert_eq!((corpus.entries[0].rows, corpus.entries[0].sha256.len()), (2, 64));
    }
}
