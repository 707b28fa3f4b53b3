//! Reading and checking every file of a log, without trusting any.
//!
//! What is signed decides: the entries are hashed to a root, and where an entry and its tile differ, the root that was signed
//! tells which of the two is wrong. [`Rereading`] does as much of it as can be done while the log is written.

mod reread;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bundle;
use super::checkpoint::{BadCheckpoint, Checkpoint};
use super::edge::Edge;
use super::error::LogError;
use super::files::{DRAFT, Files, LOCK};
use super::hash::Hash;
use super::log::CHECKPOINT;
use super::note::{BadNote, Note, VerifierKey};
use super::path::{TilePath, WIDTH};
use super::pending::{self, Tail};
use super::signed::{self, LastSigned};
use super::tree::Frontier;
pub(crate) use reread::Rereading;

/// Findings in a report; a log that is worse off needs no longer list.
const MAX_FINDINGS: usize = 100;

/// Whose signatures a checkpoint may carry.
#[derive(Debug, Clone)]
pub struct AuditKeys {
    /// The key of the log.
    pub log: VerifierKey,
    /// The keys of its witnesses.
    pub witnesses: Vec<VerifierKey>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The first entry that is touched.
    pub index: u64,
    /// The file, below the log's folder.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

/// The outcome of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Entries that were read.
    pub entries: u64,
    /// The root over them.
    pub root: Hash,
    /// What is wrong, the cause before what follows from it.
    pub findings: Vec<Finding>,
}

impl AuditReport {
    /// Whether every file is as it was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads and checks every file of a log that nobody writes to meanwhile.
///
/// # Errors
/// [`LogError::Io`] when the folder cannot be listed; what is wrong with its files is in the report.
pub fn audit(files: &impl Files, keys: &AuditKeys) -> Result<AuditReport, LogError> {
    let names = files.list("").map_err(|e| LogError::io("list", "", &e))?;
    let mut audit = Audit::default();
    let claims = audit.claims(files, keys);
    audit.roots = claims.iter().map(|claim| (claim.size, None)).collect();
    audit.note_root();
    let base = names.iter().filter_map(|name| pending::base(name)).max();
    if base.is_none() && !names.is_empty() {
        audit.find(0, pending::DIR, "it has no segment");
    }
    let base = base.unwrap_or(0);
    (0..base / WIDTH).for_each(|index| audit.bundle(files, index));
    if !names.is_empty() {
        audit.pending(files, base);
    }
    audit.settle(&claims);
    for path in names.iter().filter_map(|name| TilePath::parse(name)).filter(|path| path.width.is_some()) {
        audit.partial(files, path, base);
    }
    for name in names.iter().filter(|name| !is_known(name)) {
        audit.find(0, name, "it is no file of a log");
    }
    audit.findings.truncate(MAX_FINDINGS);
    Ok(AuditReport { entries: audit.frontier.size(), root: audit.frontier.root(), findings: audit.findings })
}

fn is_known(name: &str) -> bool {
    let is_tree = TilePath::parse(name).is_some() || pending::base(name).is_some();
    is_tree || [CHECKPOINT, signed::NAME, LOCK].contains(&name) || name.ends_with(DRAFT)
}

/// A size and root that the log stands for.
struct Claim {
    file: &'static str,
    size: u64,
    root: Hash,
}

/// An entry and its tile that differ.
#[derive(Debug)]
struct Mismatch {
    index: u64,
    path: TilePath,
    /// The bundle cannot even be read.
    is_unreadable: bool,
}

/// An audit under way.
#[derive(Debug, Default)]
struct Audit {
    edge: Edge,
    frontier: Frontier,
    pending: Vec<Bytes>,
    /// Roots at the sizes that were signed, as the entries give them.
    roots: BTreeMap<u64, Option<Hash>>,
    mismatches: Vec<Mismatch>,
    /// Tiles above the lowest level that differ.
    above: Vec<TilePath>,
    findings: Vec<Finding>,
}

impl Audit {
    fn find(&mut self, index: u64, file: &(impl ToString + ?Sized), what: &str) {
        self.findings.push(Finding { index, file: file.to_string(), what: what.to_owned() });
    }

    /// What was signed, by both files that say so.
    fn claims(&mut self, files: &impl Files, keys: &AuditKeys) -> Vec<Claim> {
        let mut claims = Vec::new();
        match LastSigned::load(files) {
            Ok(last) => claims.extend(last.map(|last| Claim { file: signed::NAME, size: last.size, root: last.root })),
            Err(error) => self.find(0, signed::NAME, &error.to_string()),
        }
        match files.read(CHECKPOINT) {
            Ok(bytes) => match self.checkpoint(bytes, keys) {
                Ok(body) => claims.push(Claim { file: CHECKPOINT, size: body.size, root: body.root }),
                Err(what) => self.find(0, CHECKPOINT, &what),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.find(0, CHECKPOINT, &error.to_string()),
        }
        claims
    }

    fn checkpoint(&mut self, bytes: Vec<u8>, keys: &AuditKeys) -> Result<Checkpoint, String> {
        let text = String::from_utf8(bytes).map_err(|e| e.to_string())?;
        let note: Note = text.parse().map_err(|e: BadNote| e.to_string())?;
        note.verify([&keys.log]).map_err(|e| e.to_string())?;
        let keys: Vec<_> = std::iter::once(&keys.log).chain(&keys.witnesses).collect();
        if !note.is_signed_by_only(&keys) {
            self.find(0, CHECKPOINT, "a cosignature is wrong, or by an unknown witness");
        }
        note.text().parse().map_err(|e: BadCheckpoint| e.to_string())
    }

    fn push(&mut self, leaf: Hash) {
        self.edge.push(leaf);
        self.frontier.push(leaf);
        self.note_root();
    }

    fn note_root(&mut self) {
        if let Some(root) = self.roots.get_mut(&self.frontier.size()) {
            *root = Some(self.frontier.root());
        }
    }

    /// A full bundle and the tiles that it completes.
    fn bundle(&mut self, files: &impl Files, index: u64) {
        let (path, tile) = (TilePath::bundle(index), TilePath::tile(0, index));
        let first = index * WIDTH;
        let bytes = files.read(&path.to_string()).unwrap_or_default();
        let (mut leaves, is_whole) = leaves(&bytes);
        let hashes = files.read(&tile.to_string()).ok().and_then(|bytes| Hash::row(&bytes));
        let hashes = hashes.filter(|hashes| hashes.len() == 256);
        match &hashes {
            Some(hashes) => {
                let same = hashes.iter().zip(&leaves).take_while(|(hash, leaf)| hash == leaf).count();
                if same < 256 || !is_whole {
                    self.mismatches.push(Mismatch { index: first + same as u64, path, is_unreadable: !is_whole });
                }
            }
            None => {
                self.find(first, &tile, "it is missing or does not hold 256 hashes");
            }
        }
        if !is_whole {
            if hashes.is_none() {
                self.find(first + leaves.len() as u64, &path, "it is missing or does not hold 256 entries");
            }
            // The tile stands in, so that the rest can be checked.
            leaves = hashes.unwrap_or_else(|| vec![Hash::empty(); 256]);
        }
        for leaf in leaves {
            self.push(leaf);
        }
        let is_bad = |(path, row): &(TilePath, &[Hash])| {
            path.level != Some(0) && files.read(&path.to_string()).ok() != Some(Hash::bytes(row))
        };
        self.above.extend(self.edge.full().filter(is_bad).map(|(path, _)| path));
        self.edge.drop_full();
    }

    fn pending(&mut self, files: &impl Files, base: u64) {
        let name = pending::name(base);
        let segment = pending::read(&files.read(&name).unwrap_or_default().into(), base);
        let next = base + segment.entries.len() as u64;
        match segment.tail {
            Tail::Clean => {}
            Tail::Torn => self.find(next, &name, "it ends with a torn or changed batch"),
            Tail::Damaged => self.find(next, &name, "a batch does not match its checksum"),
        }
        self.pending = segment.entries;
        for at in 0..self.pending.len() {
            let leaf = Hash::leaf(&self.pending[at]);
            self.push(leaf);
        }
    }

    /// Holds the entries against what was signed, and says which files are wrong.
    fn settle(&mut self, claims: &[Claim]) {
        let is_right = |claim: &Claim| self.roots.get(&claim.size) == Some(&Some(claim.root));
        let vouched = claims.iter().filter(|claim| is_right(claim)).map(|claim| claim.size).max().unwrap_or(0);
        let wrong: Vec<_> = claims.iter().filter(|claim| !is_right(claim)).map(|claim| claim.file).collect();
        let mut is_entry_bad = false;
        let mut found = Vec::new();
        for Mismatch { index, path, is_unreadable } in std::mem::take(&mut self.mismatches) {
            let is_tile = !is_unreadable && index < vouched;
            is_entry_bad |= !is_tile;
            let file = if is_tile { TilePath { level: Some(0), ..path } } else { path };
            let what = if is_tile { "a hash is not that of its entry" } else { "an entry does not have its hash" };
            found.push(Finding { index, file: file.to_string(), what: what.to_owned() });
        }
        // What cannot be read comes first: the rest follows from it.
        let start = if wrong.is_empty() { 0 } else { self.findings.len() };
        self.findings.splice(start..start, found);
        if !is_entry_bad {
            for path in std::mem::take(&mut self.above) {
                self.find(path.first_entry(), &path, "a hash is not that of the tile below");
            }
        }
        let size = self.frontier.size();
        for file in wrong {
            self.find(size, file, "the entries have another root");
        }
    }

    /// A partial file must be the beginning of the full one, or of what is pending.
    fn partial(&mut self, files: &impl Files, path: TilePath, base: u64) {
        let width = usize::from(path.width.unwrap_or(0));
        let found = files.read(&path.to_string()).unwrap_or_default();
        let count = base >> (8 * u32::from(path.level.unwrap_or(0)));
        let full = TilePath { width: None, ..path };
        let expected = match path.level {
            _ if (path.index + 1) * WIDTH <= count => beginning(files, full, width),
            Some(level) => self.edge.get(level, path.index * WIDTH, width).map(Hash::bytes),
            None => usize::try_from((path.index * WIDTH).saturating_sub(base)).ok().and_then(|at| {
                let entries = self.pending.get(at..at + width)?;
                let mut bytes = Vec::new();
                entries.iter().try_for_each(|entry| bundle::put(&mut bytes, entry)).ok()?;
                Some(bytes)
            }),
        };
        if expected != Some(found) {
            self.find(path.first_entry(), &path, "it is not the beginning of its tile");
        }
    }
}

/// The first `width` hashes or entries of a full file.
fn beginning(files: &impl Files, full: TilePath, width: usize) -> Option<Vec<u8>> {
    let bytes = files.read(&full.to_string()).ok()?;
    let len = match full.level {
        Some(_) => width * 32,
        None => bundle::split(&bytes)?.iter().take(width).map(|entry| entry.len() + 2).sum(),
    };
    bytes.get(..len).map(<[u8]>::to_vec)
}

/// The hashes of a bundle's entries, and whether it holds 256 and nothing else.
fn leaves(bytes: &[u8]) -> (Vec<Hash>, bool) {
    if let Some(entries) = bundle::split(bytes) {
        return (entries.iter().map(|entry| Hash::leaf(entry)).collect(), entries.len() == 256);
    }
    // Up to where it breaks, to name the entry.
    let (mut hashes, mut rest) = (Vec::new(), bytes);
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let Some((entry, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len))) else { break };
        hashes.push(Hash::leaf(entry));
        rest = behind;
    }
    (hashes, false)
}
