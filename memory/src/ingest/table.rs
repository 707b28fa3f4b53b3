//! Tables: one document per row, `column: value` in each line.

use serde_json::{Map, Value};

use super::record::{Records, record};
use crate::document::Document;
use crate::error::MemoryError;

/// Makes a document of every row below the header line.
///
/// # Errors
/// `BadSyntax` naming the line, `TooMany` beyond `max` rows.
pub(super) fn parse(name: &str, text: &str, separator: u8, max: usize) -> Result<Vec<Document>, MemoryError> {
    let bad =
        |error: &csv::Error| MemoryError::BadSyntax { name: name.to_owned(), format: "CSV", reason: error.to_string() };
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).flexible(true).from_reader(text.as_bytes());
    let columns = reader.headers().map_err(|error| bad(&error))?.clone();
    let mut records = Records::new(name, max);
    for row in reader.records() {
        let row = row.map_err(|error| bad(&error))?;
        let mut fields = Map::new();
        for (n, value) in row.iter().enumerate() {
            let column = columns.get(n).filter(|column| !column.trim().is_empty());
            let column = column.map_or_else(|| format!("column {}", n + 1), |column| column.trim().to_owned());
            if !value.trim().is_empty() {
                fields.insert(column, Value::String(value.trim().to_owned()));
            }
        }
        if !fields.is_empty() {
            records.push(|number| record(name, number, &fields))?;
        }
    }
    Ok(records.into_documents())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_documents() {
        let text = "id,name,note\n7,Ada,\"likes, commas\"\n8,Bob,\n";
        let documents = parse("people.csv", text, b',', 10).expect("valid");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].id.as_deref(), Some("people.csv#7"));
        assert_eq!(documents[0].title.as_deref(), Some("Ada"));
        assert_eq!(documents[0].text, "id: 7\nname: Ada\nnote: likes, commas");
        assert_eq!(documents[1].text, "id: 8\nname: Bob");
    }

    #[test]
    fn ragged_rows_and_missing_headers_are_read() {
        let documents = parse("x.tsv", "a\t\n1\t2\t3\n", b'\t', 10).expect("valid");
        assert_eq!(documents[0].text, "a: 1\ncolumn 2: 2\ncolumn 3: 3");
    }

    #[test]
    fn too_many_rows_are_refused() {
        assert_eq!(parse("x.csv", "a\n1\n2\n3\n", b',', 2).expect_err("limit").code(), "payload_too_large");
    }
}
