//! Counts for the public: how often which rule was applied, appealed and overturned in a quarter.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::case::{Case, Phase, Tier};
use crate::moderation::{Action, Category, Level};

/// Fewer than so many could tell something about one person: the cell is left out.
const LEAST: u64 = 5;
/// Minutes of a decision are counted in buckets of powers of two; the last is 22 days and more.
const BUCKETS: u32 = 15;

/// Three months, such as `2026-Q4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quarter {
    year: u16,
    quarter: u8,
}

/// A text is no quarter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quarter; one looks like 2026-Q4")]
pub struct NoQuarter(String);

impl Quarter {
    /// The quarter of a time, Unix milliseconds.
    #[must_use]
    pub fn at(ms: u64) -> Self {
        let at = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        let quarter = u8::try_from(at.month0() / 3 + 1).unwrap_or(1);
        Self { year: u16::try_from(at.year()).unwrap_or_default(), quarter }
    }
}

impl fmt::Display for Quarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-Q{}", self.year, self.quarter)
    }
}

impl FromStr for Quarter {
    type Err = NoQuarter;

    fn from_str(text: &str) -> Result<Self, NoQuarter> {
        let parts = text.split_once("-Q").and_then(|(year, quarter)| Some((year.parse().ok()?, quarter.parse().ok()?)));
        let read = parts.map(|(year, quarter)| Self { year, quarter });
        let exact = read.filter(|read| (1..=4).contains(&read.quarter) && read.to_string() == text);
        exact.ok_or_else(|| NoQuarter(text.chars().take(32).collect()))
    }
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// What was found.
    pub category: Category,
    /// What became of the content.
    pub action: Action,
    /// The tenant's tier.
    pub tier: Tier,
}

/// How often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Cases opened.
    pub opened: u64,
    /// The same again, while a case was open.
    pub repeated: u64,
    /// Appeals.
    pub appealed: u64,
    /// Verdicts that were wrong.
    pub overturned: u64,
    /// Consequences that were too hard.
    pub reduced: u64,
    /// Verdicts that stayed after an appeal.
    pub upheld: u64,
    /// Appeals that ended because a deadline passed.
    pub timed_out: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.repeated += other.repeated;
        self.appealed += other.appealed;
        self.overturned += other.overturned;
        self.reduced += other.reduced;
        self.upheld += other.upheld;
        self.timed_out += other.timed_out;
    }
}

/// The counts of a quarter in one shard, or in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    cells: BTreeMap<Cell, Counts>,
    /// Decided appeals by the power of two of their minutes.
    minutes: BTreeMap<u32, u64>,
}

impl Tally {
    /// Counts of a case's cell.
    pub(super) fn of(&mut self, case: &Case) -> &mut Counts {
        let cell = Cell { category: case.judged.category, action: case.judged.action, tier: case.tier };
        self.cells.entry(cell).or_default()
    }

    pub(super) fn ended(&mut self, case: &Case, phase: Phase, is_timed_out: bool, at_ms: u64) {
        let Some(appeal) = &case.appeal else { return };
        let minutes = at_ms.saturating_sub(appeal.at_ms) / 60_000;
        *self.minutes.entry((minutes + 1).ilog2().min(BUCKETS)).or_default() += 1;
        let counts = self.of(case);
        counts.timed_out += u64::from(is_timed_out);
        match phase {
            Phase::Overturned => counts.overturned += 1,
            Phase::Reduced => counts.reduced += 1,
            _ => counts.upheld += 1,
        }
    }

    /// Adds what another shard has counted.
    pub fn add(&mut self, other: &Self) {
        for (cell, counts) in &other.cells {
            self.cells.entry(*cell).or_default().add(counts);
        }
        for (bucket, many) in &other.minutes {
            *self.minutes.entry(*bucket).or_default() += many;
        }
    }

    /// Within how many minutes half of the appeals were decided, rounded up to a power of two.
    fn median_minutes(&self) -> Option<u64> {
        let all: u64 = self.minutes.values().sum();
        if all < LEAST {
            return None;
        }
        let mut seen = 0;
        let half = self.minutes.iter().find(|(_, many)| {
            seen += **many;
            seen * 2 >= all
        });
        half.map(|(bucket, _)| 1_u64 << (bucket + 1))
    }

    /// The report that may be published.
    #[must_use]
    pub fn report(&self, period: Quarter, model: &str) -> Report {
        let rows = self.cells.iter().map(|(cell, counts)| Row {
            level: cell.category.level(),
            category: cell.category,
            action: cell.action,
            tier: cell.tier,
            counts: Shown::of(counts),
        });
        let total = self.cells.values().fold(Counts::default(), |mut sum, counts| {
            sum.add(counts);
            sum
        });
        let all: Vec<&Counts> = self.cells.values().collect();
        Report {
            period: period.to_string(),
            rows: rows.collect(),
            total: Shown::total(&total, &all),
            median_minutes: self.median_minutes(),
            model: model.to_owned(),
        }
    }
}

/// Counts as they are published: none for 1 to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// Cases opened.
    pub opened: Option<u64>,
    /// The same again, while a case was open.
    pub repeated: Option<u64>,
    /// Appeals.
    pub appealed: Option<u64>,
    /// Verdicts that were wrong.
    pub overturned: Option<u64>,
    /// Consequences that were too hard.
    pub reduced: Option<u64>,
    /// Verdicts that stayed after an appeal.
    pub upheld: Option<u64>,
    /// Appeals that ended because a deadline passed.
    pub timed_out: Option<u64>,
}

/// A column of the counts.
type Column = fn(&Counts) -> u64;

impl Shown {
    const COLUMNS: [Column; 7] = [
        |counts| counts.opened,
        |counts| counts.repeated,
        |counts| counts.appealed,
        |counts| counts.overturned,
        |counts| counts.reduced,
        |counts| counts.upheld,
        |counts| counts.timed_out,
    ];

    fn from(columns: [Option<u64>; 7]) -> Self {
        let [opened, repeated, appealed, overturned, reduced, upheld, timed_out] = columns;
        Self { opened, repeated, appealed, overturned, reduced, upheld, timed_out }
    }

    fn of(counts: &Counts) -> Self {
        Self::from(Self::COLUMNS.map(|column| shown(column(counts))))
    }

    /// A sum is left out also where it would give away the one cell of its column that is.
    fn total(sum: &Counts, cells: &[&Counts]) -> Self {
        Self::from(Self::COLUMNS.map(|column| {
            let hidden = cells.iter().filter(|cell| shown(column(cell)).is_none()).count();
            shown(column(sum)).filter(|_| hidden != 1)
        }))
    }
}

fn shown(count: u64) -> Option<u64> {
    (count == 0 || count >= LEAST).then_some(count)
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// How grave.
    pub level: Level,
    /// What was found.
    pub category: Category,
    /// What became of the content.
    pub action: Action,
    /// The tenant's tier.
    pub tier: Tier,
    /// How often; a missing number is 1 to 4.
    #[serde(flatten)]
    pub counts: Shown,
}

/// What is published of a quarter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Which, such as `2026-Q4`.
    pub period: String,
    /// By category, action and tier.
    pub rows: Vec<Row>,
    /// All together; a missing number is 1 to 4, or would give away one that is.
    pub total: Shown,
    /// Within how many minutes half of the appeals were decided, rounded up to a power of two; none for fewer than five.
    pub median_minutes: Option<u64>,
    /// The model in use.
    pub model: String,
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quarters_are_read_as_they_are_written() {
        let quarter = Quarter::at(1_700_000_000_000);
        assert_eq!(quarter.to_string(), "2023-Q4");
        assert_eq!("2023-Q4".parse(), Ok(quarter));
        for wrong in ["2023-Q5", "2023-Q0", "23-Q1", "2023", "2023-Q04", "Q1-2023", ""] {
            assert_eq!(wrong.parse::<Quarter>(), Err(NoQuarter(wrong.to_owned())));
        }
    }

    fn tally(cells: &[(Category, u64)]) -> Tally {
        let cell = |category| Cell { category, action: Action::Block, tier: Tier::Bronze };
        let cells =
            cells.iter().map(|(category, opened)| (cell(*category), Counts { opened: *opened, ..Counts::default() }));
        Tally { cells: cells.collect(), minutes: BTreeMap::new() }
    }

    #[test]
    fn small_cells_are_left_out_and_so_is_a_sum_that_would_tell_one() {
        let report = |cells: &[_]| tally(cells).report(Quarter::at(0), "m");
        let one = report(&[(Category::Spam, 4), (Category::Gore, 7), (Category::Hate, 0)]);
        let opened: Vec<_> = one.rows.iter().map(|row| row.counts.opened).collect();
        assert_eq!((opened, one.total.opened), (vec![Some(7), Some(0), None], None));
        let two = report(&[(Category::Spam, 4), (Category::Gore, 7), (Category::Hate, 1)]);
        assert_eq!(two.total.opened, Some(12));
        assert_eq!(two.total.appealed, Some(0));
    }

    #[test]
    fn the_median_is_that_of_the_bucket_and_needs_five() {
        let mut tally = Tally { minutes: [(0, 1), (3, 3)].into(), ..Tally::default() };
        assert_eq!(tally.median_minutes(), None);
        tally.minutes.insert(9, 1);
        assert_eq!(tally.median_minutes(), Some(16));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_small_number_is_published(counts in prop::collection::vec(0_u64..12, 0..8)) {
            let cells: Vec<_> = Category::ALL.into_iter().zip(counts.iter().copied()).collect();
            let report = tally(&cells).report(Quarter::at(0), "m");
            let all = report.rows.iter().map(|row| row.counts.opened).chain([report.total.opened]);
            prop_assert!(all.flatten().all(|count| count == 0 || count >= LEAST));
            // Nor can one be had by subtraction.
            let hidden: Vec<_> = report.rows.iter().filter(|row| row.counts.opened.is_none()).collect();
            prop_assert!(hidden.len() != 1 || report.total.opened.is_none());
        }
    }
}
