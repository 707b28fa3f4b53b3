//! Plain `ractor` actors across processes: this program starts itself once more, the two make one village, and an actor that
//! knows nothing of it is called from the other process, over the cluster's own TLS.
//!
//! `cargo run --example native_ractor -p aivillage-examples`

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aivillage::prelude::*;
use aivillage::runtime::ractor_cluster::RactorClusterMessage;
use ractor::{RpcReplyPort, pg};

#[derive(RactorClusterMessage)]
enum GreeterMsg {
    #[rpc]
    Greet(String, RpcReplyPort<String>),
}

struct Greeter;

impl Actor for Greeter {
    type Msg = GreeterMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<GreeterMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        pg::join("greeters".into(), vec![me.get_cell()]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<GreeterMsg>, msg: GreeterMsg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let GreeterMsg::Greet(name, reply) = msg;
        Ok(reply.send(format!("hello {name}, this is process {}", std::process::id()))?)
    }
}

async fn node(join: &str) -> anyhow::Result<Village> {
    let config = format!("node.listen = '127.0.0.1:0'\n{join}").parse()?;
    Ok(Village::builder().config(config).clustered().start().await?)
}

async fn until(members: usize) -> Vec<ActorRef<GreeterMsg>> {
    loop {
        let greeters = pg::get_members(&"greeters".into());
        if greeters.len() == members {
            return greeters.into_iter().map(ActorRef::from).collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(join) = std::env::args().nth(1) {
        let _village = node(&join).await?;
        Actor::spawn(None, Greeter, ()).await?;
        // Until it is killed, or the other process ends.
        tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
        return Ok(());
    }
    let village = node("").await?;
    let cluster = village.cluster().ok_or_else(|| anyhow::anyhow!("not clustered"))?;
    let token = cluster.new_token(1, Duration::from_mins(1), "greeter").await?;
    let join = format!("join.token = '{token}'\njoin.seeds = ['{}']", cluster.addr());
    println!("process {} has founded a village", std::process::id());
    let mut child =
        Command::new(std::env::current_exe()?).arg(join).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let greeters = tokio::time::timeout(Duration::from_secs(30), until(1)).await?;
    let greeting = greeters[0].call(|reply| GreeterMsg::Greet("ada".into(), reply), None).await?;
    println!("{}", greeting.unwrap_or("no answer".into()));
    child.kill()?;
    let killed = Instant::now();
    tokio::time::timeout(Duration::from_secs(5), until(0)).await?;
    println!("killed with -9: its actors were gone after {} ms", killed.elapsed().as_millis());
    child.wait()?;
    Ok(village.shutdown().await?)
}
