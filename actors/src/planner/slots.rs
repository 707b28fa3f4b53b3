//! Values read from a request: numbers with units, money, percentages, dates, quotes, names; and the arguments they fill.

use std::sync::LazyLock;

use chrono::{Days, NaiveDate};
use regex::Regex;

use crate::text;
use crate::tools::{calc, time};

/// What an argument needs from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// Something `calc.eval` can evaluate.
    Expression,
    /// A time zone or a city that names one.
    Zone,
    /// An agent's id.
    Agent,
    /// What a search is about.
    Topic,
    /// What shall be remembered.
    Note,
    /// What an own note is looked up by; may be empty.
    Cue,
    /// What another agent shall do.
    Errand,
    /// A small number of results.
    Count,
    /// The name of a collection.
    Collection,
}

/// A typed value found in a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, with the word after it if that looks like a unit.
    Number {
        /// The number.
        value: f64,
        /// The unit.
        unit: Option<String>,
    },
    /// An amount of money; the amount stays decimal text.
    Money {
        /// The amount.
        amount: String,
        /// ISO 4217 code.
        currency: &'static str,
    },
    /// A percentage, 15 for 15 %.
    Percent(f64),
    /// A day.
    Date(NaiveDate),
    /// A length of time.
    Duration {
        /// Its length in seconds.
        seconds: f64,
    },
    /// Text between quotation marks.
    Quoted(String),
    /// A fenced block.
    Block {
        /// Its declared language: `csv`, `json`, `diff`, a programming language, or empty.
        language: String,
        /// Its content.
        text: String,
    },
    /// An agent's id.
    Agent(String),
    /// A human language by ISO 639-1 code.
    Language(&'static str),
    /// An e-mail address.
    Email(String),
    /// A web address.
    Url(String),
}

macro_rules! pattern {
    ($name:ident, $regex:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($regex).expect("the pattern is a constant"));
    };
}

pattern!(BLOCK, r"(?s)```([A-Za-z0-9_+-]*)\n(.*?)```");
pattern!(QUOTED, r#""([^"\n]+)"|“([^”\n]+)”|«([^»\n]+)»|(?:^|\s)'([^'\n]+)'(?:$|[\s.,;!?])"#);
pattern!(EMAIL, r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b");
pattern!(URL, r"\bhttps?://[^\s<>\x22)]+");
pattern!(
    MONEY,
    r"(?i)(?:([$€£¥])\s?(\d[\d,]*(?:\.\d+)?))|(?:(\d[\d,]*(?:\.\d+)?)\s?(€|£|dollars?|euros?|pounds sterling|usd|eur|gbp|yen|jpy|chf|francs?)(?:\W|$))"
);
pattern!(PERCENT, r"(?i)(-?\d+(?:\.\d+)?)\s?(?:%|percent\b|per cent\b)");
pattern!(
    DURATION,
    r"(?i)\b(\d+(?:\.\d+)?)\s?(seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?)\b"
);
pattern!(ISO_DATE, r"\b(\d{4})-(\d{2})-(\d{2})\b");
pattern!(
    DAY_MONTH,
    r"(?i)\b(\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?(january|february|march|april|may|june|july|august|september|october|november|december)(?:,?\s+(\d{4}))?\b"
);
pattern!(
    MONTH_DAY,
    r"(?i)\b(january|february|march|april|may|june|july|august|september|october|november|december)\s+(\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(\d{4}))?\b"
);
pattern!(RELATIVE_DAY, r"(?i)\b(today|tomorrow|yesterday)\b");
pattern!(NUMBER, r"(-?\d[\d,]*(?:\.\d+)?)(?:\s?([A-Za-zµ°][A-Za-z0-9/²³]*))?");
pattern!(COUNT, r"(?i)\b(\d{1,2})\s+(?:passages?|documents?|results?|hits?|notes?)\b");
pattern!(COLLECTION, r"(?i)\bcollection\s+([A-Za-z0-9][A-Za-z0-9._-]*)");
pattern!(ZONE, r"(?i)\b(?:in|for|at)\s+([A-Za-z][A-Za-z/_ -]+)");
pattern!(
    NOTE,
    r"(?is)^(?:please\s+|can you\s+|could you\s+|i want you to\s+|for the record\b)*\s*(?:remember(?:\s+this)?(?:\s+for me)?|memori[sz]e|note(?:\s+to self)?|keep in mind|(?:make|take|keep)\s+a\s+note|don['’]t forget|do not forget|save this for later|store(?:\s+the)?(?:\s+fact)?|write down)?\s*(?:that\b|[:,])?\s*(.+?)\s*$"
);

const LANGUAGES: [(&str, &str); 16] = [
    ("english", "en"),
    ("german", "de"),
    ("french", "fr"),
    ("spanish", "es"),
    ("italian", "it"),
    ("portuguese", "pt"),
    ("dutch", "nl"),
    ("swedish", "sv"),
    ("polish", "pl"),
    ("czech", "cs"),
    ("russian", "ru"),
    ("turkish", "tr"),
    ("arabic", "ar"),
    ("chinese", "zh"),
    ("japanese", "ja"),
    ("korean", "ko"),
];
/// Words after a number that are no units.
const NOT_UNITS: &[&str] = &[
    "and", "or", "to", "in", "of", "is", "by", "from", "at", "on", "for", "the", "a", "then", "with", "plus", "minus",
    "times",
];

/// Finds all typed values. `today` resolves relative and yearless dates; `agents` are the known ids.
#[must_use]
pub fn values(request: &str, today: NaiveDate, agents: &[String]) -> Vec<Value> {
    let mut found = Vec::new();
    for block in BLOCK.captures_iter(request) {
        found.push(Value::Block { language: group(&block, 1).to_lowercase(), text: group(&block, 2).to_owned() });
    }
    let plain = BLOCK.replace_all(request, " ");
    for quote in QUOTED.captures_iter(&plain) {
        let inner = (1..=4).find_map(|at| quote.get(at)).map_or("", |inner| inner.as_str());
        found.push(Value::Quoted(inner.to_owned()));
    }
    found.extend(
        URL.find_iter(&plain)
            .map(|url| Value::Url(url.as_str().trim_end_matches(['.', ',', ';', '?', '!']).to_owned())),
    );
    found.extend(EMAIL.find_iter(&plain).map(|email| Value::Email(email.as_str().to_owned())));
    let plain = URL.replace_all(&plain, " ");
    let plain = EMAIL.replace_all(&plain, " ").into_owned();
    let rest = numbers(&plain, today, &mut found);
    for word in text::words(&rest) {
        if let Some((_, code)) = LANGUAGES.iter().find(|(name, _)| *name == word) {
            found.push(Value::Language(code));
        }
        if agents.contains(&word) {
            found.push(Value::Agent(word));
        }
    }
    found
}

/// Dates, money, percentages, durations and numbers, the more special first; each takes its characters away.
fn numbers(plain: &str, today: NaiveDate, found: &mut Vec<Value>) -> String {
    let rest = dates(plain, today, found);
    found.extend(MONEY.captures_iter(&rest).filter_map(|money| {
        let (sign, amount) = if money.get(1).is_some() { (1, 2) } else { (4, 3) };
        Some(Value::Money { amount: group(&money, amount).replace(',', ""), currency: currency(group(&money, sign))? })
    }));
    let rest = MONEY.replace_all(&rest, " ").into_owned();
    found.extend(
        PERCENT.captures_iter(&rest).filter_map(|percent| Some(Value::Percent(group(&percent, 1).parse().ok()?))),
    );
    let rest = PERCENT.replace_all(&rest, " ").into_owned();
    found.extend(DURATION.captures_iter(&rest).filter_map(|duration| {
        let count: f64 = group(&duration, 1).parse().ok()?;
        Some(Value::Duration { seconds: count * seconds_in(group(&duration, 2)) })
    }));
    let rest = DURATION.replace_all(&rest, " ").into_owned();
    found.extend(NUMBER.captures_iter(&rest).filter_map(|number| {
        let unit = number.get(2).map(|unit| unit.as_str().to_owned());
        let unit = unit.filter(|unit| !NOT_UNITS.contains(&unit.to_lowercase().as_str()));
        Some(Value::Number { value: group(&number, 1).replace(',', "").parse().ok()?, unit })
    }));
    rest
}

fn dates(plain: &str, today: NaiveDate, found: &mut Vec<Value>) -> String {
    use chrono::Datelike;
    let year = |text: &str| text.parse().unwrap_or(today.year());
    let month =
        |text: &str| (1..).zip(text::MONTHS).find(|(_, name)| *name == text.to_lowercase()).map_or(0, |(at, _)| at);
    let day = |text: &str| text.parse().unwrap_or(0);
    let mut push = |date: Option<NaiveDate>| found.extend(date.map(Value::Date));
    for at in ISO_DATE.captures_iter(plain) {
        push(NaiveDate::from_ymd_opt(year(group(&at, 1)), day(group(&at, 2)), day(group(&at, 3))));
    }
    let rest = ISO_DATE.replace_all(plain, " ").into_owned();
    for at in DAY_MONTH.captures_iter(&rest) {
        push(NaiveDate::from_ymd_opt(year(group(&at, 3)), month(group(&at, 2)), day(group(&at, 1))));
    }
    let rest = DAY_MONTH.replace_all(&rest, " ").into_owned();
    for at in MONTH_DAY.captures_iter(&rest) {
        push(NaiveDate::from_ymd_opt(year(group(&at, 3)), month(group(&at, 1)), day(group(&at, 2))));
    }
    let rest = MONTH_DAY.replace_all(&rest, " ").into_owned();
    for word in RELATIVE_DAY.find_iter(&rest) {
        push(match word.as_str().to_lowercase().as_str() {
            "tomorrow" => today.checked_add_days(Days::new(1)),
            "yesterday" => today.checked_sub_days(Days::new(1)),
            _ => Some(today),
        });
    }
    rest
}

fn group<'t>(captures: &regex::Captures<'t>, at: usize) -> &'t str {
    captures.get(at).map_or("", |group| group.as_str())
}

fn currency(sign: &str) -> Option<&'static str> {
    Some(match sign.to_lowercase().trim_end_matches('s') {
        "$" | "dollar" | "usd" => "USD",
        "€" | "euro" | "eur" => "EUR",
        "£" | "gbp" | "pounds sterling" => "GBP",
        "¥" | "yen" | "jpy" => "JPY",
        "chf" | "franc" => "CHF",
        _ => return None,
    })
}

/// A month counts 30 days and a year 365: lengths of time without a calendar.
fn seconds_in(unit: &str) -> f64 {
    match unit.to_lowercase().chars().take(2).collect::<String>().as_str() {
        "se" => 1.0,
        "mi" => 60.0,
        "ho" | "hr" => 3_600.0,
        "da" => 86_400.0,
        "we" => 604_800.0,
        "mo" => 2_592_000.0,
        _ => 31_536_000.0,
    }
}

/// Fills one argument from the request; `None` when it is not there.
#[must_use]
pub fn fill(kind: SlotKind, request: &str, agents: &[String]) -> Option<serde_json::Value> {
    let text = match kind {
        SlotKind::Expression => expression(request)?,
        SlotKind::Zone => zone(request)?,
        SlotKind::Agent => addressee(request, agents)?.0,
        SlotKind::Errand => addressee(request, agents)?.1,
        SlotKind::Topic => topic(request)?,
        SlotKind::Note => NOTE.captures(request).map(|note| group(&note, 1).to_owned())?,
        SlotKind::Cue => strip_words(request, CUES),
        SlotKind::Collection => COLLECTION.captures(request).map(|found| group(&found, 1).to_owned())?,
        SlotKind::Count => {
            let count: u32 = group(&COUNT.captures(request)?, 1).parse().ok()?;
            return (count > 0).then(|| count.into());
        }
    };
    let text = text.trim();
    (!text.is_empty() || kind == SlotKind::Cue).then(|| text.into())
}

/// Words that introduce a search and are not what it is about.
const SEARCH: &[&str] = &[
    "please",
    "can",
    "could",
    "you",
    "search",
    "find",
    "look",
    "up",
    "for",
    "show",
    "me",
    "list",
    "query",
    "the",
    "village",
    "memory",
    "knowledge",
    "base",
    "our",
    "my",
    "documents",
    "document",
    "passages",
    "passage",
    "about",
    "on",
    "that",
    "mention",
    "mentions",
    "which",
    "all",
    "any",
    "in",
    "archive",
    "word",
    "files",
    "notes",
    "of",
    "containing",
    "results",
];
/// Words of a question about own notes that are not what the notes are about.
const CUES: &[&str] = &[
    "please",
    "what",
    "did",
    "i",
    "tell",
    "told",
    "say",
    "said",
    "ask",
    "asked",
    "you",
    "to",
    "do",
    "does",
    "still",
    "remember",
    "recall",
    "remind",
    "me",
    "of",
    "about",
    "have",
    "has",
    "know",
    "is",
    "in",
    "personal",
    "memory",
    "your",
    "list",
    "show",
    "notes",
    "note",
    "the",
    "which",
    "we",
    "my",
    "yesterday",
    "where",
    "are",
    "there",
    "any",
];

fn strip_words(request: &str, words: &[&str]) -> String {
    let lead = |word: &&str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        words.contains(&bare.as_str()) || bare.is_empty() || (words == SEARCH && bare.parse::<u32>().is_ok())
    };
    let kept: Vec<&str> = request.split_whitespace().skip_while(lead).collect();
    kept.join(" ").trim_end_matches(['?', '.', '!']).to_owned()
}

fn topic(request: &str) -> Option<String> {
    if let Some(quote) = QUOTED.captures(request) {
        return (1..=4).find_map(|at| quote.get(at)).map(|inner| inner.as_str().to_owned());
    }
    let rest = strip_words(request, SEARCH);
    let cut = ["in the memory", "in the documents", "in memory", "in the village memory"];
    let tail = cut.iter().find_map(|tail| rest.strip_suffix(tail));
    Some(tail.unwrap_or(&rest).trim().to_owned()).filter(|topic| !topic.is_empty())
}

fn zone(request: &str) -> Option<String> {
    let named = |name: &str| time::find_zone(name.trim()).map(|zone| zone.name().to_owned());
    let direct = request.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let slashed = request
        .split_whitespace()
        .filter(|word| word.contains('/'))
        .find_map(|word| named(word.trim_end_matches(['?', '.', '!'])));
    let after = ZONE.captures_iter(request).find_map(|found| {
        let words: Vec<&str> = group(&found, 1).split_whitespace().collect();
        (1..=words.len().min(3)).rev().find_map(|n| words.get(..n).and_then(|words| named(&words.join(" "))))
    });
    let utc = || direct.clone().find(|word| matches!(word.to_uppercase().as_str(), "UTC" | "GMT")).and_then(named);
    slashed.or(after).or_else(utc)
}

/// The agent named in the request and what follows its name.
fn addressee(request: &str, agents: &[String]) -> Option<(String, String)> {
    let lower = request.to_lowercase();
    let found = agents.iter().filter_map(|agent| {
        let at = lower.match_indices(agent.as_str()).map(|(at, _)| at).find(|at| {
            let before = lower.get(..*at).and_then(|text| text.chars().next_back());
            let after = lower.get(at + agent.len()..).and_then(|text| text.chars().next());
            [before, after].into_iter().flatten().all(|c| !c.is_alphanumeric() && c != '-')
        })?;
        Some((at, agent))
    });
    let (at, agent) = found.min()?;
    // Lower-casing may change lengths outside ASCII; then the place is looked for again in the original.
    let rest = request.get(at + agent.len()..).unwrap_or_default();
    let rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric() && !"\"$(-/".contains(c));
    let lead = ["to ", "about ", "answer ", "that ", "for "].iter().find_map(|lead| rest.strip_prefix(lead));
    Some((agent.clone(), lead.unwrap_or(rest).trim().to_owned()))
}

pattern!(
    LEAD,
    r"(?i)^(?:please|can you|could you|what\s+is|what['’]?s|what\s+are|how\s+much\s+is|how\s+much\s+are|calculate|compute|evaluate|work\s+out|convert|solve|tell\s+me|give\s+me|and|then|the)\b\s*"
);
pattern!(HOW_MANY, r"(?i)^how\s+many\s+([a-z]+)\s+(?:are\s+)?(?:there\s+)?in\s+(.+)$");
pattern!(MULTIPLY, r"(?i)^multiply\s+(.+?)\s+(?:by|with|and)\s+(.+)$");
pattern!(DIVIDE, r"(?i)^divide\s+(.+?)\s+by\s+(.+)$");
pattern!(SUBTRACT, r"(?i)^subtract\s+(.+?)\s+from\s+(.+)$");
pattern!(ADD, r"(?i)^(?:add|(?:the\s+)?sum\s+of)\s+(.+)$");
pattern!(LIST, r"(?i)\s*,\s*(?:and\s+)?|\s+and\s+|\s+to\s+");
pattern!(ROOT, r"(?i)\b(?:the\s+)?(square|cube)\s+root\s+of\s+(\$?[\d.]+)");
pattern!(THOUSANDS, r"(\d),(\d{3})\b");

const OPERATORS: [(&str, &str); 12] = [
    (" multiplied by ", " * "),
    (" divided by ", " / "),
    (" to the power of ", "^"),
    (" per cent ", "% "),
    (" percent ", "% "),
    (" plus ", " + "),
    (" minus ", " - "),
    (" times ", " * "),
    (" squared ", "^2 "),
    (" cubed ", "^3 "),
    (" over ", " / "),
    (" is how many ", " to "),
];

/// The arithmetic in a request, in fend's notation, if fend can evaluate it.
fn expression(request: &str) -> Option<String> {
    let mut rest = request.trim().trim_end_matches(['?', '!', '.', '=', ' ']).to_owned();
    while let Some(lead) = LEAD.find(&rest).filter(|lead| lead.end() > 0) {
        rest = rest.split_off(lead.end());
    }
    let joined = |list: &str| LIST.split(list).collect::<Vec<_>>().join(" + ");
    let rest = if let Some(found) = HOW_MANY.captures(&rest) {
        format!("{} to {}", group(&found, 2), group(&found, 1))
    } else if let Some(found) = MULTIPLY.captures(&rest) {
        format!("({}) * ({})", group(&found, 1), group(&found, 2))
    } else if let Some(found) = DIVIDE.captures(&rest) {
        format!("({}) / ({})", group(&found, 1), group(&found, 2))
    } else if let Some(found) = SUBTRACT.captures(&rest) {
        format!("({}) - ({})", group(&found, 2), group(&found, 1))
    } else if let Some(found) = ADD.captures(&rest) {
        joined(group(&found, 1))
    } else {
        rest
    };
    let rest = ROOT.replace_all(&rest, |found: &regex::Captures<'_>| {
        let name = if group(found, 1).eq_ignore_ascii_case("cube") { "cbrt" } else { "sqrt" };
        format!("{name}({})", group(found, 2))
    });
    let rest = THOUSANDS.replace_all(&rest, "$1$2");
    let mut padded = format!(" {rest} ");
    for (words, sign) in OPERATORS {
        padded = padded.replace(words, sign);
    }
    let expression = padded.trim().to_owned();
    // `$1` stands for an earlier result; any number shows whether the rest is sound.
    let probe = expression.replace('$', "");
    let has_number = expression.bytes().any(|b| b.is_ascii_digit());
    (has_number && calc::is_expression(&probe)).then_some(expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn today() -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 1, 15).unwrap()
    }

    fn agents() -> Vec<String> {
        vec!["sage".into(), "oracle".into()]
    }

    fn found(request: &str) -> Vec<Value> {
        values(request, today(), &agents())
    }

    fn day(year: i32, month: u32, day: u32) -> Value {
        Value::Date(NaiveDate::from_ymd_opt(year, month, day).unwrap())
    }

    #[test]
    fn typed_values_are_found() {
        assert_eq!(found("a 5.5 km walk"), [Value::Number { value: 5.5, unit: Some("km".into()) }]);
        assert_eq!(found("7 and done"), [Value::Number { value: 7.0, unit: None }]);
        assert_eq!(found("costs $1,250.50"), [Value::Money { amount: "1250.50".into(), currency: "USD" }]);
        assert_eq!(found("12 euros"), [Value::Money { amount: "12".into(), currency: "EUR" }]);
        assert_eq!(found("15 % off"), [Value::Percent(15.0)]);
        assert_eq!(found("on 2026-03-04"), [day(2026, 3, 4)]);
        assert_eq!(found("on 4 May"), [day(2026, 5, 4)]);
        assert_eq!(found("May 4th, 2027"), [day(2027, 5, 4)]);
        assert_eq!(found("call tomorrow"), [day(2026, 1, 16)]);
        assert_eq!(found("wait 2 hours"), [Value::Duration { seconds: 7_200.0 }]);
        assert_eq!(found("find \"iron bridge\""), [Value::Quoted("iron bridge".into())]);
        assert_eq!(found("ask Sage"), [Value::Agent("sage".into())]);
        assert_eq!(found("in German"), [Value::Language("de")]);
        assert_eq!(found("to ada@example.org"), [Value::Email("ada@example.org".into())]);
        assert_eq!(found("see https://example.org/a?b=1."), [Value::Url("https://example.org/a?b=1".into())]);
        let block = found("look:\n```csv\na,b\n1,2\n```\n");
        assert_eq!(block, [Value::Block { language: "csv".into(), text: "a,b\n1,2\n".into() }]);
    }

    #[test]
    fn impossible_dates_are_no_dates() {
        assert!(!found("2026-13-45").iter().any(|value| matches!(value, Value::Date(_))));
        assert!(!found("31 February").iter().any(|value| matches!(value, Value::Date(_))));
    }

    #[test]
    fn arithmetic_in_words_becomes_an_expression() {
        for (request, expected) in [
            ("what is 15% of 240?", "15% of 240"),
            ("What is the square root of 49?", "sqrt(49)"),
            ("how many minutes are in 3 weeks", "3 weeks to minutes"),
            ("multiply 6 by 14", "(6) * (14)"),
            ("subtract 19 from 45", "(45) - (19)"),
            ("sum of 4, 8 and 15", "4 + 8 + 15"),
            ("20 percent of 1,200", "20% of 1200"),
            ("convert 5 miles to km", "5 miles to km"),
            ("work out 17 times 23", "17 * 23"),
            ("what is 2 to the power of 10", "2^10"),
            ("$1 * 4", "$1 * 4"),
        ] {
            assert_eq!(expression(request).as_deref(), Some(expected), "{request}");
        }
        for request in ["how tall is the tower", "what happened in 1953", "the three body problem", "I ate 3 apples"] {
            assert_eq!(expression(request), None, "{request}");
        }
    }

    #[test]
    fn arguments_are_filled() {
        let fill = |kind, request| fill(kind, request, &agents()).map(|value| value.to_string());
        assert_eq!(fill(SlotKind::Zone, "what time is it in New York?").as_deref(), Some("\"America/New_York\""));
        assert_eq!(fill(SlotKind::Zone, "what time is it"), None);
        assert_eq!(fill(SlotKind::Agent, "ask Oracle to compute 3 * 4").as_deref(), Some("\"oracle\""));
        assert_eq!(fill(SlotKind::Errand, "ask Oracle to compute 3 * 4").as_deref(), Some("\"compute 3 * 4\""));
        assert_eq!(fill(SlotKind::Agent, "a message about sagebrush"), None);
        assert_eq!(fill(SlotKind::Topic, "find 3 passages about bats").as_deref(), Some("\"bats\""));
        assert_eq!(fill(SlotKind::Topic, "look up goats in the memory").as_deref(), Some("\"goats\""));
        assert_eq!(fill(SlotKind::Count, "find 3 passages about bats").as_deref(), Some("3"));
        assert_eq!(fill(SlotKind::Note, "Please remember that my dog is Rex").as_deref(), Some("\"my dog is Rex\""));
        assert_eq!(fill(SlotKind::Note, "note to self: call Ida").as_deref(), Some("\"call Ida\""));
        assert_eq!(fill(SlotKind::Cue, "what did I tell you about my dog?").as_deref(), Some("\"dog\""));
        assert_eq!(fill(SlotKind::Cue, "show your notes").as_deref(), Some("\"\""));
        assert_eq!(fill(SlotKind::Collection, "count collection main").as_deref(), Some("\"main\""));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_request_is_read_without_panic(request in "\\PC{0,80}|(sage|\\$|[0-9]{1,6}|%|İ|ß| |\"|to|in|euros|-){0,20}") {
            let _ = values(&request, today(), &agents());
            for kind in [SlotKind::Expression, SlotKind::Zone, SlotKind::Agent, SlotKind::Errand, SlotKind::Topic,
                         SlotKind::Note, SlotKind::Cue, SlotKind::Count, SlotKind::Collection] {
                let _ = fill(kind, &request, &agents());
            }
        }
    }
}
