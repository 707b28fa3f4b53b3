//! Governance: who may do what, what content passes, and what happened.
//!
//! | look for | in |
//! |---|---|
//! | `[governance]` of `cluster.toml` | [`GovernanceConfig`] |
//! | figures of this machine beside their targets | [`bench`](mod@bench) |
//! | what follows a verdict: notices, appeals, juries | [`cases`] |
//! | the rules that bind everybody, signed | [`constitution`] |
//! | personal and secret data in text: found, masked | [`dlp`] |
//! | all that is kept of a person, exported or erased | [`erasure`] |
//! | who somebody is: accounts, credentials | [`identity`] |
//! | encryption at rest, keys that can be destroyed | [`keys`] |
//! | money and quota, double entry | [`ledger`] |
//! | how often somebody may ask | [`limits`] |
//! | the one call that all content passes | [`gate`] |
//! | what a text may say | [`moderation`] |
//! | who may do what | [`policy`] |
//! | what happened, provable to anyone | [`tlog`] |
//! | what a node hosts of it | [`install`](fn@install) |

pub mod bench;
pub mod cases;
mod config;
pub mod constitution;
pub mod dlp;
pub mod erasure;
pub mod freshness;
pub mod gate;
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
