//! What can be decided by the control group, and what comes of it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::member::{MemberState, NodeRecord};
use super::token::TokenRecord;
use crate::node_id::NodeId;
use crate::placement::BadLabels;

/// The secret that all members know; not shown.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookie(pub [u8; 32]);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// What is fixed when a cluster is founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Names the cluster.
    pub id: u64,
    /// What members show each other.
    pub cookie: Cookie,
    /// Shard groups beside the control group, at least 1.
    pub groups: u8,
    /// Voters that a shard group should have, 1 to 5.
    pub replicas: u8,
}

/// One entry of the control log. Times are Unix milliseconds of the node that proposed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlCommand {
    /// Makes a cluster of one node. Succeeds again with the same cluster id.
    Found {
        /// What is fixed from now on.
        cluster: Cluster,
        /// The first member.
        record: NodeRecord,
        /// Its start.
        incarnation: u64,
        /// Time of the proposal.
        now_ms: u64,
    },
    /// Admits a node that showed a join token. Succeeds again for a member with the same key, whatever the token.
    AddNode {
        /// Which token.
        token_id: u64,
        /// SHA-256 of the secret that was shown.
        secret_hash: [u8; 32],
        /// The node.
        record: NodeRecord,
        /// Time of the proposal.
        now_ms: u64,
    },
    /// A member says what it is now: after a restart, with a new address, or with other kinds.
    UpdateNode {
        /// The member; its id and key stay.
        record: NodeRecord,
        /// Its start; a higher one than known makes it `Joining`.
        incarnation: u64,
        /// Time of the proposal.
        now_ms: u64,
    },
    /// Moves a member on in its life.
    SetState {
        /// Which member.
        node: NodeId,
        /// Where to.
        state: MemberState,
        /// The start that this is about; another one has nothing to do with it.
        incarnation: u64,
        /// The [`Member::up_epoch`](super::Member::up_epoch) that this is about, if only that: a late end must not hit a
        /// node that came back meanwhile.
        up_epoch: Option<u64>,
        /// Time of the proposal.
        now_ms: u64,
        /// Shown to operators.
        reason: String,
    },
    /// Forgets a member; it must join anew.
    RemoveNode {
        /// Which member.
        node: NodeId,
        /// Also when it is not `Down`.
        force: bool,
    },
    /// Lets nodes join. Succeeds again with the same id and hash, and changes nothing then.
    CreateToken {
        /// The token.
        token: TokenRecord,
        /// Time of the proposal.
        now_ms: u64,
    },
    /// Ends a join token.
    RevokeToken {
        /// Which token.
        id: u64,
    },
    /// Writes a small value.
    Put {
        /// Its name.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The version that must be current, 0 for a key that must not exist; `None` writes in any case.
        expect: Option<u64>,
    },
    /// Deletes a small value. Deleting what is not there succeeds.
    Delete {
        /// Its name.
        key: String,
        /// As with `Put`.
        expect: Option<u64>,
    },
    /// A command of an upper crate's machine.
    Machine {
        /// Which machine.
        ns: String,
        /// What only that machine reads.
        command: Vec<u8>,
        /// Time of the proposal.
        now_ms: u64,
    },
}

/// What a command that was carried out returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlReply {
    /// Nothing more to say.
    Done,
    /// The version of the value that was written.
    Version(u64),
    /// The member went down too often: it is `Joining`, and may be `Up` from this time on.
    Held {
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// What the machine answered.
    Machine(Vec<u8>),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ControlRefused {
    /// There is no cluster yet.
    #[error("no cluster has been founded")]
    NotFounded,
    /// There is a cluster, and it is another one.
    #[error("cluster {id:016x} has been founded here")]
    AlreadyFounded {
        /// Its id.
        id: u64,
    },
    /// No such token, or another secret.
    #[error("unknown join token")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the join token has expired")]
    TokenExpired,
    /// As many nodes have joined with it as may.
    #[error("the join token has been used up")]
    TokenUsed,
    /// Nobody of that name is a member.
    #[error("node {node} is not a member")]
    NodeUnknown {
        /// The name.
        node: NodeId,
    },
    /// The id belongs to a node or token with another key.
    #[error("the id belongs to another key")]
    IdTaken,
    /// The command is about a start of the node that is not its current one.
    #[error("the node's incarnation is {current}")]
    StaleIncarnation {
        /// The current one.
        current: u64,
    },
    /// A member's life does not go that way.
    #[error("a node cannot become {to} when it is {from}")]
    BadTransition {
        /// What it is.
        from: MemberState,
        /// What it should become.
        to: MemberState,
    },
    /// The node went down too often and must wait before it takes part again.
    #[error("the node went down too often, it is held until {until_ms}")]
    Damped {
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// The node is not `Down`, and removal was not forced.
    #[error("the node is not down: drain it first, or force its removal")]
    NodeUp,
    /// Without the node these groups would have no majority.
    #[error("without the node the groups {groups:?} have no majority of live copies")]
    Stranded {
        /// Numbers of the groups; 0 is the control group.
        groups: Vec<u8>,
    },
    /// A cluster has at least one node.
    #[error("the last node cannot be removed")]
    LastNode,
    /// The value has been written since.
    #[error("the current version is {current}")]
    Conflict {
        /// The current version, 0 when there is no value.
        current: u64,
    },
    /// A part of the command is too large.
    #[error("{what} is too large: the limit is {max} bytes")]
    TooLarge {
        /// Which part.
        what: Cow<'static, str>,
        /// The limit in bytes.
        max: u64,
    },
    /// There are as many as may be.
    #[error("too many {what}: the limit is {max}")]
    Limit {
        /// Of what.
        what: Cow<'static, str>,
        /// The limit.
        max: u64,
    },
    /// The cluster would have no shard groups, or a number of voters out of range.
    #[error("a cluster has at least 1 shard group and 1 to {max_replicas} voters in each")]
    BadCluster {
        /// Most voters of a shard group.
        max_replicas: u8,
    },
    /// A node's labels are over a limit.
    #[error(transparent)]
    BadLabels(#[from] BadLabels),
    /// No machine has that name.
    #[error("no machine is called {ns}")]
    UnknownMachine {
        /// The name.
        ns: String,
    },
}

impl ControlRefused {
    /// Checks a size.
    pub(super) fn if_larger(what: &'static str, size: usize, max: usize) -> Result<(), Self> {
        if size <= max {
            return Ok(());
        }
        Err(Self::TooLarge { what: what.into(), max: u64::try_from(max).unwrap_or(u64::MAX) })
    }

    /// Checks a number.
    pub(super) fn if_more(what: &'static str, count: usize, max: usize) -> Result<(), Self> {
        if count <= max {
            return Ok(());
        }
        Err(Self::Limit { what: what.into(), max: u64::try_from(max).unwrap_or(u64::MAX) })
    }
}
