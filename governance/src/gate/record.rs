//! What the gate writes into the transparency log: who, where and why as pseudonyms and codes, and nothing of any content.
//!
//! | kind | when |
//! |---|---|
//! | `mod.verdict` | content was blocked, labelled, limited, or help was offered; `late` where it had passed unjudged |
//! | `policy.deny` | the policies let something not be done |
//! | `policy.allow` | something privileged is about to be done; it waits for the disk |
//! | `mod.suspend` | a suspended sender sent something |
//! | `dlp.redact` | data was taken out of content, or kept content from passing |

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::dlp::DataKind;
use crate::moderation::{Action, Stage, Verdict};
use crate::policy;
use crate::tlog::{Ack, Decision, Event, Home, LogError, Payload};

use super::admission::{Act, Ctx, Denied, Notice};

/// Longest wait for a place in the log's queue; after that nothing passes.
const PLACE: Duration = Duration::from_secs(1);

/// What an entry is about.
pub(super) struct Subject<'a> {
    pub(super) id: Uuid,
    pub(super) stage: Stage,
    pub(super) cx: &'a Ctx,
}

impl Subject<'_> {
    fn event(&self, home: &Home, kind: &str, decision: Decision, article: Option<String>, payload: Value) -> Event {
        let key = home.log_key(&self.cx.principal.tenant);
        let mut payload = payload;
        if let Some(trace) = self.cx.trace {
            payload["trace"] = trace.trace_hex().into();
        }
        Event {
            kind: kind.to_owned(),
            actor: key.pseudonym(&self.cx.principal.subject),
            action: self.stage.code().to_owned(),
            object: key.pseudonym(&self.id.to_string()),
            tenant: key.pseudonym(&self.cx.principal.tenant),
            article,
            decision,
            case: None,
            payload: Payload::Clear(payload),
        }
    }

    pub(super) fn verdict(&self, home: &Home, verdict: &Verdict, is_late: bool) -> Event {
        let decision = if verdict.action.passes() { Decision::Allow } else { Decision::Deny };
        let mut payload = json!({
            "action": verdict.action,
            "category": verdict.category,
            "level": verdict.level,
            "rule": verdict.rule,
            "model": verdict.model,
            // Thousandths: canonical JSON knows whole numbers best.
            "p": per_mille(verdict.p),
        });
        if is_late {
            payload["late"] = true.into();
        }
        self.event(home, "mod.verdict", decision, verdict.article.clone(), payload)
    }

    pub(super) fn decision(&self, home: &Home, act: &Act, decided: &policy::Decision) -> Event {
        let (kind, decision) =
            if decided.allow { ("policy.allow", Decision::Allow) } else { ("policy.deny", Decision::Deny) };
        let payload = json!({
            "policies": decided.policy_ids,
            "epoch": decided.epoch,
            "stage": self.stage.code(),
            "taint": self.cx.taint,
        });
        let mut event = self.event(home, kind, decision, decided.articles.first().cloned(), payload);
        let key = home.log_key(&self.cx.principal.tenant);
        event.action.clone_from(&act.action);
        event.object = key.pseudonym(&format!("{}/{}", act.resource.kind, act.resource.id));
        event
    }

    pub(super) fn suspension(&self, home: &Home, denied: &Denied) -> Event {
        let Notice { article, case, category, level, until, .. } = &*denied.notice;
        let payload = json!({ "category": category, "level": level, "until": until });
        let event = self.event(home, "mod.suspend", Decision::Deny, article.clone(), payload);
        Event { case: case.clone(), ..event }
    }

    pub(super) fn data(&self, home: &Home, kinds: &[DataKind], is_barred: bool) -> Event {
        let mut counts = serde_json::Map::new();
        for kind in kinds {
            let count = counts.get(kind.label()).and_then(Value::as_u64).unwrap_or_default();
            counts.insert(kind.label().to_owned(), (count + 1).into());
        }
        let decision = if is_barred { Decision::Deny } else { Decision::Redact };
        self.event(home, "dlp.redact", decision, Some(super::DATA_ARTICLE.to_owned()), json!({ "kinds": counts }))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to 0..=1000")]
fn per_mille(p: f32) -> u64 {
    (p * 1_000.0).clamp(0.0, 1_000.0).round() as u64
}

/// Whether a verdict is one that the log tells of.
pub(super) fn acts(action: Action) -> bool {
    action >= Action::Support
}

/// Puts an entry into the log: waits for the disk if it has to be durable, else for a place in the queue.
pub(super) async fn append(home: &Home, event: Event, is_durable: bool) -> Result<(), LogError> {
    if is_durable {
        return home.log().append(event, Ack::Durable).await.map(drop);
    }
    let appended = tokio::time::timeout(PLACE, home.log().append(event, Ack::Buffered)).await;
    appended.unwrap_or_else(|_| Err(LogError::Stopped { reason: "its queue is full".to_owned() })).map(drop)
}
