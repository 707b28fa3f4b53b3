use super::super::outside::is_told_nothing;
use super::*;

async fn start(dir: &Path, join: Option<&(String, String)>) -> (Village, VillageSecret) {
    let secret = VillageSecret::default();
    let (keeper, mut config): (_, toml::Table) =
        (SecretKeeper::new(secret.clone()), "node.listen = '127.0.0.1:0'".parse().unwrap());
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let builder = Village::builder().config(config).data_dir(dir).clustered();
    (builder.host(move |_: &ActorCx| keeper.clone()).start().await.unwrap(), secret)
}

async fn settled(nodes: &[&(Village, VillageSecret)], dirs: &[PathBuf]) {
    let all = nodes.iter().zip(dirs).map(|((village, secret), dir)| settle(village, secret, Some(dir)));
    let all = tokio::time::timeout(Duration::from_mins(1), futures::future::join_all(all)).await;
    assert!(all.expect("all nodes have it in time").iter().all(Result::is_ok));
}

/// A token with which others join, and where: once the first node takes part, since before that nothing is decided.
async fn token(founder: &Village) -> (String, String) {
    let cluster = founder.cluster().unwrap();
    cluster.wait_for(|_| cluster.takes_part()).await;
    let token = cluster.new_token(8, Duration::from_mins(1), "test").await.unwrap();
    (token.to_string(), cluster.addr().to_owned())
}

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join(FILE)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_begin_at_once_have_one_secret_and_find_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=3).map(|node| dir.path().join(node.to_string())).collect();
    let first = start(&dirs[0], None).await;
    let join = token(&first.0).await;
    let (second, third) = (start(&dirs[1], Some(&join)).await, start(&dirs[2], Some(&join)).await);
    // One of them was cut off just when it had made one.
    write(Some(&dirs[2].join(FILE)), &Zeroizing::new([9; 32]), false).unwrap();
    settled(&[&first, &second, &third], &dirs).await;
    assert!(dirs[1..].iter().all(|dir| text(dir) == text(&dirs[0])));
    assert_eq!(second.1.derive("pepper"), first.1.derive("pepper"));
    assert_eq!(third.1.derive("pepper"), first.1.derive("pepper"));
    assert!(first.1.derive("pepper").is_some());

    second.0.shutdown().await.unwrap();
    let again = start(&dirs[1], None).await;
    settled(&[&again], &dirs[1..2]).await;
    assert_eq!(again.1.derive("pepper"), first.1.derive("pepper"));
    for (village, _) in [first, again, third] {
        village.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_use_is_not_replaced_by_that_of_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().join("ours"), dir.path().join("theirs")];
    // It was put to use in a village of its own, whose state is gone.
    let alone = Village::builder().start().await.unwrap();
    settle(&alone, &VillageSecret::default(), Some(&dirs[1])).await.unwrap();
    let (before, first) = (text(&dirs[1]), start(&dirs[0], None).await);
    settled(&[&first], &dirs[..1]).await;
    let (village, secret) = start(&dirs[1], Some(&token(&first.0).await)).await;
    let refused = settle(&village, &secret, Some(&dirs[1])).await.unwrap_err();
    assert!(matches!(refused, ShareError::Foreign { .. }) && !refused.is_passing(), "{refused}");
    assert!(!secret.is_there());
    assert_eq!(text(&dirs[1]), before);
    for village in [village, first.0] {
        village.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_village_of_one_makes_it_once() {
    let (dir, village) = (tempfile::tempdir().unwrap(), Village::builder().start().await.unwrap());
    let made = async |dir: Option<&Path>| {
        let secret = VillageSecret::default();
        settle(&village, &secret, dir).await.unwrap();
        secret.derive("pepper").unwrap()
    };
    let first = made(Some(dir.path())).await;
    assert_eq!(made(Some(dir.path())).await, first);
    assert_ne!(made(None).await, first, "without a disk there is nothing to find again");
}

#[tokio::test]
async fn a_damaged_file_and_a_bad_disk_are_told_and_nothing_is_used() {
    let (dir, village) = (tempfile::tempdir().unwrap(), Village::builder().start().await.unwrap());
    let secret = VillageSecret::default();
    fs::write(dir.path().join(FILE), "c2hvcnQ=\n").unwrap();
    let error = settle(&village, &secret, Some(dir.path())).await.unwrap_err();
    assert!(matches!(error, ShareError::Damaged { .. }), "{error}");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = settle(&village, &secret, Some(&file)).await.unwrap_err();
    assert!(matches!(error, ShareError::Io { .. }), "{error}");
    assert!(!secret.is_there());
}

#[tokio::test(start_paused = true)]
async fn nobody_from_outside_gets_it() {
    let secret = VillageSecret::default();
    let keeper = SecretKeeper::new(secret.clone());
    let village = Village::builder().host(move |_: &ActorCx| keeper.clone()).start().await.unwrap();
    let addr = village.addr::<SecretKeeper>(KEY);
    let early = addr.ask(SecretMsg::Fetch).await.unwrap_err();
    assert!(matches!(early, CallError::Overloaded { .. }), "{early}");
    secret.set(Zeroizing::new([7; 32]));
    assert_eq!(addr.ask(SecretMsg::Fetch).await.unwrap().into_vec(), [7; 32]);
    is_told_nothing(async { addr.ask(SecretMsg::Fetch).await }).await;
}
