//! The rules: what a candidate looks like, what makes it valid, which words near it speak for it.

mod contact;
mod health;
mod money;
mod national;
mod secrets;

use std::ops::Range;

use super::DataKind;
use super::context::{ORDER, Topics, Window};

/// A candidate below this is not reported.
pub(super) const MIN_SCORE: u8 = 50;
/// What a word that speaks against a rule takes from its score.
const PENALTY: u8 = 30;
/// Words between a candidate and its context, where a rule says nothing else.
const REACH: usize = 6;
/// How `<M>` reads in a pattern: a month by name, English, German, some Spanish, Italian, French.
const MONTH: &str = concat!(
    r"(?:[Jj]an(?:uary|uar|vier)?|[Ff]eb(?:ruary|ruar)?|[Mm]ar(?:ch|zo|s)?|[Mm]\xC3\xA4rz|[Aa]pr(?:il)?|[Mm]a[yi]|",
    r"[Jj]un[ie]?|[Jj]ul[yi]?|[Aa]ug(?:ust)?|[Ss]ep(?:t|tember)?|[Oo]ct(?:ober)?|[Oo]kt(?:ober)?|[Nn]ov(?:ember)?|",
    r"[Dd]ec(?:ember)?|[Dd]ez(?:ember)?)\.?"
);
/// How `<S>` reads in a pattern: space, dot, hyphen, and the space and hyphen at which lines do not break.
const SEPARATOR: &str = r"(?:[ .\-]|\xC2\xA0|\xE2\x80\x91)";

/// What may stand beside a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Anything but a letter or digit.
    Word,
    /// Not the middle of a longer number, name, version or UUID.
    Number,
    /// Anything on the right: the check has cut the candidate, or what it consists of cannot go on.
    Open,
}

/// The test a candidate must pass besides its pattern.
#[derive(Debug, Clone, Copy)]
enum Check {
    Any,
    /// Its bytes.
    Is(fn(&[u8]) -> bool),
    /// The text and where the candidate is; says where the finding is.
    Span(fn(&[u8], Range<usize>) -> Option<Range<usize>>),
}

/// More bytes that belong to a candidate: those of a class that follow its pattern, at most so many.
#[derive(Debug, Clone, Copy)]
struct Run {
    class: fn(u8) -> bool,
    max: usize,
}

/// One rule. Patterns are of bytes, without look-around, and bounded; what is unbounded is a run.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) kind: DataKind,
    pattern: &'static str,
    check: Check,
    run: Option<Run>,
    edge: Edge,
    /// Score without context.
    base: u8,
    /// Score with a word of `topics` near.
    near: u8,
    topics: Topics,
    reach: usize,
    /// The topic must be the nearest label, not only near.
    is_labelled: bool,
    against: Topics,
}

impl Rule {
    const fn new(kind: DataKind, pattern: &'static str, base: u8) -> Self {
        Rule {
            kind,
            pattern,
            check: Check::Any,
            run: None,
            edge: Edge::Number,
            base,
            near: base,
            topics: Topics::NONE,
            reach: REACH,
            is_labelled: false,
            against: ORDER,
        }
    }

    const fn is(self, check: fn(&[u8]) -> bool) -> Self {
        Rule { check: Check::Is(check), ..self }
    }

    const fn span(self, check: fn(&[u8], Range<usize>) -> Option<Range<usize>>) -> Self {
        Rule { check: Check::Span(check), ..self }
    }

    const fn run(self, class: fn(u8) -> bool, max: usize) -> Self {
        Rule { run: Some(Run { class, max }), ..self }
    }

    const fn edge(self, edge: Edge) -> Self {
        Rule { edge, ..self }
    }

    /// Scores `near` with a word of these topics within six.
    const fn near(self, topics: Topics, near: u8) -> Self {
        Rule { near, topics, ..self }
    }

    /// Scores `near` if the nearest label within `reach` words is of these topics.
    const fn labelled(self, topics: Topics, reach: usize, near: u8) -> Self {
        Rule { topics, near, reach, is_labelled: true, ..self }
    }

    /// Hears words only up to so many words away.
    const fn reach(self, reach: usize) -> Self {
        Rule { reach, ..self }
    }

    const fn against(self, topics: Topics) -> Self {
        Rule { against: topics, ..self }
    }

    /// The pattern as the automaton reads it.
    pub(super) fn pattern(&self) -> String {
        self.pattern.replace("<S>", SEPARATOR).replace("<M>", MONTH)
    }

    /// Whether the finding is longer than what the pattern matches.
    pub(super) fn has_run(&self) -> bool {
        self.run.is_some()
    }

    /// The candidate with its run.
    pub(super) fn extended(&self, text: &[u8], span: Range<usize>) -> Range<usize> {
        let Some(run) = self.run else { return span };
        let rest = text.get(span.end..).unwrap_or_default();
        let more = rest.iter().take(run.max).take_while(|byte| (run.class)(**byte)).count();
        span.start..span.end + more
    }

    /// Where the finding is, if the candidate may stand here and passes the test.
    pub(super) fn valid(&self, text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
        if !self.edge.allows(text, &span) {
            return None;
        }
        match self.check {
            Check::Any => Some(span),
            Check::Is(check) => text.get(span.clone()).is_some_and(check).then_some(span),
            Check::Span(check) => check(text, span),
        }
    }

    /// Score of a valid candidate in its context.
    pub(super) fn score(&self, window: &Window) -> u8 {
        if self.is_labelled && window.is_labelled(self.topics, self.reach) {
            return self.near;
        }
        let is_near = !self.is_labelled && window.has(self.topics, self.reach);
        let score = if is_near { self.near } else { self.base };
        if window.is_preceded(self.against) { score.saturating_sub(PENALTY) } else { score }
    }
}

/// All rules; the place in the list is the automaton's pattern number.
pub(super) fn all() -> Vec<Rule> {
    [contact::rules(), money::rules(), national::rules(), health::rules(), secrets::rules()].concat()
}

impl Edge {
    fn allows(self, text: &[u8], span: &Range<usize>) -> bool {
        let before = text.get(..span.start).unwrap_or_default();
        let behind = text.get(span.end..).unwrap_or_default();
        let left = ends_apart(before);
        match self {
            Edge::Word => left && starts_apart(behind),
            Edge::Number => left && starts_apart(behind) && !joins_left(before) && !joins_right(behind),
            Edge::Open => left,
        }
    }
}

/// The text ends in no letter or digit.
fn ends_apart(before: &[u8]) -> bool {
    match before.last() {
        Some(byte) if byte.is_ascii() => !byte.is_ascii_alphanumeric(),
        Some(_) => !last_char(before).is_some_and(char::is_alphanumeric),
        None => true,
    }
}

/// The text starts with no letter or digit.
fn starts_apart(behind: &[u8]) -> bool {
    match behind.first() {
        Some(byte) if byte.is_ascii() => !byte.is_ascii_alphanumeric(),
        Some(_) => !first_char(behind).is_some_and(char::is_alphanumeric),
        None => true,
    }
}

/// At most the last four bytes are read: the text may be long.
fn last_char(text: &[u8]) -> Option<char> {
    let start = (1..=4).filter_map(|back| text.len().checked_sub(back)).find(|at| (text[*at] & 0xC0) != 0x80)?;
    str::from_utf8(text.get(start..)?).ok()?.chars().next()
}

fn first_char(text: &[u8]) -> Option<char> {
    (1..=4).find_map(|len| str::from_utf8(text.get(..len)?).ok()?.chars().next())
}

/// A number that goes on to the left: `12.`, `a-` (a group of a UUID), `@`.
fn joins_left(before: &[u8]) -> bool {
    match before {
        [.., b'@'] => true,
        [.., other, b'-'] => other.is_ascii_alphanumeric(),
        [.., other, b'.' | b',' | b'/' | b':' | b'_' | b'+'] => other.is_ascii_digit(),
        _ => false,
    }
}

fn joins_right(behind: &[u8]) -> bool {
    match behind {
        [b'@', ..] => true,
        [b'-', other, ..] => other.is_ascii_alphanumeric(),
        [b'.' | b',' | b'/' | b':' | b'_', other, ..] => other.is_ascii_digit(),
        _ => false,
    }
}

/// Count of ASCII digits.
fn digits_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| byte.is_ascii_digit()).count()
}

/// Letters, digits and hyphens.
fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_keep_candidates_out_of_longer_things() {
        let allows = |edge: Edge, before: &str, behind: &str| {
            let text = format!("{before}77{behind}");
            edge.allows(text.as_bytes(), &(before.len()..before.len() + 2))
        };
        for (before, behind) in [("", ""), (" ", "."), ("tel:", ","), ("(", ")"), ("“", "”"), ("card_", ". A")] {
            assert!(allows(Edge::Number, before, behind), "{before}77{behind}");
        }
        for (before, behind) in
            [("a", ""), ("é", ""), ("a-", ""), ("1.", ""), ("x@", ""), ("", "-a"), ("", ".5"), ("", "ß")]
        {
            assert!(!allows(Edge::Number, before, behind), "{before}77{behind}");
        }
        assert!(allows(Edge::Word, "a-", "-a"));
        assert!(allows(Edge::Open, "", "a"));
        assert!(!allows(Edge::Open, "a", ""));
    }

    #[test]
    fn every_rule_can_reach_the_threshold() {
        for rule in all() {
            assert!(rule.base.max(rule.near) >= MIN_SCORE && rule.near <= 100, "{rule:?}");
        }
    }
}
