//! `memory.search` and `memory.stats`: the documents of the village, read only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use crate::answer::Evidence;
use crate::corpus;
use crate::planner::slots::SlotKind;

/// Finds passages.
#[derive(Debug)]
pub struct Search;

/// Arguments of [`Search`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchArgs {
    /// What to look for.
    #[schemars(length(min = 1, max = 4096))]
    pub text: String,
    /// Most passages, 1 to 64; the agent's own number when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub k: Option<u32>,
    /// The only collection to search; all when absent.
    #[serde(default)]
    pub collection: Option<String>,
}

/// Result of [`Search`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SearchOut {
    /// Passages, best first.
    pub passages: Vec<Evidence>,
}

impl Tool for Search {
    const NAME: &'static str = "memory.search";
    const ACTION: &'static str = "memory.query";
    const CLASS: Class = Class::Read;
    const ABOUT: &'static str = "Finds passages in the documents of the village memory.";
    const SLOTS: &'static [Slot] = &[
        Slot { arg: "text", kind: SlotKind::Topic, required: true, ask: "what shall I search for?" },
        Slot { arg: "k", kind: SlotKind::Count, required: false, ask: "how many passages?" },
        Slot { arg: "collection", kind: SlotKind::Collection, required: false, ask: "in which collection?" },
    ];
    const IS_GATED: bool = true;
    type Args = SearchArgs;
    type Out = SearchOut;

    async fn call(cx: ToolCx, args: SearchArgs) -> Result<SearchOut, ToolError> {
        let k = args.k.map_or(cx.agent.workflow.k, |k| k as usize);
        let collections = args.collection.into_iter().collect();
        let passages = corpus::query(&cx.village, &cx.tenant, &args.text, k, collections).await?;
        Ok(SearchOut { passages })
    }

    fn observe(out: SearchOut) -> Observation {
        let text = match out.passages.len() {
            0 => "no passage found".to_owned(),
            1 => "1 passage found".to_owned(),
            n => format!("{n} passages found"),
        };
        Observation { text, evidence: out.passages, ..Observation::default() }
    }

    fn taints(out: &SearchOut) -> bool {
        out.passages.iter().any(Evidence::is_foreign)
    }
}

/// Tells what the memory holds.
#[derive(Debug)]
pub struct Stats;

/// Arguments of [`Stats`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatsArgs {
    /// The only collection; all when absent.
    #[serde(default)]
    pub collection: Option<String>,
}

/// Result of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatsOut {
    /// One entry per collection.
    pub collections: Vec<CollectionSize>,
}

/// Size of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionSize {
    /// Its name.
    pub collection: String,
    /// Documents in it.
    pub documents: u64,
    /// Passages that can be found.
    pub passages: u64,
}

impl Tool for Stats {
    const NAME: &'static str = "memory.stats";
    const ACTION: &'static str = "memory.query";
    const CLASS: Class = Class::Read;
    const ABOUT: &'static str =
        "Tells which collections the village memory has and how many documents and passages they hold.";
    const SLOTS: &'static [Slot] =
        &[Slot { arg: "collection", kind: SlotKind::Collection, required: false, ask: "for which collection?" }];
    const IS_GATED: bool = true;
    type Args = StatsArgs;
    type Out = StatsOut;

    async fn call(cx: ToolCx, args: StatsArgs) -> Result<StatsOut, ToolError> {
        let collections = corpus::stats(&cx.village, &cx.tenant, args.collection.as_deref()).await?;
        Ok(StatsOut { collections })
    }

    fn observe(out: StatsOut) -> Observation {
        let line = |size: &CollectionSize| {
            format!("{}: {}, {}", size.collection, count(size.documents, "document"), count(size.passages, "passage"))
        };
        let lines: Vec<String> = out.collections.iter().map(line).collect();
        let documents = out.collections.iter().map(|size| size.documents).sum();
        let text = match lines.as_slice() {
            [] => "the village memory is empty".to_owned(),
            [only] => only.clone(),
            _ => format!("{} in {} collections. {}", count(documents, "document"), lines.len(), lines.join("; ")),
        };
        Observation { text, ..Observation::default() }
    }

    fn taints(_: &StatsOut) -> bool {
        false
    }
}

fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(collection: &str, documents: u64) -> CollectionSize {
        CollectionSize { collection: collection.into(), documents, passages: 2 * documents }
    }

    #[test]
    fn sizes_are_told_in_words() {
        let say = |collections| Stats::observe(StatsOut { collections }).text;
        assert_eq!(say(vec![]), "the village memory is empty");
        assert_eq!(say(vec![size("main", 1)]), "main: 1 document, 2 passages");
        assert_eq!(
            say(vec![size("a", 1), size("b", 3)]),
            "4 documents in 2 collections. a: 1 document, 2 passages; b: 3 documents, 6 passages"
        );
    }
}
