//! OpenSSL's own server and client: a file over TLS 1.3, as fast as its tools send it.
//!
//! Of the ways they have this is the fastest: 256 MiB took 0.75 s, and 1.2 s piped into `s_client`. The client takes 8 KiB at
//! a time, which bounds both.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use aivillage_runtime::config::Size;
use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Noise, Took};
use crate::cli::bench::nodes::free_port;

/// The server listens within this time.
const READY: Duration = Duration::from_secs(30);
const FILE: &str = "noise";

/// A running server with a file.
pub(super) struct Server {
    dir: PathBuf,
    size: Size,
    addr: SocketAddr,
    _child: Child,
}

impl Server {
    /// Makes a file and a key, and serves the file; `None` when OpenSSL is not installed.
    pub(super) async fn start(dir: &Path, size: Size) -> anyhow::Result<Option<Self>> {
        let probe = Command::new("openssl").arg("version").output().await;
        if !probe.is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        let dir = dir.join("openssl");
        std::fs::create_dir(&dir)?;
        let file = dir.join(FILE);
        tokio::task::spawn_blocking(move || std::io::copy(&mut Noise::new(size), &mut File::create(file)?)).await??;
        let mut key =
            openssl(&dir, &["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=bench", "-days", "1"]);
        let made = key.args(["-keyout", "key.pem", "-out", "cert.pem"]).output().await?;
        ensure!(made.status.success(), "openssl req: {}", String::from_utf8_lossy(&made.stderr));
        let addr = free_port()?;
        let mut server =
            openssl(&dir, &["s_server", "-quiet", "-tls1_3", "-HTTP", "-cert", "cert.pem", "-key", "key.pem"]);
        server.args(["-accept", &addr.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = server.spawn()?;
        let begun = Instant::now();
        // To the server a stream that closes at once is a handshake that failed, and it takes the next.
        while TcpStream::connect(addr).await.is_err() {
            ensure!(begun.elapsed() < READY, "openssl s_server does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(Self { dir, size, addr, _child: child }))
    }

    /// The stream alone.
    pub(super) async fn stream(&self) -> anyhow::Result<Took> {
        let begun = Instant::now();
        self.fetch(Stdio::null()).await?;
        Ok(Took(begun.elapsed().as_secs_f64()))
    }

    /// Into a file, until that is on the disk.
    pub(super) async fn file(&self) -> anyhow::Result<Took> {
        let path = self.dir.join("fetched");
        let file = File::create(&path)?;
        let begun = Instant::now();
        self.fetch(file.try_clone()?.into()).await?;
        let len = tokio::task::spawn_blocking(move || {
            file.sync_all()?;
            file.metadata().map(|metadata| metadata.len())
        });
        let len = len.await??;
        let took = Took(begun.elapsed().as_secs_f64());
        std::fs::remove_file(path)?;
        ensure!(len == self.size.bytes(), "openssl brought {len} bytes of {}", self.size.bytes());
        Ok(took)
    }

    async fn fetch(&self, to: Stdio) -> anyhow::Result<()> {
        let mut client = openssl(&self.dir, &["s_client", "-quiet", "-tls1_3", "-connect", &self.addr.to_string()]);
        let mut client = client.stdin(Stdio::piped()).stdout(to).stderr(Stdio::null()).spawn()?;
        let mut ask = client.stdin.take().context("no input")?;
        ask.write_all(format!("GET /{FILE} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        // The server closes the stream after the file; that is no failure, whatever the client makes of it.
        client.wait().await?;
        Ok(())
    }
}

fn openssl(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(dir).kill_on_drop(true);
    command
}
