use futures::future::{join_all, poll_immediate};
use serde_json::json;

use super::super::entry::{Decision, LogKey, Payload};
use super::super::files::sim::{Fault, Sim};
use super::super::note::{Cosigner, LogSigner};
use super::super::proof::TrustPolicy;
use super::*;

const CLOCK: fn() -> u64 = || 1_700_000_000_000;

fn signer() -> LogSigner {
    LogSigner::new("example.com/log", &[1; 32]).unwrap()
}

fn witness() -> Cosigner {
    Cosigner::new("w", &[2; 32]).unwrap()
}

fn event(payload: Payload) -> Event {
    let key = LogKey::new(&[7; 32]);
    Event {
        kind: "policy.deny".to_owned(),
        actor: key.pseudonym("ada"),
        action: "read".to_owned(),
        object: key.pseudonym("doc"),
        tenant: key.pseudonym("acme"),
        article: None,
        decision: Decision::Deny,
        case: None,
        payload,
    }
}

fn numbered(n: u64) -> Event {
    event(Payload::Clear(json!(n)))
}

fn start(sim: &Sim, queue: usize) -> LogHandle {
    let log = Log::open(sim.clone(), signer(), vec![witness().public().clone()]).unwrap();
    let config = TlogConfig { queue, checkpoint: Period::from_millis(5), ..TlogConfig::default() };
    LogHandle::start(log, "0000000000000001", config, CLOCK).unwrap()
}

/// Waits until the log's status is so.
async fn until(log: &LogHandle, wanted: impl FnMut(&LogStatus) -> bool) -> LogStatus {
    log.watch().wait_for(wanted).await.unwrap().clone()
}

async fn entries(log: &LogHandle) -> Vec<Entry> {
    let bytes = log.tail(0, 256).await.unwrap();
    bytes.iter().map(|entry| Entry::from_bytes(entry).unwrap()).collect()
}

#[tokio::test]
async fn durable_entries_are_there_after_a_restart() {
    let sim = Sim::default();
    let log = start(&sim, 100);
    for n in 0..3 {
        let receipt = log.append(numbered(n), Ack::Durable).await.unwrap();
        assert_eq!(receipt, Receipt { index: Some(n), proof: None });
    }
    let found = sim.after_crash(1);
    let again = start(&found, 100);
    let read = entries(&again).await;
    assert_eq!(read.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((read[2].t, &read[2].event), (CLOCK(), &numbered(2)));
}

#[tokio::test]
async fn entries_that_come_together_share_a_sync() {
    let sim = Sim::default();
    let log = start(&sim, 10_000);
    let receipts = join_all((0..2_000).map(|n| log.append(numbered(n), Ack::Durable))).await;
    let mut indexes: Vec<_> = receipts.into_iter().map(|receipt| receipt.unwrap().index.unwrap()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..2_000).collect::<Vec<_>>());
    log.close().await.unwrap();
    assert!(sim.ops() < 1_000, "{} operations", sim.ops());
}

#[tokio::test]
async fn closing_writes_what_is_buffered_and_signs_it() {
    let sim = Sim::default();
    let log = start(&sim, 100);
    for n in 0..10 {
        assert_eq!(log.append(numbered(n), Ack::Buffered).await.unwrap().index, None);
    }
    log.close().await.unwrap();
    assert!(matches!(log.append(numbered(10), Ack::Durable).await, Err(LogError::Stopped { .. })));
    let log = Log::open(sim.copy(), signer(), Vec::new()).unwrap();
    assert_eq!((log.size(), log.checkpoint_size()), (10, 10));
}

#[tokio::test]
async fn dead_writer_fails_every_append() {
    let sim = Sim::default();
    let log = start(&sim, 100);
    sim.set(Fault::Panic);
    assert!(matches!(log.append(numbered(0), Ack::Durable).await, Err(LogError::Stopped { .. })));
    until(&log, |status| status.refuses.is_some()).await;
    for ack in [Ack::Buffered, Ack::Durable, Ack::Witnessed(1)] {
        assert!(matches!(log.append(numbered(0), ack).await, Err(LogError::Stopped { .. })));
    }
    assert!(matches!(log.prove(0, 0).await, Err(LogError::Stopped { .. })));
    assert!(matches!(log.close().await, Err(LogError::Stopped { .. })));
}

#[tokio::test]
async fn broken_disk_fails_every_append() {
    let sim = Sim::default();
    let log = start(&sim, 100);
    sim.set(Fault::Sync);
    assert!(matches!(log.append(numbered(0), Ack::Durable).await, Err(LogError::Io { .. })));
    sim.set(Fault::None);
    for ack in [Ack::Buffered, Ack::Durable] {
        assert!(log.append(numbered(0), ack).await.is_err());
    }
}

#[tokio::test]
async fn full_disk_refuses_and_what_was_buffered_is_written_when_there_is_room() {
    let sim = Sim::default();
    let log = start(&sim, 100);
    sim.set(Fault::Space(0));
    log.append(numbered(1), Ack::Buffered).await.unwrap();
    let full = |status: &LogStatus| matches!(status.refuses, Some(LogError::Full { .. }));
    until(&log, full).await;
    for ack in [Ack::Buffered, Ack::Durable] {
        assert!(matches!(log.append(numbered(2), ack).await, Err(LogError::Full { .. })));
    }
    assert_eq!(log.tail(0, 10).await, Ok(Vec::new()), "reads go on");
    sim.set(Fault::None);
    until(&log, |status| status.refuses.is_none()).await;
    log.append(numbered(3), Ack::Durable).await.unwrap();
    let read: Vec<_> = entries(&log).await.into_iter().map(|entry| entry.event).collect();
    assert_eq!(read, [numbered(1), numbered(3)]);
}

#[tokio::test]
async fn what_cannot_be_logged_is_refused_alone() {
    let log = start(&Sim::default(), 100);
    for ack in [Ack::Buffered, Ack::Durable] {
        let inexact = log.append(numbered(u64::MAX), ack).await;
        assert!(matches!(inexact, Err(LogError::BadEntry { .. })), "{inexact:?}");
        let large = log.append(event(Payload::Sealed("A".repeat(70_000))), ack).await;
        assert!(matches!(large, Err(LogError::TooLarge { .. })));
    }
    let lonely = log.append(numbered(1), Ack::Witnessed(2)).await;
    assert_eq!(lonely, Err(LogError::TooFewWitnesses { wanted: 2, have: 1 }));
    assert_eq!(log.append(numbered(1), Ack::Durable).await.unwrap().index, Some(0));
}

#[tokio::test]
async fn witnessed_append_waits_for_cosignatures_and_convinces() {
    let log = start(&Sim::default(), 100);
    let sign = async {
        let status = until(&log, |status| status.checkpoint.is_some()).await;
        assert_eq!((status.wanted, status.cosigned), (1, 0));
        let line = witness().cosign(status.checkpoint.unwrap().text(), 1_700_000_000);
        assert_eq!(log.cosign(vec![line]).await, Ok(1));
    };
    let (receipt, ()) = tokio::join!(log.append(numbered(1), Ack::Witnessed(1)), sign);
    let proof = receipt.unwrap().proof.unwrap();
    let policy = TrustPolicy { log: log.key().clone(), witnesses: vec![witness().public().clone()], quorum: 1 };
    assert_eq!(proof.verify(None, &policy).unwrap().index, 0);
    let entry = Entry::from_bytes(proof.extra.as_deref().unwrap()).unwrap();
    assert_eq!(entry.event, numbered(1));
    let request = log.request(0).await.unwrap();
    assert_eq!(request.to_string().parse(), Ok(request));
}

#[tokio::test]
async fn full_queue_makes_callers_wait() {
    let log = start(&Sim::default(), 2);
    let mut waiting: Vec<_> = (0..2).map(|n| Box::pin(log.append(numbered(n), Ack::Witnessed(1)))).collect();
    for append in &mut waiting {
        assert!(poll_immediate(append).await.is_none());
    }
    let mut third = Box::pin(log.append(numbered(2), Ack::Durable));
    until(&log, |status| status.size == 2 && status.checkpoint.is_some()).await;
    assert!(poll_immediate(&mut third).await.is_none(), "two entries have both places");
    // Who gives up waiting for witnesses frees the place.
    drop(waiting);
    assert_eq!(third.await.unwrap().index, Some(2));
}

#[tokio::test]
async fn proofs_are_asked_for_by_size() {
    let log = start(&Sim::default(), 100);
    join_all((0..5).map(|n| log.append(numbered(n), Ack::Durable))).await;
    assert_eq!(log.prove(1, 4).await.unwrap().len(), 2);
    assert_eq!(log.consistency(2, 5).await.unwrap().len(), 2);
    assert_eq!(log.prove(1, 9).await, Err(LogError::OutOfRange { asked: 9, size: 5 }));
    let note = log.checkpoint().await.unwrap();
    assert!(note.verify([log.key()]).is_ok());
    assert_eq!(log.proof(4).await.unwrap().note, note);
}

#[test]
fn quorum_leaves_the_own_node_out() {
    let config = TlogConfig::default();
    assert_eq!([0, 1, 2, 3, 64].map(|nodes| config.quorum(nodes)), [0, 0, 1, 2, 2]);
}

#[test]
fn configuration_knows_its_keys() {
    assert_eq!(toml::from_str(""), Ok(TlogConfig::default()));
    assert!(toml::from_str::<TlogConfig>("bach = 1").is_err());
}

#[tokio::test]
async fn a_place_in_the_queue_is_kept_until_the_deed_is_done() {
    let sim = Sim::default();
    let log = start(&sim, 1);
    let place = log.reserve().await.unwrap();
    assert!(poll_immediate(log.reserve()).await.is_none(), "the only place is taken");
    place.append(numbered(7)).unwrap();
    let second = log.reserve().await.unwrap();
    drop(second);
    assert_eq!(log.entries(None, 10).await.unwrap().size, 1);
    log.close().await.unwrap();
    assert!(matches!(log.reserve().await, Err(LogError::Stopped { .. })));
}

#[tokio::test]
async fn entries_are_read_from_a_number_or_from_the_end() {
    let log = start(&Sim::default(), 1_000);
    for n in 0..600 {
        log.append(numbered(n), Ack::Buffered).await.unwrap();
    }
    log.checkpoint().await.unwrap();
    let last = log.entries(None, 5).await.unwrap();
    assert_eq!((last.from, last.entries.len(), last.size), (595, 5, 600));
    let across = log.entries(Some(250), 300).await.unwrap();
    let numbers: Vec<_> = across.entries.iter().map(|entry| Entry::from_bytes(entry).unwrap().seq).collect();
    assert_eq!(numbers, (250..550).collect::<Vec<_>>());
    assert_eq!(log.entries(Some(600), 5).await.unwrap().entries, Vec::<Vec<u8>>::new());
    assert!(matches!(log.entries(Some(601), 5).await, Err(LogError::OutOfRange { asked: 601, size: 600 })));
}
