//! Two nodes of a cluster.

use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, CallError, Codec, Kind, KindOptions, Mail, Reply, Village,
};
use serde::{Deserialize, Serialize};

use super::measure::{self, Far};
use crate::cli::output;

#[derive(Debug, Serialize, Deserialize)]
enum EchoMsg {
    Tell(String),
    Ask(String, Reply<String>),
}

#[derive(Debug)]
struct Echo;

impl Kind for Echo {
    const NAME: &'static str = "bench.echo";
    type Body = EchoMsg;
    const CODEC: Codec = Codec::Compact;

    fn options() -> KindOptions {
        // The client sends faster than the actor can be asked to slow it down; nothing may be refused.
        KindOptions::default().mailbox(1 << 20)
    }
}

impl Actor for Echo {
    type Msg = Mail<EchoMsg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match mail.body {
            EchoMsg::Ask(body, reply) => reply.send(body),
            EchoMsg::Tell(body) => drop(body),
        }
        Ok(())
    }
}

impl Far for Addr<Echo> {
    async fn ask(&self, body: String) -> anyhow::Result<()> {
        Addr::ask(self, |reply| EchoMsg::Ask(body, reply)).await.map(drop).map_err(anyhow::Error::from)
    }

    async fn tell(&self, body: String) -> anyhow::Result<()> {
        Addr::tell(self, EchoMsg::Tell(body)).await.map_err(anyhow::Error::from)
    }
}

/// Founds a cluster with the actor on it, says how to join, and runs until it is ended.
pub(super) async fn serve() -> anyhow::Result<()> {
    let config = "node.listen = '127.0.0.1:0'".parse()?;
    let village = Village::builder().config(config).clustered().host(|_: &ActorCx| Echo).start().await?;
    let cluster = village.cluster().ok_or_else(|| anyhow::anyhow!("not clustered"))?;
    let token = cluster.new_token(1, Duration::from_mins(10), "bench").await?;
    output::say(format_args!("{token}@{}", cluster.addr()));
    crate::cli::bench::until_ended().await
}

/// Joins and measures.
pub(super) async fn measure(join: &str, share: u32) -> anyhow::Result<()> {
    let (token, seed) = join.split_once('@').ok_or_else(|| anyhow::anyhow!("not TOKEN@ADDR: {join}"))?;
    let config = format!("node.listen = '127.0.0.1:0'\njoin.token = '{token}'\njoin.seeds = ['{seed}']").parse()?;
    let village = Village::builder().config(config).clustered().start().await?;
    let echo = village.addr::<Echo>("bench");
    let work = village.task("bench.remote", async move {
        while let Err(error) = Addr::ask(&echo, |reply| EchoMsg::Ask(String::new(), reply)).await {
            anyhow::ensure!(!matches!(error, CallError::Decode { .. }), error);
        }
        measure::measure(echo, share).await
    });
    output::say(serde_json::to_string(&work.await??)?);
    Ok(())
}
