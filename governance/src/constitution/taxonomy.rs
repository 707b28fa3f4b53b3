//! The levels of harm and their categories: what rules are for.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::moderation::{Category, Level as Harm};

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

/// The categories of a level: those of [`moderation`](crate::moderation), a person at risk, and the classes of protected data.
#[must_use]
pub fn categories(level: Level) -> &'static [&'static str] {
    static BY_LEVEL: LazyLock<[Vec<&str>; 5]> = LazyLock::new(|| Level::ALL.map(|level| judged(level).collect()));
    BY_LEVEL.get(level as usize).map_or(&[], Vec::as_slice)
}

fn judged(level: Level) -> impl Iterator<Item = &'static str> {
    let (harm, others): (_, &[_]) = match level {
        Level::H0 => (Some(Harm::H0), &[]),
        Level::H1 => (Some(Harm::H1), &[]),
        Level::H2 => (Some(Harm::H2), &[]),
        Level::H3 => (Some(Harm::H3), &["person_at_risk"]),
        Level::D => (None, &["pii", "phi", "pan", "secret"]),
    };
    let of_level = Category::ALL.into_iter().filter(move |category| Some(category.level()) == harm);
    of_level.map(Category::code).chain(others.iter().copied())
}
