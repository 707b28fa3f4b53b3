//! `village bench store`: durable writes on this disk, with a bare `fdatasync` loop beside them.

use std::{path::PathBuf, time::Duration};

use aivillage_runtime::{
    Village,
    store::bench::{self, BenchOptions, Committers, StoreBench},
};
use clap::Args;

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, WARN, paint},
};

/// Arguments of `village bench store`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village bench store --dir /var/lib/village")]
pub(crate) struct Store {
    /// Folder on the disk to measure; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Repetitions; the medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..100))]
    rounds: u16,
    /// Time of each measurement.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    each: Duration,
}

impl Store {
    /// Measures and prints.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("the bench stopped: {error}"));
        let folder = tempfile::Builder::new().prefix("village-bench-").tempdir_in(&self.dir);
        let folder = folder.map_err(|error| failed(&format_args!("{}: {error}", self.dir.display())))?;
        // A village in memory lends its worker tasks: a committer on the thread of `block_on` would pay for wake-ups.
        let village = Village::builder().start().await.map_err(|error| failed(&error))?;
        let (path, options) = (folder.path().to_owned(), BenchOptions { each: self.each, rounds: self.rounds.into() });
        let measured = village.task("bench.store", async move { bench::run(&path, options).await });
        let report = measured.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        village.shutdown().await.map_err(|error| failed(&error))?;
        if as_json {
            output::json(&serde_json::to_value(&report).map_err(|error| failed(&error))?);
        } else {
            output::say(table(&report));
        }
        Ok(())
    }
}

fn table(report: &StoreBench) -> String {
    let line = |of: &Committers| {
        vec![
            format!("{} at once", of.committers),
            format!("{:.0}", of.commits_per_s),
            format!("{:.2}", of.commits_per_sync),
            format!("{:.2}", of.commits_per_plain_fdatasync),
        ]
    };
    let plain = vec![
        "bare fdatasync loop".to_owned(),
        format!("{:.0}", report.fdatasync_per_s),
        "1.00".to_owned(),
        "1.00".to_owned(),
    ];
    let rows = [plain, line(&report.one), line(&report.many)];
    let remark =
        format!("medians of {} rounds; {} byte values, durable at power loss", report.rounds, report.value_bytes);
    let profile = if cfg!(debug_assertions) { paint(WARN, "  unoptimised build") } else { String::new() };
    format!(
        "{}\n{}{profile}",
        output::table(&["committers", "#commits/s", "#per sync", "#per bare fdatasync"], rows),
        paint(DIM, remark)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_shows_the_bare_loop_beside_one_and_many() {
        let committers = |committers| Committers {
            committers,
            commits_per_s: 10.0,
            commits_per_sync: 2.0,
            commits_per_plain_fdatasync: 3.0,
        };
        let report =
            StoreBench { value_bytes: 200, rounds: 5, fdatasync_per_s: 7.0, one: committers(1), many: committers(64) };
        let text = table(&report);
        assert!(text.contains("bare fdatasync loop") && text.contains("64 at once") && text.contains("3.00"), "{text}");
    }
}
