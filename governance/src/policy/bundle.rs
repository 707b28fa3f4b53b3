//! A checked set of policies, ready to decide.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use cedar_policy::{AuthorizationError, Authorizer, Response, Validator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cases::{self, Case, Failure};
use super::decide::Decision;
use super::hierarchy::Hierarchy;
use super::names;
use super::read::{self, Check, Found};
use super::request::Request;
use super::slices::{self, Action, Slice, Slices};
use super::sources::{INVARIANTS, Sources};
use super::translate::{Query, Translator, Types};

/// Most faults that are told at once.
const ISSUES_MAX: usize = 100;

/// Policies that passed all checks, cut into slices.
pub struct Bundle {
    hash: [u8; 32],
    sources: Sources,
    policies: HashMap<String, PolicyText>,
    slices: Slices,
    types: Types,
    hierarchy: Hierarchy,
    roles: BTreeSet<String>,
}

/// A policy as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyText {
    /// Its `@id`, for those of a tenant after `tenants/<id>/`; without one its file and number.
    pub id: String,
    /// The file it is in.
    pub file: String,
    /// The line it begins at, from 1.
    pub line: usize,
    /// Whether it forbids.
    pub forbids: bool,
    /// The article of the constitution that it enforces.
    pub article: Option<String>,
    /// The policy.
    pub text: String,
}

/// A fault of a bundle and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Issue {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Why files are not a bundle. The one that decides stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Files that cannot be read or do not fit the schema; at least one fault, at most 100.
    #[error("{}", lines(.0))]
    Invalid(Vec<Issue>),
    /// It can be read, but decides otherwise than it must.
    #[error("{file}: \"{}\" does not hold: {}", failure.name, failure.got)]
    Invariant {
        /// Where the invariant is written.
        file: &'static str,
        /// What was decided.
        failure: Box<Failure>,
    },
}

fn lines(issues: &[Issue]) -> String {
    issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, " ({help})"))
    }
}

impl Issue {
    pub(super) fn new(file: &str, text: &str, at: usize, message: impl Into<String>) -> Self {
        let (line, column) = read::place(text, at);
        Self { file: file.to_owned(), line, column, message: message.into(), help: None }
    }

    pub(super) fn json(file: &str, error: &serde_json::Error) -> Self {
        let message = error.to_string();
        Self { file: file.to_owned(), line: error.line(), column: error.column(), message, help: None }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("hash", &self.hash_hex())
            .field("policies", &self.policies.len())
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Checks and cuts up the policies of `sources`. Some milliseconds for each 100 policies: not for a mailbox.
    ///
    /// # Errors
    /// See [`BundleError`]; all faults of all files are told together.
    pub fn load(sources: &Sources) -> Result<Self, BundleError> {
        Self::load_after(sources, None)
    }

    /// The same beside the bundle that is at work: what passed then with the same schema is not checked again.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load_after(sources: &Sources, before: Option<&Self>) -> Result<Self, BundleError> {
        let schema = read::schema(sources).map_err(BundleError::Invalid)?;
        let same_schema = |before: &&Self| before.sources.of_type("cedarschema").eq(sources.of_type("cedarschema"));
        let before = before.filter(same_schema);
        let passed = |policy: &PolicyText| {
            before.is_some_and(|before| before.policy(&policy.id).is_some_and(|old| old.text == policy.text))
        };
        let check = Check { validator: Validator::new(schema.clone()), passed: &passed };
        let mut issues = Vec::new();
        let mut found = Vec::new();
        for (file, text) in sources.of_type("cedar") {
            found.extend(read::policies(file, text, &check, &mut issues));
        }
        let text = sources.file("entities.json").unwrap_or("[]");
        let hierarchy = Hierarchy::read("entities.json", text, &schema).unwrap_or_else(|faults| {
            issues.extend(faults);
            Hierarchy::default()
        });
        let policies = by_id(&found, &mut issues);
        if !issues.is_empty() {
            return Err(invalid(issues));
        }
        let slices = slices::cut(&schema, &found)
            .map_err(|error| invalid(vec![Issue::new("always.cedar", "", 0, error.to_string())]))?;
        let types = schema.entity_types().map(|kind| (slices::short(kind), kind.clone())).collect();
        let roles = names::roles(&found, &hierarchy);
        let (hash, sources) = (sources.hash(), sources.clone());
        let bundle = Self { hash, sources, policies, slices, types, hierarchy, roles };
        bundle.check_invariants("the built-in invariants.json", INVARIANTS)?;
        if let Some(own) = bundle.sources.file("invariants.json") {
            bundle.check_invariants("invariants.json", own)?;
        }
        Ok(bundle)
    }

    fn check_invariants(&self, file: &'static str, text: &str) -> Result<(), BundleError> {
        let cases: Vec<Case> = serde_json::from_str(text).map_err(|error| invalid(vec![Issue::json(file, &error)]))?;
        match cases::run(self, &cases).failures.into_iter().next() {
            Some(failure) => Err(BundleError::Invariant { file, failure: Box::new(failure) }),
            None => Ok(()),
        }
    }

    /// SHA-256 over all its files.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The hash in hexadecimal digits.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.hash)
    }

    /// The keeper's files.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// A policy by its id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&PolicyText> {
        self.policies.get(id)
    }

    /// All policies, by their ids.
    #[must_use]
    pub fn policies(&self) -> Vec<&PolicyText> {
        let mut all: Vec<_> = self.policies.values().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The roles that its policies and entities name.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// How many policies it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Never: the always-on forbids are in every bundle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Decides, without a cache.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        match self.question(request) {
            Ok((slice, query)) => self.answer(request, slice, &query),
            Err(why) => Decision::refused(why),
        }
    }

    pub(super) fn answer(&self, request: &Request, slice: &Slice, query: &Query) -> Decision {
        let authorizer = Authorizer::new();
        let mut tally = Tally::default();
        for set in slice.sets(&request.resource.tenant) {
            tally.add(self, &authorizer.is_authorized(&query.request, set, &query.entities));
        }
        tally.decision()
    }

    /// The policies that matter and what Cedar is asked, or why there is nothing to ask.
    pub(super) fn question(&self, request: &Request) -> Result<(&Slice, Query), String> {
        if let Some(fault) = request.fault() {
            return Err(fault);
        }
        let (action, kind) = (self.action(&request.action)?, &request.resource.kind);
        let slice = action.resources.get(kind);
        let slice = slice.ok_or_else(|| format!("`{}` cannot be done to a {kind}", request.action))?;
        let who = request.principal.type_name();
        if !action.principals.contains(who) {
            return Err(format!("`{}` is not for a {who}", request.action));
        }
        Ok((slice, self.translator().query(request, action)?))
    }

    fn action(&self, name: &str) -> Result<&Action, String> {
        self.slices.get(name).ok_or_else(|| format!("the schema has no action `{name}`"))
    }

    pub(super) fn translator(&self) -> Translator<'_> {
        Translator { types: &self.types, hierarchy: &self.hierarchy }
    }

    pub(super) fn slices(&self) -> &Slices {
        &self.slices
    }
}

fn invalid(mut issues: Vec<Issue>) -> BundleError {
    issues.truncate(ISSUES_MAX);
    BundleError::Invalid(issues)
}

/// The policies' texts by their ids; two may not have the same.
fn by_id(found: &[Found], issues: &mut Vec<Issue>) -> HashMap<String, PolicyText> {
    let mut policies: HashMap<String, PolicyText> = HashMap::with_capacity(found.len());
    for Found { text, .. } in found {
        if let Some(first) = policies.get(&text.id) {
            let message = format!("the id `{}` is that of the policy at {}:{}", text.id, first.file, first.line);
            let (file, line) = (text.file.clone(), text.line);
            issues.push(Issue { file, line, column: 1, message, help: Some("give it another @id".to_owned()) });
        } else {
            policies.insert(text.id.clone(), text.clone());
        }
    }
    policies
}

impl Slice {
    /// The sets that are asked about a resource of `tenant`.
    pub(super) fn sets(&self, tenant: &str) -> impl Iterator<Item = &cedar_policy::PolicySet> {
        std::iter::once(&self.common).chain(self.tenants.get(tenant))
    }
}

/// What several sets said of the same question.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    permits: Vec<&'a PolicyText>,
    forbids: Vec<&'a PolicyText>,
    errors: Vec<String>,
}

impl<'a> Tally<'a> {
    pub(super) fn add(&mut self, bundle: &'a Bundle, said: &Response) {
        let text = |id: &cedar_policy::PolicyId| bundle.policies.get(AsRef::<str>::as_ref(id));
        for policy in said.diagnostics().reason().filter_map(text) {
            if policy.forbids { &mut self.forbids } else { &mut self.permits }.push(policy);
        }
        for AuthorizationError::PolicyEvaluationError(error) in said.diagnostics().errors() {
            self.errors.push(error.to_string());
            // Cedar skips what it cannot evaluate. A forbid that is skipped would let through what it is there to stop.
            self.forbids.extend(text(error.policy_id()).filter(|policy| policy.forbids));
        }
    }

    pub(super) fn decision(mut self) -> Decision {
        let allow = self.forbids.is_empty() && !self.permits.is_empty();
        let determining = if allow { self.permits } else { self.forbids };
        let mut policy_ids: Vec<_> = determining.iter().map(|policy| policy.id.clone()).collect();
        let mut articles: Vec<_> = determining.iter().filter_map(|policy| policy.article.clone()).collect();
        policy_ids.sort();
        articles.sort();
        articles.dedup();
        self.errors.sort();
        Decision { allow, policy_ids, articles, errors: self.errors, epoch: 0 }
    }
}
