
use std::time::{Duration, Instant};
use aivillage_runtime::{Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, Kind, KindOptions, Mail, Reply, Village};
use ractor::RpcReplyPort;
use serde::{Deserialize, Serialize};
const BATCH: u32 = 1000;
fn cpu() -> Duration { static S: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now); S.elapsed() }
fn med(v:&mut Vec<f64>)->f64{v.sort_by(f64::total_cmp);v[v.len()/2]}
#[tokio::main]
async fn main() {
    let mode: Vec<String> = std::env::args().collect();
    let rounds: usize = mode.get(2).map_or(15, |s| s.parse().unwrap());
    let village = Village::builder().host(|_: &ActorCx| Adder).start().await.unwrap();
    let (raw, _) = Actor::spawn(None, RawAdder, ()).await.unwrap();
    let sides = Sides { ours: village.addr::<Adder>("bench"), raw };
    eprintln!("ask future {}, mail {}", std::mem::size_of_val(&sides.ours.ask(AdderMsg::Total)), std::mem::size_of::<Mail<AdderMsg>>());
    let m = mode[1].clone();
    village.task("b", async move {
        sides.ours_asks(1).await.unwrap();
        let mut r = [vec![],vec![],vec![],vec![]];
        macro_rules! t { ($i:expr,$n:expr,$e:expr) => {{ let c=cpu(); $e.await.unwrap(); r[$i].push((cpu()-c).as_nanos() as f64/f64::from($n)); }} }
        for _ in 0..rounds {
            if m.contains("rt") { t!(0,200*1001u32,sides.raw_tells(200)) }
            if m.contains("ot") { t!(1,200*1001u32,sides.ours_tells(200)) }
            if m.contains("ra") { t!(2,20000u32,sides.raw_asks(20000)) }
            if m.contains("oa") { t!(3,20000u32,sides.ours_asks(20000)) }
        }
        let ratio=|a:&Vec<f64>,b:&Vec<f64>| { let mut v:Vec<f64>=a.iter().zip(b).map(|(a,b)|a/b).collect(); if v.is_empty(){0.0}else{med(&mut v)} };
        println!("tell {:.3} ask {:.3}", ratio(&r[1],&r[0]), ratio(&r[3],&r[2]));
        for (n,v) in ["rt","ot","ra","oa"].iter().zip(r.iter_mut()) { if !v.is_empty() { println!("{n} {:.0}", med(v)); } }
    }).await.unwrap();
    village.shutdown().await.unwrap();
    let _ = Instant::now();
}
/// What both adders understand. The raw one has the same variants with ractor's own port.
#[derive(Debug, Serialize, Deserialize)]
enum AdderMsg {
    Add(u64),
    Total(Reply<u64>),
}

#[derive(Debug)]
struct Adder;

impl Kind for Adder {
    const NAME: &'static str = "bench.adder";
    type Body = AdderMsg;

    fn options() -> KindOptions {
        // A batch and its ask must fit; everything else is as users get it.
        KindOptions::default().mailbox(2 * BATCH)
    }
}

impl Actor for Adder {
    type Msg = Mail<AdderMsg>;
    type State = u64;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match mail.body {
            AdderMsg::Add(n) => *total = total.wrapping_add(n),
            AdderMsg::Total(reply) => reply.send(*total),
        }
        Ok(())
    }
}

#[derive(Debug)]
enum RawMsg {
    Add(u64),
    Total(RpcReplyPort<u64>),
}

impl ractor::Message for RawMsg {}

#[derive(Debug)]
struct RawAdder;

impl Actor for RawAdder {
    type Msg = RawMsg;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RawMsg>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<RawMsg>, message: RawMsg, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match message {
            RawMsg::Add(n) => *total = total.wrapping_add(n),
            RawMsg::Total(reply) => reply.send(*total)?,
        }
        Ok(())
    }
}

type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// The two actors that are compared.
struct Sides {
    ours: Addr<Adder>,
    raw: ActorRef<RawMsg>,
}

impl Sides {
    async fn ours_tells(&self, batches: u32) -> Result<(), BenchError> {
        for _ in 0..batches {
            for n in 0..BATCH {
                self.ours.tell(AdderMsg::Add(u64::from(n))).await?;
            }
            self.ours.ask(AdderMsg::Total).await?;
        }
        Ok(())
    }

    async fn raw_tells(&self, batches: u32) -> Result<(), BenchError> {
        for _ in 0..batches {
            for n in 0..BATCH {
                self.raw.cast(RawMsg::Add(u64::from(n)))?;
            }
            self.raw_ask().await?;
        }
        Ok(())
    }

    async fn ours_asks(&self, asks: u32) -> Result<(), BenchError> {
        for _ in 0..asks {
            self.ours.ask(AdderMsg::Total).await?;
        }
        Ok(())
    }

    async fn raw_asks(&self, asks: u32) -> Result<(), BenchError> {
        for _ in 0..asks {
            self.raw_ask().await?;
        }
        Ok(())
    }

    /// With a time limit, as every ask of the kit has one.
    async fn raw_ask(&self) -> Result<u64, BenchError> {
        match self.raw.call(RawMsg::Total, Some(Duration::from_secs(10))).await? {
            ractor::rpc::CallResult::Success(total) => Ok(total),
            other => Err(format!("raw ractor did not answer: {other:?}").into()),
        }
    }
}

