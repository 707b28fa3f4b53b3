//! What goes wrong, and how it ends.

use super::{Change, Event, MS, NODES, SECOND, World, below, chance};

impl World {
    pub(super) fn fault(&mut self) {
        if self.quiet.is_some() {
            return;
        }
        let node = below(&mut self.rng, self.present as u64) as usize;
        let length = 100 * MS + below(&mut self.rng, 9 * SECOND);
        match below(&mut self.rng, 12) {
            0..4 => self.partition(length),
            4..6 => {
                self.net.paused[node] = self.net.alive[node];
                self.after(length, Event::Resume(node));
            }
            6..8 => self.die(node, length),
            8 => self.bounce(node),
            9 => self.after(0, Event::Start(self.present - 1)),
            10 => self.propose_late(Change::Drain(node)),
            _ => {
                for _ in 0..2 {
                    let target = below(&mut self.rng, 3) as usize;
                    if self.net.runs(target) {
                        self.elect(target, true, true);
                    }
                }
            }
        }
    }

    /// A process that is back soon, and links that close later for reasons of their own.
    pub(super) fn bounce(&mut self, node: usize) {
        let back_after = 20 * MS + below(&mut self.rng, 400 * MS);
        self.die(node, back_after);
        for at in 0..NODES {
            let delay = below(&mut self.rng, 3 * SECOND);
            self.after(delay, Event::Closed { at, node });
        }
    }

    /// Cuts a set of nodes off from the rest, both ways, one way, or only one link.
    pub(super) fn partition(&mut self, length: u64) {
        let cut = 1 + below(&mut self.rng, (1 << self.present) - 2);
        let one_way = chance(&mut self.rng, 40);
        let one_link = chance(&mut self.rng, 25);
        let (first, second) = (below(&mut self.rng, 5) as usize, below(&mut self.rng, 5) as usize);
        for from in 0..NODES {
            for to in 0..NODES {
                let (inside, other) = (cut & (1 << from) != 0, cut & (1 << to) != 0);
                let crosses = if one_way { inside && !other } else { inside != other };
                let shut = if one_link { from == first && to == second } else { crosses };
                self.net.open[from][to] &= !shut;
            }
        }
        self.after(length, Event::Mend);
    }

    /// Everything heals, runs and is delivered from here on.
    pub(super) fn quieten(&mut self) {
        self.quiet = Some(self.now);
        self.net.heal();
        self.net.loss = 0;
        self.net.slow = 0;
        for node in 0..self.present {
            self.after(0, Event::Resume(node));
            self.after(0, Event::Start(node));
        }
    }
}
