//! What is asked and what is answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::taxonomy::{Action, Category, Level};

/// Longest text that is checked, bytes.
pub const TEXT_BYTES: usize = 1024 * 1024;

/// Where content is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From a person.
    #[default]
    UserInput,
    /// To an agent from another.
    AgentInput,
    /// From an agent.
    AgentOutput,
    /// Into a tool.
    ToolCall,
    /// Out of a tool.
    ToolResult,
    /// Into memory.
    MemoryWrite,
    /// Out of memory.
    MemoryRead,
    /// Into the fog.
    FogSubmit,
    /// Out of the fog.
    FogResult,
    /// A model or its data.
    ModelArtifact,
    /// A proposal to vote on.
    Proposal,
    /// Published.
    PublicPost,
}

impl Stage {
    /// Its stable code, the same as in JSON.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UserInput => "user_input",
            Self::AgentInput => "agent_input",
            Self::AgentOutput => "agent_output",
            Self::ToolCall => "tool_call",
            Self::ToolResult => "tool_result",
            Self::MemoryWrite => "memory_write",
            Self::MemoryRead => "memory_read",
            Self::FogSubmit => "fog_submit",
            Self::FogResult => "fog_result",
            Self::ModelArtifact => "model_artifact",
            Self::Proposal => "proposal",
            Self::PublicPost => "public_post",
        }
    }

    /// Whether the content is of whoever sends it, and not what a tool or an agent says to them.
    #[must_use]
    pub const fn is_senders(self) -> bool {
        matches!(self, Self::UserInput | Self::MemoryWrite | Self::FogSubmit | Self::Proposal | Self::PublicPost)
    }

    /// Whether content does not go there before it is judged: what is kept, sent off or published stays.
    #[must_use]
    pub const fn must_be_judged(self) -> bool {
        matches!(self, Self::MemoryWrite | Self::FogSubmit | Self::PublicPost)
    }
}

/// A content to be checked. Who sends it, for which tenant and in which tier has no say in the verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The text.
    pub content: String,
    /// Where it is on its way.
    #[serde(default)]
    pub stage: Stage,
    /// Whose it is.
    #[serde(default)]
    pub tenant: String,
    /// The tenant's tier.
    #[serde(default)]
    pub tier: String,
    /// Whether it came from outside the sender's trust.
    #[serde(default)]
    pub taint: bool,
}

/// A text was not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
pub enum CheckError {
    /// Too long.
    #[error("the text has {bytes} bytes, at most 1 MiB are checked")]
    TooLong {
        /// Its size.
        bytes: u64,
    },
}

/// Why a category was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// First byte in the content.
    pub start: u32,
    /// Byte behind the last one.
    pub end: u32,
    /// The rule's id, `model` for words that weighed most, `hash-list`.
    pub by: String,
}

/// A score of a category.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// The category.
    pub category: Category,
    /// Probability, 0 to 1.
    pub p: f32,
}

/// The judgement on a content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// What becomes of it.
    pub action: Action,
    /// For which category, unless it simply passes.
    pub category: Option<Category>,
    /// How grave that is.
    pub level: Option<Level>,
    /// The constitution's article that a restriction cites.
    pub article: Option<String>,
    /// The rule that decided, if none but a model did.
    pub rule: Option<String>,
    /// Probability of the category that decided, else of the likeliest.
    pub p: f32,
    /// The layers were not sure or not of one mind.
    pub is_uncertain: bool,
    /// The sender may be at risk: show where help is.
    pub support: bool,
    /// Actionable categories that are at least uncertain, the likeliest first.
    pub scores: Vec<Score>,
    /// Viewpoints that the text expresses. No part of any decision.
    pub labels: Vec<Category>,
    /// Where it is seen.
    pub evidence: Vec<Evidence>,
    /// First bytes of the model's manifest hash, hex.
    pub model: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict {
            action: Action::Block,
            category: Some(Category::Extortion),
            level: Some(Level::H1),
            article: Some("A1.2".into()),
            rule: None,
            p: 0.75,
            is_uncertain: false,
            support: false,
            scores: vec![Score { category: Category::Extortion, p: 0.75 }],
            labels: vec![Category::Protest],
            evidence: vec![Evidence { start: 1, end: 4, by: "model".into() }],
            model: "00ff".into(),
        }
    }

    #[test]
    fn verdicts_and_requests_survive_the_wire() {
        let bytes = postcard::to_allocvec(&verdict()).unwrap();
        assert_eq!(postcard::from_bytes::<Verdict>(&bytes).unwrap(), verdict());
        let bytes = rmp_serde::to_vec_named(&verdict()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Verdict>(&bytes).unwrap(), verdict());
        let request = CheckRequest { content: "x".into(), taint: true, ..CheckRequest::default() };
        let bytes = rmp_serde::to_vec_named(&request).unwrap();
        assert_eq!(rmp_serde::from_slice::<CheckRequest>(&bytes).unwrap(), request);
    }
}
