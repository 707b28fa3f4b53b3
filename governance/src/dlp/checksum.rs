//! Check digits of public standards. All take digit values, not characters.

/// The digits of a candidate, at most 24; separators are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digits {
    values: [u8; 24],
    len: usize,
}

impl Digits {
    /// The digits in `bytes`, none if there are more than 24.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut digits = Digits { values: [0; 24], len: 0 };
        for byte in bytes.iter().filter(|byte| byte.is_ascii_digit()) {
            *digits.values.get_mut(digits.len)? = byte - b'0';
            digits.len += 1;
        }
        Some(digits)
    }

    /// The digits in `bytes`, if there are exactly `N`.
    pub(super) fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        Self::of(bytes)?.as_slice().try_into().ok()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.values.get(..self.len).unwrap_or_default()
    }
}

/// The number that decimal digits spell; for at most 18 digits.
pub(super) fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(*digit)))
}

/// Sum of the products of digits and weights; the shorter one ends it.
pub(super) fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| u32::from(*digit) * weight).sum()
}

/// Luhn's sum is divisible by ten. ISO/IEC 7812-1:2017, annex B.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum = digits
        .iter()
        .rev()
        .enumerate()
        .fold(0_u32, |sum, (place, digit)| sum + u32::from(if place % 2 == 1 { doubled(*digit) } else { *digit }));
    sum.is_multiple_of(10)
}

/// Letters count 10 to 35, digits themselves, other bytes nothing; the number modulo `modulus`. ISO 7064, ISO 13616.
pub(super) fn alphanumeric_mod<'b>(bytes: impl Iterator<Item = &'b u8>, modulus: u32) -> u32 {
    bytes.fold(0, |rest, byte| match byte.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => (rest * 10 + u32::from(digit - b'0')) % modulus,
        letter @ b'A'..=b'Z' => (rest * 100 + u32::from(letter - b'A') + 10) % modulus,
        _ => rest,
    })
}

/// Hybrid check digit with moduli 11 and 10. ISO 7064, clause 9.
pub(super) fn mod_11_10(digits: &[u8]) -> bool {
    let Some((check, body)) = digits.split_last() else { return false };
    let product = body.iter().fold(10_u32, |product, digit| {
        let sum = (product + u32::from(*digit)) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(*check)
}

/// Check digit of the dihedral group D5. Verhoeff 1969; tables as in Wagner and Putter 1989.
pub(super) fn verhoeff(digits: &[u8]) -> bool {
    const PERMUTE: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    let permuted = |(place, digit): (usize, &u8)| PERMUTE[place % 8].get(usize::from(*digit)).copied().unwrap_or(0);
    digits.iter().rev().enumerate().map(permuted).fold(0, dihedral) == 0
}

/// The product of two elements of D5: 0 to 4 turn, 5 to 9 turn and mirror.
fn dihedral(left: u8, right: u8) -> u8 {
    let turned = if left < 5 { left + right % 5 } else { left + 5 - right % 5 };
    turned % 5 + if (left < 5) == (right < 5) { 0 } else { 5 }
}

/// A vehicle identification number's ninth character is right. 49 CFR 565.15 (c).
pub(super) fn vin(bytes: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let value = |byte: &u8| match byte {
        digit @ b'0'..=b'9' => Some(u32::from(digit - b'0')),
        letter @ b'A'..=b'H' => Some(u32::from(letter - b'A') + 1),
        letter @ b'J'..=b'R' => Some(u32::from(letter - b'J') + 1),
        letter @ b'S'..=b'Z' => Some(u32::from(letter - b'S') + 2),
        _ => None,
    };
    let Some(values) = bytes.iter().map(value).collect::<Option<Vec<_>>>() else { return false };
    let rest = values.iter().zip(WEIGHTS).map(|(value, weight)| value * weight).sum::<u32>() % 11;
    let check = b"0123456789X".get(rest as usize);
    values.len() == WEIGHTS.len() && check == bytes.get(8)
}

/// Shannon entropy of the bytes, bit per character.
pub(super) fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for byte in bytes {
        counts[usize::from(*byte)] = counts[usize::from(*byte)].saturating_add(1);
    }
    let len = f32::from(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    let part = |count: u16| {
        let share = f32::from(count) / len;
        -share * share.log2()
    };
    counts.into_iter().filter(|count| *count > 0).map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        Digits::of(text.as_bytes()).unwrap().as_slice().to_vec()
    }

    // The test numbers of the card networks and of Stripe's and PayPal's documentation.
    #[test]
    fn luhn_accepts_the_test_cards_and_no_changed_digit() {
        for good in ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "30569309025904"] {
            assert!(luhn(&digits(good)), "{good}");
            for place in 0..good.len() {
                let mut wrong = digits(good);
                wrong[place] = (wrong[place] + 1) % 10;
                assert!(!luhn(&wrong), "{good} changed at {place}");
            }
        }
    }

    // The IBAN registry's examples, SWIFT release 99; letters behind digits turned to the front.
    #[test]
    fn iban_examples_have_rest_one() {
        for moved in ["WEST12345698765432GB82", "370400440532013000DE89", "20041010050500013M02606FR14"] {
            assert_eq!(alphanumeric_mod(moved.as_bytes().iter(), 97), 1, "{moved}");
        }
        assert_ne!(alphanumeric_mod(b"WEST12345698765433GB82".iter(), 97), 1);
    }

    // ISO 7064 as described by the German Federal Central Tax Office; 2363 is the example of Wikipedia's article on Verhoeff.
    #[test]
    fn hybrid_and_dihedral_checks_follow_their_examples() {
        assert!(mod_11_10(&digits("86095742719")));
        assert!(!mod_11_10(&digits("86095742710")));
        assert!(!mod_11_10(&[]));
        assert!(verhoeff(&digits("2363")));
        assert!(!verhoeff(&digits("2364")));
        assert!(!verhoeff(&digits("2633")), "a swap is seen");
    }

    // 49 CFR 565 example numbers as used by Wikipedia; the all-ones number is the classic self-check.
    #[test]
    fn vin_check_digit_is_the_ninth() {
        assert!(vin(b"1M8GDM9AXKP042788"));
        assert!(vin(b"11111111111111111"));
        assert!(!vin(b"1M8GDM9A1KP042788"));
        assert!(!vin(b"1M8GDM9AXKP04278"));
        assert!(!vin(b"1M8GDM9AXKPO42788"), "no letter O");
    }

    #[test]
    fn entropy_of_equal_shares_is_the_logarithm_of_their_count() {
        assert!((entropy(b"abcdefgh") - 3.0).abs() < 1e-6);
        assert!(entropy(b"aaaaaaaaaaaa").abs() < 1e-6);
    }

    #[test]
    fn more_than_24_digits_are_no_candidate() {
        assert_eq!(Digits::of(&[b'1'; 25]), None);
        assert_eq!(Digits::exactly::<3>(b"1-2-3"), Some([1, 2, 3]));
        assert_eq!(Digits::exactly::<3>(b"12"), None);
        assert_eq!(number(&[1, 0, 7]), 107);
    }
}
