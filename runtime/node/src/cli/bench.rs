//! `village bench`: figures of this machine, each beside its peer in the same run.

mod commits;
mod failover;
mod local;
mod node;
mod nodes;
mod remote;
mod store;

use clap::Subcommand;

use super::{Global, Outcome};

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
    /// How fast and how safe durable writes are.
    Store(store::Store),
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
            Self::Remote(remote) => remote.run(global.json).await,
            Self::Failover(failover) => failover.run(global.json).await,
            Self::Commits(commits) => commits.run(global.json).await,
            Self::Store(store) => store.run(global.json).await,
            Self::Node(node) => node.run().await,
        }
    }
}
