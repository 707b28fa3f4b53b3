//! Starts, kills and asks the processes of a cluster.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netlab::Lab;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::node::Ask;

/// Processes on fixed ports of this machine, so that a node comes back where it was.
pub(crate) struct Nodes {
    dir: TempDir,
    all: Vec<Node>,
    join: Option<(String, String)>,
    /// Where others are to be looked for.
    seed: Option<String>,
    lab: Option<Lab>,
}

struct Node {
    child: Option<Child>,
    /// Of the cluster and of the tests.
    ports: [SocketAddr; 2],
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.all {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Nodes {
    /// Starts `count` nodes that are one cluster, and waits until each takes part.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_in(None, count).await
    }

    /// Each node in a network namespace of a lab.
    pub(crate) async fn start_in(lab: Option<Lab>, count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Self { dir, all: Vec::new(), join: None, seed: None, lab };
        for at in 0..count {
            let ports = match &nodes.lab {
                Some(lab) => [4100, 4200].map(|port| SocketAddr::from((lab.addr(at), port))),
                None => [free_port(), free_port()],
            };
            nodes.all.push(Node { child: None, ports });
            nodes.launch(at);
            if at == 0 {
                nodes.ready(0).await;
                let token = nodes.ask(0, &Ask::Token).await.unwrap();
                let text = |n: usize| token["ok"][n].as_str().unwrap().to_owned();
                nodes.join = Some((text(0), text(1)));
            }
        }
        for at in 0..count {
            nodes.ready(at).await;
        }
        nodes
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn lab(&self) -> &Lab {
        self.lab.as_ref().unwrap()
    }

    /// A connection to a node, from its own place in the network.
    pub(crate) async fn connect(&self, at: usize) -> std::io::Result<Client> {
        let addr = self.addr(at);
        let Some(lab) = &self.lab else { return Client::connect(addr).await };
        let stream = lab.run_in(at, || std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(500)))?;
        stream.set_nonblocking(true)?;
        Client::of(tokio::net::TcpStream::from_std(stream)?)
    }

    pub(crate) fn addr(&self, at: usize) -> SocketAddr {
        self.all[at].ports[1]
    }

    /// Starts a node's process and waits until it listens.
    pub(crate) fn launch(&mut self, at: usize) {
        let mut config = format!("node.listen = '{}'\nnode.name = 'n{at}'\n", self.all[at].ports[0]);
        if let Some(seed) = &self.seed {
            config.push_str(&format!("join.seeds = ['{seed}']\n"));
        } else if let (Some((token, seed)), true) = (&self.join, at > 0) {
            config.push_str(&format!("join.token = '{token}'\njoin.seeds = ['{seed}']\n"));
        }
        let data = self.dir.path().join(format!("n{at}"));
        let spec = json!({ "name": format!("n{at}"), "config": config, "data": data, "port": self.all[at].ports[1].to_string() });
        let program = std::env::current_exe().unwrap();
        let mut command = match &self.lab {
            Some(lab) => lab.command(at, program),
            None => Command::new(program),
        };
        command.args(["--exact", "node_process", "--nocapture"]).env("VILLAGE_TEST_NODE", spec.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = lines.any(|line| line.is_ok_and(|line| line.starts_with("LISTENING")));
        assert!(listens, "node {at} ended at its start");
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.all[at].child = Some(child);
    }

    /// Gives a node that is not running other ports.
    pub(crate) fn relocate(&mut self, at: usize) {
        assert!(!self.is_running(at));
        self.all[at].ports = [free_port(), free_port()];
    }

    /// From now on nodes start with the address of this one as their only seed, and none of them has a token.
    pub(crate) fn seed(&mut self, at: usize) {
        self.seed = Some(self.all[at].ports[0].to_string());
    }

    pub(crate) fn is_running(&self, at: usize) -> bool {
        self.all[at].child.is_some()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.all[at].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a process without ending it, or lets it go on.
    pub(crate) fn signal(&self, at: usize, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.all[at].child.as_ref().unwrap().id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Most bytes of memory that a node's process ever had at once.
    pub(crate) fn most_resident(&self, at: usize) -> u64 {
        let pid = self.all[at].child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Ends a node in good order; true when it says that nothing went wrong.
    pub(crate) async fn stop(&mut self, at: usize) -> bool {
        let mut client = self.connect(at).await.unwrap();
        let _ = client.ask(&Ask::Stop, Duration::from_secs(40)).await;
        let mut child = self.all[at].child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap().success()).await.unwrap()
    }

    pub(crate) async fn ask(&self, at: usize, ask: &Ask) -> std::io::Result<Value> {
        self.connect(at).await?.ask(ask, Duration::from_secs(20)).await
    }

    pub(crate) async fn status(&self, at: usize) -> Option<Value> {
        self.ask(at, &Ask::Status).await.ok()
    }

    pub(crate) async fn ready(&self, at: usize) {
        self.until(at, "ready", |status| status["ready"] == true).await;
    }

    /// Waits until a node sees the cluster so.
    pub(crate) async fn until(&self, at: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        let mut last = Value::Null;
        while begun.elapsed() < Duration::from_mins(1) {
            if let Some(status) = self.status(at).await {
                if wanted(&status) {
                    return begun.elapsed();
                }
                last = status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("node {at} was never {what}: {last:#}");
    }

    /// The node that leads the control group, and the others.
    pub(crate) async fn leader(&self) -> (usize, Vec<usize>) {
        let status = self.status(0).await.unwrap();
        let leads = |at: &usize| Self::id_in(&status, *at) == status["ok"]["leader"].as_str().unwrap();
        let (leader, others): (Vec<_>, Vec<_>) = (0..self.len()).partition(leads);
        (leader[0], others)
    }

    /// The id of a node.
    pub(crate) async fn id(&self, at: usize) -> String {
        Self::id_in(&self.status(at).await.unwrap(), at)
    }

    fn id_in(status: &Value, at: usize) -> String {
        let members = status["ok"]["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["name"] == format!("n{at}")).unwrap();
        member["id"].as_str().unwrap().to_owned()
    }

    /// Waits until all groups have all voters and leadership is spread.
    pub(crate) async fn settled(&self) {
        let voters = self.len().min(3);
        let seen = (0..self.len()).find(|at| self.is_running(*at)).unwrap();
        self.until(seen, "settled", |status| {
            let groups = status["ok"]["groups"].as_array().unwrap();
            let members = status["ok"]["members"].as_array().unwrap();
            let full = groups.iter().all(|group| group["voters"].as_array().unwrap().len() == voters);
            let shards =
                |member: &Value| member["leads"].as_array().unwrap().iter().filter(|group| **group != 0).count();
            full && members.iter().all(|member| shards(member) <= 3) && status["ok"]["health"] == "healthy"
        })
        .await;
    }
}
