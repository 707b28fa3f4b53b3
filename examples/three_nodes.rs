//! One counter on three nodes: this program starts itself twice more, kills one of the three, and counts on.
//!
//! `cargo run --example three_nodes -p aivillage-examples`

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aivillage::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
struct Count(u64);

impl Durable for Count {
    type Event = u64;

    fn apply(&mut self, added: &u64) {
        self.0 += added;
    }
}

struct Counter;

impl Kind for Counter {
    const NAME: &'static str = "counter";
    type Body = (u64, Reply<u64>);

    fn options() -> KindOptions {
        // A copy on each of three nodes; what was answered is on two of them.
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Counter {
    type Msg = Mail<(u64, Reply<u64>)>;
    type State = Entity<Count>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Entity<Count>, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        count: &mut Entity<Count>,
    ) -> Result<(), ActorProcessingErr> {
        let (added, reply) = mail.body;
        // With the key of the request a repeated one has no second effect, on whatever node it ends up.
        reply.complete(count.commit_once(mail.cx.idem(), added, |count| count.0).await);
        Ok(())
    }
}

async fn node(join: &str) -> anyhow::Result<Village> {
    let config = format!("node.listen = '127.0.0.1:0'\n{join}").parse()?;
    Ok(Village::builder().config(config).clustered().host(|_: &ActorCx| Counter).start().await?)
}

/// Waits until all three take part, each group of actors has three copies, and leadership is spread.
async fn settled(cluster: &Cluster) {
    while {
        let status = cluster.status();
        let copies = status.groups.iter().all(|group| group.voters.len() == 3);
        status.health != "healthy" || !copies || status.members.iter().any(|member| member.leads.len() < 2)
    } {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(join) = std::env::args().nth(1) {
        let _village = node(&join).await?;
        // Until it is killed, or the first process ends.
        tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
        return Ok(());
    }
    let village = node("").await?;
    let cluster = village.cluster().expect("it was started as one");
    let token = cluster.new_token(2, Duration::from_mins(1), "three_nodes").await?;
    let join = format!("join.token = '{token}'\njoin.seeds = ['{}']", cluster.addr());
    let start = || Command::new(std::env::current_exe()?).arg(&join).stdin(Stdio::piped()).spawn();
    let mut others: Vec<Child> = vec![start()?, start()?];
    settled(cluster).await;
    println!("three nodes are one village");
    for round in 0..9_u64 {
        if round == 5 {
            others[0].kill()?;
            println!("one of them was killed");
        }
        for key in ["here", "there", "elsewhere"] {
            let idem = Idem::of(&[key.as_bytes(), &round.to_le_bytes()]);
            let total = village.addr::<Counter>(key).call().idem(idem).ask(|reply| (1, reply)).await?;
            println!("{key}: {total}");
        }
    }
    Ok(())
}
