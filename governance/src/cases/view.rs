//! What one who may see a case sees of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::{Case, CaseId, Choice, Grounds, Phase, rfc3339};
use super::standing::Restriction;
use crate::moderation::{Action, Category, Level, Stage};

/// What one who may see a case sees of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaseView {
    /// Which case.
    pub case: String,
    /// Where it is on its way.
    pub phase: Phase,
    /// When the phase ends by itself, RFC 3339; none if the case has ended.
    pub deadline: Option<String>,
    /// How grave.
    pub level: Level,
    /// What was found.
    pub category: Category,
    /// What became of the content.
    pub action: Action,
    /// The article that the restriction cites.
    pub article: String,
    /// The constitution's rule.
    pub rule: String,
    /// Where the content was on its way.
    pub stage: Stage,
    /// What the sender may not do, and until when.
    pub restriction: Restriction,
    /// A part of the text that does not repeat the harm.
    pub excerpt: String,
    /// The text: for the jury.
    pub content: Option<String>,
    /// When it was opened, RFC 3339.
    pub opened_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
    /// Whether it ended because a deadline passed.
    pub timed_out: bool,
    /// How often the same came again meanwhile.
    pub repeats: u32,
    /// What is held against the verdict.
    pub grounds: Option<Grounds>,
    /// In the appellant's words.
    pub appeal: Option<String>,
    /// Whether the second look by machine came to the same.
    pub rereview_agrees: Option<bool>,
    /// How many sit on the jury.
    pub jurors: usize,
    /// Votes with their reasons; whose they are stays with the jury.
    pub votes: Vec<VoteView>,
    /// Root of the checkpoint that seeded the draw, hex.
    pub seed: Option<String>,
    /// SHA-256 of those who were drawn from, a line `tenant/subject` each, hex.
    pub pool: Option<String>,
}

/// A vote as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VoteView {
    /// For what.
    pub choice: Choice,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Case<String> {
    /// What is seen of it; the text only by its jury, and never of H0.
    #[must_use]
    pub fn view(&self, id: CaseId, is_juror: bool) -> CaseView {
        let shows = is_juror && self.judged.level() > Level::H0;
        let votes = self.votes.iter().map(|vote| VoteView {
            choice: vote.choice,
            reason: vote.reason.clone(),
            at: rfc3339(vote.at_ms),
        });
        CaseView {
            case: id.to_string(),
            phase: self.phase,
            deadline: (!self.phase.is_end()).then(|| rfc3339(self.deadline_ms)),
            level: self.judged.level(),
            category: self.judged.category,
            action: self.judged.action,
            article: self.terms.article.clone(),
            rule: self.terms.rule.clone(),
            stage: self.stage,
            restriction: self.restriction.clone(),
            excerpt: self.excerpt.clone(),
            content: self.content.clone().filter(|_| shows),
            opened_at: rfc3339(self.opened_ms),
            ended_at: self.ended_ms.map(rfc3339),
            timed_out: self.is_timed_out,
            repeats: self.repeats,
            grounds: self.appeal.as_ref().map(|appeal| appeal.grounds),
            appeal: self.appeal.as_ref().map(|appeal| appeal.text.clone()),
            rereview_agrees: self.rereview.as_ref().map(|look| look.agrees),
            jurors: self.jurors.len(),
            votes: votes.collect(),
            seed: (!self.seed.is_empty()).then(|| self.seed.clone()),
            pool: (!self.pool.is_empty()).then(|| self.pool.clone()),
        }
    }
}
