//! Looks after the replicated groups on this node: follows who leads, and changes members and leaders as the plan says.
//!
//! A node changes only the groups that it leads, so each group has one that plans for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Inner;
use super::member::Lead;
use super::services::LEADS;
use crate::clock;
use crate::groups::store::Shard;
use crate::groups::{self, Change, GroupView, Node, Sizes, plan};
use crate::hosted_kind::HostedKind;
use crate::link::hint::Hint;
use crate::node_id::NodeId;
use crate::raft::{Group, GroupId, HandOffError, Role, Status};

/// How often the plan is made.
const PLAN: Duration = Duration::from_millis(500);
/// And how soon after a change.
const SOON: Duration = Duration::from_millis(20);
/// A learner this many entries behind is nearly there.
const NEARLY: u64 = 64;

/// Follows the leader of one shard group: activations live where it is, and end when its term does.
pub(crate) async fn follow(inner: Arc<Inner>, group: usize, kinds: Arc<[Arc<dyn HostedKind>]>) {
    let Some(raft) = inner.shards[group].group().cloned() else { return };
    let (view, mut status) = (&inner.router.view, raft.watch());
    let number = u8::try_from(group).unwrap_or(u8::MAX);
    let mut mine = None;
    loop {
        let now = status.status();
        let leads = (now.role == Role::Leader).then_some(now.term);
        if mine != leads {
            if mine.is_some() {
                view.set_leader(group, None);
                join_all(kinds.iter().filter(|kind| kind.home().follows_leader()).map(|kind| kind.rehome())).await;
            }
            if let Some(term) = leads {
                view.set_leader(group, Some(view.me));
                let lead = Lead { group: number, term, node: view.me };
                inner.leads.learn(&[lead], &inner.router);
                tell_all(&inner, lead).await;
            }
            mine = leads;
            inner.router.tell_news();
        } else if let Some(leader) = now.leader
            && leader != view.me
        {
            inner.leads.learn(&[Lead { group: number, term: now.term, node: leader }], &inner.router);
        }
        if !status.changed().await {
            return;
        }
    }
}

/// A hint: whoever misses it asks the wrong node once, or hears it with the next beat.
///
/// Over the sessions first, which never waits; then over the lanes, where a leader speaks for itself and is believed.
async fn tell_all(inner: &Inner, lead: Lead) {
    inner.presence.tell(&Hint::Lead(lead));
    let body = postcard::to_allocvec(&vec![lead]).unwrap_or_default();
    for lane in inner.router.lanes() {
        let _ = inner.router.notify(lane.peer(), LEADS, &body).await;
    }
}

/// Makes the plan again and again, and carries out this node's part of it.
pub(crate) async fn keep(inner: Arc<Inner>) {
    let mut changes = inner.control.replica.changes();
    let mut pause = PLAN;
    loop {
        let _ = tokio::time::timeout(pause, changes.changed()).await;
        if inner.router.view.is_alone() {
            continue;
        }
        found(&inner).await;
        let planned = next(&inner);
        let done = join_all(planned.into_iter().map(|change| carry_out(&inner, change))).await;
        // What was done may be what the next step waited for.
        pause = if done.contains(&true) { SOON } else { PLAN };
    }
}

/// The first node makes its state, of which nobody had a copy, that of the groups.
async fn found(inner: &Inner) {
    let me = inner.router.view.me;
    let oldest = inner
        .control
        .replica
        .read(|state| state.members().min_by_key(|member| member.joined_index).map(|member| member.record.id));
    if oldest != Some(me) {
        return;
    }
    for shard in &inner.shards {
        let Some(group) = shard.group() else { continue };
        if !group.status().voters.is_empty() {
            continue;
        }
        shard.end_direct().await;
        let founded = async {
            group.initialize(&[me]).await.map_err(|error| error.to_string())?;
            group.seal().await
        };
        if let Err(error) = founded.await {
            tracing::warn!(group = %group.id(), error, "group not founded yet");
        }
    }
}

fn views(inner: &Inner) -> Vec<GroupView> {
    (0..=u8::MAX).map_while(|number| inner.group(number)).map(|group| view(inner, group)).collect()
}

/// Groups that have a majority of live copies now, and would have none without a node.
pub(crate) fn stranded_by(inner: &Inner, node: NodeId) -> Vec<u8> {
    let views = views(inner);
    inner.control.replica.read(|state| {
        let nodes: Vec<Node<'_>> = state.members().map(Node::from).collect();
        groups::stranded_by(node, &nodes, &views)
    })
}

fn next(inner: &Inner) -> Vec<Change> {
    let me = inner.router.view.me;
    let views = views(inner);
    let planned = inner.control.replica.read(|state| {
        let nodes: Vec<Node<'_>> = state.members().map(Node::from).collect();
        let replicas = state.cluster().map_or(1, |cluster| cluster.replicas);
        let sizes = Sizes { max_voters: inner.max_voters, replicas };
        plan(&nodes, &views, sizes, &[], clock::unix_ms())
    });
    let mine = |change: &Change| views.iter().any(|view| view.group == change.group() && view.leader == Some(me));
    planned.into_iter().filter(mine).collect()
}

fn view(inner: &Inner, group: &Group) -> GroupView {
    let status = group.status();
    let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
    let caught_up = status.learners.iter().copied().filter(|node| is_near(&status, *node)).collect();
    let known = || {
        let number = group.id().0.checked_sub(1)?;
        inner.leads.all().into_iter().find(|lead| lead.group == number).map(|lead| lead.node)
    };
    GroupView {
        group: group.id().0,
        voters: set(&status.voters),
        learners: set(&status.learners),
        caught_up,
        leader: status.leader.or_else(known),
    }
}

fn is_near(status: &Status, node: NodeId) -> bool {
    let matched = status.matched.get(&node.0).copied().flatten();
    matched.is_some_and(|matched| matched + NEARLY >= status.last.unwrap_or(0))
}

/// False when it was not done; it may be planned again.
async fn carry_out(inner: &Inner, change: Change) -> bool {
    let Some(group) = inner.group(change.group()) else { return false };
    let status = group.status();
    let voters = |with: Option<NodeId>, without: Option<NodeId>| -> Vec<NodeId> {
        let stay = status.voters.iter().copied().filter(|node| Some(*node) != without);
        stay.chain(with).collect()
    };
    let done = match change {
        Change::AddLearner { node, .. } => group.add_learner(node).await.map_err(|error| error.to_string()),
        Change::Promote { node, .. } => {
            group.set_voters(&voters(Some(node), None)).await.map_err(|error| error.to_string())
        }
        Change::Demote { node, .. } => {
            group.set_voters(&voters(None, Some(node))).await.map_err(|error| error.to_string())
        }
        Change::Remove { node, .. } => group.remove(node).await.map_err(|error| error.to_string()),
        Change::HandOff { to, .. } => hand_off(group, to).await.map_err(|error| error.to_string()),
    };
    match &done {
        Ok(()) => tracing::debug!(?change, "group changed"),
        Err(error) => tracing::debug!(?change, error, "group not changed"),
    }
    done.is_ok()
}

/// Has the groups that a node led led by others soon: its process has ended. Each group has one that stands first, so that
/// no two candidates split the votes; the others stand when their timers run out.
pub(crate) fn succeed(inner: &Arc<Inner>, gone: NodeId) {
    if !inner.gone.lock().insert(gone) {
        return;
    }
    let shared = inner.clone();
    let standing = async move {
        let groups = (0..=u8::MAX).map_while(|number| shared.group(number));
        let standing = groups.filter(|group| is_heir(&shared, group, gone)).map(|group| group.elect_if_current(gone));
        let stood = join_all(standing).await;
        tracing::debug!(%gone, stood = stood.iter().filter(|stood| **stood).count(), "stood for its groups");
        shared.gone.lock().remove(&gone);
    };
    inner.router.tasks().spawn("succeed", standing).detach();
}

/// Whether this node is to stand first for a group that `gone` led.
fn is_heir(inner: &Inner, group: &Group, gone: NodeId) -> bool {
    let (status, me) = (group.status(), inner.router.view.me);
    let there = |node: &NodeId| *node != gone && (*node == me || inner.router.lane(*node).is_some());
    let live: Vec<_> = status.voters.iter().copied().filter(there).collect();
    status.leader == Some(gone) && !live.is_empty() && live[usize::from(group.id().0) % live.len()] == me
}

/// Hands off every group that this node leads to another voter that is there.
pub(crate) async fn hand_off_all(inner: &Inner, shards: &[Arc<Shard>]) {
    let me = inner.router.view.me;
    let groups = shards.iter().filter_map(|shard| shard.group()).chain([&inner.control.group]);
    for group in groups {
        let status = group.status();
        if status.role != Role::Leader {
            continue;
        }
        let live = |node: &&NodeId| **node != me && inner.router.lane(**node).is_some();
        for heir in status.voters.iter().filter(live) {
            match hand_off(group, *heir).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(group = %group.id(), %heir, %error, "not handed off"),
            }
        }
    }
}

/// The control group, which may have five voters, is handed off only by a leader that has to go, and that is worth two
/// seconds without decisions. Shard groups are moved for balance too; one with so many voters is not.
async fn hand_off(group: &Group, to: NodeId) -> Result<(), HandOffError> {
    if group.id() == GroupId(0) { group.resign(to).await } else { group.hand_off(to).await }
}
