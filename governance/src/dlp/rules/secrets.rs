//! Credentials: the formats that providers document, the village's own keys, and what looks random beside a key word.

use std::ops::Range;

use data_encoding::BASE64URL_NOPAD;

use super::{Edge, Rule, digits_in};
use crate::dlp::DataKind::Secret;
use crate::dlp::checksum::entropy;
use crate::dlp::context::KEYWORD;

/// Tokens of all known providers are shorter.
const TOKEN_MAX: usize = 512;
/// A JWT with many claims; proxies refuse larger headers.
const JWT_MAX: usize = 8_192;
/// A private key of 16 384 bit is shorter.
const PEM_MAX: usize = 16_384;
/// Bit per character above which a string beside a key word is taken for a key.
const RANDOM_BITS: f32 = 3.5;

/// Formats with a prefix that nothing else has; the token goes on while its characters do.
const FORMATS: &[&str] = &[
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",        // AWS access key id
    r"gh[pousr]_[A-Za-z0-9]{36}",                  // GitHub
    r"github_pat_[A-Za-z0-9_]{22}",                // GitHub, fine-grained
    r"glpat-[A-Za-z0-9_\-]{20}",                   // GitLab
    r"xox[abeoprs]-[A-Za-z0-9\-]{10}",             // Slack
    r"xapp-[0-9]-[A-Z0-9]{8,12}-[0-9]{10}",        // Slack, app level
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16}", // Stripe
    r"whsec_[A-Za-z0-9+/]{24}",                    // Stripe, webhook
    r"AIza[A-Za-z0-9_\-]{35}",                     // Google API key
    r"GOCSPX-[A-Za-z0-9_\-]{24}",                  // Google OAuth client secret
    r"ya29\.[A-Za-z0-9_\-]{20}",                   // Google access token
    r"sk-(?:proj-|svcacct-|admin-|ant-api[0-9]{2}-|or-v1-)?[A-Za-z0-9]{16}", // OpenAI and those alike
    r"hf_[A-Za-z0-9]{30}",                         // Hugging Face
    r"npm_[A-Za-z0-9]{36}",                        // npm
    r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_\-]{16}",     // PyPI
    r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}", // SendGrid
    r"(?:AC|SK)[0-9a-f]{32}",                      // Twilio
    r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",           // Telegram
    r"do[opr]_v1_[a-f0-9]{64}",                    // DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",         // Shopify
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",               // age
    r"hv[sb]\.[A-Za-z0-9_\-]{24}",                 // HashiCorp Vault
    r"dapi[a-f0-9]{32}",                           // Databricks
];

pub(super) fn rules() -> Vec<Rule> {
    let format = |pattern: &&'static str| Rule::new(Secret, pattern, 95).run(is_token_byte, TOKEN_MAX).edge(Edge::Word);
    let mut rules: Vec<_> = FORMATS.iter().map(format).collect();
    rules.extend([
        Rule::new(Secret, r"eyJ[A-Za-z0-9_\-]{5}", 95).run(is_jwt_byte, JWT_MAX).edge(Edge::Open).span(jwt),
        Rule::new(Secret, r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----", 99)
            .run(is_pem_byte, PEM_MAX)
            .edge(Edge::Open)
            .span(pem),
        Rule::new(Secret, r"avk_[A-Za-z0-9]{1,16}_[A-Za-z0-9_\-]{60}", 99)
            .run(is_token_byte, 16)
            .edge(Edge::Word)
            .is(village_key),
        Rule::new(Secret, r"[a-z][a-z0-9+]{1,15}://[!-.0-9;-?A-~]{0,64}:[!-.0-?A-~]{3,128}@", 85)
            .edge(Edge::Open)
            .span(userinfo),
        Rule::new(Secret, r"[A-Za-z0-9+/_=\-]{20}", 0)
            .run(is_random_byte, TOKEN_MAX)
            .edge(Edge::Word)
            .is(random)
            .near(KEYWORD, 75),
    ]);
    rules
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_jwt_byte(byte: u8) -> bool {
    is_token_byte(byte) || byte == b'.'
}

fn is_random_byte(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b'+' | b'/' | b'=')
}

fn is_pem_byte(byte: u8) -> bool {
    is_random_byte(byte) || byte.is_ascii_whitespace() || matches!(byte, b':' | b',' | b'\\')
}

/// Header and claims are base64url of JSON objects; a signature may be empty (RFC 7515 7.1, RFC 7519 6).
fn jwt(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let token = text.get(span.clone())?;
    let len = token.len() - token.iter().rev().take_while(|byte| **byte == b'.').count();
    let mut parts = token.get(..len)?.split(|byte| *byte == b'.');
    let object = |part: &[u8]| BASE64URL_NOPAD.decode(part).is_ok_and(|json| json.first() == Some(&b'{'));
    let is_jwt = parts.next().is_some_and(object) && parts.next().is_some_and(|part| part.starts_with(b"eyJ"));
    is_jwt.then_some(span.start..span.start + len)
}

/// Up to the end line; a key without one is one all the same, as far as it is base64.
fn pem(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    const END: &str = "-----END ";
    let block = str::from_utf8(text.get(span.clone())?).ok()?;
    let end = block.find(END).and_then(|at| {
        let tail = block.get(at + END.len()..)?;
        Some(at + END.len() + tail.find("-----")? + 5)
    });
    let cut = || {
        let body = block.get(10..)?;
        let body = body.find("-----").map_or(0, |at| at + 15);
        let tail = block.get(body..)?;
        let len = tail
            .find(|symbol: char| !(symbol == '\n' || symbol == '\r' || u8::try_from(symbol).is_ok_and(is_random_byte)));
        Some(block.get(..body + len.unwrap_or(tail.len()))?.trim_end().len())
    };
    Some(span.start..span.start + end.or_else(cut)?)
}

/// The village's keys end in a CRC-32C of what is before it: eight hex digits, or six characters of base64url.
fn village_key(bytes: &[u8]) -> bool {
    let text = str::from_utf8(bytes).unwrap_or_default();
    [8, 6].into_iter().any(|len| {
        let Some((body, tail)) = text.len().checked_sub(len + 1).and_then(|at| text.split_at_checked(at)) else {
            return false;
        };
        let crc = crc32c::crc32c(body.as_bytes());
        let told = tail.strip_prefix('_').unwrap_or_default();
        told == format!("{crc:08x}") || told == BASE64URL_NOPAD.encode(&crc.to_be_bytes())
    })
}

/// The password of `scheme://user:password@host`, with its user.
fn userinfo(text: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let found = text.get(span.clone())?;
    let at = found.windows(3).position(|window| window == b"://")?;
    Some(span.start + at + 3..span.end - 1)
}

/// Looks drawn at random: letters and digits mixed, at least 3.5 bit per character.
fn random(bytes: &[u8]) -> bool {
    let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    digits_in(bytes) >= 2 && letters >= 2 && entropy(bytes) >= RANDOM_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn village_keys_have_their_sum() {
        let body = format!("avk_local_{}_{}", "0123456789", "s".repeat(43));
        let crc = crc32c::crc32c(body.as_bytes());
        assert!(village_key(format!("{body}_{crc:08x}").as_bytes()));
        assert!(village_key(format!("{body}_{}", BASE64URL_NOPAD.encode(&crc.to_be_bytes())).as_bytes()));
        assert!(!village_key(format!("{body}_{:08x}", crc ^ 1).as_bytes()));
        assert!(!village_key(b"avk"));
    }

    // RFC 7515, appendix A.1.
    #[test]
    fn signed_token_of_the_standard_is_one() {
        let token = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODB9.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(jwt(token, 0..token.len()), Some(0..token.len()));
        let text = b"eyJub3QganNvbg.eyJ.x";
        assert!(jwt(text, 0..text.len()).is_some());
        assert_eq!(jwt(b"eyJhbGciOiJub25lIn0", 0..19), None);
    }

    #[test]
    fn words_are_not_random() {
        assert!(random(b"q9Zx7Lk2mP0vT4sW8yB1"));
        assert!(!random(b"a-very-long-name-of-a-thing-2"));
        assert!(!random(b"aaaaaaaaaaaaaaaaaa11aaaa"));
    }
}
