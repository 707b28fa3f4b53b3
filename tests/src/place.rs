//! An empty directory in which commands are typed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

use crate::{Fleet, Node, PATIENCE};

/// A temporary directory with `village` on the path and nothing else in it.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    bin: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is no JSON; the error shows both outputs.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {self:?}"))
    }

    /// Itself, if the command ended with this code.
    ///
    /// # Errors
    /// Another code; the error shows both outputs.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "expected exit code {code}: {self:?}");
        Ok(self)
    }
}

impl Place {
    /// An empty place where `village` means `program`.
    ///
    /// # Errors
    /// When the temporary directory cannot be made.
    pub fn new(program: impl AsRef<Path>) -> Result<Self> {
        let (dir, bin) = (TempDir::new()?, TempDir::new()?);
        std::os::unix::fs::symlink(program, bin.path().join("village"))?;
        Ok(Self { dir, bin })
    }

    /// A path in this place.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with its folders.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, content)?;
        Ok(path)
    }

    /// A command that runs here, knows `village` by name and takes its home for this place.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [self.bin.path().to_owned()].into_iter().chain(std::env::split_paths(&path));
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("NO_COLOR", "1");
        for name in ["VILLAGE_DATA", "VILLAGE_URL", "VILLAGE_KEY", "VILLAGE_CONFIG"] {
            command.env_remove(name);
        }
        // Any free port for other nodes: many villages run at once here.
        command.env("VILLAGE__NODE__LISTEN", "127.0.0.1:0");
        command.env("PATH", std::env::join_paths(paths).unwrap_or(path)).kill_on_drop(true);
        command
    }

    /// The village program, not yet given any argument.
    #[must_use]
    pub fn village(&self) -> Command {
        self.command(self.bin.path().join("village"))
    }

    /// Runs `village` with these arguments to its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        let mut command = self.village();
        command.args(args);
        ended(command).await
    }

    /// Types a line into a shell.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn sh(&self, line: &str) -> Result<Ran> {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        ended(command).await
    }

    /// Starts a village here, in `./village-data`, on free ports.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn up(&self) -> Result<Node> {
        self.up_with(&[]).await
    }

    /// Starts a village here with further arguments.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn up_with(&self, args: &[&str]) -> Result<Node> {
        let mut command = self.village();
        command.args(["up", "--json", "--listen", "127.0.0.1:0"]).args(args);
        Node::start(command).await
    }

    /// Starts a node here that joins the village of another place, with further arguments.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn join(&self, address: &str, args: &[&str]) -> Result<Node> {
        let mut command = self.village();
        command.args(["join", address, "--json", "--listen", "127.0.0.1:0"]).args(args);
        Node::start(command).await
    }

    /// Starts so many nodes here, with further arguments.
    ///
    /// # Errors
    /// When they are not ready in time.
    pub async fn up_nodes(&self, count: u16, args: &[&str]) -> Result<Fleet> {
        let mut command = self.village();
        command.args(["up", "--json", "--listen", "127.0.0.1:0", "--nodes", &count.to_string()]).args(args);
        Fleet::start(command).await
    }
}

async fn ended(mut command: Command) -> Result<Ran> {
    let output = timeout(PATIENCE, command.stdin(Stdio::null()).output()).await;
    let output = output.with_context(|| format!("{command:?} did not end in time"))??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) })
}
