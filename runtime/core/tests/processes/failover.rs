//! How long actors are away when their node is lost.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::node::Ask;
use crate::nodes::Nodes;

/// A key whose actor lives on a node, asked through another.
pub(crate) async fn key_on(nodes: &Nodes, through: usize, home: &str) -> String {
    for n in 0..1000 {
        let key = format!("k{n}");
        let there = nodes.ask(through, &Ask::Echo { key: key.clone(), ms: 5000 }).await.unwrap();
        if there["ok"] == home {
            return key;
        }
    }
    panic!("no key on {home}");
}

pub(crate) async fn first_answer(nodes: &Nodes, through: usize, ask: &Ask) -> Duration {
    let begun = Instant::now();
    let mut client = nodes.connect(through).await.unwrap();
    loop {
        let answer = client.ask(ask, Duration::from_secs(20)).await.unwrap();
        if !answer["ok"].is_null() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_of_a_killed_node_answer_elsewhere() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    // A node that does not lead the control group, then the one that does.
    let (leader, others) = nodes.leader().await;
    let (other, through) = (others[0], others[1]);
    let key = key_on(&nodes, through, &nodes.id(other).await).await;
    nodes.kill(other);
    let away = first_answer(&nodes, through, &Ask::Echo { key, ms: 300 }).await;
    println!("an actor without state of a killed node: {away:?}");
    let away = first_answer(&nodes, through, &Ask::Get { key: "x".into(), ms: 300 }).await;
    println!("a replicated actor after that: {away:?}");
    nodes.launch(other);
    nodes.ready(other).await;
    nodes.settled().await;
    let key = key_on(&nodes, through, &nodes.id(leader).await).await;
    nodes.kill(leader);
    let away = first_answer(&nodes, through, &Ask::Echo { key, ms: 300 }).await;
    println!("an actor without state of the killed control leader: {away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_cluster_comes_back() {
    let mut nodes = Nodes::start(3).await;
    let add = Ask::Add { key: "kept".into(), n: 7, idem: "once".into(), ms: 5000 };
    first_answer(&nodes, 1, &add).await;
    for at in 0..3 {
        nodes.kill(at);
    }
    let begun = Instant::now();
    for at in [2, 0, 1] {
        nodes.launch(at);
    }
    for at in 0..3 {
        nodes.ready(at).await;
    }
    println!("ready again after {:?}", begun.elapsed());
    let kept = first_answer(&nodes, 0, &Ask::Get { key: "kept".into(), ms: 1000 }).await;
    println!("first read after {kept:?}");
    let read = nodes.ask(2, &Ask::Get { key: "kept".into(), ms: 5000 }).await.unwrap();
    assert_eq!(read["ok"], 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minority_refuses_writes_and_says_why() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    nodes.kill(1);
    nodes.kill(2);
    let begun = Instant::now();
    let add = Ask::Add { key: "x".into(), n: 1, idem: "a".into(), ms: 9000 };
    let answer = nodes.ask(0, &add).await.unwrap();
    println!("{answer} after {:?}", begun.elapsed());
    assert_eq!(answer["code"], "no_quorum", "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(4));
    nodes.launch(1);
    nodes.ready(1).await;
    assert_eq!(nodes.ask(0, &add).await.unwrap()["ok"], 1);
    assert_eq!(nodes.ask(1, &add).await.unwrap()["ok"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_process_does_nothing_when_it_goes_on() {
    use rustix::process::Signal;
    let nodes = Nodes::start(3).await;
    nodes.settled().await;
    let (leader, others) = nodes.leader().await;
    let other = others[0];
    let add = |n: u64| Ask::Add { key: "s".into(), n: 1, idem: format!("s{n}"), ms: 8000 };
    first_answer(&nodes, other, &add(1)).await;
    // Asked while it cannot answer; what it says when it goes on must not be from before.
    nodes.signal(leader, Signal::STOP);
    let mut client = nodes.connect(leader).await.unwrap();
    let stale = async { client.ask(&Ask::Get { key: "s".into(), ms: 20_000 }, Duration::from_mins(1)).await };
    let others = async {
        let away = first_answer(&nodes, other, &add(2)).await;
        println!("a replicated actor after its node fell silent: {away:?}");
        let echo = first_answer(&nodes, other, &Ask::Echo { key: "e".into(), ms: 500 }).await;
        println!("an actor without state after that: {echo:?}");
        for n in 3..=10 {
            first_answer(&nodes, other, &add(n)).await;
        }
        nodes.signal(leader, Signal::CONT);
    };
    let (stale, ()) = tokio::join!(stale, others);
    let stale = stale.unwrap();
    assert!(stale["ok"].is_null() || stale["ok"] == 10, "{stale}");
    nodes.ready(leader).await;
    let read = first_read(&nodes, leader).await;
    assert_eq!(read["ok"], 10);
}

async fn first_read(nodes: &Nodes, at: usize) -> Value {
    first_answer(nodes, at, &Ask::Get { key: "s".into(), ms: 2000 }).await;
    nodes.ask(at, &Ask::Get { key: "s".into(), ms: 5000 }).await.unwrap()
}
