//! PDF text, page by page. The parser is not trusted: the caller runs it on a thread of its own and catches panics.

use crate::document::Document;
use crate::error::MemoryError;
use crate::normalize::PAGE_BREAK;

/// Makes a document of a PDF; form feeds separate its pages.
///
/// # Errors
/// `BadPdf` if it is damaged or locked, `Empty` if its pages are only images.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Document, MemoryError> {
    let bad = |reason: String| MemoryError::BadPdf { name: name.to_owned(), reason };
    let pages = pdf_extract::extract_text_from_mem_by_pages(bytes).map_err(|error| {
        let reason = error.to_string();
        let locked = ["password", "decrypt", "encrypt"].iter().any(|word| reason.to_lowercase().contains(word));
        bad(if locked { "it is locked by a password: save it without one".to_owned() } else { reason })
    })?;
    if pages.iter().all(|page| page.trim().is_empty()) {
        return Err(MemoryError::Empty { name: name.to_owned() });
    }
    let text = pages.join(&PAGE_BREAK.to_string());
    Ok(Document { text, ..Document::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PDF with one line of text on each page.
    pub(crate) fn pdf(pages: &[&str]) -> Vec<u8> {
        let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_owned(), String::new()];
        objects.push("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned());
        let mut kids = Vec::new();
        for page in pages {
            let stream = format!("BT /F1 12 Tf 72 720 Td ({page}) Tj ET");
            kids.push(format!("{} 0 R", objects.len() + 1));
            objects.push(format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
                objects.len() + 2
            ));
            objects.push(format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()));
        }
        objects[1] = format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), kids.len());
        let mut out = "%PDF-1.4\n".to_owned();
        let mut offsets = Vec::new();
        for (n, object) in objects.iter().enumerate() {
            offsets.push(out.len());
            out.push_str(&format!("{} 0 obj\n{object}\nendobj\n", n + 1));
        }
        let xref = out.len();
        out.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1));
        for offset in offsets {
            out.push_str(&format!("{offset:010} 00000 n \n"));
        }
        out.push_str(&format!("trailer << /Size {} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n", objects.len() + 1));
        out.into_bytes()
    }

    #[test]
    fn pages_are_kept_apart() {
        let document = parse("x.pdf", &pdf(&["First page words", "Second page words"])).expect("readable");
        let pages: Vec<_> = document.text.split(PAGE_BREAK).map(str::trim).collect();
        assert_eq!(pages, ["First page words", "Second page words"]);
    }

    #[test]
    fn broken_pdf_says_so() {
        let mut bytes = pdf(&["text"]);
        bytes.truncate(60);
        assert_eq!(parse("x.pdf", &bytes).expect_err("broken").code(), "bad_pdf");
    }

    #[test]
    fn pdf_without_text_is_empty() {
        assert_eq!(parse("x.pdf", &pdf(&[""])).expect_err("empty").code(), "memory_empty");
    }
}
