//! Clusters for the benches: each node a process of this program, and the bench itself a member that hosts nothing.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aivillage_runtime::{Cluster, ClusterStatus, NodeId, Village};
use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A cluster takes at most this long until every group has its voters and its share of leaders.
const SETTLED: Duration = Duration::from_mins(2);

/// The processes, and this one among them.
pub(super) struct Nodes {
    /// The bench's own node, from which all is asked.
    pub(super) village: Village,
    all: Vec<Node>,
    _dir: TempDir,
}

struct Node {
    id: NodeId,
    process: Process,
    restart: Restart,
}

/// Killed when dropped. It ends with this process, too, however that ends: its standard input is a pipe from here.
struct Process(Child);

impl Process {
    fn pid(&self) -> Option<Pid> {
        self.0.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(pid) = self.pid() else { return };
        if self.0.start_kill().is_ok() {
            // Its files can be removed only when it has ended, which takes a killed process no time. The runtime reaps it.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }
    }
}

/// How a node is started, so that it can be again.
struct Restart {
    data: PathBuf,
    listen: SocketAddr,
    battery: bool,
}

impl Nodes {
    /// Starts `voters` nodes that keep state, and `helpers` that only host what has none. `dir` is on the disk that counts.
    pub(super) async fn start(dir: &std::path::Path, voters: usize, helpers: usize) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("village-bench-").tempdir_in(dir).context("a folder for the nodes")?;
        let mut all = Vec::new();
        let mut join = None;
        for at in 0..voters + helpers {
            let data = dir.path().join(format!("n{}", at + 1));
            let restart = Restart { data, listen: free_port()?, battery: at >= voters };
            let (process, said) = restart.launch(join.as_deref()).await?;
            let (id, own) = said.split_once(' ').context("a node said nothing of itself")?;
            join.get_or_insert_with(|| own.to_owned());
            all.push(Node { id: id.parse().map_err(|error| anyhow::anyhow!("{error}"))?, process, restart });
        }
        let join = join.context("no node to join")?;
        let (token, seed) = join.split_once('@').context("not TOKEN@ADDR")?;
        let config = format!(
            "node.listen = '127.0.0.1:0'\nnode.name = 'bench'\nnode.labels = {{ battery = 'true' }}\n\
             join.token = '{token}'\njoin.seeds = ['{seed}']"
        );
        let village = Village::builder().config(config.parse()?).clustered().start().await?;
        let nodes = Self { village, all, _dir: dir };
        nodes.settled().await?;
        Ok(nodes)
    }

    pub(super) fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.village.cluster().context("not clustered")
    }

    pub(super) fn status(&self) -> anyhow::Result<ClusterStatus> {
        Ok(self.cluster()?.status())
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.all.iter().map(|node| node.id).collect()
    }

    /// Waits until all nodes are there, every group has all its voters, and leadership is spread.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            if self.is_settled(&status) {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < SETTLED, "the cluster did not settle: {:?}", status.problems);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_settled(&self, status: &ClusterStatus) -> bool {
        let voters = self.all.iter().filter(|node| !node.restart.battery);
        let (ids, count): (Vec<_>, _) = (voters.clone().map(|node| node.id.to_string()).collect(), voters.count());
        let shards = status.groups.len().saturating_sub(1);
        // Who votes in a shard group this node need not know; it is not one of them.
        let full = status.groups.iter().all(|group| group.leader.is_some() && [0, count].contains(&group.voters.len()));
        let spread = status.members.iter().filter(|member| ids.contains(&member.id)).all(|member| {
            let leads = member.leads.iter().filter(|group| **group != 0).count();
            member.linked && leads > 0 && leads <= shards.div_ceil(count.max(1))
        });
        full && spread && status.health == "healthy" && status.members.len() == self.all.len() + 1
    }

    fn node(&mut self, id: NodeId) -> anyhow::Result<&mut Node> {
        self.all.iter_mut().find(|node| node.id == id).context("no such node")
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self, id: NodeId) -> anyhow::Result<()> {
        Ok(self.node(id)?.process.0.kill().await?)
    }

    /// Starts a killed node again, where it was.
    pub(super) async fn relaunch(&mut self, id: NodeId) -> anyhow::Result<()> {
        let node = self.node(id)?;
        node.process = node.restart.launch(None).await?.0;
        Ok(())
    }

    /// Stops a process where it is, so that it falls silent with its connections open; or lets it go on.
    pub(super) fn freeze(&mut self, id: NodeId, frozen: bool) -> anyhow::Result<()> {
        let pid = self.node(id)?.process.pid();
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(pid.context("the node has ended")?, signal)?)
    }
}

impl Restart {
    /// Starts the process; what it says of itself once it takes part.
    async fn launch(&self, join: Option<&str>) -> anyhow::Result<(Process, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "node", "--listen", &self.listen.to_string(), "--join", join.unwrap_or_default()]);
        command.arg("--with-parent").arg("--dir").arg(&self.data);
        if self.battery {
            command.arg("--battery");
        }
        // A group of its own: Ctrl-C on the terminal is for the bench, which then has results to print. And a node that is
        // stopped when the bench dies is woken by the system, because nobody is left who could.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn()?);
        let stdout = process.0.stdout.take().context("no output to read")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        Ok((process, line.context("a node ended at its start")?))
    }
}

pub(super) fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
