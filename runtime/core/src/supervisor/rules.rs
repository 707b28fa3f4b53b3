//! The rules of a supervisor as a pure state machine: which children stop and start after an exit, and when.
//!
//! Follows Erlang/OTP's `supervisor`, with a back-off before every restart but the first. Three consequences worth knowing:
//! a group restart also starts children that had ended or were terminated by hand; a temporary child that is stopped with its
//! group is gone; a restart that swallows the pending one of a neighbour waits for the later of the two.

use std::ops::Range;

use rand::Rng;
use tokio::time::Instant;

use super::restart::{Backoff, Intensity, RestartPolicy};
use super::spec::{AutoShutdown, Restart, Strategy};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It stopped, or was asked to.
    Normal,
    /// It failed, panicked or was killed.
    Abnormal,
}

/// What follows from an exit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Nothing,
    /// Stop these running children, in this order; the restart becomes due later.
    Restart { stop: Vec<String> },
    /// A significant child ended: stop all children and end in good order.
    Shutdown,
    /// Too many restarts: stop all children and fail.
    GiveUp,
}

/// A restart that is due: stop what still runs of the group, in this order, then start, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) stop: Vec<String>,
    pub(super) start: Vec<String>,
}

/// Where a child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Running,
    /// It will be started; the instant stands at the child whose crash caused it, and its group follows.
    Waiting(Option<Instant>),
    /// It ended or was terminated; only a group restart or a person starts it.
    Ended,
}

#[derive(Debug)]
struct Entry {
    id: String,
    restart: Restart,
    significant: bool,
    life: Life,
    backoff: Backoff,
}

/// The children in start order and the restart history.
#[derive(Debug)]
pub(super) struct Rules {
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    policy: RestartPolicy,
    intensity: Intensity,
    children: Vec<Entry>,
}

impl Rules {
    pub(super) fn new(strategy: Strategy, auto_shutdown: AutoShutdown, policy: RestartPolicy) -> Self {
        Self { strategy, auto_shutdown, policy, intensity: Intensity::default(), children: Vec::new() }
    }

    /// Adds a running child at the right end. Its id must be new.
    pub(super) fn add(&mut self, id: &str, restart: Restart, significant: bool, now: Instant) {
        debug_assert!(self.position(id).is_none(), "child {id} exists");
        let mut backoff = Backoff::default();
        backoff.started(now);
        self.children.push(Entry { id: id.to_owned(), restart, significant, life: Life::Running, backoff });
    }

    /// Forgets a child.
    pub(super) fn remove(&mut self, id: &str) {
        self.children.retain(|child| child.id != id);
    }

    /// Ids and lives in start order.
    pub(super) fn children(&self) -> impl DoubleEndedIterator<Item = (&str, Life)> {
        self.children.iter().map(|child| (child.id.as_str(), child.life))
    }

    /// Where the child is in its life, if there is such a child.
    pub(super) fn life(&self, id: &str) -> Option<Life> {
        self.position(id).map(|index| self.children[index].life)
    }

    /// A running child ended by itself.
    pub(super) fn exited(&mut self, id: &str, exit: Exit, now: Instant, rng: &mut impl Rng) -> Verdict {
        let Some(index) = self.position(id) else { return Verdict::Nothing };
        let child = &mut self.children[index];
        child.life = Life::Ended;
        let significant = child.significant;
        match (child.restart, exit) {
            (Restart::Permanent, _) | (Restart::Transient, Exit::Abnormal) => return self.restart(index, now, rng),
            (Restart::Transient, Exit::Normal) => {}
            (Restart::Temporary, _) => self.remove(id),
        }
        let any_left = self.children.iter().any(|child| child.significant && child.life != Life::Ended);
        match self.auto_shutdown {
            AutoShutdown::AnySignificant if significant => Verdict::Shutdown,
            AutoShutdown::AllSignificant if significant && !any_left => Verdict::Shutdown,
            _ => Verdict::Nothing,
        }
    }

    /// A child of a due group could not be started: counts as a crash of that child.
    pub(super) fn start_failed(&mut self, id: &str, now: Instant, rng: &mut impl Rng) -> Verdict {
        match self.position(id) {
            Some(index) => self.restart(index, now, rng),
            None => Verdict::Nothing,
        }
    }

    /// A child came up.
    pub(super) fn started(&mut self, id: &str, now: Instant) {
        if let Some(index) = self.position(id) {
            self.children[index].life = Life::Running;
            self.children[index].backoff.started(now);
        }
    }

    /// A person stopped the child. A group that waited for it is led by the next that waits.
    pub(super) fn terminated(&mut self, id: &str) {
        let Some(index) = self.position(id) else { return };
        if let Some(due) = self.children[index].due() {
            let group = self.group(index);
            if let Some(heir) = self.children[group].iter_mut().find(|child| child.life == Life::Waiting(None)) {
                heir.life = Life::Waiting(Some(due));
            }
        }
        self.children[index].life = Life::Ended;
        if self.children[index].restart == Restart::Temporary {
            self.children.remove(index);
        }
    }

    /// When the next restart is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.children.iter().filter_map(Entry::due).min()
    }

    /// Takes the earliest restart that is due at `now`, if one is.
    pub(super) fn due(&mut self, now: Instant) -> Option<Group> {
        let next = self.next_due().filter(|due| *due <= now)?;
        let leader = self.children.iter().position(|child| child.due() == Some(next))?;
        let (stop, start) = self.gather(leader);
        Some(Group { stop, start })
    }

    fn restart(&mut self, leader: usize, now: Instant, rng: &mut impl Rng) -> Verdict {
        if !self.intensity.admit(&self.policy, now) {
            return Verdict::GiveUp;
        }
        let own = now + self.children[leader].backoff.crashed(&self.policy, now, rng);
        let group = self.group(leader);
        let due = self.children[group].iter().filter_map(Entry::due).fold(own, Instant::max);
        let id = self.children[leader].id.clone();
        let (stop, _) = self.gather(leader);
        if let Some(leader) = self.position(&id) {
            self.children[leader].life = Life::Waiting(Some(due));
        }
        Verdict::Restart { stop }
    }

    /// Lets all children of a leader's group wait for its restart. Returns those that run and must be stopped, right to
    /// left, and all that will be started, left to right. Temporary ones among the former are forgotten.
    fn gather(&mut self, leader: usize) -> (Vec<String>, Vec<String>) {
        let (mut stop, mut start) = (Vec::new(), Vec::new());
        let group = self.group(leader);
        for child in &mut self.children[group] {
            if child.life == Life::Running {
                stop.push(child.id.clone());
            }
            if child.restart != Restart::Temporary {
                child.life = Life::Waiting(None);
                start.push(child.id.clone());
            }
        }
        self.children.retain(|child| child.restart != Restart::Temporary || !stop.contains(&child.id));
        stop.reverse();
        (stop, start)
    }

    /// Positions of the children that restart together with the one at `leader`.
    fn group(&self, leader: usize) -> Range<usize> {
        match self.strategy {
            Strategy::OneForOne => leader..leader + 1,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => leader..self.children.len(),
        }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| child.id == id)
    }
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.life {
            Life::Waiting(due) => due,
            Life::Running | Life::Ended => None,
        }
    }
}
