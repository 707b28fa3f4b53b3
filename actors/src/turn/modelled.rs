//! The part of a turn that a model plans or writes.

use aivillage_governance::gate::Denied;
use aivillage_runtime::CallError;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Draft, Ended, Turn};
use crate::answer::{Evidence, Finish, TurnEvent};
use crate::conversation::{Conversation, ConversationMsg, HistoryQuery, Role};
use crate::model::{ModelActor, ModelMsg};
use crate::planner::llm;
use crate::provider::openai::{GenRequest, Generation};
use crate::tools::ToolError;
use crate::wire::openai::{ChatMessage, Content, ToolCall, ToolSpec, Usage};

/// Messages of the conversation that a model reads.
const HISTORY: u32 = 20;
/// Calls carried out of one generation.
const MAX_CALLS_PER_STEP: usize = 4;
/// Characters of a tool's result that a model reads.
const MAX_RESULT_CHARS: usize = 16_000;

/// A dialogue with a model, in the making.
struct Dialogue {
    messages: Vec<ChatMessage>,
    usage: Usage,
    nonce: String,
}

impl Turn {
    /// Lets a model plan with native tool calls. An error means that it gave nothing; the next provider is tried.
    pub(super) async fn by_model(&mut self, provider: &str) -> Result<Draft, CallError> {
        let mut dialogue = self.dialogue().await;
        let functions = llm::functions(&self.spec, &self.shared.tools);
        let max_steps = self.config.turn.max_steps.min(self.spec.workflow.max_steps);
        let mut finish = Finish::Stop;
        for _ in 0..max_steps {
            let made = self.generate(provider, &mut dialogue, functions.clone()).await?;
            if made.tool_calls.is_empty() {
                return Ok(self.modelled(provider, &made, finish, dialogue.usage));
            }
            self.carry_out_calls(&mut dialogue, made).await;
            if self.looping {
                finish = Finish::LoopDetected;
                break;
            }
        }
        if finish == Finish::Stop {
            finish = Finish::Limit;
        }
        // Without tools the model can only answer from what it knows by now.
        let made = self.generate(provider, &mut dialogue, Vec::new()).await?;
        Ok(self.modelled(provider, &made, finish, dialogue.usage))
    }

    /// Lets a model write the answer to `question` from `passages`.
    pub(super) async fn written(
        &mut self,
        provider: &str,
        question: &str,
        passages: &[Evidence],
    ) -> Result<Draft, CallError> {
        let mut dialogue = self.dialogue().await;
        let first = self.evidence.len().saturating_sub(passages.len()) + 1;
        let shown = llm::passages(passages, first, &dialogue.nonce);
        dialogue.messages.pop();
        dialogue.messages.push(ChatMessage::text("user", format!("{shown}\n\n{question}")));
        let made = self.generate(provider, &mut dialogue, Vec::new()).await?;
        Ok(self.modelled(provider, &made, Finish::Stop, dialogue.usage))
    }

    async fn dialogue(&mut self) -> Dialogue {
        let mut messages = vec![llm::system_prompt(&self.spec)];
        if let Some(id) = &self.request.conversation {
            let addr = self.village.addr::<Conversation>(format!("{}:{id}", self.tenant));
            // A conversation that cannot be read costs context, not the answer.
            let said = addr.query(|reply| ConversationMsg::History(HistoryQuery { limit: HISTORY }, reply)).await;
            let said = said.unwrap_or_default();
            // What an agent said may repeat a tool or a stranger of an earlier turn.
            self.tainted |= said.iter().any(|message| message.role == Role::Agent);
            messages.extend(llm::history(&said));
        }
        messages.push(ChatMessage::text("user", self.request.input.clone()));
        Dialogue { messages, usage: Usage::default(), nonce: Uuid::now_v7().simple().to_string() }
    }

    async fn generate(
        &mut self,
        provider: &str,
        dialogue: &mut Dialogue,
        tools: Vec<ToolSpec>,
    ) -> Result<Generation, CallError> {
        let started = Instant::now();
        let request = GenRequest {
            messages: dialogue.messages.clone(),
            tools,
            temperature: Some(self.spec.workflow.temperature),
            max_tokens: Some(self.config.turn.max_tokens),
            stream_to: self.request.stream_to.clone(),
        };
        let made = self.village.addr::<ModelActor>(provider).ask(|reply| ModelMsg::Generate(request, reply)).await;
        let detail = match &made {
            Ok(made) => format!("{} characters, {} calls", made.text.chars().count(), made.tool_calls.len()),
            Err(error) => error.to_string(),
        };
        let ended = Ended { ok: made.is_ok(), since: started, detail: &detail };
        self.step("generate", Some(provider), None, ended).await;
        if let Err(error) = &made
            && Denied::is_one(error)
        {
            self.withheld = Some(error.clone());
        }
        let made = made?;
        dialogue.usage.prompt_tokens += made.usage.prompt_tokens;
        dialogue.usage.completion_tokens += made.usage.completion_tokens;
        dialogue.usage.total_tokens += made.usage.total_tokens;
        Ok(made)
    }

    /// Carries out the calls and puts the results into the dialogue.
    async fn carry_out_calls(&mut self, dialogue: &mut Dialogue, made: Generation) {
        let calls: Vec<ToolCall> =
            made.tool_calls.into_iter().take(MAX_CALLS_PER_STEP).enumerate().map(identified).collect();
        let content = Some(made.text).filter(|text| !text.is_empty()).map(Content::Text);
        let asked =
            ChatMessage { role: "assistant".to_owned(), content, tool_calls: calls.clone(), ..ChatMessage::default() };
        dialogue.messages.push(asked);
        for call in calls {
            let result = self.carry_out_call(&call, &dialogue.nonce).await;
            let content = Some(Content::Text(result.chars().take(MAX_RESULT_CHARS).collect()));
            let told =
                ChatMessage { role: "tool".to_owned(), content, tool_call_id: call.id, ..ChatMessage::default() };
            dialogue.messages.push(told);
        }
    }

    async fn carry_out_call(&mut self, call: &ToolCall, nonce: &str) -> String {
        let Some(tool) = llm::tool_named(&call.function.name, &self.shared.tools).map(|tool| tool.name) else {
            return format!("there is no tool `{}`", call.function.name);
        };
        let text = if call.function.arguments.trim().is_empty() { "{}" } else { &call.function.arguments };
        let args: Result<Value, ToolError> = serde_json::from_str(text)
            .map_err(|error| ToolError::BadArgs { pointer: String::new(), detail: error.to_string() });
        let done = match args {
            Ok(args) => self.call_tool(tool, args).await,
            Err(error) => Err(error),
        };
        match done {
            Err(error) => format!("error: {error}"),
            Ok(mut seen) => {
                // Another agent's citations are proofs like own passages.
                let cited = seen.answer.take().map(|answer| answer.citations).unwrap_or_default();
                seen.evidence.extend(cited.into_iter().map(evidence_of));
                if seen.evidence.is_empty() {
                    return seen.text;
                }
                self.tell(TurnEvent::Retrieved { n: u32::try_from(seen.evidence.len()).unwrap_or(u32::MAX) }).await;
                let shown = llm::passages(&seen.evidence, self.evidence.len() + 1, nonce);
                self.evidence.extend(seen.evidence);
                shown
            }
        }
    }

    fn modelled(&self, provider: &str, made: &Generation, finish: Finish, usage: Usage) -> Draft {
        let (text, citations) = llm::cited(&made.text, &self.evidence);
        let draft = Draft {
            answerable: !text.is_empty() && (self.evidence.is_empty() || !citations.is_empty()),
            text,
            citations,
            provider: provider.to_owned(),
            finish: if made.cut { Finish::Cut } else { finish },
            usage: Some(usage).filter(|usage| usage.total_tokens > 0),
        };
        self.checked(draft)
    }
}

/// Servers that leave out the id of a call still want one back.
fn identified((at, mut call): (usize, ToolCall)) -> ToolCall {
    call.id.get_or_insert_with(|| format!("call_{at}"));
    call.kind = Some("function".to_owned());
    call.index = None;
    call
}

fn evidence_of(citation: crate::answer::Citation) -> Evidence {
    Evidence {
        collection: citation.collection,
        doc: citation.doc,
        title: citation.title,
        text: citation.quote,
        span: citation.span,
        url: citation.url,
        trust: citation.trust,
    }
}
