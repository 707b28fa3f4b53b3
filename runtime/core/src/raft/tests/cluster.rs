//! Nodes of one group in one process, on a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use parking_lot::Mutex;

use super::super::{
    Around, Courier, Group, GroupConfig, GroupId, Lost, Machine, Position, ProposeError, Role, Spawner, StateView,
    Status, StatusWatch, Writes,
};
use crate::NodeId;
use crate::blob::{Download, FetchError, Offers};
use crate::store::{MemoryStore, Store, StoreError};
use crate::task::Tasks;

/// Keeps every command under its position; the reply says which one it was.
pub(super) struct History {
    pub(super) lazy: bool,
    pub(super) len: usize,
}

impl Machine for History {
    fn apply(&mut self, at: Position, command: &[u8], writes: &mut Writes) -> Vec<u8> {
        let key = [&at.index.to_be_bytes()[..], &at.nth.to_be_bytes()[..]].concat();
        writes.put(&key, command.to_vec());
        self.len += 1;
        [b"did ", command].concat()
    }

    fn reload(&mut self, state: &StateView) -> Result<(), StoreError> {
        self.len = state.scan(&[], usize::MAX)?.len();
        Ok(())
    }

    fn lazily_dumped(&self) -> bool {
        self.lazy
    }
}

pub(super) type Commands = Vec<(u64, String)>;

/// All commands in the order they were applied, with the entries they came in.
pub(super) fn commands(state: &StateView) -> Commands {
    let pairs = state.scan(&[], usize::MAX).unwrap();
    let command = |(key, value): (Bytes, Bytes)| {
        let index = u64::from_be_bytes(key[..8].try_into().unwrap());
        (index, String::from_utf8(value.to_vec()).unwrap())
    };
    pairs.into_iter().map(command).collect()
}

/// Who is reachable.
#[derive(Default)]
pub(super) struct Wires {
    groups: Mutex<BTreeMap<u64, Group>>,
    cut: Mutex<BTreeSet<u64>>,
    offers: Mutex<BTreeMap<u64, Offers>>,
    /// Where the parts of files began that were fetched, in their order.
    pub(super) fetched: Mutex<Vec<u64>>,
    /// Parts after which one fetch ends, and why.
    pub(super) fetch_ends: Mutex<Option<(usize, FetchError)>>,
    /// Requests brought, by their kind.
    pub(super) brought: Mutex<BTreeMap<u8, usize>>,
}

impl Wires {
    pub(super) fn cut(&self, node: NodeId) {
        self.cut.lock().insert(node.0);
    }

    pub(super) fn heal(&self) {
        self.cut.lock().clear();
    }

    /// Why a fetch ends instead of bringing the next part, if it does.
    fn spend_part(&self) -> Result<(), FetchError> {
        let mut ends = self.fetch_ends.lock();
        match &mut *ends {
            Some((0, _)) => ends.take().map_or(Ok(()), |(_, error)| Err(error)),
            Some((parts, _)) => {
                *parts -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        let cut = self.cut.lock();
        cut.contains(&one.0) || cut.contains(&other.0)
    }
}

#[derive(Clone)]
pub(super) struct Wire {
    from: NodeId,
    offers: Offers,
    wires: Arc<Wires>,
}

impl Courier for Wire {
    fn call(&self, to: NodeId, _: GroupId, body: Bytes, limit: Duration) -> BoxFuture<'static, Result<Bytes, Lost>> {
        let Self { from, wires, .. } = self.clone();
        let call = async move {
            if wires.is_cut(from, to) {
                std::future::pending::<()>().await;
            }
            let group = wires.groups.lock().get(&to.0).cloned().ok_or(Lost::NoLink)?;
            assert!(body.len() <= 1 << 20, "a body of {} bytes", body.len());
            *wires.brought.lock().entry(body[0]).or_default() += 1;
            let answer = group.serve(from, body).await;
            if wires.is_cut(from, to) {
                std::future::pending::<()>().await;
            }
            answer.map_err(|e| Lost::Refused(e.to_string()))
        };
        async move { tokio::time::timeout(limit, call).await.unwrap_or(Err(Lost::Late)) }.boxed()
    }

    fn fetch(&self, from: NodeId, file: Arc<Download>) -> BoxFuture<'static, Result<(), FetchError>> {
        let Self { from: me, wires, .. } = self.clone();
        let fetching = async move {
            file.begin();
            let offered = wires.offers.lock().get(&from.0).and_then(|offers| offers.find(file.id()));
            let offered = offered.ok_or(FetchError::NotThere)?;
            while let Some((offset, len)) = file.next_part() {
                if wires.is_cut(me, from) {
                    return Err(lost());
                }
                wires.spend_part()?;
                let bytes = offered.read(offset, len).await.unwrap();
                wires.fetched.lock().push(offset);
                file.land(offset, offset + len, bytes.to_vec()).await.unwrap();
            }
            Ok(())
        };
        fetching.boxed()
    }

    fn offers(&self) -> &Offers {
        &self.offers
    }
}

pub(super) fn lost() -> FetchError {
    FetchError::Unreachable(Arc::new(io::ErrorKind::ConnectionReset.into()))
}

pub(super) fn spawner() -> Spawner {
    let tasks = Tasks::default();
    Arc::new(move |name, task| tasks.spawn(name, task).detach())
}

/// Nodes 1 to n.
pub(super) struct Cluster {
    pub(super) wires: Arc<Wires>,
    pub(super) config: GroupConfig,
    pub(super) lazy: bool,
    pub(super) nodes: Vec<Group>,
}

pub(super) fn node(number: usize) -> NodeId {
    NodeId(number as u64)
}

impl Cluster {
    pub(super) fn new() -> Self {
        let config = GroupConfig::new(GroupId(1), NodeId(0));
        Self { wires: Arc::default(), config, lazy: true, nodes: Vec::new() }
    }

    /// A founded group of three with everything in memory.
    pub(super) async fn of_three() -> Self {
        Self::new().founded(3).await
    }

    /// Adds nodes with everything in memory and founds the group.
    pub(super) async fn founded(mut self, nodes: usize) -> Self {
        for _ in 0..nodes {
            self.add(Arc::new(MemoryStore::default()), None).await;
        }
        let voters: Vec<NodeId> = (1..=self.nodes.len()).map(node).collect();
        for node in &self.nodes {
            node.initialize(&voters).await.unwrap();
        }
        self.leader().await;
        self
    }

    pub(super) async fn add(&mut self, store: Arc<dyn Store>, snapshots: Option<PathBuf>) -> Group {
        let number = self.nodes.len() + 1;
        let group = self.start(number, store, snapshots).await;
        self.nodes.push(group.clone());
        group
    }

    /// Starts a node, or starts it again.
    pub(super) async fn start(&self, number: usize, store: Arc<dyn Store>, snapshots: Option<PathBuf>) -> Group {
        let config = GroupConfig { node: node(number), snapshots, ..self.config.clone() };
        let offers = Offers::default();
        self.wires.offers.lock().insert(number as u64, offers.clone());
        let courier = Wire { from: node(number), offers, wires: Arc::clone(&self.wires) };
        let around = Around { store, courier, spawner: spawner() };
        let group = Group::start(config, History { lazy: self.lazy, len: 0 }, around).await.unwrap();
        self.wires.groups.lock().insert(number as u64, group.clone());
        group
    }

    /// Ends all nodes, so that their stores are free.
    pub(super) async fn stop(&mut self) {
        let groups = std::mem::take(&mut *self.wires.groups.lock());
        for group in self.nodes.drain(..) {
            group.shutdown().await;
        }
        drop(groups);
    }

    pub(super) async fn leader(&self) -> Group {
        self.leader_but(&[]).await
    }

    /// The node that all nodes but those agree upon.
    pub(super) async fn leader_but(&self, without: &[NodeId]) -> Group {
        let others: Vec<&Group> = self.nodes.iter().filter(|node| !without.contains(&node.me())).collect();
        let mut watches: Vec<_> = others.iter().map(|node| node.watch()).collect();
        loop {
            let seen: Vec<Status> = watches.iter_mut().map(StatusWatch::status).collect();
            let leads = |status: &Status| status.role == Role::Leader && status.quorum_age.is_some();
            let leader = seen.iter().position(|status| leads(status) && status.leader == seen[0].leader);
            if let Some(leader) = leader
                && seen.iter().all(|status| status.leader == seen[leader].leader && status.term == seen[leader].term)
            {
                return others[leader].clone();
            }
            select_all(watches.iter_mut().map(|watch| watch.changed().boxed())).await;
        }
    }

    /// Waits until these nodes have applied as much as the leader has now.
    pub(super) async fn level(&self, leader: &Group) {
        let applied = leader.status().applied;
        for node in &self.nodes {
            node.watch().wait_for(|status| status.applied >= applied).await;
        }
    }

    pub(super) fn assert_one_history(&self) -> Commands {
        let first = commands(&self.nodes[0].state());
        for node in &self.nodes {
            assert!(commands(&node.state()) == first, "node {} differs", node.me());
        }
        first
    }
}

pub(super) async fn propose(group: &Group, command: &str) -> Result<String, ProposeError> {
    let reply = group.propose(Bytes::copy_from_slice(command.as_bytes())).await?;
    Ok(String::from_utf8(reply.to_vec()).unwrap())
}

pub(super) async fn write(group: &Group, command: &str) {
    assert_eq!(propose(group, command).await.unwrap(), format!("did {command}"));
}

/// Waits until a node's status fulfils a condition.
pub(super) async fn until(group: &Group, wanted: impl Fn(&Status) -> bool) -> Status {
    group.watch().wait_for(wanted).await
}
