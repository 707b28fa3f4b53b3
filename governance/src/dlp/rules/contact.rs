//! Where a person can be reached or found: mail, phone, network, place, dates.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Edge, Rule, digits_in};
use crate::dlp::DataKind::{Address, Coordinates, Date, Email, Fax, Ip, Phone, Url, Zip};
use crate::dlp::calendar::Written;
use crate::dlp::checksum::Digits;
use crate::dlp::context::{BIRTH, FAX, NETWORK, ORDER, PHONE, PLACE, Topics, VERSION, ZIP};

/// RFC 3986 allows no more; browsers cut longer ones too.
const URL_MAX: usize = 2_048;
/// RFC 5321 4.5.3.1.2.
const DOMAIN_MAX: usize = 255;

const INTERNATIONAL: &str =
    r"(?:\+|00)[1-9][0-9]{0,2}<S>?(?:\(0?[0-9]{0,4}\)<S>?)?[0-9]{1,5}(?:(?:<S>|/)?[0-9]{1,5}){1,5}";
const AMERICAN: &str =
    r"(?:1<S>)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}<S>)[2-9][0-9]{2}<S>[0-9]{4}(?: ?(?:x|ext\.?) ?[0-9]{1,5})?";
/// A trunk zero, then groups: `030 12345678`, `0171/1234567`, `020 7946 0958`.
const TRUNK: &str = r"(?:\(0[1-9][0-9]{1,4}\)|0[1-9][0-9]{1,4})(?:<S>|/)[0-9]{2,8}(?:<S>[0-9]{2,6}){0,3}";
const FRENCH: &str = r"0[1-9](?:<S>[0-9]{2}){4}";
const STREET: &str = concat!(
    r"[0-9]{1,5}[A-Za-z]?(?: [NSEW]\.?)?(?: [A-Z0-9][A-Za-z0-9'\-]{1,20}){1,4} (?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|",
    r"Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Highway|Hwy|Parkway|Pkwy|Circle|Cir|Close|Crescent)",
    r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat)\.? ?#?[0-9]{1,5}[A-Za-z]?)?"
);

pub(super) fn rules() -> Vec<Rule> {
    let mut rules = vec![
        Rule::new(Email, r"[A-Za-z0-9\x80-\xFF][A-Za-z0-9\x80-\xFF._%+'\-]{0,63}@[A-Za-z0-9\x80-\xFF]", 95)
            .run(is_domain_byte, DOMAIN_MAX)
            .edge(Edge::Open)
            .span(email),
        Rule::new(Url, r"(?i:https?|ftps?|wss?)://[!-~\x80-\xFF]", 90).run(is_url_byte, URL_MAX).edge(Edge::Open).span(url),
        Rule::new(Url, r"(?i:www)\.[A-Za-z0-9]", 85).run(is_url_byte, URL_MAX).edge(Edge::Open).span(url),
        Rule::new(Ip, r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", 65).is(ipv4).near(NETWORK, 90).against(VERSION),
        Rule::new(Ip, r"[0-9A-Fa-f:]{1,5}:[0-9A-Fa-f:.]", 80).run(is_ipv6_byte, 45).span(ipv6).near(NETWORK, 90),
        Rule::new(Coordinates, r"[+\-]?[0-9]{1,2}\.[0-9]{3,10},? ?[+\-]?[0-9]{1,3}\.[0-9]{3,10}", 70).is(decimal_degrees).near(PLACE, 90)
            .against(Topics::NONE),
        Rule::new(Coordinates, r#"[0-9]{1,2}\xC2\xB0 ?[0-9]{1,2}['\xE2\x80\xB2]{1,3} ?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?["\xE2\x80\xB3]{1,3})? ?[NS],? ?[0-9]{1,3}\xC2\xB0 ?[0-9]{1,2}['\xE2\x80\xB2]{1,3} ?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?["\xE2\x80\xB3]{1,3})? ?[EW]"#, 95).edge(Edge::Word),
        Rule::new(Address, STREET, 75).edge(Edge::Word).against(Topics::NONE),
        Rule::new(Address, r"(?i:P\.? ?O\.? Box) [0-9]{1,6}", 85).edge(Edge::Word),
        Rule::new(Zip, r"[0-9]{5}(?:-[0-9]{4})?", 80).span(after_state),
        Rule::new(Zip, r"[0-9]{5}(?:-[0-9]{4})?", 0).labelled(ZIP, 3, 85),
    ];
    rules.extend(phones());
    rules.extend(dates());
    rules
}

fn phones() -> Vec<Rule> {
    // One list for both: the nearest label tells a fax from a phone.
    type Form = (&'static str, fn(&[u8]) -> bool, u8);
    let forms: [Form; 6] = [
        (INTERNATIONAL, international, 75),
        (AMERICAN, american, 70),
        (FRENCH, |_| true, 65),
        (TRUNK, trunk, 55),
        (r"[2-9][0-9]{2}[2-9][0-9]{6}", |_| true, 30),
        (r"0[1-9][0-9]{8,9}", |_| true, 30),
    ];
    let rules = |(pattern, check, base): Form| {
        let phone = Rule::new(Phone, pattern, base).is(check).labelled(PHONE, 6, 90);
        [phone, Rule::new(Fax, pattern, 0).is(check).labelled(FAX, 6, 95)]
    };
    forms.into_iter().flat_map(rules).collect()
}

fn dates() -> [Rule; 9] {
    const DAY: &str = r"[0-9]{4}[\-/.][0-9]{1,2}[\-/.][0-9]{1,2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+\-][0-9]{2}:?[0-9]{2})?)?";
    [
        Rule::new(Date, DAY, 75).is(date).near(BIRTH, 90),
        Rule::new(
            Date,
            r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}|[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}|[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}",
            75,
        )
        .is(date)
        .near(BIRTH, 90),
        Rule::new(Date, r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}", 60).is(date).near(BIRTH, 85),
        Rule::new(Date, r"[0-9]{1,2}[.\-][0-9]{1,2}[.\-][0-9]{2}", 35)
            .is(date)
            .near(BIRTH, 70)
            .against(ORDER.or(VERSION)),
        Rule::new(Date, r"[0-9]{1,2}(?:st|nd|rd|th|\.)?[ \-](?:of )?<M>,?[ \-](?:[0-9]{4}|[0-9]{2})", 85).is(date),
        Rule::new(Date, r"<M> [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4}", 85).is(date),
        // Every element but the year counts (45 CFR 164.514 (b)(2)(i)(C)): a month with its year, a day without one.
        Rule::new(Date, r"<M>,? (?:19|20)[0-9]{2}", 70).is(capital),
        Rule::new(Date, r"<M> [0-9]{1,2}(?:st|nd|rd|th)?", 40).is(capital).near(BIRTH, 70),
        Rule::new(Date, r"[0-9]{1,2}(?:st|nd|rd|th|\.)? (?:of )?<M>", 40).is(capital).near(BIRTH, 70),
    ]
}

fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'.' | b'-')
}

fn is_url_byte(byte: u8) -> bool {
    (byte.is_ascii_graphic() || byte >= 0x80)
        && !matches!(byte, b'<' | b'>' | b'"' | b'`' | b'{' | b'}' | b'|' | b'\\' | b'^')
}

fn is_ipv6_byte(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
}

/// Cuts what a sentence adds to the end, at a character's boundary.
fn cut(text: &[u8], span: Range<usize>, is_part: impl Fn(char) -> bool) -> Option<(Range<usize>, &str)> {
    let body = str::from_utf8(text.get(span.clone())?).ok()?;
    let body = body.trim_end_matches(|last| !is_part(last));
    Some((span.start..span.start + body.len(), body))
}

fn email(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    // A character that is no letter (a closing quote) ends the domain.
    let whole = str::from_utf8(text.get(span.clone())?).ok()?;
    let at = whole.find('@')?;
    let domain = whole.get(at + 1..)?;
    let len =
        domain.find(|symbol: char| !(symbol.is_alphanumeric() || matches!(symbol, '.' | '-'))).unwrap_or(domain.len());
    let domain = domain.get(..len)?.trim_end_matches(['.', '-']);
    let (names, top) = domain.rsplit_once('.')?;
    let label =
        |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
    let is_top = top.chars().count() >= 2 && (top.starts_with("xn--") || top.chars().all(char::is_alphabetic));
    let local = whole.get(..at)?;
    let is_local = !local.contains("..")
        && !local.ends_with('.')
        && local.chars().all(|symbol| symbol.is_ascii() || symbol.is_alphanumeric());
    (is_top && is_local && names.split('.').all(label)).then_some(span.start..span.start + at + 1 + domain.len())
}

fn url(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let (span, body) = cut(text, span, |last| {
        last.is_alphanumeric() || matches!(last, '/' | '=' | '&' | '#' | '-' | '_' | '~' | '%' | '+' | '$' | ')')
    })?;
    // A closing parenthesis belongs to it only with its opening one.
    let extra = body.matches(')').count().saturating_sub(body.matches('(').count());
    let tail = body.len() - body.trim_end_matches(')').len();
    let body = body.get(..body.len() - extra.min(tail))?;
    let host = body.split_once("://").map_or(body, |(_, host)| host);
    let is_host = host.starts_with('[') || host.starts_with("localhost") || host.contains(['.', '@', ':']);
    (is_host && host.len() > 3).then_some(span.start..span.start + body.len())
}

fn ipv4(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

fn ipv6(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let (mut span, mut body) = cut(text, span, |last| last != '.')?;
    // "2001:db8::1:" of a log line; "::" itself is an address.
    if body.ends_with(':') && !body.ends_with("::") {
        body = body.trim_end_matches(':');
        span.end = span.start + body.len();
    }
    let is_told = digits_in(body.as_bytes()) > 0 && body.len() >= 3;
    (is_told && body.parse::<Ipv6Addr>().is_ok()).then_some(span)
}

fn decimal_degrees(bytes: &[u8]) -> bool {
    let text = str::from_utf8(bytes).unwrap_or_default();
    let parts: Vec<f64> = text.split([',', ' ']).filter_map(|part| part.parse().ok()).collect();
    matches!(parts[..], [latitude, longitude] if latitude.abs() <= 90.0 && longitude.abs() <= 180.0)
}

/// E.164: at most 15 digits; shorter than 8 are no subscriber's.
fn international(bytes: &[u8]) -> bool {
    let count = digits_in(bytes);
    let count = if bytes.starts_with(b"00") { count - 2 } else { count };
    (8..=15).contains(&count)
}

/// The office code of the North American plan is no service code (N11).
fn american(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::of(bytes) else { return false };
    let digits = digits.as_slice();
    let digits = digits.strip_prefix(&[1]).unwrap_or(digits);
    digits.get(4..6) != Some(&[1, 1])
}

fn trunk(bytes: &[u8]) -> bool {
    (9..=13).contains(&digits_in(bytes))
}

/// A month that is written as one: "may 5" need be none.
fn capital(bytes: &[u8]) -> bool {
    bytes.iter().any(u8::is_ascii_uppercase)
}

fn date(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| Written::read(text).is_some())
}

/// A ZIP code that a state's letters precede: `CA 94110`.
fn after_state(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    const STATES: &str = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY \
                          NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC PR";
    let before = text.get(span.start.checked_sub(3)?..span.start)?;
    let state = str::from_utf8(before).ok()?.strip_suffix(' ')?;
    let is_apart =
        span.start.checked_sub(4).and_then(|at| text.get(at)).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (is_apart && STATES.split(' ').any(|known| known == state)).then_some(span)
}
