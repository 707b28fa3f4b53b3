//! Networks that are cut: silence instead of refusals. Needs root; skipped otherwise.

use std::time::{Duration, Instant};

use netlab::{LabConfig, LinkConfig};

use crate::failover::{first_answer, key_on};
use crate::node::Ask;
use crate::nodes::Nodes;

fn add(key: &str, n: u64) -> Ask {
    Ask::Add { key: key.into(), n: 1, idem: format!("{key}{n}"), ms: 9000 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_cut_know_what_they_may() {
    let config = LabConfig { nodes: 3, seed: 1, link: LinkConfig::default() };
    let Some(lab) = netlab::skip_unless_available("both_sides_of_a_cut_know_what_they_may", config) else { return };
    let nodes = Nodes::start_in(Some(lab), 3).await;
    nodes.settled().await;
    let (leader, others) = nodes.leader().await;
    first_answer(&nodes, leader, &add("p", 1)).await;
    let key = key_on(&nodes, others[0], &nodes.id(leader).await).await;
    nodes.lab().partition(&[leader], &others);
    let begun = Instant::now();
    let minority = async {
        let answer = nodes.ask(leader, &add("p", 2)).await.unwrap();
        println!("minority: {answer} after {:?}", begun.elapsed());
        assert_eq!(answer["code"], "no_quorum", "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(4));
    };
    let majority = async {
        let away = first_answer(&nodes, others[0], &add("p", 3)).await;
        println!("majority: a replicated actor is back after {away:?}");
        let away = first_answer(&nodes, others[0], &Ask::Echo { key, ms: 500 }).await;
        println!("majority: an actor without state after another {away:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    };
    tokio::join!(minority, majority);
    nodes.lab().heal();
    nodes.ready(leader).await;
    nodes.settled().await;
    // One history: what the minority refused takes effect once, however often it is asked now.
    for at in [leader, others[0], leader] {
        first_answer(&nodes, at, &add("p", 2)).await;
    }
    for at in 0..3 {
        let read = nodes.ask(at, &Ask::Get { key: "p".into(), ms: 5000 }).await.unwrap();
        assert_eq!(read["ok"], 3, "{read}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_of_a_silent_node_answer_elsewhere() {
    let config = LabConfig { nodes: 3, seed: 2, link: LinkConfig::default() };
    let Some(lab) = netlab::skip_unless_available("actors_of_a_silent_node_answer_elsewhere", config) else { return };
    let nodes = Nodes::start_in(Some(lab), 3).await;
    nodes.settled().await;
    let (leader, others) = nodes.leader().await;
    let key = key_on(&nodes, leader, &nodes.id(others[0]).await).await;
    nodes.lab().partition(&[others[0]], &[leader, others[1]]);
    let away = first_answer(&nodes, leader, &Ask::Echo { key, ms: 500 }).await;
    println!("an actor without state of a silent node: {away:?}");
    assert!(away < Duration::from_secs(20));
}
