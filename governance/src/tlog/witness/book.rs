//! What a witness knows: the latest checkpoint of each log, on disk before a cosignature leaves. No actor, no clock.
//!
//! | file | holds |
//! |---|---|
//! | `latest/<SHA-256 of the origin>` | the checkpoint it cosigned last |
//! | `evidence/<SHA-256 of both>` | two signed checkpoints of one size with different roots |

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::super::checkpoint::{BadCheckpoint, Checkpoint};
use super::super::error::LogError;
use super::super::files::{DRAFT, Disk, Files, folder, replace};
use super::super::note::{BadNote, Cosigner, Note, SignatureLine, VerifierKey};
use super::super::request::{AddCheckpoint, Refusal};
use super::super::tree::verify_consistency;
use super::evidence::Evidence;

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

/// The latest checkpoints a witness has cosigned.
pub struct Book<F: Files = Disk> {
    files: F,
    cosigner: Cosigner,
    /// Keys of the logs by origin.
    logs: BTreeMap<String, VerifierKey>,
    latest: BTreeMap<String, (Checkpoint, Note)>,
    /// The evidence that is kept.
    evidence: Vec<Evidence>,
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
        let mut book = Self { files, cosigner, logs, latest: BTreeMap::new(), evidence: Vec::new() };
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
        match book.evidence() {
            Ok(kept) => book.evidence = kept,
            // Whoever else has it brings it again.
            Err(error) => tracing::warn!(%error, "evidence against a log cannot be read"),
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

    /// Sets the logs whose checkpoints are cosigned from now on.
    pub fn set_logs(&mut self, keys: Vec<VerifierKey>) {
        self.logs = keys.into_iter().map(|key| (key.name().to_owned(), key)).collect();
    }

    /// What convicts logs by the keys that they have now, a pair for each.
    #[must_use]
    pub fn convicted(&self) -> Vec<Evidence> {
        self.logs.values().filter_map(|key| self.against(key)).cloned().collect()
    }

    /// Whether evidence convicts a log that is known here, by the key that it has now.
    #[must_use]
    pub fn stands(&self, evidence: &Evidence) -> bool {
        self.logs.get(evidence.origin()).is_some_and(|key| evidence.convicts(key))
    }

    fn against(&self, key: &VerifierKey) -> Option<&Evidence> {
        self.evidence.iter().find(|pair| pair.convicts(key))
    }

    /// Keeps evidence that somebody else has found. False when it convicts no log that is known here, or adds nothing.
    ///
    /// # Errors
    /// As [`Book::evidence`].
    pub fn accept(&mut self, evidence: Evidence) -> Result<bool, LogError> {
        let is_new = self.logs.get(evidence.origin()).is_some_and(|key| self.against(key).is_none());
        if !is_new || !self.stands(&evidence) {
            return Ok(false);
        }
        self.keep(evidence)?;
        Ok(true)
    }

    /// The latest checkpoint of a log.
    #[must_use]
    pub fn latest(&self, origin: &str) -> Option<&Checkpoint> {
        self.latest.get(origin).map(|(body, _)| body)
    }

    /// The latest checkpoint of the log with this key. A log under another key is another log, though it has the same name.
    fn known(&self, key: &VerifierKey) -> Option<&Checkpoint> {
        let (body, note) = self.latest.get(key.name())?;
        note.verify([key]).ok().map(|_| body)
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
        let known = self.known(key);
        let (size, root) = known.map_or((0, None), |known| (known.size, Some(known.root)));
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
        let Some((_, ours)) = self.latest.get(origin) else { return Ok(()) };
        self.keep(Evidence { ours: ours.clone(), theirs: theirs.clone() })
    }

    fn keep(&mut self, evidence: Evidence) -> Result<(), LogError> {
        tracing::error!(log = evidence.origin(), "a log has signed two histories");
        let pair = evidence.to_string();
        let name = format!("{EVIDENCE}/{}", name(&pair));
        let kept = self.files.list(EVIDENCE).map_err(|e| LogError::io("list", EVIDENCE, &e))?;
        if kept.contains(&name) || kept.len() >= MAX_EVIDENCE {
            return Ok(());
        }
        self.write(&name, &pair)?;
        self.evidence.push(evidence);
        Ok(())
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
            let pair = text.parse().ok().filter(|_| file.ends_with(&name(&text)));
            pair.ok_or_else(|| damaged(file, &"it holds no pair"))
        };
        names.iter().filter(|name| !name.ends_with(DRAFT)).map(read).collect()
    }
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
