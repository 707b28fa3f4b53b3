//! The entity of the shard group and its clients.

use super::Broken;
use super::{Answer, Event, Flaw, MS, World, below, chance};

impl World {
    pub(super) fn entity_committed(&mut self) {
        let fence = self.flaw != Some(Flaw::Unfenced);
        for entry in &self.shard.log[self.written..] {
            self.seen.writes += 1;
            if let Err(violation) = self.entity.committed(entry, fence) {
                self.violation.get_or_insert((self.now / MS, Broken::Event(violation)));
            }
        }
        self.written = self.shard.log.len();
    }

    pub(super) fn apply_writes(&mut self, node: usize, process: u64, upto: usize) {
        let from = self.shard.seats[node].applied;
        if self.nodes[node].process != process || upto <= from {
            return;
        }
        self.shard.seats[node].applied = upto;
        for index in from..upto {
            let write = self.shard.log[index].command;
            if self.entity.applied(node, index, &write) {
                self.send(node, node, Event::Answer(write.op));
            }
        }
    }

    pub(super) fn next_client(&mut self) {
        self.ops += 1;
        self.push(self.now, Event::Client { op: self.ops, tries: 6 });
        let wait = 150 * MS + below(&mut self.rng, 500 * MS);
        self.after(wait, Event::NextClient);
    }

    pub(super) fn client(&mut self, op: u64, tries: u8) {
        if tries == 0 || self.entity.is_answered(op) {
            return;
        }
        let node = below(&mut self.rng, 3) as usize;
        let guess = if chance(&mut self.rng, 80) { self.shard.seats[node].hint } else { None };
        let delay = below(&mut self.rng, 2 * MS);
        self.after(delay, Event::Operation(guess.unwrap_or(node), op));
        self.after(400 * MS, Event::Client { op, tries: tries - 1 });
    }

    pub(super) fn operation(&mut self, node: usize, op: u64) {
        let seat = self.shard.seats[node];
        let surely = seat.leads.filter(|term| *term == self.shard.term && seat.applied >= seat.inherited);
        if self.entity.term(node) != seat.leads && chance(&mut self.rng, 20) {
            self.entity.stop(node); // it notices at last
        }
        match self.entity.handle(node, op, seat.applied, surely) {
            Answer::Stored => self.send(node, node, Event::Answer(op)),
            Answer::Refused => {}
            Answer::Propose(write) => {
                if self.shard.propose(node, write, self.now) {
                    self.round(node, true);
                }
            }
        }
    }
}
