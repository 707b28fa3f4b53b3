//! Being a node: ticks, beats, the lease, activations, the process's life.

use super::*;

impl World {
    pub(super) fn tick(&mut self, node: usize, process: u64) {
        if self.nodes[node].process != process {
            return;
        }
        let wait = TICK_MS - 10 + below(&mut self.rng, 20);
        self.after(self.net.real(node, wait), Event::Tick(node, process));
        self.nodes[node].ticks += 1;
        for shard in [false, true] {
            if self.group_leads(node, shard).is_some() {
                self.round(node, shard);
            } else {
                self.elect(node, shard, false);
            }
        }
        let waits = self.eager && self.view_of(node).owned[node] & !self.nodes[node].fit != 0;
        if waits || self.nodes[node].ticks.is_multiple_of(2) {
            self.send_beat(node);
        }
        self.judge(node);
        self.leave_if_drained(node);
    }

    pub(super) fn send_beat(&mut self, node: usize) {
        let Some(leader) = self.control.seats[node].hint else { return };
        let now = self.local(node);
        let this = &mut self.nodes[node];
        this.seq += 1;
        this.lease.sent(this.seq, now);
        let beat = Beat { node: id(node), seq: this.seq, applied: epoch(this.reported) };
        self.send(node, leader, Event::Beat(leader, beat));
    }

    pub(super) fn ack(&mut self, node: usize, ack: Ack) {
        self.nodes[node].lease.acked(ack);
        self.refit(node);
    }

    /// Looks again for which slots the node may act, and whether anybody else does.
    pub(super) fn refit(&mut self, node: usize) {
        let now = self.local(node);
        let owned = self.view_of(node).owned[node];
        let unsettled = self.flaw == Some(Flaw::Unsettled);
        let this = &mut self.nodes[node];
        this.fit = 0;
        for slot in (0..SLOTS).filter(|slot| owned & (1 << slot) != 0) {
            if this.lease.acts(this.since[slot], now) || (unsettled && this.lease.holds(now)) {
                this.fit |= 1 << slot;
            }
        }
        this.active |= this.fit;
        self.check(node);
    }

    pub(super) fn view_of(&self, node: usize) -> &View {
        &self.views[self.control.seats[node].applied]
    }

    /// Slots for which the node would handle a message right now.
    pub(super) fn acting(&self, node: usize) -> Slots {
        let this = &self.nodes[node];
        if (this.fit | this.ending) == 0 || !self.net.runs(node) || !this.lease.holds(self.local(node)) {
            return 0;
        }
        this.fit | this.ending
    }

    /// A node begins to act only by an event of its own, so two that act at once are seen at one of their events.
    pub(super) fn check(&mut self, node: usize) {
        let mine = self.acting(node);
        for other in (0..NODES).filter(|other| *other != node) {
            let both = mine & self.acting(other);
            if both != 0 {
                let (applied, others) = (self.control.seats[node].applied, self.control.seats[other].applied);
                let text =
                    format!("nodes {node} (epoch {applied}) and {other} (epoch {others}) act for slots {both:#b}");
                self.violation.get_or_insert((self.now / MS, Broken::TwoAct(text)));
            }
        }
        for slot in (0..SLOTS).filter(|slot| mine & (1 << slot) != 0) {
            let before = self.acted[slot].replace(node);
            self.seen.hand_overs += u64::from(before.is_some_and(|before| before != node));
        }
    }

    pub(super) fn apply_changes(&mut self, node: usize, process: u64, upto: usize) {
        let from = self.control.seats[node].applied;
        if self.nodes[node].process != process || upto <= from {
            return;
        }
        let mut lost: Slots = 0;
        for length in from + 1..=upto {
            let (before, after) = (self.views[length - 1], self.views[length]);
            lost |= before.owned[node] & !after.owned[node];
            self.nodes[node].drains |= before.states[node] == State::Up && after.states[node] == State::Draining;
            let gained = after.owned[node] & !before.owned[node];
            for slot in (0..SLOTS).filter(|slot| gained & (1 << slot) != 0) {
                self.nodes[node].since[slot] = epoch(length);
            }
            self.tell_watchdog(node, length);
        }
        self.control.seats[node].applied = upto;
        self.end(node, lost);
        self.take_office(node);
        self.refit(node);
    }

    /// Ends the activations of lost slots, which takes a while; until then the node reports an older epoch.
    pub(super) fn end(&mut self, node: usize, lost: Slots) {
        let this = &mut self.nodes[node];
        this.ending |= lost & this.active;
        this.active &= !lost;
        if this.ending == 0 {
            self.report(node);
        } else if lost != 0 {
            this.endings += 1;
            let endings = this.endings;
            let most = if chance(&mut self.rng, 10) { 3 * SECOND } else { 100 * MS };
            let delay = below(&mut self.rng, most);
            self.after(delay, Event::Ended(node, endings));
        }
    }

    pub(super) fn ended(&mut self, node: usize, endings: u64) {
        let this = &mut self.nodes[node];
        if this.endings == endings {
            this.ending = 0;
            self.report(node);
        }
    }

    pub(super) fn report(&mut self, node: usize) {
        self.nodes[node].reported = self.control.seats[node].applied;
        if self.eager {
            self.send_beat(node);
        }
    }

    pub(super) fn leave_if_drained(&mut self, node: usize) {
        let applied = self.control.seats[node].applied;
        let view = self.views[applied];
        if view.states[node] != State::Draining || self.nodes[node].reported < applied {
            return;
        }
        if let Some(leader) = self.control.seats[node].hint {
            self.send(node, leader, Event::Leave(leader, node, view.since[node]));
        }
        // A process that finds itself draining stands in for one that left unheard: it ends that membership, and stays.
        if self.nodes[node].drains {
            self.nodes[node].lease.give_up();
            self.die(node, 3 * SECOND);
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.net.alive[node] {
            return;
        }
        self.net.alive[node] = true;
        self.net.paused[node] = false;
        let known = self.control.seats[node].applied;
        let applied = known - below(&mut self.rng, 3).min(known as u64) as usize;
        let process = self.nodes[node].process + 1;
        let endings = self.nodes[node].endings + 1;
        let (now, config) = (self.local(node), self.config);
        let since = [epoch(applied); SLOTS];
        let seq = first_seq(process);
        self.nodes[node] = Node { process, seq, reported: applied, since, endings, ..Node::new(&config) };
        self.control.start(node, applied, now, &mut self.rng);
        let written = self.shard.seats[node].applied;
        self.shard.start(node, written, now, &mut self.rng);
        let wait = below(&mut self.rng, TICK_MS * MS);
        self.after(wait, Event::Tick(node, process));
    }

    /// The process is gone; its kernel closes the links.
    pub(super) fn die(&mut self, node: usize, back_after: u64) {
        if !self.net.alive[node] {
            return;
        }
        self.net.alive[node] = false;
        self.entity.stop(node);
        self.control.seats[node].leads = None;
        self.shard.seats[node].leads = None;
        self.nodes[node].office = None;
        for at in 0..NODES {
            if self.nodes[at].office.is_some() && self.net.open[node][at] {
                let delay = below(&mut self.rng, 50 * MS);
                self.after(delay, Event::Closed { at, node });
            }
        }
        self.after(back_after, Event::Start(node));
    }

    pub(super) fn resume(&mut self, node: usize) {
        if !self.net.alive[node] || !self.net.paused[node] {
            return;
        }
        self.net.paused[node] = false;
        self.check(node);
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.after(0, event);
        }
    }
}
