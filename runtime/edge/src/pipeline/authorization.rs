//! Step 14: may the caller do this? Each route names its action and resource in [`crate::routes`]; the policies decide.
//!
//! Before idempotency keys are claimed, so that a denial is not kept as the answer to a key.

use std::time::Duration;

use aivillage_governance::policy::{Decision, Facts, PdpHandle, Request, Resource, Unavailable};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::request::Parts;

use super::{Caller, Visit};
use crate::auth::TENANT;
use crate::error::{ApiError, Code};
use crate::routes::{Need, unknown_route, wrong_method};

/// The id of a resource that is all of its type.
const ALL: &str = "*";

/// Refuses a request that no policy allows. A method or route that names no action ends here: forgotten is not allowed.
pub(super) async fn check(pdp: &PdpHandle, visit: &Visit, caller: &Caller, parts: &mut Parts) -> Result<(), ApiError> {
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
            caller.may(pdp, action, Resource::new(kind, id, tenant))
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
    pub(crate) fn may(&self, pdp: &PdpHandle, action: &str, resource: Resource) -> Result<(), ApiError> {
        // That the village has nodes and a log is no secret.
        if resource.tenant != self.tenant() && !is_villages(action, &resource.kind) {
            return Err(ApiError::not_found(format_args!("a {} of this name", resource.kind)));
        }
        let facts = Facts { mfa: self.mfa, ip: self.from, ..Facts::default() };
        let request = Request { principal: (&*self.principal).into(), action: action.to_owned(), resource, facts };
        let unavailable = |error: Unavailable| {
            ApiError::new(Code::PolicyUnavailable, error.to_string()).retry_after(Duration::from_secs(1))
        };
        let decision = pdp.decide(&request).map_err(unavailable)?;
        if decision.allow { Ok(()) } else { Err(denied(&request, &decision)) }
    }

    /// Whether the caller may send a message that its kind exposes as `action` to the actor of this key.
    ///
    /// # Errors
    /// As [`Caller::may`]; 403 also for an action that the policies do not know, with what to do about it.
    pub(crate) fn may_send(&self, pdp: &PdpHandle, action: &str, kind: &str, key: &str) -> Result<(), ApiError> {
        let snapshot = pdp.snapshot();
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
        self.may(pdp, action, Resource::new(resource, format!("{kind}/{key}"), tenant))
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

fn denied(request: &Request, decision: &Decision) -> ApiError {
    let Request { action, resource, .. } = request;
    let detail = format!("`{action}` on {} `{}` is {decision}", resource.kind, resource.id);
    ApiError::new(Code::Forbidden, detail).denied(decision.policy_ids.clone(), decision.articles.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aivillage_governance::policy::{Bundle, Sources};
    use aivillage_runtime::{Principal, PrincipalKind, TraceCx};
    use axum::http::Method;

    use super::*;
    use crate::routes::{Route, documented, table};

    fn pdp() -> PdpHandle {
        let pdp = PdpHandle::new(16);
        pdp.publish(Arc::new(Bundle::load(&Sources::embedded()).unwrap()), 1);
        pdp
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
        let (pdp, nobody, admin) = (pdp(), caller(&[], true), caller(&["admin"], true));
        assert!(needs().len() > 30);
        for (route, action, kind) in needs() {
            let what = || Resource::new(kind, "x", TENANT);
            let error = nobody.may(&pdp, action, what()).unwrap_err();
            assert_eq!(error.status().as_u16(), 403, "{} {action}", route.template);
            // Denied because nothing permits it, and not for a name that the schema does not know.
            assert!(error.to_string().contains("no policy permits it"), "{} {error}", route.template);
            let may = admin.may(&pdp, action, what());
            if action == "mod.jury" {
                // Who administers a tenant moderates it, and does not judge what was moderated.
                assert_eq!(may.unwrap_err().status().as_u16(), 403);
                continue;
            }
            may.unwrap_or_else(|error| panic!("{} {error}", route.template));
        }
    }

    #[tokio::test]
    async fn the_administrator_of_one_tenant_has_no_rights_over_the_village() {
        let (pdp, theirs) = (pdp(), caller_of("acme", &["super_admin"], true));
        let mut denied = 0;
        for route in table() {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let Some(Need::Action { action, kind, id: None }) = route.need(&method) else { continue };
                let mut parts = axum::http::Request::new(()).into_parts().0;
                parts.method = method;
                let visit = Visit { trace: TraceCx::new_root(), route, instance: "/".into() };
                let checked = check(&pdp, &visit, &theirs, &mut parts).await;
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
        let error = caller(&["admin"], false).may(&pdp(), "cluster.admin", Resource::new("System", "*", TENANT));
        let problem = error.unwrap_err().problem("/", "t");
        assert_eq!(problem["policy_ids"], serde_json::json!(["forbid-privileged-without-mfa"]));
        assert_eq!(problem["articles"], serde_json::json!(["A10.2"]));
    }

    #[test]
    fn without_policies_nothing_is_allowed() {
        let (empty, admin) = (PdpHandle::new(1), caller(&["admin"], true));
        let error = admin.may(&empty, "system.read", Resource::new("System", "*", TENANT)).unwrap_err();
        assert_eq!((error.code(), error.status().as_u16()), ("policy_unavailable", 503));
        assert_eq!(admin.may_send(&empty, "actor.call", "counter", "a").unwrap_err().status().as_u16(), 503);
    }

    #[test]
    fn what_belongs_to_another_tenant_is_not_there() {
        let (pdp, admin) = (pdp(), caller(&["admin"], true));
        let sent = |action, kind, key| admin.may_send(&pdp, action, kind, key).map_err(|error| error.status().as_u16());
        assert_eq!(sent("agent.ask", "agent", "local:sage"), Ok(()));
        assert_eq!(sent("agent.ask", "agent", "other:sage"), Err(404));
        assert_eq!(sent("memory.query", "memory.shard", "other/main"), Err(404));
        assert_eq!(sent("memory.query", "memory.retriever", "local"), Ok(()));
        assert_eq!(sent("agent.read", "agent.roster", ""), Ok(()));
        assert_eq!(sent("actor.call", "counter", "any:key"), Ok(()));
    }

    #[test]
    fn an_action_that_the_policies_do_not_know_is_denied_with_what_to_do() {
        let error = caller(&["super_admin"], true).may_send(&pdp(), "counter.add", "counter", "a").unwrap_err();
        assert_eq!((error.code(), error.status().as_u16()), ("forbidden", 403));
        let text = error.to_string();
        assert!(text.contains("`counter.add`") && text.contains(".cedarschema"), "{text}");
    }
}
