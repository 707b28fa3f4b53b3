//! `village join`: a node of a village that another machine has started, in this process, until a signal ends it.

use clap::Args;

use super::{
    Global, Outcome,
    options::{self, NodeOptions},
    serve::Serve,
};

/// Arguments of `village join`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village join vj1.AAAA...@attic:4100
  village join vj1.AAAA...@attic:4100 --cluster-listen 0.0.0.0:4100 --label gpu=true

`village token new` on the other machine prints this line. The token is needed once: where the data directory is that of a
member already, the node just starts, as it does with `village up`. The other nodes must reach this one: give
--cluster-listen an address that they can dial, and --advertise where that differs.")]
pub(crate) struct Join {
    /// What `village token new` prints behind `village join`.
    #[arg(value_name = "TOKEN@HOST:PORT")]
    address: String,
    #[command(flatten)]
    node: NodeOptions,
}

impl Join {
    /// Joins, serves, drains.
    ///
    /// # Errors
    /// As `village up`; exit 2 for a token that cannot be read, 3 for one that is denied, 4 when nobody answers at the address.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let address = options::join_url(&self.address)?;
        Serve { options: self.node, join: Some(address), with_parent: false }.run(global).await
    }
}
