//! How a model is made: read sources, generate text from a grammar, fit models A and B, calibrate, fit thresholds,
//! measure.
//!
//! Seeded: the same sources and options give the same model. Packages are read as unpacked archives, none is imported.
//! Nothing about sexual abuse of children is trained on: rows that touch it are dropped, those categories have rules
//! only.

pub mod corpus;
pub mod evaluate;
pub mod grammar;
mod label;
mod net;
mod platt;
mod sgd;
pub mod sources;
mod thresholds;

use std::path::PathBuf;

pub use corpus::{Corpus, Example, Split, Truth};
pub use sources::Sources;

use super::engine::{Engine, EngineError};
use super::features::{Features, windows};
use super::hashes::HashList;
use super::linear::Linear;
use super::manifest::Manifest;
use super::model::Model;

/// The grammar of this release.
pub const GRAMMAR: &str = include_str!("../../data/grammar.toml");

/// Training did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A source cannot be read.
    #[error("{}: {why}", path.display())]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The grammar is wrong.
    #[error("grammar: {0}")]
    Grammar(String),
    /// The release's rules or terms are.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A split has no harmful or no harmless example.
    #[error("too few examples: {0}")]
    TooFew(&'static str),
}

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Of all random choices.
    pub seed: u64,
    /// Passes of model A over the data.
    pub epochs: u32,
    /// Passes of model B.
    pub bag_epochs: u32,
    /// Most rows of model A; the heaviest stay.
    pub rows: usize,
    /// What the grammar's counts are multiplied by.
    pub generated: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, epochs: 6, bag_epochs: 8, rows: 85_000, generated: 1.0 }
    }
}

/// A trained model and its papers.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The model; it has the manifest's hash.
    pub model: Model,
    /// The manifest's text.
    pub manifest: String,
}

/// An example as numbers.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) features: Features,
    pub(super) truth: Truth,
    pub(super) weight: f32,
}

/// Trains.
///
/// # Errors
/// [`TrainError`] says which source is unusable.
pub fn train(sources: &Sources, options: &Options, mut progress: impl FnMut(&str)) -> Result<Trained, TrainError> {
    let untrained = Engine::with(empty(), Manifest::default(), HashList::default(), &sources.texts)?;
    let corpus = sources.corpus(options, untrained.mask())?;
    progress(&format!("{} examples, {} of them harmful", corpus.examples.len(), corpus.harmful()));
    let samples = |split| samples(&corpus, split, &untrained);
    let (fit, tune) = (samples(Split::Fit), samples(Split::Tune));
    if !fit.iter().any(|sample| sample.truth.is_harm()) || !tune.iter().any(|sample| sample.truth.is_benign()) {
        return Err(TrainError::TooFew("the sources need harmful and harmless text"));
    }
    let linear = sgd::fit(&fit, &tune, options, &mut progress);
    let bag = net::fit(&fit, &tune, options, &mut progress);
    finish(Model { linear, bag: Some(bag), manifest: [0; 32] }, &corpus, sources, options, progress)
}

/// Fits the thresholds of a model anew and measures it: the last part of [`train`], for other rules or look-alikes.
///
/// # Errors
/// [`TrainError`] says which source is unusable.
pub fn refit(
    model: Model,
    sources: &Sources,
    options: &Options,
    progress: impl FnMut(&str),
) -> Result<Trained, TrainError> {
    let engine = Engine::with(empty(), Manifest::default(), HashList::default(), &sources.texts)?;
    let corpus = sources.corpus(options, engine.mask())?;
    finish(model, &corpus, sources, options, progress)
}

fn finish(
    mut model: Model,
    corpus: &Corpus,
    sources: &Sources,
    options: &Options,
    mut progress: impl FnMut(&str),
) -> Result<Trained, TrainError> {
    let mut manifest = Manifest { seed: options.seed, sources: corpus.entries.clone(), ..Manifest::default() };
    let engine = Engine::with(model.clone(), manifest.clone(), HashList::default(), &sources.texts)?;
    manifest.thresholds = thresholds::fit(&engine, corpus);
    progress("thresholds fitted");
    let engine = Engine::with(model.clone(), manifest.clone(), HashList::default(), &sources.texts)?;
    manifest.metrics = evaluate::measure(&engine, corpus);
    let manifest = manifest.to_json();
    model.manifest = <sha2::Sha256 as sha2::Digest>::digest(manifest.as_bytes()).into();
    Ok(Trained { model, manifest })
}

/// A model that knows nothing.
fn empty() -> Model {
    let linear = Linear::empty();
    Model { linear, bag: None, manifest: [0; 32] }
}

/// The first window of each example of a split; examples are about a window long.
fn samples(corpus: &Corpus, split: Split, engine: &Engine) -> Vec<Sample> {
    use super::norm::Folded;
    use super::words::Words;
    let of_split = corpus.examples.iter().filter(|example| example.split == split);
    let sample = |example: &Example| {
        let words = engine.prepare(&Words::of(&Folded::of(&example.text)));
        let window = windows(&words).into_iter().next()?;
        let features = Features::of(&words, window);
        Some(Sample { features, truth: example.truth, weight: example.weight })
    };
    of_split.filter_map(sample).collect()
}

#[cfg(test)]
mod tests;
