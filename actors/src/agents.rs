//! The front of this crate: hosts the agents and talks to them.

use std::sync::Arc;

use aivillage_runtime::{CallError, Village, VillageBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::agent::{self, Agent, AgentMsg, AskRequest, Shared, ToolRequest, agent_key};
use crate::answer::Answer;
use crate::config::{AgentsConfig, EXTRACTIVE};
use crate::conversation::{self, Conversation, ConversationMsg, HistoryQuery, Message};
use crate::model::ModelActor;
use crate::planner::intents::{Classifier, Example, embedded};
use crate::planner::rule::RulePlanner;
use crate::roster::{self, RosterActor, RosterMsg};
use crate::spec::{AgentCard, Roster, SpecError, check_intents};
use crate::spoken::{Spoken, SpokenView};
use crate::tools::{Tool, ToolSet};

/// Folder of the data directory with further specs.
const SPEC_DIR: &str = "agents";

/// Hosts the agents, built in and from `<data>/agents/*.toml`, and exposes their messages.
///
/// # Errors
/// A spec or `[agents]` does not fit; the error names file and key.
pub fn install(builder: VillageBuilder) -> Result<VillageBuilder, SpecError> {
    Setup::new().install(builder)
}

/// What is hosted, for programs that bring their own tools.
#[derive(Debug)]
pub struct Setup {
    tools: ToolSet,
    examples: Vec<Example>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// The tools that come with the village.
    #[must_use]
    pub fn new() -> Self {
        Self { tools: ToolSet::built_in(), examples: Vec::new() }
    }

    /// Adds a tool, with utterances by which the rules recognise it. Specs in the data directory may then list it.
    #[must_use]
    pub fn tool<T: Tool>(mut self, utterances: &[&str]) -> Self {
        self.tools = self.tools.with::<T>();
        let example = |text: &&str| Example { text: (*text).to_owned(), tool: T::NAME.to_owned(), held_out: false };
        self.examples.extend(utterances.iter().map(example));
        self
    }

    /// Hosts the agents and exposes their messages.
    ///
    /// # Errors
    /// As [`install`].
    pub fn install(self, builder: VillageBuilder) -> Result<VillageBuilder, SpecError> {
        check_config(&builder)?;
        let dir = builder.data_path().map(|dir| dir.join(SPEC_DIR));
        let roster = Roster::load(dir.as_deref(), &self.tools)?;
        check_intents(&self.tools)?;
        let mut examples = embedded().map_err(|error| SpecError::Intents(error.to_string()))?;
        examples.extend(self.examples);
        let ids: Vec<String> = roster.iter().map(|spec| spec.id.clone()).collect();
        let rules = RulePlanner::new(Classifier::new(&examples, ids.clone()), ids);
        let shared = Arc::new(Shared { roster, tools: self.tools, rules });
        let (listed, spoken) = (shared.clone(), Spoken::default());
        Ok(builder
            .provide(spoken.clone())
            .replica_view::<Conversation, SpokenView>(move |group| spoken.view(group))
            .host(|_| Conversation)
            .host(|_| ModelActor)
            .host(move |_| RosterActor { shared: listed.clone() })
            .host(move |_| Agent { shared: shared.clone() })
            .expose::<Conversation>(conversation::EXPOSED)
            .expose::<RosterActor>(roster::EXPOSED)
            .expose::<Agent>(agent::EXPOSED))
    }
}

fn check_config(builder: &VillageBuilder) -> Result<(), SpecError> {
    let fault = |detail: String| SpecError::Shape { file: "[agents]".to_owned(), detail };
    let section = builder.table().get("agents").cloned().unwrap_or_else(|| toml::Value::Table(toml::Table::new()));
    let config: AgentsConfig = section.try_into().map_err(|error: toml::de::Error| fault(error.to_string()))?;
    config.validate().map_err(|error| fault(error.to_string()))
}

/// A provider or model as it is shown to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// Id for `provider` of an ask: `extractive` or `openai:<name>`.
    pub id: String,
    /// The model behind it; none for `extractive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether it plans with tools.
    pub tools: bool,
    /// Tokens it can read; none where that does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
}

/// The agents of one tenant. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct Agents {
    village: Village,
    tenant: String,
}

impl Agents {
    /// The agents of `tenant`.
    #[must_use]
    pub fn new(village: &Village, tenant: impl Into<String>) -> Self {
        Self { village: village.clone(), tenant: tenant.into() }
    }

    /// The cards of all agents, sorted by id.
    ///
    /// # Errors
    /// As [`aivillage_runtime::Addr::ask`].
    pub async fn list(&self) -> Result<Vec<AgentCard>, CallError> {
        self.village.addr::<RosterActor>("").query(RosterMsg::List).await
    }

    /// The card of one agent.
    ///
    /// # Errors
    /// `agent_unknown` names the nearest ids.
    pub async fn card(&self, id: &str) -> Result<AgentCard, CallError> {
        self.village.addr::<RosterActor>("").query(|reply| RosterMsg::Card(id.to_owned(), reply)).await
    }

    /// Asks an agent. Without a deadline of the caller the time limit of a turn holds.
    ///
    /// # Errors
    /// `agent_unknown`, `overloaded`, `bad_request`, `payload_too_large`, `model_not_found`, `model_unavailable`, and those of
    /// [`aivillage_runtime::Addr::ask`].
    pub async fn ask(&self, id: &str, mut request: AskRequest) -> Result<Answer, CallError> {
        let addr = self.village.addr::<Agent>(self.known(id).await?);
        // A little longer than the turn itself, so that a turn that runs out of time can still say so.
        let limit = self.config().turn.timeout.get() + std::time::Duration::from_secs(5);
        // Named, so that it can be sent again when its node dies.
        request.turn.get_or_insert_with(Uuid::now_v7);
        addr.call().deadline(limit).repeatable().ask(|reply| AgentMsg::Ask(request, reply)).await
    }

    /// Calls one of an agent's tools.
    ///
    /// # Errors
    /// The tool's code: `tool_denied`, `tool_bad_args`, `not_found`, `tool_unavailable`, `tool_timeout`, `tool_panicked`, or its own.
    pub async fn call_tool(&self, id: &str, tool: &str, args: Value) -> Result<Value, CallError> {
        let addr = self.village.addr::<Agent>(self.known(id).await?);
        let request = ToolRequest { tool: tool.to_owned(), args };
        addr.ask(|reply| AgentMsg::CallTool(request, reply)).await
    }

    /// The newest messages of a conversation, oldest first.
    ///
    /// # Errors
    /// As [`aivillage_runtime::Addr::ask`].
    pub async fn history(&self, conversation: &str, limit: u32) -> Result<Vec<Message>, CallError> {
        let addr = self.village.addr::<Conversation>(agent_key(&self.tenant, conversation));
        addr.query(|reply| ConversationMsg::History(HistoryQuery { limit }, reply)).await
    }

    /// The providers an ask may name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelInfo> {
        let extractive = ModelInfo { id: EXTRACTIVE.to_owned(), model: None, tools: false, context: None };
        let config = self.config();
        let configured = config.providers.iter().filter(|provider| !provider.base_url.is_empty());
        let endpoints = configured.map(|provider| ModelInfo {
            id: provider.id.clone(),
            model: Some(provider.model.clone()),
            tools: provider.tools,
            context: Some(provider.context),
        });
        std::iter::once(extractive).chain(endpoints).collect()
    }

    /// The agent's key; an unknown id must not start an activation.
    async fn known(&self, id: &str) -> Result<String, CallError> {
        self.card(id).await.map(|card| agent_key(&self.tenant, &card.id))
    }

    fn config(&self) -> AgentsConfig {
        // The section was read at the start; a later one that does not fit was refused.
        self.village.config("agents").unwrap_or_default()
    }
}
