//! The scan: candidates from one automaton, then the rules' checks, then the longest of what overlaps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::LazyLock;

use regex_automata::hybrid::dfa::{Cache, DFA, OverlappingState};
use regex_automata::util::pool::Pool;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, nfa::thompson};

use super::checksum::Digits;
use super::context::{self, Window};
use super::rules::{self, MIN_SCORE, Rule};
use super::token::TOKEN_LEN;
use super::{DataKind, Finding, names};

/// Bytes for the states of the automaton per thread that scans; it forgets them all when they are full.
const CACHE_BYTES: usize = 16 << 20;
/// Candidates of one start that are looked at; a digit run of 19 has fewer.
const MAX_ENDS: usize = 256;
/// A placeholder's number has at most so many digits: more could carry data.
const PLACEHOLDER_DIGITS: usize = 6;

/// The last number a placeholder can have.
pub(super) const MAX_NUMBER: u32 = 999_999;

type MakeCache = Box<dyn Fn() -> Cache + Send + Sync>;

struct Engine {
    rules: Vec<Rule>,
    dfa: DFA,
    caches: Pool<Cache, MakeCache>,
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let rules = rules::all();
    let patterns: Vec<String> = rules.iter().map(Rule::pattern).collect();
    let dfa = DFA::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false))
        .configure(DFA::config().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES))
        .build_many(&patterns)
        .expect("the patterns are constants and a test builds them");
    let made = dfa.clone();
    Engine { rules, dfa, caches: Pool::new(Box::new(move || made.create_cache())) }
});

/// All findings of the wanted kinds, the longest first where they overlap, in the order of the text.
pub(super) fn scan(text: &str, wanted: impl Fn(DataKind) -> bool) -> Vec<Finding> {
    let engine = &*ENGINE;
    let mut cache = engine.caches.get();
    let deaf = placeholders(text);
    let mut scan = Scan { engine, text, deaf: &deaf, reached: vec![0; engine.rules.len()], found: Vec::new() };
    for start in starts(text.as_bytes()) {
        if !context::inside(&deaf, start) {
            scan.at(&mut cache, start, &wanted);
        }
    }
    let mut found = scan.found;
    if wanted(DataKind::Cvv) {
        found.extend(beside_cards(text.as_bytes(), &found));
    }
    let mut found = longest(found);
    if names::KINDS.into_iter().any(&wanted) {
        // What has a pattern is surer than what has none, however long that is.
        let patterned: Vec<_> = found.iter().map(|finding| finding.span.clone()).collect();
        let tagged = names::scan(text, &deaf, &wanted).into_iter();
        found.extend(tagged.filter(|finding| !context::meets(&patterned, &finding.span)));
        found.sort_by_key(|finding| finding.span.start);
    }
    found
}

/// Where a word, number or sign that patterns begin with stands.
fn starts(text: &[u8]) -> impl Iterator<Item = usize> {
    let mut is_inside = false;
    text.iter().enumerate().filter_map(move |(at, byte)| {
        let is_word = byte.is_ascii_alphanumeric() || *byte >= 0x80;
        let is_start = is_word && !is_inside || matches!(byte, b'+' | b'-' | b'(' | b':');
        is_inside = is_word;
        is_start.then_some(at)
    })
}

struct Scan<'a> {
    engine: &'a Engine,
    text: &'a str,
    deaf: &'a [Range<usize>],
    /// How far each rule's runs have been read: what starts before that is part of one.
    reached: Vec<usize>,
    found: Vec<Finding>,
}

impl Scan<'_> {
    /// Looks at what starts here.
    fn at(&mut self, cache: &mut Cache, start: usize, wanted: impl Fn(DataKind) -> bool) {
        let mut ends = self.ends(cache, start);
        if ends.is_empty() {
            return;
        }
        // Of one rule the longest candidate that is valid counts.
        ends.sort_unstable_by_key(|(rule, end)| (*rule, Reverse(*end)));
        let mut done = None;
        let mut heard: Option<(Range<usize>, Window)> = None;
        for (place, end) in ends {
            let Some(rule) = self.engine.rules.get(place) else { continue };
            if done == Some(place) || !wanted(rule.kind) {
                continue;
            }
            let Some(span) = self.valid(rule, place, start..end) else { continue };
            done = Some(place);
            if heard.as_ref().is_none_or(|(known, _)| *known != span) {
                heard = Some((span.clone(), Window::around(self.text.as_bytes(), &span, self.deaf)));
            }
            let score = heard.as_ref().map_or(0, |(_, window)| rule.score(window));
            if score >= MIN_SCORE {
                self.found.push(Finding { kind: rule.kind, span, score });
            }
        }
    }

    /// Every rule and every end at which it matches from here.
    fn ends(&self, cache: &mut Cache, start: usize) -> Vec<(usize, usize)> {
        let input = Input::new(self.text.as_bytes()).range(start..).anchored(Anchored::Yes);
        let mut state = OverlappingState::start();
        let mut ends = Vec::new();
        while ends.len() < MAX_ENDS
            && self.engine.dfa.try_search_overlapping_fwd(cache, &input, &mut state).is_ok()
            && let Some(half) = state.get_match()
        {
            ends.push((half.pattern().as_usize(), half.offset()));
        }
        ends
    }

    fn valid(&mut self, rule: &Rule, place: usize, span: Range<usize>) -> Option<Range<usize>> {
        let mut span = span;
        if rule.has_run() {
            let reached = self.reached.get_mut(place)?;
            if span.start < *reached {
                return None;
            }
            span = rule.extended(self.text.as_bytes(), span);
            *reached = span.end;
        }
        let span = rule.valid(self.text.as_bytes(), span)?;
        let is_whole = self.text.is_char_boundary(span.start) && self.text.is_char_boundary(span.end);
        (is_whole && !context::meets(self.deaf, &span) && !span.is_empty()).then_some(span)
    }
}

/// Longest first, then surest; what overlaps one that stays goes.
fn longest(mut found: Vec<Finding>) -> Vec<Finding> {
    found
        .sort_by_key(|finding| (Reverse(finding.span.len()), Reverse(finding.score), finding.span.start, finding.kind));
    let mut kept: BTreeMap<usize, Finding> = BTreeMap::new();
    for finding in found {
        let before = kept.range(..finding.span.end).next_back();
        if before.is_none_or(|(_, other)| other.span.end <= finding.span.start) {
            kept.insert(finding.span.start, finding);
        }
    }
    kept.into_values().collect()
}

/// Verification values that no word names: behind a card number and its month of expiry.
fn beside_cards(text: &[u8], found: &[Finding]) -> Vec<Finding> {
    let cards = found.iter().filter(|finding| finding.kind == DataKind::Pan);
    cards.filter_map(|card| beside(text, card.span.end)).collect()
}

/// `4111111111111111 12/27 123`: month, year, then three or four digits.
fn beside(text: &[u8], end: usize) -> Option<Finding> {
    let next = |at: usize| {
        let skipped =
            text.get(at..)?.iter().take(4).take_while(|byte| matches!(byte, b' ' | b',' | b';' | b'|' | b'\t')).count();
        let start = at + skipped;
        let len = text.get(start..)?.iter().take(8).take_while(|byte| byte.is_ascii_digit() || **byte == b'/').count();
        (skipped > 0 && len > 0).then_some(start..start + len)
    };
    let expiry = next(end)?;
    let month = text.get(expiry.clone())?;
    let is_expiry =
        month.get(2) == Some(&b'/') && matches!(month.len(), 5 | 7) && Digits::of(month)?.as_slice().len() >= 4;
    let value = next(expiry.end).filter(|_| is_expiry)?;
    let is_value = matches!(value.len(), 3 | 4) && text.get(value.clone())?.iter().all(u8::is_ascii_digit);
    let is_apart = text.get(value.end).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (is_value && is_apart).then_some(Finding { kind: DataKind::Cvv, span: value, score: 90 })
}

/// The last number of each kind of placeholder in the text.
pub(super) fn last_placeholders(text: &str) -> HashMap<DataKind, u32> {
    let mut last = HashMap::new();
    for (_, kind, number) in bracketed(text) {
        let known: &mut u32 = last.entry(kind).or_default();
        *known = number.max(*known);
    }
    last
}

/// `[EMAIL_1]`: where, what, which.
fn bracketed(text: &str) -> impl Iterator<Item = (Range<usize>, DataKind, u32)> {
    text.match_indices('[').filter_map(|(at, _)| {
        let inner = text.as_bytes().get(at + 1..)?;
        let len = inner.iter().take(32).position(|byte| *byte == b']')?;
        let (label, count) = text.get(at + 1..at + 1 + len)?.rsplit_once('_')?;
        let is_count = count.len() <= PLACEHOLDER_DIGITS && count.bytes().all(|byte| byte.is_ascii_digit());
        let kind = DataKind::ALL.into_iter().find(|kind| kind.label() == label)?;
        Some((at..at + len + 2, kind, count.parse().ok().filter(|_| is_count)?))
    })
}

/// Where redaction has been: `[EMAIL_1]`, `tok_...`; sorted.
fn placeholders(text: &str) -> Vec<Range<usize>> {
    let tokens = text.match_indices("tok_").filter_map(|(at, _)| {
        let token = text.get(at..at + TOKEN_LEN)?;
        super::Token::is_well_formed(token).then_some(at..at + TOKEN_LEN)
    });
    let mut ranges: Vec<_> = bracketed(text).map(|(range, ..)| range).chain(tokens).collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}
