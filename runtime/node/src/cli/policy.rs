//! `village policy`: who may do what, looked at without a village, or put to work in one.

mod question;
mod running;

use std::{fs, path::Path, path::PathBuf};

use aivillage_governance::{
    constitution::{DEFAULT_TOML, document::Document},
    policy::{Bundle, BundleError, Case, Explanation, Failure as Failed, Near, PolicyText, Sources},
};
use clap::{Args, Subcommand};
use serde_json::json;

use self::question::Question;
use super::{
    Exit, Failure, Global, Outcome,
    output::{self, BAD, BOLD, DIM, GOOD, NAME, WARN, paint},
};

/// Commands of `village policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Say whether policies are good, or what is wrong and where.
    Check(Check),
    /// Say whether something may be done.
    Decide(Decide),
    /// Say why it may be done or not, and what was missing.
    Explain(Explain),
    /// Run your own tests against policies.
    Test(Test),
    /// Show policies with their text.
    Show(Show),
    /// Say which policies a village works by.
    Status(running::Status),
    /// Make the policies of a folder those of all nodes of a village.
    Apply(running::Apply),
}

impl Policy {
    /// Runs the command; only `status` and `apply` need a village.
    ///
    /// # Errors
    /// Policies that are wrong or tests that fail (exit 1), a name that they do not know (exit 2), a denial (exit 3).
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Status(status) => status.run(global).await,
            Self::Apply(apply) => apply.run(global).await,
            Self::Check(check) => check.run(global.json),
            Self::Decide(decide) => decide.run(global.json),
            Self::Explain(explain) => explain.run(global.json),
            Self::Test(test) => test.run(global.json),
            Self::Show(show) => show.run(global.json),
        }
    }
}

/// The files of a folder beside those of the program, or the program's alone.
fn sources(dir: Option<&Path>) -> Result<Sources, Failure> {
    dir.map_or_else(|| Ok(Sources::embedded()), Sources::read_dir)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// Policies that can be asked.
fn load(dir: Option<&Path>) -> Result<Bundle, Failure> {
    Bundle::load(&sources(dir)?).map_err(|error| refused(&error))
}

/// Policies that are wrong: every fault with its place.
pub(crate) fn refused(error: &BundleError) -> Failure {
    let failure = Failure::new(Exit::Failed, error.to_string());
    match error {
        BundleError::Invalid(_) => failure,
        BundleError::Invariant { .. } => {
            failure.hint("`village policy show` has the policies that decide; the invariant says what they must")
        }
    }
}

/// Arguments of `village policy check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village policy check
  village policy check /etc/village/policies")]
pub(crate) struct Check {
    /// Folder with policies [default: those of the program].
    dir: Option<PathBuf>,
}

impl Check {
    fn run(self, as_json: bool) -> Outcome {
        let sources = sources(self.dir.as_deref())?;
        let bundle = match Bundle::load(&sources) {
            Ok(bundle) => bundle,
            Err(BundleError::Invalid(issues)) if as_json => {
                output::json(&json!({ "ok": false, "dir": self.dir, "issues": issues }));
                return Err(Failure::silent(Exit::Failed));
            }
            Err(error) => return Err(refused(&error)),
        };
        let policies = bundle.policies();
        let forbids = policies.iter().filter(|policy| policy.forbids).count();
        let unknown = unknown_articles(&policies);
        if as_json {
            output::json(&json!({
                "ok": true, "dir": self.dir, "hash": bundle.hash_hex(), "policies": bundle.len(), "forbids": forbids,
                "actions": bundle.actions().len(), "roles": bundle.roles().count(), "unknown_articles": unknown,
            }));
            return Ok(());
        }
        let what = self.dir.map_or_else(|| "the policies of the program".to_owned(), |dir| dir.display().to_string());
        output::say(format_args!("{} {what}", paint(GOOD, "✓ good:")));
        let (permits, actions, roles) = (bundle.len() - forbids, bundle.actions().len(), bundle.roles().count());
        output::say(format_args!(
            "  {}: {permits} permit, {forbids} forbid; {}, {}",
            of(bundle.len(), "policy", "policies"),
            output::count(actions, "action"),
            output::count(roles, "role"),
        ));
        output::say(format_args!("  hash {}", bundle.hash_hex()));
        for (policy, article) in unknown {
            let remark = format!("`{policy}` cites {article}, which the program's constitution does not have");
            output::note(format_args!("{} {remark}", paint(WARN, "note:")));
        }
        Ok(())
    }
}

fn of(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The policies that cite an article which the constitution of the program does not have, by id.
fn unknown_articles<'a>(policies: &[&'a PolicyText]) -> Vec<(&'a str, &'a str)> {
    let Ok(constitution) = Document::parse(DEFAULT_TOML) else { return Vec::new() };
    let cited = policies.iter().filter_map(|policy| Some((policy.id.as_str(), policy.article.as_deref()?)));
    cited.filter(|(_, article)| constitution.article(article).is_none()).collect()
}

/// Arguments of `village policy decide`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village policy decide --principal acme/ann --role user agent.ask Agent/sage
  village policy decide --principal acme/ann --role admin --mfa cluster.admin System/cluster
  village policy decide --principal acme/ann --role user memory.query Collection --tenant other --json

Exit codes: 0 it is allowed, 3 it is denied.")]
pub(crate) struct Decide {
    #[command(flatten)]
    question: Question,
}

impl Decide {
    fn run(self, as_json: bool) -> Outcome {
        let bundle = load(self.question.dir.as_deref())?;
        let decision = bundle.decide(&self.question.request(&bundle)?);
        if as_json {
            output::json(&json!(decision));
        } else {
            say_decision(decision.allow, &decision.policy_ids, &decision.articles, &decision.errors);
        }
        if decision.allow { Ok(()) } else { Err(Failure::silent(Exit::Refused)) }
    }
}

fn say_decision(allow: bool, policies: &[String], articles: &[String], errors: &[String]) {
    let word = if allow { paint(GOOD, "allow") } else { paint(BAD, "deny") };
    let by = if policies.is_empty() { "no policy permits it".to_owned() } else { policies.join(", ") };
    output::say(format_args!("{word}  {by}"));
    if !articles.is_empty() {
        output::say(format_args!("  articles {}", articles.join(", ")));
    }
    for error in errors {
        output::say(format_args!("  {error}"));
    }
}

/// Arguments of `village policy explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village policy explain --principal acme/bob --role guest agent.ask Agent/sage
  village policy explain --principal acme/bob --role user memory.erase Document/7 --tenant other")]
pub(crate) struct Explain {
    #[command(flatten)]
    question: Question,
}

impl Explain {
    fn run(self, as_json: bool) -> Outcome {
        let bundle = load(self.question.dir.as_deref())?;
        let explanation = bundle.explain(&self.question.request(&bundle)?);
        if as_json {
            output::json(&json!(explanation));
            return Ok(());
        }
        let Explanation { decision, determining, nearest } = explanation;
        say_decision(decision.allow, &decision.policy_ids, &decision.articles, &decision.errors);
        for policy in &determining {
            say_policy(policy);
        }
        if !nearest.is_empty() {
            output::say(paint(BOLD, "\nPermits that were near:"));
        }
        for Near { policy, failed } in &nearest {
            output::say(format_args!("  {}  {}", paint(NAME, &policy.id), paint(DIM, place(policy))));
            for clause in failed {
                output::say(format_args!("    {} {clause}", paint(BAD, "not:")));
            }
        }
        Ok(())
    }
}

fn place(policy: &PolicyText) -> String {
    format!("{}:{}", policy.file, policy.line)
}

fn say_policy(policy: &PolicyText) {
    output::say(format_args!("\n{}  {}", paint(NAME, &policy.id), paint(DIM, place(policy))));
    for line in policy.text.lines() {
        output::say(format_args!("  {line}"));
    }
}

/// Arguments of `village policy test`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village policy test tests.json --dir ./policies

The file is a list of cases:
  [{ \"name\": \"users ask\", \"expect\": \"allow\", \"policies\": [\"user-uses\"], \"request\": {
     \"principal\": { \"tenant\": \"acme\", \"subject\": \"ann\", \"kind\": \"user\", \"roles\": [\"user\"] },
     \"action\": \"agent.ask\", \"resource\": { \"kind\": \"Agent\", \"id\": \"sage\", \"tenant\": \"acme\" } } }]")]
pub(crate) struct Test {
    /// File with the cases.
    file: PathBuf,
    /// Folder with policies [default: those of the program].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Test {
    fn run(self, as_json: bool) -> Outcome {
        let file = self.file.display();
        let text = fs::read_to_string(&self.file)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot read {file}: {error}")))?;
        let cases = Case::read(&text).map_err(|error| Failure::new(Exit::Failed, format!("{file}: {error}")))?;
        let report = load(self.dir.as_deref())?.test(&cases);
        if as_json {
            output::json(&json!(report));
        } else {
            report.failures.iter().for_each(say_failed);
            let count = output::count(cases.len(), "test");
            output::say(match report.failures.len() {
                0 => format!("{} {count}", paint(GOOD, "✓ passed:")),
                failed => format!("{} {failed} of {count}", paint(BAD, "failed:")),
            });
        }
        if report.failures.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
    }
}

fn say_failed(failed: &Failed) {
    let expected = json!(failed.expected);
    let expected = expected.as_str().unwrap_or_default();
    output::say(format_args!("{} {}: expected {expected}, {}", paint(BAD, "✗"), failed.name, failed.got));
    if !failed.missing.is_empty() {
        output::say(format_args!("    not decided by {}", failed.missing.join(", ")));
    }
}

/// Arguments of `village policy show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village policy show
  village policy show forbid-cross-tenant")]
pub(crate) struct Show {
    /// A policy's id [default: list them all].
    id: Option<String>,
    /// Folder with policies [default: those of the program].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Show {
    fn run(self, as_json: bool) -> Outcome {
        let bundle = load(self.dir.as_deref())?;
        let Some(id) = self.id else {
            list(&bundle, as_json);
            return Ok(());
        };
        let policy = bundle.policy(&id).ok_or_else(|| unknown(&bundle, &id))?;
        if as_json {
            output::json(&json!(policy));
        } else {
            say_policy(policy);
        }
        Ok(())
    }
}

fn unknown(bundle: &Bundle, id: &str) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("there is no policy `{id}`"));
    failure.hint(
        bundle
            .nearest_policy(id)
            .map_or_else(|| "`village policy show` lists them".to_owned(), |near| format!("did you mean `{near}`?")),
    )
}

fn list(bundle: &Bundle, as_json: bool) {
    let policies = bundle.policies();
    if as_json {
        return output::json(&json!({ "data": policies }));
    }
    let rows = policies.iter().map(|policy| {
        let effect = if policy.forbids { paint(WARN, "forbid") } else { paint(GOOD, "permit") };
        let article = policy.article.clone().unwrap_or_else(|| "-".to_owned());
        vec![paint(NAME, &policy.id), effect, article, place(policy)]
    });
    output::say(output::table(&["policy", "effect", "article", "place"], rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_not_there_is_told_with_the_nearest() {
        let failure = unknown(&load(None).unwrap(), "user-usess");
        assert_eq!(failure.hint.as_deref(), Some("did you mean `user-uses`?"));
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("own.cedar"), "permit (principal, action, resource)\nwhen { principal.nam };")
            .unwrap();
        let failure = load(Some(dir.path())).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.message.starts_with("own.cedar:"), "{failure}");
    }

    #[test]
    fn the_policies_of_the_program_cite_articles_that_its_constitution_has() {
        assert_eq!(unknown_articles(&load(None).unwrap().policies()), []);
    }

    #[test]
    fn an_article_that_the_constitution_lacks_is_noticed() {
        let policy = |article: &str| PolicyText {
            id: "x".to_owned(),
            file: "own.cedar".to_owned(),
            line: 1,
            forbids: true,
            article: Some(article.to_owned()),
            text: String::new(),
        };
        let (good, bad) = (policy("A1.1"), policy("A99.1"));
        assert_eq!(unknown_articles(&[&good, &bad]), [("x", "A99.1")]);
    }
}
