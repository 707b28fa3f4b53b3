//! Moving leadership on purpose: a hand-off by the leader, and a fast election when the leader is known to be gone.
//!
//! openraft 0.9.25 has no call for it. But a leader does not refresh its own lease, so once it is older than that it
//! grants its vote to a candidate with the same log. With at most three voters the two are a majority. With more the
//! others count too, and they hold on to the leader for as long as they hear from it: so it falls silent for one lease
//! first. An election that is called at the wrong time does harm: it fails, and its higher term takes the leader out of
//! office. Hence the checks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::ServerState;
use tokio::time::Instant;

use super::group::{Group, Role, Status, StatusWatch};
use super::network::{Answer, Elect, Lost, Request};
use super::{decode, encode};
use crate::NodeId;

/// Voters of a group whose leader and its successor are a majority.
const MAX_VOTERS: usize = 3;
/// A lease seen from another node began this much later at most, by the time that a beat takes.
const LEASE_MARGIN: Duration = Duration::from_millis(30);

/// Why the leadership stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOffError {
    /// This node has no leadership to hand off.
    #[error("not the leader of the group")]
    NotLeader(Option<NodeId>),
    /// Elected too recently: this node would refuse its own vote.
    #[error("in office for too short a time, {} ms more are needed", wait.as_millis())]
    TooYoung {
        /// Time until it can.
        wait: Duration,
    },
    /// The leader and its successor are not a majority, and the others hold on to the lease.
    #[error("{0} voters are too many for a hand-off")]
    TooManyVoters(usize),
    /// The successor has no vote, or is this node.
    #[error("the successor is not another voter of the group")]
    NotVoter,
    /// The successor did not get the whole log in time.
    #[error("the successor lags behind")]
    Lagging,
    /// The successor would not stand for election.
    #[error("the successor refused: {0}")]
    Refused(String),
    /// The successor did not answer.
    #[error("the successor did not answer: {0}")]
    Lost(Lost),
    /// It stood for election and was not elected in time.
    #[error("the successor was not elected")]
    NotElected,
    /// The group on this node has ended.
    #[error("the group has stopped")]
    Stopped,
}

impl Group {
    /// Hands the leadership to another voter that has the whole log. Commands wait meanwhile, a few milliseconds when all
    /// is well, and are answered with [`NotLeader`](super::ProposeError::NotLeader) after it. When it fails this node
    /// stays in office, unless the successor stood for election and nobody won it.
    ///
    /// # Errors
    /// See [`HandOffError`].
    pub(crate) async fn hand_off(&self, to: NodeId) -> Result<(), HandOffError> {
        let _office = self.inner.office.lock().await;
        self.may_hand_off(to).await?;
        let voters = self.status().voters.len();
        if voters > MAX_VOTERS {
            return Err(HandOffError::TooManyVoters(voters));
        }
        let _hold = self.inner.intake.hold().await.ok_or(HandOffError::Stopped)?;
        let mut watch = self.watch();
        let status = self.levelled(to, &mut watch).await?;
        self.pass_to(to, &status, &mut watch).await
    }

    /// As [`hand_off`](Self::hand_off), with any number of voters. With more than three commands wait for a lease and a
    /// beat, some two seconds, in which this node says nothing; so this is for a node that has to go.
    ///
    /// # Errors
    /// See [`HandOffError`]; never [`HandOffError::TooManyVoters`].
    pub(crate) async fn resign(&self, to: NodeId) -> Result<(), HandOffError> {
        if self.status().voters.len() <= MAX_VOTERS {
            return self.hand_off(to).await;
        }
        let _office = self.inner.office.lock().await;
        self.may_hand_off(to).await?;
        let _hold = self.inner.intake.hold().await.ok_or(HandOffError::Stopped)?;
        let mut watch = self.watch();
        let passed = async {
            let status = self.levelled(to, &mut watch).await?;
            let _silence = Silence::begin(self);
            // A beat may be on its way for as long as its answer is waited for.
            tokio::time::sleep(self.inner.config.election_max + self.inner.config.answer_limit()).await;
            self.pass_to(to, &status, &mut watch).await
        };
        let passed = passed.await;
        if passed.is_err() {
            // Before the others stand for election themselves. Nothing happens if this node leads no more.
            let _ = self.inner.raft.trigger().heartbeat().await;
        }
        passed
    }

    /// Waits until the successor has the whole log, and with it and this node a majority: nothing more is sent to those
    /// then, and they are enough to elect it.
    async fn levelled(&self, to: NodeId, watch: &mut StatusWatch) -> Result<Status, HandOffError> {
        let me = self.me();
        let is_level = |status: &Status, node: &NodeId| {
            *node == me || status.matched.get(&node.0).is_some_and(|matched| *matched == status.last)
        };
        let level = watch.wait_for(|status| {
            let many = status.voters.iter().filter(|node| is_level(status, node)).count() * 2 > status.voters.len();
            status.role != Role::Leader || (many && is_level(status, &to))
        });
        let status = tokio::time::timeout(self.inner.config.hand_off_limit, level).await;
        let status = status.map_err(|_| HandOffError::Lagging)?;
        if status.role == Role::Leader { Ok(status) } else { Err(HandOffError::NotLeader(status.leader)) }
    }

    /// Has a successor that is level stand for election, and waits until it is elected.
    async fn pass_to(&self, to: NodeId, level: &Status, watch: &mut StatusWatch) -> Result<(), HandOffError> {
        let limit = self.inner.config.hand_off_limit;
        let vote = self.inner.raft.metrics().borrow().vote;
        let request = Request::Elect(Elect { vote, last: level.last });
        let answer = (self.inner.caller)(to, encode(&request).into(), limit).await;
        match answer.map(|body| decode("an answer of a peer", &body)) {
            Ok(Ok(Answer::Standing)) | Err(Lost::Late) => {}
            Ok(Ok(Answer::NotStanding(why))) => return Err(HandOffError::Refused(why)),
            Ok(Ok(_)) => return Err(HandOffError::Refused("an answer to another question".to_owned())),
            Ok(Err(error)) => return Err(HandOffError::Refused(error.to_string())),
            Err(lost) => return Err(HandOffError::Lost(lost)),
        }
        let elected = watch.wait_for(|now| now.term > level.term && now.leader == Some(to));
        let elected = tokio::time::timeout(limit, elected).await;
        elected.map(drop).map_err(|_| HandOffError::NotElected)
    }

    async fn may_hand_off(&self, to: NodeId) -> Result<(), HandOffError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(HandOffError::NotLeader(status.leader));
        }
        if to == self.me() || !status.voters.contains(&to) {
            return Err(HandOffError::NotVoter);
        }
        let elected = self.lease_began().await.ok_or(HandOffError::Stopped)?;
        let wait = (elected + self.inner.config.election_max + LEASE_MARGIN).saturating_duration_since(Instant::now());
        if wait.is_zero() { Ok(()) } else { Err(HandOffError::TooYoung { wait }) }
    }

    /// When this node last heard from the leader it knows, or became it.
    async fn lease_began(&self) -> Option<Instant> {
        let began = self.inner.raft.with_raft_state(openraft::RaftState::vote_last_modified);
        began.await.ok().map(|began| began.unwrap_or_else(Instant::now))
    }

    /// Stands for election because the leader wants it.
    pub(super) async fn stand(&self, from: NodeId, request: Elect) -> Result<(), String> {
        let heard = self.lease_began().await.ok_or_else(|| "the group has stopped".to_owned())?;
        let holds = heard + self.inner.config.election_max >= Instant::now();
        {
            let metrics = self.inner.raft.metrics();
            let now = metrics.borrow();
            let has_vote = now.membership_config.voter_ids().any(|voter| voter == self.me().0);
            if now.vote != request.vote || now.current_leader != Some(from.0) {
                return Err("another leader or term is known here".to_owned());
            }
            if !has_vote || now.state != ServerState::Follower {
                return Err("no voter that follows".to_owned());
            }
            if now.last_log_index != request.last {
                return Err("the log is not the leader's".to_owned());
            }
            if holds && now.membership_config.voter_ids().count() > MAX_VOTERS {
                return Err("the leader's lease is not over, and its vote is not enough".to_owned());
            }
        }
        self.inner.raft.trigger().elect().await.map_err(|e| e.to_string())
    }

    /// Stands for election when `gone`, whose link was just seen to close, is the leader: as soon as its lease is over on
    /// all nodes, and only if nothing was heard of it meanwhile and no entry is missing that it is known to have written.
    /// One node of a group does this, the others rely on their timers. Returns whether it stood.
    pub(crate) async fn elect_if_current(&self, gone: NodeId) -> bool {
        let before = self.status();
        if before.leader != Some(gone) || before.role != Role::Follower {
            return false;
        }
        // Not from when this node last heard of it: another one may have heard later, and would refuse.
        let over = Instant::now() + self.inner.config.election_max + LEASE_MARGIN;
        tokio::time::sleep_until(over).await;
        let Some(heard) = self.lease_began().await else { return false };
        let after = self.status();
        let silent = heard + self.inner.config.election_max < Instant::now();
        let same = after.leader == before.leader && after.term == before.term && after.role == Role::Follower;
        let whole = after.last >= self.inner.server.heard();
        silent && same && whole && self.inner.raft.trigger().elect().await.is_ok()
    }
}

/// While it lives, the leader says nothing to those who have all it has: their lease runs out.
struct Silence<'a>(&'a Group);

impl<'a> Silence<'a> {
    fn begin(group: &'a Group) -> Self {
        group.inner.silent.store(true, Ordering::Release);
        Self(group)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.inner.silent.store(false, Ordering::Release);
    }
}
