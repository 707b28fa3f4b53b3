//! Figures of DLP: recall and precision by kind on generated text, bytes per second and core, with Presidio beside it if
//! `PYTHON` (or `python3`) can import `presidio_analyzer`. `cargo bench -p aivillage-governance --bench dlp`; `ROWS=20` makes
//! it small.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

#[path = "../tests/dlp/generate.rs"]
mod generate;
#[path = "../tests/dlp/held_out.rs"]
mod held_out;
#[path = "../tests/dlp/names.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod names;
#[path = "../tests/dlp/score.rs"]
mod score;

use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::Instant;

use aivillage_governance::dlp::{DataKind, DlpConfig, Profile, TAGGED, scan, scan_for};
use generate::{Row, Sentences};

/// Text of the speed rows.
const BYTES: usize = 8 << 20;
/// Rows that Presidio gets: it needs about 10 ms for one.
const PEER_ROWS: usize = 1_000;

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let each = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(500);
    let rows = generate::rows(77, each, Sentences::Known);
    for sentences in [Sentences::Known, Sentences::Second, Sentences::Third, Sentences::Fourth] {
        println!("{sentences:?} sentences; the last ones have shaped no rule");
        quality(&generate::rows(77, each, sentences), patterned);
    }
    println!("names and addresses, in sentences that the tagger was not trained on");
    quality(&names::rows(77, each), all);
    let joined = rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>().join("\n");
    let joined = joined.repeat(BYTES.div_ceil(joined.len().max(1)));
    for (what, except, bar) in [("patterns", TAGGED.to_vec(), 20), ("patterns and tagger", Vec::new(), 3)] {
        let profiles = vec![Profile::Pii, Profile::Phi, Profile::Pan, Profile::Secrets];
        let config = DlpConfig { profiles, except, ..DlpConfig::default() };
        speed(&format!("rows, a finding in each, {what}"), &joined, &config, bar);
        speed(&format!("prose, {what}"), &generate::prose(78, BYTES), &config, bar);
    }
    let held_out = generate::rows(79, each, Sentences::Fourth);
    peer(&held_out);
}

/// What is found where.
type Found = Vec<(DataKind, Range<usize>)>;

/// What has a pattern; names and places are in the rows as they come.
fn patterned(text: &str) -> Found {
    all(text).into_iter().filter(|(kind, _)| !matches!(kind, DataKind::Name | DataKind::Place)).collect()
}

fn all(text: &str) -> Found {
    scan(text).into_iter().map(|finding| (finding.kind, finding.span)).collect()
}

fn quality(rows: &[Row], found: fn(&str) -> Found) {
    let scores = score::score(rows, found);
    println!("{} rows, a finding counts if kind and both ends are right\n{:16} recall  precision", rows.len(), "kind");
    for (kind, score) in &scores {
        println!("{:16} {:.3}   {:.3}", kind.label(), score.recall(), score.precision());
    }
    let total = score::total(&scores);
    println!("{:16} {:.3}   {:.3}   bar 0.97, 0.97", "all", total.recall(), total.precision());
}

fn speed(name: &str, text: &str, config: &DlpConfig, bar: u32) {
    black_box(scan_for(&text[..text.floor_char_boundary(text.len() / 8)], config));
    let best = (0..5).map(|_| {
        let start = Instant::now();
        black_box(scan_for(text, config));
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    let rate = text.len() as f64 / best.as_secs_f64() / 1e6;
    println!("{name}: {rate:.1} MB/s on one core, best of 5 over {} bytes; bar {bar}", text.len());
}

/// Runs Presidio over the first rows; kinds that it has are compared.
fn peer(rows: &[Row]) {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import presidio_analyzer"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("presidio-analyzer: missing");
        return;
    }
    let rows = rows.get(..PEER_ROWS.min(rows.len())).unwrap_or_default();
    let told: Vec<_> = rows.iter().map(|row| (&row.text, row.truth.iter().map(told).collect::<Vec<_>>())).collect();
    let input = serde_json::to_vec(&told).expect("rows are plain data");
    let child = Command::new(&python).args(["-c", include_str!("dlp/presidio.py")]).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return println!("presidio-analyzer: {python} does not start") };
    // Dropping the pipe ends the script's input.
    let is_told = child.stdin.take().is_some_and(|mut pipe| pipe.write_all(&input).is_ok());
    if !is_told || !child.wait().is_ok_and(|status| status.success()) {
        println!("presidio-analyzer: its script failed");
    }
}

/// Offsets as Python counts them; the rows are ASCII.
fn told((kind, span): &(DataKind, Range<usize>)) -> (&'static str, usize, usize) {
    (kind.label(), span.start, span.end)
}
