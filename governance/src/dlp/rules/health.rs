//! What only health records and their like have: record, plan, licence and device numbers, vehicles, ages, markers.

use std::ops::Range;

use super::{Edge, Rule, digits_in, is_id_byte};
use crate::dlp::DataKind::{
    Age, Biometric, DeviceSerial, FaceImage, HealthPlan, Licence, Mrn, Passport, Plate, UniqueId, Vin,
};
use crate::dlp::checksum::{self, Digits, luhn};
use crate::dlp::context::{AGE, DEVICE, FACE, LICENCE, MRN, PASSPORT, PLAN, PLATE, Topics, VIN};

/// Numbers that only their label tells: up to four letters, then digits, letters and hyphens.
const LABELLED: &str = r"[A-Za-z]{0,4}-?[0-9]";
/// Longer ones are no numbers that people are given.
const ID_MAX: usize = 24;

pub(super) fn rules() -> Vec<Rule> {
    let labelled = |kind, check: fn(&[u8]) -> bool, topics: Topics| {
        Rule::new(kind, LABELLED, 0).run(is_id_byte, ID_MAX).is(check).labelled(topics, 5, 80)
    };
    vec![
        labelled(Passport, passport, PASSPORT),
        labelled(Mrn, |id| shaped(id, 5, 14, 4), MRN),
        labelled(HealthPlan, |id| shaped(id, 6, 16, 4), PLAN),
        labelled(Licence, |id| shaped(id, 5, 16, 4), LICENCE),
        labelled(DeviceSerial, |id| shaped(id, 6, 20, 3), DEVICE),
        Rule::new(HealthPlan, r"[1-9][AC-HJ-NP-RT-Y][AC-HJ-NP-RT-Y0-9][0-9]-?[AC-HJ-NP-RT-Y][AC-HJ-NP-RT-Y0-9][0-9]-?[AC-HJ-NP-RT-Y]{2}[0-9]{2}", 75).near(PLAN, 95),
        Rule::new(Mrn, r"[0-9]{3}<S>?[0-9]{3}<S>?[0-9]{4}", 0).is(nhs).labelled(MRN, 6, 95),
        Rule::new(Licence, r"[A-Z][A-Z9][0-9]{7}", 30).is(dea).labelled(LICENCE, 6, 95),
        Rule::new(DeviceSerial, r"[0-9]{15}|[0-9]{2}-[0-9]{6}-[0-9]{6}-[0-9]", 0).is(imei).labelled(DEVICE, 6, 95),
        Rule::new(DeviceSerial, r"[0-9A-Fa-f]{2}(?:[:\-][0-9A-Fa-f]{2}){5}", 80).edge(Edge::Number),
        Rule::new(Vin, r"[A-HJ-NPR-Z0-9]{17}", 80).is(checked_vin).near(VIN, 98),
        Rule::new(Vin, r"[A-HJ-NPR-Z0-9]{17}", 0).is(|id| shaped(id, 17, 17, 4)).labelled(VIN, 6, 75),
        Rule::new(Plate, r"[A-Z]{1,3}[ \-]?[A-Z]{0,2}[ \-]?[0-9]{1,4}(?:-?[A-Z]{1,3}| [A-Z]{2,3})?|[0-9]{1,3}[ \-]?[A-Z]{2,3}[ \-]?[0-9]{1,4}", 0)
            .is(|id| id.len() >= 4)
            .labelled(PLATE, 4, 80),
        Rule::new(Age, r"9[0-9]|1[0-2][0-9]", 0).span(over_89).near(AGE, 90).reach(2).edge(Edge::Word),
        Rule::new(UniqueId, r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}", 82),
        Rule::new(Biometric, r"(?i)(?:finger|palm|voice|face)[ _\-]?prints?[ _\-](?:templates?|scans?|hash(?:es)?|images?|records?|id|data)", 85).run(is_marker_byte, 64).edge(Edge::Word),
        Rule::new(Biometric, r"(?i)(?:retinal?|iris|biometrics?)[ _\-](?:templates?|scans?|hash(?:es)?|images?|records?|id|data|patterns?)", 85).run(is_marker_byte, 64).edge(Edge::Word),
        Rule::new(FaceImage, r"(?i)(?:[a-z0-9]{1,24}[_\-]){0,3}(?:face|portrait|headshot|mugshot|selfie)(?:[_\-][a-z0-9]{1,24}){0,3}\.(?:jpe?g|png|heic|webp|gif|bmp|tiff?)", 85).edge(Edge::Word),
        Rule::new(FaceImage, r"(?i)full[ \-]face (?:photo(?:graph)?|image|picture)s?", 80).edge(Edge::Word),
        Rule::new(FaceImage, r"data:image/(?:jpeg|png|webp|heic);base64,", 40).run(is_base64_byte, 1 << 20).edge(Edge::Open).near(FACE, 85),
    ]
}

/// So long, with so many digits, in one case of letters.
fn shaped(id: &[u8], min: usize, max: usize, digits: usize) -> bool {
    (min..=max).contains(&id.len()) && digits_in(id) >= digits && id.last() != Some(&b'-') && !is_mixed(id)
}

fn is_mixed(id: &[u8]) -> bool {
    id.iter().any(u8::is_ascii_lowercase) && id.iter().any(u8::is_ascii_uppercase)
}

/// ICAO 9303 part 4: at most nine characters; issuers use six or more.
fn passport(id: &[u8]) -> bool {
    shaped(id, 6, 9, 3) && !id.contains(&b'-')
}

fn is_marker_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'#')
}

fn is_base64_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// The number of a patient in England. NHS Data Dictionary, "NHS NUMBER": weights 10 to 2, modulus 11.
fn nhs(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<10>(bytes) else { return false };
    let rest = 11 - checksum::weighted(&digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    rest % 11 == u32::from(digits[9]) && rest != 10
}

/// The registration of a prescriber. 21 CFR 1301; the usual sum of odd and doubled even places.
fn dea(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::of(bytes) else { return false };
    let digits = digits.as_slice();
    let digits = digits.get(digits.len().saturating_sub(7)..).unwrap_or_default();
    let sum = checksum::weighted(digits, &[1, 2, 1, 2, 1, 2]);
    digits.get(6).is_some_and(|check| sum % 10 == u32::from(*check))
}

/// 3GPP TS 23.003 annex B.
fn imei(bytes: &[u8]) -> bool {
    Digits::exactly::<15>(bytes).is_some_and(|digits| luhn(&digits))
}

fn checked_vin(bytes: &[u8]) -> bool {
    digits_in(bytes) >= 3 && digits_in(bytes) < 17 && checksum::vin(bytes)
}

/// 45 CFR 164.514 (b)(2)(i)(C); nobody has been 123. `90+` is what redaction leaves of it.
fn over_89(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let digits = Digits::of(text.get(span.clone())?)?;
    let is_coarse = text.get(span.end) == Some(&b'+');
    ((90..=122).contains(&checksum::number(digits.as_slice())) && !is_coarse).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    // NHS Data Dictionary's example; the DEA's published example; GSMA's example IMEI.
    #[test]
    fn published_examples_pass_and_a_changed_digit_does_not() {
        assert!(nhs(b"943 476 5919") && !nhs(b"943 476 5918"));
        assert!(dea(b"BJ6125341") && !dea(b"BJ6125342"));
        assert!(imei(b"490154203237518") && !imei(b"490154203237519"));
    }

    #[test]
    fn ages_are_identifying_above_89() {
        let is_age = |text: &[u8], len| over_89(text, 0..len).is_some();
        assert!(is_age(b"90", 2) && is_age(b"122", 3));
        assert!(!is_age(b"89", 2) && !is_age(b"123", 3) && !is_age(b"90+", 2));
    }
}
