//! Governance: who may do what, what content passes, and what happened.
//!
//! | look for | in |
//! |---|---|
//! | `[governance]` of `cluster.toml` | [`GovernanceConfig`] |
//! | the rules that bind everybody, signed | [`constitution`] |
//! | who somebody is: accounts, credentials | [`identity`] |
//! | encryption at rest, keys that can be destroyed | [`keys`] |
//! | money and quota, double entry | [`ledger`] |
//! | who may do what | [`policy`] |
//! | what happened, provable to anyone | [`tlog`] |

mod config;
pub mod constitution;
pub mod identity;
pub mod keys;
pub mod ledger;
pub mod policy;
pub mod tlog;

pub use config::GovernanceConfig;
