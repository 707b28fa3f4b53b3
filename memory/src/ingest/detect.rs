//! What a file is: by its first bytes, then by its name, then by what its text looks like.

use crate::error::MemoryError;

/// A type that has a parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// Plain text, source code, logs.
    Text,
    /// Markdown.
    Markdown,
    /// A web page.
    Html,
    /// A PDF.
    Pdf,
    /// A table with a header line; the byte separates columns.
    Table(u8),
    /// One JSON value.
    Json,
    /// One JSON value per line.
    JsonLines,
}

/// Recognises a file, or says why it cannot be read.
///
/// # Errors
/// `Unsupported` for archives, images, programs and other bytes that are no document.
pub fn detect(name: &str, mime: Option<&str>, bytes: &[u8]) -> Result<FileType, MemoryError> {
    if let Some(refusal) = refused_by_magic(name, bytes) {
        return Err(refusal);
    }
    if is_pdf(bytes) {
        return Ok(FileType::Pdf);
    }
    Ok(by_extension(name).or_else(|| mime.and_then(by_mime)).unwrap_or_else(|| by_content(bytes)))
}

/// `%PDF-` may stand after up to 1024 bytes of something else (ISO 32000-1, implementation note 13).
fn is_pdf(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(1024)];
    bytes.starts_with(b"%PDF-") || (head.contains(&0) && head.windows(5).any(|window| window == b"%PDF-"))
}

fn refused_by_magic(name: &str, bytes: &[u8]) -> Option<MemoryError> {
    let found = infer::get(bytes)?;
    let advice = match found.matcher_type() {
        infer::MatcherType::Archive => match found.mime_type() {
            "application/pdf" => return None,
            _ => "unpack it and add the files",
        },
        infer::MatcherType::Doc | infer::MatcherType::Book => "save it as PDF, HTML, Markdown or text",
        infer::MatcherType::Image => "only text is stored: run OCR or describe it",
        infer::MatcherType::Audio | infer::MatcherType::Video => "only text is stored: add a transcript",
        infer::MatcherType::App | infer::MatcherType::Font => "it holds no text for people",
        infer::MatcherType::Text | infer::MatcherType::Custom => return None,
    };
    Some(MemoryError::Unsupported { name: name.to_owned(), mime: found.mime_type().to_owned(), advice })
}

fn by_extension(name: &str) -> Option<FileType> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "md" | "markdown" | "mdx" => FileType::Markdown,
        "html" | "htm" | "xhtml" => FileType::Html,
        "csv" => FileType::Table(b','),
        "tsv" | "tab" => FileType::Table(b'\t'),
        "json" => FileType::Json,
        "jsonl" | "ndjson" => FileType::JsonLines,
        "txt" | "text" | "log" | "rst" | "adoc" | "org" | "tex" | "rs" | "py" | "js" | "ts" | "go" | "java" | "c"
        | "h" | "cpp" | "hpp" | "toml" | "yaml" | "yml" | "ini" | "sh" | "sql" => FileType::Text,
        _ => return None,
    })
}

fn by_mime(mime: &str) -> Option<FileType> {
    let essence = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Some(match essence.as_str() {
        "text/markdown" => FileType::Markdown,
        "text/html" | "application/xhtml+xml" => FileType::Html,
        "text/csv" => FileType::Table(b','),
        "text/tab-separated-values" => FileType::Table(b'\t'),
        "application/json" => FileType::Json,
        "application/jsonl" | "application/x-ndjson" | "application/ndjson" => FileType::JsonLines,
        "text/plain" => FileType::Text,
        _ => return None,
    })
}

fn by_content(bytes: &[u8]) -> FileType {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let start: String = head.chars().take(64).collect::<String>().to_ascii_lowercase();
    if ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| start.starts_with(tag)) {
        return FileType::Html;
    }
    if start.starts_with(['{', '[']) && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        return FileType::Json;
    }
    let mut lines = head.lines().filter(|line| !line.trim().is_empty());
    if start.starts_with('{') && lines.next().is_some_and(|l| serde_json::from_str::<serde::de::IgnoredAny>(l).is_ok())
    {
        return FileType::JsonLines;
    }
    if head.lines().any(|line| line.starts_with("# ") || line.starts_with("## ")) && !head.starts_with("#!") {
        return FileType::Markdown;
    }
    FileType::Text
}

/// Bytes as text: UTF-8, UTF-16 with a mark, or, when that fails, a legacy encoding declared by the file or Windows-1252.
///
/// # Errors
/// `Unsupported` for binary bytes, `BadEncoding` for text in no known encoding.
pub fn decode(name: &str, mime: Option<&str>, bytes: &[u8]) -> Result<String, MemoryError> {
    if let Some((encoding, mark)) = encoding_rs::Encoding::for_bom(bytes) {
        let (text, had_errors) = encoding.decode_without_bom_handling(&bytes[mark..]);
        if !had_errors {
            return Ok(text.into_owned());
        }
    }
    let offset = match std::str::from_utf8(bytes) {
        Ok(text) => return if text.contains('\0') { Err(binary(name)) } else { Ok(text.to_owned()) },
        Err(error) => error.valid_up_to(),
    };
    if let Some(encoding) = declared_encoding(mime, bytes) {
        let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
        if !had_errors {
            return Ok(text.into_owned());
        }
    }
    if bytes.contains(&0) {
        return Err(binary(name));
    }
    let bad_encoding = || MemoryError::BadEncoding { name: name.to_owned(), offset };
    if !looks_like_windows_1252(bytes) {
        return Err(bad_encoding());
    }
    let text = encoding_rs::WINDOWS_1252.decode_without_bom_handling_and_without_replacement(bytes);
    text.map(std::borrow::Cow::into_owned).ok_or_else(bad_encoding)
}

fn binary(name: &str) -> MemoryError {
    MemoryError::Unsupported {
        name: name.to_owned(),
        mime: "application/octet-stream".to_owned(),
        advice: "it is binary: save it as text, HTML or PDF",
    }
}

/// `charset=` in the media type, or in the first kilobyte of a page.
fn declared_encoding(mime: Option<&str>, bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let label = |text: &str| {
        let lower = text.to_ascii_lowercase();
        let (_, rest) = lower.split_once("charset=").or_else(|| lower.split_once("encoding="))?;
        let rest = rest.trim_start_matches(['"', '\'']);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).unwrap_or(rest.len());
        encoding_rs::Encoding::for_label(&rest.as_bytes()[..end])
    };
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).into_owned();
    mime.and_then(label).or_else(|| label(&head))
}

/// Mostly ASCII, no control bytes, the rest in the upper half where Western letters are: anything else decoded as
/// Windows-1252 would be noise.
fn looks_like_windows_1252(bytes: &[u8]) -> bool {
    let control = bytes.iter().filter(|b| **b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0xc)).count();
    let high = bytes.iter().filter(|b| **b >= 0x80).count();
    control == 0 && high * 4 <= bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<impl std::fmt::Debug, MemoryError>) -> &'static str {
        result.expect_err("refused").code()
    }

    #[test]
    fn magic_bytes_win_over_the_name() {
        assert_eq!(detect("notes.txt", None, b"%PDF-1.7 ..."), Ok(FileType::Pdf));
        assert_eq!(
            code(detect("notes.txt", None, b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
            "unsupported_media_type"
        );
        assert_eq!(code(detect("x.md", Some("text/markdown"), b"\x1f\x8b\x08\0\0\0\0")), "unsupported_media_type");
        assert_eq!(code(detect("x", None, b"\x89PNG\r\n\x1a\n")), "unsupported_media_type");
        assert_eq!(
            code(detect("x", None, b"\x7fELF\x02\x01\x01\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
            "unsupported_media_type"
        );
    }

    #[test]
    fn names_and_media_types_decide_between_texts() {
        assert_eq!(detect("a.csv", None, b"a,b"), Ok(FileType::Table(b',')));
        assert_eq!(detect("a.MD", None, b"x"), Ok(FileType::Markdown));
        assert_eq!(detect("a", Some("text/html; charset=utf-8"), b"x"), Ok(FileType::Html));
        assert_eq!(detect("a.rs", None, b"# [x]"), Ok(FileType::Text));
    }

    #[test]
    fn nameless_bytes_are_sniffed() {
        assert_eq!(detect("x", None, b"<!DOCTYPE html><html>"), Ok(FileType::Html));
        assert_eq!(detect("x", None, b"{\"a\": [1, 2]}"), Ok(FileType::Json));
        assert_eq!(detect("x", None, b"{\"a\": 1}\n{\"a\": 2}\n"), Ok(FileType::JsonLines));
        assert_eq!(detect("x", None, b"# Title\n\ntext"), Ok(FileType::Markdown));
        assert_eq!(detect("x", None, b"{ not json"), Ok(FileType::Text));
    }

    #[test]
    fn legacy_text_is_decoded() {
        assert_eq!(decode("x", None, b"caf\xe9 au lait").as_deref(), Ok("caf\u{e9} au lait"));
        assert_eq!(decode("x", Some("text/plain; charset=koi8-r"), b"\xf0\xf2").as_deref(), Ok("\u{41f}\u{420}"));
        assert_eq!(decode("x", None, b"\xff\xfeh\0i\0").as_deref(), Ok("hi"));
        assert_eq!(decode("x", None, b"\xef\xbb\xbfhi").as_deref(), Ok("hi"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(code(decode("x", None, b"ab\0cd")), "unsupported_media_type");
        assert_eq!(code(decode("x", None, b"\x80\x81\xfe\xff\x90\x91")), "bad_encoding");
        let Err(MemoryError::BadEncoding { offset, .. }) = decode("x", None, b"ok\xff\xfe\x01") else { panic!() };
        assert_eq!(offset, 2);
    }
}
