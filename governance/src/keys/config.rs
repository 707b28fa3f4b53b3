//! `[governance.keys]` of `cluster.toml`.

use std::time::Duration;

use aivillage_runtime::config::{ConfigError, Period};
use serde::{Deserialize, Serialize};

/// How the root key is kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealKind {
    /// In a file that only its owner can read.
    #[default]
    File,
    /// In a file that opens with a passphrase.
    Passphrase,
}

/// What a passphrase costs whoever tries many. RFC 9106 section 4, second recommended option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Argon2Cost {
    /// Memory in KiB, 8 to 4 Mi.
    pub m_kib: u32,
    /// Passes over it, 1 to 64.
    pub t: u32,
    /// Lanes, 1 to 16.
    pub p: u32,
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self { m_kib: 64 * 1024, t: 3, p: 4 }
    }
}

impl Argon2Cost {
    /// Whether a machine can be asked to do this. The numbers may come from a file that somebody altered.
    pub(crate) fn is_sane(self) -> bool {
        let lanes = self.p.saturating_mul(8);
        (8..=4 << 20).contains(&self.m_kib)
            && (1..=64).contains(&self.t)
            && (1..=16).contains(&self.p)
            && lanes <= self.m_kib
    }
}

/// `[governance.keys]` of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// How the root key is kept.
    pub seal: SealKind,
    /// File with the passphrase; empty for none.
    pub passphrase_file: String,
    /// Environment variable with the passphrase, where no file is named.
    pub passphrase_env: String,
    /// What a passphrase costs.
    pub argon2: Argon2Cost,
    /// Length of an epoch. What backups hold of an erased subject is unreadable after two.
    pub epoch: Period,
    /// Age at which a data key is replaced.
    pub rotate_after: Period,
    /// Messages after which a data key is replaced, at most 2^31.
    pub rotate_messages: u64,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            seal: SealKind::File,
            passphrase_file: String::new(),
            passphrase_env: "VILLAGE_PASSPHRASE".to_owned(),
            argon2: Argon2Cost::default(),
            epoch: Period::from_secs(24 * 60 * 60),
            rotate_after: Period::from_secs(90 * 24 * 60 * 60),
            rotate_messages: 1 << 31,
        }
    }
}

impl KeysConfig {
    /// Checks what no type can.
    ///
    /// # Errors
    /// Names the key and the bounds of its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key: &str, why: String| Err(ConfigError::invalid(key, why));
        if !self.argon2.is_sane() {
            return invalid("governance.keys.argon2", format!("{:?} is out of bounds", self.argon2));
        }
        if self.seal == SealKind::Passphrase && self.passphrase_file.is_empty() && self.passphrase_env.is_empty() {
            return invalid(
                "governance.keys.passphrase_env",
                "must name a variable, or passphrase_file a file".to_owned(),
            );
        }
        if self.epoch.get() < Duration::from_mins(1) {
            return invalid("governance.keys.epoch", format!("{} is not at least 1m", self.epoch));
        }
        if self.rotate_after < self.epoch {
            return invalid("governance.keys.rotate_after", format!("{} is shorter than an epoch", self.rotate_after));
        }
        if !(1..=1 << 31).contains(&self.rotate_messages) {
            return invalid("governance.keys.rotate_messages", format!("{} is not in 1 to 2^31", self.rotate_messages));
        }
        Ok(())
    }

    /// Milliseconds of an epoch.
    pub(crate) fn epoch_ms(&self) -> u64 {
        u64::try_from(self.epoch.get().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds after which a data key is replaced.
    pub(crate) fn rotate_after_ms(&self) -> u64 {
        u64::try_from(self.rotate_after.get().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_reads_back_and_bad_values_are_named() {
        let config = KeysConfig::default();
        config.validate().unwrap();
        assert_eq!(toml::from_str::<KeysConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(toml::from_str::<KeysConfig>("").unwrap(), config);
        assert!(toml::from_str::<KeysConfig>("shamir = 3").is_err());
        let bad = |text: &str| toml::from_str::<KeysConfig>(text).unwrap().validate().unwrap_err().to_string();
        assert!(bad("argon2 = { m_kib = 1 }").contains("keys.argon2"));
        assert!(bad("argon2 = { m_kib = 64, p = 16 }").contains("keys.argon2"));
        assert!(bad("seal = \"passphrase\"\npassphrase_env = \"\"").contains("keys.passphrase_env"));
        assert!(bad("epoch = \"1s\"").contains("keys.epoch"));
        assert!(bad("rotate_after = \"1h\"").contains("keys.rotate_after"));
        assert!(bad("rotate_messages = 4294967296").contains("keys.rotate_messages"));
    }
}
