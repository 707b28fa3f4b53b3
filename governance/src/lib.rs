//! Governance: who may do what, what content passes, and what happened.

pub mod constitution;
pub mod ledger;
pub mod identity;
