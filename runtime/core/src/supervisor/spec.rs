//! What a supervisor is told: its children, and how it treats them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ractor::{Actor, ActorCell, SpawnErr};

use super::restart::RestartPolicy;
use super::{IntensityExceeded, Supervisor};

/// Which children restart when one has to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// That one alone.
    #[default]
    OneForOne,
    /// All of them: the others are stopped first.
    OneForAll,
    /// That one and those started after it.
    RestForOne,
}

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// After a failure, a panic or a kill.
    Transient,
    /// Never; it is forgotten.
    Temporary,
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asked to stop, and killed if it has not within this time.
    After(Duration),
    /// Killed at once; its `post_stop` does not run.
    Kill,
    /// Asked to stop and waited for without end: for supervisors, whose own children have limits.
    Infinite,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::After(Duration::from_secs(5))
    }
}

/// Whether the supervisor ends when significant children have ended by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AutoShutdown {
    /// It does not; no child may be significant.
    #[default]
    Never,
    /// With the first of them.
    AnySignificant,
    /// With the last of them.
    AllSignificant,
}

/// Starts a child. The argument is the supervisor, to be handed to `Actor::spawn_linked`: then no exit can be missed.
pub type StartFn = dyn Fn(ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync;

/// One child of a supervisor.
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) id: String,
    pub(super) start: Arc<StartFn>,
    pub(super) restart: Restart,
    pub(super) shutdown: Shutdown,
    pub(super) significant: bool,
}

impl ChildSpec {
    /// A permanent child with 5 s to stop in. `id` is unique within the supervisor.
    pub fn new(
        id: impl Into<String>,
        start: impl Fn(ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            start: Arc::new(start),
            restart: Restart::default(),
            shutdown: Shutdown::default(),
            significant: false,
        }
    }

    /// A child that is one actor; `make` is called for each start.
    pub fn actor<A: Actor>(
        id: impl Into<String>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self::new(id, move |supervisor| {
            let (handler, arguments) = make();
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, handler, arguments, supervisor).await?;
                Ok(actor.get_cell())
            })
        })
    }

    /// A child that is itself a supervisor, stopped without a time limit.
    pub fn supervisor(id: impl Into<String>, spec: SupervisorSpec) -> Self {
        Self::actor(id, move || (Supervisor, spec.clone())).shutdown(Shutdown::Infinite)
    }

    /// Sets when it is started again.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Self {
        Self { restart, ..self }
    }

    /// Sets how it is stopped.
    #[must_use]
    pub fn shutdown(self, shutdown: Shutdown) -> Self {
        Self { shutdown, ..self }
    }

    /// Lets its end count for the supervisor's [`AutoShutdown`]. Only for children that may end: transient or temporary.
    #[must_use]
    pub fn significant(self) -> Self {
        Self { significant: true, ..self }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("significant", &self.significant)
            .finish_non_exhaustive()
    }
}

/// Is told that a supervisor gave up.
type GiveUpFn = dyn Fn(&IntensityExceeded) + Send + Sync;

/// Is told which child crashed, and why.
type CrashFn = dyn Fn(&str, &str) + Send + Sync;

/// A whole supervisor: the arguments of [`Supervisor`].
#[derive(Clone)]
pub struct SupervisorSpec {
    pub(super) name: String,
    pub(super) strategy: Strategy,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) policy: RestartPolicy,
    pub(super) children: Vec<ChildSpec>,
    pub(super) seed: Option<u64>,
    pub(super) on_give_up: Option<Arc<GiveUpFn>>,
    pub(super) on_crash: Option<Arc<CrashFn>>,
}

impl SupervisorSpec {
    /// A supervisor without children. `name` stands in logs and errors.
    pub fn new(name: impl Into<String>, strategy: Strategy) -> Self {
        Self {
            name: name.into(),
            strategy,
            auto_shutdown: AutoShutdown::default(),
            policy: RestartPolicy::SYSTEM,
            children: Vec::new(),
            seed: None,
            on_give_up: None,
            on_crash: None,
        }
    }

    /// Sets how often and how fast children restart.
    #[must_use]
    pub fn policy(self, policy: RestartPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Sets whether it ends with its significant children.
    #[must_use]
    pub fn auto_shutdown(self, auto_shutdown: AutoShutdown) -> Self {
        Self { auto_shutdown, ..self }
    }

    /// Adds a child to the right of those added before.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Fixes the jitter of the back-off, so that a run can be repeated.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Calls `told` when it gives up, after its children have stopped: for the root, which has no parent to see it fail.
    #[must_use]
    pub fn on_give_up(self, told: impl Fn(&IntensityExceeded) + Send + Sync + 'static) -> Self {
        Self { on_give_up: Some(Arc::new(told)), ..self }
    }

    /// Calls `told` with the id of a child that crashed and with the reason, before anything is done about it.
    #[must_use]
    pub fn on_crash(self, told: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        Self { on_crash: Some(Arc::new(told)), ..self }
    }
}

impl fmt::Debug for SupervisorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSpec")
            .field("name", &self.name)
            .field("strategy", &self.strategy)
            .field("auto_shutdown", &self.auto_shutdown)
            .field("policy", &self.policy)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
