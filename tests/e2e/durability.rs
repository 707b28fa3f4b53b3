//! `kill -9` at random moments: what was acknowledged is there afterwards.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use aivillage_tests::Node;

use crate::place;

/// Times the village is killed; each round goes on with the data of the one before.
const ROUNDS: u32 = 6;
const WRITERS: usize = 8;

fn document(id: &str) -> String {
    format!("Report {id}. The measured value of {id} is exactly {} units.", id.len() * 31)
}

/// Writes documents until the village is gone; returns the ids it acknowledged.
async fn write(node: &Node, prefix: &str, acknowledged: &AtomicUsize, reached: &watch::Sender<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0.. {
        let id = format!("{prefix}-{n}");
        let body = json!({ "documents": [{ "id": id, "text": document(&id) }] });
        match node.post("/v1/memory/documents", &body).await {
            Ok(report) if report.pointer("/results/0/status") == Some(&json!("created")) => ids.push(id),
            Ok(report) => panic!("a fresh document was not created: {report}"),
            Err(_) => break,
        }
        let _ = reached.send(acknowledged.fetch_add(1, Ordering::Relaxed) + 1);
    }
    ids
}

/// Loads the village and kills it once it has acknowledged so many writes, with others in flight.
async fn kill_under_load(node: Node, round: u32, after: usize) -> Result<Vec<String>> {
    let (reached, mut seen) = watch::channel(0);
    let acknowledged = AtomicUsize::new(0);
    let writers = async {
        let (node, acknowledged, reached) = (&node, &acknowledged, &reached);
        let writers = (0..WRITERS)
            .map(|writer| async move { write(node, &format!("r{round}w{writer}"), acknowledged, reached).await });
        stream::iter(writers).buffer_unordered(WRITERS).concat().await
    };
    let killer = async {
        seen.wait_for(|count| *count >= after).await?;
        node.signal(rustix::process::Signal::KILL)
    };
    let (ids, killed) = tokio::join!(writers, killer);
    killed?;
    node.kill9().await.context("the process is reaped")?;
    Ok(ids)
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() -> Result<()> {
    let seed: u64 = rand::rng().random();
    let mut rng = StdRng::seed_from_u64(seed);
    let place = place()?;
    let mut expected: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let node = place.up().await?;
        assert_all_there(&node, &expected).await.with_context(|| format!("round {round}, seed {seed}"))?;
        expected.extend(kill_under_load(node, round, rng.random_range(10..120)).await?);
    }
    let node = place.up().await?;
    assert_all_there(&node, &expected).await.with_context(|| format!("seed {seed}"))?;
    ensure!(expected.len() >= 10 * ROUNDS as usize, "the load was too small: {}", expected.len());
    Ok(())
}

async fn assert_all_there(node: &Node, ids: &[String]) -> Result<()> {
    for id in ids {
        let view = node.get(&format!("/v1/memory/documents/{id}")).await.with_context(|| format!("{id} is gone"))?;
        let text = view.get("text").and_then(Value::as_str).unwrap_or_default();
        ensure!(text == document(id), "{id} has changed: {text:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_survives_kill_9() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    let answer = node.ask("sage", "How long is the canal?").await?;
    let conversation = answer.get("conversation").and_then(Value::as_str).context("no conversation")?.to_owned();
    node.kill9().await?;
    let node = place.up().await?;
    let history = node.get(&format!("/v1/conversations/{conversation}")).await?.to_string();
    ensure!(history.contains("How long is the canal?") && history.contains("193 kilometres"), "{history}");
    let again = node.ask("sage", "How long is the canal?").await?;
    ensure!(again.get("answerable") == Some(&Value::Bool(true)), "the index did not come back: {again}");
    Ok(())
}
