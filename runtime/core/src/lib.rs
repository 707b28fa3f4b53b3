//! The actor kit.
pub mod blob;
pub mod clock;
pub mod config;
pub mod durable;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod trace_cx;

pub use durable::{Durable, Entity};
pub use store::{Batch, Level, Store, StoreError, TreeId};
pub use supervisor::{Decision, RestartPolicy, RestartTracker};
pub use telemetry::{MetricSet, Metrics};
pub use trace_cx::TraceCx;
