//! Opening a log: what a crash left is put in order, and what is there is held against what was signed last.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use bytes::Bytes;

use super::super::audit::{AuditKeys, audit};
use super::super::checkpoint::Checkpoint;
use super::super::edge::Edge;
use super::super::error::LogError;
use super::super::files::{DRAFT, Files, replace};
use super::super::hash::Hash;
use super::super::note::{LogSigner, Note, VerifierKey};
use super::super::path::{TilePath, WIDTH};
use super::super::pending::{self, Tail};
use super::super::signed::LastSigned;
use super::super::tree::{self, Frontier};
use super::nodes::{LogNodes, read_tile};
use super::{CHECKPOINT, Log, ROLL};

impl<F: Files> Log<F> {
    /// Opens the log in a folder, or begins one. The torn end of a write that no append returned from is cut off.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when a file does not hold what it should, [`LogError::Fork`] when the log does not extend what was
    /// signed last: a node does not start then. [`LogError::Full`], [`LogError::Io`].
    pub fn open(files: F, signer: LogSigner, witnesses: Vec<VerifierKey>) -> Result<Self, LogError> {
        Self::open_with(files, signer, witnesses, ROLL)
    }

    /// As `open`, with another number of pending entries.
    pub(crate) fn open_with(
        mut files: F,
        signer: LogSigner,
        witnesses: Vec<VerifierKey>,
        roll: usize,
    ) -> Result<Self, LogError> {
        let signed = LastSigned::load(&files)?;
        let base = newest_segment(&mut files, signed.is_some())?;
        let (entries, pending_len) = recover(&mut files, base)?;
        let root_of = |level, index| Ok(Hash::subtree(&read_tile(&files, TilePath::tile(level, index))?));
        let mut edge = Edge::load(base, root_of)?;
        let mut frontier = Frontier::of(base, &LogNodes::of(&files, &edge))?;
        for entry in &entries {
            let leaf = Hash::leaf(entry);
            edge.push(leaf);
            frontier.push(leaf);
        }
        let mut log = Self {
            files,
            signer,
            witnesses,
            base,
            pending: entries,
            pending_len,
            edge,
            frontier,
            signed,
            published: None,
            partial: BTreeSet::new(),
            stopped: None,
            roll,
        };
        let published = log.load_checkpoint()?;
        let published_as = published.as_ref().map(|(body, _)| LastSigned { size: body.size, root: body.root });
        for last in [log.signed, published_as].into_iter().flatten() {
            log.hold_against(last)?;
        }
        // Either file may be older: both were signed.
        log.signed = log.signed.max(published_as);
        log.published = published.map(|(body, note)| (body.size, note));
        log.clean()?;
        Ok(log)
    }

    /// Refuses a log that does not extend what was signed.
    fn hold_against(&self, signed: LastSigned) -> Result<(), LogError> {
        if signed.size > self.size() {
            return Err(LogError::Fork { index: self.size() });
        }
        if tree::root(signed.size, &LogNodes::new(self))? == signed.root {
            return Ok(());
        }
        let keys = AuditKeys { log: self.key().clone(), witnesses: self.witnesses.clone() };
        let report = audit(&self.files, &keys)?;
        Err(LogError::Fork { index: report.findings.first().map_or(0, |finding| finding.index) })
    }

    /// The last checkpoint with its cosignatures, if the file has one of this log: else the next one takes its place.
    fn load_checkpoint(&self) -> Result<Option<(Checkpoint, Note)>, LogError> {
        let bytes = match self.files.read(CHECKPOINT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("read", CHECKPOINT, &error)),
        };
        let note = String::from_utf8(bytes).ok().and_then(|text| text.parse::<Note>().ok());
        let note = note.filter(|note| note.verify([self.key()]).is_ok());
        Ok(note.and_then(|note| Some((note.text().parse().ok()?, note))))
    }

    /// Removes what a crash left over, and notes which partial files there are.
    fn clean(&mut self) -> Result<(), LogError> {
        let names = self.files.list("").map_err(|e| LogError::io("list", "", &e))?;
        for name in names {
            let is_old = pending::base(&name).is_some_and(|base| base != self.base);
            if is_old || name.ends_with(DRAFT) {
                self.files.remove(&name).map_err(|e| LogError::io("remove", &name, &e))?;
            }
            self.partial.extend(TilePath::parse(&name).filter(|path| path.width.is_some()));
        }
        self.drop_unsigned_partial();
        self.drop_partial();
        Ok(())
    }

    /// Partial files are not synced: those that a crash may have torn are made again for the next checkpoint.
    fn drop_unsigned_partial(&mut self) {
        let torn: Vec<_> = self.partial.iter().filter(|path| !self.holds(path)).copied().collect();
        for path in torn {
            self.partial.remove(&path);
            let _ = self.files.remove(&path.to_string());
        }
    }

    /// Whether a partial file holds what belongs there.
    fn holds(&self, path: &TilePath) -> bool {
        let (Ok(found), Some(width)) = (self.files.read(&path.to_string()), path.width) else { return false };
        let width = usize::from(width);
        match path.level {
            Some(level) => self.edge.get(level, path.index * WIDTH, width).is_some_and(|row| Hash::bytes(row) == found),
            None => self.read(path.index * WIDTH, width).is_ok_and(|entries| {
                let read = super::bundle::split(&found);
                entries.len() == width && read.is_some_and(|read| read.iter().eq(entries.iter()))
            }),
        }
    }
}

/// The first entry of the newest pending segment; a new log gets an empty one.
fn newest_segment(files: &mut impl Files, was_signed: bool) -> Result<u64, LogError> {
    let names = files.list(pending::DIR).map_err(|e| LogError::io("list", pending::DIR, &e))?;
    if let Some(base) = names.iter().filter_map(|name| pending::base(name)).max() {
        if base % WIDTH != 0 {
            return Err(LogError::damaged(&pending::name(base), base, "its name is no multiple of 256"));
        }
        return Ok(base);
    }
    let bundle = files.read(&TilePath::bundle(0).to_string());
    if was_signed || bundle.is_ok() {
        return Err(LogError::damaged(pending::DIR, 0, "it has no segment, though the log has entries"));
    }
    let name = pending::name(0);
    let made = replace(files, &name, &[]).and_then(|()| files.sync_dir(pending::DIR)).and_then(|()| files.sync_dir(""));
    made.map_err(|e| LogError::io("create", &name, &e))?;
    Ok(0)
}

/// The entries of a segment and its length, its torn end cut off.
fn recover(files: &mut impl Files, base: u64) -> Result<(Vec<Bytes>, u64), LogError> {
    let name = pending::name(base);
    let bytes = Bytes::from(files.read(&name).map_err(|e| LogError::io("read", &name, &e))?);
    let segment = pending::read(&bytes, base);
    match segment.tail {
        Tail::Damaged => {
            let index = base + segment.entries.len() as u64;
            return Err(LogError::damaged(&name, index, "a batch does not match its checksum, and a later one does"));
        }
        Tail::Torn => {
            tracing::warn!(bytes = bytes.len() as u64 - segment.end, "cut the torn end of the transparency log");
            let cut = files.truncate(&name, segment.end).and_then(|()| files.sync(&name));
            cut.map_err(|e| LogError::io("cut", &name, &e))?;
        }
        Tail::Clean => {}
    }
    Ok((segment.entries, segment.end))
}
