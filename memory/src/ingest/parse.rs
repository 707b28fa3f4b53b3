//! From bytes to documents. Pure and synchronous; the ingest actor adds threads, time limits and panic walls.

use super::detect::{FileType, decode, detect};
use super::{html, json, pdf, table};
use crate::document::{Document, Format, RawDocument};
use crate::error::MemoryError;
use crate::normalize::one_line;

/// What one file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Documents made of it.
    pub records: usize,
}

/// Makes documents of a file. Ids come from its name, so that adding it again updates them.
///
/// # Errors
/// Any [`MemoryError`] about content; the message says what to do.
pub fn parse(raw: &RawDocument, limits: ParseLimits) -> Result<Vec<Document>, MemoryError> {
    let name = raw.name.as_str();
    check_size(name, raw.bytes.len() as u64, limits.bytes)?;
    let file_type = detect(name, raw.mime.as_deref(), &raw.bytes)?;
    let mut documents = match file_type {
        FileType::Pdf => vec![pdf::parse(name, &raw.bytes)?],
        text_type => {
            let text = decode(name, raw.mime.as_deref(), &raw.bytes)?;
            parse_text(name, text_type, text, limits.records)?
        }
    };
    for document in &mut documents {
        document.id.get_or_insert_with(|| name.to_owned());
        document.title.get_or_insert_with(|| base_name(name));
        document.source.get_or_insert_with(|| raw.source.clone().unwrap_or_else(|| name.to_owned()));
    }
    if documents.iter().all(|document| document.text.trim().is_empty()) {
        return Err(MemoryError::Empty { name: name.to_owned() });
    }
    Ok(documents)
}

/// Refuses what is over the limit.
pub(crate) fn check_size(name: &str, size: u64, max: u64) -> Result<(), MemoryError> {
    if size > max {
        return Err(MemoryError::TooLarge { what: format!("`{name}`"), size, max, key: "memory.limits.document" });
    }
    Ok(())
}

fn parse_text(name: &str, file_type: FileType, text: String, records: usize) -> Result<Vec<Document>, MemoryError> {
    Ok(match file_type {
        FileType::Text | FileType::Pdf => vec![Document { text, ..Document::default() }],
        FileType::Markdown => {
            vec![Document { title: first_heading(&text), text, format: Format::Markdown, ..Document::default() }]
        }
        FileType::Html => vec![html::parse(name, &text)],
        FileType::Table(separator) => table::parse(name, &text, separator, records)?,
        FileType::Json => json::parse(name, &text, records)?,
        FileType::JsonLines => json::parse_lines(name, &text, records)?,
    })
}

/// The first top-level heading, which is what people call the document.
fn first_heading(text: &str) -> Option<String> {
    let title = text.lines().find_map(|line| line.strip_prefix("# "))?;
    Some(one_line(title, 300)).filter(|title| !title.is_empty())
}

fn base_name(name: &str) -> String {
    name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ParseLimits = ParseLimits { bytes: 1 << 20, records: 100 };

    fn raw(name: &str, bytes: &[u8]) -> RawDocument {
        RawDocument { name: name.to_owned(), bytes: bytes.to_vec(), ..RawDocument::default() }
    }

    #[test]
    fn markdown_takes_its_title_from_the_heading() {
        let documents = parse(&raw("notes/well.md", b"# The well\n\ntext"), LIMITS).expect("readable");
        assert_eq!(documents[0].title.as_deref(), Some("The well"));
        assert_eq!(documents[0].id.as_deref(), Some("notes/well.md"));
        assert_eq!(documents[0].source.as_deref(), Some("notes/well.md"));
    }

    #[test]
    fn empty_and_huge_files_are_refused() {
        assert_eq!(parse(&raw("x.txt", b" \n "), LIMITS).expect_err("empty").code(), "memory_empty");
        let huge = parse(&raw("x.txt", &vec![b'a'; (1 << 20) + 1]), LIMITS).expect_err("huge");
        assert_eq!(huge.code(), "payload_too_large");
        assert!(huge.to_string().contains("memory.limits.document"), "{huge}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_give_documents_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            extension in prop::sample::select(vec!["txt", "md", "html", "csv", "json", "jsonl", "bin", ""]),
        ) {
            drop(parse(&raw(&format!("f.{extension}"), &bytes), LIMITS));
        }

        #[test]
        fn any_markup_gives_documents_or_an_error(
            text in "(<[a-z]{1,4}>|</[a-z]{1,4}>|[a-z ]{1,8}|\\[|\\{|\"|,|:|\n|# ){0,60}",
            extension in prop::sample::select(vec!["md", "html", "csv", "json", "jsonl", ""]),
        ) {
            drop(parse(&raw(&format!("f.{extension}"), text.as_bytes()), LIMITS));
        }
    }
}
