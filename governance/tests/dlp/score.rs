//! Recall and precision by kind, over generated rows.

use std::collections::BTreeMap;
use std::ops::Range;

use aivillage_governance::dlp::DataKind;

use super::generate::Row;

/// Counts of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Score {
    pub(crate) found: u32,
    pub(crate) missed: u32,
    pub(crate) wrong: u32,
}

impl Score {
    pub(crate) fn recall(self) -> f64 {
        f64::from(self.found) / f64::from((self.found + self.missed).max(1))
    }

    pub(crate) fn precision(self) -> f64 {
        f64::from(self.found) / f64::from((self.found + self.wrong).max(1))
    }

    fn add(&mut self, other: Score) {
        self.found += other.found;
        self.missed += other.missed;
        self.wrong += other.wrong;
    }
}

/// A finding counts if its kind and both ends are right.
pub(crate) fn score(rows: &[Row], scan: impl Fn(&str) -> Vec<(DataKind, Range<usize>)>) -> BTreeMap<DataKind, Score> {
    let mut scores: BTreeMap<DataKind, Score> = BTreeMap::new();
    for row in rows {
        let found = scan(&row.text);
        for truth in &row.truth {
            let is_found = found.contains(truth);
            let score = Score { found: u32::from(is_found), missed: u32::from(!is_found), wrong: 0 };
            scores.entry(truth.0).or_default().add(score);
        }
        for finding in found.iter().filter(|finding| !row.truth.contains(finding)) {
            scores.entry(finding.0).or_default().wrong += 1;
        }
    }
    scores
}

/// All kinds together.
pub(crate) fn total(scores: &BTreeMap<DataKind, Score>) -> Score {
    let mut total = Score::default();
    for score in scores.values() {
        total.add(*score);
    }
    total
}
