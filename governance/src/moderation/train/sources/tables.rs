//! Tables of labelled text in CSV.

use std::path::Path;

use crate::moderation::taxonomy::Category;
use crate::moderation::train::TrainError;
use crate::moderation::train::corpus::{Row, Truth};

use super::{read, row};

/// A record by column name.
pub(super) struct Record<'a> {
    header: &'a csv::StringRecord,
    fields: csv::StringRecord,
}

impl Record<'_> {
    pub(super) fn get(&self, column: &str) -> Option<&str> {
        let at = self.header.iter().position(|name| name == column)?;
        self.fields.get(at)
    }
}

/// Calls `each` with every record; comment lines (`#`) before the header are skipped.
pub(super) fn records(path: &Path, mut each: impl FnMut(&Record<'_>)) -> Result<(), TrainError> {
    let text = read(path)?;
    let fail = |e: csv::Error| TrainError::Source { path: path.to_owned(), why: e.to_string() };
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().map_err(fail)?.clone();
    for fields in reader.records() {
        each(&Record { header: &header, fields: fields.map_err(fail)? });
    }
    Ok(())
}

/// Rows of a table with a label for each text: `text,label`, the label a category's code or `benign`; or `class,tweet`
/// with class 0 for hate, 1 for offensive, 2 for neither.
pub(super) fn labelled(path: &Path) -> Result<Vec<Row>, TrainError> {
    let mut rows = Vec::new();
    let mut wrong = None;
    records(path, |record| {
        let own = record.get("text").zip(record.get("label"));
        let Some((text, label)) = own.or_else(|| record.get("tweet").zip(record.get("class"))) else {
            return wrong = wrong.take().or(Some("needs the columns text,label or class,tweet".to_owned()));
        };
        match truth(label) {
            Some(truth) => rows.push(row(text, truth, 0.5)),
            None => wrong = wrong.take().or(Some(format!("\"{label}\" is neither a category nor benign"))),
        }
    })?;
    match wrong {
        Some(why) => Err(TrainError::Source { path: path.to_owned(), why }),
        None => Ok(rows),
    }
}

fn truth(label: &str) -> Option<Truth> {
    const VAGUE: [Category; 4] = [Category::Harassment, Category::AdultSexual, Category::ViolentThreat, Category::Gore];
    match label {
        "benign" => Some(Truth::BENIGN),
        "0" => Some(Truth::only(&[Category::Hate]).except(&VAGUE)),
        // Offensive is slang as often as attack.
        "1" => Some(Truth::BENIGN.except(&VAGUE).except(&[Category::Hate])),
        "2" => Some(Truth::BENIGN.except(&[Category::PoliticalOpinion, Category::ReligiousView])),
        code => Category::from_code(code).map(|category| Truth::only(&[category])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(csv: &str) -> Result<Vec<Option<bool>>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), csv).unwrap();
        let rows = labelled(file.path()).map_err(|e| e.to_string())?;
        Ok(rows.iter().map(|row| row.truth.head(Category::Hate.index())).collect())
    }

    #[test]
    fn both_forms_of_tables_are_read() {
        assert_eq!(labels("text,label\na,hate\nb,benign\n").unwrap(), [Some(true), Some(false)]);
        assert_eq!(labels(",class,tweet\n0,0,a\n1,1,b\n2,2,c\n").unwrap(), [Some(true), None, Some(false)]);
    }

    #[test]
    fn unknown_labels_and_columns_are_told() {
        assert!(labels("text,label\na,tea\n").unwrap_err().contains("\"tea\" is neither"));
        assert!(labels("a,b\n1,2\n").unwrap_err().contains("needs the columns"));
        assert!(labelled(Path::new("/no/such.csv")).unwrap_err().to_string().starts_with("/no/such.csv"));
    }
}
