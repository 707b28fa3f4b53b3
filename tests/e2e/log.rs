//! The transparency log: what was done can be shown to somebody who trusts neither the node nor its disk.

use std::fs;

use aivillage_tests::{Node, Place, eventually};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place;

/// A village that has answered a question and refused a stranger; both are in its log.
async fn busy(place: &Place) -> Result<Node> {
    let node = place.up().await?;
    node.put(&[("lovelace", "Ada Lovelace lives at 12 St James's Square.")]).await?;
    let stranger = reqwest::Client::builder().no_proxy().build()?.get(format!("{}/v1/agents", node.url)).send().await?;
    ensure!(stranger.status() == 401, "{stranger:?}");
    Ok(node)
}

async fn stop(mut node: Node) -> Result<()> {
    node.signal(Signal::TERM)?;
    let status = node.ended().await?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

/// The only pending segment of the log.
fn segment(place: &Place) -> Result<std::path::PathBuf> {
    let dir = place.path("village-data/governance/tlog/pending");
    Ok(fs::read_dir(dir)?.next().context("no segment")??.path())
}

#[tokio::test]
async fn what_was_done_and_refused_is_proven_with_the_village_stopped() -> Result<()> {
    let place = place()?;
    let node = busy(&place).await?;
    let tail = place.run(["log", "tail", "--json"]).await?.expect(0)?;
    let entries: Vec<Value> = tail.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let seen: Vec<_> = entries.iter().map(|entry| (&entry["kind"], &entry["action"], &entry["decision"])).collect();
    let (done, refused) = ("POST /v1/memory/documents", "GET /v1/agents");
    let expected = [
        (&json!("edge.request"), &json!(done), &json!("allow")),
        (&json!("auth.deny"), &json!(refused), &json!("deny")),
    ];
    ensure!(seen == expected, "{tail:?}");
    ensure!(!["ovelace", "James", "admin", "127.0.0.1"].iter().any(|name| tail.stdout.contains(name)), "{tail:?}");
    let people = place.run(["log", "tail"]).await?.expect(0)?.stdout;
    ensure!(people.contains("auth.deny  deny  401  GET /v1/agents"), "{people}");
    place.sh("village log prove 1 > 1.tlog-proof && village log key > village.key").await?.expect(0)?;
    let busy = place.run(["log", "audit"]).await?.expect(3)?;
    ensure!(busy.stderr.contains("stop the village"), "{busy:?}");
    stop(node).await?;

    let verified = place.run(["log", "verify", "1.tlog-proof", "--keys", "village.key", "--json"]).await?.expect(0)?;
    ensure!(verified.json()?["entry"] == entries[1], "{verified:?}");
    place.sh(r#"village log verify 1.tlog-proof --key "$(cat village.key)""#).await?.expect(0)?;
    let forged = fs::read_to_string(place.path("1.tlog-proof"))?.replace("index 1", "index 0");
    place.write("forged.tlog-proof", forged)?;
    let ran = place.run(["log", "verify", "forged.tlog-proof", "--keys", "village.key"]).await?.expect(1)?;
    ensure!(ran.stderr.contains("proves nothing"), "{ran:?}");
    place.run(["log", "verify", "1.tlog-proof"]).await?.expect(2)?;
    let audit = place.run(["log", "audit", "--json"]).await?.expect(0)?.json()?;
    ensure!(audit["entries"] == 2 && audit["clean"] == true, "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_is_named_and_the_node_does_not_start() -> Result<()> {
    let place = place()?;
    stop(busy(&place).await?).await?;
    let segment = segment(&place)?;
    let sound = fs::read(&segment)?;
    let mut bytes = sound.clone();
    let middle = bytes.len() / 4;
    *bytes.get_mut(middle).context("an empty segment")? ^= 1;
    fs::write(&segment, bytes)?;

    let audit = place.run(["log", "audit"]).await?.expect(1)?;
    let first = audit.stdout.lines().next().unwrap_or_default();
    ensure!(first.contains("pending/") && first.contains("entry 0"), "{audit:?}");
    let up = place.run(["up", "--listen", "127.0.0.1:0", "--json"]).await?.expect(78)?;
    ensure!(up.stderr.contains("village log audit") && up.stderr.contains("entry 0"), "{up:?}");

    fs::write(&segment, sound)?;
    place.run(["log", "audit"]).await?.expect(0)?;
    let node = place.up().await.context("with the file restored it starts")?;
    node.put(&[("kettle", "The kettle is descaled with vinegar.")]).await?;
    let next = node.get("/v1/log/entries?limit=1").await?;
    ensure!(next["data"][0]["seq"] == 2, "{next}");
    Ok(())
}

#[tokio::test]
async fn kill_9_loses_no_proof_and_forks_nothing() -> Result<()> {
    let place = place()?;
    let node = busy(&place).await?;
    place.sh("village log prove 0 > 0.tlog-proof && village log key > village.key").await?.expect(0)?;
    node.kill9().await?;
    let node = place.up().await?;
    let size = node.get("/v1/log").await?["size"].as_u64().context("no size")?;
    ensure!(size >= 2, "what was signed is there: {size}");
    stop(node).await?;
    place.run(["log", "verify", "0.tlog-proof", "--keys", "village.key"]).await?.expect(0)?;
    place.run(["log", "audit", "--keys", "village.key"]).await?.expect(0)?;
    Ok(())
}

#[tokio::test]
async fn nodes_cosign_each_others_logs_and_a_quorum_of_them_convinces() -> Result<()> {
    let place = place()?;
    let mut fleet = place.up_nodes(3, &[]).await?;
    for node in &fleet.nodes {
        node.until_cluster("healthy", 3).await?;
    }
    let first = fleet.nodes.first().context("no node")?;
    first.put(&[("kettle", "The kettle is descaled with vinegar.")]).await?;
    let cosigned = async || first.get("/v1/log").await.ok().filter(|log| log["cosigned"] == 2);
    let log = eventually("two cosignatures", cosigned).await?;
    ensure!(log["witnesses"].as_array().is_some_and(|keys| keys.len() == 2) && log["forks"] == json!([]), "{log}");
    let url = &first.url;
    let people = place.run(["log", "tail", "--url", url]).await?.expect(0)?;
    ensure!(people.stderr.contains("2 of 2 cosignatures"), "{people:?}");
    place.sh(&format!("village log prove 0 --url {url} > 0.tlog-proof")).await?.expect(0)?;
    place.sh(&format!("village log key --witnesses --url {url} > trusted.keys")).await?.expect(0)?;
    fleet.signal(Signal::TERM)?;
    fleet.ended().await?;

    let verify = ["log", "verify", "0.tlog-proof", "--keys", "trusted.keys", "--quorum"];
    let verified = place.run(verify.into_iter().chain(["2", "--json"])).await?.expect(0)?.json()?;
    ensure!(verified["witnesses"].as_array().is_some_and(|names| names.len() == 2), "{verified}");
    place.run(verify.into_iter().chain(["3"])).await?.expect(1)?;
    Ok(())
}
