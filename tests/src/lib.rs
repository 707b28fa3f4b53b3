//! Harness of the end-to-end tests: temporary places with real `village` processes in them.
//!
//! A [`Place`] is an empty directory in which commands are typed as a person would; a [`Node`] is a village that runs there
//! on free ports. Both clean up when dropped, the process by `kill -9`.

mod node;
mod place;

pub use node::Node;
pub use place::{Place, Ran};

use std::{io::Write as _, time::Duration};

/// Longest wait for anything a test waits for. Generous: the machine may be compiling beside the tests.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Says that a check did not run and why. Goes past the capture of test output, so that it shows in any log.
pub fn skipped(check: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {check}: {why}");
}
