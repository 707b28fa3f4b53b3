//! A consensus group that is correct by construction: one log, one leader a term, elected by a majority that its
//! predecessor's quorum has let go. A deposed leader learns of it from its voters only, or sees its quorum grow old.
//!
//! Rounds stand for `AppendEntries` and its answers; they carry commands and the commit index, and prove leadership.

use rand::rngs::SmallRng;

use super::net::{NODES, Net, below, chance};

/// What a node knows of the group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seat {
    pub(super) term: u64,
    /// The term this node leads, as far as it knows.
    pub(super) leads: Option<u64>,
    /// Who leads, as far as it knows.
    pub(super) hint: Option<usize>,
    pub(super) applied: usize,
    /// Length of the log that it knows to be committed; of a leader.
    known: usize,
    /// Length of the log when it was elected: to be applied before it acts as the leader.
    pub(super) inherited: usize,
    /// By the node's clock: when it last heard a leader or granted a vote, and when it last stood for election.
    heard: u64,
    stood: u64,
    patience: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<C> {
    pub(super) term: u64,
    pub(super) command: C,
}

struct Pending<C> {
    entry: Entry<C>,
    at: u64,
}

/// What one round of a leader brings about.
#[derive(Default)]
pub(super) struct Round {
    /// The term, and when the answers of a majority are in.
    pub(super) proof: Option<(u64, u64)>,
    /// Who learns when up to where the log is committed.
    pub(super) news: Vec<(usize, u64, usize)>,
}

pub(super) struct Group<C> {
    voters: usize,
    /// How long a voter stands by a leader it heard, in milliseconds of its clock; at most this again passes before it
    /// stands.
    lease_ms: u64,
    pub(super) term: u64,
    pub(super) seats: [Seat; NODES],
    pub(super) log: Vec<Entry<C>>,
    pending: Vec<Pending<C>>,
}

impl<C: Copy> Group<C> {
    /// Nodes below `voters` vote.
    pub(super) fn new(voters: usize, lease_ms: u64) -> Self {
        let seats = [Seat::default(); NODES];
        Self { voters, lease_ms, term: 0, seats, log: Vec::new(), pending: Vec::new() }
    }

    /// A process starts, with what its predecessor had stored of the log up to `applied`.
    pub(super) fn start(&mut self, node: usize, applied: usize, local: u64, rng: &mut SmallRng) {
        let term = self.seats[node].term;
        let patience = self.patience(rng);
        self.seats[node] = Seat { term, applied, heard: local, stood: local, patience, ..Seat::default() };
    }

    fn patience(&self, rng: &mut SmallRng) -> u64 {
        self.lease_ms / 2 + below(rng, self.lease_ms / 2)
    }

    /// Takes a command into the leader's log. Returns whether the node believes that it leads. What a leader writes
    /// that has been deposed, known to it or not, is lost.
    pub(super) fn propose(&mut self, node: usize, command: C, at: u64) -> bool {
        let Some(term) = self.seats[node].leads else { return false };
        if term == self.term {
            self.pending.push(Pending { entry: Entry { term, command }, at });
        }
        true
    }

    pub(super) fn is_pending(&self, is: impl Fn(&C) -> bool) -> bool {
        self.pending.iter().any(|pending| is(&pending.entry.command))
    }

    /// Sends what a leader has to all it can reach.
    pub(super) fn round(&mut self, node: usize, at: u64, net: &Net, rng: &mut SmallRng) -> Round {
        let Some(term) = self.seats[node].leads else { return Round::default() };
        let known = self.seats[node].known;
        let mut round = Round::default();
        let mut acked = [0; NODES];
        let mut acks = 1;
        acked[0] = at;
        for peer in (0..NODES).filter(|peer| *peer != node && net.runs(*peer)) {
            let Some(out) = net.hop(rng, node, peer) else { continue };
            let back = net.hop(rng, peer, node);
            if self.seats[peer].term > term {
                self.learn(node, peer, back.is_some());
                continue;
            }
            let seat = &mut self.seats[peer];
            *seat = Seat { term, leads: None, hint: Some(node), heard: net.local(peer, at + out), ..*seat };
            if seat.applied < known {
                round.news.push((peer, at + out, known));
            }
            if let Some(back) = back
                && peer < self.voters
            {
                acked[acks] = at + out + back;
                acks += 1;
            }
        }
        acked[..acks].sort_unstable();
        round.proof = acked[..acks].get(self.voters / 2).map(|at| (term, *at));
        round
    }

    fn learn(&mut self, node: usize, peer: usize, answered: bool) {
        if answered {
            let term = self.seats[peer].term;
            let seat = &mut self.seats[node];
            *seat = Seat { term, leads: None, ..*seat };
        }
    }

    /// A majority has answered a round begun at `began`: what was proposed before is committed, if no other leads by
    /// now. Returns whether something was.
    pub(super) fn proved(&mut self, node: usize, term: u64, began: u64) -> bool {
        if self.seats[node].leads != Some(term) || self.term != term {
            return false;
        }
        let before = self.log.len();
        self.log.extend(self.pending.extract_if(.., |pending| pending.at <= began).map(|pending| pending.entry));
        self.seats[node].known = self.log.len();
        self.log.len() > before
    }

    /// Lets a node stand for election if its patience is over; `called` if somebody asked it to. Returns whether it
    /// won.
    pub(super) fn stand(&mut self, node: usize, at: u64, called: bool, net: &Net, rng: &mut SmallRng) -> bool {
        let local = net.local(node, at);
        let seat = self.seats[node];
        let ready = local >= seat.heard + self.lease_ms + seat.patience && local >= seat.stood + seat.patience;
        if node >= self.voters || seat.leads.is_some() || !(ready || called) {
            return false;
        }
        let patience = self.patience(rng);
        self.seats[node] = Seat { stood: local, patience, ..seat };
        let mut granted = [false; NODES];
        for (voter, granted) in granted.iter_mut().enumerate().take(self.voters) {
            *granted = voter == node || self.grants(voter, node, at, net, rng);
        }
        if granted.iter().filter(|granted| **granted).count() <= self.voters / 2 {
            return false;
        }
        self.win(node, at, granted, net, rng);
        true
    }

    /// A voter holds to the leader that it heard within its lease. A leader does not hear itself, so it gives way once
    /// older.
    fn grants(&self, voter: usize, candidate: usize, at: u64, net: &Net, rng: &mut SmallRng) -> bool {
        let reaches =
            net.runs(voter) && net.hop(rng, candidate, voter).is_some() && net.hop(rng, voter, candidate).is_some();
        reaches && net.local(voter, at).saturating_sub(self.seats[voter].heard) >= self.lease_ms
    }

    fn win(&mut self, node: usize, at: u64, granted: [bool; NODES], net: &Net, rng: &mut SmallRng) {
        self.term += 1;
        let before = self.seats[node].term;
        for Pending { entry, .. } in std::mem::take(&mut self.pending) {
            // What reached no majority may have reached the winner, and surely did if that wrote it.
            if entry.term == before || chance(rng, 50) {
                self.log.push(entry);
            }
        }
        for voter in (0..NODES).filter(|voter| granted[*voter]) {
            let patience = self.patience(rng);
            let seat = &mut self.seats[voter];
            *seat = Seat { term: self.term, leads: None, heard: net.local(voter, at), patience, ..*seat };
        }
        let seat = &mut self.seats[node];
        let length = self.log.len();
        *seat = Seat { leads: Some(self.term), hint: Some(node), known: length, inherited: length, ..*seat };
    }
}
