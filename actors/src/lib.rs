//! The agents of the village: specs, planners, tools and model providers.
//!
//! An agent is a spec file plus shared tools. Asked something, it starts a turn: rules or a model choose a tool or retrieval, and the
//! answer is made of verbatim, cited sentences, or written by a model whose citations are checked.
//!
//! | look for | in |
//! |---|---|
//! | hosting and asking | [`agents`] |
//! | the actors | [`agent`], [`conversation`], [`model`], [`roster`] |
//! | one request from question to answer | `turn` |
//! | what an agent is | [`spec`], `roster/*.toml` |
//! | what it can do | [`tools`] |
//! | what it does next | [`planner`] |
//! | who writes the answer | [`provider`] |
//! | answers, citations, events | [`answer`] |
//! | whose words are in which conversation, whose notes with which agent | [`ConversationData`], [`NoteData`] |
//! | words, sentences, ranking | [`text`], [`rank`] |

pub mod agent;
pub mod agents;
pub mod answer;
pub mod config;
pub mod conversation;
mod corpus;
mod metrics;
pub mod model;
pub mod personal;
pub mod planner;
pub mod provider;
pub mod rank;
pub mod roster;
pub mod spec;
mod spoken;
pub mod text;
pub mod tools;
mod turn;
pub mod wire;

pub use agent::AskRequest;
pub use agents::{Agents, ModelInfo, Setup, install};
pub use answer::{Answer, Citation, Evidence, Finish, Step, TurnEvent};
pub use config::AgentsConfig;
pub use personal::NoteData;
pub use spec::{AgentCard, SpecError};
pub use spoken::{ConversationData, Spoken};
