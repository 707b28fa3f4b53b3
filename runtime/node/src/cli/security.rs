//! `village security`: secrets that lie in a tree of files; no village is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use aivillage_governance::dlp::{self, DlpConfig, Profile};
use clap::{Args, Subcommand};
use ignore::{DirEntry, WalkBuilder};
use serde_json::json;

use super::{
    Exit, Failure, Global, Outcome,
    dlp::{Lines, hint},
    output::{self, DIM, GOOD, NAME, WARN, paint},
};

/// Folders that hold what others have made.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];
/// Larger files are data.
const MAX_FILE: u64 = 16 << 20;
/// Bytes in which a zero tells that a file is no text.
const HEAD: usize = 8_192;
/// In the tree's root.
const ALLOWED: &str = ".secrets.allow";

/// Commands of `village security`.
#[derive(Debug, Subcommand)]
pub(crate) enum Security {
    /// Look for secrets in a tree of files.
    Scan(Scan),
}

impl Security {
    /// Runs the command.
    ///
    /// # Errors
    /// A secret (exit 1), an allow file that cannot be read (exit 2).
    pub(crate) fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Scan(scan) => scan.run(global.json),
        }
    }
}

/// Arguments of `village security scan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village security scan .
  village security scan src --allow ci/known.allow --json

Skipped: .git, target, node_modules, what .gitignore names, and what is no text. Each line of the allow file is a fingerprint,
as this command prints it, and why what it stands for is no secret; `#` begins a comment. Exit code 1: a secret was found.")]
pub(crate) struct Scan {
    /// A folder or a file.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Fingerprints of what is known and no secret [default: .secrets.allow in PATH].
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
}

/// One secret.
#[derive(Debug, PartialEq, Eq)]
struct Secret {
    file: PathBuf,
    line: usize,
    column: usize,
    score: u8,
    fingerprint: String,
    hint: String,
}

impl Scan {
    fn run(self, as_json: bool) -> Outcome {
        let allowed = self.allowed()?;
        let looked = look(&self.path)?;
        let used: BTreeSet<&str> = looked.secrets.iter().map(|secret| secret.fingerprint.as_str()).collect();
        for unused in allowed.keys().filter(|known| !used.contains(known.as_str())) {
            output::note(paint(DIM, format_args!("  the allow file names {unused}, which is nowhere")));
        }
        let is_new = |secret: &&Secret| !allowed.contains_key(&secret.fingerprint);
        let new: Vec<&Secret> = looked.secrets.iter().filter(is_new).collect();
        let known = looked.secrets.len() - new.len();
        if as_json {
            let secret = |one: &&Secret| json!({ "file": one.file, "line": one.line, "column": one.column, "score": one.score, "fingerprint": one.fingerprint });
            let secrets: Vec<_> = new.iter().map(secret).collect();
            output::json(&json!({ "files": looked.files, "allowed": known, "secrets": secrets }));
        } else {
            say(&new, known, looked.files);
        }
        if new.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
    }

    /// Fingerprints with their reasons.
    fn allowed(&self) -> Result<BTreeMap<String, String>, Failure> {
        let file = self.allow.clone().unwrap_or_else(|| self.path.join(ALLOWED));
        if self.allow.is_none() && !file.is_file() {
            return Ok(BTreeMap::new());
        }
        let fail = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
        let text = fs::read_to_string(&file).map_err(|error| fail(error.to_string()))?;
        let lines =
            (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let entry = |(number, line): (usize, &str)| match line.split_once(char::is_whitespace) {
            Some((known, why)) if dlp::is_fingerprint(known) => Ok((known.to_owned(), why.trim().to_owned())),
            _ => Err(fail(format!("line {number} is not a fingerprint and a reason"))),
        };
        lines.map(entry).collect()
    }
}

fn say(new: &[&Secret], known: usize, files: usize) {
    if new.is_empty() {
        let known = if known == 0 { String::new() } else { format!(", {known} known ones") };
        output::say(format_args!("{} in {}{known}", paint(GOOD, "no secret"), output::count(files, "file")));
        return;
    }
    let row = |secret: &&Secret| {
        let place = format!("{}:{}:{}", secret.file.display(), secret.line, secret.column);
        vec![paint(WARN, place), secret.score.to_string(), paint(NAME, &secret.fingerprint), paint(DIM, &secret.hint)]
    };
    output::say(output::table(&["place", "#score", "fingerprint", "text"], new.iter().map(row)));
}

/// What a tree has.
#[derive(Debug, Default)]
struct Looked {
    files: usize,
    secrets: Vec<Secret>,
}

fn look(root: &Path) -> Result<Looked, Failure> {
    let fail = |why: String| Failure::new(Exit::Failed, why);
    fs::metadata(root).map_err(|error| fail(format!("{}: {error}", root.display())))?;
    let config = DlpConfig { profiles: vec![Profile::Secrets], ..DlpConfig::default() };
    let mut looked = Looked::default();
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false)
        .require_git(false)
        .sort_by_file_path(std::path::Path::cmp)
        .filter_entry(|entry| !is_skipped(entry));
    for entry in walk.build() {
        let entry = entry.map_err(|error| fail(error.to_string()))?;
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let Some(text) = text_of(entry.path()).map_err(|error| fail(format!("{}: {error}", entry.path().display())))?
        else {
            continue;
        };
        looked.files += 1;
        let lines = Lines::of(&text);
        for finding in dlp::scan_for(&text, &config) {
            let value = text.get(finding.span.clone()).unwrap_or_default();
            let (line, column) = lines.place(&text, finding.span.start);
            let file = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
            let (fingerprint, hint) = (dlp::fingerprint(value), hint(value));
            looked.secrets.push(Secret { file, line, column, score: finding.score, fingerprint, hint });
        }
    }
    Ok(looked)
}

fn is_skipped(entry: &DirEntry) -> bool {
    entry.depth() > 0
        && entry.file_type().is_some_and(|kind| kind.is_dir())
        && SKIPPED.iter().any(|name| entry.file_name() == *name)
}

/// None of what is no text, or too large for one.
fn text_of(path: &Path) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let size = fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64;
    let has_zero = bytes.iter().take(HEAD).any(|byte| *byte == 0);
    Ok(if size > MAX_FILE || has_zero { None } else { String::from_utf8(bytes).ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token of GitHub's form; put together here, so that this file has none.
    fn token() -> String {
        format!("gh{}_{}", 'p', "aB3dE6".repeat(6))
    }

    fn scan(path: &Path, allow: Option<PathBuf>) -> Outcome {
        Scan { path: path.to_owned(), allow }.run(true)
    }

    #[test]
    fn a_secret_ends_with_one_until_the_allow_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/a.rs"), format!("// ü\nlet key = \"{}\";\n", token())).unwrap();
        assert_eq!(scan(dir.path(), None).unwrap_err().exit, Exit::Failed);
        let [secret] = &look(dir.path()).unwrap().secrets[..] else { panic!() };
        assert_eq!((secret.file.as_path(), secret.line, secret.column), (Path::new("src/a.rs"), 2, 12));
        assert!(!secret.hint.contains(&token()) && !secret.fingerprint.contains(&token()));

        let allow = dir.path().join(ALLOWED);
        fs::write(&allow, format!("# known\n{} made for a test\n", secret.fingerprint)).unwrap();
        assert!(scan(dir.path(), None).is_ok());
        fs::write(&allow, format!("{}\n", secret.fingerprint)).unwrap();
        assert_eq!(scan(dir.path(), None).unwrap_err().exit, Exit::Usage, "without a reason");
        assert_eq!(scan(dir.path(), Some("/no/such".into())).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_others_made_and_what_is_no_text_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".git/config", "target/debug/x.d", "web/node_modules/m.js", "out/ignored.txt"] {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, token()).unwrap();
        }
        fs::write(dir.path().join(".gitignore"), "/out\n").unwrap();
        fs::write(dir.path().join("model.bin"), format!("\0{}", token())).unwrap();
        fs::write(dir.path().join("latin1.txt"), [b"\xe9 ", token().as_bytes()].concat()).unwrap();
        assert!(scan(dir.path(), None).is_ok());
        fs::write(dir.path().join(".env"), token()).unwrap();
        assert!(scan(dir.path(), None).is_err(), "hidden files are looked at");
        assert_eq!(scan(Path::new("/no/such"), None).unwrap_err().exit, Exit::Failed);
    }
}
