//! Supervision.
mod restart;

pub use restart::{Decision, RestartPolicy, RestartTracker};
