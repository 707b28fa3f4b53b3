//! `Supervisor`: starts, stops and restarts other actors by the rules of Erlang/OTP.
//!
//! Children start left to right and stop right to left, one at a time; each may take its `shutdown` to stop and is then
//! killed. A child that crashes is restarted by strategy and restart type after a back-off; more than `max_restarts` within
//! `window` and the supervisor stops all children and fails with [`IntensityExceeded`], which its own supervisor sees as a
//! crash. While it stops or starts a child it handles nothing else. A start has no time limit: who recovers state needs its time.
//! Lost in a crash: the restart history. Its children end with it.

mod handle;
#[cfg(test)]
mod model;
mod restart;
mod rules;
mod spec;

use std::collections::HashMap;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RactorErr, RpcReplyPort, SupervisionEvent};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

pub use handle::{ChildError, ChildView, SupervisorHandle};
pub use restart::{Decision, RestartPolicy, RestartTracker};
pub use spec::{AutoShutdown, ChildSpec, Restart, Shutdown, StartFn, Strategy, SupervisorSpec};

use rules::{Exit, Group, Life, Rules, Verdict};

/// How long a killed child may take. A kill takes effect at its next await; one that never gets there holds its thread.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Children crashed more often than the supervisor's policy admits; all of them have been stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("supervisor {name}: child {child:?} exceeded {max_restarts} restarts in {window:?}, last: {reason}")]
pub struct IntensityExceeded {
    /// The supervisor.
    pub name: String,
    /// The child whose restart was not admitted.
    pub child: String,
    /// Restarts admitted.
    pub max_restarts: u32,
    /// The time they were admitted in.
    pub window: Duration,
    /// Why the child ended.
    pub reason: String,
}

/// What a [`Supervisor`] understands; sent through [`SupervisorHandle`].
#[derive(Debug)]
pub enum SupervisorMsg {
    /// Starts a further child.
    Add(ChildSpec, RpcReplyPort<Result<ActorCell, ChildError>>),
    /// Stops a child.
    Terminate(String, RpcReplyPort<Result<(), ChildError>>),
    /// Starts a child that ended.
    Restart(String, RpcReplyPort<Result<ActorCell, ChildError>>),
    /// Forgets a child that ended.
    Delete(String, RpcReplyPort<Result<(), ChildError>>),
    /// Lists the children.
    WhichChildren(RpcReplyPort<Vec<ChildView>>),
    /// A back-off is over.
    Due,
    /// A child had ended before it could be linked: unless its end was told, nobody will tell it.
    EndedUnlinked(ActorCell),
}
impl ractor::Message for SupervisorMsg {}

/// The behaviour; its data is [`Tree`].
#[derive(Debug)]
pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = Tree;
    type Arguments = SupervisorSpec;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMsg>,
        spec: SupervisorSpec,
    ) -> Result<Tree, ActorProcessingErr> {
        let mut tree = Tree::new(spec);
        for child in std::mem::take(&mut tree.spec.children) {
            if let Err(error) = tree.add(&myself, child).await {
                tree.stop_all().await;
                return Err(error.into());
            }
        }
        Ok(tree)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        tree: &mut Tree,
    ) -> Result<(), ActorProcessingErr> {
        // A caller that has gone away needs no answer.
        match message {
            SupervisorMsg::Add(child, reply) => _ = reply.send(tree.add(&myself, child).await),
            SupervisorMsg::Terminate(id, reply) => _ = reply.send(tree.terminate(&id).await),
            SupervisorMsg::Restart(id, reply) => _ = reply.send(tree.restart(&myself, &id).await),
            SupervisorMsg::Delete(id, reply) => _ = reply.send(tree.delete(&id)),
            SupervisorMsg::WhichChildren(reply) => _ = reply.send(tree.which_children()),
            SupervisorMsg::Due => tree.follow(&myself, Verdict::Nothing).await?,
            SupervisorMsg::EndedUnlinked(cell) => {
                tree.exited(&myself, &cell, Exit::Abnormal, "ended while starting".to_owned()).await?;
            }
        }
        tree.arm(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        tree: &mut Tree,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, exit, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, Exit::Abnormal, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let exit = exit_of(reason.as_deref());
                (cell, exit, reason.unwrap_or_else(|| "stopped".to_owned()))
            }
            _ => return Ok(()),
        };
        tree.exited(&myself, &cell, exit, reason).await?;
        tree.arm(&myself);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<SupervisorMsg>, tree: &mut Tree) -> Result<(), ActorProcessingErr> {
        tree.stop_all().await;
        Ok(())
    }
}

/// ractor reports a kill and a cancelled task as terminations; to a supervisor they are crashes.
fn exit_of(reason: Option<&str>) -> Exit {
    match reason {
        Some("killed" | "actor_task_cancelled") => Exit::Abnormal,
        _ => Exit::Normal,
    }
}

/// The children and what is known about them. Invariant: exactly the children that [`Rules`] holds for running have a cell.
#[derive(Debug)]
pub struct Tree {
    spec: SupervisorSpec,
    rules: Rules,
    slots: HashMap<String, Slot>,
    rng: SmallRng,
    /// When the timer in flight fires.
    armed: Option<Instant>,
    /// Why the child that crashed last did.
    last_reason: (String, String),
}

#[derive(Debug)]
struct Slot {
    spec: ChildSpec,
    cell: Option<ActorCell>,
}

impl Tree {
    fn new(spec: SupervisorSpec) -> Self {
        let rng = SmallRng::seed_from_u64(spec.seed.unwrap_or_else(rand::random));
        let rules = Rules::new(spec.strategy, spec.auto_shutdown, spec.policy);
        Self { spec, rules, slots: HashMap::new(), rng, armed: None, last_reason: (String::new(), String::new()) }
    }

    async fn add(&mut self, myself: &ActorRef<SupervisorMsg>, child: ChildSpec) -> Result<ActorCell, ChildError> {
        if self.slots.contains_key(&child.id) {
            return Err(ChildError::Exists(child.id));
        }
        let may_end = child.restart != Restart::Permanent && self.spec.auto_shutdown != AutoShutdown::Never;
        if child.significant && !may_end {
            return Err(ChildError::CannotBeSignificant(child.id));
        }
        let cell = start(&child, myself).await?;
        self.rules.add(&child.id, child.restart, child.significant, Instant::now());
        self.slots.insert(child.id.clone(), Slot { spec: child, cell: Some(cell.clone()) });
        Ok(cell)
    }

    async fn terminate(&mut self, id: &str) -> Result<(), ChildError> {
        if !self.slots.contains_key(id) {
            return Err(ChildError::NotFound(id.to_owned()));
        }
        self.stop(id).await;
        self.rules.terminated(id);
        self.forget_removed();
        Ok(())
    }

    async fn restart(&mut self, myself: &ActorRef<SupervisorMsg>, id: &str) -> Result<ActorCell, ChildError> {
        self.expect_ended(id)?;
        self.start(myself, id).await
    }

    fn delete(&mut self, id: &str) -> Result<(), ChildError> {
        self.expect_ended(id)?;
        self.rules.remove(id);
        self.forget_removed();
        Ok(())
    }

    fn expect_ended(&self, id: &str) -> Result<(), ChildError> {
        match self.rules.life(id) {
            None => Err(ChildError::NotFound(id.to_owned())),
            Some(Life::Running) => Err(ChildError::Running(id.to_owned())),
            Some(Life::Waiting(_)) => Err(ChildError::Restarting(id.to_owned())),
            Some(Life::Ended) => Ok(()),
        }
    }

    fn which_children(&self) -> Vec<ChildView> {
        let view = |(id, life): (&str, Life)| {
            let slot = self.slots.get(id)?;
            let restarting = matches!(life, Life::Waiting(_));
            Some(ChildView { id: id.to_owned(), cell: slot.cell.clone(), restarting, restart: slot.spec.restart })
        };
        self.rules.children().filter_map(view).collect()
    }

    /// A child ended by itself. Exits of children that were stopped here, or belong to others, are no news.
    async fn exited(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        cell: &ActorCell,
        exit: Exit,
        reason: String,
    ) -> Result<(), ActorProcessingErr> {
        let is_it = |slot: &Slot| slot.cell.as_ref().is_some_and(|own| own.get_id() == cell.get_id());
        let Some(slot) = self.slots.values_mut().find(|slot| is_it(slot)) else { return Ok(()) };
        slot.cell = None;
        let id = slot.spec.id.clone();
        if exit == Exit::Abnormal {
            tracing::warn!(supervisor = self.spec.name, child = id, reason, "child crashed");
            if let Some(told) = &self.spec.on_crash {
                told(&id, &reason);
            }
        }
        let verdict = self.rules.exited(&id, exit, Instant::now(), &mut self.rng);
        self.last_reason = (id, reason);
        self.follow(myself, verdict).await
    }

    /// Does what the rules say, and then whatever has become due meanwhile.
    async fn follow(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        mut verdict: Verdict,
    ) -> Result<(), ActorProcessingErr> {
        loop {
            match verdict {
                Verdict::Nothing => {}
                Verdict::Restart { stop } => self.stop_each(stop).await,
                Verdict::Shutdown => {
                    // Children are stopped in `post_stop`.
                    myself.stop(Some("significant children ended".to_owned()));
                    return Ok(());
                }
                Verdict::GiveUp => return Err(self.give_up().await.into()),
            }
            self.forget_removed();
            let Some(group) = self.rules.due(Instant::now()) else { return Ok(()) };
            verdict = self.start_group(myself, group).await;
        }
    }

    async fn start_group(&mut self, myself: &ActorRef<SupervisorMsg>, group: Group) -> Verdict {
        self.stop_each(group.stop).await;
        for id in group.start {
            if let Err(error) = self.start(myself, &id).await {
                tracing::warn!(supervisor = self.spec.name, child = id, %error, "child failed to start");
                self.last_reason = (id.clone(), error.to_string());
                return self.rules.start_failed(&id, Instant::now(), &mut self.rng);
            }
        }
        Verdict::Nothing
    }

    async fn start(&mut self, myself: &ActorRef<SupervisorMsg>, id: &str) -> Result<ActorCell, ChildError> {
        let slot = self.slots.get_mut(id).ok_or_else(|| ChildError::NotFound(id.to_owned()))?;
        let cell = start(&slot.spec, myself).await?;
        slot.cell = Some(cell.clone());
        self.rules.started(id, Instant::now());
        Ok(cell)
    }

    async fn give_up(&mut self) -> IntensityExceeded {
        self.stop_all().await;
        let (child, reason) = std::mem::take(&mut self.last_reason);
        let error = IntensityExceeded {
            name: self.spec.name.clone(),
            child,
            max_restarts: self.spec.policy.max_restarts,
            window: self.spec.policy.window,
            reason,
        };
        tracing::error!(
            supervisor = error.name,
            child = error.child,
            reason = error.reason,
            "restart intensity exceeded"
        );
        if let Some(told) = &self.spec.on_give_up {
            told(&error);
        }
        error
    }

    async fn stop_all(&mut self) {
        let right_to_left: Vec<String> = self.rules.children().rev().map(|(id, _)| id.to_owned()).collect();
        self.stop_each(right_to_left).await;
    }

    async fn stop_each(&mut self, ids: Vec<String>) {
        for id in ids {
            self.stop(&id).await;
        }
    }

    /// Stops the child if it runs. From here on its exit is no news.
    async fn stop(&mut self, id: &str) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(cell) = slot.cell.take() else { return };
        if !stop(&cell, slot.spec.shutdown).await {
            tracing::error!(supervisor = self.spec.name, child = id, "child does not yield and was left behind");
        }
    }

    /// Drops what the rules no longer hold: temporary children that ended.
    fn forget_removed(&mut self) {
        self.slots.retain(|id, _| self.rules.life(id).is_some());
    }

    /// Has the next back-off end in a message.
    fn arm(&mut self, myself: &ActorRef<SupervisorMsg>) {
        let now = Instant::now();
        let Some(due) = self.rules.next_due() else { return };
        if self.armed.is_none_or(|armed| armed <= now || due < armed) {
            self.armed = Some(due);
            myself.send_after(due.saturating_duration_since(now), || SupervisorMsg::Due);
        }
    }
}

/// Starts a child and makes sure that its end will be told.
async fn start(child: &ChildSpec, supervisor: &ActorRef<SupervisorMsg>) -> Result<ActorCell, ChildError> {
    let started = (child.start)(supervisor.get_cell()).await;
    let cell = started.map_err(|error| ChildError::StartFailed { id: child.id.clone(), reason: error.to_string() })?;
    let is_linked = || cell.try_get_supervisor().is_some_and(|current| current.get_id() == supervisor.get_id());
    if !is_linked() {
        cell.link(supervisor.get_cell());
    }
    if !is_linked() {
        // It has ended. If it was linked when it did, its end is in our queue already and will be handled before this
        // message, because supervision events go first.
        _ = supervisor.cast(SupervisorMsg::EndedUnlinked(cell.clone()));
    }
    Ok(cell)
}

/// Stops an actor within its limit; says whether it is gone.
async fn stop(cell: &ActorCell, shutdown: Shutdown) -> bool {
    let limit = match shutdown {
        Shutdown::Kill => return kill(cell).await,
        Shutdown::After(limit) => Some(limit),
        Shutdown::Infinite => None,
    };
    match cell.stop_and_wait(Some("shutdown".to_owned()), limit).await {
        Ok(()) => true,
        Err(RactorErr::Timeout) => kill(cell).await,
        // It is on its way out already and takes no further messages.
        Err(_) => cell.wait(limit).await.is_ok() || kill(cell).await,
    }
}

async fn kill(cell: &ActorCell) -> bool {
    cell.kill_and_wait(Some(KILL_GRACE)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;

    use super::*;

    type Log = Arc<Mutex<Vec<String>>>;

    /// Takes `stop_in` to stop and ignores everything but `boom`.
    struct Slow {
        id: &'static str,
        stop_in: Duration,
        log: Log,
    }

    struct Boom;
    impl ractor::Message for Boom {}

    impl Actor for Slow {
        type Msg = Boom;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Boom>, (): ()) -> Result<(), ActorProcessingErr> {
            self.log.lock().push(format!("+{}", self.id));
            Ok(())
        }

        async fn handle(&self, _: ActorRef<Boom>, _: Boom, (): &mut ()) -> Result<(), ActorProcessingErr> {
            Err("boom".into())
        }

        async fn post_stop(&self, _: ActorRef<Boom>, (): &mut ()) -> Result<(), ActorProcessingErr> {
            tokio::time::sleep(self.stop_in).await;
            self.log.lock().push(format!("-{}", self.id));
            Ok(())
        }
    }

    fn slow(id: &'static str, stop_in: Duration, log: &Log) -> ChildSpec {
        let log = Arc::clone(log);
        ChildSpec::actor(id, move || (Slow { id, stop_in, log: Arc::clone(&log) }, ()))
    }

    async fn child(supervisor: &SupervisorHandle, id: &str) -> Option<ActorCell> {
        supervisor.which_children().await.unwrap().into_iter().find(|child| child.id == id)?.cell
    }

    /// Lets virtual time pass; everything that is ready runs first.
    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn children_stop_right_to_left_and_a_stubborn_one_is_killed_after_its_time() {
        let log = Log::default();
        let spec = SupervisorSpec::new("test", Strategy::OneForOne)
            .child(slow("a", Duration::from_secs(1), &log))
            .child(slow("b", Duration::from_mins(1), &log).shutdown(Shutdown::After(Duration::from_secs(2))))
            .child(slow("c", Duration::from_mins(1), &log).shutdown(Shutdown::Infinite))
            .child(slow("d", Duration::from_mins(1), &log).shutdown(Shutdown::Kill));
        let supervisor = SupervisorHandle::start(spec, None).await.unwrap();
        let cells = supervisor.which_children().await.unwrap();
        let begin = Instant::now();
        supervisor.cell().stop_and_wait(None, None).await.unwrap();
        // d at once, c in 60 s, b killed after 2 s, a in 1 s.
        assert_eq!(begin.elapsed(), Duration::from_secs(63));
        assert_eq!(*log.lock(), ["+a", "+b", "+c", "+d", "-c", "-a"]);
        for child in cells {
            assert_eq!(child.cell.unwrap().get_status(), ractor::ActorStatus::Stopped, "{}", child.id);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_first_start_stops_what_was_started_and_fails_the_supervisor() {
        let log = Log::default();
        let spec = SupervisorSpec::new("test", Strategy::OneForOne)
            .child(slow("a", Duration::ZERO, &log))
            .child(slow("b", Duration::ZERO, &log))
            .child(ChildSpec::new("c", |_| Box::pin(async { Err(ractor::SpawnErr::StartupFailed("no disk".into())) })));
        let error = SupervisorHandle::start(spec, None).await.unwrap_err();
        assert!(error.to_string().contains(r#"child "c" failed to start"#), "{error}");
        assert!(error.to_string().contains("no disk"), "{error}");
        assert_eq!(*log.lock(), ["+a", "+b", "-b", "-a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_escalates_to_the_parent_and_from_the_root_to_its_owner() {
        let log = Log::default();
        let policy = RestartPolicy::SYSTEM.intensity(1, Duration::from_secs(5)).backoff(Duration::ZERO, Duration::ZERO);
        let inner =
            SupervisorSpec::new("inner", Strategy::OneForOne).policy(policy).child(slow("a", Duration::ZERO, &log));
        let told = Arc::new(Mutex::new(None));
        let teller = Arc::clone(&told);
        let outer = SupervisorSpec::new("outer", Strategy::OneForOne)
            .policy(policy)
            .child(ChildSpec::supervisor("inner", inner))
            .on_give_up(move |error| *teller.lock() = Some(error.clone()));
        let root = SupervisorHandle::start(outer, None).await.unwrap();
        // Two crashes exceed the inner supervisor; two of its failures exceed the outer one.
        for crashes in 1..=4 {
            let inner = child(&root, "inner").await.unwrap();
            let leaf = inner.get_children().remove(0);
            leaf.send_message(Boom).unwrap();
            pass(Duration::from_millis(1)).await;
            assert_eq!(told.lock().is_some(), crashes == 4, "after {crashes} crashes");
        }
        let error = told.lock().take().unwrap();
        assert_eq!((error.name.as_str(), error.child.as_str(), error.max_restarts), ("outer", "inner", 1));
        assert_eq!(error.reason, r#"supervisor inner: child "a" exceeded 1 restarts in 5s, last: boom"#);
        assert_eq!(root.cell().get_status(), ractor::ActorStatus::Stopped);
        assert_eq!(root.which_children().await.unwrap_err(), ChildError::SupervisorEnded);
    }

    #[tokio::test(start_paused = true)]
    async fn children_come_and_go_at_run_time() {
        let log = Log::default();
        let root = SupervisorHandle::start(SupervisorSpec::new("test", Strategy::OneForOne), None).await.unwrap();
        root.add(slow("a", Duration::ZERO, &log)).await.unwrap();
        let again = root.add(slow("a", Duration::ZERO, &log)).await.unwrap_err();
        assert_eq!(again, ChildError::Exists("a".into()));
        assert_eq!(root.restart("a").await.unwrap_err(), ChildError::Running("a".into()));
        assert_eq!(root.delete("a").await.unwrap_err(), ChildError::Running("a".into()));
        root.terminate("a").await.unwrap();
        assert!(child(&root, "a").await.is_none());
        root.restart("a").await.unwrap();
        assert!(child(&root, "a").await.is_some());
        root.terminate("a").await.unwrap();
        root.delete("a").await.unwrap();
        assert_eq!(root.terminate("a").await.unwrap_err(), ChildError::NotFound("a".into()));
        assert!(root.which_children().await.unwrap().is_empty());
        let significant = root.add(slow("b", Duration::ZERO, &log).significant()).await.unwrap_err();
        assert_eq!(significant, ChildError::CannotBeSignificant("b".into()));
        assert_eq!(*log.lock(), ["+a", "-a", "+a", "-a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_crashed_waits_for_its_delay_and_says_so() {
        let log = Log::default();
        let spec = SupervisorSpec::new("test", Strategy::OneForOne).child(slow("a", Duration::ZERO, &log));
        let root = SupervisorHandle::start(spec, None).await.unwrap();
        for _ in 0..2 {
            child(&root, "a").await.unwrap().send_message(Boom).unwrap();
            pass(Duration::from_millis(1)).await;
        }
        let view = root.which_children().await.unwrap().remove(0);
        assert!(view.restarting && view.cell.is_none(), "{view:?}");
        assert_eq!(root.restart("a").await.unwrap_err(), ChildError::Restarting("a".into()));
        // 50 ms with 20 % jitter.
        pass(Duration::from_millis(60)).await;
        assert!(child(&root, "a").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_ends_before_it_is_linked_counts_as_crashed() {
        let starts = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&starts);
        let log = Log::default();
        let spec = SupervisorSpec::new("test", Strategy::OneForOne).child(ChildSpec::new("a", move |_| {
            let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
            let handler = Slow { id: "a", stop_in: Duration::ZERO, log: Arc::clone(&log) };
            Box::pin(async move {
                let (actor, ended) = Actor::spawn(None, handler, ()).await?;
                if first {
                    actor.stop(None);
                    ended.await.unwrap();
                }
                Ok(actor.get_cell())
            })
        }));
        let root = SupervisorHandle::start(spec, None).await.unwrap();
        pass(Duration::from_millis(1)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 2);
        // The second start was linked afterwards: its crash is seen too.
        child(&root, "a").await.unwrap().send_message(Boom).unwrap();
        pass(Duration::from_millis(100)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn killing_a_supervisor_takes_its_children_along() {
        let log = Log::default();
        let inner = SupervisorSpec::new("inner", Strategy::OneForOne).child(slow("a", Duration::ZERO, &log));
        let outer = SupervisorSpec::new("outer", Strategy::OneForOne).child(ChildSpec::supervisor("inner", inner));
        let root = SupervisorHandle::start(outer, None).await.unwrap();
        let leaf = child(&root, "inner").await.unwrap().get_children().remove(0);
        root.cell().kill_and_wait(None).await.unwrap();
        leaf.wait(None).await.unwrap();
        assert_eq!(*log.lock(), ["+a"]);
    }
}
