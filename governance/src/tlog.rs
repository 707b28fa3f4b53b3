//! The transparency log: what happened on a node, in an order that nobody can change unnoticed.
//!
//! A log is a folder of static files that any C2SP client reads: tiles of a Merkle tree (RFC 6962 hashing), bundles of entries,
//! and a checkpoint, signed by the node and cosigned by other nodes. A [`TlogProof`] is checked offline, with keys alone.
//!
//! | look for | in |
//! |---|---|
//! | hashes, roots, proofs: pure | [`Hash`], [`Frontier`], [`tree`] |
//! | signed notes, checkpoints, cosignatures, proof files | [`note`], [`Checkpoint`], [`TlogProof`] |
//! | what an entry says, pseudonyms | [`entry`] |
//! | the log on disk, its recovery, its audit | [`Log`], [`audit`](mod@audit) |

pub mod audit;
mod bundle;
mod checkpoint;
mod edge;
pub mod entry;
mod error;
mod files;
mod hash;
mod log;
pub mod note;
mod path;
mod pending;
mod proof;
mod request;
mod signed;
pub mod tree;

pub use audit::{AuditKeys, AuditReport, Finding, audit};
pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use entry::{Decision, Entry, EntryError, Event, LogKey, Payload, Pseudonym};
pub use error::LogError;
pub use files::{Disk, Files};
pub use hash::Hash;
pub use log::Log;
pub use note::{BadNote, Cosigner, LogSigner, Note, SignatureLine, VerifierKey};
pub use path::TilePath;
pub use proof::{ProofError, TlogProof, TrustPolicy, Verified};
pub use request::{AddCheckpoint, Refusal};
pub use tree::{BadProof, Frontier};
