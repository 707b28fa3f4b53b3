//! `village config`: the configuration before it is used. Also how `village up` reads it.

use std::path::{Path, PathBuf};

use aivillage_runtime::config::{self, Loaded};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Exit, Failure, Global, Outcome,
    output::{self, DIM, GOOD, paint},
};
use crate::Cluster;

/// Used when no file is named and this one exists.
const DEFAULT_FILE: &str = "cluster.toml";

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    file: Option<PathBuf>,
    sets: Vec<String>,
}

impl Sources {
    /// The named file, else `./cluster.toml` if it is there, else none.
    pub(crate) fn new(named: Option<PathBuf>, sets: Vec<String>) -> Self {
        let file = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()));
        Self { file, sets }
    }

    /// The file that is read, if any.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What is set over file and environment.
    pub(crate) fn sets(&self) -> &[String] {
        &self.sets
    }

    /// Reads and checks: `--set` over `VILLAGE__SECTION__KEY` over the file over the defaults.
    pub(crate) fn load(&self) -> Result<Loaded<Cluster>, config::ConfigError> {
        let loaded = config::load::<Cluster>(self.file(), std::env::vars(), &self.sets)?;
        loaded.value.validate()?;
        Ok(loaded)
    }
}

/// A configuration that cannot be used: exit 2, with the place and what would be right.
pub(crate) fn refused(error: &config::ConfigError) -> Failure {
    Failure::new(Exit::Usage, error.to_string()).hint("`village config show` prints all keys with their values")
}

/// Commands of `village config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say whether a configuration is good.
    Check(Check),
    /// Print every key with the value in effect.
    Show(Show),
}

impl Config {
    /// Runs the command; no village is needed.
    ///
    /// # Errors
    /// A configuration that is wrong (exit 2).
    pub(crate) fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Check(check) => check.run(global.json),
            Self::Show(show) => show.run(global.json),
        }
    }
}

/// Arguments of `village config check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village config check /etc/village/cluster.toml")]
pub(crate) struct Check {
    /// File to check [default: ./cluster.toml].
    file: Option<PathBuf>,
    /// Check with this value too.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

impl Check {
    fn run(self, as_json: bool) -> Outcome {
        let sources = Sources::new(self.file, self.sets);
        sources.load().map_err(|error| refused(&error))?;
        let what = sources.file().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
        if as_json {
            output::json(&json!({ "ok": true, "file": sources.file() }));
        } else {
            output::say(format_args!("{} {what}", paint(GOOD, "✓ good:")));
        }
        Ok(())
    }
}

/// Arguments of `village config show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village config show --set edge.listen=127.0.0.1:8181")]
pub(crate) struct Show {
    /// File to read [default: ./cluster.toml].
    file: Option<PathBuf>,
    /// Show with this value.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

impl Show {
    fn run(self, as_json: bool) -> Outcome {
        let sources = Sources::new(self.file, self.sets);
        let cluster = sources.load().map_err(|error| refused(&error))?.value;
        let unprintable = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("cannot print: {error}"));
        if as_json {
            output::json(&serde_json::to_value(&cluster).map_err(|error| unprintable(&error))?);
        } else {
            let origin = sources.file().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
            output::say(paint(DIM, format_args!("# in effect: {origin}, environment, --set")));
            output::say(toml::to_string_pretty(&cluster).map_err(|error| unprintable(&error))?.trim_end());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn unknown_key_is_a_usage_error_with_its_line() {
        let file = file("[edge]\nlisten = \"127.0.0.1:1\"\nlisen = 2\n");
        let failure = refused(&Sources::new(Some(file.path().into()), Vec::new()).load().unwrap_err());
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(":3:") && failure.message.contains("listen"), "{}", failure.message);
    }

    #[test]
    fn option_wins_over_the_file() {
        let file = file("[limits]\nmailbox = 5\n");
        let sources = Sources::new(Some(file.path().into()), vec!["limits.mailbox=7".into()]);
        assert_eq!(sources.load().unwrap().value.limits.mailbox, 7);
    }

    #[test]
    fn value_that_makes_no_sense_is_refused() {
        let sources = Sources::new(None, vec!["limits.mailbox=0".into()]);
        assert!(sources.load().unwrap_err().to_string().contains("limits.mailbox"));
    }
}
