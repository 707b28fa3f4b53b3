//! The second factor: enrolled, confirmed, asked for.

use super::{AccountEvent, Accounts, Challenge, MAX_GRANTS, SubjectId, TokenId, TotpRecord, read};
use crate::identity::bearer::{BearerHash, BearerKind, Minted, TenantTag};
use crate::identity::error::IdentityError;
use crate::identity::secret::{SealKey, Secret};
use crate::identity::totp;

/// Where the secret of a subject's second factor is sealed to.
pub(in crate::identity) fn place(tenant: &str, subject: SubjectId) -> String {
    format!("totp:{tenant}:{subject}")
}

impl Accounts {
    /// Offers a subject a second factor, which counts once a code of it was shown. One that counts is kept until then.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`]; [`IdentityError::Taken`] when there is one already.
    pub fn offer_totp(&self, id: SubjectId, sealed: Vec<u8>) -> Result<Vec<AccountEvent>, IdentityError> {
        if self.known(id)?.has_mfa() {
            return Err(IdentityError::Taken);
        }
        Ok(vec![AccountEvent::TotpOffered(id, sealed)])
    }

    /// Confirms what was offered by its first code. The subject's logins stay what they were: with one factor.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] without an offer, [`IdentityError::Refused`] for a wrong code, [`IdentityError::Sealed`]
    pub fn confirm_totp(
        &self,
        (tenant, id): (&str, SubjectId),
        (code, recovery): (&Secret, Vec<BearerHash>),
        seal: &SealKey,
        now_ms: u64,
    ) -> Result<Vec<AccountEvent>, IdentityError> {
        let offer = self.known(id)?.totp.as_ref().filter(|totp| !totp.is_confirmed);
        let offer = offer.ok_or_else(|| IdentityError::NotFound { what: "offer".to_owned() })?;
        let secret = seal.open(&place(tenant, id), &offer.sealed)?;
        let step = totp::check_code(&secret, code.expose(), offer.last_step, now_ms).ok_or(IdentityError::Refused)?;
        Ok(vec![AccountEvent::TotpConfirmed(id, step, recovery)])
    }

    /// Opens a challenge for a subject whose password was right.
    #[must_use]
    pub fn challenge(&self, minted: &Minted, challenge: Challenge, now_ms: u64) -> Vec<AccountEvent> {
        let ended = self.challenges.iter().filter(|(_, one)| one.expires_ms <= now_ms);
        let mut events: Vec<_> = ended.take(MAX_GRANTS).map(|(id, _)| AccountEvent::ChallengeClosed(*id)).collect();
        events.push(AccountEvent::ChallengeOpened(minted.id, Box::new(Challenge { hash: minted.hash, ..challenge })));
        events
    }

    /// Finds a challenge that is open.
    ///
    /// # Errors
    /// [`IdentityError::Refused`]
    pub fn open_challenge(
        &self,
        tenant: TenantTag,
        text: &Secret,
        now_ms: u64,
    ) -> Result<(TokenId, &Challenge), IdentityError> {
        let shown = read(text.expose(), BearerKind::Challenge, tenant)?;
        let challenge = self.challenges.get(&shown.id).filter(|one| now_ms < one.expires_ms);
        let challenge = challenge.filter(|one| one.hash.matches(&shown.hash())).ok_or(IdentityError::Refused)?;
        Ok((shown.id, challenge))
    }

    /// Checks a code of a device or a recovery code; the event uses it up.
    ///
    /// # Errors
    /// [`IdentityError::Refused`], [`IdentityError::Sealed`]
    pub fn check_factor(
        &self,
        (tenant, id): (&str, SubjectId),
        code: &Secret,
        seal: &SealKey,
        now_ms: u64,
    ) -> Result<AccountEvent, IdentityError> {
        let subject = self.live(id).filter(|subject| subject.has_mfa()).ok_or(IdentityError::Refused)?;
        let device = subject.totp.as_ref().ok_or(IdentityError::Refused)?;
        if let Some(shown) = totp::recovery_hash(&id.to_string(), code.expose()) {
            let known = subject.recovery.iter().find(|known| known.matches(&shown));
            return known.map(|known| AccountEvent::RecoveryUsed(id, *known)).ok_or(IdentityError::Refused);
        }
        let secret = seal.open(&place(tenant, id), &device.sealed)?;
        let step = totp::check_code(&secret, code.expose(), device.last_step, now_ms);
        step.map(|step| AccountEvent::TotpUsed(id, step)).ok_or(IdentityError::Refused)
    }

    pub(super) fn apply_mfa(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::TotpOffered(id, sealed) => self.change(*id, |subject| {
                subject.totp = Some(TotpRecord { sealed: sealed.clone(), is_confirmed: false, last_step: 0 });
            }),
            AccountEvent::TotpConfirmed(id, step, recovery) => self.change(*id, |subject| {
                subject.recovery.clone_from(recovery);
                if let Some(totp) = &mut subject.totp {
                    (totp.is_confirmed, totp.last_step) = (true, *step);
                }
            }),
            AccountEvent::TotpUsed(id, step) => self.change(*id, |subject| {
                if let Some(totp) = &mut subject.totp {
                    totp.last_step = totp.last_step.max(*step);
                }
            }),
            AccountEvent::RecoveryUsed(id, hash) => {
                self.change(*id, |subject| subject.recovery.retain(|one| one != hash));
            }
            _ => {}
        }
    }
}
