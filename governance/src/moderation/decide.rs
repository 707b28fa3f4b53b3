//! The viewpoint firewall, part 2: from scores to an action, over types that have no place for a viewpoint.
//!
//! [`Scores::split`] is the only way from a model's heads to here. [`decide`] takes [`Actionable`], which ends before
//! H3; the labels go another way and never come back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::linear::Heads;
use super::manifest::Threshold;
use super::taxonomy::{ACTIONABLE, Action, Category, Level, VIEWPOINTS};

/// What a namespace does about H2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum H2Action {
    /// Nothing.
    Off,
    /// It passes with a label.
    #[default]
    Label,
    /// It passes with a smaller reach.
    Limit,
    /// It does not pass.
    Block,
}

impl H2Action {
    fn action(self) -> Action {
        match self {
            Self::Off => Action::Allow,
            Self::Label => Action::Label,
            Self::Limit => Action::Limit,
            Self::Block => Action::Block,
        }
    }
}

/// What a namespace decided about H2. It has no say over H0, H1 and H3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For categories that are not named.
    pub h2: H2Action,
    /// By category.
    pub categories: BTreeMap<Category, H2Action>,
}

impl Policy {
    /// The same for all of H2.
    #[must_use]
    pub fn all(h2: H2Action) -> Self {
        Self { h2, categories: BTreeMap::new() }
    }

    /// What becomes of content of a category.
    #[must_use]
    pub fn action(&self, category: Category) -> Action {
        match category.level() {
            Level::H0 => Action::Seal,
            Level::H1 => Action::Block,
            Level::H2 => self.categories.get(&category).unwrap_or(&self.h2).action(),
            Level::H3 => Action::Allow,
        }
    }
}

/// Probabilities of the categories that can lead to an action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Actionable(pub [f32; ACTIONABLE]);

impl Actionable {
    /// Categories with their probabilities.
    pub fn iter(&self) -> impl Iterator<Item = (Category, f32)> {
        Category::ALL.into_iter().zip(self.0)
    }
}

/// Probabilities of viewpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Labels(pub [f32; VIEWPOINTS]);

impl Labels {
    /// Viewpoints that are likelier than not.
    pub fn likely(&self) -> impl Iterator<Item = Category> {
        let all = Category::ALL.into_iter().skip(ACTIONABLE).zip(self.0);
        all.filter(|(_, p)| *p >= 0.5).map(|(category, _)| category)
    }
}

/// All scores of a text, parted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// What can lead to an action.
    pub actionable: Actionable,
    /// What cannot.
    pub labels: Labels,
}

impl Scores {
    /// Parts the heads of a model.
    #[must_use]
    pub fn split(heads: &Heads<f32>) -> Self {
        let (mut actionable, mut labels) = ([0.0; ACTIONABLE], [0.0; VIEWPOINTS]);
        actionable.copy_from_slice(&heads[..ACTIONABLE]);
        labels.copy_from_slice(&heads[ACTIONABLE..]);
        Self { actionable: Actionable(actionable), labels: Labels(labels) }
    }
}

/// What is known besides scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// A rule that decides alone has spoken for a category.
    pub hard: Option<Category>,
    /// The sender may be at risk.
    pub support: bool,
    /// The models are not of one mind.
    pub is_disputed: bool,
    /// Categories, a bit each by [`Category::index`], for which too little speaks to restrict anybody: few words or little
    /// certainty, and no rule.
    pub thin: u32,
}

impl Signals {
    fn is_thin(self, category: Category) -> bool {
        self.thin & (1 << category.index()) != 0
    }
}

/// What becomes of a content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decision {
    /// The action.
    pub action: Action,
    /// For which category, unless it simply passes.
    pub category: Option<Category>,
    /// The layers were not sure or not of one mind.
    pub is_uncertain: bool,
}

/// Decides. Of the categories that are sure the gravest action wins, then the likeliest category.
#[must_use]
pub fn decide(scores: &Actionable, signals: Signals, thresholds: &Heads<Threshold>, policy: &Policy) -> Decision {
    let mut best = signals.hard.map(|category| (policy.action(category), 1.0, category));
    let mut doubt: Option<(f32, Category)> = None;
    for ((category, p), threshold) in scores.iter().zip(thresholds) {
        if signals.support && is_about_oneself(category) {
            continue;
        }
        if p >= threshold.hi && !signals.is_thin(category) {
            let found = (policy.action(category), p, category);
            if best.is_none_or(|(action, most, _)| (found.0, p) > (action, most)) {
                best = Some(found);
            }
        } else if p >= threshold.lo && policy.action(category) > Action::Allow {
            doubt = doubt.filter(|(most, _)| *most >= p).or(Some((p, category)));
        }
    }
    let is_uncertain = doubt.is_some() || signals.is_disputed;
    match best {
        Some((action, _, category)) if action > Action::Support || !signals.support => {
            let category = (action > Action::Allow).then_some(category);
            Decision { action, category, is_uncertain: category.is_none() && is_uncertain }
        }
        _ if signals.support => Decision { action: Action::Support, category: None, is_uncertain },
        _ if is_uncertain => {
            Decision { action: Action::Monitor, category: doubt.map(|(_, category)| category), is_uncertain }
        }
        _ => Decision::default(),
    }
}

/// Categories that a person who speaks of harming themselves is mistaken for; such a person is never sanctioned for
/// them.
fn is_about_oneself(category: Category) -> bool {
    matches!(category, Category::SelfHarmPromotion | Category::DangerousAdvice | Category::Gore)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::moderation::manifest::Manifest;
    use crate::moderation::taxonomy::CATEGORIES;

    fn decide_on(scores: &[(Category, f32)], signals: Signals, policy: &Policy) -> Decision {
        let mut heads = [0.0; CATEGORIES];
        for (category, p) in scores {
            heads[category.index()] = *p;
        }
        decide(&Scores::split(&heads).actionable, signals, &Manifest::default().by_head(), policy)
    }

    #[test]
    fn gravest_action_wins() {
        let both = [(Category::Spam, 0.99), (Category::Extortion, 0.93), (Category::ViolentThreat, 0.98)];
        let decision = decide_on(&both, Signals::default(), &Policy::default());
        assert_eq!((decision.action, decision.category), (Action::Seal, Some(Category::ViolentThreat)));
        let decision = decide_on(&both[..2], Signals::default(), &Policy::default());
        assert_eq!((decision.action, decision.category), (Action::Block, Some(Category::Extortion)));
    }

    #[test]
    fn a_namespace_decides_on_h2_only() {
        for (h2, action) in
            [(H2Action::Off, Action::Allow), (H2Action::Limit, Action::Limit), (H2Action::Block, Action::Block)]
        {
            assert_eq!(decide_on(&[(Category::Hate, 0.99)], Signals::default(), &Policy::all(h2)).action, action);
            let grave = decide_on(&[(Category::Csam, 0.99)], Signals::default(), &Policy::all(h2));
            assert_eq!(grave.action, Action::Seal);
        }
        let but_spam = Policy { categories: [(Category::Spam, H2Action::Off)].into(), ..Policy::all(H2Action::Block) };
        assert_eq!(decide_on(&[(Category::Spam, 0.99)], Signals::default(), &but_spam).action, Action::Allow);
    }

    #[test]
    fn doubt_and_dispute_are_monitored() {
        let unsure = decide_on(&[(Category::Hate, 0.5)], Signals::default(), &Policy::default());
        assert_eq!((unsure.action, unsure.is_uncertain), (Action::Monitor, true));
        let disputed = Signals { is_disputed: true, ..Signals::default() };
        assert_eq!(decide_on(&[], disputed, &Policy::default()).action, Action::Monitor);
        assert_eq!(decide_on(&[], Signals::default(), &Policy::default()), Decision::default());
    }

    #[test]
    fn who_is_at_risk_is_helped_and_not_sanctioned() {
        let risk = Signals { support: true, ..Signals::default() };
        let helped = decide_on(&[(Category::SelfHarmPromotion, 0.99)], risk, &Policy::default());
        assert_eq!((helped.action, helped.category), (Action::Support, None));
        // Who also threatens others is not let through for it.
        let threatens = decide_on(&[(Category::ViolentThreat, 0.99)], risk, &Policy::default());
        assert_eq!(threatens.action, Action::Seal);
    }

    #[test]
    fn where_little_speaks_nobody_is_restricted_and_somebody_may_look() {
        let thin = Signals { thin: 1 << Category::Extortion.index(), ..Signals::default() };
        let both = [(Category::Extortion, 0.99), (Category::Spam, 0.99)];
        assert_eq!(decide_on(&both[..1], thin, &Policy::default()).action, Action::Monitor);
        assert_eq!(decide_on(&both, thin, &Policy::default()).category, Some(Category::Spam));
    }

    #[test]
    fn a_hard_rule_needs_no_score() {
        let hard = Signals { hard: Some(Category::Csam), ..Signals::default() };
        assert_eq!(decide_on(&[], hard, &Policy::all(H2Action::Off)).action, Action::Seal);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn viewpoint_scores_never_change_the_decision(
            heads in proptest::array::uniform27(0.0_f32..1.0),
            order in Just([0_usize, 1, 2, 3, 4, 5]).prop_shuffle(),
            support: bool,
        ) {
            let mut other = heads;
            for (to, from) in order.into_iter().enumerate() {
                other[ACTIONABLE + to] = heads[ACTIONABLE + from];
            }
            let signals = Signals { support, ..Signals::default() };
            let decide = |heads| {
                decide(&Scores::split(heads).actionable, signals, &Manifest::default().by_head(), &Policy::default())
            };
            prop_assert_eq!(decide(&heads), decide(&other));
        }
    }
}
