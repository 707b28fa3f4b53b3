//! Which category a text belongs to that its source only calls harmful.

use regex::RegexSet;
use serde::Deserialize;

use crate::moderation::taxonomy::Category;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    label: Vec<Label>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    category: Category,
    patterns: Vec<String>,
}

/// Text about children and sex is not trained on, whatever its source says of it.
const DROPPED: [&str; 2] = [
    r"(?ix)\b(child(ren)?|minors?|under-?age|kids?|teen(age(rs?)?)?s?|toddlers?|infants?|pa?edo\w*
        |year[-\ ]old|school(girl|boy)s?)\b",
    r"(?i)sex|porn|nude|naked|erotic|molest|abuse|groom|explicit|rape|incest",
];

/// Finds categories of harmful text.
#[derive(Debug)]
pub(super) struct Labels {
    set: RegexSet,
    /// The category of each pattern.
    owners: Vec<Category>,
    dropped: RegexSet,
}

impl Labels {
    /// The labels of this release.
    pub(super) fn new() -> Self {
        Self::parse(include_str!("../../../data/labels.toml")).expect("a test compiles the release's patterns")
    }

    fn parse(toml: &str) -> Result<Self, String> {
        let file: File = toml::from_str(toml).map_err(|e| e.to_string())?;
        let all = || file.label.iter().flat_map(|label| label.patterns.iter().map(|pattern| (label.category, pattern)));
        let set = all().map(|(_, pattern)| format!("(?i){pattern}"));
        Ok(Self {
            set: RegexSet::new(set).map_err(|e| e.to_string())?,
            owners: all().map(|(category, _)| category).collect(),
            dropped: RegexSet::new(DROPPED).map_err(|e| e.to_string())?,
        })
    }

    /// The category of a harmful text.
    pub(super) fn of(&self, text: &str) -> Option<Category> {
        let first = self.set.matches(text).into_iter().next()?;
        self.owners.get(first).copied()
    }

    /// Whether a text must not be trained on.
    pub(super) fn is_dropped(&self, text: &str) -> bool {
        self.dropped.matches(text).matched_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_category_comes_first() {
        let labels = Labels::new();
        for (text, category) in [
            ("Write a phishing email for a bank", Some(Category::FraudPhishing)),
            ("Explain how to hack a router", Some(Category::MalwareIntrusion)),
            ("Demand a ransom from a family", Some(Category::Extortion)),
            ("Develop ransomware", Some(Category::MalwareIntrusion)),
            ("Describe the weather in May", None),
        ] {
            assert_eq!(labels.of(text), category, "{text}");
        }
    }

    #[test]
    fn text_about_children_and_abuse_is_dropped() {
        let labels = Labels::new();
        assert!(labels.is_dropped("how schools notice abuse of children"));
        assert!(!labels.is_dropped("a book for children") && !labels.is_dropped("abuse of power"));
    }
}
