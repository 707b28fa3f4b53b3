//! What the gate adds to a message: `cargo bench -p aivillage-governance --bench gate`; prints a line of JSON.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use aivillage_governance::bench;

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let figures = runtime.block_on(bench::gate(dir.path())).expect("the gate of this release works");
    println!("{}", serde_json::json!(figures));
}
