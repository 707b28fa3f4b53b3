//! `sys.gateway`: the one actor of a node that other nodes see. It stands for the node in the process groups of scope
//! [`SCOPE`], and hears [hints](super::hint).
//!
//! One per node, while it has sessions. Durable: no. Lost in a crash: hints in its mailbox; its sessions start again with it.
//!
//! | group | members |
//! |---|---|
//! | `gw/<node>` | the gateway of that node |
//! | `host/<kind>@<version>` | gateways of the nodes that host the kind with messages of that version |
//!
//! Only one, because each actor that can be sent to from afar is announced to every node, and has a stand-in there.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, pg};
use serde::Serialize;

use super::hint::Hint;
use super::session::Table;
use crate::cluster::leads::Leads;
use crate::control::HostedRecord;
use crate::node_id::NodeId;
use crate::router::Router;

/// Scope of the process groups that this crate keeps; a program's own groups are elsewhere.
const SCOPE: &str = "village";
const GATEWAY: &str = "gw/";

/// What a node said of itself last. It may be old, and nobody vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NodeNews {
    /// Its live actors, of a thousand that it could have.
    pub load_permille: u16,
    /// Membership epoch that it has applied.
    pub epoch: u64,
}

/// News of the members with which this node has a session; one entry a member.
#[derive(Debug, Default)]
pub(crate) struct News(RwLock<BTreeMap<NodeId, NodeNews>>);

impl News {
    pub(crate) fn all(&self) -> BTreeMap<NodeId, NodeNews> {
        self.0.read().clone()
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.0.write().remove(&node);
    }

    fn learn(&self, node: NodeId, news: NodeNews) {
        self.0.write().insert(node, news);
    }
}

/// The behaviour.
pub(crate) struct Gateway {
    pub(crate) router: Arc<Router>,
    pub(crate) kinds: Vec<HostedRecord>,
    pub(crate) leads: Arc<Leads>,
    pub(crate) table: Arc<Table>,
    pub(crate) news: Arc<News>,
}

impl Actor for Gateway {
    /// A [`Hint`].
    type Msg = Vec<u8>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<Vec<u8>>, (): ()) -> Result<(), ActorProcessingErr> {
        let join = |group| pg::join_scoped(SCOPE.to_owned(), group, vec![me.get_cell()]);
        join(gateway_group(self.router.view.me));
        self.kinds.iter().for_each(|kind| join(host_group(&kind.name, kind.version)));
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Vec<u8>>, hint: Vec<u8>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match Hint::decode(&hint) {
            Some(Hint::Lead(lead)) => self.leads.hint(lead, &self.router),
            Some(Hint::State { node, load_permille, epoch }) if self.table.has(node) => {
                self.news.learn(node, NodeNews { load_permille, epoch });
            }
            Some(Hint::State { .. }) => {}
            None => tracing::debug!(bytes = hint.len(), "hint not understood"),
        }
        Ok(())
    }
}

fn gateway_group(node: NodeId) -> String {
    format!("{GATEWAY}{node}")
}

fn host_group(kind: &str, version: u16) -> String {
    format!("host/{kind}@{version}")
}

#[allow(clippy::ptr_arg, reason = "`ractor` wants it so")]
fn members(group: &String) -> Vec<ActorCell> {
    pg::get_scoped_members(&SCOPE.to_owned(), group)
}

fn groups() -> Vec<String> {
    pg::which_scoped_groups(&SCOPE.to_owned())
}

/// The session through which an actor came; none if it is of this node.
fn session_of(cell: &ActorCell) -> Option<u64> {
    match cell.get_id() {
        ActorId::Local(_) => None,
        ActorId::Remote { node_id, .. } => Some(node_id),
    }
}

/// The names of the nodes for which actors of this session stand.
pub(crate) fn claimed_through(session: u64) -> Vec<String> {
    let stands = |group: &String| members(group).iter().any(|cell| session_of(cell) == Some(session));
    let gateways = groups().into_iter().filter(|group| group.starts_with(GATEWAY));
    gateways.filter(stands).map(|group| group[GATEWAY.len()..].to_owned()).collect()
}

/// Which nodes host a kind, with the versions of its messages. What others claim counts for the member at the far end of
/// their session, whatever name they give.
pub(crate) fn hosts(kind: &str, me: NodeId, table: &Table) -> Vec<(NodeId, u16)> {
    let prefix = format!("host/{kind}@");
    let mut hosts = Vec::new();
    for group in groups() {
        let Some(version) = group.strip_prefix(&prefix).and_then(|version| version.parse().ok()) else { continue };
        for cell in members(&group) {
            let node = session_of(&cell).map_or(Some(me), |session| table.member(session));
            hosts.extend(node.map(|node| (node, version)));
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Tells the members with which there is a session, or one of them. Never waits.
pub(crate) fn tell(table: &Table, to: Option<NodeId>, hint: &Hint) {
    let Some(bytes) = hint.encode() else { return };
    for (session, node) in table.all() {
        if to.is_some_and(|to| to != node) {
            continue;
        }
        let gateways = members(&gateway_group(node));
        if let Some(theirs) = gateways.into_iter().find(|cell| session_of(cell) == Some(session)) {
            // A session that has just ended hears nothing more.
            let _ = ActorRef::<Vec<u8>>::from(theirs).send_message(bytes.clone());
        }
    }
}
