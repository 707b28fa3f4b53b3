//! The door from outside: real listeners, real sockets, a village behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod actors;
mod auth;
mod chat;
mod cluster;
mod drain;
mod events;
mod harness;
mod idempotency;
mod ledger;
mod log;
mod memory;
mod nodes;
mod policy;
mod robustness;
