//! Identity: who they are, and what they may be.
//!
//! | look for | in |
//! |---|---|
//! | the actor, its messages | [`Identity`], [`IdentityMsg`] |
//! | a credential on the hot path | [`VerifierHandle`] |
//! | a credential wherever its tenant's accounts are | [`Credentials`] |
//! | which tenants there are | [`Tenants`] |
//! | what a tenant's accounts are, pure | [`accounts`] |
//! | API keys, sessions, refresh tokens as text | [`bearer`] |
//! | passwords, and delays after wrong ones | [`password`], [`lockout`] |
//! | second factors | [`totp`] |
//! | access tokens, the keys that sign them | [`jwt`], [`ring`] |
//! | roles, separation of duties | [`role`] |
//! | names, in memory only; erasing a person | `names`, [`AccountData`] |
//!
//! Stored of a credential is its hash only, of a name or a label what is sealed for its owner. What must be read again (TOTP secrets, signing keys) is sealed with a key that is
//! not in the store. Outside, all refusals are one, and cost the same.

pub mod accounts;
mod actor;
pub mod bearer;
mod config;
mod credentials;
mod data;
mod error;
mod hashing;
pub mod jwt;
pub mod lockout;
mod message;
mod names;
pub mod password;
pub mod ring;
pub mod role;
mod secret;
mod tenants;
pub mod totp;
mod verifier;

pub use actor::{Desk, Identity, IdentityNode, install};
pub use config::{IdentityConfig, Lives};
pub use credentials::{CheckError, Credentials};
pub use data::AccountData;
pub use error::IdentityError;
pub use message::{
    Answer, CreatedKey, Delegate, IdentityMsg, Introspection, KeyInfo, LoggedIn, Login, Page, SecondFactor,
    SetPassword, UserInfo,
};
pub use secret::{Pepper, SealKey, Secret};
pub use tenants::{HOME, Tenant, TenantError, TenantMachine, TenantRefused, Tenants};
pub use totp::Enrolment;
pub use verifier::{Admitted, Credential, Refusal, TenantView, Verified, VerifierHandle, Watch};
