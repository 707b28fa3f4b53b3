//! Configuration: the sections of `cluster.toml` that belong to the runtime, and how any section is read.
//!
//! Precedence: `--set section.key=value` > `VILLAGE__SECTION__KEY` > file > default ([`load`]). Every section struct refuses
//! unknown keys, fills absent ones with the documented default and checks its values in `validate`. [`ConfigWatch`] applies
//! the keys of [`RuntimeConfig::HOT`] (and of the upper crates' lists) without a restart.

mod control;
mod error;
mod source;
mod value;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

pub use control::{ControlConfig, JoinConfig};
pub use error::ConfigError;
pub use source::{ENV_PREFIX, Loaded, load, section};
pub use value::{Period, Rate, RateUnit, Size, ValueError};
pub use watch::{ConfigWatch, Reload};

use crate::placement::{Labels, check_labels};
use crate::supervisor::RestartPolicy;

/// The sections that the runtime itself reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// `[node]`
    pub node: NodeConfig,
    /// `[join]`
    pub join: JoinConfig,
    /// `[control]`
    pub control: ControlConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[supervise]`
    pub supervise: SuperviseConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[drain]`
    pub drain: DrainConfig,
}

impl RuntimeConfig {
    /// Keys that a reload applies at once; the others need a restart.
    pub const HOT: &[&str] = &[
        "limits.mailbox",
        "limits.call_timeout",
        "limits.max_actors",
        "supervise.backoff_max",
        "telemetry.log",
        "telemetry.sample",
        "drain.timeout",
    ];

    /// Reads the runtime's sections out of a whole configuration; other sections are left to their owners.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a key, a type or a value that its section refuses.
    pub fn from_table(table: &toml::Table) -> Result<Self, ConfigError> {
        let config = Self {
            node: section(table, "node")?,
            join: section(table, "join")?,
            control: section(table, "control")?,
            limits: section(table, "limits")?,
            supervise: section(table, "supervise")?,
            telemetry: section(table, "telemetry")?,
            drain: section(table, "drain")?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks all sections.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first key whose value is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.node.validate()?;
        self.join.validate()?;
        self.control.validate()?;
        self.limits.validate()?;
        self.supervise.validate()?;
        self.telemetry.validate()?;
        self.drain.validate()
    }
}

/// `[node]`: who this node is and where its data lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Name shown to people. Empty: the name of the machine.
    pub name: String,
    /// Directory of everything the node keeps.
    pub data: PathBuf,
    /// Address for the other nodes of the cluster.
    pub listen: String,
    /// Address at which the other nodes reach this one. Empty: `listen`.
    pub advertise: String,
    /// Facts that kinds may require or prefer, such as `gpu = "true"`.
    pub labels: Labels,
    /// Share of the actors that live here. 0: the number of cores.
    pub weight: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            data: PathBuf::from("./village-data"),
            listen: "127.0.0.1:4100".into(),
            advertise: String::new(),
            labels: Labels::new(),
            weight: 0,
        }
    }
}

impl NodeConfig {
    const NAME_MAX: usize = 64;

    /// The configured name, or else the name of the machine.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.name.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            self.name.clone()
        }
    }

    /// The configured weight, or else the number of cores.
    #[must_use]
    pub fn effective_weight(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.weight == 0 { u32::try_from(cores()).unwrap_or(1) } else { self.weight }
    }

    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if the name is too long or holds control characters, the directory is empty, an address is
    /// none, or there are too many or too long labels.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let printable = !self.name.chars().any(char::is_control);
        check(printable && self.name.len() <= Self::NAME_MAX, "node.name", || {
            format!("{:?} is not at most {} bytes of printable text", self.name, Self::NAME_MAX)
        })?;
        check(!self.data.as_os_str().is_empty(), "node.data", || "an empty path is not a directory".into())?;
        for (key, address) in [("node.listen", &self.listen), ("node.advertise", &self.advertise)] {
            let fits = (key == "node.advertise" && address.is_empty())
                || address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            check(fits, key, || format!("{address:?} is not host:port"))?;
        }
        check_labels(&self.labels).map_err(|error| ConfigError::invalid("node.labels", error.to_string()))
    }
}

/// The hot keys of `[limits]` as they are now. In atomics, because each ask reads one.
#[derive(Debug)]
pub(crate) struct HotLimits {
    mailbox: AtomicU32,
    call_timeout_ns: AtomicU64,
    max_actors: AtomicU32,
}

impl HotLimits {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let limits = Self { mailbox: 0.into(), call_timeout_ns: 0.into(), max_actors: 0.into() };
        limits.set(config);
        limits
    }

    pub(crate) fn set(&self, config: &LimitsConfig) {
        let call_timeout_ns = u64::try_from(config.call_timeout.0.as_nanos()).unwrap_or(u64::MAX);
        self.mailbox.store(config.mailbox, Ordering::Relaxed);
        self.call_timeout_ns.store(call_timeout_ns, Ordering::Relaxed);
        self.max_actors.store(config.max_actors, Ordering::Relaxed);
    }

    pub(crate) fn mailbox(&self) -> u32 {
        self.mailbox.load(Ordering::Relaxed)
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        Duration::from_nanos(self.call_timeout_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn max_actors(&self) -> usize {
        self.max_actors.load(Ordering::Relaxed) as usize
    }
}

/// `[limits]`: bounds that hold on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Mails that may wait for one actor, unless its kind says otherwise. Hot.
    pub mailbox: u32,
    /// Deadline of a call that sets none. Hot.
    pub call_timeout: Period,
    /// Activations that may live on a node at once. Hot.
    pub max_actors: u32,
    /// Bytes a second that one other node may fetch of blobs and snapshots. 0: no limit.
    pub blob_rate: Size,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { mailbox: 1024, call_timeout: Period::from_secs(10), max_actors: 100_000, blob_rate: Size(0) }
    }
}

impl LimitsConfig {
    /// Deadlines beyond this are refused: a caller that waits longer wants a job, not a call.
    pub const CALL_TIMEOUT_MAX: Period = Period::from_secs(600);
    /// With less, a stream would seem to stand still.
    pub const BLOB_RATE_MIN: Size = Size::from_mib(1);

    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check((1..=1 << 20).contains(&self.mailbox), "limits.mailbox", || {
            format!("{} is not in 1..=1048576", self.mailbox)
        })?;
        within("limits.call_timeout", self.call_timeout, Period::from_millis(1), Self::CALL_TIMEOUT_MAX)?;
        let fits = self.blob_rate == Size(0) || self.blob_rate >= Self::BLOB_RATE_MIN;
        check(fits, "limits.blob_rate", || {
            format!("{} is neither 0B, for no limit, nor at least {}", self.blob_rate, Self::BLOB_RATE_MIN)
        })?;
        check(self.max_actors > 0, "limits.max_actors", || "0 is not at least 1".into())
    }
}

/// `[supervise]`: restarts of the node's own services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuperviseConfig {
    /// Restarts admitted within `window` before the failure goes up the tree.
    pub max_restarts: u32,
    /// Length of the sliding window.
    pub window: Period,
    /// Longest delay before a restart. Hot.
    pub backoff_max: Period,
}

impl Default for SuperviseConfig {
    fn default() -> Self {
        Self { max_restarts: 3, window: Period::from_secs(5), backoff_max: Period::from_secs(10) }
    }
}

impl SuperviseConfig {
    /// The section as a policy.
    #[must_use]
    pub fn policy(&self) -> RestartPolicy {
        let policy = RestartPolicy::SYSTEM.intensity(self.max_restarts, self.window.get());
        policy.backoff(RestartPolicy::SYSTEM.backoff_base, self.backoff_max.get())
    }

    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("supervise.window", self.window, Period::from_millis(1), Period::from_secs(3_600))?;
        within("supervise.backoff_max", self.backoff_max, Period::default(), Period::from_secs(3_600))
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON lines elsewhere.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`: what the node tells about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Log filter in the syntax of `RUST_LOG`. Hot.
    pub log: String,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Base URL of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`. Empty: no traces are exported.
    pub otlp: String,
    /// Share of traces that are exported, 0 to 1. Hot.
    pub sample: f64,
    /// Whether `/metrics` is served.
    pub metrics: bool,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".into(), log_format: LogFormat::Auto, otlp: String::new(), sample: 0.05, metrics: true }
    }
}

impl TelemetryConfig {
    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a filter that does not parse, a collector that this build cannot reach, or a share
    /// outside 0 to 1.
    pub fn validate(&self) -> Result<(), ConfigError> {
        EnvFilter::builder()
            .parse(&self.log)
            .map_err(|error| ConfigError::invalid("telemetry.log", format!("{:?}: {error}", self.log)))?;
        check((0.0..=1.0).contains(&self.sample), "telemetry.sample", || format!("{} is not in 0..=1", self.sample))?;
        if self.otlp.is_empty() {
            return Ok(());
        }
        check(cfg!(feature = "otlp"), "telemetry.otlp", || {
            "this program was built without the feature `otlp`: build with `--features otlp` or leave it empty".into()
        })?;
        let is_url = self.otlp.starts_with("http://") || self.otlp.starts_with("https://");
        check(is_url, "telemetry.otlp", || format!("{:?} is not a URL such as \"http://127.0.0.1:4318\"", self.otlp))
    }
}

/// `[drain]`: how a node ends in good order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// Longest time from the signal to the exit. Hot.
    pub timeout: Period,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { timeout: Period::from_secs(30) }
    }
}

impl DrainConfig {
    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("drain.timeout", self.timeout, Period(Duration::ZERO), Period::from_secs(600))
    }
}

fn check(holds: bool, key: &str, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::invalid(key, message())) }
}

fn within<V: PartialOrd + std::fmt::Display + Copy>(key: &str, value: V, least: V, most: V) -> Result<(), ConfigError> {
    check(value >= least && value <= most, key, || format!("{value} is not between {least} and {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_str(text: &str) -> Result<RuntimeConfig, String> {
        RuntimeConfig::from_table(&text.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_documented_ones_and_valid() {
        let documented = r#"
            [node]
            name = ""
            data = "./village-data"
            listen = "127.0.0.1:4100"
            advertise = ""
            labels = {}
            weight = 0
            [join]
            seeds = []
            token = ""
            [control]
            max_voters = 5
            groups = 8
            replicas = 3
            heartbeat = "600ms"
            election = ["1800ms", "2s"]
            down_after = "4s"
            beat = "500ms"
            fast_down = true
            [limits]
            mailbox = 1024
            call_timeout = "10s"
            max_actors = 100000
            blob_rate = "0B"
            [supervise]
            max_restarts = 3
            window = "5s"
            backoff_max = "10s"
            [telemetry]
            log = "info"
            log_format = "auto"
            otlp = ""
            sample = 0.05
            metrics = true
            [drain]
            timeout = "30s"
            [edge]
            listen = "left to its owner"
        "#;
        assert_eq!(from_str(documented), Ok(RuntimeConfig::default()));
        assert_eq!(from_str(""), Ok(RuntimeConfig::default()));
        assert_eq!(SuperviseConfig::default().policy(), RestartPolicy::SYSTEM);
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (text, message) in [
            ("limits.mailbox = 0", "limits.mailbox: 0 is not in 1..=1048576"),
            ("limits.call_timeout = '11m'", "limits.call_timeout: 11m is not between 1ms and 10m"),
            ("limits.max_actors = 0", "limits.max_actors: 0 is not at least 1"),
            ("limits.blob_rate = '1KiB'", "limits.blob_rate: 1KiB is neither 0B, for no limit, nor at least 1MiB"),
            ("supervise.window = '0s'", "supervise.window: 0s is not between 1ms and 1h"),
            ("telemetry.sample = 1.5", "telemetry.sample: 1.5 is not in 0..=1"),
            ("telemetry.sample = nan", "telemetry.sample: NaN is not in 0..=1"),
            ("drain.timeout = '1h'", "drain.timeout: 1h is not between 0s and 10m"),
            ("node.data = ''", "node.data: an empty path is not a directory"),
            ("node.listen = '4100'", r#"node.listen: "4100" is not host:port"#),
            ("node.name = \"a\\nb\"", r#"node.name: "a\nb" is not at most 64 bytes of printable text"#),
        ] {
            assert_eq!(from_str(text), Err(message.to_owned()), "{text}");
        }
        let filter = from_str("telemetry.log = 'info,=='").unwrap_err();
        assert!(filter.starts_with(r#"telemetry.log: "info,==": "#), "{filter}");
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn a_collector_is_refused_by_a_build_that_cannot_export() {
        let error = from_str("telemetry.otlp = 'http://127.0.0.1:4318'").unwrap_err();
        assert!(error.starts_with("telemetry.otlp: this program was built without the feature `otlp`"), "{error}");
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn a_collector_must_be_a_url() {
        assert!(from_str("telemetry.otlp = 'http://127.0.0.1:4318'").is_ok());
        let error = from_str("telemetry.otlp = 'localhost'").unwrap_err();
        assert_eq!(error, r#"telemetry.otlp: "localhost" is not a URL such as "http://127.0.0.1:4318""#);
    }

    #[test]
    fn a_node_without_a_name_is_called_like_its_machine() {
        assert!(!NodeConfig::default().display_name().is_empty());
        assert_eq!(NodeConfig { name: "ada".into(), ..NodeConfig::default() }.display_name(), "ada");
    }
}
