//! Durable commits per second, beside plain fdatasync on the same disk in the same run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use serde::Serialize;

use super::{Batch, Level, Store, StoreConfig, StoreError, TreeId, redo};

/// Bytes of a committed value: an event of ordinary size.
const VALUE_BYTES: usize = 200;
/// The tree that is written; it belongs to no one, since the store is the benchmark's own.
const TREE: TreeId = TreeId(0);

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct BenchOptions {
    /// Time of each measurement.
    pub each: Duration,
    /// Repetitions, in turn with the others; the median counts.
    pub rounds: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { each: Duration::from_secs(1), rounds: 5 }
    }
}

/// Medians over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreBench {
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Repetitions.
    pub rounds: usize,
    /// Writes of one record with one fdatasync each into a file allocated ahead, no store involved.
    pub fdatasync_per_s: f64,
    /// One committer that waits for each commit.
    pub one: Committers,
    /// Many committers at once, each waiting for its own.
    pub many: Committers,
}

/// Figures of a number of concurrent committers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Committers {
    /// How many.
    pub committers: usize,
    /// Commits at level `disk` per second.
    pub commits_per_s: f64,
    /// Commits that one fdatasync of the store made durable.
    pub commits_per_sync: f64,
    /// Commits in the time of one fdatasync of the plain loop.
    pub commits_per_plain_fdatasync: f64,
}

/// One round: plain, one committer, many committers.
struct Round {
    plain: f64,
    one: (f64, f64),
    many: (f64, f64),
}

/// Measures in new files under `dir`, which stay there for the caller to remove.
///
/// # Errors
/// When files cannot be written.
pub async fn run(dir: &Path, options: BenchOptions) -> Result<StoreBench, StoreError> {
    const MANY: usize = 64;
    let store = super::open(&dir.join("store"), &StoreConfig::default())?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds.max(1) {
        let file = dir.join("plain");
        let plain = tokio::task::spawn_blocking(move || fdatasync_rate(&file, options.each));
        let plain = plain.await.map_err(|e| StoreError::Stopped { reason: e.to_string() })??;
        let one = commit_rate(&*store, 1, options.each).await?;
        let many = commit_rate(&*store, MANY, options.each).await?;
        rounds.push(Round { plain, one, many });
    }
    let fdatasync_per_s = median(rounds.iter().map(|round| round.plain));
    let committers = |committers, figures: fn(&Round) -> (f64, f64)| Committers {
        committers,
        commits_per_s: median(rounds.iter().map(|round| figures(round).0)),
        commits_per_sync: median(rounds.iter().map(|round| figures(round).1)),
        commits_per_plain_fdatasync: median(rounds.iter().map(|round| figures(round).0 / round.plain)),
    };
    Ok(StoreBench {
        value_bytes: VALUE_BYTES,
        rounds: rounds.len(),
        fdatasync_per_s,
        one: committers(1, |round| round.one),
        many: committers(MANY, |round| round.many),
    })
}

/// Records written and synced one by one, per second.
fn fdatasync_rate(path: &Path, time: Duration) -> Result<f64, StoreError> {
    const FILE: u64 = 16 << 20;
    let failed = |e| StoreError::io("write", path, e);
    let file = File::create(path).and_then(|file| redo::allocate(&file, FILE).map(|()| file)).map_err(failed)?;
    let record = [0x5a; VALUE_BYTES + 32];
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        let at = u64::from(count) * record.len() as u64 % (FILE - record.len() as u64);
        file.write_all_at(&record, at).and_then(|()| file.sync_data()).map_err(failed)?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Commits per second, and per fdatasync of the store.
async fn commit_rate(store: &dyn Store, committers: usize, time: Duration) -> Result<(f64, f64), StoreError> {
    let before = store.stats();
    let start = Instant::now();
    let all = (0..committers).map(|committer| async move {
        let mut count = 0_u64;
        while start.elapsed() < time {
            // Each committer goes round in 1024 keys, so the index stays small whatever the disk's speed.
            let key = [(committer as u64).to_be_bytes(), (count % 1024).to_be_bytes()].concat();
            store.commit(Batch::new().put(TREE, key, [0x5a; VALUE_BYTES]), Level::Disk).await?;
            count += 1;
        }
        Ok::<_, StoreError>(count)
    });
    let commits = as_f64(try_join_all(all).await?.into_iter().sum());
    let rate = commits / start.elapsed().as_secs_f64();
    Ok((rate, commits / as_f64(store.stats().syncs - before.syncs).max(1.0)))
}

/// Counts of a benchmark are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_committers_share_an_fdatasync() {
        let dir = tempfile::tempdir().unwrap();
        let bench = run(dir.path(), BenchOptions { each: Duration::from_millis(150), rounds: 1 }).await.unwrap();
        assert!(bench.fdatasync_per_s > 0.0);
        assert!((0.5..=1.0).contains(&bench.one.commits_per_sync), "{bench:?}");
        assert!(bench.many.commits_per_sync >= 4.0, "{bench:?}");
    }
}
