//! `village ledger audit`: of a village that runs, or of the data directory of one that is stopped.

use std::path::PathBuf;

use aivillage_governance::ledger::{StoppedError, audit::Audited, audit_stopped};
use aivillage_runtime::{StoreError, Village, cluster::RecoverError};
use clap::Args;
use serde_json::{Value, json};

use super::super::{
    Exit, Failure, Global, Outcome,
    client::{self, Client},
    config::{self, Sources},
    output::{self, GOOD, paint},
};

/// Arguments of `village ledger audit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village ledger audit
  village ledger audit --stopped --data village-data --json

With --stopped it reads the node's copy in the data directory and asks no village. Exit code 1: something is not as it was
written, or does not balance; the message names the segment or the account.")]
pub(crate) struct Audit {
    /// Read the data directory of a node that is stopped.
    #[arg(long)]
    stopped: bool,
    /// Configuration file [default: ./cluster.toml if it exists].
    #[arg(long, value_name = "FILE", env = "VILLAGE_CONFIG")]
    config: Option<PathBuf>,
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> Outcome {
        let audited = if self.stopped {
            self.offline(global).await?
        } else {
            Client::open(global)?.get(&["v1", "ledger", "audit"], &[]).await?
        };
        if global.json {
            output::json(&audited);
        } else {
            output::say(line(&audited));
        }
        Ok(())
    }

    async fn offline(self, global: &Global) -> Result<Value, Failure> {
        let data = format!("node.data={}", toml::Value::from(&*global.data().to_string_lossy()));
        let loaded = Sources::new(self.config, vec![data]).load().map_err(|error| config::refused(&error))?;
        let builder = Village::builder().config(loaded.table).data_dir(&loaded.value.node.data);
        for copy in builder.copies().map_err(|error| unreadable(&error))? {
            match audit_stopped(copy).await {
                Ok(None) => {}
                Ok(Some(audited)) => return Ok(value(&audited)),
                Err(StoppedError::Wrong(error)) => {
                    return Err(Failure::new(Exit::Failed, format!("the ledger: {error}"))
                        .hint("another node's copy may be whole: compare them, and restore this one from it"));
                }
                Err(error) => return Err(Failure::new(Exit::Unavailable, client::chain(&error))),
            }
        }
        Ok(value(&Audited::default()))
    }
}

fn unreadable(error: &RecoverError) -> Failure {
    let message = client::chain(error);
    match error {
        RecoverError::Store(StoreError::InUse { .. }) => {
            Failure::new(Exit::Refused, message).hint("stop the village, or ask it: without --stopped")
        }
        RecoverError::NoNode { .. } => {
            Failure::new(Exit::Usage, message).hint("name the data directory of a node with --data DIR")
        }
        RecoverError::Config(error) => config::refused(error),
        _ => Failure::new(Exit::Unavailable, message),
    }
}

/// As the route tells it.
fn value(audited: &Audited) -> Value {
    let posted: serde_json::Map<_, _> =
        audited.posted.iter().map(|(ledger, sum)| (ledger.unit(), sum.to_string().into())).collect();
    json!({ "segments": audited.segments, "accounts": audited.accounts, "holds": audited.open, "posted": posted })
}

fn line(audited: &Value) -> String {
    let number = |name: &str| audited.get(name).and_then(Value::as_u64).unwrap_or_default();
    let posted = audited.get("posted").and_then(Value::as_object).into_iter().flatten();
    let posted: Vec<_> = posted.map(|(unit, sum)| format!("{} {unit}", sum.as_str().unwrap_or_default())).collect();
    let posted = if posted.is_empty() { "nothing".to_owned() } else { posted.join(", ") };
    format!(
        "{}: {}, {}, {}; posted {posted}",
        paint(GOOD, "clean"),
        output::count(usize::try_from(number("segments")).unwrap_or(usize::MAX), "segment"),
        output::count(usize::try_from(number("accounts")).unwrap_or(usize::MAX), "account"),
        output::count(usize::try_from(number("holds")).unwrap_or(usize::MAX), "open hold"),
    )
}

#[cfg(test)]
mod tests {
    use aivillage_governance::ledger::record::LedgerId;

    use super::*;

    #[test]
    fn what_is_right_is_one_line() {
        let posted = [(LedgerId::MICRO_USD, u128::MAX)].into();
        let audited = value(&Audited { segments: 1, accounts: 2, open: 0, posted });
        let plain = anstream::adapter::strip_str(&line(&audited)).to_string();
        let most = u128::MAX;
        assert_eq!(plain, format!("clean: 1 segment, 2 accounts, 0 open holds; posted {most} micro_usd"));
        assert!(line(&value(&Audited::default())).ends_with("posted nothing"));
    }
}
