//! A counter as an actor: written, hosted, asked. `cargo run --example embed_an_actor -p aivillage-examples`
use aivillage::prelude::*;

struct Counter;
#[rustfmt::skip]
impl Kind for Counter { const NAME: &'static str = "counter"; type Body = (u64, Reply<u64>); }
impl Actor for Counter {
    type Msg = Mail<(u64, Reply<u64>)>;
    type State = u64;
    type Arguments = ActorCx;
    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }
    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, total: &mut u64) -> Result<(), ActorProcessingErr> {
        let (amount, reply) = mail.body;
        *total += amount;
        reply.send(*total);
        Ok(())
    }
}
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let village = Village::builder().host(|_: &ActorCx| Counter).start().await?;
    let visits = village.addr::<Counter>("visits");
    println!("{} {}", visits.ask(|reply| (2, reply)).await?, visits.ask(|reply| (3, reply)).await?);
    Ok(village.shutdown().await?)
}
