//! Closed-loop load on one route: so many connections, each asks again as soon as it is answered. Prints one line of JSON.
//!
//! ```text
//! cargo run --release -p aivillage-edge --example load -- --connections 1000 --seconds 10
//! cargo run --release -p aivillage-edge --example load -- --url http://127.0.0.1:8080/v1/agents --key "$(cat village-data/admin.key)"
//! ```
//! `--body JSON` makes it a POST; `--bodies FILE` posts the lines of a file, each connection from another one on.
//! Without `--url` it starts a village of its own in this process, so server and generator share the cores. With
//! `--documents 10000` that village has so many documents of 1 KB and is asked about them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "made for the bench of the memory, which uses all of it")]
#[path = "../../../memory/benches/memory/corpus.rs"]
mod corpus;

use aivillage_edge::{Edge, EdgeConfig, RunningEdge};
use aivillage_memory::{Memory, Put, WaitFor};
use aivillage_runtime::Village;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The allocator of the binary `village`, so that a village in this process is as fast as one of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What to ask, how often, for how long.
#[derive(Clone)]
struct Plan {
    addr: SocketAddr,
    path: String,
    key: String,
    /// What is posted in turn; empty for GET.
    bodies: Arc<[Bytes]>,
    connections: usize,
    length: Duration,
}

/// What one connection saw.
#[derive(Default)]
struct Tally {
    micros: Vec<u32>,
    errors: u64,
    /// What the first error was.
    why: Option<String>,
}

impl Tally {
    fn failed(&mut self, why: impl std::fmt::Display) {
        self.errors += 1;
        self.why.get_or_insert_with(|| why.to_string());
    }
}

fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

fn number(name: &str, default: usize) -> Result<usize, Fault> {
    option(name).map_or(Ok(default), |text| text.parse().map_err(|_| format!("{name} {text:?} is not a number").into()))
}

fn main() -> Result<(), Fault> {
    let dir = tempfile::tempdir()?;
    let server = tokio::runtime::Runtime::new()?;
    let own = match option("--url") {
        Some(_) => None,
        None => Some(server.block_on(start(dir.path()))?),
    };
    let documents = number("--documents", 0)?;
    let asks = documents > 0 && own.is_some();
    let (addr, default_path, key) = match (&own, option("--url")) {
        (Some((_, edge)), _) => {
            let path = if asks { "/v1/agents/sage/ask" } else { "/v1/agents" };
            (edge.addr, path.to_owned(), std::fs::read_to_string(&edge.admin_key_path)?)
        }
        (None, url) => {
            let uri: hyper::Uri = url.unwrap_or_default().parse()?;
            let addr = uri.authority().ok_or("--url needs host and port")?.as_str().parse()?;
            (addr, uri.path().to_owned(), option("--key").ok_or("--url needs --key")?)
        }
    };
    let path = option("--path").unwrap_or(default_path);
    let mut bodies: Vec<Bytes> = option("--body").map(Bytes::from).into_iter().collect();
    if let Some(file) = option("--bodies") {
        bodies.extend(std::fs::read_to_string(file)?.lines().map(|line| Bytes::from(line.to_owned())));
    }
    if let Some((village, _)) = own.as_ref().filter(|_| asks) {
        server.block_on(fill(village, documents))?;
        let name = if path.ends_with("/query") { "text" } else { "input" };
        let questions = corpus::questions(11, documents, 2_000).into_iter();
        bodies.extend(questions.map(|question| Bytes::from(serde_json::json!({ name: question }).to_string())));
    }
    let plan = Plan {
        addr,
        path,
        key: key.trim().to_owned(),
        bodies: bodies.into(),
        connections: number("--connections", 1_000)?,
        length: Duration::from_secs(number("--seconds", 10)? as u64),
    };
    // One thread takes answers in the order in which they come: queues of its own would count as the server's latency.
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    report(&plan, client.block_on(run(&plan)))?;
    if let Some((village, edge)) = own {
        server.block_on(async {
            edge.drain().await;
            village.shutdown().await
        })?;
    }
    Ok(())
}

async fn start(dir: &std::path::Path) -> Result<(Village, RunningEdge), Fault> {
    let builder = aivillage_memory::install(aivillage_edge::install(Village::builder().data_dir(dir)));
    let (builder, governance) = aivillage_governance::install(aivillage_actors::install(builder)?)?;
    let village = builder.start().await?;
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = EdgeConfig { listen: free, admin_listen: free, ..EdgeConfig::default() };
    let edge = Edge::start(&village, config, dir, &governance).await?;
    Ok((village, edge))
}

async fn fill(village: &Village, documents: usize) -> Result<(), Fault> {
    let memory = Memory::new(village, "local");
    for batch in corpus::documents(7, documents).chunks(256) {
        memory.put(Put { documents: batch.to_vec(), wait: WaitFor::Searchable, ..Put::default() }).await?;
    }
    Ok(())
}

async fn run(plan: &Plan) -> (Tally, Duration) {
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for first in 0..plan.connections {
        connections.spawn(connection(plan.clone(), first, started + plan.length));
    }
    let mut all = Tally::default();
    while let Some(tally) = connections.join_next().await {
        match tally {
            Ok(Ok(tally)) => {
                all.micros.extend(tally.micros);
                all.errors += tally.errors;
                all.why = all.why.or(tally.why);
            }
            Ok(Err(fault)) => all.failed(fault),
            Err(fault) => all.failed(fault),
        }
    }
    (all, started.elapsed())
}

async fn connection(plan: Plan, first: usize, end: Instant) -> Result<Tally, Fault> {
    let stream = TcpStream::connect(plan.addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut tally = Tally::default();
    let asks = async {
        let mut bodies = plan.bodies.iter().cycle().skip(first);
        while Instant::now() < end {
            let body = bodies.next();
            let method = if body.is_some() { Method::POST } else { Method::GET };
            let request = Request::builder()
                .method(method)
                .uri(&plan.path)
                .header("host", "localhost")
                .header("authorization", format!("Bearer {}", plan.key))
                .header("content-type", "application/json")
                .body(Full::new(body.cloned().unwrap_or_default()))?;
            let sent = Instant::now();
            let response = sender.send_request(request).await?;
            let status = response.status();
            response.into_body().collect().await?;
            tally.micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            if status != StatusCode::OK {
                tally.failed(status);
            }
        }
        Ok::<_, Fault>(())
    };
    tokio::select! {
        asked = asks => asked?,
        ended = connection => ended?,
    }
    Ok(tally)
}

fn report(plan: &Plan, (mut tally, took): (Tally, Duration)) -> Result<(), Fault> {
    use std::io::Write;
    tally.micros.sort_unstable();
    let at = |share: usize| {
        let last = tally.micros.len().saturating_sub(1);
        f64::from(tally.micros.get(last * share / 1_000).copied().unwrap_or(0)) / 1_000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    let requests = tally.micros.len() as f64;
    let line = serde_json::json!({
        "path": plan.path,
        "connections": plan.connections,
        "seconds": took.as_secs_f64(),
        "requests": tally.micros.len(),
        "requests_per_s": requests / took.as_secs_f64(),
        "p50_ms": at(500),
        "p99_ms": at(990),
        "p999_ms": at(999),
        "max_ms": at(1_000),
        "errors": tally.errors,
        "first_error": tally.why,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
