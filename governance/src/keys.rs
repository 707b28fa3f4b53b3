//! Keys and encryption at rest: what is stored about a subject opens only while the subject's keys exist.
//!
//! ```text
//! root (sealed file, moves on each epoch) -> epoch key -> KEK of a tenant -> DEK per subject and purpose -> AVE1 envelope
//! ```
//!
//! | look for | in |
//! |---|---|
//! | the format of a sealed value | [`envelope`] |
//! | names: tenant, subject, purpose, key | [`scope`] |
//! | secrets, wrapping one key by another | [`secret`] |
//! | the root and its epochs, the file they are kept in | [`root`], [`keystore`] |
//! | the wrapped keys of a tenant, as state made of events | [`ring`] |
//! | sealing without a mailbox | [`handle`] |
//! | what all nodes know, how a node gets it | [`village`], [`share`] |
//! | the actor of a tenant's keys, and its copies on other nodes | [`vault`], [`Copies`] |
//! | how a node comes to have the root | [`node`] |
//! | when epochs begin and end, in the whole cluster | [`keeper`], [`epochs`] |
//! | a store whose values are sealed | [`store`] |
//! | a value about a person in an actor's events | [`personal`] |
//! | proof of an erasure | [`certificate`] |
//!
//! **Shredding.** A subject's keys leave the [`KeyRing`] at once and a tombstone refuses everything sealed to it later. What
//! backups and old log segments hold of them is wrapped under the tenant's KEK, and that under epoch keys. With the next epoch
//! the tenant gets a new KEK, and with the one after it the last epoch key that the old KEK was wrapped under is destroyed:
//! from then on no copy of the state opens them, whoever has today's root.
//!
//! **What this does not do.** A backup of the key file itself, kept beside a backup of the state, opens what both are of: keep
//! only the newest. A copy-on-write file system or a flash disk may keep old blocks of the key file for a while.

pub mod certificate;
pub mod config;
pub mod envelope;
pub mod epochs;
pub mod error;
pub mod handle;
pub mod keeper;
pub mod keystore;
pub mod node;
#[cfg(test)]
mod outside;
pub mod personal;
mod register;
pub mod ring;
pub mod root;
pub mod scope;
pub mod secret;
pub mod share;
pub mod store;
pub mod vault;
mod view;
pub mod village;

pub use certificate::{CertificateError, ErasureCertificate, SignedCertificate};
pub use config::{KeysConfig, SealKind};
pub use epochs::{EpochMachine, EpochRefused};
pub use error::CryptError;
pub use handle::VaultHandle;
pub use keeper::{EpochStatus, RootKeeper, RootMsg};
pub use keystore::{Keystore, KeystoreError, Unlock};
pub use node::{KeysNode, RootError, install};
pub use personal::{Kept, Personal};
pub use ring::{KeyRing, RingEvent};
pub use root::Root;
pub use scope::{DekId, Purpose, Scope, SubjectTag, TenantId};
pub use secret::Secret;
pub use share::{SecretKeeper, SecretMsg, ShareError};
pub use store::EncryptedStore;
pub use vault::{KeyVault, KeyVaultMsg, Vault, VaultError};
pub use view::Copies;
pub use village::VillageSecret;
