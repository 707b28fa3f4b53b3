//! One request of one agent, from the question to the recorded answer. Runs as a task of its own, outside any mailbox.
//!
//! A turn walks the chain of providers: a model that can call tools plans with them; any other plans by rules, and either a model
//! or the extractive composer writes. Every loop is bounded by `[agents.turn]`, and a limit ends in the best partial answer.

use std::collections::HashMap;
use std::sync::Arc;

use aivillage_governance::gate::Gate;
use aivillage_runtime::{AppError, CallError, Idem, MsgCx, Topic, Village, clock};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::agent::{AskRequest, Shared};
use crate::answer::{Answer, Citation, Evidence, Finish, Step, TurnEvent, check_citations};
use crate::config::{AgentsConfig, EXTRACTIVE};
use crate::conversation::{Conversation, ConversationMsg, Message, Role};
use crate::metrics::AgentMetrics;
use crate::provider::extractive;
use crate::spec::{AgentSpec, PlannerChoice};
use crate::text;
use crate::tools::{Class, Observation, ToolCx, ToolError};
use crate::wire::openai::Usage;

mod gated;
mod modelled;
mod ruled;

/// Longest request, bytes.
pub(crate) const MAX_INPUT_BYTES: usize = 64 * 1024;
/// Prefix of the topics that a turn may be told on.
pub(crate) const TOPIC_PREFIX: &str = "agents.turn.";
/// Provider named in answers that are a tool's own words.
pub(crate) const RULES: &str = "rules";
/// Characters of a result that a step shows.
const MAX_DETAIL_CHARS: usize = 200;
/// Longest name of a conversation.
const MAX_CONVERSATION_BYTES: usize = 128;

/// An answer in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) text: String,
    pub(crate) citations: Vec<Citation>,
    pub(crate) provider: String,
    pub(crate) answerable: bool,
    pub(crate) finish: Finish,
    pub(crate) usage: Option<Usage>,
}

/// The state of a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) shared: Arc<Shared>,
    pub(crate) village: Village,
    pub(crate) config: Arc<AgentsConfig>,
    pub(crate) spec: Arc<AgentSpec>,
    pub(crate) tenant: String,
    pub(crate) request: AskRequest,
    metrics: Arc<AgentMetrics>,
    id: String,
    started: Instant,
    topic: Option<Topic>,
    pub(crate) steps: Vec<Step>,
    pub(crate) evidence: Vec<Evidence>,
    tool_calls: u32,
    /// Results of calls so far, by tool and arguments.
    seen: HashMap<String, Value>,
    /// A call was repeated and gave the same result.
    pub(crate) looping: bool,
    /// The best answer so far, for the case that time runs out.
    pub(crate) partial: Option<Draft>,
    /// What all content passes; none in a village without governance.
    gate: Option<Gate>,
    /// Words from outside the caller's trust had a part in this turn. It never ends within a turn.
    pub(crate) tainted: bool,
    /// Why a model's words were withheld: nothing else answers instead.
    pub(crate) withheld: Option<CallError>,
}

/// What all turns of an agent share.
pub(crate) struct Home {
    pub(crate) shared: Arc<Shared>,
    pub(crate) village: Village,
    pub(crate) config: Arc<AgentsConfig>,
    pub(crate) metrics: Arc<AgentMetrics>,
}

/// How a step ended.
pub(crate) struct Ended<'a> {
    pub(crate) ok: bool,
    pub(crate) since: Instant,
    pub(crate) detail: &'a str,
}

impl Turn {
    pub(crate) fn new(home: Home, spec: Arc<AgentSpec>, tenant: String, request: AskRequest) -> Self {
        let Home { shared, village, config, metrics } = home;
        Self {
            topic: request.stream_to.as_ref().map(|name| village.topic(name)),
            id: request.turn.unwrap_or_else(Uuid::now_v7).to_string(),
            started: Instant::now(),
            steps: Vec::new(),
            evidence: Vec::new(),
            tool_calls: 0,
            seen: HashMap::new(),
            looping: false,
            partial: None,
            gate: Gate::of(&village),
            tainted: MsgCx::current().is_tainted(),
            withheld: None,
            shared,
            village,
            config,
            spec,
            tenant,
            request,
            metrics,
        }
    }

    /// Runs the turn to its end and tells it on the topic.
    pub(crate) async fn run(mut self) -> Result<Answer, CallError> {
        let metrics = self.metrics.clone();
        let _running = metrics.turn_started();
        let done = self.answer().await;
        let took = self.started.elapsed();
        match &done {
            Ok(answer) => {
                let (steps, citations) = (answer.steps.len() as u64, answer.citations.len() as u64);
                metrics.turn_done("ok", took, steps, citations, answer.answerable);
                for citation in &answer.citations {
                    self.tell(TurnEvent::Citation { citation: citation.clone() }).await;
                }
                self.tell(TurnEvent::Usage { usage: answer.usage }).await;
                self.tell(TurnEvent::Final { answer: Box::new(answer.clone()) }).await;
            }
            Err(error) => {
                metrics.turn_done("failed", took, self.steps.len() as u64, 0, true);
                self.tell(TurnEvent::Error { code: error.code().into_owned(), message: error.to_string() }).await;
            }
        }
        done
    }

    async fn answer(&mut self) -> Result<Answer, CallError> {
        self.check()?;
        self.admit_input().await?;
        let limit = self.config.turn.timeout.get();
        let drafted = tokio::time::timeout(limit, Box::pin(self.draft())).await;
        let draft = match drafted {
            Ok(draft) => draft?,
            Err(_) => self.out_of_time(),
        };
        if let Some(withheld) = self.withheld.take() {
            return Err(withheld);
        }
        let draft = self.admit_output(draft).await?;
        // A model's words were published as they came.
        if draft.provider == EXTRACTIVE || draft.provider == RULES {
            self.tell(TurnEvent::Delta { text: draft.text.clone() }).await;
        }
        let conversation = self.record(&draft.text).await?;
        let usage = draft.usage.unwrap_or_else(|| words(&self.request.input, &draft.text));
        Ok(Answer {
            answer: draft.text,
            citations: draft.citations,
            steps: std::mem::take(&mut self.steps),
            provider: draft.provider,
            answerable: draft.answerable,
            finish: draft.finish,
            conversation,
            usage,
            trace_id: MsgCx::current().trace().map(aivillage_runtime::TraceCx::trace_hex),
            tainted: self.tainted,
        })
    }

    fn check(&self) -> Result<(), CallError> {
        let bad = |code: &'static str, message: String| Err(AppError::new(code, message).into());
        if self.request.input.trim().is_empty() {
            return bad("bad_request", "`input` is empty".to_owned());
        }
        if self.request.input.len() > MAX_INPUT_BYTES {
            return Err(CallError::TooLarge { max: MAX_INPUT_BYTES as u64 });
        }
        if self.request.stream_to.as_ref().is_some_and(|topic| !topic.starts_with(TOPIC_PREFIX)) {
            return bad("bad_request", format!("`stream_to` does not begin with {TOPIC_PREFIX}"));
        }
        if let Some(id) = &self.request.conversation {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if id.is_empty() || id.len() > MAX_CONVERSATION_BYTES || !id.chars().all(plain) {
                return bad(
                    "bad_request",
                    format!("`conversation`: letters, digits, -_. and at most {MAX_CONVERSATION_BYTES}"),
                );
            }
        }
        if let Some(provider) = &self.request.provider
            && provider != EXTRACTIVE
            && self.config.provider(provider).is_none()
        {
            return bad("model_not_found", format!("no provider `{provider}` is configured"));
        }
        Ok(())
    }

    /// Walks the chain of providers until one gives an answer.
    async fn draft(&mut self) -> Result<Draft, CallError> {
        let mut failed: Option<CallError> = None;
        for provider in self.chain() {
            if provider == EXTRACTIVE {
                return Ok(self.by_rules(None).await);
            }
            let tools = self.config.provider(&provider).is_some_and(|provider| provider.tools);
            let plans = tools
                && self.spec.workflow.planner == PlannerChoice::Auto
                && !self.request.input.trim_start().starts_with('/');
            let drafted = if plans { self.by_model(&provider).await } else { Ok(self.by_rules(Some(&provider)).await) };
            match drafted {
                Ok(draft) => return Ok(draft),
                Err(error) if self.withheld.is_some() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed
            .unwrap_or_else(|| AppError::new("model_unavailable", "no provider of the chain is configured").into()))
    }

    /// Providers to try, in order.
    fn chain(&self) -> Vec<String> {
        let chosen = self.request.provider.clone().or_else(|| match self.spec.model.as_str() {
            "auto" => None,
            "rules" => Some(EXTRACTIVE.to_owned()),
            other => Some(other.to_owned()),
        });
        let mut chain = match chosen {
            Some(chosen) => vec![chosen],
            None => self.config.default_chain.clone(),
        };
        // A chosen model that fails is followed by what always answers; the answer names who wrote it.
        if !chain.iter().any(|provider| provider == EXTRACTIVE) && self.request.provider.is_none() {
            chain.push(EXTRACTIVE.to_owned());
        }
        chain.retain(|provider| provider == EXTRACTIVE || self.config.provider(provider).is_some());
        chain
    }

    fn out_of_time(&mut self) -> Draft {
        let mut draft = self.partial.take().unwrap_or_else(|| Draft {
            text: "the time for this request ran out before there was an answer".to_owned(),
            provider: RULES.to_owned(),
            ..Draft::default()
        });
        draft.finish = Finish::Limit;
        draft
    }

    /// Appends the exchange to its conversation; an answer is given only when it is kept.
    async fn record(&self, answer: &str) -> Result<String, CallError> {
        // The agent that the person asked keeps the conversation, not the one it asked in turn.
        if self.request.depth > 0 {
            return Ok(String::new());
        }
        // Run again it goes on in the same conversation.
        let id = self.request.conversation.clone().unwrap_or_else(|| self.id.clone());
        let message = |role, text: &str| Message {
            role,
            agent: self.spec.id.clone(),
            text: text.to_owned(),
            at_ms: clock::unix_ms(),
        };
        let said = vec![message(Role::User, &self.request.input), message(Role::Agent, answer)];
        let addr = self.village.addr::<Conversation>(format!("{}:{id}", self.tenant));
        let append = addr.call().idem(Idem::of(&[self.id.as_bytes(), b"said"]));
        append.ask(|reply| ConversationMsg::Append(said, reply)).await?;
        Ok(id)
    }

    /// Calls a tool if the agent may: its spec lists it and its policy has the action. A panic inside is a failed call.
    pub(crate) async fn call_tool(&mut self, name: &str, args: Value) -> Result<Observation, ToolError> {
        let started = Instant::now();
        self.tell(TurnEvent::ToolCall { tool: name.to_owned(), args: args.clone() }).await;
        let done = self.permitted_call(name, args.clone()).await;
        let ms = millis(started);
        self.tell(TurnEvent::ToolResult { tool: name.to_owned(), ms, ok: done.is_ok() }).await;
        if let Some(tool) = self.shared.tools.get(name) {
            self.metrics.tool_done(tool.name, done.is_ok());
        }
        let detail = done.as_ref().map_or_else(ToString::to_string, |seen| seen.text.clone());
        let kind = if name == "agent.delegate" { "delegate" } else { "tool" };
        let ended = Ended { ok: done.is_ok(), since: started, detail: &detail };
        self.step(kind, Some(name), Some(args.clone()), ended).await;
        if let Ok(seen) = &done {
            let before = self.seen.insert(format!("{name} {args}"), seen.value.clone());
            self.looping |= before.is_some_and(|before| before == seen.value);
        }
        done
    }

    async fn permitted_call(&mut self, name: &str, args: Value) -> Result<Observation, ToolError> {
        let listed = self.spec.tools.iter().any(|own| own == name);
        let tool = self.shared.tools.get(name).filter(|_| listed);
        let tool = tool
            .ok_or_else(|| ToolError::Denied { action: format!("`{name}` is not a tool of {}", self.spec.id) })?
            .clone();
        let granted = self.spec.policy.actions.iter().any(|action| action == tool.action);
        if !granted || tool.class == Class::Admin {
            return Err(ToolError::Denied { action: tool.action.to_owned() });
        }
        if self.tool_calls >= self.config.turn.max_tool_calls {
            return Err(ToolError::failed("limit", &format!("the turn has made {} tool calls", self.tool_calls)));
        }
        self.tool_calls += 1;
        let args = self.admit_call(&tool, args).await?;
        let cx = ToolCx {
            village: self.village.clone(),
            tenant: self.tenant.clone(),
            agent: self.spec.clone(),
            shared: self.shared.clone(),
            depth: self.request.depth,
            provider: self.request.provider.clone(),
            call_id: format!("{}/{}", self.id, self.tool_calls),
        };
        // Whatever the tool sends goes on with the taint of this turn.
        let message = if self.tainted { MsgCx::current().tainted() } else { MsgCx::current() };
        let call = tool.call(cx, args);
        let mut work = message.scope(async { AbortOnDrop(self.village.task("agent.tool", call)) }).await;
        let seen = match tokio::time::timeout(self.config.tool_timeout.get(), &mut work.0).await {
            Ok(Ok(done)) => done?,
            Ok(Err(error)) => return Err(ToolError::failed("tool_panicked", &error)),
            Err(_) => return Err(ToolError::Timeout),
        };
        self.tainted |= seen.tainted;
        self.admit_result(&tool, seen).await
    }

    /// Notes a step and tells it.
    pub(crate) async fn step(
        &mut self,
        kind: &str,
        name: Option<&str>,
        args: Option<Value>,
        Ended { ok, since, detail }: Ended<'_>,
    ) {
        let n = u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX);
        self.steps.push(Step {
            n,
            kind: kind.to_owned(),
            name: name.map(str::to_owned),
            args,
            ok,
            ms: millis(since),
            detail: detail.chars().take(MAX_DETAIL_CHARS).collect(),
        });
        self.tell(TurnEvent::Step { n, kind: kind.to_owned() }).await;
    }

    /// Publishes an event on the turn's topic, if there is one.
    pub(crate) async fn tell(&self, event: TurnEvent) {
        let Some(topic) = &self.topic else { return };
        let Ok(event) = serde_json::to_value(event) else { return };
        if let Err(error) = topic.post(event).await {
            tracing::debug!(%error, "an event of a turn was not published");
        }
    }

    /// The draft, or a plain refusal where its citations do not hold. The composer cannot produce that; a tool of an embedder could.
    pub(crate) fn checked(&self, draft: Draft) -> Draft {
        match check_citations(&draft.text, &draft.citations, &self.evidence) {
            Ok(()) => draft,
            Err(fault) => {
                tracing::error!(agent = self.spec.id, %fault, "an answer was withheld");
                Draft { text: extractive::nothing(&self.evidence), provider: draft.provider, ..Draft::default() }
            }
        }
    }
}

/// Ends a tool's task when its turn ends.
struct AbortOnDrop(aivillage_runtime::TaskHandle<Result<Observation, ToolError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Unicode words stand for tokens where no model counts them.
fn words(input: &str, answer: &str) -> Usage {
    let (read, written) = (text::words(input).len() as u64, text::words(answer).len() as u64);
    Usage { prompt_tokens: read, completion_tokens: written, total_tokens: read + written }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
