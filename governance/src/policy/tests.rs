//! What must hold for the whole of it.

mod faults;
mod node;
mod same;
mod stories;

use std::sync::LazyLock;

use super::{Bundle, Sources};

/// Policies of every form, of the operator and of two tenants.
pub(super) const EXTRA: &str = r#"
@id("team-builds")
permit (principal in AiVillage::Group::"a/team", action in AiVillage::Action::"build", resource in AiVillage::Namespace::"a/web");
@id("ann-asks")
permit (principal == AiVillage::User::"a/ann", action == AiVillage::Action::"agent.ask", resource);
@id("sage-of-a")
permit (principal, action == AiVillage::Action::"agent.ask", resource == AiVillage::Agent::"a/sage");
@id("public-documents")
permit (principal, action in [AiVillage::Action::"memory.query", AiVillage::Action::"rag.read"], resource is AiVillage::Document)
when { resource.labels.contains("public") };
@id("web-documents")
permit (
  principal is AiVillage::Agent in AiVillage::Tenant::"b",
  action in AiVillage::Action::"observe",
  resource is AiVillage::Document in AiVillage::Namespace::"b/web"
);
@id("no-secrets-for-agents") @article("A4.1")
forbid (principal is AiVillage::Agent, action, resource) when { resource.labels.contains("secret") };
@id("from-the-office") @article("A10.1")
forbid (principal, action in AiVillage::Action::"administer", resource)
when { context has ip } unless { context.ip.isInRange(ip("10.0.0.0/8")) };
@id("broken-forbid") @article("A1.1")
forbid (principal, action == AiVillage::Action::"mod.check", resource)
when { resource.labels.contains("huge") && context.mfa && 9223372036854775807 + 1 > 0 };
@id("broken-permit")
permit (principal, action == AiVillage::Action::"mod.report", resource)
when { principal.labels.contains("huge") && 9223372036854775807 + 1 > 0 };
"#;
pub(super) const OF_A: &str = r#"
@id("open")
permit (principal, action, resource) when { resource.labels.contains("open") };
@id("veto-by-two") @article("A7.1")
forbid (principal, action == AiVillage::Action::"gov.veto", resource) unless { principal.labels.contains("class:x") };
"#;
pub(super) const OF_B: &str = r#"
@id("no-noise") @article("A2.2")
forbid (principal, action == AiVillage::Action::"agent.ask", resource in AiVillage::Tenant::"b")
when { principal.labels.contains("noisy") };
@id("broken") @article("A1.1")
forbid (principal, action == AiVillage::Action::"agent.read", resource)
when { principal.labels.contains("huge") && 9223372036854775807 + 1 > 0 };
"#;

pub(super) static EMBEDDED: LazyLock<Bundle> = LazyLock::new(|| Bundle::load(&Sources::embedded()).unwrap());
pub(super) static RICH: LazyLock<Bundle> = LazyLock::new(|| Bundle::load(&rich()).unwrap());

pub(super) fn rich() -> Sources {
    Sources::embedded()
        .with("extra.cedar", EXTRA)
        .and_then(|sources| sources.with("tenants/a/own.cedar", OF_A))
        .and_then(|sources| sources.with("tenants/b/own.cedar", OF_B))
        .unwrap()
}
