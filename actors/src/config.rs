//! `[agents]` of `cluster.toml`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use aivillage_runtime::config::Period;
use serde::{Deserialize, Serialize};

/// The provider that needs nothing: verbatim sentences of the memory.
pub const EXTRACTIVE: &str = "extractive";

/// How agents run and which models they may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentsConfig {
    /// Providers tried in order; one that is not configured is passed over.
    pub default_chain: Vec<String>,
    /// Turns of one agent that run at once.
    pub max_turns: usize,
    /// Turns of one agent that may wait for their start; one more is refused as overloaded.
    pub max_waiting: usize,
    /// Longest time of one tool call.
    pub tool_timeout: Period,
    /// Limits of a turn.
    pub turn: TurnConfig,
    /// Personal memory of an agent.
    pub memory: PersonalConfig,
    /// Model endpoints.
    #[serde(rename = "provider")]
    pub providers: Vec<ProviderConfig>,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            default_chain: vec!["openai:main".to_owned(), EXTRACTIVE.to_owned()],
            max_turns: 64,
            max_waiting: 256,
            tool_timeout: Duration::from_secs(30).into(),
            turn: TurnConfig::default(),
            memory: PersonalConfig::default(),
            providers: Vec::new(),
        }
    }
}

/// `[agents.turn]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TurnConfig {
    /// Planner decisions.
    pub max_steps: u32,
    /// Tool calls.
    pub max_tool_calls: u32,
    /// Longest time of a turn.
    pub timeout: Period,
    /// Tokens that a model may write in one generation.
    pub max_tokens: u32,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self { max_steps: 8, max_tool_calls: 16, timeout: Duration::from_mins(2).into(), max_tokens: 4096 }
    }
}

/// `[agents.memory]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalConfig {
    /// Notes that an agent keeps for one tenant; a further one displaces the oldest.
    pub max_entries: usize,
}

impl Default for PersonalConfig {
    fn default() -> Self {
        Self { max_entries: 500 }
    }
}

/// `[[agents.provider]]`: an endpoint that speaks the `OpenAI` chat protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderConfig {
    /// Name used in chains and model ids: `openai:<name>`.
    pub id: String,
    /// Address up to and including `/v1`; empty means that the provider is absent.
    pub base_url: String,
    /// Model asked for.
    pub model: String,
    /// File with the API key.
    pub api_key_file: Option<PathBuf>,
    /// Environment variable with the API key, used when there is no file.
    pub api_key_env: Option<String>,
    /// Tokens the model can read.
    pub context: u32,
    /// Whether it can call tools; then it plans.
    pub tools: bool,
    /// Requests at once; more wait.
    pub max_concurrency: usize,
    /// Longest wait for the first byte and between two pieces of a stream.
    pub timeout: Period,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            id: "openai:main".to_owned(),
            base_url: String::new(),
            model: String::new(),
            api_key_file: None,
            api_key_env: None,
            context: 8192,
            tools: true,
            max_concurrency: 32,
            timeout: Duration::from_mins(1).into(),
        }
    }
}

/// Why `[agents]` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agents.{key}: {detail}")]
pub struct AgentsConfigError {
    /// The key at fault.
    pub key: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl AgentsConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first key at fault.
    pub fn validate(&self) -> Result<(), AgentsConfigError> {
        let fault = |key: &str, detail: String| Err(AgentsConfigError { key: key.to_owned(), detail });
        for (key, number) in [
            ("max_turns", self.max_turns),
            ("turn.max_steps", self.turn.max_steps as usize),
            ("turn.max_tool_calls", self.turn.max_tool_calls as usize),
            ("memory.max_entries", self.memory.max_entries),
        ] {
            if number == 0 || number > 1_000_000 {
                return fault(key, format!("{number} is not 1 to 1000000"));
            }
        }
        let mut ids = HashSet::new();
        for provider in &self.providers {
            if !provider.id.starts_with("openai:") || provider.id.len() <= "openai:".len() {
                return fault("provider.id", format!("`{}` is not openai:<name>", provider.id));
            }
            if !ids.insert(provider.id.as_str()) {
                return fault("provider.id", format!("`{}` is there twice", provider.id));
            }
            let url = &provider.base_url;
            if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
                return fault("provider.base_url", format!("`{url}` is not an http or https address"));
            }
            if provider.max_concurrency == 0 {
                return fault("provider.max_concurrency", "0 would never answer".to_owned());
            }
        }
        Ok(())
    }

    /// The provider of this id, if it is configured with an address.
    #[must_use]
    pub fn provider(&self, id: &str) -> Option<&ProviderConfig> {
        self.providers.iter().find(|provider| provider.id == id && !provider.base_url.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults() {
        let config: AgentsConfig = toml::from_str("").unwrap();
        assert_eq!(config, AgentsConfig::default());
        assert_eq!((config.max_turns, config.turn.max_steps, config.turn.max_tool_calls), (64, 8, 16));
        config.validate().unwrap();
    }

    #[test]
    fn faults_name_their_key() {
        for (text, expected) in [
            ("max_turns = 0", "agents.max_turns: 0 is not 1 to 1000000"),
            ("[[provider]]\nid = \"x\"", "agents.provider.id: `x` is not openai:<name>"),
            ("[[provider]]\n[[provider]]", "agents.provider.id: `openai:main` is there twice"),
            (
                "[[provider]]\nbase_url = \"ftp://x\"",
                "agents.provider.base_url: `ftp://x` is not an http or https address",
            ),
        ] {
            let config: AgentsConfig = toml::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        }
        assert!(toml::from_str::<AgentsConfig>("max_trns = 3").unwrap_err().to_string().contains("max_trns"));
    }

    #[test]
    fn a_provider_without_address_is_absent() {
        let config: AgentsConfig = toml::from_str("[[provider]]\nid = \"openai:main\"").unwrap();
        assert!(config.provider("openai:main").is_none());
    }
}
