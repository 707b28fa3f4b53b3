//! Figures of the transparency log: durable appends, proofs, verification, audit. Prints a table and one line of JSON.
//!
//! `cargo bench -p aivillage-governance --bench tlog`; `ENTRIES=10000` makes it small, `DIR=/path` chooses the disk. With the
//! Python package `pymerkle` in reach (`PYTHONPATH`), its figures stand beside.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aivillage_governance::tlog::tree::verify_inclusion;
use aivillage_governance::tlog::{
    Ack, AuditKeys, Decision, Disk, Event, Hash, Log, LogHandle, LogKey, LogSigner, Payload, TlogConfig, TrustPolicy,
    audit,
};
use bytes::Bytes;
use futures::future::join_all;
use rand::RngExt as _;
use serde_json::{Map, Value, json};

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of an entry.
const BYTES: usize = 512;
/// Entries that one sync makes safe.
const BATCH: u64 = 256;
/// Time of a measurement.
const EACH: Duration = Duration::from_secs(3);
/// Proofs that are measured.
const PROOFS: usize = 2_000;

/// Rows of the table and of the JSON line.
type Figures = Map<String, Value>;

const PYMERKLE: &str = r"
import json, random, sys, time
from pymerkle import InmemoryTree, verify_inclusion
tree, n = InmemoryTree(), int(sys.argv[1])
start = time.perf_counter()
for i in range(n):
    tree.append_entry(i.to_bytes(8, 'big') + b'x' * 504)
appends = n / (time.perf_counter() - start)
root = tree.get_state()
picks = [random.randrange(n) + 1 for _ in range(200)]
start = time.perf_counter()
proofs = [tree.prove_inclusion(i) for i in picks]
prove = (time.perf_counter() - start) / len(picks)
leaves = [tree.get_leaf(i) for i in picks]
start = time.perf_counter()
for leaf, proof in zip(leaves, proofs):
    verify_inclusion(leaf, root, proof)
verify = (time.perf_counter() - start) / len(picks)
print(json.dumps({'pymerkle entries (in memory)': n, 'pymerkle appends per s (in memory)': round(appends),
    'pymerkle proof us': round(prove * 1e6, 1), 'pymerkle verify us': round(verify * 1e6, 1)}))
";

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let entries: u64 = std::env::var("ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let dir = match std::env::var_os("DIR") {
        Some(dir) => tempfile::tempdir_in(dir).expect("a folder"),
        None => tempfile::tempdir().expect("a folder"),
    };
    let mut figures = Figures::new();
    plain(&dir.path().join("plain"), &mut figures);
    batches(&dir.path().join("batches"), &mut figures);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(callers(&dir.path().join("callers"), &mut figures));
    large(&dir.path().join("large"), entries, &mut figures);
    pymerkle(entries.min(20_000), &mut figures);
    for (name, value) in &figures {
        println!("{name:<52} {value}");
    }
    println!("{}", Value::Object(figures));
}

fn signer() -> LogSigner {
    LogSigner::new("bench", &[1; 32]).expect("a key")
}

fn open(dir: &Path) -> Log {
    Log::open(Disk::open(dir).expect("a folder"), signer(), Vec::new()).expect("a log")
}

fn entries(first: u64, count: u64) -> Vec<Bytes> {
    let entry = |n: u64| Bytes::from([&n.to_be_bytes()[..], &[b'x'; BYTES - 8]].concat());
    (first..first + count).map(entry).collect()
}

/// What the disk can do without a log: one batch written and synced after the other.
fn plain(path: &Path, figures: &mut Figures) {
    let file = File::create(path).expect("a file");
    let batch = vec![0; BYTES * usize::try_from(BATCH).expect("small")];
    let (start, mut at) = (Instant::now(), 0);
    let mut syncs = 0;
    while start.elapsed() < EACH {
        file.write_all_at(&batch, at).and_then(|()| file.sync_data()).expect("written");
        at += batch.len() as u64;
        syncs += 1;
    }
    put(figures, "plain writes of a batch with fdatasync per s", f64::from(syncs) / start.elapsed().as_secs_f64());
}

fn put(figures: &mut Figures, name: &str, value: f64) {
    let digits = if value < 100.0 { 100.0 } else { 1.0 };
    figures.insert(name.to_owned(), json!((value * digits).round() / digits));
}

/// One writer, batch after batch, tiles included.
fn batches(dir: &Path, figures: &mut Figures) {
    let mut log = open(dir);
    let start = Instant::now();
    while start.elapsed() < EACH {
        let batch = entries(log.size(), BATCH);
        log.append(&batch).expect("appended");
    }
    put(figures, "durable appends per s, batches of 256", log.size() as f64 / start.elapsed().as_secs_f64());
}

fn event(n: usize) -> Event {
    let key = LogKey::new(&[7; 32]);
    Event {
        kind: "mod.verdict".to_owned(),
        actor: key.pseudonym("ada"),
        action: "submit".to_owned(),
        object: key.pseudonym("doc"),
        tenant: key.pseudonym("acme"),
        article: Some("A4".to_owned()),
        decision: Decision::Deny,
        case: None,
        payload: Payload::Sealed(format!("{n:0256}")),
    }
}

/// Many callers through the queue, each waiting for the disk; then one alone.
async fn callers(dir: &Path, figures: &mut Figures) {
    let log = LogHandle::start(open(dir), "0000000000000001", TlogConfig::default(), aivillage_runtime::clock::unix_ms);
    let log = log.expect("a thread");
    for callers in [1, 16, 512] {
        let start = Instant::now();
        let one = async || {
            let mut times = Vec::new();
            while start.elapsed() < EACH {
                let asked = Instant::now();
                log.append(event(times.len()), Ack::Durable).await.expect("appended");
                times.push(asked.elapsed());
            }
            times
        };
        let mut times = join_all((0..callers).map(|_| one())).await.concat();
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_unstable();
        put(figures, &format!("durable appends per s, {callers} callers"), rate);
        put(figures, &format!("append p50 ms, {callers} callers"), percentile(&times, 50) * 1e3);
        put(figures, &format!("append p99 ms, {callers} callers"), percentile(&times, 99) * 1e3);
    }
    log.close().await.expect("closed");
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1)).map_or(0.0, Duration::as_secs_f64)
}

/// Proofs and an audit of a large log.
fn large(dir: &Path, count: u64, figures: &mut Figures) {
    let mut log = open(dir);
    while log.size() < count {
        let batch = entries(log.size(), (count - log.size()).min(8_192));
        log.append(&batch).expect("appended");
    }
    let note = log.sign().expect("signed");
    let start = Instant::now();
    drop(log);
    let log = open(dir);
    put(figures, "start of the large log, ms", start.elapsed().as_secs_f64() * 1e3);
    figures.insert("entries of the large log".to_owned(), json!(count));
    let mut rng = rand::rng();
    let picks: Vec<u64> = (0..PROOFS).map(|_| rng.random_range(0..count)).collect();
    let mut proofs = Vec::new();
    let mut times: Vec<_> = picks
        .iter()
        .map(|index| {
            let start = Instant::now();
            proofs.push(log.prove(*index, count).expect("a proof"));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    put(figures, "inclusion proof p50 us", percentile(&times, 50) * 1e6);
    put(figures, "inclusion proof p99 us", percentile(&times, 99) * 1e6);
    let root = log.root();
    let leaves: Vec<_> = picks.iter().map(|index| Hash::leaf(&entries(*index, 1)[0])).collect();
    let start = Instant::now();
    for ((index, leaf), proof) in picks.iter().zip(leaves).zip(&proofs) {
        verify_inclusion(proof, *index, leaf, count, root).expect("it holds");
    }
    put(figures, "verify inclusion us", start.elapsed().as_secs_f64() * 1e6 / PROOFS as f64);
    let policy = TrustPolicy { log: signer().public().clone(), witnesses: Vec::new(), quorum: 0 };
    let file = log.proof(picks[0]).expect("a proof").to_string();
    assert!(file.contains(note.text()));
    let start = Instant::now();
    for _ in 0..PROOFS {
        file.parse::<aivillage_governance::tlog::TlogProof>().expect("a file").verify(None, &policy).expect("it holds");
    }
    put(figures, "read and verify proof file us", start.elapsed().as_secs_f64() * 1e6 / PROOFS as f64);
    drop(log);
    let keys = AuditKeys { log: signer().public().clone(), witnesses: Vec::new() };
    let start = Instant::now();
    let report = audit(&Disk::reading(dir), &keys).expect("read");
    assert!(report.is_clean() && report.entries == count, "{:?}", report.findings);
    put(figures, "audit entries per s", count as f64 / start.elapsed().as_secs_f64());
}

/// The same of the Python package, which keeps its tree in memory.
fn pymerkle(count: u64, figures: &mut Figures) {
    let run = Command::new("python3").args(["-c", PYMERKLE, &count.to_string()]).output();
    let rows = run.ok().and_then(|out| serde_json::from_slice::<Figures>(&out.stdout).ok());
    match rows {
        Some(rows) => figures.extend(rows),
        None => drop(figures.insert("pymerkle".to_owned(), json!("missing"))),
    }
}
