//! Admission: at most so many requests run, so many more wait a moment, the rest is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, Code};

/// The gate that counts requests and streams.
#[derive(Debug)]
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    queued: AtomicUsize,
    max_queued: usize,
    queue_wait: Duration,
}

/// What is admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests that run at once.
    pub(crate) in_flight: usize,
    /// Requests that wait for a place.
    pub(crate) queued: usize,
    /// Longest wait.
    pub(crate) queue_wait: Duration,
    /// Event streams open at once.
    pub(crate) streams: usize,
    /// Bodies above the ordinary limit that are held in memory at once.
    pub(crate) uploads: usize,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Admission {
            running: semaphore(limits.in_flight),
            streams: semaphore(limits.streams),
            uploads: semaphore(limits.uploads),
            queued: AtomicUsize::new(0),
            max_queued: limits.queued,
            queue_wait: limits.queue_wait,
        }
    }

    /// A place among the running requests, at once if there is one, else after a short wait.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.queued, self.max_queued).ok_or_else(|| shed("too many requests wait"))?;
        match tokio::time::timeout(self.queue_wait, self.running.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(shed("no place became free in time")),
        }
    }

    /// A place among the open streams; nobody waits for one.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.streams.clone().try_acquire_owned().map_err(|_| shed("too many open streams"))
    }

    /// A place for a body above the ordinary limit.
    pub(crate) fn upload(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.uploads.clone().try_acquire_owned().map_err(|_| shed("too many large uploads at once"))
    }
}

/// One waiting request; leaves the count however the wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Waiting(count);
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refused at a limit. The wait is spread over 1 to 5 s so that the refused do not come back together.
fn shed(why: &str) -> ApiError {
    ApiError::new(Code::Shed, why).retry_after(Duration::from_secs(rand::random_range(1..=5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(in_flight: usize, queued: usize) -> Admission {
        Admission::new(Limits { in_flight, queued, queue_wait: Duration::from_secs(1), streams: 1, uploads: 1 })
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_one_waits_and_the_next_is_shed() {
        let gate = Arc::new(admission(1, 1));
        let first = gate.enter().await.unwrap();
        let mut waiting = std::pin::pin!(gate.enter());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(gate.enter().await.unwrap_err().code(), "shed");
        drop(first);
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_after_queue_wait_and_leaves_the_queue() {
        let gate = admission(1, 1);
        let _held = gate.enter().await.unwrap();
        for _ in 0..3 {
            let error = gate.enter().await.unwrap_err();
            assert_eq!(error.status().as_u16(), 503);
        }
        assert_eq!(gate.queued.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn streams_do_not_wait() {
        let gate = admission(1, 1);
        let held = gate.stream().unwrap();
        assert!(gate.stream().is_err());
        drop(held);
        assert!(gate.stream().is_ok());
    }
}
