//! `village bench`: figures of this machine, each beside its peer in the same run.

mod blob;
mod commits;
mod failover;
mod governance;
mod local;
mod node;
mod nodes;
mod remote;
mod store;

use clap::Subcommand;

use super::{Exit, Failure, Global, Outcome, serve::StopSignals};

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// What a local tell and ask cost over raw `ractor`.
    Local(local::Local),
    /// How fast messages are between two processes, beside `ractor_cluster` and Erlang.
    Remote(remote::Remote),
    /// How long actors are away when their node is lost.
    Failover(failover::Failover),
    /// How fast writes are that three nodes keep, beside etcd.
    Commits(commits::Commits),
    /// How fast a large blob comes from another node, beside OpenSSL.
    Blob(blob::Blob),
    /// How fast and how safe durable writes are.
    Store(store::Store),
    /// What policies, moderation, the log and the gate of them all cost, beside their targets.
    Governance(governance::Governance),
    /// Be a node that a bench uses.
    #[command(hide = true)]
    Node(node::NodeRole),
}

impl Bench {
    /// Measures and prints a table.
    ///
    /// # Errors
    /// When what is measured does not start.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Local(local) => local.run(global.json).await,
            Self::Remote(remote) => unless_stopped(Box::pin(remote.run(global.json))).await,
            Self::Failover(failover) => failover.run(global.json).await,
            Self::Commits(commits) => unless_stopped(Box::pin(commits.run(global.json))).await,
            Self::Blob(blob) => unless_stopped(Box::pin(blob.run(global.json))).await,
            Self::Store(store) => store.run(global.json).await,
            Self::Governance(governance) => unless_stopped(Box::pin(governance.run(global.json))).await,
            Self::Node(node) => node.run().await,
        }
    }
}

/// Ends the work at a signal, so that what it has started and written is cleared away.
async fn unless_stopped(work: impl Future<Output = Outcome>) -> Outcome {
    let mut stop = StopSignals::listen(false)?;
    tokio::select! {
        outcome = work => outcome,
        () = stop.first() => Err(Failure::new(Exit::Failed, "stopped by a signal")),
    }
}

/// Completes when the bench that started this process is gone, however it ended, or a signal says so.
async fn until_ended() -> anyhow::Result<()> {
    let mut stop = StopSignals::listen(true).map_err(|failure| anyhow::anyhow!(failure.message))?;
    stop.first().await;
    Ok(())
}
