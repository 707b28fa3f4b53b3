//! Random requests and policies over a few names, so that they often meet.

use aivillage_runtime::PrincipalKind;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::request::{Facts, Request, Resource, Subject};
use super::slices::Slices;

const TENANTS: [&str; 3] = ["a", "b", "c"];
const SUBJECTS: [&str; 4] = ["ann", "bob", "sage", "node1"];
const ROLES: [&str; 10] =
    ["super_admin", "admin", "developer", "data_scientist", "operator", "user", "guest", "juror", "trustee", "auditor"];
const LABELS: [&str; 6] = ["public", "secret", "open", "noisy", "huge", "class:x"];
const HOSTS: [&str; 4] = ["api.example", "evil.example", "A.B.example.", "10.0.0.1"];

/// Makes requests for the actions and types of a schema.
pub(super) struct Random<'a> {
    rng: SmallRng,
    actions: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Random<'a> {
    pub(super) fn new(seed: u64, slices: &'a Slices) -> Self {
        let resources = |name: &'a String| slices[name].resources.keys().map(String::as_str).collect();
        let mut actions: Vec<(&str, Vec<&str>)> = slices.keys().map(|name| (name.as_str(), resources(name))).collect();
        for (_, resources) in &mut actions {
            resources.sort_unstable();
        }
        actions.sort_unstable();
        Self { rng: SmallRng::seed_from_u64(seed), actions }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    fn some(&mut self, of: &[&str], percent: u32) -> Vec<String> {
        of.iter().filter(|_| self.rng.random_ratio(percent, 100)).map(ToString::to_string).collect()
    }

    fn maybe<T>(&mut self, percent: u32, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.rng.random_ratio(percent, 100).then(|| make(self))
    }

    fn name(&mut self) -> String {
        let kind = self.pick(&["user", "service", "agent", "node"]);
        format!("{kind}:{}/{}", self.pick(&TENANTS), self.pick(&SUBJECTS))
    }

    fn subject(&mut self) -> Subject {
        let kinds = [PrincipalKind::User, PrincipalKind::Service, PrincipalKind::Agent, PrincipalKind::Node];
        Subject {
            tenant: self.pick(&TENANTS).into(),
            subject: self.pick(&SUBJECTS).into(),
            kind: self.pick(&kinds),
            roles: self.some(&ROLES, 15),
            groups: self.some(&["team", "friends"], 30),
            scopes: self.maybe(15, |r| r.some(&["*", "agent.*", "memory.*", "fog.job.submit"], 50)).unwrap_or_default(),
            labels: self.some(&LABELS, 15),
            suspended: self.rng.random_ratio(1, 20),
            acts_for: self.maybe(10, Self::name),
        }
    }

    fn resource(&mut self, kind: &str) -> Resource {
        Resource {
            kind: kind.into(),
            id: self.pick(&SUBJECTS).into(),
            tenant: self.pick(&TENANTS).into(),
            namespace: self.maybe(50, |r| r.pick(&["web", "lab"]).into()),
            owner: self.maybe(40, Self::name),
            proposer: self.maybe(20, Self::name),
            shared_with: self.some(&TENANTS, 15),
            labels: self.some(&LABELS, 15),
            egress: self.some(&["api.example", "*.example"], 40),
            regions: self.some(&["eu", "us"], 20),
        }
    }

    /// A request that fits the schema most of the time.
    pub(super) fn request(&mut self) -> Request {
        let number = self.rng.random_range(0..self.actions.len());
        let kind = self.rng.random_range(0..self.actions[number].1.len());
        let (action, kind) = (self.actions[number].0, self.actions[number].1[kind]);
        let mut principal = self.subject();
        let mut resource = self.resource(kind);
        // Two of three times in the same tenant, else nearly all is denied.
        if self.rng.random_ratio(2, 3) {
            resource.tenant.clone_from(&principal.tenant);
        }
        if self.rng.random_ratio(1, 10) {
            principal.roles.clear();
        }
        let facts = Facts {
            mfa: self.rng.random_ratio(2, 3),
            taint: self.rng.random_ratio(1, 5),
            egress: self.maybe(20, |r| r.pick(&HOSTS).into()),
            region: self.maybe(50, |r| r.pick(&["eu", "us"]).into()),
            ip: self.maybe(20, |r| r.pick(&[[10, 0, 0, 1], [192, 0, 2, 1]]).into()),
        };
        Request { principal, action: action.into(), resource, facts }
    }

    /// A policy that fits the schema.
    pub(super) fn policy(&mut self, forbid: bool) -> String {
        let principal = self.pick(&[
            "principal",
            r#"principal in AiVillage::Role::"user""#,
            r#"principal in AiVillage::Group::"a/team""#,
            "principal is AiVillage::User",
            r#"principal in AiVillage::Tenant::"b""#,
        ]);
        let action = match self.rng.random_range(0..3) {
            0 => "action".to_owned(),
            1 => format!("action in AiVillage::Action::\"{}\"", self.pick(&["observe", "use", "privileged"])),
            _ => {
                let number = self.rng.random_range(0..self.actions.len());
                format!("action == AiVillage::Action::\"{}\"", self.actions[number].0)
            }
        };
        let resource = self.pick(&["resource", r#"resource in AiVillage::Namespace::"a/web""#]);
        let condition = self.pick(&[
            "true",
            r#"resource.labels.contains("open")"#,
            r#"principal.labels.contains("noisy") || context.mfa"#,
            "resource has owner && resource.owner == principal.name",
            "principal.tenant != resource.tenant",
        ]);
        let effect = if forbid { "@article(\"A1\") forbid" } else { "permit" };
        format!("@id(\"random\") {effect} ({principal}, {action}, {resource}) when {{ {condition} }};")
    }
}
