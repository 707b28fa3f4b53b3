use aivillage_runtime::config::Period;
use aivillage_runtime::testing::{asked, sent};
use aivillage_runtime::{AppError, Village};
use serde_json::json;

use super::super::files::sim::{Fault, Sim};
use super::super::*;
use super::*;

const CLOCK: fn() -> u64 = || 1_700_000_000_000;

fn signer() -> LogSigner {
    LogSigner::new("example.com/log", &[1; 32]).unwrap()
}

fn cosigner(n: u8) -> Cosigner {
    Cosigner::new(&format!("w{n}"), &[n; 32]).unwrap()
}

fn event(n: u64) -> Event {
    let key = LogKey::new(&[7; 32]);
    Event {
        kind: "exec.done".to_owned(),
        actor: key.pseudonym("ada"),
        action: "execute".to_owned(),
        object: key.pseudonym("proposal"),
        tenant: key.pseudonym("acme"),
        article: Some("A1".to_owned()),
        decision: Decision::Allow,
        case: None,
        payload: Payload::Clear(json!({ "n": n })),
    }
}

fn handle() -> LogHandle {
    let log = Log::open(Sim::default(), signer(), vec![cosigner(2).public().clone()]).unwrap();
    let config = TlogConfig { checkpoint: Period::from_millis(5), ..TlogConfig::default() };
    LogHandle::start(log, "0000000000000001", config, CLOCK).unwrap()
}

async fn village(log: &LogHandle, book: Sim) -> Village {
    let book = Book::open(book, cosigner(2), vec![signer().public().clone()]).unwrap();
    village_with(log, Arc::new(Mutex::new(book))).await
}

async fn village_with(log: &LogHandle, book: Arc<Mutex<Book<Sim>>>) -> Village {
    let village = install(Village::builder(), log.clone(), book, CLOCK).start().await.unwrap();
    begin::<Sim>(&village).await.unwrap();
    village
}

fn policy() -> TrustPolicy {
    TrustPolicy { log: signer().public().clone(), witnesses: vec![cosigner(2).public().clone()], quorum: 1 }
}

#[tokio::test]
async fn log_and_witness_find_each_other_by_the_board() {
    let (log, book) = (handle(), Sim::default());
    let village = village(&log, book.clone()).await;
    let audit_log = village.addr::<AuditLog>("here");
    for n in 0..3 {
        let append = |reply| AuditLogMsg::Append { entry: Box::new(event(n)), ack: Ack::Witnessed(1), reply };
        let receipt = audit_log.ask(append).await.unwrap();
        let verified = receipt.proof.unwrap().verify(None, &policy()).unwrap();
        assert_eq!((verified.index, verified.witnesses), (n, vec![("w2".to_owned(), 1_700_000_000)]));
    }
    let known = Book::open(book.copy(), cosigner(2), vec![signer().public().clone()]).unwrap();
    assert!(known.latest("example.com/log").unwrap().size >= 3);
    // The rest of what the actor answers.
    let tail = |reply| AuditLogMsg::Tail { from: 1, limit: 9, reply };
    assert_eq!(audit_log.ask(tail).await.unwrap().len(), 2);
    let prove = |reply| AuditLogMsg::Prove { index: 0, size: 2, reply };
    assert_eq!(audit_log.ask(prove).await.unwrap().len(), 1);
    let consistency = |reply| AuditLogMsg::Consistency { old: 0, size: 9, reply };
    assert_eq!(audit_log.ask(consistency).await.unwrap_err().code(), "tlog_out_of_range");
    assert_eq!(audit_log.ask(|reply| AuditLogMsg::Proof(2, reply)).await.unwrap().index, 2);
    village.shutdown().await.unwrap();
    log.close().await.unwrap();
    let append = |reply| AuditLogMsg::Append { entry: Box::new(event(9)), ack: Ack::Durable, reply };
    assert!(audit_log.ask(append).await.is_err());
}

#[tokio::test]
async fn a_witness_that_learns_of_a_log_late_is_asked_again() {
    let (log, book) = (handle(), Book::open(Sim::default(), cosigner(2), Vec::new()).unwrap());
    let book = Arc::new(Mutex::new(book));
    log.append(event(0), Ack::Durable).await.unwrap();
    log.checkpoint().await.unwrap();
    let village = village_with(&log, Arc::clone(&book)).await;
    while village.encode_metrics().contains("village_tlog_witness_failures_total 0\n") {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.status().cosigned, 0);
    book.lock().set_logs(vec![signer().public().clone()]);
    let mut status = log.watch();
    assert_eq!(status.wait_for(|status| status.cosigned == 1).await.unwrap().size, 1, "no further entry was needed");
    village.shutdown().await.unwrap();
}

#[tokio::test]
async fn witness_answers_by_message_and_keeps_silent_when_its_disk_fails() {
    let (log, book) = (handle(), Sim::default());
    let village = village(&log, book.clone()).await;
    log.append(event(0), Ack::Witnessed(1)).await.unwrap();
    let witness = village.addr::<Witness<Sim>>("here");
    let add = async |request| witness.ask(|reply| WitnessMsg::AddCheckpoint(request, reply)).await;
    let size = log.status().size;
    let request = log.request(size).await.unwrap();
    assert!(add(request.clone()).await.unwrap().is_ok());
    let stale = AddCheckpoint { old: 0, ..request.clone() };
    assert_eq!(add(stale).await.unwrap(), Err(Refusal::Conflict { size }));
    book.set(Fault::Sync);
    assert_eq!(add(request).await.unwrap_err().code(), "tlog_io");
    assert_eq!(witness.ask(WitnessMsg::Evidence).await, Ok(Vec::new()));
}

#[tokio::test]
async fn dead_log_fails_messages_with_its_own_error() {
    let log = handle();
    let village = village(&log, Sim::default()).await;
    log.close().await.unwrap();
    let append = |reply| AuditLogMsg::Append { entry: Box::new(event(0)), ack: Ack::Durable, reply };
    let error = village.addr::<AuditLog>("here").ask(append).await.unwrap_err();
    assert!(matches!(&error, CallError::App(AppError { code, .. }) if code == "tlog_stopped"), "{error:?}");
}

#[tokio::test]
async fn messages_and_answers_travel_between_nodes() {
    let log = handle();
    log.append(event(0), Ack::Durable).await.unwrap();
    log.checkpoint().await.unwrap();
    let request = log.request(0).await.unwrap();
    let receipt = Receipt { index: Some(3), proof: Some(log.proof(0).await.unwrap()) };
    let ask = |reply| AuditLogMsg::Append { entry: Box::new(event(0)), ack: Ack::Witnessed(2), reply };
    let open = |body| match body {
        AuditLogMsg::Append { entry, ack: Ack::Witnessed(2), reply } if *entry == event(0) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<AuditLog, _>(ask, open, receipt.clone()), Ok(receipt));
    let posted = vec![Posted { id: 7, request: request.clone() }];
    let ask = |reply| BoardMsg::Take { witness: "w".to_owned(), reply };
    let open = |body| match body {
        BoardMsg::Take { reply, .. } => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<Board, _>(ask, open, posted.clone()), Ok(posted));
    for answer in [Ok(cosigner(2).cosign("a\n", 5)), Err(Refusal::Conflict { size: 3 }), Err(Refusal::BadProof)] {
        let give = sent::<Board>(&BoardMsg::Give { id: 7, answer: answer.clone() }).unwrap();
        assert!(matches!(give, BoardMsg::Give { id: 7, answer: read } if read == answer));
    }
    let ask = |reply| WitnessMsg::AddCheckpoint(request.clone(), reply);
    let open = |body| match body {
        WitnessMsg::AddCheckpoint(read, reply) if read == request => reply,
        other => panic!("{other:?}"),
    };
    let answer: Answer = Err(Refusal::UnknownOrigin);
    assert_eq!(asked::<Witness<Sim>, _>(ask, open, answer.clone()), Ok(answer));
}

/// Errors travel as records too.
#[test]
fn errors_keep_their_codes() {
    for error in [
        LogError::TooLarge { bytes: 1, max: 2 },
        LogError::BadEntry { detail: "d".into() },
        LogError::Full { file: "f".into() },
        LogError::Fork { index: 3 },
        LogError::Stopped { reason: "r".into() },
    ] {
        let packed = postcard::to_allocvec(&error).unwrap();
        assert_eq!(postcard::from_bytes::<LogError>(&packed).unwrap(), error);
        assert!(error.code().starts_with("tlog_"));
    }
    assert_eq!(CallError::from(LogError::Full { file: "f".into() }).code(), "store_full");
    assert_eq!(CallError::from(LogError::Fork { index: 3 }).code(), "tlog_fork");
}
