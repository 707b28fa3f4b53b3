//! Figures of memory: ingest rate, query latency under load, and, with `VILLAGE_DATA=/path`, retrieval quality on public
//! sets. Prints a table and one line of JSON.
//!
//! `VILLAGE_DATA=../shared/data cargo bench -p aivillage-memory`; `DOCUMENTS=1000` makes it small.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

#[path = "memory/corpus.rs"]
mod corpus;
#[path = "memory/quality.rs"]
mod quality;

use std::time::{Duration, Instant};

use aivillage_memory::{Document, Memory, Put, Query, WaitFor, install};
use aivillage_runtime::Village;
use futures::future::join_all;
use serde_json::{Map, Value, json};

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Documents of one request.
const BATCH: usize = 256;
/// Questions asked at the same time.
const CONCURRENT: usize = 16;

/// Rows of the table and of the JSON line.
type Figures = Map<String, Value>;

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let documents = std::env::var("DOCUMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let mut figures = Figures::new();
    runtime.block_on(speed(documents, &mut figures));
    match std::env::var_os("VILLAGE_DATA") {
        Some(data) => runtime.block_on(quality::run(data.as_ref(), &mut figures)),
        None => println!("quality: skipped, VILLAGE_DATA is not set"),
    }
    for (name, value) in &figures {
        println!("{name:<44} {value}");
    }
    println!("{}", Value::Object(figures));
}

/// A village on a data folder of its own.
async fn village() -> (Village, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let village = install(Village::builder()).data_dir(dir.path()).start().await.expect("starts");
    (village, dir)
}

async fn store(memory: &Memory, documents: Vec<Document>) {
    let mut batches = documents.chunks(BATCH).map(<[Document]>::to_vec).peekable();
    while let Some(documents) = batches.next() {
        let wait = if batches.peek().is_some() { WaitFor::Durable } else { WaitFor::Searchable };
        memory.put(Put { documents, wait, ..Put::default() }).await.expect("stored");
    }
}

async fn speed(count: usize, figures: &mut Figures) {
    let (village, _dir) = village().await;
    let memory = Memory::new(&village, "local");
    let corpus = corpus::documents(7, count);
    let bytes: usize = corpus.iter().map(|document| document.text.len()).sum();
    figures.insert("documents".into(), count.into());
    figures.insert("bytes per document".into(), (bytes / count).into());
    let started = Instant::now();
    ingest(&memory, corpus).await;
    let durable = started.elapsed();
    memory
        .put(Put { documents: vec![corpus::probe()], wait: WaitFor::Searchable, ..Put::default() })
        .await
        .expect("stored");
    let searchable = started.elapsed();
    figures.insert("ingest durable, documents/s".into(), rate(count, durable));
    figures.insert("ingest searchable, documents/s".into(), rate(count, searchable));
    let stats = &memory.stats(None).await.expect("stats")[0];
    figures.insert("chunks".into(), stats.chunks.into());
    figures.insert("index bytes".into(), stats.index_bytes.into());
    for concurrent in [1, CONCURRENT] {
        let latencies = ask(&memory, corpus::questions(11, count, 2000), concurrent).await;
        for (name, permille) in [("p50", 500), ("p99", 990), ("max", 1000)] {
            let at = (latencies.len() * permille / 1000).clamp(1, latencies.len()) - 1;
            figures.insert(format!("query {name} ms at {concurrent} concurrent"), millis(latencies[at]));
        }
    }
    answered(&memory, count, figures).await;
    village.shutdown().await.expect("shuts down");
}

/// Two writers, as two connections would.
async fn ingest(memory: &Memory, corpus: Vec<Document>) {
    let halves: Vec<Vec<Document>> = corpus.chunks(corpus.len().div_ceil(2)).map(<[Document]>::to_vec).collect();
    join_all(halves.into_iter().map(|half| async move {
        for documents in half.chunks(BATCH).map(<[Document]>::to_vec) {
            memory.put(Put { documents, ..Put::default() }).await.expect("stored");
        }
    }))
    .await;
}

async fn ask(memory: &Memory, questions: Vec<String>, concurrent: usize) -> Vec<Duration> {
    let share = questions.len().div_ceil(concurrent);
    let askers = questions.chunks(share).map(<[String]>::to_vec).map(|questions| async move {
        let mut latencies = Vec::with_capacity(questions.len());
        for question in questions {
            let started = Instant::now();
            memory.query(Query::new(question)).await.expect("answers");
            latencies.push(started.elapsed());
        }
        latencies
    });
    let mut all: Vec<Duration> = join_all(askers).await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

/// How many questions with and without support are found answerable.
async fn answered(memory: &Memory, count: usize, figures: &mut Figures) {
    for (name, questions) in
        [("supported", corpus::questions(13, count, 200)), ("unsupported", corpus::unsupported(17, 200))]
    {
        let asked = questions.len();
        let mut answered = 0;
        for question in questions {
            answered += usize::from(memory.query(Query::new(question)).await.expect("answers").answerable);
        }
        figures.insert(format!("synthetic {name} questions answered"), json!(format!("{answered}/{asked}")));
    }
}

fn rate(count: usize, time: Duration) -> Value {
    json!((count as f64 / time.as_secs_f64()).round())
}

fn millis(time: Duration) -> Value {
    json!((time.as_secs_f64() * 100_000.0).round() / 100.0)
}
