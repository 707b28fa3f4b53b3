//! `[governance.defence]`, and what the data-loss layer does at each stage: `[governance.dlp]`.

use std::num::NonZeroU32;

use aivillage_runtime::config::{ConfigError, Rate, RateUnit};
use serde::{Deserialize, Serialize};

use crate::dlp::{Action, DataKind, DlpConfig, Profile};
use crate::limits::{self, LimitsConfig};
use crate::moderation::Stage;

/// `[governance.defence]` of `cluster.toml`: how often somebody may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefenceConfig {
    /// Requests of one address; loopback addresses are exempt, since everything on this machine shares them.
    pub ip: Rate,
    /// Requests of one principal that may change something.
    pub principal: Rate,
    /// Requests of one tenant.
    pub tenant: Rate,
    /// Keys that each limit tells apart at once.
    pub keys: u32,
    /// Principals that the limits by principal and tenant do not count, `tenant/subject`.
    pub exempt: Vec<String>,
}

impl Default for DefenceConfig {
    fn default() -> Self {
        Self {
            ip: rate(50, RateUnit::Second, 100),
            principal: rate(100, RateUnit::Minute, 20),
            tenant: rate(1_000, RateUnit::Second, 1_000),
            keys: 100_000,
            exempt: vec!["local/admin".to_owned()],
        }
    }
}

fn rate(count: u32, per: RateUnit, burst: u32) -> Rate {
    let some = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Rate { count: some(count), per, burst: some(burst) }
}

impl DefenceConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.keys == 0 {
            return Err(ConfigError::invalid("governance.defence.keys", "must be at least 1"));
        }
        let is_name = |name: &&String| name.split_once('/').is_some_and(|(of, who)| !of.is_empty() && !who.is_empty());
        match self.exempt.iter().find(|name| !is_name(name)) {
            Some(name) => Err(ConfigError::invalid(
                "governance.defence.exempt",
                format!("{name:?} is not `tenant/subject`, such as \"local/admin\""),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn limits(&self) -> LimitsConfig {
        let rate = |rate: Rate| {
            let per_ms = u32::try_from(rate.per.duration().as_millis()).ok().and_then(NonZeroU32::new);
            limits::Rate { count: rate.count, per_ms: per_ms.unwrap_or(NonZeroU32::MAX), burst: rate.burst }
        };
        LimitsConfig {
            ip: rate(self.ip),
            principal: rate(self.principal),
            tenant: rate(self.tenant),
            keys: NonZeroU32::new(self.keys).unwrap_or(NonZeroU32::MIN),
            ..LimitsConfig::default()
        }
    }
}

/// What happens to personal and secret data at a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// It is not looked for.
    Off,
    /// It is counted. Verification values of cards are dropped all the same.
    #[default]
    Detect,
    /// What `redact` names is taken out.
    Redact,
    /// Content with what `redact` names does not pass.
    Block,
}

/// `[governance.dlp]` of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DlpStages {
    /// What is looked for and counted.
    pub detect: Vec<Profile>,
    /// What is taken out, or held back, where a stage says so.
    pub redact: Vec<Profile>,
    /// Findings below this score are left, 50 to 100.
    pub min_score: u8,
    /// From a person.
    pub user_input: Treatment,
    /// To an agent from another.
    pub agent_input: Treatment,
    /// From an agent.
    pub agent_output: Treatment,
    /// Into a tool.
    pub tool_call: Treatment,
    /// Out of a tool.
    pub tool_result: Treatment,
    /// Into memory.
    pub memory_write: Treatment,
    /// A question to memory.
    pub memory_read: Treatment,
    /// Published, proposed, or sent to other nodes' owners.
    pub public_post: Treatment,
}

impl Default for DlpStages {
    fn default() -> Self {
        Self {
            detect: vec![Profile::Pii, Profile::Pan, Profile::Secrets],
            redact: vec![Profile::Pan, Profile::Secrets],
            min_score: DlpConfig::default().min_score,
            user_input: Treatment::Detect,
            agent_input: Treatment::Detect,
            agent_output: Treatment::Detect,
            tool_call: Treatment::Detect,
            tool_result: Treatment::Detect,
            memory_write: Treatment::Redact,
            memory_read: Treatment::Detect,
            public_post: Treatment::Redact,
        }
    }
}

impl DlpStages {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Without them the codes of cards would not be found, which are dropped wherever they are.
        if !self.detecting().has(DataKind::Cvv) {
            return Err(ConfigError::invalid("governance.dlp.detect", "must have \"pan\", for the codes of cards"));
        }
        self.detecting().validate().map_err(|error| ConfigError::invalid("governance.dlp", error.to_string()))
    }

    /// What is done at a stage.
    #[must_use]
    pub fn at(&self, stage: Stage) -> Treatment {
        match stage {
            Stage::UserInput => self.user_input,
            Stage::AgentInput => self.agent_input,
            Stage::AgentOutput => self.agent_output,
            Stage::ToolCall => self.tool_call,
            Stage::ToolResult | Stage::FogResult => self.tool_result,
            Stage::MemoryWrite => self.memory_write,
            Stage::MemoryRead => self.memory_read,
            Stage::PublicPost | Stage::Proposal | Stage::FogSubmit | Stage::ModelArtifact => self.public_post,
        }
    }

    pub(super) fn detecting(&self) -> DlpConfig {
        DlpConfig { profiles: self.detect.clone(), min_score: self.min_score, ..DlpConfig::default() }
    }

    /// Placeholders and no tokens: what the gate takes out is in no vault.
    pub(super) fn redacting(&self) -> DlpConfig {
        let actions = [(DataKind::Pan, Action::Redact), (DataKind::Date, Action::Redact)].into();
        DlpConfig { profiles: self.redact.clone(), min_score: self.min_score, actions, ..DlpConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default_and_unknown_keys_are_refused() {
        assert_eq!(toml::from_str::<DefenceConfig>("").unwrap(), DefenceConfig::default());
        assert_eq!(toml::from_str::<DlpStages>("").unwrap(), DlpStages::default());
        assert!(toml::from_str::<DefenceConfig>("ips = 1").is_err());
        assert!(toml::from_str::<DlpStages>("user = 'off'").is_err());
        DefenceConfig::default().validate().unwrap();
        DlpStages::default().validate().unwrap();
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_key() {
        let refused = |config: DefenceConfig| config.validate().unwrap_err().to_string();
        assert!(refused(DefenceConfig { keys: 0, ..Default::default() }).contains("governance.defence.keys"));
        for name in ["admin", "/admin", "local/"] {
            let config = DefenceConfig { exempt: vec![name.to_owned()], ..Default::default() };
            assert!(refused(config).contains("governance.defence.exempt"), "{name}");
        }
        let error = DlpStages { min_score: 10, ..Default::default() }.validate().unwrap_err().to_string();
        assert!(error.contains("governance.dlp"), "{error}");
        let blind = DlpStages { detect: vec![Profile::Secrets], ..Default::default() };
        assert!(blind.validate().unwrap_err().to_string().contains("governance.dlp.detect"));
    }

    #[test]
    fn limits_are_those_of_the_section() {
        let limits = DefenceConfig { principal: rate(6, RateUnit::Minute, 2), ..Default::default() }.limits();
        let rate = limits.principal;
        assert_eq!((rate.count.get(), rate.per_ms.get(), rate.burst.get()), (6, 60_000, 2));
        assert_eq!(DefenceConfig::default().limits(), LimitsConfig::default());
    }
}
