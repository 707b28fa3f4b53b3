//! Benches that start nodes of their own: what they print, and that no node outlives them.

use std::{process::Stdio, time::Duration};

use aivillage_tests::{PATIENCE, Place};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr},
    time::timeout,
};

use crate::place;

/// Four nodes start, settle, and lose one.
const LONG: Duration = PATIENCE.saturating_mul(4);

/// A running `village bench failover`.
struct Bench {
    child: Child,
    /// The nodes have it from the bench: at its end all of them have ended.
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Bench {
    fn start(place: &Place) -> Result<Self> {
        let mut command = place.village();
        // Without a path there is no Erlang to wait for.
        command.args(["bench", "failover", "--runs", "2", "--json"]).env("PATH", "");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("no output")?;
        Ok(Self { child, stderr: BufReader::new(stderr).lines() })
    }

    /// Waits for a line that begins so.
    async fn until(&mut self, begin: &str) -> Result<()> {
        let waiting = async {
            loop {
                let line = self.stderr.next_line().await?.with_context(|| format!("it ended before {begin:?}"))?;
                if line.starts_with(begin) {
                    return Ok(());
                }
            }
        };
        timeout(LONG, waiting).await.with_context(|| format!("not in time: {begin:?}"))?
    }

    fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id().context("it has ended")?)?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_raw(self.pid()?).context("no process")?, signal)?)
    }

    fn nodes(&self) -> Result<Vec<Pid>> {
        let pid = self.pid()?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
    }

    /// Waits until it and all its nodes have ended; what it said last.
    async fn all_gone(&mut self) -> Result<Vec<String>> {
        let reading = async {
            let mut lines = Vec::new();
            while let Some(line) = self.stderr.next_line().await? {
                lines.push(line);
            }
            anyhow::Ok(lines)
        };
        timeout(PATIENCE, reading).await.context("a node outlives the bench")?
    }
}

#[tokio::test]
async fn an_interrupted_bench_prints_what_is_done_and_ends_its_nodes() -> Result<()> {
    let place = place()?;
    let mut bench = Bench::start(&place)?;
    bench.until("run 1 of 2, kill -9, no leaders: ").await?;
    bench.signal(Signal::INT)?;
    let said = bench.all_gone().await?.join("\n");
    ensure!(said.contains("stopped after 1 of 8 faults: by a signal"), "{said}");
    let status = bench.child.wait().await?;
    ensure!(status.code() == Some(1), "{status}");
    let mut printed = String::new();
    bench.child.stdout.take().context("no output")?.read_to_string(&mut printed).await?;
    let report: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
    let runs: Vec<_> = report["faults"].as_array().into_iter().flatten().map(|fault| &fault["runs"]).collect();
    ensure!(runs == [1, 0, 0, 0, 0] && report["faults"][0]["p50_s"].is_f64(), "{report}");
    let left: Vec<_> = std::fs::read_dir(place.path(""))?.filter_map(Result::ok).map(|left| left.path()).collect();
    ensure!(left.is_empty(), "not removed: {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_blob_is_measured_and_a_missing_peer_is_null() -> Result<()> {
    let place = place()?;
    let mut command = place.village();
    command.args(["bench", "blob", "--size", "3MiB", "--rounds", "1", "--json"]).env("PATH", "");
    let output = timeout(LONG, command.stdin(Stdio::null()).output()).await.context("not in time")??;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    ensure!(report["ours_mib_per_s"].is_f64() && report["size_bytes"] == 3 << 20, "{report}");
    ensure!(report["openssl_stream_mib_per_s"].is_null() && report["ratio_to_stream"].is_null(), "{report}");
    ensure!(std::fs::read_dir(place.path(""))?.next().is_none(), "something is left");
    Ok(())
}

#[tokio::test]
async fn nodes_of_a_killed_bench_end_even_if_one_is_stopped() -> Result<()> {
    let place = place()?;
    let mut bench = Bench::start(&place)?;
    bench.until("4 nodes started").await?;
    let nodes = bench.nodes()?;
    ensure!(nodes.len() == 4, "{nodes:?}");
    kill_process(nodes[3], Signal::STOP)?;
    bench.signal(Signal::KILL)?;
    bench.all_gone().await.map(drop)
}
