//! A counter that survives `kill -9`: this program starts itself, kills that process while it counts, and counts on.
//!
//! `cargo run --example durable_counter -p aivillage-examples`

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use aivillage::prelude::*;
use serde::{Deserialize, Serialize};

/// The state: what all events so far add up to.
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
        KindOptions::default().durable(Durability::Local)
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
        // Durable first, told afterwards: what a caller has heard is on the disk.
        reply.complete(count.commit(added).await.map(|()| count.0).map_err(CallError::from));
        Ok(())
    }
}

async fn count(data: &Path, steps: u64) -> anyhow::Result<()> {
    let village = Village::builder().data_dir(data).host(|_: &ActorCx| Counter).start().await?;
    let visits = village.addr::<Counter>("visits");
    for _ in 0..steps {
        println!("{}", visits.ask(|reply| (1, reply)).await?);
    }
    Ok(village.shutdown().await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(data) = std::env::args().nth(1) {
        return count(Path::new(&data), u64::MAX).await;
    }
    let data = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?).arg(data.path()).stdout(Stdio::piped()).spawn()?;
    let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines);
    let last = lines.take(100).last().transpose()?.unwrap_or_default();
    child.kill()?;
    child.wait()?;
    println!("killed with -9 after it said {last}; going on with the same data:");
    count(data.path(), 3).await
}
