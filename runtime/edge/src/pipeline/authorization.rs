//! Step 14: may the caller do this? Each route names its action and resource in [`crate::routes`]; the policies decide.
//!
//! Before idempotency keys are claimed, so that a denial is not kept as the answer to a key.

use aivillage_governance::gate::{Count, Ctx, Gate};
use aivillage_governance::moderation::Stage;
use aivillage_governance::policy::Resource;
use aivillage_runtime::Principal;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;

use super::{Caller, Visit, is_unsafe};
use crate::auth::TENANT;
use crate::error::{ApiError, Code};
use crate::routes::{Need, unknown_route, wrong_method};

/// The id of a resource that is all of its type.
const ALL: &str = "*";

/// Refuses a request that no policy allows. A method or route that names no action ends here: forgotten is not allowed.
pub(super) async fn check(gate: &Gate, visit: &Visit, caller: &Caller, parts: &mut Parts) -> Result<(), ApiError> {
    let Some(need) = visit.route.need(&parts.method) else {
        let is_route = parts.extensions.get::<MatchedPath>().is_some();
        return Err(if is_route { wrong_method(&parts.method) } else { unknown_route(&parts.uri) });
    };
    match need {
        Need::Message => Ok(()),
        Need::Action { action, kind, id } => {
            let id = match id {
                None => ALL.to_owned(),
                Some(name) => parameter(parts, name).await?,
            };
            let tenant = if is_villages(action, kind) { TENANT } else { caller.tenant() };
            caller.may(gate, action, Resource::new(kind, id, tenant))
        }
    }
}

/// Whether such a resource belongs to whoever runs the village, whatever tenants it has: nodes, their log, live topics, actors of
/// any kind. That there is a village, and whether it is well, everybody may know who is let in.
fn is_villages(action: &str, kind: &str) -> bool {
    matches!(kind, "System" | "AuditEntry" | "Actor") && action != "system.read"
}

async fn parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    let refused = |_| ApiError::new(Code::BadRequest, "a part of the path is not UTF-8");
    let all = RawPathParams::from_request_parts(parts, &()).await.map_err(refused)?;
    let value = all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    value.ok_or_else(|| ApiError::new(Code::Internal, format!("the route has no part {name}")))
}

impl Caller {
    /// Whether the policies let the caller do this.
    ///
    /// # Errors
    /// 404 for what belongs to another tenant, 403 for what no policy permits, 503 as long as there are no policies.
    pub(crate) fn may(&self, gate: &Gate, action: &str, resource: Resource) -> Result<(), ApiError> {
        // That the village has nodes and a log is no secret.
        if resource.tenant != self.tenant() && !is_villages(action, &resource.kind) {
            return Err(ApiError::not_found(format_args!("a {} of this name", resource.kind)));
        }
        gate.enter(Stage::UserInput, &self.sends().act(action, resource))?;
        Ok(())
    }

    /// What the gate is told about the caller.
    pub(crate) fn sends(&self) -> Ctx {
        Ctx { mfa: self.mfa, ip: self.from, trace: Some(self.trace), ..Ctx::of(Principal::clone(&self.principal)) }
    }

    /// Whether the caller may send a message that its kind exposes as `action` to the actor of this key.
    ///
    /// # Errors
    /// As [`Caller::may`]; 403 also for an action that the policies do not know, with what to do about it.
    pub(crate) fn may_send(&self, gate: &Gate, action: &str, kind: &str, key: &str) -> Result<(), ApiError> {
        let snapshot = gate.snapshot();
        let known = snapshot.as_ref().map(|snapshot| snapshot.bundle().resource_kinds(action));
        if known.as_ref().is_some_and(Vec::is_empty) {
            return Err(unknown_action(action, kind));
        }
        let known = known.unwrap_or_default();
        // What is of no other type is an actor, and belongs to whoever runs the village.
        let (resource, tenant) = match known.first() {
            Some(first) if !known.contains(&"Actor") => (*first, owner(key).unwrap_or(self.tenant())),
            _ => ("Actor", TENANT),
        };
        self.may(gate, action, Resource::new(resource, format!("{kind}/{key}"), tenant))
    }
}

/// The tenant that a key of agents or memory begins with, `tenant:name` or `tenant/name`; none of what tenants share.
fn owner(key: &str) -> Option<&str> {
    key.split([':', '/']).next().filter(|tenant| !tenant.is_empty())
}

fn unknown_action(action: &str, kind: &str) -> ApiError {
    let detail = format!(
        "the policies know no action `{action}`, so nobody may send this to `{kind}`: expose the message as an action of \
         theirs, such as `actor.call`, or add `{action}` in a .cedarschema file of governance.policy.dir"
    );
    ApiError::new(Code::Forbidden, detail).denied(Vec::new(), Vec::new())
}

/// Counts a request against the limits of its principal and tenant.
///
/// # Errors
/// `rate_limited`, naming the limit.
pub(super) fn count(gate: &Gate, caller: &Caller, method: &Method) -> Result<(), ApiError> {
    let count = if is_unsafe(method) { Count::Write } else { Count::Read };
    gate.enter(Stage::UserInput, &Ctx { count, ..caller.sends() })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aivillage_governance::policy::{Bundle, Sources};
    use aivillage_runtime::{PrincipalKind, TraceCx, Village};

    use super::*;
    use crate::routes::{Route, documented, table};

    fn gate() -> Gate {
        let (_, governance) = aivillage_governance::install(Village::builder()).unwrap();
        governance.pdp.publish(Arc::new(Bundle::load(&Sources::embedded()).unwrap()), 1);
        governance.gate
    }

    fn caller(roles: &[&str], mfa: bool) -> Caller {
        caller_of(TENANT, roles, mfa)
    }

    fn caller_of(tenant: &str, roles: &[&str], mfa: bool) -> Caller {
        let principal = Principal {
            tenant: tenant.to_owned(),
            subject: "ann".to_owned(),
            kind: PrincipalKind::User,
            roles: roles.iter().map(ToString::to_string).collect(),
            scopes: Vec::new(),
        };
        let (principal, deadline) = (Arc::new(principal), tokio::time::Instant::now());
        Caller { principal, mfa, from: None, trace: TraceCx::new_root(), deadline, idem: None, job: None }
    }

    /// Action and type of each route that needs one.
    fn needs() -> Vec<(&'static Route, &'static str, &'static str)> {
        let methods = [Method::GET, Method::POST, Method::DELETE];
        let needs = table().iter().flat_map(|route| methods.clone().map(|method| (route, route.need(&method))));
        needs
            .filter_map(|(route, need)| match need {
                Some(Need::Action { action, kind, .. }) => Some((route, action, kind)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_route_but_those_without_a_key_names_an_action() {
        let (_, document) = documented().split_for_parts();
        let document = serde_json::to_value(document).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            let route = Route::of(Some(path));
            for method in item.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                assert_eq!(route.need(&method).is_some(), route.needs_key(), "{method} {path}");
            }
        }
    }

    #[test]
    fn whoever_has_no_role_is_denied_everywhere_and_an_admin_nowhere() {
        let (gate, nobody, admin) = (gate(), caller(&[], true), caller(&["admin"], true));
        assert!(needs().len() > 30);
        for (route, action, kind) in needs() {
            let what = || Resource::new(kind, "x", TENANT);
            let error = nobody.may(&gate, action, what()).unwrap_err();
            assert_eq!(error.status().as_u16(), 403, "{} {action}", route.template);
            // Denied because nothing permits it, and not for a name that the schema does not know.
            assert!(error.to_string().contains("no policy permits it"), "{} {error}", route.template);
            admin.may(&gate, action, what()).unwrap_or_else(|error| panic!("{} {error}", route.template));
        }
    }

    #[tokio::test]
    async fn the_administrator_of_one_tenant_has_no_rights_over_the_village() {
        let (gate, theirs) = (gate(), caller_of("acme", &["super_admin"], true));
        let mut denied = 0;
        for route in table() {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let Some(Need::Action { action, kind, id: None }) = route.need(&method) else { continue };
                let mut parts = axum::http::Request::new(()).into_parts().0;
                parts.method = method;
                let visit = Visit { trace: TraceCx::new_root(), route, instance: "/".into() };
                let checked = check(&gate, &visit, &theirs, &mut parts).await;
                if !is_villages(action, kind) {
                    checked.unwrap_or_else(|error| panic!("{} {error}", route.template));
                    continue;
                }
                let problem = checked.unwrap_err().problem("/", "t");
                assert_eq!(problem["status"], 403, "{} {problem}", route.template);
                assert!(problem["policy_ids"].to_string().contains("forbid-cross-tenant"), "{problem}");
                denied += 1;
            }
        }
        assert!(denied > 10, "{denied}");
    }

    #[test]
    fn a_denial_names_policies_and_articles() {
        let error = caller(&["admin"], false).may(&gate(), "cluster.admin", Resource::new("System", "*", TENANT));
        let problem = error.unwrap_err().problem("/", "t");
        assert_eq!(problem["policy_ids"], serde_json::json!(["forbid-privileged-without-mfa"]));
        assert_eq!(problem["articles"], serde_json::json!(["A10.2"]));
    }

    #[test]
    fn without_policies_nothing_is_allowed() {
        let (_, governance) = aivillage_governance::install(Village::builder()).unwrap();
        let (empty, admin) = (governance.gate, caller(&["admin"], true));
        let error = admin.may(&empty, "system.read", Resource::new("System", "*", TENANT)).unwrap_err();
        assert_eq!((error.code(), error.status().as_u16()), ("governance_unavailable", 503));
        assert_eq!(admin.may_send(&empty, "actor.call", "counter", "a").unwrap_err().status().as_u16(), 503);
    }

    #[test]
    fn what_belongs_to_another_tenant_is_not_there() {
        let (gate, admin) = (gate(), caller(&["admin"], true));
        let sent =
            |action, kind, key| admin.may_send(&gate, action, kind, key).map_err(|error| error.status().as_u16());
        assert_eq!(sent("agent.ask", "agent", "local:sage"), Ok(()));
        assert_eq!(sent("agent.ask", "agent", "other:sage"), Err(404));
        assert_eq!(sent("memory.query", "memory.shard", "other/main"), Err(404));
        assert_eq!(sent("memory.query", "memory.retriever", "local"), Ok(()));
        assert_eq!(sent("agent.read", "agent.roster", ""), Ok(()));
        assert_eq!(sent("actor.call", "counter", "any:key"), Ok(()));
    }

    #[test]
    fn an_action_that_the_policies_do_not_know_is_denied_with_what_to_do() {
        let error = caller(&["super_admin"], true).may_send(&gate(), "counter.add", "counter", "a").unwrap_err();
        assert_eq!((error.code(), error.status().as_u16()), ("forbidden", 403));
        let text = error.to_string();
        assert!(text.contains("`counter.add`") && text.contains(".cedarschema"), "{text}");
    }
}
