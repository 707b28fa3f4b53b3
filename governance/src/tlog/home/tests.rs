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
