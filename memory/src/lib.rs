//! `HyperRAG`: documents in, cited passages out.
//!
//! A [`Memory`] puts documents into collections, and answers questions with passages of them: verbatim, with their place
//! in the stored text, and with a judgement of whether they answer the question at all.
//!
//! | look for | in |
//! |---|---|
//! | the actors | [`shard`], [`retriever`], [`registry`], [`ingest::actor`] |
//! | files to documents | [`ingest`] |
//! | documents to chunks, copies | [`normalize`](mod@normalize), [`chunk`], [`dedup`], [`prepare`](mod@prepare) |
//! | what is durable, and what of it is sealed | [`journal`] |
//! | what it has of a person, and that it goes | [`erasure`], [`shard`] |
//! | what is searched | [`lexical`], [`language`], [`question`] |
//! | whether there is an answer | [`evidence`] |
//!
//! The journal is the truth; the index is derived from it, says how far it has come, and can be thrown away.

pub mod chunk;
pub mod config;
pub mod context;
pub mod dedup;
pub mod document;
pub mod erasure;
pub mod error;
pub mod evidence;
mod front;
pub mod ingest;
pub mod journal;
pub mod language;
pub mod lexical;
pub mod metrics;
pub mod names;
pub mod normalize;
pub mod prepare;
pub mod question;
pub mod registry;
pub mod retriever;
pub mod shard;
pub mod trust;

pub use config::MemoryConfig;
pub use context::{Context, Coverage, Gap, GapKind, Mode, Parts, Passage, Query};
pub use document::{
    CollectionStats, DEFAULT_COLLECTION, DEFAULT_TENANT, Delete, DeleteReport, Document, DocumentView, Format,
    GetDocument, Metadata, Put, PutReport, PutResult, PutStatus, RawDocument, WaitFor,
};
pub use erasure::MemoryData;
pub use error::MemoryError;
pub use front::{Memory, install};
