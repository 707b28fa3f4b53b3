//! The actor in a village.

use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::Arc;

use aivillage_runtime::cluster::RecoverError;
use aivillage_runtime::config::Size;
use aivillage_runtime::store::{Batch, Level, Lsn, Store, StoreError, StoreStats, TreeId};
use aivillage_runtime::testing::{asked, sent};
use aivillage_runtime::{ActorCx, Addr, Village};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::*;
use crate::ledger::client::{Hold, LedgerClient, LedgerError};
use crate::ledger::record::Account;
use crate::ledger::{KEY, Ledger, LedgerConfig, LedgerMsg, TOPIC, audit_stopped};

async fn village() -> (Village, LedgerClient, Addr<Ledger>) {
    let village = Village::builder().host(|_: &ActorCx| Ledger::default()).start().await.unwrap();
    let (client, ledger) = (LedgerClient::new(&village), village.addr::<Ledger>(KEY));
    client.open(accounts()).await.unwrap();
    client.submit(vec![transfer(1, 1, 2, 1_000)]).await.unwrap();
    (village, client, ledger)
}

fn holding(id: u128, amount: u128) -> Hold {
    let (from, to) = (AccountId(2), AccountId(3));
    Hold { id: TransferId(id), from, to, ledger: LedgerId::MICRO_USD, amount, code: 1, timeout: None }
}

#[tokio::test]
async fn what_is_held_is_settled_or_voided_and_repetition_is_well() {
    let (_village, client, _) = village().await;
    for _ in 0..2 {
        client.hold(&[holding(2, 100), holding(3, 50)]).await.unwrap();
        client.settle(TransferId(4), TransferId(2), 70).await.unwrap();
        client.void(TransferId(5), TransferId(3)).await.unwrap();
    }
    assert_eq!(client.balance(AccountId(3)).await.unwrap().unwrap().credits_posted, 70);
    assert_eq!(client.balance(AccountId(9)).await.unwrap(), None);
    let too_much = client.hold(&[holding(6, 1), holding(7, 1_000)]).await;
    assert_eq!(too_much, Err(LedgerError::Refused { index: 1, result: TransferResult::ExceedsCredits }));
    let account = NewAccount { code: 7, ..accounts()[0] };
    let refused = LedgerError::Account { index: 0, result: AccountResult::ExistsWithDifferentCode };
    assert_eq!(client.open(vec![account]).await, Err(refused));
    let many = client.submit(vec![transfer(8, 1, 2, 1); 2_001]).await.unwrap_err();
    assert!(matches!(many, LedgerError::Call(error) if error.code() == "too_much_data"));
}

#[tokio::test]
async fn requests_at_the_same_time_share_a_commit_and_the_journal_has_all() {
    let (_village, client, ledger) = village().await;
    let transfers = (2..202).map(|n| client.submit(vec![transfer(n, 1, 4, 1)]));
    assert!(join_all(transfers).await.into_iter().all(|result| result.is_ok()));
    let large: Vec<_> = (1_000..3_000).map(|n| transfer(n, 1, 4, 1)).collect();
    let both = join_all([client.submit(large[..1_500].to_vec()), client.submit(large[1_500..].to_vec())]).await;
    assert!(both.into_iter().all(|result| result.is_ok()));
    let audited = ledger.ask(LedgerMsg::Audit).await.unwrap();
    assert_eq!(audited.posted[&LedgerId(1)], 1_000 + 200 + 2_000);
    assert!(audited.segments < 100, "{} commits of 202 requests", audited.segments);
    let (mut journal, mut from) = (Vec::new(), 0);
    loop {
        let page = ledger.ask(|reply| LedgerMsg::Journal { from, limit: 64, reply }).await.unwrap();
        let Some(last) = page.last() else { break };
        from = last.number + 1;
        journal.extend(page.iter().map(Segment::encode));
    }
    assert_eq!(verify(REMEMBER, journal).unwrap().1, audited);
}

#[tokio::test(start_paused = true)]
async fn an_expired_hold_is_told() {
    static NOW_MS: AtomicU64 = AtomicU64::new(10_000);
    let host = |_: &ActorCx| Ledger::with_clock(|| NOW_MS.load(Ordering::Relaxed));
    let village = Village::builder().host(host).start().await.unwrap();
    let client = LedgerClient::new(&village);
    client.open(accounts()).await.unwrap();
    client.submit(vec![transfer(1, 1, 2, 1_000)]).await.unwrap();
    let timeout = Some(Duration::from_secs(1));
    client.hold(&[Hold { timeout, ..holding(2, 100) }]).await.unwrap();
    let topic = village.topic(TOPIC);
    let events = topic.subscribe(Some(topic.newest().await.unwrap()));
    futures::pin_mut!(events);
    let (told, ()) = futures::join!(events.next(), async { NOW_MS.store(11_001, Ordering::Relaxed) });
    let told = format!("{told:?}");
    assert!(told.contains(&format!("{:032x}", 2)), "{told}");
    let late = client.settle(TransferId(3), TransferId(2), 1).await;
    assert_eq!(late, Err(LedgerError::Refused { index: 0, result: TransferResult::PendingTransferExpired }));
}

/// A store whose checkpoints wait at a gate.
struct Gated(Arc<dyn Store>);

static AT_THE_GATE: Semaphore = Semaphore::const_new(0);
static GATE: Semaphore = Semaphore::const_new(0);

impl Store for Gated {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(tree, key)
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.scan(tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        // Only parts of a checkpoint need not be safe at once.
        let (is_part, store) = (level == Level::Async && !batch.is_empty(), self.0.clone());
        let commit = async move {
            if is_part {
                AT_THE_GATE.add_permits(1);
                GATE.acquire().await.unwrap().forget();
            }
            store.commit(batch, level).await
        };
        commit.boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.0.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.0.stats()
    }
}

#[tokio::test]
async fn a_checkpoint_holds_up_nobody() {
    let config = LedgerConfig { checkpoint_after: Size::from_kib(64) };
    let host = move |_: &ActorCx| Ledger { over: |store| Arc::new(Gated(store)), ..Ledger::new(config) };
    let village = Village::builder().host(host).start().await.unwrap();
    let client = LedgerClient::new(&village);
    client.open(accounts()).await.unwrap();
    client.submit((1..=2_000).map(|n| transfer(n, 1, 4, 1)).collect()).await.unwrap();
    AT_THE_GATE.acquire().await.unwrap().forget();
    // It is being written, and no further one is begun.
    for batch in 2..6 {
        client.submit((1..=2_000).map(|n| transfer(batch * 2_000 + n, 1, 4, 1)).collect()).await.unwrap();
    }
    assert_eq!(client.balance(AccountId(4)).await.unwrap().unwrap().credits_posted, 10_000);
    assert_eq!(AT_THE_GATE.available_permits(), 0);
    // What came meanwhile calls for the next one.
    GATE.add_permits(1_000);
    let next = async {
        let mut id = 20_000;
        while AT_THE_GATE.available_permits() == 0 {
            client.submit(vec![transfer(id, 1, 4, 1)]).await.unwrap();
            id += 1;
        }
        id - 20_000
    };
    let more = tokio::time::timeout(Duration::from_secs(30), next).await.expect("another checkpoint");
    let audited = village.addr::<Ledger>(KEY).ask(LedgerMsg::Audit).await.unwrap();
    assert_eq!(audited.posted[&LedgerId(1)], 10_000 + more);
    village.shutdown().await.unwrap();
}

#[tokio::test]
async fn accounts_come_in_pages_and_what_is_done_is_counted() {
    let (village, client, ledger) = village().await;
    let page = |after: Option<u128>, limit| {
        let after = after.map(AccountId);
        ledger.ask(move |reply| LedgerMsg::Accounts { after, limit, reply })
    };
    let ids = |page: Vec<Account>| page.iter().map(|account| account.of.id.0).collect::<Vec<_>>();
    assert_eq!(ids(page(None, 2).await.unwrap()), [1, 2]);
    assert_eq!(ids(page(Some(2), 9).await.unwrap()), [3, 4, 5]);
    assert_eq!(ids(page(Some(5), 9).await.unwrap()), [0_u128; 0]);
    assert_eq!(ids(page(None, 0).await.unwrap()), [0_u128; 0]);
    client.hold(&[holding(2, 100)]).await.unwrap();
    client.hold(&[holding(3, 9_999)]).await.unwrap_err();
    let metrics = village.encode_metrics();
    for line in [
        "village_ledger_transfers_total{outcome=\"accepted\"} 2\n",
        "village_ledger_transfers_total{outcome=\"refused\"} 1\n",
        "village_ledger_accounts 5\n",
        "village_ledger_holds 1\n",
        "village_ledger_segments 3\n",
    ] {
        assert!(metrics.contains(line), "{line} of {metrics}");
    }
    assert!(metrics.contains("village_ledger_commit_seconds_count "));
}

#[tokio::test]
async fn the_ledger_of_a_stopped_node_is_audited_by_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Village::builder().data_dir(dir.path());
    assert!(matches!(builder().copies(), Err(RecoverError::NoNode { .. })));
    let village = builder().host(|_: &ActorCx| Ledger::default()).start().await.unwrap();
    let client = LedgerClient::new(&village);
    client.open(accounts()).await.unwrap();
    client.submit(vec![transfer(1, 1, 2, 1_000)]).await.unwrap();
    let running = village.addr::<Ledger>(KEY).ask(LedgerMsg::Audit).await.unwrap();
    assert!(matches!(builder().copies(), Err(RecoverError::Store(StoreError::InUse { .. }))));
    village.shutdown().await.unwrap();
    drop((village, client));
    let mut found = Vec::new();
    for copy in builder().copies().unwrap() {
        found.extend(audit_stopped(copy).await.unwrap());
    }
    assert_eq!(found, [running]);
}

#[tokio::test]
async fn the_books_outlive_the_village() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Village::builder().data_dir(dir.path()).host(|_: &ActorCx| Ledger::default()).start();
    let village = start().await.unwrap();
    let client = LedgerClient::new(&village);
    client.open(accounts()).await.unwrap();
    // Enough for a checkpoint, and a tail.
    for batch in 0..20 {
        let ids = (1..=2_000).map(|n| batch * 2_000 + n);
        client.submit(ids.map(|id| transfer(1_000 + id, 1, 2, 1)).collect()).await.unwrap();
    }
    client.hold(&[holding(300, 10)]).await.unwrap();
    let before = village.addr::<Ledger>(KEY).ask(LedgerMsg::Audit).await.unwrap();
    village.shutdown().await.unwrap();
    drop((village, client));
    let village = start().await.unwrap();
    assert_eq!(village.addr::<Ledger>(KEY).ask(LedgerMsg::Audit).await.unwrap(), before);
    LedgerClient::new(&village).settle(TransferId(301), TransferId(300), Transfer::ALL).await.unwrap();
    village.shutdown().await.unwrap();
}

#[test]
fn messages_are_the_same_on_another_node() {
    let batch = vec![Transfer { user: u128::MAX, ..hold(u128::MAX - 1, 2, 3, Transfer::ALL, 9) }];
    let open = |body| match body {
        LedgerMsg::Transfer(got, reply) => {
            assert_eq!(got, vec![Transfer { user: u128::MAX, ..hold(u128::MAX - 1, 2, 3, Transfer::ALL, 9) }]);
            reply
        }
        other => panic!("{other:?}"),
    };
    let results = vec![TransferResult::Ok, TransferResult::ExceedsCredits];
    assert_eq!(asked::<Ledger, _>(|reply| LedgerMsg::Transfer(batch, reply), open, results.clone()), Ok(results));
    let desk = Desk::new();
    let open = |body| match body {
        LedgerMsg::Journal { from: 7, limit: 8, reply } => reply,
        other => panic!("{other:?}"),
    };
    let journal = |reply| LedgerMsg::Journal { from: 7, limit: 8, reply };
    assert_eq!(asked::<Ledger, _>(journal, open, desk.journal.clone()), Ok(desk.journal));
    let audited = desk.books.balance().unwrap();
    let open = |body| match body {
        LedgerMsg::Audit(reply) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<Ledger, _>(LedgerMsg::Audit, open, audited.clone()), Ok(audited));
    assert!(matches!(sent::<Ledger>(&LedgerMsg::Tick), Ok(LedgerMsg::Tick)));
}
