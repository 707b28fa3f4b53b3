//! Data loss prevention: finds personal, health, card and secret data in text, and takes it out.
//!
//! [`scan`] finds, [`Redactor`] replaces and keeps the way back to the original offsets, [`Profile`] says which kinds matter
//! and [`DlpConfig`] what happens to them. One automaton of all patterns looks at every word's start; what it finds must pass
//! its check digit, is scored by the words around it, and of overlapping findings the longest stays. The cost is linear: every
//! pattern is bounded, every run of bytes is read once. Names and addresses have no pattern: a small tagger finds them.
//! What tokens stand for is kept by [`TokenVault`].

mod calendar;
mod checksum;
mod coarse;
mod context;
mod engine;
mod names;
mod profile;
mod redact;
mod rules;
mod token;
mod vault;

use std::ops::Range;

use aivillage_runtime::clock;
use chrono::{DateTime, Datelike};
use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use names::train;
pub use profile::{Action, DlpConfig, DlpConfigError, HIPAA, HipaaIdentifier, Profile};
pub use redact::{Edit, Redacted, Redactor, VaultEntry};
pub use token::{NoToken, PseudonymKey, Token};
pub(crate) use vault::{Held, HeldView};
pub use vault::{Revealed, Stored, TokenData, TokenMsg, TokenVault, Tokens};

/// A kind of data that says who someone is, or opens a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// A person's name.
    Name,
    /// Street and house, or a post box.
    Address,
    /// A postal code.
    Zip,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A fax number.
    Fax,
    /// Social security or taxpayer number of the United States.
    Ssn,
    /// A bank account by its international number.
    Iban,
    /// The number of a payment card.
    Pan,
    /// The verification value of a payment card.
    Cvv,
    /// A passport number.
    Passport,
    /// Another number that a state gives to persons.
    NationalId,
    /// Latitude and longitude.
    Coordinates,
    /// A day.
    Date,
    /// An age of 90 or more.
    Age,
    /// The number of a medical record or patient.
    Mrn,
    /// Membership of a health plan.
    HealthPlan,
    /// An account number.
    Account,
    /// The number of a certificate or licence.
    Licence,
    /// A vehicle identification number.
    Vin,
    /// The plate of a vehicle.
    Plate,
    /// What identifies a device: serial number, IMEI, MAC address.
    DeviceSerial,
    /// A web address.
    Url,
    /// A network address.
    Ip,
    /// A mark of a finger, iris or voice print.
    Biometric,
    /// A mark of an image of a face.
    FaceImage,
    /// Any other unique identifier.
    UniqueId,
    /// A password, key or token.
    Secret,
    /// A city, or what else is smaller than a state.
    Place,
}

impl DataKind {
    /// All kinds.
    pub const ALL: [DataKind; 29] = [
        DataKind::Name,
        DataKind::Address,
        DataKind::Zip,
        DataKind::Email,
        DataKind::Phone,
        DataKind::Fax,
        DataKind::Ssn,
        DataKind::Iban,
        DataKind::Pan,
        DataKind::Cvv,
        DataKind::Passport,
        DataKind::NationalId,
        DataKind::Coordinates,
        DataKind::Date,
        DataKind::Age,
        DataKind::Mrn,
        DataKind::HealthPlan,
        DataKind::Account,
        DataKind::Licence,
        DataKind::Vin,
        DataKind::Plate,
        DataKind::DeviceSerial,
        DataKind::Url,
        DataKind::Ip,
        DataKind::Biometric,
        DataKind::FaceImage,
        DataKind::UniqueId,
        DataKind::Secret,
        DataKind::Place,
    ];

    /// What stands in a placeholder: `EMAIL` of `[EMAIL_1]`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            DataKind::Name => "NAME",
            DataKind::Address => "ADDRESS",
            DataKind::Zip => "ZIP",
            DataKind::Email => "EMAIL",
            DataKind::Phone => "PHONE",
            DataKind::Fax => "FAX",
            DataKind::Ssn => "SSN",
            DataKind::Iban => "IBAN",
            DataKind::Pan => "PAN",
            DataKind::Cvv => "CVV",
            DataKind::Passport => "PASSPORT",
            DataKind::NationalId => "NATIONAL_ID",
            DataKind::Coordinates => "COORDINATES",
            DataKind::Date => "DATE",
            DataKind::Age => "AGE",
            DataKind::Mrn => "MRN",
            DataKind::HealthPlan => "HEALTH_PLAN",
            DataKind::Account => "ACCOUNT",
            DataKind::Licence => "LICENCE",
            DataKind::Vin => "VIN",
            DataKind::Plate => "PLATE",
            DataKind::DeviceSerial => "DEVICE_SERIAL",
            DataKind::Url => "URL",
            DataKind::Ip => "IP",
            DataKind::Biometric => "BIOMETRIC",
            DataKind::FaceImage => "FACE_IMAGE",
            DataKind::UniqueId => "UNIQUE_ID",
            DataKind::Secret => "SECRET",
            DataKind::Place => "PLACE",
        }
    }
}

/// Something found in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub kind: DataKind,
    /// Where it is: bytes of the text, on character boundaries.
    pub span: Range<usize>,
    /// How sure that is, 50 to 100; a check digit or a word near it counts.
    pub score: u8,
}

/// Finds data of all kinds; the longest findings that do not overlap, in order.
///
/// Placeholders and tokens that redaction has left are no data and no context.
#[must_use]
pub fn scan(text: &str) -> Vec<Finding> {
    engine::scan(text, |_| true)
}

/// Finds what the configuration's profiles are about; a finding of another kind hides none of them.
#[must_use]
pub fn scan_for(text: &str, config: &DlpConfig) -> Vec<Finding> {
    let mut found = engine::scan(text, |kind| config.has(kind));
    found.retain(|finding| finding.score >= config.min_score);
    found
}

/// Kinds that have no pattern, or not only one: a tagger finds them, which takes longer.
pub const TAGGED: [DataKind; 3] = names::KINDS;

/// The year it is: dates that are too long ago for their year to say little are told apart by it.
#[must_use]
pub fn this_year() -> i32 {
    let now_ms = i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(now_ms).map_or(i32::MAX, |now| now.year())
}

/// Names a value without telling it: the first 64 bit of its SHA-256, hex.
#[must_use]
pub fn fingerprint(value: &str) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(value.as_bytes());
    HEXLOWER.encode(digest.get(..FINGERPRINT / 2).unwrap_or_default())
}

/// The text has a fingerprint's form.
#[must_use]
pub fn is_fingerprint(text: &str) -> bool {
    text.len() == FINGERPRINT && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hex digits of a fingerprint.
const FINGERPRINT: usize = 16;

#[cfg(test)]
mod tests;
