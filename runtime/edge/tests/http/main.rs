//! The door from outside: real listeners, real sockets, a village behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers too")]

mod accounts;
mod actors;
mod auth;
mod chat;
mod cluster;
mod dlp;
mod drain;
mod events;
mod gate;
mod harness;
mod idempotency;
mod isolation;
mod ledger;
mod log;
mod memory;
mod moderation;
mod nodes;
mod policy;
mod privacy;
mod robustness;
mod streams;
