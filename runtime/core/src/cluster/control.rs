//! The control group on this node: decides commands, wherever they are given, and shows the state they made.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::services::CONTROL;
use crate::control::{ControlCommand, ControlMachine, ControlRefused, ControlReply, ControlState};
use crate::error::CallError;
use crate::node_id::NodeId;
use crate::raft::{Group, Machine, Position, ProposeError, StateView, Writes};
use crate::router::{Router, Service};
use crate::store::StoreError;
use crate::task::Tasks;
use crate::wire::{Codec, WirePort};

/// How long a command looks for a leader.
const LIMIT: Duration = Duration::from_secs(3);
/// Rows read from the store at a time.
const PAGE: usize = 512;

/// Why a command was not decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// It was decided against.
    #[error(transparent)]
    Refused(#[from] ControlRefused),
    /// Nobody could decide in time.
    #[error(
        "no quorum: this node sees {seen} of {voters} voters; writes are refused, reads may be stale; see `village cluster status`"
    )]
    NoQuorum {
        /// Voters that this node has a link to, itself included.
        seen: usize,
        /// All voters.
        voters: usize,
        /// It may still take effect.
        unsure: bool,
    },
    /// The command is larger than any may be.
    #[error("the command is too large")]
    TooLarge,
    /// This node is going down.
    #[error("the node is going down")]
    Stopped,
    /// This village runs alone, without a cluster.
    #[error("this village is not part of a cluster")]
    NoCluster,
}

/// The state, as the log makes it; readers share it.
#[derive(Clone)]
pub(crate) struct Replica {
    state: Arc<RwLock<ControlState>>,
    machines: Arc<dyn Fn() -> Vec<Box<dyn ControlMachine>> + Send + Sync>,
    /// Counts what was applied.
    applied: Arc<watch::Sender<u64>>,
}

impl Replica {
    pub(crate) fn new(machines: impl Fn() -> Vec<Box<dyn ControlMachine>> + Send + Sync + 'static) -> Self {
        let state = Arc::new(RwLock::new(ControlState::new(machines())));
        Self { state, machines: Arc::new(machines), applied: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&ControlState) -> T) -> T {
        read(&self.state.read())
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

impl Machine for Replica {
    fn apply(&mut self, at: Position, command: &[u8], writes: &mut Writes) -> Vec<u8> {
        let mut state = self.state.write();
        let decided = match postcard::from_bytes::<ControlCommand>(command) {
            Ok(command) => state.apply(at.index, command),
            // Of a newer version than this node: all of the same version refuse it alike.
            Err(_) => Err(ControlRefused::UnknownMachine { ns: "a newer version".to_owned() }),
        };
        for (key, value) in state.take_changes() {
            match value {
                Some(value) => writes.put(&key, value),
                None => writes.delete(&key),
            }
        }
        drop(state);
        self.applied.send_modify(|count| *count += 1);
        postcard::to_allocvec(&decided).unwrap_or_default()
    }

    fn reload(&mut self, view: &StateView) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        let mut from = Vec::new();
        loop {
            let page = view.scan(&from, PAGE)?;
            let full = page.len() == PAGE;
            if let Some((last, _)) = page.last() {
                from = [last, &[0][..]].concat();
            }
            rows.extend(page);
            if !full {
                break;
            }
        }
        *self.state.write() = ControlState::load(rows, (self.machines)())?;
        self.applied.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Compare-and-set looks before it writes.
    fn lazily_dumped(&self) -> bool {
        false
    }
}

/// Decides commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) group: Group,
    pub(crate) replica: Replica,
    router: Arc<Router>,
}

impl Control {
    pub(crate) fn new(group: Group, replica: Replica, router: Arc<Router>) -> Self {
        Self { group, replica, router }
    }

    /// Has a command decided by the group, through its leader.
    pub(crate) async fn decide(&self, command: ControlCommand) -> Result<ControlReply, DecideError> {
        let bytes = postcard::to_allocvec(&command).map_err(|_| DecideError::TooLarge)?;
        let bytes = Bytes::from(bytes);
        let give_up = Instant::now() + LIMIT;
        let mut status = self.group.watch();
        loop {
            let now = status.status();
            let answer = match now.leader {
                Some(leader) if leader == self.router.view.me => self.propose(bytes.clone()).await,
                Some(leader) => self.pass_on(leader, &bytes).await,
                None => Err(None),
            };
            match answer {
                Ok(decided) => return decided.map_err(DecideError::Refused),
                Err(Some(DecideError::NoQuorum { unsure: true, .. })) => return Err(self.no_quorum(true)),
                Err(Some(error @ (DecideError::TooLarge | DecideError::Stopped))) => return Err(error),
                Err(_) => {}
            }
            let again = (Instant::now() + Duration::from_millis(50)).min(give_up);
            let _ = tokio::time::timeout_at(again, status.changed()).await;
            if Instant::now() >= give_up {
                return Err(self.no_quorum(false));
            }
        }
    }

    /// `None` when it was certainly not decided and another node may know more.
    async fn propose(&self, command: Bytes) -> Result<Result<ControlReply, ControlRefused>, Option<DecideError>> {
        match self.group.propose(command).await {
            Ok(reply) => postcard::from_bytes(&reply).map_err(|_| Some(DecideError::Stopped)),
            Err(ProposeError::Unknown) => Err(Some(self.no_quorum(true))),
            Err(ProposeError::TooLarge { .. }) => Err(Some(DecideError::TooLarge)),
            Err(ProposeError::Stopped) => Err(Some(DecideError::Stopped)),
            Err(ProposeError::NotLeader(_) | ProposeError::NoQuorum) => Err(None),
        }
    }

    async fn pass_on(
        &self,
        leader: NodeId,
        command: &Bytes,
    ) -> Result<Result<ControlReply, ControlRefused>, Option<DecideError>> {
        match self.router.call(leader, CONTROL, command, LIMIT).await {
            Ok(reply) => postcard::from_bytes(&reply).map_err(|_| Some(DecideError::Stopped)),
            Err(CallError::Timeout | CallError::NoReply | CallError::Unreachable { sent: true, .. }) => {
                Err(Some(self.no_quorum(true)))
            }
            Err(_) => Err(None),
        }
    }

    /// What this node sees of the voters.
    pub(crate) fn no_quorum(&self, unsure: bool) -> DecideError {
        let voters = self.group.status().voters;
        let me = self.router.view.me;
        let seen = voters.iter().filter(|node| **node == me || self.router.lane(**node).is_some()).count();
        DecideError::NoQuorum { seen, voters: voters.len(), unsure }
    }
}

/// Takes commands that other members pass on.
pub(crate) struct ControlService {
    pub(crate) control: Control,
    pub(crate) tasks: Arc<Tasks>,
}

impl Service for ControlService {
    fn serve(&self, from: NodeId, _: &str, body: Bytes, port: Option<WirePort>) {
        let Some(port) = port else { return };
        let forged = match Codec::Compact.decode::<ControlCommand>(&body) {
            Ok(ControlCommand::UpdateNode { record, .. }) => record.id != from,
            Ok(_) => false,
            Err(error) => return port.complete_bytes(Err(error.into())),
        };
        if forged {
            let reason = "a member speaks for itself only".to_owned();
            return port.complete_bytes(Err(CallError::Denied { reason }.into()));
        }
        let control = self.control.clone();
        let deciding = async move {
            let decided = match control.propose(body).await {
                Ok(decided) => decided,
                Err(Some(DecideError::NoQuorum { unsure: true, .. })) => return drop(port),
                Err(_) => {
                    return port.complete_bytes(Err(CallError::Moved { to: control.group.status().leader }.into()));
                }
            };
            port.complete(Ok(&decided));
        };
        self.tasks.spawn("control", deciding).detach();
    }
}
