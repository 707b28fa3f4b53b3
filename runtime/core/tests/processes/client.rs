//! Asks nodes things over their ports.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::node::Ask;

/// A connection to one node.
pub(crate) struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Self::of(tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(addr)).await??)
    }

    pub(crate) fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: BufReader::new(read), write })
    }

    /// The answer of the node, or why the connection is of no use any more.
    pub(crate) async fn ask(&mut self, ask: &Ask, limit: Duration) -> io::Result<Value> {
        let asking = async {
            self.write.write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes()).await?;
            let mut line = String::new();
            if self.read.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(serde_json::from_str(&line)?)
        };
        tokio::time::timeout(limit, asking).await?
    }
}
