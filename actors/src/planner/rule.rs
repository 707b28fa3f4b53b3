//! The planner that needs no model: example utterances choose a tool, slot extractors fill its arguments.
//!
//! A tool is called when its probability, its lead over the next and all required slots allow it; otherwise the request is
//! answered from memory. Requests of several parts are planned part by part; `$1`, `$2` refer to earlier results.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::command::{self, CommandError};
use super::intents::{Classifier, NONE};
use super::slots;
use crate::spec::{AgentSpec, Roster};
use crate::tools::{ToolEntry, ToolSet};

/// Least probability of a tool that is called.
const MIN_P: f32 = 0.55;
/// Least lead over the next class.
const MIN_MARGIN: f32 = 0.15;
/// Probability from which a missing slot is asked for; below it the request is rather a question to the memory.
const ASK_P: f32 = 0.8;
/// Most parts of one request.
const MAX_PARTS: usize = 8;

/// What to do for one part of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Call a tool.
    Call {
        /// Its name.
        tool: String,
        /// Its arguments; strings may hold `$n`.
        args: Value,
    },
    /// Ask the user for a missing value.
    AskUser {
        /// The tool that needs it.
        tool: String,
        /// The argument.
        slot: String,
        /// The question.
        question: String,
    },
    /// Answer from memory.
    Retrieve(String),
    /// Hand the part to another agent.
    Route {
        /// Its id.
        agent: String,
        /// What it shall answer.
        input: String,
    },
    /// Say what was mistyped.
    Refuse(String),
}

/// The rules; immutable and shared by all turns.
#[derive(Debug, Clone)]
pub struct RulePlanner {
    classifier: Classifier,
    agents: Vec<String>,
}

static NUMBERED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^\s*\d{1,2}[.)]\s+").expect("the pattern is a constant"));
static THEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\s*;\s*(?:and\s+)?(?:then\s+)?|,?\s+(?:and\s+)?then\s+").expect("the pattern is a constant")
});

impl RulePlanner {
    /// Makes the planner from a classifier and the ids of the agents.
    #[must_use]
    pub fn new(classifier: Classifier, agents: Vec<String>) -> Self {
        Self { classifier, agents }
    }

    /// Plans a request; at least one move.
    #[must_use]
    pub fn plan(&self, request: &str, spec: &AgentSpec, roster: &Roster, tools: &ToolSet) -> Vec<Move> {
        let parts = parts(request);
        if parts.len() > 1 {
            let moves: Vec<Move> = parts.iter().map(|part| self.plan_part(part, spec, roster, tools)).collect();
            // Text with a semicolon is not a list of tasks unless one of them is a task.
            if moves.iter().any(|step| matches!(step, Move::Call { .. } | Move::AskUser { .. })) {
                return moves;
            }
        }
        vec![self.plan_part(request, spec, roster, tools)]
    }

    fn plan_part(&self, part: &str, spec: &AgentSpec, roster: &Roster, tools: &ToolSet) -> Move {
        match command::parse(part) {
            Ok(Some(command)) => return Move::Call { tool: command.tool, args: command.args },
            Ok(None) => {}
            Err(error @ (CommandError::Json { .. } | CommandError::Pair { .. })) => {
                return Move::Refuse(error.to_string());
            }
        }
        let routes = spec.workflow.route.is_some();
        // An agent that routes also hears requests for tools of others.
        let verdict = self.classifier.classify(part, |tool| routes || spec.tools.iter().any(|own| own == tool));
        let sure = verdict.tool != NONE && verdict.p >= MIN_P && verdict.margin >= MIN_MARGIN;
        let tool = tools.get(&verdict.tool).filter(|_| sure);
        let step = tool.and_then(|tool| self.fill(part, tool, verdict.p));
        match step {
            Some(Move::Call { tool, .. } | Move::AskUser { tool, .. }) if !spec.tools.contains(&tool) => {
                Self::route(part, spec, roster, Some(&tool))
            }
            Some(step) => step,
            None if routes => Self::route(part, spec, roster, None),
            None => Move::Retrieve(part.to_owned()),
        }
    }

    /// The call with its slots filled, the question for the only missing one, or nothing.
    fn fill(&self, part: &str, tool: &ToolEntry, p: f32) -> Option<Move> {
        let mut args = Map::new();
        let mut missing = Vec::new();
        for slot in tool.slots {
            match slots::fill(slot.kind, part, &self.agents) {
                Some(value) => drop(args.insert(slot.arg.to_owned(), value)),
                None if slot.required => missing.push(slot),
                None => {}
            }
        }
        match missing.as_slice() {
            [] => Some(Move::Call { tool: tool.name.to_owned(), args: Value::Object(args) }),
            [slot] if p >= ASK_P => Some(Move::AskUser {
                tool: tool.name.to_owned(),
                slot: slot.arg.to_owned(),
                question: slot.ask.to_owned(),
            }),
            _ => None,
        }
    }

    fn route(part: &str, spec: &AgentSpec, roster: &Roster, tool: Option<&str>) -> Move {
        let expert = tool.and_then(|tool| roster.known_for(tool)).filter(|expert| expert.id != spec.id);
        let expert = expert.or_else(|| {
            roster.best_for(part, &spec.id).filter(|best| best.tools.iter().all(|own| Some(own.as_str()) != tool))
        });
        let agent = expert.map(|expert| expert.id.clone()).or_else(|| spec.workflow.route.clone());
        match agent {
            Some(agent) => Move::Route { agent, input: part.to_owned() },
            None => Move::Retrieve(part.to_owned()),
        }
    }
}

/// The parts of a request: a numbered list, or tasks joined by "then" or ";". Fenced blocks and quotes keep a request whole.
fn parts(request: &str) -> Vec<String> {
    if request.contains("```") || request.contains('"') {
        return vec![request.to_owned()];
    }
    let numbered: Vec<&str> = NUMBERED.split(request).map(str::trim).filter(|part| !part.is_empty()).collect();
    let pieces: Vec<&str> =
        if numbered.len() > 1 && NUMBERED.is_match(request) { numbered } else { THEN.split(request).collect() };
    let parts: Vec<String> =
        pieces.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    if parts.len() > MAX_PARTS { vec![request.to_owned()] } else { parts }
}

/// Replaces `$1`, `$2` in the strings of `args` by earlier results.
#[must_use]
pub fn substitute(args: &Value, results: &[String]) -> Value {
    match args {
        Value::String(text) if text.contains('$') => {
            // Higher numbers first, so that `$12` is not read as `$1` and a 2.
            let filled = (1..=results.len()).rev().zip(results.iter().rev());
            Value::String(filled.fold(text.clone(), |text, (n, result)| text.replace(&format!("${n}"), result)))
        }
        Value::Array(items) => items.iter().map(|item| substitute(item, results)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), substitute(value, results))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::intents::{Example, embedded};
    use serde_json::json;

    struct Fixture {
        roster: Roster,
        tools: ToolSet,
        planner: RulePlanner,
        examples: Vec<Example>,
    }

    impl Fixture {
        fn new() -> Self {
            let tools = ToolSet::built_in();
            let roster = Roster::load(None, &tools).unwrap();
            let ids: Vec<String> = roster.iter().map(|spec| spec.id.clone()).collect();
            let examples = embedded().unwrap();
            let planner = RulePlanner::new(Classifier::new(&examples, ids.clone()), ids);
            Self { roster, tools, planner, examples }
        }

        /// An agent with every tool: the hardest choice.
        fn all_tools(&self) -> AgentSpec {
            let tools = self.tools.iter().map(|tool| tool.name.to_owned()).collect();
            AgentSpec { tools, ..(**self.roster.get("sage").unwrap()).clone() }
        }

        fn plan(&self, agent: &str, request: &str) -> Vec<Move> {
            self.planner.plan(request, self.roster.get(agent).unwrap(), &self.roster, &self.tools)
        }
    }

    fn called(step: &Move) -> &str {
        match step {
            Move::Call { tool, .. } | Move::AskUser { tool, .. } => tool,
            _ => NONE,
        }
    }

    #[test]
    fn held_out_requests_reach_their_tool() {
        let fixture = Fixture::new();
        let spec = fixture.all_tools();
        let held_out: Vec<&Example> = fixture.examples.iter().filter(|example| example.held_out).collect();
        let mut wrong = Vec::new();
        for example in &held_out {
            let moves = fixture.planner.plan(&example.text, &spec, &fixture.roster, &fixture.tools);
            if moves.len() != 1 || called(&moves[0]) != example.tool {
                wrong.push(format!("{} -> {:?}", example.text, moves));
            }
        }
        eprintln!("{} of {} right; wrong: {wrong:#?}", held_out.len() - wrong.len(), held_out.len());
        assert!(wrong.len() * 10 <= held_out.len(), "{wrong:#?}");
    }

    #[test]
    fn small_talk_calls_no_tool() {
        let fixture = Fixture::new();
        let spec = fixture.all_tools();
        let talk = include_str!("../../eval/smalltalk.jsonl");
        let talk: Vec<Value> = talk.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(talk.len(), 200);
        let false_calls: Vec<String> = talk
            .iter()
            .filter_map(|line| line["text"].as_str())
            .filter_map(|text| {
                let moves = fixture.planner.plan(text, &spec, &fixture.roster, &fixture.tools);
                (called(&moves[0]) != NONE).then(|| format!("{text} -> {moves:?}"))
            })
            .collect();
        eprintln!("false calls: {false_calls:#?}");
        assert!(false_calls.len() <= 4, "{false_calls:#?}");
    }

    #[test]
    fn king_hands_requests_on() {
        let fixture = Fixture::new();
        let route = |request: &str| match fixture.plan("king", request).remove(0) {
            Move::Route { agent, .. } => agent,
            other => format!("{other:?}"),
        };
        assert_eq!(route("what is 15% of 240"), "oracle");
        assert_eq!(route("how many documents are in the memory"), "curator");
        assert_eq!(route("when was the lighthouse of Varn built?"), "sage");
        assert_eq!(route("how is the server configured"), "magi");
    }

    #[test]
    fn a_named_agent_is_asked() {
        let moves = Fixture::new().plan("king", "ask oracle to compute 12 * 12");
        let args = json!({ "agent": "oracle", "input": "compute 12 * 12" });
        assert_eq!(moves, [Move::Call { tool: "agent.delegate".into(), args }]);
    }

    #[test]
    fn one_missing_slot_is_asked_for() {
        let moves = Fixture::new().plan("oracle", "please calculate");
        assert!(matches!(&moves[0], Move::AskUser { slot, .. } if slot == "expression"), "{moves:?}");
    }

    #[test]
    fn commands_always_work_and_mistakes_are_told() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.plan("oracle", "/calc.eval expression=\"1 + 1\""),
            [Move::Call { tool: "calc.eval".into(), args: json!({ "expression": "1 + 1" }) }]
        );
        assert!(matches!(&fixture.plan("oracle", "/calc.eval 1")[0], Move::Refuse(text) if text.contains("key=value")));
    }

    #[test]
    fn parts_run_in_order_and_refer_back() {
        let moves = Fixture::new().plan("oracle", "calculate 12 * 7; then calculate $1 + 16");
        let expressions = moves.iter().map(|step| match step {
            Move::Call { args, .. } => args["expression"].as_str().unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(expressions.collect::<Vec<_>>(), ["12 * 7", "$1 + 16"]);
        assert_eq!(substitute(&json!({ "expression": "$1 + 16" }), &["84".into()]), json!({ "expression": "84 + 16" }));
        assert_eq!(Fixture::new().plan("sage", "Bees fly; wasps sting").len(), 1);
    }
}
