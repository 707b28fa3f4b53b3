//! Work outside a mailbox: named, tracked, context-carrying tasks whose panics stay inside.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::mail::MsgCx;

/// Why a task has no result.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task panicked; the text is the panic's message.
    #[error("task `{name}` panicked: {message}")]
    Panicked {
        /// The task's name.
        name: &'static str,
        /// What it said.
        message: String,
    },
    /// The task was stopped, by its owner or because the node shuts down.
    #[error("task `{name}` was stopped")]
    Stopped {
        /// The task's name.
        name: &'static str,
    },
}

/// A running task. Dropping the handle leaves the task running.
#[derive(Debug)]
#[must_use = "a handle that is not awaited hides the task's failure; call `detach` to say so"]
pub struct TaskHandle<T> {
    name: &'static str,
    join: JoinHandle<Result<T, Box<dyn Any + Send>>>,
}

impl<T> TaskHandle<T> {
    /// Stops the task at its next await point.
    pub fn abort(&self) {
        self.join.abort();
    }

    /// Lets the task run on its own; a panic is logged all the same.
    pub fn detach(self) {}

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.join).poll(cx).map(|joined: Result<_, JoinError>| match joined {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(TaskError::Panicked { name, message: panic_message(panic.as_ref()) }),
            Err(e) if e.is_panic() => {
                Err(TaskError::Panicked { name, message: panic_message(e.into_panic().as_ref()) })
            }
            Err(_) => Err(TaskError::Stopped { name }),
        })
    }
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}

/// All tasks of a village, so that shutdown can end them.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Mutex<Vec<AbortHandle>>,
}

impl Tasks {
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> TaskHandle<T> {
        let guarded = MsgCx::current().scope(AssertUnwindSafe(future).catch_unwind().map(move |done| {
            if let Err(panic) = &done {
                tracing::error!(task = name, panic = panic_message(panic.as_ref()), "task panicked");
            }
            done
        }));
        #[allow(clippy::disallowed_methods, reason = "the one place where supervised tasks are made")]
        let join = tokio::spawn(guarded);
        self.track(join.abort_handle());
        TaskHandle { name, join }
    }

    /// As `spawn`, for work that its owner ends.
    pub(crate) fn spawn_abortable(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn(name, future).join.abort_handle()
    }

    pub(crate) fn blocking<T: Send + 'static>(
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> TaskHandle<T> {
        let join = tokio::task::spawn_blocking(move || {
            let done = std::panic::catch_unwind(AssertUnwindSafe(work));
            if let Err(panic) = &done {
                tracing::error!(task = name, panic = panic_message(panic.as_ref()), "blocking task panicked");
            }
            done
        });
        TaskHandle { name, join }
    }

    fn track(&self, handle: AbortHandle) {
        let mut running = self.running.lock();
        // Amortised: finished handles are swept whenever the list is about to grow.
        if running.len() == running.capacity() {
            running.retain(|task| !task.is_finished());
        }
        running.push(handle);
    }

    pub(crate) fn abort_all(&self) {
        self.running.lock().drain(..).for_each(|task| task.abort());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_become_errors() {
        let tasks = Tasks::default();
        let failed = tasks.spawn("bad", async { panic!("on purpose") }).await;
        assert!(matches!(failed, Err(TaskError::Panicked { name: "bad", message }) if message == "on purpose"));
        let failed = Tasks::blocking("worse", || panic!("again")).await;
        assert!(matches!(failed, Err(TaskError::Panicked { message, .. }) if message == "again"));
    }

    #[tokio::test]
    async fn abort_all_stops_running_tasks() {
        let tasks = Tasks::default();
        let endless = tasks.spawn("endless", std::future::pending::<()>());
        tasks.abort_all();
        assert!(matches!(endless.await, Err(TaskError::Stopped { .. })));
    }
}
