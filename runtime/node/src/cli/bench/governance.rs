//! `village bench governance`: what policies, moderation, data loss, log and tokens cost on this machine, beside their targets.

use std::path::PathBuf;

use aivillage_governance::bench::{self, Better, Figure};
use aivillage_runtime::Village;
use clap::Args;
use serde_json::json;

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, BOLD, DIM, GOOD, WARN, paint},
};

/// Arguments of `village bench governance`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village bench governance --dir /var/lib/village")]
pub(crate) struct Governance {
    /// Folder on the disk whose log is measured; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

impl Governance {
    /// Measures and prints; a missed target is shown like a reached one.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("the bench stopped: {error}"));
        let folder = tempfile::Builder::new().prefix("village-bench-").tempdir_in(&self.dir);
        let folder = folder.map_err(|error| failed(&format_args!("{}: {error}", self.dir.display())))?;
        let village = Village::builder().start().await.map_err(|error| failed(&error))?;
        let path = folder.path().to_owned();
        let measured = village.task("bench.governance", async move { bench::run(&path).await });
        let figures = measured.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        village.shutdown().await.map_err(|error| failed(&error))?;
        if as_json {
            let missed = figures.iter().filter(|figure| !figure.is_met()).count();
            output::json(&json!({ "optimised": !cfg!(debug_assertions), "missed": missed, "figures": figures }));
        } else {
            output::say(table(&figures));
        }
        Ok(())
    }
}

fn table(figures: &[Figure]) -> String {
    let line = |figure: &Figure| {
        let sign = if figure.better == Better::Less { "<=" } else { ">=" };
        let verdict = match (figure.target, figure.is_met()) {
            (None, _) => String::new(),
            (_, true) => paint(GOOD, "reached"),
            (_, false) => paint(WARN, "missed"),
        };
        vec![
            figure.name.to_owned(),
            figure.target.map_or_else(|| "-".to_owned(), |target| format!("{sign} {}", number(target))),
            number(figure.reached),
            figure.unit.to_owned(),
            verdict,
        ]
    };
    let rows = figures.iter().map(line);
    let missed = figures.iter().filter(|figure| !figure.is_met()).count();
    let summary = match missed {
        0 => paint(BOLD, "all targets reached"),
        n => paint(BOLD, format!("{n} missed")),
    };
    let profile = if cfg!(debug_assertions) { paint(WARN, "  unoptimised build") } else { String::new() };
    let remark = paint(DIM, "peers in the same run: cargo bench -p aivillage-governance --bench NAME");
    format!("{}\n{summary}{profile}\n{remark}", output::table(&["figure", "#target", "#reached", "unit", ""], rows))
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_shown_beside_what_was_reached() {
        let figure = |name, target, reached| Figure { name, unit: "us", better: Better::Less, target, reached };
        let text =
            table(&[figure("quick", Some(150.0), 90.0), figure("slow", Some(1.0), 7.25), figure("plain", None, 3.0)]);
        let of = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(of("quick").contains("<= 150") && of("quick").contains("reached"), "{text}");
        assert!(of("slow").contains("7.25") && of("slow").contains("missed"), "{text}");
        assert!(!of("plain").contains("missed") && text.contains("1 missed"), "{text}");
    }
}
