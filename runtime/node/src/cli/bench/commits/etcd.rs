//! Three etcd processes, written to over gRPC.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::Writer;
use crate::cli::bench::nodes::free_port;

/// Clients that share a connection.
const SHARED: usize = 16;
/// etcd is up within this time.
const READY: Duration = Duration::from_secs(30);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, Eq, Message)]
struct PutRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

pub(super) struct Etcd {
    leader: String,
    connections: Vec<reqwest::Client>,
    _all: Vec<Child>,
    _dir: TempDir,
}

impl Etcd {
    /// Starts a cluster; `None` when etcd is not installed.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Option<Self>> {
        let probe = Command::new("etcd").arg("--version").output().await;
        if !probe.is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("village-bench-etcd-").tempdir_in(dir)?;
        let mut urls = Vec::new();
        for _ in 0..6 {
            urls.push(format!("http://{}", free_port()?));
        }
        let (clients, peers) = urls.split_at(3);
        let cluster: Vec<_> = peers.iter().enumerate().map(|(at, url)| format!("e{at}={url}")).collect();
        let mut all = Vec::new();
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("e{at}"), "--initial-cluster", &cluster.join(",")]);
            command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
            command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            command
                .args(["--logger", "zap", "--log-level", "error"])
                .arg("--data-dir")
                .arg(dir.path().join(at.to_string()));
            all.push(command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?);
        }
        let leader = leader(clients).await?;
        let connect = |_| reqwest::Client::builder().http2_prior_knowledge().build();
        let connections = (0..256 / SHARED).map(connect).collect::<Result<_, _>>()?;
        Ok(Some(Self { leader, connections, _all: all, _dir: dir }))
    }
}

/// The client address of the leader, once there is one.
async fn leader(clients: &[String]) -> anyhow::Result<String> {
    let (http, begun) = (reqwest::Client::new(), Instant::now());
    loop {
        for client in clients {
            let asked = http.post(format!("{client}/v3/maintenance/status")).json(&json!({})).send().await;
            let Ok(answer) = asked else { continue };
            let status: Value = answer.json().await.unwrap_or_default();
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Ok(client.clone());
            }
        }
        anyhow::ensure!(begun.elapsed() < READY, "etcd has no leader");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Writer for Etcd {
    async fn write(&self, client: usize, value: String) -> anyhow::Result<()> {
        let put = PutRequest { key: format!("c{client}").into_bytes(), value: value.into_bytes() };
        // A gRPC message: not compressed, its length, itself.
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(put.encoded_len())?.to_be_bytes());
        put.encode(&mut frame)?;
        let connection = self.connections.get(client / SHARED).context("no such client")?;
        let call = connection.post(format!("{}/etcdserverpb.KV/Put", self.leader));
        let answer =
            call.header("content-type", "application/grpc").header("te", "trailers").body(frame).send().await?;
        let status = answer.headers().get("grpc-status").cloned();
        let body = answer.error_for_status()?.bytes().await?;
        // An error has no message, and its status in the headers.
        anyhow::ensure!(!body.is_empty() && status.is_none(), "etcd refused: {status:?}");
        Ok(())
    }
}
