//! The store under the ledger fails at any step, and the process ends there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aivillage_runtime::store::{Batch, Level, Lsn, MemoryStore, Store, StoreError, StoreStats, TreeId};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;

use super::model::any_batches;
use super::*;
use crate::ledger::shelf::{CHECKPOINTS, SEGMENTS, Shelf, ShelfError, StoppedError, Wear, audit_stopped};

/// A store that takes so many commits and then none any more. The one that fails first may be written all the same.
struct Failing {
    store: Arc<MemoryStore>,
    left: AtomicI64,
    last_is_written: bool,
}

impl Store for Failing {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(tree, key)
    }

    fn scan(&self, tree: TreeId, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(tree, from, limit)
    }

    fn commit(&self, batch: Batch, level: Level) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        let store = self.store.clone();
        let is_written = left > 0 || (left == 0 && self.last_is_written);
        async move {
            let written = if is_written { store.commit(batch, level).await } else { Err(StoreError::Closed) };
            if left > 0 { written } else { Err(StoreError::Closed) }
        }
        .boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Lsn, StoreError>> {
        self.store.checkpoint()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

/// Carries out batches until the store fails, with a checkpoint after every third, which is of the books before that one; the books as they were after the last
/// acknowledged one, and as they would have been after the one that failed.
async fn run(shelf: &Shelf, batches: &[(u64, Vec<Transfer>)]) -> Result<(Books, Books), ShelfError> {
    let (mut books, _) = shelf.load(REMEMBER).await?;
    let (mut acknowledged, mut now_ns) = (books.clone(), 0);
    let opening = Request::Transfers(vec![transfer(1, 1, 2, 1_000)]);
    let rest = batches.iter().map(|(pause_s, batch)| (*pause_s, vec![Request::Transfers(batch.clone())]));
    for (at, (pause_s, requests)) in
        std::iter::once((0, vec![Request::Accounts(accounts()), opening])).chain(rest).enumerate()
    {
        now_ns += pause_s * S;
        let before = books.save();
        if let Some(segment) = books.turn(now_ns, &requests).segment
            && shelf.append(&segment).await.is_err()
        {
            return Ok((acknowledged, books));
        }
        acknowledged = books.clone();
        if at % 3 == 2 && shelf.write_checkpoint(&before).await.is_err() {
            break;
        }
    }
    Ok((acknowledged.clone(), acknowledged))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_crash_between_any_two_steps_loses_nothing_acknowledged(
        batches in any_batches(),
        steps in 1_i64..40,
        last_is_written: bool,
    ) {
        let store = Arc::new(MemoryStore::default());
        let failing = Failing { store: store.clone(), left: AtomicI64::new(steps), last_is_written };
        block_on(async {
            let (acknowledged, tried) = run(&Shelf::new(Arc::new(failing), "main"), &batches).await.unwrap();
            let (books, _) = Shelf::new(store.clone(), "main").load(REMEMBER).await.unwrap();
            prop_assert!(books == acknowledged || (last_is_written && books == tried));
            // And it goes on from there.
            let shelf = Shelf::new(store, "main");
            let weight = shelf.write_checkpoint(&books.save()).await.unwrap();
            let wear = Wear::default().after_checkpoint(0, weight);
            prop_assert_eq!(shelf.load(REMEMBER).await.unwrap(), (books.clone(), wear));
            prop_assert!(shelf.audit(REMEMBER, books.head(), books.digest()).is_ok());
            Ok(())
        })?;
    }
}

/// A store with a journal of 40 segments.
fn stored() -> (Arc<MemoryStore>, Books) {
    let store = Arc::new(MemoryStore::default());
    let batches: Vec<_> = (2..41).map(|n| (1, vec![transfer(n, 1, 2, 1)])).collect();
    let (books, _) = block_on(run(&Shelf::new(store.clone(), "main"), &batches)).unwrap();
    (store, books)
}

#[test]
fn two_ledgers_of_one_store_do_not_mix() {
    let (store, books) = stored();
    let (other, _) = block_on(Shelf::new(store.clone(), "other").load(REMEMBER)).unwrap();
    assert_eq!(other, Books::default());
    assert_eq!(block_on(Shelf::new(store, "main").load(REMEMBER)).unwrap().0, books);
}

#[test]
fn a_damaged_checkpoint_is_left_aside() {
    let (store, books) = stored();
    let rows = store.scan(CHECKPOINTS, &[], 100).unwrap();
    assert!(rows.len() >= 2, "its name and its parts");
    for (key, value) in &rows {
        for at in 0..value.len() {
            let mut changed = value.to_vec();
            changed[at] ^= 1;
            block_on(store.commit(Batch::new().put(CHECKPOINTS, key.to_vec(), changed), Level::Disk)).unwrap();
            assert_eq!(block_on(Shelf::new(store.clone(), "main").load(REMEMBER)).unwrap().0, books, "byte {at}");
        }
        block_on(store.commit(Batch::new().put(CHECKPOINTS, key.to_vec(), value.to_vec()), Level::Disk)).unwrap();
    }
}

#[test]
fn a_damaged_journal_stops_the_start_and_the_audit_names_the_segment() {
    let (store, books) = stored();
    let shelf = Shelf::new(store.clone(), "main");
    let audit = || shelf.audit(REMEMBER, books.head(), books.digest());
    assert_eq!(audit().unwrap().segments, 40);
    assert!(matches!(shelf.audit(REMEMBER, books.head(), [0; 32]), Err(ShelfError::Damaged(AuditError::Differs))));
    let rows = store.scan(SEGMENTS, &[], 100).unwrap();
    let write = |number: usize, value: Vec<u8>| {
        let batch = Batch::new().put(SEGMENTS, rows[number].0.to_vec(), value);
        block_on(store.commit(batch, Level::Disk)).unwrap();
    };
    for number in [3, 39] {
        let mut changed = rows[number].1.to_vec();
        changed[70] ^= 1;
        write(number, changed);
        let named =
            |error| matches!(error, ShelfError::Damaged(AuditError::Segment { number: n, .. }) if n == number as u64);
        assert!(named(audit().unwrap_err()), "{number}");
        assert!(named(block_on(shelf.load(REMEMBER)).unwrap_err()), "{number}");
        write(number, rows[number].1.to_vec());
    }
    block_on(store.commit(Batch::new().delete(SEGMENTS, rows[39].0.to_vec()), Level::Disk)).unwrap();
    assert!(matches!(audit(), Err(ShelfError::Damaged(AuditError::Chain { number: 39 }))));
    block_on(store.commit(Batch::new().delete(SEGMENTS, rows[5].0.to_vec()), Level::Disk)).unwrap();
    let loaded = block_on(shelf.load(REMEMBER));
    assert!(matches!(loaded, Err(ShelfError::Damaged(AuditError::Chain { number: 5 }))));
}

#[test]
fn a_stopped_ledger_that_is_damaged_says_where_and_none_is_none() {
    let (store, books) = stored();
    let audited = block_on(audit_stopped(store.clone())).unwrap().unwrap();
    assert_eq!(audited, books.balance().unwrap());
    let (key, value) = store.scan(SEGMENTS, &[], 100).unwrap().swap_remove(7);
    let mut changed = value.to_vec();
    changed[70] ^= 1;
    block_on(store.commit(Batch::new().put(SEGMENTS, key.to_vec(), changed), Level::Disk)).unwrap();
    let wrong = block_on(audit_stopped(store)).unwrap_err();
    assert!(matches!(wrong, StoppedError::Wrong(AuditError::Segment { number: 7, .. })), "{wrong:?}");
    assert!(block_on(audit_stopped(Arc::new(MemoryStore::default()))).unwrap().is_none());
    let failing = Failing { store: Arc::new(MemoryStore::default()), left: AtomicI64::new(0), last_is_written: false };
    block_on(failing.store.commit(Batch::new().put(SEGMENTS, key.to_vec(), value.to_vec()), Level::Disk)).unwrap();
    assert!(matches!(block_on(audit_stopped(Arc::new(failing))), Err(StoppedError::Store(StoreError::Closed))));
}
