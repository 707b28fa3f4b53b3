//! The log on disk.
//!
//! | file | holds | safe |
//! |---|---|---|
//! | `pending/<n>` | the newest entries, from `n` on | before an append returns |
//! | `tile/entries/<N>`, `tile/<L>/<N>` | 256 entries or hashes each, never changed | before the pending segment goes |
//! | `signed` | size and root that were signed last | before the signature leaves |
//! | `checkpoint`, `…/<N>.p/<W>` | what clients read up to the last checkpoint | made again from the others |
//!
//! A crash can lose only what no append, and no signature, has spoken of yet.

mod nodes;
mod open;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::audit::{AuditKeys, AuditReport, audit};
use super::bundle::{self, MAX_ENTRY};
use super::checkpoint::Checkpoint;
use super::edge::Edge;
use super::error::LogError;
use super::files::{Disk, Files, folder, replace};
use super::hash::Hash;
use super::note::{BadNote, LogSigner, Note, SignatureLine, VerifierKey};
use super::path::{TilePath, WIDTH};
use super::pending;
use super::proof::TlogProof;
use super::signed::{self, LastSigned};
use super::tree::{self, Frontier};
use nodes::LogNodes;

/// The file with the last checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Entries that are pending before tiles are made of them. A larger number syncs less often and reads more at a start.
const ROLL: usize = 16 * 1024;
/// Bytes likewise.
const ROLL_BYTES: u64 = 32 << 20;
/// When tiles cannot be written, pending entries are held up to this multiple; then nothing more is taken.
const HOLD: usize = 4;

/// A log that is open for appending. One thread has it.
pub struct Log<F: Files = Disk> {
    files: F,
    signer: LogSigner,
    witnesses: Vec<VerifierKey>,
    /// Entries in full bundles: a multiple of 256.
    base: u64,
    /// The entries behind them, which are in the pending segment.
    pending: Vec<Bytes>,
    pending_len: u64,
    edge: Edge,
    frontier: Frontier,
    signed: Option<LastSigned>,
    /// The last published checkpoint and its size: that of `signed`, unless publishing failed.
    published: Option<(u64, Note)>,
    /// Partial files on disk whose full tile is not there yet.
    partial: BTreeSet<TilePath>,
    /// Set once a file may not hold what was written to it.
    stopped: Option<LogError>,
    roll: usize,
}

impl<F: Files> std::fmt::Debug for Log<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({}, {} entries)", self.signer.public().name(), self.size())
    }
}

impl<F: Files> Log<F> {
    /// Number of entries; all of them are safe.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over all entries.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The last signed checkpoint, with the cosignatures that came so far.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Note> {
        self.published.as_ref().map(|(_, note)| note)
    }

    /// The key that signs; its name is the log's origin.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        self.signer.public()
    }

    /// Witnesses whose cosignatures are taken.
    #[must_use]
    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// Sets the witnesses whose cosignatures are taken from now on.
    pub fn set_witnesses(&mut self, keys: Vec<VerifierKey>) {
        self.witnesses = keys;
    }

    /// Appends entries with one sync; when this returns they survive the loss of power. Gives the number of the first.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] and [`LogError::Full`]: none was appended, and the log goes on. After any other error it stops, and
    /// whether they were appended is known after the next start.
    pub fn append(&mut self, entries: &[Bytes]) -> Result<u64, LogError> {
        self.check()?;
        if let Some(entry) = entries.iter().find(|entry| entry.len() > MAX_ENTRY) {
            return Err(LogError::TooLarge { bytes: entry.len(), max: MAX_ENTRY });
        }
        let first = self.size();
        if entries.is_empty() {
            return Ok(first);
        }
        if self.is_due() {
            self.roll_if_possible()?;
        }
        self.write(&pending::encode(first, entries)?)?;
        for entry in entries {
            let leaf = Hash::leaf(entry);
            self.edge.push(leaf);
            self.frontier.push(leaf);
        }
        self.pending.extend_from_slice(entries);
        Ok(first)
    }

    /// Ends the log, since it cannot be vouched for: from now on it takes nothing and signs nothing.
    pub(crate) fn halt(&mut self, error: &LogError) {
        self.stopped.get_or_insert(LogError::Stopped { reason: error.to_string() });
    }

    /// The entries in full files, and the root over them.
    ///
    /// # Errors
    /// [`LogError::Damaged`].
    pub(crate) fn full(&self) -> Result<(u64, Hash), LogError> {
        Ok((self.base, tree::root(self.base, &LogNodes::new(self))?))
    }

    fn check(&self) -> Result<(), LogError> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    fn stop<T>(&mut self, error: LogError) -> Result<T, LogError> {
        self.stopped = Some(LogError::Stopped { reason: error.to_string() });
        Err(error)
    }

    /// Writes a batch behind the pending ones, or leaves the segment as it was.
    fn write(&mut self, batch: &[u8]) -> Result<(), LogError> {
        let name = pending::name(self.base);
        if let Err(error) = self.files.write_at(&name, self.pending_len, batch) {
            let error = LogError::io("write", &name, &error);
            let cut = self.files.truncate(&name, self.pending_len);
            // A full disk is to be lived with. Whatever else it is, the file cannot be relied on.
            return if cut.is_ok() && matches!(error, LogError::Full { .. }) { Err(error) } else { self.stop(error) };
        }
        if let Err(error) = self.files.sync(&name) {
            // What the disk has of it nobody knows: a second sync would not tell.
            return self.stop(LogError::io("sync", &name, &error));
        }
        self.pending_len += batch.len() as u64;
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.pending.len() >= self.roll || self.pending_len >= ROLL_BYTES
    }

    /// Makes tiles of the pending entries. A full disk puts that off for a while.
    fn roll_if_possible(&mut self) -> Result<(), LogError> {
        match self.roll() {
            Err(LogError::Full { .. }) if self.pending.len() < HOLD * self.roll => Ok(()),
            Err(error @ LogError::Full { .. }) => Err(error),
            Err(error) => self.stop(error),
            Ok(()) => Ok(()),
        }
    }

    /// Writes the full bundles and tiles, then a new segment with the rest. The new segment's name is what makes it so.
    fn roll(&mut self) -> Result<(), LogError> {
        let full = self.pending.len() - self.pending.len() % 256;
        let mut folders = BTreeSet::new();
        let bundles = self.pending[..full].chunks(256).zip(self.base / WIDTH..);
        for (entries, index) in bundles {
            let mut bundle = Vec::new();
            entries.iter().try_for_each(|entry| bundle::put(&mut bundle, entry))?;
            put(&mut self.files, TilePath::bundle(index), &bundle, &mut folders)?;
        }
        for (path, hashes) in self.edge.full() {
            put(&mut self.files, path, &Hash::bytes(hashes), &mut folders)?;
        }
        for folder in &folders {
            self.files.sync_dir(folder).map_err(|e| LogError::io("sync", folder, &e))?;
        }
        let (old, base) = (pending::name(self.base), self.base + full as u64);
        let rest = &self.pending[full..];
        let segment = if rest.is_empty() { Vec::new() } else { pending::encode(base, rest)? };
        let new = pending::name(base);
        replace(&mut self.files, &new, &segment).map_err(|e| LogError::io("write", &new, &e))?;
        // From here on the new segment may be found after a crash: it is the one to go on with, also if the next step fails.
        let synced = self.files.sync_dir(pending::DIR);
        self.pending.drain(..full);
        (self.base, self.pending_len) = (base, segment.len() as u64);
        self.edge.drop_full();
        if let Err(error) = synced {
            return self.stop(LogError::io("sync", pending::DIR, &error));
        }
        // Whatever is left over here is removed at the next start.
        let _ = self.files.remove(&old);
        self.drop_partial();
        Ok(())
    }

    /// Removes partial files whose full one is on disk: they are of no more use.
    fn drop_partial(&mut self) {
        let Self { files, partial, base, .. } = self;
        partial.retain(|path| {
            let count = *base >> (8 * u32::from(path.level.unwrap_or(0)));
            let is_needed = (path.index + 1) * WIDTH > count;
            if !is_needed {
                let _ = files.remove(&path.to_string());
            }
            is_needed
        });
    }

    /// Signs the log as it is, and publishes the checkpoint and the partial tiles it needs.
    ///
    /// # Errors
    /// [`LogError::Fork`] when that would contradict what was signed last; [`LogError::Full`], [`LogError::Io`]: no signature left.
    pub fn sign(&mut self) -> Result<Note, LogError> {
        self.check()?;
        let now = LastSigned { size: self.size(), root: self.root() };
        if self.signed.is_some_and(|last| last != now && last.size >= now.size) {
            return Err(LogError::Fork { index: now.size });
        }
        if let Some((_, note)) = self.published.as_ref().filter(|(size, _)| *size == now.size) {
            return Ok(note.clone());
        }
        let stored = replace(&mut self.files, signed::NAME, now.encode().as_bytes());
        stored.and_then(|()| self.files.sync_dir("")).map_err(|e| LogError::io("write", signed::NAME, &e))?;
        self.signed = Some(now);
        self.publish_partial()?;
        let body = Checkpoint { origin: self.key().name().to_owned(), size: now.size, root: now.root };
        let note = self.signer.checkpoint(&body);
        self.publish(now.size, note.clone())?;
        Ok(note)
    }

    fn publish(&mut self, size: u64, note: Note) -> Result<(), LogError> {
        let replaced = replace(&mut self.files, CHECKPOINT, note.to_string().as_bytes());
        replaced.map_err(|e| LogError::io("write", CHECKPOINT, &e))?;
        self.published = Some((size, note));
        Ok(())
    }

    /// Writes the incomplete tiles and what is complete but not in full files yet.
    fn publish_partial(&mut self) -> Result<(), LogError> {
        if self.pending.len() >= 256 {
            self.roll()?;
        }
        let width = u8::try_from(self.pending.len()).unwrap_or(u8::MAX);
        let mut partial: Vec<_> = self.edge.partial().map(|(path, hashes)| (path, Hash::bytes(hashes))).collect();
        if width > 0 {
            let mut bundle = Vec::new();
            self.pending.iter().try_for_each(|entry| bundle::put(&mut bundle, entry))?;
            partial.push((TilePath::bundle(self.base / WIDTH).partial(width), bundle));
        }
        for (path, bytes) in partial {
            if !self.partial.contains(&path) {
                let name = path.to_string();
                replace(&mut self.files, &name, &bytes).map_err(|e| LogError::io("write", &name, &e))?;
                self.partial.insert(path);
            }
        }
        Ok(())
    }

    /// Adds cosignatures to the checkpoint; those of unknown witnesses are ignored. Gives how many witnesses have cosigned.
    ///
    /// # Errors
    /// [`LogError::BadCosignature`] when one by a known witness does not fit the current checkpoint: none is added.
    pub fn add_cosignatures(&mut self, lines: &[SignatureLine]) -> Result<usize, LogError> {
        let bad = |detail: String| LogError::BadCosignature { detail };
        let (size, published) = self.published.clone().ok_or_else(|| bad("nothing was signed yet".to_owned()))?;
        let mut note = published.clone();
        for line in lines {
            let single = Note::new(note.text().to_owned(), line.clone());
            match single.verify(&self.witnesses) {
                Ok(_) => note.add(line.clone()),
                Err(BadNote::Unsigned) => {}
                Err(error) => return Err(bad(error.to_string())),
            }
        }
        if note != published {
            self.publish(size, note)?;
        }
        Ok(self.cosigned())
    }

    /// How many witnesses have cosigned the last checkpoint.
    #[must_use]
    pub fn cosigned(&self) -> usize {
        let signed = self.checkpoint().and_then(|note| note.verify(&self.witnesses).ok());
        signed.map_or(0, |signed| signed.len())
    }

    /// Size of the last checkpoint.
    #[must_use]
    pub fn checkpoint_size(&self) -> u64 {
        self.published.as_ref().map_or(0, |(size, _)| *size)
    }

    /// Proves that entry `index` is in the tree of `size` entries.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`], [`LogError::Damaged`].
    pub fn prove(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        self.within(size)?;
        tree::prove_inclusion(index, size, &LogNodes::new(self))
    }

    /// Proves that the tree of `size` entries begins with the tree of `old` entries.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`], [`LogError::Damaged`].
    pub fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        self.within(size)?;
        tree::prove_consistency(old, size, &LogNodes::new(self))
    }

    /// The proof file of an entry, under the last checkpoint.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] when no checkpoint covers the entry yet, [`LogError::Damaged`].
    pub fn proof(&self, index: u64) -> Result<TlogProof, LogError> {
        let (size, note) = self.published.clone().ok_or(LogError::OutOfRange { asked: index, size: 0 })?;
        let hashes = self.prove(index, size)?;
        let extra = self.read(index, 1)?.pop().map(|entry| entry.to_vec());
        Ok(TlogProof { extra, index, hashes, note })
    }

    /// Entries from `from` on, at most `limit` and at most those of one bundle.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`], [`LogError::Damaged`].
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Bytes>, LogError> {
        self.within(from)?;
        if let Some(at) = from.checked_sub(self.base) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            return Ok(self.pending.iter().skip(at).take(limit.min(256)).cloned().collect());
        }
        let path = TilePath::bundle(from / WIDTH);
        let bytes = self.files.read(&path.to_string()).map_err(|e| LogError::io("read", &path.to_string(), &e))?;
        let bytes = Bytes::from(bytes);
        let entries = bundle::split(&bytes).filter(|entries| entries.len() == 256);
        let entries =
            entries.ok_or_else(|| LogError::damaged(&path, path.first_entry(), "it does not hold 256 entries"))?;
        let skip = usize::try_from(from % WIDTH).unwrap_or(0);
        Ok(entries.into_iter().skip(skip).take(limit).map(|entry| bytes.slice_ref(entry)).collect())
    }

    fn within(&self, size: u64) -> Result<(), LogError> {
        if size > self.size() { Err(LogError::OutOfRange { asked: size, size: self.size() }) } else { Ok(()) }
    }

    /// Reads and checks every file.
    ///
    /// # Errors
    /// [`LogError::Io`]; what is wrong with the log is in the report.
    pub fn audit(&self) -> Result<AuditReport, LogError> {
        audit(&self.files, &AuditKeys { log: self.key().clone(), witnesses: self.witnesses.clone() })
    }
}

/// Writes a file of the tree; its name is safe after a sync of its folder, which is noted.
fn put(files: &mut impl Files, path: TilePath, bytes: &[u8], folders: &mut BTreeSet<String>) -> Result<(), LogError> {
    let name = path.to_string();
    replace(files, &name, bytes).map_err(|e| LogError::io("write", &name, &e))?;
    folders.insert(folder(&name).to_owned());
    Ok(())
}

#[cfg(test)]
mod tests;
