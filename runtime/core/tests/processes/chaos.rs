//! Writers that never lose an answer, while nodes die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::node::Ask;
use crate::nodes::Nodes;

const CLIENTS: usize = 64;
const DEADLINE: Duration = Duration::from_secs(10);

struct Tally {
    acked: u64,
    /// Answers that were errors.
    failed: Vec<Value>,
    longest: Duration,
}

/// Adds 1 again and again, each until it is acknowledged, at any node.
async fn write(client: usize, addrs: Vec<std::net::SocketAddr>, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally { acked: 0, failed: Vec::new(), longest: Duration::ZERO };
    let (mut at, mut connection) = (client % addrs.len(), None);
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let ask = Ask::Add { key: "chaos".into(), n: 1, idem: format!("{client}/{}", tally.acked), ms: 8000 };
        loop {
            if connection.is_none() {
                connection = Client::connect(addrs[at]).await.ok();
            }
            let answer = match &mut connection {
                Some(connection) => connection.ask(&ask, DEADLINE).await.ok(),
                None => None,
            };
            match answer {
                Some(answer) if answer["ok"].is_u64() => break,
                Some(answer) => tally.failed.push(answer),
                None => {
                    connection = None;
                    at = (at + 1) % addrs.len();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        tally.acked += 1;
        tally.longest = tally.longest.max(begun.elapsed());
    }
    tally
}

/// Writers on all nodes.
struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<Tally>,
}

impl Load {
    fn start(nodes: &Nodes, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let addrs: Vec<_> = (0..nodes.len()).map(|at| nodes.addr(at)).collect();
        let mut writers = JoinSet::new();
        for client in 0..clients {
            writers.spawn(write(client, addrs.clone(), stop.clone()));
        }
        Self { stop, writers }
    }

    async fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Tally { acked: 0, failed: Vec::new(), longest: Duration::ZERO };
        while let Some(tally) = self.writers.join_next().await {
            let tally = tally.unwrap();
            all.acked += tally.acked;
            all.failed.extend(tally.failed);
            all.longest = all.longest.max(tally.longest);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_fails_no_request() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    let load = Load::start(&nodes, 16);
    for at in 0..nodes.len() {
        assert!(nodes.stop(at).await, "node {at} did not stop cleanly");
        nodes.launch(at);
        nodes.ready(at).await;
        nodes.settled().await;
    }
    let tally = load.end().await;
    println!("{} adds acknowledged, {} failed, longest {:?}", tally.acked, tally.failed.len(), tally.longest);
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    let read = nodes.ask(0, &Ask::Get { key: "chaos".into(), ms: 10_000 }).await.unwrap();
    assert_eq!(read["ok"], Value::from(tally.acked), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_and_repeats_nothing() {
    let seconds = std::env::var("CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    let load = Load::start(&nodes, CLIENTS);
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let victim = rand::rng().random_range(0..nodes.len());
        nodes.kill(victim);
        kills += 1;
        tokio::time::sleep(Duration::from_secs(3)).await;
        nodes.launch(victim);
    }
    let Tally { acked, longest, .. } = load.end().await;
    let read = nodes.ask(0, &Ask::Get { key: "chaos".into(), ms: 10_000 }).await.unwrap();
    println!(
        "{kills} kills in {:?}: {acked} adds acknowledged, counter {}, longest wait {longest:?}",
        begun.elapsed(),
        read["ok"]
    );
    assert_eq!(read["ok"], Value::from(acked), "{read}");
    assert!(longest < DEADLINE, "a client waited {longest:?}");
}
