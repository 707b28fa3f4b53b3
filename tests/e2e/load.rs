//! Many at once: no errors, no closed sockets. How fast is for the benches.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::place;

const CONNECTIONS: usize = 1_000;
const REQUESTS_EACH: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_get_the_roster_without_an_error() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    let host = node.url.trim_start_matches("http://").to_owned();
    let request = format!("GET /v1/agents HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\r\n", node.key);
    let clients = (0..CONNECTIONS).map(|_| async {
        let mut connection = TcpStream::connect(&host).await.context("connect")?;
        for _ in 0..REQUESTS_EACH {
            connection.write_all(request.as_bytes()).await.context("send")?;
            let answer = read_answer(&mut connection).await?;
            ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"id\":\"sage\""), "{answer}");
        }
        Ok(())
    });
    let results: Vec<Result<()>> = stream::iter(clients).buffer_unordered(CONNECTIONS).collect().await;
    ensure!(results.len() == CONNECTIONS);
    results.into_iter().collect()
}

/// One HTTP/1.1 response with a `content-length`.
async fn read_answer(connection: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    loop {
        ensure!(connection.read_buf(&mut bytes).await.context("read")? > 0, "closed without an answer");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
        if body.len() >= length.trim().parse::<usize>()? {
            return Ok(text.into_owned());
        }
    }
}
