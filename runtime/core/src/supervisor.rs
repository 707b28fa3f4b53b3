//! Supervision.
mod restart;

pub use restart::{Decision, RestartPolicy, RestartTracker};

use futures::future::BoxFuture;
use ractor::{ActorCell, SpawnErr};

type Start = Box<dyn Fn() -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// A child.
pub struct ChildSpec(Start);
impl ChildSpec {
    /// Makes one.
    pub fn new(_id: &str, start: impl Fn() -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync + 'static) -> Self {
        Self(Box::new(start))
    }
}
/// Strategy.
#[derive(Debug)]
pub enum Strategy {
    /// One for one.
    OneForOne,
}
/// Supervisor.
#[derive(Debug)]
pub struct Supervisor;
/// Handle.
#[derive(Debug)]
pub struct SupervisorRef(Vec<ActorCell>);
impl Supervisor {
    /// Starts.
    pub async fn start(_: Strategy, _: RestartPolicy, children: Vec<ChildSpec>) -> Result<SupervisorRef, SpawnErr> {
        let mut cells = Vec::new();
        for c in children {
            cells.push((c.0)().await?);
        }
        Ok(SupervisorRef(cells))
    }
}
impl SupervisorRef {
    /// Stops.
    pub async fn stop(&self) {
        for c in &self.0 {
            let _ = c.stop_and_wait(None, None).await;
        }
    }
}
