//! What makes a plain `ractor::Actor` addressable: a [`Kind`] and its options.

use std::time::Duration;

use crate::mail::Wire;
use crate::placement::Labels;
use crate::supervisor::RestartPolicy;
use crate::wire::Codec;

/// Longest kind name in bytes.
pub const KIND_NAME_MAX: usize = 64;
/// Longest key in bytes.
pub const KEY_MAX: usize = 512;

/// A kind of actor: a name and a message type. Addresses need only this; hosting also needs the `ractor::Actor`.
pub trait Kind: Send + Sync + 'static {
    /// Dotted lower-case name, at most [`KIND_NAME_MAX`] bytes; `sys.` is reserved for the runtime.
    const NAME: &'static str;
    /// What it understands.
    type Body: Wire;
    /// Version of `Body`; raise it when an older reader would misread.
    const VERSION: u16 = 1;
    /// How `Body` and its answers are written when they go to another node.
    const CODEC: Codec = Codec::Named;

    /// How activations of this kind are run.
    #[must_use]
    fn options() -> KindOptions {
        KindOptions::default()
    }
}

/// What happens to a message that finds the mailbox full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The sender gets `Overloaded` at once.
    #[default]
    Reject,
    /// The sender waits for room until its deadline.
    Wait,
    /// The message is dropped and counted; the sender of a `tell` hears nothing.
    DropNewest,
}

/// Where the state of a kind lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// In memory: lost when the activation ends.
    #[default]
    None,
    /// In one node's store: survives `kill -9` and power loss; out of reach while that node is away. In a village of many
    /// nodes that is the oldest member that hosts the kind.
    Local,
    /// In the stores of a group of nodes: survives the loss of a minority of them too. The actor lives on the group's leader.
    /// In a village of one node it is kept as `Local`.
    Replicated,
}

/// On which nodes the keys of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Spread over all nodes that may host the kind.
    #[default]
    Spread,
    /// All keys together on one node.
    Singleton,
    /// Each node has its own; messages stay on the sender's node.
    PerNode,
}

/// How activations of a kind are run.
#[derive(Debug, Clone)]
pub struct KindOptions {
    /// Messages that may wait, the one in hand included; `None` takes `limits.mailbox`.
    pub mailbox: Option<u32>,
    /// What happens beyond that.
    pub overflow: Overflow,
    /// An activation without mail for this long is stopped; `None` never.
    pub idle: Option<Duration>,
    /// How crashes of one key are answered; `None` takes `[supervise]`.
    pub restart: Option<RestartPolicy>,
    /// Where its state lives.
    pub durable: Durability,
    /// On which nodes it lives.
    pub placement: Placement,
    /// Labels that a node must have to host it.
    pub require: Labels,
    /// Labels that make a node more likely to host it.
    pub prefer: Labels,
    /// How long a stopping activation may finish its mailbox.
    pub drain: Duration,
}

impl Default for KindOptions {
    fn default() -> Self {
        Self {
            mailbox: None,
            overflow: Overflow::Reject,
            idle: Some(Duration::from_mins(10)),
            restart: None,
            durable: Durability::None,
            placement: Placement::Spread,
            require: Labels::new(),
            prefer: Labels::new(),
            drain: Duration::from_secs(10),
        }
    }
}

impl KindOptions {
    /// Sets the mailbox bound.
    #[must_use]
    pub fn mailbox(mut self, bound: u32) -> Self {
        self.mailbox = Some(bound);
        self
    }

    /// Sets what happens when the mailbox is full.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the idle time after which an activation is stopped; `None` never.
    #[must_use]
    pub fn idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// Sets how crashes are answered.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = Some(policy);
        self
    }

    /// Declares where the state lives.
    #[must_use]
    pub fn durable(mut self, durable: Durability) -> Self {
        self.durable = durable;
        self
    }

    /// Sets on which nodes it lives.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Adds a label that a node must have to host it.
    #[must_use]
    pub fn require(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.require.insert(label.into(), value.into());
        self
    }

    /// Adds a label that makes a node more likely to host it.
    #[must_use]
    pub fn prefer(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.prefer.insert(label.into(), value.into());
        self
    }

    /// Sets how long a stopping activation may finish its mailbox.
    #[must_use]
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }
}
