//! HyperRAG: documents in, cited passages out.

pub mod chunk;
pub mod dedup;
pub mod document;
pub mod error;
pub mod language;
pub mod normalize;
pub mod ingest;
pub mod journal;
pub mod lexical;
pub mod question;
