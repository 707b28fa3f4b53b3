//! Content that passed unjudged, to be judged as soon as moderation can.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::moderation::Stage;

use super::admission::Ctx;
use super::record::{Subject, acts, append};
use super::{Gate, RETRY};

/// Contents that wait at once.
const COUNT: usize = 1_024;
/// Bytes of content that wait at once.
const BYTES: usize = 16 * 1024 * 1024;

/// A content that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: Uuid,
    pub(super) stage: Stage,
    pub(super) cx: Ctx,
    pub(super) content: String,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Rechecks {
    queue: Mutex<Queue>,
    pub(super) arrived: Notify,
}

impl Rechecks {
    /// Keeps a content to be judged; false when there is no room, and then it must not pass.
    pub(super) fn keep(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue.lock();
        let bytes = queue.bytes + waiting.content.len();
        if queue.waiting.len() >= COUNT || bytes > BYTES {
            return false;
        }
        queue.bytes = bytes;
        queue.waiting.push_back(waiting);
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// The one that waits longest.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front()?;
        queue.bytes -= next.content.len();
        Some(next)
    }

    /// Puts one back that could not be judged either.
    pub(super) fn back(&self, waiting: Waiting) {
        let mut queue = self.queue.lock();
        queue.bytes += waiting.content.len();
        queue.waiting.push_front(waiting);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().waiting.len()
    }
}

impl Gate {
    /// Judges what passed unjudged, for as long as the village lives.
    pub(super) async fn recheck(&self) {
        loop {
            self.0.rechecks.arrived.notified().await;
            while self.0.rechecks.len() > 0 {
                if !self.recheck_once().await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Judges one of those; false when it cannot be judged yet.
    pub(super) async fn recheck_once(&self) -> bool {
        let Some(waiting) = self.0.rechecks.next() else { return true };
        let judged = self.0.court.judge(&waiting.content);
        if judged.unchecked.is_some() {
            self.0.rechecks.back(waiting);
            return false;
        }
        if !acts(judged.verdict.action) {
            return true;
        }
        tracing::warn!(stage = waiting.stage.code(), "content that passed unjudged should not have");
        let Some(home) = self.0.log.get() else { return true };
        let subject = Subject { id: waiting.id, stage: waiting.stage, cx: &waiting.cx };
        let logged = append(home, subject.verdict(home, &judged.verdict, true), false).await;
        if let Err(error) = logged {
            tracing::error!(%error, "a late verdict is not in the transparency log");
            self.0.rechecks.back(waiting);
            return false;
        }
        true
    }
}
