//! The whole village in one process, and the short way to its parts.

use aivillage_actors::{Agents, Answer, AskRequest, ConversationData, SpecError};
use aivillage_governance::dlp::TokenData;
use aivillage_governance::{Governance, InstallError};
use aivillage_memory::Memory;
use aivillage_runtime::{CallError, Village, VillageBuilder};

/// The tenant of a village that runs for one person.
pub const LOCAL_TENANT: &str = "local";

/// Why a village cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum FullError {
    /// An agent's spec file cannot be used.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Policies or constitution cannot be hosted.
    #[error(transparent)]
    Governance(#[from] InstallError),
}

/// Adds governance, memory, agents and what the HTTP edge keeps, as `village up` does. To serve HTTP too, see [`governed`].
///
/// # Errors
/// See [`FullError`].
pub fn full(builder: VillageBuilder) -> Result<VillageBuilder, FullError> {
    governed(builder).map(|(builder, _)| builder)
}

/// The same for a village that serves HTTP: start [`Edge`](aivillage_edge::Edge) on it with the [`Governance`] it gets.
///
/// # Errors
/// See [`FullError`].
pub fn governed(builder: VillageBuilder) -> Result<(VillageBuilder, Governance), FullError> {
    let (builder, governance) = aivillage_governance::install(builder)?;
    governance.owners.add(ConversationData);
    governance.owners.add(TokenData);
    let builder = aivillage_edge::install(aivillage_actors::install(aivillage_memory::install(builder))?);
    Ok((builder, governance))
}

/// The short way to agents and memory of the local tenant.
pub trait VillageExt {
    /// An agent by its id.
    fn agent(&self, id: impl Into<String>) -> Agent;

    /// The memory.
    fn memory(&self) -> Memory;
}

impl VillageExt for Village {
    fn agent(&self, id: impl Into<String>) -> Agent {
        Agent { agents: Agents::new(self, LOCAL_TENANT), id: id.into() }
    }

    fn memory(&self) -> Memory {
        Memory::new(self, LOCAL_TENANT)
    }
}

/// One agent, ready to be asked.
#[derive(Debug, Clone)]
pub struct Agent {
    agents: Agents,
    id: String,
}

impl Agent {
    /// Asks in a new conversation.
    ///
    /// # Errors
    /// `App` with code `agent_unknown` when nobody has this id; any other [`CallError`].
    pub async fn ask(&self, input: impl Into<String>) -> Result<Answer, CallError> {
        self.request(AskRequest { input: input.into(), ..AskRequest::default() }).await
    }

    /// Goes on with a conversation.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub async fn ask_in(&self, conversation: &str, input: impl Into<String>) -> Result<Answer, CallError> {
        let conversation = Some(conversation.to_owned());
        self.request(AskRequest { input: input.into(), conversation, ..AskRequest::default() }).await
    }

    /// Asks with all options.
    ///
    /// # Errors
    /// As [`Agent::ask`].
    pub async fn request(&self, request: AskRequest) -> Result<Answer, CallError> {
        self.agents.ask(&self.id, request).await
    }
}
