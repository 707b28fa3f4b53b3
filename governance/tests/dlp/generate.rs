//! Texts with known findings, by seed: values with check digits made here, in sentences that the rules were not built with.

use std::ops::Range;

use aivillage_governance::dlp::DataKind;

use crate::held_out;

/// One text and what is in it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) truth: Vec<(DataKind, Range<usize>)>,
}

/// Splitmix64 (Steele, Lea, Flood 2014): the same rows on every machine.
#[derive(Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Seeded(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Fills a form: `#` is a digit, `%` one but zero, `^` a capital, `~` a hex digit, `!` any of base 62.
    fn form(&mut self, form: &str) -> String {
        const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let fill = |symbol: char| match symbol {
            '#' => char::from(BASE62[self.below(10)]),
            '%' => char::from(BASE62[1 + self.below(9)]),
            '^' => char::from(BASE62[10 + self.below(26)]),
            '~' => char::from(b"0123456789abcdef"[self.below(16)]),
            '!' => char::from(BASE62[self.below(62)]),
            other => other,
        };
        form.chars().map(fill).collect()
    }
}

/// Which sentences. All but the newest have changed the rules: they show that nothing gets worse, not how good the rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sentences {
    /// Those here.
    Known,
    /// The sets of `held_out`.
    Second,
    Third,
    Fourth,
}

impl Sentences {
    /// The sentences of a kind, and those that stand around them.
    fn of(self, kind: &Source) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Sentences::Known => (kind.templates, OTHERS),
            Sentences::Second => (held_out::second(kind.kind), held_out::SECOND_OTHERS),
            Sentences::Third => (held_out::third(kind.kind), held_out::THIRD_OTHERS),
            Sentences::Fourth => (held_out::fourth(kind.kind), held_out::FOURTH_OTHERS),
        }
    }
}

/// Rows of every patterned kind, `each` of one.
pub(crate) fn rows(seed: u64, each: usize, sentences: Sentences) -> Vec<Row> {
    let mut seeded = Seeded::new(seed);
    (0..each).flat_map(|_| KINDS.iter().map(|kind| row(&mut seeded, kind, sentences)).collect::<Vec<_>>()).collect()
}

/// Prose without findings, about so many bytes.
pub(crate) fn prose(seed: u64, bytes: usize) -> String {
    let mut seeded = Seeded::new(seed);
    let mut text = String::with_capacity(bytes + 200);
    while text.len() < bytes {
        text.push_str(&other(&mut seeded, OTHERS));
        text.push(' ');
    }
    text
}

fn row(seeded: &mut Seeded, kind: &Source, sentences: Sentences) -> Row {
    let (templates, others) = sentences.of(kind);
    let mut text = other(seeded, others);
    text.push(' ');
    let (before, behind) = seeded.pick(templates).split_once("{}").expect("each template has a place");
    text.push_str(before);
    let value = (kind.value)(seeded);
    let span = text.len()..text.len() + value.len();
    text.push_str(&value);
    text.push_str(behind);
    text.push(' ');
    text.push_str(&other(seeded, others));
    Row { text, truth: vec![(kind.kind, span)] }
}

/// Sentences with numbers that are none of the kinds.
const OTHERS: &[&str] = &[
    "The committee met twice and agreed on very little.",
    "Parcel 7########### was weighed at ## kg.",
    "Revenue rose from 4,###,### to 5,###,### in the quarter.",
    "The fix is in release %.#.## of the library.",
    "Train ### leaves platform % at 1#:0#.",
    "They won 3-# after extra time, watched by 4#,### people.",
    "Chapter ## covers pages 1##-2##.",
    "The checksum was ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~.",
    "Nobody could remember who had opened the window first.",
    "A recipe for six needs ### g of flour and %## ml of milk.",
    "Her essay on rivers, mountains and weather is ## pages long.",
    "Room ###, second floor, behind the library.",
    "Between 19## and 20## the town grew by ## percent.",
    "Bolt M8x## costs 0.## apiece; ask for article ######.",
    "In the morning the boats come back and the market fills with voices.",
    "Sensor reading: ##.# degrees, ## percent humidity.",
];

fn other(seeded: &mut Seeded, others: &[&str]) -> String {
    let sentence = seeded.pick(others);
    seeded.form(sentence)
}

struct Source {
    kind: DataKind,
    templates: &'static [&'static str],
    value: fn(&mut Seeded) -> String,
}

macro_rules! sources {
    ($($kind:ident: [$($template:literal),* $(,)?] $value:expr;)*) => {
        const KINDS: &[Source] = &[$(Source { kind: DataKind::$kind, templates: &[$($template),*], value: $value },)*];
    };
}

sources! {
    Email: ["Her inbox is {}.", "Send the minutes to {}, if you can.", "<{}> bounced again."] email;
    Phone: ["You reach us under phone {} all day.", "Mobile: {}.", "Ring me back ({}) tonight.", "Tel {} / office"] phone;
    Fax: ["Fax the form to {}.", "fax: {}", "Our facsimile is {}."] |seeded| seeded.form("(2##) 55#-####");
    Ssn: ["The clerk typed {} by mistake.", "SSN: {}", "His social security number, {}, was exposed."] |seeded| seeded.form("5##-4#-1###");
    Iban: ["Please transfer it to {}.", "IBAN {} belongs to the club.", "The refund went to {} yesterday."] iban;
    Pan: ["He paid with {}.", "Card on file: {}.", "The receipt shows {} in full!"] pan;
    Cvv: ["The CVV is {}.", "CVC: {}", "security code {}"] |seeded| seeded.form("###");
    Passport: ["Passport no. {} was stolen.", "She holds passport {}.", "passport number: {}"] |seeded| seeded.form("C########");
    NationalId: ["Identification {} was checked.", "The register lists {} as her national number.", "Citizen number: {}."] national;
    Coordinates: ["The wreck lies at {}.", "GPS {}", "Drop it near {} before noon."] |seeded| seeded.form("4#.#####, -7#.#####");
    Date: ["Surgery took place on {}.", "Born {}.", "The contract of {} has ended."] date;
    Age: ["The patient, aged {}, went home.", "At {} years old he still sails.", "Age: {}"] |seeded| seeded.form("9#");
    Mrn: ["MRN {} was merged.", "Medical record no. {}", "See chart {} for details."] |seeded| seeded.form("00######");
    HealthPlan: ["Member ID: {}", "The subscriber number is {}.", "Medicare beneficiary {} called."] |seeded| seeded.form("^^^#########");
    Account: ["Account {} is overdrawn.", "acct no. {}", "Debit my account number {} monthly."] |seeded| seeded.form("%#########");
    Licence: ["Driving licence {} expires soon.", "Her license number is {}.", "Licence no. {}"] |seeded| seeded.form("D#######");
    Vin: ["VIN {} was recalled.", "The car with chassis {} is blue.", "They sold {} for parts."] vin;
    Plate: ["The plate read {}.", "Number plate {} was seen.", "License plate: {}"] plate;
    DeviceSerial: ["Pacemaker serial {} works.", "Device {} was replaced.", "Serial no.: {}"] |seeded| seeded.form("SN#######^");
    Url: ["It is on {} since noon.", "Look at {}.", "({})"] |seeded| seeded.form("https://www##.example.org/p/####?q=~~");
    Ip: ["The client at {} timed out.", "It came from {}.", "Blocked: {}"] |seeded| seeded.form("1##.5#.2#.7#");
    Biometric: ["The {} was deleted.", "We store one {}.", "Export: {}."] |seeded| seeded.form("fingerprint_template_####");
    FaceImage: ["The file {} is public.", "Attached: {}", "Remove {} from the share."] |seeded| seeded.form("emp##_headshot_##.jpg");
    UniqueId: ["Row {} is gone.", "Subject {} dropped out.", "Node {} restarted."] |seeded| seeded.form("~~~~~~~~-~~~~-4~~~-9~~~-~~~~~~~~~~~~");
    Zip: ["Mail it to Boise, ID {}.", "ZIP code {}", "The zip is {}."] |seeded| seeded.form("83###");
    Address: ["He moved to {}.", "Deliver to {} today.", "{} burned down."] address;
    Secret: ["It leaked {} into the log.", "Rotate {} now.", "export KEY={}"] secret;
}

fn email(seeded: &mut Seeded) -> String {
    let local = seeded.pick(&["mira.olsen", "k_tanaka", "jo-ann+news", "root", "p.o.brien", "x9"]);
    let domain = seeded.pick(&[
        "mail.example.com",
        "uni.example.org",
        "post.example.co.uk",
        "a1.example.net",
        "firma.example.de",
    ]);
    seeded.form(&format!("{local}##@{domain}"))
}

fn phone(seeded: &mut Seeded) -> String {
    let form = seeded.pick(&[
        "(2##) 45#-####",
        "3##-45#-####",
        "6##.45#.####",
        "+1 2## 45# ####",
        "+49 30 ########",
        "+33 1 ## ## ## ##",
        "+44 20 7### ####",
        "01 ## ## ## ##",
        "0171 #######",
        "030/%######",
    ]);
    seeded.form(form)
}

fn date(seeded: &mut Seeded) -> String {
    let form =
        seeded.pick(&["19##-0%-1#", "0%/1#/20##", "1#.0%.19##", "1# August 20##", "November 1#, 19##", "2# Sept 20##"]);
    seeded.form(form)
}

fn plate(seeded: &mut Seeded) -> String {
    let form = seeded.pick(&["^^## ^^^", "#^^^###", "^^^-####", "B-^^ ####"]);
    seeded.form(form)
}

fn address(seeded: &mut Seeded) -> String {
    let name = seeded.pick(&["Walnut", "Old Mill", "Saint Mary", "King", "Harbour"]);
    let street = seeded.pick(&["Street", "Ave", "Road", "Lane", "Blvd"]);
    seeded.form(&format!("%## {name} {street}"))
}

fn secret(seeded: &mut Seeded) -> String {
    let form = seeded.pick(&[
        "ghp_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "AKIA^^^^^^^^^^^^^^^^",
        "sk_live_!!!!!!!!!!!!!!!!!!!!!!!!",
        "AIza!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "xoxb-############-!!!!!!!!!!!!!!!!!!!!!!!!",
        "glpat-!!!!!!!!!!!!!!!!!!!!",
        "npm_!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "eyJhbGciOiJIUzI1NiJ9.eyJ!!!!!!!!!!!!!!!!.!!!!!!!!!!!!!!!!!!!!",
    ]);
    seeded.form(form)
}

fn pan(seeded: &mut Seeded) -> String {
    let (form, groups): (&str, &[usize]) = match seeded.below(5) {
        0 => ("4##############", &[4, 4, 4, 4]),
        1 => ("53#############", &[4, 4, 4, 4]),
        2 => ("37############", &[4, 6, 5]),
        3 => ("6011###########", &[16]),
        _ => ("36###########", &[14]),
    };
    let body = seeded.form(form);
    let check = (0..10).find(|check| luhn(&format!("{body}{check}"))).expect("one of ten passes");
    grouped(&format!("{body}{check}"), groups, seeded.pick(&[" ", "-", ""]))
}

fn luhn(digits: &str) -> bool {
    let value = |(place, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0') * if place % 2 == 1 { 2 } else { 1 };
        digit / 10 + digit % 10
    };
    digits.bytes().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}

fn grouped(text: &str, groups: &[usize], separator: &str) -> String {
    let mut rest = text;
    let mut parts = Vec::new();
    for len in groups.iter().copied().chain(std::iter::repeat(usize::MAX)) {
        let (part, tail) = rest.split_at(len.min(rest.len()));
        parts.push(part);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    parts.join(separator)
}

fn iban(seeded: &mut Seeded) -> String {
    let (country, form) = match seeded.below(4) {
        0 => ("DE", "##################"),
        1 => ("GB", "^^^^##############"),
        2 => ("NL", "^^^^##########"),
        _ => ("FR", "#######################"),
    };
    let body = seeded.form(form);
    let turned = format!("{body}{country}00");
    let spelled: String =
        turned.chars().map(|symbol| symbol.to_digit(36).expect("letters and digits").to_string()).collect();
    let rest = spelled.bytes().fold(0, |rest, byte| (rest * 10 + u32::from(byte - b'0')) % 97);
    let iban = format!("{country}{:02}{body}", 98 - rest);
    grouped(&iban, &[4; 8], seeded.pick(&[" ", ""]))
}

fn vin(seeded: &mut Seeded) -> String {
    let body = seeded.form("1HGCM8#3_%A######");
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A' | b'J' => 1,
        b'B' | b'K' | b'S' => 2,
        b'C' | b'L' | b'T' => 3,
        b'D' | b'M' | b'U' => 4,
        b'G' | b'P' | b'X' => 7,
        b'H' | b'Y' => 8,
        _ => 0,
    };
    let weights = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let sum: u32 = body.bytes().map(value).zip(weights).map(|(value, weight)| value * weight).sum();
    let check = if sum % 11 == 10 { "X".to_owned() } else { (sum % 11).to_string() };
    body.replace('_', &check)
}

fn national(seeded: &mut Seeded) -> String {
    let digits = |text: &str| text.bytes().map(|byte| u32::from(byte - b'0')).collect::<Vec<_>>();
    let sum = |text: &str, weights: &[u32]| {
        digits(text).iter().zip(weights).map(|(digit, weight)| digit * weight).sum::<u32>()
    };
    match seeded.below(6) {
        0 => {
            let body = seeded.form("%#######");
            let place: usize = body.parse::<usize>().expect("digits") % 23;
            format!("{body}{}", &"TRWAGMYFPDXBNJZSQVHLCKE"[place..=place])
        }
        1 => loop {
            let body = seeded.form("%#######");
            let check = sum(&body, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
            if check < 10 {
                break format!("{body}{check}");
            }
        },
        2 => {
            let body = seeded.form("7#0%1#####");
            format!("{body}{}", (10 - sum(&body, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10)
        }
        3 => {
            let body = seeded.form("123######");
            let first = sum(&body, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) * 10 % 11 % 10;
            let second = sum(&format!("{body}{first}"), &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) * 10 % 11 % 10;
            format!("{}.{}.{}-{first}{second}", &body[..3], &body[3..6], &body[6..])
        }
        4 => seeded.form("AB######C"),
        _ => {
            let body = seeded.form("185057511####");
            format!("{body}{:02}", 97 - body.parse::<u64>().expect("digits") % 97)
        }
    }
}
