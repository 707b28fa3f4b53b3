//! `village bench failover`: how long actors are away when a node is lost, and how long writers wait when leaders move.
//!
//! A cluster of four processes: three keep state, one only hosts actors without any. The bench asks as a fifth member, over
//! and over, from the moment of the fault to the first answer. A stopped process stands in for a silent partition: its
//! connections stay open and nothing comes.

mod erlang;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aivillage_runtime::{Addr, Idem, NodeId};
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::node::{Note, NoteMsg, Where};
use super::nodes::Nodes;
use super::remote::erlang::is_installed;
use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, WARN, paint},
    serve::StopSignals,
};

/// Nodes that keep state.
const VOTERS: usize = 3;
/// Writers while leaders move.
const WRITERS: usize = 16;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);
/// Nobody waits longer for a first answer.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Arguments of `village bench failover`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village bench failover
  village bench failover --runs 30

A run takes about 25 seconds; Ctrl-C ends the nodes and prints the results of the runs that are done. Erlang's `global` is
measured too if `erl` is in the path (Debian: erlang-base).")]
pub(crate) struct Failover {
    /// Runs of each fault.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    runs: u32,
    /// Folder on the disk to use; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    name: &'static str,
    /// The node leads groups.
    leads: bool,
    /// It falls silent instead of being killed.
    silent: bool,
    /// Longest time asked for.
    accept: Duration,
}

const FAULTS: [Fault; 4] = [
    Fault { name: "kill -9, no leaders", leads: false, silent: false, accept: Duration::from_secs(1) },
    Fault { name: "kill -9, with leaders", leads: true, silent: false, accept: Duration::from_secs(3) },
    Fault { name: "silent, no leaders", leads: false, silent: true, accept: Duration::from_secs(6) },
    Fault { name: "silent, with leaders", leads: true, silent: true, accept: Duration::from_secs(10) },
];
const HAND_OFF: (&str, Duration) = ("leaders handed over, longest wait of a writer", Duration::from_millis(100));

impl Failover {
    /// Measures and prints a table, also of what was done when it had to stop.
    ///
    /// # Errors
    /// When a signal stops it, or the cluster does not start or does not recover.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let mut stop = StopSignals::listen(false)?;
        let mut report = Report::new(self.runs);
        report.stopped = tokio::select! {
            measured = self.measure(&mut report) => measured.err().map(|error| format!("{error:#}")),
            () = stop.first() => Some("by a signal".to_owned()),
        };
        if as_json {
            output::json(&report.as_json());
        } else {
            report.print();
        }
        report.outcome()
    }

    async fn measure(&self, report: &mut Report) -> anyhow::Result<()> {
        if is_installed().await {
            report.erlang = Some(erlang::measure().await?);
        }
        for run in 0..self.runs {
            // A node that was lost several times is let back in with a delay, so each run has nodes without a past.
            let mut nodes = Nodes::start(&self.dir, VOTERS, 1).await?;
            output::note(paint(DIM, format_args!("{} nodes started", nodes.ids().len())));
            for (fault, times) in &mut report.lines {
                let (time, moved) = suffer(&mut nodes, *fault, run as usize).await?;
                times.push(time);
                report.hand_off.extend(moved);
                let seconds = time.as_secs_f64();
                output::note(paint(
                    DIM,
                    format_args!("run {} of {}, {}: {seconds:.3} s", run + 1, self.runs, fault.name),
                ));
            }
            nodes.village.shutdown().await?;
        }
        Ok(())
    }
}

/// One fault: the time to the first answers, and, if leaders were handed back after it, the longest wait of a writer.
async fn suffer(nodes: &mut Nodes, fault: Fault, run: usize) -> anyhow::Result<(Duration, Option<Duration>)> {
    nodes.settled().await?;
    let ids = nodes.ids();
    let victims = if fault.leads { ids.get(..VOTERS) } else { ids.get(VOTERS..) }.context("too few nodes")?;
    let victim = *victims.get(run % victims.len()).context("no node to lose")?;
    let (place, note) = (actor_on(nodes, victim).await?, note_on(nodes, victim, fault.leads).await?);
    if fault.silent {
        nodes.freeze(victim, true)?;
    } else {
        nodes.kill(victim).await?;
    }
    let begun = Instant::now();
    let away = tokio::join!(first_answer(&place, begun), first_note(&note, run, begun));
    let away = away.0?.max(away.1?);
    if fault.silent {
        nodes.freeze(victim, false)?;
        nodes.settled().await?;
        return Ok((away, None));
    }
    nodes.relaunch(victim).await?;
    if !fault.leads {
        return Ok((away, None));
    }
    // It gets its share of the leaders back while others write.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers = (0..WRITERS).map(|writer| {
        let (note, stop) = (nodes.village.addr::<Note>(format!("w{writer}")), stop.clone());
        nodes.village.task("bench.writer", async move { longest_wait(&note, &stop).await })
    });
    let writers: Vec<_> = writers.collect();
    let settled = nodes.settled().await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for writer in writers {
        longest = longest.max(writer.await??);
    }
    settled?;
    Ok((away, Some(longest)))
}

/// Writes one after another until it is told to stop.
async fn longest_wait(note: &Addr<Note>, stop: &std::sync::atomic::AtomicBool) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let begun = Instant::now();
        let call = note.call().idem(Idem(rand::random())).deadline(GIVE_UP);
        call.ask(|reply| NoteMsg::Keep("moving".to_owned(), reply)).await?;
        longest = longest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(longest)
}

/// An actor without state that is on a node. One that has just come back may not act yet, so what fails is tried again later.
async fn actor_on(nodes: &Nodes, node: NodeId) -> anyhow::Result<Addr<Where>> {
    for n in 0..10_000 {
        let actor = nodes.village.addr::<Where>(format!("k{n}"));
        match actor.ask(|reply| reply).await {
            Ok(place) if place == node => return Ok(actor),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    anyhow::bail!("node {node} has no actor")
}

/// An actor whose state is led by a node, or just any.
async fn note_on(nodes: &Nodes, node: NodeId, leads: bool) -> anyhow::Result<Addr<Note>> {
    for n in 0..10_000 {
        let note = nodes.village.addr::<Note>(format!("k{n}"));
        match note.ask(|reply| NoteMsg::Keep("here".to_owned(), reply)).await {
            Ok(place) if place == node || !leads => return Ok(note),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    anyhow::bail!("node {node} leads nothing")
}

async fn first_answer(actor: &Addr<Where>, since: Instant) -> anyhow::Result<Duration> {
    loop {
        let Err(error) = actor.call().deadline(Duration::from_millis(300)).ask(|reply| reply).await else {
            return Ok(since.elapsed());
        };
        anyhow::ensure!(since.elapsed() < GIVE_UP, error);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn first_note(note: &Addr<Note>, run: usize, since: Instant) -> anyhow::Result<Duration> {
    loop {
        let call = note.call().idem(Idem(rand::random())).deadline(Duration::from_millis(300));
        let Err(error) = call.ask(|reply| NoteMsg::Keep(format!("run {run}"), reply)).await else {
            return Ok(since.elapsed());
        };
        anyhow::ensure!(since.elapsed() < GIVE_UP, error);
        tokio::time::sleep(PAUSE).await;
    }
}

struct Report {
    /// Runs of each fault that were asked for.
    runs: u32,
    lines: [(Fault, Vec<Duration>); 4],
    hand_off: Vec<Duration>,
    /// A globally registered Erlang process after the kill of its node.
    erlang: Option<Duration>,
    /// Why it ended before all was done.
    stopped: Option<String>,
}

/// The smallest value that this share of all do not exceed.
fn quantile(times: &[Duration], share: f64) -> Option<f64> {
    let mut sorted: Vec<_> = times.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "few runs")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

impl Report {
    fn new(runs: u32) -> Self {
        let lines = FAULTS.map(|fault| (fault, Vec::new()));
        Self { runs, lines, hand_off: Vec::new(), erlang: None, stopped: None }
    }

    fn outcome(&self) -> Outcome {
        let Some(why) = &self.stopped else { return Ok(()) };
        let done: usize = self.lines.iter().map(|(_, times)| times.len()).sum();
        let all = self.runs as usize * FAULTS.len();
        Err(Failure::new(Exit::Failed, format!("the bench stopped after {done} of {all} faults: {why}")))
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, &[Duration], Duration)> {
        let faults = self.lines.iter().map(|(fault, times)| (fault.name, &times[..], fault.accept));
        faults.chain([(HAND_OFF.0, &self.hand_off[..], HAND_OFF.1)])
    }

    fn print(&self) {
        let shown = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"));
        let rows = self.rows().map(|(name, times, accept)| {
            let erlang = (name == FAULTS[1].name).then(|| self.erlang.map(|time| time.as_secs_f64())).flatten();
            vec![
                name.to_owned(),
                if self.stopped.is_none() {
                    times.len().to_string()
                } else {
                    format!("{} of {}", times.len(), self.runs)
                },
                shown(quantile(times, 0.5)),
                shown(quantile(times, 0.99)),
                shown(Some(accept.as_secs_f64())),
                shown(erlang),
            ]
        });
        let headings = ["fault, s to the first answer", "#runs", "#p50", "#p99", "#accept", "#Erlang global"];
        output::say(output::table(&headings, rows));
        if self.erlang.is_none() {
            output::note(paint(WARN, "Erlang/OTP is missing: install erlang-base to have it beside ours"));
        }
        let silent = "Erlang calls a silent node down after its net_ticktime, 60 s unless it is changed";
        output::say(paint(DIM, format_args!("p99 of fewer than 100 runs is the longest; {silent}")));
        if cfg!(debug_assertions) {
            output::note(paint(WARN, "unoptimised build"));
        }
    }

    fn as_json(&self) -> Value {
        let line = |(name, times, accept): (&str, &[Duration], Duration)| {
            json!({
                "fault": name, "runs": times.len(), "accept_s": accept.as_secs_f64(),
                "p50_s": quantile(times, 0.5), "p99_s": quantile(times, 0.99),
            })
        };
        json!({
            "faults": self.rows().map(line).collect::<Vec<_>>(),
            "runs": self.runs,
            "stopped": self.stopped,
            "erlang_global_kill_s": self.erlang.map(|time| time.as_secs_f64()),
            "optimised": !cfg!(debug_assertions),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_a_value_that_was_seen() {
        let times: Vec<_> = (1..=30).map(Duration::from_secs).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99)), (Some(15.0), Some(30.0)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_bench_that_stopped_says_how_far_it_came() {
        let mut report = Report::new(3);
        for (_, times) in report.lines.iter_mut().take(2) {
            times.push(Duration::from_secs(1));
        }
        assert!(report.outcome().is_ok());
        report.stopped = Some("by a signal".to_owned());
        let failure = report.outcome().unwrap_err();
        assert_eq!(
            (failure.exit, &*failure.message),
            (Exit::Failed, "the bench stopped after 2 of 12 faults: by a signal")
        );
        let json = report.as_json();
        assert_eq!(
            (&json["runs"], &json["stopped"], &json["faults"][1]["runs"]),
            (&json!(3), &json!("by a signal"), &json!(1))
        );
    }
}
