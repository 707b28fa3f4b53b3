//! `agent.delegate`: another agent of the village answers, and its answer is passed on whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use crate::agent::{Agent, AgentMsg, AskRequest, agent_key};
use crate::answer::Answer;
use crate::planner::slots::SlotKind;

/// Agents that one request may pass; a chain that is longer goes in circles.
pub const MAX_DEPTH: u32 = 3;

/// Asks another agent.
#[derive(Debug)]
pub struct Delegate;

/// Arguments of [`Delegate`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelegateArgs {
    /// Id of the agent.
    #[schemars(length(min = 1, max = 64))]
    pub agent: String,
    /// What it shall answer.
    #[schemars(length(min = 1))]
    pub input: String,
}

/// Result of [`Delegate`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DelegateOut {
    /// The agent that answered.
    pub agent: String,
    /// Its answer.
    pub answer: Answer,
}

impl Tool for Delegate {
    const NAME: &'static str = "agent.delegate";
    const ACTION: &'static str = "agent.delegate";
    const CLASS: Class = Class::Read;
    const ABOUT: &'static str = "Lets another agent of the village answer a request.";
    const SLOTS: &'static [Slot] = &[
        Slot { arg: "agent", kind: SlotKind::Agent, required: true, ask: "which agent shall answer?" },
        Slot { arg: "input", kind: SlotKind::Errand, required: true, ask: "what shall the agent answer?" },
    ];
    const IS_GATED: bool = true;
    type Args = DelegateArgs;
    type Out = DelegateOut;

    async fn call(cx: ToolCx, args: DelegateArgs) -> Result<DelegateOut, ToolError> {
        if cx.depth >= MAX_DEPTH {
            return Err(ToolError::failed(
                "delegation_too_deep",
                &format!("the request has passed {MAX_DEPTH} agents"),
            ));
        }
        if args.agent == cx.agent.id {
            return Err(ToolError::BadArgs {
                pointer: "/agent".to_owned(),
                detail: "an agent does not delegate to itself".to_owned(),
            });
        }
        if cx.shared.roster.get(&args.agent).is_none() {
            let nearest = cx.shared.roster.nearest(&args.agent).join(", ");
            return Err(ToolError::NotFound(format!("agent `{}`; nearest: {nearest}", args.agent)));
        }
        let request =
            AskRequest { input: args.input, provider: cx.provider, depth: cx.depth + 1, ..AskRequest::default() };
        let addr = cx.village.addr::<Agent>(agent_key(&cx.tenant, &args.agent));
        let answer = addr.ask(|reply| AgentMsg::Ask(request, reply)).await?;
        Ok(DelegateOut { agent: args.agent, answer })
    }

    fn observe(out: DelegateOut) -> Observation {
        Observation { text: out.answer.answer.clone(), answer: Some(Box::new(out.answer)), ..Observation::default() }
    }

    fn taints(out: &DelegateOut) -> bool {
        out.answer.tainted
    }
}
