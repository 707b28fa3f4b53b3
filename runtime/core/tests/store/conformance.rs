//! What every store does alike. A new backend passes this suite unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use aivillage_runtime::store::{self, Batch, Level, MemoryStore, Store, StoreError, TreeId};
use futures::future::join_all;
use proptest::prelude::*;

use super::{all, open, runtime};

const A: TreeId = TreeId(33);
const B: TreeId = TreeId(34);

/// Makes the tests of this suite for one store.
macro_rules! conformance {
    ($name:ident, $open:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn values_are_written_replaced_and_removed() {
                let (store, _dir) = $open;
                values_come_and_go(&*store).await;
            }
            #[tokio::test]
            async fn trees_are_apart_and_in_order() {
                let (store, _dir) = $open;
                trees(&*store).await;
            }
            #[tokio::test]
            async fn large_values_come_back() {
                let (store, _dir) = $open;
                large_values(&*store).await;
            }
            #[tokio::test]
            async fn what_is_too_large_is_refused_whole() {
                let (store, _dir) = $open;
                limits(&*store).await;
            }
            #[tokio::test]
            async fn positions_grow_and_concurrent_batches_stay_whole() {
                let (store, _dir) = $open;
                concurrent(store).await;
            }
        }
    };
}

conformance!(disk, {
    let dir = tempfile::tempdir().unwrap();
    (open(dir.path()), dir)
});
conformance!(memory, (Arc::<MemoryStore>::default() as Arc<dyn Store>, ()));

async fn values_come_and_go(store: &dyn Store) {
    assert_eq!(store.get(A, b"k").unwrap(), None);
    for (n, level) in [Level::Async, Level::Process, Level::Disk].into_iter().enumerate() {
        store.commit(Batch::new().put(A, *b"k", [u8::try_from(n).unwrap()]), level).await.unwrap();
        assert_eq!(store.get(A, b"k").unwrap().unwrap(), [u8::try_from(n).unwrap()][..]);
    }
    store.commit(Batch::new().put(A, [], []).delete(A, *b"k").delete(A, *b"never"), Level::Disk).await.unwrap();
    assert_eq!(store.get(A, b"k").unwrap(), None);
    assert_eq!(store.get(A, b"").unwrap().unwrap(), b""[..]);
    // The last of one key in a batch counts.
    let batch = Batch::new().put(A, *b"x", *b"1").delete(A, *b"x").delete(A, *b"y").put(A, *b"y", *b"2");
    store.commit(batch, Level::Disk).await.unwrap();
    assert_eq!((store.get(A, b"x").unwrap(), store.get(A, b"y").unwrap()), (None, Some(b"2"[..].into())));
}

async fn trees(store: &dyn Store) {
    let keys: [&[u8]; 5] = [b"", &[0], &[0, 0], b"a", &[0xff, 0xff, 0xff]];
    let mut batch = Batch::new();
    for key in keys {
        batch = batch.put(A, key, *b"in a").put(B, key, *b"in b");
    }
    store.commit(batch.put(TreeId(0), *b"low", *b"").put(TreeId(79), *b"high", *b""), Level::Disk).await.unwrap();
    let found = |from: &[u8], limit| -> Vec<Vec<u8>> {
        store.scan(A, from, limit).unwrap().into_iter().map(|(key, _)| key.to_vec()).collect()
    };
    assert_eq!(found(b"", 100), keys);
    assert_eq!(found(&[0, 0], 2), keys[2..4]);
    assert_eq!(found(&[0, 1], 100), keys[3..]);
    assert_eq!(found(b"", 0).len(), 0);
    assert!(store.scan(A, b"", 100).unwrap().iter().all(|(_, value)| value == "in a"));
    assert_eq!(store.scan(TreeId(35), b"", 100).unwrap(), []);
}

async fn large_values(store: &dyn Store) {
    for len in [100, 128 * 1024, 128 * 1024 + 1, 1_000_000, 300_000, 7, 200_000] {
        let value: Vec<u8> = (0..len).map(|n| u8::try_from(n * 7 % 253).unwrap()).collect();
        store.commit(Batch::new().put(A, *b"k", value.clone()).put(A, *b"l", *b"next"), Level::Process).await.unwrap();
        assert_eq!(store.get(A, b"k").unwrap().unwrap(), value);
        let pairs = store.scan(A, b"", 10).unwrap();
        assert_eq!(
            pairs.iter().map(|(key, value)| (&key[..], value.len())).collect::<Vec<_>>(),
            [(&b"k"[..], len), (b"l", 4)]
        );
    }
    // Twice in one batch, then gone.
    let batch = Batch::new().put(A, *b"k", vec![1; 400_000]).put(A, *b"k", vec![2; 300_000]);
    store.commit(batch, Level::Process).await.unwrap();
    assert_eq!(store.get(A, b"k").unwrap().unwrap(), vec![2; 300_000]);
    store.commit(Batch::new().delete(A, *b"k"), Level::Process).await.unwrap();
    assert_eq!(store.get(A, b"k").unwrap(), None);
}

async fn limits(store: &dyn Store) {
    let value = || vec![0; store::MAX_VALUE];
    let too_large = [
        (Batch::new().put(A, vec![0; store::MAX_KEY + 1], *b"v"), "key"),
        (Batch::new().put(A, *b"k", vec![0; store::MAX_VALUE + 1]), "value"),
        (Batch::new().put(A, *b"k", value()).put(A, *b"l", value()).put(A, *b"m", *b"v"), "batch"),
    ];
    for (batch, part) in too_large {
        let outcome = store.commit(Batch::new().put(B, *b"first", *b""), Level::Process).await;
        let first = outcome.unwrap();
        match store.commit(batch.put(A, *b"other", *b"v"), Level::Process).await {
            Err(StoreError::TooLarge { what, .. }) => assert_eq!(what, part),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.stats().last, first);
    }
    assert!(all(store, A).is_empty());
    store.commit(Batch::new().put(A, vec![7; store::MAX_KEY], *b"v"), Level::Process).await.unwrap();
    assert_eq!(store.get(A, &[7; store::MAX_KEY]).unwrap().unwrap(), b"v"[..]);
}

async fn concurrent(store: Arc<dyn Store>) {
    let first = store.commit(Batch::new().put(B, *b"k", *b""), Level::Process).await.unwrap();
    let commits = (0..64_u32).map(|n| {
        let store = Arc::clone(&store);
        async move {
            let level = if n % 3 == 0 { Level::Disk } else { Level::Process };
            let batch = Batch::new().put(A, n.to_be_bytes(), *b"v").put(B, *b"k", n.to_be_bytes()).put(
                A,
                *b"k",
                n.to_be_bytes(),
            );
            let lsn = store.commit(batch, level).await.unwrap();
            assert!(store.get(A, &n.to_be_bytes()).unwrap().is_some());
            (lsn, n)
        }
    });
    let mut done = join_all(commits).await;
    done.sort_unstable();
    let positions: Vec<_> = done.iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(positions, (first.0 + 1..=first.0 + 64).collect::<Vec<_>>());
    let newest = done[63].1.to_be_bytes();
    assert_eq!(store.get(A, b"k").unwrap().unwrap(), newest[..]);
    assert_eq!(store.get(B, b"k").unwrap().unwrap(), newest[..]);
    // An empty batch takes no position and waits for the others.
    assert_eq!(store.commit(Batch::new(), Level::Disk).await.unwrap(), done[63].0);
    assert_eq!(store.stats().commits, 65);
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(u8, u8, Option<usize>)>),
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0_usize..300, 1 => 131_000_usize..400_000];
    let op = (0_u8..3, 0_u8..12, prop::option::weighted(0.7, len));
    prop_oneof![
        10 => prop::collection::vec(op, 1..6).prop_map(Step::Commit),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn disk_store_is_a_sorted_map_over_checkpoints_and_restarts(steps in prop::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let mut store = Some(open(dir.path()));
        let mut model: BTreeMap<(u16, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for (count, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit(ops) => {
                    let mut batch = Batch::new();
                    for (tree, key, len) in ops {
                        let (tree, key) = (TreeId(u16::from(tree)), vec![key]);
                        batch = if let Some(len) = len {
                            let value = vec![u8::try_from(count).unwrap() + 1; len];
                            model.insert((tree.0, key.clone()), value.clone());
                            batch.put(tree, key, value)
                        } else {
                            model.remove(&(tree.0, key.clone()));
                            batch.delete(tree, key)
                        };
                    }
                    runtime.block_on(store.as_ref().unwrap().commit(batch, Level::Process)).unwrap();
                }
                Step::Checkpoint => drop(runtime.block_on(store.as_ref().unwrap().checkpoint()).unwrap()),
                Step::Reopen => {
                    store.take();
                    let reopened = open(dir.path());
                    prop_assert_eq!(reopened.stats().rebuilds, 0);
                    store = Some(reopened);
                }
            }
        }
        for tree in 0..3 {
            let expected: BTreeMap<_, _> = model.iter().filter(|((t, _), _)| *t == tree).map(|((_, k), v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(all(&**store.as_ref().unwrap(), TreeId(tree)), expected);
        }
    }
}
