//! The transparency log: what happened on a node, in an order that nobody can change unnoticed.
//!
//! A log is a folder of static files that any C2SP client reads: tiles of a Merkle tree (RFC 6962 hashing), bundles of entries,
//! and a checkpoint, signed by the node and cosigned by other nodes. A [`TlogProof`] is checked offline, with keys alone.
//!
//! | look for | in |
//! |---|---|
//! | hashes, roots, proofs: pure | [`struct@Hash`], [`Frontier`], [`tree`] |
//! | signed notes, checkpoints, cosignatures, proof files | [`note`], [`Checkpoint`], [`TlogProof`] |
//! | what an entry says, pseudonyms | [`entry`] |
//! | the log on disk, its recovery, its audit | [`Log`], [`audit`](mod@audit) |
//! | appending from this process | [`LogHandle`] |
//! | the log of a node: its folder and its keys | [`Home`] |
//! | the log as an actor | [`AuditLog`] |
//! | cosigning for other nodes | [`Book`], [`Witness`] |

pub mod audit;
mod audit_log;
mod board;
mod bundle;
mod checkpoint;
mod cosign;
mod edge;
pub mod entry;
mod error;
mod files;
mod handle;
mod hash;
mod home;
mod install;
mod log;
mod metrics;
pub mod note;
mod path;
mod patrol;
mod peers;
mod pending;
mod proof;
mod request;
mod signed;
pub mod tree;
mod witness;
mod writer;

pub use audit::{AuditKeys, AuditReport, Finding, audit};
pub use audit_log::{AuditLog, AuditLogMsg};
pub use board::{BOARD, Board, BoardMsg, Posted};
pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use entry::{Decision, Entry, EntryError, Event, LogKey, Payload, Pseudonym};
pub use error::LogError;
pub use files::{Disk, Files};
pub use handle::{Ack, Entries, LogHandle, LogStatus, MAX_READ, Place, Receipt, TlogConfig};
pub use hash::Hash;
pub use home::{Home, HomeError};
pub use install::{begin, install};
pub use log::Log;
pub use note::{BadNote, Cosigner, LogSigner, Note, SignatureLine, VerifierKey};
pub use path::TilePath;
pub use proof::{ProofError, TlogProof, TrustPolicy, Verified};
pub use request::{AddCheckpoint, Refusal};
pub use tree::{BadProof, Frontier};
pub use witness::{Answer, Book, BookError, Evidence, Witness, WitnessMsg};
