//! `village policy status` and `apply`: the policies of a running village.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, BAD, DIM, GOOD, paint, text},
};
use super::{refused, sources};
use aivillage_governance::policy::Bundle;

/// Arguments of `village policy status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village policy status")]
pub(crate) struct Status {}

impl Status {
    pub(super) async fn run(self, global: &Global) -> Outcome {
        let status = Client::open(global)?.get(&["v1", "policy"], &[]).await?;
        if global.json {
            output::json(&status);
            return Ok(());
        }
        let from = match status["version"].as_u64() {
            Some(0) | None => "from the program or its folder".to_owned(),
            Some(version) => format!("version {version} of the cluster"),
        };
        output::say(format_args!("{} policies, {from}  {}", status["policies"], paint(DIM, text(&status, "hash"))));
        if let Some(problem) = status["problem"].as_str() {
            output::say(format_args!("{} {problem}", paint(BAD, "newer ones are not at work:")));
        }
        Ok(())
    }
}

/// Arguments of `village policy apply`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village policy apply ./policies
  village policy apply ./policies --expect 3

All nodes work by them within a second; governance.policy.dir counts no more. Policies that are wrong change nothing.")]
pub(crate) struct Apply {
    /// Folder with policies; they come beside those of the program.
    dir: PathBuf,
    /// Version that they are made from [default: the one that is at work].
    #[arg(long, value_name = "VERSION")]
    expect: Option<u64>,
}

impl Apply {
    pub(super) async fn run(self, global: &Global) -> Outcome {
        let sources = sources(Some(&self.dir))?;
        // Here every fault is told with its place, as `check` does.
        Bundle::load(&sources).map_err(|error| refused(&error))?;
        let client = Client::open(global)?;
        let mut body = serde_json::to_value(&sources)
            .map_err(|error| Failure::new(Exit::Failed, format!("the policies cannot be sent: {error}")))?;
        body["expect"] = match self.expect {
            Some(version) => json!(version),
            None => client.get(&["v1", "policy"], &[]).await?["version"].clone(),
        };
        let applied = client.post(&["v1", "policy"], &body).await?;
        if global.json {
            output::json(&applied);
        } else {
            let version = &applied["version"];
            output::say(format_args!("{} as version {version}", paint(GOOD, "✓ at work")));
            output::say(format_args!("  hash {}", text(&applied, "hash")));
        }
        Ok(())
    }
}
