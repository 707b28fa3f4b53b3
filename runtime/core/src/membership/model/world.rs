//! One run: nodes that beat, lead, apply, act, die and come back, driven by a queue of events in real time.

mod clients;
mod faults;
mod leader;
mod machine;
mod view;

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
use view::{Change, State, View, epoch};

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

#[derive(Debug, Clone, Copy)]
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
                self.after(delay, event);
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
