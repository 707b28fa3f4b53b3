//! Accounts on three nodes: what one takes back, no other lets in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

use std::time::{Duration, Instant};

use aivillage_governance::identity::password::Argon2Config;
use aivillage_governance::identity::{
    Identity, IdentityConfig, IdentityMsg, IdentityNode, Secret, VerifierHandle, install,
};
use aivillage_governance::keys::VillageSecret;
use aivillage_runtime::{Cluster, Village, clock};

/// Starts a node of the cluster that `join` leads to.
async fn node(dir: &tempfile::TempDir, name: &str, join: &str) -> (Village, VerifierHandle) {
    let argon2 = Argon2Config { m_kib: 8, t: 1, p: 1 };
    let config = IdentityConfig { argon2, ..IdentityConfig::default() };
    let secret = VillageSecret::default();
    secret.set(zeroize::Zeroizing::new([1; 32]));
    let node = IdentityNode::try_new(config, secret).unwrap();
    let (builder, verifier) = install(Village::builder(), &node);
    let config = format!("node.listen = '127.0.0.1:0'\n{join}").parse().unwrap();
    (builder.config(config).data_dir(dir.path().join(name)).clustered().start().await.unwrap(), verifier)
}

/// Waits until each group has three copies.
async fn settled(cluster: &Cluster) {
    let settled = cluster
        .wait_for(|status| status.health == "healthy" && status.groups.iter().all(|group| group.voters.len() == 3));
    tokio::time::timeout(Duration::from_mins(1), settled).await.unwrap();
}

async fn until(verifier: &VerifierHandle, secret: &Secret, is_let_in: bool) {
    let mut changes = verifier.changes();
    let told = async {
        while verifier.bearer(secret.expose(), clock::unix_ms()).is_ok() != is_let_in {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_counts_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let (a, first) = node(&dir, "a", "").await;
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(2, Duration::from_mins(1), "test").await.unwrap();
    let join = format!("join.token = '{token}'\njoin.seeds = ['{}']", cluster.addr());
    // The tenant is there before the others are: they read its state, and follow its events from there.
    let key = a.addr::<Identity>("local").ask(|reply| IdentityMsg::Bootstrap("root".into(), reply)).await;
    let key = key.unwrap().unwrap();
    let (b, second) = node(&dir, "b", &join).await;
    let (c, third) = node(&dir, "c", &join).await;
    settled(cluster).await;
    for verifier in [&first, &second, &third] {
        until(verifier, &key.secret, true).await;
    }
    let revoked = b.addr::<Identity>("local").ask(|reply| IdentityMsg::Revoke(key.id, reply)).await;
    assert_eq!(revoked.unwrap(), Ok(()));
    let at = Instant::now();
    for verifier in [&first, &second, &third] {
        until(verifier, &key.secret, false).await;
    }
    eprintln!("refused on every node {:?} after the reply", at.elapsed());
    for village in [c, b, a] {
        village.shutdown().await.unwrap();
    }
}
