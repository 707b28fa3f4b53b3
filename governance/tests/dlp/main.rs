//! How much of generated text is found, and how much of what is found is right.

mod generate;
mod score;

use std::ops::Range;

use aivillage_governance::dlp::{DataKind, scan};
use generate::{Row, Sentences};

/// The bar of the patterned kinds, for each of them and for all.
const BAR: f64 = 0.97;

fn found(text: &str) -> Vec<(DataKind, Range<usize>)> {
    scan(text).into_iter().map(|finding| (finding.kind, finding.span)).collect()
}

#[test]
fn patterned_kinds_reach_the_bar() {
    reaches_the_bar(&generate::rows(1, 150, Sentences::Known));
    reaches_the_bar(&generate::rows(3, 150, Sentences::HeldOut));
}

fn reaches_the_bar(rows: &[Row]) {
    let scores = score::score(rows, found);
    let low: Vec<_> = scores.iter().filter(|(_, score)| score.recall() < BAR || score.precision() < BAR).collect();
    let examples = rows.iter().filter(|row| found(&row.text) != row.truth).take(40);
    let examples: String =
        examples.map(|row| format!("{}\n  {:?} {:?}\n", row.text, row.truth, found(&row.text))).collect();
    assert!(low.is_empty(), "{low:?}\n{examples}");
    let total = score::total(&scores);
    assert!(total.recall() >= BAR && total.precision() >= BAR, "{total:?}");
}

#[test]
fn prose_has_next_to_no_findings() {
    let text = generate::prose(2, 200_000);
    let findings = found(&text);
    let told: Vec<_> = findings.iter().take(20).map(|(kind, span)| (kind, &text[span.clone()])).collect();
    // One in 20 kB: what is left are numbers that pass a check by chance.
    assert!(findings.len() <= 10, "{} {told:?}", findings.len());
}
