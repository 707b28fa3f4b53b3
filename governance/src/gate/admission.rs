//! What the gate is told, and what it answers.

use std::net::IpAddr;
use std::time::Duration;

use aivillage_runtime::{CallError, MsgCx, Principal, PrincipalKind, Refusal, TraceCx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dlp::DataKind;
use crate::limits::Limit;
use crate::moderation::{Action, Category, Level, Stage, Verdict};
use crate::policy::{Facts, Request, Resource, Subject};

/// Name of the principal that stands for the program itself.
const PROGRAM: &str = "program";
/// What a caller of a gate that cannot decide waits before the next try.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// Who sends something, and under which circumstances.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// On whose behalf.
    pub principal: Principal,
    /// Whom the policies are asked about if that is not the principal alone: who acts for it.
    pub subject: Option<Subject>,
    /// Whether a second factor was given, recently.
    pub mfa: bool,
    /// Whether words of tools, the web or strangers had a part in it.
    pub taint: bool,
    /// The client's address, where there is one.
    pub ip: Option<IpAddr>,
    /// The trace it belongs to.
    pub trace: Option<TraceCx>,
    /// What is to be done, where nobody has decided on it yet; none for what a door in front of it has decided on.
    pub act: Option<Act>,
    /// Whether the rate limits count it. A door counts a request once, what follows from it is not counted again.
    pub count: Count,
}

/// Something that is to be done to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// What, `area.verb`.
    pub action: String,
    /// To which thing.
    pub resource: Resource,
}

/// What the rate limits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    /// Nothing.
    #[default]
    Not,
    /// A request of the tenant.
    Read,
    /// A request of the tenant, and a write of the principal.
    Write,
}

impl Ctx {
    /// The circumstances of a principal, without second factor, taint and address.
    #[must_use]
    pub fn of(principal: Principal) -> Self {
        Self { principal, subject: None, mfa: false, taint: false, ip: None, trace: None, act: None, count: Count::Not }
    }

    /// The circumstances of the message in hand. A message without a principal is the program's own, which embeds the village
    /// and may do in `tenant` what an admin may; its turns are tainted like all others.
    #[must_use]
    pub fn current(tenant: &str) -> Self {
        Self::from_message(&MsgCx::current(), tenant)
    }

    /// As [`Ctx::current`], for a message that is not in hand any more.
    #[must_use]
    pub fn from_message(cx: &MsgCx, tenant: &str) -> Self {
        let known = cx.principal().cloned();
        let is_program = known.is_none();
        let program = || Principal {
            tenant: tenant.to_owned(),
            subject: PROGRAM.to_owned(),
            kind: PrincipalKind::Service,
            roles: vec!["admin".to_owned()],
            scopes: Vec::new(),
        };
        let principal = known.unwrap_or_else(program);
        Self { mfa: is_program, taint: cx.is_tainted(), trace: cx.trace(), ..Self::of(principal) }
    }

    /// The same, about something that the gate is to decide on.
    #[must_use]
    pub fn act(mut self, action: &str, resource: Resource) -> Self {
        self.act = Some(Act { action: action.to_owned(), resource });
        self
    }

    /// The same, with taint if `is_tainted`; it is never taken away.
    #[must_use]
    pub fn tainted(mut self, is_tainted: bool) -> Self {
        self.taint |= is_tainted;
        self
    }

    /// Whether the program itself sends it, which embeds the village: it has nobody to appeal to.
    pub(super) fn is_program(&self) -> bool {
        self.principal.subject == PROGRAM && self.principal.kind == PrincipalKind::Service
    }

    /// What the policies are asked; none where nothing is to be decided.
    #[must_use]
    pub fn asked(&self) -> Option<Request> {
        self.act.as_ref().map(|act| self.request(act))
    }

    pub(super) fn request(&self, act: &Act) -> Request {
        Request {
            principal: self.subject.clone().unwrap_or_else(|| (&self.principal).into()),
            action: act.action.clone(),
            resource: act.resource.clone(),
            facts: Facts { mfa: self.mfa, taint: self.taint, ip: self.ip, ..Facts::default() },
        }
    }
}

/// Content that passes.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Names the admission, in the log too.
    pub id: Uuid,
    /// What goes on: what came, less what the data-loss layer took out.
    pub content: String,
    /// Whether something was taken out.
    pub is_redacted: bool,
    /// Kinds of data that were found.
    pub found: Vec<DataKind>,
    /// The judgement on it; none where it is `unchecked`.
    pub verdict: Option<Verdict>,
    /// Moderation could not judge it. It is judged again within [`RECHECK`](super::RECHECK).
    pub unchecked: bool,
    /// The decision of the policies, if there was one to make.
    pub decision: Option<std::sync::Arc<crate::policy::Decision>>,
    /// Whether an entry of the log tells of it.
    pub is_logged: bool,
}

/// Why something does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Too many requests; the message names the limit.
    RateLimited,
    /// A policy forbids it, or none permits it.
    Forbidden,
    /// The sender is suspended; the notice says by which case and until when.
    Suspended,
    /// It is illegal or severe: H0, H1.
    Moderated,
    /// It is legal, and against the rules of the place: H2.
    AgainstPolicy,
    /// It has personal or secret data that may not go there.
    DataProtected,
    /// Policies, moderation or the log cannot answer now; nothing passes unjudged and unlogged.
    GovernanceUnavailable,
}

impl Why {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::Suspended => "suspended",
            Self::Moderated => "moderated",
            Self::AgainstPolicy => "against_policy",
            Self::DataProtected => "data_protected",
            Self::GovernanceUnavailable => "governance_unavailable",
        }
    }
}

/// What a restricted sender is told. It repeats nothing of the content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// Names the admission that was refused, in the log too.
    pub id: Uuid,
    /// Where the content was on its way.
    pub stage: Stage,
    /// What was done.
    pub action: Action,
    /// How grave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// For which category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// The rule of the constitution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The article that the rule comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
    /// The article's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The case that the sender can appeal in, if one could be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Until when an appeal is possible, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appeal_until: Option<u64>,
    /// Until when the sender is suspended, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Policies that denied it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Articles that those enforce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub articles: Vec<String>,
    /// The limit that is exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Kinds of data that were in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataLabel>,
}

/// A kind of data by its label, such as `PAN`.
pub type DataLabel = String;

/// Something does not pass.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// Why.
    pub why: Why,
    /// For people.
    pub message: String,
    /// What the sender is told about the rule.
    pub notice: Box<Notice>,
    /// When another try makes sense, if ever.
    pub retry_after: Option<Duration>,
}

impl Denied {
    /// The article of the constitution that the denial cites.
    #[must_use]
    pub fn article(&self) -> Option<&str> {
        self.notice.article.as_deref().or(self.notice.articles.first().map(String::as_str))
    }

    /// Until when it can be appealed, Unix milliseconds.
    #[must_use]
    pub fn appeal_until(&self) -> Option<u64> {
        self.notice.appeal_until
    }

    pub(super) fn unavailable(id: Uuid, stage: Stage, why: &dyn std::fmt::Display) -> Self {
        Self {
            why: Why::GovernanceUnavailable,
            message: format!("nothing passes that cannot be judged and logged: {why}"),
            notice: Box::new(Notice::new(id, stage)),
            retry_after: Some(AGAIN),
        }
    }
}

impl Notice {
    pub(super) fn new(id: Uuid, stage: Stage) -> Self {
        Self {
            id,
            stage,
            action: Action::Block,
            level: None,
            category: None,
            rule: None,
            article: None,
            title: None,
            case: None,
            appeal_until: None,
            until: None,
            policies: Vec::new(),
            articles: Vec::new(),
            limit: None,
            data: Vec::new(),
        }
    }
}

impl From<Denied> for CallError {
    fn from(denied: Denied) -> Self {
        Self::Refused(Box::new(Refusal {
            code: denied.why.code().into(),
            notice: serde_json::to_string(&denied.notice).unwrap_or_else(|_| "{}".to_owned()),
            retry_after_ms: denied.retry_after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
            message: denied.message,
        }))
    }
}

impl Denied {
    /// Whether an error that came from an actor says that content did not pass.
    #[must_use]
    pub fn is_one(error: &CallError) -> bool {
        matches!(error, CallError::Refused(_))
    }
}
