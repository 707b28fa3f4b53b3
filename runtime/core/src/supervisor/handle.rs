//! Talking to a running supervisor.

use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorRef, RpcReplyPort, SpawnErr};

use super::spec::{ChildSpec, Restart, SupervisorSpec};
use super::{Supervisor, SupervisorMsg};

/// Why a supervisor refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// A child of that id exists.
    #[error("child {0:?} exists already")]
    Exists(String),
    /// There is no child of that id.
    #[error("there is no child {0:?}")]
    NotFound(String),
    /// The child runs.
    #[error("child {0:?} is running")]
    Running(String),
    /// The child crashed and waits for its restart.
    #[error("child {0:?} waits for its restart")]
    Restarting(String),
    /// The child could not be started.
    #[error("child {id:?} failed to start: {reason}")]
    StartFailed {
        /// The child.
        id: String,
        /// What its start said.
        reason: String,
    },
    /// A significant child must be transient or temporary, and its supervisor's `auto_shutdown` not `Never`.
    #[error("child {0:?} cannot be significant: that needs auto_shutdown and a child that may end")]
    CannotBeSignificant(String),
    /// The supervisor has ended.
    #[error("the supervisor has ended")]
    SupervisorEnded,
}

/// A child as `which_children` shows it.
#[derive(Debug, Clone)]
pub struct ChildView {
    /// Unique within the supervisor.
    pub id: String,
    /// The running actor; absent if it ended or waits for its restart.
    pub cell: Option<ActorCell>,
    /// Whether it crashed and waits for its restart.
    pub restarting: bool,
    /// When it is started again.
    pub restart: Restart,
}

/// A running supervisor. Cheap to clone; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    actor: ActorRef<SupervisorMsg>,
}

impl SupervisorHandle {
    /// Starts a supervisor and its children, under `parent` if there is one.
    ///
    /// # Errors
    /// [`SpawnErr::StartupFailed`] if a child does not start; those before it have been stopped again.
    pub async fn start(spec: SupervisorSpec, parent: Option<ActorCell>) -> Result<Self, SpawnErr> {
        let (actor, _) = match parent {
            Some(parent) => Actor::spawn_linked(None, Supervisor, spec, parent).await?,
            None => Actor::spawn(None, Supervisor, spec).await?,
        };
        Ok(Self { actor })
    }

    /// The supervisor as an actor, for instance to stop it or to wait for its end.
    #[must_use]
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Stops the children, right to left, and then the supervisor; returns when all have ended.
    pub async fn stop(&self) {
        let cell = self.actor.get_cell();
        if cell.stop_and_wait(None, None).await.is_err() {
            // It is on its way out already.
            _ = cell.wait(None).await;
        }
    }

    /// Starts a further child, to the right of the others.
    ///
    /// # Errors
    /// [`ChildError::Exists`], [`ChildError::CannotBeSignificant`], or [`ChildError::StartFailed`]: then it is not kept.
    pub async fn add(&self, child: ChildSpec) -> Result<ActorCell, ChildError> {
        self.call(|reply| SupervisorMsg::Add(child, reply)).await?
    }

    /// Stops a child. Unless temporary it is kept and can be started by [`Self::restart`], or with its group.
    ///
    /// # Errors
    /// [`ChildError::NotFound`].
    pub async fn terminate(&self, id: &str) -> Result<(), ChildError> {
        self.call(|reply| SupervisorMsg::Terminate(id.to_owned(), reply)).await?
    }

    /// Starts a child that has ended or was terminated.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::Running`], [`ChildError::Restarting`], [`ChildError::StartFailed`].
    pub async fn restart(&self, id: &str) -> Result<ActorCell, ChildError> {
        self.call(|reply| SupervisorMsg::Restart(id.to_owned(), reply)).await?
    }

    /// Forgets a child that has ended or was terminated.
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::Running`], [`ChildError::Restarting`].
    pub async fn delete(&self, id: &str) -> Result<(), ChildError> {
        self.call(|reply| SupervisorMsg::Delete(id.to_owned(), reply)).await?
    }

    /// All children in start order.
    ///
    /// # Errors
    /// [`ChildError::SupervisorEnded`].
    pub async fn which_children(&self) -> Result<Vec<ChildView>, ChildError> {
        self.call(SupervisorMsg::WhichChildren).await
    }

    async fn call<R: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<R>) -> SupervisorMsg,
    ) -> Result<R, ChildError> {
        match self.actor.call(message, None).await {
            Ok(CallResult::Success(reply)) => Ok(reply),
            _ => Err(ChildError::SupervisorEnded),
        }
    }
}
