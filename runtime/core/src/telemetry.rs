//! Logs, metrics and traces of a node.
//!
//! [`Telemetry::install`] is called once, by the program; a library never does. Metrics need no installation: every node has
//! its own [`Metrics`].

mod handling;
mod logs;
pub mod metrics;
mod process;
#[cfg_attr(feature = "otlp", path = "telemetry/traces.rs")]
#[cfg_attr(not(feature = "otlp"), path = "telemetry/traces_off.rs")]
mod traces;

use std::backtrace::Backtrace;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

pub use handling::Handling;
pub use metrics::{
    BlobMetrics, ClusterMetrics, KindMetrics, LATENCY_BUCKETS, LinkMetrics, MetricSet, Metrics, Outcome,
    RuntimeMetrics, StoreMetrics, latency_histogram,
};
pub use traces::{current as current_trace, set_parent};

use crate::config::{ConfigError, LogFormat, TelemetryConfig};
use logs::{Form, LogLines};
use traces::Exporter;

/// Libraries that narrate at INFO or DEBUG what only their authors want to know; the configured filter may overrule.
///
/// `ractor_cluster` warns of each session that ends, and to openraft every link that is lost is an ERROR; what matters of
/// that the link to the peer says itself, and what somebody must act on comes back as a result.
const QUIET: &str = "hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,rustls=warn,tower=warn,tantivy=warn,sled=warn,\
                     opentelemetry=warn,ractor_cluster=error,openraft=off";

/// The installed log and trace output of this process.
#[derive(Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    exporter: Option<Arc<Exporter>>,
}

impl Telemetry {
    /// Sends the events and spans of this process to stderr and, if configured, to the OTLP collector, and has panics logged.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a bad section, and if the process has a subscriber already.
    pub fn install(config: &TelemetryConfig, node: &str) -> Result<Self, ConfigError> {
        let form = match config.log_format {
            LogFormat::Text => Form::Text { colour: std::io::stderr().is_terminal() },
            LogFormat::Auto if std::io::stderr().is_terminal() => Form::Text { colour: true },
            LogFormat::Auto | LogFormat::Json => Form::Json,
        };
        let (telemetry, subscriber) = Self::build(config, node, form, std::io::stderr())?;
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| ConfigError::invalid("telemetry", "this process has a subscriber already"))?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(telemetry)
    }

    fn build(
        config: &TelemetryConfig,
        node: &str,
        form: Form,
        out: impl Write + Send + 'static,
    ) -> Result<(Self, impl Subscriber + Send + Sync), ConfigError> {
        let exporter = Exporter::start(config, node)?.map(Arc::new);
        let (filter, handle) = reload::Layer::new(parse_filter(&config.log)?);
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(filter_fn(is_allowed))
            .with(LogLines::new(form, node.to_owned(), out))
            .with(exporter.as_ref().map(|exporter| exporter.layer()));
        Ok((Self { filter: handle, exporter }, subscriber))
    }

    /// Changes the log filter, in the syntax of `RUST_LOG`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a filter that does not parse; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), ConfigError> {
        let reloaded = self.filter.reload(parse_filter(filter)?);
        reloaded.map_err(|error| ConfigError::invalid("telemetry.log", error.to_string()))
    }

    /// Applies the hot keys of the section: `log` and `sample`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a filter that does not parse; the old one stays.
    pub fn apply(&self, config: &TelemetryConfig) -> Result<(), ConfigError> {
        if self.exporter.is_some() {
            traces::set_sample(config.sample);
        }
        self.set_filter(&config.log)
    }

    /// Sends the traces that still wait, for at most two seconds. Blocks; to be called last.
    pub fn shutdown(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.shutdown();
        }
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, ConfigError> {
    // The last directive for a target wins, so the configured ones stand behind the quiet ones.
    let parsed = EnvFilter::builder().parse(format!("{QUIET},{filter}"));
    parsed.map_err(|error| ConfigError::invalid("telemetry.log", format!("{filter:?}: {error}")))
}

/// What no filter may let through: `ractor` holds a span open at INFO for as long as an actor lives, which would make every
/// message part of one endless trace, and `ractor_cluster` prints the payloads of messages at DEBUG. `openraft` prints entries of
/// its logs, and complains of each peer that is away many times a second; who leads and who is away is in the log of this crate.
fn is_allowed(metadata: &Metadata<'_>) -> bool {
    match metadata.target().split("::").next() {
        Some("ractor") => *metadata.level() <= Level::WARN,
        Some("ractor_cluster") => *metadata.level() <= Level::INFO,
        Some("openraft") => false,
        _ => true,
    }
}

/// One line with the place and the backtrace; then unwinding goes on and supervision with it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::force_capture();
    let message = panic.payload_as_str().unwrap_or("of a value that is no text");
    tracing::error!(target: "panic", location, thread, %backtrace, "panic: {message}");
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn with_output(log: &str, test: impl FnOnce(&Telemetry, &Shared)) {
        let out = Shared::default();
        let config = TelemetryConfig { log: log.into(), ..TelemetryConfig::default() };
        let (telemetry, subscriber) = Telemetry::build(&config, "n1", Form::Json, out.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || test(&telemetry, &out));
    }

    #[test]
    fn libraries_are_clamped_whatever_the_filter_says() {
        with_output("trace", |_, out| {
            tracing::info!(target: "ractor", "a");
            tracing::info!(target: "ractor::actor", "b");
            tracing::debug!(target: "ractor_cluster::node", "payload");
            assert_eq!(out.take(), "");
            tracing::warn!(target: "ractor", "c");
            tracing::error!(target: "ractor_cluster", "d");
            tracing::error!(target: "openraft::core", "an entry");
            tracing::trace!(target: "ractor_like", "e");
            assert_eq!(out.take().lines().count(), 3);
        });
    }

    #[test]
    fn chatty_libraries_are_quiet_unless_asked() {
        with_output("debug", |telemetry, out| {
            tracing::info!(target: "hyper::client", "a");
            assert_eq!(out.take(), "");
            telemetry.set_filter("info,hyper=debug,ractor_cluster=trace").unwrap();
            tracing::debug!(target: "hyper::client", "b");
            tracing::info!(target: "ractor_cluster::node", "c");
            tracing::debug!(target: "ractor_cluster::net", "payload");
            assert_eq!(out.take().lines().count(), 2);
        });
    }

    #[test]
    fn the_filter_changes_at_run_time_and_a_bad_one_changes_nothing() {
        with_output("warn", |telemetry, out| {
            tracing::info!("hidden");
            telemetry.apply(&TelemetryConfig { log: "info".into(), ..TelemetryConfig::default() }).unwrap();
            tracing::info!("shown");
            assert!(out.take().contains("shown"));
            let error = telemetry.set_filter("info,==").unwrap_err().to_string();
            assert!(error.starts_with(r#"telemetry.log: "info,==": "#), "{error}");
            tracing::info!("still shown");
            assert_eq!(out.take().lines().count(), 1);
        });
    }

    #[test]
    fn a_panic_is_one_line_with_place_and_backtrace() {
        with_output("info", |_, out| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let caught = std::panic::catch_unwind(|| panic!("out of {}", "eggs"));
            std::panic::set_hook(previous);
            assert!(caught.is_err());
            let text = out.take();
            assert_eq!(text.lines().count(), 1, "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["msg"], "panic: out of eggs");
            assert!(line["location"].as_str().unwrap().contains("telemetry.rs:"), "{line}");
            assert!(line["backtrace"].as_str().unwrap().contains("  0:"), "{line}");
        });
    }

    #[test]
    fn lines_follow_the_filter_not_the_level_of_a_library_span() {
        with_output("info", |_, out| {
            let actor = tracing::info_span!(target: "ractor", "Actor", id = "0.1");
            actor.in_scope(|| tracing::info!("inside"));
            let line = out.take();
            assert!(!line.contains("\"span\"") && !line.contains("0.1"), "{line}");
        });
    }
}
