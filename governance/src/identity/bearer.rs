//! Credentials that are nothing but a random secret: API keys, sessions, refresh tokens and challenges.
//!
//! | at | length | what |
//! |---|---|---|
//! | 0 | 4 | `avk_` API key, `avs_` session, `avr_` refresh token, `avc_` challenge |
//! | 4 | 8 + `_` | tag of the tenant: base32 of the first 40 bits of SHA-256 of its name |
//! | 13 | 10 + `_` | id, base32: public, names the credential in lists and logs |
//! | 24 | 43 + `_` | secret: base64url of 256 random bits |
//! | 68 | 6 | base64url of the CRC-32C of all before it, big endian |
//!
//! The prefix lets scanners find leaked ones; the checksum refuses garbage before anything is looked up or hashed. Stored is
//! the SHA-256 of the whole text only: a random secret of 256 bits needs no slow hash.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::secret::Secret;

/// Bytes of the text of any such credential.
pub const BEARER_LEN: usize = 74;
/// Random bytes that one is made of: those of the id, then those of the secret.
pub const BEARER_RANDOM: usize = ID_RANDOM + 32;

const TAG: usize = 8;
const ID: usize = 10;
/// 56 bits, of which the id shows 50.
const ID_RANDOM: usize = 7;
const SECRET_AT: usize = 24;
const CRC_AT: usize = 68;

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BearerKind {
    /// A key of a program.
    ApiKey,
    /// A session of a browser.
    Session,
    /// Gets new access tokens.
    Refresh,
    /// Stands for a right password until the second factor is shown.
    Challenge,
}

impl BearerKind {
    const ALL: [Self; 4] = [Self::ApiKey, Self::Session, Self::Refresh, Self::Challenge];

    /// The first four characters.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "avk_",
            Self::Session => "avs_",
            Self::Refresh => "avr_",
            Self::Challenge => "avc_",
        }
    }
}

/// Text of lower-case base32 with a fixed length.
macro_rules! base32_text {
    ($(#[$doc:meta])* $name:ident, $len:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                // Only base32 letters get in.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }

            fn read(text: &[u8]) -> Option<Self> {
                let is_base32 = text.iter().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7'));
                if is_base32 { text.try_into().ok().map(Self) } else { None }
            }

            /// The first letters of the base32 of `bytes`, which have enough of them.
            fn encode(bytes: &[u8]) -> Self {
                let text = BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
                Self(std::array::from_fn(|at| text.as_bytes().get(at).copied().unwrap_or(b'a')))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<Self, Malformed> {
                Self::read(text.as_bytes()).ok_or(Malformed::Form)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }
    };
}

base32_text!(
    /// Names a tenant in a credential. Two tenants may share one, with a chance of 2^-40 a pair; ids tell them apart.
    TenantTag, TAG
);
base32_text!(
    /// Names a credential among those of its tenant; not secret.
    TokenId, ID
);

impl TenantTag {
    /// The tag of a tenant.
    #[must_use]
    pub fn of(tenant: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, tenant.as_bytes());
        Self::encode(hash.as_ref().get(..5).unwrap_or_default())
    }
}

/// SHA-256 of the text of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BearerHash([u8; 32]);

impl BearerHash {
    /// Hashes any text that is long and random enough.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, text);
        Self(hash.as_ref().try_into().unwrap_or_default())
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 64 bits: enough to know a used token again.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

/// A credential that was just made; its text is shown once.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Names it.
    pub id: TokenId,
    /// What is stored.
    pub hash: BearerHash,
    /// What its owner gets.
    pub secret: Secret,
}

/// Why a text is not a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Malformed {
    /// It has not [`BEARER_LEN`] bytes.
    #[error("a credential has {BEARER_LEN} characters")]
    Length,
    /// Its parts are not what and where they should be.
    #[error("not in the form of a credential")]
    Form,
    /// The checksum is another one: mistyped, or made up.
    #[error("the checksum of the credential does not fit")]
    Checksum,
}

/// A credential as it was shown; well formed, nothing more.
#[derive(Clone, Copy)]
pub struct Bearer<'a> {
    /// What it claims to be for.
    pub kind: BearerKind,
    /// Whose tenant's.
    pub tenant: TenantTag,
    /// Which one.
    pub id: TokenId,
    text: &'a str,
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({}{}_{}_..)", self.kind.prefix(), self.tenant, self.id)
    }
}

impl<'a> Bearer<'a> {
    /// Makes a credential out of random bytes.
    #[must_use]
    pub fn mint(kind: BearerKind, tenant: TenantTag, random: &[u8; BEARER_RANDOM]) -> Minted {
        let (id, _) = random.split_at(ID_RANDOM);
        Self::mint_again(kind, tenant, TokenId::encode(id), random)
    }

    /// Makes another secret for an id: refresh tokens keep theirs.
    #[must_use]
    pub fn mint_again(kind: BearerKind, tenant: TenantTag, id: TokenId, random: &[u8; BEARER_RANDOM]) -> Minted {
        let (_, secret) = random.split_at(ID_RANDOM);
        let mut text = format!("{}{tenant}_{id}_{}_", kind.prefix(), BASE64.encode(secret));
        text += &checksum(text.as_bytes());
        Minted { id, hash: BearerHash::of(text.as_bytes()), secret: Secret::new(text) }
    }

    /// Reads a credential. Nothing is allocated, looked up or hashed.
    ///
    /// # Errors
    /// [`Malformed`], in the order of its variants, the checksum before what it covers is read closely.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let bytes = text.as_bytes();
        if bytes.len() != BEARER_LEN {
            return Err(Malformed::Length);
        }
        let kind = BearerKind::ALL.into_iter().find(|kind| bytes.starts_with(kind.prefix().as_bytes()));
        let kind = kind.ok_or(Malformed::Form)?;
        let (covered, crc) = bytes.split_at(CRC_AT);
        if !checksum_fits(covered, crc) {
            return Err(Malformed::Checksum);
        }
        let [b'_', tenant @ .., b'_'] = &covered[3..=12] else { return Err(Malformed::Form) };
        let [id @ .., b'_'] = &covered[13..SECRET_AT] else { return Err(Malformed::Form) };
        let [secret @ .., b'_'] = &covered[SECRET_AT..] else { return Err(Malformed::Form) };
        let is_base64 = secret.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        let (tenant, id) = (TenantTag::read(tenant), TokenId::read(id));
        let (Some(tenant), Some(id), true) = (tenant, id, is_base64) else { return Err(Malformed::Form) };
        Ok(Self { kind, tenant, id, text })
    }

    /// The hash to compare with the stored one.
    #[must_use]
    pub fn hash(&self) -> BearerHash {
        BearerHash::of(self.text.as_bytes())
    }
}

fn checksum(covered: &[u8]) -> String {
    BASE64.encode(crc32c::crc32c(covered).to_be_bytes())
}

fn checksum_fits(covered: &[u8], shown: &[u8]) -> bool {
    let mut text = [0; 6];
    BASE64.encode_slice(crc32c::crc32c(covered).to_be_bytes(), &mut text) == Ok(6) && text == shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minted() -> Minted {
        Bearer::mint(BearerKind::ApiKey, TenantTag::of("local"), &std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    #[test]
    fn a_key_has_the_documented_form() {
        let minted = minted();
        let text = minted.secret.expose();
        // `printf local | sha256sum | cut -c1-10 | xxd -r -p | base32`; the secret is 7, 8, .. 38.
        assert!(text.starts_with("avk_ew7y4grd_"), "{text}");
        assert_eq!(text.len(), BEARER_LEN);
        let parts: Vec<_> = text[4..].split('_').map(str::len).collect();
        assert_eq!(parts[..2], [8, 10]);
        assert_eq!(&text[24..67], "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY");
        let read = Bearer::parse(text).unwrap();
        assert_eq!((read.kind, read.tenant, read.id), (BearerKind::ApiKey, TenantTag::of("local"), minted.id));
        assert!(read.hash().matches(&minted.hash));
        assert!(!format!("{read:?} {minted:?}").contains("BwgJ"), "the secret is not shown");
    }

    #[test]
    fn what_is_malformed_says_how() {
        let text = minted().secret.expose().to_owned();
        assert_eq!(Bearer::parse("avk_").unwrap_err(), Malformed::Length);
        assert_eq!(Bearer::parse(&text.replace("avk_", "xyz_")).unwrap_err(), Malformed::Form);
        assert_eq!(Bearer::parse(&text.replace("avk_", "avs_")).unwrap_err(), Malformed::Checksum);
        let mut shouted = text[..CRC_AT].replacen('_', "-", 2);
        shouted = shouted.replacen('-', "_", 1);
        shouted += &checksum(shouted.as_bytes());
        assert_eq!(Bearer::parse(&shouted).unwrap_err(), Malformed::Form);
        assert_eq!(
            serde_json::from_str::<TokenId>("\"UPPERCASE1\"").unwrap_err().classify(),
            serde_json::error::Category::Data
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_changed_character_is_noticed(random: [u8; 32], at in 0..BEARER_LEN, by in 1_u8..=90) {
            let mut bytes = [0; BEARER_RANDOM];
            bytes[ID_RANDOM..].copy_from_slice(&random);
            let minted = Bearer::mint(BearerKind::Session, TenantTag::of("t"), &bytes);
            let mut text = minted.secret.expose().as_bytes().to_vec();
            text[at] = b' ' + (text[at] - b' ' + by) % 95;
            prop_assert!(Bearer::parse(std::str::from_utf8(&text).unwrap()).is_err());
        }

        #[test]
        fn garbage_is_refused(text in ".{0,100}") {
            prop_assert!(Bearer::parse(&text).is_err());
        }

        #[test]
        fn ids_come_back_from_the_store(random: [u8; 32]) {
            let mut bytes = [0; BEARER_RANDOM];
            bytes[..32].copy_from_slice(&random);
            let id = Bearer::mint(BearerKind::Refresh, TenantTag::of("t"), &bytes).id;
            prop_assert_eq!(postcard::from_bytes::<TokenId>(&postcard::to_allocvec(&id).unwrap()), Ok(id));
        }
    }
}
