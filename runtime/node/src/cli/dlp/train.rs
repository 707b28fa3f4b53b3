//! `village dlp train`.

use std::{fs, path::PathBuf};

use aivillage_governance::dlp::train::{self, Lists, Options};
use clap::Args;
use serde_json::json;

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, GOOD, paint},
};

/// Arguments of `village dlp train`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village dlp train --lists governance/data/names --out governance/models/names.avnm

The model of names and addresses is part of the program: build it anew to use another one.")]
pub(crate) struct Train {
    /// Folder with the lists and templates.
    #[arg(long, value_name = "DIR")]
    lists: PathBuf,
    /// Where the model goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seed of all random choices: the same lists and seed give the same model.
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
    /// Passes over the sentences; less is faster.
    #[arg(long, default_value_t = Options::default().rounds)]
    rounds: u32,
    /// How often each template is filled in a pass.
    #[arg(long, default_value_t = Options::default().fills)]
    fills: u32,
    /// How much surer than nothing a tag must be; more finds less and is right more often.
    #[arg(long, default_value_t = Options::default().margin)]
    margin: u32,
}

impl Train {
    /// Trains and writes.
    ///
    /// # Errors
    /// A list that cannot be used, or a file that cannot be written.
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let fail = |why: String| Failure::new(Exit::Failed, why);
        let lists = Lists::read(&self.lists).map_err(|error| fail(error.to_string()))?;
        let options = Options {
            seed: self.seed,
            rounds: self.rounds.clamp(1, 64),
            fills: self.fills.clamp(1, 1_000),
            margin: self.margin.min(1_000),
        };
        let progress = |line: &str| output::note(paint(DIM, format_args!("  {line}")));
        let model = train::train(&lists, &options, progress).map_err(|error| fail(error.to_string()))?;
        let size = model.len() as u64;
        fs::write(&self.out, model).map_err(|error| fail(format!("cannot write {}: {error}", self.out.display())))?;
        if as_json {
            output::json(&json!({ "model": self.out, "bytes": size }));
        } else {
            let (file, size) = (self.out.display(), output::size(size));
            output::say(format_args!("{} {file} ({size})", paint(GOOD, "✓ trained:")));
        }
        Ok(())
    }
}
