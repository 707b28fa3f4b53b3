//! The actor kit.
pub mod config;
pub mod supervisor;
pub mod telemetry;
pub mod trace_cx;

pub use supervisor::{Decision, RestartPolicy, RestartTracker};
pub use telemetry::{MetricSet, Metrics};
pub use trace_cx::TraceCx;
