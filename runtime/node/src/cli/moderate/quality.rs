//! `village moderate eval` and `swap-test`.

use std::path::PathBuf;

use aivillage_governance::moderation::{
    suites::{self, Functional, OwnTable, Quality},
    train::evaluate,
};
use clap::Args;
use serde_json::{Value, json};

use super::{H2, ModelOption};
use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, BAD, BOLD, DIM, GOOD, paint},
};

/// Arguments of `village moderate eval`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village moderate eval
  village moderate eval --extra mine.csv --json
  village moderate eval --model mine/moderation.avmd

The file has the columns text,label; a label is a category such as `hate` or `spam`, or `benign`.")]
pub(crate) struct Eval {
    /// A table of your own to measure on, too.
    #[arg(long, value_name = "FILE.csv")]
    extra: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOption,
}

impl Eval {
    /// Measures and prints.
    ///
    /// # Errors
    /// A model or table that cannot be read.
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let engine = self.model.load(H2::Block)?.engine();
        let functional = suites::functional(&engine);
        let own = self.extra.as_deref().map(|table| suites::own_table(&engine, table)).transpose();
        let own = own.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        if as_json {
            let metrics = &engine.manifest().metrics;
            output::json(
                &json!({ "model": engine.name(), "functional": functional, "training": metrics, "extra": own }),
            );
            return Ok(());
        }
        output::say(paint(BOLD, "Functional suite"));
        output::say(table(&functional));
        say_quality(&functional.quality);
        output::say(paint(BOLD, "\nOn texts that training kept apart"));
        output::say(evaluate::table(engine.manifest()).trim_end());
        if let Some(own) = own {
            say_own(&own);
        }
        output::say(paint(DIM, format_args!("\nmodel {}", engine.name())));
        Ok(())
    }
}

fn table(functional: &Functional) -> String {
    let rows = functional.functions.iter().map(|row| {
        let wanted = if row.harmful { "acted on" } else { "let pass" };
        vec![row.name.clone(), wanted.to_owned(), row.right.to_string(), row.cases.to_string()]
    });
    output::table(&["function", "should be", "#right", "#of"], rows)
}

fn say_quality(quality: &Quality) {
    let Quality { auroc, average_precision, harmful, found, harmless, wrong } = quality;
    output::say(format_args!("AUROC {auroc:.3}, average precision {average_precision:.3}"));
    output::say(format_args!("acted on {found} of {harmful} harmful and {wrong} of {harmless} harmless texts"));
}

fn say_own(own: &OwnTable) {
    output::say(paint(BOLD, "\nYour table"));
    let rows = own.categories.iter().map(|row| {
        let auroc = format!("{:.3}", row.auroc);
        vec![row.category.code().to_owned(), row.found.to_string(), row.texts.to_string(), auroc]
    });
    output::say(output::table(&["category", "#found", "#of", "#auroc"], rows));
    say_quality(&own.quality);
    output::say(format_args!("calibration error {:.4}", own.calibration_error));
}

/// Arguments of `village moderate swap-test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village moderate swap-test
  village moderate swap-test --model mine/moderation.avmd --json

Exit codes: 0 no verdict changes, 3 one does.")]
pub(crate) struct SwapTest {
    #[command(flatten)]
    model: ModelOption,
}

impl SwapTest {
    /// Swaps and compares.
    ///
    /// # Errors
    /// A model that cannot be read; exit 3 when a verdict depends on the viewpoint.
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let engine = self.model.load(H2::Block)?.engine();
        let swap = suites::swap(&engine);
        if as_json {
            let Value::Object(mut value) = json!(swap) else { return Ok(()) };
            value.insert("model".to_owned(), engine.name().into());
            output::json(&value.into());
        } else {
            let word =
                if swap.flips == 0 { paint(GOOD, "✓ no verdict changes:") } else { paint(BAD, "verdicts change:") };
            output::say(format_args!("{word} {} of {} in {} templates", swap.flips, swap.verdicts, swap.templates));
            for flip in &swap.told {
                output::say(format_args!("  {:?} is not {:?} in: {}", flip.one, flip.other, flip.template));
            }
        }
        if swap.flips == 0 { Ok(()) } else { Err(Failure::silent(Exit::Refused)) }
    }
}
