//! `calc.eval`: exact arithmetic with units, by fend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use fend_core::{Context, CustomUnitAttribute, Interrupt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use crate::planner::slots::SlotKind;

/// Longest expression, bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1024;
/// Longest result, characters: 2^1000 has 302 digits.
const MAX_RESULT_CHARS: usize = 2_000;
/// A person waits for arithmetic no longer than this.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Evaluates an expression.
#[derive(Debug)]
pub struct Eval;

/// Arguments of [`Eval`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalArgs {
    /// The expression: `15% of 240`, `3 feet to metres`, `sqrt(2)`.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
}

/// Result of [`Eval`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvalOut {
    /// What was evaluated.
    pub expression: String,
    /// Its value.
    pub value: String,
    /// False where the value is rounded.
    pub exact: bool,
}

impl Tool for Eval {
    const NAME: &'static str = "calc.eval";
    const ACTION: &'static str = "tool.compute";
    const CLASS: Class = Class::Compute;
    const ABOUT: &'static str = "Evaluates an arithmetic expression exactly, with units, percentages and conversions.";
    const SLOTS: &'static [Slot] = &[Slot {
        arg: "expression",
        kind: SlotKind::Expression,
        required: true,
        ask: "which expression shall be calculated? for example: 15% of 240, or 3 feet to metres",
    }];
    type Args = EvalArgs;
    type Out = EvalOut;

    async fn call(cx: ToolCx, args: EvalArgs) -> Result<EvalOut, ToolError> {
        let stop = Arc::new(Stop::default());
        // Dropped with this future, so an abandoned turn does not leave a thread computing.
        let guard = StopOnDrop(stop.clone());
        let work = cx.village.blocking("calc.eval", move || evaluate(&args.expression, stop.as_ref()));
        let done = tokio::time::timeout(TIME_LIMIT, work).await;
        drop(guard);
        match done {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(ToolError::failed("calc_crashed", &panic)),
            Err(_) => Err(ToolError::Timeout),
        }
    }

    fn observe(out: EvalOut) -> Observation {
        let sign = if out.exact { "=" } else { "≈" };
        let value = out.value.strip_prefix("approx. ").unwrap_or(&out.value);
        Observation { text: format!("{} {sign} {value}", out.expression), ..Observation::default() }
    }
}

#[derive(Debug, Default)]
struct Stop(AtomicBool);

impl Interrupt for Stop {
    fn should_interrupt(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Ends an evaluation after a number of looks, so that planning costs the same on every machine.
struct Ticks(AtomicU32);

impl Interrupt for Ticks {
    fn should_interrupt(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 2_000
    }
}

/// Whether `expression` is something fend can evaluate to more than itself, or would take long to.
#[must_use]
pub fn is_expression(expression: &str) -> bool {
    if expression.len() > MAX_EXPRESSION_BYTES {
        return false;
    }
    let ticks = Ticks(AtomicU32::new(0));
    match evaluate(expression, &ticks) {
        Ok(out) => out.value != expression,
        Err(_) => ticks.should_interrupt(),
    }
}

/// Units of their own: sums stay in their currency, and a conversion, for which there are no rates, is an error.
const CURRENCIES: [(&str, &str); 8] = [
    ("EUR", "EUR"),
    ("euro", "euros"),
    ("USD", "USD"),
    ("dollar", "dollars"),
    ("GBP", "GBP"),
    ("CHF", "CHF"),
    ("JPY", "JPY"),
    ("CNY", "CNY"),
];

fn evaluate(expression: &str, interrupt: &impl Interrupt) -> Result<EvalOut, ToolError> {
    if expression.len() > MAX_EXPRESSION_BYTES {
        let detail = format!("longer than {MAX_EXPRESSION_BYTES} bytes");
        return Err(ToolError::BadArgs { pointer: "/expression".to_owned(), detail });
    }
    let mut context = Context::new();
    // A calculation gives the same result each time; dice do not.
    context.disable_rng();
    for (one, many) in CURRENCIES {
        context.define_custom_unit_v1(one, many, "!", &CustomUnitAttribute::None);
    }
    let result = fend_core::evaluate_with_interrupt(expression, &mut context, interrupt)
        .map_err(|error| ToolError::failed("calc_failed", &format!("cannot evaluate `{expression}`: {error}")))?;
    let value = result.get_main_result();
    if value.is_empty() || value.chars().count() > MAX_RESULT_CHARS {
        return Err(ToolError::failed(
            "calc_failed",
            &format!("`{expression}` has no value of at most {MAX_RESULT_CHARS} characters"),
        ));
    }
    Ok(EvalOut { expression: expression.to_owned(), value: value.to_owned(), exact: !value.starts_with("approx. ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(expression: &str) -> String {
        evaluate(expression, &Stop::default()).unwrap().value
    }

    #[test]
    fn arithmetic_units_and_percentages() {
        assert_eq!(value("15% of 240"), "36");
        assert_eq!(value("3 feet to metres"), "0.9144 metres");
        assert_eq!(value("(3 + 4) * 5"), "35");
        assert_eq!(value("17% of 3200 EUR"), "544 EUR");
        assert_eq!(value("3 euros + 4 euros"), "7 euros");
        assert!(evaluate("5 EUR to USD", &Stop::default()).is_err());
        assert_eq!(value("1/3 + 1/4"), "approx. 0.5833333333");
    }

    #[test]
    fn prose_is_no_expression() {
        assert!(is_expression("2 + 2") && is_expression("5 miles to km"));
        assert!(!is_expression("the three body problem") && !is_expression("hello") && !is_expression("7"));
    }

    #[test]
    fn endless_work_is_interrupted() {
        let ticks = Ticks(AtomicU32::new(0));
        assert!(evaluate("10^10^10", &ticks).is_err());
        assert!(evaluate(&"9".repeat(MAX_EXPRESSION_BYTES + 1), &Stop::default()).is_err());
    }
}
