//! The keys that the offline commands believe.

use std::{fmt::Display, fs, path::PathBuf};

use aivillage_governance::tlog::VerifierKey;
use clap::Args;

use super::super::{Exit, Failure};

/// Whose signatures count.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Key of the log or of a witness, as `village log key` prints it; may be given again.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// File with such keys, a line each; may be given again.
    #[arg(long = "keys", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl KeyArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.files.is_empty()
    }

    /// Reads them all.
    pub(crate) fn read(&self) -> Result<Keys, Failure> {
        let mut keys = Keys::default();
        for key in &self.keys {
            keys = keys.with(key, &"--key")?;
        }
        for file in &self.files {
            let name = file.display();
            let text = fs::read_to_string(file)
                .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {name}: {error}")))?;
            keys = keys.with(&text, &name)?;
        }
        Ok(keys)
    }
}

/// Keys of logs and of witnesses.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) logs: Vec<VerifierKey>,
    pub(crate) witnesses: Vec<VerifierKey>,
}

impl Keys {
    /// Takes the keys of a text, a line each; empty lines and comments are skipped.
    pub(crate) fn with(mut self, text: &str, source: &dyn Display) -> Result<Self, Failure> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let key: VerifierKey =
                line.parse().map_err(|error| Failure::new(Exit::Usage, format!("{source}: {line:?}: {error}")))?;
            let kind = if key.is_log() { &mut self.logs } else { &mut self.witnesses };
            kind.push(key);
        }
        Ok(self)
    }

    /// The key of the log with this origin.
    pub(crate) fn log_of(&self, origin: &str) -> Result<&VerifierKey, Failure> {
        self.logs.iter().find(|key| key.name() == origin).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("it is of the log {origin:?}, whose key was not given"))
                .hint("`village log key` prints the key of a village's log")
        })
    }

    /// The one key of a log.
    pub(crate) fn only_log(&self) -> Result<&VerifierKey, Failure> {
        match self.logs.as_slice() {
            [key] => Ok(key),
            keys => {
                Err(Failure::new(Exit::Usage, format!("the key of one log is wanted, and there are {}", keys.len())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_by_what_they_sign_and_wrong_ones_are_named() {
        let (log, witness) =
            (VerifierKey::log("a/1", [1; 32]).unwrap(), VerifierKey::witness("a/1/w", [2; 32]).unwrap());
        let keys = Keys::default().with(&format!("# ours\n{log}\n\n{witness}\n"), &"file").unwrap();
        assert_eq!((keys.only_log().unwrap(), &keys.witnesses), (&log, &vec![witness]));
        assert_eq!(keys.log_of("a/1").unwrap(), &log);
        assert_eq!(keys.log_of("a/2").unwrap_err().exit, Exit::Failed);
        let wrong = Keys::default().with("nonsense", &"file").unwrap_err();
        assert!(wrong.exit == Exit::Usage && wrong.message.contains("file") && wrong.message.contains("nonsense"));
    }
}
