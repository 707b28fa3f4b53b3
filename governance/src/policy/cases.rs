//! Requests with the decision they must get: a bundle's invariants, and its keeper's own tests.

use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::decide::Decision;
use super::request::Request;

/// A request and what must become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The request.
    pub request: Request,
    /// What must be decided.
    pub expect: Expect,
    /// Policies that must be among those that decide.
    #[serde(default)]
    pub policies: Vec<String>,
}

/// An expected decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
}

/// How a list of cases went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many were decided as expected.
    pub passed: usize,
    /// The others.
    pub failures: Vec<Failure>,
}

/// A case that was decided otherwise than expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The case's name.
    pub name: String,
    /// What was expected.
    pub expected: Expect,
    /// Policies that were expected to decide and did not.
    pub missing: Vec<String>,
    /// What was decided.
    pub got: Decision,
}

/// Why a file of cases cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("tests cannot be read: {0}")]
pub struct CaseError(#[from] serde_json::Error);

impl Case {
    /// Reads a list of cases, as in `tests.json`.
    ///
    /// # Errors
    /// [`CaseError`] with line and column.
    pub fn read(json: &str) -> Result<Vec<Self>, CaseError> {
        Ok(serde_json::from_str(json)?)
    }
}

impl Bundle {
    /// Runs the keeper's tests.
    #[must_use]
    pub fn test(&self, cases: &[Case]) -> Report {
        run(self, cases)
    }
}

pub(super) fn run(bundle: &Bundle, cases: &[Case]) -> Report {
    let failures: Vec<_> = cases.iter().filter_map(|case| failure(bundle, case)).collect();
    Report { passed: cases.len() - failures.len(), failures }
}

fn failure(bundle: &Bundle, case: &Case) -> Option<Failure> {
    let got = bundle.decide(&case.request);
    let missing: Vec<_> = case.policies.iter().filter(|id| !got.policy_ids.contains(id)).cloned().collect();
    // A request that could not be evaluated is denied for no good reason: it shows nothing.
    let as_expected = got.allow == (case.expect == Expect::Allow) && got.errors.is_empty();
    let failed = !as_expected || !missing.is_empty();
    failed.then(|| Failure { name: case.name.clone(), expected: case.expect, missing, got })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Sources;

    const TESTS: &str = r#"[
      { "name": "users ask", "expect": "allow", "policies": ["user-uses"], "request": {
        "principal": { "tenant": "t", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
        "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } } },
      { "name": "guests ask", "expect": "allow", "request": {
        "principal": { "tenant": "t", "subject": "bob", "kind": "user", "roles": ["guest"] }, "action": "agent.ask",
        "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } } },
      { "name": "users may by another policy", "expect": "allow", "policies": ["guest-observes"], "request": {
        "principal": { "tenant": "t", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
        "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } } },
      { "name": "a misspelt action is no proof of a deny", "expect": "deny", "request": {
        "principal": { "tenant": "t", "subject": "bob", "kind": "user", "roles": ["guest"] }, "action": "agent.aks",
        "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } } }
    ]"#;

    #[test]
    fn a_report_names_the_cases_that_went_otherwise() {
        let report = Bundle::load(&Sources::embedded()).unwrap().test(&Case::read(TESTS).unwrap());
        assert_eq!(report.passed, 1);
        let [denied, other, misspelt] = &report.failures[..] else { panic!("{report:?}") };
        assert_eq!((denied.name.as_str(), denied.got.allow), ("guests ask", false));
        assert_eq!((other.got.allow, &other.missing[..]), (true, &["guest-observes".to_owned()][..]));
        assert_eq!(misspelt.got.errors, ["the schema has no action `agent.aks`"]);
    }

    #[test]
    fn tests_that_cannot_be_read_say_where() {
        let error = Case::read("[\n{ \"nam\": 1 }]").unwrap_err().to_string();
        assert!(error.contains("line 2 column 7"), "{error}");
    }
}
