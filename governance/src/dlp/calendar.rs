//! Dates as people write them: read, moved by days, written again in the same form.

use std::ops::Range;

use chrono::{Datelike, Days, NaiveDate};

/// Month names by their first three letters, English; then those of German, French, Spanish, Italian, Dutch that differ.
const MONTHS: [(&str, u32); 27] = [
    ("jan", 1),
    ("feb", 2),
    ("mar", 3),
    ("apr", 4),
    ("may", 5),
    ("jun", 6),
    ("jul", 7),
    ("aug", 8),
    ("sep", 9),
    ("oct", 10),
    ("nov", 11),
    ("dec", 12),
    ("mär", 3),
    ("mai", 5),
    ("okt", 10),
    ("dez", 12),
    ("fév", 2),
    ("avr", 4),
    ("aoû", 8),
    ("déc", 12),
    ("ene", 1),
    ("abr", 4),
    ("ago", 8),
    ("dic", 12),
    ("gen", 1),
    ("mag", 5),
    ("mei", 5),
];
const MONTH_NAMES: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// One part of a written date.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Number(Range<usize>, u32),
    Month(Range<usize>, u32),
}

impl Part {
    fn range(&self) -> Range<usize> {
        let (Part::Number(range, _) | Part::Month(range, _)) = self;
        range.clone()
    }
}

/// A date and where its parts stand in the text it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) date: NaiveDate,
    year: Range<usize>,
    month: Range<usize>,
    day: Range<usize>,
}

impl Written {
    /// Reads a date: year first with four digits; a month by name; else day and month, in the order that is possible,
    /// month first for slashes and day first for dots and dashes. None if no such day exists.
    pub(super) fn read(text: &str) -> Option<Self> {
        let parts = parts(text);
        let [first, second, third, ..] = &parts[..] else { return None };
        let slashed = text.get(first.range().end..)?.starts_with('/');
        let [year, month, day] = match (first, second, third) {
            (Part::Month(..), Part::Number(..), Part::Number(..)) => [third, first, second],
            (Part::Number(..), Part::Month(..), Part::Number(..)) => [third, second, first],
            (Part::Number(range, _), ..) if range.len() == 4 => [first, second, third],
            (Part::Number(_, a), Part::Number(_, b), Part::Number(..)) if (slashed || *b > 12) && *a <= 12 => {
                [third, first, second]
            }
            _ => [third, second, first],
        };
        let (Part::Number(year_at, year), Part::Number(day_at, day)) = (year, day) else { return None };
        let (Part::Number(month_at, number) | Part::Month(month_at, number)) = month;
        let date = NaiveDate::from_ymd_opt(full_year(*year, year_at.len())?, *number, *day)?;
        Some(Written { date, year: year_at.clone(), month: month_at.clone(), day: day_at.clone() })
    }

    /// The text this was read from with another date in it. A month by name becomes English.
    pub(super) fn rewrite(&self, text: &str, date: NaiveDate) -> String {
        let mut places = [
            (&self.year, number_like(text, &self.year, date.year().unsigned_abs())),
            (&self.month, month_like(text, &self.month, date.month())),
            (&self.day, number_like(text, &self.day, date.day())),
        ];
        places.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
        let mut out = text.to_owned();
        for (range, part) in places {
            out.replace_range(range.clone(), &part);
        }
        out
    }
}

/// The date `days` later, or earlier if negative; none beyond the calendar's end.
pub(super) fn moved(date: NaiveDate, days: i32) -> Option<NaiveDate> {
    let by = Days::new(u64::from(days.unsigned_abs()));
    if days < 0 { date.checked_sub_days(by) } else { date.checked_add_days(by) }
}

/// Two digits mean 1930 to 2029.
fn full_year(year: u32, digits: usize) -> Option<i32> {
    let year = i32::try_from(year).ok()?;
    match digits {
        4 => Some(year).filter(|year| (1800..2200).contains(year)),
        2 if year < 30 => Some(year + 2000),
        2 => Some(year + 1900),
        _ => None,
    }
}

fn number_like(text: &str, range: &Range<usize>, number: u32) -> String {
    let number = if range.len() == 2 { number % 100 } else { number };
    // "5" may become "12" and "05" stays two digits.
    if text.get(range.clone()).is_some_and(|old| old.len() == 1) {
        number.to_string()
    } else {
        format!("{number:0width$}", width = range.len())
    }
}

fn month_like(text: &str, range: &Range<usize>, month: u32) -> String {
    let old = text.get(range.clone()).unwrap_or_default();
    if old.starts_with(|first: char| first.is_ascii_digit()) {
        return number_like(text, range, month);
    }
    let name = MONTH_NAMES.get(month as usize - 1).copied().unwrap_or_default();
    if old.chars().count() > 3 { name.to_owned() } else { name.chars().take(3).collect() }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let run = |test: fn(char) -> bool| {
            let rest = text.get(at..).unwrap_or_default();
            at + rest.find(|symbol| !test(symbol)).unwrap_or(rest.len())
        };
        let end = match first {
            '0'..='9' => run(|symbol| symbol.is_ascii_digit()),
            _ if first.is_alphabetic() => run(char::is_alphabetic),
            _ => at + first.len_utf8(),
        };
        let piece = text.get(at..end).unwrap_or_default();
        if first.is_ascii_digit() {
            parts.extend(piece.parse().ok().filter(|_| piece.len() <= 4).map(|number| Part::Number(at..end, number)));
        } else if let Some(month) = month(piece) {
            parts.push(Part::Month(at..end, month));
        }
        at = end;
    }
    parts
}

fn month(word: &str) -> Option<u32> {
    let start: String = word.chars().take(3).flat_map(char::to_lowercase).collect();
    MONTHS.iter().find(|(name, _)| *name == start).map(|(_, month)| *month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(i32, u32, u32)> {
        Written::read(text).map(|written| (written.date.year(), written.date.month(), written.date.day()))
    }

    #[test]
    fn forms_of_one_day_are_read_alike() {
        for text in [
            "2024-03-09",
            "03/09/2024",
            "9.3.2024",
            "March 9, 2024",
            "9th of March 2024",
            "9 Mar 24",
            "9. März 2024",
            "2024-03-09T10:11:12Z",
        ] {
            assert_eq!(read(text), Some((2024, 3, 9)), "{text}");
        }
        assert_eq!(read("25/12/1999"), Some((1999, 12, 25)), "the only possible order");
        assert_eq!(read("12-25-1999"), Some((1999, 12, 25)));
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in ["2023-02-29", "31/11/2020", "13/13/2020", "2020-00-10", "1700-01-01", "March 2024", "", "1/2/345"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_moved_date_keeps_its_form() {
        let shift = |text: &str, days| {
            let written = Written::read(text).unwrap();
            written.rewrite(text, moved(written.date, days).unwrap())
        };
        assert_eq!(shift("2024-02-28T10:00:00Z", 2), "2024-03-01T10:00:00Z");
        assert_eq!(shift("3/9/2024", 300), "1/3/2025");
        assert_eq!(shift("09.03.24", -70), "30.12.23");
        assert_eq!(shift("March 9, 2024", 30), "April 8, 2024");
        assert_eq!(shift("9 Mar 2024", 30), "8 Apr 2024");
        assert_eq!(moved(NaiveDate::MAX, 1), None);
    }
}
