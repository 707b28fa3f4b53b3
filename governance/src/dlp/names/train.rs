//! How the model of names is made: sentences from templates, filled from lists, and an averaged perceptron over them.
//!
//! Seeded: the same lists and options give the same file. Names are forgotten at random while it learns, so that it can also
//! tell those that no list has.

mod sentence;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tantivy_fst::MapBuilder;

use super::features::{self, Known, flag, folded};
pub use super::model::NoModel;
use super::model::{Model, ROWS, TAGS, Tag};
use super::tokens::{self, Shape, Token};
use crate::dlp::Finding;
use sentence::{Sentence, Slots, TONGUES};

/// How often a word with a capital is as if nothing were known of it.
const FORGOTTEN: f64 = 0.15;
/// How often sentences stand on a line with another one.
const JOINED: f64 = 0.3;

/// How much oftener a city that everybody knows is written about than one of the lists.
const OFTEN: usize = 8;

/// Training did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A list cannot be read.
    #[error("{}: {why}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A template names no slot.
    #[error("templates.txt: no slot {{{0}}}")]
    Slot(String),
    /// The lists make no automaton.
    #[error("the lists: {0}")]
    Lists(String),
    /// The model is none.
    #[error(transparent)]
    Model(#[from] NoModel),
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Of all random choices.
    pub seed: u64,
    /// Passes, each over sentences drawn anew.
    pub rounds: u32,
    /// How often each template is filled in a pass.
    pub fills: u32,
    /// How much surer than nothing a beginning must be, in hundredths of the largest weight.
    pub margin: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, rounds: 8, fills: 25, margin: 12 }
    }
}

/// What is read: files of one entry per line.
#[derive(Debug, Clone)]
pub struct Lists {
    first: Vec<String>,
    last: Vec<String>,
    cities: Vec<String>,
    lands: Vec<String>,
    jobs: Vec<String>,
    streets: Vec<String>,
    common: Vec<String>,
    prose: Vec<String>,
    templates: Vec<String>,
}

impl Lists {
    /// Reads `first.txt`, `last.txt`, `cities.txt`, `world.txt`, `lands.txt`, `jobs.txt`, `streets.txt`, `common.txt`, `prose.txt` and
    /// `templates.txt` of a folder.
    ///
    /// # Errors
    /// [`TrainError::List`] names the file that cannot be used.
    pub fn read(dir: &Path) -> Result<Self, TrainError> {
        let read = |name: &str| {
            let path = dir.join(name).with_extension("txt");
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| TrainError::List { path: path.clone(), why: error.to_string() })?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# "));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            let none = || TrainError::List { path: path.clone(), why: "has no entry".to_owned() };
            if lines.is_empty() { Err(none()) } else { Ok(lines) }
        };
        let (mut cities, world) = (read("cities")?, read("world")?);
        cities.extend(world.iter().cycle().take(world.len() * OFTEN).cloned());
        Ok(Self {
            first: read("first")?,
            last: read("last")?,
            cities,
            lands: read("lands")?,
            jobs: read("jobs")?,
            streets: read("streets")?,
            common: read("common")?,
            prose: read("prose")?,
            templates: read("templates")?,
        })
    }

    /// What the tagger knows of words: in order, as the automaton wants them.
    fn flags(&self) -> BTreeMap<String, u8> {
        let mut flags: BTreeMap<String, u8> = BTreeMap::new();
        let mut add = |word: &str, flag: u8| *flags.entry(folded(word)).or_default() |= flag;
        let parts =
            |entry: &String| entry.split(' ').filter(|word| starts_big(word)).map(str::to_owned).collect::<Vec<_>>();
        self.first.iter().for_each(|word| add(word, flag::FIRST));
        self.last.iter().for_each(|word| add(word, flag::LAST));
        self.cities.iter().flat_map(parts).for_each(|word| add(&word, flag::CITY));
        self.lands.iter().flat_map(parts).for_each(|word| add(&word, flag::LAND));
        for word in TONGUES {
            add(word, flag::LAND);
        }
        self.streets.iter().for_each(|word| add(word, flag::STREET));
        self.common.iter().for_each(|word| add(word, flag::COMMON));
        self.lower_words().iter().for_each(|word| add(word, flag::COMMON));
        flags
    }

    /// Words that prose and templates write without a capital.
    fn lower_words(&self) -> BTreeSet<&str> {
        let lines = self.prose.iter().chain(&self.templates);
        let words = lines.flat_map(|line| line.split(|letter: char| !letter.is_alphabetic()));
        words.filter(|word| word.len() > 2 && word.chars().all(char::is_lowercase)).collect()
    }

    fn automaton(&self) -> Result<Vec<u8>, TrainError> {
        let fail = |error: tantivy_fst::Error| TrainError::Lists(error.to_string());
        let mut builder = MapBuilder::memory();
        for (word, flags) in self.flags() {
            builder.insert(word, u64::from(flags)).map_err(fail)?;
        }
        builder.into_inner().map_err(fail)
    }
}

fn starts_big(word: &str) -> bool {
    word.chars().count() > 2 && word.starts_with(char::is_uppercase)
}

/// Trains, and gives the model's file.
///
/// # Errors
/// [`TrainError`] says which list or template cannot be used.
pub fn train(lists: &Lists, options: &Options, mut progress: impl FnMut(&str)) -> Result<Vec<u8>, TrainError> {
    let model = Model::untrained(lists.automaton()?, 0)?;
    let slots = Slots::new(lists);
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut perceptron = Perceptron::default();
    for round in 1..=options.rounds {
        let mut sentences = slots.sentences(&mut rng, options.fills)?;
        sentences.shuffle(&mut rng);
        let (mut tokens, mut wrong) = (0_u64, 0_u64);
        for line in lines(sentences, &mut rng) {
            let example = Example::of(&line, &model, &mut rng);
            tokens += example.tokens.len() as u64;
            wrong += perceptron.learn(&example);
        }
        progress(&format!("round {round}: {wrong} of {tokens} tokens wrong"));
    }
    let (weights, largest) = perceptron.averaged();
    let margin = i32::try_from(largest * options.margin / 100).unwrap_or_default();
    Ok(Model::untrained(lists.automaton()?, margin)?.with_weights(weights).encode())
}

/// What a model's file finds in a text, to look at one that is not in the program yet.
///
/// # Errors
/// [`NoModel`] when the file is none.
pub fn find(model: &[u8], text: &str) -> Result<Vec<Finding>, NoModel> {
    Ok(super::find(&Model::decode(model)?, text, &[]))
}

/// Sentences as they stand on lines: some together.
fn lines(sentences: Vec<Sentence>, rng: &mut StdRng) -> Vec<Sentence> {
    let mut lines: Vec<Sentence> = Vec::new();
    for sentence in sentences {
        match lines.last_mut() {
            Some(line) if rng.random_bool(JOINED) => line.append(&sentence),
            _ => lines.push(sentence),
        }
    }
    lines
}

/// A line as the tagger sees it, with the right tags.
struct Example {
    tokens: Vec<Token>,
    known: Vec<Known>,
    truth: Vec<Tag>,
}

impl Example {
    fn of(line: &Sentence, model: &Model, rng: &mut StdRng) -> Self {
        let tokens = tokens::split(&line.text, &[]);
        let known = |token: &Token| {
            let known = Known::of(&line.text, token, model);
            let is_forgotten = token.shape.has_capital() && rng.random_bool(FORGOTTEN);
            if is_forgotten { known.forgotten() } else { known }
        };
        let known = tokens.iter().map(known).collect();
        let mut before: Option<usize> = None;
        let truth = tokens.iter().map(|token| {
            let place = line.truth.iter().position(|(_, span)| span.start <= token.start && token.end <= span.end);
            let tag = place.and_then(|place| line.truth.get(place)).map_or(Tag::O, |(kind, _)| Tag::begin(*kind));
            let goes_on = place.is_some() && place == before;
            before = place;
            if goes_on { tag.inside() } else { tag }
        });
        Self { truth: truth.collect(), known, tokens }
    }
}

/// Weights and, for their average, the sum of each over all steps. Collins 2002; the sum as in Daumé 2006, figure 2.3.
struct Perceptron {
    weights: Vec<[i32; TAGS]>,
    sums: Vec<[i64; TAGS]>,
    step: i64,
}

impl Default for Perceptron {
    fn default() -> Self {
        Self { weights: vec![[0; TAGS]; ROWS], sums: vec![[0; TAGS]; ROWS], step: 1 }
    }
}

impl Perceptron {
    /// Tags a line with what it knows so far, corrects what is wrong, and says how much that was.
    fn learn(&mut self, example: &Example) -> u64 {
        let (mut before, mut wrong) = (Tag::O, 0);
        for (at, (known, truth)) in example.known.iter().zip(&example.truth).enumerate() {
            if !known.is_candidate(before) {
                before = Tag::O;
                continue;
            }
            let rows = features::rows(&example.known, at, before);
            let told = self.best(&rows, before, known.shape);
            // What cannot follow a wrong tag is not asked for.
            let truth = if truth.can_be(before, known.shape) { *truth } else { began(*truth) };
            if told != truth && truth.can_be(before, known.shape) {
                wrong += 1;
                for row in &rows {
                    self.correct(*row, truth, told);
                }
            }
            before = told;
            self.step += 1;
        }
        wrong
    }

    fn best(&self, rows: &[usize], before: Tag, shape: Shape) -> Tag {
        let sum = |tag: Tag| rows.iter().filter_map(|row| self.weights.get(*row)?.get(tag as usize)).sum::<i32>();
        let allowed = Tag::ALL.into_iter().filter(|tag| tag.can_be(before, shape));
        allowed
            .map(|tag| (sum(tag), tag))
            .fold((i32::MIN, Tag::O), |best, one| if one.0 > best.0 { one } else { best })
            .1
    }

    fn correct(&mut self, row: usize, truth: Tag, told: Tag) {
        let (Some(weights), Some(sums)) = (self.weights.get_mut(row), self.sums.get_mut(row)) else { return };
        for (tag, change) in [(truth, 1), (told, -1)] {
            weights[tag as usize] += change;
            sums[tag as usize] += i64::from(change) * self.step;
        }
    }

    /// The averages, the largest as 127.
    fn averaged(&self) -> (Box<[[i8; TAGS]]>, u32) {
        let mean = |weight: i32, sum: i64| i64::from(weight) * self.step - sum;
        let all =
            || self.weights.iter().flatten().zip(self.sums.iter().flatten()).map(|(weight, sum)| mean(*weight, *sum));
        let largest = all().map(i64::abs).max().unwrap_or(0).max(1);
        let small = |mean: i64| i8::try_from(mean * 127 / largest).unwrap_or(i8::MAX);
        let row = |(weights, sums): (&[i32; TAGS], &[i64; TAGS])| {
            std::array::from_fn(|tag| small(mean(weights[tag], sums[tag])))
        };
        (self.weights.iter().zip(&self.sums).map(row).collect(), 127)
    }
}

/// The tag that begins what this one is inside of.
fn began(tag: Tag) -> Tag {
    tag.kind().map_or(Tag::O, Tag::begin)
}

#[cfg(test)]
mod tests {
    use super::super::super::DataKind;
    use super::*;

    fn small() -> Lists {
        let mut lists = Lists::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/names")).unwrap();
        lists.prose.truncate(40);
        lists.templates.truncate(60);
        lists
    }

    #[test]
    fn the_same_lists_and_seed_give_the_same_model() {
        let options = Options { rounds: 1, fills: 1, ..Options::default() };
        let once = train(&small(), &options, |_| ()).unwrap();
        assert_eq!(once, train(&small(), &options, |_| ()).unwrap());
        assert_ne!(once, train(&small(), &Options { seed: 2, ..options }, |_| ()).unwrap());
        let model = Model::decode(&once).unwrap();
        assert_eq!(model.flags("maria") & flag::FIRST, flag::FIRST);
    }

    #[test]
    fn a_template_with_an_unknown_slot_is_refused_by_its_name() {
        let mut lists = small();
        lists.templates.push("Dear {nmae},".to_owned());
        let error = train(&lists, &Options { rounds: 1, fills: 1, ..Options::default() }, |_| ()).unwrap_err();
        assert!(error.to_string().contains("{nmae}"), "{error}");
        assert!(matches!(Lists::read(Path::new("/no/such")), Err(TrainError::List { .. })));
    }

    #[test]
    fn truth_is_as_tags() {
        let sentence =
            Sentence { text: "Ann Lee, Bob".to_owned(), truth: vec![(DataKind::Name, 0..7), (DataKind::Name, 9..12)] };
        let model = Model::untrained(small().automaton().unwrap(), 0).unwrap();
        let example = Example::of(&sentence, &model, &mut StdRng::seed_from_u64(1));
        assert_eq!(example.truth, [Tag::BeginName, Tag::InName, Tag::O, Tag::BeginName]);
    }
}
