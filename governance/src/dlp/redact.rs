//! Takes findings out of a text and remembers where they were.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::calendar::{self, Written};
use super::{Action, DataKind, DlpConfig, Finding, PseudonymKey, Token, coarse, context, engine, scan_for};

/// Rounds until nothing is found in what was redacted. Each takes out more of the text; ordinary text needs one, a text made
/// to need more keeps no finding longer than this.
const MAX_ROUNDS: usize = 32;

/// Redacts texts of one subject.
#[derive(Debug, Clone, Copy)]
pub struct Redactor<'a> {
    config: &'a DlpConfig,
    key: &'a PseudonymKey,
    subject: &'a str,
    this_year: i32,
}

/// A text without what was found in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redacted {
    /// The text.
    pub text: String,
    /// What was changed, in order.
    pub edits: Vec<Edit>,
    /// Values that tokens stand for, each once: to be stored before the text goes anywhere.
    pub vault: Vec<VaultEntry>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// What was found.
    pub kind: DataKind,
    /// What was done.
    pub action: Action,
    /// Bytes of the original.
    pub original: Range<usize>,
    /// Bytes of the redacted text; empty if it was dropped.
    pub redacted: Range<usize>,
}

/// A value and the token that stands for it. Its `Debug` form does not show the value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultEntry {
    /// What stands in the text.
    pub token: Token,
    /// What kind of data it is.
    pub kind: DataKind,
    /// What stood in the text first.
    pub value: String,
}

impl fmt::Debug for VaultEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultEntry").field("token", &self.token).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'a> Redactor<'a> {
    /// A redactor: what to find, what to derive stand-ins with, and whose dates are moved alike.
    #[must_use]
    pub fn new(config: &'a DlpConfig, key: &'a PseudonymKey, subject: &'a str) -> Self {
        Redactor { config, key, subject, this_year: i32::MIN }
    }

    /// Tells the year it is: of a date so long ago that who was born then is above 89, no year stays either. Without it all do.
    #[must_use]
    pub fn in_year(self, this_year: i32) -> Self {
        Redactor { this_year, ..self }
    }

    /// Takes out what the configuration's profiles find. In the result they find nothing more.
    #[must_use]
    pub fn redact(&self, text: &str) -> Redacted {
        let mut findings = scan_for(text, self.config);
        let mut redacted = self.apply(text, &findings);
        for _ in 0..MAX_ROUNDS {
            // What an edit has moved together, or what a longer finding has hidden, may be data only now.
            let more = self.left_in(&redacted);
            if more.is_empty() {
                break;
            }
            let spans: Vec<_> = more.iter().map(|finding| finding.span.clone()).collect();
            findings.retain(|old| !context::meets(&spans, &old.span));
            findings.extend(more);
            findings.sort_by_key(|finding| finding.span.start);
            redacted = self.apply(text, &findings);
        }
        redacted
    }

    /// What is still found, in bytes of the original; not what was put there.
    fn left_in(&self, redacted: &Redacted) -> Vec<Finding> {
        let found = scan_for(&redacted.text, self.config).into_iter();
        let told = found.filter(|finding| !redacted.has_put(&finding.span));
        told.map(|finding| Finding { span: redacted.original(&finding.span), ..finding }).collect()
    }

    fn apply(&self, text: &str, findings: &[Finding]) -> Redacted {
        let mut writer = Writer {
            redactor: self,
            numbers: HashMap::new(),
            last: engine::last_placeholders(text),
            kept: HashSet::new(),
            out: Redacted { text: String::with_capacity(text.len()), edits: Vec::new(), vault: Vec::new() },
        };
        let mut at = 0;
        for finding in findings {
            writer.out.text.push_str(text.get(at..finding.span.start).unwrap_or_default());
            writer.replace(finding, text.get(finding.span.clone()).unwrap_or_default());
            at = finding.span.end;
        }
        writer.out.text.push_str(text.get(at..).unwrap_or_default());
        writer.out
    }
}

impl Redacted {
    /// Where in the original this part of the redacted text was; an edit that it touches counts whole. What was dropped at
    /// either end of the part is not in it; an empty part is what was dropped there.
    #[must_use]
    pub fn original(&self, part: &Range<usize>) -> Range<usize> {
        let (start, end) = (self.start(part.start), self.end(part.end));
        start.min(end)..start.max(end)
    }

    /// The original's offset of where a part starts.
    fn start(&self, at: usize) -> usize {
        let place = self.edits.partition_point(|edit| edit.redacted.end <= at);
        match self.edits.get(place).filter(|edit| edit.redacted.start < at) {
            Some(within) => within.original.start,
            None => self.behind(place, at),
        }
    }

    /// The original's offset of where a part ends.
    fn end(&self, at: usize) -> usize {
        let place = self.edits.partition_point(|edit| edit.redacted.start < at);
        match place.checked_sub(1).and_then(|place| self.edits.get(place)).filter(|edit| edit.redacted.end >= at) {
            Some(within) => within.original.end,
            None => self.behind(place, at),
        }
    }

    /// The original's offset of one behind the first `place` edits.
    fn behind(&self, place: usize, at: usize) -> usize {
        let edit = place.checked_sub(1).and_then(|place| self.edits.get(place));
        edit.map_or(at, |edit| edit.original.end + (at - edit.redacted.end))
    }

    /// The part overlaps what an edit has put there.
    fn has_put(&self, part: &Range<usize>) -> bool {
        let place = self.edits.partition_point(|edit| edit.redacted.end <= part.start);
        let later = self.edits.get(place..).unwrap_or_default();
        later.iter().take_while(|edit| edit.redacted.start < part.end).any(|edit| !edit.redacted.is_empty())
    }
}

/// A redacted text in the making.
struct Writer<'a> {
    redactor: &'a Redactor<'a>,
    /// Placeholders' numbers by kind and value.
    numbers: HashMap<(DataKind, String), u32>,
    /// The last number of each kind; those that the text came with are not used again.
    last: HashMap<DataKind, u32>,
    /// Tokens whose values are in the vault's list.
    kept: HashSet<Token>,
    out: Redacted,
}

impl Writer<'_> {
    fn replace(&mut self, finding: &Finding, value: &str) {
        let start = self.out.text.len();
        let (action, stand_in) = self.stand_in(finding.kind, value);
        self.out.text.push_str(&stand_in);
        let redacted = start..self.out.text.len();
        self.out.edits.push(Edit { kind: finding.kind, action, original: finding.span.clone(), redacted });
    }

    fn stand_in(&mut self, kind: DataKind, value: &str) -> (Action, String) {
        match self.redactor.config.action(kind) {
            Action::Drop => (Action::Drop, String::new()),
            Action::Tokenise => (Action::Tokenise, self.token(kind, value)),
            Action::DateShift => match self.moved(value) {
                Some(date) => (Action::DateShift, date),
                None => (Action::Redact, self.placeholder(kind, value)),
            },
            Action::Generalise => match coarse::coarse(kind, value, self.redactor.this_year) {
                Some(coarser) => (Action::Generalise, coarser),
                None => (Action::Redact, self.placeholder(kind, value)),
            },
            Action::Redact => (Action::Redact, self.placeholder(kind, value)),
        }
    }

    fn token(&mut self, kind: DataKind, value: &str) -> String {
        let token = Token::derive(self.redactor.key, kind, &canonical(value));
        let text = token.to_string();
        if self.kept.insert(token.clone()) {
            self.out.vault.push(VaultEntry { token, kind, value: value.to_owned() });
        }
        text
    }

    fn moved(&self, value: &str) -> Option<String> {
        let written = Written::read(value)?;
        let date = calendar::moved(written.date, self.redactor.key.days(self.redactor.subject))?;
        Some(written.rewrite(value, date))
    }

    fn placeholder(&mut self, kind: DataKind, value: &str) -> String {
        let last = self.last.entry(kind).or_default();
        let number = self.numbers.entry((kind, canonical(value))).or_insert_with(|| {
            *last = last.saturating_add(1).min(engine::MAX_NUMBER);
            *last
        });
        format!("[{}_{number}]", kind.label())
    }
}

/// One form of a value however it is separated and in whatever case it is written.
fn canonical(value: &str) -> String {
    let is_number = value.bytes().any(|byte| byte.is_ascii_digit()) && !value.contains(['@', '/', ':']);
    let keeps = |symbol: &char| !is_number || symbol.is_alphanumeric();
    value.chars().filter(keeps).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    fn all() -> DlpConfig {
        DlpConfig { profiles: vec![Profile::Pii, Profile::Phi, Profile::Pan, Profile::Secrets], ..DlpConfig::default() }
    }

    fn redact(text: &str) -> Redacted {
        Redactor::new(&all(), &PseudonymKey::new(&[3; 32]), "patient-1").redact(text)
    }

    #[test]
    fn same_value_has_the_same_placeholder() {
        let out = redact("ann@x.org, bob@x.org, ANN@x.org");
        assert_eq!(out.text, "[EMAIL_1], [EMAIL_2], [EMAIL_1]");
    }

    #[test]
    fn numbers_that_the_text_came_with_are_not_used_again() {
        assert_eq!(redact("[EMAIL_3] and ann@x.org").text, "[EMAIL_3] and [EMAIL_4]");
    }

    #[test]
    fn offsets_lead_back() {
        let text = "write to ann@x.org or bob@x.org now";
        let out = redact(text);
        let now = out.text.find("now").unwrap();
        assert_eq!(&text[out.original(&(now..now + 3))], "now");
        let second = out.text.find("[EMAIL_2]").unwrap();
        assert_eq!(&text[out.original(&(second..second + 9))], "bob@x.org");
        assert_eq!(&text[out.original(&(second + 2..second + 4))], "bob@x.org");
        assert_eq!(out.original(&(0..out.text.len())), 0..text.len());
    }

    #[test]
    fn cards_are_tokenised_and_their_codes_dropped() {
        let out = redact("card 4111 1111 1111 1111 12/27 123, cvv 456, again 4111-1111-1111-1111");
        let [entry] = &out.vault[..] else { panic!("{out:?}") };
        assert_eq!(entry.value, "4111 1111 1111 1111");
        assert_eq!(out.text.matches(entry.token.as_str()).count(), 2);
        assert!(!out.text.contains("123,") && !out.text.contains("456"), "{}", out.text);
        assert!(!format!("{out:?}").contains("4111 1111"), "Debug shows no value");
    }

    #[test]
    fn dates_of_a_subject_move_together() {
        let out = redact("admitted 2024-03-01, discharged 2024-03-11");
        let dates: Vec<_> =
            out.edits.iter().map(|edit| Written::read(&out.text[edit.redacted.clone()]).unwrap().date).collect();
        assert_eq!((dates[1] - dates[0]).num_days(), 10);
        assert_ne!(out.text, "admitted 2024-03-01, discharged 2024-03-11");
    }

    #[test]
    fn a_date_that_cannot_move_is_redacted() {
        let config = DlpConfig { profiles: vec![Profile::Phi], ..DlpConfig::default() };
        let out = Redactor::new(&config, &PseudonymKey::new(&[3; 32]), "s").redact("age 93");
        assert_eq!(out.text, "age [AGE_1]");
    }

    // 45 CFR 164.514 (b)(2)(i)(B), (C).
    #[test]
    fn safe_harbor_keeps_years_and_the_start_of_zip_codes() {
        let (config, key) = (DlpConfig::safe_harbor(), PseudonymKey::new(&[3; 32]));
        let redactor = Redactor::new(&config, &key, "s").in_year(2026);
        for (text, coarse) in [
            ("admitted 2024-03-01, discharged March 11, 2024", "admitted 2024, discharged 2024"),
            ("born 12/25/1930", "born [DATE_1]"),
            ("seen in March 2024, again on April 5", "seen in 2024, again on [DATE_1]"),
            ("age 93, later aged 104", "age 90+, later aged 90+"),
            ("age 88", "age 88"),
            ("zip code 94110, zip code 03601", "zip code 941, zip code 000"),
            ("card 4111 1111 1111 1111", "card [PAN_1]"),
            ("SSN 536-22-1234", "SSN [SSN_1]"),
        ] {
            let out = redactor.redact(text);
            assert_eq!(out.text, coarse, "{text}");
            assert!(out.vault.is_empty());
            assert_eq!(redactor.redact(&out.text).text, coarse, "what is coarse stays");
        }
        assert_eq!(Redactor::new(&config, &key, "s").redact("born 12/25/1930").text, "born 1930");
    }

    #[test]
    fn records_survive_the_wire() {
        let out = redact("card 4111 1111 1111 1111, mail a@x.org");
        let bytes = postcard::to_allocvec(&out).unwrap();
        assert_eq!(postcard::from_bytes::<Redacted>(&bytes).unwrap(), out);
        let config = postcard::to_allocvec(&all()).unwrap();
        assert_eq!(postcard::from_bytes::<DlpConfig>(&config).unwrap(), all());
    }
}
