//! Rules: terms and patterns that add to the logit of a category, and a few that decide alone.
//!
//! A rule brings texts that it must hit and texts that it must miss; a test holds it to them. Terms and patterns see
//! the folded words (lower case, one space, no punctuation but `?` and `"`); `raw` patterns see the text as it came.

use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Regex, RegexBuilder, RegexSet};
use serde::Deserialize;

use super::guarded::Guards;
use super::taxonomy::{Category, Level};
use super::words::Words;

/// Most hits of one rule that are kept as evidence.
const HITS: usize = 8;

/// Rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// It is not the TOML that is expected.
    #[error("rules: {0}")]
    Syntax(String),
    /// A pattern or the list of terms does not compile.
    #[error("rules: {0}")]
    Pattern(String),
    /// A rule says something that no rule may.
    #[error("rule {id}: {why}")]
    Rule {
        /// The rule.
        id: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// What a rule's hit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It speaks for the category.
    Harm,
    /// The sender may be at risk and is to be shown help.
    Support,
}

/// A rule as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, `R-...`.
    pub id: String,
    /// The category it speaks for.
    pub category: Category,
    /// What is added to the category's logit.
    #[serde(default)]
    pub weight: f32,
    /// Whether it decides alone.
    #[serde(default)]
    pub hard: bool,
    /// What a hit means.
    #[serde(default = "harm")]
    pub effect: Effect,
    /// Words and phrases, folded.
    #[serde(default)]
    terms: Vec<String>,
    /// Regular expressions over folded words.
    #[serde(default)]
    patterns: Vec<String>,
    /// Beginnings of words without one of which none of `patterns` hits: they are looked for first, all at once.
    /// Empty for patterns that are always tried.
    #[serde(default)]
    needs: Vec<String>,
    /// Regular expressions over the text as it came.
    #[serde(default)]
    raw: Vec<String>,
    /// Guards near a hit that take it back.
    #[serde(default)]
    unless: Vec<String>,
    /// Texts it must hit.
    #[serde(default)]
    pub hit: Vec<String>,
    /// Texts it must miss.
    #[serde(default)]
    pub miss: Vec<String>,
}

fn harm() -> Effect {
    Effect::Harm
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Alternatives that patterns and guards name as `%name%`.
    #[serde(default)]
    list: BTreeMap<String, String>,
    #[serde(default)]
    guard: BTreeMap<String, Vec<String>>,
    rule: Vec<Rule>,
}

impl File {
    /// Writes the lists into the patterns. A list may name those before it in the alphabet.
    fn expand(&mut self) {
        let mut lists: Vec<(String, String)> = Vec::new();
        for (name, text) in &self.list {
            let text = filled(text, &lists);
            lists.push((format!("%{name}%"), format!("(?:{text})")));
        }
        let of_guards = self.guard.values_mut().flatten();
        for pattern in self.rule.iter_mut().flat_map(|rule| &mut rule.patterns).chain(of_guards) {
            *pattern = filled(pattern, &lists);
        }
    }
}

fn filled(pattern: &str, lists: &[(String, String)]) -> String {
    lists.iter().fold(pattern.to_owned(), |pattern, (name, text)| pattern.replace(name, text))
}

/// Patterns over folded words. One set of them all would be slower: its automaton outgrows its cache.
#[derive(Debug)]
struct Folded {
    /// Patterns of each rule.
    each: Vec<Vec<Regex>>,
    needs: AhoCorasick,
    /// The rule of each need.
    owners: Vec<usize>,
}

impl Folded {
    fn compile(rules: &[Rule]) -> Result<Self, RulesError> {
        let fail = |e: regex::Error| RulesError::Pattern(e.to_string());
        // Without Unicode `\w` is ASCII: repetitions of it stay small enough for an automaton.
        let one = |source: &String| RegexBuilder::new(source).unicode(false).build().map_err(fail);
        let each = rules.iter().map(|rule| rule.patterns.iter().map(one).collect()).collect::<Result<_, _>>()?;
        let needs = || rules.iter().enumerate().flat_map(|(n, rule)| rule.needs.iter().map(move |need| (n, need)));
        let automaton = AhoCorasick::new(needs().map(|(_, need)| format!(" {need}")));
        Ok(Self {
            each,
            needs: automaton.map_err(|e| RulesError::Pattern(e.to_string()))?,
            owners: needs().map(|(n, _)| n).collect(),
        })
    }

    fn hits<'a>(&'a self, rules: &'a [Rule], text: &'a str) -> impl Iterator<Item = Hit> + 'a {
        let mut is_tried: Vec<bool> = rules.iter().map(|rule| rule.needs.is_empty()).collect();
        for found in self.needs.find_overlapping_iter(text) {
            let owner = self.owners.get(found.pattern().as_usize());
            if let Some(is_tried) = owner.and_then(|rule| is_tried.get_mut(*rule)) {
                *is_tried = true;
            }
        }
        let tried = is_tried.into_iter().zip(&self.each).enumerate().filter(|(_, (is_tried, _))| *is_tried);
        tried.flat_map(move |(rule, (_, patterns))| {
            patterns.iter().flat_map(move |regex| {
                regex.find_iter(text).take(HITS).map(move |found| Hit { rule, range: found.range() })
            })
        })
    }
}

/// Patterns over a text as it came, with the rules they belong to.
#[derive(Debug)]
struct Patterns {
    set: RegexSet,
    each: Vec<(Regex, usize)>,
}

impl Patterns {
    fn compile<'a>(rules: impl Iterator<Item = (usize, &'a [String])>) -> Result<Self, RulesError> {
        let fail = |e: regex::Error| RulesError::Pattern(e.to_string());
        let sources: Vec<(usize, &String)> = rules.flat_map(|(rule, all)| all.iter().map(move |p| (rule, p))).collect();
        let set = RegexSet::new(sources.iter().map(|(_, source)| source));
        let one = |source: &str| Regex::new(source).map_err(fail);
        let each = sources.iter().map(|(rule, source)| Ok((one(source)?, *rule)));
        Ok(Self { set: set.map_err(fail)?, each: each.collect::<Result<_, _>>()? })
    }

    fn hits<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Hit> + 'a {
        self.set.matches(text).into_iter().filter_map(|n| self.each.get(n)).flat_map(move |(regex, rule)| {
            regex.find_iter(text).take(HITS).map(|found| Hit { rule: *rule, range: found.range() })
        })
    }
}

/// A place where a rule hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The rule's place in [`Rules::rules`].
    pub rule: usize,
    /// Bytes of the text that was looked at.
    pub range: Range<usize>,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Rules {
    all: Vec<Rule>,
    terms: AhoCorasick,
    /// The rule of each term.
    owners: Vec<usize>,
    folded: Folded,
    raw: Patterns,
    guards: Guards,
}

impl Rules {
    /// Reads and compiles rules.
    ///
    /// # Errors
    /// [`RulesError`]; rules are part of a release, so fix the release.
    pub fn parse(toml: &str) -> Result<Self, RulesError> {
        let mut file: File = toml::from_str(toml).map_err(|e| RulesError::Syntax(e.to_string()))?;
        file.expand();
        let guards = Guards::compile(&file.guard).map_err(|e| RulesError::Pattern(e.to_string()))?;
        let rules = file.rule;
        rules.iter().try_for_each(|rule| check(rule, &guards))?;
        let terms = || rules.iter().enumerate().flat_map(|(n, rule)| rule.terms.iter().map(move |term| (n, term)));
        // The space before a term makes it start with a word.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(terms().map(|(_, term)| format!(" {term}")))
            .map_err(|e| RulesError::Pattern(e.to_string()))?;
        Ok(Self {
            terms: automaton,
            owners: terms().map(|(n, _)| n).collect(),
            folded: Folded::compile(&rules)?,
            raw: Patterns::compile(rules.iter().map(|rule| rule.raw.as_slice()).enumerate())?,
            all: rules,
            guards,
        })
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.all
    }

    /// Hits in folded words; ranges are of [`Words::text`].
    pub fn hits<'a>(&'a self, words: &'a Words) -> impl Iterator<Item = Hit> + 'a {
        let text = words.text();
        let is_whole = move |end: usize| text.as_bytes().get(end).is_none_or(|byte| *byte == b' ');
        let terms = self.terms.find_iter(text).filter(move |found| is_whole(found.end())).filter_map(|found| {
            let rule = *self.owners.get(found.pattern().as_usize())?;
            Some(Hit { rule, range: found.start() + 1..found.end() })
        });
        let unless = |rule: usize| self.all.get(rule).map_or(&[][..], |rule| &rule.unless);
        let all = terms.take(HITS * self.all.len()).chain(self.folded.hits(&self.all, text));
        all.filter(move |hit| !self.guards.speak(unless(hit.rule), text, &hit.range))
    }

    /// Hits in a text as it came.
    pub fn raw_hits<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Hit> + 'a {
        self.raw.hits(text)
    }
}

fn check(rule: &Rule, guards: &Guards) -> Result<(), RulesError> {
    let fail = |why| Err(RulesError::Rule { id: rule.id.clone(), why });
    if rule.terms.is_empty() && rule.patterns.is_empty() && rule.raw.is_empty() {
        return fail("has neither terms nor patterns");
    }
    if rule.unless.iter().any(|name| !guards.has(name)) {
        return fail("names a guard that is not there");
    }
    // A viewpoint has no rule: its category cannot lead to an action.
    if rule.category.level() == Level::H3 {
        return fail("is for a viewpoint");
    }
    if !rule.weight.is_finite() || !(0.0..=20.0).contains(&rule.weight) {
        return fail("has a weight outside 0 to 20");
    }
    if rule.effect == Effect::Support && (rule.hard || rule.weight > 0.0) {
        return fail("offers help and sanctions at once");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::norm::{self, views};
    use super::*;

    const SHIPPED: &str = include_str!("../../data/rules.toml");

    fn hits(rules: &Rules, text: &str) -> Vec<String> {
        let mut ids: Vec<usize> = rules.raw_hits(text).map(|hit| hit.rule).collect();
        for view in views(text) {
            ids.extend(rules.hits(&Words::of(&view.text)).map(|hit| hit.rule));
        }
        ids.into_iter().map(|n| rules.rules()[n].id.clone()).collect()
    }

    #[test]
    fn each_rule_hits_and_misses_what_it_says() {
        let rules = Rules::parse(SHIPPED).unwrap();
        let mut wrong = Vec::new();
        for rule in rules.rules() {
            assert!(rule.hit.len() >= 3 && rule.miss.len() >= 3, "{} needs three texts each", rule.id);
            wrong.extend(
                rule.hit.iter().filter(|text| !hits(&rules, text).contains(&rule.id)).map(|t| ("no hit", &rule.id, t)),
            );
            wrong.extend(
                rule.miss.iter().filter(|text| hits(&rules, text).contains(&rule.id)).map(|t| ("hit", &rule.id, t)),
            );
        }
        assert_eq!(wrong, []);
    }

    #[test]
    fn names_are_unique_and_terms_are_folded() {
        let rules = Rules::parse(SHIPPED).unwrap();
        let mut ids: Vec<&str> = rules.rules().iter().map(|rule| rule.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rules.rules().len());
        for term in rules.rules().iter().flat_map(|rule| &rule.terms) {
            assert_eq!(Words::of(&norm::Folded::of(term)).text().trim(), term);
        }
    }

    fn error(rule: &str) -> String {
        Rules::parse(&format!("[[rule]]\nid = \"R-X\"\n{rule}")).unwrap_err().to_string()
    }

    #[test]
    fn impossible_rules_are_refused() {
        assert!(error("category = \"tea\"").contains("unknown variant"));
        assert!(error("category = \"hate\"").contains("neither terms nor patterns"));
        assert!(error("category = \"protest\"\nterms = [\"x\"]").contains("viewpoint"));
        assert!(error("category = \"hate\"\nterms = [\"x\"]\nweight = 99.0").contains("0 to 20"));
        assert!(error("category = \"hate\"\nterms = [\"x\"]\nhard = true\neffect = \"support\"").contains("sanctions"));
        assert!(error("category = \"hate\"\npatterns = [\"(\"]").contains("unclosed group"));
        assert!(error("category = \"hate\"\nterms = [\"x\"]\nunless = [\"y\"]").contains("guard that is not there"));
    }

    #[test]
    fn lists_are_written_out_and_guards_take_hits_back() {
        let rules = Rules::parse(
            "[list]\na = \"x|y\"\nb = \"%a%|z\"\n[guard]\nreport = [\"%a% said\"]\n[[rule]]\nid = \"R-X\"\n\
             category = \"hate\"\nweight = 1.0\npatterns = ['\\bdo %b%\\b']\nunless = [\"report\"]",
        )
        .unwrap();
        assert_eq!(hits(&rules, "do x, do z").len(), 2);
        assert_eq!(hits(&rules, "do z, y said").len(), 0);
    }

    #[test]
    fn patterns_are_tried_only_where_their_needs_are() {
        let rules = Rules::parse(
            "[[rule]]\nid = \"R-X\"\ncategory = \"hate\"\nweight = 1.0\nneeds = [\"tea\", \"no milk\"]\n\
             patterns = ['\\bcup\\b']",
        )
        .unwrap();
        let found = |text: &str| hits(&rules, text).len();
        assert_eq!(
            [found("a cup of teas"), found("a cup, no milk"), found("a cup of steam"), found("a cup")],
            [1, 1, 0, 0]
        );
    }

    #[test]
    fn terms_match_whole_words_only() {
        let rules =
            Rules::parse("[[rule]]\nid = \"R-X\"\ncategory = \"hate\"\nweight = 1.0\nterms = [\"ass\", \"ass hat\"]")
                .unwrap();
        let found = |text: &str| hits(&rules, text).len();
        assert_eq!(
            [found("class"), found("assets"), found("an ass"), found("ass ass"), found("ass hat")],
            [0, 0, 1, 2, 1]
        );
    }
}
