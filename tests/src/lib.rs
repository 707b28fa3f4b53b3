//! Harness of the end-to-end tests: temporary places with real `village` processes in them.
//!
//! A [`Place`] is an empty directory in which commands are typed as a person would; a [`Node`] is a village that runs there
//! on free ports; a [`Fleet`] is several. All clean up when dropped, processes by `kill -9`.

mod api;
mod fleet;
mod node;
mod place;

pub use api::Api;
pub use fleet::Fleet;
pub use node::Node;
pub use place::{Place, Ran};

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result};

/// Longest wait for anything a test waits for. Generous: the machine may be compiling beside the tests.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Says that a check did not run and why. Goes past the capture of test output, so that it shows in any log.
pub fn skipped(check: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {check}: {why}");
}

/// Looks again and again until there is something to be seen.
///
/// # Errors
/// When there is nothing in time.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.with_context(|| format!("not in time: {what}"))
}
