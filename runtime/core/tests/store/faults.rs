//! Damage at rest and at run time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aivillage_runtime::config::Size;
use aivillage_runtime::store::{Batch, DiskStore, Level, Store, StoreConfig, StoreError, TreeId};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{all, open, runtime, small};

const TREE: TreeId = TreeId(40);
const TWIN: TreeId = TreeId(41);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Batch number `n`: puts in two trees, sometimes a large one, and a delete.
fn batch(n: u32) -> Batch {
    let len = if n % 61 == 60 { 150_000 } else { 40 + n as usize % 300 };
    let value = [&n.to_be_bytes()[..], &vec![0x11 + (n % 200) as u8; len]].concat();
    let key = (n % 150).to_be_bytes();
    let batch = Batch::new().put(TREE, key, value.clone()).put(TWIN, key, value);
    let gone = (n * 7 % 150).to_be_bytes();
    if n % 5 == 4 && gone != key { batch.delete(TREE, gone).delete(TWIN, gone) } else { batch }
}

fn apply(model: &mut Model, n: u32) {
    let len = if n % 61 == 60 { 150_000 } else { 40 + n as usize % 300 };
    let key = (n % 150).to_be_bytes();
    model.insert(key.to_vec(), [&n.to_be_bytes()[..], &vec![0x11 + (n % 200) as u8; len]].concat());
    let gone = (n * 7 % 150).to_be_bytes();
    if n % 5 == 4 && gone != key {
        model.remove(&gone[..]);
    }
}

fn model_of(batches: u32) -> Model {
    let mut model = Model::new();
    (0..batches).for_each(|n| apply(&mut model, n));
    model
}

fn write(store: &dyn Store, batches: std::ops::Range<u32>) {
    let runtime = runtime();
    for n in batches {
        runtime.block_on(store.commit(batch(n), Level::Process)).unwrap();
    }
}

fn assert_holds(store: &dyn Store, model: &Model, context: &str) {
    // Compared by hand: a difference would print megabytes.
    assert!(all(store, TREE) == *model, "tree differs: {context}");
    assert!(all(store, TWIN) == *model, "twin differs: {context}");
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("redo")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort_unstable();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn quarantines(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("sled.quarantine-")).count()
}

/// Inverts random bits of one random byte in sled's files that was written; says where.
fn flip(sled: &Path, rng: &mut StdRng) -> String {
    let mut files: Vec<_> =
        fs::read_dir(sled).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort_unstable();
    // Mostly the log, now and then the small files beside it.
    let log = sled.join("db");
    let path = if rng.random_range(0..8) == 0 { files[rng.random_range(0..files.len())].clone() } else { log };
    let bytes = fs::read(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = rng.random_range(0..written);
    let mask = rng.random_range(1..=255_u8);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at] ^ mask], at as u64).unwrap();
    format!("{} byte {at} ^ {mask:#x}", path.file_name().unwrap().display())
}

#[test]
fn flipped_bytes_in_sled_at_rest_lose_nothing() {
    const ROUNDS: usize = 250;
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template");
    let store = open(&template);
    write(&*store, 0..40);
    runtime().block_on(store.checkpoint()).unwrap();
    write(&*store, 40..90);
    runtime().block_on(store.checkpoint()).unwrap();
    write(&*store, 90..120);
    drop(store);
    let model = model_of(120);
    let mut rng = StdRng::seed_from_u64(0x51ed);
    let mut rebuilt = 0;
    for round in 0..ROUNDS {
        let victim = dir.path().join("victim");
        copy(&template, &victim);
        let places = [flip(&victim.join("sled"), &mut rng), flip(&victim.join("sled"), &mut rng)];
        let store = open(&victim);
        assert_holds(&*store, &model, &format!("round {round}: {places:?}"));
        let stats = store.stats();
        assert_eq!(stats.index, "sled");
        rebuilt += stats.rebuilds;
        assert_eq!(quarantines(&victim) as u64, stats.rebuilds);
        drop(store);
        fs::remove_dir_all(&victim).unwrap();
    }
    // Many flips hit replaced values that sled never reads again; these need no rebuild.
    eprintln!("500 flips in {ROUNDS} stores: {rebuilt} rebuilds");
    assert!(rebuilt >= 20, "only {rebuilt} stores noticed: the test hits nothing");
}

#[test]
fn flipped_bytes_in_sled_while_it_runs_lose_nothing() {
    // sled keeps a page of each 256th of all pages in memory whatever its cache's size, so there must be many.
    const KEYS: u32 = 6000;
    const TURNS: u32 = 8;
    let mut rng = StdRng::seed_from_u64(0x11fe);
    let runtime = runtime();
    let (mut rebuilt, mut in_memory) = (0, 0);
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { cache: Size::from_kib(256), segment: Size::from_mib(4), ..small() };
        let store = DiskStore::open(dir.path(), &config).unwrap();
        let mut model = Model::new();
        let write = |model: &mut Model, keys: std::ops::Range<u32>, turn: u32| {
            let mut batch = Batch::new();
            for key in keys.map(u32::to_be_bytes) {
                let value = vec![turn as u8 + 1; 2500];
                model.insert(key.to_vec(), value.clone());
                batch = batch.put(TREE, key, value);
            }
            runtime.block_on(store.commit(batch, Level::Process)).unwrap();
        };
        (0..KEYS / 60).for_each(|part| write(&mut model, part * 60..part * 60 + 60, 0));
        // Until then much of it is on the heap.
        runtime.block_on(store.checkpoint()).unwrap();
        for turn in 1..=TURNS {
            if store.stats().index == "sled" {
                (0..10).for_each(|_| drop(flip(&dir.path().join("sled"), &mut rng)));
            }
            write(&mut model, turn * 700..turn * 700 + 10, turn);
            for (key, value) in model.iter().chain(&model) {
                assert!(store.get(TREE, key).unwrap().unwrap() == *value, "round {round} turn {turn}");
            }
        }
        assert!(all(&store, TREE) == model, "round {round}");
        rebuilt += store.stats().rebuilds;
        in_memory += u32::from(store.stats().index == "memory");
        drop(store);
        assert!(all(&*open(dir.path()), TREE) == model, "round {round} reopened");
    }
    eprintln!("{rebuilt} rebuilds at run time, {in_memory} of 4 stores ended in memory");
    assert!(rebuilt > 3, "only {rebuilt} flips were noticed: the test hits nothing");
}

/// Ends of the records of a segment.
fn record_ends(segment: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while let Some(header) = segment.get(at..at + 16) {
        let len = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        if len == 0 {
            break;
        }
        at += 16 + len;
        ends.push(at);
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cut_newest_segment_gives_exactly_the_batches_before_the_cut(
        batches in 1_u32..80, cut in 0.0..1.0_f64, keep_sled in any::<bool>(), early in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = small();
        config.segment = Size::from_kib(8);
        let store = DiskStore::open(dir.path(), &config).unwrap();
        if early {
            write(&store, 0..batches / 2);
            runtime().block_on(store.checkpoint()).unwrap();
        }
        write(&store, if early { batches / 2 } else { 0 }..batches);
        drop(store);
        let newest = segments(dir.path()).pop().unwrap();
        let bytes = fs::read(&newest).unwrap();
        let first = u32::from_str_radix(newest.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let ends = record_ends(&bytes);
        let cut = (cut * (*ends.last().unwrap() + 50) as f64) as usize;
        let whole = u32::try_from(ends.iter().filter(|end| **end <= cut).count()).unwrap() - 1;
        let last = first - 1 + whole;
        // A checkpoint's redo is on the disk before the checkpoint has a name: no crash cuts that.
        prop_assume!(!early || last >= batches / 2);
        fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(cut as u64).unwrap();
        if !keep_sled {
            fs::remove_dir_all(dir.path().join("sled")).unwrap();
        }
        let store = DiskStore::open(dir.path(), &config).unwrap();
        assert_holds(&store, &model_of(last), "after the cut");
        prop_assert_eq!(store.stats().last.0, u64::from(last));
        // It goes on from there as if nothing else had ever been.
        write(&store, last..last + 20);
        drop(store);
        assert_holds(&DiskStore::open(dir.path(), &config).unwrap(), &model_of(last + 20), "after going on");
    }
}

#[test]
fn damage_in_the_middle_of_redo_stops_the_start_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&*store, 0..300);
    drop(store);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let victim = &segments(dir.path())[0];
    let mut bytes = fs::read(victim).unwrap();
    let at = record_ends(&bytes)[3];
    bytes[at + 30] ^= 4;
    fs::write(victim, bytes).unwrap();
    match DiskStore::open(dir.path(), &small()).map(drop) {
        Err(StoreError::BadRecord { file, offset, .. }) => assert_eq!((&file, offset), (victim, at as u64)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lost_redo_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&*store, 0..300);
    drop(store);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(matches!(DiskStore::open(dir.path(), &small()).map(drop), Err(StoreError::Incomplete { .. })));
}

#[test]
fn damaged_newest_checkpoint_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for part in 0..3 {
        write(&*store, part * 100..part * 100 + 100);
        runtime().block_on(store.checkpoint()).unwrap();
    }
    write(&*store, 300..310);
    drop(store);
    let mut checkpoints: Vec<_> =
        fs::read_dir(dir.path().join("ckpt")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort_unstable();
    assert_eq!(checkpoints.len(), 2);
    assert!(segments(dir.path())[0].file_stem().unwrap() > "0000000000000001", "no redo was deleted");
    let newest = &checkpoints[1];
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(newest, bytes).unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().rebuilds, 1);
    assert_holds(&*store, &model_of(310), "from the older checkpoint");
}

#[test]
fn start_that_never_ended_costs_one_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&*store, 0..50);
    drop(store);
    // What is there when sled aborts the process, or hangs until somebody kills it.
    fs::write(dir.path().join("sled.opening"), []).unwrap();
    for rebuilds in [1, 0] {
        let store = open(dir.path());
        assert_eq!(store.stats().rebuilds, rebuilds);
        assert_holds(&*store, &model_of(50), "after an unfinished start");
    }
    assert_eq!(quarantines(dir.path()), 1);
}

#[test]
fn second_opener_learns_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = DiskStore::open(dir.path(), &small()).map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("data directory in use by pid {}", std::process::id()));
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn idle_store_does_not_touch_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(batch(0), Level::Disk).await.unwrap();
    let before = store.stats();
    assert_eq!(before.syncs, 1);
    // Nothing new: neither a read nor an empty batch causes a write.
    store.get(TREE, b"x").unwrap();
    store.commit(Batch::new(), Level::Disk).await.unwrap();
    assert_eq!(store.stats(), before);
}

#[tokio::test]
async fn commits_after_closing_fail() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(dir.path());
    let late = store.commit(batch(0), Level::Disk);
    drop(store);
    assert!(matches!(late.await, Err(StoreError::Closed)));
    assert!(all(&*open(dir.path()), TREE).is_empty());
}
