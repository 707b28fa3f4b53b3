//! The part of a turn that rules plan: moves in order, their results as one answer.

use serde_json::json;
use tokio::time::Instant;

use super::{Draft, Ended, RULES, Turn};
use crate::answer::{Answer, Citation, Evidence, Finish, TurnEvent, markers};
use crate::config::EXTRACTIVE;
use crate::corpus;
use crate::planner::rule::{Move, substitute};
use crate::provider::extractive::{compose, key_sentence, nothing};
use crate::tools::{Observation, ToolError};

impl Turn {
    /// Plans by rules and carries the plan out. `writer` is a model that writes answers from passages; without one they are extracted.
    pub(super) async fn by_rules(&mut self, writer: Option<&str>) -> Draft {
        let started = Instant::now();
        let input = self.request.input.trim().to_owned();
        let moves = self.shared.rules.plan(&input, &self.spec, &self.shared.roster, &self.shared.tools);
        let detail = moves.iter().map(label).collect::<Vec<_>>().join(", ");
        self.step("plan", Some(RULES), None, Ended { ok: true, since: started, detail: &detail }).await;
        let max_steps = self.config.turn.max_steps.min(self.spec.workflow.max_steps) as usize;
        let mut results: Vec<String> = Vec::new();
        let mut whole: Option<Draft> = None;
        for (done, step) in moves.into_iter().enumerate() {
            if done >= max_steps {
                return ended(whole, Finish::Limit);
            }
            let draft = self.carry_out(step, &results, writer).await;
            results.push(draft.text.rsplit(" = ").next().unwrap_or_default().to_owned());
            let finish = draft.finish;
            let joined = join(whole, draft);
            self.partial = Some(joined.clone());
            whole = Some(joined);
            if self.looping {
                return ended(whole, Finish::LoopDetected);
            }
            if finish != Finish::Stop {
                break;
            }
        }
        whole.unwrap_or_default()
    }

    async fn carry_out(&mut self, step: Move, results: &[String], writer: Option<&str>) -> Draft {
        match step {
            Move::Call { tool, args } => {
                let done = self.call_tool(&tool, substitute(&args, results)).await;
                self.observed(&tool, done).await
            }
            Move::Route { agent, input } => {
                let done = self.call_tool("agent.delegate", json!({ "agent": agent, "input": input })).await;
                self.observed("agent.delegate", done).await
            }
            Move::AskUser { question, .. } => said(question, Finish::AskUser),
            Move::Refuse(text) => said(text, Finish::ToolFailed),
            Move::Retrieve(text) => self.retrieved(&text, writer).await,
        }
    }

    /// A tool's result as an answer.
    async fn observed(&mut self, tool: &str, done: Result<Observation, ToolError>) -> Draft {
        match done {
            Err(error) => said(format!("{tool}: {error}"), Finish::ToolFailed),
            Ok(Observation { answer: Some(answer), .. }) => passed_on(*answer),
            Ok(seen) if tool == "memory.search" || !seen.evidence.is_empty() => {
                self.found(seen.evidence.len()).await;
                let draft = listed(&self.request.input, &seen.evidence);
                self.evidence.extend(seen.evidence);
                self.checked(draft)
            }
            Ok(seen) => Draft { answerable: true, ..said(seen.text, Finish::Stop) },
        }
    }

    /// An answer from memory: written by a model from the passages, or made of their sentences.
    async fn retrieved(&mut self, question: &str, writer: Option<&str>) -> Draft {
        let started = Instant::now();
        let found = corpus::query(&self.village, &self.tenant, question, self.spec.workflow.k, Vec::new()).await;
        let passages = match found {
            Ok(passages) => passages,
            Err(error) => {
                self.step("retrieve", None, None, Ended { ok: false, since: started, detail: &error.to_string() })
                    .await;
                return said(format!("the village memory cannot be asked now: {error}"), Finish::ToolFailed);
            }
        };
        self.step(
            "retrieve",
            None,
            None,
            Ended { ok: true, since: started, detail: &format!("{} passages", passages.len()) },
        )
        .await;
        self.found(passages.len()).await;
        self.tainted |= passages.iter().any(Evidence::is_foreign);
        self.evidence.extend(passages.iter().cloned());
        if let Some(provider) = writer {
            // On failure the sentences themselves are the answer.
            if let Ok(draft) = self.written(provider, question, &passages).await {
                return draft;
            }
        }
        let started = Instant::now();
        let composed = compose(question, &passages);
        let detail = format!("support {:.2}, {} sentences", composed.support, composed.citations.len());
        self.step("compose", Some(EXTRACTIVE), None, Ended { ok: true, since: started, detail: &detail }).await;
        self.checked(Draft {
            text: composed.answer,
            citations: composed.citations,
            provider: EXTRACTIVE.to_owned(),
            answerable: composed.answerable,
            ..Draft::default()
        })
    }

    async fn found(&self, n: usize) {
        self.tell(TurnEvent::Retrieved { n: u32::try_from(n).unwrap_or(u32::MAX) }).await;
    }
}

fn label(step: &Move) -> String {
    match step {
        Move::Call { tool, .. } => tool.clone(),
        Move::AskUser { slot, .. } => format!("ask for {slot}"),
        Move::Retrieve(_) => "retrieve".to_owned(),
        Move::Route { agent, .. } => format!("route to {agent}"),
        Move::Refuse(_) => "refuse".to_owned(),
    }
}

fn said(text: String, finish: Finish) -> Draft {
    Draft { text, provider: RULES.to_owned(), finish, ..Draft::default() }
}

fn passed_on(answer: Answer) -> Draft {
    Draft {
        text: answer.answer,
        citations: answer.citations,
        provider: answer.provider,
        answerable: answer.answerable,
        finish: answer.finish,
        usage: None,
    }
}

/// The passages of an explicit search: title and the sentence that fits best, each cited.
fn listed(request: &str, passages: &[Evidence]) -> Draft {
    let cite = |(n, passage): (u32, &Evidence)| Citation::of(n, passage, key_sentence(request, &passage.text)?);
    let citations: Vec<Citation> = (1..).zip(passages).filter_map(cite).collect();
    if citations.is_empty() {
        return Draft { text: nothing(passages), provider: EXTRACTIVE.to_owned(), ..Draft::default() };
    }
    let line = |citation: &Citation| format!("{}: {} [{}]", citation.title, citation.quote, citation.n);
    let text = citations.iter().map(line).collect::<Vec<_>>().join("\n");
    Draft { text, citations, provider: EXTRACTIVE.to_owned(), answerable: true, ..Draft::default() }
}

fn ended(draft: Option<Draft>, finish: Finish) -> Draft {
    Draft { finish, ..draft.unwrap_or_default() }
}

/// Puts a part's answer behind the earlier ones; its citations are counted on.
fn join(before: Option<Draft>, mut part: Draft) -> Draft {
    let Some(mut whole) = before else { return part };
    let shift = whole.citations.iter().map(|citation| citation.n).max().unwrap_or(0);
    if shift > 0 {
        // The highest first, so that a renumbered marker is not met again.
        let mut numbers: Vec<u32> = part.citations.iter().map(|citation| citation.n).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let marked = markers(&part.text);
        for n in numbers.into_iter().filter(|n| marked.contains(n)) {
            part.text = part.text.replace(&format!("[{n}]"), &format!("[{}]", n + shift));
        }
        part.citations.iter_mut().for_each(|citation| citation.n += shift);
    }
    whole.text = format!("{}\n{}", whole.text, part.text);
    whole.citations.extend(part.citations);
    whole.answerable |= part.answerable;
    whole.finish = part.finish;
    if part.provider != RULES {
        whole.provider = part.provider;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str, numbers: &[u32]) -> Draft {
        let evidence = Evidence { text: "x y z".into(), ..Evidence::default() };
        let citations = numbers.iter().filter_map(|n| Citation::of(*n, &evidence, 0..5)).collect();
        Draft { text: text.into(), citations, provider: EXTRACTIVE.into(), ..Draft::default() }
    }

    #[test]
    fn parts_are_joined_with_running_numbers() {
        let whole = join(Some(draft("a [1] b [2]", &[1, 2])), draft("c [1] d [2]", &[1, 2]));
        assert_eq!(whole.text, "a [1] b [2]\nc [3] d [4]");
        assert_eq!(whole.citations.iter().map(|citation| citation.n).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn an_empty_search_says_so() {
        let draft = listed("bees", &[]);
        assert!(!draft.answerable && draft.text == crate::answer::NOTHING);
    }
}
