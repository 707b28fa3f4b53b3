//! What commands print: styled for a person on a terminal, plain when piped, JSON when asked.
//!
//! Everything goes through [`anstream`], which drops colours when the output is no terminal or `NO_COLOR` is set. A reader
//! that went away (`village ask ... | head -1`) ends the printing, never the command.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _},
};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::Failure;

/// Headings and what matters most.
pub(crate) const BOLD: Style = Style::new().bold();
/// What can be read past.
pub(crate) const DIM: Style = Style::new().dimmed();
/// Names to type or click.
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
/// Went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Needs attention.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Text in a style.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// One line on standard output.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Text on standard output without a line end, shown at once.
pub(crate) fn say_part(text: impl Display) {
    let mut out = anstream::stdout();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// One line on standard error: progress and remarks that are no result.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// The same without a line end: a question.
pub(crate) fn note_part(text: impl Display) {
    let mut out = anstream::stderr();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// A JSON value on standard output: indented for a terminal, one line for a pipe.
pub(crate) fn json(value: &Value) {
    let indented = std::io::stdout().is_terminal();
    say(if indented { format!("{value:#}") } else { value.to_string() });
}

/// Whether a person is reading standard output.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Says on standard error why the command failed and what to do about it.
pub(crate) fn complain(failure: &Failure, as_json: bool) {
    if failure.silent {
        return;
    }
    if as_json {
        let Failure { message, hint, code, trace_id, exit, .. } = failure;
        let body = json!({ "message": message, "hint": hint, "code": code, "trace_id": trace_id, "exit": *exit as u8 });
        note(json!({ "error": body }));
        return;
    }
    note(format_args!("{} {}", paint(BAD, "error:"), failure.message));
    if let Some(hint) = &failure.hint {
        note(format_args!("{} {hint}", paint(DIM, " hint:")));
    }
    if let Some(trace_id) = &failure.trace_id {
        note(format_args!("{} {trace_id}", paint(DIM, "trace:")));
    }
}

/// Columns under a dimmed heading; columns whose heading starts with `#` are numbers and go right. Cells may be painted.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let plain = |cell: &String| anstream::adapter::strip_str(cell).to_string();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('#').to_uppercase()));
    // Laid out without colours, which have no width.
    table.add_rows(rows.iter().map(|row| row.iter().map(plain).collect::<Vec<_>>()));
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if heading.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<String> = table.lines().collect();
    let mut styled: Vec<_> = lines.iter().take(1).map(|heading| paint(DIM, heading.trim_end())).collect();
    let cells = rows.iter().chain(std::iter::repeat(const { &Vec::new() }));
    styled.extend(lines.iter().skip(1).zip(cells).map(|(line, cells)| painted(line.trim_end(), cells)));
    styled.join("\n")
}

/// The line with its cells as they are painted.
fn painted(line: &str, cells: &[String]) -> String {
    let (mut done, mut rest) = (String::new(), line);
    for cell in cells {
        let plain = anstream::adapter::strip_str(cell).to_string();
        // Between two cells there are only spaces, so the first match is the cell itself.
        let Some((before, after)) = rest.split_once(plain.as_str()).filter(|_| !plain.is_empty()) else { continue };
        done.push_str(before);
        done.push_str(cell);
        rest = after;
    }
    done + rest
}

/// The health of a cluster, for people.
pub(crate) fn health(health: &str) -> String {
    match health {
        "healthy" => paint(GOOD, "healthy"),
        "no_quorum" => paint(BAD, "no quorum"),
        other => paint(WARN, other),
    }
}

/// A stretch of time in its two largest units, such as `2m 5s`.
pub(crate) fn time(seconds: u64) -> String {
    let full = humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string();
    full.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Breaks text at spaces so that no line is wider than `width`; words longer than that stay whole.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.iter().map(|line| format!("{indent}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `1536` as `1.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}

/// A string member of a JSON object, empty when absent.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of an array member, none when absent.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_aligns_numbers_right_and_has_no_trailing_spaces() {
        let text = table(&["name", "#docs"], [vec!["main".into(), "7".into()], vec!["archive".into(), "1200".into()]]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME     DOCS\nmain        7\narchive  1200");
    }

    #[test]
    fn colours_have_no_width() {
        let rows = [vec!["a".into(), paint(BAD, "down"), "x".into()], vec!["bb".into(), "up".into(), "y".into()]];
        let text = table(&["name", "state", "link"], rows);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "NAME  STATE  LINK\na     down   x\nbb    up     y"
        );
        assert!(text.contains(&paint(BAD, "down")), "{text:?}");
    }

    #[test]
    fn time_is_shown_in_two_units() {
        assert_eq!(time(0), "0s");
        assert_eq!(time(90_061), "1day 1h");
        assert_eq!([count(1, "node"), count(0, "node")], ["1 node", "0 nodes"]);
    }

    #[test]
    fn sizes_are_shown_in_the_unit_people_use() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1 << 30), "1.0 GiB");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn wrapping_keeps_every_word_in_order(text in "[a-zä ]{0,200}", width in 1usize..40) {
            let wrapped = wrap(&text, width, "  ");
            let words = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&wrapped), words(&text));
            for line in wrapped.lines() {
                prop_assert!(line.trim().chars().count() <= width || words(line).len() == 1);
            }
        }
    }
}
