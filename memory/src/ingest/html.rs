//! Web pages: the article without navigation (Readability), as Markdown so that headings survive.

use dom_smoothie::Readability;

use crate::document::{Document, Format};
use crate::normalize::one_line;

/// Elements inside each other beyond which a page is not parsed into a tree: tree walkers recurse, and a stack that
/// overflows ends the process.
const MAX_DEPTH: usize = 200;
/// Below this many characters the extracted article is distrusted and the whole page is taken.
const ARTICLE_CHARS: usize = 200;

/// Makes a document of a page.
pub(super) fn parse(name: &str, html: &str) -> Document {
    if depth(html) > MAX_DEPTH {
        return Document { title: Some(name.to_owned()), text: strip_tags(html), ..Document::default() };
    }
    let article = Readability::new(html, None, None).ok().and_then(|mut page| page.parse().ok());
    let whole = || htmd_convert(html).unwrap_or_else(|| strip_tags(html));
    let mut document = Document { format: Format::Markdown, ..Document::default() };
    let Some(article) = article else {
        document.text = whole();
        document.title = title_of(html);
        return document;
    };
    document.title = Some(one_line(&article.title, 300)).filter(|title| !title.is_empty());
    document.url = article.url.filter(|url| url.starts_with("http"));
    document.source = article.site_name.map(|site| one_line(&site, 200));
    for (field, value) in [("author", article.byline), ("published", article.published_time)] {
        if let Some(value) = value {
            document.metadata.insert(field.to_owned(), value.into());
        }
    }
    let text = htmd_convert(&article.content).unwrap_or_else(|| article.text_content.to_string());
    document.text = if text.chars().count() < ARTICLE_CHARS { whole() } else { text };
    document
}

fn htmd_convert(html: &str) -> Option<String> {
    let converter = htmd::HtmlToMarkdown::builder()
        .skip_tags(vec!["script", "style", "noscript", "template", "svg", "head"])
        .build();
    converter.convert(html).ok()
}

fn title_of(html: &str) -> Option<String> {
    let lower = html.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let open = start + lower[start..].find('>')? + 1;
    let close = open + lower[open..].find("</title")?;
    Some(one_line(&html[open..close], 300)).filter(|title| !title.is_empty())
}

/// How deep elements may stand inside each other; an upper bound, since closing tags may be missing.
fn depth(html: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0usize);
    let mut bytes = html.as_bytes().windows(2);
    while let Some([b'<', next]) = bytes.find(|pair| pair[0] == b'<').map(|pair| [pair[0], pair[1]]) {
        if next == b'/' {
            open = open.saturating_sub(1);
        } else if next.is_ascii_alphabetic() {
            open += 1;
            deepest = deepest.max(open);
        }
    }
    deepest.saturating_sub(void_elements(html))
}

/// Elements that are never closed do not nest: `<br>`, `<img>`, `<p>`, `<li>` and the like.
fn void_elements(html: &str) -> usize {
    let lower = html.to_ascii_lowercase();
    let opened = |tag: &str| lower.matches(&format!("<{tag}")).count();
    let closed = |tag: &str| lower.matches(&format!("</{tag}")).count();
    [
        "br", "img", "hr", "input", "meta", "link", "source", "wbr", "col", "p", "li", "td", "tr", "th", "dt", "dd",
        "option",
    ]
    .iter()
    .map(|tag| opened(tag).saturating_sub(closed(tag)))
    .sum()
}

/// Text between tags, without a tree: for pages that no tree is built of.
fn strip_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len() / 2);
    let mut in_tag = false;
    for c in html.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                out.push(' ');
            }
            c if !in_tag => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn article_is_found_and_headings_survive() {
        let filler =
            "The village well was dug in the year of the great drought, and it has given water since. ".repeat(8);
        let page = format!(
            "<html><head><title>Wells - Village</title></head><body><nav><a href=/>Home</a><a href=/x>More</a></nav>\
             <article><h1>Wells</h1><p>{filler}</p><h2>Depth</h2><p>{filler}</p></article>\
             <script>alert('x')</script></body></html>"
        );
        let document = parse("wells.html", &page);
        assert!(document.title.as_deref().is_some_and(|title| title.contains("Wells")), "{:?}", document.title);
        assert!(document.text.contains("## Depth"), "{}", document.text);
        assert!(!document.text.contains("alert"));
    }

    #[test]
    fn short_pages_are_taken_whole() {
        let document = parse("x.html", "<title>T</title><p>Just a line.</p>");
        assert!(document.text.contains("Just a line."));
        assert_eq!(document.title.as_deref(), Some("T"));
    }

    #[test]
    fn endless_nesting_is_read_flat() {
        let page = format!("{}deep words{}", "<div>".repeat(100_000), "</div>".repeat(100_000));
        assert_eq!(parse("x.html", &page).text.trim(), "deep words");
    }
}
