//! Nodes that come back at other addresses.

use crate::node::Ask;
use crate::nodes::Nodes;

/// Where the members are, as a node knows from the membership.
async fn addresses(nodes: &Nodes, at: usize) -> Vec<String> {
    let status = nodes.status(at).await.unwrap();
    let members = status["ok"]["members"].as_array().unwrap();
    members.iter().map(|member| member["addr"].as_str().unwrap().to_owned()).collect()
}

/// Adds one, as often as it takes while groups have no leader yet, and returns the sum.
async fn add(nodes: &Nodes, at: usize, idem: &str) -> u64 {
    let add = Ask::Add { key: "moved".to_owned(), n: 1, idem: idem.to_owned(), ms: 5_000 };
    let mut last = None;
    for _ in 0..10 {
        let answer = nodes.ask(at, &add).await.unwrap();
        if let Some(sum) = answer["ok"].as_u64() {
            return sum;
        }
        last = Some(answer);
    }
    panic!("never added: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_whose_nodes_have_all_moved_finds_itself_through_one_address() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    assert_eq!(add(&nodes, 0, "before").await, 1);
    let before = addresses(&nodes, 0).await;
    for at in 0..3 {
        nodes.kill(at);
        nodes.relocate(at);
    }
    nodes.seed(1);
    for at in 0..3 {
        nodes.launch(at);
    }
    for at in 0..3 {
        nodes.ready(at).await;
    }
    assert_eq!(add(&nodes, 2, "after").await, 2);
    for at in 0..3 {
        nodes
            .until(at, "told where all are", |status| {
                let members = status["ok"]["members"].as_array().unwrap();
                members.iter().all(|member| before.iter().all(|addr| member["addr"] != addr.as_str()))
            })
            .await;
    }
    // Nobody needs the seed any more.
    nodes.kill(1);
    nodes.kill(0);
    nodes.launch(0);
    nodes.ready(0).await;
    assert_eq!(add(&nodes, 0, "later").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_moved_alone_needs_no_seed() {
    let mut nodes = Nodes::start(3).await;
    nodes.settled().await;
    for at in 0..3 {
        nodes.kill(at);
    }
    nodes.relocate(2);
    // There is no majority without the one that moved, and nobody but itself says where it is.
    nodes.launch(0);
    nodes.launch(2);
    for at in [0, 2] {
        nodes.ready(at).await;
    }
    nodes.launch(1);
    nodes.ready(1).await;
    assert_eq!(add(&nodes, 1, "after").await, 1);
}
