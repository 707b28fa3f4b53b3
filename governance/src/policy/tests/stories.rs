//! Known examples, written as a keeper of policies would write them.

use super::EMBEDDED;
use super::faults::request;
use crate::policy::{Bundle, Case, Sources};

/// A schema of one's own, beside that of the village: a type has the attributes that the always-on forbids look at.
const PHOTO_SCHEMA: &str = r#"
namespace PhotoApp {
  entity Photo in [AiVillage::Namespace, AiVillage::Tenant] = {
    "name": String, "tenant": AiVillage::Tenant, "labels": Set<String>, "shared_with": Set<AiVillage::Tenant>,
    "egress": Set<String>, "regions": Set<String>, "suspended": Bool, "owner"?: String, "proposer"?: String,
    "acts_for"?: String,
  };
  action "photo.view", "photo.comment", "photo.delete"
    appliesTo { principal: [AiVillage::User], resource: [Photo], context: AiVillage::Facts };
}
"#;
/// The photo sharing of the Cedar documentation (docs.cedarpolicy.com, "Example scenario"), in our own words: an album is a
/// namespace, the friends of its owner are a group, and a photo labelled private is its owner's.
const PHOTO_POLICIES: &str = r#"
@id("view-the-vacation")
permit (principal == AiVillage::User::"home/jane", action == PhotoApp::Action::"photo.view", resource in AiVillage::Namespace::"home/vacation");
@id("friends-view-and-comment")
permit (
  principal in AiVillage::Group::"home/janes_friends",
  action in [PhotoApp::Action::"photo.view", PhotoApp::Action::"photo.comment"],
  resource in AiVillage::Namespace::"home/janes_trips"
);
@id("owners-do-all")
permit (principal, action, resource is PhotoApp::Photo)
when { resource has owner && resource.owner == principal.name };
@id("private-is-private") @article("A4.1")
forbid (principal, action, resource is PhotoApp::Photo)
when { resource.labels.contains("private") }
unless { resource has owner && resource.owner == principal.name };
"#;
const PHOTO_TESTS: &str = r#"[
  { "name": "jane sees the vacation", "expect": "allow", "policies": ["view-the-vacation"], "request": {
    "principal": { "tenant": "home", "subject": "jane", "kind": "user" }, "action": "photo.view",
    "resource": { "kind": "PhotoApp::Photo", "id": "beach.jpg", "tenant": "home", "namespace": "vacation" } } },
  { "name": "kevin does not", "expect": "deny", "request": {
    "principal": { "tenant": "home", "subject": "kevin", "kind": "user" }, "action": "photo.view",
    "resource": { "kind": "PhotoApp::Photo", "id": "beach.jpg", "tenant": "home", "namespace": "vacation" } } },
  { "name": "nor does jane delete it", "expect": "deny", "request": {
    "principal": { "tenant": "home", "subject": "jane", "kind": "user" }, "action": "photo.delete",
    "resource": { "kind": "PhotoApp::Photo", "id": "beach.jpg", "tenant": "home", "namespace": "vacation" } } },
  { "name": "friends comment on trips", "expect": "allow", "policies": ["friends-view-and-comment"], "request": {
    "principal": { "tenant": "home", "subject": "kevin", "kind": "user", "groups": ["janes_friends"] }, "action": "photo.comment",
    "resource": { "kind": "PhotoApp::Photo", "id": "alps.jpg", "tenant": "home", "namespace": "janes_trips" } } },
  { "name": "but not on private ones", "expect": "deny", "policies": ["private-is-private"], "request": {
    "principal": { "tenant": "home", "subject": "kevin", "kind": "user", "groups": ["janes_friends"] }, "action": "photo.view",
    "resource": { "kind": "PhotoApp::Photo", "id": "alps.jpg", "tenant": "home", "namespace": "janes_trips",
      "labels": ["private"], "owner": "user:home/jane" } } },
  { "name": "which jane may delete", "expect": "allow", "policies": ["owners-do-all"], "request": {
    "principal": { "tenant": "home", "subject": "jane", "kind": "user" }, "action": "photo.delete",
    "resource": { "kind": "PhotoApp::Photo", "id": "alps.jpg", "tenant": "home", "labels": ["private"], "owner": "user:home/jane" } } },
  { "name": "friends of another household see nothing", "expect": "deny", "policies": ["forbid-cross-tenant"], "request": {
    "principal": { "tenant": "next-door", "subject": "kevin", "kind": "user", "groups": ["janes_friends"] }, "action": "photo.view",
    "resource": { "kind": "PhotoApp::Photo", "id": "alps.jpg", "tenant": "home", "namespace": "janes_trips" } } }
]"#;

#[test]
fn photo_sharing_is_decided_as_the_documentation_says() {
    let sources = Sources::embedded().with("photo.cedarschema", PHOTO_SCHEMA).unwrap();
    let bundle = Bundle::load(&sources.with("photo.cedar", PHOTO_POLICIES).unwrap()).unwrap();
    let report = bundle.test(&Case::read(PHOTO_TESTS).unwrap());
    assert!(report.passed == 7 && report.failures.is_empty(), "{report:?}");
}

/// The to-do lists of `cedar-policy/cedar-examples` (tinytodo), in our own words: a list is a document, and its readers and
/// editors are two groups that share its name.
const TODO_POLICIES: &str = r#"
@id("anybody-of-the-team-makes-lists")
permit (
  principal in AiVillage::Group::"acme/team", action == AiVillage::Action::"rag.create", resource in AiVillage::Namespace::"acme/todo"
) unless { principal in AiVillage::Group::"acme/interns" };
@id("groceries-readers")
permit (
  principal in AiVillage::Group::"acme/groceries-readers", action in [AiVillage::Action::"rag.read"],
  resource == AiVillage::Document::"acme/groceries"
);
@id("groceries-editors")
permit (
  principal in AiVillage::Group::"acme/groceries-editors", action in [AiVillage::Action::"rag.read", AiVillage::Action::"rag.update"],
  resource == AiVillage::Document::"acme/groceries"
);
"#;
/// Editors are readers, and the team's interns are of the team.
const TODO_ENTITIES: &str = r#"[
  { "uid": { "type": "AiVillage::Group", "id": "acme/groceries-editors" },
    "parents": [{ "type": "AiVillage::Group", "id": "acme/groceries-readers" }] },
  { "uid": { "type": "AiVillage::Group", "id": "acme/interns" },
    "parents": [{ "type": "AiVillage::Group", "id": "acme/team" }] },
  { "uid": { "type": "AiVillage::User", "id": "acme/andrew" },
    "parents": [{ "type": "AiVillage::Group", "id": "acme/groceries-editors" }] },
  { "uid": { "type": "AiVillage::Namespace", "id": "acme/todo" }, "attrs": { "regions": ["eu"], "egress": [] } }
]"#;

#[test]
fn to_do_lists_are_decided_as_the_example_says() {
    let sources = Sources::embedded().with("tenants/acme/todo.cedar", TODO_POLICIES).unwrap();
    let bundle = Bundle::load(&sources.with("entities.json", TODO_ENTITIES).unwrap());
    // The roles of the program went with its entities.json, and with them who administers: that is not noticed here only
    // because `super_admin` has a permit of its own.
    let bundle = bundle.unwrap();
    let may = |who: &str, groups: &str, action: &str, list: &str, facts: &str| {
        let request = request(&format!(
            r#"{{ "principal": {{ "tenant": "acme", "subject": "{who}", "kind": "user", "groups": [{groups}] }}, "action": "{action}",
                 "resource": {{ "kind": "Document", "id": "{list}", "tenant": "acme", "namespace": "todo", "egress": ["a.example"] }},
                 "facts": {{ {facts} }} }}"#
        ));
        let decision = bundle.decide(&request);
        assert!(decision.errors.is_empty(), "{decision:?}");
        decision.allow
    };
    let home = r#""region": "eu""#;
    assert!(may("kesha", r#""team""#, "rag.create", "trip", home));
    assert!(!may("tom", r#""interns""#, "rag.create", "trip", home));
    assert!(may("aaron", r#""groceries-readers""#, "rag.read", "groceries", home));
    assert!(!may("aaron", r#""groceries-readers""#, "rag.update", "groceries", home));
    assert!(may("emina", r#""groceries-editors""#, "rag.read", "groceries", home));
    // Who is in a group by the bundle, not by the request.
    assert!(may("andrew", "", "rag.update", "groceries", home));
    assert!(!may("andrew", "", "rag.update", "trip", home));
    // Where its namespace is kept, and where its data may go: the bundle's word, whatever the request says.
    assert!(!may("andrew", "", "rag.update", "groceries", r#""region": "us""#));
    assert!(!may("andrew", "", "rag.update", "groceries", r#""region": "eu", "egress": "a.example""#));
}

/// Actions of the messages that this workspace exposes.
const IN_USE: [(&str, &str); 10] = [
    ("agent.ask", "Agent"),
    ("agent.tool", "Agent"),
    ("agent.read", "Agent"),
    ("agent.self", "Agent"),
    ("agent.history", "Agent"),
    ("agent.erase", "Agent"),
    ("tool.compute", "Agent"),
    ("memory.query", "Collection"),
    ("memory.write", "Collection"),
    ("memory.erase", "Document"),
];

#[test]
fn a_user_may_do_what_the_program_offers_and_a_guest_only_reads() {
    for (action, kind) in IN_USE {
        let may = |role: &str| {
            let request = request(&format!(
                r#"{{ "principal": {{ "tenant": "t", "subject": "x", "kind": "user", "roles": ["{role}"], "scopes": ["*"] }},
                     "action": "{action}", "resource": {{ "kind": "{kind}", "id": "d", "tenant": "t" }} }}"#
            ));
            EMBEDDED.decide(&request)
        };
        assert!(may("user").allow && may("super_admin").allow, "{action}: {:?}", may("user"));
        let reads = ["agent.read", "agent.history", "tool.compute", "memory.query"].contains(&action);
        assert_eq!(may("guest").allow, reads, "{action}");
        assert!(may("guest").errors.is_empty() && !may("nobody").allow, "{action}");
    }
}

#[test]
fn sharing_lets_another_tenant_read_and_nothing_else() {
    let may = |action: &str| {
        let request = request(&format!(
            r#"{{ "principal": {{ "tenant": "b", "subject": "x", "kind": "user", "roles": ["super_admin"] }}, "action": "{action}",
                 "resource": {{ "kind": "Document", "id": "d", "tenant": "a", "shared_with": ["b"] }}, "facts": {{ "mfa": true }} }}"#
        ));
        EMBEDDED.decide(&request).allow
    };
    assert!(may("memory.query"));
    assert!(!may("memory.write") && !may("memory.erase") && !may("rag.update"));
}

#[test]
fn an_agent_does_not_approve_for_the_one_who_asked() {
    let may = |acts_for: &str| {
        let request = request(&format!(
            r#"{{ "principal": {{ "tenant": "t", "subject": "x", "kind": "service", "roles": ["trustee"], "acts_for": "{acts_for}" }},
                 "action": "gov.execute", "facts": {{ "mfa": true }},
                 "resource": {{ "kind": "Proposal", "id": "p", "tenant": "t", "proposer": "user:t/ann" }} }}"#
        ));
        EMBEDDED.decide(&request).allow
    };
    assert!(may("user:t/bob"));
    assert!(!may("user:t/ann"));
}

#[test]
fn a_person_asks_for_their_own_data_only() {
    let may = |whose: &str| {
        let request = request(&format!(
            r#"{{ "principal": {{ "tenant": "t", "subject": "ann", "kind": "user" }}, "action": "comp.dsar",
                 "resource": {{ "kind": "User", "id": "{whose}", "tenant": "t" }} }}"#
        ));
        EMBEDDED.decide(&request).allow
    };
    assert!(may("ann"));
    assert!(!may("bob"));
}
