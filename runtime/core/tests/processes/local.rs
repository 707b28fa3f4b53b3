//! State that one node keeps: what becomes of it when that node is gone for good.

use serde_json::Value;

use crate::node::Ask;
use crate::nodes::Nodes;

async fn note(nodes: &Nodes, at: usize, ms: u64) -> Value {
    nodes.ask(at, &Ask::Note { key: "one".to_owned(), n: 1, ms }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_node_that_is_down_gives_what_it_kept_a_new_owner() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    assert_eq!(note(&nodes, 1, 5_000).await["ok"], 1);
    assert_eq!(note(&nodes, 2, 5_000).await["ok"], 2);
    // The oldest member keeps it.
    let keeper = nodes.id(0).await;
    nodes.kill(0);
    nodes
        .until(1, "told that the keeper is down", |status| {
            let members = status["ok"]["members"].as_array().unwrap();
            members.iter().any(|member| member["id"] == *keeper && member["state"] == "down")
        })
        .await;
    // It may come back with its state, so nobody answers in its place.
    let refused = note(&nodes, 1, 1_000).await;
    assert!(refused["err"].as_str().is_some_and(|why| why.contains("on a node that is away")), "{refused}");

    let removed = nodes.ask(1, &Ask::Remove { node: keeper }).await.unwrap();
    assert_eq!(removed["ok"], true, "{removed}");
    nodes.until(2, "two members", |status| status["ok"]["members"].as_array().unwrap().len() == 2).await;
    nodes.ready(1).await;
    nodes.ready(2).await;
    // From the beginning, and once for both.
    let first = note(&nodes, 1, 15_000).await;
    assert_eq!(first["ok"], 1, "{first}");
    let second = note(&nodes, 2, 15_000).await;
    assert_eq!(second["ok"], 2, "{second}");
}
