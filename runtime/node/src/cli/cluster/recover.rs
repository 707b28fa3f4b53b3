//! `village cluster recover`: what a survivor has becomes the whole cluster, when the majority is gone for good.

use std::path::PathBuf;

use aivillage_runtime::{
    StoreError, Village,
    cluster::{RecoverError, RecoveredGroup, Recovery},
};
use clap::Args;
use serde_json::json;

use super::super::{
    Exit, Failure, Global, Outcome, client,
    config::{self, Sources},
    output::{self, DIM, GOOD, paint},
};
use crate::full;

/// Arguments of `village cluster recover`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village cluster recover --data n1
  village cluster recover --data n1 --i-accept-data-loss

For a node that is stopped, and only when the majority of the nodes will never come back: what they alone had is lost. Without
the flag it shows what would be lost, and exits 3. Take the node whose copies are newest: compare what it shows for each.
Afterwards `village up` runs this node alone; others join anew, with empty data directories. Nodes that were dropped and come
back are refused. As long as a majority of the old nodes may still run somewhere, do not do this: there would be two villages.")]
pub(crate) struct Recover {
    /// Do it.
    #[arg(long)]
    i_accept_data_loss: bool,
    /// Configuration file [default: ./cluster.toml if it exists].
    #[arg(long, value_name = "FILE", env = "VILLAGE_CONFIG")]
    config: Option<PathBuf>,
}

impl Recover {
    pub(super) async fn run(self, global: &Global) -> Outcome {
        let data = format!("node.data={}", toml::Value::from(&*global.data().to_string_lossy()));
        let loaded = Sources::new(self.config, vec![data]).load().map_err(|error| config::refused(&error))?;
        let builder = Village::builder().config(loaded.table).data_dir(&loaded.value.node.data).clustered();
        let builder = full(builder).map_err(|error| Failure::new(Exit::Usage, client::chain(&error)))?;
        let recovery = builder.recover(self.i_accept_data_loss).await.map_err(|error| failure(&error))?;
        if global.json {
            output::json(&json!(recovery));
        } else {
            output::say(page(&recovery));
        }
        if recovery.done {
            return Ok(());
        }
        Err(Failure::silent(Exit::Refused))
    }
}

fn page(recovery: &Recovery) -> String {
    let row = |group: &RecoveredGroup| {
        let applied = group.applied.map_or_else(|| "-".to_owned(), |index| index.to_string());
        let copy = match group {
            RecoveredGroup { applied: None, .. } => "none: begins empty",
            RecoveredGroup { voter: true, .. } => "a voter's",
            _ => "a learner's: may be behind",
        };
        vec![group.group.to_string(), applied, copy.to_owned(), group.voters.len().to_string()]
    };
    let groups = output::table(&["GROUP", "APPLIED", "COPY HERE", "VOTERS BEFORE"], recovery.groups.iter().map(row));
    let nodes: Vec<_> =
        recovery.dropped.iter().map(|node| format!("{} ({}, {})", node.name, node.id, node.addr)).collect();
    let nodes = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
    let end = if recovery.done {
        format!(
            "{} node {} is the whole cluster now; start it with `village up`, and let others join anew",
            paint(GOOD, "✓"),
            recovery.node
        )
    } else {
        "nothing was changed; with --i-accept-data-loss what the dropped nodes alone have is lost for good".to_owned()
    };
    format!("{groups}\n{} {nodes}\n{end}", paint(DIM, "dropped nodes:"))
}

fn failure(error: &RecoverError) -> Failure {
    let message = client::chain(error);
    match error {
        RecoverError::Store(StoreError::InUse { .. }) => Failure::new(Exit::Refused, message)
            .hint("stop the node first; a cluster that has a majority needs no recovery"),
        RecoverError::NoNode { .. } | RecoverError::NoCluster { .. } => {
            Failure::new(Exit::Refused, message).hint("name the data directory of a survivor with --data DIR")
        }
        RecoverError::Removed => Failure::new(Exit::Refused, message).hint("take another survivor"),
        RecoverError::Config(error) => config::refused(error),
        _ => Failure::new(Exit::Failed, message)
            .hint("do it again once the cause is gone; the node does not start before"),
    }
}
