//! Numbers that states give to people, each with its own check.

use super::{Edge, Rule};
use crate::dlp::DataKind::{NationalId, Ssn};
use crate::dlp::checksum::{Digits, luhn, mod_11_10, number, verhoeff, weighted};
use crate::dlp::context::{NATIONAL, SSN, TAX, Topics};

const ANY: Topics = NATIONAL.or(TAX).or(SSN);

pub(super) fn rules() -> Vec<Rule> {
    let id = |pattern, base, check: fn(&[u8]) -> bool| Rule::new(NationalId, pattern, base).is(check).near(ANY, 95);
    vec![
        Rule::new(Ssn, r"[0-9]{3}-[0-9]{2}-[0-9]{4}", 82).is(ssn).near(SSN, 98),
        Rule::new(Ssn, r"[0-9]{3}<S>?[0-9]{2}<S>?[0-9]{4}", 10).is(ssn).labelled(SSN, 6, 90),
        id(r"[0-9]{8}-?[A-Za-z]|[XYZxyz]-?[0-9]{7}-?[A-Za-z]", 80, spain),
        id(r"(?i)[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]", 90, italy),
        id(r"(?i)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]", 75, kingdom),
        id(r"[12]<S>?[0-9]{2}<S>?[0-9]{2}<S>?(?:[0-9]{2}|2[AB])<S>?[0-9]{3}<S>?[0-9]{3}<S>?[0-9]{2}", 75, france),
        id(r"[1-9][0-9]<S>?[0-9]{3}<S>?[0-9]{3}<S>?[0-9]{3}", 45, germany),
        id(r"[0-9]{4}[. ]?[0-9]{2}[. ]?[0-9]{3}", 20, netherlands),
        id(r"[0-9]{11}", 48, poland),
        id(r"(?:19|20)?[0-9]{6}[\-+][0-9]{4}", 70, sweden),
        id(r"(?:19|20)?[0-9]{10}", 20, sweden),
        id(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", 90, brazil),
        id(r"[0-9]{11}", 30, brazil),
        id(r"[2-9][0-9]{3}<S>?[0-9]{4}<S>?[0-9]{4}", 48, india),
        id(r"[0-9]{6}[\-+A-FYXWVU][0-9]{3}[0-9A-FHJ-NPR-Y]", 90, finland),
        id(r"[0-9]{6} ?[0-9]{5}", 48, norway),
        id(r"[0-9]{6}-?[0-9]{4}", 20, denmark),
        id(r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", 90, belgium),
        id(r"[0-9]{11}", 20, belgium),
        id(r"[1235689][0-9]{2} ?[0-9]{3} ?[0-9]{3}", 20, portugal),
        id(r"[1-79][0-9]{2}[ \-]?[0-9]{3}[ \-]?[0-9]{3}", 20, canada),
        id(r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}", 20, australia),
        id(r"[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9Xx]", 90, china),
        id(r"[0-9]{6}-[1-8][0-9]{6}", 75, |bytes| {
            Digits::exactly::<13>(bytes).is_some_and(|d| is_day(d[2..4].as_ref(), &d[4..6]))
        }),
        id(r"[0-9]{13}", 45, south_africa),
        id(r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", 95, switzerland),
        id(r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", 92, |_| true).edge(Edge::Word),
        id(r"[0-9]{7}[A-W][A-IW]?", 48, ireland),
    ]
}

/// Two digits of a month and two of a day can be a birthday.
fn is_day(month: &[u8], day: &[u8]) -> bool {
    (1..=12).contains(&number(month)) && (1..=31).contains(&number(day))
}

/// Social Security Administration, POMS RM 10201.035: no area 000, 666; 9xx are taxpayer numbers (IRS, group 50 and up).
fn ssn(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<9>(bytes) else { return false };
    let [area, group, serial] = [number(&digits[..3]), number(&digits[3..5]), number(&digits[5..])];
    let is_area = !matches!(area, 0 | 666) && (area < 900 || group >= 50);
    is_area && group != 0 && serial != 0
}

/// DNI and NIE: the letter is the number modulo 23. Ministerio del Interior; X, Y, Z of an NIE count 0, 1, 2.
fn spain(bytes: &[u8]) -> bool {
    let compact: Vec<u8> = bytes.iter().filter(|byte| **byte != b'-').map(u8::to_ascii_uppercase).collect();
    let Some((letter, body)) = compact.split_last() else { return false };
    let value = |byte: &u8| if byte.is_ascii_digit() { byte - b'0' } else { byte.saturating_sub(b'X') };
    let digits: Vec<u8> = body.iter().map(value).collect();
    let place = usize::try_from(number(&digits) % 23).unwrap_or_default();
    b"TRWAGMYFPDXBNJZSQVHLCKE".get(place) == Some(letter)
}

/// Codice fiscale: odd places by table, even by value, sum modulo 26. DM 23 December 1976.
fn italy(bytes: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let value =
        |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte.to_ascii_uppercase().saturating_sub(b'A') };
    let Some((check, body)) = bytes.split_last() else { return false };
    let part = |(place, byte): (usize, &u8)| {
        let value = value(*byte);
        if place % 2 == 0 { ODD.get(usize::from(value)).copied().unwrap_or(0) } else { u32::from(value) }
    };
    body.iter().enumerate().map(part).sum::<u32>() % 26 == u32::from(value(*check))
}

/// National insurance number: prefixes that are never given. HMRC NIM39110.
fn kingdom(bytes: &[u8]) -> bool {
    let prefix = bytes.get(..2).unwrap_or_default().to_ascii_uppercase();
    ![b"BG", b"GB", b"NK", b"KN", b"TN", b"NT", b"ZZ"].iter().any(|never| prefix == never.as_slice())
}

/// NIR: key 97 less the rest; Corsica's 2A and 2B count as 19 and 18. INSEE.
fn france(bytes: &[u8]) -> bool {
    let compact: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let corsica = match compact.get(6) {
        Some(b'A') => b"19",
        Some(b'B') => b"18",
        _ => compact.get(5..7).and_then(|code| code.try_into().ok()).unwrap_or(b"00"),
    };
    let Some((head, tail)) = compact.split_at_checked(5).zip(compact.get(7..)).map(|((head, _), tail)| (head, tail))
    else {
        return false;
    };
    let Some(digits) = Digits::exactly::<15>(&[head, corsica, tail].concat()) else { return false };
    let (body, key) = digits.split_at(13);
    97 - number(body) % 97 == number(key)
}

/// Steuer-Identifikationsnummer: one digit of the first ten occurs twice or thrice. Bundeszentralamt für Steuern.
fn germany(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<11>(bytes) else { return false };
    let count = |digit: u8| digits.iter().take(10).filter(|other| **other == digit).count();
    let repeated = (0..10).filter(|digit| count(*digit) > 1).count();
    repeated == 1 && (0..10).all(|digit| count(digit) <= 3) && mod_11_10(&digits)
}

/// Burgerservicenummer: the eleven test. Rijksdienst voor Identiteitsgegevens.
fn netherlands(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<9>(bytes) else { return false };
    weighted(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11 == u32::from(digits[8]) && number(&digits) > 0
}

/// PESEL: weights 1, 3, 7, 9; the century is in the month. Ministerstwo Cyfryzacji.
fn poland(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<11>(bytes) else { return false };
    let month = [digits[2] % 2, digits[3]];
    weighted(&digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]).is_multiple_of(10) && is_day(&month, &digits[4..6])
}

/// Personnummer: Luhn over the last ten; a coordination number has 60 added to the day. Skatteverket SKV 704.
fn sweden(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::of(bytes) else { return false };
    let digits = digits.as_slice();
    let digits = digits.get(digits.len().saturating_sub(10)..).unwrap_or_default();
    let [_, _, m1, m2, d1, d2, ..] = *digits else { return false };
    is_day(&[m1, m2], &[d1 % 6, d2]) && luhn(digits)
}

/// CPF: two check digits modulo 11; eleven equal digits are never given. Receita Federal.
fn brazil(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<11>(bytes) else { return false };
    let check = |len: usize| {
        let weights: Vec<u32> = (2..).take(len).collect::<Vec<_>>().into_iter().rev().collect();
        let rest = weighted(&digits[..len], &weights) * 10 % 11 % 10;
        rest == u32::from(digits[len])
    };
    digits.iter().any(|digit| *digit != digits[0]) && check(9) && check(10)
}

/// Aadhaar: Verhoeff over twelve digits. UIDAI.
fn india(bytes: &[u8]) -> bool {
    Digits::exactly::<12>(bytes).is_some_and(|digits| verhoeff(&digits))
}

/// Henkilötunnus: the nine digits modulo 31. Digi- ja väestötietovirasto.
fn finland(bytes: &[u8]) -> bool {
    let (Some(head), Some(tail), Some(check)) = (bytes.get(..6), bytes.get(7..10), bytes.get(10)) else { return false };
    let Some(digits) = Digits::exactly::<9>(&[head, tail].concat()) else { return false };
    let place = usize::try_from(number(&digits) % 31).unwrap_or_default();
    is_day(&digits[2..4], &digits[..2]) && b"0123456789ABCDEFHJKLMNPRSTUVWXY".get(place) == Some(check)
}

/// Fødselsnummer: two checks modulo 11; D-numbers have 40 added to the day. Skatteetaten.
fn norway(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<11>(bytes) else { return false };
    let first = weighted(&digits, &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]);
    let second = weighted(&digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]);
    let day = [digits[0] % 4, digits[1]];
    first.is_multiple_of(11) && second.is_multiple_of(11) && is_day(&[digits[2] % 4, digits[3]], &day)
}

/// CPR number: no check digit since 2007, so only the day is looked at. CPR-kontoret.
fn denmark(bytes: &[u8]) -> bool {
    Digits::exactly::<10>(bytes).is_some_and(|digits| is_day(&digits[2..4], &digits[..2]))
}

/// Rijksregisternummer: 97 less the rest; those born from 2000 on have a 2 before it. Rijksregister.
fn belgium(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<11>(bytes) else { return false };
    let (body, check) = (number(&digits[..9]), number(&digits[9..]));
    is_day(&digits[2..4], &digits[4..6]) && [body, body + 2_000_000_000].iter().any(|body| 97 - body % 97 == check)
}

/// NIF: weights 9 to 2, modulus 11. Autoridade Tributária.
fn portugal(bytes: &[u8]) -> bool {
    let Some(digits) = Digits::exactly::<9>(bytes) else { return false };
    let rest = weighted(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    u32::from(digits[8]) == if rest < 2 { 0 } else { 11 - rest }
}

/// SIN: Luhn over nine digits. Employment and Social Development Canada.
fn canada(bytes: &[u8]) -> bool {
    Digits::exactly::<9>(bytes).is_some_and(|digits| luhn(&digits))
}

/// TFN: weighted sum divisible by 11. Australian Taxation Office.
fn australia(bytes: &[u8]) -> bool {
    let sum = Digits::exactly::<9>(bytes).map(|digits| weighted(&digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10]));
    sum.is_some_and(|sum| sum > 0 && sum.is_multiple_of(11))
}

/// Resident identity number: ISO 7064 MOD 11-2. GB 11643-1999.
fn china(bytes: &[u8]) -> bool {
    let Some((check, body)) = bytes.split_last() else { return false };
    let Some(digits) = Digits::exactly::<17>(body) else { return false };
    let rest = digits.iter().fold(0, |rest, digit| (rest + u32::from(*digit)) * 2 % 11);
    let wanted = (12 - rest) % 11;
    let told = if check.eq_ignore_ascii_case(&b'X') { 10 } else { u32::from(check.saturating_sub(b'0')) };
    is_day(&digits[10..12], &digits[12..14]) && wanted == told
}

/// Identity number: Luhn over thirteen digits, birthday first. Department of Home Affairs.
fn south_africa(bytes: &[u8]) -> bool {
    Digits::exactly::<13>(bytes)
        .is_some_and(|digits| luhn(&digits) && is_day(&digits[2..4], &digits[4..6]) && digits[10] < 2)
}

/// AHV number: the check digit of EAN-13. Zentrale Ausgleichsstelle.
fn switzerland(bytes: &[u8]) -> bool {
    let sum = Digits::exactly::<13>(bytes).map(|digits| weighted(&digits, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]));
    sum.is_some_and(|sum| sum.is_multiple_of(10))
}

/// PPS number: weights 8 to 2, the second letter times 9, modulus 23. Department of Social Protection.
fn ireland(bytes: &[u8]) -> bool {
    let (Some(digits), Some(check)) = (Digits::exactly::<7>(bytes), bytes.get(7)) else { return false };
    let second =
        bytes.get(8).map_or(0, |letter| if *letter == b'W' { 0 } else { u32::from(letter.saturating_sub(b'A')) + 1 });
    let rest = (weighted(&digits, &[8, 7, 6, 5, 4, 3, 2]) + 9 * second) % 23;
    let told = check.saturating_sub(b'A') + 1;
    rest == u32::from(told) % 23
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each issuer's or Wikipedia's published example (articles named after the number); one changed digit must fail.
    #[test]
    fn published_examples_pass_and_a_changed_digit_does_not() {
        type Row = (&'static str, fn(&[u8]) -> bool, &'static str, &'static str);
        let rows: [Row; 22] = [
            ("SSN", ssn, "536-22-1234", "666-22-1234"),
            ("DNI", spain, "12345678Z", "12345679Z"),
            ("NIE", spain, "X1234567L", "Y1234567L"),
            ("codice fiscale", italy, "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
            ("NINO", kingdom, "AB123456C", "BG123456C"),
            ("NIR", france, "1 84 12 76 451 089 46", "1 84 12 76 451 089 47"),
            ("IdNr", germany, "86095742719", "86095742718"),
            ("BSN", netherlands, "111222333", "111222334"),
            ("PESEL", poland, "44051401359", "44051401358"),
            ("personnummer", sweden, "811228-9874", "811228-9875"),
            ("CPF", brazil, "111.444.777-35", "111.444.777-36"),
            ("HETU", finland, "131052-308T", "131052-308U"),
            ("fødselsnummer", norway, "01010750160", "01010750161"),
            ("rijksregisternummer", belgium, "85.07.30-033.28", "85.07.30-033.29"),
            ("SIN", canada, "046 454 286", "046 454 287"),
            ("TFN", australia, "123456782", "123456783"),
            ("resident identity", china, "11010519491231002X", "110105194912310021"),
            ("South Africa", south_africa, "8001015009087", "8001015009088"),
            ("AHV", switzerland, "756.9217.0769.85", "756.9217.0769.86"),
            ("PPS", ireland, "1234567T", "1234567U"),
            ("NIF", portugal, "123456789", "123456788"),
            ("CPR", denmark, "070761-4285", "076161-4285"),
        ];
        for (name, check, good, bad) in rows {
            assert!(check(good.as_bytes()), "{name} {good}");
            assert!(!check(bad.as_bytes()), "{name} {bad}");
        }
    }

    #[test]
    fn no_check_panics_on_what_a_neighbour_matches() {
        for rule in rules() {
            for text in [&b""[..], b"1", b"-", b"Z", &[0xFF; 40], &[b'9'; 30]] {
                rule.valid(text, 0..text.len());
            }
        }
    }
}
