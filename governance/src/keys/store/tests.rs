use std::collections::BTreeSet;
use std::path::Path;

use aivillage_runtime::store::{MAX_VALUE, MemoryStore, StoreConfig};
use aivillage_runtime::{ActorCx, Durable, Entity, Village};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::keys::{KeyVault, Keystore, TenantId, VaultHandle};

/// Sealed; keys begin with the subject and a `/`.
const SEALED: TreeId = TreeId(40);
const CLEAR: TreeId = TreeId(41);

fn tenant() -> TenantId {
    TenantId::of("local")
}

fn scope_of(tree: TreeId, key: &[u8]) -> Option<Scope> {
    if tree == CLEAR {
        return None;
    }
    let subject = key.split(|byte| *byte == b'/').next().filter(|subject| !subject.is_empty());
    Scope::new(tenant(), &String::from_utf8_lossy(subject.unwrap_or(b"nobody")), "test").ok()
}

async fn vault() -> Vault {
    let handle = VaultHandle::new(Keystore::in_memory().unwrap());
    let hosted = handle.clone();
    let village = Village::builder().host(move |_: &ActorCx| KeyVault::new(hosted.clone())).start().await.unwrap();
    Vault::new(village, handle)
}

async fn over<S: Store>(inner: S) -> (EncryptedStore<S>, Arc<S>, Vault) {
    let (inner, vault) = (Arc::new(inner), vault().await);
    (EncryptedStore::new(inner.clone(), vault.clone(), scope_of), inner, vault)
}

async fn put(store: &impl Store, tree: TreeId, key: &str, value: &str) -> Result<Lsn, StoreError> {
    store.commit(Batch::new().put(tree, key, value), Level::Disk).await
}

fn crypt(error: &StoreError) -> Option<&CryptError> {
    match vault_error(error)? {
        VaultError::Crypt(error) => Some(error),
        _ => None,
    }
}

#[tokio::test]
async fn values_are_sealed_below_and_clear_above() {
    let (store, inner, _vault) = over(MemoryStore::default()).await;
    put(&store, SEALED, "ada/1", "canary").await.unwrap();
    put(&store, CLEAR, "ada/1", "canary").await.unwrap();
    assert_eq!(store.get(SEALED, b"ada/1").unwrap().unwrap(), "canary");
    assert!(inner.get(SEALED, b"ada/1").unwrap().unwrap().starts_with(b"AVE1"));
    assert_eq!(inner.get(CLEAR, b"ada/1").unwrap().unwrap(), "canary");
    assert_eq!(store.get(SEALED, b"ada/2").unwrap(), None);
    store.commit(Batch::new().delete(SEALED, "ada/1"), Level::Disk).await.unwrap();
    assert_eq!((store.get(SEALED, b"ada/1").unwrap(), store.stats().commits), (None, 3));
    assert_eq!(store.checkpoint().await.unwrap(), Lsn(3));
}

#[tokio::test]
async fn swapped_foreign_and_clear_records_do_not_open() {
    let (store, inner, vault) = over(MemoryStore::default()).await;
    for key in ["ada/1", "ada/2", "bob/1"] {
        put(&store, SEALED, key, "x").await.unwrap();
    }
    let sealed = |key: &str| inner.get(SEALED, key.as_bytes()).unwrap().unwrap();
    let (ada, bob) = (sealed("ada/2"), sealed("bob/1"));
    let refused = async |value: &[u8]| {
        inner.commit(Batch::new().put(SEALED, "ada/1", value), Level::Disk).await.unwrap();
        let error = store.get(SEALED, b"ada/1").unwrap_err();
        assert!(store.scan(SEALED, b"", 10).is_err());
        crypt(&error).unwrap().clone()
    };
    assert_eq!(refused(&ada).await, CryptError::Authenticate);
    assert!(matches!(refused(&bob).await, CryptError::UnknownKey { .. }));
    assert_eq!(refused(b"in the clear").await, CryptError::NotAnEnvelope);
    assert!(matches!(refused(&ada[..30]).await, CryptError::Truncated { .. }));
    let mut other = ada.to_vec();
    other[4] = 2;
    assert_eq!(refused(&other).await, CryptError::Unsupported { alg: 2, flags: 0 });
    assert!(vault.handle().refused() >= 3);
    let other_tree = TreeId(42);
    inner.commit(Batch::new().put(other_tree, "ada/2", &ada[..]), Level::Disk).await.unwrap();
    assert_eq!(crypt(&store.get(other_tree, b"ada/2").unwrap_err()), Some(&CryptError::Authenticate));
}

#[tokio::test]
async fn shredded_subject_reads_as_absent_and_takes_no_writes() {
    let (store, inner, vault) = over(MemoryStore::default()).await;
    for key in ["ada/1", "bob/1", "ada/2", "bob/2", "ada/3", "cy/1"] {
        put(&store, SEALED, key, "x").await.unwrap();
    }
    let at_ms = vault.shred(tenant(), scope_of(SEALED, b"ada/1").unwrap().subject).await.unwrap().at.0;
    assert_eq!(store.get(SEALED, b"ada/1").unwrap(), None);
    assert_eq!(store.is_current(SEALED, b"ada/1").unwrap(), None);
    let keys = |from: &str, limit| {
        let page = store.scan(SEALED, from.as_bytes(), limit).unwrap();
        page.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(keys("", 10), ["bob/1", "bob/2", "cy/1"]);
    assert_eq!(keys("", 2), ["bob/1", "bob/2"], "a page is full although records are gone");
    assert_eq!(keys("bob/2", 1), ["bob/2"]);
    assert_eq!(keys("", 0), [""; 0]);
    let refused = put(&store, SEALED, "ada/4", "x").await.unwrap_err();
    assert_eq!(crypt(&refused), Some(&CryptError::Shredded { at_ms }));
    assert!(refused.to_string().contains("cannot seal a value of tree 40"), "{refused}");
    assert_eq!(inner.get(SEALED, b"ada/4").unwrap(), None);
    assert_eq!(inner.scan(SEALED, b"ada", 10).unwrap().len(), 6, "what is stored is not touched");
}

#[tokio::test]
async fn old_keys_are_found_and_replaced_when_written_again() {
    let (store, _inner, vault) = over(MemoryStore::default()).await;
    put(&store, SEALED, "ada/1", "x").await.unwrap();
    put(&store, CLEAR, "ada/1", "x").await.unwrap();
    assert_eq!(store.is_current(SEALED, b"ada/1").unwrap(), Some(true));
    vault.rotate(&scope_of(SEALED, b"ada/1").unwrap()).await.unwrap();
    assert_eq!(store.is_current(SEALED, b"ada/1").unwrap(), Some(false));
    let value = store.get(SEALED, b"ada/1").unwrap().unwrap();
    store.commit(Batch::new().put(SEALED, "ada/1", &value[..]), Level::Disk).await.unwrap();
    assert_eq!(store.is_current(SEALED, b"ada/1").unwrap(), Some(true));
    assert_eq!(store.is_current(CLEAR, b"ada/1").unwrap(), Some(true));
    assert_eq!(store.is_current(SEALED, b"ada/2").unwrap(), None);
}

/// The first commit has to have a key made, the second has one: it must not overtake.
#[tokio::test]
async fn commits_keep_their_order_while_keys_are_made() {
    let (store, _inner, _vault) = over(MemoryStore::default()).await;
    put(&store, SEALED, "ada/1", "x").await.unwrap();
    let mut first = store.commit(Batch::new().put(CLEAR, "k", "1").put(SEALED, "bob/1", "x"), Level::Disk);
    assert!(poll!(&mut first).is_pending(), "the key of bob is asked for");
    let mut second = store.commit(Batch::new().put(CLEAR, "k", "2").put(SEALED, "ada/1", "y"), Level::Disk);
    assert!(poll!(&mut second).is_pending(), "it waits for its turn");
    let (first, second) = futures::join!(first, second);
    assert!(first.unwrap() < second.unwrap());
    assert_eq!(store.get(CLEAR, b"k").unwrap().unwrap(), "2");
    // One that is dropped while it waits gives its turn to the next.
    let mut dropped = store.commit(Batch::new().put(SEALED, "cy/1", "x"), Level::Disk);
    assert!(poll!(&mut dropped).is_pending());
    drop(dropped);
    let unpolled = store.commit(Batch::new().put(SEALED, "ada/2", "x"), Level::Disk);
    drop(unpolled);
    store.commit(Batch::new(), Level::Disk).await.unwrap();
    assert_eq!((store.get(SEALED, b"cy/1").unwrap(), store.get(SEALED, b"ada/2").unwrap()), (None, None));
}

#[tokio::test]
async fn limits_of_the_inner_store_hold() {
    let (store, inner, _vault) = over(MemoryStore::default()).await;
    let large = store.commit(Batch::new().put(SEALED, "ada/1", vec![0; MAX_VALUE]), Level::Disk).await;
    assert!(matches!(large, Err(StoreError::TooLarge { what: "value", .. })));
    let fits = store.commit(Batch::new().put(SEALED, "ada/1", vec![0; MAX_VALUE - OVERHEAD]), Level::Disk).await;
    fits.unwrap();
    // As many tiny values as `max_batch` lets through.
    let mut batch = Batch::new();
    while batch.size() < store.max_batch() / 64 {
        batch = batch.put(SEALED, "a", "");
    }
    assert!(store.0.sealed(&batch).await.unwrap().size() <= inner.max_batch() / 64);
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Notes(Vec<String>);

impl Durable for Notes {
    type Event = String;
    fn apply(&mut self, note: &String) {
        self.0.push(note.clone());
    }
}

#[tokio::test]
async fn durable_entities_live_in_it() {
    let (store, inner, _vault) = over(MemoryStore::default()).await;
    let store: Arc<dyn Store> = Arc::new(store);
    let mut notes = Entity::<Notes>::recover(store.clone(), "notes", "ada").await.unwrap();
    for n in 0..200 {
        notes.commit(format!("canary {n}")).await.unwrap();
    }
    let again = Entity::<Notes>::recover(store, "notes", "ada").await.unwrap();
    assert_eq!(*again, *notes);
    for tree in [TreeId::JOURNALS, TreeId::SNAPSHOTS] {
        let stored = inner.scan(tree, b"", usize::MAX).unwrap();
        assert!(!stored.is_empty() && stored.iter().all(|(_, value)| value.starts_with(b"AVE1")));
    }
}

type Write = (bool, u8, Option<Vec<u8>>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// It reads as the plain store does that got the same batches.
    #[test]
    fn it_behaves_as_the_store_it_wraps(
        batches in prop::collection::vec(prop::collection::vec(any::<Write>(), 0..6), 0..12),
        from: u8,
        limit in 0..9_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, _inner, _vault) = over(MemoryStore::default()).await;
            let model = MemoryStore::default();
            for writes in batches {
                let batch = writes.into_iter().fold(Batch::new(), |batch, (sealed, key, value)| {
                    let tree = if sealed { SEALED } else { CLEAR };
                    let key = vec![b'a' + key % 4, b'/', key % 16];
                    match value {
                        Some(value) => batch.put(tree, key, value),
                        None => batch.delete(tree, key),
                    }
                });
                let expected = model.commit(batch.clone(), Level::Disk).await.unwrap();
                prop_assert_eq!(store.commit(batch, Level::Disk).await.unwrap(), expected);
            }
            for tree in [SEALED, CLEAR] {
                let all = model.scan(tree, b"", usize::MAX).unwrap();
                prop_assert_eq!(&store.scan(tree, b"", usize::MAX).unwrap(), &all);
                let from = [b'a' + from % 5];
                prop_assert_eq!(store.scan(tree, &from, limit).unwrap(), model.scan(tree, &from, limit).unwrap());
                for (key, value) in all {
                    prop_assert_eq!(store.get(tree, &key).unwrap(), Some(value));
                }
            }
            Ok(())
        })?;
    }
}

/// All `AVE1` envelopes in the files under a directory, whatever they belong to, cut as long as they can be.
fn envelopes(dir: &Path) -> (Vec<Vec<u8>>, bool) {
    let (mut found, mut canary) = (Vec::new(), false);
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            canary |= bytes.windows(6).any(|window| window == b"canary");
            let starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"AVE1\x01\0"));
            found.extend(starts.map(|at| bytes[at..].iter().copied().take(OVERHEAD + VALUE).collect()));
        }
    }
    (found, canary)
}

/// Bytes of each value of the canary test.
const VALUE: usize = 12;

#[tokio::test]
async fn nothing_under_the_data_directory_opens_after_a_shred() {
    let dir = tempfile::tempdir().unwrap();
    let inner = aivillage_runtime::store::open(dir.path(), &StoreConfig::default()).unwrap();
    let vault = vault().await;
    let store = EncryptedStore::new(inner, vault.clone(), scope_of);
    let keys: Vec<_> = ["ada", "bob"].iter().flat_map(|who| (0..20).map(move |n| format!("{who}/{n:02}"))).collect();
    for key in &keys {
        put(&store, SEALED, key, &format!("canary {key}")[..VALUE]).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    let opened = |stored: &[Vec<u8>]| -> BTreeSet<String> {
        let opens = |key: &&String, sealed: &[u8]| {
            let scope = scope_of(SEALED, key.as_bytes()).unwrap();
            vault.handle().open(&scope, &record(SEALED, key.as_bytes()), sealed).is_ok()
        };
        stored.iter().filter_map(|sealed| keys.iter().find(|key| opens(key, sealed)).cloned()).collect()
    };
    let (stored, canary) = envelopes(dir.path());
    assert!(!canary, "nothing is in the clear");
    assert_eq!(opened(&stored).len(), keys.len(), "before, every value is found and opens");
    vault.shred(tenant(), scope_of(SEALED, b"ada/").unwrap().subject).await.unwrap();
    let (stored, _) = envelopes(dir.path());
    assert!(stored.len() >= keys.len(), "the values are still on the disk");
    assert!(opened(&stored).iter().all(|key| key.starts_with("bob")));
    assert_eq!(opened(&stored).len(), keys.len() / 2);
}
