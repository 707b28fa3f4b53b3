//! `[governance]` of `cluster.toml`.

use aivillage_runtime::config::ConfigError;
use serde::{Deserialize, Serialize};

use crate::ledger::LedgerConfig;
use crate::policy::PolicyConfig;
use crate::tlog::TlogConfig;

/// The parts of governance, a section each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceConfig {
    /// `[governance.ledger]`
    pub ledger: LedgerConfig,
    /// `[governance.policy]`
    pub policy: PolicyConfig,
    /// `[governance.tlog]`
    pub tlog: TlogConfig,
}

impl GovernanceConfig {
    /// Checks the rules that types do not say.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.ledger.validate()?;
        self.policy.validate()?;
        self.tlog.validate()
    }
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::config::Period;

    use super::*;

    type Spoil = fn(&mut TlogConfig);

    #[test]
    fn values_that_make_no_sense_are_refused_by_key() {
        GovernanceConfig::default().validate().unwrap();
        let cases: [(&str, Spoil); 4] = [
            ("governance.tlog.batch", |c| c.batch = 0),
            ("governance.tlog.queue", |c| c.queue = 1),
            ("governance.tlog.checkpoint", |c| c.checkpoint = Period::from_secs(0)),
            ("governance.tlog.gather", |c| c.gather = Period::from_secs(2)),
        ];
        for (key, spoil) in cases {
            let mut config = GovernanceConfig::default();
            spoil(&mut config.tlog);
            assert!(config.validate().unwrap_err().to_string().contains(key), "{key}");
        }
    }

    #[test]
    fn a_checkpoint_for_every_few_transfers_is_refused() {
        let config: GovernanceConfig = toml::from_str("[ledger]\ncheckpoint_after = \"63KiB\"").unwrap();
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.contains("governance.ledger.checkpoint_after"), "{refused}");
    }

    #[test]
    fn durations_have_their_unit() {
        let config: GovernanceConfig = toml::from_str("[tlog]\ngather = \"7ms\"\ncheckpoint = \"2s\"").unwrap();
        assert_eq!((config.tlog.gather, config.tlog.checkpoint), (Period::from_millis(7), Period::from_secs(2)));
        assert!(toml::from_str::<GovernanceConfig>("[tlog]\ngather = 7").is_err());
    }
}
