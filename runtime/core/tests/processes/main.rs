//! Clusters of real processes that are killed, stopped and started again.
//!
//! This program is its own node: started with `VILLAGE_TEST_NODE` it is one (see [`node`]), and the tests talk to it in lines
//! of JSON. `CHAOS_SECONDS=300 cargo test -p aivillage-runtime --test processes chaos` runs the long form.

mod chaos;
mod client;
mod failover;
mod node;
mod nodes;
mod partition;

/// Not a test: the body of a node's process.
#[test]
fn node_process() {
    node::run_if_asked();
}
