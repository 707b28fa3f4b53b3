//! `village log audit`: every file of a log against what was signed.

use std::{io, path::PathBuf};

use aivillage_governance::tlog::{AuditKeys, AuditReport, Disk, Home, audit};
use clap::Args;
use serde_json::json;

use super::super::{
    Exit, Failure, Global, Outcome, client,
    output::{self, BAD, GOOD, paint},
    serve::GOVERNANCE,
};
use super::keys::{KeyArgs, Keys};

/// Arguments of `village log audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village log audit
  village log audit /backup/village-data/governance/tlog --key \"$(cat village.key)\"

The village must be stopped. Exit code 1: a file is not as it was written; the first line names the cause.")]
pub(crate) struct Audit {
    /// Folder of the log [default: governance/tlog in the data directory].
    dir: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
}

impl Audit {
    /// Reads and checks the whole log.
    ///
    /// # Errors
    /// Exit 1 when something is wrong with it, 2 without log or keys, 3 while a village writes it.
    pub(crate) fn run(self, global: &Global) -> Outcome {
        let dir = self.dir.unwrap_or_else(|| Home::folder_in(&client::home(global).join(GOVERNANCE)));
        if !dir.is_dir() {
            return Err(Failure::new(Exit::Usage, format!("there is no log in {}", dir.display())));
        }
        let keys = if self.keys.is_empty() { beside(&dir)? } else { self.keys.read()? };
        let keys = AuditKeys { log: keys.only_log()?.clone(), witnesses: keys.witnesses };
        let report = audit(&disk(dir)?, &keys).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        show(&report, global.json);
        if report.is_clean() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
    }
}

/// Holds the log while it is read: what a village writes meanwhile would look like damage.
fn disk(dir: PathBuf) -> Result<Disk, Failure> {
    match Disk::open(&dir) {
        Ok(disk) => Ok(disk),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Failure::new(Exit::Refused, format!("{} is in use", dir.display()))
                .hint("stop the village, or audit a copy"))
        }
        // A copy that cannot be written to has no writer either.
        Err(_) => Ok(Disk::reading(dir)),
    }
}

/// The keys that the node left beside its log.
fn beside(dir: &std::path::Path) -> Result<Keys, Failure> {
    let file = Home::keys_beside(dir);
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read the log's key in {}: {error}", file.display()))
            .hint("give it with --key KEY or --keys FILE")
    })?;
    Keys::default().with(&text, &file.display())
}

fn show(report: &AuditReport, as_json: bool) {
    let AuditReport { entries, root, findings } = report;
    if as_json {
        let root = root.to_string();
        return output::json(
            &json!({ "clean": report.is_clean(), "entries": entries, "root": root, "findings": findings }),
        );
    }
    for finding in findings {
        let (file, index, what) = (&finding.file, finding.index, &finding.what);
        output::say(format_args!("{} {file}, entry {index}: {what}", paint(BAD, "bad")));
    }
    if findings.is_empty() {
        output::say(format_args!("{}: entries {entries}, root {root}", paint(GOOD, "clean")));
    }
}
