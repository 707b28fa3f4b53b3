//! Stand-ins: vault tokens and the days by which a subject's dates are moved.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::DataKind;
use super::checksum::{Digits, luhn};

/// `tok_`, 26 characters, `_`, four.
pub(super) const TOKEN_LEN: usize = 35;
/// A value with fewer letters and digits shows none of them.
const SHOWN_FROM: usize = 12;

/// What tokens and date shifts are derived with: one key per tenant, kept where its other keys are.
pub struct PseudonymKey(hmac::Key);

impl PseudonymKey {
    /// A key from 32 random bytes.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        PseudonymKey(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Days by which this subject's dates are moved: always the same, -365 to 365, never 0.
    #[must_use]
    pub fn days(&self, subject: &str) -> i32 {
        let tag = self.tag(&[b"date", subject.as_bytes()]);
        let wide = tag.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let place = i32::try_from(wide % 730).unwrap_or_default();
        if place < 365 { place - 365 } else { place - 364 }
    }

    /// Each part with its length before it, so that no two lists of parts read alike.
    fn tag(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(..)")
    }
}

/// What stands for a value that a vault keeps: `tok_<26 base32>_<last4>`.
///
/// The same key, kind and value give the same token. Its digits fail Luhn's check, so that no scanner takes it for a card;
/// the last four characters are those of the value if it is long enough, else `xxxx`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// The token of a value.
    #[must_use]
    pub fn derive(key: &PseudonymKey, kind: DataKind, value: &str) -> Self {
        let last = last_four(value);
        let made = |attempt: u32| {
            let tag = key.tag(&[b"token", kind.label().as_bytes(), value.as_bytes(), &attempt.to_be_bytes()]);
            let id = BASE32_NOPAD.encode(tag.as_ref().get(..16)?).to_ascii_lowercase();
            Some(format!("tok_{id}_{last}")).filter(|token| !reads_as_number(token))
        };
        Token((0..=u32::MAX).find_map(made).expect("nine in ten tags fail Luhn's check"))
    }

    /// The token's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text has a token's form.
    #[must_use]
    pub fn is_well_formed(text: &str) -> bool {
        let Some((id, last)) = text.strip_prefix("tok_").and_then(|rest| rest.split_once('_')) else { return false };
        id.len() == 26
            && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
            && last.len() == 4
            && last.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !reads_as_number(text)
    }
}

/// The text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no vault token: wanted tok_, 26 characters of base32, _ and 4 characters")]
pub struct NoToken;

impl TryFrom<String> for Token {
    type Error = NoToken;

    fn try_from(text: String) -> Result<Self, NoToken> {
        if Token::is_well_formed(&text) { Ok(Token(text)) } else { Err(NoToken) }
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digits in the text pass Luhn's check.
fn reads_as_number(text: &str) -> bool {
    // A token has at most 26 + 4 digits, more than a card; then it is none.
    Digits::of(text.as_bytes()).is_some_and(|digits| digits.as_slice().len() > 1 && luhn(digits.as_slice()))
}

fn last_four(value: &str) -> String {
    let shown: Vec<char> = value.chars().filter(char::is_ascii_alphanumeric).collect();
    match shown.len().checked_sub(4).and_then(|at| shown.get(at..)) {
        Some(last) if shown.len() >= SHOWN_FROM => last.iter().collect(),
        _ => "xxxx".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> PseudonymKey {
        PseudonymKey::new(&[7; 32])
    }

    #[test]
    fn token_shows_the_last_four_of_long_values_only() {
        let token = Token::derive(&key(), DataKind::Pan, "4111 1111 1111 1234");
        assert!(Token::is_well_formed(token.as_str()) && token.as_str().ends_with("_1234"), "{token}");
        assert!(Token::derive(&key(), DataKind::Ssn, "536-22-1234").as_str().ends_with("_xxxx"));
        assert_eq!(token.as_str().len(), TOKEN_LEN);
    }

    #[test]
    fn tokens_differ_by_key_kind_and_value() {
        let token = |key: u8, kind, value| Token::derive(&PseudonymKey::new(&[key; 32]), kind, value);
        let one = token(1, DataKind::Pan, "a");
        assert_eq!(one, token(1, DataKind::Pan, "a"));
        for other in [token(2, DataKind::Pan, "a"), token(1, DataKind::Ssn, "a"), token(1, DataKind::Pan, "b")] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn other_text_is_no_token() {
        for text in ["", "tok_a_b", "tok_aaaaaaaaaaaaaaaaaaaaaaaaaa_!!!!", "tok_1aaaaaaaaaaaaaaaaaaaaaaaaa_xxxx"] {
            assert_eq!(Token::try_from(text.to_owned()), Err(NoToken), "{text}");
        }
        let token = Token::derive(&key(), DataKind::Pan, "x");
        let bytes = postcard::to_allocvec(&token).unwrap();
        assert_eq!(postcard::from_bytes::<Token>(&bytes).unwrap(), token);
        assert_eq!(format!("{:?}", key()), "PseudonymKey(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_token_is_luhn_valid(bytes in any::<[u8; 32]>(), value in "[0-9]{13,19}") {
            let token = Token::derive(&PseudonymKey::new(&bytes), DataKind::Pan, &value);
            let digits: Vec<u8> = token.as_str().bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect();
            prop_assert!(digits.len() < 2 || !luhn(&digits), "{}", token);
        }

        #[test]
        fn subjects_move_by_at_most_a_year_and_never_stay(subject in ".*") {
            let days = key().days(&subject);
            prop_assert!((1..=365).contains(&days.abs()));
            prop_assert_eq!(days, key().days(&subject));
        }
    }
}
