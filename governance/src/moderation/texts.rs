//! The texts of a release that judging and training rest on: rules, viewpoints, lexicon, grammar, look-alikes.

use std::io::ErrorKind;
use std::path::Path;

use super::lexicon::LEXICON;

/// Texts of `governance/data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// `rules.toml`
    pub rules: String,
    /// `viewpoints.toml`
    pub viewpoints: String,
    /// `lexicon.toml`
    pub lexicon: String,
    /// `grammar.toml`
    pub grammar: String,
    /// `lookalike.txt`: harmless lines with words that harm also uses, for thresholds. A `#` starts a comment.
    pub lookalikes: String,
}

impl Default for Texts {
    /// Those of this release.
    fn default() -> Self {
        Self {
            rules: include_str!("../../data/rules.toml").to_owned(),
            viewpoints: include_str!("../../data/viewpoints.toml").to_owned(),
            lexicon: LEXICON.to_owned(),
            grammar: include_str!("../../data/grammar.toml").to_owned(),
            lookalikes: include_str!("../../data/lookalike.txt").to_owned(),
        }
    }
}

impl Texts {
    /// Those of a folder; what is missing in it is of this release. To try a change without building anew.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn read(folder: &Path) -> std::io::Result<Self> {
        let mut texts = Self::default();
        for (name, text) in [
            ("rules.toml", &mut texts.rules),
            ("viewpoints.toml", &mut texts.viewpoints),
            ("lexicon.toml", &mut texts.lexicon),
            ("grammar.toml", &mut texts.grammar),
            ("lookalike.txt", &mut texts.lookalikes),
        ] {
            match std::fs::read_to_string(folder.join(name)) {
                Ok(read) => *text = read,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_replaces_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.toml"), "rule = []").unwrap();
        let texts = Texts::read(folder.path()).unwrap();
        assert_eq!(texts, Texts { rules: "rule = []".to_owned(), ..Texts::default() });
        std::fs::write(folder.path().join("lookalike.txt"), [0xff]).unwrap();
        assert!(Texts::read(folder.path()).is_err());
    }
}
