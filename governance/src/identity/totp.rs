//! The second factor: time-based codes (RFC 6238) and recovery codes.
//!
//! SHA-1, six digits, 30 seconds, one step of skew: what every authenticator app does. A step counts once.

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use totp_rs::{Algorithm, Builder, Secret as TotpSecret, Totp};

use super::bearer::BearerHash;
use super::error::IdentityError;
use super::secret::Secret;

/// Random bytes of a TOTP secret: the length of the hash, RFC 4226 section 4, R6.
pub const TOTP_RANDOM: usize = 20;
/// Recovery codes of an account.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of a recovery code: 80 bits, which no slow hash has to protect.
const CODE_RANDOM: usize = 10;
/// Random bytes of all recovery codes.
pub const RECOVERY_RANDOM: usize = RECOVERY_CODES * CODE_RANDOM;
/// Letters of a recovery code, the hyphens not counted.
const CODE_LETTERS: usize = 16;

/// What a person is shown to enrol a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolment {
    /// `otpauth://totp/..`, for a QR code.
    pub url: Secret,
}

fn totp(secret: &[u8], issuer: &str, account: &str) -> Result<Totp, IdentityError> {
    // A colon parts issuer and account in the URL.
    let (issuer, account) = (issuer.replace(':', " "), account.replace(':', " "));
    let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1).with_step_duration(30);
    let builder = builder.with_secret(TotpSecret::new(secret.into())).with_issuer(Some(issuer));
    builder.with_account_name(account).build().map_err(|_| IdentityError::Sealed)
}

/// The URL that enrols a device.
///
/// # Errors
/// [`IdentityError::Sealed`] for a secret that is too short.
pub fn enrolment(secret: &[u8], issuer: &str, account: &str) -> Result<Enrolment, IdentityError> {
    let url = totp(secret, issuer, account)?.to_url().map_err(|_| IdentityError::Sealed)?;
    Ok(Enrolment { url: Secret::new(url) })
}

/// The step whose code this is, if it is after `last_step`: a code that was used, or an older one, is refused.
#[must_use]
pub fn check_code(secret: &[u8], code: &str, last_step: u64, now_ms: u64) -> Option<u64> {
    let step = totp(secret, "", "").ok()?.check(code, now_ms / 1_000)?;
    (step > last_step).then_some(step)
}

/// SHA-256 of a recovery code and whose it is.
#[must_use]
pub fn recovery_hash(subject: &str, code: &str) -> Option<BearerHash> {
    let letters: String = code.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let is_code = letters.len() == CODE_LETTERS && letters.is_ascii();
    is_code.then(|| BearerHash::of([subject.as_bytes(), b"\0", letters.as_bytes()].concat().as_slice()))
}

/// Recovery codes, each usable once: what is shown, and what is stored.
#[must_use]
pub fn recovery_codes(subject: &str, random: &[u8; RECOVERY_RANDOM]) -> (Vec<Secret>, Vec<BearerHash>) {
    let (codes, _) = random.as_chunks::<CODE_RANDOM>();
    let shown: Vec<String> =
        codes.iter().map(|code| hyphened(&BASE32_NOPAD.encode(code).to_ascii_lowercase())).collect();
    let hashes = shown.iter().filter_map(|code| recovery_hash(subject, code)).collect();
    (shown.into_iter().map(Secret::new).collect(), hashes)
}

fn hyphened(letters: &str) -> String {
    let groups: Vec<&str> = letters.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8; 20] = b"12345678901234567890";

    /// RFC 6238, appendix B, with the secrets that its reference code uses.
    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let times = [59, 1_111_111_109, 1_111_111_111, 1_234_567_890, 2_000_000_000, 20_000_000_000];
        let sha1 = ["94287082", "07081804", "14050471", "89005924", "69279037", "65353130"];
        let sha256 = ["46119246", "68084774", "67062674", "91819424", "90698825", "77737706"];
        let sha512 = ["90693936", "25091201", "99943326", "93441116", "38618901", "47863826"];
        for (algorithm, length, codes) in
            [(Algorithm::SHA1, 20, sha1), (Algorithm::SHA256, 32, sha256), (Algorithm::SHA512, 64, sha512)]
        {
            let secret: Vec<u8> = SECRET.iter().copied().cycle().take(length).collect();
            let builder = Builder::new().with_algorithm(algorithm).with_digits(8).with_secret(secret);
            let totp = builder.build().unwrap();
            for (time, code) in times.into_iter().zip(codes) {
                assert_eq!(totp.generate(time).to_string(), code, "{algorithm} at {time}");
            }
        }
    }

    #[test]
    fn a_step_counts_once_and_its_neighbours_are_let_in() {
        // The last six of the eight digits of RFC 6238 at 59 s, step 1.
        assert_eq!(check_code(SECRET, "287082", 0, 59_000), Some(1));
        assert_eq!(check_code(SECRET, "287082", 1, 59_000), None, "it was used");
        assert_eq!(check_code(SECRET, "287082", 0, 89_000), Some(1), "one step late");
        assert_eq!(check_code(SECRET, "287082", 0, 90_000), None, "two steps late");
        for garbage in ["", "28708", "2870822", "28708x", "２８７０８２", "+28708"] {
            assert_eq!(check_code(SECRET, garbage, 0, 59_000), None, "{garbage}");
        }
        assert_eq!(check_code(b"short", "287082", 0, 59_000), None);
    }

    #[test]
    fn the_url_enrols_what_is_checked() {
        let url = enrolment(SECRET, "AI Village: local", "ada:lovelace").unwrap().url;
        let read = Totp::from_url(url.expose()).unwrap();
        assert_eq!(read.secret().as_bytes(), SECRET);
        assert!(
            url.expose().starts_with("otpauth://totp/AI%20Village%20%20local:ada%20lovelace?secret=GEZDGNBV"),
            "{url:?}"
        );
        assert_eq!(enrolment(b"short", "i", "a").unwrap_err(), IdentityError::Sealed);
    }

    #[test]
    fn recovery_codes_are_ten_and_of_one_subject() {
        let random: [u8; RECOVERY_RANDOM] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let (shown, hashes) = recovery_codes("ada", &random);
        assert_eq!((shown.len(), hashes.len()), (10, 10));
        assert_eq!(shown[0].expose(), "aaaq-eaye-auda-ocaj");
        let typed = shown[3].expose().to_uppercase().replace('-', "");
        assert_eq!(recovery_hash("ada", &typed), Some(hashes[3]));
        assert_ne!(recovery_hash("eve", &typed), Some(hashes[3]));
        assert_eq!(recovery_hash("ada", "aaaq-eaye"), None);
    }
}
