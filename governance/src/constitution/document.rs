//! The text of a constitution: articles for people, rules and bounds for machines. Pure.
//!
//! Canonical bytes are the RFC 8785 JSON of the parsed TOML, the hash their SHA-256.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::taxonomy::{Level, categories};

/// Bytes of a document at most: it is read whole, and travels in one message.
pub const MAX_BYTES: usize = 128 * 1024;

/// A constitution. Whoever has one knows that its rules cover every category and cite articles that exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    text: Text,
    hash: [u8; 32],
}

/// `constitution.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    version: u32,
    article: Vec<Article>,
    rule: Vec<Rule>,
    #[serde(default)]
    bound: Vec<Bound>,
}

/// A principle, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Article {
    /// Such as `A2.1`.
    pub id: String,
    /// In a few words.
    pub title: String,
    /// What it says.
    pub text: String,
    /// Whether it may only be extended.
    #[serde(default)]
    pub entrenched: bool,
}

/// What is done about content; of several that fit, the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Such as `R-H1`.
    pub id: String,
    /// The article that it comes from.
    pub article: String,
    /// What it is for.
    pub when: When,
    /// What is done.
    #[serde(flatten)]
    pub measure: Measure,
}

/// What a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// How grave.
    pub level: Level,
    /// Which category of the level; none for all.
    #[serde(default)]
    pub category: Option<String>,
    /// In which namespace; none for all.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl When {
    fn fits(&self, level: Level, category: &str, namespace: &str) -> bool {
        let is = |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|wanted| wanted == have);
        self.level == level && is(&self.category, category) && is(&self.namespace, namespace)
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// To the content.
    pub action: Action,
    /// Whether the evidence is kept under seal.
    #[serde(default)]
    pub seal_evidence: bool,
    /// After how many times the sender is suspended; 0 never.
    #[serde(default)]
    pub strikes: u8,
    /// For how many hours.
    #[serde(default)]
    pub suspend_hours: u32,
    /// Whether the sender is told.
    #[serde(default)]
    pub notice: bool,
    /// For how many days an appeal is possible.
    #[serde(default)]
    pub appeal_days: u32,
}

/// What is done to content, from nothing to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    Allow,
    /// Nothing, and help is offered to the sender.
    Support,
    /// It is marked.
    Label,
    /// Parts are blackened.
    Redact,
    /// Parts are replaced by names that only a vault can resolve.
    Tokenise,
    /// Fewer see it.
    Limit,
    /// Nobody sees it.
    Block,
}

/// Between which values a vote may move a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The parameter.
    pub key: String,
    /// The article that limits it.
    pub article: String,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Longest step of one vote, in percent of the value before.
    pub max_change_pct: f64,
}

/// Why a text is no constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is larger than any may be.
    #[error("a constitution has at most {MAX_BYTES} bytes")]
    TooLarge,
    /// It is not TOML of the right shape; the reason has line and column.
    #[error("{reason}")]
    Toml {
        /// What the parser said.
        reason: String,
    },
    /// Two articles, rules or bounds have one name.
    #[error("`{id}` is there twice")]
    Twice {
        /// The name.
        id: String,
    },
    /// A rule or bound cites an article that is not there.
    #[error("`{by}` cites article `{article}`, which is not there")]
    Article {
        /// The rule or bound.
        by: String,
        /// What it cites.
        article: String,
    },
    /// A rule is for a category that its level does not have.
    #[error("rule `{rule}`: level {level:?} has no category `{category}`")]
    Category {
        /// The rule.
        rule: String,
        /// Its level.
        level: Level,
        /// What it is for.
        category: String,
    },
    /// No rule is for a category in every namespace.
    #[error("no rule is for `{category}` of level {level:?} in every namespace")]
    Uncovered {
        /// The level.
        level: Level,
        /// The category.
        category: String,
    },
    /// A rule would sanction a viewpoint.
    #[error("rule `{rule}` sanctions a viewpoint: H3 is allowed or supported, nothing else")]
    Viewpoint {
        /// The rule.
        rule: String,
    },
    /// A rule restricts, and nobody is told or can appeal.
    #[error("rule `{rule}` restricts without notice and appeal")]
    NoAppeal {
        /// The rule.
        rule: String,
    },
    /// A bound leaves nothing, or is not a number.
    #[error("bound `{key}`: min, max and change are numbers, min at most max, change not negative")]
    Bound {
        /// The parameter.
        key: String,
    },
}

impl Document {
    /// Reads `constitution.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(toml: &str) -> Result<Self, DocumentError> {
        if toml.len() > MAX_BYTES {
            return Err(DocumentError::TooLarge);
        }
        let reason = |error: &dyn std::fmt::Display| DocumentError::Toml { reason: error.to_string() };
        let text: Text = toml::from_str(toml).map_err(|error| reason(&error))?;
        text.check()?;
        let table: toml::Table = toml::from_str(toml).map_err(|error| reason(&error))?;
        let canonical = serde_json_canonicalizer::to_vec(&table).map_err(|error| reason(&error))?;
        Ok(Self { text, hash: Sha256::digest(canonical).into() })
    }

    /// Whose constitution it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text.name
    }

    /// Counts from 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.text.version
    }

    /// SHA-256 of the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// All articles, in order.
    #[must_use]
    pub fn articles(&self) -> &[Article] {
        &self.text.article
    }

    /// An article by its name.
    #[must_use]
    pub fn article(&self, id: &str) -> Option<&Article> {
        self.text.article.iter().find(|article| article.id == id)
    }

    /// All rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.text.rule
    }

    /// All bounds.
    #[must_use]
    pub fn bounds(&self) -> &[Bound] {
        &self.text.bound
    }

    /// The bound of a parameter.
    #[must_use]
    pub fn bound(&self, key: &str) -> Option<&Bound> {
        self.text.bound.iter().find(|bound| bound.key == key)
    }

    /// The rule for content, and its article; none when the level has no such category.
    #[must_use]
    pub fn rule_for(&self, level: Level, category: &str, namespace: &str) -> Option<(&Rule, &Article)> {
        if !categories(level).contains(&category) {
            return None;
        }
        let rule = self.text.rule.iter().find(|rule| rule.when.fits(level, category, namespace))?;
        Some((rule, self.article(&rule.article)?))
    }
}

impl Text {
    fn check(&self) -> Result<(), DocumentError> {
        let ids = self.article.iter().map(|article| &article.id).chain(self.rule.iter().map(|rule| &rule.id));
        let mut names = BTreeSet::new();
        if let Some(id) = ids.chain(self.bound.iter().map(|bound| &bound.key)).find(|id| !names.insert(*id)) {
            return Err(DocumentError::Twice { id: id.clone() });
        }
        let articles: BTreeMap<_, _> = self.article.iter().map(|article| (&article.id, article)).collect();
        let cited = self.rule.iter().map(|rule| (&rule.id, &rule.article));
        for (by, article) in cited.chain(self.bound.iter().map(|bound| (&bound.key, &bound.article))) {
            if !articles.contains_key(article) {
                return Err(DocumentError::Article { by: by.clone(), article: article.clone() });
            }
        }
        self.rule.iter().try_for_each(Rule::check)?;
        self.bound.iter().try_for_each(Bound::check)?;
        self.check_cover()
    }

    fn check_cover(&self) -> Result<(), DocumentError> {
        for level in Level::ALL {
            for category in categories(level) {
                let covers = |rule: &Rule| rule.when.namespace.is_none() && rule.when.fits(level, category, "");
                if !self.rule.iter().any(covers) {
                    return Err(DocumentError::Uncovered { level, category: (*category).to_owned() });
                }
            }
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), DocumentError> {
        let (rule, level, measure) = (self.id.clone(), self.when.level, self.measure);
        if let Some(category) = &self.when.category
            && !categories(level).contains(&category.as_str())
        {
            return Err(DocumentError::Category { rule, level, category: category.clone() });
        }
        let sanctions = measure.action > Action::Support || measure.strikes > 0 || measure.suspend_hours > 0;
        if level == Level::H3 && sanctions {
            return Err(DocumentError::Viewpoint { rule });
        }
        // Data is redacted as a service to its owner, in passing.
        let can_appeal = measure.notice && measure.appeal_days > 0;
        if sanctions && level != Level::D && !can_appeal {
            return Err(DocumentError::NoAppeal { rule });
        }
        Ok(())
    }
}

impl Bound {
    fn check(&self) -> Result<(), DocumentError> {
        let numbers = [self.min, self.max, self.max_change_pct].into_iter().all(f64::is_finite);
        let good = numbers && self.min <= self.max && self.max_change_pct >= 0.0;
        if good { Ok(()) } else { Err(DocumentError::Bound { key: self.key.clone() }) }
    }
}
