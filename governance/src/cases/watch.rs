//! Shows on each node with a copy of the cases what is kept from their senders.

use std::collections::HashMap;

use aivillage_runtime::{Durable, ReplicaView};

use super::docket::Docket;
use super::event::CaseEvent;
use super::standing::Standings;

/// Shows what is kept from senders on each node that has a copy of their cases.
#[derive(Debug)]
pub(crate) struct Watch {
    standings: Standings,
    shards: HashMap<u8, Docket>,
}

impl Watch {
    pub(crate) fn new(standings: Standings) -> Self {
        Self { standings, shards: HashMap::new() }
    }
}

impl ReplicaView for Watch {
    type State = Docket;

    /// What was shown stays until it is read again: who is suspended is not let in by a copy that is renewed.
    async fn clear(&mut self) {
        self.shards.clear();
    }

    async fn restored(&mut self, key: &str, _seq: u64, docket: &Docket) {
        let Ok(shard) = key.parse() else { return };
        self.standings.show(shard, docket.senders());
        self.shards.insert(shard, docket.clone());
    }

    async fn applied(&mut self, key: &str, seq: u64, event: CaseEvent) {
        let Ok(shard) = key.parse() else { return };
        if seq > 1 && !self.shards.contains_key(&shard) {
            return;
        }
        let docket = self.shards.entry(shard).or_default();
        docket.apply(&event);
        self.standings.show(shard, docket.senders());
    }
}
