//! Why a request was decided as it was, and what was missing.

use cedar_policy::{Authorizer, Decision as Said, Effect, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bundle::{Bundle, PolicyText};
use super::decide::{Decision, Snapshot};
use super::request::Request;
use super::translate::Query;

/// Most permits that are told of.
const NEAREST: usize = 3;

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// The policies that decided.
    pub determining: Vec<PolicyText>,
    /// Of a denied request, the permits that would have allowed it with the fewest changes; at most three.
    pub nearest: Vec<Near>,
}

/// A permit that did not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Near {
    /// The policy.
    pub policy: PolicyText,
    /// The parts of it that did not hold, e.g. `principal in AiVillage::Role::"admin"`.
    pub failed: Vec<String>,
}

impl Snapshot {
    /// Decides and says why.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        let mut explanation = self.bundle().explain(request);
        explanation.decision.epoch = self.epoch();
        explanation
    }
}

impl Bundle {
    /// Decides and says why.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        let decision = self.decide(request);
        let determining = decision.policy_ids.iter().filter_map(|id| self.policy(id)).cloned().collect();
        let nearest = if decision.allow { Vec::new() } else { self.nearest(request) };
        Explanation { decision, determining, nearest }
    }

    fn nearest(&self, request: &Request) -> Vec<Near> {
        let Ok((slice, query)) = self.question(request) else { return Vec::new() };
        let policies = slice.sets(&request.resource.tenant).flat_map(PolicySet::policies);
        let permits = policies.filter(|policy| policy.effect() == Effect::Permit);
        let mut nearest: Vec<Near> = permits
            .filter_map(|policy| {
                let text = self.policy(policy.id().as_ref())?.clone();
                let failed = failed(policy, &query);
                (!failed.is_empty()).then_some(Near { policy: text, failed })
            })
            .collect();
        nearest.sort_by(|a, b| (a.failed.len(), &a.policy.id).cmp(&(b.failed.len(), &b.policy.id)));
        nearest.truncate(NEAREST);
        nearest
    }
}

/// The parts of a policy that do not hold for a request. The action of a policy in the slice always does.
fn failed(policy: &Policy, query: &Query) -> Vec<String> {
    let Ok(whole) = policy.to_json() else { return Vec::new() };
    let mut parts = Vec::new();
    parts.extend(principal(&policy.principal_constraint()).map(|text| (text, only(&whole, "principal"))));
    parts.extend(resource(&policy.resource_constraint()).map(|text| (text, only(&whole, "resource"))));
    for condition in whole["conditions"].as_array().into_iter().flatten() {
        let is_when = condition["kind"] == "when";
        for body in if is_when { conjuncts(&condition["body"]) } else { vec![&condition["body"]] } {
            let part = with_condition(&json!({ "kind": condition["kind"], "body": body }));
            parts.push((clause(&part).unwrap_or_else(|| body.to_string()), part));
        }
    }
    parts.into_iter().filter(|(_, part)| !holds(part, query)).map(|(text, _)| text).collect()
}

/// Whether a policy of this form permits the request.
fn holds(part: &Value, query: &Query) -> bool {
    let Ok(policy) = Policy::from_json(None, part.clone()) else { return false };
    let Ok(set) = PolicySet::from_policies([policy]) else { return false };
    Authorizer::new().is_authorized(&query.request, &set, &query.entities).decision() == Said::Allow
}

/// A permit for all, with this one part of the scope of `whole`.
fn only(whole: &Value, part: &str) -> Value {
    let mut policy = with_condition(&Value::Null);
    policy[part] = whole[part].clone();
    policy
}

fn with_condition(condition: &Value) -> Value {
    let conditions: Vec<_> = Some(condition).filter(|condition| !condition.is_null()).into_iter().collect();
    let all = json!({ "op": "All" });
    json!({ "effect": "permit", "principal": all, "action": all, "resource": all, "conditions": conditions })
}

/// The operands of a chain of `&&`.
fn conjuncts(body: &Value) -> Vec<&Value> {
    match body.get("&&") {
        Some(both) => [conjuncts(&both["left"]), conjuncts(&both["right"])].concat(),
        None => vec![body],
    }
}

/// A condition as Cedar writes it.
fn clause(part: &Value) -> Option<String> {
    let text = Policy::from_json(None, part.clone()).ok()?.to_cedar()?;
    let (from, to) = (text.find('{')?, text.rfind('}')?);
    let inner = text.get(from + 1..to)?.trim();
    let negated = part["conditions"][0]["kind"] == "unless";
    Some(if negated { format!("unless {{ {inner} }}") } else { inner.to_owned() })
}

fn principal(about: &PrincipalConstraint) -> Option<String> {
    match about {
        PrincipalConstraint::Any => None,
        PrincipalConstraint::In(uid) => Some(format!("principal in {uid}")),
        PrincipalConstraint::Eq(uid) => Some(format!("principal == {uid}")),
        PrincipalConstraint::Is(kind) => Some(format!("principal is {kind}")),
        PrincipalConstraint::IsIn(kind, uid) => Some(format!("principal is {kind} in {uid}")),
    }
}

fn resource(about: &ResourceConstraint) -> Option<String> {
    match about {
        ResourceConstraint::Any => None,
        ResourceConstraint::In(uid) => Some(format!("resource in {uid}")),
        ResourceConstraint::Eq(uid) => Some(format!("resource == {uid}")),
        ResourceConstraint::Is(kind) => Some(format!("resource is {kind}")),
        ResourceConstraint::IsIn(kind, uid) => Some(format!("resource is {kind} in {uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Case, Sources};

    fn request(json: &str) -> Request {
        let case = format!(r#"[{{ "name": "", "expect": "deny", "request": {json} }}]"#);
        Case::read(&case).unwrap().remove(0).request
    }

    fn explain(json: &str) -> Explanation {
        Bundle::load(&Sources::embedded()).unwrap().explain(&request(json))
    }

    #[test]
    fn a_deny_names_the_permits_that_were_near_and_what_they_lacked() {
        let said = explain(
            r#"{ "principal": { "tenant": "t", "subject": "bob", "kind": "user", "roles": ["guest"] },
                 "action": "rag.delete", "resource": { "kind": "Document", "id": "d", "tenant": "t", "owner": "user:t/ann" } }"#,
        );
        assert!(!said.decision.allow && said.determining.is_empty());
        let near: Vec<_> = said.nearest.iter().map(|near| (near.policy.id.as_str(), &near.failed[..])).collect();
        assert_eq!(
            near,
            [
                ("owner-keeps", &["resource.owner == principal.name".to_owned()][..]),
                (
                    "super-admin-does-anything-at-home",
                    &[r#"principal in AiVillage::Role::"super_admin""#.to_owned()][..]
                ),
                ("user-uses", &[r#"principal in AiVillage::Role::"user""#.to_owned()][..]),
            ]
        );
        assert_eq!(said.nearest[2].policy.file, "roles.cedar");
        assert!(said.nearest[2].policy.text.starts_with("@id(\"user-uses\")"), "{said:?}");
    }

    #[test]
    fn a_forbid_is_told_with_its_article_and_source() {
        let said = explain(
            r#"{ "principal": { "tenant": "a", "subject": "ann", "kind": "user", "roles": ["user"] },
                 "action": "agent.ask", "resource": { "kind": "Agent", "id": "sage", "tenant": "b" } }"#,
        );
        let [forbid] = &said.determining[..] else { panic!("{said:?}") };
        assert_eq!((forbid.id.as_str(), forbid.article.as_deref()), ("forbid-cross-tenant", Some("A4.2")));
        assert_eq!((forbid.file.as_str(), forbid.line), ("always.cedar", 3));
        assert!(forbid.text.contains("unless"), "{forbid:?}");
    }

    #[test]
    fn an_allow_names_its_permits_only() {
        let said = explain(
            r#"{ "principal": { "tenant": "a", "subject": "ann", "kind": "user", "roles": ["user"] },
                 "action": "agent.ask", "resource": { "kind": "Agent", "id": "sage", "tenant": "a" } }"#,
        );
        assert!(said.decision.allow && said.nearest.is_empty());
        assert_eq!(said.determining[0].id, "user-uses");
        assert_eq!(postcard::from_bytes::<Explanation>(&postcard::to_allocvec(&said).unwrap()).unwrap(), said);
    }
}
