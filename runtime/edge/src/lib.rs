//! The HTTP door: HTTP to actor message and back.
//!
//! Thin is the rule: a handler parses, authorises, makes one actor call and maps the reply. No business state lives here.
//!
//! | look for | in |
//! |---|---|
//! | starting, listening, draining | [`Edge`], `server` |
//! | what every request passes | `pipeline` and its layers; `record` writes the transparency log |
//! | the route table and the handlers | `routes` |
//! | errors and their codes | [`error`] |
//! | the admin key | `auth` |
//! | the actors the edge owns, where they keep records | [`idem`], [`job`], `shelf` |
//! | server-sent events, turns of agents | `live`, `turn` |
//! | the OpenAI shapes | `openai` |
//! | the OpenAPI document | `openapi` |

mod auth;
pub mod config;
mod cursor;
mod door;
pub mod error;
pub mod idem;
pub mod job;
mod live;
mod metrics;
mod openai;
mod openapi;
mod pipeline;
mod routes;
mod server;
mod shelf;
mod turn;

pub use config::EdgeConfig;
pub use error::EdgeError;
pub use idem::AnswerData;
pub use job::JobData;
pub use server::{Edge, RunningEdge};

use aivillage_runtime::{ActorCx, VillageBuilder};

/// Hosts the kinds that the edge owns; a village that an [`Edge`] is started on must have been built with this. What they keep
/// about people is erased with [`AnswerData`] and [`JobData`].
pub fn install(builder: VillageBuilder) -> VillageBuilder {
    builder
        .host(|_: &ActorCx| job::JobActor)
        .host(|_: &ActorCx| job::Worker)
        .host(|_: &ActorCx| job::JobTable)
        .host(|_: &ActorCx| idem::Idem)
}
