//! What denials say: the rule, the article, and how to appeal.

use std::time::Duration;

use uuid::Uuid;

use crate::cases::{Mark, rfc3339};
use crate::constitution::taxonomy;
use crate::dlp::DataKind;
use crate::limits::{Exceeded, Limit};
use crate::moderation::{Level, Stage, Verdict};
use crate::policy::{Decision, Request};

use super::{DATA_ARTICLE, Denied, Gate, Notice, Why};

/// A day in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Gate {
    pub(super) fn forbidden(&self, id: Uuid, stage: Stage, request: &Request, decision: &Decision) -> Denied {
        let mut notice = Notice::new(id, stage);
        notice.policies.clone_from(&decision.policy_ids);
        notice.articles.clone_from(&decision.articles);
        notice.article = decision.articles.first().cloned();
        notice.title = notice.article.as_deref().and_then(|article| self.title(article));
        let Request { action, resource, .. } = request;
        let message = format!("`{action}` on {} `{}` is {decision}", resource.kind, resource.id);
        Denied { why: Why::Forbidden, message, notice: Box::new(notice), retry_after: None }
    }

    fn title(&self, article: &str) -> Option<String> {
        self.0.constitution.current().article(article).map(|article| article.title.clone())
    }

    pub(super) fn moderated(&self, id: Uuid, stage: Stage, verdict: &Verdict) -> Denied {
        let why = if verdict.level == Some(Level::H2) { Why::AgainstPolicy } else { Why::Moderated };
        let mut notice = Notice::new(id, stage);
        notice.action = verdict.action;
        (notice.level, notice.category) = (verdict.level, verdict.category);
        notice.article.clone_from(&verdict.article);
        self.cite(&mut notice, (self.0.clock)());
        let category = verdict.category.map_or("content", |category| category.code());
        let article = notice.article.as_deref().unwrap_or("A1.2");
        let message = format!("content at stage `{}` is withheld as `{category}`, by article {article}", stage.code());
        Denied { why, message, notice: Box::new(notice), retry_after: None }
    }

    /// Names the rule for the notice's level and category, its article, and until when what came of it at `at_ms` may be appealed.
    fn cite(&self, notice: &mut Notice, at_ms: u64) {
        if let (Some(level), Some(category)) = (notice.level.map(constitutional), notice.category)
            && let Some((rule, article)) = self.0.constitution.current().rule_for(level, category.code(), "")
        {
            notice.rule = Some(rule.id.clone());
            notice.article = Some(article.id.clone());
            notice.appeal_until = appeal(rule.measure.appeal_days, at_ms);
        }
        notice.title = notice.article.as_deref().and_then(|article| self.title(article));
    }

    pub(super) fn suspended(&self, id: Uuid, stage: Stage, mark: &Mark) -> Denied {
        let Mark { case, category, at_ms, restriction } = mark;
        let mut notice = Notice::new(id, stage);
        (notice.level, notice.category) = (Some(category.level()), Some(*category));
        notice.article = Some(category.article().to_owned());
        (notice.case, notice.until) = (Some(case.to_string()), Some(restriction.until_ms));
        self.cite(&mut notice, *at_ms);
        let article = notice.article.as_deref().unwrap_or("A1.2");
        let until = rfc3339(restriction.until_ms);
        let message = format!(
            "suspended until {until} by case {case}, under article {article}: nothing you send passes; an appeal does, at \
             /v1/cases/{case}/appeal"
        );
        Denied { why: Why::Suspended, message, notice: Box::new(notice), retry_after: None }
    }

    pub(super) fn barred(&self, id: Uuid, stage: Stage, kinds: &[DataKind]) -> Denied {
        let mut notice = Notice::new(id, stage);
        notice.article = Some(DATA_ARTICLE.to_owned());
        notice.title = self.title(DATA_ARTICLE);
        notice.data = kinds.iter().map(|kind| kind.label().to_owned()).collect();
        notice.data.sort_unstable();
        notice.data.dedup();
        let message = format!(
            "content with protected data ({}) does not pass at stage `{}`, by article {DATA_ARTICLE}",
            notice.data.join(", "),
            stage.code()
        );
        Denied { why: Why::DataProtected, message, notice: Box::new(notice), retry_after: None }
    }
}

/// Too many requests; the denial names the limit.
pub(super) fn exceeded(stage: Stage, id: Uuid, exceeded: Exceeded) -> Denied {
    let name = match exceeded.limit {
        Limit::Ip => "governance.defence.ip",
        Limit::Principal => "governance.defence.principal",
        Limit::Tenant => "governance.defence.tenant",
        Limit::Login => "login",
    };
    let message = format!("too many requests: the limit `{name}` is exceeded");
    let retry_after = Some(exceeded.retry_after.max(Duration::from_millis(1)));
    let notice = Box::new(Notice { limit: Some(exceeded.limit), ..Notice::new(id, stage) });
    Denied { why: Why::RateLimited, message, notice, retry_after }
}

fn constitutional(level: Level) -> taxonomy::Level {
    match level {
        Level::H0 => taxonomy::Level::H0,
        Level::H1 => taxonomy::Level::H1,
        Level::H2 => taxonomy::Level::H2,
        Level::H3 => taxonomy::Level::H3,
    }
}

fn appeal(days: u32, now_ms: u64) -> Option<u64> {
    (days > 0).then(|| now_ms.saturating_add(u64::from(days).saturating_mul(DAY_MS)))
}
