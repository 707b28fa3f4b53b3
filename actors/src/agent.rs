//! `agent`: one of the village's agents for one tenant.
//!
//! Key: `{tenant}:{id}`. Durable: yes, its notes. Turns run outside its mailbox, at most `max_turns` at once.
//! Lost in a crash: running turns (their callers get `NoReply` or `Panicked`) and the mail in hand.

use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::gate::{Ctx, Gate};
use aivillage_governance::keys::{Personal, SubjectTag};
use aivillage_governance::moderation::Stage;
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Entity, Expose, Kind, KindOptions,
    Mail, MsgCx, Reply, clock,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::answer::Answer;
use crate::config::AgentsConfig;
use crate::metrics::AgentMetrics;
use crate::personal::{self, Entry, Note, NoteEvent, Notes, PURPOSE};
use crate::planner::rule::RulePlanner;
use crate::spec::{AgentCard, AgentSpec, Roster};
use crate::tools::ToolSet;
use crate::turn::{Home, Turn};

/// Longest note, bytes.
const MAX_NOTE_BYTES: usize = 8 * 1024;
/// Most notes told at once.
const MAX_RECALL: u32 = 100;
/// What a caller of an overloaded agent waits before the next try.
const RETRY_AFTER_MS: u32 = 1_000;

/// What an agent understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum AgentMsg {
    /// Answers a request in natural language, with citations.
    Ask(AskRequest, Reply<Answer>),
    /// Calls one of the agent's tools and returns its result.
    CallTool(ToolRequest, Reply<Value>),
    /// Tells what the agent is for.
    Describe(Reply<AgentCard>),
    /// Keeps a note.
    Remember(NoteText, Reply<Note>),
    /// Finds notes.
    Recall(RecallQuery, Reply<Vec<Note>>),
    /// Deletes a note by its number; tells whether it was there.
    Forget(u64, Reply<bool>),
    /// The notes that one person told, who is erased or wants to see them.
    #[schemars(skip)]
    NotesOf(SubjectTag, Reply<Vec<Note>>),
    /// Deletes the notes that one person told, and tells how many.
    #[schemars(skip)]
    ForgetOf(SubjectTag, Reply<u64>),
}

/// A request in natural language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AskRequest {
    /// The request.
    pub input: String,
    /// Conversation to go on with; a new one when absent.
    #[serde(default)]
    pub conversation: Option<String>,
    /// Topic `agents.turn.{uuid}` on which the turn is told while it runs.
    #[serde(default)]
    pub stream_to: Option<String>,
    /// Provider that shall write the answer; the agent's own choice when absent.
    #[serde(default)]
    pub provider: Option<String>,
    /// Agents that the request has passed.
    #[serde(default)]
    pub depth: u32,
    /// Names the turn: one that is run again, because nobody knows what became of it, keeps what was said once.
    #[serde(default)]
    #[schemars(skip)]
    pub turn: Option<Uuid>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRequest {
    /// Name of the tool.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
}

/// A text to remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoteText {
    /// The text.
    pub text: String,
}

/// Which notes are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecallQuery {
    /// What they shall be about; empty for the newest.
    #[serde(default)]
    pub text: String,
    /// Most notes.
    pub limit: u32,
}

/// Messages that may be called from outside.
pub(crate) const EXPOSED: [Expose; 6] = [
    Expose::new("Ask", "agent.ask"),
    Expose::new("CallTool", "agent.tool"),
    Expose::new("Describe", "agent.read").idempotent(),
    Expose::new("Remember", "agent.self"),
    Expose::new("Recall", "agent.self").idempotent(),
    Expose::new("Forget", "agent.self").idempotent(),
];

/// What all agents of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) roster: Roster,
    pub(crate) tools: ToolSet,
    pub(crate) rules: RulePlanner,
}

impl Shared {
    pub(crate) fn unknown_agent(&self, id: &str) -> AppError {
        let nearest = self.roster.nearest(id).join(", ");
        AppError::new("agent_unknown", format!("no agent `{id}`; nearest: {nearest}"))
    }
}

/// Key of agent `id` of a tenant.
pub(crate) fn agent_key(tenant: &str, id: &str) -> String {
    format!("{tenant}:{id}")
}

/// The behaviour; its data is [`AgentState`].
#[derive(Debug)]
pub struct Agent {
    pub(crate) shared: Arc<Shared>,
}

impl Kind for Agent {
    const NAME: &'static str = "agent";
    type Body = AgentMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated).idle(Duration::from_mins(15))
    }
}

/// An activation of an agent.
#[derive(Debug)]
pub struct AgentState {
    cx: ActorCx,
    tenant: String,
    id: String,
    spec: Option<Arc<AgentSpec>>,
    config: Arc<AgentsConfig>,
    notes: Entity<Notes>,
    personal: Personal,
    /// One permit for each turn that runs or waits.
    admitted: Arc<Semaphore>,
    /// One permit for each turn that runs.
    running: Arc<Semaphore>,
    metrics: Arc<AgentMetrics>,
}

impl Actor for Agent {
    type Msg = Mail<AgentMsg>;
    type State = AgentState;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<AgentState, ActorProcessingErr> {
        let config: AgentsConfig = cx.config("agents")?;
        let (tenant, id) = cx.key().rsplit_once(':').ok_or("the key is not `{tenant}:{id}`")?;
        Ok(AgentState {
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            spec: self.shared.roster.get(id).cloned(),
            notes: cx.recover().await?,
            personal: Personal::new(cx.village(), tenant, PURPOSE)?,
            admitted: Arc::new(Semaphore::new(config.max_turns.saturating_add(config.max_waiting))),
            running: Arc::new(Semaphore::new(config.max_turns)),
            metrics: cx.village().metrics(),
            config: Arc::new(config),
            cx,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        match (mail.body, state.spec.clone()) {
            // What was told stays somebody's when the agent is gone.
            (AgentMsg::NotesOf(subject, reply), _) => reply.complete(state.open(state.notes.of(subject)).await),
            (AgentMsg::ForgetOf(subject, reply), _) => reply.complete(state.forget_of(subject).await),
            (body, None) => refuse(body, &self.shared.unknown_agent(&state.id)),
            (AgentMsg::Ask(request, reply), Some(spec)) => state.ask(self.shared.clone(), spec, request, reply),
            (AgentMsg::CallTool(request, reply), Some(spec)) => {
                state.call_tool(self.shared.clone(), spec, request, reply);
            }
            (AgentMsg::Describe(reply), Some(spec)) => reply.send(spec.card()),
            (AgentMsg::Remember(note, reply), _) => reply.complete(state.remember(&mail.cx, note).await),
            (AgentMsg::Recall(query, reply), _) => reply.complete(state.recall(&query).await),
            (AgentMsg::Forget(id, reply), _) => reply.complete(state.forget(id).await),
        }
        Ok(())
    }
}

/// Answers any message to an agent that does not exist.
fn refuse(body: AgentMsg, error: &AppError) {
    let error = error.clone();
    match body {
        AgentMsg::Ask(_, reply) => reply.fail(error),
        AgentMsg::CallTool(_, reply) => reply.fail(error),
        AgentMsg::Describe(reply) => reply.fail(error),
        AgentMsg::Remember(_, reply) => reply.fail(error),
        AgentMsg::Recall(_, reply) | AgentMsg::NotesOf(_, reply) => reply.fail(error),
        AgentMsg::Forget(_, reply) => reply.fail(error),
        AgentMsg::ForgetOf(_, reply) => reply.fail(error),
    }
}

impl AgentState {
    /// Starts a turn as a task of its own; a turn that panics drops its reply and its permits, nothing else.
    fn ask(&self, shared: Arc<Shared>, spec: Arc<AgentSpec>, request: AskRequest, mut reply: Reply<Answer>) {
        let Ok(admitted) = self.admitted.clone().try_acquire_owned() else {
            reply.fail(CallError::Overloaded { retry_after_ms: RETRY_AFTER_MS });
            return;
        };
        let turn = self.turn(shared, spec, request);
        let running = self.running.clone();
        let work = async move {
            let _admitted = admitted;
            let Ok(_running) = running.acquire_owned().await else { return };
            // A caller that went away ends its turn at the next await point.
            let done = tokio::select! {
                done = Box::pin(turn.run()) => done,
                () = reply.closed() => return,
            };
            reply.complete(done);
        };
        self.cx.village().task("agent.turn", work).detach();
    }

    fn call_tool(&self, shared: Arc<Shared>, spec: Arc<AgentSpec>, request: ToolRequest, reply: Reply<Value>) {
        let Ok(admitted) = self.admitted.clone().try_acquire_owned() else {
            reply.fail(CallError::Overloaded { retry_after_ms: RETRY_AFTER_MS });
            return;
        };
        let mut turn = self.turn(shared, spec, AskRequest::default());
        let work = async move {
            let _admitted = admitted;
            let done = turn.call_tool(&request.tool, request.args).await;
            reply.complete(
                done.map(|seen| seen.value).map_err(|error| AppError::new(error.code().to_owned(), error.to_string())),
            );
        };
        self.cx.village().task("agent.call_tool", work).detach();
    }

    fn turn(&self, shared: Arc<Shared>, spec: Arc<AgentSpec>, request: AskRequest) -> Turn {
        let village = self.cx.village().clone();
        let home = Home { shared, village, config: self.config.clone(), metrics: self.metrics.clone() };
        Turn::new(home, spec, self.tenant.clone(), request)
    }

    async fn remember(&mut self, cx: &MsgCx, note: NoteText) -> Result<Note, CallError> {
        let text = note.text.trim();
        if text.is_empty() {
            return Err(AppError::new("bad_request", "there is nothing to remember").into());
        }
        if text.len() > MAX_NOTE_BYTES {
            return Err(CallError::TooLarge { max: MAX_NOTE_BYTES as u64 });
        }
        let text = match Gate::of(self.cx.village()) {
            Some(gate) => {
                let sender = Ctx::from_message(cx, &self.tenant);
                let admitted = gate.admit(Stage::MemoryWrite, &sender, text.to_owned()).await;
                admitted.map_err(|denied| CallError::from(*denied))?.content
            }
            None => text.to_owned(),
        };
        let keep = u32::try_from(self.config.memory.max_entries).unwrap_or(u32::MAX);
        let text = self.personal.seal(Personal::subject_of(cx), self.record(), &text).await?;
        let event = NoteEvent::Remembered { at_ms: clock::unix_ms(), text, keep };
        // The answer that a repetition gets is stored beside it, so it is the sealed one.
        let newest = |notes: &Notes| notes.newest().cloned();
        let kept = self.notes.commit_once(cx.idem(), event, newest).await?;
        let full = || AppError::new("memory_full", "agents.memory.max_entries keeps no note");
        let told = kept.ok_or_else(full)?.open(&self.personal, self.record()).await?;
        told.ok_or_else(|| AppError::new("not_found", "whoever told this note was erased").into())
    }

    /// What a note is sealed for: it does not open for another agent.
    fn record(&self) -> &[u8] {
        self.cx.key().as_bytes()
    }

    async fn open(&self, some: impl Iterator<Item = &Entry>) -> Result<Vec<Note>, CallError> {
        let mut opened = Vec::new();
        for entry in some {
            opened.extend(entry.open(&self.personal, self.record()).await?);
        }
        Ok(opened)
    }

    async fn recall(&self, query: &RecallQuery) -> Result<Vec<Note>, CallError> {
        let all = self.open(self.notes.newest_first()).await?;
        Ok(personal::recall(all, &query.text, query.limit.min(MAX_RECALL) as usize))
    }

    async fn forget_of(&mut self, subject: SubjectTag) -> Result<u64, CallError> {
        let told = self.notes.of(subject).count() as u64;
        if told > 0 {
            self.notes.commit(NoteEvent::Erased(subject)).await?;
        }
        Ok(told)
    }

    async fn forget(&mut self, id: u64) -> Result<bool, CallError> {
        let known = self.notes.contains(id);
        if known {
            self.notes.commit(NoteEvent::Forgotten { id }).await?;
        }
        Ok(known)
    }
}
