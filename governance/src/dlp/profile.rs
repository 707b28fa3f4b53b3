//! What to look for and what to do with it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DataKind;
use super::DataKind::{
    Account, Address, Age, Biometric, Coordinates, Cvv, Date, DeviceSerial, Email, FaceImage, Fax, HealthPlan, Iban,
    Ip, Licence, Mrn, Name, NationalId, Pan, Passport, Phone, Place, Plate, Secret, Ssn, UniqueId, Url, Vin, Zip,
};
use super::rules::MIN_SCORE;

/// A set of kinds that a law or standard is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// What identifies a person (GDPR article 4).
    Pii,
    /// What identifies a patient: the eighteen identifiers of HIPAA, see [`HIPAA`].
    Phi,
    /// Payment cards (PCI DSS 4.0, requirement 3).
    Pan,
    /// Credentials.
    Secrets,
}

const PII: &[DataKind] = &[
    Name,
    Address,
    Email,
    Phone,
    Fax,
    Ssn,
    Iban,
    Pan,
    Cvv,
    Passport,
    NationalId,
    Coordinates,
    Account,
    Licence,
    Plate,
    Vin,
    Ip,
    Biometric,
    FaceImage,
];

/// One of the identifiers whose removal makes health data anonymous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HipaaIdentifier {
    /// Its letter in 45 CFR 164.514 (b)(2)(i).
    pub letter: char,
    /// Its name there, shortened.
    pub name: &'static str,
    /// The kinds that find it.
    pub kinds: &'static [DataKind],
}

const fn identifier(letter: char, name: &'static str, kinds: &'static [DataKind]) -> HipaaIdentifier {
    HipaaIdentifier { letter, name, kinds }
}

/// The eighteen identifiers of 45 CFR 164.514 (b)(2)(i), each with the kinds that find it.
pub const HIPAA: [HipaaIdentifier; 18] = [
    identifier('A', "names", &[Name]),
    identifier('B', "geographic subdivisions smaller than a state", &[Address, Place, Zip, Coordinates]),
    identifier('C', "dates except year, ages over 89", &[Date, Age]),
    identifier('D', "telephone numbers", &[Phone]),
    identifier('E', "fax numbers", &[Fax]),
    identifier('F', "electronic mail addresses", &[Email]),
    identifier('G', "social security numbers", &[Ssn, NationalId]),
    identifier('H', "medical record numbers", &[Mrn]),
    identifier('I', "health plan beneficiary numbers", &[HealthPlan]),
    identifier('J', "account numbers", &[Account, Iban, Pan, Cvv]),
    identifier('K', "certificate or licence numbers", &[Licence, Passport]),
    identifier('L', "vehicle identifiers and plates", &[Vin, Plate]),
    identifier('M', "device identifiers and serial numbers", &[DeviceSerial]),
    identifier('N', "web addresses", &[Url]),
    identifier('O', "IP addresses", &[Ip]),
    identifier('P', "biometric identifiers", &[Biometric]),
    identifier('Q', "full-face photographs", &[FaceImage]),
    identifier('R', "any other unique identifying number", &[UniqueId]),
];

impl Profile {
    /// The profile is about this kind.
    #[must_use]
    pub fn has(self, kind: DataKind) -> bool {
        match self {
            Profile::Pii => PII.contains(&kind),
            Profile::Phi => HIPAA.iter().any(|identifier| identifier.kinds.contains(&kind)),
            Profile::Pan => matches!(kind, Pan | Cvv),
            Profile::Secrets => kind == Secret,
        }
    }
}

/// What is done with a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A numbered placeholder, `[EMAIL_1]`, the same for the same value of a text.
    Redact,
    /// A token; the value goes to the vault.
    Tokenise,
    /// A date moved by the subject's days; one that cannot be moved is redacted.
    DateShift,
    /// Nothing stays.
    Drop,
    /// A coarser form that HIPAA's Safe Harbor allows: the year of a date, `90+` of an age, three digits of a ZIP code; of a place
    /// only what is left of it in the text, its state. What has no such form is redacted.
    Generalise,
}

/// `[governance.dlp]` of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DlpConfig {
    /// What to look for.
    pub profiles: Vec<Profile>,
    /// Findings below this score are left, 50 to 100.
    pub min_score: u8,
    /// What to do with kinds for which the default is not right. Defaults: cards are tokenised, dates shifted, the rest redacted.
    pub actions: BTreeMap<DataKind, Action>,
    /// Kinds that are left although a profile has them.
    pub except: Vec<DataKind>,
}

impl Default for DlpConfig {
    fn default() -> Self {
        DlpConfig {
            profiles: vec![Profile::Pii, Profile::Pan, Profile::Secrets],
            min_score: MIN_SCORE,
            actions: BTreeMap::new(),
            except: Vec::new(),
        }
    }
}

/// A setting of `[governance.dlp]` that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DlpConfigError {
    /// The score is outside its range.
    #[error("governance.dlp.min_score: {0} is not 50 to 100")]
    Score(u8),
    /// Verification values may not be kept (PCI DSS 4.0, 3.3.1).
    #[error("governance.dlp: verification values of cards are always dropped, remove cvv from actions and except")]
    Cvv,
    /// Only dates can be shifted.
    #[error("governance.dlp.actions: date_shift is for date, not for {}", .0.label())]
    NotADate(DataKind),
    /// Only these have a coarser form.
    #[error("governance.dlp.actions: generalise is for date, age, zip, address, place and coordinates, not for {}", .0.label())]
    NotCoarse(DataKind),
}

/// What HIPAA's Safe Harbor has coarser forms of. 45 CFR 164.514 (b)(2)(i)(B) and (C).
const COARSE: [DataKind; 6] = [Date, Age, Zip, Address, Place, Coordinates];

impl DlpConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`DlpConfigError`] names the setting.
    pub fn validate(&self) -> Result<(), DlpConfigError> {
        if !(MIN_SCORE..=100).contains(&self.min_score) {
            return Err(DlpConfigError::Score(self.min_score));
        }
        let is_cvv_kept =
            self.actions.get(&Cvv).is_some_and(|action| *action != Action::Drop) || self.except.contains(&Cvv);
        if is_cvv_kept {
            return Err(DlpConfigError::Cvv);
        }
        for (kind, action) in &self.actions {
            match action {
                Action::DateShift if *kind != Date => return Err(DlpConfigError::NotADate(*kind)),
                Action::Generalise if !COARSE.contains(kind) => return Err(DlpConfigError::NotCoarse(*kind)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What makes health data anonymous by HIPAA's Safe Harbor: all eighteen identifiers go or become coarser, and nothing stays
    /// that is derived of one (164.514 (c)), neither tokens nor moved dates.
    #[must_use]
    pub fn safe_harbor() -> Self {
        let coarse = COARSE.map(|kind| (kind, Action::Generalise));
        let actions = coarse.into_iter().chain([(Pan, Action::Redact)]).collect();
        DlpConfig { profiles: vec![Profile::Phi], actions, ..DlpConfig::default() }
    }

    /// A profile is about this kind, and it is not excepted.
    #[must_use]
    pub fn has(&self, kind: DataKind) -> bool {
        self.profiles.iter().any(|profile| profile.has(kind)) && !self.except.contains(&kind)
    }

    /// What is done with this kind.
    #[must_use]
    pub fn action(&self, kind: DataKind) -> Action {
        let default = match kind {
            Cvv => return Action::Drop,
            Pan => Action::Tokenise,
            Date => Action::DateShift,
            _ => Action::Redact,
        };
        self.actions.get(&kind).copied().unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighteen_identifiers_cover_every_kind_but_secrets() {
        assert_eq!(HIPAA.map(|identifier| identifier.letter).iter().collect::<String>(), "ABCDEFGHIJKLMNOPQR");
        for kind in DataKind::ALL {
            let count = HIPAA.iter().filter(|identifier| identifier.kinds.contains(&kind)).count();
            assert_eq!(count, usize::from(kind != Secret), "{kind:?}");
            assert_eq!(Profile::Phi.has(kind), kind != Secret);
        }
        assert!(Profile::Pii.has(Cvv) && Profile::Pan.has(Cvv), "wherever cards are found, their codes are");
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let check = |text: &str| toml::from_str::<DlpConfig>(text).unwrap().validate();
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("min_score = 49"), Err(DlpConfigError::Score(49)));
        assert_eq!(check("actions = { cvv = \"tokenise\" }"), Err(DlpConfigError::Cvv));
        assert_eq!(check("except = [\"cvv\"]"), Err(DlpConfigError::Cvv));
        assert_eq!(check("actions = { email = \"date_shift\" }"), Err(DlpConfigError::NotADate(Email)));
        assert_eq!(check("actions = { ssn = \"generalise\" }"), Err(DlpConfigError::NotCoarse(Ssn)));
        assert_eq!(DlpConfig::safe_harbor().validate(), Ok(()));
        assert!(toml::from_str::<DlpConfig>("profile = []").is_err());
    }

    #[test]
    fn actions_fall_back_to_their_defaults_and_codes_always_go() {
        let mut config = DlpConfig::default();
        config.actions.insert(Email, Action::Drop);
        config.actions.insert(Cvv, Action::Redact);
        assert_eq!(
            [Email, Phone, Pan, Cvv].map(|kind| config.action(kind)),
            [Action::Drop, Action::Redact, Action::Tokenise, Action::Drop]
        );
    }
}
