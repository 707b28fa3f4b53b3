//! What a decision is asked about.

use std::net::IpAddr;

use aivillage_runtime::{Principal, PrincipalKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name in bytes.
const NAME_MAX: usize = 512;
/// Most words of one list.
const LIST_MAX: usize = 256;

/// May this principal do this to that?
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who wants it.
    pub principal: Subject,
    /// What, `area.verb`.
    pub action: String,
    /// To which thing.
    pub resource: Resource,
    /// What else is true of it.
    #[serde(default)]
    pub facts: Facts,
}

/// Who asks, as identity knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Isolation boundary.
    pub tenant: String,
    /// Name within the tenant.
    pub subject: String,
    /// What it is.
    #[schemars(with = "String", extend("enum" = ["user", "service", "agent", "node"]))]
    pub kind: PrincipalKind,
    /// Roles granted in its tenant.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Groups of its tenant that it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What the credential is good for: `*`, `area.*` or `area.verb`; empty means anything.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Words for rules by attribute.
    #[serde(default)]
    pub labels: Vec<String>,
    /// It may do nothing for now.
    #[serde(default)]
    pub suspended: bool,
    /// On whose behalf it acts, `kind:tenant/subject`.
    #[serde(default)]
    pub acts_for: Option<String>,
}

/// The thing it is done to, as its keeper knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// A type of the schema, e.g. `Document`.
    pub kind: String,
    /// Name within the tenant.
    pub id: String,
    /// The tenant it belongs to. A tenant that is administered belongs to that of its operator.
    pub tenant: String,
    /// The namespace of the tenant it is in.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Whose it is, `kind:tenant/subject`.
    #[serde(default)]
    pub owner: Option<String>,
    /// Who asked for the change that it is, `kind:tenant/subject`.
    #[serde(default)]
    pub proposer: Option<String>,
    /// Tenants that may read it.
    #[serde(default)]
    pub shared_with: Vec<String>,
    /// Words for rules by attribute.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Hosts that work for it may reach, `api.example` or `*.example`; what the bundle's `entities.json` says of it or of its
    /// namespace counts instead.
    #[serde(default)]
    pub egress: Vec<String>,
    /// Regions where it may be used, empty for anywhere; as with `egress`, the bundle's word counts.
    #[serde(default)]
    pub regions: Vec<String>,
}

/// What is true of one request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Facts {
    /// A second factor was given, recently.
    pub mfa: bool,
    /// Words of tools, the web or strangers had a part in it.
    pub taint: bool,
    /// The host that data would go to.
    pub egress: Option<String>,
    /// The region where the work would be done.
    pub region: Option<String>,
    /// The client's address.
    pub ip: Option<IpAddr>,
}

impl From<&Principal> for Subject {
    fn from(principal: &Principal) -> Self {
        Self {
            tenant: principal.tenant.clone(),
            subject: principal.subject.clone(),
            kind: principal.kind,
            roles: principal.roles.clone(),
            groups: Vec::new(),
            scopes: principal.scopes.clone(),
            labels: Vec::new(),
            suspended: false,
            acts_for: None,
        }
    }
}

impl Subject {
    /// The name that `owner` and `proposer` are compared with, `kind:tenant/subject`.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            PrincipalKind::User => "user",
            PrincipalKind::Service => "service",
            PrincipalKind::Agent => "agent",
            PrincipalKind::Node => "node",
        };
        format!("{kind}:{}/{}", self.tenant, self.subject)
    }

    /// The schema's name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            PrincipalKind::User => "User",
            PrincipalKind::Service => "ServiceAccount",
            PrincipalKind::Agent => "Agent",
            PrincipalKind::Node => "Node",
        }
    }

    /// Whether the credential is good for `action`.
    pub(super) fn in_scope(&self, action: &str) -> bool {
        let covers = |scope: &String| match scope.strip_suffix('*') {
            Some("") => true,
            Some(area) => area.ends_with('.') && action.starts_with(area),
            None => scope == action,
        };
        self.scopes.is_empty() || self.scopes.iter().any(covers)
    }
}

impl Resource {
    /// A thing without anything special to it.
    #[must_use]
    pub fn new(kind: impl Into<String>, id: impl Into<String>, tenant: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into(), tenant: tenant.into(), ..Self::default() }
    }

    /// The name that a principal who is the resource has, else `kind:tenant/id` with the kind in lower case.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind.as_str() {
            "ServiceAccount" => "service".to_owned(),
            kind => kind.to_lowercase(),
        };
        format!("{kind}:{}/{}", self.tenant, self.id)
    }
}

impl Request {
    /// What is wrong with it, if it cannot be decided on. A `/` parts tenant and name in ids, so no tenant may have one.
    pub(super) fn fault(&self) -> Option<String> {
        let (who, what) = (&self.principal, &self.resource);
        let tenants = [("principal.tenant", &who.tenant), ("resource.tenant", &what.tenant)];
        if let Some((field, _)) = tenants.into_iter().find(|(_, tenant)| tenant.is_empty() || tenant.contains('/')) {
            return Some(format!("{field} must be a name without `/`"));
        }
        let named = [("principal.subject", &who.subject), ("resource.id", &what.id)];
        if let Some((field, _)) = named.into_iter().find(|(_, name)| name.is_empty()) {
            return Some(format!("{field} is empty"));
        }
        self.oversize().map(|field| format!("{field} is too large"))
    }

    /// The first field that is over its limit.
    fn oversize(&self) -> Option<&'static str> {
        let (who, what, facts) = (&self.principal, &self.resource, &self.facts);
        let names = [
            ("principal.tenant", Some(&who.tenant)),
            ("principal.subject", Some(&who.subject)),
            ("principal.acts_for", who.acts_for.as_ref()),
            ("action", Some(&self.action)),
            ("resource.kind", Some(&what.kind)),
            ("resource.id", Some(&what.id)),
            ("resource.tenant", Some(&what.tenant)),
            ("resource.namespace", what.namespace.as_ref()),
            ("resource.owner", what.owner.as_ref()),
            ("resource.proposer", what.proposer.as_ref()),
            ("facts.egress", facts.egress.as_ref()),
            ("facts.region", facts.region.as_ref()),
        ];
        let lists = [
            ("principal.roles", &who.roles),
            ("principal.groups", &who.groups),
            ("principal.scopes", &who.scopes),
            ("principal.labels", &who.labels),
            ("resource.shared_with", &what.shared_with),
            ("resource.labels", &what.labels),
            ("resource.egress", &what.egress),
            ("resource.regions", &what.regions),
        ];
        let long = names.into_iter().find(|(_, name)| name.is_some_and(|name| name.len() > NAME_MAX));
        let many = lists.into_iter().find(|(_, list)| list.len() > LIST_MAX || list.iter().any(|w| w.len() > NAME_MAX));
        long.map(|(field, _)| field).or(many.map(|(field, _)| field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann(scopes: &[&str]) -> Subject {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        let (tenant, subject, kind) = ("acme".into(), "ann".into(), PrincipalKind::User);
        (&Principal { tenant, subject, kind, roles: vec!["user".into()], scopes }).into()
    }

    fn request() -> Request {
        let resource = Resource::new("Agent", "sage", "acme");
        Request { principal: ann(&[]), action: "agent.ask".into(), resource, facts: Facts::default() }
    }

    #[test]
    fn a_scope_covers_its_action_its_area_or_all() {
        for (scopes, covered) in [
            (&[][..], true),
            (&["*"], true),
            (&["agent.*"], true),
            (&["memory.query", "agent.ask"], true),
            (&["agent.read"], false),
            (&["agent*"], false),
            (&["agents.*"], false),
            (&[""], false),
        ] {
            assert_eq!(ann(scopes).in_scope("agent.ask"), covered, "{scopes:?}");
        }
    }

    #[test]
    fn a_request_that_could_be_taken_for_another_is_at_fault() {
        assert_eq!(request().fault(), None);
        let spoilt: [fn(&mut Request); 7] = [
            |request| request.principal.tenant = "acme/ann".into(),
            |request| request.resource.tenant = String::new(),
            |request| request.principal.subject = String::new(),
            |request| request.resource.id = String::new(),
            |request| request.resource.id = "x".repeat(NAME_MAX + 1),
            |request| request.principal.roles = vec!["user".into(); LIST_MAX + 1],
            |request| request.resource.labels = vec!["x".repeat(NAME_MAX + 1)],
        ];
        for spoil in spoilt {
            let mut request = request();
            spoil(&mut request);
            assert!(request.fault().is_some(), "{request:?}");
        }
    }

    #[test]
    fn a_request_is_the_same_after_postcard_and_json() {
        let mut request = request();
        request.facts =
            Facts { mfa: true, ip: Some([127, 0, 0, 1].into()), region: Some("eu".into()), ..Facts::default() };
        let bytes = postcard::to_allocvec(&request).unwrap();
        assert_eq!(postcard::from_bytes::<Request>(&bytes).unwrap(), request);
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
    }
}
