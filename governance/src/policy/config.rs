//! `[governance.policy]` of `cluster.toml`.

use std::time::Duration;

use aivillage_runtime::config::{ConfigError, Period};
use serde::{Deserialize, Serialize};

use super::sources::{Sources, SourcesError};
use crate::config::EMBEDDED;

/// Where policies come from and what is remembered of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `embedded`, or a folder of policies for as long as the cluster has decided on none.
    pub dir: String,
    /// Decisions that are remembered.
    pub cache: usize,
    /// How often a node looks whether the cluster has newer policies.
    pub refresh: Period,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        // Less than the second after which a revocation has to count.
        Self { dir: EMBEDDED.to_owned(), cache: 100_000, refresh: Duration::from_millis(500).into() }
    }
}

impl PolicyConfig {
    /// Checks the rules that types do not say.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.dir.is_empty() {
            return Err(ConfigError::invalid("governance.policy.dir", "is empty: \"embedded\" or a folder"));
        }
        if self.cache == 0 {
            return Err(ConfigError::invalid("governance.policy.cache", "must be at least 1"));
        }
        if self.refresh.get().is_zero() {
            return Err(ConfigError::invalid("governance.policy.refresh", "must be above zero"));
        }
        Ok(())
    }

    /// The files of the folder, or the program's alone.
    ///
    /// # Errors
    /// See [`SourcesError`].
    pub fn sources(&self) -> Result<Sources, SourcesError> {
        if self.dir == EMBEDDED { Ok(Sources::embedded()) } else { Sources::read_dir(&self.dir) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused_by_key() {
        let spoilt: [(&str, PolicyConfig); 3] = [
            ("governance.policy.dir", PolicyConfig { dir: String::new(), ..PolicyConfig::default() }),
            ("governance.policy.cache", PolicyConfig { cache: 0, ..PolicyConfig::default() }),
            ("governance.policy.refresh", PolicyConfig { refresh: Duration::ZERO.into(), ..PolicyConfig::default() }),
        ];
        for (key, config) in spoilt {
            assert!(config.validate().unwrap_err().to_string().starts_with(key));
        }
        PolicyConfig::default().validate().unwrap();
    }
}
