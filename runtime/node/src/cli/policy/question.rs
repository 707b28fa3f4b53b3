//! A question to policies, as it is typed.

use std::path::PathBuf;

use aivillage_governance::policy::{Bundle, Facts, Request, Resource, Subject};
use aivillage_runtime::PrincipalKind;
use clap::{Args, ValueEnum};

use crate::cli::{Exit, Failure};

/// May somebody do something to a thing?
#[derive(Debug, Clone, Args)]
pub(crate) struct Question {
    /// Who asks.
    #[arg(long, value_name = "TENANT/SUBJECT", value_parser = who)]
    principal: (String, String),
    /// What it is.
    #[arg(long, value_enum, default_value_t = Kind::User)]
    kind: Kind,
    /// A role it has; may be given again.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A group of its tenant that it is in; may be given again.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// What its credential is good for, such as `agent.*`; may be given again [default: anything].
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// What is to be done, such as agent.ask.
    action: String,
    /// To what: TYPE or TYPE/ID, such as Agent/sage.
    resource: String,
    /// Tenant of the resource [default: that of the principal].
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Whose the resource is.
    #[arg(long, value_name = "KIND:TENANT/SUBJECT")]
    owner: Option<String>,
    /// Who asked for the change that the resource is.
    #[arg(long, value_name = "KIND:TENANT/SUBJECT")]
    proposer: Option<String>,
    /// A second factor was given.
    #[arg(long)]
    mfa: bool,
    /// Words of tools, the web or strangers had a part in it.
    #[arg(long)]
    taint: bool,
    /// Folder with policies [default: those of the program].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A person.
    User,
    /// A program.
    Service,
    /// An agent.
    Agent,
    /// A node.
    Node,
}

impl From<Kind> for PrincipalKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::User => Self::User,
            Kind::Service => Self::Service,
            Kind::Agent => Self::Agent,
            Kind::Node => Self::Node,
        }
    }
}

fn who(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((tenant, subject)) if !tenant.is_empty() && !subject.is_empty() => Ok((tenant.into(), subject.into())),
        _ => Err("a principal is TENANT/SUBJECT, such as acme/ann".to_owned()),
    }
}

impl Question {
    /// The request, if the policies know its names.
    ///
    /// # Errors
    /// An action, role or type that they do not know (exit 2), with the one that may be meant.
    pub(super) fn request(&self, bundle: &Bundle) -> Result<Request, Failure> {
        let kinds = bundle.resource_kinds(&self.action);
        if kinds.is_empty() {
            return Err(unknown("action", &self.action, bundle.nearest_action(&self.action)));
        }
        let known: Vec<_> = bundle.roles().collect();
        if let Some(role) = self.roles.iter().find(|role| !known.contains(&role.as_str())) {
            return Err(
                unknown("role", role, bundle.nearest_role(role)).or_hint(&format!("roles: {}", known.join(", ")))
            );
        }
        let (kind, id) = self.resource.split_once('/').unwrap_or((&self.resource, "*"));
        if !kinds.contains(&kind) {
            let message = format!("`{}` cannot be done to `{kind}`", self.action);
            return Err(Failure::new(Exit::Usage, message).hint(format!("it can be done to: {}", kinds.join(", "))));
        }
        let (tenant, subject) = self.principal.clone();
        let resource = Resource {
            owner: self.owner.clone(),
            proposer: self.proposer.clone(),
            ..Resource::new(kind, id, self.tenant.as_deref().unwrap_or(&tenant))
        };
        let principal = Subject {
            tenant,
            subject,
            kind: self.kind.into(),
            roles: self.roles.clone(),
            groups: self.groups.clone(),
            scopes: self.scopes.clone(),
            labels: Vec::new(),
            suspended: false,
            acts_for: None,
        };
        let facts = Facts { mfa: self.mfa, taint: self.taint, ..Facts::default() };
        Ok(Request { principal, action: self.action.clone(), resource, facts })
    }
}

fn unknown(what: &str, written: &str, nearest: Option<&str>) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("the policies know no {what} `{written}`"));
    match nearest {
        Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
        None => failure,
    }
}

impl Failure {
    /// The hint, unless there is a better one.
    fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use aivillage_governance::policy::Sources;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        question: Question,
    }

    fn asked(line: &str) -> Result<Request, Failure> {
        let typed = Typed::try_parse_from(std::iter::once("x").chain(line.split(' '))).unwrap();
        typed.question.request(&Bundle::load(&Sources::embedded()).unwrap())
    }

    #[test]
    fn a_resource_is_in_the_tenant_of_who_asks_unless_told_otherwise() {
        let request = asked("--principal acme/ann --role user agent.ask Agent/sage").unwrap();
        assert_eq!((&*request.resource.tenant, &*request.resource.id), ("acme", "sage"));
        let request = asked("--principal acme/ann --role user memory.query Collection --tenant other").unwrap();
        assert_eq!((&*request.resource.tenant, &*request.resource.id), ("other", "*"));
    }

    #[test]
    fn names_that_the_policies_do_not_know_get_a_suggestion() {
        for (line, hint) in [
            ("--principal a/b agent.aks Agent", "did you mean `agent.ask`?"),
            ("--principal a/b --role usr agent.ask Agent", "did you mean `user`?"),
            ("--principal a/b agent.ask Agnt", "it can be done to: Agent"),
        ] {
            let failure = asked(line).unwrap_err();
            assert_eq!((failure.exit, failure.hint.as_deref()), (Exit::Usage, Some(hint)), "{line}");
        }
    }

    #[test]
    fn a_principal_has_a_tenant() {
        assert!(Typed::try_parse_from(["x", "--principal", "ann", "agent.ask", "Agent"]).is_err());
    }
}
