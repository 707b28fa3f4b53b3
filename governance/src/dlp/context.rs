//! The words around a candidate: whole words, at most six before and six behind.
//!
//! A part of a word is never context ("class" has no "ss" in it), nor is a placeholder that redaction has left.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

/// Words looked at on each side.
const REACH: usize = 6;
/// Bytes looked at on each side; six words of ordinary length and their punctuation. Keeps the cost linear.
const REACH_BYTES: usize = 120;
/// Longer words are no context words.
const WORD_BYTES: usize = 24;

/// A set of topics that words can speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topics(u64);

impl Topics {
    pub(super) const NONE: Self = Topics(0);

    pub(super) const fn or(self, other: Self) -> Self {
        Topics(self.0 | other.0)
    }

    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Declares the topics, each with its words; a word of two parts is separated by one space.
macro_rules! topics {
    ($($name:ident = $bit:literal: $($word:literal)*;)*) => {
        $(pub(super) const $name: Topics = Topics(1 << $bit);)*
        const WORDS: &[(&str, Topics)] = &[$($(($word, $name),)*)*];
    };
}

topics! {
    PHONE = 0: "phone" "phones" "telephone" "tel" "mobile" "cell" "cellphone" "call" "called" "dial" "whatsapp" "sms" "telefon" "handy" "contact" "hotline" "ph" "phoned" "calling" "texted" "texting" "rang" "landline" "voicemail" "mob" "rufnummer" "téléphone" "teléfono" "móvil";
    FAX = 1: "fax" "telefax" "facsimile" "faxes" "faxed" "faxing" "faxnummer" "télécopie";
    SSN = 2: "ssn" "social" "ssns" "itin" "tin" "soc sec";
    IBAN = 3: "iban";
    CARD = 4: "card" "cards" "visa" "mastercard" "amex" "credit" "debit" "pan" "discover" "diners" "jcb" "kreditkarte" "carte";
    CVV = 5: "cvv" "cvc" "cvv2" "cvc2" "cid" "security code" "verification code" "csc" "cvn" "card code" "verification value" "kartenprüfnummer";
    PASSPORT = 6: "passport" "passports" "reisepass" "passeport" "pasaporte" "passaporto" "paspoort" "paszport" "reisepassnummer" "travel document";
    TAX = 7: "tax" "steuer" "steuernummer" "steueridentifikationsnummer" "idnr" "tfn" "nif" "fiscal" "taxpayer";
    NATIONAL = 8: "bsn" "burgerservicenummer" "dni" "nie" "nir" "insee" "pesel" "personnummer" "cpf" "aadhaar" "aadhar" "uidai" "nino" "hetu" "cpr" "fodselsnummer" "rijksregisternummer" "codice" "cf" "sin" "national" "citizen" "identity" "identification" "insurance" "personal id" "id card" "curp" "rut" "cnp";
    PLACE = 9: "lat" "latitude" "lon" "lng" "long" "longitude" "coordinates" "coords" "gps" "position" "located" "location" "geo";
    BIRTH = 10: "birth" "born" "dob" "birthday" "birthdate" "admitted" "admission" "discharged" "discharge" "died" "death" "deceased" "date" "dated" "visit" "appointment" "geboren" "since" "on" "surgery" "seen";
    AGE = 11: "age" "aged" "ages" "years old" "year old" "yo" "y o" "alter" "anos" "of age" "yrs" "yrs old" "yr old" "years young" "años" "ans" "jahre alt" "jährige" "jähriger" "jährigen";
    MRN = 12: "mrn" "medical record" "patient id" "patient number" "patient no" "chart" "nhs" "hospital number" "mrns" "medical records" "record number" "patient identifier" "hospital id" "hospital no" "health record" "patientennummer" "krankenakte";
    PLAN = 13: "member id" "member number" "policy" "subscriber" "beneficiary" "health plan" "insurance id" "plan" "medicare" "medicaid" "mbi" "group number" "hicn" "member" "policyholder" "enrollee" "insurance number" "insurance policy" "insurance no" "plan id" "versichertennummer";
    ACCOUNT = 14: "account" "acct" "accounts" "konto" "kontonummer" "compte" "routing" "aba" "iban no" "a c" "customer number" "kundennummer";
    LICENCE = 15: "license" "licence" "licenses" "licences" "driver" "drivers" "driving" "dl" "npi" "dea" "certificate" "permit" "fuhrerschein" "registration number" "licensed" "licensure" "certification" "führerschein" "permis";
    PLATE = 16: "plate" "plates" "license plate" "licence plate" "number plate" "kennzeichen" "vrm" "tag number" "immatriculation" "matricula" "car registration" "vehicle registration" "registration plate";
    DEVICE = 17: "serial" "device" "imei" "udi" "implant" "pacemaker" "device id" "sn" "s n" "seriennummer" "meid" "serials" "hardware id" "asset tag" "device serial";
    NETWORK = 18: "ip" "address" "host" "server" "from" "client" "ipv4" "ipv6" "addr" "login" "subnet";
    BIOMETRIC = 19: "fingerprint" "fingerprints" "biometric" "biometrics" "iris" "retina" "retinal" "voiceprint" "faceprint" "palmprint" "minutiae";
    FACE = 20: "face" "portrait" "headshot" "selfie" "mugshot" "photo" "photograph" "photos" "facial" "picture" "passbild";
    KEYWORD = 21: "secret" "secrets" "password" "passwd" "pwd" "passphrase" "token" "tokens" "apikey" "api key" "key" "keys" "credential" "credentials" "bearer" "authorization" "auth" "private" "access key" "accesskey" "secretkey" "accountkey" "signature" "webhook" "pat" "passwort";
    VIN = 22: "vin" "vehicle" "chassis" "fahrgestellnummer" "fin" "car";
    VERSION = 23: "version" "release" "v" "build" "upgrade" "upgraded" "firmware" "changelog" "section" "chapter" "driver version";
    ZIP = 24: "zip" "zipcode" "postcode" "postal" "plz" "postleitzahl" "zip code" "zips" "post code" "código postal";
    ORDER = 25: "order" "invoice" "tracking" "part" "isbn" "sku" "item" "ticket" "issue" "commit" "page" "article" "ref" "checksum" "sha1" "sha256" "md5" "hash" "digest" "etag" "revision" "bestellung";
}

/// Topics that name what comes next: the nearest of them wins.
const LABELS: Topics = PHONE
    .or(FAX)
    .or(SSN)
    .or(IBAN)
    .or(CARD)
    .or(CVV)
    .or(PASSPORT)
    .or(TAX)
    .or(NATIONAL)
    .or(AGE)
    .or(MRN)
    .or(PLAN)
    .or(ACCOUNT)
    .or(LICENCE)
    .or(PLATE)
    .or(DEVICE)
    .or(BIOMETRIC)
    .or(FACE)
    .or(VIN)
    .or(ZIP)
    .or(ORDER)
    .or(VERSION);

/// What a word says, and whether a second word may follow to make one context word of the two.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    alone: Topics,
    begins_pair: bool,
}

static MEANINGS: LazyLock<HashMap<&'static [u8], Meaning>> = LazyLock::new(|| {
    let mut meanings = HashMap::new();
    let silent = Meaning { alone: Topics::NONE, begins_pair: false };
    for (word, topics) in WORDS {
        let meaning = meanings.entry(word.as_bytes()).or_insert(silent);
        meaning.alone = meaning.alone.or(*topics);
        if let Some((first, _)) = word.split_once(' ') {
            meanings.entry(first.as_bytes()).or_insert(silent).begins_pair = true;
        }
    }
    meanings
});

/// Lower case of a word of ASCII letters and digits, or of its letters without punctuation beyond ASCII.
#[derive(Debug, Clone, Copy)]
struct Word {
    bytes: [u8; 2 * WORD_BYTES + 1],
    len: usize,
}

impl Word {
    fn of(bytes: &[u8]) -> Option<Self> {
        let bytes = if bytes.is_ascii() { bytes } else { bare(bytes) };
        let mut word = Word { bytes: [0; 2 * WORD_BYTES + 1], len: bytes.len() };
        if bytes.is_empty() || bytes.len() > WORD_BYTES {
            return None;
        }
        word.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        word.bytes.make_ascii_lowercase();
        Some(word)
    }

    fn joined(self, next: Word) -> Option<Self> {
        let mut pair = self;
        *pair.bytes.get_mut(self.len)? = b' ';
        pair.bytes.get_mut(self.len + 1..=self.len + next.len)?.copy_from_slice(next.as_bytes());
        pair.len = self.len + 1 + next.len;
        Some(pair)
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Without quotes and dashes beyond ASCII at the ends: bytes of them look like those of letters.
fn bare(bytes: &[u8]) -> &[u8] {
    let text = str::from_utf8(bytes).unwrap_or_default();
    text.trim_matches(|symbol: char| !symbol.is_alphanumeric()).as_bytes()
}

/// One context word near a candidate.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// Words between it and the candidate, counted from one.
    distance: usize,
    topics: Topics,
    /// A number between the two, and a word between that and the candidate: it spoke of that number.
    is_taken: bool,
}

/// The context of one candidate; on each side the nearest word first.
#[derive(Debug, Default)]
pub(super) struct Window {
    before: Vec<Heard>,
    behind: Vec<Heard>,
}

impl Window {
    /// Listens around `span`; words in `deaf` ranges (placeholders, sorted) count as words without meaning.
    pub(super) fn around(text: &[u8], span: &Range<usize>, deaf: &[Range<usize>]) -> Self {
        let low = span.start.saturating_sub(REACH_BYTES);
        let high = text.len().min(span.end.saturating_add(REACH_BYTES));
        let before: Vec<_> = words_before(text, low, span.start).collect();
        let behind: Vec<_> = words_behind(text, span.end, high).collect();
        let second_before = |place: usize| place.checked_sub(1);
        let second_behind = |place: usize| Some(place + 1);
        Window { before: heard(text, &before, deaf, second_before), behind: heard(text, &behind, deaf, second_behind) }
    }

    /// A word of these topics is at most `reach` words away.
    pub(super) fn has(&self, topics: Topics, reach: usize) -> bool {
        let near = |heard: &Heard| heard.distance <= reach && heard.topics.meets(topics);
        self.before.iter().chain(&self.behind).any(near)
    }

    /// The label nearest before the candidate, else nearest behind it, is one of these topics.
    pub(super) fn is_labelled(&self, topics: Topics, reach: usize) -> bool {
        let label = |heard: &&Heard| heard.topics.meets(LABELS) && !heard.is_taken;
        let nearest = self.before.iter().find(label).or_else(|| self.behind.iter().find(label));
        nearest.is_some_and(|heard| heard.distance <= reach && heard.topics.meets(topics))
    }

    /// The label nearest before the candidate is one of these topics.
    pub(super) fn is_preceded(&self, topics: Topics) -> bool {
        let nearest = self.before.iter().find(|heard| heard.topics.meets(LABELS) && !heard.is_taken);
        nearest.is_some_and(|heard| heard.topics.meets(topics))
    }
}

/// What the words say, the nearest first. `second` is the place of the word that follows in the text.
fn heard(
    text: &[u8],
    words: &[Range<usize>],
    deaf: &[Range<usize>],
    second: impl Fn(usize) -> Option<usize>,
) -> Vec<Heard> {
    let is_deaf = |word: &Range<usize>| !deaf.is_empty() && inside(deaf, word.start);
    let word = |range: &Range<usize>| if is_deaf(range) { None } else { text.get(range.clone()).and_then(Word::of) };
    let mut found = Vec::new();
    let (mut has_word, mut is_taken) = (false, false);
    for (place, range) in words.iter().enumerate() {
        let first = word(range);
        let meaning = first.and_then(|first| MEANINGS.get(first.as_bytes()));
        if let (Some(first), Some(meaning)) = (first, meaning) {
            let next = second(place).and_then(|place| words.get(place)).filter(|_| meaning.begins_pair);
            let pair = next.and_then(word).and_then(|next| first.joined(next));
            let pair = pair.and_then(|pair| MEANINGS.get(pair.as_bytes())).map_or(Topics::NONE, |pair| pair.alone);
            let topics = meaning.alone.or(pair);
            if topics != Topics::NONE {
                found.push(Heard { distance: place + 1, topics, is_taken });
            }
        }
        let is_number =
            meaning.is_none() && text.get(range.clone()).is_some_and(|word| word.iter().any(u8::is_ascii_digit));
        is_taken |= is_number && has_word;
        // A list goes on: the label speaks of all its numbers.
        has_word |= !is_number && first.is_some_and(|word| !matches!(word.as_bytes(), b"and" | b"or"));
    }
    found
}

/// A range of the sorted list has this offset in it.
pub(super) fn inside(ranges: &[Range<usize>], offset: usize) -> bool {
    let place = ranges.partition_point(|range| range.end <= offset);
    ranges.get(place).is_some_and(|range| range.start <= offset)
}

/// A range of the sorted list overlaps the span.
pub(super) fn meets(ranges: &[Range<usize>], span: &Range<usize>) -> bool {
    let place = ranges.partition_point(|range| range.end <= span.start);
    ranges.get(place).is_some_and(|range| range.start < span.end)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Words that end at or before `high`, the nearest first.
fn words_before(text: &[u8], low: usize, high: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = high;
    let byte = move |at: usize| text.get(at).copied().unwrap_or(b' ');
    let next = move || {
        while at > low && !is_word(byte(at - 1)) {
            at -= 1;
        }
        let end = at;
        while at > low && is_word(byte(at - 1)) {
            at -= 1;
        }
        // A word that the limit cuts might be the tail of another one.
        (at < end && (at > low || low == 0)).then_some(at..end)
    };
    std::iter::from_fn(next).take(REACH)
}

/// Words that begin at or behind `low`, the nearest first. A sentence's end ends them: what comes next names its own numbers.
fn words_behind(text: &[u8], low: usize, high: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = low;
    let byte = move |at: usize| text.get(at).copied().unwrap_or(b' ');
    let next = move || {
        while at < high && !is_word(byte(at)) {
            let is_end = matches!(byte(at), b'.' | b'!' | b'?') && byte(at + 1).is_ascii_whitespace();
            if is_end || byte(at) == b'\n' {
                at = high;
                return None;
            }
            at += 1;
        }
        let start = at;
        while at < high && is_word(byte(at)) {
            at += 1;
        }
        (start < at && (at < high || high == text.len())).then_some(start..at)
    };
    std::iter::from_fn(next).take(REACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str, needle: &str) -> Window {
        let start = text.find(needle).unwrap();
        Window::around(text.as_bytes(), &(start..start + needle.len()), &[])
    }

    #[test]
    fn whole_words_are_context_and_parts_are_not() {
        assert!(window("my SSN: 123", "123").has(SSN, 6));
        assert!(window("123 is my ssn", "123").has(SSN, 6));
        assert!(!window("lessn 123", "123").has(SSN, 6));
        assert!(window("“SSN” 123", "123").has(SSN, 6), "quotes beyond ASCII are no letters");
    }

    #[test]
    fn seventh_word_is_too_far() {
        assert!(window("ssn a b c d e 123", "123").has(SSN, 6));
        assert!(!window("ssn a b c d e f 123", "123").has(SSN, 6));
        assert!(!window("123 a b c d e f ssn", "123").has(SSN, 6));
    }

    #[test]
    fn pairs_count_and_their_halves_do_not() {
        assert!(window("medical record 123", "123").has(MRN, 6));
        assert!(!window("medical 123 record", "123").has(MRN, 6));
        assert!(!window("a record 123", "123").has(MRN, 6));
    }

    #[test]
    fn nearest_label_wins() {
        let text = "passport X1, licence Y2";
        assert!(window(text, "X1").is_labelled(PASSPORT, 6));
        assert!(window(text, "Y2").is_labelled(LICENCE, 6));
        assert!(!window(text, "Y2").is_labelled(PASSPORT, 6));
        assert!(window("Z3 is the passport", "Z3").is_labelled(PASSPORT, 6));
    }

    #[test]
    fn a_label_speaks_of_the_number_beside_it() {
        let text = "account 111 was closed, parcel 222";
        assert!(window(text, "111").is_labelled(ACCOUNT, 6));
        assert!(!window(text, "222").is_labelled(ACCOUNT, 6));
        assert!(!window("room 222. Account: 111", "222").is_labelled(ACCOUNT, 6), "another sentence");
        assert!(window("accounts 111, 112 and 222", "222").is_labelled(ACCOUNT, 6), "a list");
    }

    #[test]
    fn placeholders_are_not_heard() {
        let text = "[SSN_1] 123";
        assert!(window(text, "123").has(SSN, 6));
        let ranges = vec![0..7, 20..21];
        assert!(!Window::around(text.as_bytes(), &(8..11), &ranges).has(SSN, 6));
        assert!(inside(&ranges, 6) && !inside(&ranges, 7));
    }

    #[test]
    fn words_cut_by_the_limit_are_not_heard() {
        let text = format!("{}ssn{}123", "x".repeat(40), " ".repeat(REACH_BYTES - 3));
        assert!(!window(&text, "123").has(SSN, 6));
    }
}
