//! One run: nodes that beat, lead, apply, act, die and come back, driven by a queue of events in real time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::liveness::{Ack, Beat, Epoch, Lease, LivenessConfig, Watchdog, Why, first_seq};
use super::Flaw;
use super::entity::{Answer, Entity, Write};
use super::group::{Group, Round};
use super::net::{NODES, Net, below, chance};
use crate::NodeId;

/// Slots of the one kind; a set of them is a mask.
pub(super) const SLOTS: usize = 8;
type Slots = u16;
const ALL: Slots = (1 << SLOTS) - 1;

pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// Between two looks of a node at what is due, by its clock.
const TICK_MS: u64 = 250;
/// After the network has healed, everything must be owned again within this.
const RECOVERY: u64 = 15 * SECOND;
/// A run watches at least this long after the network has healed.
const AFTERMATH: u64 = 1_500 * MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Up,
    Draining,
    Down,
}

/// A committed change of the membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up(usize),
    Drain(usize),
    /// Has no effect unless the node is a member since this epoch.
    Down(usize, Epoch),
}

/// The membership at an epoch, and what follows from it.
#[derive(Debug, Clone, Copy)]
struct View {
    states: [State; NODES],
    since: [Epoch; NODES],
    owned: [Slots; NODES],
}

impl View {
    fn is_member(&self, node: usize) -> bool {
        matches!(self.states[node], State::Up | State::Draining)
    }

    fn then(mut self, change: Change, epoch: Epoch, flaw: Option<Flaw>) -> Self {
        match change {
            Change::Up(node) if !self.is_member(node) => {
                self.states[node] = State::Up;
                self.since[node] = epoch;
            }
            Change::Drain(node) if self.states[node] == State::Up => self.states[node] = State::Draining,
            Change::Down(node, since)
                if self.is_member(node) && (self.since[node] == since || flaw == Some(Flaw::UnfencedDown)) =>
            {
                self.states[node] = State::Down;
            }
            _ => return self,
        }
        self.owned = [0; NODES];
        for slot in 0..SLOTS {
            let up = (0..NODES).filter(|node| self.states[*node] == State::Up);
            if let Some(owner) = up.max_by_key(|node| score(*node, slot)) {
                self.owned[owner] |= 1 << slot;
            }
        }
        self
    }
}

/// Rendezvous: any fixed mix of node and slot will do.
fn score(node: usize, slot: usize) -> u64 {
    let mixed = (node as u64 * 8 + slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
}

fn epoch(length: usize) -> Epoch {
    Epoch(length as u64)
}

#[derive(Debug, Clone)]
enum Event {
    Tick(usize, u64),
    Beat(usize, Beat),
    Ack(usize, Ack),
    /// A draining node has nothing left and will not act again.
    Leave(usize, usize, Epoch),
    Applied {
        node: usize,
        process: u64,
        upto: usize,
        shard: bool,
    },
    Proof {
        node: usize,
        process: u64,
        term: u64,
        began: u64,
        shard: bool,
    },
    Ended(usize, u64),
    Closed {
        at: usize,
        node: usize,
    },
    Dial {
        at: usize,
        node: usize,
        left: u8,
    },
    Refused {
        at: usize,
        node: usize,
        dialled: u64,
    },
    Start(usize),
    Resume(usize),
    Fault,
    Mend,
    Quiet,
    Client {
        op: u64,
        tries: u8,
    },
    Operation(usize, u64),
    Answer(u64),
    NextClient,
    /// A proposal that was delayed on its way.
    Late(Change),
}

struct Timed {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order)) // the earliest is the greatest
    }
}

/// One machine and the process on it.
struct Node {
    process: u64,
    seq: u64,
    ticks: u64,
    lease: Lease,
    watchdog: Watchdog,
    /// The term it watches the members in.
    office: Option<u64>,
    reported: usize,
    /// Slots that it may act for while it holds its lease; with activations; with activations that end.
    fit: Slots,
    active: Slots,
    ending: Slots,
    endings: u64,
    /// This process was told to leave.
    drains: bool,
    /// Epoch since which it is a slot's owner.
    since: [Epoch; SLOTS],
    /// What came while it was stopped.
    held: Vec<Event>,
}

impl Node {
    fn new(config: &LivenessConfig) -> Self {
        Self {
            process: 0,
            seq: 0,
            ticks: 0,
            lease: Lease::new(config),
            watchdog: Watchdog::new(*config),
            office: None,
            reported: 0,
            fit: 0,
            active: 0,
            ending: 0,
            endings: 0,
            drains: false,
            since: [Epoch::default(); SLOTS],
            held: Vec::new(),
        }
    }
}

/// The invariant that a run broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// Two nodes acted for one slot.
    TwoAct(String),
    /// An event of the entity is missing, doubled or made from stale state.
    Event(String),
    /// Something did not come back after everything had healed.
    NotWhole(String),
}

/// How much happened: a model in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) downs: u64,
    /// Members condemned on hard evidence.
    pub(super) refused: u64,
    pub(super) rejoins: u64,
    pub(super) drains: u64,
    pub(super) elections: u64,
    pub(super) hand_overs: u64,
    pub(super) writes: u64,
    pub(super) fenced: u64,
}

pub(super) struct World {
    rng: SmallRng,
    flaw: Option<Flaw>,
    config: LivenessConfig,
    trace: bool,
    now: u64,
    order: u64,
    queue: BinaryHeap<Timed>,
    net: Net,
    nodes: Vec<Node>,
    present: usize,
    /// Nodes report an epoch at once and ask more often while a slot of theirs is not settled.
    eager: bool,
    control: Group<Change>,
    views: Vec<View>,
    shard: Group<Write>,
    /// Length of the shard's log that the entity has seen.
    written: usize,
    entity: Entity,
    ops: u64,
    quiet: Option<u64>,
    acted: [Option<usize>; SLOTS],
    answered_in_quiet: bool,
    seen: Seen,
    violation: Option<(u64, Broken)>,
}

impl World {
    pub(super) fn new(seed: u64, flaw: Option<Flaw>, trace: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut config = LivenessConfig { fast_down: chance(&mut rng, 50), ..LivenessConfig::default() };
        if let Some(lease) = flaw.and_then(Flaw::lease) {
            config.lease = lease;
        }
        let eager = chance(&mut rng, 50);
        let net = Net::draw(&mut rng);
        let present = 3 + below(&mut rng, 3) as usize;
        let founders = if present > 3 { present - below(&mut rng, 2) as usize } else { present };
        let mut view = View { states: [State::Absent; NODES], since: [epoch(0); NODES], owned: [0; NODES] };
        for node in 0..founders {
            view = view.then(Change::Up(node), epoch(0), None);
        }
        let voters = if founders < 5 { 3 } else { 5 };
        let mut world = Self {
            rng,
            flaw,
            config,
            trace,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            net,
            nodes: (0..NODES).map(|_| Node::new(&config)).collect(),
            present,
            eager,
            control: Group::new(voters, 2_000),
            views: vec![view],
            shard: Group::new(3, 600),
            written: 0,
            entity: Entity::default(),
            ops: 0,
            quiet: None,
            acted: [None; SLOTS],
            answered_in_quiet: false,
            seen: Seen::default(),
            violation: None,
        };
        world.found(founders);
        world
    }

    /// Starts the first nodes, elects the first leaders and plans what will go wrong.
    fn found(&mut self, founders: usize) {
        for node in 0..founders {
            self.start(node);
        }
        self.elect(0, false, true);
        self.seen = Seen::default();
        let first = below(&mut self.rng, 3) as usize;
        self.elect(first, true, true);
        let chaos = 8 * SECOND + below(&mut self.rng, 12 * SECOND);
        for _ in 0..3 + below(&mut self.rng, 6) {
            let at = SECOND + below(&mut self.rng, chaos - SECOND);
            self.push(at, Event::Fault);
        }
        self.push(chaos, Event::Quiet);
        self.push(300 * MS, Event::NextClient);
    }

    /// Runs to the end and tells what happened, or which invariant broke and when.
    pub(super) fn run(mut self) -> Result<Seen, (u64, Broken)> {
        while let Some(Timed { at, event, .. }) = self.queue.pop() {
            self.now = at;
            self.handle(event);
            if let Some(violation) = self.violation {
                return Err(violation);
            }
            let Some(quiet) = self.quiet else { continue };
            if at > quiet + AFTERMATH && self.is_whole() {
                break;
            }
            if at > quiet + RECOVERY {
                return Err((at / MS, Broken::NotWhole(self.unrecovered())));
            }
        }
        self.entity.check().map_err(|why| (self.now / MS, Broken::Event(why)))?;
        self.seen.fenced = self.entity.fenced;
        Ok(self.seen)
    }

    fn is_whole(&self) -> bool {
        self.answered_in_quiet && (0..NODES).fold(0, |all, node| all | self.acting(node)) == ALL
    }

    fn unrecovered(&self) -> String {
        let acting: Vec<Slots> = (0..NODES).map(|node| self.acting(node)).collect();
        let view = self.views.last();
        format!("acting {acting:?}, seats {:?}, {view:?}", self.control.seats)
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Timed { at, order: self.order, event });
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.push(self.now + delay, event);
    }

    /// Hands a message to the network: it may be lost, come late, or come twice.
    fn send(&mut self, from: usize, to: usize, event: Event) {
        let twice = chance(&mut self.rng, 3);
        for _ in 0..=u8::from(twice) {
            if let Some(delay) = self.net.hop(&mut self.rng, from, to) {
                self.after(delay, event.clone());
            }
        }
    }

    fn local(&self, node: usize) -> u64 {
        self.net.local(node, self.now)
    }

    fn handle(&mut self, event: Event) {
        if self.trace {
            eprintln!("{:>9.3} ms {event:?}", self.now as f64 / 1_000.0);
        }
        if let Some(node) = event.reaches() {
            if !self.net.alive[node] {
                return;
            }
            if self.net.paused[node] {
                self.nodes[node].held.push(event);
                return;
            }
        }
        match event {
            Event::Tick(node, process) => self.tick(node, process),
            Event::Beat(to, beat) => self.beat(to, beat),
            Event::Ack(node, ack) => self.ack(node, ack),
            Event::Leave(to, node, since) => self.leave(to, node, since),
            Event::Applied { node, process, upto, shard: true } => self.apply_writes(node, process, upto),
            Event::Applied { node, process, upto, shard: false } => self.apply_changes(node, process, upto),
            Event::Proof { node, process, term, began, shard } => {
                if self.nodes[node].process == process {
                    self.proof(node, term, began, shard);
                }
            }
            Event::Ended(node, endings) => self.ended(node, endings),
            Event::Closed { at, node } => {
                self.nodes[at].watchdog.link_closed(id(node));
                self.after(50 * MS, Event::Dial { at, node, left: 4 });
            }
            Event::Dial { at, node, left } => self.dial(at, node, left),
            Event::Refused { at, node, dialled } => self.nodes[at].watchdog.dial_refused(id(node), dialled),
            Event::Start(node) => self.start(node),
            Event::Resume(node) => self.resume(node),
            Event::Fault => self.fault(),
            Event::Mend => self.net.heal(),
            Event::Quiet => self.quieten(),
            Event::NextClient => self.next_client(),
            Event::Late(change) => self.propose_late(change),
            Event::Client { op, tries } => self.client(op, tries),
            Event::Operation(node, op) => self.operation(node, op),
            Event::Answer(op) => {
                self.entity.answered(op);
                self.answered_in_quiet |= self.quiet.is_some();
            }
        }
    }
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64)
}

impl Event {
    /// The node whose process handles it.
    fn reaches(&self) -> Option<usize> {
        match *self {
            Self::Tick(node, _)
            | Self::Beat(node, _)
            | Self::Ack(node, _)
            | Self::Leave(node, _, _)
            | Self::Applied { node, .. }
            | Self::Proof { node, .. }
            | Self::Ended(node, _)
            | Self::Closed { at: node, .. }
            | Self::Dial { at: node, .. }
            | Self::Refused { at: node, .. }
            | Self::Operation(node, _) => Some(node),
            _ => None,
        }
    }
}

/// Being a node: ticks, beats, leases, activations.
impl World {
    fn tick(&mut self, node: usize, process: u64) {
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

    fn send_beat(&mut self, node: usize) {
        let Some(leader) = self.control.seats[node].hint else { return };
        let now = self.local(node);
        let this = &mut self.nodes[node];
        this.seq += 1;
        this.lease.sent(this.seq, now);
        let beat = Beat { node: id(node), seq: this.seq, applied: epoch(this.reported) };
        self.send(node, leader, Event::Beat(leader, beat));
    }

    fn ack(&mut self, node: usize, ack: Ack) {
        self.nodes[node].lease.acked(ack);
        self.refit(node);
    }

    /// Looks again for which slots the node may act, and whether anybody else does.
    fn refit(&mut self, node: usize) {
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

    fn view_of(&self, node: usize) -> &View {
        &self.views[self.control.seats[node].applied]
    }

    /// Slots for which the node would handle a message right now.
    fn acting(&self, node: usize) -> Slots {
        let this = &self.nodes[node];
        if (this.fit | this.ending) == 0 || !self.net.runs(node) || !this.lease.holds(self.local(node)) {
            return 0;
        }
        this.fit | this.ending
    }

    /// A node begins to act only by an event of its own, so two that act at once are seen at one of their events.
    fn check(&mut self, node: usize) {
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

    fn apply_changes(&mut self, node: usize, process: u64, upto: usize) {
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
    fn end(&mut self, node: usize, lost: Slots) {
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

    fn ended(&mut self, node: usize, endings: u64) {
        let this = &mut self.nodes[node];
        if this.endings == endings {
            this.ending = 0;
            self.report(node);
        }
    }

    fn report(&mut self, node: usize) {
        self.nodes[node].reported = self.control.seats[node].applied;
        if self.eager {
            self.send_beat(node);
        }
    }

    fn leave_if_drained(&mut self, node: usize) {
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

    fn start(&mut self, node: usize) {
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
    fn die(&mut self, node: usize, back_after: u64) {
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

    fn resume(&mut self, node: usize) {
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

/// Being a leader: rounds, elections, the watch.
impl World {
    fn group_leads(&self, node: usize, shard: bool) -> Option<u64> {
        if shard { self.shard.seats[node].leads } else { self.control.seats[node].leads }
    }

    fn round(&mut self, node: usize, shard: bool) {
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

    fn apply_later(&mut self, node: usize, at: u64, upto: usize, shard: bool) {
        let lag = below(&mut self.rng, 20 * MS);
        let slow = if chance(&mut self.rng, 10) { below(&mut self.rng, 2 * SECOND) } else { 0 };
        let process = self.nodes[node].process;
        self.push(at + lag + slow, Event::Applied { node, process, upto, shard });
    }

    fn proof(&mut self, node: usize, term: u64, began: u64, shard: bool) {
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
    fn spread(&mut self, node: usize, shard: bool) {
        let length = if shard { self.shard.log.len() } else { self.control.log.len() };
        self.apply_later(node, self.now, length, shard);
        self.round(node, shard);
    }

    fn elect(&mut self, node: usize, shard: bool, called: bool) {
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

    fn control_committed(&mut self) {
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
    fn take_office(&mut self, node: usize) {
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
    fn pretend_wait(&mut self, node: usize, floor: Epoch, members: Vec<(NodeId, Epoch)>) {
        let now = self.local(node);
        let watchdog = &mut self.nodes[node].watchdog;
        watchdog.elected(now - 4_000, floor, members);
        for passed in (0..4_000).step_by(500) {
            watchdog.quorum(now - 4_000 + passed);
            watchdog.due(now - 4_000 + passed);
        }
    }

    fn tell_watchdog(&mut self, node: usize, length: usize) {
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
    fn watching(&mut self, node: usize) -> Option<&mut Watchdog> {
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

    fn beat(&mut self, to: usize, beat: Beat) {
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

    fn leave(&mut self, to: usize, node: usize, since: Epoch) {
        if self.watching(to).is_some() {
            self.propose(to, Change::Down(node, since));
        }
    }

    fn judge(&mut self, node: usize) {
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

    fn propose_late(&mut self, change: Change) {
        if let Some(leader) = self.newest_leader() {
            self.propose(leader, change);
        }
    }

    fn newest_leader(&self) -> Option<usize> {
        (0..NODES).find(|node| self.net.runs(*node) && self.control.seats[*node].leads == Some(self.control.term))
    }

    fn propose(&mut self, node: usize, change: Change) {
        if !self.control.is_pending(|pending| *pending == change) && self.control.propose(node, change, self.now) {
            self.round(node, false);
        }
    }

    fn dial(&mut self, at: usize, node: usize, left: u8) {
        if self.net.alive[node] || left == 0 || !self.net.open[at][node] || !self.net.open[node][at] {
            return;
        }
        let dialled = self.local(at);
        let delay = if chance(&mut self.rng, 10) { below(&mut self.rng, 2 * SECOND) } else { 2 * MS };
        self.after(delay, Event::Refused { at, node, dialled });
        self.after(100 * MS, Event::Dial { at, node, left: left - 1 });
    }
}

/// The entity of the shard group and its clients.
impl World {
    fn entity_committed(&mut self) {
        let fence = self.flaw != Some(Flaw::Unfenced);
        for entry in &self.shard.log[self.written..] {
            self.seen.writes += 1;
            if let Err(violation) = self.entity.committed(entry, fence) {
                self.violation.get_or_insert((self.now / MS, Broken::Event(violation)));
            }
        }
        self.written = self.shard.log.len();
    }

    fn apply_writes(&mut self, node: usize, process: u64, upto: usize) {
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

    fn next_client(&mut self) {
        self.ops += 1;
        self.push(self.now, Event::Client { op: self.ops, tries: 6 });
        let wait = 150 * MS + below(&mut self.rng, 500 * MS);
        self.after(wait, Event::NextClient);
    }

    fn client(&mut self, op: u64, tries: u8) {
        if tries == 0 || self.entity.is_answered(op) {
            return;
        }
        let node = below(&mut self.rng, 3) as usize;
        let guess = if chance(&mut self.rng, 80) { self.shard.seats[node].hint } else { None };
        let delay = below(&mut self.rng, 2 * MS);
        self.after(delay, Event::Operation(guess.unwrap_or(node), op));
        self.after(400 * MS, Event::Client { op, tries: tries - 1 });
    }

    fn operation(&mut self, node: usize, op: u64) {
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

/// What goes wrong, and how it ends.
impl World {
    fn fault(&mut self) {
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
            8 => self.die(node, 20 * MS),
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

    /// Cuts a set of nodes off from the rest, both ways, one way, or only one link.
    fn partition(&mut self, length: u64) {
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
    fn quieten(&mut self) {
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
