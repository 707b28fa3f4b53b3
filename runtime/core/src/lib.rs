//! The actor kit of AI Village: a thin typed layer on `ractor`.
//!
//! A user writes a plain [`Actor`] whose message is [`Mail<Body>`](Mail), names it with [`Kind`], hosts it with
//! [`Village::builder`], and talks to it through [`Addr`]: `tell` and `ask`, each with deadline, trace, principal and
//! optional idempotency key.
//!
//! | look for | in |
//! |---|---|
//! | starting, hosting, draining a node | [`village`] |
//! | addresses, asks, tells | [`addr`], [`mail`] |
//! | activation, crash, passivation of one key | `kind_host`, `entry` |
//! | OTP supervision | [`supervisor`] |
//! | durable state | [`store`], [`durable`], [`blob`] |
//! | what a node makes of replicated events | [`replica_view`] |
//! | which node owns which key | [`placement`] |
//! | members, join tokens, small shared state | [`control`] |
//! | which nodes vote in which Raft group | `groups` |
//! | replicated logs | `raft` |
//! | the node as part of a cluster | [`cluster`] |
//! | messages callable from outside | [`registry`] |
//! | live events | [`topic`] |
//! | a node's key, joining, streams between nodes | [`identity`], [`join`], [`transport`] |
//! | who belongs to the cluster, who may act | `membership` |
//! | configuration, logs, metrics, traces | [`config`], [`telemetry`] |

mod actor_cx;
pub mod addr;
pub mod blob;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
mod copies;
mod dead_letters;
mod directory;
pub mod durable;
mod entry;
pub mod error;
mod groups;
pub mod history;
mod home;
mod hosted;
mod hosted_kind;
pub mod identity;
mod inbox;
pub mod join;
pub mod kind;
mod kind_host;
mod link;
pub mod mail;
mod mailbox;
mod membership;
mod node_id;
pub mod placement;
pub mod principal;
mod raft;
pub mod registry;
pub mod replica_view;
mod router;
pub mod secret_file;
pub mod store;
pub mod supervision;
pub mod supervisor;
pub mod task;
pub mod telemetry;
pub mod testing;
pub mod topic;
pub mod trace_cx;
pub mod transport;
pub mod village;
mod wire;

pub use ractor::{Actor, ActorProcessingErr, ActorRef};
/// For programs that also have plain `ractor` actors: in a [clustered](VillageBuilder::clustered) node these and their process
/// groups (`ractor::pg`) reach the other nodes, if their messages derive `ractor_cluster::RactorClusterMessage`. The derive wants
/// `ractor` among the program's own dependencies.
///
/// A message that goes to another node has less than 64 KiB: one that is larger ends the session with that node, and so does
/// the announcement of more than some 4,000 such actors at once. Nobody vouches for its sender but as a member of the cluster.
#[doc(no_inline)]
pub use {ractor, ractor_cluster};

pub use actor_cx::ActorCx;
pub use addr::{Addr, Call};
pub use cluster::{Cluster, ClusterStatus, DecideError};
pub use dead_letters::DeadLetter;
pub use durable::{Durable, Entity};
pub use error::{AppError, CallError, Refusal};
pub use history::{Happening, What};
pub use hosted_kind::{ActorInfo, CallOptions, KindInfo};
pub use identity::{Identity, IdentityError, PublicKey};
pub use join::{JoinToken, JoinUrl};
pub use kind::{Durability, Kind, KindOptions, Overflow, Placement};
pub use mail::{Idem, Mail, MsgCx, Reply, Wire};
pub use node_id::{NodeId, Run};
pub use placement::{Labels, SlotId};
pub use principal::{Principal, PrincipalKind};
pub use registry::{Expose, MessageInfo, SchemaError};
pub use replica_view::ReplicaView;
pub use store::{Batch, Level, Store, StoreError, TreeId};
pub use supervision::Supervised;
pub use task::{TaskError, TaskHandle};
pub use telemetry::MetricSet;
pub use topic::{EventId, Topic, TopicItem};
pub use trace_cx::TraceCx;
pub use village::{Health, ShutdownError, StartError, Village, VillageBuilder};
pub use wire::Codec;
