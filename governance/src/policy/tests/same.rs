//! Slices, tenants and flattened roles change no decision, and no policy lets a tenant into another.

use std::collections::{HashMap, HashSet};

use cedar_policy::{AuthorizationError, Authorizer, Effect, Entities, Policy, PolicySet, Schema};
use proptest::prelude::*;
use serde_json::json;

use super::{EMBEDDED, RICH, rich};
use crate::policy::random::Random;
use crate::policy::translate::Query;
use crate::policy::{Bundle, Decision, Request, Sources, read};

/// All policies of `sources` in one set; those of a tenant say themselves whose resources they are about.
fn all_policies(sources: &Sources) -> (Schema, PolicySet) {
    let schema = read::schema(sources).unwrap();
    let check = read::Check { validator: cedar_policy::Validator::new(schema.clone()), passed: &|_| false };
    let mut all = PolicySet::new();
    for (file, text) in sources.of_type("cedar") {
        for found in read::policies(file, text, &check, &mut Vec::new()) {
            let policy = match &found.tenant {
                Some(tenant) => confined(&found.policy, tenant),
                None => found.policy,
            };
            all.add(policy).unwrap();
        }
    }
    (schema, all)
}

fn confined(policy: &Policy, tenant: &str) -> Policy {
    let mut json = policy.to_json().unwrap();
    let own = json!({ "==": {
        "left": { ".": { "left": { "Var": "resource" }, "attr": "tenant" } },
        "right": { "Value": { "__entity": { "type": "AiVillage::Tenant", "id": tenant } } },
    } });
    let conditions = json["conditions"].as_array_mut().unwrap();
    conditions.insert(0, json!({ "kind": "when", "body": own }));
    Policy::from_json(Some(policy.id().clone()), json).unwrap()
}

/// The decision of the set as a whole: deny when a forbid holds or cannot be evaluated, else allow when a permit holds.
fn decide(all: &PolicySet, query: &cedar_policy::Request, entities: &Entities) -> (bool, Vec<String>) {
    let said = Authorizer::new().is_authorized(query, all, entities);
    let reasons: HashSet<_> = said.diagnostics().reason().cloned().collect();
    let broken = said.diagnostics().errors().map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id());
    let is_forbid = |id: &&cedar_policy::PolicyId| all.policy(id).unwrap().effect() == Effect::Forbid;
    let broken: HashSet<_> = broken.filter(is_forbid).cloned().collect();
    let (forbids, permits): (HashSet<_>, HashSet<_>) = reasons.iter().cloned().partition(|id| is_forbid(&id));
    let forbids: HashSet<_> = forbids.union(&broken).cloned().collect();
    let allow = forbids.is_empty() && !permits.is_empty();
    let mut ids: Vec<_> = if allow { permits } else { forbids }.iter().map(ToString::to_string).collect();
    ids.sort();
    (allow, ids)
}

fn check(all: &PolicySet, request: &Request, decision: &Decision, query: &Query) {
    let (allow, ids) = decide(all, &query.request, &query.entities);
    assert_eq!((decision.allow, &decision.policy_ids), (allow, &ids), "{request:?}");
    let same_tenant = request.principal.tenant == request.resource.tenant;
    let shared = request.resource.shared_with.contains(&request.principal.tenant);
    assert!(!decision.allow || same_tenant || shared, "{request:?}");
}

/// Decides `count` random requests both ways; how many there were of each outcome.
fn compare(seed: u64, count: usize, all: &PolicySet) -> HashMap<&'static str, usize> {
    let mut random = Random::new(seed, RICH.slices());
    let mut seen = HashMap::new();
    for _ in 0..count {
        let request = random.request();
        let outcome = match RICH.question(&request) {
            Err(why) => {
                let decision = RICH.decide(&request);
                assert!(!decision.allow && decision.errors == [why], "{request:?}");
                "no question"
            }
            Ok((slice, query)) => {
                let decision = RICH.answer(&request, slice, &query);
                check(all, &request, &decision, &query);
                match (&decision.allow, &decision.policy_ids[..], &decision.errors[..]) {
                    (true, ..) => "allowed",
                    (_, [], _) => "no permit",
                    (_, _, []) => "forbidden",
                    _ => "forbidden by a broken policy",
                }
            }
        };
        *seen.entry(outcome).or_default() += 1;
    }
    seen
}

#[test]
fn a_slice_decides_as_the_whole_set_on_100_000_random_requests() {
    let (_, all) = all_policies(&rich());
    assert_eq!(all.num_of_policies(), RICH.len());
    let halves: Vec<_> = std::thread::scope(|scope| {
        let all = &all;
        let threads = [1, 2].map(|seed| scope.spawn(move || compare(seed, 50_000, all)));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    // Each outcome often enough to mean something.
    for outcome in ["allowed", "no permit", "forbidden", "forbidden by a broken policy", "no question"] {
        let count: usize = halves.iter().filter_map(|seen| seen.get(outcome)).sum();
        assert!(count >= 100, "{outcome}: {count} of {halves:?}");
    }
}

/// The same request in Cedar's JSON, with the roles as entities of their own, as another program would ask.
fn as_json(request: &Request, roles: &Entities, schema: &Schema) -> Entities {
    let (who, what) = (&request.principal, &request.resource);
    let uid = |kind: &str, id: String| json!({ "type": format!("AiVillage::{kind}"), "id": id });
    let tenant = |id: &String| json!({ "__entity": uid("Tenant", id.clone()) });
    let mut parents = vec![uid("Tenant", who.tenant.clone())];
    parents.extend(who.roles.iter().map(|role| uid("Role", role.clone())));
    parents.extend(who.groups.iter().map(|group| uid("Group", format!("{}/{group}", who.tenant))));
    let mut attrs = json!({
        "name": who.name(), "tenant": tenant(&who.tenant), "labels": who.labels, "shared_with": [], "egress": [],
        "regions": [], "suspended": who.suspended,
    });
    who.acts_for.iter().for_each(|other| attrs["acts_for"] = json!(other));
    let kind = ["User", "ServiceAccount", "Agent", "Node"][who.kind as usize];
    let principal =
        json!({ "uid": uid(kind, format!("{}/{}", who.tenant, who.subject)), "attrs": attrs, "parents": parents });

    let mut parents = vec![uid("Tenant", what.tenant.clone())];
    parents.extend(what.namespace.iter().map(|name| uid("Namespace", format!("{}/{name}", what.tenant))));
    let mut attrs = json!({
        "name": format!("{}:{}/{}", what.kind.to_lowercase(), what.tenant, what.id), "tenant": tenant(&what.tenant),
        "labels": what.labels, "shared_with": what.shared_with.iter().map(tenant).collect::<Vec<_>>(),
        "egress": what.egress, "regions": what.regions, "suspended": false,
    });
    what.owner.iter().for_each(|owner| attrs["owner"] = json!(owner));
    what.proposer.iter().for_each(|proposer| attrs["proposer"] = json!(proposer));
    let resource =
        json!({ "uid": uid(&what.kind, format!("{}/{}", what.tenant, what.id)), "attrs": attrs, "parents": parents });
    let actions = schema.action_entities().unwrap().iter().cloned().collect::<Vec<_>>();
    let entities = roles.clone().add_entities(actions, None).unwrap();
    entities.add_entities_from_json_value(json!([principal, resource]), None).unwrap()
}

#[test]
fn flattened_roles_decide_as_cedar_does_with_the_whole_hierarchy() {
    let (schema, all) = all_policies(&rich());
    let roles = Entities::from_json_str(rich().file("entities.json").unwrap(), None).unwrap();
    let mut random = Random::new(3, RICH.slices());
    let mut allowed = 0;
    for _ in 0..1_000 {
        let request = random.request();
        // One that acts on itself is one entity with two roles in the request; its JSON would be another test of the same.
        let oneself = request.principal.subject == request.resource.id;
        let Ok((_, query)) = RICH.question(&request) else { continue };
        if oneself || request.resource.kind == "Tenant" || request.resource.kind == "ServiceAccount" {
            continue;
        }
        let (allow, ids) = decide(&all, &query.request, &as_json(&request, &roles, &schema));
        let decision = RICH.decide(&request);
        assert_eq!((decision.allow, decision.policy_ids), (allow, ids), "{request:?}");
        allowed += usize::from(allow);
    }
    assert!(allowed > 50, "{allowed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_permit_never_takes_and_a_forbid_never_gives(seed: u64, forbid: bool, of_tenant: bool) {
        let mut random = Random::new(seed, EMBEDDED.slices());
        let policy = random.policy(forbid);
        let file = if of_tenant { "tenants/b/random.cedar" } else { "random.cedar" };
        // A forbid of all that locks out who administers is refused as a bundle; and so is a scope of another tenant.
        let Ok(more) = Bundle::load(&Sources::embedded().with(file, policy.clone()).unwrap()) else { return Ok(()) };
        for _ in 0..200 {
            let request = random.request();
            let (before, after) = (EMBEDDED.decide(&request), more.decide(&request));
            if forbid {
                prop_assert!(before.allow || !after.allow, "{policy} {request:?}");
            } else {
                prop_assert!(after.allow || !before.allow, "{policy} {request:?}");
            }
            let same_tenant = request.principal.tenant == request.resource.tenant;
            let shared = request.resource.shared_with.contains(&request.principal.tenant);
            prop_assert!(!after.allow || same_tenant || shared, "{policy} {request:?}");
            if of_tenant && request.resource.tenant != "b" {
                prop_assert_eq!(&before, &after, "{} {:?}", policy, request);
            }
        }
    }
}
