//! `village log verify`: believes keys, and nothing else.

use std::{fs, path::PathBuf};

use aivillage_governance::tlog::{Checkpoint, TlogProof, TrustPolicy, Verified};
use clap::Args;
use serde_json::{Value, json};

use super::super::{
    Exit, Failure, Global, Outcome,
    output::{self, GOOD, paint},
};
use super::{keys::KeyArgs, line, time};

/// Arguments of `village log verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village log verify 17.tlog-proof --key \"$(cat village.key)\"
  village log verify 17.tlog-proof --keys trusted.keys --quorum 2

No village is asked. Exit code 1: the proof does not convince.")]
pub(crate) struct Verify {
    /// The proof, as `village log prove` writes it.
    file: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Witnesses, of those whose keys are given, that must have cosigned.
    #[arg(long, value_name = "N", default_value_t = 0)]
    quorum: usize,
}

impl Verify {
    /// Checks the proof.
    ///
    /// # Errors
    /// Exit 2 without keys or file, 1 when it does not convince.
    pub(crate) fn run(self, global: &Global) -> Outcome {
        if self.keys.is_empty() {
            return Err(Failure::new(Exit::Usage, "whose signature counts? give --key KEY or --keys FILE")
                .hint("`village log key` prints the key of a village's log"));
        }
        let name = self.file.display();
        let keys = self.keys.read()?;
        let text = fs::read_to_string(&self.file)
            .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {name}: {error}")))?;
        let fails = |why: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{name} proves nothing: {why}"));
        let proof: TlogProof = text.parse().map_err(|error| fails(&error))?;
        // Only says which key to use: nothing is believed yet.
        let claimed: Checkpoint = proof.note.text().parse().map_err(|error| fails(&error))?;
        let log = keys.log_of(&claimed.origin)?.clone();
        let policy = TrustPolicy { log, witnesses: keys.witnesses, quorum: self.quorum };
        let verified = proof.verify(None, &policy).map_err(|error| fails(&error))?;
        let entry = proof.extra.as_deref().and_then(|entry| serde_json::from_slice(entry).ok()).unwrap_or(Value::Null);
        show(&verified, &entry, global.json);
        Ok(())
    }
}

fn show(verified: &Verified, entry: &Value, as_json: bool) {
    let Verified { index, checkpoint, witnesses } = verified;
    if as_json {
        let witnesses: Vec<_> =
            witnesses.iter().map(|(name, unix_s)| json!({ "name": name, "unix_s": unix_s })).collect();
        output::json(&json!({
            "verified": true, "index": index, "origin": checkpoint.origin, "size": checkpoint.size, "witnesses": witnesses,
            "entry": entry,
        }));
        return;
    }
    let (origin, size) = (&checkpoint.origin, checkpoint.size);
    output::say(format_args!("{} entry {index} of the {size} of {origin}", paint(GOOD, "verified")));
    output::say(line(entry));
    for (name, unix_s) in witnesses {
        output::say(format_args!("cosigned by {name} at {}", time(*unix_s)));
    }
}
