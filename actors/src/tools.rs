//! What agents can do: typed functions, listed in one array that feeds planners, the edge and every other front.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use aivillage_runtime::Village;
use futures::FutureExt;
use futures::future::BoxFuture;
use jsonschema::Validator;
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agent::Shared;
use crate::answer::{Answer, Evidence};
use crate::planner::slots::SlotKind;
use crate::spec::AgentSpec;

pub mod calc;
pub mod delegate;
pub mod memory;
pub mod own;
pub mod time;

/// Largest arguments of a call, bytes of JSON.
const MAX_ARGS_BYTES: usize = 1024 * 1024;

/// What a tool may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reads state of the village.
    Read,
    /// Computes from its arguments alone.
    Compute,
    /// Changes state of the village.
    Write,
    /// Changes how the village runs; needs approval.
    Admin,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The arguments do not fit the schema.
    #[error("bad arguments at `{pointer}`: {detail}")]
    BadArgs {
        /// JSON pointer to the place.
        pointer: String,
        /// What is wrong there.
        detail: String,
    },
    /// The agent may not use this tool.
    #[error("tool denied: {action}")]
    Denied {
        /// The action or tool that is not granted.
        action: String,
    },
    /// What the arguments name does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// What the tool needs does not answer; worth another try.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The tool took too long.
    #[error("no result in time")]
    Timeout,
    /// The tool tried and failed.
    #[error("{detail}")]
    Failed {
        /// Stable code.
        code: String,
        /// What was wrong.
        detail: String,
    },
}

impl ToolError {
    /// Stable code for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::BadArgs { .. } => "tool_bad_args",
            Self::Denied { .. } => "tool_denied",
            Self::NotFound(_) => "not_found",
            Self::Unavailable(_) => "tool_unavailable",
            Self::Timeout => "tool_timeout",
            Self::Failed { code, .. } => code,
        }
    }

    pub(crate) fn failed(code: &str, detail: &dyn std::fmt::Display) -> Self {
        Self::Failed { code: code.to_owned(), detail: detail.to_string() }
    }
}

impl From<aivillage_runtime::CallError> for ToolError {
    fn from(error: aivillage_runtime::CallError) -> Self {
        use aivillage_runtime::CallError;
        match error {
            CallError::Timeout | CallError::Expired => Self::Timeout,
            CallError::Refused(refusal) => Self::Failed { code: refusal.code.into_owned(), detail: refusal.message },
            CallError::App(app) => Self::Failed { code: app.code.into_owned(), detail: app.message },
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// In whose name and where a tool runs.
#[derive(Debug, Clone)]
pub struct ToolCx {
    /// The village.
    pub village: Village,
    /// The tenant whose data it may see.
    pub tenant: String,
    /// The agent that calls.
    pub agent: Arc<AgentSpec>,
    /// Roster, tools and settings.
    pub(crate) shared: Arc<Shared>,
    /// How many agents the request has passed.
    pub depth: u32,
    /// The provider that the caller asked for.
    pub provider: Option<String>,
    /// Names this call, so that a repeated one has its effect once.
    pub call_id: String,
}

/// What a call gave, as the planners and the composer read it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// The typed result as JSON.
    pub value: Value,
    /// The result in words, complete in itself.
    pub text: String,
    /// Passages the result rests on.
    pub evidence: Vec<Evidence>,
    /// The answer of another agent, passed on whole.
    pub answer: Option<Box<Answer>>,
    /// Whether words from outside the caller's trust are in it; filled in by the registry as the tool says.
    pub tainted: bool,
}

/// A value that a tool needs and that can be read from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Argument it fills.
    pub arg: &'static str,
    /// What to look for.
    pub kind: SlotKind,
    /// Whether the call makes no sense without it.
    pub required: bool,
    /// Question to the user when it is missing.
    pub ask: &'static str,
}

/// A typed function that agents may call.
pub trait Tool: Send + Sync + 'static {
    /// Dotted name.
    const NAME: &'static str;
    /// Action of the policy, `area.verb`.
    const ACTION: &'static str;
    /// What it may touch.
    const CLASS: Class;
    /// What it does, one sentence, told to models and people.
    const ABOUT: &'static str;
    /// What the rules read from a request.
    const SLOTS: &'static [Slot];
    /// Whether what goes in and comes out passes the gate where it goes to: another agent, the memory.
    const IS_GATED: bool = false;
    /// Arguments.
    type Args: DeserializeOwned + JsonSchema + Send + 'static;
    /// Result.
    type Out: Serialize + JsonSchema + Send + 'static;

    /// Does the work.
    fn call(cx: ToolCx, args: Self::Args) -> impl Future<Output = Result<Self::Out, ToolError>> + Send + 'static;

    /// The result as an observation; `value` and `tainted` are filled in by the registry.
    fn observe(out: Self::Out) -> Observation;

    /// Whether a result has words from outside the caller's trust. What is computed of the arguments alone has none.
    #[must_use]
    fn taints(_: &Self::Out) -> bool {
        Self::CLASS != Class::Compute
    }
}

/// A registered tool.
#[derive(Clone)]
pub struct ToolEntry {
    /// Dotted name.
    pub name: &'static str,
    /// Action of the policy.
    pub action: &'static str,
    /// What it may touch.
    pub class: Class,
    /// What it does.
    pub about: &'static str,
    /// What the rules read from a request.
    pub slots: &'static [Slot],
    /// JSON schema of the arguments.
    pub schema: Arc<Value>,
    /// Whether what goes in and comes out passes the gate where it goes to.
    pub is_gated: bool,
    validator: Arc<Validator>,
    run: fn(ToolCx, Value) -> BoxFuture<'static, Result<Observation, ToolError>>,
}

impl std::fmt::Debug for ToolEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolEntry").field("name", &self.name).field("class", &self.class).finish_non_exhaustive()
    }
}

impl ToolEntry {
    /// Registers `T`.
    #[must_use]
    pub fn of<T: Tool>() -> Self {
        let schema = schema_for!(T::Args).to_value();
        let validator = jsonschema::validator_for(&schema).expect("schemars writes valid schemas");
        Self {
            name: T::NAME,
            action: T::ACTION,
            class: T::CLASS,
            about: T::ABOUT,
            slots: T::SLOTS,
            schema: Arc::new(schema),
            is_gated: T::IS_GATED,
            validator: Arc::new(validator),
            run: |cx, args| run::<T>(cx, args).boxed(),
        }
    }

    /// Checks the arguments against the schema.
    ///
    /// # Errors
    /// `BadArgs` with the place.
    pub fn check(&self, args: &Value) -> Result<(), ToolError> {
        if args.to_string().len() > MAX_ARGS_BYTES {
            return Err(ToolError::BadArgs {
                pointer: String::new(),
                detail: format!("larger than {MAX_ARGS_BYTES} bytes"),
            });
        }
        match self.validator.iter_errors(args).next() {
            Some(error) => {
                Err(ToolError::BadArgs { pointer: error.instance_path().to_string(), detail: error.to_string() })
            }
            None => Ok(()),
        }
    }

    /// Checks and calls.
    pub(crate) fn call(&self, cx: ToolCx, args: Value) -> BoxFuture<'static, Result<Observation, ToolError>> {
        match self.check(&args) {
            Ok(()) => (self.run)(cx, args),
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }
}

async fn run<T: Tool>(cx: ToolCx, args: Value) -> Result<Observation, ToolError> {
    let args = serde_json::from_value(args)
        .map_err(|error| ToolError::BadArgs { pointer: String::new(), detail: error.to_string() })?;
    let out = T::call(cx, args).await?;
    let value = serde_json::to_value(&out).map_err(|error| ToolError::failed("bad_result", &error))?;
    let tainted = T::taints(&out);
    Ok(Observation { value, tainted, ..T::observe(out) })
}

/// The tools of a village.
#[derive(Debug, Clone)]
pub struct ToolSet(Vec<ToolEntry>);

impl ToolSet {
    /// The tools that come with the village.
    #[must_use]
    pub fn built_in() -> Self {
        Self(vec![
            ToolEntry::of::<memory::Search>(),
            ToolEntry::of::<memory::Stats>(),
            ToolEntry::of::<calc::Eval>(),
            ToolEntry::of::<time::Now>(),
            ToolEntry::of::<delegate::Delegate>(),
            ToolEntry::of::<own::Remember>(),
            ToolEntry::of::<own::Recall>(),
        ])
    }

    /// Adds a tool; one of the same name is replaced.
    #[must_use]
    pub fn with<T: Tool>(mut self) -> Self {
        self.0.retain(|entry| entry.name != T::NAME);
        self.0.push(ToolEntry::of::<T>());
        self
    }

    /// The tool of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ToolEntry> {
        self.0.iter().find(|entry| entry.name == name)
    }

    /// All tools.
    pub fn iter(&self) -> impl Iterator<Item = &ToolEntry> {
        self.0.iter()
    }

    /// All actions, each once, sorted.
    pub fn actions(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|entry| entry.action).collect::<BTreeSet<_>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_that_do_not_fit_name_their_place() {
        let tools = ToolSet::built_in();
        let search = tools.get("memory.search").unwrap();
        search.check(&json!({ "text": "bees" })).unwrap();
        let error = search.check(&json!({ "text": "bees", "k": "many" })).unwrap_err();
        assert!(matches!(&error, ToolError::BadArgs { pointer, .. } if pointer == "/k"), "{error}");
        assert_eq!(search.check(&json!({ "x": 1 })).unwrap_err().code(), "tool_bad_args");
    }

    #[test]
    fn every_slot_is_an_argument() {
        for tool in ToolSet::built_in().iter() {
            for slot in tool.slots {
                assert!(tool.schema["properties"].get(slot.arg).is_some(), "{} {}", tool.name, slot.arg);
            }
        }
    }
}
