//! Being a leader: rounds, elections, the watch over the members.

use super::*;

impl World {
    pub(super) fn group_leads(&self, node: usize, shard: bool) -> Option<u64> {
        if shard { self.shard.seats[node].leads } else { self.control.seats[node].leads }
    }

    pub(super) fn round(&mut self, node: usize, shard: bool) {
        let Round { proof, news } = if shard {
            self.shard.round(node, self.now, &self.net, &mut self.rng)
        } else {
            self.control.round(node, self.now, &self.net, &mut self.rng)
        };
        for (peer, at, upto) in news {
            self.apply_later(peer, at, upto, shard);
        }
        if let Some((term, at)) = proof {
            let process = self.nodes[node].process;
            self.push(at, Event::Proof { node, process, term, began: self.now, shard });
        }
    }

    pub(super) fn apply_later(&mut self, node: usize, at: u64, upto: usize, shard: bool) {
        let lag = below(&mut self.rng, 20 * MS);
        let slow = if chance(&mut self.rng, 10) { below(&mut self.rng, 2 * SECOND) } else { 0 };
        let process = self.nodes[node].process;
        self.push(at + lag + slow, Event::Applied { node, process, upto, shard });
    }

    pub(super) fn proof(&mut self, node: usize, term: u64, began: u64, shard: bool) {
        if shard {
            if self.shard.proved(node, term, began) {
                self.entity_committed();
                self.spread(node, true);
            }
            return;
        }
        if self.nodes[node].office == Some(term) {
            let began = self.net.local(node, began);
            self.nodes[node].watchdog.quorum(began);
        }
        if self.control.proved(node, term, began) {
            self.control_committed();
            self.spread(node, false);
        }
    }

    /// The leader applies what was committed, and tells the others.
    pub(super) fn spread(&mut self, node: usize, shard: bool) {
        let length = if shard { self.shard.log.len() } else { self.control.log.len() };
        self.apply_later(node, self.now, length, shard);
        self.round(node, shard);
    }

    pub(super) fn elect(&mut self, node: usize, shard: bool, called: bool) {
        let won = if shard {
            self.shard.stand(node, self.now, called, &self.net, &mut self.rng)
        } else {
            self.control.stand(node, self.now, called, &self.net, &mut self.rng)
        };
        if !won {
            return;
        }
        self.seen.elections += u64::from(!shard);
        if shard {
            self.entity_committed();
        } else {
            self.control_committed();
            self.take_office(node);
        }
        self.spread(node, shard);
    }

    pub(super) fn control_committed(&mut self) {
        for length in self.views.len()..=self.control.log.len() {
            let change = self.control.log[length - 1].command;
            let before = self.views[length - 1];
            let after = before.then(change, epoch(length), self.flaw);
            for node in (0..NODES).filter(|node| before.states[*node] != after.states[*node]) {
                match after.states[node] {
                    State::Down => self.seen.downs += 1,
                    State::Draining => self.seen.drains += 1,
                    _ => self.seen.rejoins += u64::from(before.states[node] == State::Down),
                }
            }
            self.views.push(after);
        }
    }

    /// A leader that has applied what it inherited begins to watch.
    pub(super) fn take_office(&mut self, node: usize) {
        let seat = self.control.seats[node];
        let (Some(term), now) = (seat.leads, self.local(node)) else { return };
        if self.nodes[node].office == Some(term) || seat.applied < seat.inherited {
            return;
        }
        let view = self.views[seat.applied];
        let members = (0..NODES).filter(|node| view.is_member(*node));
        let members: Vec<(NodeId, Epoch)> = members.map(|node| (id(node), view.since[node])).collect();
        let floor = if self.flaw == Some(Flaw::NoFloor) { Epoch::default() } else { epoch(seat.applied) };
        self.nodes[node].office = Some(term);
        if self.flaw == Some(Flaw::NoWait) {
            self.pretend_wait(node, floor, members);
        } else {
            self.nodes[node].watchdog.elected(now, floor, members);
        }
        self.nodes[node].watchdog.applied(epoch(seat.applied));
        for dead in (0..NODES).filter(|dead| view.is_member(*dead)) {
            if !self.net.alive[dead] {
                self.after(0, Event::Closed { at: node, node: dead });
            }
        }
    }

    /// Takes office as though it had listened for a whole patience already.
    pub(super) fn pretend_wait(&mut self, node: usize, floor: Epoch, members: Vec<(NodeId, Epoch)>) {
        let now = self.local(node);
        let watchdog = &mut self.nodes[node].watchdog;
        watchdog.elected(now - 4_000, floor, members);
        for passed in (0..4_000).step_by(500) {
            watchdog.quorum(now - 4_000 + passed);
            watchdog.due(now - 4_000 + passed);
        }
    }

    pub(super) fn tell_watchdog(&mut self, node: usize, length: usize) {
        let now = self.local(node);
        let (before, after) = (self.views[length - 1], self.views[length]);
        let watchdog = &mut self.nodes[node].watchdog;
        for member in 0..NODES {
            match (before.is_member(member), after.is_member(member)) {
                (false, true) => watchdog.joined(id(member), after.since[member], now),
                (true, false) => watchdog.forget(id(member)),
                _ => {}
            }
        }
        watchdog.applied(epoch(length));
    }

    /// The watchdog, while its term is that of the seat.
    pub(super) fn watching(&mut self, node: usize) -> Option<&mut Watchdog> {
        let leads = self.control.seats[node].leads;
        let this = &mut self.nodes[node];
        if this.office.is_some() && this.office != leads {
            this.office = None;
            this.watchdog.deposed();
        }
        let now = self.net.local(node, self.now);
        if self.flaw == Some(Flaw::StaleQuorum) {
            this.watchdog.quorum(now);
        }
        this.office.is_some().then_some(&mut this.watchdog)
    }

    pub(super) fn beat(&mut self, to: usize, beat: Beat) {
        let now = self.local(to);
        let from = beat.node.0 as usize;
        let Some(watchdog) = self.watching(to) else { return };
        if let Some(ack) = watchdog.beat(beat, now) {
            self.send(to, from, Event::Ack(from, ack));
        }
        let knows_all = self.control.seats[to].applied == self.control.log.len();
        if knows_all && !self.view_of(to).is_member(from) {
            self.propose(to, Change::Up(from));
        }
    }

    pub(super) fn leave(&mut self, to: usize, node: usize, since: Epoch) {
        if self.watching(to).is_some() {
            self.propose(to, Change::Down(node, since));
        }
    }

    pub(super) fn judge(&mut self, node: usize) {
        let now = self.local(node);
        let Some(watchdog) = self.watching(node) else { return };
        for fault in watchdog.due(now) {
            self.seen.refused += u64::from(fault.why == Why::Refused);
            let change = Change::Down(fault.node.0 as usize, fault.joined);
            self.propose(node, change);
            if chance(&mut self.rng, 20) {
                let delay = below(&mut self.rng, 6 * SECOND);
                self.after(delay, Event::Late(change));
            }
        }
    }

    pub(super) fn propose_late(&mut self, change: Change) {
        if let Some(leader) = self.newest_leader() {
            self.propose(leader, change);
        }
    }

    pub(super) fn newest_leader(&self) -> Option<usize> {
        (0..NODES).find(|node| self.net.runs(*node) && self.control.seats[*node].leads == Some(self.control.term))
    }

    pub(super) fn propose(&mut self, node: usize, change: Change) {
        if !self.control.is_pending(|pending| *pending == change) && self.control.propose(node, change, self.now) {
            self.round(node, false);
        }
    }

    pub(super) fn dial(&mut self, at: usize, node: usize, left: u8) {
        if self.net.alive[node] || left == 0 || !self.net.open[at][node] || !self.net.open[node][at] {
            return;
        }
        let dialled = self.local(at);
        let delay = if chance(&mut self.rng, 10) { below(&mut self.rng, 2 * SECOND) } else { 2 * MS };
        self.after(delay, Event::Refused { at, node, dialled });
        self.after(100 * MS, Event::Dial { at, node, left: left - 1 });
    }
}
