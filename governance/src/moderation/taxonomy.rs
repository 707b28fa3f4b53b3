//! The harm taxonomy: levels, categories, data classes, actions.
//!
//! H0 is the gravest. H3 is viewpoint: it is labelled and never acted upon, see [`decide`](super::decide).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Categories of which a score can lead to an action: all of H0, H1 and H2.
pub const ACTIONABLE: usize = 21;
/// Categories of H3.
pub const VIEWPOINTS: usize = 6;
/// All categories; the heads of a model.
pub const CATEGORIES: usize = ACTIONABLE + VIEWPOINTS;

/// How grave a category is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Illegal, zero tolerance: block, seal the evidence, suspend.
    H0,
    /// Likely illegal or severe: block, strikes.
    H1,
    /// Legal and against policy: as the namespace says.
    H2,
    /// A viewpoint: always allowed.
    H3,
}

/// A harm category. The order is that of a model's heads and never changes; new ones would need a new model format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Sexual abuse of children. Known by hash list and abstract rules only: no example is trained on.
    Csam,
    /// Winning a child's trust to abuse it. By rules only, as `Csam`.
    MinorGrooming,
    /// A threat of violence against somebody.
    ViolentThreat,
    /// A call for terrorist acts, or praise that recruits for them.
    TerrorIncitement,
    /// Making or getting weapons that kill many.
    MassCasualtyWeapon,
    /// Trade in people, forced labour.
    HumanTrafficking,
    /// Intimate images without consent.
    Ncii,
    /// Publishing where somebody lives, or following them.
    DoxxingStalking,
    /// Urging or teaching self-harm. Who is at risk themselves is helped, never sanctioned.
    SelfHarmPromotion,
    /// Deceiving people out of money or credentials.
    FraudPhishing,
    /// Breaking into computers, harmful programs.
    MalwareIntrusion,
    /// Trade in drugs, weapons, stolen or counterfeit goods.
    IllegalTrade,
    /// Demands under threat.
    Extortion,
    /// Gratuitous injury and torture.
    Gore,
    /// Attacks on people for a protected characteristic.
    Hate,
    /// Attacks on one person.
    Harassment,
    /// Sexual content of adults.
    AdultSexual,
    /// Unasked advertising.
    Spam,
    /// Passing as somebody else.
    Impersonation,
    /// Advice that hurts who follows it or others.
    DangerousAdvice,
    /// Text that tries to command a model against its instructions.
    PromptInjection,
    /// An opinion on politics.
    PoliticalOpinion,
    /// One-sided persuasion.
    Propaganda,
    /// A religious view or its denial.
    ReligiousView,
    /// A claim that is disputed.
    ContestedClaim,
    /// Satire, art, fiction.
    SatireArt,
    /// Protest and calls for it.
    Protest,
}

/// The levels in the order of their categories, with the first category behind each.
const ENDS: [(Level, usize); 4] = [(Level::H0, 6), (Level::H1, 13), (Level::H2, ACTIONABLE), (Level::H3, CATEGORIES)];

impl Category {
    /// All categories, in the order of a model's heads.
    pub const ALL: [Self; CATEGORIES] = [
        Self::Csam,
        Self::MinorGrooming,
        Self::ViolentThreat,
        Self::TerrorIncitement,
        Self::MassCasualtyWeapon,
        Self::HumanTrafficking,
        Self::Ncii,
        Self::DoxxingStalking,
        Self::SelfHarmPromotion,
        Self::FraudPhishing,
        Self::MalwareIntrusion,
        Self::IllegalTrade,
        Self::Extortion,
        Self::Gore,
        Self::Hate,
        Self::Harassment,
        Self::AdultSexual,
        Self::Spam,
        Self::Impersonation,
        Self::DangerousAdvice,
        Self::PromptInjection,
        Self::PoliticalOpinion,
        Self::Propaganda,
        Self::ReligiousView,
        Self::ContestedClaim,
        Self::SatireArt,
        Self::Protest,
    ];

    /// The codes of [`Category::ALL`].
    const CODES: [&'static str; CATEGORIES] = [
        "csam",
        "minor_grooming",
        "violent_threat",
        "terror_incitement",
        "mass_casualty_weapon",
        "human_trafficking",
        "ncii",
        "doxxing_stalking",
        "self_harm_promotion",
        "fraud_phishing",
        "malware_intrusion",
        "illegal_trade",
        "extortion",
        "gore",
        "hate",
        "harassment",
        "adult_sexual",
        "spam",
        "impersonation",
        "dangerous_advice",
        "prompt_injection",
        "political_opinion",
        "propaganda",
        "religious_view",
        "contested_claim",
        "satire_art",
        "protest",
    ];

    /// Its place among the heads of a model.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its stable code, the same as in JSON.
    #[must_use]
    pub const fn code(self) -> &'static str {
        Self::CODES[self.index()]
    }

    /// The category with a code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.code() == code)
    }

    /// How grave it is.
    #[must_use]
    pub fn level(self) -> Level {
        ENDS.iter().find(|(_, end)| self.index() < *end).map_or(Level::H3, |(level, _)| *level)
    }

    /// The constitution's article that a restriction for this category cites.
    #[must_use]
    pub fn article(self) -> &'static str {
        match (self, self.level()) {
            (Self::MalwareIntrusion | Self::PromptInjection, _) => "A10.1",
            (_, Level::H0) => "A1.1",
            (_, Level::H1) => "A1.2",
            (_, Level::H2) => "A2.2",
            (_, Level::H3) => "A2.1",
        }
    }
}

/// Data that is protected rather than judged; found by the data-loss layer, not by a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataClass {
    /// Personal data.
    Pii,
    /// Health data.
    Phi,
    /// Numbers of payment cards.
    Pan,
    /// Keys, tokens, passwords.
    Secret,
}

/// What becomes of a content, the mildest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It passes.
    #[default]
    Allow,
    /// It passes and is flagged: the layers were not sure.
    Monitor,
    /// It passes; the sender, who may be at risk, is shown where help is.
    Support,
    /// It passes with a label.
    Label,
    /// It passes with a smaller reach.
    Limit,
    /// It does not pass.
    Block,
    /// It does not pass, the evidence is sealed, the sender suspended for at most 24 h until reviewed.
    Seal,
}

impl Action {
    /// Whether the content goes on.
    #[must_use]
    pub fn passes(self) -> bool {
        self < Self::Block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_codes_and_levels_agree() {
        for (index, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category.index(), index);
            assert_eq!(Category::from_code(category.code()), Some(category));
            assert_eq!(serde_json::to_value(category).unwrap(), category.code());
        }
        let of = |level| Category::ALL.into_iter().filter(|category| category.level() == level).count();
        assert_eq!([of(Level::H0), of(Level::H1), of(Level::H2), of(Level::H3)], [6, 7, 8, VIEWPOINTS]);
        assert_eq!(Category::from_code("nonsense"), None);
    }

    #[test]
    fn articles_are_those_of_the_constitution() {
        use crate::constitution::document::Document;
        use crate::constitution::taxonomy::Level as Rung;
        let constitution = Document::parse(crate::constitution::DEFAULT_TOML).unwrap();
        for category in Category::ALL {
            let rung = match category.level() {
                Level::H0 => Rung::H0,
                Level::H1 => Rung::H1,
                Level::H2 => Rung::H2,
                Level::H3 => Rung::H3,
            };
            let (_, article) = constitution.rule_for(rung, category.code(), "").unwrap();
            assert_eq!(category.article(), article.id, "{category:?}");
        }
    }

    #[test]
    fn only_block_and_seal_hold_content_back() {
        use Action::{Allow, Block, Label, Limit, Monitor, Seal, Support};
        assert!([Allow, Monitor, Support, Label, Limit].into_iter().all(Action::passes));
        assert!(![Block, Seal].into_iter().any(Action::passes));
    }
}
