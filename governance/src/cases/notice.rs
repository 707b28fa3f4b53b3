//! What the sender is told: the facts, the rule, the remedy.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::{Case, CaseId, DAY_MS, rfc3339};
use super::standing::Kept;
use crate::moderation::{Action, Category, Level};

/// The words of this release. A test reads them.
static TEMPLATES: LazyLock<BTreeMap<Category, Template>> =
    LazyLock::new(|| toml::from_str(include_str!("../../data/notices/en.toml")).unwrap_or_default());

/// What is said about a category.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    /// What was found.
    facts: String,
    /// What to do so that it does not happen again.
    remedy: String,
}

/// What the sender of a content is told of its case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// Which case; the transparency log has it too.
    pub case: String,
    /// When, RFC 3339.
    pub at: String,
    /// The article of the constitution.
    pub article: String,
    /// The rule that comes from it.
    pub rule: String,
    /// What was found.
    pub category: Category,
    /// How grave that is.
    pub level: Level,
    /// What became of the content.
    pub action: Action,
    /// What is kept from the sender for a while.
    pub kept: Kept,
    /// Until when, RFC 3339.
    pub until: Option<String>,
    /// A part of the text that does not repeat the harm.
    pub evidence: String,
    /// The model that found it.
    pub model: String,
    /// Version of the constitution.
    pub constitution_version: u32,
    /// Where to appeal.
    pub appeal_url: String,
    /// Until when, RFC 3339.
    pub appeal_until: String,
    /// All of it in words.
    pub text: String,
}

impl Notice {
    /// The notice of a case.
    #[must_use]
    pub fn of(id: CaseId, case: &Case<String>) -> Self {
        let appeal_ms = case.opened_ms.saturating_add(u64::from(case.terms.appeal_days).saturating_mul(DAY_MS));
        let until = (case.restriction.kept > Kept::Nothing).then(|| rfc3339(case.restriction.until_ms));
        let mut notice = Self {
            case: id.to_string(),
            at: rfc3339(case.opened_ms),
            article: case.terms.article.clone(),
            rule: case.terms.rule.clone(),
            category: case.judged.category,
            level: case.judged.level(),
            action: case.judged.action,
            kept: case.restriction.kept,
            until,
            evidence: case.excerpt.clone(),
            model: case.judged.model.clone(),
            constitution_version: case.terms.version,
            appeal_url: format!("/v1/cases/{id}/appeal"),
            appeal_until: rfc3339(appeal_ms),
            text: String::new(),
        };
        notice.text = notice.words();
        notice
    }

    fn words(&self) -> String {
        let template = TEMPLATES.get(&self.category);
        let (facts, remedy) = template.map_or(("", ""), |template| (template.facts.as_str(), template.remedy.as_str()));
        let became = match self.action {
            Action::Seal | Action::Block => "It was not passed on",
            Action::Limit => "It was passed on with a smaller reach",
            Action::Label => "It was passed on with a label",
            Action::Allow | Action::Monitor | Action::Support => "It was passed on",
        };
        let (rule, article, version) = (&self.rule, &self.article, self.constitution_version);
        let kept = self.until.as_ref().map_or_else(String::new, |until| {
            let what = match self.kept {
                Kept::Suspended => "You may not act in the village",
                Kept::Blocked => "What you send of this kind is not passed on",
                Kept::Limited | Kept::Nothing => "What you send of this kind has a smaller reach",
            };
            format!(" {what} until {until}.")
        });
        format!(
            "{facts} {became}, by rule {rule} under article {article} of the constitution, version {version}.{kept} {remedy} If \
             this is wrong, appeal until {}: another judge, who is not told what was decided, looks at it.",
            self.appeal_until
        )
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::cases::tests::{case, clear};
    use crate::moderation::taxonomy::ACTIONABLE;

    #[test]
    fn every_category_that_can_lead_to_an_action_has_its_words() {
        let words: BTreeMap<Category, Template> = toml::from_str(include_str!("../../data/notices/en.toml")).unwrap();
        assert_eq!(words.keys().copied().collect::<Vec<_>>(), Category::ALL[..ACTIONABLE]);
        let facts: std::collections::BTreeSet<_> = words.values().map(|template| &template.facts).collect();
        assert_eq!(facts.len(), ACTIONABLE, "each says what was found");
        assert!(words.values().all(|template| template.facts.ends_with('.') && template.remedy.ends_with('.')));
    }

    #[test]
    fn a_notice_states_facts_rule_and_remedy_and_where_to_appeal() {
        let (id, case) = case(Category::Extortion, 0);
        let notice = Notice::of(id, &clear(case));
        for part in ["demand", "not passed on", "rule R-H1", "article A1.2", "appeal until 1970-01-31T00:00:00Z"] {
            assert!(notice.text.contains(part), "{part}: {}", notice.text);
        }
        assert_eq!((notice.until, notice.appeal_url), (None, format!("/v1/cases/{id}/appeal")));
        let (id, grave) = super::super::tests::case(Category::ViolentThreat, 0);
        let notice = Notice::of(id, &clear(grave));
        assert!(notice.text.contains("You may not act in the village until 1970-01-02T00:00:00Z"), "{}", notice.text);
    }
}
