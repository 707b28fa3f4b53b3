//! Three nodes in one process, over real sockets on loopback: each logs, and the others cosign.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::tlog::{
    Ack, AuditKeys, Book, Cosigner, Decision, Disk, Event, Log, LogHandle, LogKey, LogSigner, Payload, TlogConfig,
    TrustPolicy, VerifierKey, audit, begin, install,
};
use aivillage_runtime::{Village, clock};
use parking_lot::Mutex;
use serde_json::json;

const NODES: [u8; 3] = [1, 2, 3];

fn signer(node: u8) -> LogSigner {
    LogSigner::new(&format!("village/{node}"), &[node; 32]).unwrap()
}

fn cosigner(node: u8) -> Cosigner {
    Cosigner::new(&format!("village/{node}/witness"), &[100 + node; 32]).unwrap()
}

fn others<T>(node: u8, key: impl Fn(u8) -> T) -> Vec<T> {
    NODES.into_iter().filter(|other| *other != node).map(key).collect()
}

fn witnesses(node: u8) -> Vec<VerifierKey> {
    others(node, |other| cosigner(other).public().clone())
}

async fn start(dir: &Path, node: u8, join: Option<&(String, String)>) -> (Village, LogHandle) {
    let dir = dir.join(node.to_string());
    let log = Log::open(Disk::open(dir.join("tlog")).unwrap(), signer(node), witnesses(node)).unwrap();
    let log = LogHandle::start(log, &node.to_string(), TlogConfig::default(), clock::unix_ms).unwrap();
    let logs = others(node, |other| signer(other).public().clone());
    let book = Book::open(Disk::open(dir.join("witness")).unwrap(), cosigner(node), logs).unwrap();
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let builder = Village::builder().config(config).data_dir(dir.join("village")).clustered();
    let village = install(builder, log.clone(), Arc::new(Mutex::new(book)), clock::unix_ms).start().await.unwrap();
    (village, log)
}

/// Waits until all nodes take part; the runtime has no event for that.
async fn ready(villages: &[(Village, LogHandle)]) {
    let looking = async {
        while !villages.iter().all(|(village, _)| village.health().ready) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("the nodes are ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_cluster_cosign_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = vec![start(dir.path(), 1, None).await];
    ready(&nodes).await;
    let cluster = nodes[0].0.cluster().unwrap();
    let token = cluster.new_token(2, Duration::from_mins(1), "test").await.unwrap().to_string();
    let join = (token, cluster.addr().to_owned());
    for node in [2, 3] {
        nodes.push(start(dir.path(), node, Some(&join)).await);
    }
    ready(&nodes).await;
    for (village, _) in &nodes {
        begin::<Disk>(village).await.unwrap();
    }
    let key = LogKey::new(&[7; 32]);
    for (node, (_, log)) in NODES.into_iter().zip(&nodes) {
        let event = Event {
            kind: "node.joined".to_owned(),
            actor: key.pseudonym("node"),
            action: "join".to_owned(),
            object: key.pseudonym("cluster"),
            tenant: key.pseudonym("village"),
            article: None,
            decision: Decision::None,
            case: None,
            payload: Payload::Clear(json!({ "node": node })),
        };
        let append = tokio::time::timeout(Duration::from_secs(30), log.append(event, Ack::Witnessed(2)));
        let proof = append.await.expect("two witnesses are there").unwrap().proof.unwrap();
        let policy = TrustPolicy { log: signer(node).public().clone(), witnesses: witnesses(node), quorum: 2 };
        let verified =
            proof.to_string().parse::<aivillage_governance::tlog::TlogProof>().unwrap().verify(None, &policy);
        assert_eq!((verified.as_ref().unwrap().index, verified.unwrap().witnesses.len()), (0, 2), "node {node}");
    }
    for (node, (village, log)) in NODES.into_iter().zip(nodes) {
        village.shutdown().await.unwrap();
        log.close().await.unwrap();
        let keys = AuditKeys { log: signer(node).public().clone(), witnesses: witnesses(node) };
        let report = audit(&Disk::reading(dir.path().join(node.to_string()).join("tlog")), &keys).unwrap();
        assert_eq!((report.entries, report.findings), (1, vec![]));
    }
}
