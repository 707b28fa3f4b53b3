use std::sync::Arc;

use aivillage_runtime::{MsgCx, Principal, PrincipalKind};

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

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join(FILE)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_begin_at_once_have_one_secret_and_find_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=3).map(|node| dir.path().join(node.to_string())).collect();
    let first = start(&dirs[0], None).await;
    let token = async {
        loop {
            // Until the first node takes part, nothing is decided.
            match first.0.cluster().unwrap().new_token(2, Duration::from_mins(1), "test").await {
                Ok(token) => break token.to_string(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let join = (token.await, first.0.cluster().unwrap().addr().to_owned());
    let (second, third) = (start(&dirs[1], Some(&join)).await, start(&dirs[2], Some(&join)).await);
    // One of them was somewhere else before.
    write(Some(&dirs[2].join(FILE)), &Zeroizing::new([9; 32])).unwrap();
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
    let principal = Principal {
        tenant: "local".into(),
        subject: "admin".into(),
        kind: PrincipalKind::User,
        roles: vec!["super_admin".into()],
        scopes: vec!["*".into()],
    };
    let context = MsgCx::request(None, None, Some(Arc::new(principal)));
    let refused = context.scope(async { addr.ask(SecretMsg::Fetch).await }).await.unwrap_err();
    assert!(matches!(refused, CallError::NoReply), "{refused}");
}
