//! What a model was trained on and how well it does: the machine-readable half of the model card.
//!
//! The model file has the SHA-256 of these bytes, so neither can be exchanged alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::linear::Heads;
use super::taxonomy::{Category, Level};

/// Where one head of a model begins to be sure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// From here on the model is uncertain.
    pub lo: f32,
    /// From here on it is sure.
    pub hi: f32,
}

impl Threshold {
    /// The thresholds that training starts from.
    #[must_use]
    pub fn start(category: Category) -> Self {
        let (lo, hi) = match (category, category.level()) {
            (Category::PromptInjection, _) => (0.30, 0.80),
            (Category::Spam, _) => (0.50, 0.95),
            (_, Level::H0) => (0.30, 0.97),
            (_, Level::H1) => (0.35, 0.92),
            (_, Level::H2) => (0.40, 0.85),
            // A label, no more.
            (_, Level::H3) => (0.50, 0.50),
        };
        Self { lo, hi }
    }
}

/// A text collection that was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Package or file.
    pub name: String,
    /// SPDX expression.
    pub licence: String,
    /// SHA-256 of the rows as they were read, hex.
    pub sha256: String,
    /// Rows.
    pub rows: u64,
}

/// The manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The seed of the training.
    pub seed: u64,
    /// What was trained on.
    pub sources: Vec<SourceEntry>,
    /// By category.
    pub thresholds: BTreeMap<Category, Threshold>,
    /// Figures by name; what they mean is in the model card.
    pub metrics: BTreeMap<String, f64>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    /// Its text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The thresholds by head; the start values where the manifest has none.
    #[must_use]
    pub fn by_head(&self) -> Heads<Threshold> {
        Category::ALL
            .map(|category| self.thresholds.get(&category).copied().unwrap_or_else(|| Threshold::start(category)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_its_text() {
        let threshold = Threshold { lo: 0.25, hi: 0.75 };
        let manifest = Manifest {
            seed: 7,
            sources: vec![SourceEntry { name: "own".into(), licence: "MIT".into(), sha256: "00".into(), rows: 3 }],
            thresholds: [(Category::Hate, threshold)].into(),
            metrics: [("auroc".to_owned(), 0.5)].into(),
        };
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
        assert_eq!(manifest.by_head()[Category::Hate.index()], threshold);
        assert_eq!(manifest.by_head()[Category::Spam.index()], Threshold { lo: 0.5, hi: 0.95 });
    }

    #[test]
    fn unknown_fields_are_told() {
        assert!(Manifest::parse("{\"tea\": 1}").unwrap_err().contains("tea"));
    }
}
