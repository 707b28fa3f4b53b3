//! `[governance]` of `cluster.toml`.

use std::path::Path;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, Period};
use serde::{Deserialize, Serialize};

use crate::constitution::chain::RootKeys;
use crate::constitution::note::NoteKey;
use crate::gate::{DefenceConfig, DlpStages};
use crate::identity::IdentityConfig;
use crate::keys::KeysConfig;
use crate::ledger::LedgerConfig;
use crate::moderation::ModeratorConfig;
use crate::policy::PolicyConfig;
use crate::tlog::TlogConfig;

/// A node hears of its cluster about twice a second; less than this would refuse for a beat that was late.
const STALE_AFTER_MIN: Duration = Duration::from_secs(2);

/// What stands for the program's own files where a folder may be named.
pub const EMBEDDED: &str = "embedded";

/// The constitution, and the parts of governance, a section each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GovernanceConfig {
    /// `[governance.defence]`
    pub defence: DefenceConfig,
    /// `[governance.dlp]`
    pub dlp: DlpStages,
    /// Folder of the constitution, or [`EMBEDDED`].
    pub constitution: String,
    /// Who may sign it, `name+hash+key` each; asked for with a folder.
    pub root_keys: Vec<String>,
    /// How many of them must have.
    pub root_threshold: usize,
    /// How long a node goes by its copies of accounts and policies without hearing that they are current.
    pub stale_after: Period,
    /// `[governance.identity]`
    pub identity: IdentityConfig,
    /// `[governance.moderation]`
    pub moderation: ModeratorConfig,
    /// `[governance.ledger]`
    pub ledger: LedgerConfig,
    /// `[governance.keys]`
    pub keys: KeysConfig,
    /// `[governance.policy]`
    pub policy: PolicyConfig,
    /// `[governance.tlog]`
    pub tlog: TlogConfig,
}

impl Default for GovernanceConfig {
    fn default() -> Self {
        Self {
            constitution: EMBEDDED.to_owned(),
            root_keys: Vec::new(),
            root_threshold: 1,
            stale_after: Duration::from_secs(30).into(),
            ledger: LedgerConfig::default(),
            defence: DefenceConfig::default(),
            dlp: DlpStages::default(),
            identity: IdentityConfig::default(),
            moderation: ModeratorConfig::default(),
            keys: KeysConfig::default(),
            policy: PolicyConfig::default(),
            tlog: TlogConfig::default(),
        }
    }
}

impl GovernanceConfig {
    /// Checks the rules that types do not say.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.stale_after.get() < STALE_AFTER_MIN {
            return Err(ConfigError::invalid("governance.stale_after", format!("is at least {STALE_AFTER_MIN:?}")));
        }
        self.defence.validate()?;
        self.dlp.validate()?;
        self.roots()?;
        self.identity.validate()?;
        self.moderation.validate()?;
        self.ledger.validate()?;
        self.keys.validate()?;
        self.policy.validate()?;
        self.tlog.validate()
    }

    /// The folder of the constitution; none for the program's own.
    #[must_use]
    pub fn constitution_dir(&self) -> Option<&Path> {
        (self.constitution != EMBEDDED).then(|| Path::new(&self.constitution))
    }

    /// Who signs the constitution of a folder; none for the program's own.
    ///
    /// # Errors
    /// A key that is none, a number of them that cannot sign, a folder without keys.
    pub fn roots(&self) -> Result<Option<RootKeys>, ConfigError> {
        let key = "governance.root_keys";
        let read = |text: &String| {
            text.parse::<NoteKey>().map_err(|error| ConfigError::invalid(key, format!("`{text}`: {error}")))
        };
        let keys = self.root_keys.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if self.constitution_dir().is_none() && keys.is_empty() {
            return Ok(None);
        }
        let many = |error: crate::constitution::chain::SignatureReason| ConfigError::invalid(key, error.to_string());
        RootKeys::try_new(keys, self.root_threshold).map(Some).map_err(many)
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
    fn a_folder_of_a_constitution_wants_keys_that_are_some() {
        let config = |text: &str| toml::from_str::<GovernanceConfig>(text).unwrap();
        assert_eq!(GovernanceConfig::default().roots().unwrap(), None);
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let good = config(&format!("constitution = \"/etc/village\"\nroot_keys = [\"{key}\"]"));
        assert!(good.roots().unwrap().is_some());
        assert_eq!(good.constitution_dir(), Some(Path::new("/etc/village")));
        for bad in [
            "constitution = \"/etc/village\"".to_owned(),
            "root_keys = [\"me\"]".to_owned(),
            format!("root_keys = [\"{key}\"]\nroot_threshold = 2"),
            format!("root_keys = [\"{key}\"]\nroot_threshold = 0"),
            format!("root_keys = [\"{key}\", \"{key}\"]"),
        ] {
            assert!(config(&bad).validate().unwrap_err().to_string().contains("governance.root_keys"), "{bad}");
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
