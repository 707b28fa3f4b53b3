//! Where a turn passes the gate: what it is asked, what goes into tools and comes out, what it answers.
//!
//! A model's words pass while they stream ([`crate::model`]), and the whole answer here once more: a stream is judged in windows.
//! What another agent or the memory is asked passes there.

use aivillage_governance::gate::{Ctx, Denied, Why};
use aivillage_governance::moderation::Stage;
use aivillage_runtime::CallError;
use serde_json::Value;

use super::{Draft, Turn};
use crate::tools::{Observation, ToolEntry, ToolError};

impl Turn {
    /// The request, as it may be worked on.
    pub(super) async fn admit_input(&mut self) -> Result<(), CallError> {
        let stage = if self.request.depth == 0 { Stage::UserInput } else { Stage::AgentInput };
        let input = std::mem::take(&mut self.request.input);
        self.request.input = self.admit(stage, input).await?;
        Ok(())
    }

    /// The answer, as it may be told and kept.
    pub(super) async fn admit_output(&self, draft: Draft) -> Result<Draft, CallError> {
        let text = self.admit(Stage::AgentOutput, draft.text).await?;
        Ok(Draft { text, ..draft })
    }

    async fn admit(&self, stage: Stage, text: String) -> Result<String, CallError> {
        let Some(gate) = &self.gate else { return Ok(text) };
        let admitted = gate.admit(stage, &self.cx(), text).await;
        admitted.map(|admission| admission.content).map_err(|denied| CallError::from(*denied))
    }

    fn cx(&self) -> Ctx {
        Ctx::current(&self.tenant).tainted(self.tainted)
    }

    /// The arguments of a call, if whoever asks may do what the tool does, in a turn with this taint.
    pub(super) async fn admit_call(&self, tool: &ToolEntry, args: Value) -> Result<Value, ToolError> {
        let Some(gate) = &self.gate else { return Ok(args) };
        gate.policies(&self.village).await;
        let cx = self.cx().act(tool.action, gate.thing(tool.action, tool.name, &self.tenant));
        let content = if tool.is_gated { String::new() } else { args.to_string() };
        let admission = gate.admit(Stage::ToolCall, &cx, content).await.map_err(|denied| refused(tool, &denied))?;
        if admission.is_redacted { parsed(&admission.content) } else { Ok(args) }
    }

    /// What came out of a tool, as it may be read.
    pub(super) async fn admit_result(&self, tool: &ToolEntry, seen: Observation) -> Result<Observation, ToolError> {
        let Some(gate) = self.gate.as_ref().filter(|_| !tool.is_gated) else { return Ok(seen) };
        let cx = self.cx();
        let value = gate.admit(Stage::ToolResult, &cx, seen.value.to_string()).await;
        let value = value.map_err(|denied| refused(tool, &denied))?;
        let text = gate.admit(Stage::ToolResult, &cx, seen.text).await;
        let text = text.map_err(|denied| refused(tool, &denied))?.content;
        let value = if value.is_redacted { parsed(&value.content)? } else { seen.value };
        Ok(Observation { value, text, ..seen })
    }
}

/// A value out of which data was taken.
fn parsed(text: &str) -> Result<Value, ToolError> {
    let detail = "protected data in it cannot be taken out without breaking it";
    serde_json::from_str(text).map_err(|_| ToolError::failed(Why::DataProtected.code(), &detail))
}

fn refused(tool: &ToolEntry, denied: &Denied) -> ToolError {
    match denied.why {
        Why::Forbidden => ToolError::Denied { action: format!("{}: {}", tool.action, denied.message) },
        why => ToolError::failed(why.code(), denied),
    }
}
