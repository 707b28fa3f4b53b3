//! Passwords: which are good enough, and how they are hashed (Argon2id, RFC 9106, with a pepper).
//!
//! Everything here takes milliseconds of CPU and belongs on a blocking thread.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

use super::error::IdentityError;
use super::secret::{Pepper, Secret};

/// Fewest characters of a password.
pub const PASSWORD_MIN: usize = 12;
/// Most characters of a password.
pub const PASSWORD_MAX: usize = 128;
/// Earlier passwords that may not come again, the present one included.
pub const PASSWORD_HISTORY: usize = 5;
/// Most bytes of a password that is looked at: characters have up to four.
pub const PASSWORD_MAX_BYTES: usize = 4 * PASSWORD_MAX;

/// Cost of a hash. The default is OWASP's floor for Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Argon2Config {
    /// Memory, KiB.
    pub m_kib: u32,
    /// Passes over it.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Default for Argon2Config {
    fn default() -> Self {
        Self { m_kib: 19_456, t: 2, p: 1 }
    }
}

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum WeakPassword {
    /// Too few characters.
    #[error("a password has at least {PASSWORD_MIN} characters")]
    TooShort,
    /// Too many characters.
    #[error("a password has at most {PASSWORD_MAX} characters")]
    TooLong,
    /// A guesser would find it soon (zxcvbn below 3).
    #[error("the password is easy to guess, take unrelated words")]
    Guessable,
    /// It was used before.
    #[error("the password is one of the last {PASSWORD_HISTORY}")]
    Reused,
}

/// Checks length and guessability; `hints` are words that the guesser knows too, such as the account's name.
///
/// # Errors
/// All of [`WeakPassword`] but `Reused`.
pub fn check_strength(password: &Secret, hints: &[&str]) -> Result<(), WeakPassword> {
    let length = password.expose().chars().count();
    if length < PASSWORD_MIN {
        return Err(WeakPassword::TooShort);
    }
    if length > PASSWORD_MAX {
        return Err(WeakPassword::TooLong);
    }
    if zxcvbn(password.expose(), hints).score() < Score::Three {
        return Err(WeakPassword::Guessable);
    }
    Ok(())
}

/// Hashes and checks passwords at one cost.
pub struct Hasher {
    params: Params,
    pepper: Pepper,
    /// Checked in place of the hash of an account that does not exist, which then costs the same.
    nobody: String,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Argon2Config {
    /// The cost as Argon2 knows it.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] for a cost that Argon2 does not know.
    pub(super) fn params(self) -> Result<Params, IdentityError> {
        let invalid = |why: String| IdentityError::Invalid { field: "governance.identity.argon2".to_owned(), why };
        Params::new(self.m_kib, self.t, self.p, None).map_err(|error| invalid(error.to_string()))
    }
}

impl Hasher {
    /// Takes the cost of new hashes and the pepper of all. Hashes once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] for a cost that Argon2 does not know.
    pub fn try_new(cost: Argon2Config, pepper: Pepper) -> Result<Self, IdentityError> {
        let params = cost.params()?;
        let mut hasher = Self { params, pepper, nobody: String::new() };
        hasher.nobody = hasher.hash(&Secret::new("nobody"), &[0; 16])?;
        Ok(hasher)
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] for one that is far too long; [`IdentityError::Sealed`] if Argon2 gets no memory.
    pub fn hash(&self, password: &Secret, salt: &[u8; 16]) -> Result<String, IdentityError> {
        let password = normal(password).ok_or(IdentityError::Refused)?;
        let hash: PasswordHash =
            self.argon2()?.hash_password_with_salt(password.as_bytes(), salt).map_err(|_| IdentityError::Sealed)?;
        Ok(hash.to_string())
    }

    /// Whether `phc` is of this password. Without a `phc` it takes as long and is false.
    #[must_use]
    pub fn verify(&self, password: &Secret, phc: Option<&str>) -> bool {
        let Some(password) = normal(password) else { return false };
        let Ok(argon2) = self.argon2() else { return false };
        let right = argon2.verify_password(password.as_bytes(), phc.unwrap_or(&self.nobody)).is_ok();
        right && phc.is_some()
    }

    /// Whether a stored hash is not of the present cost, so should be made anew when the password is known.
    #[must_use]
    pub fn is_outdated(&self, phc: &str) -> bool {
        let Ok(hash) = PasswordHash::new(phc) else { return true };
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        hash.algorithm.as_str() != "argon2id"
            || Params::try_from(&hash).map_or(true, |params| cost(&params) != cost(&self.params))
    }

    fn argon2(&self) -> Result<Argon2<'_>, IdentityError> {
        let argon2 =
            Argon2::new_with_secret(self.pepper.bytes(), Algorithm::Argon2id, Version::V0x13, self.params.clone());
        argon2.map_err(|_| IdentityError::Sealed)
    }
}

/// The same characters typed on different keyboards are the same password (NIST SP 800-63B, 3.1.1.2).
fn normal(password: &Secret) -> Option<Zeroizing<String>> {
    let text = password.expose();
    (text.len() <= PASSWORD_MAX_BYTES).then(|| Zeroizing::new(text.nfkc().collect()))
}

#[cfg(test)]
mod tests {
    use argon2::{AssociatedData, ParamsBuilder};

    use super::*;

    const CHEAP: Argon2Config = Argon2Config { m_kib: 8, t: 1, p: 1 };

    fn hasher(cost: Argon2Config, pepper: &str) -> Hasher {
        Hasher::try_new(cost, Pepper::new(pepper)).unwrap()
    }

    /// RFC 9106, 5.3.
    #[test]
    fn argon2id_gives_the_tag_of_the_rfc() {
        let mut params = ParamsBuilder::new();
        params.m_cost(32).t_cost(3).p_cost(4).data(AssociatedData::new(&[4; 12]).unwrap());
        let params = params.build().unwrap();
        let argon2 = Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
        assert_eq!(data_encoding::HEXLOWER.encode(&tag), expected);
    }

    #[test]
    fn a_hash_is_a_phc_string_of_the_present_cost() {
        let hasher = hasher(Argon2Config::default(), "pepper");
        let phc = hasher.hash(&Secret::new("correct horse"), &[9; 16]).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$CQkJCQkJCQkJCQkJCQkJCQ$"), "{phc}");
        assert!(hasher.verify(&Secret::new("correct horse"), Some(&phc)));
        assert!(!hasher.verify(&Secret::new("correct house"), Some(&phc)));
        assert!(!hasher.is_outdated(&phc));
    }

    #[test]
    fn the_pepper_counts_and_an_older_cost_still_verifies() {
        let (old, other) = (hasher(CHEAP, "pepper"), hasher(CHEAP, "salt"));
        let phc = old.hash(&Secret::new("x"), &[1; 16]).unwrap();
        assert!(!other.verify(&Secret::new("x"), Some(&phc)));
        let new = hasher(Argon2Config { t: 2, ..CHEAP }, "pepper");
        assert!(new.verify(&Secret::new("x"), Some(&phc)) && new.is_outdated(&phc));
        assert!(new.is_outdated("no hash") && !new.verify(&Secret::new("x"), Some("no hash")));
        assert!(new.is_outdated(&phc.replace("argon2id", "argon2i")));
    }

    #[test]
    fn nobody_has_a_password_and_one_too_long_is_refused_unhashed() {
        let hasher = hasher(CHEAP, "");
        assert!(!hasher.verify(&Secret::new("nobody"), None));
        let long = Secret::new("x".repeat(PASSWORD_MAX_BYTES + 1));
        assert!(!hasher.verify(&long, None));
        assert_eq!(hasher.hash(&long, &[0; 16]), Err(IdentityError::Refused));
    }

    #[test]
    fn a_cost_without_memory_is_an_error() {
        let error = Hasher::try_new(Argon2Config { m_kib: 1, ..CHEAP }, Pepper::new("")).unwrap_err();
        assert!(matches!(error, IdentityError::Invalid { .. }), "{error}");
    }

    #[test]
    fn equivalent_characters_are_one_password() {
        let hasher = hasher(CHEAP, "");
        let phc = hasher.hash(&Secret::new("caf\u{e9}"), &[1; 16]).unwrap();
        assert!(hasher.verify(&Secret::new("cafe\u{301}"), Some(&phc)));
    }

    #[test]
    fn weak_passwords_say_why() {
        let weak = |text: &str| check_strength(&Secret::new(text), &["ada", "lovelace"]);
        assert_eq!(weak("Tr0ub4dor&3"), Err(WeakPassword::TooShort));
        assert_eq!(weak(&"q8#Lz".repeat(26)), Err(WeakPassword::TooLong));
        assert_eq!(weak("password1234"), Err(WeakPassword::Guessable));
        assert_eq!(weak("lovelacelovelace"), Err(WeakPassword::Guessable));
        assert_eq!(weak("umbrella-plinth-otter-forge"), Ok(()));
    }
}
