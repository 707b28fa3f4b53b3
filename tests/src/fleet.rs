//! Several nodes of one village, started by one command.

use std::process::ExitStatus;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::{Api, PATIENCE, eventually, node::Process};

/// A running `village up --nodes N`. Killed when dropped, and its nodes end with it.
#[derive(Debug)]
pub struct Fleet {
    /// The nodes in the order of their numbers.
    pub nodes: Vec<Api>,
    process: Process,
}

impl Fleet {
    pub(crate) async fn start(command: Command) -> Result<Self> {
        let mut process = Process::start(command)?;
        let mut nodes = Vec::new();
        loop {
            let said = process.said().await?;
            if said.get("nodes").is_some() {
                nodes.sort_by(|one: &Api, other| one.name.cmp(&other.name));
                return Ok(Self { nodes, process });
            }
            nodes.push(Api::of(&said, &process.directory)?);
        }
    }

    /// The next line that the command prints.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn said(&mut self) -> Result<Value> {
        self.process.said().await
    }

    /// Waits until a node that was killed has been started again; its addresses and its process are others now.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn back(&mut self, number: usize) -> Result<()> {
        let again = Api::of(&self.process.said().await?, &self.process.directory)?;
        let node = self.nodes.get_mut(number).filter(|node| node.id == again.id).context("another node came back")?;
        *node = again;
        Ok(())
    }

    /// Signals the command.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills one node as a power cut would.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill9(&self, number: usize) -> Result<()> {
        let node = self.nodes.get(number).context("no such node")?;
        Ok(kill_process(Pid::from_raw(node.pid).context("no process")?, Signal::KILL)?)
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.ended_within(PATIENCE).await
    }

    /// Waits until no node's process is left.
    ///
    /// # Errors
    /// When one goes on.
    pub async fn all_gone(&self) -> Result<()> {
        let runs = |node: &Api| Pid::from_raw(node.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        eventually("no process left", async || (!self.nodes.iter().any(runs)).then_some(())).await
    }
}
