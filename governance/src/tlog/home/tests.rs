use aivillage_runtime::config::Period;
use futures::future::join_all;

use super::super::entry::{Decision, Event, Payload};
use super::super::{Ack, AuditKeys, audit};
use super::*;

const CLOCK: fn() -> u64 = || 1_700_000_000_000;

fn open(dir: &Path) -> Result<Home, HomeError> {
    Home::open(dir, "0000000000000001", TlogConfig::default(), CLOCK)
}

fn event(home: &Home) -> Event {
    let key = home.log_key("acme");
    Event {
        kind: "edge.request".to_owned(),
        actor: key.pseudonym("ada"),
        action: "POST /v1/jobs".to_owned(),
        object: key.pseudonym("/v1/jobs"),
        tenant: key.pseudonym("acme"),
        article: None,
        decision: Decision::Allow,
        case: None,
        payload: Payload::Clear(serde_json::json!({ "status": 200 })),
    }
}

/// A log with one signed entry, closed.
async fn signed(dir: &Path) -> AuditKeys {
    let home = open(dir).unwrap();
    home.log().append(event(&home), Ack::Durable).await.unwrap();
    home.log().close().await.unwrap();
    AuditKeys { log: home.log().key().clone(), witnesses: Vec::new() }
}

#[tokio::test]
async fn the_log_keeps_its_key_and_its_pseudonyms_from_start_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = signed(dir.path()).await;
    assert_eq!(first.log.name(), "village/0000000000000001");
    let home = open(dir.path()).unwrap();
    assert_eq!(home.log().key(), &first.log);
    let read = home.log().entries(None, 10).await.unwrap();
    let entry = super::super::Entry::from_bytes(&read.entries[0]).unwrap();
    assert_eq!((read.size, entry.event), (1, event(&home)));
    assert_ne!(home.log_key("acme").pseudonym("ada"), home.log_key("other").pseudonym("ada"));
    let keys = fs::read_to_string(Home::keys_beside(&Home::folder_in(dir.path()))).unwrap();
    assert_eq!(keys.lines().next(), Some(first.log.to_string().as_str()));
    home.log().close().await.unwrap();
    drop(home);
    assert!(audit(&Disk::reading(Home::folder_in(dir.path())), &first).unwrap().is_clean());
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    signed(dir.path()).await;
    for name in [KEY, PSEUDONYMS] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_signed_log_does_not_get_another_key() {
    let dir = tempfile::tempdir().unwrap();
    signed(dir.path()).await;
    let key = dir.path().join(KEY);
    for damage in
        [|path: &Path| fs::write(path, "PRIVATE+KEY+a+b+c").unwrap(), |path: &Path| fs::remove_file(path).unwrap()]
    {
        damage(&key);
        let error = open(dir.path()).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("restore"), "{error}");
    }
}

#[tokio::test]
async fn a_changed_entry_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    signed(dir.path()).await;
    let file = Home::folder_in(dir.path()).join("pending");
    let file = fs::read_dir(file).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("entry 0"), "{error}");
}

#[tokio::test]
async fn two_processes_do_not_share_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, HomeError::InUse { .. }) && !error.is_damage(), "{error}");
    home.log().close().await.unwrap();
}

#[tokio::test]
async fn only_the_tree_and_the_checkpoint_are_files_for_clients() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path()).unwrap();
    for name in ["checkpoint", "tile/0/000.p/3", "tile/entries/x001/234"] {
        assert_eq!(home.file(name), Some(Home::folder_in(dir.path()).join(name)));
    }
    for name in ["signed", "pending/000", "tile/../tlog.key", "tile/0/../../signed", "", "/etc/passwd"] {
        assert_eq!(home.file(name), None, "{name}");
    }
    home.log().close().await.unwrap();
}

#[tokio::test]
async fn a_byte_that_changes_while_the_log_is_written_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = TlogConfig { reread: Period::from_millis(1), ..TlogConfig::default() };
    let home = Home::open(dir.path(), "0000000000000001", config, CLOCK).unwrap();
    join_all((0..300).map(|_| home.log().append(event(&home), Ack::Durable))).await;
    home.log().checkpoint().await.unwrap();
    let file = home.file("tile/entries/000").unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    let village = home.install(Village::builder()).start().await.unwrap();
    home.begin(&village).await.unwrap();
    let mut status = home.log().watch();
    let refuses = status.wait_for(|status| status.refuses.is_some()).await.unwrap().refuses.clone().unwrap();
    assert!(refuses.to_string().contains("tile/entries/000 is damaged at entry 0"), "{refuses}");
    assert_eq!(home.log().append(event(&home), Ack::Durable).await.unwrap_err().code(), "tlog_stopped");
    assert_eq!(home.log().checkpoint().await.unwrap_err().code(), "tlog_stopped");
    assert!(home.log().reserve().await.is_err());
    // What was written before can still be read and proven.
    assert_eq!(home.log().entries(Some(260), 1).await.unwrap().entries.len(), 1);
    assert!(village.encode_metrics().contains("village_tlog_refuses 1\n"));
    village.shutdown().await.unwrap();
}

#[test]
fn former_witnesses_stay_in_the_public_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(PUBLIC);
    let log = LogSigner::new("village/1", &[1; 32]).unwrap().public().clone();
    let witness = |n: u8| Cosigner::new(&format!("w{n}"), &[n; 32]).unwrap().public().clone();
    let own = [log, witness(2)];
    publish(&path, &own, &[witness(3)]).unwrap();
    publish(&path, &own, &[witness(4)]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let expected = [own[0].clone(), witness(2), witness(4), witness(3)].map(|key| key.to_string());
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    // Another log's key does not stay.
    let other = LogSigner::new("village/1", &[9; 32]).unwrap().public().clone();
    publish(&path, &[other.clone(), witness(2)], &[]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|line| line.parse::<VerifierKey>().unwrap().is_log()).count(), 1);
    assert!(text.starts_with(&other.to_string()));
}
