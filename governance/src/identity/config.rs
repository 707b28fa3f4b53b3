//! `[governance.identity]` of `cluster.toml`.

use std::collections::BTreeSet;

use aivillage_runtime::config::{ConfigError, Period};
use serde::{Deserialize, Serialize};

use super::password::Argon2Config;
use super::role::Role;

/// How long credentials live, and what a login asks for. All nodes should have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// `iss` of tokens, and the name that authenticator apps show.
    pub issuer: String,
    /// `aud` of tokens.
    pub audience: String,
    /// Life of an access token.
    pub access_ttl: Period,
    /// Life of a refresh token that is not used.
    pub refresh_ttl: Period,
    /// Life of a family of refresh tokens, however often they are used.
    pub family_ttl: Period,
    /// A session without requests ends after this.
    pub session_idle: Period,
    /// A session ends after this in any case.
    pub session_max: Period,
    /// How long a right password waits for the second factor.
    pub challenge_ttl: Period,
    /// How long a signing key signs.
    pub rotation: Period,
    /// Cost of password hashes.
    pub argon2: Argon2Config,
    /// Roles that count only after a second factor.
    pub mfa_roles: BTreeSet<Role>,
    /// Verified tokens kept in memory.
    pub token_cache: usize,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            issuer: "aivillage".to_owned(),
            audience: "aivillage".to_owned(),
            access_ttl: Period::from_secs(15 * 60),
            refresh_ttl: Period::from_secs(7 * 86_400),
            family_ttl: Period::from_secs(30 * 86_400),
            session_idle: Period::from_secs(30 * 60),
            session_max: Period::from_secs(12 * 3_600),
            challenge_ttl: Period::from_secs(5 * 60),
            rotation: Period::from_secs(30 * 86_400),
            argon2: Argon2Config::default(),
            mfa_roles: BTreeSet::from([Role::SuperAdmin, Role::Admin, Role::Dpo, Role::Trustee]),
            token_cache: 10_000,
        }
    }
}

/// The same in milliseconds, for the pure state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the key of the same name")]
pub struct Lives {
    pub access_ms: u64,
    pub refresh_ms: u64,
    pub family_ms: u64,
    pub idle_ms: u64,
    pub session_ms: u64,
    pub challenge_ms: u64,
    pub rotation_ms: u64,
    pub mfa_roles: BTreeSet<Role>,
}

impl Lives {
    /// How long the previous signing key verifies: twice the life of what it signed.
    #[must_use]
    pub fn overlap_ms(&self) -> u64 {
        self.access_ms.saturating_mul(2)
    }
}

impl IdentityConfig {
    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value that cannot work, or one that is less safe than a default is.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |right: bool, key: &str, why: &str| {
            if right { Ok(()) } else { Err(ConfigError::invalid(format!("governance.identity.{key}"), why)) }
        };
        let lives = self.lives();
        check(!self.issuer.is_empty() && self.issuer.len() <= 256, "issuer", "has 1 to 256 bytes")?;
        check(!self.audience.is_empty() && self.audience.len() <= 256, "audience", "has 1 to 256 bytes")?;
        check((60_000..=3_600_000).contains(&lives.access_ms), "access_ttl", "is between 1m and 1h")?;
        check(lives.access_ms <= lives.refresh_ms, "refresh_ttl", "is at least access_ttl")?;
        check(lives.refresh_ms <= lives.family_ms, "family_ttl", "is at least refresh_ttl")?;
        check(lives.idle_ms >= 60_000, "session_idle", "is at least 1m")?;
        check(lives.idle_ms <= lives.session_ms, "session_max", "is at least session_idle")?;
        check((10_000..=3_600_000).contains(&lives.challenge_ms), "challenge_ttl", "is between 10s and 1h")?;
        check(lives.overlap_ms() < lives.rotation_ms, "rotation", "is more than twice access_ttl")?;
        let floor = Argon2Config::default();
        let strong = self.argon2.m_kib >= floor.m_kib && self.argon2.t >= floor.t && self.argon2.p >= 1;
        check(strong, "argon2", "is at least { m_kib = 19456, t = 2, p = 1 }")
    }

    /// In milliseconds.
    #[must_use]
    pub fn lives(&self) -> Lives {
        let ms = |period: Period| u64::try_from(period.get().as_millis()).unwrap_or(u64::MAX);
        Lives {
            access_ms: ms(self.access_ttl),
            refresh_ms: ms(self.refresh_ttl),
            family_ms: ms(self.family_ttl),
            idle_ms: ms(self.session_idle),
            session_ms: ms(self.session_max),
            challenge_ms: ms(self.challenge_ttl),
            rotation_ms: ms(self.rotation),
            mfa_roles: self.mfa_roles.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_named() {
        IdentityConfig::default().validate().unwrap();
        for (text, key) in [
            ("issuer = ''", "issuer"),
            ("audience = ''", "audience"),
            ("access_ttl = '1s'", "access_ttl"),
            ("refresh_ttl = '1m'", "refresh_ttl"),
            ("family_ttl = '1d'", "family_ttl"),
            ("session_idle = '1s'", "session_idle"),
            ("session_max = '20m'", "session_max"),
            ("challenge_ttl = '1s'", "challenge_ttl"),
            ("rotation = '30m'", "rotation"),
            ("argon2 = { m_kib = 8 }", "argon2"),
        ] {
            let error = toml::from_str::<IdentityConfig>(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("governance.identity.{key}:")), "{error}");
        }
        assert!(toml::from_str::<IdentityConfig>("acess_ttl = '1m'").is_err());
    }
}
