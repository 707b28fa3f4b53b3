//! `village bench blob`: how fast a large blob comes from another process of this machine, beside OpenSSL over the same wire.
//!
//! Ours is `Blobs::fetch` between two nodes of a cluster: TLS 1.3, checked against its hash, and durable when it is done.
//! OpenSSL sends a file of the same size over TLS 1.3 and checks nothing: once to nowhere, which is the raw stream, and once
//! into a file that is synced, which is the work that has to be done in any case.

mod openssl;
mod ours;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aivillage_runtime::config::Size;
use clap::{Args, ValueEnum};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::remote::first_line;
use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, WARN, paint},
};

/// Least share of the raw stream's rate.
const ACCEPT: f64 = 0.6;

/// Arguments of `village bench blob`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village bench blob
  village bench blob --size 256MiB --rounds 1 --json

It needs three times the size on the disk. OpenSSL is measured too if `openssl` is in the path (Debian: openssl).")]
pub(crate) struct Blob {
    /// Runs of each side; the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..100))]
    rounds: u32,
    /// Bytes of the blob.
    #[arg(long, value_name = "SIZE", default_value_t = Size(1 << 30))]
    size: Size,
    /// Folder on the disk to use; what is written there is removed again.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
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
    Server,
    Client,
}

/// Seconds that one run took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Took(f64);

impl Blob {
    /// Measures and prints a table.
    ///
    /// # Errors
    /// When a process does not start or the blob does not come.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let played = match self.role {
            Some(Role::Server) => ours::serve(&self.dir, self.size).await,
            Some(Role::Client) => ours::fetch(&self.dir, &self.other).await,
            None => self.compare(as_json).await,
        };
        played.map_err(|error| Failure::new(Exit::Failed, format!("the bench stopped: {error:#}")))
    }

    async fn compare(&self, as_json: bool) -> anyhow::Result<()> {
        let dir = tempfile::Builder::new().prefix("village-bench-").tempdir_in(&self.dir)?;
        let mut report = Report { size: self.size, ours: Vec::new(), stream: Vec::new(), file: Vec::new() };
        let openssl = openssl::Server::start(dir.path(), self.size).await?;
        for round in 0..self.rounds {
            output::note(paint(DIM, format_args!("round {} of {}", round + 1, self.rounds)));
            if let Some(openssl) = &openssl {
                report.stream.push(openssl.stream().await?);
                report.file.push(openssl.file().await?);
            }
            report.ours.push(self.pair(dir.path()).await?);
        }
        report.print(as_json);
        Ok(())
    }

    /// Has one process make the blob and another fetch it.
    async fn pair(&self, dir: &Path) -> anyhow::Result<Took> {
        let dir = tempfile::tempdir_in(dir)?;
        let (mut server, said) = self.start(Role::Server, &dir.path().join("server"), "").await?;
        let client = self.start(Role::Client, &dir.path().join("client"), &said).await;
        // Its files are removed next.
        server.kill().await?;
        let (mut client, took) = client?;
        client.wait().await?;
        Ok(serde_json::from_str(&took)?)
    }

    /// Starts a process and waits for its first line.
    async fn start(&self, role: Role, dir: &Path, other: &str) -> anyhow::Result<(Child, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        command.args(["bench", "blob", "--role", &name, "--other", other, "--size", &self.size.to_string()]);
        command.arg("--dir").arg(dir);
        first_line(command).await
    }
}

/// Bytes that are alike nowhere, made as they are read.
struct Noise {
    block: Vec<u8>,
    /// Bytes still to come.
    left: u64,
    /// Blocks so far.
    count: u64,
    /// What is left of this block.
    at: usize,
}

impl Noise {
    fn new(size: Size) -> Self {
        let mut block = vec![0; 1 << 20];
        rand::rng().fill(&mut block[..]);
        Self { block, left: size.bytes(), count: 0, at: 0 }
    }
}

impl Read for Noise {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            (self.count, self.at) = (self.count + 1, 0);
            self.block[..8].copy_from_slice(&self.count.to_le_bytes());
        }
        let wanted = into.len().min(self.block.len() - self.at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        into[..wanted].copy_from_slice(&self.block[self.at..self.at + wanted]);
        self.at += wanted;
        self.left -= wanted as u64;
        Ok(wanted)
    }
}

struct Report {
    size: Size,
    ours: Vec<Took>,
    /// OpenSSL to nowhere.
    stream: Vec<Took>,
    /// OpenSSL into a file that is synced.
    file: Vec<Took>,
}

impl Report {
    /// MiB a second.
    fn rate(&self, side: &[Took]) -> Option<f64> {
        let mut seconds: Vec<f64> = side.iter().map(|took| took.0).collect();
        seconds.sort_by(f64::total_cmp);
        let mib = u32::try_from(self.size.bytes() >> 10).map_or(f64::INFINITY, f64::from) / 1024.0;
        seconds.get(seconds.len() / 2).map(|seconds| mib / seconds)
    }

    fn rates(&self) -> [Option<f64>; 3] {
        [&self.ours, &self.stream, &self.file].map(|side| self.rate(side))
    }

    fn print(&self, as_json: bool) {
        if as_json {
            return output::json(&self.as_json());
        }
        let [ours, stream, file] = self.rates();
        let shown = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        let ratio = |peer: Option<f64>| {
            ours.zip(peer).map_or_else(|| "-".to_owned(), |(ours, peer)| format!("{:.2}", ours / peer))
        };
        let row = vec![
            format!("a blob of {}", self.size),
            shown(ours),
            shown(stream),
            ratio(stream),
            format!("{ACCEPT:.1}"),
            shown(file),
            ratio(file),
        ];
        let headings =
            ["MiB/s", "#ours, TLS", "#openssl to nowhere", "#ratio", "#accept", "#openssl to disk", "#ratio"];
        output::say(output::table(&headings, [row]));
        if self.stream.is_empty() {
            output::note(paint(WARN, "OpenSSL is missing: install openssl to have it beside ours"));
        }
        if cfg!(debug_assertions) {
            output::note(paint(WARN, "unoptimised build: figures mean nothing"));
        }
        let how =
            "two processes over loopback; ours is checked and on the disk at the end, openssl reads 8 KiB at a time";
        output::say(paint(DIM, format_args!("medians of {} runs, {how}", self.ours.len())));
    }

    fn as_json(&self) -> Value {
        let [ours, stream, file] = self.rates();
        let ratio = |peer: Option<f64>| ours.zip(peer).map(|(ours, peer)| ours / peer);
        json!({
            "size_bytes": self.size.bytes(), "runs": self.ours.len(), "optimised": !cfg!(debug_assertions),
            "ours_mib_per_s": ours,
            "openssl_stream_mib_per_s": stream, "ratio_to_stream": ratio(stream), "accept": ACCEPT,
            "openssl_to_disk_mib_per_s": file, "ratio_to_disk": ratio(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_size_and_no_two_blocks_alike() {
        let mut bytes = Vec::new();
        Noise::new(Size((3 << 20) - 5)).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), (3 << 20) - 5);
        assert_ne!(bytes[..8], bytes[1 << 20..(1 << 20) + 8]);
        assert_ne!(bytes[1 << 20..(1 << 20) + 8], bytes[2 << 20..(2 << 20) + 8]);
    }

    #[test]
    fn the_report_is_of_medians_and_names_what_is_missing() {
        let took = |seconds: &[f64]| seconds.iter().copied().map(Took).collect::<Vec<_>>();
        let mut report =
            Report { size: Size(1 << 30), ours: took(&[2.0, 1.0, 4.0]), stream: took(&[1.0]), file: took(&[2.0]) };
        let json = report.as_json();
        assert_eq!(
            (&json["ours_mib_per_s"], &json["ratio_to_stream"], &json["ratio_to_disk"]),
            (&json!(512.0), &json!(0.5), &json!(1.0))
        );
        (report.stream, report.file) = (Vec::new(), Vec::new());
        assert_eq!(report.as_json()["ratio_to_stream"], Value::Null);
    }
}
