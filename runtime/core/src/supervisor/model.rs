//! The supervisor against a second, independent telling of the OTP rules, over random crash schedules.
//!
//! [`Model`] works on plain lists and milliseconds: it keeps the whole restart history and all crash times, and computes
//! intensity, delay and groups from their definitions. Both write the same kind of log; the logs must be equal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::{Strategy, *};

/// What both sides must agree on: starts, failed starts, stops, and the supervisor's end, with their times.
type Events = Vec<(u64, String)>;

#[derive(Debug, Clone)]
struct Plan {
    strategy: Strategy,
    auto: AutoShutdown,
    max_restarts: u32,
    window_ms: u64,
    base_ms: u64,
    seed: u64,
    children: Vec<(Restart, bool)>,
    steps: Vec<(u64, Act)>,
}

#[derive(Debug, Clone)]
enum Act {
    /// `handle` returns an error.
    Fail(usize),
    /// `handle` panics.
    Panic(usize),
    /// Killed from outside.
    Kill(usize),
    /// Ends in good order.
    Stop(usize),
    /// Two die in one instant, before the supervisor sees either.
    FailBoth(usize, usize),
    /// Its next starts fail.
    Jam(usize, u32),
    Terminate(usize),
    Restart(usize),
    Delete(usize),
    Add(Restart, bool),
}

fn restart_type() -> impl Generate<Value = Restart> {
    prop_oneof![3 => Just(Restart::Permanent), 2 => Just(Restart::Transient), 1 => Just(Restart::Temporary)]
}

fn act() -> impl Generate<Value = Act> {
    let child = 0..6_usize;
    prop_oneof![
        6 => child.clone().prop_map(Act::Fail),
        2 => child.clone().prop_map(Act::Panic),
        2 => child.clone().prop_map(Act::Kill),
        2 => child.clone().prop_map(Act::Stop),
        2 => (child.clone(), child.clone()).prop_map(|(a, b)| Act::FailBoth(a, b)),
        3 => (child.clone(), 1..4_u32).prop_map(|(child, times)| Act::Jam(child, times)),
        1 => child.clone().prop_map(Act::Terminate),
        1 => child.clone().prop_map(Act::Restart),
        1 => child.prop_map(Act::Delete),
        1 => (restart_type(), any::<bool>()).prop_map(|(restart, significant)| Act::Add(restart, significant)),
    ]
}

fn plan() -> impl Generate<Value = Plan> {
    let strategy = prop::sample::select(vec![Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]);
    let auto = prop_oneof![
        3 => Just(AutoShutdown::Never), 1 => Just(AutoShutdown::AnySignificant), 1 => Just(AutoShutdown::AllSignificant)
    ];
    let gap = prop_oneof![4 => 1..40_u64, 3 => 40..1_500_u64, 1 => 59_000..61_500_u64];
    let policy = (0..8_u32, 1..6_000_u64, prop_oneof![1 => Just(0_u64), 4 => 1..200_u64]);
    let children = prop::collection::vec((restart_type(), any::<bool>()), 1..6);
    let steps = prop::collection::vec((gap, act()), 1..25);
    (strategy, auto, policy, any::<u64>(), children, steps).prop_map(
        |(strategy, auto, policy, seed, children, steps)| {
            let (max_restarts, window_ms, base_ms) = policy;
            Plan { strategy, auto, max_restarts, window_ms, base_ms, seed, children, steps }
        },
    )
}

/// A child may be significant only where the supervisor accepts that.
fn significant(plan: &Plan, restart: Restart, wanted: bool) -> bool {
    wanted && restart != Restart::Permanent && plan.auto != AutoShutdown::Never
}

// ---- the model

#[derive(Clone, Copy, PartialEq)]
enum Is {
    Up,
    Down,
    Pending,
}

struct Kid {
    id: String,
    restart: Restart,
    significant: bool,
    is: Is,
    due: Option<u64>,
    /// Times of its crashes since it was last up for a minute.
    crashes: Vec<u64>,
    up_at: u64,
}

struct Model {
    plan: Plan,
    kids: Vec<Kid>,
    restarts: Vec<u64>,
    jams: HashMap<String, u32>,
    rng: SmallRng,
    events: Events,
    ended: bool,
}

impl Model {
    fn new(plan: &Plan) -> Self {
        let rng = SmallRng::seed_from_u64(plan.seed);
        let mut model = Self {
            plan: plan.clone(),
            kids: vec![],
            restarts: vec![],
            jams: HashMap::new(),
            rng,
            events: vec![],
            ended: false,
        };
        for (index, (restart, wanted)) in plan.children.iter().enumerate() {
            model.add(0, format!("c{index}"), *restart, significant(plan, *restart, *wanted));
        }
        model
    }

    fn say(&mut self, now: u64, what: String) {
        self.events.push((now, what));
    }

    fn try_start(&mut self, now: u64, id: &str) -> bool {
        let jam = self.jams.entry(id.to_owned()).or_default();
        let ok = *jam == 0;
        *jam = jam.saturating_sub(1);
        self.say(now, format!("{}{id}", if ok { '+' } else { '!' }));
        ok
    }

    fn add(&mut self, now: u64, id: String, restart: Restart, significant: bool) {
        if self.try_start(now, &id) {
            self.kids.push(Kid { id, restart, significant, is: Is::Up, due: None, crashes: vec![], up_at: now });
        }
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.kids.iter().position(|kid| kid.id == id)
    }

    fn group(&self, leader: usize) -> Vec<usize> {
        match self.plan.strategy {
            Strategy::OneForOne => vec![leader],
            Strategy::OneForAll => (0..self.kids.len()).collect(),
            Strategy::RestForOne => (leader..self.kids.len()).collect(),
        }
    }

    /// Stops the group of a leader and says who is to be started; temporary ones are lost.
    fn take_down(&mut self, now: u64, leader: usize) -> Vec<String> {
        let group = self.group(leader);
        for index in group.iter().rev() {
            if self.kids[*index].is == Is::Up {
                self.say(now, format!("-{}", self.kids[*index].id));
            }
        }
        for index in &group {
            self.kids[*index].is = Is::Pending;
            self.kids[*index].due = None;
        }
        let ids = group.iter().filter(|index| self.kids[**index].restart != Restart::Temporary);
        let ids = ids.map(|index| self.kids[*index].id.clone()).collect();
        self.kids.retain(|kid| !(kid.restart == Restart::Temporary && kid.is == Is::Pending));
        ids
    }

    fn end(&mut self, now: u64, how: &str) {
        let up: Vec<String> = self.kids.iter().rev().filter(|kid| kid.is == Is::Up).map(|kid| kid.id.clone()).collect();
        for id in up {
            self.say(now, format!("-{id}"));
        }
        self.say(now, how.to_owned());
        self.ended = true;
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    fn crashed(&mut self, now: u64, index: usize) {
        let recent = self.restarts.iter().filter(|restart| now - **restart < self.plan.window_ms).count();
        if recent >= self.plan.max_restarts as usize {
            return self.end(now, "gave up");
        }
        self.restarts.push(now);
        let kid = &mut self.kids[index];
        if now >= kid.up_at + 60_000 {
            kid.crashes.clear();
        }
        let delay = match kid.crashes.len() {
            0 => 0,
            k => {
                let doubled = self.plan.base_ms as f64 * 2_f64.powf(k as f64 - 1.0);
                (doubled.min(10_000.0) * self.rng.random_range(0.8..1.2)) as u64
            }
        };
        kid.crashes.push(now);
        kid.up_at = now + delay;
        let pending = self.group(index).into_iter().filter_map(|index| self.kids[index].due).max();
        let due = (now + delay).max(pending.unwrap_or(0));
        let id = self.kids[index].id.clone();
        self.take_down(now, index);
        let index = self.find(&id).expect("leaders are not temporary");
        self.kids[index].due = Some(due);
    }

    /// Carries out what is due up to and including `now`.
    fn advance(&mut self, now: u64) {
        while !self.ended {
            let due = self.kids.iter().enumerate().filter_map(|(index, kid)| Some((kid.due?, index))).min();
            let Some((due, leader)) = due.filter(|(due, _)| *due <= now) else { return };
            for id in self.take_down(due, leader) {
                let ok = self.try_start(due, &id);
                let index = self.find(&id).expect("kept");
                if ok {
                    self.kids[index].is = Is::Up;
                    self.kids[index].up_at = due;
                } else {
                    self.crashed(due, index);
                    break;
                }
            }
        }
    }

    fn exited(&mut self, now: u64, id: &str, normal: bool) {
        let Some(index) = self.find(id).filter(|index| self.kids[*index].is == Is::Up && !self.ended) else { return };
        if normal {
            self.say(now, format!("-{id}"));
        }
        self.kids[index].is = Is::Down;
        let kid = &self.kids[index];
        let (restart, significant) = (kid.restart, kid.significant);
        if restart == Restart::Permanent || (restart == Restart::Transient && !normal) {
            self.crashed(now, index);
        } else {
            if restart == Restart::Temporary {
                self.kids.remove(index);
            }
            let left = self.kids.iter().filter(|kid| kid.significant && kid.is != Is::Down).count();
            let over = match self.plan.auto {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => significant,
                AutoShutdown::AllSignificant => significant && left == 0,
            };
            if over {
                self.end(now, "ended");
            }
        }
        self.advance(now);
    }

    fn terminate(&mut self, now: u64, id: &str) {
        let Some(index) = self.find(id) else { return };
        if self.kids[index].is == Is::Up {
            self.say(now, format!("-{id}"));
        }
        let due = self.kids[index].due.take();
        self.kids[index].is = Is::Down;
        if due.is_some() {
            let heir = self.group(index).into_iter().find(|index| self.kids[*index].is == Is::Pending);
            if let Some(heir) = heir {
                self.kids[heir].due = due;
            }
        }
        if self.kids[index].restart == Restart::Temporary {
            self.kids.remove(index);
        }
    }

    fn restart(&mut self, now: u64, id: &str) {
        let Some(index) = self.find(id).filter(|index| self.kids[*index].is == Is::Down) else { return };
        if self.try_start(now, id) {
            self.kids[index].is = Is::Up;
            self.kids[index].up_at = now;
        }
    }

    fn act(&mut self, now: u64, step: usize, act: &Act) {
        let id = |index: &usize| format!("c{index}");
        match act {
            Act::Fail(child) | Act::Panic(child) | Act::Kill(child) => self.exited(now, &id(child), false),
            Act::Stop(child) => self.exited(now, &id(child), true),
            Act::FailBoth(a, b) => {
                let is_up = |child| self.find(&id(child)).is_some_and(|index| self.kids[index].is == Is::Up);
                let (a_up, b_up) = (is_up(a), is_up(b) && a != b);
                let before = self.events.len();
                if a_up {
                    self.exited(now, &id(a), false);
                }
                // A neighbour that is dead already when its group is stopped leaves no trace of a stop.
                let stop = format!("-{}", id(b));
                let stopped = self.events[before..].iter().position(|event| event.1 == stop).filter(|_| a_up && b_up);
                match stopped {
                    Some(at) => _ = self.events.remove(before + at),
                    None if b_up => self.exited(now, &id(b), false),
                    None => {}
                }
            }
            Act::Jam(child, times) => _ = self.jams.insert(id(child), *times),
            Act::Terminate(child) => self.terminate(now, &id(child)),
            Act::Restart(child) => self.restart(now, &id(child)),
            Act::Delete(child) => {
                self.kids.retain(|kid| kid.id != id(child) || kid.is != Is::Down);
            }
            Act::Add(restart, wanted) => {
                self.add(now, format!("n{step}"), *restart, significant(&self.plan, *restart, *wanted));
            }
        }
    }

    fn view(&self) -> Vec<(String, bool, bool)> {
        self.kids.iter().map(|kid| (kid.id.clone(), kid.is == Is::Up, kid.is == Is::Pending)).collect()
    }
}

// ---- the real one

#[derive(Clone)]
struct World {
    begin: Instant,
    events: Arc<Mutex<Events>>,
    jams: Arc<Mutex<HashMap<String, u32>>>,
}

impl World {
    fn say(&self, what: String) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap();
        self.events.lock().push((now, what));
    }

    fn child(&self, id: String, restart: Restart, significant: bool) -> ChildSpec {
        let world = self.clone();
        let probe = id.clone();
        let spec = ChildSpec::actor(id, move || (Probe { id: probe.clone(), world: world.clone() }, ()));
        let spec = spec.restart(restart);
        if significant { spec.significant() } else { spec }
    }
}

struct Probe {
    id: String,
    world: World,
}

enum ProbeMsg {
    Fail,
    Panic,
}
impl ractor::Message for ProbeMsg {}

impl Actor for Probe {
    type Msg = ProbeMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<ProbeMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        let jammed = {
            let mut jams = self.world.jams.lock();
            let jam = jams.entry(self.id.clone()).or_default();
            let jammed = *jam > 0;
            *jam = jam.saturating_sub(1);
            jammed
        };
        self.world.say(format!("{}{}", if jammed { '!' } else { '+' }, self.id));
        if jammed { Err("jammed".into()) } else { Ok(()) }
    }

    async fn handle(&self, _: ActorRef<ProbeMsg>, message: ProbeMsg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            ProbeMsg::Fail => Err("failed".into()),
            ProbeMsg::Panic => std::panic::resume_unwind(Box::new("panicked")),
        }
    }

    async fn post_stop(&self, _: ActorRef<ProbeMsg>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.world.say(format!("-{}", self.id));
        Ok(())
    }
}

/// The parent: notes how the supervisor ends.
struct Witness(World);

impl Actor for Witness {
    type Msg = ProbeMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<ProbeMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ProbeMsg>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) if error.is::<IntensityExceeded>() => self.0.say("gave up".into()),
            SupervisionEvent::ActorTerminated(..) => self.0.say("ended".into()),
            SupervisionEvent::ActorStarted(_) => {}
            other => self.0.say(format!("unexpected: {other}")),
        }
        Ok(())
    }
}

/// Lets everything that is ready run, without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn cell(supervisor: &SupervisorHandle, child: usize) -> Option<ActorCell> {
    let id = format!("c{child}");
    supervisor.which_children().await.ok()?.into_iter().find(|view| view.id == id)?.cell
}

async fn send(supervisor: &SupervisorHandle, child: usize, message: ProbeMsg) {
    if let Some(cell) = cell(supervisor, child).await {
        _ = cell.send_message(message);
    }
}

async fn perform(supervisor: &SupervisorHandle, world: &World, plan: &Plan, step: usize, act: &Act) {
    match act {
        Act::Fail(child) => send(supervisor, *child, ProbeMsg::Fail).await,
        Act::Panic(child) => send(supervisor, *child, ProbeMsg::Panic).await,
        Act::Kill(child) => {
            if let Some(cell) = cell(supervisor, *child).await {
                cell.kill();
            }
        }
        Act::Stop(child) => {
            if let Some(cell) = cell(supervisor, *child).await {
                cell.stop(None);
            }
        }
        Act::FailBoth(a, b) => {
            let (first, second) = (cell(supervisor, *a).await, cell(supervisor, *b).await);
            for cell in [first, second].into_iter().flatten() {
                _ = cell.send_message(ProbeMsg::Fail);
            }
        }
        Act::Jam(child, times) => _ = world.jams.lock().insert(format!("c{child}"), *times),
        Act::Terminate(child) => _ = supervisor.terminate(&format!("c{child}")).await,
        Act::Restart(child) => _ = supervisor.restart(&format!("c{child}")).await,
        Act::Delete(child) => _ = supervisor.delete(&format!("c{child}")).await,
        Act::Add(restart, wanted) => {
            let child = world.child(format!("n{step}"), *restart, significant(plan, *restart, *wanted));
            _ = supervisor.add(child).await;
        }
    }
}

async fn compare(plan: &Plan) -> Result<(), TestCaseError> {
    let world = World { begin: Instant::now(), events: Arc::default(), jams: Arc::default() };
    let policy = RestartPolicy::SYSTEM
        .intensity(plan.max_restarts, Duration::from_millis(plan.window_ms))
        .backoff(Duration::from_millis(plan.base_ms), Duration::from_secs(10));
    let mut spec = SupervisorSpec::new("tested", plan.strategy).policy(policy).auto_shutdown(plan.auto).seed(plan.seed);
    for (index, (restart, wanted)) in plan.children.iter().enumerate() {
        spec = spec.child(world.child(format!("c{index}"), *restart, significant(plan, *restart, *wanted)));
    }
    let started: Result<_, SpawnErr> = Actor::spawn(None, Witness(world.clone()), ()).await;
    let (witness, _) = started.unwrap();
    let supervisor = SupervisorHandle::start(spec, Some(witness.get_cell())).await.unwrap();

    let mut model = Model::new(plan);
    let mut now = 0;
    let rest = (70_000, Act::Terminate(usize::MAX));
    for (step, (gap, act)) in plan.steps.iter().chain([&rest]).enumerate() {
        now += gap;
        model.advance(now);
        tokio::time::sleep(Duration::from_millis(*gap)).await;
        settle().await;
        if !model.ended {
            model.act(now, step, act);
            perform(&supervisor, &world, plan, step, act).await;
            settle().await;
        }
        prop_assert_eq!(&*world.events.lock(), &model.events, "after step {} {:?}", step, act);
        if model.ended {
            break;
        }
        let views = supervisor.which_children().await.unwrap();
        let views: Vec<_> = views.into_iter().map(|view| (view.id, view.cell.is_some(), view.restarting)).collect();
        prop_assert_eq!(views, model.view(), "after step {} {:?}", step, act);
    }
    witness.stop(None);
    Ok(())
}

proptest! {
    // A thousand schedules, as the design asks; they run in virtual time.
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn supervisor_follows_the_reference_model(plan in plan()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(compare(&plan))?;
    }
}
