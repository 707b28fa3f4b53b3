//! How a log comes by cosignatures: it posts its checkpoint for one witness after the other until enough have signed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aivillage_runtime::Addr;
use futures::future::join_all;
use tokio::sync::watch;

use super::board::{Board, BoardMsg};
use super::handle::{LogHandle, LogStatus};
use super::hash::Hash;
use super::request::Refusal;
use super::witness::Answer;

/// How long a witness may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon witnesses are asked again for a checkpoint that has too few cosignatures: one may have come back, or learnt of the log.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks after the cosignatures of one log.
pub(crate) struct Collector {
    log: LogHandle,
    board: Addr<Board>,
    /// Size of the checkpoint that a witness has, as it said itself.
    known: HashMap<String, u64>,
}

impl Collector {
    /// One for each log: `None` as long as there is another.
    pub(crate) fn new(log: LogHandle, board: Addr<Board>) -> Option<Self> {
        log.begin_collecting().then(|| Self { log, board, known: HashMap::new() })
    }

    /// Collects for each new checkpoint, and again for one that is short of cosignatures, until the log ends.
    pub(crate) async fn run(mut self) {
        let mut status = self.log.watch();
        loop {
            let now = status.borrow_and_update().clone();
            self.collect(&now, &mut status).await;
            let is_short = |status: &LogStatus| status.cosigned < status.wanted;
            let wait = if is_short(&status.borrow()) { AGAIN } else { Duration::MAX };
            if let Ok(Err(_)) = tokio::time::timeout(wait, status.changed()).await {
                return;
            }
        }
    }

    /// Asks as many witnesses at a time as are missing; those that do not sign are followed by others. A newer checkpoint ends it.
    async fn collect(&mut self, status: &LogStatus, latest: &mut watch::Receiver<LogStatus>) {
        let Some(note) = &status.checkpoint else { return };
        let signed: BTreeSet<_> = note.signatures().iter().map(|line| line.name.clone()).collect();
        let mut left = order(self.log.key().name(), status);
        left.retain(|name| !signed.contains(name));
        let mut missing = status.wanted.saturating_sub(status.cosigned);
        while missing > 0 && !left.is_empty() {
            let wave: Vec<_> = left.drain(..missing.min(left.len())).collect();
            let answers = join_all(wave.iter().map(|witness| self.ask(witness))).await;
            if let Some(metrics) = self.log.metrics() {
                answers.iter().filter(|answer| answer.is_none()).for_each(|_| metrics.witness_failed());
            }
            for (witness, size) in answers.iter().flatten() {
                self.known.insert(witness.clone(), *size);
            }
            let now = latest.borrow().clone();
            if now.checkpoint.as_ref().map(|now| now.text()) != Some(note.text()) {
                return;
            }
            missing = now.wanted.saturating_sub(now.cosigned);
        }
    }

    /// Asks a witness, a second time if it has another checkpoint than was thought. Gives the size it has now.
    async fn ask(&self, witness: &str) -> Option<(String, u64)> {
        let mut old = self.known.get(witness).copied().unwrap_or(0);
        for _ in 0..2 {
            match self.post(witness, old).await? {
                (size, Ok(line)) => {
                    let added = self.log.cosign(vec![line]).await;
                    if let Err(error) = &added {
                        tracing::warn!(witness, %error, "a cosignature is not taken");
                    }
                    return added.is_ok().then(|| (witness.to_owned(), size));
                }
                (_, Err(Refusal::Conflict { size })) => old = size,
                (_, Err(refusal)) => {
                    tracing::warn!(witness, %refusal, "a witness does not cosign");
                    return None;
                }
            }
        }
        Some((witness.to_owned(), old))
    }

    /// The answer to the last checkpoint, and its size; `None` when there is none in time.
    async fn post(&self, witness: &str, old: u64) -> Option<(u64, Answer)> {
        let request = self.log.request(old).await.ok()?;
        let body = request.note.text().parse::<super::checkpoint::Checkpoint>().ok()?;
        let to = witness.to_owned();
        let call = self.board.call().deadline(PATIENCE);
        let answer = call.ask(|reply| BoardMsg::Post { request, to, reply }).await;
        answer.ok().map(|answer| (body.size, answer))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.log.end_collecting();
    }
}

/// The witnesses in an order of this log's own, so that logs do not all ask the same first.
fn order(origin: &str, status: &LogStatus) -> Vec<String> {
    let mut names: Vec<_> = status.witnesses.iter().map(|key| key.name().to_owned()).collect();
    names.sort_by_cached_key(|name| Hash::leaf(format!("{origin}\n{name}").as_bytes()));
    names
}
