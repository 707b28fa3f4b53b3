//! Governance: who may do what, what content passes, and what happened.
//!
//! | look for | in |
//! |---|---|
//! | `[governance]` of `cluster.toml` | [`GovernanceConfig`] |
//! | the rules that bind everybody, signed | [`constitution`] |
//! | personal and secret data in text: found, masked | [`dlp`] |
//! | all that is kept of a person, exported or erased | [`erasure`] |
//! | who somebody is: accounts, credentials | [`identity`] |
//! | encryption at rest, keys that can be destroyed | [`keys`] |
//! | money and quota, double entry | [`ledger`] |
//! | how often somebody may ask | [`limits`] |
//! | what a text may say | [`moderation`] |
//! | who may do what | [`policy`] |
//! | what happened, provable to anyone | [`tlog`] |
//! | what a node hosts of it | [`install`](fn@install) |

mod config;
pub mod constitution;
pub mod dlp;
pub mod erasure;
pub mod identity;
mod install;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod moderation;
pub mod policy;
pub mod tlog;

pub use config::{EMBEDDED, GovernanceConfig};
pub use install::{FOLDER, Governance, HERE, InstallError, install};
