//! `village up`: the whole village in this process, or several nodes of it in processes of their own, until a signal ends it.

use clap::Args;

use super::{
    Global, Outcome, fleet,
    options::{self, NodeOptions},
    serve::Serve,
};

/// Arguments of `village up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village up
  village up --data ~/.village --listen 127.0.0.1:8181
  village up --nodes 3
  village up --cluster-listen 0.0.0.0:4100 --label gpu=true
  village up --set limits.mailbox=4096 --set telemetry.log=debug

With --nodes the ports count up from the configured ones and the data lies in n1, n2, ... of the data directory.

Ctrl-C or SIGTERM drains and exits 0, a second one exits 1 at once; SIGHUP reads the configuration again.")]
pub(crate) struct Up {
    /// Start this many nodes on this machine, each a process of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    /// Leave a node of --nodes down when it dies, instead of starting it again.
    #[arg(long, requires = "nodes")]
    no_restart: bool,
    /// Join the village of another node first, as `village join` does.
    #[arg(long, value_name = "TOKEN@HOST:PORT", conflicts_with = "nodes")]
    join: Option<String>,
    /// End when standard input does: how the nodes of --nodes follow the process that started them.
    #[arg(long, hide = true)]
    with_parent: bool,
    #[command(flatten)]
    node: NodeOptions,
}

impl Up {
    /// Starts, serves, drains.
    ///
    /// # Errors
    /// Exit 2 for a wrong configuration, 3 when data directory or port is in use, 4 when the store cannot be opened, 1 when
    /// draining was cut short, 70 when the supervisors gave up.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        if let Some(nodes) = self.nodes.filter(|nodes| *nodes > 1) {
            return fleet::run(nodes, &self.node, !self.no_restart, global).await;
        }
        let join = self.join.as_deref().map(options::join_url).transpose()?;
        Serve { options: self.node, join, with_parent: self.with_parent }.run(global).await
    }
}
