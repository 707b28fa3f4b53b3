//! A running village process.

use std::{
    fs,
    ops::Deref,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{Api, PATIENCE};

/// A village that was ready when it was started. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    /// Seconds from start to ready, as the village counted them.
    pub ready_s: f64,
    api: Api,
    process: Process,
}

impl Deref for Node {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Node {
    pub(crate) async fn start(command: Command) -> Result<Self> {
        let mut process = Process::start(command)?;
        let ready = process.said().await?;
        let api = Api::of(&ready, &process.directory)?;
        Ok(Self { ready_s: ready.get("seconds").and_then(Value::as_f64).unwrap_or(f64::NAN), api, process })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub async fn kill9(mut self) -> Result<()> {
        self.process.child.kill().await.context("kill -9")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.ended_within(PATIENCE).await
    }

    /// Waits for its end, at most so long.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.ended_within(limit).await
    }
}

/// A process that prints lines of JSON. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) directory: std::path::PathBuf,
    // Kept open: a village must not meet a closed pipe while a test looks at it.
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no output")?).lines();
        let directory = command.as_std().get_current_dir().context("no directory")?.to_owned();
        Ok(Self { child, directory, stdout })
    }

    /// The next line. The first one is the time to look at what the process says otherwise if there is none.
    pub(crate) async fn said(&mut self) -> Result<Value> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await.context("nothing said in time")??;
        let Some(line) = line else {
            let mut stderr = String::new();
            if let Some(mut pipe) = self.child.stderr.take() {
                timeout(PATIENCE, pipe.read_to_string(&mut stderr)).await??;
            }
            bail!("ended before it was ready: {stderr}");
        };
        drain(&mut self.child);
        serde_json::from_str(&line).with_context(|| format!("no line of JSON: {line}"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait()).await.context("it goes on")??)
    }
}

/// Reads the log so that the pipe never fills.
fn drain(child: &mut Child) {
    let Some(stderr) = child.stderr.take().and_then(|pipe| pipe.into_owned_fd().ok()) else { return };
    let mut pipe = fs::File::from(stderr);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    });
}
