//! AI Village as one crate: write an actor, host it, talk to it; or start the whole village inside your program.
//!
//! An actor is a plain [`ractor`] actor whose message is [`Mail`](prelude::Mail). [`Kind`](prelude::Kind) names it, the builder
//! hosts it, and an [`Addr`](prelude::Addr) reaches it by kind and key, wherever it lives:
//!
//! ```
#![doc = include_str!("../../../examples/embed_an_actor.rs")]
//! ```
//!
//! [`full`] adds governance, memory, agents and the HTTP edge; [`VillageExt`] is the short way to them:
//!
//! ```no_run
//! use aivillage::prelude::*;
//!
//! # async fn demo() -> anyhow::Result<()> {
//! let village = aivillage::full(Village::builder().data_dir("./village-data"))?.start().await?;
//! let answer = village.agent("sage").ask("how do I descale the kettle?").await?;
//! println!("{} {:?}", answer.answer, answer.citations);
//! village.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | crate | is |
//! |---|---|
//! | [`runtime`] | the actor kit: kinds, addresses, supervision, durable state, topics, configuration |
//! | [`memory`] | documents in, cited passages out |
//! | [`actors`] | agents, their tools, planners and providers |
//! | [`governance`] | who may, what passes, what happened: policies, the transparency log |
//! | [`edge`] | HTTP to message and back |

#[doc(hidden)]
pub mod cli;
mod config;
mod full;

pub use aivillage_actors as actors;
pub use aivillage_edge as edge;
pub use aivillage_governance as governance;
pub use aivillage_memory as memory;
pub use aivillage_runtime as runtime;

pub use self::{
    config::Cluster,
    full::{Agent, FullError, LOCAL_TENANT, VillageExt, full, governed},
};

/// What a program that embeds a village needs, in one `use`.
pub mod prelude {
    pub use aivillage_actors::{Answer, AskRequest};
    pub use aivillage_memory::{Context, Document, Memory, Put, Query, WaitFor};
    pub use aivillage_runtime::{
        Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, AppError, CallError, Cluster, Durability, Durable, Entity,
        Idem, Kind, KindOptions, Mail, MsgCx, NodeId, Overflow, Placement, Reply, Village, VillageBuilder,
    };

    pub use crate::full::{Agent, VillageExt};
}
