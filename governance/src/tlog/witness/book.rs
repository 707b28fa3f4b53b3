//! What a witness knows: the latest checkpoint of each log, on disk before a cosignature leaves. No actor, no clock.
//!
//! | file | holds |
//! |---|---|
//! | `latest/<SHA-256 of the origin>` | the checkpoint it cosigned last |
//! | `evidence/<SHA-256 of both>` | two signed checkpoints of one size with different roots |

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::super::checkpoint::{BadCheckpoint, Checkpoint};
use super::super::error::LogError;
use super::super::files::{DRAFT, Disk, Files, folder, replace};
use super::super::note::{BadNote, Cosigner, Note, SignatureLine, VerifierKey};
use super::super::request::{AddCheckpoint, Refusal};
use super::super::tree::verify_consistency;

const LATEST: &str = "latest";
const EVIDENCE: &str = "evidence";
/// Pairs that are kept: one convicts a log, more only fill the disk.
const MAX_EVIDENCE: usize = 64;

/// Why a checkpoint is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The book cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Two checkpoints that one log signed and that cannot both be true: whoever has its key can check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The one that was cosigned.
    pub ours: Note,
    /// The other.
    pub theirs: Note,
}

/// The latest checkpoints a witness has cosigned.
pub struct Book<F: Files = Disk> {
    files: F,
    cosigner: Cosigner,
    /// Keys of the logs by origin.
    logs: BTreeMap<String, VerifierKey>,
    latest: BTreeMap<String, (Checkpoint, Note)>,
}

impl<F: Files> std::fmt::Debug for Book<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Book({}, {} logs)", self.cosigner.public().name(), self.logs.len())
    }
}

impl<F: Files> Book<F> {
    /// Opens the book in a folder, for the logs with these keys.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when a checkpoint in it does not hold what was written: restore it, for without it a log that forks
    /// would go unnoticed. [`LogError::Io`].
    pub fn open(files: F, cosigner: Cosigner, logs: Vec<VerifierKey>) -> Result<Self, LogError> {
        let logs = logs.into_iter().map(|key| (key.name().to_owned(), key)).collect();
        let mut book = Self { files, cosigner, logs, latest: BTreeMap::new() };
        let names = book.files.list(LATEST).map_err(|e| LogError::io("list", LATEST, &e))?;
        for name in names.into_iter().filter(|name| !name.ends_with(DRAFT)) {
            let note = book.read(&name)?;
            let body: Checkpoint = note.text().parse().map_err(|e: BadCheckpoint| damaged(&name, &e))?;
            if latest(&body.origin) != name {
                return Err(damaged(&name, &"it is of another log than its name says"));
            }
            // Our own cosignature is on it: it vouches for the file also when the log is known no more.
            note.verify([book.cosigner.public()]).map_err(|e| damaged(&name, &e))?;
            book.latest.insert(body.origin.clone(), (body, note));
        }
        Ok(book)
    }

    fn read(&self, name: &str) -> Result<Note, LogError> {
        let bytes = self.files.read(name).map_err(|e| LogError::io("read", name, &e))?;
        let text = String::from_utf8(bytes).map_err(|e| damaged(name, &e))?;
        text.parse().map_err(|e: BadNote| damaged(name, &e))
    }

    /// The key of the cosignatures.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        self.cosigner.public()
    }

    /// Takes a log in, or its new key.
    pub fn trust(&mut self, key: VerifierKey) {
        self.logs.insert(key.name().to_owned(), key);
    }

    /// The latest checkpoint of a log.
    #[must_use]
    pub fn latest(&self, origin: &str) -> Option<&Checkpoint> {
        self.latest.get(origin).map(|(body, _)| body)
    }

    /// Cosigns a checkpoint that extends the latest one. C2SP tlog-witness, "add-checkpoint".
    ///
    /// # Errors
    /// [`BookError::Refused`] with the reason that the specification names; [`BookError::Log`] when the book cannot be written:
    /// no cosignature was made then.
    pub fn add(&mut self, request: &AddCheckpoint, unix_s: u64) -> Result<SignatureLine, BookError> {
        let bad = |detail: &str| Refusal::BadRequest { detail: detail.to_owned() };
        let body: Checkpoint = request.note.text().parse().map_err(|e: BadCheckpoint| bad(&e.to_string()))?;
        let key = self.logs.get(&body.origin).ok_or(Refusal::UnknownOrigin)?;
        request.note.verify([key]).map_err(|_| Refusal::BadSignature)?;
        if request.old > body.size {
            return Err(bad("the old size is above that of the checkpoint").into());
        }
        let known = self.latest.get(&body.origin);
        let (size, root) = known.map_or((0, None), |(known, _)| (known.size, Some(known.root)));
        if size == body.size && root.is_some_and(|root| root != body.root) {
            self.convict(&body.origin, &request.note)?;
            return Err(Refusal::Conflict { size }.into());
        }
        if request.old != size {
            return Err(Refusal::Conflict { size }.into());
        }
        let root = root.unwrap_or_else(super::super::hash::Hash::empty);
        verify_consistency(&request.proof, size, root, body.size, body.root).map_err(|_| Refusal::BadProof)?;
        let line = self.cosigner.cosign(request.note.text(), unix_s);
        let mut note = request.note.clone();
        note.add(line.clone());
        self.write(&latest(&body.origin), &note.to_string())?;
        self.latest.insert(body.origin.clone(), (body, note));
        Ok(line)
    }

    /// Keeps the proof that a log has two histories.
    fn convict(&mut self, origin: &str, theirs: &Note) -> Result<(), LogError> {
        tracing::error!(log = origin, "a log has signed two histories");
        let Some((_, ours)) = self.latest.get(origin) else { return Ok(()) };
        let pair = format!("{ours}\n{theirs}");
        let name = format!("{EVIDENCE}/{}", name(&pair));
        let kept = self.files.list(EVIDENCE).map_err(|e| LogError::io("list", EVIDENCE, &e))?;
        if kept.contains(&name) || kept.len() >= MAX_EVIDENCE {
            return Ok(());
        }
        self.write(&name, &pair)
    }

    fn write(&mut self, name: &str, text: &str) -> Result<(), LogError> {
        let written = replace(&mut self.files, name, text.as_bytes()).and_then(|()| self.files.sync_dir(folder(name)));
        written.map_err(|e| LogError::io("write", name, &e))
    }

    /// Pairs of checkpoints of one log that cannot both be true.
    ///
    /// # Errors
    /// [`LogError::Damaged`], [`LogError::Io`].
    pub fn evidence(&self) -> Result<Vec<Evidence>, LogError> {
        let names = self.files.list(EVIDENCE).map_err(|e| LogError::io("list", EVIDENCE, &e))?;
        let read = |file: &String| {
            let bytes = self.files.read(file).map_err(|e| LogError::io("read", file, &e))?;
            let text = String::from_utf8(bytes).map_err(|e| damaged(file, &e))?;
            pair(&text).filter(|_| file.ends_with(&name(&text))).ok_or_else(|| damaged(file, &"it holds no pair"))
        };
        names.iter().filter(|name| !name.ends_with(DRAFT)).map(read).collect()
    }
}

/// Two notes with an empty line between them, which follows the signatures of the first.
fn pair(text: &str) -> Option<Evidence> {
    let (at, _) = text.match_indices("\n\n").nth(1)?;
    Some(Evidence { ours: text[..=at].parse().ok()?, theirs: text[at + 2..].parse().ok()? })
}

fn name(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

fn latest(origin: &str) -> String {
    format!("{LATEST}/{}", name(origin))
}

fn damaged(file: &str, what: &dyn std::fmt::Display) -> LogError {
    LogError::damaged(file, 0, &what.to_string())
}

#[cfg(test)]
mod tests;
