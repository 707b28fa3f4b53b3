//! The levels of harm and their categories: what rules are for.

use serde::{Deserialize, Serialize};

/// How grave content is. H0 is the gravest; H3 is never acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Illegal everywhere, without tolerance.
    H0,
    /// Likely illegal or severe.
    H1,
    /// Legal, against a policy.
    H2,
    /// A viewpoint, or a person at risk.
    H3,
    /// Data that is protected.
    D,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 5] = [Self::H0, Self::H1, Self::H2, Self::H3, Self::D];
}

/// The categories of a level.
#[must_use]
pub fn categories(level: Level) -> &'static [&'static str] {
    match level {
        Level::H0 => &[
            "csam",
            "minor_grooming",
            "violent_threat",
            "terror_incitement",
            "mass_casualty_weapon",
            "human_trafficking",
        ],
        Level::H1 => &[
            "ncii",
            "doxxing_stalking",
            "self_harm_promotion",
            "fraud_phishing",
            "malware_intrusion",
            "illegal_trade",
            "extortion",
        ],
        Level::H2 => &[
            "gore",
            "hate",
            "harassment",
            "adult_sexual",
            "spam",
            "impersonation",
            "dangerous_advice",
            "prompt_injection",
        ],
        Level::H3 => &[
            "political_opinion",
            "propaganda",
            "religious_view",
            "contested_claim",
            "satire_art",
            "protest",
            "person_at_risk",
        ],
        Level::D => &["pii", "phi", "pan", "secret"],
    }
}
