//! Two nodes of a cluster, one with a blob that the other wants.

use std::path::Path;
use std::time::{Duration, Instant};

use aivillage_runtime::{Village, blob::BlobRef, config::Size};
use anyhow::Context;

use super::{Noise, Took};
use crate::cli::{bench::until_ended, output};

/// Pause between two looks at whether the node takes part.
const LOOK: Duration = Duration::from_millis(20);

/// Founds a cluster, makes the blob, says how to join and what to fetch, and runs until it is ended.
pub(super) async fn serve(dir: &Path, size: Size) -> anyhow::Result<()> {
    let config = "node.listen = '127.0.0.1:0'".parse()?;
    let village = Village::builder().config(config).data_dir(dir).clustered().start().await?;
    let blob = village.blobs().put_reader(Noise::new(size)).await?;
    let cluster = village.cluster().context("not clustered")?;
    let token = cluster.new_token(1, Duration::from_mins(10), "bench").await?;
    output::say(format_args!("{token}@{} {}", cluster.addr(), serde_json::to_string(&blob)?));
    until_ended().await
}

/// Joins, fetches, says how long that took.
pub(super) async fn fetch(dir: &Path, other: &str) -> anyhow::Result<()> {
    let (join, blob) = other.split_once(' ').context("not what a server says")?;
    let (token, seed) = join.split_once('@').context("not TOKEN@ADDR")?;
    let blob: BlobRef = serde_json::from_str(blob)?;
    let config = format!("node.listen = '127.0.0.1:0'\njoin.token = '{token}'\njoin.seeds = ['{seed}']").parse()?;
    let village = Village::builder().config(config).data_dir(dir).clustered().start().await?;
    while !village.cluster().context("not clustered")?.takes_part() {
        tokio::time::sleep(LOOK).await;
    }
    let begun = Instant::now();
    village.blobs().fetch(&blob).await?;
    output::say(serde_json::to_string(&Took(begun.elapsed().as_secs_f64()))?);
    Ok(())
}
