//! What becomes of cases, in the transparency log: kind `mod.case`.
//!
//! Who acted, the case's sender's tenant and the case are pseudonyms, as everywhere; the case's name is also in the entry, so
//! that whoever has it can find all that was done about it. In clear are level, category, what became of the content, and the phase.

use std::sync::{Arc, OnceLock};

use aivillage_runtime::Principal;
use serde_json::json;

use super::case::{Case, CaseId, Phase};
use super::error::CaseError;
use crate::tlog::{Checkpoint, Decision, Event, Home, Payload, Place};

/// The log of this node, once there is one. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct CaseLog(Arc<OnceLock<Home>>);

/// Who the village itself is in the log.
const ITSELF: &str = "village";

impl CaseLog {
    /// From now on nothing happens to a case that is not in this log; the first one stays.
    pub fn keep_in(&self, home: &Home) {
        self.0.get_or_init(|| home.clone());
    }

    /// Takes a place for an entry; none without a log.
    pub(super) async fn place(&self) -> Result<Option<Place>, CaseError> {
        let Some(home) = self.0.get() else { return Ok(None) };
        home.log().reserve().await.map(Some).map_err(|error| CaseError::Unlogged(error.to_string()))
    }

    /// Puts an entry in its place. The deed is done then, so a log that has stopped meanwhile is told, no more.
    pub(super) fn fill(&self, place: Option<Place>, action: &str, by: Option<&Principal>, (id, case): (CaseId, &Case)) {
        let (Some(home), Some(place)) = (self.0.get(), place) else { return };
        let key = home.log_key(&case.sender.tenant);
        let actor = by.map_or(ITSELF, |by| &by.subject);
        let event = Event {
            kind: "mod.case".to_owned(),
            actor: key.pseudonym(actor),
            action: action.to_owned(),
            object: key.pseudonym(&id.to_string()),
            tenant: key.pseudonym(&case.sender.tenant),
            article: Some(case.terms.article.clone()),
            decision: decision(case.phase),
            case: Some(id.to_string()),
            payload: Payload::Clear(json!({
                "level": case.judged.level(), "category": case.judged.category, "action": case.judged.action,
                "phase": case.phase, "kept": case.restriction.kept, "tier": case.tier, "seed": case.seed, "pool": case.pool,
            })),
        };
        if let Err(error) = place.append(event) {
            tracing::error!(%error, case = %id, "what happened to a case is not in the transparency log");
        }
    }

    /// The root over all that is in the log by now; random bytes in a village without one, where nobody could check it.
    pub(super) async fn root(&self) -> Result<[u8; 32], CaseError> {
        let Some(home) = self.0.get() else { return Ok(rand::random()) };
        let unlogged = |error: String| CaseError::Unlogged(error);
        let note = home.log().checkpoint().await.map_err(|error| unlogged(error.to_string()))?;
        let checkpoint: Checkpoint =
            note.text().parse().map_err(|_| unlogged("its checkpoint cannot be read".into()))?;
        Ok(checkpoint.root.0)
    }
}

fn decision(phase: Phase) -> Decision {
    match phase {
        Phase::Open | Phase::Final | Phase::Upheld => Decision::Deny,
        Phase::Overturned | Phase::Reduced => Decision::Allow,
        _ => Decision::Review,
    }
}
