//! `village constitution`: the rules that bind everybody, looked at without a village.

mod sign;

use std::path::{Path, PathBuf};

use aivillage_governance::{
    EMBEDDED,
    constitution::{
        chain::{Chain, RootKeys, Signed},
        check::Proposal,
        document::{Article, Document},
        folder::{Files, versions},
        note::NoteKey,
    },
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{
    Exit, Failure, Global, Outcome,
    output::{self, BAD, BOLD, DIM, GOOD, NAME, WARN, paint},
};

/// Commands of `village constitution`.
#[derive(Debug, Subcommand)]
pub(crate) enum Constitution {
    /// Show the articles, or one of them.
    Show(Show),
    /// Say whether a constitution holds, or what is wrong with it.
    Verify(Verify),
    /// Show what a new version would change, and whether it may.
    Diff(Diff),
    /// Make a key that signs constitutions.
    Key(sign::Key),
    /// Sign a version.
    Sign(sign::Sign),
}

impl Constitution {
    /// Runs the command; no village is needed.
    ///
    /// # Errors
    /// A constitution that does not hold (exit 1).
    pub(crate) fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Show(show) => show.run(global.json),
            Self::Verify(verify) => verify.run(global.json),
            Self::Diff(diff) => diff.run(global.json),
            Self::Key(key) => key.run(global.json),
            Self::Sign(sign) => sign.run(global.json),
        }
    }
}

/// Reads a version, or takes that of the program.
fn read(place: &Path) -> Result<Files, Failure> {
    if place == Path::new(EMBEDDED) { Ok(Files::embedded()) } else { Ok(Files::read(place).map_err(failed)?) }
}

fn document(files: &Files, place: &Path) -> Result<Document, Failure> {
    Document::parse(&files.signed.toml)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", place.display())))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

fn hex(hash: [u8; 32]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Arguments of `village constitution show`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village constitution show
  village constitution show A2.1")]
pub(crate) struct Show {
    /// An article, or the beginning of the ids of several [default: all].
    article: Option<String>,
    /// Folder with a constitution.
    #[arg(long, value_name = "DIR", default_value = EMBEDDED)]
    dir: PathBuf,
}

impl Show {
    fn run(self, as_json: bool) -> Outcome {
        let document = document(&read(&self.dir)?, &self.dir)?;
        let wanted = self.article.as_deref();
        let fits = |id: &str| {
            wanted.is_none_or(|wanted| {
                id.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let articles: Vec<&Article> = document.articles().iter().filter(|article| fits(&article.id)).collect();
        if articles.is_empty() {
            let message = format!("there is no article `{}`", wanted.unwrap_or_default());
            let ids: Vec<_> = document.articles().iter().map(|article| article.id.as_str()).collect();
            return Err(Failure::new(Exit::Failed, message).hint(format!("articles: {}", ids.join(", "))));
        }
        if as_json {
            output::json(&json!({
                "name": document.name(), "version": document.version(), "hash": hex(document.hash()),
                "articles": articles, "rules": document.rules(), "bounds": document.bounds(),
            }));
            return Ok(());
        }
        let title = format!("Constitution of {}, version {}", document.name(), document.version());
        output::say(format_args!("{}  {}", paint(BOLD, title), paint(DIM, hex(document.hash()))));
        for article in articles {
            let entrenched = if article.entrenched { paint(WARN, " (entrenched)") } else { String::new() };
            output::say(format_args!("\n{} {}{entrenched}", paint(NAME, &article.id), paint(BOLD, &article.title)));
            output::say(output::wrap(&article.text, 100, "  "));
            if wanted.is_some() {
                say_enforced(&document, &article.id);
            }
        }
        Ok(())
    }
}

/// What machines do for an article.
fn say_enforced(document: &Document, article: &str) {
    for rule in document.rules().iter().filter(|rule| rule.article == article) {
        let what = rule.when.category.as_deref().unwrap_or("everything");
        let action = json!(rule.measure.action);
        let action = action.as_str().unwrap_or_default().to_owned();
        output::say(format_args!("  rule {}: {what} of level {:?}: {action}", rule.id, rule.when.level));
    }
    for bound in document.bounds().iter().filter(|bound| bound.article == article) {
        let (key, min, max, step) = (&bound.key, bound.min, bound.max, bound.max_change_pct);
        output::say(format_args!("  bound {key}: {min} to {max}, at most {step} % in one vote"));
    }
}

/// Arguments of `village constitution verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village constitution verify
  village constitution verify ./constitution --root-key 'root-1+1f2e3d4c+AQ...'

A folder has constitution.toml, and constitution.sig and constitution.md beside it; or a folder for each version, named 1, 2, ...
Without root keys only the texts are looked at, not who signed them.")]
pub(crate) struct Verify {
    /// Folder with a constitution, or with one for each version.
    #[arg(default_value = EMBEDDED)]
    dir: PathBuf,
    /// Key of somebody who may sign, name+hash+key; may be given again.
    #[arg(long = "root-key", value_name = "KEY")]
    root_keys: Vec<NoteKey>,
    /// How many of them must have signed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
}

impl Verify {
    fn run(self, as_json: bool) -> Outcome {
        let places = versions(&self.dir);
        let mut all = Vec::new();
        for place in &places {
            let files = read(place)?;
            let document = document(&files, place)?;
            if let Some(article) = files.prose.as_deref().and_then(|prose| unwritten(&document, prose)) {
                let message = format!("{}: constitution.md does not say article {article}", place.display());
                return Err(
                    Failure::new(Exit::Failed, message).hint("both files have the same articles, word for word")
                );
            }
            all.push((document, files.signed));
        }
        let signed = self.check_signatures(all.iter().map(|(_, signed)| signed.clone()).collect())?;
        let row = |document: &Document| json!({ "version": document.version(), "hash": hex(document.hash()) });
        if as_json {
            let versions: Vec<_> = all.iter().map(|(document, _)| row(document)).collect();
            output::json(&json!({ "ok": true, "signatures_checked": signed, "versions": versions }));
            return Ok(());
        }
        for (document, _) in &all {
            let (name, version) = (document.name(), document.version());
            output::say(format_args!("{} {name}, version {version}", paint(GOOD, "✓ good:")));
            output::say(format_args!(
                "  {}, {}, {}",
                output::count(document.articles().len(), "article"),
                output::count(document.rules().len(), "rule"),
                output::count(document.bounds().len(), "bound"),
            ));
            output::say(format_args!("  hash {}", hex(document.hash())));
        }
        if !signed {
            let remark = "signatures were not looked at: name who may sign with --root-key";
            output::note(format_args!("{} {remark}", paint(WARN, "note:")));
        }
        Ok(())
    }

    /// Tells whether there was somebody to ask for.
    fn check_signatures(&self, versions: Vec<Signed>) -> Result<bool, Failure> {
        if self.root_keys.is_empty() {
            return Ok(false);
        }
        let roots = RootKeys::try_new(self.root_keys.clone(), self.threshold)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        Chain::verify(versions, &roots).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        Ok(true)
    }
}

/// An article that the prose does not have word for word.
fn unwritten<'d>(document: &'d Document, prose: &str) -> Option<&'d str> {
    let is_there = |article: &Article| prose.contains(&article.title) && prose.contains(&article.text);
    document.articles().iter().find(|article| !is_there(article)).map(|article| article.id.as_str())
}

/// Arguments of `village constitution diff`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village constitution diff embedded ./next

Tells articles, rules and bounds that come, go or change, and what stands against B as the version after A.")]
pub(crate) struct Diff {
    /// Folder or file of the version now; `embedded` for that of the program.
    a: PathBuf,
    /// Folder or file of the next version.
    b: PathBuf,
}

/// Something that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    what: &'static str,
    id: String,
    /// `added`, `removed` or `changed`.
    how: &'static str,
}

impl Diff {
    fn run(self, as_json: bool) -> Outcome {
        let (now, next) = (read(&self.a)?, read(&self.b)?);
        let (old, new) = (document(&now, &self.a)?, document(&next, &self.b)?);
        let differences = differences(&old, &new);
        let proposal = Proposal { constitution: Some(next.signed.toml), ..Proposal::default() };
        let findings = if differences.is_empty() { Vec::new() } else { old.check(&proposal) };
        if as_json {
            let findings: Vec<_> = findings
                .iter()
                .map(|finding| json!({ "article": finding.article, "what": finding.what.to_string() }))
                .collect();
            output::json(&json!({ "differences": differences, "findings": findings }));
            return Ok(());
        }
        if differences.is_empty() {
            output::say("no difference");
        }
        for Difference { what, id, how } in &differences {
            let mark = match *how {
                "added" => paint(GOOD, "+"),
                "removed" => paint(BAD, "-"),
                _ => paint(WARN, "~"),
            };
            output::say(format_args!("{mark} {what} {} {}", paint(NAME, id), paint(DIM, how)));
            if let (Some(old), Some(new)) = (old.article(id), new.article(id)) {
                output::say(format_args!("  {} {}", paint(BAD, "-"), old.text));
                output::say(format_args!("  {} {}", paint(GOOD, "+"), new.text));
            }
        }
        if !findings.is_empty() {
            output::say(paint(BOLD, "\nWhat stands against it:"));
        }
        for finding in findings {
            output::say(format_args!("  {} {}", paint(BAD, finding.article), finding.what));
        }
        Ok(())
    }
}

fn differences(old: &Document, new: &Document) -> Vec<Difference> {
    let articles = compare("article", old.articles(), new.articles(), |article| &article.id);
    let rules = compare("rule", old.rules(), new.rules(), |rule| &rule.id);
    let bounds = compare("bound", old.bounds(), new.bounds(), |bound| &bound.key);
    articles.into_iter().chain(rules).chain(bounds).collect()
}

fn compare<T: PartialEq>(what: &'static str, old: &[T], new: &[T], id: impl Fn(&T) -> &String) -> Vec<Difference> {
    let find = |list: &[T], wanted: &T| list.iter().position(|item| id(item) == id(wanted));
    let told = |item: &T, how| Difference { what, id: id(item).clone(), how };
    let changed = old.iter().filter_map(|item| match find(new, item).and_then(|at| new.get(at)) {
        None => Some(told(item, "removed")),
        Some(other) => (other != item).then(|| told(item, "changed")),
    });
    let added = new.iter().filter(|item| find(old, item).is_none()).map(|item| told(item, "added"));
    changed.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use aivillage_governance::constitution::{DEFAULT_PROSE, DEFAULT_TOML};

    use super::*;

    fn next() -> Document {
        let toml = DEFAULT_TOML.replacen("version = 1", "version = 2", 1).replacen("suspended", "sent away", 1);
        Document::parse(&toml).unwrap()
    }

    #[test]
    fn a_changed_article_is_told_and_nothing_else() {
        let old = Document::parse(DEFAULT_TOML).unwrap();
        let changed = Difference { what: "article", id: "A1.1".to_owned(), how: "changed" };
        assert_eq!(differences(&old, &next()), [changed]);
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn items_of_one_side_come_or_go() {
        let (old, new) = (["a".to_owned(), "b".to_owned()], ["b".to_owned(), "c".to_owned()]);
        let told = compare("rule", &old, &new, |item| item);
        let told: Vec<_> = told.iter().map(|difference| (difference.id.as_str(), difference.how)).collect();
        assert_eq!(told, [("a", "removed"), ("c", "added")]);
    }

    #[test]
    fn prose_says_every_article() {
        assert_eq!(unwritten(&Document::parse(DEFAULT_TOML).unwrap(), DEFAULT_PROSE), None);
        assert_eq!(unwritten(&next(), DEFAULT_PROSE), Some("A1.1"));
    }
}
