//! `village bench commits`: small writes that three nodes on one disk keep, beside etcd on the same disk.
//!
//! Ours is an actor of a `Replicated` kind for each client; one group is one Raft log, as etcd has one in all. Both are asked
//! over loopback by one client process, etcd over gRPC at its leader.

mod etcd;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aivillage_runtime::{Addr, NodeId, Village};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::node::{Note, NoteMsg};
use super::nodes::Nodes;
use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, WARN, paint},
};

/// Bytes of a value.
const VALUE: usize = 64;

/// Arguments of `village bench commits`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village bench commits
  village bench commits --rounds 1 --each 2s

etcd is measured too if it is in the path (Debian: etcd-server).")]
pub(crate) struct Commits {
    /// Runs of each load; the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..100))]
    rounds: u16,
    /// Time of each run.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    each: Duration,
    /// Folder on the disk to measure; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Who writes at once.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    clients: usize,
    /// All in one group.
    one_group: bool,
    /// Least ratio to etcd's commits/s; for one client, most ratio to its p50.
    accept: f64,
}

const LOADS: [Load; 3] = [
    Load { name: "1 client", clients: 1, one_group: true, accept: 1.0 },
    Load { name: "64 clients, one group", clients: 64, one_group: true, accept: 2.0 },
    Load { name: "256 clients, all groups", clients: 256, one_group: false, accept: 2.0 },
];

/// What one run gave.
#[derive(Debug, Clone, Copy, Serialize)]
struct Figures {
    commits_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// By the node that synced most; etcd does not say.
    commits_per_sync: Option<f64>,
}

/// Something that keeps values.
trait Writer: Send + Sync + 'static {
    /// Writes a value; done when it would survive the loss of a node.
    fn write(&self, client: usize, value: String) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// One actor for each client.
struct Ours(Vec<Addr<Note>>);

impl Writer for Ours {
    async fn write(&self, client: usize, value: String) -> anyhow::Result<()> {
        let note = self.0.get(client).context("no such client")?;
        note.ask(|reply| NoteMsg::Keep(value, reply)).await?;
        Ok(())
    }
}

impl Commits {
    /// Measures and prints a table.
    ///
    /// # Errors
    /// When a cluster does not start.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let report = self.measure(as_json).await;
        let report = report.map_err(|error| Failure::new(Exit::Failed, format!("the bench stopped: {error:#}")))?;
        report.print(as_json);
        Ok(())
    }

    async fn measure(&self, quiet: bool) -> anyhow::Result<Report> {
        let mut report = Report { lines: LOADS.map(|load| (load, Vec::new(), Vec::new())), has_etcd: false };
        // One after the other, so that neither pays for the other's beats.
        if let Some(etcd) = etcd::Etcd::start(&self.dir).await? {
            report.has_etcd = true;
            let lent = Village::builder().start().await?;
            let etcd = Arc::new(etcd);
            for (load, _, theirs) in &mut report.lines {
                for _ in 0..self.rounds {
                    theirs.push(self.write(&lent, &etcd, load.clients).await?);
                }
                if !quiet {
                    output::note(paint(DIM, format_args!("etcd: {}", load.name)));
                }
            }
            lent.shutdown().await?;
        }
        let nodes = Nodes::start(&self.dir, 3, 0).await?;
        for (load, ours, _) in &mut report.lines {
            let writer = Arc::new(Ours(actors(&nodes, *load)?));
            for _ in 0..self.rounds {
                let before = syncs(&nodes).await?;
                let figures = self.write(&nodes.village, &writer, load.clients).await?;
                let synced = syncs(&nodes).await?.iter().zip(&before).map(|(after, before)| after - before).max();
                let commits = figures.commits_per_s * self.each.as_secs_f64();
                ours.push(Figures {
                    commits_per_sync: synced.map(|synced| commits / as_f64(synced.max(1))),
                    ..figures
                });
            }
            if !quiet {
                output::note(paint(DIM, format_args!("ours: {}", load.name)));
            }
        }
        nodes.village.shutdown().await?;
        Ok(report)
    }

    async fn write<W: Writer>(&self, village: &Village, writer: &Arc<W>, clients: usize) -> anyhow::Result<Figures> {
        // Warm: connections, actors, leaders.
        futures::future::try_join_all((0..clients).map(|client| writer.write(client, "7".repeat(VALUE)))).await?;
        let end = Instant::now() + self.each;
        let begun = Instant::now();
        let tasks = (0..clients).map(|client| {
            let writer = writer.clone();
            village.task("bench.client", async move {
                let mut times = hdrhistogram::Histogram::<u64>::new(3)?;
                while Instant::now() < end {
                    let begun = Instant::now();
                    writer.write(client, "7".repeat(VALUE)).await?;
                    times.record(u64::try_from(begun.elapsed().as_nanos())?)?;
                }
                anyhow::Ok(times)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut times = hdrhistogram::Histogram::<u64>::new(3)?;
        for task in tasks {
            times.add(task.await??)?;
        }
        let micros = |share| as_f64(times.value_at_quantile(share)) / 1e3;
        Ok(Figures {
            commits_per_s: as_f64(times.len()) / begun.elapsed().as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            commits_per_sync: None,
        })
    }
}

/// Actors for the clients of a load.
fn actors(nodes: &Nodes, load: Load) -> anyhow::Result<Vec<Addr<Note>>> {
    use aivillage_runtime::Kind;
    let cluster = nodes.cluster()?;
    let keys = (0..u32::MAX).map(|n| format!("c{n}"));
    let fits = |key: &String| !load.one_group || cluster.group_of(Note::NAME, key) == 1;
    Ok(keys.filter(fits).take(load.clients).map(|key| nodes.village.addr::<Note>(key)).collect())
}

/// How often each node's store has synced.
async fn syncs(nodes: &Nodes) -> anyhow::Result<Vec<u64>> {
    let mut all = Vec::new();
    for id in nodes.ids() {
        all.push(probe(&nodes.village, id).await?.ask(NoteMsg::Syncs).await?);
    }
    Ok(all)
}

/// An actor on a node.
async fn probe(village: &Village, node: NodeId) -> anyhow::Result<Addr<Note>> {
    for n in 0..1000 {
        let note = village.addr::<Note>(format!("probe{n}"));
        if note.ask(NoteMsg::Where).await? == node {
            return Ok(note);
        }
    }
    anyhow::bail!("node {node} leads nothing")
}

struct Report {
    lines: [(Load, Vec<Figures>, Vec<Figures>); 3],
    has_etcd: bool,
}

fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Report {
    fn print(&self, as_json: bool) {
        if as_json {
            return output::json(&self.as_json());
        }
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        let ratio = |ours: Option<f64>, theirs: Option<f64>| {
            ours.zip(theirs).map_or_else(|| "-".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs))
        };
        let rows = self.lines.iter().map(|(load, ours, theirs)| {
            let [rate, their_rate] = [ours, theirs].map(|side| median(side, |figures| figures.commits_per_s));
            let [p50, their_p50] = [ours, theirs].map(|side| median(side, |figures| figures.p50_us));
            let per_sync = median(ours, |figures| figures.commits_per_sync.unwrap_or(f64::NAN));
            let accept = if load.clients == 1 { "p50 <=" } else { "rate >=" };
            vec![
                load.name.to_owned(),
                shown(rate),
                shown(their_rate),
                ratio(rate, their_rate),
                shown(p50),
                shown(their_p50),
                ratio(p50, their_p50),
                per_sync.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}")),
                format!("{accept} {:.0}x", load.accept),
            ]
        });
        let headings = [
            "64 byte values, 3 nodes",
            "#ours/s",
            "#etcd/s",
            "#ratio",
            "#p50 µs",
            "#etcd p50",
            "#ratio",
            "#per fdatasync",
            "accept",
        ];
        output::say(output::table(&headings, rows));
        if !self.has_etcd {
            output::note(paint(WARN, "etcd is missing: install etcd-server to have it beside ours"));
        }
        if cfg!(debug_assertions) {
            output::note(paint(WARN, "unoptimised build: figures mean nothing"));
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let side = |figures: &[Figures]| {
            (!figures.is_empty()).then(|| {
                json!({
                    "commits_per_s": median(figures, |of| of.commits_per_s),
                    "p50_us": median(figures, |of| of.p50_us), "p99_us": median(figures, |of| of.p99_us),
                    "commits_per_fdatasync": median(figures, |of| of.commits_per_sync.unwrap_or(f64::NAN)),
                })
            })
        };
        let line = |(load, ours, theirs): &(Load, Vec<Figures>, Vec<Figures>)| json!({ "load": load.name, "clients": load.clients, "ours": side(ours), "etcd": side(theirs) });
        json!({ "loads": self.lines.iter().map(line).collect::<Vec<_>>(), "optimised": !cfg!(debug_assertions) })
    }
}
