//! The transparency log in real surroundings: nodes of a cluster over sockets, processes that are killed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

mod kill;
mod nodes;

use aivillage_governance::tlog::{Decision, Event, LogKey, Payload};
use serde_json::json;

/// An entry that carries a number.
fn event(n: u64) -> Event {
    let key = LogKey::new(&[7; 32]);
    Event {
        kind: "node.joined".to_owned(),
        actor: key.pseudonym("node"),
        action: "join".to_owned(),
        object: key.pseudonym("cluster"),
        tenant: key.pseudonym("village"),
        article: None,
        decision: Decision::None,
        case: None,
        payload: Payload::Clear(json!({ "n": n })),
    }
}
