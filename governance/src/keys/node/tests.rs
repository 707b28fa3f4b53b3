use std::fs;
use std::time::Duration;

use aivillage_runtime::Kind;

use super::super::keystore::FILE;
use super::super::outside::is_told_nothing;
use super::super::scope::{Scope, TenantId};
use super::super::vault::Vault;
use super::*;
use crate::FOLDER;

async fn start(dir: &Path, join: Option<&(String, String)>) -> (Village, KeysNode) {
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let node = KeysNode::new(KeysConfig::default());
    let builder = install(Village::builder().config(config).data_dir(dir).clustered(), &node);
    (builder.start().await.unwrap(), node)
}

/// A token with which others join, and where: once the first node takes part, since before that nothing is decided.
async fn token(founder: &Village) -> (String, String) {
    let cluster = founder.cluster().unwrap();
    cluster.wait_for(|_| cluster.takes_part()).await;
    let token = cluster.new_token(8, Duration::from_mins(1), "test").await.unwrap();
    (token.to_string(), cluster.addr().to_owned())
}

async fn settled(nodes: &[&(Village, KeysNode)]) {
    let all = nodes.iter().map(|(village, node)| node.settle(village));
    let all = tokio::time::timeout(Duration::from_mins(1), futures::future::join_all(all)).await;
    for outcome in all.expect("all nodes have it in time") {
        outcome.unwrap();
    }
}

fn mark(node: &KeysNode) -> [u8; 32] {
    node.handle().keystore(|keystore| keystore.root().mark(9)).unwrap().unwrap()
}

fn scope() -> Scope {
    Scope::new(TenantId::of("local"), "ada", "memory").unwrap()
}

/// Waits until something is so; the copies of a group are behind by a moment.
async fn until(node: &KeysNode, is_so: impl Fn() -> bool) {
    let waiting = async {
        let mut changes = node.handle().changes();
        while !is_so() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it comes to be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_begin_at_once_have_one_root_and_follow_its_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=3).map(|node| dir.path().join(node.to_string())).collect();
    // One of them was cut off just when it had made a root.
    Keystore::open(&dirs[2].join(FOLDER), &Unlock::File, 1).unwrap();
    let first = start(&dirs[0], None).await;
    let join = token(&first.0).await;
    let (second, third) = (start(&dirs[1], Some(&join)).await, start(&dirs[2], Some(&join)).await);
    settled(&[&first, &second, &third]).await;
    assert_eq!((mark(&second.1), mark(&third.1)), (mark(&first.1), mark(&first.1)));

    // What one seals opens on each without a message, and an epoch that one begins reaches all.
    let vault = Vault::of(&second.0).unwrap();
    let sealed = vault.seal(&scope(), b"r", b"x").await.unwrap();
    for (_, node) in [&first, &second, &third] {
        until(node, || node.handle().open(&scope(), b"r", &sealed) == Ok(b"x".to_vec())).await;
    }
    third.0.shutdown().await.unwrap();
    for epoch in 2..4 {
        let status = second.0.addr::<RootKeeper>(KEY).ask(RootMsg::Advance).await.unwrap();
        assert_eq!((status.current, status.first, status.behind), (epoch, epoch - 1, 0));
    }
    let third = start(&dirs[2], None).await;
    settled(&[&third]).await;
    let (follower, (village, node)) = (third.0.clone(), third.clone());
    follower.task("keys.follow", async move { node.follow(&village).await }).detach();
    // Who was away catches up.
    let epochs = |keystore: &mut Keystore| (keystore.root().first(), keystore.root().current());
    until(&third.1, || third.1.handle().keystore(epochs) == Ok((2, 3))).await;
    until(&third.1, || third.1.handle().open(&scope(), b"r", &sealed) == Ok(b"x".to_vec())).await;

    // No node opens it once its subject is shredded.
    vault.shred(scope().tenant, scope().subject).await.unwrap();
    for (_, node) in [&first, &second, &third] {
        until(node, || matches!(node.handle().open(&scope(), b"r", &sealed), Err(CryptError::Shredded { .. }))).await;
    }
    for (village, _) in [first, second, third] {
        village.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_in_use_is_not_replaced_by_that_of_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut own = Keystore::open(&ours.join(FOLDER), &Unlock::File, 1).unwrap();
    own.enroll(TenantId::of("local"), 1).unwrap();
    let before = fs::read(ours.join(FOLDER).join(FILE)).unwrap();
    let first = start(&theirs, None).await;
    settled(&[&first]).await;
    let second = start(&ours, Some(&token(&first.0).await)).await;
    let refused = second.1.settle(&second.0).await.unwrap_err();
    assert!(matches!(refused, RootError::Foreign { .. }) && !refused.is_passing(), "{refused}");
    assert!(!second.1.handle().has_root());
    assert_eq!(fs::read(ours.join(FOLDER).join(FILE)).unwrap(), before);
    for (village, _) in [first, second] {
        village.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_village_of_one_makes_its_root_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let node = KeysNode::new(KeysConfig::default());
        install(Village::builder().data_dir(dir.path()), &node).start().await.unwrap()
    };
    let village = start().await;
    let sealed = Vault::of(&village).unwrap().seal(&scope(), b"r", b"x").await.unwrap();
    village.shutdown().await.unwrap();
    drop(village);
    let village = start().await;
    assert_eq!(Vault::of(&village).unwrap().open(&scope(), b"r", &sealed).await.unwrap(), b"x");
    village.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_village_without_a_passphrase_or_with_a_wrong_one_has_no_root() {
    let dir = tempfile::tempdir().unwrap();
    let argon2 = super::super::config::Argon2Cost { m_kib: 64, t: 1, p: 1 };
    let file = dir.path().join("passphrase");
    let config = |passphrase_file: &Path| KeysConfig {
        seal: SealKind::Passphrase,
        argon2,
        passphrase_file: passphrase_file.to_str().unwrap().to_owned(),
        passphrase_env: "VILLAGE_TEST_UNSET".to_owned(),
        ..KeysConfig::default()
    };
    let village = Village::builder().data_dir(dir.path().join("data")).start().await.unwrap();
    let settle = async |config| KeysNode::new(config).settle(&village).await;
    assert!(matches!(settle(config(Path::new(""))).await, Err(RootError::NoPassphrase { .. })));
    assert!(matches!(settle(config(&file)).await, Err(RootError::PassphraseFile { .. })));
    fs::write(&file, "correct horse\n").unwrap();
    settle(config(&file)).await.unwrap();
    fs::write(&file, "battery staple\n").unwrap();
    let wrong = settle(config(&file)).await;
    assert!(matches!(wrong, Err(RootError::Keystore(KeystoreError::WrongPassphrase { .. }))), "{wrong:?}");
    let given = KeysNode::new(config(&file));
    let dir = dir.path().join("data").join(FOLDER);
    assert!(matches!(given.check(&dir), Err(RootError::Keystore(KeystoreError::WrongPassphrase { .. }))));
    given.give_passphrase("correct horse".to_owned().into());
    given.check(&dir).unwrap();
    given.settle(&village).await.unwrap();
}

#[tokio::test]
async fn nobody_from_outside_gets_the_root() {
    let node = KeysNode::new(KeysConfig::default());
    let village = install(Village::builder(), &node).start().await.unwrap();
    let addr = village.addr::<RootKeeper>(KEY);
    let early = addr.ask(RootMsg::Fetch).await.unwrap_err();
    assert_eq!(early.code(), "crypt_no_root");
    node.settle(&village).await.unwrap();
    assert!(!addr.ask(RootMsg::Fetch).await.unwrap().into_vec().is_empty());
    is_told_nothing(async { addr.ask(RootMsg::Fetch).await }).await;
    assert!(village.messages(RootKeeper::NAME).is_none_or(|exposed| exposed.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn epochs_begin_by_themselves_one_at_a_time() {
    let config = KeysConfig { epoch: aivillage_runtime::config::Period::from_secs(60), ..KeysConfig::default() };
    let node = KeysNode::new(config);
    let village = install(Village::builder(), &node).start().await.unwrap();
    node.settle(&village).await.unwrap();
    let status = async || village.addr::<RootKeeper>(KEY).ask(RootMsg::Status).await.unwrap();
    assert_eq!(status().await.current, 1);
    // The wall clock stands still meanwhile: what ends an epoch is not that.
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(status().await.current, 1);
    while status().await.current == 1 {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    tokio::time::advance(Duration::from_secs(58)).await;
    assert_eq!(status().await.current, 2);
}
