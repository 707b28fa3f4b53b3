//! What an agent is: a spec file, checked when it is read.
//!
//! The built-in specs are embedded from `roster/*.toml`; files in `<data>/agents/` replace them by id or add agents, no code needed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::planner::intents;
use crate::rank::Index;
use crate::text;
use crate::tools::ToolSet;

/// The specs that come with the village, with the file they are from.
const BUILT_IN: [(&str, &str); 5] = [
    ("roster/king.toml", include_str!("../roster/king.toml")),
    ("roster/sage.toml", include_str!("../roster/sage.toml")),
    ("roster/curator.toml", include_str!("../roster/curator.toml")),
    ("roster/oracle.toml", include_str!("../roster/oracle.toml")),
    ("roster/magi.toml", include_str!("../roster/magi.toml")),
];

/// A spec file is read whole; real ones have 1 KiB.
const MAX_SPEC_BYTES: u64 = 256 * 1024;

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Key of the agent: lower-case letters, digits and dashes.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Group in lists.
    pub category: String,
    /// Version of this spec, from 1.
    pub revision: u32,
    /// What the agent is for, one sentence.
    pub purpose: String,
    /// Voice and instructions, told to a model.
    pub persona: String,
    /// What it is good at; used to choose an agent for a request.
    pub capabilities: Vec<String>,
    /// Tools it may call; the first is the one it is known for.
    pub tools: Vec<String>,
    /// Requests that are typical for it; used to choose an agent for a request.
    #[serde(default)]
    pub utterances: Vec<String>,
    /// `auto` (the default chain), `rules` (never a model) or a provider's id.
    #[serde(default = "auto")]
    pub model: String,
    /// What it may do.
    pub policy: Policy,
    /// How it works.
    pub workflow: Workflow,
}

fn auto() -> String {
    "auto".to_owned()
}

/// `[policy]` of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Actions it may ever use; a tool runs only if its action is here.
    pub actions: Vec<String>,
}

/// `[workflow]` of a spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workflow {
    /// `auto` (a model plans when one with tools is there) or `rules`.
    pub planner: PlannerChoice,
    /// Passages retrieved for an answer, 1 to 64.
    pub k: usize,
    /// Planner decisions in a turn, 1 to 32.
    pub max_steps: u32,
    /// Sampling temperature for a model.
    pub temperature: f32,
    /// Set for an agent that hands requests on: the agent that gets those which fit nobody better.
    pub route: Option<String>,
}

impl Default for Workflow {
    fn default() -> Self {
        Self { planner: PlannerChoice::Auto, k: 8, max_steps: 8, temperature: 0.2, route: None }
    }
}

/// Who plans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannerChoice {
    /// A model with tools if one is healthy, else the rules.
    #[default]
    Auto,
    /// The rules.
    Rules,
}

/// An agent as it is shown to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCard {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its group.
    pub category: String,
    /// What it is for.
    pub purpose: String,
    /// What it is good at.
    pub capabilities: Vec<String>,
    /// The tools it may call.
    pub tools: Vec<String>,
}

impl AgentSpec {
    /// The part shown outside.
    #[must_use]
    pub fn card(&self) -> AgentCard {
        AgentCard {
            id: self.id.clone(),
            name: self.name.clone(),
            category: self.category.clone(),
            purpose: self.purpose.clone(),
            capabilities: self.capabilities.clone(),
            tools: self.tools.clone(),
        }
    }
}

/// Why the specs were refused; the village does not start.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file or folder cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Path of the file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML of the spec's shape: a missing, unknown or mistyped key.
    #[error("{file}: {detail}")]
    Shape {
        /// Path of the file.
        file: String,
        /// Line, key and what was expected.
        detail: String,
    },
    /// A key has a value that cannot be.
    #[error("{file}: {key}: {detail}")]
    Value {
        /// Path of the file.
        file: String,
        /// The key at fault.
        key: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The embedded example utterances do not fit the tools.
    #[error("eval/intents.jsonl: {0}")]
    Intents(String),
}

/// All agents, by id.
#[derive(Debug, Clone)]
pub struct Roster {
    agents: BTreeMap<String, Arc<AgentSpec>>,
    profiles: Profiles,
}

/// Term index over purpose, capabilities and utterances of each agent, in the order of ids.
#[derive(Debug, Clone)]
struct Profiles {
    ids: Vec<String>,
    index: Index,
}

impl Roster {
    /// Reads the built-in specs and those of `dir`, if it exists.
    ///
    /// # Errors
    /// See [`SpecError`]; it names file and key.
    pub fn load(dir: Option<&Path>, tools: &ToolSet) -> Result<Self, SpecError> {
        let built_in = BUILT_IN.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        let mut files = read(built_in, tools)?;
        if let Some(dir) = dir {
            files.extend(read(texts_in(dir)?.into_iter(), tools)?);
        }
        let by_id: HashMap<&str, &str> = files.iter().map(|(id, (file, _))| (id.as_str(), file.as_str())).collect();
        for (file, spec) in files.values() {
            if let Some(route) = spec.workflow.route.as_deref().filter(|id| !by_id.contains_key(id) || *id == spec.id) {
                return Err(value(file, "workflow.route", format!("`{route}` is not another agent")));
            }
        }
        let agents: BTreeMap<String, Arc<AgentSpec>> =
            files.into_iter().map(|(id, (_, spec))| (id, Arc::new(spec))).collect();
        let profiles = Profiles::of(&agents);
        Ok(Self { agents, profiles })
    }

    /// The agent of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<AgentSpec>> {
        self.agents.get(id)
    }

    /// All agents in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AgentSpec>> {
        self.agents.values()
    }

    /// Up to three ids that look like `id`.
    #[must_use]
    pub fn nearest(&self, id: &str) -> Vec<&str> {
        let mut scored: Vec<(usize, &str)> =
            self.agents.keys().map(|known| (distance(id, known), known.as_str())).collect();
        scored.sort_unstable();
        scored.into_iter().take(3).map(|(_, known)| known).collect()
    }

    /// The agent known for `tool`: the one that lists it first.
    #[must_use]
    pub fn known_for(&self, tool: &str) -> Option<&Arc<AgentSpec>> {
        self.agents.values().find(|spec| spec.tools.first().is_some_and(|first| first == tool))
    }

    /// The agent whose purpose, capabilities and utterances share most with `request`, unless none shares anything.
    #[must_use]
    pub fn best_for(&self, request: &str, except: &str) -> Option<&Arc<AgentSpec>> {
        let scores = self.profiles.index.bm25(&text::terms(request));
        let best = self.profiles.ids.iter().zip(scores).filter(|(id, score)| id.as_str() != except && *score > 0.0);
        best.max_by(|a, b| a.1.total_cmp(&b.1)).and_then(|(id, _)| self.agents.get(id))
    }
}

impl Profiles {
    fn of(agents: &BTreeMap<String, Arc<AgentSpec>>) -> Self {
        let profile = |spec: &AgentSpec| {
            let utterances = spec.utterances.join(" ");
            text::terms(&format!("{} {} {utterances}", spec.purpose, spec.capabilities.join(" ")))
        };
        let texts: Vec<Vec<String>> = agents.values().map(|spec| profile(spec)).collect();
        Self { ids: agents.keys().cloned().collect(), index: Index::new(&texts) }
    }
}

type Files = BTreeMap<String, (String, AgentSpec)>;

fn read(texts: impl Iterator<Item = (String, String)>, tools: &ToolSet) -> Result<Files, SpecError> {
    let mut files = Files::new();
    for (file, text) in texts {
        let spec: AgentSpec = toml::from_str(&text)
            .map_err(|error| SpecError::Shape { file: file.clone(), detail: error.to_string() })?;
        check(&file, &spec, tools)?;
        if let Some((other, _)) = files.get(&spec.id) {
            return Err(value(&file, "id", format!("`{}` is already the id of {other}", spec.id)));
        }
        files.insert(spec.id.clone(), (file, spec));
    }
    Ok(files)
}

fn texts_in(dir: &Path) -> Result<Vec<(String, String)>, SpecError> {
    let failed = |path: &Path| {
        let file = path.display().to_string();
        move |source| SpecError::Read { file, source }
    };
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let file = path.display().to_string();
        let size = std::fs::metadata(&path).map_err(failed(&path))?.len();
        if size > MAX_SPEC_BYTES {
            return Err(SpecError::Shape {
                file,
                detail: format!("{size} bytes; a spec has at most {MAX_SPEC_BYTES}"),
            });
        }
        texts.push((file, std::fs::read_to_string(&path).map_err(failed(&path))?));
    }
    texts.sort();
    Ok(texts)
}

fn check(file: &str, spec: &AgentSpec, tools: &ToolSet) -> Result<(), SpecError> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if spec.id.is_empty() || spec.id.len() > 64 || !spec.id.chars().all(word) {
        return Err(value(file, "id", format!("`{}`: lower-case letters, digits and dashes, 1 to 64", spec.id)));
    }
    for (key, text) in
        [("name", &spec.name), ("category", &spec.category), ("purpose", &spec.purpose), ("persona", &spec.persona)]
    {
        if text.trim().is_empty() {
            return Err(value(file, key, "must not be empty".to_owned()));
        }
    }
    for action in &spec.policy.actions {
        if !tools.actions().any(|known| known == action) {
            let known: Vec<&str> = tools.actions().collect();
            return Err(value(
                file,
                "policy.actions",
                format!("unknown action `{action}`; known: {}", known.join(", ")),
            ));
        }
    }
    for name in &spec.tools {
        let Some(tool) = tools.get(name) else {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
            return Err(value(file, "tools", format!("unknown tool `{name}`; known: {}", known.join(", "))));
        };
        if !spec.policy.actions.iter().any(|action| action == tool.action) {
            return Err(value(file, "policy.actions", format!("tool `{name}` needs `{}`", tool.action)));
        }
    }
    let flow = &spec.workflow;
    match () {
        () if !(1..=64).contains(&flow.k) => Err(value(file, "workflow.k", format!("{} is not 1 to 64", flow.k))),
        () if !(1..=32).contains(&flow.max_steps) => {
            Err(value(file, "workflow.max_steps", format!("{} is not 1 to 32", flow.max_steps)))
        }
        () if !(0.0..=2.0).contains(&flow.temperature) => {
            Err(value(file, "workflow.temperature", format!("{} is not 0 to 2", flow.temperature)))
        }
        () => Ok(()),
    }
}

fn value(file: &str, key: &str, detail: String) -> SpecError {
    SpecError::Value { file: file.to_owned(), key: key.to_owned(), detail }
}

/// Edit distance (Levenshtein), for suggestions over a few short ids.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let (above, before) = (row.get(j + 1).copied().unwrap_or(i), next.get(j).copied().unwrap_or(i));
            let diagonal = row.get(j).copied().unwrap_or(i) + usize::from(left != *right);
            next.push(diagonal.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Checks that the embedded utterances name known tools.
pub(crate) fn check_intents(tools: &ToolSet) -> Result<(), SpecError> {
    let examples = intents::embedded().map_err(|error| SpecError::Intents(error.to_string()))?;
    match examples.iter().find(|example| example.tool != intents::NONE && tools.get(&example.tool).is_none()) {
        Some(example) => Err(SpecError::Intents(format!("unknown tool `{}`", example.tool))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(text: &str) -> Result<Roster, SpecError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.toml"), text).unwrap();
        Roster::load(Some(dir.path()), &ToolSet::built_in())
    }

    fn sage() -> String {
        BUILT_IN[1].1.to_owned()
    }

    #[test]
    fn the_five_built_in_agents_load() {
        let roster = Roster::load(None, &ToolSet::built_in()).unwrap();
        let ids: Vec<_> = roster.iter().map(|spec| spec.id.as_str()).collect();
        assert_eq!(ids, ["curator", "king", "magi", "oracle", "sage"]);
        assert_eq!(roster.known_for("calc.eval").unwrap().id, "oracle");
        assert_eq!(roster.nearest("sag")[0], "sage");
        check_intents(&ToolSet::built_in()).unwrap();
    }

    #[test]
    fn a_data_file_overrides_or_adds() {
        let roster = load_with(&sage().replace("name = \"Sage\"", "name = \"Sage II\"")).unwrap();
        assert_eq!(roster.get("sage").unwrap().name, "Sage II");
        let roster = load_with(&sage().replace("id = \"sage\"", "id = \"scribe\"")).unwrap();
        assert_eq!(roster.iter().count(), 6);
    }

    #[test]
    fn faults_name_file_and_key() {
        for (from, to, expected) in [
            ("\"memory.search\", ", "\"memory.serch\", ", "tools: unknown tool `memory.serch`"),
            ("\"memory.query\", ", "\"memory.qery\", ", "policy.actions: unknown action `memory.qery`"),
            ("\"memory.query\", ", "", "policy.actions: tool `memory.search` needs `memory.query`"),
            ("purpose = ", "porpoise = ", "porpoise"),
            ("k = 8", "k = 0", "workflow.k: 0 is not 1 to 64"),
            ("id = \"sage\"", "id = \"S A\"", "id: `S A`"),
            ("k = 8", "k = 8\nroute = \"nobody\"", "workflow.route: `nobody` is not another agent"),
        ] {
            let error = load_with(&sage().replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains("x.toml") && error.contains(expected), "{error}");
        }
        let missing: String =
            sage().lines().filter(|line| !line.starts_with("purpose")).map(|line| format!("{line}\n")).collect();
        let error = load_with(&missing).unwrap_err().to_string();
        assert!(error.contains("missing field `purpose`"), "{error}");
    }

    #[test]
    fn two_files_with_one_id_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.toml", "b.toml"] {
            std::fs::write(dir.path().join(name), sage()).unwrap();
        }
        let error = Roster::load(Some(dir.path()), &ToolSet::built_in()).unwrap_err().to_string();
        assert!(error.contains("b.toml: id: `sage` is already the id of") && error.contains("a.toml"), "{error}");
    }

    #[test]
    fn requests_find_their_agent() {
        let roster = Roster::load(None, &ToolSet::built_in()).unwrap();
        assert_eq!(roster.best_for("which software version is on the server", "king").unwrap().id, "magi");
        assert!(roster.best_for("zzz", "king").is_none());
    }
}
