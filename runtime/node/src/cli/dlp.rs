//! `village dlp`: personal and secret data in texts, found and taken out; no village is needed but to take tokens back.

mod train;

use std::{
    fs,
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
};

use aivillage_governance::dlp::{self, Action, DataKind, DlpConfig, Finding, Profile, PseudonymKey, Redactor};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, GOOD, NAME, WARN, paint, text},
};

/// Longest text, bytes: what is longer is sent in parts.
const MAX_TEXT: u64 = 64 << 20;
/// Characters of a finding that are shown.
const SHOWN: usize = 2;

/// Commands of `village dlp`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlp {
    /// Find personal and secret data.
    Scan(Scan),
    /// Print a text without it.
    Redact(Redact),
    /// Print what a token stands for; the village logs who asked and what for.
    Detokenise(Detokenise),
    /// Train the model of names and addresses.
    Train(train::Train),
}

impl Dlp {
    /// Runs the command.
    ///
    /// # Errors
    /// A file that cannot be read, findings with `--fail`, a key that may not.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Scan(scan) => scan.run(global.json),
            Self::Redact(redact) => redact.run(global.json),
            Self::Detokenise(detokenise) => detokenise.run(global).await,
            Self::Train(train) => train.run(global.json),
        }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// What identifies a person.
    Pii,
    /// The eighteen identifiers of HIPAA.
    Phi,
    /// Payment cards.
    Pan,
    /// Credentials.
    Secrets,
}

impl From<Of> for Profile {
    fn from(of: Of) -> Self {
        match of {
            Of::Pii => Self::Pii,
            Of::Phi => Self::Phi,
            Of::Pan => Self::Pan,
            Of::Secrets => Self::Secrets,
        }
    }
}

/// What both commands look for.
#[derive(Debug, Args)]
struct Looked {
    /// What to look for; may be given again [default: pii, pan, secrets].
    #[arg(long, value_enum, value_name = "PROFILE", value_delimiter = ',')]
    profile: Vec<Of>,
    /// Leave findings below this score.
    #[arg(long, value_name = "SCORE", default_value_t = 50, value_parser = clap::value_parser!(u8).range(50..=100))]
    min_score: u8,
}

impl Looked {
    fn config(&self, default: DlpConfig) -> DlpConfig {
        let profiles: Vec<Profile> = self.profile.iter().copied().map(Profile::from).collect();
        let profiles = if profiles.is_empty() { default.profiles.clone() } else { profiles };
        DlpConfig { profiles, min_score: self.min_score, ..default }
    }
}

/// Arguments of `village dlp scan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village dlp scan letter.txt
  village dlp scan --profile phi,secrets notes/*.md --fail
  cat mail.eml | village dlp scan --json

Values are not shown, only how they begin: what this prints may be kept. Exit code 1: something was found and --fail given.")]
pub(crate) struct Scan {
    /// Files with text; `-` is standard input [default: -].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    looked: Looked,
    /// End with exit code 1 if anything is found.
    #[arg(long)]
    fail: bool,
}

impl Scan {
    fn run(self, as_json: bool) -> Outcome {
        let config = self.looked.config(DlpConfig::default());
        let files = if self.files.is_empty() { vec![PathBuf::from("-")] } else { self.files };
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        for file in &files {
            let text = read(file)?;
            let lines = Lines::of(&text);
            for finding in dlp::scan_for(&text, &config) {
                let (line, column) = lines.place(&text, finding.span.start);
                values.push(as_value(file, &finding, (line, column)));
                rows.push(row(file, &text, &finding, (line, column)));
            }
        }
        let found = rows.len();
        if as_json {
            output::json(&json!({ "findings": values }));
        } else if found == 0 {
            output::say(paint(GOOD, "nothing found"));
        } else {
            output::say(output::table(&["place", "#bytes", "kind", "#score", "text"], rows));
        }
        if self.fail && found > 0 { Err(Failure::silent(Exit::Failed)) } else { Ok(()) }
    }
}

fn as_value(file: &Path, Finding { kind, span, score }: &Finding, (line, column): (usize, usize)) -> Value {
    let span = json!({ "start": span.start, "end": span.end });
    json!({ "file": file, "kind": kind, "span": span, "line": line, "column": column, "score": score })
}

fn row(
    file: &Path,
    text: &str,
    Finding { kind, span, score }: &Finding,
    (line, column): (usize, usize),
) -> Vec<String> {
    vec![
        format!("{}:{line}:{column}", file.display()),
        format!("{}-{}", span.start, span.end),
        paint(WARN, kind.label()),
        score.to_string(),
        paint(DIM, hint(text.get(span.clone()).unwrap_or_default())),
    ]
}

/// How a value begins, and how long it is.
pub(super) fn hint(value: &str) -> String {
    let begins: String = value.chars().take(SHOWN).collect();
    format!("{begins}... ({} characters)", value.chars().count())
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// Line and column of a byte, both from 1; the column in characters.
    pub(super) fn place(&self, text: &str, at: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|line| self.0.get(line)).copied().unwrap_or_default();
        (line, text.get(start..at).map_or(0, |before| before.chars().count()) + 1)
    }
}

/// Arguments of `village dlp redact`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village dlp redact letter.txt > clean.txt
  village dlp redact discharge.txt --safe-harbor
  echo \"mail ann@example.org\" | village dlp redact --json

Placeholders such as [EMAIL_1] stand for the same value throughout a text. Tokens need a village: POST /v1/dlp/redact.")]
pub(crate) struct Redact {
    /// A file with text; `-` is standard input [default: -].
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,
    #[command(flatten)]
    looked: Looked,
    /// HIPAA's Safe Harbor: the phi profile; dates become years, ages above 89 `90+`, ZIP codes their first three digits.
    #[arg(long)]
    safe_harbor: bool,
}

impl Redact {
    fn run(self, as_json: bool) -> Outcome {
        let text = read(&self.file)?;
        let config = self.config();
        // No stand-in is derived of a key here: there is no vault, and dates that move would need one.
        let key = PseudonymKey::new(&rand::random());
        let redacted = Redactor::new(&config, &key, "").in_year(dlp::this_year()).redact(&text);
        if !as_json {
            output::say_part(&redacted.text);
            return Ok(());
        }
        let span = |range: &Range<usize>| json!({ "start": range.start, "end": range.end });
        let edit = |edit: &dlp::Edit| json!({ "kind": edit.kind, "action": edit.action, "original": span(&edit.original), "redacted": span(&edit.redacted) });
        output::json(&json!({ "text": redacted.text, "edits": redacted.edits.iter().map(edit).collect::<Vec<_>>() }));
        Ok(())
    }

    fn config(&self) -> DlpConfig {
        if self.safe_harbor {
            return self.looked.config(DlpConfig::safe_harbor());
        }
        let actions = [(DataKind::Pan, Action::Redact), (DataKind::Date, Action::Redact)].into();
        self.looked.config(DlpConfig { actions, ..DlpConfig::default() })
    }
}

/// Arguments of `village dlp detokenise`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village dlp detokenise tok_k5o6bdzfgdoakz7yxl4oqe2aim_1111 --purpose chargeback")]
pub(crate) struct Detokenise {
    /// The token.
    token: String,
    /// What for: a code of small letters, digits, `-` and `.`, which the log keeps.
    #[arg(long, value_name = "CODE")]
    purpose: String,
}

impl Detokenise {
    async fn run(self, global: &Global) -> Outcome {
        let body = json!({ "token": self.token, "purpose": self.purpose });
        let found = Client::open(global)?.post(&["v1", "dlp", "detokenise"], &body).await?;
        if global.json {
            output::json(&found);
        } else {
            output::say(format_args!("{} {}", paint(NAME, text(&found, "kind")), text(&found, "value")));
        }
        Ok(())
    }
}

/// The text of a file, or of standard input.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().take(MAX_TEXT + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(file).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes))
    };
    let fail = |why: String| Failure::new(Exit::Failed, format!("cannot read {}: {why}", file.display()));
    let len = read.map_err(|error| fail(error.to_string()))? as u64;
    if len > MAX_TEXT {
        return Err(fail(format!("it has more than {}", output::size(MAX_TEXT))));
    }
    String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(subcommand)]
        dlp: Dlp,
    }

    fn parse(args: &[&str]) -> Dlp {
        Only::try_parse_from([&["dlp"][..], args].concat()).unwrap().dlp
    }

    #[test]
    fn places_are_lines_and_characters() {
        let text = "ab\nüx\n\ny";
        let lines = Lines::of(text);
        let place = |needle: &str| lines.place(text, text.find(needle).unwrap());
        assert_eq!([place("a"), place("x"), place("y")], [(1, 1), (2, 2), (4, 1)]);
        assert_eq!(hint("überlang"), "üb... (8 characters)");
    }

    #[test]
    fn profiles_are_those_given_and_redaction_has_no_tokens() {
        let Dlp::Scan(scan) = parse(&["scan", "--profile", "phi,secrets"]) else { panic!() };
        assert_eq!(scan.looked.config(DlpConfig::default()).profiles, [Profile::Phi, Profile::Secrets]);
        let Dlp::Redact(redact) = parse(&["redact"]) else { panic!() };
        let config = redact.config();
        config.validate().unwrap();
        assert!(DataKind::ALL.iter().all(|kind| !matches!(config.action(*kind), Action::Tokenise | Action::DateShift)));
        let Dlp::Redact(redact) = parse(&["redact", "--safe-harbor"]) else { panic!() };
        assert_eq!(redact.config().action(DataKind::Zip), Action::Generalise);
        assert_eq!(redact.config().profiles, [Profile::Phi]);
        assert!(Only::try_parse_from(["dlp", "scan", "--min-score", "10"]).is_err());
    }

    #[test]
    fn findings_end_with_one_only_if_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mail.txt");
        fs::write(&file, "write to ann@example.org").unwrap();
        let scan = |fail: bool, profile: &str| {
            let file = file.to_str().unwrap();
            let fail: &[&str] = if fail { &["--fail"] } else { &[] };
            let Dlp::Scan(scan) = parse(&[&["scan", file, "--profile", profile][..], fail].concat()) else { panic!() };
            scan.run(true)
        };
        assert_eq!(scan(true, "pii").unwrap_err().exit, Exit::Failed);
        assert!(scan(false, "pii").is_ok() && scan(true, "pan").is_ok());
        assert_eq!(read(Path::new("/no/such")).unwrap_err().exit, Exit::Failed);
    }
}
