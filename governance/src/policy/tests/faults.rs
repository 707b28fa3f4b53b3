//! What a bundle is refused for, and that it says where.

use super::{EMBEDDED, RICH};
use crate::policy::{Bundle, BundleError, Case, PdpHandle, Request, Sources, Unavailable};
use std::sync::Arc;

fn load(file: &str, text: &str) -> Result<Bundle, BundleError> {
    Bundle::load(&Sources::embedded().with(file, text).unwrap())
}

/// What is said of a bundle with one bad file.
fn said(file: &str, text: &str) -> String {
    match load(file, text) {
        Err(error @ BundleError::Invalid(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn request(json: &str) -> Request {
    let case = format!(r#"[{{ "name": "", "expect": "deny", "request": {json} }}]"#);
    Case::read(&case).unwrap().remove(0).request
}

#[test]
fn a_fault_is_told_with_file_line_and_column() {
    for (file, text, place) in [
        // Not Cedar.
        ("a.cedar", "\n  permit (principal, action resource);", "a.cedar:2:"),
        // Not in the schema.
        ("a.cedar", "permit (principal, action == AiVillage::Action::\"agent.fly\", resource);", "a.cedar:1:"),
        ("a.cedar", "\npermit (principal, action, resource)\nwhen { resource.colour == 1 };", "a.cedar:3:8: "),
        ("a.cedar", "permit (principal, action, resource)\nwhen { context.mfa == 1 };", "a.cedar:2:8: "),
        // More than one dereference.
        ("a.cedar", "permit (principal, action, resource)\nwhen { principal.tenant.suspended };", "a.cedar:2:8: "),
        // A restriction without an article.
        ("a.cedar", "// why\nforbid (principal, action, resource);", "a.cedar:2:1: a forbid cites the article"),
        // An id that is taken.
        ("b.cedar", "\n@id(\"user-uses\") permit (principal, action, resource);", "b.cedar:2:1: the id `user-uses`"),
        // A template.
        ("a.cedar", "\npermit (principal == ?principal, action, resource);", "a.cedar:2:1: templates"),
        // Tenants.
        ("tenants/a.cedar", "permit (principal, action, resource);", "tenants/a.cedar:1:1: the policies of a tenant"),
        (
            "tenants/a/x.cedar",
            "\npermit (principal, action, resource in AiVillage::Tenant::\"b\");",
            "tenants/a/x.cedar:2:1: policies of a tenant are about its own resources, `AiVillage::Tenant::\"b\"`",
        ),
        (
            "tenants/a/x.cedar",
            "permit (principal, action, resource == AiVillage::Document::\"b/d\");",
            "tenants/a/x.cedar:1:1: policies of a tenant",
        ),
        // Schemas.
        ("a.cedarschema", "namespace App {\n  entity Photo = }", "a.cedarschema:2:"),
        ("a.cedarschema", "namespace App {\n  entity Photo in [Album]; }", "a.cedarschema:2:20: "),
        // Entities.
        ("entities.json", "[\n{ \"uid\": 1 }]", "entities.json:2:10: "),
        (
            "entities.json",
            "[{ \"uid\": { \"type\": \"AiVillage::Rule\", \"id\": \"x\" } }]",
            "entities.json:1:46: the schema has no type `AiVillage::Rule`",
        ),
        ("entities.json", "[{ \"uid\": { \"type\": \"::\", \"id\": \"x\" } }]", "entities.json:1:33: type `::`"),
        (
            "entities.json",
            r#"[{ "uid": { "type": "AiVillage::Role", "id": "x" }, "parents": [{ "type": "AiVillage::Tenant", "id": "t" }] }]"#,
            "entities.json:1:46: by the schema `AiVillage::Role::\"x\"` cannot be in",
        ),
        (
            "entities.json",
            r#"[{ "uid": { "type": "AiVillage::Role", "id": "x" }, "parents": [{ "type": "AiVillage::Role", "id": "x" }] }]"#,
            "entities.json:1:46: `AiVillage::Role::\"x\"` is in itself",
        ),
        (
            "entities.json",
            r#"[{ "uid": { "type": "AiVillage::Role", "id": "x" } }, { "uid": { "type": "AiVillage::Role", "id": "x" } }]"#,
            "entities.json:1:46: `AiVillage::Role::\"x\"` is there twice",
        ),
        ("invariants.json", "[\n1]", "invariants.json:2:1: "),
    ] {
        let said = said(file, text);
        assert!(said.starts_with(place), "{place} expected, but:\n{said}");
    }
}

#[test]
fn beside_another_bundle_what_changed_is_checked_and_with_another_schema_all() {
    let with = |text: &str| Sources::embedded().with("a.cedar", text).unwrap();
    let policy =
        |of: &str| format!("@id(\"mine\") permit (principal, action, resource is App::{of}) when {{ context.mfa }};");
    let schema = |of: &str| {
        let types = include_str!("../../../policies/schema.cedarschema");
        let things = &types[types.find("entity Tenant").unwrap()..types.find("// What is true of the one").unwrap()];
        let things = things
            .replace(
                "Tenant, System, Namespace, Actor, Tool, Topic, Job, Collection, Document, Model, \
             Proposal, Case, Key, AuditEntry",
                of,
            )
            .replace("[Namespace, Tenant]", "[AiVillage::Tenant]");
        let things = things.replace(": Tenant", ": AiVillage::Tenant").replace("<Tenant>", "<AiVillage::Tenant>");
        let action = format!(
            "action \"app.see\" appliesTo {{ principal: [AiVillage::User], resource: [{of}], context: AiVillage::Facts }};"
        );
        format!("namespace App {{ {things} {action} }}")
    };
    let photos = with(&policy("Photo")).with("app.cedarschema", schema("Photo")).unwrap();
    let before = Bundle::load(&photos).unwrap();
    let after = |sources: &Sources| Bundle::load_after(sources, Some(&before)).map(|bundle| bundle.hash());
    assert_eq!(after(&photos).unwrap(), photos.hash());
    let worse = photos.clone().with("a.cedar", policy("Photo").replace("mfa", "mfb")).unwrap();
    assert!(matches!(after(&worse), Err(BundleError::Invalid(_))));
    let videos = photos.with("app.cedarschema", schema("Video")).unwrap();
    assert!(matches!(after(&videos), Err(BundleError::Invalid(_))));
}

#[test]
fn all_faults_are_told_together_and_no_more_than_a_hundred() {
    let sources = Sources::embedded().with("a.cedar", "permit (").unwrap().with("b.cedar", "forbid (").unwrap();
    let Err(BundleError::Invalid(issues)) = Bundle::load(&sources) else { panic!("loaded") };
    assert_eq!(issues.iter().map(|issue| issue.file.as_str()).collect::<Vec<_>>(), ["a.cedar", "b.cedar"]);
    let many = "forbid (principal, action, resource);\n".repeat(150);
    let Err(BundleError::Invalid(issues)) = load("a.cedar", &many) else { panic!("loaded") };
    assert_eq!((issues.len(), issues[99].line), (100, 100));
}

#[test]
fn a_bundle_that_breaks_an_invariant_is_refused() {
    let locked = load("a.cedar", "@id(\"stop\") @article(\"A1\") forbid (principal, action, resource);");
    let Err(BundleError::Invariant { failure, .. }) = &locked else { panic!("{locked:?}") };
    assert!(!failure.got.allow && failure.got.policy_ids == ["stop"], "{failure:?}");
    let text = locked.unwrap_err().to_string();
    assert!(text.contains("cannot be locked out") && text.contains("denied by stop"), "{text}");
    // Who has no role gets the keys.
    let open = load("a.cedar", "permit (principal, action, resource);");
    assert!(matches!(open, Err(BundleError::Invariant { .. })), "{open:?}");
    // The keeper's own.
    let own = r#"[{ "name": "guests ask", "expect": "allow", "request": {
        "principal": { "tenant": "t", "subject": "g", "kind": "user", "roles": ["guest"] },
        "action": "agent.ask", "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } } }]"#;
    let refused = load("invariants.json", own).unwrap_err();
    assert!(refused.to_string().starts_with("invariants.json: \"guests ask\" does not hold: denied"), "{refused}");
}

#[test]
fn a_question_that_cannot_be_asked_is_denied_with_the_reason() {
    let ask = |action: &str, kind: &str, who: &str, tenant: &str| {
        let request = request(&format!(
            r#"{{ "principal": {{ "tenant": "{tenant}", "subject": "x", "kind": "{who}", "roles": ["super_admin"] }},
                 "action": "{action}", "resource": {{ "kind": "{kind}", "id": "d", "tenant": "{tenant}" }},
                 "facts": {{ "mfa": true }} }}"#
        ));
        let decision = EMBEDDED.decide(&request);
        assert!(decision.errors.is_empty() || !decision.allow);
        decision.errors.join("")
    };
    assert_eq!(ask("key.shred", "Key", "user", "t"), "");
    assert_eq!(ask("key.eat", "Key", "user", "t"), "the schema has no action `key.eat`");
    assert_eq!(ask("privileged", "Key", "user", "t"), "the schema has no action `privileged`");
    assert_eq!(ask("key.shred", "Agent", "user", "t"), "`key.shred` cannot be done to a Agent");
    assert_eq!(ask("key.shred", "Key", "agent", "t"), "`key.shred` is not for a Agent");
    assert_eq!(ask("key.shred", "Key", "user", "t/u"), "principal.tenant must be a name without `/`");
}

#[test]
fn a_forbid_that_cannot_be_evaluated_denies_and_such_a_permit_does_not_count() {
    let ask = |action: &str, roles: &str, of: &str, about: &str| {
        RICH.decide(&request(&format!(
            r#"{{ "principal": {{ "tenant": "c", "subject": "x", "kind": "user", "roles": [{roles}], "labels": [{of}] }},
                 "action": "{action}", "resource": {{ "kind": "Case", "id": "d", "tenant": "c", "labels": [{about}] }},
                 "facts": {{ "mfa": true }} }}"#
        )))
    };
    assert!(ask("mod.check", "\"user\"", "", "").allow);
    let broken = ask("mod.check", "\"user\"", "", "\"huge\"");
    assert_eq!((broken.allow, &broken.policy_ids[..]), (false, &["broken-forbid".to_owned()][..]));
    assert!(broken.errors[0].contains("overflow"), "{broken:?}");
    // A permit that breaks gives nothing and takes nothing.
    let (alone, beside) = (ask("mod.report", "", "\"huge\"", ""), ask("mod.report", "\"user\"", "\"huge\"", ""));
    assert!(!alone.allow && alone.errors.len() == 1, "{alone:?}");
    assert!(beside.allow && beside.errors.len() == 1, "{beside:?}");
}

#[test]
fn without_a_bundle_nothing_is_decided_and_a_bad_one_changes_nothing() {
    let handle = PdpHandle::new(10);
    let request = request(
        r#"{ "principal": { "tenant": "t", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
             "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } }"#,
    );
    assert_eq!(handle.decide(&request), Err(Unavailable::NotLoaded));
    assert_eq!(handle.explain(&request), Err(Unavailable::NotLoaded));
    assert_eq!(handle.epoch(), None);
    let load = |text: &str| load("a.cedar", text).map(|bundle| handle.publish(Arc::new(bundle), 3));
    assert!(load("@id(\"more\") permit (principal is AiVillage::Agent, action, resource) when { false };").unwrap());
    assert!(load("permit (").is_err());
    let decision = handle.decide(&request).unwrap();
    assert_eq!((decision.allow, decision.epoch, handle.epoch()), (true, 3, Some(3)));
    // Nor does an older one.
    assert!(!handle.publish(Arc::new(Bundle::load(&Sources::embedded()).unwrap()), 3));
    assert_eq!(handle.snapshot().unwrap().bundle().len(), EMBEDDED.len() + 1);
}

#[test]
fn a_decision_is_remembered_for_exactly_its_request_and_bundle() {
    let handle = PdpHandle::new(10);
    handle.publish(Arc::new(Bundle::load(&Sources::embedded()).unwrap()), 1);
    let mut request = request(
        r#"{ "principal": { "tenant": "t", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
             "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } }"#,
    );
    let first = handle.decide(&request).unwrap();
    assert!(Arc::ptr_eq(&first, &handle.decide(&request).unwrap()));
    let again = request.clone();
    request.principal.suspended = true;
    assert!(!handle.decide(&request).unwrap().allow);
    let stop =
        "@id(\"stop\") @article(\"A1\") forbid (principal, action == AiVillage::Action::\"agent.ask\", resource);";
    handle.publish(Arc::new(load("a.cedar", stop).unwrap()), 2);
    let after = handle.decide(&again).unwrap();
    assert_eq!((after.allow, after.epoch, &after.articles[..]), (false, 2, &["A1".to_owned()][..]));
    assert_eq!(
        postcard::from_bytes::<crate::policy::Decision>(&postcard::to_allocvec(&*after).unwrap()).unwrap(),
        *after
    );
}
