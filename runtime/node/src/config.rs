//! The whole configuration: every section of `cluster.toml`, each owned by the crate that reads it.

use aivillage_actors::AgentsConfig;
use aivillage_edge::{EdgeConfig, EdgeError};
use aivillage_governance::GovernanceConfig;
use aivillage_memory::MemoryConfig;
use aivillage_runtime::{
    config::{
        ConfigError, ControlConfig, DrainConfig, JoinConfig, LimitsConfig, NodeConfig, RuntimeConfig, SuperviseConfig,
        TelemetryConfig,
    },
    store::StoreConfig,
};
use serde::{Deserialize, Serialize};

/// All sections with their defaults; an unknown section or key is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
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
    /// `[store]`
    pub store: StoreConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[drain]`
    pub drain: DrainConfig,
    /// `[memory]`
    pub memory: MemoryConfig,
    /// `[governance]`
    pub governance: GovernanceConfig,
    /// `[agents]`
    pub agents: AgentsConfig,
    /// `[edge]`
    pub edge: EdgeConfig,
}

impl Cluster {
    /// Keys that a reload applies at once.
    pub const HOT: &[&str] = RuntimeConfig::HOT;

    /// Checks the rules that types do not say.
    ///
    /// # Errors
    /// The first key whose value makes no sense, in the words of its owner.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.node.validate()?;
        self.join.validate()?;
        self.control.validate()?;
        self.limits.validate()?;
        self.supervise.validate()?;
        self.telemetry.validate()?;
        self.drain.validate()?;
        self.memory.validate()?;
        self.governance.validate()?;
        self.agents.validate().map_err(|error| ConfigError::invalid(format!("agents.{}", error.key), error.detail))?;
        self.edge.validate().map_err(|error| match error {
            EdgeError::Config { key, why } => ConfigError::invalid(key, why),
            other => ConfigError::invalid("edge", other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    const SHIPPED: &str = include_str!("../../../cluster.toml");

    /// Dotted names of all values.
    fn keys(table: &Table, prefix: &str, into: &mut Vec<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                Value::Table(inner) => keys(inner, &format!("{path}."), into),
                _ => into.push(path),
            }
        }
    }

    #[test]
    fn shipped_file_equals_the_defaults_of_the_code() {
        let shipped: Cluster = toml::from_str(SHIPPED).unwrap();
        assert_eq!(shipped, Cluster::default());
    }

    #[test]
    fn shipped_file_names_every_key() {
        let (mut shipped, mut all) = (Vec::new(), Vec::new());
        keys(&SHIPPED.parse().unwrap(), "", &mut shipped);
        keys(&Table::try_from(Cluster::default()).unwrap(), "", &mut all);
        // An empty list of tables cannot be written beside `[[agents.provider]]`, so the file shows one in comments.
        assert!(SHIPPED.contains("# [[agents.provider]]"));
        all.retain(|key| !shipped.contains(key) && key != "agents.provider");
        assert_eq!(all, Vec::<String>::new(), "keys that cluster.toml does not show");
    }

    #[test]
    fn shipped_file_explains_every_key_in_its_line() {
        for line in SHIPPED.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')) {
            assert!(line.contains(" # "), "no comment: {line}");
            assert!(line.chars().count() <= 140, "too long: {line}");
        }
    }

    #[test]
    fn defaults_are_valid() {
        Cluster::default().validate().unwrap();
    }
}
