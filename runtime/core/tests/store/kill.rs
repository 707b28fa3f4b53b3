//! `kill -9` of a process that writes, 200 times: nothing that was acknowledged is missing, nothing is half there.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use aivillage_runtime::Idem;
use aivillage_runtime::config::Size;
use aivillage_runtime::durable::{Durable, Entity};
use aivillage_runtime::store::{Batch, DiskStore, Level, Store, StoreConfig, TreeId};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{runtime, small};

const ROUNDS: u64 = 200;
const WRITERS: u32 = 4;
/// Each writer goes round in this many keys.
const SLOTS: u64 = 16;
const TREE: TreeId = TreeId(60);
const TWIN: TreeId = TreeId(61);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    value: u64,
}

impl Durable for Counter {
    type Event = u64;
    fn apply(&mut self, add: &u64) {
        self.value += add;
    }
}

/// Rotations and checkpoints happen all the time, so kills meet them too.
fn config() -> StoreConfig {
    StoreConfig { segment: Size::from_kib(32), checkpoint_after: Size::from_kib(48), ..small() }
}

fn key(writer: u32, slot: u64) -> Vec<u8> {
    [&writer.to_be_bytes()[..], &slot.to_be_bytes()].concat()
}

fn value(writer: u32, number: u64) -> Vec<u8> {
    // Now and then one that the index cuts into chunks.
    let len = if number % 97 == 96 { 140_000 } else { 50 + (number % 7) as usize * 30 };
    [&number.to_be_bytes()[..], &vec![writer as u8 + 1; len]].concat()
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

/// The process that gets killed. It says on its standard output what was acknowledged.
#[test]
fn child_that_writes() {
    let Ok(dir) = std::env::var("STORE_TEST_KILLED") else { return };
    let store: Arc<dyn Store> = Arc::new(DiskStore::open(Path::new(&dir), &config()).unwrap());
    let writers = (0..WRITERS).map(|writer| write(Arc::clone(&store), writer));
    runtime().block_on(async { futures::join!(join_all(writers), count(Arc::clone(&store))) });
}

async fn write(store: Arc<dyn Store>, writer: u32) {
    let newest =
        (0..SLOTS).filter_map(|slot| store.get(TREE, &key(writer, slot)).unwrap()).map(|value| number(&value)).max();
    for number in newest.map_or(0, |newest| newest + 1).. {
        let (key, value) = (key(writer, number % SLOTS), value(writer, number));
        let level = if writer == 0 { Level::Process } else { Level::Disk };
        store.commit(Batch::new().put(TREE, key.clone(), value.clone()).put(TWIN, key, value), level).await.unwrap();
        say(&format!("w {writer} {number}"));
    }
}

/// Request `n` makes the counter `n`. The last one before the kill is sent again, as its caller would.
async fn count(store: Arc<dyn Store>) {
    let mut counter = Entity::<Counter>::recover(store, "counter", "visits").await.unwrap();
    let idem = |n: u64| Some(Idem::of(&[&n.to_be_bytes()]));
    for n in counter.value.max(1).. {
        let reply = counter.commit_once(idem(n), 1, |counter| counter.value).await.unwrap();
        say(&format!("c {n} {reply}"));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// What the children had acknowledged.
#[derive(Default)]
struct Acknowledged {
    slots: HashMap<(u32, u64), u64>,
    counter: u64,
    lines: u64,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["w", writer, number] => {
                let (writer, number): (u32, u64) = (writer.parse().unwrap(), number.parse().unwrap());
                self.slots.insert((writer, number % SLOTS), number);
            }
            ["c", n, reply] => {
                assert_eq!(n, reply, "a request took effect twice or not at all");
                self.counter = n.parse().unwrap();
            }
            // What the test harness says itself.
            _ => return,
        }
        self.lines += 1;
    }

    fn check(&self, store: &Arc<dyn Store>, round: u64) {
        for ((writer, slot), number_acked) in &self.slots {
            let key = key(*writer, *slot);
            let stored = store.get(TREE, &key).unwrap().expect("an acknowledged key is missing");
            let found = number(&stored);
            assert!(found >= *number_acked, "round {round}: {writer} {slot}: {found} in place of {number_acked}");
            assert_eq!(stored, value(*writer, found), "round {round}: a value is not what was written");
            assert_eq!(store.get(TWIN, &key).unwrap().unwrap(), stored, "round {round}: half a batch");
        }
        let counter = runtime().block_on(Entity::<Counter>::recover(Arc::clone(store), "counter", "visits")).unwrap();
        assert!(
            (self.counter..=self.counter + 1).contains(&counter.value),
            "round {round}: {counter:?}, acknowledged {}",
            self.counter
        );
    }
}

fn start(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kill::child_that_writes", "--nocapture"]).env("STORE_TEST_KILLED", dir);
    child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn killed_writer_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    let mut acknowledged = Acknowledged::default();
    let mut checkpoints = 0;
    for round in 0..ROUNDS {
        let mut child = start(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some are killed while they start: the harness's own line comes before the store is opened.
        let wanted = if round % 10 == 9 { 1 } else { rng.random_range(2..120) };
        for line in lines.by_ref().take(wanted) {
            acknowledged.note(&line.unwrap());
        }
        child.kill().unwrap();
        // What is in the pipe was acknowledged before the kill; a line is one write, so none is torn.
        lines.for_each(|line| acknowledged.note(&line.unwrap()));
        child.wait().unwrap();
        let store: Arc<dyn Store> = Arc::new(DiskStore::open(dir.path(), &config()).unwrap());
        acknowledged.check(&store, round);
        checkpoints = checkpoints.max(std::fs::read_dir(dir.path().join("ckpt")).unwrap().count());
    }
    assert!(acknowledged.lines > ROUNDS * 10, "the children hardly wrote: {}", acknowledged.lines);
    assert!(checkpoints >= 2, "no checkpoint was ever written");
}
