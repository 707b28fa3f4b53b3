//! Trains the model of names and addresses, and says how a model that is not in the program yet does.
//!
//! ```text
//! cargo run -p aivillage-governance --example names_train -- train LISTS OUT [SEED] [ROUNDS] [FILLS] [MARGIN]
//! cargo run -p aivillage-governance --example names_train -- eval MODEL
//! ```
//! `village dlp train` trains too; `eval` prints the figures of `governance/models/names.md`.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

#[path = "../tests/dlp/generate.rs"]
mod generate;
#[path = "../tests/dlp/held_out.rs"]
mod held_out;
#[path = "../tests/dlp/names.rs"]
mod names;
#[path = "../tests/dlp/score.rs"]
mod score;

use std::ops::Range;
use std::path::Path;

use aivillage_governance::dlp::DataKind;
use aivillage_governance::dlp::train::{Lists, Options, find, train};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| args.get(at).map_or(Ok(default), |number| number.parse());
    match args.as_slice() {
        [verb, lists, out, ..] if verb == "train" => {
            let default = Options::default();
            let (rounds, fills) = (number(4, default.rounds)?, number(5, default.fills)?);
            let options =
                Options { seed: number(3, 1)?.into(), rounds, fills, margin: number(6, default.margin)? };
            let model = train(&Lists::read(Path::new(lists))?, &options, |line| println!("{line}"))?;
            std::fs::write(out, &model)?;
            eval(&model)
        }
        [verb, model] if verb == "eval" => eval(&std::fs::read(model)?),
        _ => Err("train LISTS OUT [SEED] [ROUNDS] [FILLS] [MARGIN], or eval MODEL".into()),
    }
}

fn eval(model: &[u8]) -> Result<(), Failure> {
    find(model, "")?;
    let found = |text: &str| -> Vec<(DataKind, Range<usize>)> {
        let found = find(model, text).unwrap_or_default().into_iter();
        found.filter(|finding| finding.kind != DataKind::Place).map(|finding| (finding.kind, finding.span)).collect()
    };
    println!("{} bytes", model.len());
    for (name, rows) in [("listed", names::rows(11, 40)), ("fresh", names::fresh(13, 40)), ("unlisted", names::unlisted(12, 20)), ("nobody", names::nobody())] {
        for (kind, score) in score::score(&rows, found) {
            println!("{name} {kind:?}: recall {:.3}, precision {:.3}, {score:?}", score.recall(), score.precision());
        }
        let wrong = rows.iter().filter(|row| found(&row.text) != row.truth).step_by(if name == "nobody" { 1 } else { 12 });
        for row in wrong.take(25) {
            let told: Vec<_> = found(&row.text).into_iter().map(|(kind, span)| (kind, row.text[span].to_owned())).collect();
            println!("    {} {told:?}", row.text);
        }
    }
    for (name, (rate, found)) in names::rates(found) {
        println!("{name}: {rate:.2} per thousand words {found:?}");
    }
    Ok(())
}
