//! Clusters of real processes that are killed, stopped and started again.
//!
//! This program is its own node: started with `VILLAGE_TEST_NODE` it is one (see [`node`]), and the tests talk to it in lines
//! of JSON. `CHAOS_SECONDS=300 cargo test -p aivillage-runtime --test processes chaos` runs the long form.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "no village supervises its tests; figures are shown"
)]

mod chaos;
mod client;
mod failover;
mod flood;
mod local;
mod moved;
mod node;
mod nodes;
mod partition;

/// Not a test: the body of a node's process.
#[test]
fn node_process() {
    node::run_if_asked();
}
