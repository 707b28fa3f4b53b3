//! What can be wrong with a configuration, told so that the person who wrote it can mend it.

use std::path::{Path, PathBuf};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key or a value that its section refuses. The text shows the place.
    #[error("{}:{line}:{column}: {message}{excerpt}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
        /// The line with the place marked, beginning with a line break.
        excerpt: String,
    },
    /// A variable of the environment or a `--set` is wrong.
    #[error("{origin}: {message}")]
    Override {
        /// The variable's name, or `--set` and its text.
        origin: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A key, a type or a value that its section refuses, wherever it came from.
    #[error("{key}: {message}")]
    Invalid {
        /// Dotted name of the key or section.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl ConfigError {
    /// For `validate` of a section: `key` is dotted, `message` says what is wrong and what would be right.
    pub fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { key: key.into(), message: message.into() }
    }

    /// Places an error of the TOML reader in the text of the file.
    pub(super) fn in_file(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let source = text[line_start..].lines().next().unwrap_or_default();
        let line = text[..line_start].matches('\n').count() + 1;
        let indent = text[line_start..start].chars().count();
        // A place that runs over several lines is marked to the end of its first.
        let marked = text[start..end].lines().next().unwrap_or_default().chars().count().max(1);
        let gutter = " ".repeat(line.to_string().len());
        let marker = format!("{}{}", " ".repeat(indent), "^".repeat(marked));
        Self::File {
            path: path.to_owned(),
            line,
            column: indent + 1,
            message: with_suggestion(error.message()),
            excerpt: format!("\n{gutter} |\n{line} | {source}\n{gutter} | {marker}"),
        }
    }
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

/// Adds the nearest expected name to serde's message about an unknown one.
pub(super) fn with_suggestion(message: &str) -> String {
    // serde: unknown field `x`, expected one of `a`, `b`
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let is_unknown = message.starts_with("unknown field `") || message.starts_with("unknown variant `");
    match names.split_first() {
        Some((unknown, expected)) if is_unknown => match nearest(unknown, expected) {
            Some(name) => format!("{message}; did you mean `{name}`?"),
            None => message.to_owned(),
        },
        _ => message.to_owned(),
    }
}

/// The expected name that is most like the one written, if any is like it at all.
fn nearest<'a>(written: &str, expected: &[&'a str]) -> Option<&'a str> {
    // Below this, suggestions were guesses: `log_lvl` -> `log_format` scores 0.5, `prot` -> `port` 0.75.
    const ALIKE: f64 = 0.6;
    let scored = expected.iter().map(|name| (strsim::normalized_damerau_levenshtein(written, name), *name));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}
