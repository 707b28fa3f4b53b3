//! `village bench remote`: messages of 64 bytes between two processes of this machine, ours beside its peers.
//!
//! Ours is a cluster of two nodes, encrypted. The peers speak plain TCP: raw `ractor_cluster`, and Erlang/OTP if `erl` is
//! installed. Each pair of processes runs alone; both are held on one core, so that what is measured is the software and not
//! how fast an idle core wakes up. `--unpinned` lets them use all cores.

pub(super) mod erlang;
mod measure;
mod ours;
mod raw;

use std::process::Stdio;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, WARN, paint},
};

/// Bytes of a message's body.
pub(super) const BODY: usize = 64;
/// Asks that are in flight at once in the second part.
pub(super) const IN_FLIGHT: usize = 256;

/// Arguments of `village bench remote`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village bench remote
  village bench remote --rounds 1 --unpinned

Erlang is measured too if `erl` is in the path (Debian: erlang-base).")]
pub(crate) struct Remote {
    /// Runs of each side; the medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..100))]
    rounds: u32,
    /// Share of the usual number of messages, in per cent.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..1000))]
    share: u32,
    /// Let the processes use all cores.
    #[arg(long)]
    unpinned: bool,
    /// Be one of the processes that are measured.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// What the other process said about itself.
    #[arg(long, hide = true, default_value = "")]
    other: String,
}

/// A process that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    OursServer,
    OursClient,
    RawServer,
    RawClient,
}

/// What one run gave.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) ask_p50_us: f64,
    pub(super) ask_p99_us: f64,
    /// Asks a second with [`IN_FLIGHT`] at once.
    pub(super) asks_per_s: f64,
    pub(super) tells_per_s: f64,
}

impl Remote {
    /// Measures and prints a table.
    ///
    /// # Errors
    /// When a process does not start or says nothing.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let failed = |error: anyhow::Error| Failure::new(Exit::Failed, format!("the bench stopped: {error:#}"));
        let Some(role) = self.role else { return self.compare(as_json).await.map_err(failed) };
        let played = match role {
            Role::OursServer => ours::serve().await,
            Role::OursClient => ours::measure(&self.other, self.share).await,
            Role::RawServer => raw::serve().await,
            Role::RawClient => raw::measure(&self.other, self.share).await,
        };
        played.map_err(failed)
    }

    async fn compare(&self, as_json: bool) -> anyhow::Result<()> {
        let mut report = Report { ours: Vec::new(), raw: Vec::new(), erlang: Vec::new(), pinned: !self.unpinned };
        let has_erlang = erlang::is_installed().await;
        for round in 0..self.rounds {
            if !as_json {
                output::note(paint(DIM, format_args!("round {} of {}", round + 1, self.rounds)));
            }
            report.ours.push(self.pair(Role::OursServer, Role::OursClient).await?);
            report.raw.push(self.pair(Role::RawServer, Role::RawClient).await?);
            if has_erlang {
                report.erlang.push(erlang::measure(self.share, !self.unpinned).await?);
            }
        }
        report.print(as_json);
        Ok(())
    }

    /// Runs a server and a client and returns what the client measured.
    async fn pair(&self, server: Role, client: Role) -> anyhow::Result<Figures> {
        let (mut server, said) = self.start(server, "").await?;
        let client = self.start(client, &said).await;
        server.kill().await?;
        let (mut client, figures) = client?;
        client.wait().await?;
        Ok(serde_json::from_str(&figures)?)
    }

    /// Starts a process and waits for its first line.
    async fn start(&self, role: Role, other: &str) -> anyhow::Result<(Child, String)> {
        let program = std::env::current_exe()?;
        let name = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut command = pinned(&program.to_string_lossy(), !self.unpinned);
        command.args(["bench", "remote", "--role", &name, "--other", other, "--share", &self.share.to_string()]);
        first_line(command).await
    }
}

/// A command whose process stays on the first core.
pub(super) fn pinned(program: &str, pin: bool) -> Command {
    if !pin {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

/// Starts a command and waits for the first line it prints.
pub(super) async fn first_line(mut command: Command) -> anyhow::Result<(Child, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let Some(stdout) = child.stdout.take() else { anyhow::bail!("no output to read") };
    let line = BufReader::new(stdout).lines().next_line().await?;
    line.map(|line| (child, line)).ok_or_else(|| anyhow::anyhow!("a process ended without a word"))
}

struct Report {
    ours: Vec<Figures>,
    raw: Vec<Figures>,
    erlang: Vec<Figures>,
    pinned: bool,
}

/// One figure of all sides.
struct Line {
    what: &'static str,
    of: fn(&Figures) -> f64,
    /// Ratio to raw `ractor_cluster` and to Erlang that the design asks for; below 1 for times.
    accept: [f64; 2],
}

const LINES: [Line; 4] = [
    Line { what: "ask p50, µs", of: |figures| figures.ask_p50_us, accept: [0.6, 1.0] },
    Line { what: "ask p99, µs", of: |figures| figures.ask_p99_us, accept: [f64::NAN, f64::NAN] },
    Line { what: "asks/s, 256 in flight", of: |figures| figures.asks_per_s, accept: [2.0, 2.0] },
    Line { what: "tells/s", of: |figures| figures.tells_per_s, accept: [4.0, 4.0] },
];

fn median(figures: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") }
}

impl Report {
    fn print(&self, as_json: bool) {
        if as_json {
            return output::json(&self.as_json());
        }
        let rows = LINES.iter().map(|line| {
            let [ours, raw, erlang] = [&self.ours, &self.raw, &self.erlang].map(|side| median(side, line.of));
            let ratio = |peer: f64| if peer.is_nan() { "-".to_owned() } else { format!("{:.2}", ours / peer) };
            let accept =
                line.accept.map(|accept| if accept.is_nan() { "-".to_owned() } else { format!("{accept:.1}") });
            let [accept_raw, accept_erlang] = accept;
            vec![
                line.what.to_owned(),
                shown(ours),
                shown(raw),
                ratio(raw),
                accept_raw,
                shown(erlang),
                ratio(erlang),
                accept_erlang,
            ]
        });
        let headings =
            ["64 bytes", "#ours, TLS", "#raw ractor_cluster", "#ratio", "#accept", "#Erlang/OTP", "#ratio", "#accept"];
        output::say(output::table(&headings, rows));
        if self.erlang.is_empty() {
            output::note(paint(WARN, "Erlang/OTP is missing: install erlang-base to have it beside ours"));
        }
        if cfg!(debug_assertions) {
            output::note(paint(WARN, "unoptimised build: figures mean nothing"));
        }
        let place = if self.pinned { "both processes on one core" } else { "all cores" };
        output::say(paint(DIM, format_args!("medians of {} runs over loopback, {place}", self.ours.len())));
    }

    fn as_json(&self) -> Value {
        let side = |figures: &[Figures]| {
            let medians: serde_json::Map<_, _> =
                LINES.iter().map(|line| (line.what.to_owned(), json!(median(figures, line.of)))).collect();
            if figures.is_empty() { Value::Null } else { Value::Object(medians) }
        };
        json!({
            "pinned": self.pinned, "runs": self.ours.len(), "optimised": !cfg!(debug_assertions),
            "ours": side(&self.ours), "raw_ractor_cluster": side(&self.raw), "erlang": side(&self.erlang),
        })
    }
}
