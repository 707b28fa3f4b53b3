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
//!
//! Stored of a credential is its hash only. What must be read again (TOTP secrets, signing keys) is sealed with a key that is
//! not in the store. Outside, all refusals are one, and cost the same.

pub mod accounts;
mod actor;
pub mod bearer;
mod config;
mod credentials;
mod error;
mod hashing;
pub mod jwt;
pub mod lockout;
mod message;
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
pub use error::IdentityError;
pub use message::{
    Answer, CreatedKey, Delegate, IdentityMsg, Introspection, KeyInfo, LoggedIn, Login, Page, SecondFactor,
    SetPassword, UserInfo,
};
pub use secret::{Pepper, SealKey, Secret};
pub use tenants::{HOME, Tenant, TenantError, TenantMachine, TenantRefused, Tenants};
pub use totp::Enrolment;
pub use verifier::{Admitted, Credential, Refusal, TenantView, Verified, VerifierHandle, Watch};
