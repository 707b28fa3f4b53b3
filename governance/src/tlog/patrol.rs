//! Reads the log again while it is written, a bundle at a time: a file that does not hold what was written stops the log.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::{TaskError, Village};

use super::audit::{Finding, Rereading};
use super::error::LogError;
use super::files::Disk;
use super::handle::LogHandle;

/// Least time between the beginnings of two rounds: a short log is not read all the time.
const ROUND: Duration = Duration::from_mins(1);

/// Goes round and round a log.
pub(super) struct Patrol {
    pub(super) village: Village,
    pub(super) log: LogHandle,
    pub(super) dir: Arc<std::path::Path>,
    /// Time between two bundles.
    pub(super) pause: Duration,
}

impl Patrol {
    /// Reads on until something is found or the log stops.
    pub(super) async fn run(self) {
        loop {
            let round = tokio::time::sleep(ROUND);
            match self.round().await {
                Ok(None) => {}
                Ok(Some(finding)) => {
                    let Finding { index, file, what } = finding;
                    tracing::error!(%file, index, %what, "the transparency log is damaged and signs no more");
                    let _ = self.log.halt(LogError::Damaged { file, index, what }).await;
                    return;
                }
                Err(error) => tracing::warn!(%error, "the transparency log is not read again"),
            }
            round.await;
            if matches!(self.log.status().refuses, Some(LogError::Stopped { .. })) {
                return;
            }
        }
    }

    /// Reads all full bundles and their tiles; what is behind them is in memory, and is written from there.
    async fn round(&self) -> Result<Option<Finding>, PatrolError> {
        let (size, root) = self.log.full().await?;
        let mut reading = Rereading::new(size, root);
        while !reading.is_done() {
            tokio::time::sleep(self.pause).await;
            let dir = Arc::clone(&self.dir);
            let step = move || {
                reading.step(&Disk::reading(&*dir));
                reading
            };
            reading = self.village.blocking("tlog.patrol", step).await?;
        }
        let dir = Arc::clone(&self.dir);
        Ok(self.village.blocking("tlog.patrol", move || reading.finding(&Disk::reading(&*dir))).await?)
    }
}

/// Why a round was broken off.
#[derive(Debug, thiserror::Error)]
enum PatrolError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Task(#[from] TaskError),
}
