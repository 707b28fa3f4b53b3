//! Three nodes in one process, over real sockets on loopback: each learns the others' keys, and they cosign for each other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aivillage_governance::tlog::{
    Ack, AddCheckpoint, AuditKeys, Checkpoint, Disk, Hash, Home, LogSigner, LogStatus, TlogConfig, TlogProof,
    TrustPolicy, VerifierKey, Witness, WitnessMsg, audit,
};
use aivillage_runtime::{Cluster, ClusterStatus, Identity, Village, clock};
use base64::Engine as _;

use super::event;

/// Longest time that anything here takes.
const LONG: Duration = Duration::from_secs(30);

struct Node {
    village: Village,
    home: Home,
}

async fn start(dir: &Path, join: Option<&(String, String)>) -> Node {
    fs::create_dir_all(dir).unwrap();
    let node = Identity::load_or_create(dir).unwrap().node_id().to_string();
    let home = Home::open(&dir.join("governance"), &node, TlogConfig::default(), clock::unix_ms).unwrap();
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let builder = Village::builder().config(config).data_dir(dir).clustered();
    Node { village: home.install(builder).start().await.unwrap(), home }
}

/// Waits until the cluster is so, as this node sees it.
async fn until(what: &str, node: &Node, is_so: impl Fn(&Cluster) -> bool) {
    let cluster = node.village.cluster().unwrap();
    let waiting = tokio::time::timeout(LONG, cluster.wait_for(|_| is_so(cluster)));
    waiting.await.unwrap_or_else(|_| panic!("waited for {what}"));
}

fn tells(cluster: &Cluster, problem: &str) -> bool {
    cluster.status().problems.iter().any(|told| told.contains(problem))
}

/// Waits until a log's status is as wanted.
async fn status(node: &Node, what: &str, is_so: impl FnMut(&LogStatus) -> bool) -> LogStatus {
    let mut status = node.home.log().watch();
    let found = tokio::time::timeout(LONG, status.wait_for(is_so)).await;
    found.unwrap_or_else(|_| panic!("waited for {what}: {:?}", node.home.log().status())).unwrap().clone()
}

async fn three(dir: &Path) -> Vec<Node> {
    let mut nodes = vec![start(&dir.join("1"), None).await];
    until("the first node", &nodes[0], Cluster::takes_part).await;
    let cluster = nodes[0].village.cluster().unwrap();
    let token = cluster.new_token(2, Duration::from_mins(1), "test").await.unwrap().to_string();
    let join = (token, cluster.addr().to_owned());
    for n in [2, 3] {
        nodes.push(start(&dir.join(n.to_string()), Some(&join)).await);
    }
    for node in &nodes {
        until("all nodes", node, Cluster::takes_part).await;
        node.home.begin(&node.village).await.unwrap();
    }
    for node in &nodes {
        status(node, "two witnesses", |status| status.witnesses.len() == 2).await;
    }
    nodes
}

/// The keys that a node left beside its log: of the log, of its own witness, of others.
fn keys(dir: &Path, n: usize) -> Vec<VerifierKey> {
    let file = Home::keys_beside(&Home::folder_in(&dir.join(n.to_string()).join("governance")));
    fs::read_to_string(file).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_cluster_cosign_each_other_until_one_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path()).await;
    for (n, node) in (1..).zip(&nodes) {
        let append = tokio::time::timeout(LONG, node.home.log().append(event(0), Ack::Witnessed(2)));
        let proof = append.await.expect("two witnesses are there").unwrap().proof.unwrap();
        let keys = keys(dir.path(), n);
        let policy = TrustPolicy { log: keys[0].clone(), witnesses: keys[2..].to_vec(), quorum: 2 };
        let verified = proof.to_string().parse::<TlogProof>().unwrap().verify(None, &policy).unwrap();
        assert_eq!((verified.index, verified.witnesses.len()), (0, 2), "node {n}");
    }
    // Its metrics are those of a log with two cosignatures.
    let metrics = nodes[0].village.encode_metrics();
    for line in ["village_tlog_size 1\n", "village_tlog_cosignatures 2\n", "village_tlog_append_seconds_count 1\n"] {
        assert!(metrics.contains(line), "{line} of {metrics}");
    }
    assert!(metrics.contains("village_tlog_witness_failures_total ") && metrics.contains("village_tlog_forks 0\n"));

    let third = nodes.pop().unwrap();
    let id = third.village.node_id();
    third.village.shutdown().await.unwrap();
    third.home.log().close().await.unwrap();
    let cluster = nodes[0].village.cluster().unwrap().clone();
    let id_text = id.to_string();
    let is_down = |status: &ClusterStatus| {
        status.members.iter().any(|member| member.id == id_text && member.state == "down")
            && status.groups.iter().all(|group| group.leader.as_ref().is_some_and(|leader| *leader != id_text))
    };
    tokio::time::timeout(LONG, cluster.wait_for(is_down)).await.expect("the third node is down");
    cluster.remove(id, false).await.unwrap();
    for node in &nodes {
        let now = status(node, "one witness", |status| status.witnesses.len() == 1).await;
        assert_eq!((now.cosigned, now.wanted), (1, 1), "the removed one still counts");
        let error = node.home.log().append(event(1), Ack::Witnessed(2)).await.unwrap_err();
        assert_eq!(error.code(), "tlog_too_few_witnesses");
        let append = tokio::time::timeout(LONG, node.home.log().append(event(1), Ack::Witnessed(1)));
        append.await.expect("one witness is there").unwrap();
    }
    until("its keys are forgotten", &nodes[0], |cluster| cluster.list("governance.tlog/keys/").len() == 2).await;
    for (n, node) in (1..).zip(nodes) {
        node.village.shutdown().await.unwrap();
        node.home.log().close().await.unwrap();
        let keys = keys(dir.path(), n);
        assert_eq!(keys.len(), 4, "the former witness's key is kept for older checkpoints");
        let keys = AuditKeys { log: keys[0].clone(), witnesses: keys[1..].to_vec() };
        let folder = Home::folder_in(&dir.path().join(n.to_string()).join("governance"));
        let report = audit(&Disk::reading(folder), &keys).unwrap();
        assert_eq!((report.entries, report.findings), (2, vec![]), "node {n}");
    }
}

/// Signs as a node's log, with its key file.
fn stolen(dir: &Path, node: usize) -> LogSigner {
    let text = fs::read_to_string(dir.join(node.to_string()).join("governance/tlog.key")).unwrap();
    let mut parts = text.trim().strip_prefix("PRIVATE+KEY+").unwrap().splitn(3, '+');
    let (origin, key) = (parts.next().unwrap(), parts.nth(1).unwrap());
    let key = base64::engine::general_purpose::STANDARD.decode(key).unwrap();
    LogSigner::new(origin, key[1..].try_into().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_two_histories_is_known_to_all_and_signs_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path()).await;
    let forked = &nodes[2];
    forked.home.log().append(event(0), Ack::Witnessed(2)).await.unwrap();
    let size = status(forked, "two cosignatures", |status| status.cosigned == 2).await.size;
    let signer = stolen(dir.path(), 3);
    let body = Checkpoint { origin: signer.public().name().to_owned(), size, root: Hash([9; 32]) };
    let request = AddCheckpoint { old: size, proof: Vec::new(), note: signer.checkpoint(&body) };
    let witness = nodes[0].village.addr::<Witness>("here");
    witness.ask(|reply| WitnessMsg::AddCheckpoint(request, reply)).await.unwrap().unwrap_err();

    let key = forked.home.log().key();
    for node in &nodes {
        until("the problem", node, |cluster| tells(cluster, "histories")).await;
        let found = node.home.convicted();
        assert!(found.len() == 1 && found[0].convicts(key));
        assert!(node.village.encode_metrics().contains("village_tlog_forks 1\n"));
    }
    // The evidence is on the disk of a node that did not find it.
    let kept = fs::read_dir(dir.path().join("2/governance/witness/evidence")).unwrap().count();
    assert_eq!(kept, 1);
    status(forked, "the end of the log", |status| status.refuses.is_some()).await;
    let error = forked.home.log().append(event(1), Ack::Durable).await.unwrap_err();
    assert!(error.to_string().contains("two histories"), "{error}");
    until("the problem of the node itself", forked, |cluster| tells(cluster, "takes nothing")).await;
    nodes[0].home.log().append(event(1), Ack::Witnessed(1)).await.unwrap();
    for node in nodes {
        node.village.shutdown().await.unwrap();
    }
}
