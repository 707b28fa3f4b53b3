//! The coarse structure of a text: sections under headings, and the paragraphs in them.

use std::ops::Range;

use crate::document::Format;
use crate::normalize::{PAGE_BREAK, one_line};

/// Longest heading path kept, in characters.
const HEADING_CHARS: usize = 240;

/// What stands under one heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Path of headings, outermost first.
    pub(super) heading: String,
    /// Where the heading itself stands.
    pub(super) heading_line: Option<Range<usize>>,
    /// Its text, in order.
    pub(super) paragraphs: Vec<Paragraph>,
}

/// A block of text between blank lines.
#[derive(Debug)]
pub(super) struct Paragraph {
    pub(super) range: Range<usize>,
    /// False for code and table rows, whose lines are their sentences.
    pub(super) prose: bool,
    /// A page break stands before it.
    pub(super) starts_page: bool,
}

/// Finds sections and paragraphs.
pub(super) fn outline(text: &str, format: Format) -> Vec<Section> {
    let mut outline = Outline { text, format, ..Outline::default() };
    let mut at = 0;
    for line in text.split_inclusive(['\n', PAGE_BREAK]) {
        let ends_page = line.ends_with(PAGE_BREAK);
        let body = line.trim_end_matches(['\n', PAGE_BREAK]);
        outline.line(body, at);
        at += line.len();
        if ends_page {
            outline.close_paragraph();
            outline.page_ended = true;
        }
    }
    outline.close_section();
    outline.sections
}

#[derive(Debug, Default)]
struct Outline<'a> {
    text: &'a str,
    format: Format,
    sections: Vec<Section>,
    section: Section,
    /// Open headings, with their level.
    path: Vec<(usize, String)>,
    /// The open paragraph.
    paragraph: Option<(Range<usize>, bool)>,
    /// The fence of an open code block.
    fence: Option<&'a str>,
    page_ended: bool,
}

impl<'a> Outline<'a> {
    fn line(&mut self, line: &'a str, at: usize) {
        let trimmed = line.trim_start();
        if self.format == Format::Markdown && self.markdown_line(trimmed, line, at) {
            return;
        }
        if trimmed.trim_end().is_empty() {
            self.close_paragraph();
            if self.format == Format::Blocks {
                self.close_section();
            }
            return;
        }
        if self.format != Format::Blocks && begins_item(trimmed) {
            self.close_paragraph();
        }
        self.extend(at..at + line.len(), !trimmed.starts_with('|'));
    }

    /// Handles what only Markdown knows; false if the line is ordinary text.
    fn markdown_line(&mut self, trimmed: &'a str, line: &str, at: usize) -> bool {
        if let Some(fence) = self.fence {
            if trimmed.starts_with(fence) {
                self.fence = None;
                self.close_paragraph();
            } else if !trimmed.is_empty() {
                self.extend(at..at + line.len(), false);
            }
            return true;
        }
        if let Some(fence) = ["```", "~~~"].into_iter().find(|fence| trimmed.starts_with(fence)) {
            self.close_paragraph();
            self.fence = Some(fence);
            return true;
        }
        if let Some((level, title)) = atx_heading(trimmed) {
            self.open_section(level, title, at..at + line.len());
            return true;
        }
        if let Some(level) = setext_underline(trimmed)
            && let Some((range, true)) = self.paragraph.clone()
            && !self.text[range.clone()].contains('\n')
        {
            self.paragraph = None;
            let title = &self.text[range.clone()];
            self.open_section(level, title, range.start..at + line.len());
            return true;
        }
        // A rule carries no words.
        trimmed.len() >= 3 && trimmed.chars().all(|c| matches!(c, '-' | '*' | '_' | ' ')) && {
            self.close_paragraph();
            true
        }
    }

    fn extend(&mut self, range: Range<usize>, prose: bool) {
        match &mut self.paragraph {
            Some((open, was_prose)) if *was_prose == prose => open.end = range.end,
            _ => {
                self.close_paragraph();
                self.paragraph = Some((range, prose));
            }
        }
    }

    fn close_paragraph(&mut self) {
        if let Some((range, prose)) = self.paragraph.take() {
            let starts_page = std::mem::take(&mut self.page_ended);
            self.section.paragraphs.push(Paragraph { range, prose, starts_page });
        }
    }

    fn close_section(&mut self) {
        self.close_paragraph();
        let next = Section { heading: self.section.heading.clone(), ..Section::default() };
        let closed = std::mem::replace(&mut self.section, next);
        if !closed.paragraphs.is_empty() || closed.heading_line.is_some() {
            self.sections.push(closed);
        }
    }

    fn open_section(&mut self, level: usize, title: &str, line: Range<usize>) {
        self.close_section();
        self.path.retain(|(open, _)| *open < level);
        self.path.push((level, one_line(title, HEADING_CHARS)));
        let titles: Vec<_> = self.path.iter().map(|(_, title)| title.as_str()).filter(|t| !t.is_empty()).collect();
        self.section.heading = one_line(&titles.join(" > "), HEADING_CHARS);
        self.section.heading_line = Some(line);
    }
}

/// `## Title ##` as level and title. `CommonMark` 4.2.
fn atx_heading(line: &str) -> Option<(usize, &str)> {
    let level = line.len() - line.trim_start_matches('#').len();
    let rest = &line[level..];
    ((1..=6).contains(&level) && (rest.is_empty() || rest.starts_with(' ')))
        .then(|| (level, rest.trim().trim_end_matches('#').trim_end()))
}

/// `====` or `----` under a line of text. `CommonMark` 4.3.
fn setext_underline(line: &str) -> Option<usize> {
    let line = line.trim_end();
    if line.len() < 2 {
        None
    } else if line.bytes().all(|b| b == b'=') {
        Some(1)
    } else if line.bytes().all(|b| b == b'-') {
        Some(2)
    } else {
        None
    }
}

/// Whether a line begins an item of a list, a quotation or a table row.
fn begins_item(line: &str) -> bool {
    let marker = ["- ", "* ", "+ ", "\u{2022} ", "> ", "|"].iter().any(|marker| line.starts_with(marker));
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let numbered = (1..=3).contains(&digits) && [". ", ") "].iter().any(|sep| line[digits..].starts_with(sep));
    marker || numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(text: &str) -> Vec<String> {
        outline(text, Format::Markdown).into_iter().map(|section| section.heading).collect()
    }

    #[test]
    fn heading_paths_follow_levels() {
        let text = "intro\n# A\na\n## B\nb\n### C ###\nc\n## D\nd\n# E\ne";
        assert_eq!(headings(text), ["", "A", "A > B", "A > B > C", "A > D", "E"]);
    }

    #[test]
    fn setext_headings_are_headings() {
        assert_eq!(headings("Title\n=====\ntext\n\nSub\n---\nmore"), ["Title", "Title > Sub"]);
    }

    #[test]
    fn code_is_not_read_as_headings() {
        assert_eq!(headings("# A\n```sh\n# a comment\n```\nrest"), ["A"]);
    }

    #[test]
    fn plain_text_has_no_headings() {
        assert_eq!(outline("# a comment\ncode", Format::Text).len(), 1);
    }

    #[test]
    fn list_items_are_paragraphs() {
        let sections = outline("Shopping:\n- milk\n- bread\n1. first", Format::Text);
        assert_eq!(sections[0].paragraphs.len(), 4);
    }
}
