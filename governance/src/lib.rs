//! Governance: who may do what, what content passes, and what happened.
//!
//! | look for | in |
//! |---|---|
//! | what happened, provable to anyone | [`tlog`] |

pub mod tlog;
