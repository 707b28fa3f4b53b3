//! Governance: who may do what, what content passes, and what happened.

pub mod moderation;
