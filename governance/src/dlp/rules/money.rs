//! Payment cards, bank accounts.

use super::{Rule, digits_in, is_id_byte};
use crate::dlp::DataKind::{Account, Cvv, Iban, Pan};
use crate::dlp::checksum::{Digits, alphanumeric_mod, luhn, number, weighted};
use crate::dlp::context::{ACCOUNT, CARD, CVV, IBAN};

/// Lengths of IBANs by country. IBAN registry, release 99.
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 \
    DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 \
    KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 \
    QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

pub(super) fn rules() -> Vec<Rule> {
    vec![
        // Only the groupings cards are printed with: any other would read every tenth table of numbers as a card.
        Rule::new(Pan, r"[0-9]{13,19}", 85).is(card).near(CARD, 99),
        Rule::new(Pan, r"[0-9]{4}(?:<S>[0-9]{4}){3}(?:<S>[0-9]{1,3})?", 90).is(card).near(CARD, 99),
        Rule::new(Pan, r"[0-9]{4}<S>[0-9]{6}<S>[0-9]{4,5}", 90).is(card).near(CARD, 99),
        Rule::new(Cvv, r"[0-9]{3,4}", 0).labelled(CVV, 6, 80),
        Rule::new(Iban, r"[A-Za-z]{2}[0-9]{2}(?:<S>?[A-Za-z0-9]{4}){2,7}(?:<S>?[A-Za-z0-9]{1,4})?", 95)
            .is(iban)
            .near(IBAN, 99),
        Rule::new(Account, r"[0-9]", 0).run(is_id_byte, 24).is(account).labelled(ACCOUNT, 5, 80),
        Rule::new(Account, r"[0-9]{9}", 20).is(routing).labelled(ACCOUNT, 6, 85),
    ]
}

/// The ranges the networks have announced, and their lengths. ISO/IEC 7812; the networks' own BIN tables.
fn is_issued(digits: &[u8]) -> bool {
    let Some(head) = digits.get(..6).map(number) else { return false };
    let len = digits.len();
    match head {
        400_000..=499_999 => matches!(len, 13 | 16 | 19),
        510_000..=559_999 | 222_100..=272_099 | 810_000..=829_999 => len == 16,
        340_000..=349_999 | 370_000..=379_999 => len == 15,
        300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999 | 380_000..=399_999 => (14..=19).contains(&len),
        220_000..=220_499 | 352_800..=358_999 | 601_100..=601_199 | 620_000..=629_999 | 644_000..=659_999 => {
            (16..=19).contains(&len)
        }
        500_000..=509_999 | 560_000..=699_999 => (13..=19).contains(&len),
        _ => false,
    }
}

fn card(bytes: &[u8]) -> bool {
    Digits::of(bytes).is_some_and(|digits| is_issued(digits.as_slice()) && luhn(digits.as_slice()))
}

fn iban(bytes: &[u8]) -> bool {
    let compact: Vec<u8> =
        bytes.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase).collect();
    let Some((head, body)) = compact.split_at_checked(4) else { return false };
    let told = format!("{}{}", String::from_utf8_lossy(head.get(..2).unwrap_or_default()), compact.len());
    IBAN_LENGTHS.split_ascii_whitespace().any(|known| known == told)
        && alphanumeric_mod(body.iter().chain(head), 97) == 1
}

fn account(bytes: &[u8]) -> bool {
    (6..=20).contains(&digits_in(bytes)) && bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count() <= 3
}

/// The routing number of a bank of the United States. ANSI X9.9 / ABA policy, 3-7-1 weights.
fn routing(bytes: &[u8]) -> bool {
    Digits::exactly::<9>(bytes).is_some_and(|digits| weighted(&digits, &[3, 7, 1, 3, 7, 1, 3, 7, 1]).is_multiple_of(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Stripe's, PayPal's and the networks' published test numbers.
    #[test]
    fn cards_of_the_networks_pass_and_a_wrong_digit_or_range_does_not() {
        for good in [
            "4111111111111111",
            "5555555555554444",
            "378282246310005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "2223003122003222",
            "4222222222222",
            "6200000000000005",
        ] {
            assert!(card(good.as_bytes()), "{good}");
        }
        assert!(!card(b"4111111111111112"));
        assert!(!card(b"0000000000000000"), "no such range");
        assert!(!card(b"411111111111116"), "15 digits are no Visa card");
    }

    // IBAN registry examples.
    #[test]
    fn registry_examples_are_ibans() {
        for good in [
            "GB82WEST12345698765432",
            "DE89 3704 0044 0532 0130 00",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
        ] {
            assert!(iban(good.as_bytes()), "{good}");
        }
        assert!(!iban(b"GB82WEST12345698765433"));
        assert!(!iban(b"ZZ82WEST12345698765432"));
    }

    // Federal Reserve Bank of Boston.
    #[test]
    fn routing_number_weights() {
        assert!(routing(b"011000015"));
        assert!(!routing(b"011000016"));
    }
}
