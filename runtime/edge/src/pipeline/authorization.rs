//! Step 14: may the caller do this? Each route names its action and resource in [`crate::routes`]; the policies decide.
//!
//! Before idempotency keys are claimed, so that a denial is not kept as the answer to a key.

use aivillage_governance::gate::{Count, Ctx, Gate, Why};
use aivillage_governance::identity::Credential;
use aivillage_governance::moderation::Stage;
use aivillage_governance::policy::{Request, Resource, Subject};
use aivillage_runtime::{Principal, PrincipalKind};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;

use super::tenure::Claim;
use super::{Caller, Visit, is_unsafe};
use crate::auth::TENANT;
use crate::error::{ApiError, Code};
use crate::routes::{Need, unknown_route, wrong_method};

/// The id of a resource that is all of its type.
const ALL: &str = "*";

/// Refuses a request that no policy allows, and returns what was decided. A method or route that names no action ends here:
/// forgotten is not allowed.
pub(super) async fn check(
    gate: &Gate,
    visit: &Visit,
    caller: &Caller,
    parts: &mut Parts,
) -> Result<Option<Claim>, ApiError> {
    let Some(need) = visit.route.need(&parts.method) else {
        let is_route = parts.extensions.get::<MatchedPath>().is_some();
        return Err(if is_route { wrong_method(&parts.method) } else { unknown_route(&parts.uri) });
    };
    match need {
        Need::Later | Need::Anybody | Need::Credential => Ok(None),
        Need::Account { id } => {
            let id = parameter(parts, id).await?;
            caller.may_keep(gate, &id).map(|()| None)
        }
        Need::Action { action, kind, id } => {
            let id = match id {
                None => ALL.to_owned(),
                Some(name) => parameter(parts, name).await?,
            };
            let resource = Resource::new(kind, id, keeper(kind).unwrap_or(caller.tenant()));
            caller.may(gate, action, resource.clone())?;
            Ok(Some((action, resource)))
        }
    }
}

/// The tenant of things that all share: they belong to whoever runs the village.
fn keeper(kind: &str) -> Option<&'static str> {
    matches!(kind, "Actor" | "AuditEntry" | "Node" | "System" | "Tenant").then_some(TENANT)
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
        if resource.tenant != self.tenant() {
            return Err(ApiError::hidden(format_args!("a {} of this name", resource.kind)));
        }
        let sends = self.sends().act(action, resource);
        let Err(denied) = gate.enter(Stage::UserInput, &sends) else { return Ok(()) };
        if denied.why == Why::GovernanceUnavailable && self.looks_after_the_node(gate, &sends) {
            return Ok(());
        }
        let step_up = (denied.why == Why::Forbidden).then(|| sends.asked()).flatten();
        Err(step_up.and_then(|request| self.step_up(gate, &request)).unwrap_or_else(|| denied.into()))
    }

    /// Whether the keeper of this node looks what is wrong with it: that is decided by the last policies there were, since the
    /// key is a file of the node and no decision of the cluster takes it back.
    fn looks_after_the_node(&self, gate: &Gate, sends: &Ctx) -> bool {
        let asked = sends.asked().filter(|asked| ["system.read", "system.monitor"].contains(&&*asked.action));
        let Some(asked) = asked.filter(|_| self.verified.is_none()) else { return false };
        gate.snapshot().is_some_and(|snapshot| snapshot.decide(&asked).allow)
    }

    /// What the gate is told about the caller.
    pub(crate) fn sends(&self) -> Ctx {
        let subject = self.verified.as_ref().map(|_| self.subject());
        let known = Ctx::of(Principal::clone(&self.principal));
        Ctx { mfa: self.mfa, ip: self.from, trace: Some(self.trace), subject, ..known }
    }

    /// Whether the caller may change an account: anybody the own one, as far as its actor lets them.
    ///
    /// # Errors
    /// As [`Caller::may`].
    pub(crate) fn may_keep(&self, gate: &Gate, account: &str) -> Result<(), ApiError> {
        let own = self.subject();
        if account == self.principal.subject && own.acts_for.is_none() {
            return self.may(gate, "id.self", Resource::new(type_of(own.kind), account, self.tenant()));
        }
        self.may(gate, "id.manage", Resource::new("User", account, self.tenant()))
    }

    /// Who the policies are asked about: of a chain of delegation whoever acts now, for the one who began it.
    fn subject(&self) -> Subject {
        let subject = Subject::from(&*self.principal);
        let Some(actor) = self.verified.as_ref().and_then(|verified| verified.actors.first()) else { return subject };
        let acts_for = Some(subject.name());
        Subject { subject: actor.to_string(), kind: PrincipalKind::Agent, acts_for, ..subject }
    }

    /// What to do about a denial if only a second factor is missing: roles that wait for one count then too.
    fn step_up(&self, gate: &Gate, request: &Request) -> Option<ApiError> {
        let verified = self.verified.as_ref()?;
        let mut proven = request.clone();
        proven.facts.mfa = true;
        proven.principal.roles.extend(verified.waiting.iter().cloned());
        if !gate.snapshot()?.decide(&proven).allow {
            return None;
        }
        let (route, how) = match verified.credential {
            Credential::Session(_) => ("/v1/auth/mfa", "show a second factor in this session"),
            _ => ("/v1/auth/login", "log in with a second factor"),
        };
        let Request { action, resource, .. } = request;
        let detail = format!("`{action}` on {} `{}` needs a second factor: {how}", resource.kind, resource.id);
        Some(ApiError::mfa_required(detail, route))
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

/// The type that a principal has as a resource.
fn type_of(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::Service => "ServiceAccount",
        PrincipalKind::Agent => "Agent",
        PrincipalKind::User | PrincipalKind::Node => "User",
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
        let principal = Principal {
            tenant: TENANT.to_owned(),
            subject: "ann".to_owned(),
            kind: PrincipalKind::User,
            roles: roles.iter().map(ToString::to_string).collect(),
            scopes: Vec::new(),
        };
        let (principal, deadline) = (Arc::new(principal), tokio::time::Instant::now());
        Caller {
            principal,
            mfa,
            verified: None,
            from: None,
            trace: TraceCx::new_root(),
            deadline,
            idem: None,
            job: None,
        }
    }

    /// Action and type of each route that needs one.
    fn needs() -> Vec<(&'static Route, &'static str, &'static str)> {
        let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];
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
            let may = admin.may(&gate, action, what());
            if action == "mod.jury" || action.starts_with("comp.") {
                // Who administers a tenant moderates it, and does not judge what was moderated; people's data is the dpo's.
                assert_eq!(may.unwrap_err().status().as_u16(), 403);
                continue;
            }
            may.unwrap_or_else(|error| panic!("{} {error}", route.template));
        }
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
