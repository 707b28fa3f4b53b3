//! Coarser forms that say less: HIPAA's Safe Harbor, 45 CFR 164.514 (b)(2)(i)(B) and (C).

use chrono::Datelike;

use super::DataKind;
use super::calendar::Written;

/// First three digits of ZIP codes where at most 20,000 people live. Office for Civil Rights, "Guidance Regarding Methods for
/// De-identification of Protected Health Information", 2012, by the census of 2000.
const SPARSE: [&str; 17] = [
    "036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890",
    "893",
];
/// Ages from here on are one.
const OLD: i32 = 90;

/// What may stay of a value; none if nothing may.
pub(super) fn coarse(kind: DataKind, value: &str, this_year: i32) -> Option<String> {
    match kind {
        // A year that makes its person 90 is no less telling than the age.
        DataKind::Date => year(value).filter(|year| this_year.saturating_sub(*year) < OLD).map(|year| year.to_string()),
        DataKind::Age => Some(format!("{OLD}+")),
        DataKind::Zip => {
            let area = value.get(..3)?;
            Some(if SPARSE.contains(&area) { "000" } else { area }.to_owned())
        }
        _ => None,
    }
}

/// The year of a date, which may be all but its day.
fn year(value: &str) -> Option<i32> {
    let whole = Written::read(value).map(|written| written.date.year());
    let digits = |text: &&str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let alone = || value.split(|symbol: char| !symbol.is_ascii_digit()).find(digits).and_then(|year| year.parse().ok());
    whole.or_else(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_stay_until_they_tell_an_age_above_89() {
        let date = |value: &str| coarse(DataKind::Date, value, 2026);
        for value in ["2024-03-01", "March 1st, 2024", "1. M\u{e4}rz 24", "March 2024"] {
            assert_eq!(date(value).as_deref(), Some("2024"), "{value}");
        }
        assert_eq!(date("3 May 1937").as_deref(), Some("1937"));
        assert_eq!([date("3 May 1936"), date("March 5")], [None, None]);
    }

    #[test]
    fn sparse_areas_become_none() {
        let zip = |value: &str| coarse(DataKind::Zip, value, 2026);
        assert_eq!(zip("94110-1234").as_deref(), Some("941"));
        for area in SPARSE {
            assert_eq!(zip(&format!("{area}01")).as_deref(), Some("000"));
        }
        assert_eq!(coarse(DataKind::Name, "Ann", 2026), None);
    }
}
