//! The machines and the network between them: clocks that run at their own rates, links that fail one way at a time.

use rand::Rng;
use rand::rngs::SmallRng;

/// Nodes there may be in a run.
pub(super) const NODES: usize = 5;

/// A number below `bound`, drawn plainly: the model draws millions, unoptimised.
pub(super) fn below(rng: &mut SmallRng, bound: u64) -> u64 {
    rng.next_u64() % bound
}

/// Whether something that happens in `percent` of all cases happens.
pub(super) fn chance(rng: &mut SmallRng, percent: u64) -> bool {
    below(rng, 100) < percent
}

/// Real time is in microseconds, a machine's own in milliseconds.
pub(super) struct Net {
    /// Thousandths of the real rate: 900 to 1100.
    rates: [u64; NODES],
    offsets: [u64; NODES],
    pub(super) open: [[bool; NODES]; NODES],
    pub(super) alive: [bool; NODES],
    pub(super) paused: [bool; NODES],
    /// Per cent of messages lost, and of messages that take up to 2 s.
    pub(super) loss: u64,
    pub(super) slow: u64,
}

impl Net {
    pub(super) fn draw(rng: &mut SmallRng) -> Self {
        let quiet = chance(rng, 40);
        let mut net = Self {
            rates: [1_000; NODES],
            offsets: [0; NODES],
            open: [[true; NODES]; NODES],
            alive: [false; NODES],
            paused: [false; NODES],
            loss: if quiet { 0 } else { below(rng, 20) },
            slow: if quiet { 1 } else { below(rng, 10) },
        };
        for node in 0..NODES {
            net.rates[node] = match below(rng, 4) {
                0 => 900,
                1 => 1_100,
                _ => 900 + below(rng, 201),
            };
            net.offsets[node] = 60_000 + below(rng, 1_000_000);
        }
        net
    }

    /// What the node's clock shows, in milliseconds.
    pub(super) fn local(&self, node: usize, at: u64) -> u64 {
        self.offsets[node] + at * self.rates[node] / 1_000_000
    }

    /// Real length of a time that the node's clock measures.
    pub(super) fn real(&self, node: usize, local_ms: u64) -> u64 {
        local_ms * 1_000_000 / self.rates[node]
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        self.alive[node] && !self.paused[node]
    }

    /// How long a message takes; nothing if it is lost.
    pub(super) fn hop(&self, rng: &mut SmallRng, from: usize, to: usize) -> Option<u64> {
        if from == to {
            return Some(50);
        }
        if !self.open[from][to] || (self.loss > 0 && chance(rng, self.loss)) {
            return None;
        }
        let most = if chance(rng, self.slow) { 2_000_000 } else { 4_000 };
        Some(200 + below(rng, most))
    }

    /// Repairs all links and lets messages through.
    pub(super) fn heal(&mut self) {
        self.open = [[true; NODES]; NODES];
    }
}
