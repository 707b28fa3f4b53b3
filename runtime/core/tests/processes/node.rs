//! A node's process: a village with two kinds, and a port on which the tests ask it things.

use std::io::Read;
use std::time::{Duration, Instant};

use aivillage_runtime::blob::BlobRef;
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, CallError, Cluster, Durability, Durable, Entity, Idem, Kind,
    KindOptions, Mail, Reply, Village,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Serialize, Deserialize)]
pub(crate) enum CounterMsg {
    Add(u64, Reply<u64>),
    Get(Reply<u64>),
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Count(u64);

impl Durable for Count {
    type Event = u64;
    fn apply(&mut self, added: &u64) {
        self.0 += added;
    }
}

/// A number that survives.
pub(crate) struct Counter;

impl Kind for Counter {
    const NAME: &'static str = "test.counter";
    type Body = CounterMsg;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Counter {
    type Msg = Mail<CounterMsg>;
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
        match mail.body {
            CounterMsg::Add(n, reply) => reply.complete(count.commit_once(mail.cx.idem(), n, |count| count.0).await),
            CounterMsg::Get(reply) => reply.send(count.0),
        }
        Ok(())
    }
}

/// A number that survives on the node where it is, and nowhere else.
pub(crate) struct Note;

impl Kind for Note {
    const NAME: &'static str = "test.note";
    type Body = CounterMsg;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Local)
    }
}

impl Actor for Note {
    type Msg = Mail<CounterMsg>;
    type State = Entity<Count>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Entity<Count>, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        count: &mut Entity<Count>,
    ) -> Result<(), ActorProcessingErr> {
        Counter.handle(me, mail, count).await
    }
}

/// Says which node it is on; keeps nothing.
pub(crate) struct Echo;

impl Kind for Echo {
    const NAME: &'static str = "test.echo";
    type Body = Reply<String>;
}

impl Actor for Echo {
    type Msg = Mail<Reply<String>>;
    type State = String;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<String, ActorProcessingErr> {
        Ok(cx.village().node_id().to_string())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        node: &mut String,
    ) -> Result<(), ActorProcessingErr> {
        mail.body.send(node.clone());
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) enum SlowMsg {
    Tell(String),
    /// Answers with the node.
    Ask(String, Reply<String>),
}

/// Takes its time for each message.
pub(crate) struct Slow;

impl Kind for Slow {
    const NAME: &'static str = "test.slow";
    type Body = SlowMsg;
}

impl Actor for Slow {
    type Msg = Mail<SlowMsg>;
    type State = String;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<String, ActorProcessingErr> {
        Ok(cx.village().node_id().to_string())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        node: &mut String,
    ) -> Result<(), ActorProcessingErr> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let SlowMsg::Ask(_, reply) = mail.body {
            reply.send(node.clone());
        }
        Ok(())
    }
}

/// What a test asks a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Adds to a counter, once for each idempotency key.
    Add { key: String, n: u64, idem: String, ms: u64 },
    /// Reads a counter.
    Get { key: String, ms: u64 },
    /// Asks where an actor without state lives.
    Echo { key: String, ms: u64 },
    /// Asks where a slow actor lives.
    WhereSlow { key: String },
    /// Sends to a slow actor as fast as it goes; counts what was taken and what was refused.
    Flood { key: String, tasks: usize, bytes: usize, ms: u64 },
    /// Asks an actor without state one time after another, and tells how long that took.
    Latency { key: String, ms: u64 },
    /// Writes a blob of so many bytes.
    Put { bytes: u64 },
    /// Fetches a blob, and tells how many seconds that took.
    Fetch { blob: BlobRef },
    /// Adds to a number that one node keeps.
    Note { key: String, n: u64, ms: u64 },
    /// Forgets a node, by its id.
    Remove { node: String },
    /// How the cluster is.
    Status,
    /// A join token.
    Token,
    /// Ends the process in good order.
    Stop,
}

pub(crate) fn run_if_asked() {
    let Ok(spec) = std::env::var("VILLAGE_TEST_NODE") else { return };
    let spec: Value = serde_json::from_str(&spec).unwrap();
    // `VILLAGE_TEST_LOGS=DIR RUST_LOG=debug` keeps a log of each node.
    if let (Ok(dir), Ok(filter)) = (std::env::var("VILLAGE_TEST_LOGS"), std::env::var("RUST_LOG")) {
        let path = format!("{dir}/{}.log", spec["name"].as_str().unwrap());
        let file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(file).init();
        tracing::info!("process started");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(spec));
}

async fn run(spec: Value) {
    let config: toml::Table = spec["config"].as_str().unwrap().parse().unwrap();
    let builder = Village::builder().host(|_: &ActorCx| Counter).host(|_: &ActorCx| Echo);
    let builder = builder.host(|_: &ActorCx| Note).host(|_: &ActorCx| Slow).config(config);
    let village = builder.data_dir(spec["data"].as_str().unwrap()).clustered().start().await.unwrap();
    let listener = TcpListener::bind(spec["port"].as_str().unwrap()).await.unwrap();
    println!("\nLISTENING {}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let village = village.clone();
        tokio::task::spawn(async move { drop(serve(&village, stream).await) });
    }
}

async fn serve(village: &Village, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line) {
            Ok(ask) => answer(village, ask).await,
            Err(error) => json!({ "err": error.to_string() }),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

async fn answer(village: &Village, ask: Ask) -> Value {
    let limit = Duration::from_millis;
    match ask {
        Ask::Add { key, n, idem, ms } => {
            let call = village.addr::<Counter>(key);
            let call = call.call().deadline(limit(ms)).idem(Idem::of(&[idem.as_bytes()]));
            outcome(call.ask(|reply| CounterMsg::Add(n, reply)).await)
        }
        Ask::Get { key, ms } => {
            outcome(village.addr::<Counter>(key).call().deadline(limit(ms)).ask(CounterMsg::Get).await)
        }
        Ask::Echo { key, ms } => outcome(village.addr::<Echo>(key).call().deadline(limit(ms)).ask(|reply| reply).await),
        Ask::WhereSlow { key } => {
            outcome(village.addr::<Slow>(key).ask(|reply| SlowMsg::Ask(String::new(), reply)).await)
        }
        Ask::Flood { key, tasks, bytes, ms } => {
            let end = Instant::now() + limit(ms);
            let tasks = (0..tasks).map(|task| tokio::spawn(flood(village.addr::<Slow>(&key), task, bytes, end)));
            let counts = futures::future::join_all(tasks).await.into_iter().map(Result::unwrap);
            let [taken, overloaded, other] =
                counts.fold([0_u64; 3], |sum, one| std::array::from_fn(|n| sum[n] + one[n]));
            json!({ "ok": { "taken": taken, "overloaded": overloaded, "other": other } })
        }
        Ask::Latency { key, ms } => json!({ "ok": latency(&village.addr::<Echo>(key), limit(ms)).await }),
        Ask::Put { bytes } => {
            let blob = village.blobs().put_reader(std::io::repeat(7).take(bytes)).await;
            json!({ "ok": blob.unwrap() })
        }
        Ask::Fetch { blob } => {
            let begun = Instant::now();
            match village.blobs().fetch(&blob).await {
                Ok(()) => json!({ "ok": begun.elapsed().as_secs_f64() }),
                Err(error) => json!({ "err": error.to_string() }),
            }
        }
        Ask::Note { key, n, ms } => {
            let call = village.addr::<Note>(key);
            outcome(call.call().deadline(limit(ms)).ask(|reply| CounterMsg::Add(n, reply)).await)
        }
        Ask::Remove { node } => match village.cluster().unwrap().remove(node.parse().unwrap(), false).await {
            Ok(()) => json!({ "ok": true }),
            Err(error) => json!({ "err": error.to_string() }),
        },
        Ask::Status => {
            json!({ "ok": village.cluster().map(Cluster::status), "ready": village.health().ready })
        }
        Ask::Token => {
            let token = village.cluster().unwrap().new_token(16, Duration::from_mins(10), "test").await;
            match token {
                Ok(token) => json!({ "ok": [token.to_string(), village.cluster().unwrap().addr()] }),
                Err(error) => json!({ "err": error.to_string() }),
            }
        }
        Ask::Stop => {
            let stopped = village.shutdown().await;
            std::process::exit(i32::from(stopped.is_err()));
        }
    }
}

/// Half of the tasks tell, half ask. Messages taken, refused as too many, and failed otherwise.
async fn flood(slow: Addr<Slow>, task: usize, bytes: usize, end: Instant) -> [u64; 3] {
    let mut counts = [0; 3];
    let body = "x".repeat(bytes);
    while Instant::now() < end {
        let sent = if task.is_multiple_of(2) {
            slow.tell(SlowMsg::Tell(body.clone())).await
        } else {
            slow.ask(|reply| SlowMsg::Ask(body.clone(), reply)).await.map(drop)
        };
        match sent {
            Ok(()) => counts[0] += 1,
            Err(CallError::Overloaded { .. }) => counts[1] += 1,
            Err(error) => {
                println!("flood: {error}");
                counts[2] += 1;
            }
        }
        // Who is refused looks after others before trying again.
        tokio::task::yield_now().await;
    }
    counts
}

async fn latency(echo: &Addr<Echo>, time: Duration) -> Value {
    let end = Instant::now() + time;
    let (mut times, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        let begun = Instant::now();
        match echo.ask(|reply| reply).await {
            Ok(_) => times.push(begun.elapsed()),
            Err(_) => failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map(|time| time.as_secs_f64() * 1e3);
    json!({ "asks": times.len(), "failed": failed, "p50_ms": at(50), "p99_ms": at(99) })
}

fn outcome<T: Serialize>(result: Result<T, CallError>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "err": error.to_string(), "code": error.code() }),
    }
}
