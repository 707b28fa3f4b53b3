//! `self.remember` and `self.recall`: the agent's own notes for the tenant, kept by its actor.

use aivillage_runtime::Idem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use crate::agent::{Agent, AgentMsg, NoteText, RecallQuery, agent_key};
use crate::personal::Note;
use crate::planner::slots::SlotKind;

/// Notes told at once.
const DEFAULT_LIMIT: u32 = 5;

/// Keeps a note.
#[derive(Debug)]
pub struct Remember;

/// Arguments of [`Remember`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RememberArgs {
    /// What to remember.
    #[schemars(length(min = 1, max = 8192))]
    pub text: String,
}

impl Tool for Remember {
    const NAME: &'static str = "self.remember";
    const ACTION: &'static str = "agent.self";
    // Its own notes alone: no other agent and no tenant sees them.
    const CLASS: Class = Class::Write;
    const ABOUT: &'static str = "Keeps a fact that the user asks to remember, for this agent and user group only.";
    const SLOTS: &'static [Slot] =
        &[Slot { arg: "text", kind: SlotKind::Note, required: true, ask: "what shall I remember?" }];
    const IS_GATED: bool = true;
    type Args = RememberArgs;
    type Out = Note;

    async fn call(cx: ToolCx, args: RememberArgs) -> Result<Note, ToolError> {
        let addr = cx.village.addr::<Agent>(agent_key(&cx.tenant, &cx.agent.id));
        let note = NoteText { text: args.text };
        let call = addr.call().idem(Idem::of(&[cx.call_id.as_bytes()]));
        Ok(call.ask(|reply| AgentMsg::Remember(note, reply)).await?)
    }

    fn observe(note: Note) -> Observation {
        Observation { text: format!("noted: {}", note.text), ..Observation::default() }
    }

    fn taints(_: &Note) -> bool {
        false
    }
}

/// Finds notes.
#[derive(Debug)]
pub struct Recall;

/// Arguments of [`Recall`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecallArgs {
    /// What the notes shall be about; empty for the newest.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub text: String,
    /// Most notes.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// Result of [`Recall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecallOut {
    /// Notes, best first.
    pub notes: Vec<Note>,
}

impl Tool for Recall {
    const NAME: &'static str = "self.recall";
    const ACTION: &'static str = "agent.self";
    const CLASS: Class = Class::Read;
    const ABOUT: &'static str = "Finds what this agent was asked to remember.";
    const SLOTS: &'static [Slot] = &[
        Slot { arg: "text", kind: SlotKind::Cue, required: false, ask: "about what?" },
        Slot { arg: "limit", kind: SlotKind::Count, required: false, ask: "how many notes?" },
    ];
    type Args = RecallArgs;
    type Out = RecallOut;

    async fn call(cx: ToolCx, args: RecallArgs) -> Result<RecallOut, ToolError> {
        let addr = cx.village.addr::<Agent>(agent_key(&cx.tenant, &cx.agent.id));
        let query = RecallQuery { text: args.text, limit: args.limit.unwrap_or(DEFAULT_LIMIT) };
        let notes = addr.query(|reply| AgentMsg::Recall(query, reply)).await?;
        Ok(RecallOut { notes })
    }

    fn observe(out: RecallOut) -> Observation {
        let text = match out.notes.as_slice() {
            [] => "I have no note about this".to_owned(),
            notes => notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>().join("\n"),
        };
        Observation { text, ..Observation::default() }
    }
}
