//! What is known of a job: its record, and how that may change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The code of a job whose worker was lost.
pub(super) const INTERRUPTED: &str = "interrupted";

/// What a job is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What kind of work.
    pub kind: String,
    /// Units in all.
    pub total: u64,
    /// What a unit is.
    pub unit: String,
}

/// How a job's work ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// With a result.
    Done(Value),
    /// With an error.
    Failed {
        /// Stable code.
        code: String,
        /// What was wrong.
        detail: String,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted, not begun.
    Queued,
    /// Being worked on.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended with a problem.
    Failed,
    /// Stopped by its owner.
    Cancelled,
}

impl JobState {
    /// True if nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What a unit is.
    pub unit: String,
    /// What happens now.
    pub message: String,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobProblem {
    /// Stable code.
    pub code: String,
    /// What was wrong.
    pub detail: String,
}

/// The record of a job, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// `UUIDv7`.
    pub id: String,
    /// Isolation boundary.
    pub tenant: String,
    /// What kind of work.
    pub kind: String,
    /// Where it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// RFC 3339, UTC.
    pub updated_at: String,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<JobProblem>,
    /// Where to look.
    pub links: JobLinks,
}

/// Addresses of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobLinks {
    /// The record.
    #[serde(rename = "self")]
    pub own: String,
    /// Its events.
    pub events: String,
}

impl Job {
    pub(super) fn new(id: Uuid, tenant: &str, plan: Plan, now: &str) -> Self {
        Job {
            id: id.to_string(),
            tenant: tenant.to_owned(),
            kind: plan.kind,
            state: JobState::Running,
            progress: Progress { done: 0, total: plan.total, unit: plan.unit, message: String::new() },
            created_at: now.to_owned(),
            updated_at: now.to_owned(),
            result: None,
            problem: None,
            links: JobLinks { own: format!("/v1/jobs/{id}"), events: format!("/v1/jobs/{id}/events") },
        }
    }

    /// Moves on; a final state is left by [`Job::begin_again`] only.
    pub(super) fn change(&mut self, state: JobState, now: &str) -> bool {
        if self.state.is_final() {
            return false;
        }
        self.state = state;
        now.clone_into(&mut self.updated_at);
        true
    }

    /// Its worker was lost, nothing else was wrong with it.
    pub(super) fn is_interrupted(&self) -> bool {
        self.problem.as_ref().is_some_and(|problem| problem.code == INTERRUPTED)
    }

    /// Begins from the start, with another worker.
    pub(super) fn begin_again(&mut self, now: &str) {
        (self.state, self.problem, self.progress.done) = (JobState::Running, None, 0);
        now.clone_into(&mut self.updated_at);
    }

    pub(super) fn fail(&mut self, code: &str, detail: &str, now: &str) -> bool {
        let changed = self.change(JobState::Failed, now);
        if changed {
            self.problem = Some(JobProblem { code: code.to_owned(), detail: detail.to_owned() });
        }
        changed
    }

    pub(super) fn finish(&mut self, outcome: Outcome, now: &str) -> bool {
        match outcome {
            Outcome::Failed { code, detail } => self.fail(&code, &detail, now),
            Outcome::Done(result) => {
                let changed = self.change(JobState::Succeeded, now);
                if changed {
                    self.progress.done = self.progress.total;
                    self.result = Some(result);
                }
                changed
            }
        }
    }

    /// The name of the event that tells this state.
    pub(crate) fn event(&self) -> &'static str {
        match self.state {
            JobState::Queued | JobState::Running => "progress",
            JobState::Succeeded => "result",
            JobState::Failed | JobState::Cancelled => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_final_state_is_never_left() {
        let plan = Plan { kind: "test".into(), total: 3, unit: "documents".into() };
        let mut job = Job::new(Uuid::nil(), "local", plan, "t0");
        assert!(job.finish(Outcome::Done(json!(1)), "t2"));
        assert!(!job.change(JobState::Cancelled, "t3"));
        assert!(!job.fail("late", "late", "t3"));
        assert_eq!((job.state, job.updated_at.as_str(), job.problem), (JobState::Succeeded, "t2", None));
        assert_eq!(job.progress.done, 3);
    }
}
