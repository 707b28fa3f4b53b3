//! The process of one node, with what the benches ask it for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Codec, Durability, Durable, Entity, Kind, KindOptions, Mail, NodeId,
    Reply, Village,
};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{Exit, Failure, Outcome, output};

/// Arguments of the hidden `village bench node`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village bench node --listen 127.0.0.1:4100 --dir /tmp/n1")]
pub(crate) struct NodeRole {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    dir: PathBuf,
    /// `TOKEN@HOST:PORT`; empty founds a cluster, or goes on with the one it was in.
    #[arg(long, default_value = "")]
    join: String,
    /// Keeps no state of groups.
    #[arg(long)]
    battery: bool,
    /// Ends when standard input does.
    #[arg(long)]
    with_parent: bool,
}

/// To an actor that keeps what it is told, on several nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NoteMsg {
    /// Keeps a text; the answer is the node that did.
    Keep(String, Reply<NodeId>),
    /// Which node it is on.
    Where(Reply<NodeId>),
    /// How many `fdatasync` calls the store of that node has made.
    Syncs(Reply<u64>),
}

/// An actor that keeps how much it was told.
#[derive(Debug)]
pub(super) struct Note;

/// What it keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    notes: u64,
    last: String,
}

impl Durable for Kept {
    type Event = String;
    fn apply(&mut self, text: &String) {
        self.notes += 1;
        self.last.clone_from(text);
    }
}

impl Kind for Note {
    const NAME: &'static str = "bench.note";
    type Body = NoteMsg;
    const CODEC: Codec = Codec::Compact;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Note {
    type Msg = Mail<NoteMsg>;
    type State = (Village, Entity<Kept>);
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok((cx.village().clone(), cx.recover().await?))
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        (village, kept): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            NoteMsg::Keep(text, reply) => {
                let me = village.node_id();
                reply.complete(kept.commit_once(mail.cx.idem(), text, |_| me).await);
            }
            NoteMsg::Where(reply) => reply.send(village.node_id()),
            NoteMsg::Syncs(reply) => reply.send(syncs(&village.encode_metrics())),
        }
        Ok(())
    }
}

fn syncs(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("village_store_syncs_total "));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// An actor that says which node it is on and keeps nothing.
#[derive(Debug)]
pub(super) struct Where;

impl Kind for Where {
    const NAME: &'static str = "bench.where";
    type Body = Reply<NodeId>;
    const CODEC: Codec = Codec::Compact;
}

impl Actor for Where {
    type Msg = Mail<Reply<NodeId>>;
    type State = NodeId;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<NodeId, ActorProcessingErr> {
        Ok(cx.village().node_id())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, me: &mut NodeId) -> Result<(), ActorProcessingErr> {
        mail.body.send(*me);
        Ok(())
    }
}

impl NodeRole {
    /// Runs until it is ended, or the bench is gone that started it.
    ///
    /// # Errors
    /// When the node does not start.
    pub(crate) async fn run(self) -> Outcome {
        self.serve()
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("a node of the bench stopped: {error:#}")))
    }

    async fn serve(self) -> anyhow::Result<()> {
        let mut config = format!("node.listen = '{}'\n", self.listen);
        if self.battery {
            config.push_str("node.labels = { battery = 'true' }\n");
        }
        if let Some((token, seed)) = self.join.split_once('@') {
            config.push_str(&format!("join.token = '{token}'\njoin.seeds = ['{seed}']\n"));
        }
        let builder = Village::builder().config(config.parse()?).data_dir(&self.dir).clustered();
        let village = builder.host(|_: &ActorCx| Where).host(|_: &ActorCx| Note).start().await?;
        let cluster = village.cluster().ok_or_else(|| anyhow::anyhow!("not clustered"))?;
        // A founder that comes back may have no majority yet, and is not asked for a token either.
        let fresh = self.join.is_empty() && cluster.takes_part();
        let token = if fresh { Some(cluster.new_token(64, Duration::from_hours(1), "bench").await?) } else { None };
        let token = token.map(|token| token.to_string()).unwrap_or_default();
        output::say(format_args!("{} {token}@{}", village.node_id(), cluster.addr()));
        if self.with_parent { super::until_ended().await } else { std::future::pending().await }
    }
}
