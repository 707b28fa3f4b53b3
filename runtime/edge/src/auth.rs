//! Who calls: the admin key of `<data>/admin.key` and the check of a request's credential.
//!
//! The key is one line `avk_local_<id 10>_<secret 43>_<crc32c 8 hex>`. The checksum is looked at first, so garbage costs
//! nothing; then the SHA-256 of the whole key is compared in constant time. A 256-bit random secret needs no slow hash.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aivillage_runtime::{Principal, PrincipalKind, secret_file};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{ApiError, Code, EdgeError};

/// The tenant of the one key.
pub(crate) const TENANT: &str = "local";
const PREFIX: &str = "avk_local_";
const ID: usize = 10;
const SECRET: usize = 43;
const CHECKSUM: usize = 8;
/// Length of a well-formed key.
const KEY: usize = PREFIX.len() + ID + 1 + SECRET + 1 + CHECKSUM;
/// The one answer to every kind of wrong credential: which part was wrong is nobody's business.
const REFUSAL: &str = "send the key of <data>/admin.key as `Authorization: Bearer <key>` or `x-api-key: <key>`";

/// A caller whose credential was good.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) principal: Principal,
    /// Whether the caller proved itself in a second way too, recently.
    pub(crate) mfa: bool,
}

/// The verifier: the digest of the one key this node accepts, and the limiters of wrong attempts.
#[derive(Debug)]
pub(crate) struct Verifier {
    digest: [u8; 32],
    principal: Principal,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_id: DefaultKeyedRateLimiter<[u8; ID]>,
    clock: DefaultClock,
}

impl Verifier {
    /// Reads the key file, or makes it on the first start.
    ///
    /// # Errors
    /// [`EdgeError::AdminKey`] if the file cannot be read, written or understood.
    pub(crate) fn open(data_dir: &Path) -> Result<(Self, PathBuf), EdgeError> {
        let path = data_dir.join("admin.key");
        let key = load(&path)?;
        Ok((Self::of(&key), path))
    }

    fn of(key: &str) -> Self {
        const ADDRESS: std::num::NonZeroU32 = std::num::NonZeroU32::new(20).expect("not zero");
        const KEY_ID: std::num::NonZeroU32 = std::num::NonZeroU32::new(5).expect("not zero");
        Verifier {
            digest: Sha256::digest(key.as_bytes()).into(),
            principal: Principal {
                tenant: TENANT.into(),
                subject: "admin".into(),
                kind: PrincipalKind::User,
                roles: vec!["admin".into()],
                scopes: vec!["*".into()],
            },
            by_address: RateLimiter::keyed(Quota::per_minute(ADDRESS)),
            by_id: RateLimiter::keyed(Quota::per_minute(KEY_ID)),
            clock: DefaultClock::default(),
        }
    }

    /// A key for what the edge signs for itself (cursors), different from the key and useless without it.
    pub(crate) fn derived(&self, purpose: &str) -> [u8; 32] {
        Sha256::new().chain_update(purpose.as_bytes()).chain_update(self.digest).finalize().into()
    }

    /// The caller behind `headers`.
    ///
    /// The right key always passes. Wrong ones are counted per address (20 a minute) and per key id (5 a minute); beyond
    /// that the refusal is 429, so that a guesser is slowed and no neighbour on the same address is locked out.
    pub(crate) fn check(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Known, ApiError> {
        let given = credential(headers);
        let well_formed = given.filter(|key| has_checksum(key));
        if let Some(key) = well_formed {
            let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
            if bool::from(digest.ct_eq(&self.digest)) {
                // Only who may read the data directory has this key, and whoever may read that may do anything to the village.
                return Ok(Known { principal: self.principal.clone(), mfa: true });
            }
        }
        if given.is_none() {
            return Err(ApiError::new(Code::Unauthenticated, REFUSAL));
        }
        self.throttle(well_formed, from)?;
        Err(ApiError::new(Code::Unauthenticated, REFUSAL))
    }

    fn throttle(&self, key: Option<&str>, from: Option<IpAddr>) -> Result<(), ApiError> {
        let address = from.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let id =
            key.and_then(|key| key.as_bytes().get(PREFIX.len()..PREFIX.len() + ID)).and_then(|id| id.try_into().ok());
        let refused =
            self.by_address.check_key(&address).err().or_else(|| id.and_then(|id| self.by_id.check_key(&id).err()));
        match refused {
            None => Ok(()),
            Some(until) => Err(ApiError::new(Code::RateLimited, "too many wrong keys, wait before the next attempt")
                .retry_after(until.wait_time_from(self.clock.now()).max(Duration::from_secs(1)))),
        }
    }

    /// Forgets addresses and key ids whose buckets are full again.
    pub(crate) fn tidy(&self) {
        self.by_address.retain_recent();
        self.by_id.retain_recent();
    }
}

/// The credential a request carries, whatever its form.
fn credential(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or("");
        let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Some(bearer.map_or(text, |(_, token)| token.trim()));
    }
    headers.get("x-api-key").map(|value| value.to_str().unwrap_or("").trim())
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

/// True if `key` has the form of a key and its checksum is right: a typing error is told from a wrong key for free.
fn has_checksum(key: &str) -> bool {
    if key.len() != KEY || !key.is_ascii() || !key.starts_with(PREFIX) {
        return false;
    }
    key.rsplit_once('_').is_some_and(|(body, sum)| sum.len() == CHECKSUM && checksum(body) == sum)
}

fn generate() -> String {
    let id: [u8; 5] = rand::random();
    let secret: [u8; 32] = rand::random();
    let id = id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let body = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    format!("{body}_{}", checksum(&body))
}

fn load(path: &Path) -> Result<String, EdgeError> {
    let fault = |why: String| EdgeError::AdminKey { path: path.to_owned(), why };
    match std::fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(1_024).read_to_string(&mut text).map_err(|e| fault(e.to_string()))?;
            let key = text.trim();
            if !has_checksum(key) {
                return Err(fault(
                    "is not an admin key; remove the file and a new one is made at the next start".into(),
                ));
            }
            narrow(path).map_err(|e| fault(format!("cannot be made private (mode 0600): {e}")))?;
            Ok(key.to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = generate();
            secret_file::write(path, format!("{key}\n").as_bytes())
                .map_err(|e| fault(format!("cannot be written: {e}")))?;
            Ok(key)
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

/// A key somebody copied in with wide permissions is closed again.
fn narrow(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    if secret_file::open_to_others(&file)?.is_some() {
        tracing::warn!(path = %path.display(), "admin key was readable by others, mode set to 0600");
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn bearer(key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
        headers
    }

    #[test]
    fn key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let (_, path) = Verifier::open(dir.path()).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        Verifier::open(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            Verifier::open(dir.path()).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_file_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("admin.key"), "hello").unwrap();
        let error = Verifier::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("admin.key") && error.contains("remove the file"), "{error}");
    }

    #[test]
    fn right_key_passes_in_both_headers() {
        let key = generate();
        let verifier = Verifier::of(&key);
        assert_eq!(verifier.check(&bearer(&key), None).unwrap().principal.subject, "admin");
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_str(&key).unwrap());
        assert!(verifier.check(&headers, None).is_ok());
    }

    #[test]
    fn all_wrong_credentials_get_the_same_words() {
        let verifier = Verifier::of(&generate());
        let other = generate();
        let texts: Vec<String> = [HeaderMap::new(), bearer("x"), bearer(&other)]
            .iter()
            .map(|headers| verifier.check(headers, None).unwrap_err().to_string())
            .collect();
        assert!(texts.iter().all(|text| text == &texts[0]), "{texts:?}");
    }

    #[test]
    fn wrong_keys_are_throttled_and_the_right_one_is_not() {
        let key = generate();
        let verifier = Verifier::of(&key);
        let other = generate();
        let codes: Vec<String> =
            (0..7).map(|_| verifier.check(&bearer(&other), None).unwrap_err().code().to_owned()).collect();
        assert_eq!(codes.iter().filter(|code| *code == "unauthenticated").count(), 5, "{codes:?}");
        assert_eq!(codes.last().unwrap(), "rate_limited");
        assert!(verifier.check(&bearer(&key), None).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_change_of_one_character_is_refused(at in 0..KEY, with in "[ -~]") {
            let key = generate();
            let mut changed = key.clone();
            changed.replace_range(at..=at, &with);
            prop_assume!(changed != key);
            prop_assert!(!has_checksum(&changed) || at >= KEY - CHECKSUM);
            prop_assert!(Verifier::of(&key).check(&bearer(changed.trim()), None).is_err());
        }
    }
}
