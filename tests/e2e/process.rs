//! The process: signals, exit codes, what it says when it cannot start.

use std::time::Duration;

use aivillage_tests::Node;
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::place;

#[tokio::test]
async fn ctrl_c_and_sigterm_drain_and_exit_0() -> Result<()> {
    let place = place()?;
    for signal in [Signal::INT, Signal::TERM] {
        let mut node = place.up().await?;
        ensure!(place.path("village-data/edge.addr").exists());
        node.signal(signal)?;
        let status = node.ended().await?;
        ensure!(status.code() == Some(0), "{signal:?}: {status}");
        ensure!(!place.path("village-data/edge.addr").exists(), "the address stayed behind");
    }
    Ok(())
}

/// A request whose body is still on its way: it keeps a draining village waiting.
async fn half_a_request(node: &Node) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(node.url.trim_start_matches("http://")).await?;
    let body = json!({ "documents": [{ "id": "late", "text": "The last word arrives late." }] }).to_string();
    let (head, tail) = (
        format!(
            "POST /v1/memory/documents HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            node.key,
            body.len()
        ),
        body,
    );
    stream.write_all(head.as_bytes()).await?;
    // "100 Continue" says that the request is in its handler.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(tail.get(..10).context("short")?.as_bytes()).await?;
    Ok(stream)
}

/// Waits until the village says that it is going down.
async fn until_draining(node: &Node) -> Result<()> {
    let url = format!("{}/readyz", node.admin_url);
    loop {
        let status = reqwest::get(&url).await?.status();
        if status.as_u16() == 503 {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_while_draining() -> Result<()> {
    let place = place()?;
    let mut node = place.up().await?;
    let mut stream = half_a_request(&node).await?;
    node.signal(Signal::TERM)?;
    tokio::time::timeout(aivillage_tests::PATIENCE, until_draining(&node)).await??;
    let body = json!({ "documents": [{ "id": "late", "text": "The last word arrives late." }] }).to_string();
    stream.write_all(body.get(10..).context("short")?.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("created"), "{answer}");
    ensure!(node.ended().await?.code() == Some(0));
    let node = place.up().await?;
    node.get("/v1/memory/documents/late").await.context("what was acknowledged while draining is kept")?;
    Ok(())
}

#[tokio::test]
async fn a_second_signal_stops_at_once_with_1() -> Result<()> {
    let place = place()?;
    let mut node = place.up().await?;
    let _stream = half_a_request(&node).await?;
    node.signal(Signal::TERM)?;
    tokio::time::timeout(aivillage_tests::PATIENCE, until_draining(&node)).await??;
    node.signal(Signal::TERM)?;
    let status = node.ended_within(Duration::from_secs(8)).await?;
    ensure!(status.code() == Some(1), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_second_village_in_the_same_directory_is_refused_and_harms_nothing() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    let ran = place.run(["up", "--listen", "127.0.0.1:0"]).await?.expect(3)?;
    ensure!(ran.stderr.contains("in use") && ran.stderr.contains("--data"), "{ran:?}");
    node.get("/v1/agents").await?;
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_the_way_out() -> Result<()> {
    let (place, other) = (place()?, place()?);
    let node = place.up().await?;
    let taken = node.url.trim_start_matches("http://").to_owned();
    let ran = other.run(["up", "--listen", &taken, "--set", "edge.admin_listen=127.0.0.1:0"]).await?.expect(3)?;
    ensure!(ran.stderr.contains(&taken) && ran.stderr.contains("--listen 127.0.0.1:0"), "{ran:?}");
    other.up().await.context("the data directory is free again")?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_named_with_line_and_nearest() -> Result<()> {
    let place = place()?;
    place.write("cluster.toml", "[limits]\nmailbx = 10\n")?;
    for command in [vec!["up"], vec!["config", "check"]] {
        let ran = place.run(&command).await?.expect(2)?;
        ensure!(ran.stderr.contains("cluster.toml:2") && ran.stderr.contains("did you mean `mailbox`"), "{ran:?}");
    }
    let ran = place.run(["up", "--config", "absent.toml"]).await?.expect(2)?;
    ensure!(ran.stderr.contains("absent.toml"), "{ran:?}");
    let ran = place.run(["up", "--set", "edge.listn=127.0.0.1:0", "--config", "/dev/null"]).await?.expect(2)?;
    ensure!(ran.stderr.contains("listen"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() -> Result<()> {
    let ran = place()?.run(["up", "--listen", "0.0.0.0:0"]).await?.expect(2)?;
    ensure!(ran.stderr.contains("loopback"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_no_village_is_unavailable() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    place.write("wrong.key", format!("{}x\n", node.key))?;
    let ran = place.run(["agents", "--key-file", "wrong.key"]).await?.expect(3)?;
    ensure!(ran.stderr.contains("--key-file"), "{ran:?}");
    node.kill9().await?;
    let ran = place.run(["agents"]).await?.expect(4)?;
    ensure!(ran.stderr.contains("start one with `village up`"), "{ran:?}");
    let ran = place.run(["agents", "--json"]).await?.expect(4)?;
    ensure!(ran.stderr.contains("\"exit\":4") && ran.stdout.is_empty(), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn wrong_arguments_are_usage_errors() -> Result<()> {
    let place = place()?;
    for line in ["nonsense", "ask", "send a b C {", "memory add /no/such/path", "agents --url ftp://x"] {
        place.run(line.split(' ')).await?.expect(2).context(line)?;
    }
    place.run(["--help"]).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn messages_reach_any_exposed_actor_from_the_command_line() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    let query = json!({ "text": "canal" }).to_string();
    let ran = place.run(["send", "memory.retriever", "local", "Query", &query]).await?.expect(0)?;
    ensure!(ran.stdout.contains("193 kilometres"), "{ran:?}");
    let ran = place.run(["send", "no.such", "x", "Do"]).await?.expect(1)?;
    ensure!(ran.stderr.contains("no.such"), "{ran:?}");
    let ran = place.run(["send", "memory.retriever", "local", "Query", "7"]).await?.expect(1)?;
    ensure!(!ran.stderr.is_empty(), "{ran:?}");
    Ok(())
}
