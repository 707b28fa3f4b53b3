//! The committed texts.

use aivillage_governance::moderation::hashes::HashList;
use aivillage_governance::moderation::{Engine, H2Action, Policy};
use serde::Deserialize;

/// Protected groups, in turn, where a case has `{g}`.
pub(crate) const GROUPS: [&str; 8] =
    ["women", "Muslims", "Jews", "black people", "gay people", "immigrants", "disabled people", "trans people"];

#[derive(Deserialize)]
struct File {
    function: Vec<Function>,
}

/// Cases that test one ability.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) harmful: bool,
    pub(crate) cases: Vec<String>,
}

impl Function {
    /// The cases with groups filled in.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.cases.iter().enumerate().map(|(n, case)| case.replace("{g}", GROUPS[n % GROUPS.len()]))
    }
}

pub(crate) fn functions() -> Vec<Function> {
    toml::from_str::<File>(include_str!("functional.toml")).expect("the suite is committed").function
}

/// Harmless lines with words that harm also uses.
pub(crate) fn look_alikes() -> Vec<&'static str> {
    lines(include_str!("../../data/lookalike.txt"))
}

/// The same, written before a score on them was seen and never tuned on.
pub(crate) fn held_out_harmless() -> Vec<&'static str> {
    lines(include_str!("heldout_benign.txt"))
}

/// Harmful lines with the code of their category, never tuned on either.
pub(crate) fn held_out_harmful() -> Vec<(&'static str, &'static str)> {
    lines(include_str!("heldout_harmful.tsv")).into_iter().filter_map(|line| line.split_once('\t')).collect()
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// The engine of this release.
pub(crate) fn engine() -> Engine {
    Engine::embedded(HashList::default()).expect("a test of the library loads it")
}

/// A namespace that lets nothing of H2 through.
pub(crate) fn strict() -> Policy {
    Policy::all(H2Action::Block)
}
