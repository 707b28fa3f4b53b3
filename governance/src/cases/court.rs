//! What the shards of a node share, and how a verdict becomes a case by the rules of the constitution.

use super::case::{Case, CaseId, Judged, Terms};
use super::clerk::CaseLog;
use super::error::CaseError;
use super::excerpt::{excerpt, kept};
use super::jury::JurorPool;
use super::message::NewCase;
use super::standing::Standings;
use crate::constitution::document::Document;
use crate::constitution::taxonomy::Level as Rung;
use crate::moderation::{Action, Category, H2Action, Level, ModeratorHandle, Verdict};

/// Bytes of a text that a case keeps for its judges.
const CONTENT: usize = 8 * 1024;
/// What the shards of a node share.
#[derive(Debug, Clone)]
pub struct Court {
    /// Who looks anew.
    pub moderator: ModeratorHandle,
    /// The rules.
    pub constitution: Document,
    /// Where it is logged.
    pub log: CaseLog,
    /// Who may be drawn.
    pub jurors: JurorPool,
    /// What is shown of it without a message.
    pub standings: Standings,
}

/// Whether a second look comes to the same. About what is severe, doubt leaves it to the jury.
pub(super) fn agrees(level: Level, second: &Verdict) -> bool {
    match level {
        Level::H0 | Level::H1 => !second.action.passes() || second.is_uncertain,
        Level::H2 | Level::H3 => second.action > Action::Support,
    }
}

impl Court {
    /// A case of a verdict, by the rule of the constitution for it.
    pub(super) fn fill_in(&self, new: NewCase, now_ms: u64) -> Result<(CaseId, Case<String>), CaseError> {
        let NewCase { id, verdict, sender, stage, content, tier, namespace } = new;
        let category = verdict.category.ok_or(CaseError::NotActing)?;
        if verdict.action < Action::Label {
            return Err(CaseError::NotActing);
        }
        let judged = Judged { action: verdict.action, category, model: verdict.model, h2: h2_of(verdict.action) };
        let excerpt = excerpt(&content, &verdict.evidence, judged.level());
        let content = (category != Category::Csam).then(|| kept(&content, &verdict.evidence, CONTENT));
        let terms = self.terms(category, &namespace)?;
        let case = Case { stage, tier, content, ..Case::about(sender, judged, terms, now_ms, excerpt) };
        Ok((id, case))
    }

    fn terms(&self, category: Category, namespace: &str) -> Result<Terms, CaseError> {
        let rung = match category.level() {
            Level::H0 => Rung::H0,
            Level::H1 => Rung::H1,
            Level::H2 => Rung::H2,
            Level::H3 => Rung::H3,
        };
        let found = self.constitution.rule_for(rung, category.code(), namespace);
        let (rule, article) = found.ok_or(CaseError::NoRule { category: category.code() })?;
        if !rule.measure.notice {
            return Err(CaseError::NoRule { category: category.code() });
        }
        Ok(Terms {
            rule: rule.id.clone(),
            article: article.id.clone(),
            version: self.constitution.version(),
            strikes: rule.measure.strikes,
            suspend_hours: rule.measure.suspend_hours,
            appeal_days: rule.measure.appeal_days,
        })
    }
}

/// What the namespace must do about H2 for this to have become of the content.
fn h2_of(action: Action) -> H2Action {
    match action {
        Action::Block | Action::Seal => H2Action::Block,
        Action::Limit => H2Action::Limit,
        _ => H2Action::Label,
    }
}
