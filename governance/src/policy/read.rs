//! From the files of a bundle to checked policies, or to a list of what is wrong and where.

use std::str::FromStr;

use cedar_policy::{
    Effect, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint, Schema, SchemaFragment, ValidationMode,
    Validator,
};
use miette::Diagnostic;

use super::bundle::{Issue, PolicyText};
use super::sources::Sources;

/// Dereferences a policy may make in a row. With one, the attributes of principal and resource and what these are in are all
/// that a decision needs: no other entity has to be loaded for it (Cedar RFC 76).
const DEREFERENCES: u32 = 1;

/// A policy that passed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) policy: Policy,
    pub(super) text: PolicyText,
    /// The byte of its file that it begins at.
    at: usize,
    /// Whose it is: it is asked about that tenant's resources only.
    pub(super) tenant: Option<String>,
}

/// The schema of all `*.cedarschema` files together.
pub(super) fn schema(sources: &Sources) -> Result<Schema, Vec<Issue>> {
    let files: Vec<_> = sources.of_type("cedarschema").collect();
    let mut fragments = Vec::new();
    let mut issues = Vec::new();
    for (file, text) in &files {
        match SchemaFragment::from_cedarschema_str(text) {
            Ok((fragment, _warnings)) => fragments.push(fragment),
            Err(error) => issues.push(issue(file, text, &error)),
        }
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    Schema::from_schema_fragments(fragments).map_err(|error| {
        let (file, text) = blamed(&files, &error);
        vec![issue(file, text, &error)]
    })
}

/// The file that an error about all of them together points into.
fn blamed<'a>(files: &[(&'a str, &'a str)], error: &dyn Diagnostic) -> (&'a str, &'a str) {
    let label = error.labels().and_then(|mut labels| labels.next());
    let pointed = error.source_code().zip(label).and_then(|(source, label)| {
        let marked = source.read_span(label.inner(), 0, 0).ok()?.data().to_vec();
        let has = |text: &str| text.as_bytes().get(label.offset()..).is_some_and(|rest| rest.starts_with(&marked));
        files.iter().copied().find(|(_, text)| has(text))
    });
    // Without a place it is what the last one added.
    pointed.or(files.last().copied()).unwrap_or(("schema.cedarschema", ""))
}

/// How policies are checked.
pub(super) struct Check<'a> {
    pub(super) validator: Validator,
    /// Passed the same check with the same schema before, if it has the same text.
    pub(super) passed: &'a dyn Fn(&PolicyText) -> bool,
}

/// The policies of one file; `issues` gets what is wrong with it.
pub(super) fn policies(file: &str, text: &str, check: &Check<'_>, issues: &mut Vec<Issue>) -> Vec<Found> {
    let tenant = match tenant_of(file) {
        Ok(tenant) => tenant,
        Err(message) => {
            issues.push(Issue::new(file, text, 0, message));
            return Vec::new();
        }
    };
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(errors) => {
            issues.extend(errors.iter().map(|error| issue(file, text, error)));
            return Vec::new();
        }
    };
    if let Some(template) = set.templates().next() {
        let at = text.find(&template.to_cedar()).unwrap_or(0);
        issues.push(Issue::new(file, text, at, "templates cannot be decided on: put entities in place of the slots"));
        return Vec::new();
    }
    let found = named(file, text, tenant, &set);
    check.all(file, text, &found, issues);
    found
}

/// Whose policies are in a file.
fn tenant_of(file: &str) -> Result<Option<&str>, &'static str> {
    match file.strip_prefix("tenants/").map(|below| below.split_once('/')) {
        None => Ok(None),
        Some(Some((tenant, _))) => Ok(Some(tenant)),
        Some(None) => Err("the policies of a tenant are in a folder of their own, `tenants/<id>/`"),
    }
}

/// Gives each policy the id of its `@id`, or that of its place.
fn named(file: &str, text: &str, tenant: Option<&str>, set: &PolicySet) -> Vec<Found> {
    let (mut from, mut line) = (0, 1);
    let mut found = Vec::new();
    for (number, policy) in set.policies().enumerate() {
        let source = policy.to_cedar().unwrap_or_default();
        let at = text.get(from..).and_then(|rest| rest.find(&source)).map_or(from, |ahead| from + ahead);
        line += text.get(from..at).map_or(0, |between| between.matches('\n').count());
        let begins = line;
        line += source.matches('\n').count();
        from = at + source.len();
        let id = match (policy.annotation("id"), tenant) {
            (Some(id), None) if !id.is_empty() => id.to_owned(),
            (Some(id), Some(tenant)) if !id.is_empty() => format!("tenants/{tenant}/{id}"),
            _ => format!("{}#{}", file.trim_end_matches(".cedar"), number + 1),
        };
        let article = policy.annotation("article").map(str::to_owned);
        let policy = policy.new_id(PolicyId::new(&id));
        let forbids = policy.effect() == Effect::Forbid;
        let text = PolicyText { id, file: file.to_owned(), line: begins, forbids, article, text: source };
        found.push(Found { policy, text, at, tenant: tenant.map(str::to_owned) });
    }
    found
}

impl Check<'_> {
    fn all(&self, file: &str, text: &str, found: &[Found], issues: &mut Vec<Issue>) {
        let before = issues.len();
        for found in found {
            if found.text.forbids && found.text.article.is_none() {
                issues.push(Issue::new(
                    file,
                    text,
                    found.at,
                    "a forbid cites the article it enforces: add `@article(\"...\")`",
                ));
            }
            if let Some(foreign) = found.tenant.as_deref().and_then(|tenant| foreign(tenant, &found.policy)) {
                let message = format!("policies of a tenant are about its own resources, `{foreign}` is another's");
                issues.push(Issue::new(file, text, found.at, message));
            }
        }
        let unknown = found.iter().filter(|found| !(self.passed)(&found.text));
        match PolicySet::from_policies(unknown.map(|found| found.policy.clone())) {
            Err(error) => issues.push(issue(file, text, &error)),
            Ok(set) => {
                let result = self.validator.validate_with_level(&set, ValidationMode::Strict, DEREFERENCES);
                issues.extend(result.validation_errors().map(|error| issue(file, text, error)));
            }
        }
        // Several request types may find the same fault.
        issues.get_mut(before..).unwrap_or_default().sort();
        issues.dedup();
    }
}

/// The resource of another tenant that a policy's scope names.
fn foreign(tenant: &str, policy: &Policy) -> Option<EntityUid> {
    let named = match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => return None,
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => uid,
    };
    let id = named.id().unescaped();
    let owner = id.split_once('/').map_or(id, |(owner, _)| owner);
    (owner != tenant).then_some(named)
}

/// What Cedar says, and where.
fn issue(file: &str, text: &str, error: &dyn Diagnostic) -> Issue {
    let at = error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
    let mut issue = Issue::new(file, text, at, error.to_string());
    issue.help = error.help().map(|help| help.to_string());
    issue
}

/// Line and column, from 1, of a byte.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
