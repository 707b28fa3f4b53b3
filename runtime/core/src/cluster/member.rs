//! `sys.member`: this node's part in the membership: it beats to the control leader, and while it leads, it watches the others.
//!
//! One per node. Durable: no. Lost in a crash: the lease; the node acts for nothing until the next beat is acknowledged.
//! What is decided here, and why two nodes never act for one key, is in [`liveness`](crate::membership::liveness).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use super::control::{Control, DecideError};
use super::services::BEAT;
use crate::clock;
use crate::control::{ControlCommand, ControlRefused, MemberState};
use crate::hosted_kind::HostedKind;
use crate::link::peers::Evidence;
use crate::membership::liveness::{Ack, Beat, Epoch, Fault, Lease, LivenessConfig, Watchdog, Why, first_seq};
use crate::node_id::NodeId;
use crate::raft::Role;
use crate::router::{Router, Service};
use crate::task::Tasks;
use crate::wire::WirePort;

/// How often the leader looks whom to declare down.
const LOOK: Duration = Duration::from_millis(250);
/// A refused command is proposed again after this long at the earliest.
const PATIENCE_MS: u64 = 1_000;
/// A member that has not reported an epoch for this long is worth a word.
const BEHIND_MS: u64 = 15_000;

/// A leader of a shard group, as of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lead {
    /// From 0.
    pub(crate) group: u8,
    pub(crate) term: u64,
    pub(crate) node: NodeId,
}

/// What a node tells the control leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    beat: Beat,
    incarnation: u64,
    /// Shard groups that it leads.
    leads: Vec<Lead>,
}

/// What it hears back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    ack: Option<Ack>,
    /// All leaders of shard groups that are known.
    leads: Vec<Lead>,
}

/// What [`Member`] understands.
pub(crate) enum MemberMsg {
    /// Time to beat.
    Beat,
    /// Time to look after the others.
    Look,
    /// The membership or the control group's leader may have changed.
    Changed,
    /// The activations of what was lost at an epoch have ended.
    Ended(Epoch),
    /// A member beats.
    Report(NodeId, Report, WirePort),
    /// The control leader answers.
    Answered(Answer),
    /// A round trip to a quorum of the control group, begun then, succeeded.
    Quorum(u64),
    /// What a link says about a member.
    Evidence(Evidence),
}

impl ractor::Message for MemberMsg {}

/// The running actor, for those that outlive it.
pub(crate) type MemberRef = Arc<ArcSwapOption<ActorRef<MemberMsg>>>;

/// Tells the running actor, if there is one.
pub(crate) fn tell(member: &MemberRef, msg: MemberMsg) {
    if let Some(actor) = &*member.load() {
        let _ = actor.send_message(msg);
    }
}

/// The behaviour; its data is [`State`].
pub(crate) struct Member {
    pub(crate) router: Arc<Router>,
    pub(crate) control: Control,
    pub(crate) config: LivenessConfig,
    pub(crate) incarnation: u64,
    pub(crate) kinds: Arc<[Arc<dyn HostedKind>]>,
    pub(crate) leads: Arc<super::leads::Leads>,
    pub(crate) myself: MemberRef,
    /// Has a member dialled to which there is no link.
    pub(crate) probe: Arc<dyn Fn(NodeId) + Send + Sync>,
}

pub(crate) struct State {
    lease: Lease,
    watchdog: Watchdog,
    seq: u64,
    /// Newest epoch that the homes follow.
    applied: u64,
    /// Newest epoch for which nothing that was lost is left.
    ended: Epoch,
    /// Term in which this node leads the control group, and whether it has applied what came before.
    leading: Option<u64>,
    /// Members as the watchdog knows them, with their `up_epoch`.
    watched: BTreeMap<NodeId, Epoch>,
    /// Since when somebody has not reported the newest epoch, and whether that was told.
    behind: Option<(u64, bool)>,
    /// When a member's promotion was last proposed.
    promoted: BTreeMap<NodeId, u64>,
    ticks: Vec<AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.ticks.iter().for_each(AbortHandle::abort);
    }
}

impl Actor for Member {
    type Msg = MemberMsg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<MemberMsg>, (): ()) -> Result<State, ActorProcessingErr> {
        self.myself.store(Some(Arc::new(me.clone())));
        let ticks = vec![
            me.send_interval(self.config.beat, || MemberMsg::Beat).abort_handle(),
            me.send_interval(LOOK, || MemberMsg::Look).abort_handle(),
            self.follow(&me),
        ];
        for msg in [MemberMsg::Changed, MemberMsg::Beat] {
            let _ = me.send_message(msg);
        }
        Ok(State {
            lease: Lease::new(&self.config),
            watchdog: Watchdog::new(self.config),
            // Above the beats of an actor of this process that crashed.
            seq: first_seq(self.incarnation) + clock::boot_ms(),
            applied: 0,
            ended: Epoch::default(),
            leading: None,
            watched: BTreeMap::new(),
            behind: None,
            promoted: BTreeMap::new(),
            ticks,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<MemberMsg>,
        msg: MemberMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            MemberMsg::Beat => self.beat(&me, state),
            MemberMsg::Look => self.look(state),
            MemberMsg::Changed => self.changed(&me, state),
            MemberMsg::Ended(epoch) => self.ended(&me, epoch, state),
            MemberMsg::Report(from, report, port) => self.report(from, &report, port, state),
            MemberMsg::Answered(answer) => self.answered(&answer, state),
            MemberMsg::Quorum(began) => state.watchdog.quorum(began),
            MemberMsg::Evidence(evidence) => self.evidence(&me, evidence, state),
        }
        Ok(())
    }
}

impl Member {
    /// Watches the control state and its group's leader.
    fn follow(&self, me: &ActorRef<MemberMsg>) -> AbortHandle {
        let (me, mut applied, mut status) = (me.clone(), self.control.replica.changes(), self.control.group.watch());
        let following = async move {
            let mut before = None;
            loop {
                let now = status.status();
                // The leader takes office when an entry of its own term is applied.
                let known = (now.leader, now.term, now.role, now.has_applied_own_term());
                if before.replace(known) != Some(known) && me.send_message(MemberMsg::Changed).is_err() {
                    return;
                }
                tokio::select! {
                    changed = applied.changed() => {
                        if changed.is_err() || me.send_message(MemberMsg::Changed).is_err() {
                            return;
                        }
                    }
                    alive = status.changed() => if !alive { return },
                }
            }
        };
        self.tasks().spawn_abortable("member.follow", following)
    }

    fn tasks(&self) -> &Tasks {
        self.router.tasks()
    }

    fn me(&self) -> NodeId {
        self.router.view.me
    }

    fn beat(&self, me: &ActorRef<MemberMsg>, state: &mut State) {
        let status = self.control.group.status();
        if state.leading.is_some() {
            self.prove_quorum(me);
        }
        let Some(leader) = status.leader else { return };
        state.seq += 1;
        state.lease.sent(state.seq, clock::boot_ms());
        let beat = Beat { node: self.me(), seq: state.seq, applied: state.ended };
        let report = Report { beat, incarnation: self.incarnation, leads: self.leads.led_by(self.me()) };
        if leader == self.me() {
            let answer = self.judge(&report, state);
            return self.answered(&answer, state);
        }
        let (me, router, limit) = (me.clone(), self.router.clone(), self.config.lease);
        let beating = async move {
            let body = postcard::to_allocvec(&report).unwrap_or_default();
            // No answer is an answer too: the lease runs out.
            if let Ok(answer) = router.call(leader, BEAT, &body, limit).await
                && let Ok(answer) = postcard::from_bytes(&answer)
            {
                let _ = me.send_message(MemberMsg::Answered(answer));
            }
        };
        self.tasks().spawn("beat", beating).detach();
    }

    fn prove_quorum(&self, me: &ActorRef<MemberMsg>) {
        let (me, group, began) = (me.clone(), self.control.group.clone(), clock::boot_ms());
        let proving = async move {
            if group.barrier().await.is_ok() {
                let _ = me.send_message(MemberMsg::Quorum(began));
            }
        };
        self.tasks().spawn("quorum", proving).detach();
    }

    fn report(&self, from: NodeId, report: &Report, port: WirePort, state: &mut State) {
        if report.beat.node != from {
            tracing::warn!(%from, claimed = %report.beat.node, "a member speaks for another");
            return;
        }
        let answer = self.judge(report, state);
        port.complete(Ok(&answer));
    }

    fn judge(&self, report: &Report, state: &mut State) -> Answer {
        let now = clock::boot_ms();
        self.leads.learn(&report.leads, &self.router);
        let ack = state.watchdog.beat(report.beat, now);
        if state.leading.is_some() {
            self.promote(report, now, state);
        }
        Answer { ack, leads: self.leads.all() }
    }

    /// A member that beats, has the membership, and is not `Up` becomes so.
    fn promote(&self, report: &Report, now: u64, state: &mut State) {
        let node = report.beat.node;
        let waits = self.control.replica.read(|control| {
            let member = control.member(node).filter(|member| member.incarnation == report.incarnation)?;
            let waits = matches!(member.state, MemberState::Joining | MemberState::Down);
            (waits && report.beat.applied.0 >= control.epoch()).then_some(member.state)
        });
        let asked = state.promoted.get(&node).is_some_and(|asked| now.saturating_sub(*asked) < PATIENCE_MS);
        if waits.is_none() || asked {
            return;
        }
        state.promoted.insert(node, now);
        let up = ControlCommand::SetState {
            node,
            state: MemberState::Up,
            incarnation: report.incarnation,
            up_epoch: None,
            now_ms: clock::unix_ms(),
            reason: "beats".to_owned(),
        };
        self.propose(up);
    }

    fn propose(&self, command: ControlCommand) {
        let control = self.control.clone();
        let proposing = async move {
            match control.decide(command).await {
                Ok(_) | Err(DecideError::Refused(ControlRefused::Damped { .. })) => {}
                Err(error) => tracing::debug!(%error, "membership not changed"),
            }
        };
        self.tasks().spawn("member.propose", proposing).detach();
    }

    fn answered(&self, answer: &Answer, state: &mut State) {
        self.leads.learn(&answer.leads, &self.router);
        let Some(ack) = answer.ack else { return };
        let view = &self.router.view;
        let (held, before) = (view.holds_lease(), state.lease.settled());
        if let Some(until) = state.lease.acked(ack) {
            view.extend_lease(until);
            view.acked(state.lease.begun(until));
        }
        view.settle(state.lease.settled().0);
        if !held || state.lease.settled() != before {
            self.router.tell_news();
        }
    }

    fn look(&self, state: &mut State) {
        let now = clock::boot_ms();
        Self::complain(now, state);
        for Fault { node, joined, why } in state.watchdog.due(now) {
            let incarnation =
                self.control.replica.read(|control| control.member(node).map(|member| member.incarnation));
            let Some(incarnation) = incarnation else { continue };
            let reason = match why {
                Why::Silent { ms } => format!("silent for {ms} ms"),
                Why::Refused => "its process has ended".to_owned(),
            };
            tracing::warn!(%node, reason, "node is down");
            self.propose(ControlCommand::SetState {
                node,
                state: MemberState::Down,
                incarnation,
                up_epoch: Some(joined.0),
                now_ms: clock::unix_ms(),
                reason,
            });
        }
    }

    /// What moved at an epoch waits for members that do not report it: a person should know which.
    fn complain(now: u64, state: &mut State) {
        let Some(node) = state.watchdog.behind().next() else {
            state.behind = None;
            return;
        };
        let (since, told) = state.behind.get_or_insert((now, false));
        if !*told && now.saturating_sub(*since) > BEHIND_MS {
            *told = true;
            tracing::warn!(%node, "does not follow the membership; keys that moved wait for it");
        }
    }

    fn changed(&self, me: &ActorRef<MemberMsg>, state: &mut State) {
        let epoch = self.router.reassign(state.applied);
        if epoch != state.applied {
            state.applied = epoch;
            let ending: Vec<_> = self.kinds.iter().map(|kind| kind.rehome()).collect();
            let me = me.clone();
            let ended = async move {
                futures::future::join_all(ending).await;
                let _ = me.send_message(MemberMsg::Ended(Epoch(epoch)));
            };
            self.tasks().spawn("rehome", ended).detach();
        }
        self.lead(me, state);
        self.sync_watchdog(state);
    }

    fn ended(&self, me: &ActorRef<MemberMsg>, epoch: Epoch, state: &mut State) {
        if epoch > state.ended {
            state.ended = epoch;
            // Others wait for this report before they act for what moved to them.
            self.beat(me, state);
        }
    }

    /// Takes office, or leaves it.
    fn lead(&self, me: &ActorRef<MemberMsg>, state: &mut State) {
        let status = self.control.group.status();
        let leads = status.role == Role::Leader && status.leader == Some(self.me());
        if !leads {
            if state.leading.take().is_some() {
                state.watchdog.deposed();
                state.watched.clear();
            }
            return;
        }
        if state.leading == Some(status.term) {
            return;
        }
        // Everything of its predecessors is applied once an entry of its own term is.
        if !status.has_applied_own_term() {
            return;
        }
        let (epoch, members) = self.members();
        state.watched = members.clone();
        state.watchdog.elected(clock::boot_ms(), Epoch(epoch), members);
        for node in state.watched.keys().filter(|node| **node != self.me() && self.router.lane(**node).is_none()) {
            state.watchdog.link_closed(*node);
            // Refusals of before its election do not count.
            (self.probe)(*node);
        }
        state.leading = Some(status.term);
        tracing::info!(term = status.term, "leads the cluster");
        self.beat(me, state);
    }

    /// Members that may act, with the epochs at which they became `Up`.
    fn members(&self) -> (u64, BTreeMap<NodeId, Epoch>) {
        self.control.replica.read(|control| {
            let act = |state| matches!(state, MemberState::Up | MemberState::Draining);
            let acting = control.members().filter(|member| act(member.state));
            (control.epoch(), acting.map(|member| (member.record.id, Epoch(member.up_epoch))).collect())
        })
    }

    fn sync_watchdog(&self, state: &mut State) {
        if state.leading.is_none() {
            return;
        }
        let (epoch, members) = self.members();
        let now = clock::boot_ms();
        for node in state.watched.keys().filter(|node| !members.contains_key(node)) {
            state.watchdog.forget(*node);
        }
        for (node, since) in &members {
            if state.watched.get(node) != Some(since) {
                state.watchdog.joined(*node, *since, now);
            }
        }
        state.watched = members;
        state.watchdog.applied(Epoch(epoch));
    }

    fn evidence(&self, me: &ActorRef<MemberMsg>, evidence: Evidence, state: &mut State) {
        match evidence {
            // The leader should hear of a node that starts at once.
            Evidence::Up(_) => self.beat(me, state),
            Evidence::Closed(node) => state.watchdog.link_closed(node),
            Evidence::Refused(node, dialled) => {
                state.watchdog.dial_refused(node, dialled);
                self.look(state);
            }
        }
    }
}

/// Takes beats to the actor.
pub(crate) struct BeatService(pub(crate) MemberRef);

impl Service for BeatService {
    fn serve(&self, from: NodeId, _: &str, body: Bytes, port: Option<WirePort>) {
        let (Some(port), Ok(report)) = (port, postcard::from_bytes(&body)) else { return };
        tell(&self.0, MemberMsg::Report(from, report, port));
    }
}
