//! Many at once: no errors, and no answer that keeps people waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt as _, stream};

use crate::place;

const CONNECTIONS: usize = 1_000;
const REQUESTS_EACH: usize = 5;
/// Unoptimised build on a shared machine; the figure that is promised comes from an optimised one.
const SLOWEST: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_get_the_roster_without_an_error() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    let (url, key) = (format!("{}/v1/agents", node.url), node.key.clone());
    let clients = (0..CONNECTIONS).map(|_| {
        let (url, key) = (url.clone(), key.clone());
        async move {
            // A client of its own has a connection of its own, kept for all its requests.
            let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).build()?;
            let mut times = Vec::with_capacity(REQUESTS_EACH);
            for _ in 0..REQUESTS_EACH {
                let start = Instant::now();
                let response = client.get(&url).bearer_auth(&key).send().await?.error_for_status()?;
                ensure!(response.bytes().await?.starts_with(b"{"), "no JSON");
                times.push(start.elapsed());
            }
            Ok(times)
        }
    });
    let results: Vec<Result<Vec<Duration>>> = stream::iter(clients).buffer_unordered(CONNECTIONS).collect().await;
    let mut times = Vec::new();
    for result in results {
        times.extend(result?);
    }
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    ensure!(times.len() == CONNECTIONS * REQUESTS_EACH);
    ensure!(p99 < SLOWEST, "p99 {p99:?}");
    Ok(())
}
