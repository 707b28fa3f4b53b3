//! The trace exporter of a build without the feature `otlp`: none.

use tracing_subscriber::layer::Identity;

use crate::config::{ConfigError, TelemetryConfig};
use crate::trace_cx::TraceCx;

/// Stands for an exporter that exports nothing.
#[derive(Debug)]
pub(super) struct Exporter;

impl Exporter {
    /// Checks that no collector is configured.
    pub(super) fn start(config: &TelemetryConfig, _: &str) -> Result<Option<Self>, ConfigError> {
        config.validate().map(|()| None)
    }

    /// A layer that does nothing.
    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    pub(super) fn layer(&self) -> Identity {
        Identity::new()
    }

    /// Nothing is waiting to be sent.
    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    pub(super) fn shutdown(&self) {}
}

/// Makes `span` part of the trace that came in with a request or a mail. Without the feature `otlp` it does nothing.
pub fn set_parent(_: &tracing::Span, _: TraceCx) {}

/// The trace and span that are open here, for handing on. Without the feature `otlp` there is none.
#[must_use]
pub fn current() -> Option<TraceCx> {
    None
}

/// Changes the share of new traces that are exported. Without the feature `otlp` it does nothing.
pub(super) fn set_sample(_: f64) {}
