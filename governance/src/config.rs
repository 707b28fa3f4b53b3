//! `[governance]` of `cluster.toml`.

use aivillage_runtime::config::ConfigError;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyConfig;

/// The parts of governance, a section each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceConfig {
    /// `[governance.policy]`
    pub policy: PolicyConfig,
}

impl GovernanceConfig {
    /// Checks the rules that types do not say.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.policy.validate()
    }
}
